"""Snapshots: any engine resumes from any other's, bitwise identical; damaged ones and those of other runs are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import CheckpointError, Clustering, Interrupted, Iteration, Quality, run
from ap_spark.checkpoint import Checkpoint
from ap_spark.checkpoint.record import digest
from ap_spark.checkpoint.store import number_of
from ap_spark.convergence import Stability
from ap_spark.engines import Engine, State
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.graph.edge_graph import EdgeGraph, build_edge_graph
from ap_spark.propagation import Watch, propagate
from ap_spark.settings import Settings, Snapshots
from tests.conftest import LONG, Edges, affinity_propagation, random_edges
from tests.on_blocks import OnBlocks, advance, bits, bits_of_columns, delete, messages_of, names, paths, tear

Frame = Callable[[Edges], DataFrame]

BEFORE, AFTER = 4, 3
ENGINES: dict[str, Callable[..., Engine]] = {
    "one block": lambda graph, **start: OnBlocks(graph, 0.7, 1, "numpy", **start),
    "three blocks": lambda graph, **start: OnBlocks(graph, 0.7, 3, "numpy", **start),
    "dataframe": lambda graph, **start: DataFrameEngine(graph, 0.7, 2, **start),
}
SETTINGS: dict[str, Any] = {"preference": -2.0, "damping": 0.7, "convergence_iter": 8, "max_iter": 200}


@pytest.fixture(scope="module")
def edges() -> Edges:
    return random_edges(np.random.default_rng(6), 40, 0.3, symmetric=False)


@pytest.fixture(scope="module")
def graph(frame: Frame, edges: Edges) -> Iterator[EdgeGraph]:
    graph = build_edge_graph(frame(edges), Settings(preference=-2.0))
    yield graph
    graph.release()


@pytest.fixture(scope="module")
def whole(graph: EdgeGraph) -> bytes:
    """The bits of an undisturbed run."""
    engine = ENGINES["one block"](graph)
    advance(engine, BEFORE + AFTER)
    return end(engine)


def end(engine: Engine) -> bytes:
    result = bits(messages_of(engine)) + bits_of_columns(engine)
    engine.release()
    return result


def saved(engine: Engine, directory: Path) -> State:
    """The state of an engine, once it has gone through files."""
    state = engine.state()
    for name in ("messages", "columns"):
        getattr(state, name).write.parquet(str(directory / name))
    read = state.columns.sparkSession.read
    return State(state.iteration, *(read.parquet(str(directory / name)) for name in ("messages", "columns")))


def opened(spark: SparkSession, directory: Path, **settings: Any) -> Checkpoint:
    checkpoint = Checkpoint(spark, Settings(**settings), Snapshots(checkpoint=str(directory)))
    checkpoint.open()
    return checkpoint


@LONG
@pytest.mark.parametrize(
    "first", ["one block", pytest.param("three blocks", marks=LONG), pytest.param("dataframe", marks=LONG)]
)
def test_each_engine_resumes_from_the_state_of_each(graph: EdgeGraph, whole: bytes, tmp_path: Path, first: str) -> None:
    engine = ENGINES[first](graph)
    advance(engine, BEFORE)
    state = saved(engine, tmp_path)
    found = names(engine)
    engine.release()
    for second in ENGINES.values():
        engine = second(graph, start=state)
        assert engine.iteration == BEFORE
        assert names(engine) == found, "before any further iteration"
        advance(engine, AFTER)
        assert end(engine) == whole


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("one block", delete),
        pytest.param("three blocks", tear, marks=LONG),
        pytest.param("one block", tear, marks=LONG),
        pytest.param("three blocks", delete, marks=LONG),
    ],
)
def test_what_is_lost_after_a_snapshot_is_rebuilt_from_it(
    graph: EdgeGraph, whole: bytes, tmp_path: Path, name: str, spoil: Callable[[Path, bytes], None]
) -> None:
    engine = ENGINES[name](graph)
    assert isinstance(engine, ResidentEngine)
    advance(engine, 1)
    early = [path.read_bytes() for path in paths(engine)]
    advance(engine, BEFORE - 1)
    engine.set_recovery_point(saved(engine, tmp_path))
    assert engine.history.file.seek(0, 2) == 8 * graph.n_points, "totals of before are forgotten"
    advance(engine, 1)
    path = paths(engine)[-1]
    spoil(path, path.read_bytes())
    advance(engine, 1)
    for path, older in zip(paths(engine), early, strict=True):  # as a file that is rebuilt from the edges
        path.unlink()
        path.write_bytes(older)
    advance(engine, 1)
    assert end(engine) == whole


def cluster(frame: Frame, edges: Edges, directory: Path | None, **options: Any) -> Clustering:
    checkpoint = {"checkpoint": str(directory), "checkpoint_every": "10"} if directory else {}
    return affinity_propagation(frame(edges), **(SETTINGS | checkpoint | options))


def outcome(clustering: Clustering) -> list[Any]:
    """Everything but seconds."""
    summary = clustering.summary
    return [
        sorted(clustering.assignments.collect()),
        sorted(clustering.exemplars.collect()),
        sorted(row[:4] for row in clustering.trace.collect()),
        (
            summary.n_iter,
            summary.ending,
            summary.unsettled,
            summary.netsim,
            summary.n_clusters,
            summary.fingerprint,
            summary.tried,
        ),
    ]


def stop_at(iteration: int) -> dict[str, Any]:
    """Options with which a run stops after an iteration."""
    return {"callback": lambda done: done.iteration >= iteration}


@pytest.fixture(scope="module")
def undisturbed(frame: Frame, edges: Edges) -> list[Any]:
    found = cluster(frame, edges, None)
    assert found.converged
    assert found.n_iter > 20
    return outcome(found)


@pytest.fixture(scope="module")
def stopped(frame: Frame, edges: Edges, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshots of a run that was stopped after iteration 12 or soon after."""
    directory = tmp_path_factory.mktemp("stopped")
    with pytest.raises(
        Interrupted, match=r"stopped after iteration \d+, with a snapshot in .*: the same command resumes"
    ):
        cluster(frame, edges, directory, **stop_at(12))
    assert len(list(directory.iterdir())) == 2
    return directory


