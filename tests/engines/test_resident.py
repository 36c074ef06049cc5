"""The resident engine: what must not change its messages, what it moves, and what it leaves in the cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark.blocks import store
from ap_spark.blocks.store import Blocks
from ap_spark.convergence import Iteration
from ap_spark.engines.resident import ResidentEngine
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.settings import Settings
from benchmarks.workload import ready_graph
from tests.conftest import (
    LONG,
    Edges,
    affinity_propagation,
    held_tables,
)
from tests.on_blocks import OnBlocks, advance, bits, messages_of, names

Frame = Callable[[Edges], DataFrame]


@LONG
def test_the_order_and_partitions_of_the_input_do_not_change_the_bits(frame: Frame, tied: Edges) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for partitions in (1, 2, 7):
        shuffled = [tied[n] for n in rng.permutation(len(tied))]
        graph = build_edge_graph(frame(shuffled).repartition(partitions), Settings())
        engine = OnBlocks(graph, 0.8, 1, "numpy")
        advance(engine, 4)
        seen.add(bits(messages_of(engine)))
        engine.release()
        graph.release()
    assert len(seen) == 1


@pytest.mark.parametrize("blocks", [1, pytest.param(2, marks=LONG)])
def test_iterations_asked_for_one_by_one_give_the_same_bits(frame: Frame, tied: Edges, blocks: int) -> None:
    graph = build_edge_graph(frame(tied), Settings())
    whole, parts = (OnBlocks(graph, 0.8, blocks, "numpy") for _ in range(2))
    advance(whole, 9)
    for iterations in (1, 3, 5):
        advance(parts, iterations)
    assert bits(messages_of(whole)) == bits(messages_of(parts))
    assert names(whole) == names(parts)
    whole.release()
    parts.release()
    graph.release()


def test_there_are_no_more_blocks_than_rows(frame: Frame) -> None:
    graph = build_edge_graph(frame([(0, 1, -1.0), (1, 0, -1.5), (2, 1, -1.0)]), Settings(), points=None)
    engine = OnBlocks(graph, 0.8, 16, "numpy")
    assert engine.blocks.layout.cuts.tolist() == [0, 1, 2, 3]
    assert [handle.entries for handle in engine.blocks.found] == [2, 2, 2]
    engine.release()
    graph.release()


def bytes_moved(spark: SparkSession, engine: ResidentEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """What an iteration shuffles, and what it broadcasts."""
    tracker = spark.sparkContext._jsc.sc().statusStore()
    last_job = tracker.jobsList(None).head().jobId()
    sizes: list[int] = []
    send = store.broadcast

    def watched(session: SparkSession, value: Any) -> Any:
        variable = send(session, value)
        sizes.append(Path(variable._path).stat().st_size)
        return variable

    with monkeypatch.context() as patched:
        patched.setattr(store, "broadcast", watched)
        advance(engine, 1)
    jobs = [job for job in listed(tracker.jobsList(None)) if job.jobId() > last_job]
    stages = [tracker.lastStageAttempt(stage) for job in jobs for stage in listed(job.stageIds())]
    return sum(stage.shuffleWriteBytes() for stage in stages), sum(sizes)


def listed(sequence: Any) -> list[Any]:
    return [sequence.apply(number) for number in range(sequence.size())]


@LONG
def test_bytes_moved_go_with_points_and_blocks_and_not_with_edges(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(points: int, neighbors: int, blocks: int) -> tuple[int, int]:
        graph = ready_graph(spark, points, neighbors, tmp_path, blocks)
        engine = ResidentEngine(graph, 0.8, "numba", collected_bytes=0)
        advance(engine, 3)
        found = bytes_moved(spark, engine, monkeypatch)
        engine.release()
        graph.release()
        return found

    shuffled, broadcast = moved(30_000, 5, 2)
    shuffled_by_more_edges, broadcast_by_more_edges = moved(30_000, 20, 2)
    assert shuffled_by_more_edges == pytest.approx(shuffled, rel=0.1)
    assert broadcast_by_more_edges == pytest.approx(broadcast, rel=0.1)
    shuffled_by_more_points, broadcast_by_more_points = moved(60_000, 5, 2)
    assert shuffled_by_more_points == pytest.approx(2 * shuffled, rel=0.1)
    assert broadcast_by_more_points == pytest.approx(2 * broadcast, rel=0.1)
    assert broadcast == pytest.approx(8 * 30_000, rel=0.1)
    shuffled_by_more_blocks, broadcast_by_more_blocks = moved(30_000, 5, 6)
    assert shuffled < shuffled_by_more_blocks < 3 * shuffled  # 12 bytes at most a point and block, and 8 a point
    assert broadcast_by_more_blocks == pytest.approx(broadcast, rel=0.1)


@pytest.mark.parametrize("blocks", [1, 2])
def test_files_and_tables_go_when_a_run_is_interrupted(
    spark: SparkSession, frame: Frame, tied: Edges, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    before = held_tables(spark).keys()
    files: list[Path] = []
    write = Blocks.write

    def watched(blocks: Blocks) -> None:
        write(blocks)
        files.extend(Path(handle.path) for handle in blocks.found)

    def interrupt(done: Iteration) -> None:
        assert all(path.exists() for path in files)
        raise KeyboardInterrupt

    monkeypatch.setattr(Blocks, "write", watched)
    with pytest.raises(KeyboardInterrupt):
        affinity_propagation(frame(tied), partitions=blocks, callback=interrupt)
    assert len(files) == blocks
    assert not any(path.parent.exists() for path in files)
    assert held_tables(spark).keys() <= before
