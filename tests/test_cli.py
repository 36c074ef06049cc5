"""The command line in one process: options, formats, exit codes, and every line of docs/semantics.md, section 7."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, get_args

import numpy as np
import pandas as pd
import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from ap_spark import read_similarities
from ap_spark._spark.machine import machine_name
from ap_spark.cli import is_small, main
from ap_spark.errors import OutputInUse
from ap_spark.io.stores import Store, is_of_class
from ap_spark.io.writer import OutputDirectory, claimed
from ap_spark.settings import OutputFormat
from tests.conftest import LONG, ROOT, affinity_propagation, every_third, random_edges

pytestmark = pytest.mark.usefixtures("spark")

POINTS = "id,x,y\na,0.0,0.0\nb,0.1,0.0\nc,0.0,0.2\nd,5.0,5.0\ne,5.1,5.0\nf,5.0,5.2\n"
EDGES = "i,k,s\n0,1,-1.0\n1,0,-1.0\n2,3,-1.0\n3,2,-1.5\n1,2,-9.0\n"


OURS = '{"format": "ap_spark/1"}'  # the least by which an output is known


def run(tmp_path: Path, text: str, *options: str, name: str = "input.csv") -> int:
    """Run the command on a file with this text; the output goes to tmp_path/out."""
    (tmp_path / name).write_text(text)
    return main(["cluster", str(tmp_path / name), "--output", str(tmp_path / "out"), *options])


def table(tmp_path: Path, name: str, suffix: str = "csv", **options: Any) -> pd.DataFrame:
    parts = sorted((tmp_path / "out" / name).glob(f"part-*.{suffix}"))
    frames: list[pd.DataFrame] = [pd.read_csv(part, **options) for part in parts]
    return pd.concat(frames, ignore_index=True)


def nothing_left(tmp_path: Path, *inputs: str) -> bool:
    return {path.name for path in tmp_path.iterdir()} == {*inputs}


@pytest.mark.long
def test_single_files_json_and_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What programs read, and what a spreadsheet opens."""
    options = ["--output-format", "csv", "--single-file", "-p", "-1"]
    assert run(tmp_path, POINTS, *options, "--json") == 0
    told = capsys.readouterr()
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    printed = json.loads(told.out)
    seconds = printed.pop("seconds")
    assert {"start", "write", "all"} <= seconds.keys()
    assert printed == {name: written[name] for name in printed}
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {
        *(
            "assignments.csv",
            "exemplars.csv",
            "trace.csv",
            "quality.csv",
            "summary.json",
            "_SUCCESS",
            "exemplar_features.parquet",
        ),
    }
    assignments = pd.read_csv(tmp_path / "out" / "assignments.csv")
    assert assignments.exemplar.tolist() == ["a"] * 3 + ["d"] * 3
    assert run(tmp_path, POINTS, *options, "--quiet", "--overwrite") == 0
    assert capsys.readouterr() == ("", "")
    again = [*options, "--if-exists", "skip"]
    assert run(tmp_path, POINTS, *again, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run(tmp_path, POINTS, *again, "--quiet", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads((tmp_path / "out" / "summary.json").read_text()), "for what reads it"
    assert told.err == ""
    assert main(["graph", str(tmp_path / "input.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["graph"]["n_points"] == 6


@pytest.mark.long
def test_several_inputs_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = POINTS.splitlines(keepends=True)
    (tmp_path / "more.csv").write_text(lines[0] + "".join(lines[4:]))
    (tmp_path / "input.csv").write_text("".join(lines[:4]))
    inputs = [str(tmp_path / name) for name in ("input.csv", "more.csv")]
    assert main(["cluster", *inputs, "--output", str(tmp_path / "out"), "-p", "-1", "--single-file"]) == 0
    assert "6 points, 30 similarities: 2 clusters" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["input"] == inputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["points.xyz"], "--format"),
        (["a.csv", "b.parquet"], "all files must have one format"),
        (["a.csv", "--neighbours", "5"], "did you mean '--neighbors'?"),
        (["--outptu", "x"], "unknown option --outptu (did you mean '--output'?) (see ap-spark cluster --help)"),
        (
            ["-f", "x", "--bogus", "--iterations=9", "--max_iterations", "9", "--n_clusters", "3", "--sym", "union"],
            "unknown options -f: the input is named without an option, --bogus, --iterations (did you mean "
            "'--max-iter'?), --max_iterations (did you mean '--max-iter'?), --n_clusters (did you mean '--clusters'?), "
            "--sym (did you mean '--symmetrize'?) (see",
        ),
        (["a.csv", "--damping", "0.8", "b.csv"], "unrecognized arguments: b.csv: give all of INPUT together (see ap-s"),
        (["a.csv", "--max-iter", "0"], "ap-spark: --max-iter must be at least 1, got 0"),
        (["a.csv", "--checkpoint-every", "5h"], "ap-spark: --checkpoint-every must be a number of iterations"),
        (["a.csv", "-p", "1", "--clusters", "2"], "give either --preference or --clusters, not both"),
        (["a.csv", "--metric", "cosin"], "did you mean 'cosine'?"),
        (["a.csv", "--damping", "1"], "damping must be in [0.5, 1), got 1.0"),
    ],
)
def test_what_is_known_beforehand_is_said_before_java_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr("ap_spark.cli.start_session", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.xyz").touch()
    try:
        code: object = main(["cluster", *arguments, "--output", "out"])
    except SystemExit as ended:  # as argparse ends
        code = ended.code
    told = capsys.readouterr().err
    assert code == 2, told
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.long
def test_points_in_clusters_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, POINTS, "--id-column", "id", "--output-format", "csv", "-p", "-1") == 0
    told = capsys.readouterr().out
    assert "6 points, 30 similarities: 2 clusters" in told
    assert "converged after" in told
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) == [
        "_SUCCESS", "assignments", "exemplar_features", "exemplars", "quality", "summary.json", "trace",
    ]  # fmt: skip
    assignments = table(tmp_path, "assignments")
    assert assignments.columns.tolist() == ["id", "exemplar", "label", "similarity"]
    assert assignments.exemplar.tolist() == ["a"] * 3 + ["d"] * 3
    assert assignments.label.tolist() == [0, 0, 0, 1, 1, 1]
    exemplars = table(tmp_path, "exemplars")
    assert exemplars.columns.tolist() == ["label", "exemplar", "size", "preference", "mean_similarity"]
    assert exemplars.mean_similarity.tolist() == pytest.approx([-0.025, -0.025])
    trace = table(tmp_path, "trace")
    assert trace.columns.tolist() == ["iteration", "exemplars", "changed", "unsettled", "seconds"]
    summary = json.loads((out / "summary.json").read_text())
    assert len(trace) == summary["n_iter"]
    assert summary["netsim"] == pytest.approx(summary["dpsim"] + summary["expref"])
    assert summary["settings"]["preference"] == -1.0
    assert {"start", "read", "similarities", "graph", "propagation", "clusters", "write"} == set(summary["seconds"])
    assert nothing_left(tmp_path, "input.csv", "out")


def test_an_output_that_is_there_is_refused_replaced_or_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(tmp_path, EDGES, "--edges", "-p", "-3", "--if-exists", "skip") == 0
    before = out.stat().st_ino
    assert run(tmp_path, EDGES, "--edges") == 2
    assert f"must not exist yet, but file:{out} does: give --overwrite" in capsys.readouterr().err
    assert run(tmp_path, "not read at all", "--if-exists", "skip") == 0
    assert "is there already: nothing to do" in capsys.readouterr().out
    assert out.stat().st_ino == before
    assert run(tmp_path, EDGES, "--edges", "-p", "-3", "--if-exists", "replace") == 0
    assert out.stat().st_ino != before
    (out / "_SUCCESS").unlink()
    for choice in ("refuse", "skip"):
        assert run(tmp_path, EDGES, "--edges", "--if-exists", choice) == 2
        assert "is no complete output (there is no _SUCCESS)" in capsys.readouterr().err
    assert run(tmp_path, EDGES, "--edges", "--overwrite", "--if-exists", "skip") == 2
    assert "either --overwrite or --if-exists skip" in capsys.readouterr().err
    assert nothing_left(tmp_path, "input.csv", "out")


@LONG
def test_an_output_of_another_command_is_not_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, other, table in (("graph", "cluster", "assignments"), ("cluster", "graph", "similarities")):
        out = tmp_path / command
        options = [str(tmp_path / "input.csv"), "--edges", "--output", str(out), "--if-exists", "skip"]
        (tmp_path / "input.csv").write_text(EDGES)
        assert [main([command, *options]), main([command, *options]), main([other, *options])] == [0, 0, 2]
        told = capsys.readouterr()
        assert told.out.count("is there already: nothing to do") == 1
        assert f"only an output of the same command is skipped, but file:{out} is one of another, without {table}" in (
            told.err
        )


def test_of_two_runs_at_one_output_one_is_refused(
    tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the output's directory has to be made first; another process's lock is one like ours."""
    path = str(tmp_path / "new" / "out")
    with claimed(spark, path, "refuse"):
        assert run(tmp_path, EDGES, "--edges", "--output", path) == 1, "which passes"
        assert "another run is at work on" in capsys.readouterr().err
    assert nothing_left(tmp_path, "input.csv")
    assert run(tmp_path, EDGES, "--edges", "--output", path) == 0


@pytest.mark.long
def test_where_files_cannot_be_locked_the_last_one_is_refused(
    tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on HDFS: the other run has put its output in place after this one has last looked."""
    monkeypatch.setattr("ap_spark.io.stores.Store.is_local", False)
    place = OutputDirectory._rename_into_place

    def overtaken(directory: OutputDirectory, staged: str) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        place(directory, staged)

    monkeypatch.setattr(OutputDirectory, "_rename_into_place", overtaken)
    assert run(tmp_path, EDGES, "--edges") == 1, "which passes: the same command is refused, or skips"
    assert "another run has written to" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]
    assert nothing_left(tmp_path, "input.csv", "out")


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a directory is not renamed at once, and nothing can be locked."""
    monkeypatch.setattr("ap_spark.io.stores.Store.is_local", False)
    monkeypatch.setattr("ap_spark.io.stores.Store.renames_at_once", False)


@pytest.mark.usefixtures("object_store")
@pytest.mark.long
def test_an_object_store_gets_the_output_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """_SUCCESS comes last, and what was killed before is cleared."""
    out, write = tmp_path / "out", OutputDirectory._write_table
    seen = []

    def watched(directory: OutputDirectory, *arguments: Any, **options: Any) -> None:
        seen.append({path.name for path in out.iterdir() if not path.name.startswith(".")})
        write(directory, *arguments, **options)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(OutputDirectory, "_write_table", watched)
    delete = Store.delete
    with monkeypatch.context() as killed:
        killed.setattr(Store, "delete", lambda store, name: None)  # as when nothing can be tidied up
        assert run(tmp_path, EDGES, "--edges") == 130
    assert seen == [{"_PUBLISHING"}, {"_PUBLISHING", "assignments"}]
    assert not (out / "_SUCCESS").exists()
    assert Store.delete is delete
    for if_exists in ("skip", "replace"):  # once where there is half an output, and once where there is a whole one
        assert run(tmp_path, EDGES, "--edges", "--if-exists", if_exists) == 0
        assert seen[-1] == {"_PUBLISHING", "assignments", "exemplars", "trace"}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "_SUCCESS", "assignments", "exemplars", "quality", "summary.json", "trace",
    }  # fmt: skip
    assert run(tmp_path, EDGES, "--edges", "--overwrite", "--single-file", "--output-format", "csv") == 0
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "_SUCCESS", "assignments.csv", "exemplars.csv", "quality.csv", "summary.json", "trace.csv",
    }  # fmt: skip
    assert nothing_left(tmp_path, "input.csv", "out")


def named(spark: SparkSession, name: str) -> dict[str, tuple[Any, int]]:
    """Two tables that tell of their run."""
    similarities = spark.createDataFrame([(name, name, 0.0)], "i string, k string, s double")
    assignments = spark.createDataFrame(
        [(name, name, 0, 0.0)], "id string, exemplar string, label bigint, similarity double"
    )
    return {"similarities": (similarities, 1), "assignments": (assignments, 1)}


@pytest.mark.usefixtures("object_store")
@pytest.mark.parametrize("replace", [False, True])
def test_of_two_runs_at_one_output_of_an_object_store_the_later_wins(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    """The first one has written one of its two tables when the second, on another machine, begins."""
    out, write = str(tmp_path / "out"), OutputDirectory._write_table
    first, second, third = (OutputDirectory(spark, out, replace=replace) for _ in range(3))
    order: list[OutputDirectory] = []

    def overtaken(directory: OutputDirectory, *arguments: Any, **options: Any) -> None:
        write(directory, *arguments, **options)
        order.append(directory)
        if order == [first]:
            second.publish(named(spark, "second"), "csv", {"seconds": {}})

    monkeypatch.setattr(OutputDirectory, "_write_table", overtaken)
    with pytest.raises(OutputInUse, match="another run has written to"):
        first.publish(named(spark, "first"), "csv", {"seconds": {}})
    assert order == [first, second, second]
    for name in ("similarities", "assignments"):
        assert table(tmp_path, name).iloc[:, 0].tolist() == ["second"]
    assert (tmp_path / "out" / "_SUCCESS").exists()
    if not replace:
        with pytest.raises(OutputInUse, match="another run has written to"):
            third.publish(named(spark, "third"), "csv", {"seconds": {}})
        assert table(tmp_path, "similarities").i.tolist() == ["second"], "it was not there when the third one began"


@pytest.mark.long
@pytest.mark.usefixtures("object_store")
def test_an_output_that_another_process_is_writing_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_PUBLISHING").write_text(f"{machine_name()}.{os.getppid()} 0123")
    for if_exists in ("refuse", "replace", "skip"):
        assert run(tmp_path, EDGES, "--edges", "--if-exists", if_exists) == 1
        assert "says in _PUBLISHING (delete it if that run is dead) that it is writing to" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_PUBLISHING"]
    for dead in ("another-machine.1 0123", ""):  # killed while it wrote that
        (tmp_path / "out" / "_PUBLISHING").write_text(dead)
        assert run(tmp_path, EDGES, "--edges") == 0
        assert not (tmp_path / "out" / "_PUBLISHING").exists()
        (tmp_path / "out" / "_SUCCESS").unlink()


@pytest.mark.usefixtures("object_store")
def test_what_is_made_room_for_in_the_last_moment_is_not_whole(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (OutputDirectory(spark, str(tmp_path / "out"), replace=True) for _ in range(2))
    write_text = Store.write_text

    def overtaken(store: Store, name: str, text: str) -> None:
        if name == "out/_SUCCESS":
            second._clear_place()
        write_text(store, name, text)

    monkeypatch.setattr(Store, "write_text", overtaken)
    with pytest.raises(OutputInUse, match="another run has written to"):
        first.publish(named(spark, "first"), "csv", {"seconds": {}})
    assert second._writing_run == second._mark
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == ["_PUBLISHING"]


@pytest.mark.long
def test_an_output_that_cannot_be_moved_away_is_told_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the older one stays there is no other run."""
    assert run(tmp_path, EDGES, "--edges") == 0
    before = (tmp_path / "out").stat().st_ino
    monkeypatch.setattr(Store, "rename", lambda store, old, new: store.fs.open(store.path("no such file")))
    assert run(tmp_path, EDGES, "--edges", "--overwrite") == 1
    told = capsys.readouterr().err
    assert "FileNotFoundException" in told
    assert "another run" not in told
    assert (tmp_path / "out").stat().st_ino == before
    assert nothing_left(tmp_path, "input.csv", "out")


def test_a_store_that_does_not_answer_is_no_bad_input(tmp_path: Path, spark: SparkSession) -> None:
    """That passes, and a scheduler is to try again."""

    def fail(*_: Any) -> None:
        jvm: Any = spark.sparkContext._jvm
        jvm.java.util.ArrayList().get(0)  # whatever error of Java's that is none of permission

    store = Store(spark, str(tmp_path))
    store.local = None
    store.fs = SimpleNamespace(exists=lambda path: True, create=fail, getUri=store.fs.getUri)
    with pytest.raises(Py4JJavaError) as failed:
        store.check_writable("probe")
    assert is_of_class(failed.value, "java.lang.RuntimeException"), "which is above IndexOutOfBoundsException"
    assert not is_of_class(failed.value, "java.io.IOException")


def test_without_locks_no_lock_is_left(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("filelock._unix.lock_fd_nonblocking", refuse)
    with Store(spark, str(tmp_path)).locked(".lock") as granted:
        assert granted is None
    assert not list(tmp_path.iterdir())
    (tmp_path / ".lock").touch()
    with Store(spark, str(tmp_path)).locked(".lock") as granted:
        assert granted is None
    assert (tmp_path / ".lock").exists(), "another user's, who may hold it"


@pytest.mark.long
def test_snapshots_do_not_lie_in_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for inside in (tmp_path / "out", f"file:{tmp_path}/out/c", f"file://{tmp_path}/x/../out/c"):
        assert run(tmp_path, EDGES, "--edges", "--checkpoint", str(inside)) == 2
        assert "the output must lie apart from the input and the snapshots, but" in capsys.readouterr().err
    assert run(tmp_path, EDGES, "--edges", "--checkpoint", "no:/path") == 2
    assert "the checkpoint must be a directory that can be written, but no:/path" in capsys.readouterr().err
    assert nothing_left(tmp_path, "input.csv")
    assert run(tmp_path, EDGES, "--edges", "--checkpoint", str(tmp_path / "outside")) == 0


@pytest.mark.long
def test_secrets_stay_where_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    secret = "hunter2hunter2"
    assert run(tmp_path, EDGES, "--edges", "--conf", f"spark.authenticate.secret={secret}", "--verbose") == 0
    assert main(["cluster", "no.csv", "--output", "o", "--conf", f"spark.my.password {secret}", "--verbose"]) == 2
    told = capfd.readouterr()
    assert "without '=', as number 1" in told.err
    assert secret not in told.out + told.err
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and secret in path.read_text("latin-1")
    ]


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "json", "orc"])
def test_edges_of_every_format(tmp_path: Path, spark: SparkSession, kind: str) -> None:
    rows = [("007", "8", -1.0), ("8", "007", -1.25), ("x", "y", float("-inf"))]  # an id keeps its zeros
    path = str(tmp_path / f"edges.{kind}")
    options: dict[str, Any] = {"sep": "\t" if kind == "tsv" else ",", "header": True} if kind in ("csv", "tsv") else {}
    edges = spark.createDataFrame(rows, "i string, k string, s double")
    edges.write.format("csv" if kind == "tsv" else kind).save(path, **options)
    assert [tuple(row) for row in read_similarities(spark, path).orderBy("i").collect()] == rows


