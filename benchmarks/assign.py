"""New points to exemplars, from Parquet to Parquet: seconds and memory.

    python -m benchmarks.assign [--points 1000000] [--exemplars 10000] [--dimensions 16] [--metric sqeuclidean cosine]

Prints a line of markdown for each metric and each kind of points, for benchmarks/results.md: points that lie around
the exemplars, in clusters, and points that lie anywhere. The answers of some points are compared with brute force.
Memory is the most that the JVM takes, and all Python workers together (`peaks.py`).
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

from ap_spark import Similarity, assign
from ap_spark._spark.session import start_session
from ap_spark.similarity.metrics import pairwise
from benchmarks.peaks import Peaks

SAMPLE = 500


def write_points(x: NDArray[np.float64], path: str) -> None:
    features = pa.ListArray.from_arrays(np.arange(0, x.size + 1, x.shape[1], dtype=np.int32), x.ravel())
    pq.write_table(pa.table({"id": np.arange(len(x)), "features": features}), path, row_group_size=100_000)


def measure(spark: SparkSession, given: argparse.Namespace, metric: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    y = 10.0 * rng.normal(size=(given.exemplars, given.dimensions))
    around = y[rng.integers(0, len(y), given.points)] if kind == "in clusters" else 0.0
    x = around + (1.0 if kind == "in clusters" else 10.0) * rng.normal(size=(given.points, given.dimensions))
    with tempfile.TemporaryDirectory() as directory:
        write_points(x, f"{directory}/points.parquet")
        write_points(y, f"{directory}/exemplars.parquet")
        with Peaks() as peaks:
            started = time.perf_counter()
            points, exemplars = (spark.read.parquet(f"{directory}/{name}.parquet") for name in ("points", "exemplars"))
            found = assign(points, exemplars, similarity=Similarity(metric=metric))  # type: ignore[arg-type]
            planned = time.perf_counter() - started
            found.write.parquet(f"{directory}/assigned")
            seconds = time.perf_counter() - started
        written = pq.read_table(f"{directory}/assigned").sort_by("id")
    assert len(written) == given.points
    some = rng.choice(given.points, SAMPLE, replace=False)
    s = pairwise(x[some], y, metric)
    assert (written["label"].to_numpy()[some] == s.argmax(axis=1)).all()
    assert (written["similarity"].to_numpy()[some] == s.max(axis=1)).all()
    print(
        f"| {given.points:,} | {given.exemplars:,} × {given.dimensions} | {metric} | {kind} | {planned:.1f} "
        f"| {seconds:.1f} | {peaks.jvm / 2**30:.1f} | {peaks.workers / 2**30:.1f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--exemplars", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--metric", nargs="+", default=["sqeuclidean", "cosine", "manhattan"])
    given = parser.parse_args()
    spark = start_session("local[2]")
    spark.sparkContext.setLogLevel("ERROR")
    print("| points | exemplars | metric | points lie | s to plan | s in all | GiB JVM | GiB Python |")
    print("|---|---|---|---|---|---|---|---|")
    for metric in given.metric:
        for kind in ("in clusters", "anywhere"):
            measure(spark, given, metric, kind)
    spark.stop()


if __name__ == "__main__":
    main()
