"""A driver killed at any moment: the next run resumes, bitwise identical to an undisturbed one (make test-kills)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ap_spark.cli import main
from tests.conftest import INTERPRETING, ROOT, random_edges
from tests.outputs import result, summary
from tests.test_jobs import ENVIRONMENT, finish, start

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("spark")]

MOMENTS = ("starting", "iterating", "snapshot", "publishing")
KILLS = [(number, MOMENTS[number % len(MOMENTS)]) for number in range(20)]
LATER = {"starting": 0.5, "iterating": 0.1}  # kill at most this share of a run's seconds after a phase's beginning
AT_ONCE = 0.01  # after that of another


def reached(moment: str, directory: Path) -> bool:
    """Whether a run has come to a phase, seen from outside."""
    if moment == "starting":
        return True
    if moment == "publishing":
        return any(directory.glob(".out.staging.*"))
    snapshots = (directory / "checkpoint").glob("snapshot-*")
    whole = [(path / "_SUCCESS").exists() for path in snapshots]
    return any(whole) if moment == "iterating" else not all(whole)


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "edges.parquet"
    table = random_edges(np.random.default_rng(9), 80, 0.3, symmetric=False)
    pd.DataFrame(table, columns=["i", "k", "s"]).to_parquet(path)
    return path


def arguments(edges: Path, directory: Path) -> list[str]:
    """Two blocks, so that iterations take a while, and many snapshots."""
    given = ["cluster", str(edges), "--edges", "-p", "-3", "-c", "12", "--partitions", "2", "--output"]
    return [*given, str(directory / "out"), "--checkpoint", str(directory / "checkpoint"), "--checkpoint-every", "4"]


@pytest.fixture(scope="module")
def undisturbed(edges: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Its output, and its seconds."""
    directory = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    finish(["ap-spark", *arguments(edges, directory), *INTERPRETING], cwd=directory)
    seconds = time.monotonic() - began
    assert not list((directory / "checkpoint").iterdir()), "snapshots go with the end of the run"
    return directory / "out", seconds


@pytest.fixture
def watch(tmp_path: Path) -> Any:
    """Somebody who reads the output all the while; called at the end, he tells what he has seen."""
    report = tmp_path / "seen.json"
    process = subprocess.Popen([sys.executable, "-m", "tests.watcher", str(tmp_path / "out"), str(report)], cwd=ROOT)

    def seen() -> dict[str, int]:
        process.terminate()
        process.wait(30)
        found: dict[str, int] = json.loads(report.read_text())
        report.unlink()
        return found

    yield seen
    process.kill()


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        pytest.param(number, moment, marks=[pytest.mark.long] if number >= 2 * len(MOMENTS) else [])
        for number, moment in KILLS
    ],
)
def test_a_killed_driver_is_made_up_for_by_the_next(
    edges: Path,
    undisturbed: tuple[Path, float],
    watch: Callable[[], dict[str, int]],
    tmp_path: Path,
    number: int,
    moment: str,
) -> None:
    expected, seconds = undisturbed
    chance = random.Random(number)
    again = arguments(edges, tmp_path)
    if over := chance.random() < 0.5:  # an older output is replaced
        again.append("--overwrite")
        older = Path(shutil.copytree(expected, tmp_path / "older")) / "summary.json"
        older.write_text(older.read_text().replace('"netsim": -', '"netsim": -1'))
        older.with_name(".summary.json.crc").unlink()
        older.parent.rename(tmp_path / "out")
    process = start(["ap-spark", *again, *INTERPRETING], cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 200
    while not reached(moment, tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(chance.random() * seconds * LATER.get(moment, AT_ONCE))
    ended = process.poll()
    if ended is None and number % 8 < 4:
        process.kill()  # Python alone: Java notices, and ends
    elif ended is None:
        os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert ended is None or (ended == 0 and moment == "publishing"), f"over before it could be killed: {output}"
    published = (tmp_path / "out").exists() and not over  # killed in the last moment, or too late
    assert main([*again, "--overwrite"] if published else again) == 0
    seen = watch()
    assert result(tmp_path / "out") == result(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "out"]
    assert not list((tmp_path / "checkpoint").iterdir())
    assert seen.pop("partial", 0) == 0, seen
    assert any(str(summary(tmp_path / "out")["netsim"]) in found for found in seen), f"the result was seen: {seen}"
    print(f"killed {moment}: {'in time' if ended is None else 'too late'}, seen {seen}")


@pytest.mark.parametrize(
    "moment",
    [pytest.param("graph:", marks=pytest.mark.long), "level 0:", pytest.param("level 1:", marks=pytest.mark.long)],
)
def test_a_driver_killed_at_any_level_is_made_up_for_by_the_next(tmp_path: Path, moment: str) -> None:
    """The first level resumes from its snapshots; what comes after it is computed again."""
    rng = np.random.default_rng(31)
    x = 6.0 * rng.normal(size=(30, 3))[rng.integers(0, 30, 3000)] + rng.normal(size=(3000, 3))
    pd.DataFrame(x, columns=["x", "y", "z"]).to_parquet(tmp_path / "points.parquet")
    given = [
        "cluster",
        "points.parquet",
        "--neighbors",
        "20",
        "--clusters",
        "10",
        "--verbose",
        "--checkpoint",
        "checkpoint",
    ]
    given += ["--checkpoint-every", "10", *INTERPRETING]
    finish(["ap-spark", *given, "--output", "expected"], cwd=tmp_path)
    log = tmp_path / "log"
    with log.open("w") as told:
        command = ["ap-spark", *given, "--output", "out"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=told, stderr=told, start_new_session=True
        )
        deadline = time.monotonic() + 200
        while f" {moment}" not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert process.poll() is None, log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    assert not (tmp_path / "out").exists()
    finish(["ap-spark", *given, "--output", "out"], cwd=tmp_path)
    assert result(tmp_path / "out") == result(tmp_path / "expected")
    for name in ("levels", "tree"):
        first, again = (pq.read_table(tmp_path / output / name).to_pandas() for output in ("expected", "out"))
        order = list(first.columns)
        assert first.sort_values(order).to_numpy().tolist() == again.sort_values(order).to_numpy().tolist()
    assert not list((tmp_path / "checkpoint").iterdir())