def test_output_of_every_format(tmp_path: Path, spark: SparkSession) -> None:
    edges = spark.createDataFrame([(0, 1, -1.0), (1, 0, -1.0), (2, 3, -1.0), (3, 2, -1.5)], "i int, k int, s double")
    clustering = affinity_propagation(edges)
    for kind in get_args(OutputFormat):
        path = str(tmp_path / kind)
        clustering.save(path, format=kind)
        reader = spark.read.option("header", True).option("sep", "\t" if kind == "tsv" else ",")
        written = reader.format("csv" if kind == "tsv" else kind).load(f"{path}/assignments").collect()
        assert [int(row.id) for row in written] == [0, 1, 2, 3]
        assert set(written[0].asDict()) == {"id", "exemplar", "label", "similarity"}


@pytest.mark.long
def test_headerless_tsv_of_concurrent_ap(tmp_path: Path) -> None:
    text = "0.0\t0.0\n0.1\t0.0\n5.0\t5.0\n5.1\t5.0\n0.0\t0.1\n"
    options = ("--no-header", "--output-format", "tsv", "-d", "0.6", "-i", "300", "-c", "20", "-p", "-1")
    assert run(tmp_path, text, *options, name="points.tsv") == 0
    assert (tmp_path / "out" / "labels.tsv").read_text() == "0\n0\n1\n1\n0\n"
    assert (tmp_path / "out" / "cluster_centers_indices.tsv").read_text() in ("0\n2\n", "0\n3\n")
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert (settings["damping"], settings["max_iter"], settings["convergence_iter"]) == (0.6, 300, 20)


