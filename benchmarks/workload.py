"""Points and k-NN graphs of any size: seeded points in clusters, each similar to its nearest neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from scipy.spatial import cKDTree

from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.graph.numbering import Numbering
from ap_spark.settings import Settings

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


def ready_edges(spark: SparkSession, n_points: int, neighbors: int, directory: Path) -> DataFrame:
    """The edges (i, k, s) of such a graph; kept in Parquet files.

    The points' order is random, so that columns are spread over all of memory, or over those of SEPARATE points, of
    which ``n_points`` has to be a multiple if larger.
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
    return edges


def ready_graph(
    spark: SparkSession, n_points: int, neighbors: int, directory: Path, blocks: int | None = None
) -> BlockGraph:
    """Such a graph in blocks. Preferences are the median similarity, and there is no jitter."""
    edges = ready_edges(spark, n_points, neighbors, directory)
    numbering = Numbering(
        points=spark.range(n_points).select(F.col("id").alias("index"), "id"),
        ids=None,
        keys=np.arange(n_points),
        weights=np.full(n_points, neighbors),
        release=lambda: None,
    )
    return build_block_graph(edges, Settings(partitions=blocks, jitter=False), numbering=numbering)