@pytest.fixture
def snapshots(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "snapshots"))


@pytest.mark.parametrize("options", [{}, pytest.param({"engine": "dataframe"}, marks=LONG)])
def test_a_stopped_run_resumes_to_the_same_result(
    frame: Frame, edges: Edges, undisturbed: list[Any], snapshots: Path, options: dict[str, Any]
) -> None:
    seen: list[Iteration] = []
    found = cluster(frame, edges, snapshots, callback=seen.append, **options)
    assert outcome(found) == undisturbed
    assert seen[0].iteration > 12, "iterations are not done again"
    left = sorted(path.name for path in snapshots.iterdir())
    assert 2 <= len(left) <= 3, "the last two, and the one it started from"
    found.discard_snapshots()
    assert not list(snapshots.iterdir())


@LONG
def test_a_preference_given_in_another_way_is_the_same_run(
    frame: Frame, edges: Edges, undisturbed: list[Any], snapshots: Path
) -> None:
    diagonal = [(i, i, -2.0) for i in range(40)]
    assert outcome(cluster(frame, edges + diagonal, snapshots, preference=None)) == undisturbed


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    path.with_name(f".{path.name}.crc").unlink()  # or Hadoop would see it by itself


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def replace(path: Path) -> None:
    """By a table that is whole but not the one that was written."""
    table = pq.read_table(path)
    name = "iteration" if "iteration" in table.column_names else "r"
    place = table.column_names.index(name)
    changed = pa.array([value + 1 for value in table[name].to_pylist()], table.schema[place].type)
    pq.write_table(table.set_column(place, name, changed), path)
    path.with_name(f".{path.name}.crc").unlink()


@pytest.mark.parametrize(
    ("damage", "table"),
    [(spoil, "messages"), (cut, "columns"), (Path.unlink, "messages"), (replace, "messages"), (replace, "record")],
)
def test_a_damaged_snapshot_falls_back_to_the_one_before(
    spark: SparkSession, snapshots: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], table: str
) -> None:
    before, newest = sorted(snapshots.iterdir())
    damage(next((newest / table).glob("part-*.parquet")))
    checkpoint = opened(spark, snapshots, **SETTINGS)
    assert f"{newest.name} is damaged, so the one before it is taken" in caplog.text
    assert f"{before.name}, after iteration 10:" in checkpoint.format_saved()


@pytest.mark.long
def test_a_damaged_snapshot_is_none_of_the_two_that_are_kept(
    spark: SparkSession, graph: EdgeGraph, snapshots: Path
) -> None:
    before, newest = sorted(snapshots.iterdir())
    cut(next((newest / "messages").glob("part-*.parquet")))
    checkpoint = opened(spark, snapshots, **SETTINGS)
    found = checkpoint.begin(graph)
    assert found is not None
    assert found.state.iteration == found.trace[-1].iteration == 10
    engine = ENGINES["dataframe"](graph, start=found.state)
    advance(engine, 1)
    assert checkpoint.write(engine, graph, [])
    assert sorted(map(number_of, (path.name for path in snapshots.iterdir()))) == [number_of(before.name), 3]
    engine.release()