def test_labels_have_a_line_for_each_row_of_the_file_in_its_order(tmp_path: Path) -> None:
    """Ids in another order than the rows, as g10 comes before g2; a row that is left out has no line."""
    text = "id,x\ng3,5.2\ng10,5.0\ng1,\ng0,0.1\ng2,0.0\ng4,5.1\n"
    assert run(tmp_path, text, "--drop-missing", "--output-format", "tsv", "-p", "-1") == 0
    assert table(tmp_path, "assignments", "csv", sep="\t").id.tolist() == ["g0", "g10", "g2", "g3", "g4"]
    assert (tmp_path / "out" / "labels.tsv").read_text() == "1\n1\n0\n0\n1\n"
    first, second = map(int, (tmp_path / "out" / "cluster_centers_indices.tsv").read_text().split())
    assert first in (2, 3)
    assert second == 4, "g4 lies between the two others"


@pytest.mark.long
def test_rows_are_numbered_through_compressed_and_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "many.csv"
    folder.mkdir()
    # the larger file comes later: Spark reads it first
    (folder / "a.csv").write_text("x\n0.0\n0.1\n")
    with gzip.open(folder / "b.csv.gz", "wt") as file:
        file.write("x\n" + "".join(f"{5 + n / 100}\n" for n in range(9)))
    options = ["--output", str(tmp_path / "out"), "--output-format", "csv", "-p", "-2"]
    assert main(["cluster", str(folder), *options]) == 0
    assert table(tmp_path, "assignments").label.tolist() == [0] * 2 + [1] * 9


