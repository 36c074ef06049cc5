"""New points to the exemplars of a result, against brute force; and the command `ap-spark assign`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ap_spark import (
    Clustering,
    InputError,
    SettingError,
    Similarity,
    affinity_propagation,
    assign,
    cluster_points,
    make_points,
)
from ap_spark.cli import main
from ap_spark.new_points import totals_of
from ap_spark.similarity import assignment
from ap_spark.similarity.metrics import pairwise

pytestmark = pytest.mark.usefixtures("spark")

RNG = np.random.default_rng(7)
CENTERS = 20.0 * RNG.normal(size=(6, 4)) * np.array([1.0, 1.0, 100.0, 1.0])
POINTS = pd.DataFrame(np.repeat(CENTERS, 5, axis=0) + RNG.normal(size=(30, 4)), index=[f"p{n:02}" for n in range(30)])
NEW = pd.DataFrame(CENTERS[RNG.integers(0, 6, 200)] + 6.0 * RNG.normal(size=(200, 4)))

Rows = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def clustering(spark: SparkSession) -> Clustering:
    """Of points with names, scaled."""
    return cluster_points(POINTS, similarity=Similarity(scale="standard"))


def rows_of(table: Any) -> Rows:
    """The rows of a table of pandas or Spark, in order; None for what is missing."""
    table = table if isinstance(table, pd.DataFrame) else table.toPandas()
    return sorted(table.astype(object).where(table.notna(), None).itertuples(index=False, name=None))


def by_hand(points: Any, exemplars: dict[str, Any], least: float = -np.inf, **metric: Any) -> Rows:
    """Brute force: (id, exemplar, label, similarity)."""
    s = pairwise(np.asarray(points), np.array(list(exemplars.values())), **metric)
    best, names = s.argmax(axis=1), list(exemplars)
    found = [(names[k], int(k), float(s[i, k])) for i, k in enumerate(best)]
    return [(i, *((name, k) if s >= least else (None, None)), s) for i, (name, k, s) in enumerate(found)]


def test_the_nearest_exemplar_by_the_scaling_of_the_run(
    clustering: Clustering, tmp_path: Path, spark: SparkSession
) -> None:
    """From the result, and from what was saved: string ids, integer ids for the new points, a smallest similarity."""
    spread = POINTS.std(axis=0, ddof=0)
    exemplars = clustering.to_pandas().exemplars["exemplar"].tolist()
    scaled = {name: ((POINTS.loc[name] - POINTS.mean()) / spread).tolist() for name in exemplars}
    expected = by_hand((NEW - POINTS.mean()) / spread, scaled, -0.5)
    found = rows_of(assign(NEW, clustering, min_similarity=-0.5))
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in expected], rel=1e-9)
    nobody = sum(row[1] is None for row in found)
    assert 0 < nobody < 200
    clustering.save(tmp_path / "out", format="csv")
    assert rows_of(assign(NEW, str(tmp_path / "out"), min_similarity=-0.5)) == found
    loaded = Clustering.load(tmp_path / "out")
    assert loaded.summary == clustering.summary
    assert loaded.similarity == Similarity(scale="standard")
    totals = totals_of(assign(spark.createDataFrame(NEW.assign(id=NEW.index)), loaded, min_similarity=-0.5))
    assert (totals.n_points, totals.n_unassigned, totals.unassigned) == (200, nobody, nobody / 200)
    assert totals.mean_similarity == pytest.approx(np.mean([row[3] for row in found]))
    assert str(totals).startswith("200 points, mean similarity -1.")


@pytest.mark.long
def test_points_of_the_run_are_where_the_run_has_put_them(clustering: Clustering) -> None:
    """All pairs are stored, so each point has the nearest exemplar already."""
    found = rows_of(assign(POINTS, clustering))
    known = {row.id: row for row in clustering.to_pandas().assignments.itertuples()}
    assert [row[:3] for row in found] == [(name, known[name].exemplar, known[name].label) for name in sorted(known)]
    for name, exemplar, _, similarity in found:
        assert similarity == (0.0 if name == exemplar else known[name].similarity)


@pytest.mark.long
def test_exemplars_in_pieces_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies among them: the first of equally near ones is taken, also where the next is in another piece."""
    y = np.repeat(RNG.integers(0, 9, (9, 2)).astype(float), 2, axis=0)
    table, new = pd.DataFrame(y, index=range(100, 118)), RNG.integers(0, 9, (50, 2)).astype(float)
    whole = rows_of(assign(new, table))
    assert whole == by_hand(new, dict(zip(table.index, y, strict=True)))
    monkeypatch.setattr(assignment, "_PIECE_BYTES", 7 * 2 * 8)
    assert rows_of(assign(new, table)) == whole
    assert assign(new, table)["id"].tolist() == list(range(50))
    often = pd.DataFrame(new[:3]).assign(id=["b", "a", "b"])
    found = assign(often, table)
    assert found["id"].tolist() == ["b", "a", "b"]
    assert found["label"].tolist() == [row[2] for row in whole[:3]]


