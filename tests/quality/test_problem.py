"""The problem of a graph in blocks: fetched to the driver, or visited where it is, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame

import ap_spark.quality.problem as module
from ap_spark.blocks import objective, store
from ap_spark.blocks.kernel import make_block
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
    monkeypatch.setattr(module, "FETCHED_EDGES", 0)
    monkeypatch.setattr(store, "_COLLECTED_BYTES", collected)
    graph = graph_of(frame, 3)
    assert improved(graph, goal) == expected
    graph.release()


@pytest.mark.parametrize("name", ["best_two", "entries_of"])
def test_compiled_passes_take_the_floats_of_a_file(name: str) -> None:
    """What a task does; `entries_of` has no twin."""
    i, k = np.nonzero(np.ones((9, 9)))
    block = make_block(i, k.astype(np.int32), -np.random.default_rng(2).gamma(2.0, 1.0, 81))
    preference = np.arange(-9, 0)
    of_points = {"best_two": (np.arange(9) % 3 == 0,), "entries_of": (preference * 100, np.zeros(9, np.int64), 50)}
    found = []
    for n_edges in (72, 10**7):
        run = partial(module._in_units, kernel=getattr(objective, name), unit=2.0**-10, n_edges=n_edges)
        result = run([(block, block.s)], preference, *of_points[name])
        found.append([array.tobytes() for array in (result.rows, *result.values, result.sums)])
    assert found[0] == found[1]
    assert len(result.rows)


@pytest.mark.long
def test_a_block_that_is_lost_on_the_way_is_written_again(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCHED_EDGES", 0)
    graph = graph_of(frame, 3)
    path = Path(graph.blocks.found[1].path)
    expected = improved(graph, Goal(passes=2))
    assert improved(graph, Goal(passes=2), lose=path.unlink) == expected
    assert path.exists()
    graph.release()
