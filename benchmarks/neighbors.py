"""Points to a graph of nearest neighbours, written to Parquet: seconds, recall, memory.

    python -m benchmarks.neighbors [--points 250000 500000 1000000] [--search approximate] [--spread 10]

Prints a line of markdown for each number of points, for benchmarks/results.md. Recall is measured on 500 points, other
ones than the search itself has measured it on. Memory is the most that the JVM takes, which is driver and executor in
one here, and all Python workers together (`peaks.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from scipy.spatial import cKDTree

from ap_spark import nearest_neighbors
from ap_spark._spark.session import start_session
from benchmarks.peaks import Peaks
from benchmarks.workload import clustered_points

SAMPLE = 500


def recall_of(path: str, spark: SparkSession, x: NDArray[np.float64], neighbors: int) -> float:
    """The share of the true neighbours that were written, on some points."""
    some = np.random.default_rng(1).choice(len(x), SAMPLE, replace=False)
    true = cKDTree(x).query(x[some], neighbors + 1)[1]
    edges = spark.read.parquet(path)
    found = edges.where(edges.i.isin(some.tolist())).toPandas().groupby("i")["k"].apply(set)
    return float(np.mean([len(found[i] & set(row) - {i}) / neighbors for i, row in zip(some, true, strict=True)]))


def measure(spark: SparkSession, given: argparse.Namespace, n_points: int) -> None:
    x = clustered_points(n_points, given.dimensions, a_cluster=given.a_cluster, spread=given.spread)
    with tempfile.TemporaryDirectory() as directory:
        features = pa.ListArray.from_arrays(np.arange(0, x.size + 1, given.dimensions, dtype=np.int32), x.ravel())
        pq.write_table(pa.table({"id": np.arange(n_points), "features": features}), f"{directory}/points.parquet")
        with Peaks() as peaks:
            started = time.perf_counter()
            points = spark.read.parquet(f"{directory}/points.parquet").persist()
            found = nearest_neighbors(points, given.neighbors, search=given.search)
            planned = time.perf_counter() - started
            found.edges.write.parquet(f"{directory}/edges")
            seconds = time.perf_counter() - started
        points.unpersist(blocking=True)
        recall = recall_of(f"{directory}/edges", spark, x, given.neighbors)
    print(
        f"| {n_points:,} | {given.spread:g} | {found.search} | {planned:.0f} | {seconds:.0f} | {found.recall:.3f} "
        f"| {recall:.3f} | {peaks.jvm / 2**30:.1f} | {peaks.workers / 2**30:.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--search", default="approximate")
    parser.add_argument("--a-cluster", type=int, default=1000)
    parser.add_argument("--spread", type=float, default=10.0)
    given = parser.parse_args()
    spark = start_session()
    spark.sparkContext.setLogLevel("ERROR")
    print("| points | spread | search | s to plan | s in all | recall said | recall | GiB JVM | GiB Python |")
    print("|---|---|---|---|---|---|---|---|---|")
    for n_points in given.points:
        measure(spark, given, n_points)
    spark.stop()


if __name__ == "__main__":
    main()