@pytest.mark.long
def test_without_a_whole_snapshot_a_run_starts_from_the_beginning(
    frame: Frame, edges: Edges, undisturbed: list[Any], snapshots: Path
) -> None:
    before, newest = sorted(snapshots.iterdir())
    (newest / "_SUCCESS").unlink()  # killed while it was written
    cut(next((before / "messages").glob("part-*.parquet")))
    seen: list[Iteration] = []
    assert outcome(cluster(frame, edges, snapshots, callback=seen.append)) == undisturbed
    assert seen[0].iteration == 1


def change_record(snapshot: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write the record of a snapshot as another version would: the checksum fits."""
    path = next((snapshot / "record").glob("part-*.parquet"))
    (record,) = pq.read_table(path).to_pylist()
    del record["checksum"]
    change(record)
    pq.write_table(pa.Table.from_pylist([record | {"checksum": digest(record)}]), path)
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def test_snapshots_of_another_run_are_refused(spark: SparkSession, frame: Frame, edges: Edges, snapshots: Path) -> None:
    before = sorted(snapshots.rglob("*"))
    with pytest.raises(CheckpointError, match=r"are of another: damping 0\.7 there, 0\.8 here .*--no-resume"):
        cluster(frame, edges, snapshots, damping=0.8)
    for given, options in ((edges, {"preference": -3.0}), ([*edges[:-1], (*edges[-1][:2], -1.5)], {})):
        with pytest.raises(CheckpointError, match="input and similarities have the fingerprint"):
            cluster(frame, given, snapshots, **options)
    assert sorted(snapshots.rglob("*")) == before
    newest = max(snapshots.iterdir())
    change_record(newest, lambda record: [done.update(netsim=-1.0) for done in record["trace"]])
    found = opened(spark, snapshots, **SETTINGS)
    assert newest.name in found.format_saved(), "a column more in the trace does no harm"
    change_record(newest, lambda record: [done.pop("changed") for done in record["trace"]])
    with pytest.raises(CheckpointError, match="format 4 without the column 'changed', by version"):
        opened(spark, snapshots, **SETTINGS)
    change_record(newest, lambda record: record.update(format=5))
    with pytest.raises(CheckpointError, match=r"format 5, by version .* there, 4, version .* here .*--no-resume"):
        opened(spark, snapshots, **SETTINGS)


@LONG
def test_a_run_can_start_again_and_another_be_given_more_iterations(
    frame: Frame, edges: Edges, undisturbed: list[Any], snapshots: Path
) -> None:
    with pytest.raises(Interrupted, match="the same command, but without --no-resume, resumes"):
        cluster(frame, edges, snapshots, resume=False, **stop_at(1))
    seen: list[Iteration] = []
    short = cluster(frame, edges, snapshots, resume=False, damping=0.7, max_iter=17, callback=seen.append)
    assert not short.converged
    assert [done.iteration for done in seen] == [*range(1, 18)]
    assert len(list(snapshots.iterdir())) == 2
    assert outcome(cluster(frame, edges, snapshots, callback=seen.append)) == undisturbed
    assert seen[17].iteration == 18


@pytest.mark.long
def test_drivers_that_do_not_know_of_each_other(spark: SparkSession, graph: EdgeGraph, tmp_path: Path) -> None:
    """As one that is presumed dead and lives on: each leaves the other's snapshots alone, and the newest counts."""
    one, other = (opened(spark, tmp_path) for _ in range(2))
    engine = ENGINES["one block"](graph)
    for checkpoint in (one, other, one):
        checkpoint.begin(graph)
        advance(engine, 1)
        assert checkpoint.write(engine, graph, [])
    found = opened(spark, tmp_path).begin(graph)
    assert found is not None
    assert found.state.iteration == 3
    one.discard()
    assert [number_of(path.name) for path in tmp_path.iterdir()] == [2]
    engine.release()


def test_a_run_says_what_it_has_saved(spark: SparkSession, snapshots: Path, tmp_path: Path) -> None:
    """Two runs of one process, as in a notebook: each says what it has saved, once it is opened."""
    one, other = opened(spark, snapshots, **SETTINGS), opened(spark, tmp_path / "other")
    assert f"the last snapshot is file:{sorted(snapshots.iterdir())[-1]}, after iteration" in one.format_saved()
    assert other.format_saved().startswith(f"there is no snapshot in file:{tmp_path / 'other'}")
    before = Checkpoint(spark, Settings(), Snapshots(checkpoint="/proc/c"))
    assert before.format_saved() == "the same command resumes from the last snapshot in /proc/c, if there is one"
    with pytest.raises(CheckpointError, match="must be a directory that can be written"):
        before.open()


@LONG
def test_what_the_engine_may_read_again_is_kept(
    spark: SparkSession, graph: EdgeGraph, whole: bytes, tmp_path: Path
) -> None:
    """A block is rebuilt from the first snapshot; two snapshots later, its executor may be lost."""
    checkpoint = opened(spark, tmp_path)
    engine = ENGINES["three blocks"](graph)
    assert isinstance(engine, ResidentEngine)
    checkpoint.begin(graph)
    for iteration in range(1, BEFORE + 1):
        advance(engine, 1)
        assert checkpoint.write(engine, graph, [])
        if iteration == 1:
            paths(engine)[0].unlink()
    assert sorted(number_of(path.name) for path in tmp_path.iterdir()) == [1, BEFORE - 1, BEFORE]
    for path in paths(engine):  # as where all executors are lost
        path.unlink()
    assert engine.blocks.handles is not None
    engine.blocks.handles.unpersist()
    advance(engine, AFTER)
    assert end(engine) == whole


def test_a_snapshot_that_cannot_be_written_does_not_end_the_run(
    frame: Frame, edges: Edges, undisturbed: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="must be a directory that can be written"):
        cluster(frame, edges, tmp_path / "file" / "below")

    def in_the_way(done: Iteration) -> None:
        if done.iteration == 10:
            (tmp_path / "c").touch()

    assert outcome(cluster(frame, edges, tmp_path / "c", callback=in_the_way)) == undisturbed
    assert "no snapshot taken: " in caplog.text


@LONG
@pytest.mark.parametrize("misses", [False, True])
def test_the_search_for_a_number_of_clusters_resumes_too(
    frame: Frame, edges: Edges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misses: bool
) -> None:
    """It begins at the median, for there to be several trials. With ``misses``, polishing never comes to the number."""
    monkeypatch.setattr(run, "_first_preference", lambda graph, settings, target: graph.quantiles(0.5)[0])
    search: dict[str, Any] = {"preference": None, "clusters": 5}
    if misses:
        search["quality"] = Quality()
        monkeypatch.setattr(run, "_ENOUGH", 2.0)
        monkeypatch.setattr(run, "_polished", lambda graph, best, *others: best)
    expected = cluster(frame, edges, None, **search)
    trials = len(expected.summary.tried)
    assert trials > 1
    assert any(trial["missed"] for trial in expected.summary.tried) == misses
    orders = [0, 0]  # the number of the trial, and its last iteration

    def stop(done: Iteration) -> bool:
        orders[0] += done.iteration == 1
        orders[1] = done.iteration
        return orders[0] == trials and orders[1] > 5

    with pytest.raises(Interrupted):
        cluster(frame, edges, tmp_path, callback=stop, **search)
    seen: list[Iteration] = []
    found = cluster(frame, edges, tmp_path, callback=seen.append, **search)
    assert outcome(found) == outcome(expected)
    assert seen[0].iteration > 5, "only the last trial was resumed"
    assert found.summary.settings == expected.summary.settings


@pytest.mark.parametrize(("clusters", "taken"), [(None, 1), (5, 0)])
def test_a_run_that_may_be_given_more_iterations_ends_with_a_snapshot(
    spark: SparkSession, graph: EdgeGraph, tmp_path: Path, clusters: int | None, taken: int
) -> None:
    """Where a number of clusters is searched for, max_iter decides which trials count: nothing could resume."""
    checkpoint = opened(spark, tmp_path, clusters=clusters)
    checkpoint.begin(graph)
    engine = ENGINES["one block"](graph)
    assert isinstance(engine, ResidentEngine)
    propagate(engine.graph, engine, max_iter=3, stability=Stability((8,)), watch=Watch(checkpoint=checkpoint))
    assert len(list(tmp_path.iterdir())) == taken
    engine.release()


@LONG
def test_numbers_of_numpy_are_settings_too(frame: Frame, edges: Edges, tmp_path: Path) -> None:
    given: dict[str, Any] = {"seed": np.int64(3), "damping": np.float32(0.75), "convergence_iter": np.int8(8)}
    for upto in (5, 7):
        found = cluster(frame, edges, tmp_path, max_iter=np.int32(upto), **given)
        assert found.n_iter == upto
    assert len(list(tmp_path.iterdir())) == 2, "the second run has resumed"
    assert json.loads(json.dumps(found.summary.settings))["damping"] == 0.75
