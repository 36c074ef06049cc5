"""From the exemplars of the messages to better ones, and to a bound of how good any could be (docs/quality.md).

exemplars ──► polish ──► bound, a pass at a time ──► recombine with what the bound opens ──► polish ──► …
                                                └──► small enough: prove
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from ap_spark.blocks.kernel import Flags
from ap_spark.quality.bound import Bound
from ap_spark.quality.polish import bring_to, exchange, polish
from ap_spark.quality.problem import FETCHED_EDGES, Problem
from ap_spark.quality.proof import core_of, solve
from ap_spark.quality.solution import Solution, evaluate, recombine

__all__ = ["Goal", "Improved", "Step", "Told", "improve", "most_passes"]

Told = Callable[["Step"], None]

_TINY, _SMALL, _LARGE = 50_000, 500_000, FETCHED_EDGES  # edges
# Passes of the bound at most, those that gain too little before steps are halved, and those between two looks at what
# it would open. In small graphs passes cost next to nothing. In large ones a pass is a job: bounding is to take no
# longer than the iterations did, and steps are halved earlier.
_PASSES, _PASSES_IF_SMALL, _PASSES_IF_LARGE = 200, 400, 100
_PATIENCE, _PATIENCE_IF_SMALL = 4, 10
_LEAST_GAIN_IF_LARGE = 0.01
_LOOK_EVERY, _LOOK_EVERY_IF_SMALL = 10, 5
# What is looked at is also polished, as another start: in tiny graphs always, in small ones every so many passes; and
# where few clusters are asked for, in the first looks (with more clusters, exchanges take longer and bring less).
_START_EVERY_IF_SMALL = 40
_FEW, _STARTS_OF_FEW = 200, 5
_PROVED_AT_ONCE = 2_000  # variables that a solver is given without being asked for
_PROVED_ON_REQUEST = 200_000
_LIMITS_AT_ONCE: dict[str, Any] = {
    "seconds": 60.0,
    "nodes": 20,
}  # of which the nodes count, unless a machine is very slow
_LIMITS_ON_REQUEST: dict[str, Any] = {"seconds": 300.0}


def most_passes(n_edges: int) -> int:
    """Return how many passes of the bound there are at most, in a graph of so many edges.

    >>> most_passes(100_000), most_passes(1_000_000), most_passes(100_000_000)
    (400, 200, 100)
    """
    return _PASSES_IF_SMALL if n_edges <= _SMALL else _PASSES_IF_LARGE if n_edges > _LARGE else _PASSES


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
    passes : int, optional
        Of the bound, at most; by default 200, in small graphs 400, in large ones 100.
    """

    polish: bool = True
    gap: float | None = 0.001
    exact: bool = False
    clusters: int | None = None
    passes: int | None = None


