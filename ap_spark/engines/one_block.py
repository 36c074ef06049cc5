"""Iterations on a block that is the whole graph: no exchange, so one process does them by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ap_spark.blocks.kernel import Block, Flags, Floats, Integers, column_totals
from ap_spark.convergence import Iteration
from ap_spark.damping import Damping, PointDamping, is_raise_due
from ap_spark.exact_sum import Units

__all__ = ["Compute", "OneBlock"]

# Updates the messages of the block from the last totals, its damping, and that of the last iteration where it was
# another; returns the contributions to the new totals, int64 of shape (words, n_points).
Compute = Callable[[Floats, Damping, Damping | None], Integers]


class OneBlock:
    """A block that is the whole graph, and its columns.

    Parameters
    ----------
    block : Block
        With its messages after iteration ``iteration``.
    sums : int64, shape (words, n_points)
        What its messages contribute to the totals, in units.
    units : Units
    damping : PointDamping
        After the last iteration that was ever done: ``iteration``, or a later one that is to be repeated.
    iteration : int
    n_forced : int
        The number of forced exemplars, which counts in the records.

    Attributes
    ----------
    iteration : int
        The last one that is done.
    totals, a : float64, shape (n_points,)
        T(k) after it, and a(k,k), which follows from it.
    exemplar : bool, shape (n_points,)
        Whether a(k,k) + r(k,k) > 0.
    damping : PointDamping
    """

    def __init__(
        self, block: Block, sums: Integers, units: Units, damping: PointDamping, iteration: int, n_forced: int
    ) -> None:
        self.damping = damping
        self.iteration = iteration
        self._block, self._units, self._n_forced = block, units, n_forced
        self.totals: Floats
        self.exemplar: Flags
        self.a = np.zeros(sums.shape[1])
        self.a[block.rows] = block.a[block.diagonal]
        self._end(sums)

    def iterate(self, compute: Compute, windows: tuple[int, ...]) -> Iteration:
        """Do the next iteration; return its record.

        Parameters
        ----------
        compute : callable
        windows : tuple of int
            See `Stability`.
        """
        started = time.perf_counter()
        self.damping.raise_levels(self.iteration + 1)
        before = self.exemplar
        self.repeat(compute)
        flipped = self.exemplar != before
        self.damping.note(self.iteration, flipped)
        count, changed = int(np.count_nonzero(self.exemplar)) + self._n_forced, int(np.count_nonzero(flipped))
        unsettled = self.damping.unsettled(self.iteration, windows)
        return Iteration(self.iteration, count, changed, unsettled, time.perf_counter() - started)

    def repeat(self, compute: Compute) -> None:
        """Do the next iteration, whose flips are noted already."""
        self.iteration += 1
        last = self.damping.at(self.iteration - 1) if is_raise_due(self.iteration) else None
        self._end(compute(self.totals, self.damping.at(self.iteration), last))

    def _end(self, sums: Integers) -> None:
        """Compute the columns after an iteration."""
        r = self._block.diagonal_r(0, len(self.a))
        damping = self.damping.at(self.iteration)
        self.totals, self.a, self.exemplar = column_totals(sums, r, self.a, damping, self._units)
