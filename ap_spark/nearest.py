"""The nearest neighbours of some vectors among others, exactly, in one process: no Spark.

A library finds candidates, by a k-d tree or by brute force, whichever is faster on these vectors. Their closeness is
then computed anew in the fixed order of `metrics.py`; a row whose last neighbour is too close to call asks for more
candidates. So the result is exact, ties included, whatever the rounding inside the library.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ap_spark.metrics import Floats, Metric, PairFunction

__all__ = ["SPARE", "Found", "Positions", "closest_of", "nearest", "nearest_by", "without_copies"]

Positions = NDArray[np.int64]
Found = tuple[Positions, Positions, Floats]  # rows of x, rows of y, closeness
Search = Callable[[Positions, int], Positions]  # rows of x, how many -> rows of y, shape (rows, how many)

SPARE = 8  # candidates beyond those asked for, so that few rows have to ask again
MORE = 4  # so many times as many candidates for the rows that do
AT_ONCE = 2_000_000  # numbers that are worked on together: 16 MB
TRIAL = 50  # rows that try out both searches
TREE_DIMENSIONS = 32  # beyond so many a tree never wins
ROUNDING = 1e-12  # more than any search is wrong by, relative to the squares that it adds


def nearest(x: Floats, y: Floats, own: Positions, n: int, metric: Metric) -> Found:
    """For each row of x the n closest rows of y; of equally close ones those that come first.

    Parameters
    ----------
    x, y : array, shapes (m, d) and (b, d)
        Vectors, prepared by the metric.
    own : array of int64, shape (m,)
        The row of y that is the vector itself and does not count; -1 for none.
    n : int
        Neighbours; there are fewer where y has fewer rows.
    metric : Metric

    Returns
    -------
    row, neighbor : arrays of int64
        Positions in x and y; by row, the closest first.
    closeness : array of float64

    Examples
    --------
    >>> from ap_spark.metrics import metric_of
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> row, neighbor, closeness = nearest(x, x, np.arange(3), 1, metric_of("sqeuclidean"))
    >>> neighbor, closeness
    (array([1, 0, 1]), array([-1., -1., -1.]))
    """
    kept = without_copies(y, n + 1)
    y_columns = np.ascontiguousarray(y[kept].T)
    x_columns = np.ascontiguousarray(x.T)
    search, scale = searcher(x, y[kept], metric)
    found: list[Found] = []
    open_rows, wanted = np.arange(len(x)), n + 1 + SPARE
    while len(open_rows):
        wanted = min(wanted, len(kept))
        still_open = []
        for rows in in_portions(open_rows, wanted * x.shape[1]):
            candidates = np.sort(search(rows, wanted), axis=1)
            closeness = metric.closeness(x_columns[:, rows, None], y_columns[:, candidates])
            farthest = closeness.min(axis=1)
            closeness[kept[candidates] == own[rows, None]] = -np.inf
            best, closeness = first(closeness, n)
            # Whoever is no candidate is no closer than the farthest that is, but for rounding.
            doubt = ROUNDING * (scale[rows] + np.abs(farthest))
            decided = (wanted == len(kept)) | (closeness[:, -1] > farthest + doubt)
            still_open.append(rows[~decided])
            neighbor = kept[np.take_along_axis(candidates, best, axis=1)]
            found.append(flat(rows[decided], neighbor[decided], closeness[decided]))
        open_rows = np.concatenate(still_open)
        wanted *= MORE
    return in_order(found)


def closest_of(candidates: Positions, x: Floats, y: Floats, own: Positions, n: int, metric: Metric) -> Found:
    """`nearest` among the candidates of each row, shape (m, any); -1 is none."""
    x_columns, y_columns = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    found: list[Found] = []
    for rows in in_portions(np.arange(len(x)), candidates.shape[1] * x.shape[1]):
        here = np.sort(candidates[rows], axis=1)
        closeness = metric.closeness(x_columns[:, rows, None], y_columns[:, here])
        closeness[(here == own[rows, None]) | (here < 0)] = -np.inf
        best, closeness = first(closeness, n)
        found.append(flat(rows, np.take_along_axis(here, best, axis=1), closeness))
    return in_order(found)


def nearest_by(function: PairFunction, x: Floats, y: Floats, own: Positions, n: int) -> Found:
    """`nearest` for a similarity that is a function of two arrays; NaN comes first, as +infinity."""
    found: list[Found] = []
    for rows in in_portions(np.arange(len(x)), len(y)):
        s = np.array(function(x[rows], y), dtype=np.float64)
        order = np.where(np.isnan(s), np.inf, s)
        mine = np.flatnonzero(own[rows] >= 0)
        order[mine, own[rows][mine]] = -np.inf
        best, order = first(order, n)
        found.append(flat(rows, best, order))
    return in_order(found)


def first(closeness: Floats, n: int) -> tuple[Positions, Floats]:
    """Places and values of the n largest in each row; of equal ones those that come first."""
    best = np.argsort(-closeness, axis=1, kind="stable")[:, :n]
    return best, np.take_along_axis(closeness, best, axis=1)


def flat(rows: Positions, neighbor: Positions, closeness: Floats) -> Found:
    """One entry for each neighbour; -infinite closeness is none."""
    there = closeness > -np.inf
    return np.repeat(rows, there.sum(axis=1)), neighbor[there], closeness[there]


def in_order(found: list[Found]) -> Found:
    """All that was found, by row."""
    row, neighbor, closeness = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(row, kind="stable")
    return row[order], neighbor[order], closeness[order]


def in_portions(rows: Positions, numbers_a_row: int) -> list[Positions]:
    """The rows, so many at a time that they have AT_ONCE numbers."""
    return np.array_split(rows, -(-len(rows) * numbers_a_row // AT_ONCE) or 1)


def without_copies(y: Floats, most: int) -> Positions:
    """The rows of y, in order, without those of which ``most`` equal ones come before: nobody's neighbours.

    >>> without_copies(np.array([[1.0], [2.0], [1.0], [1.0]]), 2)
    array([0, 1, 2])
    """
    rows = np.ascontiguousarray(y + 0.0)  # -0.0 becomes 0.0
    as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, vector, counts = np.unique(as_bytes, return_inverse=True, return_counts=True)
    if counts.max(initial=0) <= most:
        return np.arange(len(y))
    order = np.argsort(vector, kind="stable")
    place = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < most])


def searcher(x: Floats, y: Floats, metric: Metric) -> tuple[Search, Floats]:
    """The faster of two searches, and for each row of x the size of the squares it adds."""
    from scipy.spatial import cKDTree  # slow to import, and only needed here
    from sklearn.neighbors import NearestNeighbors

    scale: Floats = np.zeros(len(x))
    if metric.space == "dot":  # the largest product is the smallest distance once y is lifted onto a sphere
        squares = np.einsum("ij,ij->i", y, y)
        scale = np.einsum("ij,ij->i", x, x) + squares.max()
        x, y = np.pad(x, ((0, 0), (0, 1))), np.column_stack([y, np.sqrt(squares.max() - squares)])
    elif metric.space == "l2":
        center = np.median(y, axis=0)
        x, y = x - center, y - center
        scale = np.einsum("ij,ij->i", x, x)
    all_of_y = NearestNeighbors(algorithm="brute", metric="manhattan" if metric.space == "l1" else "sqeuclidean").fit(y)

    def by_brute_force(rows: Positions, n: int) -> Positions:
        return np.asarray(all_of_y.kneighbors(x[rows], n, return_distance=False))

    if y.shape[1] > TREE_DIMENSIONS:
        return by_brute_force, scale
    tree = cKDTree(y, balanced_tree=False, compact_nodes=False)

    def by_tree(rows: Positions, n: int) -> Positions:
        return np.asarray(tree.query(x[rows], range(1, n + 1), p=1 if metric.space == "l1" else 2)[1])

    rows, n = np.arange(min(TRIAL, len(x))), min(TRIAL, len(y))
    return min((by_tree, by_brute_force), key=lambda search: seconds(search, rows, n)), scale


def seconds(search: Search, rows: Positions, n: int) -> float:
    started = time.perf_counter()
    search(rows, n)
    return time.perf_counter() - started