def test_features_by_position_and_range_and_preference_column(tmp_path: Path) -> None:
    text = "name,p,u,v,w\na,-9,0,0,ignored\nb,-0.1,1,0,text\nc,-9,0,1,here\n"
    options = ("--id-column", "name", "--feature-columns", "2-3", "--preference-column", "1", "--output-format", "csv")
    assert run(tmp_path, text, *options) == 0
    assert table(tmp_path, "assignments").exemplar.tolist() == ["b"] * 3
    assert table(tmp_path, "exemplars").preference.tolist() == [-0.1]


@pytest.mark.long
def test_array_and_vector_columns(tmp_path: Path, spark: SparkSession) -> None:
    from pyspark.ml.linalg import Vectors

    for name, rows, schema in (
        ("array", [(1, [0.0, 0.0]), (2, [0.0, 1.0])], "id int, f array<float>"),
        ("vector", [(1, Vectors.dense([0.0, 0.0])), (2, Vectors.sparse(2, [1], [1.0]))], ["id", "f"]),
    ):
        path, out = str(tmp_path / f"{name}.parquet"), str(tmp_path / name)
        spark.createDataFrame(rows, schema).write.parquet(path)
        assert main(["cluster", path, "--output", out, "--id-column", "id", "-p", "-9"]) == 0
        assert json.loads((tmp_path / name / "summary.json").read_text())["dpsim"] == -1.0


def test_top_keeps_the_largest_similarities(tmp_path: Path) -> None:
    assert run(tmp_path, POINTS, "--id-column", "0", "--top", "2", "--metric", "euclidean") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["n_edges"] == 12


