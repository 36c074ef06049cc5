"""One iteration on one block of rows: arrays in, arrays out, no Spark.

A block holds some rows of the similarity graph in compressed sparse row form. An iteration is

    contributions = responsibilities(block, ...)      per row, from the row's two largest a + s
    T = total of the contributions of all blocks      the only numbers that leave a block
    availabilities(block, T, ...)                     per entry, from its column's total

Sources: Frey & Dueck, Science 315 (2007), equations 1-3; semantics.md, sections 2 and 3. Every operation is a plain
IEEE 754 double operation in the order written here, which the dataframe engine repeats in SQL: both give the same bits.

Entries are visited in slices of rows that stay in the processor's cache, with scratch arrays made once: whole-array
temporaries cost several times the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "availabilities", "exemplars", "make_block", "responsibilities"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SLICE = 1 << 15  # entries visited together: five arrays of them fit a second-level cache


@dataclass
class Block:
    """Some rows of the graph and their messages.

    Attributes
    ----------
    rows : int64, shape (m,)
        The points whose rows these are, ascending.
    starts : int64, shape (m + 1,)
        Row j has the entries ``starts[j]:starts[j + 1]``; every row has its diagonal and at least one entry more.
    columns : int32 or int64, shape (entries,)
        The column k of each entry.
    s, r, a : float64, shape (entries,)
        Similarity (diagonal: preference), responsibility and availability of each entry.
    diagonal : int64, shape (m,)
        Where each row's diagonal entry is.
    """

    rows: Integers
    starts: Integers
    columns: NDArray[Any]
    s: Floats
    r: Floats
    a: Floats
    diagonal: Integers = field(init=False)

    def __post_init__(self) -> None:
        of_entry = np.repeat(self.rows, np.diff(self.starts))
        self.diagonal = np.flatnonzero(self.columns == of_entry)

    def slices(self) -> list[tuple[slice, slice]]:
        """Consecutive rows and their entries, about SLICE entries at a time (a longer row is a slice of its own)."""
        cuts = [0]
        while cuts[-1] < len(self.rows):
            full = np.searchsorted(self.starts, self.starts[cuts[-1]] + SLICE, side="right") - 1
            cuts.append(max(int(full), cuts[-1] + 1))
        return [
            (slice(low, high), slice(int(self.starts[low]), int(self.starts[high]))) for low, high in pairwise(cuts)
        ]


def make_block(i: NDArray[Any], k: NDArray[Any], s: Floats, r: Floats | None = None, a: Floats | None = None) -> Block:
    """Put entries given in any order into a block; messages not given are 0.

    Parameters
    ----------
    i, k : integers, shape (entries,)
        Row and column of each entry; no pair twice, and (i, i) is there for every row i.
    s, r, a : float64, shape (entries,), optional
        Similarity, responsibility, availability.

    Examples
    --------
    >>> block = make_block(np.array([1, 0, 1, 0]), np.array([1, 1, 0, 0]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> block.starts, block.columns, block.diagonal
    (array([0, 2, 4]), array([0, 1, 0, 1]), array([0, 3]))
    """
    order = np.lexsort((k, i))
    i = i[order]
    rows, first = np.unique(i, return_index=True)

    def ordered(message: Floats | None) -> Floats:
        return np.zeros(len(i)) if message is None else message[order]

    return Block(
        rows=rows.astype(np.int64),
        starts=np.append(first, len(i)).astype(np.int64),
        columns=k[order],
        s=s[order],
        r=ordered(r),
        a=ordered(a),
    )


def damp(old: Floats, new: Floats, damping: float | Floats) -> None:
    """old <- damping * old + (1 - damping) * new, in place; ``new`` is used up."""
    np.multiply(old, damping, out=old)
    np.multiply(new, 1.0 - damping, out=new)
    np.add(old, new, out=old)


def of_entries(damping: float | Floats, block: Block, rows: slice) -> float | Floats:
    """The damping of each entry of some rows."""
    if isinstance(damping, float):
        return damping
    return np.repeat(damping[rows], np.diff(block.starts[rows.start : rows.stop + 1]))


def responsibilities(block: Block, damping: float | Floats, unit: float, n_points: int) -> Integers:
    """Send new responsibilities from the block's rows, in place, and return what they add to the column totals.

        r'(i,k) = s(i,k) - max over k' != k of [a(i,k') + s(i,k')];   r <- damping r + (1 - damping) r'

    Only a row's largest and second largest a + s matter: the first is the maximum of the others for every k but its
    own, the second for that one; after a tie for the largest they are equal.

    Parameters
    ----------
    block : Block
    damping : float, or float64 of shape (m,)
        In [0.5, 1); one number, or one for each row of the block.
    unit : float
        The unit u of exact sums, see `exact.unit_of`.
    n_points : int
        The number of columns of the graph.

    Returns
    -------
    int64, shape (n_points,)
        In units of u: r(k,k) plus the sum over this block's rows i != k of max(0, r(i,k)).

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> responsibilities(block, 0.5, unit=0.25, n_points=2)
    array([0, 0])
    >>> block.r
    array([-0.5,  0.5,  0.5, -0.5])
    """
    inverse = 1.0 / unit
    totals = np.zeros(n_points, np.int64)
    slices = block.slices()
    longest = max((entries.stop - entries.start for _, entries in slices), default=0)
    scratch, scratch_other = np.empty(longest), np.empty(longest)
    for rows, entries in slices:
        length = entries.stop - entries.start
        value, other = scratch[:length], scratch_other[:length]
        s, r = block.s[entries], block.r[entries]
        starts = block.starts[rows] - entries.start

        np.add(block.a[entries], s, out=value)
        largest = np.maximum.reduceat(value, starts)
        of_row = np.repeat(largest, np.diff(block.starts[rows.start : rows.stop + 1]))
        best = np.flatnonzero(value == of_row)
        if len(best) > len(starts):  # ties: any one of them serves
            row_of_best = np.searchsorted(starts, best, side="right")
            best = best[np.flatnonzero(np.diff(row_of_best, prepend=0))]
        value[best] = -np.inf
        second = np.maximum.reduceat(value, starts)

        np.subtract(s, of_row, out=other)
        other[best] = s[best] - second
        damp(r, other, of_entries(damping, block, rows))

        positive = np.flatnonzero(r > 0)
        np.add.at(totals, block.columns[entries][positive], np.rint(r[positive] * inverse).astype(np.int64))
    own = np.minimum(block.r[block.diagonal], 0.0)
    totals[block.rows] += np.rint(own * inverse).astype(np.int64)
    return totals


def availabilities(block: Block, totals: Floats, damping: float | Floats) -> None:
    """Send new availabilities to the block's rows, in place, from the column totals T.

        a'(i,k) = min(0, T(k) - max(0, r(i,k))) for i != k;   a'(k,k) = T(k) - r(k,k)
        a <- damping a + (1 - damping) a'

    Parameters
    ----------
    block : Block
    totals : float64, shape (n_points,)
        T(k) = r(k,k) + sum over i' != k of max(0, r(i',k)); infinite for an exemplar by definition.
    damping : float, or float64 of shape (m,)
        In [0.5, 1); one number, or one for each row of the block.

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> totals = 0.25 * responsibilities(block, 0.5, unit=0.25, n_points=2)
    >>> availabilities(block, totals, 0.5)
    >>> block.a
    array([ 0.25, -0.25, -0.25,  0.25])
    """
    own = block.a[block.diagonal]
    slices = block.slices()
    scratch = np.empty(max((entries.stop - entries.start for _, entries in slices), default=0))
    for rows, entries in slices:
        new = scratch[: entries.stop - entries.start]
        np.maximum(block.r[entries], 0.0, out=new)
        np.subtract(totals[block.columns[entries]], new, out=new)
        np.minimum(new, 0.0, out=new)
        damp(block.a[entries], new, of_entries(damping, block, rows))
    damp(own, totals[block.rows] - block.r[block.diagonal], damping)
    block.a[block.diagonal] = own


def exemplars(block: Block) -> NDArray[np.bool_]:
    """Which of the block's rows are exemplars: a(k,k) + r(k,k) > 0; shape (m,)."""
    return np.asarray(block.a[block.diagonal] + block.r[block.diagonal] > 0.0)
