"""The nearest neighbours of some vectors among others, exactly, in one process: no Spark.

1. A library finds candidates, by a k-d tree or by brute force, whichever is faster on these vectors.
2. Their closeness is computed anew, in the fixed order of `metrics.py`.
3. Each row is decided whose last neighbour is closer than any vector that is no candidate can be, rounding included.
   The other rows get more candidates. Those come from the tree if there is one, since its error bound is smaller.

So the result is exact, ties included, whatever the rounding inside the library.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.similarity.metrics import Floats, Metric, PairFunction, between

__all__ = [
    "MORE_CANDIDATES",
    "CandidateSearch",
    "Found",
    "Positions",
    "by_row",
    "nearest",
    "nearest_by_function",
    "nearest_of_candidates",
    "nearest_one",
    "squared_lengths",
    "without_copies",
]

Positions = NDArray[np.int64]
Found = tuple[Positions, Positions, Floats]  # rows of x, rows of y, closeness

MORE_CANDIDATES = 4  # undecided rows get so many times as many candidates as before
_SPARE_CANDIDATES = 8  # candidates beyond those asked for, so that few rows stay undecided
_NUMBERS_AT_ONCE = 2_000_000  # numbers that are worked on together: 16 MB
_TRIAL_ROWS = 50  # rows that try out both searches
_TREE_DIMENSIONS = 32  # beyond so many dimensions a tree never wins


def nearest(x: Floats, y: Floats, self_index: Positions, n: int, metric: Metric) -> Found:
    """Find the n closest rows of y for each row of x; of equally close ones those that come first.

    Parameters
    ----------
    x, y : array, shapes (m, d) and (b, d)
        Vectors, prepared by the metric.
    self_index : array of int64, shape (m,)
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
        return nearest_of_candidates([_by_products(x, y)], x, y, self_index, n, metric)
    searches = [_by_brute_force(x, y, metric)]
    if y.shape[1] <= _TREE_DIMENSIONS:
        searches.append(_by_tree(x, y, metric))
    rows, few = np.arange(min(_TRIAL_ROWS, len(x))), min(_TRIAL_ROWS, len(y))
    faster = min(searches, key=lambda search: _seconds(search, rows, few))
    return nearest_of_candidates([faster, searches[-1]], x, y, self_index, n, metric)


def nearest_one(x: Floats, y: Floats, metric: Metric) -> Found:
    """Find the closest row of y for each row of x: what `nearest` finds for n = 1, by candidates of single precision.

    Two candidates decide all rows but those for which both are about equally close.
    """
    nobody = np.full(len(x), -1)
    if metric.space == "l1":
        return nearest(x, y, nobody, 1, metric)
    if metric.space == "dot":
        last = _by_products(x, y)
    else:
        last = _by_tree(x, y, metric) if y.shape[1] <= _TREE_DIMENSIONS else _by_brute_force(x, y, metric)
    return nearest_of_candidates([_by_single_precision(x, y, metric), last], x, y, nobody, 1, metric, spare=0)


@dataclass(frozen=True)
class CandidateSearch:
    """A way to find candidates: rows of y that may be among the closest to a row of x.

    Attributes
    ----------
    candidates : callable
        Takes rows of x and a number. Returns so many rows of y for each, -1 where there are not as many. Up to the
        error bound, no other row of y is closer.
    error_bound : array of float64, shape (m,)
        How far the closeness that the search sees may be from the true one, for each row of x.
    relative_error : float
        What comes on top of it, as a share of the closeness.
    max_candidates : int
        The number of candidates that there are for a row, at most.
    horizon : array of float64, shape (m,), optional
        Beyond this closeness the bound does not hold: of vectors farther off it is only known that they are.
    """

    candidates: Callable[[Positions, int], Positions]
    error_bound: Floats
    relative_error: float
    max_candidates: int
    horizon: Floats | None = None


def nearest_of_candidates(
    searches: Sequence[CandidateSearch],
    x: Floats,
    y: Floats,
    self_index: Positions,
    n: int,
    metric: Metric,
    spare: int = _SPARE_CANDIDATES,
) -> Found:
    """Find the n closest rows of y among candidates; see `nearest`.

    The first search finds the first candidates, ``spare`` more than are needed. Rows that stay undecided get more of
    them from the last search.
    """
    x_columns, y_columns = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    found: list[Found] = []
    rows, wanted, search = np.arange(len(x)), n + 1 + spare, searches[0]
    while len(rows):
        wanted = min(wanted, search.max_candidates)
        numbers_a_row = wanted * (1 if wanted == len(y) else x.shape[1])
        undecided = []
        for some in _in_portions(rows, numbers_a_row):
            neighbor, closeness, is_decided = _decide(search, some, wanted, x_columns, y_columns, self_index, n, metric)
            undecided.append(some[~is_decided])
            found.append(_flat(some[is_decided], neighbor[is_decided], closeness[is_decided]))
        rows, wanted, search = np.concatenate(undecided), wanted * MORE_CANDIDATES, searches[-1]
    return by_row(found)


