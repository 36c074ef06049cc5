"""One iteration on one block of rows: arrays in, arrays out, no Spark.

A block holds some rows of the similarity graph in compressed sparse row form. An iteration is

    availabilities(block, totals)     per entry, from the total of its column in the last iteration
    responsibilities(block)           per row, from its two largest a + s
    contributions(block)              per column: what the block adds to the new total
    column_totals(sum over blocks)    per column: the new total, and whether the point is an exemplar

Only contributions leave a block. `iterate` does the first three steps, for a few rows at a time that stay in the
processor's cache, with scratch arrays that are allocated once: temporary arrays as large as the block would cost
several times the arithmetic.

Sources: Frey & Dueck, Science 315 (2007), equations 1-3; docs/semantics.md, sections 2 and 3. All operations are IEEE
754 double operations, in the order written here. `compiled_kernel.py` repeats them for numba, and the dataframe engine
in SQL: the results of all three are bitwise identical.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.hashing import jittered
from ap_spark.damping import DAMPINGS, Damping, Levels
from ap_spark.exact_sum import Units, in_units

__all__ = [
    "Block",
    "Flags",
    "Floats",
    "Integers",
    "availabilities",
    "column_totals",
    "contributions",
    "entry_damping",
    "entry_levels",
    "first_similarities",
    "iterate",
    "make_block",
    "responsibilities",
    "unserved",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

_TABLE = np.array(DAMPINGS)
_PART_ENTRIES = 1 << 14  # worked on together: six arrays of so many entries fit into a second-level cache
_PARTS_PER_GROUP = 4  # their contributions are added together, since they are few and each call of numpy costs


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
        The entry (i, i) of each row.
    columns : int32 or int64, shape (entries,)
        The column k of each entry.
    s, r, a : float64, shape (entries,)
        Similarity (diagonal: preference), responsibility and availability of each entry.
    levels : tuple of uint8, shapes (n_points,) and (entries,), optional
        The last levels of points that `entry_damping` was asked for, and those of the entries.
    """

    rows: Integers
    starts: Integers
    diagonal: Integers
    columns: NDArray[Any]
    s: Floats
    r: Floats
    a: Floats
    levels: tuple[Levels, Levels] | None = field(default=None, init=False)

    @cached_property
    def cuts(self) -> Integers:
        """Where the rows are cut into parts, of about 16,000 entries; a longer row is a part by itself."""
        cuts = [0]
        while cuts[-1] < len(self.rows):
            full = np.searchsorted(self.starts, self.starts[cuts[-1]] + _PART_ENTRIES, side="right") - 1
            cuts.append(max(int(full), cuts[-1] + 1))
        return np.array(cuts, np.int64)

    @cached_property
    def lengths(self) -> Integers:
        """The number of entries of each row."""
        return np.diff(self.starts)

    def diagonal_r(self, low: int, high: int) -> Floats:
        """Return r(k,k) of the points ``low:high``, among which all rows are; NaN where k has no row."""
        r = np.full(high - low, np.nan)
        r[self.rows - low] = self.r[self.diagonal]
        return r

    @cached_property
    def parts(self) -> list[Block]:
        """The rows between the cuts, as views."""
        return [self.part(int(low), int(high)) for low, high in pairwise(self.cuts)]

    @cached_property
    def groups(self) -> list[Block]:
        """The rows of four parts each, as views."""
        starts = self.cuts[:-1:_PARTS_PER_GROUP].tolist()
        return [self.part(low, high) for low, high in pairwise([*starts, len(self.rows)])]

    @cached_property
    def scratch(self) -> Floats:
        """Three numbers for each entry of the largest part, to be overwritten."""
        return np.empty((3, np.diff(self.starts[self.cuts]).max(initial=0)))

    def part(self, low: int, high: int) -> Block:
        """Return the rows ``low:high`` as views."""
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
    """Make a block of entries in any order, with all messages 0.

    Parameters
    ----------
    i, k : integers, shape (entries,)
        Row and column of each entry. No pair may occur twice, and every row needs its diagonal (i, i).
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


def first_similarities(
    block: Block, similarity: Floats, preference: Floats, keys: Integers, min_nonzero: float, seed: int | None
) -> Floats:
    """Return the similarities that messages are computed with: preferences on the diagonal, and jitter.

    Parameters
    ----------
    block : Block
    similarity : float64, shape (entries,)
        As given.
    preference, keys : float64 and int64, shape (n_points,)
    min_nonzero : float
        See `hashing.jittered`.
    seed : int or None
        None for no jitter.

    Returns
    -------
    float64, shape (entries,)
    """
    value = similarity + 0.0  # -0.0 becomes 0.0
    value[block.diagonal] = preference[block.rows] + 0.0
    if seed is None:
        return value
    key_i = np.repeat(keys[block.rows], np.diff(block.starts))
    return jittered(value, key_i, keys[block.columns], seed, min_nonzero)


def entry_levels(block: Block, level: Levels) -> Levels:
    """Return the level of each entry of a block: the larger one of its row and its column.

    Parameters
    ----------
    block : Block
    level : uint8, shape (n_points,)
        The level of each point.

    Returns
    -------
    uint8, shape (entries,)

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> entry_levels(block, np.array([0, 2], np.uint8))
    array([0, 2, 2, 2], dtype=uint8)
    """
    found = np.empty(len(block.columns), np.uint8)
    start = 0
    for part in block.parts:
        entries = found[start : start + len(part.columns)]
        level.take(part.columns, out=entries, mode="clip")
        np.maximum(entries, np.repeat(level[part.rows], np.diff(part.starts)), out=entries)
        start += len(entries)
    return found


def entry_damping(block: Block, damping: Damping) -> Damping:
    """Return the damping of the entries of a block, kept beside it: it changes seldom, and to find it takes long.

    Parameters
    ----------
    block : Block
    damping : float, or uint8 of shape (n_points,)
        One for all points, or the level of each.

    Returns
    -------
    float, or uint8 of shape (entries,)
    """
    if isinstance(damping, float):
        return damping
    if block.levels is None or not np.array_equal(block.levels[0], damping):
        block.levels = damping, entry_levels(block, damping)
    return block.levels[1]


def iterate(
    block: Block, totals: Floats, damping: Damping, units: Units, sums: Integers, last: Damping | None = None
) -> None:
    """Compute the messages of one iteration, in place: the last availabilities from totals, then responsibilities.

    Parameters
    ----------
    block : Block
    totals : float64, shape (n_points,)
        T of the last iteration, see `availabilities`. Before the first iteration 0: availabilities then stay 0.
    damping : float, or uint8 of shape (entries,)
        One number, or the level of each entry (`damping.DAMPINGS`).
    units : Units
        See `exact_sum.units_of`.
    sums : int64, shape (words, n_points)
        The contributions of the block to the new totals are added here, in units.
    last : float, or uint8 of shape (entries,), optional
        The damping of the last iteration, where it was another.

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> sums = np.zeros((1, 2), np.int64)
    >>> iterate(block, np.zeros(2), 0.5, Units(0.25, 0.25), sums)
    >>> block.r, sums
    (array([-0.5,  0.5,  0.5, -0.5]), array([[2, 2]]))
    """
    start = 0
    last = damping if last is None else last
    for group in block.groups:
        for part in group.parts:
            entries = slice(start, start + len(part.s))
            availabilities(part, totals, last if isinstance(last, float) else last[entries], block.scratch)
            responsibilities(part, damping if isinstance(damping, float) else damping[entries], block.scratch)
            start = entries.stop
        contributions(group, units, sums)


def availabilities(block: Block, totals: Floats, damping: Damping, scratch: Floats | None = None) -> None:
    """Compute the availabilities of a block from the column totals T, in place.

        a'(i,k) = min(0, T(k) - max(0, r(i,k))) for i != k;   a'(k,k) = T(k) - r(k,k)
        a <- damping a + (1 - damping) a'

    Parameters
    ----------
    block : Block
    totals : float64, shape (n_points,)
        T(k) = r(k,k) + sum over i' != k of max(0, r(i',k)); infinite for a forced exemplar.
    damping : float, or uint8 of shape (entries,)
        One number, or the level of each entry.
    scratch : float64, shape (3, at least the number of entries), optional

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> block.r[:] = [-0.5, 0.5, 0.5, -0.5]
    >>> availabilities(block, np.array([0.0, 0.0]), 0.5)
    >>> block.a
    array([ 0.25, -0.25, -0.25,  0.25])
    """
    new, positive, keep = _scratch_of(block, scratch)
    np.maximum(block.r, 0.0, out=positive)
    totals.take(block.columns, out=new, mode="clip")  # numpy would buffer the result in its other modes
    np.subtract(new, positive, out=new)
    np.minimum(new, 0.0, out=new)
    new[block.diagonal] = totals[block.rows] - block.r[block.diagonal]
    _damp(block.a, new, _keep(damping, keep))


def responsibilities(block: Block, damping: Damping, scratch: Floats | None = None) -> None:
    """Compute the responsibilities of a block, in place.

        r'(i,k) = s(i,k) - max over k' != k of [a(i,k') + s(i,k')];   r <- damping r + (1 - damping) r'

    Only the largest and the second largest a + s of a row matter. The maximum of the others is the second largest for
    the k that has the largest, and the largest for every other k. After a tie for the largest the two are equal.

    Parameters
    ----------
    block : Block
    damping : float, or uint8 of shape (entries,)
        One number, or the level of each entry.
    scratch : float64, shape (3, at least the number of entries), optional

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> responsibilities(block, 0.5)
    >>> block.r
    array([-0.5,  0.5,  0.5, -0.5])
    """
    value, new, keep = _scratch_of(block, scratch)
    starts = block.starts[:-1]
    np.add(block.a, block.s, out=value)
    largest = np.maximum.reduceat(value, starts)
    of_row = largest.repeat(block.lengths)
    (best,) = (value == of_row).nonzero()
    if len(best) > len(starts):  # ties: any one of them serves
        row_of_best = np.searchsorted(starts, best, side="right")
        best = best[np.flatnonzero(np.diff(row_of_best, prepend=0))]
    value[best] = -np.inf
    second = np.maximum.reduceat(value, starts)
    np.subtract(block.s, of_row, out=new)
    new[best] = block.s[best] - second
    _damp(block.r, new, _keep(damping, keep))


def contributions(block: Block, units: Units, sums: Integers) -> None:
    """Add the contributions of a block to the column totals: max(0, r(i,k)), rounded to whole units.

    Parameters
    ----------
    block : Block
    units : Units
        See `exact_sum.units_of`.
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
    (positive,) = (block.r > 0).nonzero()
    columns = block.columns[positive]
    *coarse, fine = in_units(block.r[positive], units)
    np.add.at(sums[-1], columns, fine)
    for addends in coarse:
        (there,) = addends.nonzero()  # hardly any, beside a fine word
        np.add.at(sums[0], columns[there], addends[there])


