"""Polished, bounded and proved, beside a solver that is given the whole problem (HiGHS)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import ap_spark.quality.improve as module
from ap_spark.blocks import compiling
from ap_spark.quality.improve import Goal, Step, improve
from tests.quality.graphs import Floats, Graph, net_similarity, optimum, problem_of, random_graphs


def start_of(graph: Graph) -> NDArray[np.bool_]:
    """Exemplars to begin with: every third point."""
    return np.asarray(np.arange(graph.n) % 3 == 0)


def close(left: float, right: float) -> bool:
    return abs(left - right) <= 1e-7 * max(1.0, abs(right))


GRAPHS = random_graphs(200, seed=9)
SMALL = random_graphs(40, seed=10, most=30)


def test_what_is_polished_is_the_optimum_of_most_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Netsim <= optimum <= relaxation <= bound on all of them; without the solver, in at least 95 % the optimum."""
    monkeypatch.setattr(module, "_PROVED_AT_ONCE", 0)
    met = 0
    for graph in SMALL:
        problem = problem_of(graph)
        found = improve(problem, start_of(graph), Goal(gap=0.0))
        reached, best, relaxed = net_similarity(graph, found.is_exemplar), optimum(graph), optimum(graph, relaxed=True)
        assert found.upper_bound is not None
        slack = 1e-7 * abs(relaxed)
        assert reached <= best + slack <= relaxed + 2 * slack <= found.upper_bound + 3 * slack, graph.name
        met += close(reached, best)
    assert met >= 0.95 * len(SMALL)


@pytest.mark.long
def test_what_is_polished_is_the_optimum_of_most_of_200_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROVED_AT_ONCE", 0)
    met = 0
    for graph in GRAPHS:
        found = improve(problem_of(graph), start_of(graph), Goal(gap=0.0))
        best, relaxed = optimum(graph), optimum(graph, relaxed=True)
        assert found.upper_bound is not None
        assert found.upper_bound >= relaxed - 1e-7 * abs(relaxed), graph.name
        met += close(net_similarity(graph, found.is_exemplar), best)
    assert met >= 0.95 * len(GRAPHS)


@pytest.mark.parametrize("graph", SMALL[1::5], ids=lambda graph: graph.name)
def test_small_problems_are_proved(graph: Graph) -> None:
    found = improve(problem_of(graph), start_of(graph), Goal(gap=0.0, exact=True))
    assert found.is_proved
    assert close(net_similarity(graph, found.is_exemplar), optimum(graph))


@pytest.mark.parametrize("clusters", [2, 5])
@pytest.mark.parametrize("graph", SMALL[:40:10], ids=lambda graph: graph.name)
def test_the_best_with_so_many_clusters(graph: Graph, clusters: int) -> None:
    found = improve(problem_of(graph), start_of(graph), Goal(gap=0.0, exact=True, clusters=clusters))
    assert np.count_nonzero(found.is_exemplar) == clusters
    assert found.is_proved
    assert close(net_similarity(graph, found.is_exemplar), optimum(graph, clusters))


@pytest.mark.parametrize("graph", GRAPHS[:10], ids=lambda graph: graph.name)
@pytest.mark.parametrize("goal", [Goal(), Goal(clusters=9), Goal(polish=False)], ids=str)
def test_the_same_bits_from_any_number_of_blocks_in_numpy_and_compiled(
    graph: Graph, goal: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for least in (10**9, 0):
        monkeypatch.setitem(compiling._MIN_EDGES, "objective", least)
        for blocks in (1, 2, 7):
            steps: list[Step] = []
            found = improve(problem_of(graph, blocks), start_of(graph), goal, steps.append)
            results.append((found.is_exemplar.tobytes(), found.upper_bound, found.is_proved, steps))
    assert all(result == results[0] for result in results)


def test_without_polishing_the_exemplars_stay() -> None:
    graph = GRAPHS[0]
    start = start_of(graph)
    found = improve(problem_of(graph), start, Goal(polish=False))
    assert (found.is_exemplar == start).all()
    assert found.upper_bound is not None
    assert found.upper_bound >= optimum(graph) - 1e-7
    assert not found.is_proved


def test_without_a_gap_there_is_no_bound() -> None:
    graph = GRAPHS[0]
    found = improve(problem_of(graph), start_of(graph), Goal(gap=None))
    assert found.upper_bound is None


def test_a_larger_tolerance_ends_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROVED_AT_ONCE", 0)
    graph = GRAPHS[0]
    passes = []
    for gap in (0.2, 0.02):
        steps: list[Step] = []
        found = improve(problem_of(graph), start_of(graph), Goal(gap=gap), steps.append)
        assert found.upper_bound is not None
        assert found.upper_bound - net_similarity(graph, found.is_exemplar) <= gap * abs(
            net_similarity(graph, found.is_exemplar)
        )
        passes.append(sum(step.name == "bound" for step in steps))
    assert passes[0] < passes[1]


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_similarities_of_any_size(scale: float) -> None:
    graph = GRAPHS[5]
    scaled = graph._replace(s=graph.s * scale, preferences=graph.preferences * scale)
    found = improve(problem_of(scaled), start_of(graph), Goal(gap=0.0))
    assert found.is_proved
    assert close(net_similarity(graph, found.is_exemplar), optimum(graph))


@pytest.mark.parametrize(
    "preferences",
    [np.zeros(4), np.full(4, 10.0), np.array([-1.0, 5.0, -1e6, 0.0])],
    ids=["zero", "positive", "mixed"],
)
def test_preferences_of_either_sign(preferences: Floats) -> None:
    i, k = np.nonzero(~np.eye(4, dtype=bool))
    graph = Graph("four points", i, k, np.random.default_rng(10).normal(size=12), preferences)
    found = improve(problem_of(graph), np.ones(4, bool), Goal(gap=0.0))
    assert close(net_similarity(graph, found.is_exemplar), optimum(graph))


@pytest.mark.parametrize("never", [-1e7, -1e12])
@pytest.mark.parametrize("seed", [3, 14])
def test_a_very_small_preference_is_no_reason_for_a_false_proof(seed: int, never: float) -> None:
    """The tolerances of a solver are absolute: beside -1e7 it takes two clusterings for equal that are not."""
    rng = np.random.default_rng(seed)
    n = 30
    i, k = np.nonzero((rng.random((n, n)) < 0.3) & ~np.eye(n, dtype=bool))
    preferences = np.full(n, -12.0)
    preferences[:3] = never
    graph = Graph("sparse", i, k, -rng.exponential(10.0, len(i)), preferences)
    found = improve(problem_of(graph), start_of(graph), Goal())
    best = optimum(graph._replace(preferences=np.maximum(preferences, -1e3)))  # they are not needed
    assert found.upper_bound is not None
    assert found.upper_bound >= best - 1e-6
    if found.is_proved:
        assert close(net_similarity(graph, found.is_exemplar), best)
