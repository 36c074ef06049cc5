"""Points and k-NN graphs of any size: seeded points in clusters, each similar to its nearest neighbours."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

DIMENSIONS = 8
POINTS_A_CLUSTER = 100


def clustered_points(
    n_points: int,
    dimensions: int = DIMENSIONS,
    *,
    a_cluster: int = POINTS_A_CLUSTER,
    spread: float = 10.0,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Points that lie normally around centres, which are normal themselves and ``spread`` times as wide."""
    rng = np.random.default_rng(seed)
    centers = spread * rng.normal(size=(max(2, n_points // a_cluster), dimensions))
    return np.asarray(centers[rng.integers(0, len(centers), n_points)] + rng.normal(size=(n_points, dimensions)))


def knn_graph(n_points: int, neighbors: int, seed: int = 0) -> pa.Table:
    """The edges (i, k, s), s minus the squared distance, of the nearest neighbours of each of `clustered_points`."""
    x = clustered_points(n_points, seed=seed)
    distance, index = cKDTree(x).query(x, neighbors + 1, workers=-1)
    i = np.repeat(np.arange(n_points), neighbors)
    k: NDArray[np.int64] = index[:, 1:].ravel()
    return pa.table({"i": i, "k": k, "s": -np.square(distance[:, 1:].ravel())})