@pytest.mark.long
def test_a_table_of_exemplars_with_a_metric_of_its_own() -> None:
    table = {"b": [1.0, 0.0, 0.1, 0.2], "a": [0.0, 1.0, 0.0, 0.1], "c": [0.3, 0.1, 1.0, 0.0]}
    exemplars = pd.DataFrame(table).T
    ordered = {name: table[name] for name in "abc"}
    least = pairwise(NEW.to_numpy(), np.array(list(ordered.values())), "cosine").max(axis=1)[17]  # at which one is near
    found = rows_of(assign(NEW, exemplars, similarity=Similarity(metric="cosine"), min_similarity=least))
    assert found == by_hand(NEW, ordered, least, metric="cosine")
    assert found[17][1] is not None
    with pytest.raises(SettingError, match="scale must be none, got 'minmax'"):
        assign(NEW, exemplars, similarity=Similarity(scale="minmax"))
    with pytest.raises(SettingError, match="similarity must be a `Similarity`, got 'cosine'"):
        assign(NEW, exemplars, similarity="cosine")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no vector may be zero"):
        assign(np.zeros((2, 4)), exemplars, similarity=Similarity(metric="cosine"))


def test_what_cannot_be_assigned_is_refused_in_words(
    clustering: Clustering, spark: SparkSession, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="min_similarity must be a finite number, got nan"):
        assign(NEW, clustering, min_similarity=float("nan"))
    with pytest.raises(InputError, match="must have the features of the exemplars, 4 of them, but they have 3"):
        assign(NEW[[0, 1, 2]], clustering)
    with pytest.raises(InputError, match="features must be finite numbers"):
        assign(NEW.where(NEW < 50.0), clustering)
    with pytest.raises(InputError, match=r"must be a whole output of `ap-spark cluster`"):
        assign(NEW, tmp_path)
    pairs = spark.createDataFrame([(0, 1, -1.0), (1, 0, -1.0)], "i int, k int, s double")
    with pytest.raises(InputError, match="this result has none: it is one of similarities"):
        assign(NEW, affinity_propagation(pairs, preference=-3.0))
    stream = spark.readStream.schema("id long, features array<double>").parquet(str(tmp_path))
    with pytest.raises(SettingError, match="points must be a table, not a stream"):
        assign(stream, clustering)


@pytest.mark.long
def test_a_metric_that_is_a_function_is_given_again_once_the_result_was_saved(tmp_path: Path) -> None:
    def minus_largest(x: Any, y: Any) -> Any:
        return -np.abs(x[:, None] - y[None]).max(axis=-1)

    found = cluster_points(POINTS, similarity=Similarity(metric=minus_largest))
    before = rows_of(assign(NEW, found))
    exemplars = found.to_pandas().exemplars["exemplar"]
    expected = by_hand(NEW, {name: POINTS.loc[name].tolist() for name in exemplars}, metric=minus_largest)
    assert before == expected
    found.save(tmp_path / "out")
    with pytest.raises(SettingError, match=r"was a function, which is not saved: give it again, similarity="):
        assign(NEW, tmp_path / "out")
    assert rows_of(assign(NEW, tmp_path / "out", similarity=Similarity(metric=minus_largest))) == before


