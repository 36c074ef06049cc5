"""The command line without Spark: help, examples, completion, and mistakes in the names of commands and choices."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ap_spark.parser import make_parser, parse
from tests.conftest import INTERPRETED, ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def examples(text: str) -> list[str]:
    """The lines of a help that are to be pasted into a shell."""
    return [line.strip() for line in text.splitlines() if re.match(r" {2,4}(ap-spark|printf|eval) ", line)]


def help_of(command: str) -> str:
    """The help of a command; of all without one."""
    parser = make_parser()
    return (parser.commands[command] if command else parser).format_help()


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["cluster", "--help"], ["completion", "bash"], ["cluster", "x", "--bogus"], ["--version"], []],
    ids=" ".join,
)
def test_what_needs_no_spark_does_not_import_it(arguments: list[str]) -> None:
    script = (
        "import atexit, sys; from ap_spark.__main__ import main; sys.argv[1:] = " + repr(arguments) + "\n"
        "atexit.register(lambda: print(sorted({'pyspark', 'pandas', 'scipy'} & sys.modules.keys())))\nmain()"
    )
    assert python("-c", script).stdout.splitlines()[-1] == "[]"


def test_python_m_ap_spark_is_the_command() -> None:
    done = python("-m", "ap_spark", "graph", "--help")
    assert (done.returncode, done.stdout) == (0, help_of("graph"))
    assert python("-m", "ap_spark", "graph").returncode == 2


@pytest.mark.parametrize("command", ["", "cluster", "graph", "assign", "report", "animate", "completion"])
def test_the_help_has_examples_that_are_right(command: str) -> None:
    found = [shlex.split(line) for line in examples(help_of(command))]
    commands = [words[1:] for words in found if words[0] == "ap-spark"]
    assert len(found) >= 2
    for words in commands:
        if command != "completion":
            assert parse([word for word in words if word != "--config" and not word.endswith(".toml")])
    if command:
        assert all(words[0] == command for words in commands)
    assert max(map(len, help_of(command).splitlines())) <= 120


def test_the_first_help_has_all_commands_and_three_to_begin_with() -> None:
    assert all(f"\n    {name}" in help_of("") for name in make_parser().commands)
    assert [line.split()[1] for line in examples(help_of("")) if line.startswith("ap-spark")] == [
        *("graph", "cluster", "cluster"),
    ]


PASTED = """
import shlex, subprocess, sys
from ap_spark._spark.session import start_session
from ap_spark.cli import main
session = start_session("local[2]", sys.argv[1:])
for line in sys.stdin.read().splitlines():
    words = shlex.split(line)
    code = main(words[1:]) if words[0] == "ap-spark" else subprocess.run(line, shell=True).returncode
    assert code == 0, line
session.stop()
"""


@pytest.mark.programs
def test_the_examples_run_when_pasted(tmp_path: Path) -> None:
    """In one session, which they all join."""
    lines = [
        line
        for command in ("", "cluster", "graph", "assign", "report", "animate")
        for line in examples(help_of(command))
    ]
    done = subprocess.run(
        [sys.executable, "-c", PASTED, *INTERPRETED],
        input="\n".join(lines),
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = {"clusters", "few", "four", "near", "pairs", "night", "similarities", "assigned", "near-ones"}
    outputs |= {"page", "another-page", "messages.gif", "preference.gif"}
    assert {path.name for path in tmp_path.iterdir()} - {
        "points.csv",
        "new.csv",
        "scores.csv",
        "night.toml",
        "snapshots",
    } == outputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clustr", "x"], "(choose from 'cluster', 'graph', 'assign', 'report', 'animate', 'completion') (did"),
        (["--output", "x", "cluster"], "first, one of cluster, graph, assign, report, animate, completion, and op"),
        (["README.md"], ": the command comes first: ap-spark cluster README.md (see ap-spark --help)"),
        (["cluster", "x", "--metric", "L2"], "'dot') (did you mean 'euclidean'?) (see ap-spark cluster --help)"),
        (["cluster", "x", "--metric", "manhatten"], "(did you mean 'manhattan'?)"),
        (["cluster", "x", "--scale", "z-score"], "(did you mean 'standard'?)"),
        (["cluster", "x", "--output-format", "jsonl"], "(did you mean 'json'?)"),
        (["graph", "x", "--if-exists", "overwrite"], "(did you mean 'replace'?)"),
        (["cluster", "x", "--dryrun"], "unknown option --dryrun (did you mean '--dry-run'?)"),
        (["completion", "bahs"], "argument SHELL: invalid choice: 'bahs' (choose from 'bash', 'zsh', 'fish') (did"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_with_what_may_be_meant(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="2"):
        parse(arguments)
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The completion for each shell, in a file."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(python("-m", "ap_spark", "completion", shell).stdout)
    return {shell: folder / shell for shell in ("bash", "zsh", "fish")}


COMPLETED = {
    "": ["cluster", "graph", "assign", "report", "animate", "completion"],
    "cl": ["cluster"],
    "completion ": ["bash", "zsh", "fish"],
    "cluster x.csv --metric co": ["cosine", "correlation"],
    "cluster x.csv --max": ["--max-iter"],
    "cluster x.csv --output out --dry": ["--dry-run"],
    "cluster --no-ed": [],
    "graph --checkp": [],
    "cluster some.": ["some.csv"],
    "cluster some.csv --output so": ["some"],
    "cluster --config some.": ["some.csv"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "some.csv").touch()
    (tmp_path / "some").mkdir()
    return tmp_path


@pytest.mark.parametrize("line", COMPLETED)
def test_bash_completes(script: dict[str, Path], folder: Path, line: str) -> None:
    words = ["ap-spark", *line.split(" ")]
    asked = f"""source {script["bash"]}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}
        _shtab_ap_spark; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", asked], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == COMPLETED[line]


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
@pytest.mark.parametrize("line", COMPLETED)
def test_fish_completes(script: dict[str, Path], folder: Path, line: str) -> None:
    asked = ["fish", "--no-config", "-c", f"source {script['fish']}; complete -C {shlex.quote('ap-spark ' + line)}"]
    done = subprocess.run(asked, cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    found = [answer.split("\t")[0].removesuffix("/") for answer in done.stdout.splitlines()]
    assert sorted(found) == sorted(COMPLETED[line])


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_reads_it(script: dict[str, Path]) -> None:
    asked = f'autoload -U compinit && compinit -u -D && eval "$(<{script["zsh"]})" && print $_comps[ap-spark]'
    done = subprocess.run(["zsh", "-f", "-c", asked], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "_shtab_ap_spark\n"
    assert not done.stderr
