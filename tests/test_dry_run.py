"""What a dry run says is what a run does; it computes nothing, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import InputError, SettingError, Similarity, Sparsification, describe_points
from ap_spark.cli import main
from ap_spark.dry_run import foresee_points, foresee_similarities
from ap_spark.settings import Settings
from tests.conftest import ROOT, Edges, random_edges

pytestmark = pytest.mark.usefixtures("spark")

EDGES = "i,k,s\n0,1,-1.0\n1,0,-1.0\n2,3,-1.0\n3,2,-1.5\n1,2,-9.0\n"
Frame = Callable[[Edges], DataFrame]


@pytest.fixture(autouse=True)
def _nothing_is_run_or_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise AssertionError("something is run, or written")

    for name in ("cluster_points", "affinity_propagation", "described", "claimed"):
        monkeypatch.setattr(f"ap_spark.cli.{name}", fail)
    for name in ("check_writable", "locked", "write_text", "make_private", "rename", "delete"):
        monkeypatch.setattr(f"ap_spark.io.stores.Store.{name}", fail)


def dry(*arguments: str) -> int:
    return main([*arguments, "--dry-run"])


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_points_are_described_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "night.toml").write_text("neighbors = 30\n")
    before = tree(tmp_path)
    options = ["--feature-columns", "0-3", "--config", str(tmp_path / "night.toml"), "--preference", "-50"]
    places = ["--output", str(tmp_path / "deep" / "out"), "--checkpoint", str(tmp_path / "deep" / "c")]
    assert dry("cluster", str(ROOT / "data" / "iris.csv"), *options, *places) == 0
    assert tree(tmp_path) == before
    told = capsys.readouterr().out
    for line in (
        f"input: {ROOT}/data/iris.csv\nid: the number of the row, from 0\n",
        "features: 4 columns: sepal_length, sepal_width, petal_length, petal_width\nleft out: column species\n",
        "150 points, about 6,300 similarities: sqeuclidean of each point to its 30 nearest, exact search\n",
        "a run: resident engine, 2 cores, roughly ",
        f"settings: --feature-columns 0-3, --neighbors 30 ({tmp_path}/night.toml), --preference -50.0, "
        f"--checkpoint {tmp_path}/deep/c\n",
        f"output: {tmp_path}/deep/out would be written, parquet\n",
        " of disk in Spark's local directories (",
        " of disk in the checkpoint\n",
        "not checked: how many clusters the graph permits\n",
    ):
        assert line in told
    assert told.endswith("dry run: nothing was computed, and nothing written\n")


@pytest.mark.long
def test_programs_read_the_same_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edges.csv").write_text(EDGES)
    assert dry("graph", str(tmp_path / "edges.csv"), "--edges", "--json", "--symmetrize", "union") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["n_points"], told["n_edges"], told["is_certain"]) == (True, 4, 6, True)
    assert told["settings"]["symmetrize"] == "union"
    assert list(told["seconds"]) == ["start", "reading", "graph", "all"], "a graph is not clustered"
    assert told["seconds"]["all"] == pytest.approx(np.sum(list(told["seconds"].values())[:-1], axis=0).tolist())
    assert dry("graph", str(tmp_path / "edges.csv"), "--edges", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def stored(edges: Edges, rules: Sparsification) -> set[tuple[int, int]]:
    """Which pairs are stored: the rules of sparsification, plainly."""
    kept = {(i, k) for i, k, s in edges if s > -np.inf}
    if rules.top is not None:
        best = {i: sorted((-s, k) for j, k, s in edges if j == i)[: rules.top] for i, _ in kept}
        kept = {(i, k) for i, nearest in best.items() for _, k in nearest}
    other = {(k, i) for i, k in kept}
    return {"union": kept | other, "mutual": kept & other}.get(rules.symmetrize or "none", kept)


RULES: dict[str, dict[str, Any]] = {
    "as given": {},
    "both directions": {"symmetrize": "union"},
    "in both directions": {"symmetrize": "mutual"},
    "the best": {"top": 3},
    "the best, both directions": {"top": 3, "symmetrize": "union"},
}


@pytest.mark.parametrize("sampled", [10**6, 150], ids=["all", "sampled"])
@pytest.mark.parametrize("directions", ["both", "one", "some"])
def test_similarities_are_as_many_as_it_says(
    frame: Frame, monkeypatch: pytest.MonkeyPatch, directions: str, sampled: int
) -> None:
    """Exactly where it says so; else within a third."""
    monkeypatch.setattr("ap_spark.dry_run._SAMPLED_PAIRS", sampled)
    edges = random_edges(np.random.default_rng(5), 40, 0.3, symmetric=directions == "both")
    if directions == "one":
        edges = [(i, k, s) for i, k, s in edges if i > k]
    edges = [*edges, (0, 39, float("-inf"))] if (0, 39) not in {edge[:2] for edge in edges} else edges
    table = frame(edges)
    for name, rules in RULES.items():
        found = foresee_similarities(table, None, Settings(**rules), by_point=False)
        assert (found.work.n_points, found.work.pairing) == (40, "given")
        assert ("none in both directions" in found.similarities) == (directions == "one")
        real = len(stored(edges, Sparsification(**rules)))
        assert found.work.n_edges == pytest.approx(real, rel=0 if found.is_certain else 0.3), name
        assert found.is_certain == (sampled > 150 and "the best" not in name), name
        assert ("but in a sample" in found.unchecked) == (sampled == 150)


@pytest.mark.long
def test_merged_duplicates_are_counted_once(frame: Frame) -> None:
    edges = frame([(0, 1, -1.0), (0, 1, -2.0), (1, 0, -1.0), (2, 1, -1.0), (2, 1, -1.0)])
    found = foresee_similarities(edges, None, Settings(on_duplicate="max", symmetrize="union"), by_point=False)
    assert found.work.n_edges == 4


@pytest.mark.long
@pytest.mark.parametrize(("neighbors", "certain"), [(None, True), (8, False), (59, True)])
def test_neighbours_are_about_as_many_as_it_says(spark: SparkSession, neighbors: int | None, certain: bool) -> None:
    x = np.random.default_rng(4).normal(size=(60, 3))
    points = spark.createDataFrame(pa.table({"id": range(60), "features": pa.array(list(x))}))
    similarity = Similarity(neighbors=neighbors, scale="standard")
    found = foresee_points(points, similarity, Settings())
    real = describe_points(points, similarity=similarity)
    assert (found.work.n_points, found.work.dimensions, found.is_certain) == (60, 3, certain)
    assert real.n_edges == pytest.approx(found.work.n_edges, rel=0 if certain else 0.2)
    assert found.work.engine == real.engine


REFUSED: dict[str, tuple[str, list[str], str]] = {
    "text": ("x,y\n1,2\n3,four\n", [], "y='four'"),
    "zero vector": ("x,y\n0,0\n1,0\n", ["--metric", "cosine"], "no vector may be zero"),
    "zero vector, scaled": ("x,y\n2,3\n0,1\n4,5\n", ["--metric", "cosine", "--scale", "standard"], "no vector may"),
    "id twice": ("id,x\na,1\nb,2\na,3\n", [], "ids must be unique"),
    "a slip in a column": ("name,x\na,1\nb,2\n", ["--id-column", "nmae"], "(did you mean 'name'?)"),
    "no search": ("x,y\n1,2\n3,4\n", ["--neighbors", "1", "--search", "approximate", "--metric", "dot"], "not dot"),
    "too many clusters": ("x\n1\n2\n", ["--clusters", "3"], "clusters must be at most the number of points, 2, got 3"),
    "too large": ("i,k,s\n0,1,inf\n1,0,1\n", ["--edges"], "1 row is null, NaN or +infinite"),
    "pair twice": ("i,k,s\n0,1,-1\n1,0,-1\n0,1,-2\n", ["--edges"], "must be given once, but 1 pair is given more"),
    "null id": ("i,k,s\n0,,1\n1,0,1\n", ["--edges"], "1 pair has a null id: i=0, k=None"),
    "infinite preference": ("i,k,s\n0,1,-1\n1,0,-1\n0,0,-inf\n", ["--edges"], "a preference must be finite"),
    "two preferences": ("i,k,s\n0,1,-1\n0,0,-2\n1,1,-2\n", ["--edges", "-p", "-3"], "preferences must be given in one"),
    "unknown end": (EDGES, ["--edges", "--points", "POINTS"], "but 3 edges have an end that is not: i=1, k=2;"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_as_by_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, options, message = REFUSED[case]
    (tmp_path / "input.csv").write_text(text)
    (tmp_path / "points.csv").write_text("id\n0\n1\n")
    options = [str(tmp_path / "points.csv") if option == "POINTS" else option for option in options]
    before = tree(tmp_path)
    assert dry("cluster", str(tmp_path / "input.csv"), "--output", str(tmp_path / "out"), *options) == 2
    assert message in capsys.readouterr().err
    assert tree(tmp_path) == before


@pytest.mark.long
def test_the_output_is_refused_replaced_or_skipped_as_by_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edges.csv").write_text(EDGES)
    out = tmp_path / "out"
    (out / "assignments").mkdir(parents=True)
    (out / "summary.json").write_text('{"format": "ap_spark/1"}')
    (out / "_SUCCESS").touch()
    before = tree(tmp_path)
    command = ["cluster", str(tmp_path / "edges.csv"), "--edges", "--output"]
    assert dry(*command, str(out)) == 2
    assert "must not exist yet" in capsys.readouterr().err
    assert dry(*command, str(out), "--if-exists", "skip") == 0
    assert "is there already: nothing to do" in capsys.readouterr().out
    assert dry(*command, str(out), "--overwrite") == 0
    assert f"output: {out} would be replaced, parquet\n" in capsys.readouterr().out
    assert dry(*command, str(tmp_path)) == 2
    assert "the output must lie apart from the input" in capsys.readouterr().err
    assert dry(*command, str(tmp_path / "out" / "_SUCCESS" / "out")) == 2
    assert "the output must be in a directory that can be written, but file:" in capsys.readouterr().err
    assert dry(*command, str(tmp_path / "new"), "--checkpoint", str(tmp_path / "edges.csv")) == 2
    assert "the checkpoint must" in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_a_disk_that_is_too_small_is_pointed_out(frame: Frame) -> None:
    found = foresee_similarities(frame([(0, 1, -1.0), (1, 0, -2.0)]), None, Settings(), by_point=False)
    assert found.free is not None
    assert "TOO LITTLE" not in str(found)
    assert "(0.0977 KiB free, WHICH IS TOO LITTLE)" in str(replace(found, free=100))
    assert "free" not in str(replace(found, free=None))


@pytest.mark.long
def test_a_point_that_is_in_no_similarity_counts(frame: Frame, spark: SparkSession) -> None:
    edges = frame([(0, 1, -1.0), (1, 0, -2.0)])
    points = spark.range(5)
    assert foresee_similarities(edges, points, Settings(), by_point=False).work.n_points == 5
    with pytest.raises(InputError, match="1 edge has an end that is not: i=1, k=0"):
        foresee_similarities(edges.where("i = 1"), spark.range(1), Settings(), by_point=False)
    with pytest.raises(SettingError, match="clusters must be at most the number of points, 2, got 3"):
        foresee_similarities(edges, None, Settings(clusters=3), by_point=False)