@pytest.mark.long
def test_points_beside_edges(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("id,p\n0,-5\n1,-0.5\n2,-5\n3,-0.5\n9,-1\n")
    options = (
        "--edges",
        "--points",
        str(tmp_path / "points.csv"),
        "--preference-column",
        "p",
        "--output-format",
        "csv",
    )
    assert run(tmp_path, EDGES, *options) == 0
    assert table(tmp_path, "assignments").exemplar.tolist() == [1, 1, 3, 3, 9]


@LONG
def test_an_existing_output_is_refused_then_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, EDGES, "--edges", "--output-format", "csv") == 0
    before = (tmp_path / "out" / "summary.json").read_text()
    assert run(tmp_path, EDGES, "--edges") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(tmp_path, EDGES.replace("-1.5", "nan"), "--edges", "--overwrite") == 2
    assert (tmp_path / "out" / "summary.json").read_text() == before
    assert run(tmp_path, EDGES, "--edges", "--overwrite", "-p", "-77") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]["preference"] == -77
    assert nothing_left(tmp_path, "input.csv", "out")


@pytest.mark.parametrize("locked", [True, False])
def test_leftovers_of_a_killed_run_are_cleared_and_a_replaced_output_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    """Where the output is locked there is no other run on other machines either."""
    monkeypatch.setattr("ap_spark.io.stores.Store.is_local", locked)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    owner = f"{machine_name()}.{int(ended.stdout)}"
    token = 16 * "0"
    (tmp_path / f".out.staging.{owner}.{token}" / "output" / "assignments").mkdir(parents=True)
    old, thesis = (tmp_path / f".out.old.{owner}.{end}" for end in (token, 16 * "1"))
    for directory, text in ((old, OURS), (thesis, "precious")):
        directory.mkdir()
        (directory / "summary.json").write_text(text)
    others = f".out.staging.another-machine-4.1.{token}"
    theirs = [thesis.name, ".out.old.letters", f".out.staging.{owner}"]
    for name in (others, *theirs[1:]):
        (tmp_path / name).mkdir()
    assert run(tmp_path, EDGES, "--edges") == 2
    assert (tmp_path / "out" / "summary.json").read_text() == OURS
    assert nothing_left(tmp_path, "input.csv", "out", *theirs, *([] if locked else [others]))


def test_require_convergence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, POINTS, "--id-column", "id", "-i", "3", "--require-convergence") == 3
    assert "nothing was written" in capsys.readouterr().err
    assert nothing_left(tmp_path, "input.csv")
    assert run(tmp_path, POINTS, "--id-column", "id", "-i", "3") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["converged"], summary["n_iter"]) == (False, 3)


