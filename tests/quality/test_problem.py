"""The problem of a graph in blocks: fetched to the driver, or visited where it is, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame

import ap_spark.quality.problem as module
from ap_spark.blocks import store
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.quality.improve import Goal, Step, improve
from ap_spark.settings import Settings
from tests.conftest import Edges, random_edges

Frame = Callable[[Edges], DataFrame]


def graph_of(frame: Frame, partitions: int) -> BlockGraph:
    """Thirty points, some without out-edges."""
    edges = [edge for edge in random_edges(np.random.default_rng(1), 30, 0.3, symmetric=False) if edge[0] % 9]
    return build_block_graph(frame(edges), Settings(preference=-3.0, partitions=partitions), None, None)


def improved(graph: BlockGraph, goal: Goal, lose: Callable[[], None] = lambda: None) -> tuple[object, ...]:
    steps: list[Step] = []

    def told(step: Step) -> None:
        steps.append(step)
        if len(steps) == 3:
            lose()

    with module.problem_of(graph) as problem:
        found = improve(problem, np.arange(graph.n_points) % 4 == 0, goal, told)
    return found.is_exemplar.tobytes(), found.upper_bound, found.is_proved, steps


@pytest.mark.parametrize(
    ("collected", "passes"),
    [
        pytest.param(64 << 20, 2, id="added by the driver"),
        pytest.param(64 << 20, 12, id="added by the driver, with looks", marks=pytest.mark.long),
        pytest.param(0, 6, id="shuffled", marks=pytest.mark.long),
    ],
)
def test_passes_over_blocks_are_those_in_this_process(
    frame: Frame, monkeypatch: pytest.MonkeyPatch, collected: int, passes: int
) -> None:
    goal = Goal(gap=0.0, passes=passes)
    fetched = graph_of(frame, 1)
    expected = improved(fetched, goal)
    fetched.release()
    monkeypatch.setattr(module, "_FETCHED_EDGES", 0)
    monkeypatch.setattr(store, "_COLLECTED_BYTES", collected)
    graph = graph_of(frame, 3)
    assert improved(graph, goal) == expected
    graph.release()


@pytest.mark.long
def test_a_block_that_is_lost_on_the_way_is_written_again(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FETCHED_EDGES", 0)
    graph = graph_of(frame, 3)
    path = Path(graph.blocks.found[1].path)
    expected = improved(graph, Goal(passes=2))
    assert improved(graph, Goal(passes=2), lose=path.unlink) == expected
    assert path.exists()
    graph.release()
