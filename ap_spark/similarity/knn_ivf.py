"""Cells around centroids, for the approximate search: no Spark.

faiss finds the centroids, the cell of each point, and candidates for its neighbours in the cells nearest to it: an
inverted file (Jégou, Douze & Schmid, Product quantization for nearest neighbor search, 2011, section IV).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.similarity.knn_exact import MORE, Found, Positions, Search, in_order, settle, squares
from ap_spark.similarity.metrics import METRICS, Floats, Metric

__all__ = ["Cells", "cells_that_hold", "cells_to_probe", "k_means", "nearest_in_cells", "train"]

TRAINING = 64  # points for each centroid
LARGEST = 1e15  # its square fits 32 bits; what is farther out is brought here
TYPICAL = 1e12  # the largest element of half of the vectors is no larger
FEW = 2  # centroids beyond the nearest two among which the nearest is chosen in 64 bits
ROUNDING, VANISHING = 2.0**-24, 2.0**-126  # of 32 bits: the relative error, and what may become 0

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Cells:
    """Centroids; a point lies in the cell of the nearest.

    Attributes
    ----------
    center, spread : array of float64, shape (d,), and float
        What is taken from vectors, and what then divides them, since faiss has 32 bits.
    centroids : array of float32, shape (cells, d)
        Of vectors so treated.
    """

    center: Floats
    spread: float
    centroids: Singles

    def __len__(self) -> int:
        return len(self.centroids)

    def reduced(self, vectors: Floats) -> Singles:
        """Vectors as faiss is given them."""
        small = np.clip((vectors - self.center) / self.spread, -LARGEST, LARGEST)
        return np.ascontiguousarray(small, dtype=np.float32)

    def place(self, vectors: Floats) -> Positions:
        """The cell of each vector, the same one whatever other vectors it is found with."""
        small, index = self.reduced(vectors), flat_index(self.centroids)
        x, y = small.astype(np.float64), self.centroids.astype(np.float64)
        # The index subtracts a product from the squares of both.
        relative = 8.0 * (x.shape[1] + 8) * ROUNDING
        doubt = relative * squares(x) + x.shape[1] * VANISHING
        by_index = Search(partial(candidates, index, small), doubt, relative, len(y))
        return settle([by_index], x, y, np.full(len(x), -1), 1, METRICS["sqeuclidean"], spare=FEW)[1]

    def nearest(self, vectors: Floats, number: int) -> Positions:
        """The cells nearest to each vector: shape (n, number)."""
        return np.asarray(flat_index(self.centroids).search(self.reduced(vectors), min(number, len(self)))[1])


def flat_index(vectors: Singles) -> Any:
    """A faiss index that compares with every vector."""
    import faiss  # an extra

    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def candidates(index: Any, vectors: Singles, rows: Positions, number: int) -> Positions:
    """So many places in the index for each of some rows, -1 where there are not as many."""
    return np.asarray(index.search(vectors[rows], number)[1])


def train(vectors: Floats, number: int) -> Cells:
    """So many cells, by k-means on the vectors."""
    center = np.median(vectors, axis=0)
    away = np.abs(vectors - center)
    spread = float(np.median(away[away > 0])) if away.any() else 1.0  # not that of outliers
    spread = max(spread, float(np.median(away.max(axis=1))) / TYPICAL)  # nor that of dimensions which hardly count
    cells = Cells(center, spread, np.empty((0, vectors.shape[1]), np.float32))
    return replace(cells, centroids=k_means(cells.reduced(vectors), number))


def k_means(vectors: Singles, number: int) -> Singles:
    """So many centroids, or as many as there are different vectors."""
    import faiss

    vectors = np.unique(vectors, axis=0)  # equal centroids would leave the cell of a point to chance
    clustering = faiss.Kmeans(
        vectors.shape[1],
        min(number, len(vectors)),
        niter=10,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING,
    )
    clustering.train(vectors)
    return np.asarray(clustering.centroids)


def cells_to_probe(cells: Cells, vectors: Floats, row: Positions, cell: Positions, recall: float) -> tuple[int, float]:
    """In how many cells each point has to look for its neighbours.

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
    # By the very search that will choose the cells, rounding and all.
    rank = np.argsort(cells.nearest(vectors, len(cells)), axis=1)[row, cell]
    sizes = np.bincount(row, minlength=len(vectors))
    for probes in range(1, len(cells) + 1):
        shares = np.bincount(row, weights=rank < probes, minlength=len(vectors))[sizes > 0] / sizes[sizes > 0]
        if shares.mean() - 2.0 * shares.std() / np.sqrt(len(shares)) >= recall:
            break
    return probes, float(shares.mean())


