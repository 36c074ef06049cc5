"""The nearest neighbours of some vectors among others, exactly, in one process: no Spark.

A library finds candidates, by a k-d tree or by brute force, whichever is faster on these vectors. Their closeness is
then computed anew in the fixed order of `metrics.py`; a row whose last neighbour is too close to call asks for more
candidates, of the tree if there is one, which is in doubt less often. So the result is exact, ties included, whatever
the rounding inside the library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ap_spark.similarity.metrics import Floats, Metric, PairFunction, between

__all__ = ["Found", "Positions", "Search", "nearest", "nearest_by", "settle", "squares", "without_copies"]

Positions = NDArray[np.int64]
Found = tuple[Positions, Positions, Floats]  # rows of x, rows of y, closeness

SPARE = 8  # candidates beyond those asked for, so that few rows have to ask again
MORE = 4  # so many times as many candidates for the rows that do
AT_ONCE = 2_000_000  # numbers that are worked on together: 16 MB
TRIAL = 50  # rows that try out both searches
TREE_DIMENSIONS = 32  # beyond so many a tree never wins


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
    >>> from ap_spark.similarity.metrics import metric_of
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> row, neighbor, closeness = nearest(x, x, np.arange(3), 1, metric_of("sqeuclidean"))
    >>> neighbor, closeness
    (array([1, 0, 1]), array([-1., -1., -1.]))
    """
    if metric.space == "dot":
        return settle([by_products(x, y)], x, y, own, n, metric)
    searches = [by_brute_force(x, y, metric)]
    if y.shape[1] <= TREE_DIMENSIONS:
        searches.append(by_tree(x, y, metric))
    rows, few = np.arange(min(TRIAL, len(x))), min(TRIAL, len(y))
    faster = min(searches, key=lambda search: seconds(search, rows, few))
    return settle([faster, searches[-1]], x, y, own, n, metric)


@dataclass(frozen=True)
class Search:
    """A way to find candidates.

    Attributes
    ----------
    candidates : callable
        Of rows of x and a number: so many rows of y for each, as good as the closest; -1 where there are no more.
    doubt : array of float64, shape (m,)
        By how much a row's closeness may be misjudged,
    relative_doubt : float
        and by which share of itself.
    most : int
        Candidates that there are for a row, at most.
    horizon : array of float64, shape (m,), optional
        Candidates farther off than this are misjudged by more: they are only known to be that far off.
    """

    candidates: Callable[[Positions, int], Positions]
    doubt: Floats
    relative_doubt: float
    most: int
    horizon: Floats | None = None


def settle(
    searches: Sequence[Search], x: Floats, y: Floats, own: Positions, n: int, metric: Metric, spare: int = SPARE
) -> Found:
    """`nearest`, among the candidates of the first search; rows that remain in doubt ask the last for more of them."""
    x_columns, y_columns = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    found: list[Found] = []
    open_rows, wanted, search = np.arange(len(x)), n + 1 + spare, searches[0]
    vanishing = 8.0 * x.shape[1] * math.ulp(0.0)  # squares so small have no relative error
    while len(open_rows):
        wanted = min(wanted, search.most)
        still_open = []
        everyone = wanted == len(y)
        for rows in in_portions(open_rows, wanted * (1 if everyone else x.shape[1])):
            if everyone:
                candidates = np.broadcast_to(np.arange(len(y)), (len(rows), len(y)))
                closeness = metric.closeness(x_columns[:, rows, None], y_columns[:, None, :])
            else:
                candidates = np.sort(search.candidates(rows, wanted), axis=1)
                closeness = metric.closeness(x_columns[:, rows, None], y_columns[:, candidates])
            none = candidates < 0
            farthest = np.where(none, np.inf, closeness).min(axis=1)
            if search.horizon is not None:
                farthest = np.maximum(farthest, search.horizon[rows])
            closeness[none | (candidates == own[rows, None])] = -np.inf
            best, closeness = first(closeness, n)
            # Whoever is no candidate is no closer than the farthest that is, but for rounding.
            doubt = search.doubt[rows] + search.relative_doubt * np.abs(farthest) + vanishing
            decided = (wanted == search.most) | none.any(axis=1) | (closeness[:, -1] > farthest + doubt)
            still_open.append(rows[~decided])
            neighbor = np.take_along_axis(candidates, best, axis=1)
            found.append(flat(rows[decided], neighbor[decided], closeness[decided]))
        open_rows, wanted, search = np.concatenate(still_open), wanted * MORE, searches[-1]
    return in_order(found)


def nearest_by(function: PairFunction, x: Floats, y: Floats, own: Positions, n: int) -> Found:
    """`nearest` for a similarity that is a function of two arrays; NaN comes first, as +infinity."""
    found: list[Found] = []
    for rows in in_portions(np.arange(len(x)), len(y)):
        s = between(function, x[rows], y)
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
    """The rows, so many at a time that they have AT_ONCE numbers, and at least one."""
    return np.array_split(rows, max(1, min(len(rows), -(-len(rows) * numbers_a_row // AT_ONCE))))


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


def by_tree(x: Floats, y: Floats, metric: Metric) -> Search:
    """A k-d tree. It takes coordinates from each other, so that only the result is rounded."""
    from scipy.spatial import cKDTree  # slow to import, and only needed here

    tree = cKDTree(y, balanced_tree=False, compact_nodes=False)
    power = 1 if metric.space == "l1" else 2
    relative = rounding(x.shape[1])
    return Search(
        lambda rows, n: np.asarray(tree.query(x[rows], range(1, n + 1), p=power)[1]),
        of_units(x, metric),
        relative,
        len(y),
    )


def by_brute_force(x: Floats, y: Floats, metric: Metric) -> Search:
    """All of y, by matrix products, which add the squares of x and y and take their product twice."""
    from sklearn.neighbors import NearestNeighbors

    name, doubt, relative = "manhattan", of_units(x, metric), rounding(x.shape[1])
    if metric.space == "l2":
        name, center = "sqeuclidean", np.median(y, axis=0)
        x, y = x - center, y - center
        doubt = doubt + relative * squares(x)
    everyone = NearestNeighbors(algorithm="brute", metric=name).fit(y)
    return Search(
        lambda rows, n: np.asarray(everyone.kneighbors(x[rows], n, return_distance=False)), doubt, relative, len(y)
    )


def by_products(x: Floats, y: Floats) -> Search:
    """The largest products with all of y."""

    def candidates(rows: Positions, n: int) -> Positions:
        some = [np.argpartition(-(x[few] @ y.T), n - 1, axis=1)[:, :n] for few in in_portions(rows, len(y))]
        return np.concatenate(some)

    relative = rounding(x.shape[1])
    doubt = relative * np.sqrt(squares(x)) * math.sqrt(squares(y).max())
    return Search(candidates, doubt, relative, len(y))


def of_units(x: Floats, metric: Metric) -> Floats:
    """How far the closeness of unit vectors, a product, may be from what their distance says of it."""
    return np.full(len(x), 2.0 * rounding(x.shape[1]) if metric.refuses else 0.0)


def rounding(dimensions: int) -> float:
    """A bound, generous, of the relative error of a sum of products in float64."""
    return float(8.0 * (dimensions + 8) * np.finfo(np.float64).eps)


def squares(x: Floats) -> Floats:
    total: Floats = np.einsum("ij,ij->i", x, x)
    return total


def seconds(search: Search, rows: Positions, n: int) -> float:
    started = time.perf_counter()
    search.candidates(rows, n)
    return time.perf_counter() - started
