"""New points on a stream: each is assigned once, whatever happens to the query, and drift shows in the records."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from ap_spark import OutputError, SettingError, assign, assign_stream
from ap_spark.cli import main
from ap_spark.stream import Batch
from tests.conftest import INTERPRETING, ROOT

pytestmark = pytest.mark.usefixtures("spark")

EXEMPLARS = pd.DataFrame([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], index=["a", "b", "c"])
SCHEMA = "id bigint, features array<double>"


def put(directory: Path, name: str, ids: range, shift: float = 0.0) -> pd.DataFrame:
    """A file of points, which appears at once."""
    rng = np.random.default_rng(ids.start)
    x = EXEMPLARS.to_numpy()[rng.integers(0, 3, len(ids))] + rng.normal(size=(len(ids), 2)) + shift
    points = pd.DataFrame({"id": ids, "x": x[:, 0], "y": x[:, 1]})
    points.to_csv(directory / f".{name}", index=False)
    (directory / f".{name}").rename(directory / name)
    return points


def records(output: Path) -> list[dict[str, Any]]:
    """What is recorded of the batches, in order."""
    found = [json.loads(path.read_text()) for path in (output / "batches").glob("[0-9]*.json")]
    return sorted(found, key=lambda record: record["batch"])


def rows_of(table: Any) -> list[tuple[Any, ...]]:
    """The rows of a table of pandas or Spark, in order; None for what is missing."""
    table = table if isinstance(table, pd.DataFrame) else table.toPandas()
    table = table[["id", "exemplar", "label", "similarity"]]
    return sorted(table.astype(object).where(table.notna(), None).itertuples(index=False, name=None))


def written(spark: SparkSession, output: Path) -> list[tuple[Any, ...]]:
    return rows_of(spark.read.parquet(str(output / "assigned")))


def expected(points: list[pd.DataFrame], **options: Any) -> list[tuple[Any, ...]]:
    return rows_of(assign(pd.concat(points).astype({"id": "int64"}), EXEMPLARS, **options))


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Where files arrive, the output, the checkpoint."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in", tmp_path / "out", tmp_path / "checkpoint"


def stream_of(spark: SparkSession, directory: Path) -> DataFrame:
    files = spark.readStream.schema("id bigint, x double, y double").option("header", True)
    return files.csv(str(directory)).selectExpr("id", "array(x, y) AS features")


def test_each_point_is_assigned_once_also_when_the_query_is_started_again(
    spark: SparkSession, directories: tuple[Path, Path, Path]
) -> None:
    """A shift in the data shows in the records."""
    arriving, output, checkpoint = directories
    points = [put(arriving, "one.csv", range(0, 40))]

    def run(exemplars: Any = EXEMPLARS) -> None:
        stream = stream_of(spark, arriving)
        query = assign_stream(stream, exemplars, output, checkpoint, min_similarity=-20.0, once=True)
        query.awaitTermination()

    run()
    points.append(put(arriving, "two.csv", range(40, 90), shift=4.0))
    run()
    run()  # there is nothing new
    found = written(spark, output)
    assert found == expected(points, min_similarity=-20.0)
    before, after = records(output)
    assert (before["batch"], before["n_points"], before["unassigned"]) == (0, 40, 0.0)
    assert (after["batch"], after["n_points"]) == (1, 50)
    assert after["mean_similarity"] < -20 < before["mean_similarity"]
    assert after["mean_similarity"] == pytest.approx(np.mean([row[3] for row in found if row[0] >= 40]))
    assert after["unassigned"] == after["n_unassigned"] / 50 > 0.5
    assert after.keys() == Batch.__dataclass_fields__.keys()
    with pytest.raises(OutputError, match="has labels of another one"):
        run(EXEMPLARS + 1.0)
    with pytest.raises(OutputError, match=r"of the stream that .*another is the checkpoint of, but .*out is"):
        assign_stream(stream_of(spark, arriving), EXEMPLARS, output, checkpoint.with_name("another"))
    with pytest.raises(OutputError, match=r"of this output, but .*checkpoint is of .*out: choose another"):
        assign_stream(stream_of(spark, arriving), EXEMPLARS, output.with_name("another"), checkpoint)
    with pytest.raises(OutputError, match="must lie apart"):
        assign_stream(stream_of(spark, arriving), EXEMPLARS, output, output / "checkpoint")


@pytest.mark.long
def test_what_a_killed_batch_has_left_is_replaced(spark: SparkSession, directories: tuple[Path, Path, Path]) -> None:
    """A batch that was written, and not committed, is of the same points again."""
    arriving, output, checkpoint = directories
    points = [put(arriving, "one.csv", range(0, 40))]
    for _ in range(2):
        query = assign_stream(stream_of(spark, arriving), EXEMPLARS, output, checkpoint, once=True)
        query.awaitTermination()
        for commit in (checkpoint / "commits").iterdir():
            commit.unlink()
    assert written(spark, output) == expected(points)
    assert [record["n_points"] for record in records(output)] == [40]


@pytest.mark.long
def test_a_batch_that_breaks_a_rule_ends_the_query_and_is_tried_again(
    spark: SparkSession, directories: tuple[Path, Path, Path]
) -> None:
    arriving, output, checkpoint = directories
    put(arriving, "one.csv", range(0, 10))
    exemplars = EXEMPLARS.assign(third=0.0)
    query = assign_stream(stream_of(spark, arriving), exemplars, output, checkpoint, once=True)
    with pytest.raises(StreamingQueryException, match="InputError: new points must have the features of the exemplars"):
        query.awaitTermination()
    assert not (output / "assigned").exists()
    assert not records(output)
    with pytest.raises(SettingError, match="points must be a stream of Spark's"):
        assign_stream(spark.createDataFrame([], SCHEMA), EXEMPLARS, output, checkpoint)
    with pytest.raises(SettingError, match=r"every must be a finite number of at least 0, got -1\.0"):
        assign_stream(stream_of(spark, arriving), EXEMPLARS, output, checkpoint, every=-1.0)


@pytest.fixture(scope="module")
def result(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result whose exemplars are those above, in its first two features."""
    from ap_spark import cluster_points

    path = tmp_path_factory.mktemp("result") / "result"
    noise = np.random.default_rng(0).normal(size=(30, 2))
    points = pd.DataFrame(np.repeat(EXEMPLARS.to_numpy(), 10, axis=0) + noise, columns=["x", "y"])
    found = cluster_points(points, preference=-30.0)
    assert found.summary.n_clusters == 3
    found.save(path)
    return path


