"""Points and k-NN graphs of any size: seeded points in clusters, each similar to its nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from scipy.spatial import cKDTree

from ap_spark.exact import Units, units_of
from ap_spark.graph import Graph

DIMENSIONS = 8
POINTS_A_CLUSTER = 100
SEPARATE = 1_000_000  # larger graphs are made of so many points each, with no edges between them


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


def ready_graph(spark: SparkSession, n_points: int, neighbors: int, directory: Path) -> Graph:
    """Such a graph as the engines want it, without the checks and joins of `build_graph`; kept in Parquet files.

    Preferences are the median similarity, and there is no jitter. The points' order is random, so that columns are
    spread over all of memory, or over those of SEPARATE points, of which ``n_points`` has to be a multiple if larger.
    """
    path = directory / f"knn-{n_points}-{neighbors}"
    pieces = -(-n_points // SEPARATE)
    for piece in range(pieces):
        file = path / f"{piece}.parquet"
        if not file.exists():
            path.mkdir(parents=True, exist_ok=True)
            pq.write_table(knn_graph(n_points // pieces, neighbors, seed=piece), file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
    size = n_points // pieces
    edges = None
    for piece in range(pieces):
        shifted = spark.read.parquet(str(path / f"{piece}.parquet")).select(
            (F.col("i") + piece * size).alias("i"), (F.col("k") + piece * size).alias("k"), "s"
        )
        edges = shifted if edges is None else edges.union(shifted)
    assert edges is not None
    figures = F.min("s"), F.max("s"), F.percentile_approx("s", 0.5), F.min(F.abs("s"))
    low, high, median, smallest = edges.agg(*figures).first() or (0.0, 0.0, 0.0, 0.0)
    in_degree = edges.groupBy("k").count().agg(F.max("count")).first()
    assert in_degree is not None
    own = spark.range(n_points).select(F.col("id").alias("i"), F.col("id").alias("k"), F.lit(median).alias("s"))
    points = spark.range(n_points).select(
        F.col("id").alias("index"), F.lit(neighbors).alias("similar_to"), F.lit(False).alias("lonely")
    )
    return Graph(
        points=points,
        edges=edges.union(own),
        n_points=n_points,
        n_edges=n_points * neighbors,
        n_lonely=0,
        units=units_of(high - low, in_degree[0], smallest),
        report_units=Units(1.0, 1.0),
        uniform=False,
        uniform_gap=0.0,
        preference=median,
        fingerprint="",
        release=lambda: None,
    )