def _decide(
    search: CandidateSearch,
    rows: Positions,
    wanted: int,
    x_columns: Floats,
    y_columns: Floats,
    self_index: Positions,
    n: int,
    metric: Metric,
) -> tuple[Positions, Floats, NDArray[np.bool_]]:
    """Return the n closest of so many candidates for some rows, their closeness, and which of the rows are decided."""
    n_others = y_columns.shape[1]
    if wanted == n_others:
        candidates = np.broadcast_to(np.arange(n_others), (len(rows), n_others))
        closeness = metric.closeness(x_columns[:, rows, None], y_columns[:, None, :])
    else:
        candidates = np.sort(search.candidates(rows, wanted), axis=1)
        closeness = metric.closeness(x_columns[:, rows, None], y_columns[:, candidates])
    is_missing = candidates < 0
    farthest = np.where(is_missing, np.inf, closeness).min(axis=1)
    if search.horizon is not None:
        farthest = np.maximum(farthest, search.horizon[rows])
    closeness[is_missing | (candidates == self_index[rows, None])] = -np.inf
    best, closeness = _largest(closeness, n)
    # A vector that is no candidate is at most as close as the farthest candidate, up to this bound.
    underflow = 8.0 * len(x_columns) * math.ulp(0.0)  # very small squares have no relative error
    bound = search.error_bound[rows] + search.relative_error * np.abs(farthest) + underflow
    has_all = (wanted == search.max_candidates) | is_missing.any(axis=1)
    return np.take_along_axis(candidates, best, axis=1), closeness, has_all | (closeness[:, -1] > farthest + bound)


def nearest_by_function(function: PairFunction, x: Floats, y: Floats, self_index: Positions, n: int) -> Found:
    """Find the n most similar rows of y by a function of two arrays; see `nearest`.

    A similarity that is not a number counts as +infinity, so that it is found and refused later.
    """
    found: list[Found] = []
    for rows in _in_portions(np.arange(len(x)), len(y)):
        s = between(function, x[rows], y)
        closeness = np.where(np.isnan(s), np.inf, s)
        has_self = np.flatnonzero(self_index[rows] >= 0)
        closeness[has_self, self_index[rows][has_self]] = -np.inf
        best, closeness = _largest(closeness, n)
        found.append(_flat(rows, best, closeness))
    return by_row(found)


def _largest(closeness: Floats, n: int) -> tuple[Positions, Floats]:
    """Return the places and values of the n largest in each row; of equal ones those that come first."""
    best = np.argsort(-closeness, axis=1, kind="stable")[:, :n]
    return best, np.take_along_axis(closeness, best, axis=1)


def _flat(rows: Positions, neighbor: Positions, closeness: Floats) -> Found:
    """Return one entry for each neighbour; a closeness of -infinity says that there is none."""
    is_there = closeness > -np.inf
    return np.repeat(rows, is_there.sum(axis=1)), neighbor[is_there], closeness[is_there]


def by_row(found: list[Found]) -> Found:
    """Put together what was found in portions, ordered by row."""
    row, neighbor, closeness = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(row, kind="stable")
    return row[order], neighbor[order], closeness[order]