def arguments(result: Path, directories: tuple[Path, Path, Path]) -> list[str]:
    arriving, output, checkpoint = directories
    given = ["assign", result, arriving, "--output", output, "--stream", "--checkpoint", checkpoint]
    return [*map(str, given), "--min-similarity", "-20"]


def by_the_command(result: Path, points: list[pd.DataFrame]) -> list[tuple[Any, ...]]:
    return rows_of(assign(pd.concat(points).astype({"id": "int64"}), str(result), min_similarity=-20.0))


@pytest.mark.long
def test_the_command_reads_files_of_any_name_as_they_arrive(
    spark: SparkSession, result: Path, directories: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with a signal, and goes on with the same command; a file that breaks a rule is named."""
    arriving, output, _ = directories
    command = arguments(result, directories)
    points = [
        put(arriving, "one [1].csv", range(0, 40)),
        put(arriving, "zwei \N{LATIN SMALL LETTER U WITH DIAERESIS}.csv", range(40, 60)),
    ]

    def arrive() -> None:
        wait_for(output, 1)
        points.append(put(arriving, "three.csv", range(60, 90)))
        wait_for(output, 2)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=arrive)
    thread.start()
    assert main([*command, "--every", "0.2", "--json"]) == 143
    thread.join()
    told = capsys.readouterr()
    assert "stopped: the same command goes on with what is not done" in told.err
    assert [json.loads(line) for line in told.out.splitlines()] == records(output)
    assert written(spark, output) == by_the_command(result, points)
    (arriving / "bad.csv").write_text("id,x,y\n1,2,three\n")
    assert main([*command, "--once"]) == 2
    assert "bad.csv" in capsys.readouterr().err
    (arriving / "bad.csv").unlink()
    points.append(put(arriving, "four.csv", range(90, 100)))
    assert main([*command, "--once"]) == 0
    assert f"written to {output}: assigned, batches, summary.json" in capsys.readouterr().out
    assert written(spark, output) == by_the_command(result, points)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["settings"]["min_similarity"] == -20.0


def wait_for(output: Path, number: int) -> None:
    """Wait until so many batches are recorded."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (output / "batches").exists() and len(list((output / "batches").glob("[0-9]*.json"))) >= number:
            return
        time.sleep(0.1)
    raise AssertionError(f"there are no {number} batches after two minutes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stream"], "--stream needs --checkpoint DIR"),
        (["--checkpoint", "c"], "--checkpoint is for streams: give --stream too"),
        (["--once"], "--once is for streams"),
        (["--stream", "--checkpoint", "c", "--overwrite"], "leave out --single-file, --overwrite and --if-exists"),
        (["--stream", "--checkpoint", "c", "--id-column", ""], "--stream needs ids"),
        (["more", "--stream", "--checkpoint", "c"], "--stream takes one directory as INPUT, got 2 paths"),
        (["--stream", "--checkpoint", "c", "--every", "-1"], "--every must be a finite number of at least 0, got -1"),
    ],
)
def test_options_that_exclude_each_other_are_refused_before_java_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    monkeypatch.setattr("ap_spark.cli.start_session", None)
    assert main(["assign", "result", "in", *options, "--output", "out"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.long
def test_a_directory_that_is_not_there(
    result: Path, directories: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arriving, output, _ = directories
    arriving.rmdir()
    assert main(arguments(result, directories)) == 2
    assert re.search(r"cannot read '.*/in': there is no .*/in", capsys.readouterr().err)
    assert not output.exists()


@pytest.mark.cluster
def test_a_killed_command_is_made_up_for_by_the_next(
    spark: SparkSession, result: Path, directories: tuple[Path, Path, Path]
) -> None:
    """Killed four times while files arrive, at any moment of a batch."""
    arriving, output, _ = directories
    command = [sys.executable, "-m", "ap_spark.cli", *arguments(result, directories), *INTERPRETING, "--every", "0"]
    rng, points = np.random.default_rng(4), []
    for kill in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            for part in range(3):
                number = 3 * kill + part
                points.append(put(arriving, f"{number}.csv", range(20 * number, 20 * number + 20)))
                if part == 0:
                    wait_for(output, len(list((output / "batches").glob("[0-9]*.json"))) + 1)
                time.sleep(rng.random())
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert main([*arguments(result, directories), "--once"]) == 0
    assert written(spark, output) == by_the_command(result, points)
    assert sum(record["n_points"] for record in records(output)) == 240
