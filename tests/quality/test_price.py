"""The preference for a number of clusters, beside the marginal value of one more exemplar in the linear relaxation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from ap_spark.blocks import compiling
from ap_spark.quality.improve import Goal, improve
from ap_spark.quality.price import price_of
from tests.quality.graphs import Graph, optimum, problem_of, random_graphs

GRAPHS = [
    graph._replace(preferences=np.full(graph.n, float(np.median(graph.s))))
    for graph in random_graphs(40, seed=21, most=50)
    if graph.n >= 20 and ("all pairs" in graph.name or "sparse" in graph.name)
]


@pytest.mark.parametrize("share", [3, 5])
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_one_more_exemplar_is_worth_its_price(graph: Graph, share: int) -> None:
    clusters = graph.n // share
    largest = float(graph.s.max())
    free = graph._replace(preferences=np.zeros(graph.n))
    fewer, value, more = (optimum(free, count, relaxed=True) for count in (clusters - 1, clusters, clusters + 1))
    highest, lowest = value - more, fewer - value  # preferences between these make so many the best
    price = price_of(problem_of(graph), clusters, largest)
    assert price is not None
    assert 0.8 * (largest - highest) <= largest - price <= 1.25 * (largest - lowest)


@pytest.mark.parametrize("graph", GRAPHS[::4], ids=lambda graph: graph.name)
def test_the_same_bits_from_any_number_of_blocks_in_numpy_and_compiled(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = set()
    for least in (10**9, 0):
        monkeypatch.setitem(compiling._MIN_EDGES, "objective", least)
        prices |= {price_of(problem_of(graph, blocks), 5, float(graph.s.max())) for blocks in (1, 2, 7)}
    assert len(prices) == 1


def test_all_points_and_forced_exemplars_alone_have_no_price() -> None:
    one_way = next(graph for graph in random_graphs(20) if "one-way" in graph.name)
    n_forced = one_way.n - len(np.unique(one_way.i))
    assert n_forced > 0
    problem, largest = problem_of(one_way), float(one_way.s.max())
    assert price_of(problem, n_forced, largest) is None
    assert price_of(problem, one_way.n, largest) is None
    assert price_of(problem, n_forced + 1, largest) is not None


@pytest.mark.parametrize(("neighbors", "clusters"), [(10, 90), (50, 50)])
def test_points_that_few_exemplars_leave_out_do_not_lead_astray(neighbors: int, clusters: int) -> None:
    """The start has far more exemplars than are asked for, and the bound comes below it. The price is still told."""
    x = np.random.default_rng(1).normal(size=(1000, 2))
    distance, index = cKDTree(x).query(x, neighbors + 1)
    pairs = coo_array(
        (distance[:, 1:].ravel() ** 2, (np.repeat(np.arange(1000), neighbors), index[:, 1:].ravel())),
        shape=(1000, 1000),
    ).tocsr()
    both = pairs.maximum(pairs.T).tocoo()
    s = -both.data
    graph = Graph("neighbours", both.row, both.col, s, np.full(1000, float(np.median(s))))
    price = price_of(problem_of(graph), clusters, float(s.max()))
    assert price is not None
    free = improve(problem_of(graph._replace(preferences=np.full(1000, price))), np.arange(1000) % 10 == 0, Goal())
    assert 0.7 * clusters <= np.count_nonzero(free.is_exemplar) <= 1.3 * clusters
