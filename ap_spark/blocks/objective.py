"""Passes over similarities in whole units: what polishing and the bound need to know (docs/semantics.md, section 8).

A pass gets some rows with their similarities as integers, multiples of one unit, rounded up; the diagonal holds the
preferences. All its sums are sums of integers, so the results are the same on any number of blocks, and so is every
comparison of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.kernel import Block, Flags, Floats, Integers

__all__ = [
    "NONE",
    "Found",
    "UnitParts",
    "best_two",
    "bound_step",
    "entries_of",
    "extras",
    "gains",
    "in_whole_units",
    "refusals",
]

NONE = np.iinfo(np.int64).min  # the similarity to an exemplar that a row has not; never added to anything
QUANTUM = 1024.0  # directions are multiples of 1 / 1024, so that their products can be added exactly

Values = list[list[NDArray[Any]]]
UnitParts = Iterable[tuple[Block, Integers]]


class Found(NamedTuple):
    """What a pass has found.

    Attributes
    ----------
    rows : int64, shape (m,)
        The points whose rows were looked at.
    values : list of arrays, each of shape (m,)
        What was found for each row.
    sums : int64, shape (w, n_points)
        What the rows add to each column; w may be 0.
    """

    rows: Integers
    values: list[NDArray[Any]]
    sums: Integers


def in_whole_units(similarity: Floats, unit: float) -> Integers:
    """Return similarities as multiples of a unit, a power of two, rounded up.

    Examples
    --------
    >>> in_whole_units(np.array([-1.0, -0.3]), 0.5)
    array([-2,  0])
    """
    return np.ceil(similarity * (1.0 / unit)).astype(np.int64)


def joined(rows: list[Integers], values: Values, sums: Integers) -> Found:
    """Return what was found in all parts as one."""
    return Found(np.concatenate(rows), [np.concatenate(arrays) for arrays in zip(*values, strict=True)], sums)


def best_two(parts: UnitParts, is_exemplar: Flags) -> Found:
    """Find the two best exemplars of each row; the point itself does not count.

    Parameters
    ----------
    parts
    is_exemplar : bool, shape (n_points,)

    Returns
    -------
    Found
        Values of a row: the best exemplar (on ties the smallest index; -1 for none), the similarity to it, and that to
        the second best (`NONE` where there is none).
    """
    n_points = len(is_exemplar)
    rows = [np.empty(0, np.int64)]
    values: Values = [[np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)]]
    for block, similarity in parts:
        starts, lengths = block.starts[:-1], np.diff(block.starts)
        counts = is_exemplar[block.columns]
        counts[block.diagonal] = False
        value = np.where(counts, similarity, NONE)
        best = np.maximum.reduceat(value, starts)
        name = np.where(counts & (value == np.repeat(best, lengths)), block.columns, n_points)
        first = np.minimum.reduceat(name, starts)
        value[name == np.repeat(first, lengths)] = NONE
        second = np.maximum.reduceat(value, starts)
        rows.append(block.rows)
        values.append([np.where(first == n_points, -1, first).astype(np.int32), best, second])
    return joined(rows, values, np.empty((0, n_points), np.int64))


def gains(
    parts: UnitParts, is_exemplar: Flags, first: NDArray[np.int32], best: Integers, fallback: Integers, lacks: Flags
) -> Found:
    """Add up what each point would bring its neighbours as an exemplar: beside the others, or in the place of one.

    A point k that is no exemplar can be opened, or swapped for its own exemplar, ``first[k]``. What closing an exemplar
    costs its members follows from ``best`` and ``fallback`` and needs no pass.

    Parameters
    ----------
    parts
    is_exemplar : bool, shape (n_points,)
    first, best : int32 and int64, shape (n_points,)
        See `best_two`.
    fallback : int64, shape (n_points,)
        What a member has when its exemplar is closed: the similarity to its second best, or its preference.
    lacks : bool, shape (n_points,)
        Members that have nothing to fall back on: their exemplar can only be swapped for a point that they store an
        edge to.

    Returns
    -------
    Found
        Sums of a column k that is no exemplar: what opening it brings; what a swap brings over closing ``first[k]``;
        whether ``first[k]`` stores an edge to k; how many of its members that lack a fallback do. No values of rows.
    """
    sums = np.zeros((4, len(is_exemplar)), np.int64)
    opened, swapped, reached, served = sums
    for block, similarity in parts:
        rows, is_open = block.rows, is_exemplar[block.rows]
        member = rows[~is_open]
        own = similarity[block.diagonal[~is_open]]
        opened[member] += own - best[member]
        swapped[member] += own - fallback[member]
        served[member] += lacks[member]

        low = np.where(is_open | lacks[rows], NONE, fallback[rows])
        entry = similarity > np.repeat(low, np.diff(block.starts))
        entry &= ~is_exemplar[block.columns]
        entry[block.diagonal] = False
        (entries,) = np.nonzero(entry)
        place = np.searchsorted(block.starts, entries, side="right") - 1
        i, k, s = rows[place], block.columns[entries], similarity[entries]

        of_member = ~is_open[place]
        same = first[k] == np.where(of_member, first[i], i)
        more = np.maximum(s - best[i], 0, where=of_member, out=np.zeros(len(s), np.int64))
        instead = np.where(lacks[i], s, np.maximum(s, fallback[i])) - fallback[i]
        np.add.at(opened, k[of_member], more[of_member])
        swap = of_member & same
        np.add.at(swapped, k[of_member], np.where(same, instead, more)[of_member])
        np.add.at(served, k[swap & lacks[i]], 1)
        swap = ~of_member & same
        own = similarity[block.diagonal][place[swap]]
        np.add.at(swapped, k[swap], np.maximum(s[swap], best[i[swap]]) - own)
        np.add.at(reached, k[swap], 1)
    return Found(np.empty(0, np.int64), [], sums)


def extras(
    parts: UnitParts,
    is_exemplar: Flags,
    first: NDArray[np.int32],
    best: Integers,
    fallback: Integers,
    closable: Flags,
) -> Found:
    """Find what swaps of an exemplar for a point bring beyond closing the one and opening the other.

    A row whose exemplar is closed would fall back on its second best, and has the opened one instead where that is
    better. (The *extra* of Resende & Werneck, European Journal of Operational Research 174, 2006, section 3.)

    Parameters
    ----------
    parts
    is_exemplar, first, best, fallback
        See `gains`.
    closable : bool, shape (n_points,)
        The exemplars that are looked at. Their members have a fallback.

    Returns
    -------
    Found
        ``rows`` has k, a point to open; the values are the exemplar to close, and what a row has to add for this pair,
        at least 0. Pairs of which nothing is said have nothing to add.
    """
    found, values = [np.empty(0, np.int64)], [[np.empty(0, np.int64), np.empty(0, np.int64)]]
    for block, similarity in parts:
        rows, is_open = block.rows, is_exemplar[block.rows]
        of_row = np.where(is_open, rows, first[rows]).astype(np.int64)
        low = np.where(is_open, best[rows], fallback[rows])
        own = ~is_open & closable[of_row]
        found.append(rows[own])
        values.append([of_row[own], best[rows[own]] - low[own]])

        entry = similarity > np.repeat(np.where(closable[of_row], low, np.iinfo(np.int64).max), np.diff(block.starts))
        entry &= ~is_exemplar[block.columns]
        entry[block.diagonal] = False
        (entries,) = np.nonzero(entry)
        row = np.searchsorted(block.starts, entries, side="right") - 1
        reached = np.where(is_open[row], similarity[entries], np.minimum(similarity[entries], best[rows[row]]))
        found.append(block.columns[entries].astype(np.int64))
        values.append([of_row[row], reached - low[row]])
    return joined(found, values, np.empty((0, len(closable)), np.int64))


def refusals(parts: UnitParts, rank: NDArray[np.int32], none: int) -> Found:
    """Count, for each column, the rows that pick another move than its own.

    A row picks the best of the moves that touch it: those of the columns it stores an edge to, and its own.

    Parameters
    ----------
    parts
    rank : int32, shape (n_points,)
        Of the best move that touches a column, 0 for the best of all; ``none`` where no move does.
    none : int
    """
    sums = np.zeros((1, len(rank)), np.int64)
    for block, _ in parts:
        of_entry = rank[block.columns]
        (touched,) = np.nonzero(of_entry < none)
        picked = np.minimum.reduceat(of_entry, block.starts[:-1])
        place = np.searchsorted(block.starts, touched, side="right") - 1
        refused = touched[of_entry[touched] > picked[place]]
        np.add.at(sums[0], block.columns[refused], 1)
    return Found(np.empty(0, np.int64), [], sums)


def bound_step(
    parts: UnitParts, v: Integers, direction: Floats, is_open: Flags, step: float, keep: float, limit: int
) -> Found:
    """Move the numbers v of the bound one step, and add up what the columns earn with them.

    With g(i) = 1 - open(i) - #{k != i open: s(i,k) > v(i)}, the subgradient of the bound:

        d <- g + keep d;   v <- v - step d

    Parameters
    ----------
    parts
    v : int64, shape (n_points,)
        A number for each row, in units.
    direction : float64, shape (n_points,)
        Of the last step.
    is_open : bool, shape (n_points,)
        Columns that earn something at v.
    step, keep : float
        In units; a factor.
    limit : int
        v stays between -limit and limit.

    Returns
    -------
    Found
        Values of a row: the new v, and the new direction. Sums of a column k: sum over i != k of max(0, s(i,k) - v(i)).
    """
    sums = np.zeros((1, len(v)), np.int64)
    rows = [np.empty(0, np.int64)]
    values: Values = [[np.empty(0, np.int64), np.empty(0)]]
    for block, similarity in parts:
        of_row, lengths = v[block.rows], np.diff(block.starts)
        above = similarity > np.repeat(of_row, lengths)
        above &= is_open[block.columns]
        above[block.diagonal] = False
        found = 1.0 - is_open[block.rows] - np.add.reduceat(above, block.starts[:-1], dtype=np.int64)
        turned = np.rint((found + keep * direction[block.rows]) * QUANTUM) / QUANTUM
        change = np.clip(np.rint(step * turned), -2.0 * limit, 2.0 * limit).astype(np.int64)
        moved = np.clip(of_row - change, -limit, limit)
        above = similarity > np.repeat(moved, lengths)
        above[block.diagonal] = False
        (entries,) = np.nonzero(above)
        place = np.searchsorted(block.starts, entries, side="right") - 1
        np.add.at(sums[0], block.columns[entries], similarity[entries] - moved[place])
        rows.append(block.rows)
        values.append([moved, turned])
    return joined(rows, values, sums)


def entries_of(parts: UnitParts, v: Integers, loss: Integers, gap: int) -> Found:
    """Return the edges that a better clustering than the known one can use: where reduced costs stay within the gap.

    Parameters
    ----------
    parts
    v : int64, shape (n_points,)
    loss : int64, shape (n_points,)
        What the bound loses if a column is open.
    gap : int

    Returns
    -------
    Found
        ``rows`` has i, once for each edge; the values are k and the similarity.
    """
    rows, values = [np.empty(0, np.int64)], [[np.empty(0, np.int64), np.empty(0, np.int64)]]
    for block, similarity in parts:
        i = np.repeat(block.rows, np.diff(block.starts))
        within = np.maximum(v[i] - similarity, 0) + loss[block.columns] <= gap
        within[block.diagonal] = False
        rows.append(i[within])
        values.append([block.columns[within].astype(np.int64), similarity[within]])
    return joined(rows, values, np.empty((0, len(v)), np.int64))