def column_totals(sums: Integers, r: Floats, a: Floats, damping: Damping, units: Units) -> tuple[Floats, Floats, Flags]:
    """Compute the totals T of some columns, the availabilities of their diagonal entries, and who is an exemplar.

    Parameters
    ----------
    sums : int64, shape (words, columns)
        The contributions of all blocks, in units.
    r, a : float64, shape (columns,)
        r(k,k) of this iteration, and a(k,k) of the last one. r is NaN where k has no row: a forced exemplar.
    damping : float, or uint8 of shape (columns,)
        One number, or the level of each column.
    units : Units

    Returns
    -------
    totals : float64, shape (columns,)
        T(k) = r(k,k) + sum over i != k of max(0, r(i,k)); infinite for a forced exemplar.
    a : float64, shape (columns,)
        a(k,k) of this iteration, which follows from T.
    exemplars : bool, shape (columns,)
        Whether a(k,k) + r(k,k) > 0; False for forced exemplars.

    Examples
    --------
    >>> units = Units(0.25, 0.25)
    >>> column_totals(np.array([[6, 0]]), np.array([-0.5, np.nan]), np.array([0.0, 0.0]), 0.5, units)
    (array([ 1., inf]), array([0.75,  nan]), array([ True, False]))
    """
    totals, after, exemplars = np.empty(len(r)), np.empty(len(r)), np.empty(len(r), bool)
    for start in range(0, len(r), _PART_ENTRIES):
        part = slice(start, start + _PART_ENTRIES)
        keep = _keep(damping if isinstance(damping, float) else damping[part])
        without_row = np.isnan(r[part])
        negative = np.fmin(r[part], 0.0)  # 0 where there is no row
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
    """Count the rows of a block without an entry in a column that serves: points left without an exemplar.

    Parameters
    ----------
    block : Block
    serving : bool, shape (n_points,)
        Whether k is an exemplar. The diagonal of a row counts too.

    Examples
    --------
    >>> block = make_block(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([-2.0, -1.0, -1.0, -2.0]))
    >>> unserved(block, np.array([False, True])), unserved(block, np.array([False, False]))
    (0, 2)
    """
    return int(np.count_nonzero(~np.logical_or.reduceat(serving[block.columns], block.starts[:-1])))


def _scratch_of(block: Block, scratch: Floats | None) -> Floats:
    """Return scratch arrays for a block: those given, or new ones."""
    return np.empty((3, len(block.s))) if scratch is None else scratch[:, : len(block.s)]


def _keep(damping: Damping, out: Floats | None = None) -> float | Floats:
    """Return the share of the old message that is kept: one number, or one for each entry."""
    return damping if isinstance(damping, float) else _TABLE.take(damping, out=out, mode="clip")


def _damp(old: Floats, new: Floats, keep: float | Floats) -> None:
    """Compute old <- keep * old + (1 - keep) * new in place; ``new`` is overwritten too."""
    np.multiply(old, keep, out=old)
    np.multiply(new, 1.0 - keep, out=new)
    np.add(old, new, out=old)
