"""The best clustering of a small problem, with a proof, by HiGHS through SciPy.

A clustering that is better than the known one can use only a few points as exemplars, and a few edges: those whose
reduced costs at the numbers of the bound stay within the gap. Where few are left, a solver of integer programs finds
the best choice among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from ap_spark.blocks.kernel import Flags, Integers
from ap_spark.blocks.objective import entries_of
from ap_spark.quality.bound import Bound
from ap_spark.quality.problem import Problem
from ap_spark.quality.solution import Solution, evaluate

__all__ = ["Core", "core_of", "solve"]

_RELATIVE_GAP = 1e-12  # at which the solver is done
_LARGEST = 1e5  # number that it is given: beside larger ones its tolerances would swallow small ones


@dataclass(frozen=True)
class Core:
    """What a better clustering can be made of.

    Attributes
    ----------
    columns : int64, shape (m,)
        Points that may be exemplars.
    must : bool, shape (m,)
        Points that are exemplars of every better clustering.
    i, k, s : int64, shape (edges,)
        Edges to them, with similarities in units.
    """

    columns: Integers
    must: Flags
    i: Integers
    k: Integers
    s: Integers

    @property
    def size(self) -> int:
        """The number of variables of the integer program."""
        return len(self.columns) + len(self.i)


def core_of(problem: Problem, solution: Solution, bound: Bound, most: int) -> Core | None:
    """Return what reduced costs leave; None if that is more than ``most`` variables."""
    gap = bound.smallest - solution.netsim
    earns, (inside, outside) = bound.earns, bound.prices
    may = (earns >= inside - gap) | problem.forced
    if np.count_nonzero(may) > most:
        return None
    loss = np.where(may, np.maximum(inside - earns, 0), gap + 1)
    loss[problem.forced] = 0
    found, _ = problem.visit(entries_of, bound.v, loss, gap)
    i = np.concatenate([part.rows for part in found])
    k, s = (np.concatenate([part.values[n] for part in found]) for n in range(2))
    (columns,) = np.nonzero(may)
    core = Core(columns, (problem.forced | (earns > outside + gap))[columns], i, k, s)
    return core if core.size <= most else None


def solve(
    problem: Problem,
    solution: Solution,
    core: Core,
    *,
    seconds: float,
    nodes: int | None = None,
    clusters: int | None = None,
) -> Solution | None:
    """Find the best clustering; None if the solver has come to one of its limits before, or cannot prove it.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        The best one known.
    core : Core
    seconds : float
        At most.
    nodes : int, optional
        Of the solver's search tree, at most: a limit that is the same on every machine.
    clusters : int, optional
        The number of exemplars it has to have.
    """
    n, m, edges = problem.n_points, len(core.columns), len(core.i)
    place = np.full(n, -1)
    place[core.columns] = np.arange(m)
    # Variables: y(k) for each column, then x(i,k) for each edge. A point chooses itself or one edge; an edge needs its
    # column.
    edge = m + np.arange(edges)
    has_row = ~problem.forced
    row_of = np.cumsum(has_row) - 1
    own = core.columns[has_row[core.columns]]
    choice = csr_array(
        (
            np.ones(len(own) + edges),
            (np.append(row_of[own], row_of[core.i]), np.append(place[own], edge)),
        ),
        shape=(np.count_nonzero(has_row), m + edges),
    )
    needs = csr_array(
        (
            np.repeat([1.0, -1.0], edges),
            (np.tile(np.arange(edges), 2), np.append(edge, place[core.k])),
        ),
        shape=(edges, m + edges),
    )
    constraints = [LinearConstraint(choice, 1.0, 1.0)]
    if edges:
        constraints.append(LinearConstraint(needs, -np.inf, 0.0))
    if clusters is not None:
        count = np.append(np.ones(m), np.zeros(edges))
        constraints.append(LinearConstraint(count[None, :], clusters, clusters))
    # The solver's tolerances are absolute: numbers are given as multiples of what a point counts on average.
    scale = float(max(1, abs(solution.netsim) // n))
    worth = np.append(np.where(problem.forced[core.columns], 0, problem.preference[core.columns]), core.s) / scale
    if np.abs(worth).max(initial=0.0) > _LARGEST:
        return None
    found = milp(
        -worth,
        integrality=np.append(np.ones(m), np.zeros(edges)),
        bounds=Bounds(np.append(core.must.astype(float), np.zeros(edges)), 1.0),
        constraints=constraints,
        options={"time_limit": seconds, "mip_rel_gap": _RELATIVE_GAP}
        | ({} if nodes is None else {"node_limit": nodes}),
    )
    if found.status != 0:
        return None
    is_exemplar = problem.forced.copy()
    is_exemplar[core.columns[found.x[:m] > 0.5]] = True
    best = evaluate(problem, is_exemplar, keep_count=clusters is not None)
    return best if best.netsim > solution.netsim else solution
