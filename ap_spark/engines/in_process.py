"""Iterations in this process, on a graph that it holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ap_spark.blocks import passes
from ap_spark.blocks.compiling import twin_of
from ap_spark.blocks.kernel import Flags, Floats, Integers, entry_damping, iterate
from ap_spark.convergence import Iteration, Stability
from ap_spark.damping import Damping, PointDamping
from ap_spark.engines.one_block import OneBlock
from ap_spark.graph.local_graph import LocalGraph

__all__ = ["InProcessEngine"]


class InProcessEngine:
    """Computes iterations without Spark; bitwise the same as the other engines.

    Parameters
    ----------
    graph : LocalGraph
    damping : float or None
        A fixed damping, in [0.5, 1); None for one of its own for each point.
    kernel : {"auto", "numpy", "numba"}
        See `tasks.Plan`.
    """

    name = "in-process"

    def __init__(self, graph: LocalGraph, damping: float | None, kernel: str = "auto") -> None:
        n = graph.n_points
        self._blocks, self._units = graph.blocks, graph.units
        self._block = graph.with_messages()
        self._iterate = twin_of(iterate, graph.n_edges, kernel)
        self._sums = np.zeros((self._units.words, n), np.int64)
        levels = PointDamping(damping, np.zeros(n, np.uint8), np.zeros(n, np.int32))
        self._run = OneBlock(self._block, self._sums, self._units, levels, 0, graph.n_forced)

    @property
    def iteration(self) -> int:
        """The last iteration that is done."""
        return self._run.iteration

    def chosen(self) -> Integers:
        """Return for each point the one that it would have as its exemplar by r of this iteration and a of the last.

        That is the column with the largest a + r (Frey & Dueck 2007); a forced exemplar has itself.
        """
        block = self._block
        found = np.arange(len(self._run.exemplar))
        for part in block.groups:
            evidence = part.a + part.r
            largest = np.maximum.reduceat(evidence, part.starts[:-1])
            (places,) = np.nonzero(evidence == np.repeat(largest, part.lengths))
            first = np.searchsorted(places, part.starts[:-1])
            found[part.rows] = part.columns[places[first]]
        return found

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        """Do up to ``most`` further iterations, and yield one record for each; end where stability is reached."""
        for _ in range(most):
            done = self._run.iterate(self._compute, stability.windows)
            yield done
            if stability.reached(done):
                return

    def _compute(self, totals: Floats, damping: Damping, last: Damping | None) -> Integers:
        """Update the messages; see `one_block.Compute`."""
        before = None if last is None else entry_damping(self._block, last)
        self._sums.fill(0)
        self._iterate(self._block, totals, entry_damping(self._block, damping), self._units, self._sums, before)
        return self._sums

    def unserved(self) -> int:
        """Count the points that are no exemplars and store no edge to one."""
        return sum(self._blocks.visit(passes.unserved, self._run.exemplar | np.isinf(self._run.totals)))

    def exemplars(self) -> Flags:
        """Return the exemplars without the forced ones."""
        return self._run.exemplar

    def release(self) -> None:
        """Free nothing: memory goes with the object."""
