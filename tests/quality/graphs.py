"""Random similarity graphs, their problems, and the optimum by a solver that is given all of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ap_spark.blocks.files import column_type
from ap_spark.blocks.kernel import make_block
from ap_spark.quality.problem import Problem, local_problem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Graph(NamedTuple):
    """Edges (i, k, s) without the diagonal, and preferences."""

    name: str
    i: Integers
    k: Integers
    s: Floats
    preferences: Floats

    @property
    def n(self) -> int:
        return len(self.preferences)


def dense(x: Floats) -> tuple[Integers, Integers, Floats]:
    """Minus the squared distances of all pairs."""
    i, k = np.nonzero(~np.eye(len(x), dtype=bool))
    return i, k, -np.square(x[i] - x[k]).sum(axis=1)


def random_graphs(count: int, seed: int = 0, most: int = 60) -> list[Graph]:
    """Small graphs of five kinds: all pairs, some pairs, no geometry, one-way with forced exemplars, three parts."""
    rng = np.random.default_rng(seed)
    graphs = []
    for number in range(count):
        n = int(rng.integers(8, most))
        i, k, s = dense(3.0 * rng.normal(size=(n, 2)))
        kind = ("all pairs", "sparse", "random", "one-way", "parts")[number % 5]
        if kind == "random":
            s = -rng.exponential(10.0, len(i))
        kept = {
            "sparse": rng.random(len(i)) < 0.3,
            "one-way": (rng.random(len(i)) < 0.2) & (i < 0.7 * n),
            "parts": (i % 3 == k % 3) & (rng.random(len(i)) < 0.7),
        }.get(kind, np.ones(len(i), bool))
        i, k, s = i[kept], k[kept], s[kept]
        middle = float(np.median(s))
        uniform = float(rng.choice([middle, s.min(), np.quantile(s, 0.2)]))
        preferences = np.full(n, uniform) if number % 2 else rng.normal(middle, 2.0, n)
        graphs.append(Graph(f"{number}: {kind}, {n} points", i, k, s, preferences))
    return graphs


def problem_of(graph: Graph, blocks: int = 1) -> Problem:
    """The problem in this process, its rows in so many blocks."""
    own = np.unique(graph.i)
    i, k = np.append(graph.i, own), np.append(graph.k, own)
    s = np.append(graph.s, np.zeros(len(own)))
    parts = []
    for number in range(blocks):
        here = i * blocks // graph.n == number
        if here.any():
            block = make_block(i[here], k[here].astype(column_type(graph.n)), s[here])
            parts.append((block, block.s))
    return local_problem(parts, graph.preferences)


def net_similarity(graph: Graph, is_exemplar: NDArray[np.bool_]) -> float:
    """The net similarity from its definition; minus infinity where a point is left without an exemplar."""
    s = np.full((graph.n, graph.n), -np.inf)
    s[graph.i, graph.k] = graph.s
    best = s[:, is_exemplar].max(axis=1, initial=-np.inf)
    return float(np.where(is_exemplar, graph.preferences, best).sum())


def optimum(graph: Graph, clusters: int | None = None, *, relaxed: bool = False) -> float:
    """The largest net similarity, or that of the linear relaxation."""
    n, edges = graph.n, len(graph.i)
    rows = np.append(np.arange(n), graph.i)
    choice = csr_array((np.ones(n + edges), (rows, np.arange(n + edges))), shape=(n, n + edges))
    each = np.tile(np.arange(edges), 2)
    columns = np.append(n + np.arange(edges), graph.k)
    needs = csr_array((np.repeat([1.0, -1.0], edges), (each, columns)), shape=(edges, n + edges))
    constraints = [LinearConstraint(choice, 1.0, 1.0), LinearConstraint(needs, -np.inf, 0.0)]
    if clusters is not None:
        count = np.append(np.ones(n), np.zeros(edges))[None, :]
        constraints.append(LinearConstraint(count, clusters, clusters))
    found = milp(
        -np.append(graph.preferences, graph.s),
        integrality=np.append(np.full(n, 0 if relaxed else 1), np.zeros(edges)),
        bounds=Bounds(0.0, 1.0),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    assert found.status == 0
    return -float(found.fun)