def _in_portions(rows: Positions, numbers_a_row: int) -> list[Positions]:
    """Split rows into portions of about _NUMBERS_AT_ONCE numbers, and of at least one row."""
    return np.array_split(rows, max(1, min(len(rows), -(-len(rows) * numbers_a_row // _NUMBERS_AT_ONCE))))


def without_copies(y: Floats, most: int) -> Positions:
    """Return the rows of y, in order, without those that ``most`` equal rows precede.

    Of equally close rows the first ones are taken, so a row that is left out is nobody's neighbour.

    >>> without_copies(np.array([[1.0], [2.0], [1.0], [1.0]]), 2)
    array([0, 1, 2])
    """
    rows = np.ascontiguousarray(y + 0.0)  # -0.0 becomes 0.0
    as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
    _, vector, counts = np.unique(as_bytes, return_inverse=True, return_counts=True)
    if counts.max(initial=0) <= most:
        return np.arange(len(y))
    order = np.argsort(vector, kind="stable")
    equal_before = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[equal_before < most])


def _by_tree(x: Floats, y: Floats, metric: Metric) -> CandidateSearch:
    """Search a k-d tree. It subtracts coordinates before it squares them, so only the result is rounded."""
    from scipy.spatial import cKDTree  # slow to import, and only needed here

    tree = cKDTree(y, balanced_tree=False, compact_nodes=False)
    power = 1 if metric.space == "l1" else 2
    return CandidateSearch(
        lambda rows, n: np.asarray(tree.query(x[rows], range(1, n + 1), p=power)[1]),
        _error_of_unit_vectors(x, metric),
        _rounding(x.shape[1]),
        len(y),
    )


def _by_brute_force(x: Floats, y: Floats, metric: Metric) -> CandidateSearch:
    """Compare with all of y. For Euclidean distances that is a matrix product: |x|² + |y|² - 2 x·y."""
    from sklearn.neighbors import NearestNeighbors

    name, error_bound, relative_error = "manhattan", _error_of_unit_vectors(x, metric), _rounding(x.shape[1])
    if metric.space == "l2":
        name, center = "sqeuclidean", np.median(y, axis=0)
        x, y = x - center, y - center
        error_bound = error_bound + relative_error * squared_lengths(x)
    index = NearestNeighbors(algorithm="brute", metric=name).fit(y)
    return CandidateSearch(
        lambda rows, n: np.asarray(index.kneighbors(x[rows], n, return_distance=False)),
        error_bound,
        relative_error,
        len(y),
    )


def _by_products(x: Floats, y: Floats) -> CandidateSearch:
    """Take the largest products with all of y."""

    def candidates(rows: Positions, n: int) -> Positions:
        some = [np.argpartition(-(x[few] @ y.T), n - 1, axis=1)[:, :n] for few in _in_portions(rows, len(y))]
        return np.concatenate(some)

    relative_error = _rounding(x.shape[1])
    error_bound = relative_error * np.sqrt(squared_lengths(x)) * math.sqrt(squared_lengths(y).max())
    return CandidateSearch(candidates, error_bound, relative_error, len(y))


def _by_single_precision(x: Floats, y: Floats, metric: Metric) -> CandidateSearch:
    """Take the best of all of y by one matrix product in single precision: x·y, or for distances x·2y - |y|²."""
    is_product = metric.space == "dot" or metric.unit_vectors
    if not is_product:
        center = np.median(y, axis=0)
        x, y = x - center, y - center
    largest = max(np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)) or 1.0
    size = 2.0 ** np.ceil(np.log2(largest))  # what is divided by it fits into single precision
    a, b = x / size, y / size
    if not is_product:
        a, b = np.column_stack([a, np.ones(len(a))]), np.column_stack([2.0 * b, -squared_lengths(b)])
    rows, columns = a.astype(np.float32), np.ascontiguousarray(b.T.astype(np.float32))

    def candidates(chosen: Positions, n: int) -> Positions:
        found = []
        for some in _in_portions(chosen, columns.shape[1]):
            closeness, best = rows[some] @ columns, []
            for _ in range(n):
                best.append(closeness.argmax(axis=1))
                closeness[np.arange(len(some)), best[-1]] = -np.inf
            found.append(np.stack(best, axis=1))
        return np.concatenate(found)

    length, longest = np.sqrt(squared_lengths(x)), math.sqrt(squared_lengths(y).max())
    magnitude = length * longest if is_product else np.square(length + longest)
    lost = 2.0**-120 * x.shape[1] * size * size  # in numbers too small for single precision
    return CandidateSearch(candidates, _rounding(x.shape[1], np.float32) * magnitude + lost, 0.0, len(y))


def _error_of_unit_vectors(x: Floats, metric: Metric) -> Floats:
    """Return how far the closeness of unit vectors, a product, may be from what their distance says of it."""
    return np.full(len(x), 2.0 * _rounding(x.shape[1]) if metric.unit_vectors else 0.0)


def _rounding(dimensions: int, kind: type[np.floating[Any]] = np.float64) -> float:
    """Return a generous bound of the relative error of a sum of products in floats of a kind."""
    return float(8.0 * (dimensions + 8) * np.finfo(kind).eps)


def squared_lengths(x: Floats) -> Floats:
    """Return the squared length of each row."""
    total: Floats = np.einsum("ij,ij->i", x, x)
    return total


def _seconds(search: CandidateSearch, rows: Positions, n: int) -> float:
    """Return how long the search takes for some rows."""
    started = time.perf_counter()
    search.candidates(rows, n)
    return time.perf_counter() - started
