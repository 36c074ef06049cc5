"""The rooms of the package, as docs/architecture.md lists them: who may import whom. No Spark."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ap_spark"
PAGE = ROOT / "docs" / "architecture.md"


def listed() -> list[str]:
    """Return the modules in the order of the page's table, as paths within the package."""
    return re.findall(r"^\| `([\w/]+\.py)` \|", PAGE.read_text(), re.M)


def room_of(module: str) -> str:
    """Return the room of a module: its directory, or the module itself.

    >>> room_of("io/writer.py"), room_of("cli.py")
    ('io', 'cli')
    """
    return module.partition("/")[0].removesuffix(".py")


def imports_of(module: str, modules: set[str]) -> set[str]:
    """Return the modules of the package that one imports anywhere: inside functions and for type checking too."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, *path = name.split(".")
            if package == "ap_spark":
                found.add(module_named(path, modules))
    return found - {module}


def module_named(path: list[str], modules: set[str]) -> str:
    """Return the module that a dotted name is, or is in: its last parts may name something within."""
    for length in range(len(path), -1, -1):
        for candidate in ("/".join(path[:length]) + ".py", "/".join([*path[:length], "__init__.py"])):
            if candidate in modules:
                return candidate
    raise AssertionError(path)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    return {module: imports_of(module, modules) for module in sorted(modules)}


def test_the_page_lists_every_module_once(imports: dict[str, set[str]]) -> None:
    """A directory's `__init__.py` is listed where it imports something."""
    page = listed()
    assert len(page) == len(set(page))
    needed = {module for module, found in imports.items() if found or not module.endswith("/__init__.py")}
    assert needed <= set(page), f"write into the table of {PAGE.name} what these hold"
    assert set(page) <= imports.keys(), f"take out of the table of {PAGE.name} what is not there"
    rooms = [room_of(module) for module in page]
    assert [room for n, room in enumerate(rooms) if room not in rooms[:n]] == [
        room for n, room in enumerate(rooms) if n == 0 or room != rooms[n - 1]
    ], "the modules of one room stand together"


def test_modules_import_from_rooms_above_their_own(imports: dict[str, set[str]]) -> None:
    page = listed()
    place = {room: n for n, room in reversed(list(enumerate(map(room_of, page))))}
    upwards = [
        f"{module} imports {imported}, which is further down in {PAGE.name}"
        for module, found in imports.items()
        for imported in sorted(found)
        if place[room_of(imported)] > place[room_of(module)]
    ]
    assert not upwards, "\n".join(upwards)


def test_no_modules_import_each_other(imports: dict[str, set[str]]) -> None:
    TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_architecture.PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import ap_spark.b\n"
        "if TYPE_CHECKING:\n    from ap_spark.room.c import name\n"
        "def f():\n    from ap_spark.room import d, name\n"
    )
    modules = {"a.py", "b.py", "room/__init__.py", "room/c.py", "room/d.py", "__init__.py"}
    assert imports_of("a.py", modules) == {"b.py", "room/c.py", "room/d.py", "room/__init__.py"}
