"""Options from a file: what it may hold, what wins, and what is refused before Spark starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ap_spark.cli import main
from ap_spark.options import record
from ap_spark.parser import parse
from ap_spark.settings import Run, Settings, Similarity
from tests.conftest import ROOT

NIGHT = """
neighbors = 30
checkpoint = "snapshots"        # `graph` has no such option
conf = ["spark.a=1", "spark.b=2"]
jitter = false

[cluster]
neighbors = 50
damping = 0.9
output = "out/night"
no-polish = true
quiet = true
edges = false
checkpoint-every = 50
id-column = 0

[graph]
min-similarity = -1e3
"""


@pytest.fixture
def night(tmp_path: Path) -> str:
    (tmp_path / "night.toml").write_text(NIGHT)
    return str(tmp_path / "night.toml")


def test_the_table_of_the_command_wins_over_the_top_and_the_command_line_over_both(night: str) -> None:
    given = parse(["cluster", "x.csv", "--config", night, "-d", "0.8", "--no-quiet", "--conf", "spark.b=3"])
    assert (given.neighbors, given.damping, given.output, given.quiet) == (50, 0.8, "out/night", False)
    assert (given.jitter, given.polish, given.checkpoint, given.checkpoint_every) == (False, False, "snapshots", "50")
    assert given.id_column == "0"
    assert record(Run, given).conf == ["spark.a=1", "spark.b=2", "spark.b=3"], "Spark takes the last"
    graph = parse(["graph", "x.csv", f"--config={night}", "--neighbors", "all"])
    assert (graph.neighbors, graph.min_similarity, graph.damping) == (None, -1000.0, None)


def test_a_file_is_as_good_as_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('max-iter = 7\nscale = "minmax"\nneighbors = "all"\npreference = -3\n')
    given = parse(["graph", "x.csv", "--config", str(tmp_path / "a.toml")])
    typed = parse(["graph", "x.csv", "-i", "7", "--scale", "minmax", "--neighbors", "all", "-p", "-3"])
    for group in (Settings, Similarity):
        assert record(group, given) == record(group, typed)


def test_the_file_of_the_page_is_right(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs" / "operating.md").read_text(), re.M | re.S)
    (tmp_path / "night.toml").write_text(text)
    given = parse(["cluster", "x.csv", "--output", "o", "--config", str(tmp_path / "night.toml")])
    assert (given.neighbors, given.metric, given.polish, given.if_exists) == (50, "cosine", False, "skip")
    assert parse(["graph", "x.csv", "--config", str(tmp_path / "night.toml")]).conf == ["spark.driver.memory=8g"]


REFUSED: dict[str, tuple[str, str]] = {
    "a slip": ("dampin = 0.9", "there is no option 'dampin' (did you mean 'damping'?)"),
    "underscores": ("max_iter = 9", "there is no option 'max_iter' (did you mean 'max-iter'?)"),
    "another program's name": ("n-clusters = 9", "there is no option 'n-clusters' (did you mean 'clusters'?)"),
    "the input": ('input = "x"', "there is no option 'input': the input is named without an option"),
    "a file in a file": ('config = "x"', "there is no option 'config'"),
    "an option of another command": ("[graph]\ncheckpoint = 'c'", "[graph]: there is no option 'checkpoint'"),
    "a slip in a table": ("[cluster]\nmetrik = 'dot'", "[cluster]: there is no option 'metrik' (did you mean 'metric'"),
    "a slip in a command": ("[clusters]\nmetrik = 'dot'", "must be a number or a string, got a table"),
    "no command": ("[clustre]\nmetric = 'dot'", "there is no command 'clustre' (did you mean 'cluster'?)"),
    "no number": ("damping = 'much'", "damping: invalid float value: 'much'"),
    "no whole number": ("max-iter = 9.5", "max-iter: invalid int value: '9.5'"),
    "no choice": ("metric = 'l2'", "metric: invalid choice: 'l2' (choose from 'sqeuclidean', "),
    "another program's choice": ("metric = 'l2'", "'dot') (did you mean 'euclidean'?)"),
    "no switch": ("edges = 'yes'", "edges must be true or false, got 'yes'"),
    "a switch": ("seed = true", "seed must be a number or a string, got true or false"),
    "a list": ("id-column = ['a']", "id-column must be a number or a string, got a list"),
    "no list": ("conf = 'spark.password=hunter2'", "conf must be a list of strings"),
    "a date": ("output = 2026-01-31", "output must be a number or a string, got date"),
    "no TOML": ("damping 0.9", "but {file} is none: Expected '=' after a key in a key/value pair (at line 1"),
    "out of range": ("damping = 2", "--damping must be in [0.5, 1), got 2.0 ({file} says damping)"),
    "two that exclude each other": ("preference = -3", "not both ({file} says preference)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_in_the_file_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    text, message = REFUSED[case]
    path = tmp_path / "night.toml"
    path.write_text(text)
    monkeypatch.setattr("ap_spark.cli.start_session", None)
    try:
        code: Any = main(["cluster", "x.csv", "--output", "o", "--clusters", "3", "--config", str(path)])
    except SystemExit as ended:
        code = ended.code
    told = capsys.readouterr().err
    assert code == 2
    assert message.replace("{file}", str(path)) in told
    assert str(path) in told
    assert "hunter2" not in told
    assert len(told.splitlines()) == 1


def test_what_the_command_line_says_is_not_blamed_on_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").write_text("damping = 0.9\n")
    monkeypatch.setattr("ap_spark.cli.start_session", None)
    assert main(["cluster", "x.csv", "--output", "o", "-d", "3", "--config", str(tmp_path / "a.toml")]) == 2
    assert "got 3.0\n" in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["cluster", "x.csv", "--output", "o", "--config", "none.toml"])
    assert "--config must name a file that can be read, but none.toml: No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        parse(["cluster", "x.csv", "--output", "o", "--config"])
    assert "argument --config: expected one argument" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        parse(["cluster", "--config", "none.toml", "--help"])
