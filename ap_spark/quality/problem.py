"""The objective in whole units, and where its rows are: in this process, or in the blocks of a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.compiling import twin_of
from ap_spark.blocks.kernel import Block, Flags, Floats, Integers
from ap_spark.blocks.objective import Found, in_whole_units
from ap_spark.blocks.store import broadcast
from ap_spark.exact_sum import unit_of
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.block_graph import BlockGraph

__all__ = ["FETCHED_EDGES", "Problem", "local_problem", "problem_of"]

FETCHED_EDGES = 10_000_000

Visit = Callable[..., tuple[Sequence[Found], Integers]]


@dataclass(frozen=True)
class Problem:
    """Which exemplars make the net similarity largest?

    Every point is an exemplar, and counts its preference; or it counts its similarity to an exemplar that it stores an
    edge to.

    Attributes
    ----------
    preference : int64, shape (n_points,)
        In units, rounded up.
    forced : bool, shape (n_points,)
        Points without edges to others, which are exemplars in every clustering.
    unit : float
        A power of two. Sums of a number for each point cannot overflow 64 bits.
    n_edges : int
    visit : callable
        ``visit(kernel, *of_points)`` runs a pass of `objective`, or its compiled twin, over all rows, and returns what
        it found in each block, and the sums over all blocks.
    """

    preference: Integers
    forced: Flags
    unit: float
    n_edges: int
    visit: Visit

    @property
    def n_points(self) -> int:
        """The number of points."""
        return len(self.preference)

    @property
    def limit(self) -> int:
        """Two times the largest similarity or preference in size, in units, is at most this."""
        return (1 << 61) // (self.n_points + 1)

    @property
    def slack(self) -> float:
        """What rounding to units can change in a net similarity, at most."""
        return self.n_points * self.unit

    def of_rows(self, kernel: Callable[..., Found], *of_points: Any, fill: Sequence[Any]) -> list[NDArray[Any]]:
        """Run a pass; return its values for each point, and those of ``fill`` where a point has no row."""
        found, _ = self.visit(kernel, *of_points)
        return self.scattered(found, fill)

    def scattered(self, found: Sequence[Found], fill: Sequence[Any]) -> list[NDArray[Any]]:
        """Return the values of rows as arrays with a value for each point, from copies of ``fill``."""
        arrays = [np.array(np.broadcast_to(value, self.n_points)) for value in fill]
        for part in found:
            for array, values in zip(arrays, part.values, strict=True):
                array[part.rows] = values
        return arrays

    def as_float(self, units: int) -> float:
        """Return a number of units, as the smallest float that is not less."""
        value = float(units)
        return (value if int(value) >= units else math.nextafter(value, math.inf)) * self.unit


def local_problem(blocks: Sequence[tuple[Block, Floats]], preferences: Floats) -> Problem:
    """Make the problem of rows that are in this process.

    Parameters
    ----------
    blocks : sequence of (Block, float64)
        Blocks of rows, and their similarities; on the diagonal these have no meaning.
    preferences : float64, shape (n_points,)

    Examples
    --------
    >>> from ap_spark.blocks.kernel import make_block
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([0.0, -1.0, -1.0, 0.0]))
    >>> local_problem([(block, block.s)], np.array([-3.0, -2.0])).n_edges
    2
    """
    n_points = len(preferences)
    sizes = [np.abs(preferences).max(initial=0.0)]
    forced = np.ones(n_points, bool)
    for block, similarity in blocks:
        forced[block.rows] = False
        off_diagonal = np.ones(len(similarity), bool)
        off_diagonal[block.diagonal] = False
        sizes.append(np.abs(similarity).max(initial=0.0, where=off_diagonal))
    unit = unit_of(float(max(sizes)), n_points)
    preference = in_whole_units(preferences, unit)
    held = []
    for block, similarity in blocks:
        units = in_whole_units(similarity, unit)
        units[block.diagonal] = preference[block.rows]
        parts, start = [], 0
        for part in block.parts:
            parts.append((part, units[start : start + len(part.s)]))
            start += len(part.s)
        held.append(parts)

    n_edges = sum(len(block.s) - len(block.rows) for block, _ in blocks)

    def visit(kernel: Callable[..., Found], *of_points: Any) -> tuple[Sequence[Found], Integers]:
        run = twin_of(kernel, n_edges)
        found = [run(parts, *of_points) for parts in held or [[]]]
        return found, np.asarray(sum((part.sums for part in found[1:]), found[0].sums))

    return Problem(preference, forced, unit, n_edges, visit)


@contextmanager
def problem_of(graph: ArrayGraph) -> Iterator[Problem]:
    """Make the problem of a graph; what it holds is released at the end.

    Up to 10 million edges are fetched to the driver, 120 MB: there a pass costs its arithmetic alone. More stay where
    they are, and a pass is a job.
    """
    if graph.n_edges <= FETCHED_EDGES or not isinstance(graph, BlockGraph):
        fetched = [_as_block(*arrays) for arrays in graph.blocks.visit(_whole)] if graph.n_edges else []
        yield local_problem(fetched, graph.preferences)
        return
    unit = unit_of(max(map(abs, graph.range)), graph.n_points)
    preference = in_whole_units(graph.preferences, unit)
    sent_preference = broadcast(graph.spark, preference)
    try:

        def visit(kernel: Callable[..., Found], *of_points: Any) -> tuple[Sequence[Found], Integers]:
            task = partial(_in_units, kernel=kernel, unit=unit, n_edges=graph.n_edges)
            return graph.blocks.visit_columns(task, sent_preference, *of_points)

        yield Problem(preference, graph.forced, unit, graph.n_edges, visit)
    finally:
        sent_preference.destroy()


def _in_units(
    parts: Iterable[tuple[Block, Floats]],
    preference: Integers,
    *of_points: Any,
    kernel: Callable[..., Found],
    unit: float,
    n_edges: int,
) -> Found:
    """Run a pass, or its compiled twin, on a block whose similarities are floats."""
    convert = twin_of(in_whole_units, n_edges)

    def in_units() -> Iterator[tuple[Block, Integers]]:
        for block, similarity in parts:
            units = convert(similarity, unit)
            units[block.diagonal] = preference[block.rows]
            yield block, units

    return twin_of(kernel, n_edges)(in_units(), *of_points)


def _whole(parts: Iterable[tuple[Block, Floats]]) -> list[NDArray[Any]]:
    """Return the rows of a block, how many entries each has, their columns and their similarities."""
    found = [(part.rows, np.diff(part.starts), part.columns, similarity) for part, similarity in parts]
    return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]


def _as_block(rows: Integers, lengths: Integers, columns: NDArray[Any], similarity: Floats) -> tuple[Block, Floats]:
    starts = np.append(0, np.cumsum(lengths))
    diagonal = np.flatnonzero(columns == np.repeat(rows, lengths))
    block = Block(rows, starts, diagonal, columns, s=similarity, r=similarity, a=similarity)  # without messages
    return block, similarity
