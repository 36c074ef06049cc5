"""k-NN graphs of any size: seeded points in clusters, each similar to its nearest neighbours."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

DIMENSIONS = 8
POINTS_A_CLUSTER = 100


def knn_graph(n_points: int, neighbors: int, seed: int = 0) -> pa.Table:
    """The edges (i, k, s), s minus the squared distance, of the nearest neighbours of each point.

    Points lie normally around centres that are normal themselves, ten times as wide.
    """
    rng = np.random.default_rng(seed)
    centers = 10.0 * rng.normal(size=(max(2, n_points // POINTS_A_CLUSTER), DIMENSIONS))
    x = centers[rng.integers(0, len(centers), n_points)] + rng.normal(size=(n_points, DIMENSIONS))
    distance, index = cKDTree(x).query(x, neighbors + 1, workers=-1)
    i = np.repeat(np.arange(n_points), neighbors)
    k: NDArray[np.int64] = index[:, 1:].ravel()
    return pa.table({"i": i, "k": k, "s": -np.square(distance[:, 1:].ravel())})