def cells_that_hold(cells: Cells, occupied: Positions, sizes: Positions, least: int) -> tuple[Positions, Positions]:
    """For each occupied cell the nearest ones that together hold so many points: pairs of (cell, near cell).

    ``sizes`` are the points in the occupied cells.
    """
    index = flat_index(cells.centroids[occupied])
    pairs: list[tuple[Positions, Positions]] = []
    rows, number = np.arange(len(occupied)), MORE
    while len(rows):
        number = min(number, len(occupied))
        near = index.search(cells.centroids[occupied[rows]], number)[1]
        held = sizes[near].cumsum(axis=1)
        enough = (held[:, -1] >= least) | (number == len(occupied))
        row, place = np.nonzero((held - sizes[near] < least) & enough[:, None])
        pairs.append((occupied[rows[row]], occupied[near[row, place]]))
        rows, number = rows[~enough], number * MORE
    cell, near_cell = zip(*pairs, strict=True)
    return np.concatenate(cell), np.concatenate(near_cell)


def nearest_in_cells(
    x: Floats, y: Floats, own: Positions, n: int, metric: Metric, cells: Cells, cell: Positions, probes: int
) -> Found:
    """`nearest`, of the vectors y in the ``probes`` cells nearest to each of x; ``cell`` is that of each of y.

    A vector that finds fewer than n there looks into more cells, as long as there are some.
    """
    import faiss

    present, place = np.unique(cell, return_inverse=True)
    kind = faiss.METRIC_L1 if metric.space == "l1" else faiss.METRIC_L2
    index = faiss.IndexIVFFlat(flat_index(cells.centroids[present]), y.shape[1], len(present), kind)
    small, small_y = cells.reduced(x), cells.reduced(y)
    index.add_core(len(y), faiss.swig_ptr(small_y), None, faiss.swig_ptr(place))
    sizes = np.sort(np.bincount(place))[::-1]
    doubt, relative, horizon = misjudged(x, metric, cells)
    found: list[Found] = []
    rows = np.arange(len(x))
    while len(rows):
        index.nprobe = probes = min(probes, len(present))
        by_cells = Search(
            partial(candidates, index, small[rows]), doubt[rows], relative, int(sizes[:probes].sum()), horizon[rows]
        )
        row, neighbor, closeness = settle([by_cells], x[rows], y, own[rows], n, metric)
        enough = (np.bincount(row, minlength=len(rows)) >= n) | (probes == len(present))
        kept = enough[row]
        found.append((rows[row[kept]], neighbor[kept], closeness[kept]))
        rows, probes = rows[~enough], probes * MORE
    return in_order(found)


def misjudged(x: Floats, metric: Metric, cells: Cells) -> tuple[Floats, float, Floats]:
    """What 32 bits do to the closeness of x to others: `Search.doubt`, `relative_doubt` and `horizon`."""
    dimensions, away = x.shape[1], np.abs(x - cells.center)
    # What was brought nearer is, seen from x, at least so far away.
    gap = np.maximum(LARGEST * cells.spread - away.max(axis=1), 0.0)
    size, vanishing, horizon = away.sum(axis=1), VANISHING * cells.spread, -gap
    if metric.space == "l2":
        with np.errstate(over="ignore"):
            size, vanishing, horizon = squares(away), vanishing * cells.spread, -(gap * gap)
    if metric.refuses:  # unit vectors, whose closeness is a product
        size, horizon = size + 4.0, 1.0 + horizon / 2.0
    doubt = 8.0 * ROUNDING * size + dimensions * vanishing
    return doubt, 2.0 * (dimensions + 8) * ROUNDING, horizon