BAD = {
    "similarity NaN": ("i,k,s\n0,1,-1\n1,0,NaN\n", ["--edges"], "in column 's' 1 row is null, NaN or +infinite: i=1, k=0"),
    "similarity infinite": ("i,k,s\n0,1,inf\n1,0,-1\n", ["--edges"], "in column 's' 1 row is null, NaN or +infinite"),
    "similarity null": ("i,k,s\n0,1,\n1,0,-1\n", ["--edges"], "in column 's' 1 row is null, NaN or +infinite"),
    "similarity no number": ("i,k,s\n0,1,x1\n1,0,-1\n", ["--edges"], "column 's' must hold finite numbers, but in 1 row it is not a number: i='0', k='1', s='x1'"),
    "feature NaN": ("id,x\na,1\nb,NaN\nc,nan\n", ["--id-column", "id"], "column 'x' must hold finite numbers, but in 2 rows it is missing, no number, NaN, infinite or beyond 1e150: id='b', x='NaN'; id='c', x='nan'"),
    "feature infinite": ("id,x\na,1\nb,-inf\n", ["--id-column", "id"], "in 1 row it is missing, no number, NaN, infinite or beyond 1e150: id='b', x='-inf'"),
    "feature null": ("x,y\n1,2\n3,\n", [], "y=None; where it is missing, --drop-missing (in Python drop_missing=True) leaves the row out; if it is no feature"),
    "a named feature of text": (POINTS, ["--feature-columns", "x,id"], "features must be numbers, but column 'id' is text: leave it out"),
    "edges as points": ("a,b,score\nu,v,1\nv,u,2\n", [], "are pairs of ids and their similarities, give --edges"),
    "pair twice, other names": ("from,to,score\nu,v,1\nu,v,2\nv,u,1\n", ["--edges"], "a pair (from, to) must be given once, but 1 pair is given more often: from='u', to='v', rows=2"),
    "null, other names": ("from,to,score\nu,v,\nv,u,2\n", ["--edges"], "in column 'score' 1 row is null, NaN or +infinite: from='u', to='v', score=None"),
    "null id, other names": ("from,to,score\nu,,1\nv,u,2\n", ["--edges"], "in columns 'from' and 'to' 1 pair has a null id: from='u', to=None, score=1.0"),
    "no number, other names": ("from,to,score\nu,v,x1\nv,u,2\n", ["--edges"], "column 'score' must hold finite numbers, but in 1 row it is not a number: from='u', to='v', score='x1'"),
    "unknown end, other names": ("from,to,score\n0,1,1\n0,9,2\n", ["--edges", "--points", "POINTS"], "1 edge has an end that is not: from=0, to=9"),
    "text as parquet": (POINTS, ["--format", "parquet"], "is read as parquet, but looks like text: give its format, such as --format csv"),
    "feature no number": ("x,y\n1,2\n3,four\n", [], "y='four'"),
    "similarity null, merged": ("i,k,s\n0,1,\n1,0,-1\n", ["--edges", "--on-duplicate", "mean"], "in column 's' 1 row is null"),
    "null id in points": ("id,x\na,1\n,2\n", ["--id-column", "id"], "ids must not be null, but in column 'id' 1 row is without one"),
    "null id in edges": ("i,k,s\n0,,-1\n1,0,-1\n", ["--edges"], "in columns 'i' and 'k' 1 pair has a null id: i=0, k=None"),
    "pair twice": ("i,k,s\n0,1,-1\n1,0,-1\n0,1,-2\n", ["--edges"], "a pair (i, k) must be given once, but 1 pair is given more often: i=0, k=1, rows=2"),
    "preferences twice": ("i,k,s\n0,1,-1\n1,0,-1\n0,0,-2\n1,1,-2\n", ["--edges", "-p", "-3"], "preferences must be given in one way"),
    "preference missing": ("i,k,s\n0,1,-1\n1,0,-1\n0,0,-2\n", ["--edges"], "every point must have a preference, but 1 point has none: id=1"),
    "preference infinite": ("i,k,s\n0,1,-1\n1,0,-1\n0,0,-inf\n1,1,-2\n", ["--edges"], "a preference must be finite"),
    "id twice": ("id,x\na,1\nb,2\na,3\n", ["--id-column", "id"], "ids must be unique, but in column 'id' 1 id is given more than once: id='a', count=2"),
    "empty": ("", [], "is empty"),
    "header only": ("i,k,s\n", ["--edges"], "is empty"),
    "fields missing": ("i,k,s\n0,1,-1\n1,0\n", ["--edges"], "1 line has more or fewer, such as '1,0'"),
    "too many fields": ("x,y\n0,1\n1,0,2\n", [], "1 line has more or fewer, such as '1,0,2'"),
    "damping": (EDGES, ["--edges", "-d", "1.0"], "damping must be in [0.5, 1), got 1.0"),
    "max_iter": (EDGES, ["--edges", "-i", "0"], "--max-iter must be at least 1, got 0"),
    "convergence_iter": (EDGES, ["--edges", "-c", "0"], "--convergence-iter must be at least 1, got 0"),
    "no such column": (POINTS, ["--id-column", "name"], "there is no column 'name'; there are id, x, y"),
    "no such position": (POINTS, ["--feature-columns", "1-7"], "there is no column '7'"),
    "not three columns": ("a,b\n1,2\n", ["--edges"], "exactly three columns"),
    "edges with a metric": (EDGES, ["--edges", "--metric", "euclidean"], "leave out --metric"),
    "two preferences": (EDGES, ["--edges", "-p", "1", "--preference-quantile", "0.1"], "either --preference or --preference-quantile"),
    "neighbors": (POINTS, ["--neighbors", "0"], "neighbors must be at least 1, or all, got 0"),
    "gaussian without width": (POINTS, ["--metric", "gaussian"], "metric gaussian needs a width"),
    "width of another metric": (POINTS, ["--width", "2"], "--width belongs to metric gaussian, not to 'sqeuclidean'"),
    "width below 0": (POINTS, ["--metric", "gaussian", "--width", "-2"], "width must be a finite number of at least 1e-145, got -2.0"),
    "recall": (POINTS, ["--neighbors", "2", "--recall", "1.5"], "recall must be in (0, 1], got 1.5"),
    "search without neighbors": (POINTS, ["--search", "exact"], "--neighbors N are found: give it too"),
    "recall of the exact search": (POINTS, ["--neighbors", "2", "--search", "exact", "--recall", "0.9"], "--recall is for the approximate search"),
    "an end that is unknown and not stored": ("i,k,s\n0,1,-1\n1,0,-1\n1,9,-inf\n", ["--edges", "--points", "POINTS"], "both ends of an edge must be among the points, but 1 edge has an end that is not: i=1, k=9"),
    "a null that merging hides": ("i,k,s\n0,1,-1\n0,1,\n1,0,-1\n", ["--edges", "--on-duplicate", "min"], "1 row is null, NaN or +infinite: i=0, k=1, s=None"),
    "similarities near 0": ("i,k,s\n0,1,-1e-300\n1,0,-2e-300\n", ["--edges"], "multiply them all by a power of ten"),
    "an end that is cut off": ("i,k,s\n0,1,-1\n1,0,-1\n1,9,-5\n", ["--edges", "--top", "1", "--points", "POINTS"], "both ends of an edge must be among the points, but 1 edge has an end that is not: i=1, k=9"),
    "approximate dot": (POINTS, ["--id-column", "id", "--neighbors", "2", "--metric", "dot", "--search", "approximate"], "needs a metric that is a distance, not dot"),
    "zero vector": ("x,y\n0,0\n1,0\n-0,0\n", ["--metric", "cosine"], "no vector may be zero, since it has no similarity to others, but 2 vectors are: id=0; id=2"),
    "constant vector": ("x,y\n1,2\n5,5\n", ["--metric", "correlation", "--neighbors", "1"], "no vector may be constant, since it has no similarity to others, but 1 vector is: id=1"),
    "edges with neighbors": (EDGES, ["--edges", "--neighbors", "3"], "leave out --neighbors"),
    "edges with scale": (EDGES, ["--edges", "--scale", "minmax"], "leave out --scale"),
    "min_similarity": (EDGES, ["--edges", "--min-similarity", "nan"], "--min-similarity must be a finite number, got nan"),
    "top": (EDGES, ["--edges", "--top", "0"], "top must be at least 1, got 0"),
    "nothing complete": ("x,y\n1,\n,2\n", ["--drop-missing"], "there must be at least one complete row, but all 2 of"),
    "infinite beside missing": ("x,y\n1,\ninf,2\n", ["--drop-missing"], "in 1 row it is missing, no number, NaN, infinite or beyond 1e150: id=1, x='inf'"),
    "clusters": (EDGES, ["--edges", "--clusters", "0"], "clusters must be at least 1, got 0"),
    "clusters of equal similarities": ("i,k,s\n" + "".join(f"{i},{k},-1\n" for i in range(4) for k in range(4) if i != k), ["--edges", "--clusters", "3"], "clusters must be 1 or 4 where all similarities are equal, got 3"),
    "more clusters than points": (EDGES, ["--edges", "--clusters", "5"], "clusters must be at most the number of points, 4, got 5"),
    "fewer clusters than components": (EDGES, ["--edges", "--clusters", "1", "--min-similarity", "-2"], "clusters must be at least 2 in this graph, got 1"),
    "clusters and a preference": (EDGES, ["--edges", "--clusters", "2", "-p", "-1"], "give either --preference or --clusters, not both"),
    "feature too large": ("x\n1\n1e200\n", [], "beyond 1e150: id=1, x='1e200'"),
    "preference out of proportion": (EDGES + "0,0,-1e30\n1,1,-1\n2,2,-1\n3,3,-1\n", ["--edges"], "bring them closer"),
    "too far apart": ("i,k,s\n0,1,-1e308\n1,0,1e308\n", ["--edges"], "divide them all by a power of ten"),
}  # fmt: skip


