"""A clustering as its exemplars; two of them put together."""

from __future__ import annotations

import numpy as np
import pytest

from ap_spark.quality.solution import evaluate, recombine
from tests.quality.graphs import Graph, net_similarity, problem_of, random_graphs


@pytest.mark.parametrize("graph", random_graphs(20), ids=lambda graph: graph.name)
def test_evaluation_is_the_definition(graph: Graph) -> None:
    problem = problem_of(graph)
    rng = np.random.default_rng(1)
    for _ in range(5):
        solution = evaluate(problem, rng.random(graph.n) < 0.2, keep_count=True)
        expected = net_similarity(graph, solution.is_exemplar)
        assert solution.netsim * problem.unit == pytest.approx(expected, abs=graph.n * problem.unit, rel=1e-12)
        assert (solution.first[~solution.is_exemplar] >= 0).all()


@pytest.mark.parametrize("graph", random_graphs(20), ids=lambda graph: graph.name)
def test_points_that_count_more_as_exemplars_become_exemplars(graph: Graph) -> None:
    problem = problem_of(graph)
    start = np.random.default_rng(2).random(graph.n) < 0.2
    kept, freed = evaluate(problem, start, keep_count=True), evaluate(problem, start)
    assert freed.netsim >= kept.netsim
    assert (freed.value >= problem.preference)[~freed.is_exemplar].all()


@pytest.mark.parametrize("graph", random_graphs(40, seed=3), ids=lambda graph: graph.name)
@pytest.mark.parametrize("keep_count", [False, True])
def test_recombining_promises_no_more_than_it_brings(graph: Graph, keep_count: bool) -> None:
    problem = problem_of(graph)
    rng = np.random.default_rng(4)
    for _ in range(5):
        ours, other = (evaluate(problem, rng.random(graph.n) < 0.25, keep_count=keep_count) for _ in range(2))
        found = evaluate(problem, recombine(ours, other, keep_count=keep_count), keep_count=True)
        assert found.netsim >= ours.netsim
        if keep_count:
            assert found.n_clusters == ours.n_clusters


def test_recombining_takes_the_better_half_of_each() -> None:
    """Two parts without edges between them: one solution is best on the left, the other on the right."""
    i, k = np.nonzero(np.kron(np.eye(2), np.ones((3, 3))) - np.eye(6))
    graph = Graph("two parts", i, k, np.where((k == 0) | (k == 3), -1.0, -5.0), np.full(6, -10.0))
    problem = problem_of(graph)
    left, right = (evaluate(problem, np.isin(np.arange(6), chosen)) for chosen in ([0, 4], [1, 3]))
    assert np.flatnonzero(recombine(left, right)).tolist() == [0, 3]
    assert np.flatnonzero(recombine(right, left)).tolist() == [0, 3]
