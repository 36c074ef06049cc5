"""The rows of a graph in this process, visited by the same passes as blocks beside executors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.kernel import Block, Floats, Integers

__all__ = ["LocalBlocks"]


class LocalBlocks:
    """All rows of a graph.

    Parameters
    ----------
    i, k : int64, shape (entries,)
        Row and column of each entry, in order; every row has its diagonal.
    similarity : float64, shape (entries,)
        On the diagonal it has no meaning.
    """

    def __init__(self, i: Integers, k: NDArray[Any], similarity: Floats) -> None:
        first = np.flatnonzero(np.diff(i, prepend=-1))
        self.similarity = similarity
        self._rows, self._starts = i[first], np.append(first, len(i))
        self._diagonal, self._columns = np.flatnonzero(i == k), k.astype(np.int32)

    def block(self, s: Floats) -> Block:
        """Return the rows with these similarities, and with messages that are 0."""
        r, a = np.zeros(len(s)), np.zeros(len(s))
        return Block(self._rows, self._starts, self._diagonal, self._columns, s, r, a)

    def pairs(self) -> tuple[Integers, Integers, Floats]:
        """Return the stored pairs (i, k) of different points, and their similarities."""
        i = np.repeat(self._rows, np.diff(self._starts))
        apart = np.ones(len(i), bool)
        apart[self._diagonal] = False
        return i[apart], self._columns[apart].astype(np.int64), self.similarity[apart]

    def visit(self, kernel: Callable[..., Any], *of_points: Any) -> list[Any]:
        """Run a pass; return what ``kernel(parts, *of_points)`` returns."""
        return [kernel(self._parts(), *of_points)]

    def _parts(self) -> Iterator[tuple[Block, Floats]]:
        """Yield the rows, a part at a time, without messages."""
        similarity = self.similarity
        whole = Block(self._rows, self._starts, self._diagonal, self._columns, similarity, similarity, similarity)
        for part in whole.parts:
            yield part, part.s
