"""Opening, closing and swapping exemplars."""

from __future__ import annotations

import numpy as np
import pytest

from ap_spark.blocks.objective import NONE
from ap_spark.quality.improve import Goal, improve
from ap_spark.quality.polish import bring_to, exchange, polish
from ap_spark.quality.solution import Solution, evaluate
from tests.quality.graphs import Graph, dense, net_similarity, problem_of, random_graphs

GRAPHS = random_graphs(40, seed=5, most=30)


def single_moves(graph: Graph, solution: Solution) -> list[float]:
    """What each single move brings: open, close, and swap an exemplar for one of its members."""
    before = net_similarity(graph, solution.is_exemplar)
    found = []
    for point in range(graph.n):
        changed = solution.is_exemplar.copy()
        changed[point] = not changed[point]
        found.append(net_similarity(graph, changed) - before)
        if not solution.is_exemplar[point]:
            changed[solution.first[point]] = False
            found.append(net_similarity(graph, changed) - before)
    return found


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_no_single_move_is_left(graph: Graph) -> None:
    problem = problem_of(graph)
    start = evaluate(problem, np.random.default_rng(6).random(graph.n) < 0.3)
    polished = polish(problem, start)
    assert polished.netsim >= start.netsim
    assert max(single_moves(graph, polished)) <= 1e-9 * max(1.0, np.abs(graph.s).max())


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_the_number_of_exemplars_stays_where_it_has_to(graph: Graph) -> None:
    problem = problem_of(graph)
    start = evaluate(problem, np.random.default_rng(7).random(graph.n) < 0.3, keep_count=True)
    polished = polish(problem, start, keep_count=True)
    assert polished.netsim >= start.netsim
    assert polished.n_clusters == start.n_clusters
    left = np.isfinite(net_similarity(graph, polished.is_exemplar))
    assert left, "every point has an exemplar"


@pytest.mark.parametrize("clusters", [3, 5, 8])
@pytest.mark.parametrize("graph", GRAPHS[::10], ids=lambda graph: graph.name)
def test_a_number_of_clusters_is_reached(graph: Graph, clusters: int) -> None:
    """All pairs are stored: every number can be reached."""
    problem = problem_of(graph)
    start = evaluate(problem, np.arange(graph.n) % 3 == 0)
    found = bring_to(problem, start, clusters)
    assert found.n_clusters == clusters


def test_rounds_with_many_moves_bring_what_their_moves_promise() -> None:
    """`polish` itself asserts it; here on 2,000 points, where a round makes many moves."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(400, 2)) * 5
    i, k, s = dense(x)
    near = s > -4.0
    graph = Graph("near", i[near], k[near], s[near], np.full(len(x), -3.0))
    problem = problem_of(graph)
    rounds: list[Solution] = []
    polished = polish(problem, evaluate(problem, rng.random(len(x)) < 0.2), told=rounds.append)
    assert 3 < len(rounds) < 40
    assert [solution.netsim for solution in rounds] == sorted({solution.netsim for solution in rounds})
    assert max(single_moves(graph, polished)) <= 1e-9


def test_every_point_an_exemplar_is_not_the_end_where_one_would_do() -> None:
    """All pairs are stored, so that a round closes one exemplar: more rounds than in large graphs are needed."""
    x = np.random.default_rng(3).normal(size=(260, 2))
    problem = problem_of(Graph("far too many", *dense(x), np.full(260, -1e4)))
    found = polish(problem, evaluate(problem, np.ones(260, bool)))
    assert found.n_clusters == 1
    assert found.first[0] == np.square(x[:, None] - x[None]).sum(axis=2).sum(axis=0).argmin()


@pytest.mark.parametrize("graph", GRAPHS[::5], ids=lambda graph: graph.name)
def test_an_exchange_keeps_the_number_and_never_loses(graph: Graph) -> None:
    problem = problem_of(graph)
    start = polish(problem, evaluate(problem, np.arange(graph.n) % 4 == 0, keep_count=True), keep_count=True)
    found = exchange(problem, start)
    assert found.n_clusters == start.n_clusters
    assert found.netsim >= start.netsim


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_no_swap_of_any_two_is_left(graph: Graph, blocks: int) -> None:
    """Against each of them tried, but those after which a member would be without exemplar."""
    problem = problem_of(graph, blocks)
    found = exchange(problem, evaluate(problem, np.arange(graph.n) % 5 == 0, keep_count=True))
    lacks = ~found.is_exemplar & (found.second == NONE)
    stays = problem.forced | np.isin(np.arange(graph.n), found.first[lacks]) | (found.best == NONE)
    before = net_similarity(graph, found.is_exemplar)
    for old in np.flatnonzero(found.is_exemplar & ~stays):
        for new in np.flatnonzero(~found.is_exemplar):
            changed = found.is_exemplar.copy()
            changed[[old, new]] = False, True
            assert net_similarity(graph, changed) <= before + 1e-9 * max(1.0, np.abs(graph.s).max())
    assert polish(problem, found, keep_count=True) is found


def test_an_exchange_takes_an_exemplar_to_another_place() -> None:
    """Three groups, and three exemplars of which two are in one of them: no swap within a cluster mends that."""
    rng = np.random.default_rng(0)
    x = np.repeat([[0.0, 0.0], [9.0, 0.0], [40.0, 0.0]], 20, axis=0) + rng.normal(size=(60, 2))
    problem = problem_of(Graph("three groups", *dense(x), np.full(60, -5.0)))
    is_exemplar = np.zeros(60, bool)
    is_exemplar[[5, 45, 55]] = True
    stuck = polish(problem, evaluate(problem, is_exemplar, keep_count=True), keep_count=True)
    found = exchange(problem, stuck)
    assert found.netsim > stuck.netsim
    assert sorted(np.flatnonzero(found.is_exemplar) // 20) == [0, 1, 2]
    improved = improve(problem, is_exemplar, Goal(gap=None, clusters=3))
    assert sorted(np.flatnonzero(improved.is_exemplar) // 20) == [0, 1, 2]