@pytest.mark.parametrize("case", every_third(BAD))
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, options, message = BAD[case]
    (tmp_path / "points.csv").write_text("id\n0\n1\n")
    options = [str(tmp_path / "points.csv") if option == "POINTS" else option for option in options]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text(OURS)
    assert run(tmp_path, text, *options, "--overwrite") == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) <= 2, "errors are one or two lines"
    assert "Exception" not in error
    assert nothing_left(tmp_path, "input.csv", "points.csv", "out")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == [OURS], "stays untouched"


@pytest.mark.parametrize("option", ["--neighbors=few", "--metric=l3", "--symmetrize=both", "--scale=robust"])
def test_options_that_are_no_such_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, POINTS, option)
    name, _, _ = option.partition("=")
    assert f"argument {name}: invalid" in capsys.readouterr().err
    assert nothing_left(tmp_path, "input.csv")


@LONG
def test_missing_features_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "x,y\n0,0\n,5\n0,1\n9,9\nnan,2\n9,8\n"
    assert run(tmp_path, text, "--drop-missing", "-p", "-9", "--output-format", "csv") == 0
    assert "2 rows of 6 without all features left out" in caplog.text
    assert table(tmp_path, "assignments").id.tolist() == [0, 2, 3, 5], "rows keep their numbers"
    vectors = (
        '{"id": 1, "f": [1.0, 2.0]}\n{"id": 2, "f": null}\n{"id": 3, "f": [1.0, null]}\n{"id": 4, "f": [1.0, 2.5]}\n'
    )
    options = ("--drop-missing", "--id-column", "id", "--scale", "minmax", "--output-format", "csv", "--overwrite")
    assert run(tmp_path, vectors, *options, name="points.json") == 0
    assert table(tmp_path, "assignments").id.tolist() == [1, 4]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["preference"] == -1.0


def test_a_number_of_clusters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blobs = np.random.default_rng(2).normal(size=(40, 2)) + np.repeat([[0, 0], [9, 0], [0, 9], [9, 9]], 10, axis=0)
    text = "x,y\n" + "".join(f"{x},{y}\n" for x, y in blobs)
    assert run(tmp_path, text, "--clusters", "4", "--neighbors", "15", "-d", "0.7", "--output-format", "csv") == 0
    told = capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["n_clusters"] == 4
    assert summary["tried"][-1] == {
        "preference": summary["preference"],
        "clusters": 4,
        "converged": True,
        "at_rest": True,
        "ended_early": False,
        "settled": False,
        "missed": False,
    }
    assert (f"the best of {len(summary['tried'])} tried" in told) == (len(summary["tried"]) > 1)
    assert "neighbours: 15 a point, exact search" in told
    assert (np.diff(table(tmp_path, "assignments").label.to_numpy().reshape(4, 10)) == 0).all()


def test_null_vectors(tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    from pyspark.ml.linalg import Vectors, VectorUDT
    from pyspark.sql.types import IntegerType, StructField, StructType

    schema = StructType([StructField("id", IntegerType()), StructField("f.1", VectorUDT())])
    spark.createDataFrame([(1, Vectors.dense([0.0])), (2, None)], schema).write.parquet(str(tmp_path / "v.parquet"))
    assert main(["cluster", str(tmp_path / "v.parquet"), "--output", str(tmp_path / "o"), "--id-column", "id"]) == 2
    assert "column 'f.1' must hold finite numbers, but in 1 row" in capsys.readouterr().err


@LONG
def test_rows_in_any_order_partitions_and_engines_give_the_same_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    rows = [f"{i},{k},{s}" for i, k, s in random_edges(rng, 30, 0.3, symmetric=False)]
    always = ["--edges", "-d", "0.5", "-c", "3", "--overwrite", "--output-format", "csv"]
    contents = set()
    for options in (["--engine", "resident"], ["--engine", "resident", "--partitions", "7"], ["--engine", "dataframe"]):
        rng.shuffle(rows)
        text = "\n".join(["i,k,s", *rows, ""])
        assert run(tmp_path, text, *always, *options) == 0
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["engine"] == options[1]
        numbers = {name: value for name, value in summary.items() if isinstance(value, (int, float, bool))}
        written = [
            table(tmp_path, name).drop(columns="seconds", errors="ignore").to_csv()
            for name in ("assignments", "exemplars", "trace")
        ]
        contents.add((*written, json.dumps(numbers), summary["fingerprint"]))
    assert len(contents) == 1


def test_null_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"id": 1, "f": [1.0, 2.0]}\n{"id": 2, "f": null}\n{"id": 3, "f": [1.0, null]}\n'
    assert run(tmp_path, text, "--id-column", "id", name="points.json") == 2
    assert "column 'f' must hold finite numbers, but in 2 rows" in capsys.readouterr().err
    assert nothing_left(tmp_path, "points.json")


def test_json_edges_need_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, '{"a": 1, "b": 2, "c": -1.0}\n', "--edges", name="edges.json") == 2
    assert "similarities must have the columns i, k, s; " in capsys.readouterr().err
    assert nothing_left(tmp_path, "edges.json")


