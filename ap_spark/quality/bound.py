"""An upper bound of the net similarity, by the dual of the linear relaxation (docs/quality.md).

For any numbers v, one for each point,

    C(k) = p(k) - v(k) + sum over i != k of max(0, s(i,k) - v(i))
    bound(v) = sum of v + sum over k of max(0, C(k))

is at least the net similarity of every clustering (Komodakis, Paragios & Tziritas, NIPS 2008). All of it are integers,
rounded up: the bound is true to the last bit. Numbers v that make it small are found by subgradient steps along
directions that keep 0.7 of the last one (Crowder 1976), each a pass over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.blocks.objective import bound_step
from ap_spark.quality.problem import Problem
from ap_spark.quality.solution import Solution

__all__ = ["Bound"]

_KEEP = 0.7  # of the last direction
_RECENT = 0.125  # weight of a pass among the last ones
_SMALLEST_SCALE = 1e-3  # of a step


@dataclass
class _Point:
    """Numbers v, and what is known there."""

    v: Integers
    direction: Floats
    earns: Integers
    is_open: Flags
    bound: int


class Bound:
    """The smallest bound found until now, from a solution on.

    Parameters
    ----------
    problem : Problem
    solution : Solution
        At the numbers that it begins with, its members and exemplars share what their clusters count.
    patience : int
        Passes in a row that gain too little after which steps are halved.
    least_gain : float
        What a pass has to gain, as a share of the gap that is left.
    clusters : int, optional
        Bound only clusterings with so many exemplars: then the so many largest C(k) are added, whatever their sign.

    Attributes
    ----------
    smallest : int
        In units.
    is_open : bool, shape (n_points,)
        The points that the last pass would open: near a good bound they are near to good exemplars.
    """

    def __init__(
        self,
        problem: Problem,
        solution: Solution,
        *,
        patience: int,
        least_gain: float = 0.0,
        clusters: int | None = None,
    ) -> None:
        self._problem = problem
        self._clusters = clusters
        self._patience, self._least_gain = patience, least_gain
        exemplar = solution.exemplar
        size = np.bincount(exemplar, minlength=problem.n_points)
        share = problem.preference[exemplar] // size[exemplar]
        v = np.where(problem.forced, 0, np.where(solution.is_exemplar, 0, solution.value) + share)
        self._scale = 1.0
        self._failures = 0
        # Two passes that stay at v: the first finds what is open there, the second the subgradient.
        self._now = self._step(v, np.zeros(problem.n_points), solution.is_exemplar, 0.0)
        self._now = self._step(v, np.zeros(problem.n_points), self._now.is_open, 0.0)
        self._share = self._now.is_open.astype(np.float64)
        self._best = self._now
        self._length = _squared(self._now.direction)

    @property
    def smallest(self) -> int:
        return self._best.bound

    @property
    def v(self) -> Integers:
        """The numbers v of the smallest bound."""
        return self._best.v

    @property
    def earns(self) -> Integers:
        """C(k) there."""
        return self._best.earns

    @property
    def prices(self) -> tuple[int, int]:
        """At the smallest bound: the least that an open column earns, and the most that a closed one does.

        Both are 0 where the number of exemplars is free.
        """
        if self._clusters is None:
            return 0, 0
        earns, is_open = self._best.earns, self._best.is_open
        inside, outside = earns[is_open & ~self._problem.forced], earns[~is_open]
        if not (len(inside) and len(outside)):
            return -self._problem.limit, self._problem.limit
        return int(inside.min()), int(outside.max())

    @property
    def is_open(self) -> Flags:
        return self._now.is_open

    @property
    def is_often_open(self) -> Flags:
        """The points that most of the last passes would open."""
        return np.asarray(self._share > 0.5)

    @property
    def has_ended(self) -> bool:
        """Whether steps have become too short to bring anything."""
        return self._scale < _SMALLEST_SCALE or self._length == 0.0

    def improve(self, known: int) -> None:
        """Make a step; ``known`` is the largest net similarity known, in units.

        The length of a step follows from the direction of the last one, so that a step is one pass.
        """
        step = self._scale * float(self._now.bound - known) / self._length
        self._now = self._step(self._now.v, self._now.direction, self._now.is_open, step)
        self._length = _squared(self._now.direction)
        self._share += (self._now.is_open - self._share) * _RECENT
        gained, left = self._best.bound - self._now.bound, self._best.bound - known
        if gained > 0:
            self._best = self._now
        if float(gained) > self._least_gain * float(left):
            self._failures = 0
            return
        self._failures += 1
        if self._failures == self._patience:
            self._scale, self._failures = self._scale / 2.0, 0
            self._now = self._best
            self._length = _squared(self._now.direction)

    def _step(self, v: Integers, direction: Floats, is_open: Flags, step: float) -> _Point:
        problem = self._problem
        found, (sums,) = problem.visit(bound_step, v, direction, is_open, step, _KEEP, problem.limit)
        v, direction = problem.scattered(found, (v, direction))
        earns = problem.preference - v + sums
        is_open = (earns > 0) | problem.forced if self._clusters is None else self._largest(earns, self._clusters)
        return _Point(v, direction, earns, is_open, _sum(v) + _sum(earns[is_open]))

    def _largest(self, earns: Integers, clusters: int) -> Flags:
        """Return the points with the largest C(k), so many with the forced exemplars; on ties the smallest index."""
        (free,) = np.nonzero(~self._problem.forced)
        order = free[np.argsort(-earns[free], kind="stable")]
        is_open = self._problem.forced.copy()
        is_open[order[: max(0, clusters - int(np.count_nonzero(is_open)))]] = True
        return is_open


def _sum(numbers: Integers) -> int:
    """Return a sum that may be larger than 64 bits."""
    return (int((numbers >> 32).sum()) << 32) + int((numbers & 0xFFFFFFFF).sum())


def _squared(direction: Floats) -> float:
    """Return the squared length of a direction, the same on every machine: directions are multiples of 1 / 1024."""
    whole = (direction * 1024.0).astype(np.int64)
    largest = int(np.abs(whole).max(initial=0))
    excess = max(0, (2 * largest.bit_length() + len(whole).bit_length() - 62 + 1) // 2)
    shifted = whole >> excess
    return float(int(np.dot(shifted, shifted)) << (2 * excess)) / 1024.0**2