@pytest.mark.long
def test_a_result_without_exemplars_has_none_to_give(tmp_path: Path) -> None:
    found = cluster_points(RNG.normal(size=(40, 2)), max_iter=1, preference=-1e6)
    assert found.summary.n_clusters == 0
    with pytest.raises(InputError, match="this result has none: it has no clusters"):
        assign(NEW[[0, 1]], found)


@pytest.mark.programs
def test_another_session_gives_the_same_answers(clustering: Clustering, tmp_path: Path) -> None:
    clustering.save(tmp_path / "out")
    NEW.to_pickle(tmp_path / "new")
    program = (
        "import pandas, ap_spark\n"
        "found = ap_spark.assign(pandas.read_pickle('new'), 'out', min_similarity=-0.5)\n"
        "rows = found.astype(object).where(found.notna(), None).itertuples(index=False, name=None)\n"
        "print(sorted(rows) == eval(input()))\n"
    )
    expected = repr(rows_of(assign(NEW, clustering, min_similarity=-0.5)))
    command = [sys.executable, "-c", program]
    told = subprocess.run(command, input=expected, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True"


@pytest.fixture(scope="module")
def files(clustering: Clustering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a result, new points, and a file that has other features."""
    directory = tmp_path_factory.mktemp("files")
    clustering.save(directory / "result")
    NEW.add_prefix("x").to_csv(directory / "new.csv", index_label="name")
    (directory / "bad.csv").write_text("id,x\n1,2\n")
    return directory


@pytest.mark.long
def test_the_command(
    clustering: Clustering, spark: SparkSession, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, new, out = str(files / "result"), str(files / "new.csv"), str(tmp_path / "out")
    command = ["assign", result, new, "--id-column", "name", "--output", out]
    csv = ["--output-format", "csv", "--single-file"]
    assert main([*command, *csv, "--min-similarity", "-5e-1"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("200 points, mean similarity -1.")
    assert told[0].endswith(" % unassigned")
    assert told[-1] == f"written to {out}: assigned, summary.json"
    points = make_points(spark.read.csv(new, header=True, inferSchema=True), id_column="name")
    expected = rows_of(assign(points, clustering, min_similarity=-0.5))
    written = pd.read_csv(f"{out}/assigned.csv", float_precision="round_trip")
    filled = written.fillna({"exemplar": "", "label": -1})
    assert list(filled.itertuples(index=False, name=None)) == [
        (i, exemplar or "", -1 if label is None else label, s) for i, exemplar, label, s in expected
    ]
    summary = json.loads(Path(out, "summary.json").read_text())
    assert summary["n_unassigned"] == written["label"].isna().sum() > 0
    assert summary["settings"]["result"] == result
    capsys.readouterr()
    assert main([*command, "--overwrite", "--json"]) == 0
    printed, written_now = json.loads(capsys.readouterr().out), json.loads(Path(out, "summary.json").read_text())
    assert printed == {name: written_now[name] for name in printed} | {"seconds": printed["seconds"]}
    assert printed["n_unassigned"] == 0
    assert main(command) == 2, "it is there already"
    assert main([*command, "--if-exists", "skip"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["result", "bad.csv"], "new points must have the features of the exemplars, 4 of them, but they have 1"),
        (["no result", "new.csv"], "must be a whole output of `ap-spark cluster`"),
        (["result", "none.csv"], "none.csv"),
        (["result", "new.csv", "--min-similarity", "inf"], "--min-similarity must be a finite number, got inf"),
        (["result", "new.csv", "--output", "result/out"], "the output must lie apart from"),
        (["result", "new.csv", "--edges"], "unknown option --edges"),
    ],
)
def test_bad_input_of_the_command_ends_with_2_and_leaves_nothing(
    files: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    before = sorted(path.name for path in files.iterdir())
    options = [str(files / one) if one.islower() and one[0] != "-" and one != "inf" else one for one in given]
    try:
        code: object = main(["assign", "--output", str(files / "out"), *options])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert sorted(path.name for path in files.iterdir()) == before
