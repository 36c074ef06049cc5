"""An inverted file for the approximate search: cells around centroids, searched with faiss. No Spark.

faiss finds the centroids (k-means), the cell of each point, and candidates for its neighbours in the cells nearest to
it: Jégou, Douze & Schmid, Product quantization for nearest neighbor search, 2011, section IV. faiss has 32 bits, so
`knn_exact.py` decides in 64 which candidates are the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.similarity.knn_exact import (
    MORE_CANDIDATES,
    CandidateSearch,
    Found,
    Positions,
    by_row,
    nearest_of_candidates,
    squared_lengths,
)
from ap_spark.similarity.metrics import METRICS, Floats, Metric

__all__ = [
    "TRAINING_POINTS",
    "Cells",
    "cells_that_hold",
    "cells_to_probe",
    "group_cells",
    "nearest_in_cells",
    "train",
]

TRAINING_POINTS = 64  # for each centroid
_LARGEST = 1e15  # its square fits 32 bits; larger elements are clipped to it
_TYPICAL = 1e12  # in half of the vectors no element is larger
_SPARE_CENTROIDS = 2  # beyond the two nearest by 32 bits, of which 64 bits choose
_ROUNDING, _UNDERFLOW = 2.0**-24, 2.0**-126  # of 32 bits: the relative error, and what may become 0

_Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Cells:
    """Centroids; a point lies in the cell of the nearest.

    Attributes
    ----------
    center : array of float64, shape (d,)
        What is subtracted from vectors before faiss gets them,
    spread : float
        and what they are then divided by, so that 32 bits resolve them.
    centroids : array of float32, shape (cells, d)
        Of vectors so reduced.
    """

    center: Floats
    spread: float
    centroids: _Singles

    def __len__(self) -> int:
        return len(self.centroids)

    def reduced(self, vectors: Floats) -> _Singles:
        """Return vectors as faiss gets them."""
        small = np.clip((vectors - self.center) / self.spread, -_LARGEST, _LARGEST)
        return np.ascontiguousarray(small, dtype=np.float32)

    def place(self, vectors: Floats) -> Positions:
        """Return the cell of each vector. It does not depend on the other vectors of the call."""
        small, index = self.reduced(vectors), _flat_index(self.centroids)
        x, y = small.astype(np.float64), self.centroids.astype(np.float64)
        # The index computes |x|² + |y|² - 2 x·y, so rounding grows with |x|².
        relative_error = 8.0 * (x.shape[1] + 8) * _ROUNDING
        error_bound = relative_error * squared_lengths(x) + x.shape[1] * _UNDERFLOW
        by_index = CandidateSearch(partial(_candidates, index, small), error_bound, relative_error, len(y))
        nobody = np.full(len(x), -1)
        return nearest_of_candidates([by_index], x, y, nobody, 1, METRICS["sqeuclidean"], spare=_SPARE_CENTROIDS)[1]

    def nearest(self, vectors: Floats, number: int) -> Positions:
        """Return the cells nearest to each vector: shape (n, number)."""
        return np.asarray(_flat_index(self.centroids).search(self.reduced(vectors), min(number, len(self)))[1])


def _flat_index(vectors: _Singles) -> Any:
    """Return a faiss index that compares with every vector."""
    import faiss  # an extra

    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def _candidates(index: Any, vectors: _Singles, rows: Positions, number: int) -> Positions:
    """Return so many places in the index for each of some rows, -1 where there are not as many."""
    return np.asarray(index.search(vectors[rows], number)[1])


def train(vectors: Floats, number: int) -> Cells:
    """Find so many cells, by k-means on the vectors."""
    center = np.median(vectors, axis=0)
    away = np.abs(vectors - center)
    # Medians, so that neither outliers nor dimensions that hardly vary decide.
    spread = float(np.median(away[away > 0])) if away.any() else 1.0
    spread = max(spread, float(np.median(away.max(axis=1))) / _TYPICAL)
    cells = Cells(center, spread, np.empty((0, vectors.shape[1]), np.float32))
    return replace(cells, centroids=_k_means(cells.reduced(vectors), number))


def group_cells(cells: Cells, number: int) -> Positions:
    """Return the group of each cell: about so many groups, of cells that lie together."""
    index = _flat_index(_k_means(cells.centroids, number))
    return np.asarray(index.search(cells.centroids, 1)[1][:, 0])


def _k_means(vectors: _Singles, number: int) -> _Singles:
    """Return so many centroids, or as many as there are different vectors."""
    import faiss

    vectors = np.unique(vectors, axis=0)  # equal centroids would leave the cell of a point to chance
    clustering = faiss.Kmeans(
        vectors.shape[1],
        min(number, len(vectors)),
        niter=10,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING_POINTS,
    )
    clustering.train(vectors)
    return np.asarray(clustering.centroids)


def cells_to_probe(cells: Cells, vectors: Floats, row: Positions, cell: Positions, recall: float) -> tuple[int, float]:
    """Find out in how many cells each point has to look for its neighbours.

    Parameters
    ----------
    cells : Cells
    vectors : array, shape (m, d)
        A sample of points.
    row, cell : arrays of int64
        For each true neighbour of the sample the row of the point and the cell of the neighbour.
    recall : float
        The share of true neighbours to be found. The mean over the sample has to lie two standard errors above it.

    Returns
    -------
    probes : int
        All cells if no smaller number will do.
    recall : float
        The mean that was reached.
    """
    if not len(row):
        return 1, 1.0
    # The ranks come from the very search that will choose the cells, with its rounding.
    rank = np.argsort(cells.nearest(vectors, len(cells)), axis=1)[row, cell]
    sizes = np.bincount(row, minlength=len(vectors))
    for probes in range(1, len(cells) + 1):
        recalls = np.bincount(row, weights=rank < probes, minlength=len(vectors))[sizes > 0] / sizes[sizes > 0]
        if recalls.mean() - 2.0 * recalls.std() / np.sqrt(len(recalls)) >= recall:
            break
    return probes, float(recalls.mean())


def cells_that_hold(cells: Cells, occupied: Positions, sizes: Positions, least: int) -> tuple[Positions, Positions]:
    """Find for each occupied cell the nearest cells that together hold so many points.

    Parameters
    ----------
    cells : Cells
    occupied, sizes : arrays of int64
        The cells that hold points, and how many each holds.
    least : int
        The number of points to be held.

    Returns
    -------
    cell, near_cell : arrays of int64
        Pairs of an occupied cell and one of the nearest, itself included.
    """
    index = _flat_index(cells.centroids[occupied])
    pairs: list[tuple[Positions, Positions]] = []
    rows, number = np.arange(len(occupied)), MORE_CANDIDATES
    while len(rows):
        number = min(number, len(occupied))
        near = index.search(cells.centroids[occupied[rows]], number)[1]
        held = sizes[near].cumsum(axis=1)
        has_enough = (held[:, -1] >= least) | (number == len(occupied))
        row, place = np.nonzero((held - sizes[near] < least) & has_enough[:, None])
        pairs.append((occupied[rows[row]], occupied[near[row, place]]))
        rows, number = rows[~has_enough], number * MORE_CANDIDATES
    cell, near_cell = zip(*pairs, strict=True)
    return np.concatenate(cell), np.concatenate(near_cell)


def nearest_in_cells(
    x: Floats, y: Floats, self_index: Positions, n: int, metric: Metric, cells: Cells, cell: Positions, probes: int
) -> Found:
    """Find the n closest rows of y for each row of x, in the cells nearest to it; see `knn_exact.nearest`.

    A vector that finds fewer than n there looks into more cells, as long as there are some.

    Parameters
    ----------
    x, y, self_index, n, metric
        As for `knn_exact.nearest`.
    cells : Cells
    cell : array of int64, shape (b,)
        The cell of each row of y.
    probes : int
        The number of cells to look into, at least 1.
    """
    import faiss

    present, place = np.unique(cell, return_inverse=True)
    kind = faiss.METRIC_L1 if metric.space == "l1" else faiss.METRIC_L2
    index = faiss.IndexIVFFlat(_flat_index(cells.centroids[present]), y.shape[1], len(present), kind)
    small, small_y = cells.reduced(x), cells.reduced(y)
    index.add_core(len(y), faiss.swig_ptr(small_y), None, faiss.swig_ptr(place))
    sizes = np.sort(np.bincount(place))[::-1]
    error_bound, relative_error, horizon = _errors_of_32_bits(x, metric, cells)
    found: list[Found] = []
    rows = np.arange(len(x))
    while len(rows):
        index.nprobe = probes = min(probes, len(present))
        by_cells = CandidateSearch(
            partial(_candidates, index, small[rows]),
            error_bound[rows],
            relative_error,
            int(sizes[:probes].sum()),
            horizon[rows],
        )
        row, neighbor, closeness = nearest_of_candidates([by_cells], x[rows], y, self_index[rows], n, metric)
        has_enough = (np.bincount(row, minlength=len(rows)) >= n) | (probes == len(present))
        kept = has_enough[row]
        found.append((rows[row[kept]], neighbor[kept], closeness[kept]))
        rows, probes = rows[~has_enough], probes * MORE_CANDIDATES
    return by_row(found)


def _errors_of_32_bits(x: Floats, metric: Metric, cells: Cells) -> tuple[Floats, float, Floats]:
    """Return what 32 bits do to the closeness of x: the error bound, relative error and horizon of a search."""
    dimensions, away = x.shape[1], np.abs(x - cells.center)
    # A vector that was clipped lies, seen from x, at least so far away.
    gap = np.maximum(_LARGEST * cells.spread - away.max(axis=1), 0.0)
    size, underflow, horizon = away.sum(axis=1), _UNDERFLOW * cells.spread, -gap
    if metric.space == "l2":
        with np.errstate(over="ignore"):
            size, underflow, horizon = squared_lengths(away), underflow * cells.spread, -(gap * gap)
    if metric.unit_vectors:  # closeness is a product: 1 - d²/2 at distance d
        size, horizon = size + 4.0, 1.0 + horizon / 2.0
    error_bound = 8.0 * _ROUNDING * size + dimensions * underflow
    return error_bound, 2.0 * (dimensions + 8) * _ROUNDING, horizon