@pytest.mark.parametrize(
    ("ids", "message"),
    [("0\n1\n2\n3\n1\n", "1 id is given more than once: id=1, count=2"), ("0\n1\n\n3\n", "1 row is without one")],
)
def test_points_beside_edges_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ids: str, message: str
) -> None:
    (tmp_path / "points.csv").write_text("id,x\n" + ids.replace("\n", ",0\n"))
    assert run(tmp_path, EDGES, "--edges", "--points", str(tmp_path / "points.csv")) == 2
    assert message in capsys.readouterr().err
    assert nothing_left(tmp_path, "points.csv", "input.csv")


@pytest.mark.long
def test_no_exemplars_at_all(tmp_path: Path) -> None:
    assert run(tmp_path, POINTS, "--id-column", "id", "-i", "1", "-p", "-1e3", "--output-format", "tsv") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["n_clusters"], summary["converged"], summary["preference"]) == (0, False, -1000.0)
    assert (tmp_path / "out" / "labels.tsv").read_text() == 6 * "-1\n", "as scikit-learn says it"
    assert (tmp_path / "out" / "cluster_centers_indices.tsv").read_text() == ""
    assert table(tmp_path, "assignments", sep="\t").columns.tolist() == ["id", "exemplar", "label", "similarity"]


@pytest.mark.long
def test_json_points_and_odd_names(tmp_path: Path) -> None:
    text = "".join(json.dumps({"file_path": f"p{n}", "a.b": n, "c d": 0}) + "\n" for n in (0, 1, 10, 11))
    assert run(tmp_path, text, "--id-column", "file_path", "--output-format", "csv", name="points.jsonl") == 0
    assert table(tmp_path, "assignments").id.tolist() == ["p0", "p1", "p10", "p11"]


def test_vectors_of_different_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"id": 1, "f": [1.0, 2.0]}\n{"id": 2, "f": [1.0]}\n'
    assert run(tmp_path, text, "--id-column", "id", name="points.json") == 2
    assert "have lengths 1 (id 2) and 2 (id 1)" in capsys.readouterr().err
    assert nothing_left(tmp_path, "points.json")


@pytest.mark.long
def test_an_end_that_is_not_among_the_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "points.csv").write_text("id\n0\n1\n2\n")
    assert run(tmp_path, EDGES, "--edges", "--points", str(tmp_path / "points.csv")) == 2
    assert "2 edges have an end that is not: i=2, k=3; i=3, k=2" in capsys.readouterr().err
    assert nothing_left(tmp_path, "points.csv", "input.csv")


@pytest.mark.parametrize(("rule", "dpsim"), [("max", -1.0), ("min", -3.0), ("mean", -2.0)])
def test_duplicates_merged(tmp_path: Path, rule: str, dpsim: float) -> None:
    text = "i,k,s\n0,1,-3\n0,1,-1\n1,0,-1\n1,0,-3\n"
    assert run(tmp_path, text, "--edges", "--on-duplicate", rule, "-p", "-50") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["dpsim"] == dpsim


@pytest.mark.parametrize(
    "arguments", [["cluster"], ["cluster", "x.csv"], ["cluster", "x", "--output", "y", "-d", "much"], []]
)
def test_bad_arguments_exit_with_2_and_a_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"ap-spark: .+ \(see ap-spark( cluster)? --help\)\n", told), told


def test_a_mistake_shows_no_stack_and_a_fault_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, "a,b\n1,2\n", "--edges", "--verbose") == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setattr("ap_spark.cli.affinity_propagation", None)
    assert run(tmp_path, EDGES, "--edges", "--verbose") == 1
    assert "Traceback" in capsys.readouterr().err


def test_files_that_cannot_be_read_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", str(tmp_path / "out")]
    assert main(["cluster", str(tmp_path / "no.csv"), *out]) == 2
    assert "cannot read" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["cluster", str(tmp_path / "file"), *out]) == 2
    assert "give --format" in capsys.readouterr().err
    assert run(tmp_path, EDGES, "--edges", "--output", str(tmp_path / "file" / "out")) == 2
    assert "directory that can be written" in capsys.readouterr().err
    assert run(tmp_path, EDGES, "--edges", "--output", "no:/path") == 2
    assert "directory that can be written, but no:/path" in capsys.readouterr().err
    assert nothing_left(tmp_path, "file", "input.csv")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("ap_spark.cli.affinity_propagation", RuntimeError("something is wrong")),
        ("ap_spark.io.stores.Store.write_text", OSError("No space left on device")),
    ],
)
def test_a_fault_of_ours_exits_with_1_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(where, broken)
    assert run(tmp_path, EDGES, "--edges") == 1
    assert f"{type(error).__name__}: {error}" in capsys.readouterr().err
    assert nothing_left(tmp_path, "input.csv")


def test_every_row_of_the_settings_table_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("cluster", "assign", "animate"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
    told = capsys.readouterr().out
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if line.startswith("| `--"):
            assert line.split("`")[1] in told


@pytest.mark.parametrize(
    ("options", "says_checkpoint"),
    [(["graph"], False), (["cluster", "--output", "out"], True)],
    ids=["graph", "cluster"],
)
def test_only_a_command_that_has_snapshots_advises_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str], says_checkpoint: bool
) -> None:
    def stopped(*_: object, **__: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        raise RuntimeError("cancelled")

    monkeypatch.setattr("ap_spark.cli.start_session", stopped)
    assert main([*options, str(ROOT / "data" / "iris.csv")]) == 143
    said = capsys.readouterr().err
    assert "stopped by SIGTERM outside of the iterations" in said
    assert ("--checkpoint" in said) == says_checkpoint


def test_small_inputs_are_known_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.cli._SMALL_INPUT", 100)
    below = tmp_path / "in" / "part"
    below.mkdir(parents=True)
    (below / "a.csv").write_text("x" * 60)
    for path in (below / "a.csv", tmp_path / "in", f"{tmp_path}/*/part", f"file://{tmp_path}/in"):
        assert is_small([str(path)])
    (below / "b.csv").write_text("x" * 60)
    for path in (tmp_path / "in", "s3a://bucket/in", tmp_path / "none"):
        assert not is_small([str(path)])