class Step(NamedTuple):
    """How far a run has come.

    Attributes
    ----------
    name : {"start", "polish", "bound", "proof"}
        The first is told to nobody: the exemplars to begin with, brought to the number that is asked for.
    done : int
        Rounds of polishing, or passes of the bound.
    netsim : float
    upper_bound : float or None
    """

    name: str
    done: int
    netsim: float
    upper_bound: float | None


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
    slack : float
        What rounding to units can change in a net similarity, at most.
    steps : list of Step
        How they came about: each round of polishing, each pass of the bound, and the proof. Rounds on what is only
        looked at are left out.
    """

    is_exemplar: Flags
    upper_bound: float | None
    is_proved: bool
    slack: float
    steps: list[Step] = field(default_factory=list)


def improve(problem: Problem, is_exemplar: Flags, goal: Goal, told: Told | None = None) -> Improved:
    """Polish exemplars and bound what any could reach.

    Parameters
    ----------
    problem : Problem
    is_exemplar : bool, shape (n_points,)
        The exemplars to begin with.
    goal : Goal
    told : callable, optional
        Called after each round of polishing and each pass of the bound.

    Returns
    -------
    Improved
    """
    keep_count = goal.clusters is not None
    is_tiny, is_small, is_large = problem.n_edges <= _TINY, problem.n_edges <= _SMALL, problem.n_edges > _LARGE
    smallest: int | None = None
    rounds = 0
    steps: list[Step] = []

    def tell(name: str, done: int, solution: Solution, *, is_kept: bool = True) -> None:
        upper_bound = None if smallest is None else problem.as_float(smallest)
        step = Step(name, done, solution.netsim * problem.unit, upper_bound)
        if is_kept:
            steps.append(step)
        if told:
            told(step)

    def tell_round(solution: Solution, *, is_kept: bool = True) -> None:
        nonlocal rounds
        rounds += 1
        tell("polish", rounds, solution, is_kept=is_kept)

    def polished(solution: Solution, *, is_kept: bool = True) -> Solution:
        told_of = partial(tell_round, is_kept=is_kept)
        solution = polish(problem, solution, keep_count=keep_count, told=told_of)
        return exchange(problem, solution, told=told_of) if keep_count and not is_large else solution

    solution = evaluate(problem, is_exemplar, keep_count=True)
    if goal.polish and goal.clusters is not None:
        solution = polish(problem, solution, keep_count=True, told=partial(tell_round, is_kept=False))
        solution = bring_to(problem, solution, goal.clusters)
    steps.append(Step("start", 0, solution.netsim * problem.unit, None))
    if goal.polish:
        solution = polished(solution)
    if goal.gap is None or (keep_count and solution.n_clusters != goal.clusters):
        return Improved(solution.is_exemplar, None, is_proved=False, slack=problem.slack, steps=steps)

    passes = goal.passes or most_passes(problem.n_edges)
    look_every = _LOOK_EVERY_IF_SMALL if is_small else _LOOK_EVERY
    bound = Bound(
        problem,
        solution,
        patience=_PATIENCE_IF_SMALL if is_small else _PATIENCE,
        least_gain=_LEAST_GAIN_IF_LARGE if is_large else 0.0,
        clusters=goal.clusters,
    )
    has_few = goal.clusters is not None and goal.clusters <= _FEW and not is_large
    for done in range(1, passes + 1):
        smallest = bound.smallest
        if bound.has_ended or smallest - solution.netsim <= goal.gap * abs(solution.netsim):
            break
        bound.improve(solution.netsim)
        if goal.polish and done % look_every == 0:
            for is_open in [bound.is_often_open] if is_large else [bound.is_open, bound.is_often_open]:
                other = evaluate(problem, is_open, keep_count=keep_count)
                is_start = is_tiny or (is_small and not keep_count and done % _START_EVERY_IF_SMALL == 0)
                if has_few and done <= _STARTS_OF_FEW * look_every and is_open is bound.is_open:
                    is_start |= other.n_clusters == goal.clusters
                for candidate in [other, polished(other, is_kept=False)] if is_start else [other]:
                    is_exemplar = recombine(solution, candidate, keep_count=keep_count)
                    if (is_exemplar != solution.is_exemplar).any():
                        solution = polished(evaluate(problem, is_exemplar, keep_count=keep_count))
        smallest = bound.smallest
        tell("bound", done, solution)
    smallest = bound.smallest
    if steps[-1].name != "bound":  # it was small enough at once
        tell("bound", 0, solution)
    is_proved = smallest <= solution.netsim
    if not is_proved and goal.polish:
        most = _PROVED_ON_REQUEST if goal.exact else _PROVED_AT_ONCE
        core = core_of(problem, solution, bound, most)
        if core is not None:
            limits = _LIMITS_ON_REQUEST if goal.exact else _LIMITS_AT_ONCE
            best = solve(problem, solution, core, **limits, clusters=goal.clusters)
            if best is not None:
                solution, smallest, is_proved = best, best.netsim, True
                tell("proof", 1, solution)
    return Improved(solution.is_exemplar, problem.as_float(smallest), is_proved, problem.slack, steps)
