"""From the exemplars of the messages to better ones, and to a bound of how good any could be (docs/quality.md).

    exemplars ──► polish ──► bound, a pass at a time ──► recombine with what the bound opens ──► polish ──► …
                                                    └──► small enough: prove
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ap_spark.blocks.kernel import Flags
from ap_spark.quality.bound import Bound
from ap_spark.quality.polish import bring_to, polish
from ap_spark.quality.problem import Problem
from ap_spark.quality.proof import core_of, solve
from ap_spark.quality.solution import Solution, evaluate, recombine

__all__ = ["Goal", "Improved", "improve"]

logger = logging.getLogger(__name__)

_LOOK_EVERY = 10  # passes
_SEARCH_EDGES = 500_000  # in graphs with fewer, here in this process, each of these looks is polished by itself
_PROVED_AT_ONCE = 3_000  # variables that a solver is given without being asked for
_PROVED_ON_REQUEST = 200_000
_SECONDS_AT_ONCE, _SECONDS_ON_REQUEST = 5.0, 300.0


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Attributes
    ----------
    polish : bool
    gap : float or None
        Bound until the gap is at most this share of the net similarity; None for no bound.
    exact : bool
        Give larger problems to the solver, too.
    clusters : int, optional
        The number of exemplars.
    passes : int
        Of the bound, at most.
    """

    polish: bool = True
    gap: float | None = 0.001
    exact: bool = False
    clusters: int | None = None
    passes: int = 200


@dataclass(frozen=True)
class Improved:
    """Better exemplars.

    Attributes
    ----------
    is_exemplar : bool, shape (n_points,)
    upper_bound : float or None
        No clustering (with so many exemplars, where a number is asked for) has a larger net similarity.
    is_proved : bool
        Whether there is none better than this one.
    """

    is_exemplar: Flags
    upper_bound: float | None
    is_proved: bool


def improve(
    problem: Problem, is_exemplar: Flags, goal: Goal, told: Callable[[str, Solution, int | None], None] | None = None
) -> Improved:
    """Polish exemplars and bound what any could reach.

    Parameters
    ----------
    problem : Problem
    is_exemplar : bool, shape (n_points,)
        The exemplars to begin with.
    goal : Goal
    told : callable, optional
        Called after each round and pass, with the name of the step, the solution, and the smallest bound.

    Returns
    -------
    Improved
    """
    keep_count = goal.clusters is not None
    smallest: int | None = None

    def tell(step: str, solution: Solution) -> None:
        if told:
            told(step, solution, smallest)

    def polished(solution: Solution) -> Solution:
        return polish(problem, solution, keep_count=keep_count, told=lambda better: tell("polish", better))

    solution = evaluate(problem, is_exemplar, keep_count=True)
    if goal.polish:
        if goal.clusters is not None:
            solution = bring_to(problem, polished(solution), goal.clusters)
        solution = polished(solution)
    if goal.gap is None or (keep_count and solution.n_clusters != goal.clusters):
        return Improved(solution.is_exemplar, None, is_proved=False)

    bound = Bound(problem, solution, goal.clusters)
    for done in range(1, goal.passes + 1):
        smallest = bound.smallest
        if bound.has_ended or smallest - solution.netsim <= goal.gap * abs(solution.netsim):
            break
        bound.improve(solution.netsim)
        if goal.polish and done % _LOOK_EVERY == 0:
            other = evaluate(problem, bound.is_open, keep_count=keep_count)
            searched = problem.is_local and problem.n_edges < _SEARCH_EDGES
            candidates = [other, polished(other)] if searched else [other]
            for candidate in candidates:
                is_exemplar = recombine(solution, candidate, keep_count=keep_count)
                if (is_exemplar != solution.is_exemplar).any():
                    solution = polished(evaluate(problem, is_exemplar, keep_count=keep_count))
        tell("bound", solution)
    smallest = bound.smallest
    is_proved = smallest <= solution.netsim
    if not is_proved and goal.polish:
        most = _PROVED_ON_REQUEST if goal.exact else _PROVED_AT_ONCE
        core = core_of(problem, solution, bound, most)
        if core is not None:
            seconds = _SECONDS_ON_REQUEST if goal.exact else _SECONDS_AT_ONCE
            best = solve(problem, solution, core, seconds, goal.clusters)
            if best is not None:
                solution, smallest, is_proved = best, best.netsim, True
    return Improved(solution.is_exemplar, problem.as_float(smallest), is_proved)
