"""One iteration on one block of rows: arrays in, arrays out, no Spark.

A block holds some rows of the similarity graph in compressed sparse row form. An iteration is

    availabilities(block, totals)     per entry, from the total of its column in the last iteration
    responsibilities(block)           per row, from its two largest a + s
    contributions(block)              per column: what the block adds to the new total
    column_totals(sum over blocks)    the only numbers that leave a block, and who is an exemplar

`iterate` does the first three, a few rows at a time that stay in the processor's cache, with scratch arrays made once:
temporaries as large as the block cost several times the arithmetic.

Sources: Frey & Dueck, Science 315 (2007), equations 1-3; docs/semantics.md, sections 2 and 3. Every operation is a
plain IEEE 754 double operation in the order written here, repeated by `compiled.py` for numba and by the dataframe
engine in SQL: all give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.exact_sum import Units

__all__ = [
    "Block",
    "availabilities",
    "column_totals",
    "contributions",
    "iterate",
    "make_block",
    "responsibilities",
    "unserved",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Damping = float | Floats

PART = 1 << 14  # entries visited together: six arrays of them fit a second-level cache
PARTS_A_GROUP = 4  # what they contribute is added together: it is little, and each call to numpy costs


@dataclass
class Block:
    """Some rows of the graph and their messages.

    Attributes
    ----------
    rows : int64, shape (m,)
        The points whose rows these are.
    starts : int64, shape (m + 1,)
        Row j has the entries ``starts[j]:starts[j + 1]``; every row has its diagonal and at least one entry more.
    diagonal : int64, shape (m,)
        Where each row's diagonal entry is.
    columns : int32 or int64, shape (entries,)
        The column k of each entry.
    s, r, a : float64, shape (entries,)
        Similarity (diagonal: preference), responsibility and availability of each entry.
    """

    rows: Integers
    starts: Integers
    diagonal: Integers
    columns: NDArray[Any]
    s: Floats
    r: Floats
    a: Floats

    @cached_property
    def cuts(self) -> Integers:
        """Where the rows are cut into parts of about PART entries; a longer row is a part of its own."""
        cuts = [0]
        while cuts[-1] < len(self.rows):
            full = np.searchsorted(self.starts, self.starts[cuts[-1]] + PART, side="right") - 1
            cuts.append(max(int(full), cuts[-1] + 1))
        return np.array(cuts, np.int64)

    @cached_property
    def parts(self) -> list[Block]:
        """The rows between the cuts, as views."""
        return [self.part(int(low), int(high)) for low, high in pairwise(self.cuts)]

    @cached_property
    def groups(self) -> list[Block]:
        """The rows of PARTS_A_GROUP parts each, as views."""
        starts = self.cuts[:-1:PARTS_A_GROUP].tolist()
        return [self.part(low, high) for low, high in pairwise([*starts, len(self.rows)])]

    @cached_property
    def scratch(self) -> Floats:
        """Room for two numbers for each entry of a part."""
        return np.empty((2, np.diff(self.starts[self.cuts]).max(initial=0)))

    def part(self, low: int, high: int) -> Block:
        start, stop = self.starts[low], self.starts[high]
        entries = slice(start, stop)
        return Block(
            rows=self.rows[low:high],
            starts=self.starts[low : high + 1] - start,
            diagonal=self.diagonal[low:high] - start,
            columns=self.columns[entries],
            s=self.s[entries],
            r=self.r[entries],
            a=self.a[entries],
        )


def make_block(i: NDArray[Any], k: NDArray[Any], s: Floats) -> Block:
    """Put entries given in any order into a block, all messages 0.

    Parameters
    ----------
    i, k : integers, shape (entries,)
        Row and column of each entry; no pair twice, and (i, i) is there for every row i.
    s : float64, shape (entries,)
        Similarity.

    Examples
    --------
    >>> block = make_block(np.array([1, 0, 1, 0]), np.array([1, 1, 0, 0]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> block.starts, block.columns, block.diagonal
    (array([0, 2, 4]), array([0, 1, 0, 1]), array([0, 3]))
    """
    order = np.lexsort((k, i))
    i, k = i[order], k[order]
    rows, first = np.unique(i, return_index=True)
    return Block(
        rows=rows.astype(np.int64),
        starts=np.append(first, len(i)).astype(np.int64),
        diagonal=np.flatnonzero(i == k),
        columns=k,
        s=s[order],
        r=np.zeros(len(i)),
        a=np.zeros(len(i)),
    )


def iterate(block: Block, totals: Floats, damping: Damping, units: Units, sums: Integers) -> None:
    """Send the block's messages of one iteration, in place.

    Parameters
    ----------
    block : Block
    totals : float64, shape (n_points,)
        T of the last iteration, see `availabilities`; before the first one 0, which leaves the availabilities at 0.
    damping : float, or float64 of shape (m,)
        In [0.5, 1); one number, or one for each row of the block.
    units : Units
        Of exact sums, see `exact.units_of`.
    sums : int64, shape (words, n_points)
        What the block contributes to the new totals, in units, is added here.

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> sums = np.zeros((1, 2), np.int64)
    >>> iterate(block, np.zeros(2), 0.5, Units(0.25, 0.25), sums)
    >>> block.r, sums
    (array([-0.5,  0.5,  0.5, -0.5]), array([[2, 2]]))
    """
    row = 0
    for group in block.groups:
        for part in group.parts:
            own = damping if isinstance(damping, float) else damping[row : row + len(part.rows)]
            availabilities(part, totals, own, block.scratch)
            responsibilities(part, own, block.scratch)
            row += len(part.rows)
        contributions(group, units, sums)


def availabilities(block: Block, totals: Floats, damping: Damping, scratch: Floats | None = None) -> None:
    """Send new availabilities to the block's rows, in place, from the column totals T.

        a'(i,k) = min(0, T(k) - max(0, r(i,k))) for i != k;   a'(k,k) = T(k) - r(k,k)
        a <- damping a + (1 - damping) a'

    Parameters
    ----------
    block : Block
    totals : float64, shape (n_points,)
        T(k) = r(k,k) + sum over i' != k of max(0, r(i',k)); infinite for a forced exemplar.
    damping : float, or float64 of shape (m,)
        In [0.5, 1); one number, or one for each row of the block.
    scratch : float64, shape (2, at least the number of entries), optional

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> block.r[:] = [-0.5, 0.5, 0.5, -0.5]
    >>> availabilities(block, np.array([0.0, 0.0]), 0.5)
    >>> block.a
    array([ 0.25, -0.25, -0.25,  0.25])
    """
    new, positive = room(block, scratch)
    np.maximum(block.r, 0.0, out=positive)
    totals.take(block.columns, out=new, mode="clip")  # numpy would buffer the result in its other modes
    np.subtract(new, positive, out=new)
    np.minimum(new, 0.0, out=new)
    new[block.diagonal] = totals[block.rows] - block.r[block.diagonal]
    damp(block.a, new, of_entries(damping, block))


def responsibilities(block: Block, damping: Damping, scratch: Floats | None = None) -> None:
    """Send new responsibilities from the block's rows, in place.

        r'(i,k) = s(i,k) - max over k' != k of [a(i,k') + s(i,k')];   r <- damping r + (1 - damping) r'

    Only a row's largest and second largest a + s matter: the first is the maximum of the others for every k but its
    own, the second for that one; after a tie for the largest they are equal.

    Parameters
    ----------
    block : Block
    damping : float, or float64 of shape (m,)
        In [0.5, 1); one number, or one for each row of the block.
    scratch : float64, shape (2, at least the number of entries), optional

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> responsibilities(block, 0.5)
    >>> block.r
    array([-0.5,  0.5,  0.5, -0.5])
    """
    value, new = room(block, scratch)
    starts = block.starts[:-1]
    np.add(block.a, block.s, out=value)
    largest = np.maximum.reduceat(value, starts)
    of_row = np.repeat(largest, np.diff(block.starts))
    best = np.flatnonzero(value == of_row)
    if len(best) > len(starts):  # ties: any one of them serves
        row_of_best = np.searchsorted(starts, best, side="right")
        best = best[np.flatnonzero(np.diff(row_of_best, prepend=0))]
    value[best] = -np.inf
    second = np.maximum.reduceat(value, starts)
    np.subtract(block.s, of_row, out=new)
    new[best] = block.s[best] - second
    damp(block.r, new, of_entries(damping, block))


def contributions(block: Block, units: Units, sums: Integers) -> None:
    """Add what the block's rows contribute to the totals of the columns: max(0, r(i,k)), in whole units.

    Parameters
    ----------
    block : Block
    units : Units
        Of exact sums, see `exact.units_of`.
    sums : int64, shape (words, n_points)
        In units; added to in place.

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> block.r[:] = [-0.5, 1.0, 0.5, -0.5]
    >>> sums = np.zeros((1, 2), np.int64)
    >>> contributions(block, Units(0.25, 0.25), sums)
    >>> sums
    array([[2, 4]])
    """
    positive = np.flatnonzero(block.r > 0)
    columns = block.columns[positive]
    *coarse, fine = in_units(block.r[positive], units)
    np.add.at(sums[-1], columns, fine)
    for addends in coarse:
        there = np.flatnonzero(addends)  # hardly any, beside a fine word
        np.add.at(sums[0], columns[there], addends[there])


def column_totals(sums: Integers, r: Floats, a: Floats, damping: Damping, units: Units) -> tuple[Floats, Floats, Flags]:
    """The totals T of some columns, and what they make of their diagonal entries.

    Parameters
    ----------
    sums : int64, shape (words, columns)
        The contributions of all blocks, in units.
    r, a : float64, shape (columns,)
        r(k,k), and a(k,k) of the last iteration. r is not a number where k has no row: a forced exemplar.
    damping : float, or float64 of shape (columns,)
    units : Units

    Returns
    -------
    totals : float64, shape (columns,)
        T(k) = r(k,k) + sum over i != k of max(0, r(i,k)); infinite for a forced exemplar.
    a : float64, shape (columns,)
        a(k,k), once T has reached it.
    exemplars : bool, shape (columns,)
        Whether a(k,k) + r(k,k) > 0; not so for forced exemplars.

    Examples
    --------
    >>> units = Units(0.25, 0.25)
    >>> column_totals(np.array([[6, 0]]), np.array([-0.5, np.nan]), np.array([0.0, 0.0]), 0.5, units)
    (array([ 1., inf]), array([0.75,  nan]), array([ True, False]))
    """
    totals, after, exemplars = np.empty(len(r)), np.empty(len(r)), np.empty(len(r), bool)
    for start in range(0, len(r), PART):
        part = slice(start, start + PART)
        keep = damping if isinstance(damping, float) else damping[part]
        without_row = np.isnan(r[part])
        negative = np.where(without_row, 0.0, np.minimum(r[part], 0.0))
        totals[part] = 0.0
        for word, addends, unit in zip(sums, in_units(negative, units), units, strict=False):
            addends += word[part]
            if unit == units.fine or addends.any():
                totals[part] += addends * unit
        totals[part][without_row] = np.inf
        after[part] = a[part] * keep + (totals[part] - r[part]) * (1.0 - keep)
        exemplars[part] = after[part] + r[part] > 0.0
    return totals, after, exemplars


def unserved(block: Block, serving: Flags) -> int:
    """Count the block's rows without an entry in a column that serves: points that are left without an exemplar.

    Parameters
    ----------
    block : Block
    serving : bool, shape (n_points,)
        Whether k is an exemplar; a row's own diagonal counts.

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> unserved(block, np.array([False, True])), unserved(block, np.array([False, False]))
    (0, 2)
    """
    return int(np.count_nonzero(~np.logical_or.reduceat(serving[block.columns], block.starts[:-1])))


def in_units(values: Floats, units: Units) -> list[Integers]:
    """Whole numbers of units, as `exact.words_of` makes them."""
    if units.words == 1:
        return [rounded(values, units.coarse)]
    high = (values * (1.0 / units.coarse)).astype(np.int64)
    return [high, rounded(values - high * units.coarse, units.fine)]


def rounded(values: Floats, unit: float) -> Integers:
    return np.rint(values * (1.0 / unit)).astype(np.int64)


def in_floats(words: Integers, units: Units) -> Floats:
    """Sums as floats, from their words."""
    return np.asarray(sum(word.astype(np.float64) * unit for word, unit in zip(words, units, strict=False)))


def summed(values: Floats, units: Units) -> float:
    """The exact sum of some values."""
    return float(in_floats(np.array([word.sum(keepdims=True) for word in in_units(values, units)]), units)[0])


def room(block: Block, scratch: Floats | None) -> Floats:
    """Two numbers for each entry."""
    return np.empty((2, len(block.s))) if scratch is None else scratch[:, : len(block.s)]


def of_entries(damping: Damping, block: Block) -> Damping:
    """The damping of each entry."""
    return damping if isinstance(damping, float) else np.repeat(damping, np.diff(block.starts))


def damp(old: Floats, new: Floats, damping: Damping) -> None:
    """old <- damping * old + (1 - damping) * new, in place; ``new`` is used up."""
    np.multiply(old, damping, out=old)
    np.multiply(new, 1.0 - damping, out=new)
    np.add(old, new, out=old)
