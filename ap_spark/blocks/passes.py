"""What passes compute on one block, without Spark: values of points in; values of rows, or sums of columns, out.

The similarities of diagonal entries have no meaning here: preferences are an array with a value for each point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks import kernel
from ap_spark.blocks.files import column_type
from ap_spark.blocks.kernel import Block, Flags, Floats, Integers
from ap_spark.exact_sum import Units, in_units

__all__ = [
    "AT_ONCE",
    "Choices",
    "Histogram",
    "Parts",
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

AT_ONCE = 1_000_000  # pairs that are connected at once, at least

_Item = TypeVar("_Item")
Parts = Iterable[tuple[Block, Floats]]  # some rows, and their similarities


class Choices(NamedTuple):
    """The exemplar that each row chooses.

    Attributes
    ----------
    rows : int64, shape (m,)
    exemplar : int64, shape (m,)
        The exemplar with the largest similarity among those the row stores an edge to, on ties the smallest index; -1
        where there is none.
    similarity : float64, shape (m,)
        To it; -infinity where there is none.
    """

    rows: Integers
    exemplar: Integers
    similarity: Floats


def assign(parts: Parts, exemplars: Flags) -> Choices:
    """Choose an exemplar for each row; the point itself does not count.

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
    """Count the rows without an entry in a column that serves; their diagonal counts too."""
    return sum(kernel.unserved(block, serving) for block, _ in parts)


class Sums(NamedTuple):
    """Exact sums of columns.

    Attributes
    ----------
    columns : int64, shape (m,)
    sums : int64, shape (words, m)
        In units.
    counts : int64, shape (m,)
        How many addends each sum has.
    """

    columns: Integers
    sums: Integers
    counts: Integers


def refine(parts: Parts, cluster: Integers, units: Units) -> Sums:
    """Add, for each point, the similarities to it of the other members of its cluster that store an edge to it.

    Parameters
    ----------
    parts
    cluster : int64, shape (n_points,)
        The exemplar of each point.
    units : Units
        Of sums that are only reported.
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
    """Count, for each point, the rows of the block that store an edge to it."""
    counts = np.zeros(n_points, np.int64)
    for block, _ in parts:
        counts += np.bincount(block.columns, minlength=n_points)
        counts[block.rows] -= 1  # the diagonal
    return counts


def best_similarity(parts: Parts) -> tuple[Integers, Floats]:
    """Return the rows, and the largest similarity of each."""
    found = [(np.empty(0, np.int64), np.empty(0))]
    for block, similarity in parts:
        value = similarity.copy()
        value[block.diagonal] = -np.inf
        found.append((block.rows, np.maximum.reduceat(value, block.starts[:-1])))
    rows, best = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return rows, best


def _between(parts: Parts, low: float, high: float) -> Iterable[Floats]:
    """Yield the similarities from ``low`` to ``high`` without the diagonal."""
    for block, similarity in parts:
        taken = (similarity >= low) & (similarity <= high)
        taken[block.diagonal] = False
        yield similarity[taken]


def values(parts: Parts, low: float, high: float) -> Floats:
    """Return all similarities from ``low`` to ``high``."""
    return np.concatenate([np.empty(0), *_between(parts, low, high)])


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


_BINS = 4096


def histogram(parts: Parts, low: float, high: float) -> Histogram:
    """Count the similarities from ``low`` to ``high`` in 4,096 bins of equal width."""
    counts = np.zeros(_BINS, np.int64)
    lows, highs = np.full(_BINS, np.inf), np.full(_BINS, -np.inf)
    scale = 1.0 if np.isfinite(high - low) else 0.25
    for some in _between(parts, low, high):
        place = (some * scale - low * scale) / (high * scale - low * scale)
        bin_ = np.minimum(place * _BINS, _BINS - 1).astype(np.int64)
        counts += np.bincount(bin_, minlength=_BINS)
        np.minimum.at(lows, bin_, some)
        np.maximum.at(highs, bin_, some)
    return Histogram(counts, lows, highs)


def components(parts: Parts, n_points: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return points that edges of the block connect, in either direction, with smaller points; and the smallest."""
    smallest = np.arange(n_points)
    blocks = (block for block, _ in parts)
    for some in grouped(blocks, lambda block: len(block.s), max(n_points, AT_ONCE)):
        i = [np.repeat(block.rows, np.diff(block.starts)) for block in some]
        smallest = connected([np.arange(n_points), *i], [smallest, *(block.columns for block in some)], n_points)
    (index,) = np.nonzero(smallest != np.arange(n_points))
    kind = column_type(n_points)
    return index.astype(kind), smallest[index].astype(kind)


def connected(i: Sequence[NDArray[Any]], k: Sequence[NDArray[Any]], n_points: int) -> Integers:
    """Return, for each point, the smallest one that pairs (i, k) connect it with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row, column = np.concatenate(i), np.concatenate(k)
    pairs = coo_array((np.ones(len(row), np.int8), (row, column)), shape=(n_points, n_points))
    label = connected_components(pairs, directed=False)[1]
    first = np.full(label.max(initial=0) + 1, n_points)
    np.minimum.at(first, label, np.arange(n_points))
    return np.asarray(first[label])


def grouped(items: Iterable[_Item], size: Callable[[_Item], int], enough: int) -> Iterator[list[_Item]]:
    """Yield items in groups that have about ``enough`` in size together."""
    waiting: list[_Item] = []
    total = 0
    for item in items:
        waiting.append(item)
        total += size(item)
        if total >= enough:
            yield waiting
            waiting, total = [], 0
    if waiting:
        yield waiting
