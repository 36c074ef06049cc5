"""Cells around centroids, for the approximate search: no Spark.

faiss finds the centroids, the cell of each point, and candidates for its neighbours in the cells nearest to it: an
inverted file (Jégou, Douze & Schmid, Product quantization for nearest neighbor search, 2011, section IV).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.metrics import Floats, Metric, minus_squares
from ap_spark.nearest import Found, Positions, Search, settle, squares

__all__ = ["Cells", "cells_to_probe", "k_means", "nearest_in_cells", "train"]

TRAINING = 64  # points for each centroid
SINGLE = 1e-6  # a bound, generous, of the relative error in 32 bits
LARGEST = 1e15  # its square fits 32 bits; what is farther out is brought here
FEW = 4  # centroids among which the nearest is chosen in 64 bits

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
        """The cell of each vector."""
        x, columns = self.reduced(vectors), np.ascontiguousarray(self.centroids.T, dtype=np.float64)
        # The search adds in an order of its own: of the first few the nearest is found anew, in a fixed one.
        few = np.sort(flat_index(self.centroids).search(x, min(FEW, len(self)))[1], axis=1)
        closeness = minus_squares(x.astype(np.float64).T[:, :, None], columns[:, few])
        return np.asarray(np.take_along_axis(few, closeness.argmax(axis=1)[:, None], axis=1)[:, 0])

    def nearest(self, vectors: Floats, number: int) -> Positions:
        """The cells nearest to each vector: shape (n, number)."""
        return np.asarray(flat_index(self.centroids).search(self.reduced(vectors), min(number, len(self)))[1])


def flat_index(vectors: Singles) -> Any:
    """A faiss index that compares with every vector."""
    import faiss  # an extra

    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def train(vectors: Floats, number: int) -> Cells:
    """So many cells, by k-means on the vectors."""
    center = np.median(vectors, axis=0)
    away = np.abs(vectors - center)
    spread = float(np.median(away[away > 0])) if away.any() else 1.0  # not that of outliers
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
    centroids = np.ascontiguousarray(cells.centroids.T, dtype=np.float64)
    reduced = cells.reduced(vectors).astype(np.float64)
    rank = np.empty(len(row), dtype=np.int64)
    for one in np.unique(row):
        distance = -minus_squares(reduced[one][:, None], centroids)
        rank[row == one] = np.searchsorted(np.sort(distance), distance[cell[row == one]])
    sizes = np.bincount(row, minlength=len(vectors))
    for probes in range(1, len(cells) + 1):
        shares = np.bincount(row, weights=rank < probes, minlength=len(vectors))[sizes > 0] / sizes[sizes > 0]
        if shares.mean() - 2.0 * shares.std() / np.sqrt(len(shares)) >= recall:
            break
    return probes, float(shares.mean())


def nearest_in_cells(
    x: Floats, y: Floats, own: Positions, n: int, metric: Metric, cells: Cells, present: Positions, probes: int
) -> Found:
    """`nearest`, of the vectors y in the ``probes`` cells nearest to each of x; ``present`` are the cells of y."""
    import faiss

    kind = faiss.METRIC_L1 if metric.space == "l1" else faiss.METRIC_L2
    index = faiss.IndexIVFFlat(flat_index(cells.centroids[present]), y.shape[1], len(present), kind)
    index.add(cells.reduced(y))
    index.nprobe = probes
    small = cells.reduced(x)
    doubt = np.abs(x - cells.center).sum(axis=1) if metric.space == "l1" else squares(x - cells.center)
    if metric.refuses:  # unit vectors, whose closeness is a product
        doubt = doubt + 2.0
    by_cells = Search(lambda rows, wanted: index.search(small[rows], wanted)[1], SINGLE * doubt, SINGLE)
    return settle([by_cells], x, y, own, n, metric)
