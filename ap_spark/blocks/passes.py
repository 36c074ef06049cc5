"""What a pass does on one block: arrays with a value a point in; values a row, or sums a column, out. No Spark.

Similarities of a block's diagonal entries have no meaning here: preferences are values a point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks import kernel
from ap_spark.blocks.files import column_type
from ap_spark.blocks.kernel import Block, Flags, Floats, Integers, in_units
from ap_spark.exact_sum import Units

__all__ = [
    "Choices",
    "Sums",
    "assign",
    "best_similarity",
    "components",
    "connected",
    "grouped",
    "histogram",
    "in_degrees",
    "refine",
    "sample_pairs",
    "unserved",
    "values",
]

AT_ONCE = 1_000_000  # entries that are connected at once, at least

Item = TypeVar("Item")
Parts = Iterable[tuple[Block, Floats]]  # some rows, and their similarities


class Choices(NamedTuple):
    """What rows choose.

    Attributes
    ----------
    rows : int64, shape (m,)
    exemplar : int64, shape (m,)
        The most similar one that a row stores an edge to, on ties the smallest; -1 for none.
    similarity : float64, shape (m,)
        To it; -infinity where there is none.
    """

    rows: Integers
    exemplar: Integers
    similarity: Floats


def assign(parts: Parts, exemplars: Flags) -> Choices:
    """Choose an exemplar for each row, itself left aside.

    Parameters
    ----------
    parts
    exemplars : bool, shape (n_points,)
    """
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for block, similarity in parts:
        starts = block.starts[:-1]
        open_ = exemplars[block.columns]
        open_[block.diagonal] = False
        value = np.where(open_, similarity, -np.inf)
        best = np.maximum.reduceat(value, starts)
        of_row = np.repeat(best, np.diff(block.starts))
        name = np.where(open_ & (value == of_row), block.columns, len(exemplars))
        chosen = np.minimum.reduceat(name, starts).astype(np.int64)
        found.append((block.rows, np.where(chosen == len(exemplars), -1, chosen), best))
    return Choices(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def unserved(parts: Parts, serving: Flags) -> int:
    """Count the rows without an entry in a column that serves, their own included."""
    return sum(kernel.unserved(block, serving) for block, _ in parts)


class Sums(NamedTuple):
    """Exact sums of columns.

    Attributes
    ----------
    columns : int64, shape (m,)
    sums : int64, shape (words, m)
        In units.
    counts : int64, shape (m,)
        Of the addends.
    """

    columns: Integers
    sums: Integers
    counts: Integers


def refine(parts: Parts, cluster: Integers, units: Units) -> Sums:
    """For each point how similar the other members of its cluster are to it: the sum, and how many store an edge to it.

    Parameters
    ----------
    parts
    cluster : int64, shape (n_points,)
        The exemplar of each point.
    units : Units
        Of reported sums.
    """
    n_points = len(cluster)
    sums, counts = np.zeros((units.words, n_points), np.int64), np.zeros(n_points, np.int64)
    for block, similarity in parts:
        taken = np.repeat(cluster[block.rows], np.diff(block.starts)) == cluster[block.columns]
        taken[block.diagonal] = False
        columns = block.columns[taken]
        for word, addends in zip(sums, in_units(similarity[taken], units), strict=True):
            np.add.at(word, columns, addends)
        np.add.at(counts, columns, 1)
    (columns,) = np.nonzero(counts)
    return Sums(columns, sums[:, columns], counts[columns])


def in_degrees(parts: Parts, n_points: int) -> Integers:
    """How many rows of the block store an edge to each point."""
    counts = np.zeros(n_points, np.int64)
    for block, _ in parts:
        counts += np.bincount(block.columns, minlength=n_points)
        counts[block.rows] -= 1  # the diagonal
    return counts


def best_similarity(parts: Parts) -> tuple[Integers, Floats]:
    """The rows, and the largest similarity of each."""
    found = [(np.empty(0, np.int64), np.empty(0))]
    for block, similarity in parts:
        value = similarity.copy()
        value[block.diagonal] = -np.inf
        found.append((block.rows, np.maximum.reduceat(value, block.starts[:-1])))
    rows, best = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return rows, best


def between(parts: Parts, low: float, high: float) -> Iterable[Floats]:
    """The similarities from ``low`` to ``high``, the diagonal left out."""
    for block, similarity in parts:
        taken = (similarity >= low) & (similarity <= high)
        taken[block.diagonal] = False
        yield similarity[taken]


def values(parts: Parts, low: float, high: float) -> Floats:
    """All similarities from ``low`` to ``high``."""
    return np.concatenate([np.empty(0), *between(parts, low, high)])


def sample_pairs(parts: Parts, divisor: int) -> NDArray[np.int64]:
    """Return one pair in ``divisor``, as rows (i, k): of a pair that is stored in both directions, both or neither."""
    found = [np.empty((0, 2), np.int64)]
    for block, _ in parts:
        i = np.repeat(block.rows, np.diff(block.starts)).astype(np.uint64)
        k = block.columns.astype(np.uint64)
        mixed = (i + k) * np.uint64(0x9E3779B97F4A7C15) ^ (i * k + np.uint64(1)) * np.uint64(0xC2B2AE3D27D4EB4F)
        chosen = ((mixed >> np.uint64(20)) % np.uint64(divisor) == 0) & (i != k)
        found.append(np.stack([i[chosen], k[chosen]], axis=1).astype(np.int64))
    return np.concatenate(found)


class Histogram(NamedTuple):
    """How many values lie in each bin, and the smallest and largest of them; infinite where there is none."""

    counts: Integers
    lows: Floats
    highs: Floats


BINS = 4096


def histogram(parts: Parts, low: float, high: float) -> Histogram:
    """The similarities from ``low`` to ``high`` in BINS bins of one width."""
    counts = np.zeros(BINS, np.int64)
    lows, highs = np.full(BINS, np.inf), np.full(BINS, -np.inf)
    scale = 1.0 if np.isfinite(high - low) else 0.25
    for some in between(parts, low, high):
        place = (some * scale - low * scale) / (high * scale - low * scale)
        bin_ = np.minimum(place * BINS, BINS - 1).astype(np.int64)
        counts += np.bincount(bin_, minlength=BINS)
        np.minimum.at(lows, bin_, some)
        np.maximum.at(highs, bin_, some)
    return Histogram(counts, lows, highs)


def components(parts: Parts, n_points: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points that the block's edges connect with smaller ones, in whatever direction, and the smallest of those."""
    smallest = np.arange(n_points)
    blocks = (block for block, _ in parts)
    for some in grouped(blocks, lambda block: len(block.s), max(n_points, AT_ONCE)):
        i = [np.repeat(block.rows, np.diff(block.starts)) for block in some]
        smallest = connected([np.arange(n_points), *i], [smallest, *(block.columns for block in some)], n_points)
    (index,) = np.nonzero(smallest != np.arange(n_points))
    kind = column_type(n_points)
    return index.astype(kind), smallest[index].astype(kind)


def connected(i: Sequence[NDArray[Any]], k: Sequence[NDArray[Any]], n_points: int) -> Integers:
    """For each point the smallest one that pairs (i, k) connect it with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row, column = np.concatenate(i), np.concatenate(k)
    pairs = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(n_points, n_points))
    label = connected_components(pairs, directed=False)[1]
    first = np.full(label.max(initial=0) + 1, n_points)
    np.minimum.at(first, label, np.arange(n_points))
    return np.asarray(first[label])


def grouped(items: Iterable[Item], size: Callable[[Item], int], enough: int) -> Iterator[list[Item]]:
    """Items in groups of about ``enough`` in size together."""
    waiting: list[Item] = []
    total = 0
    for item in items:
        waiting.append(item)
        total += size(item)
        if total >= enough:
            yield waiting
            waiting, total = [], 0
    if waiting:
        yield waiting
