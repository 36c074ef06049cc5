"""Edges per second of an iteration: the bare kernel and the engines, beside each other.

    python -m benchmarks.run [--edges 1000000 5000000] [--iterations 5] [--warmup 3]

Each engine iterates on the same k-NN graph (50 neighbours), with damping and default jitter; the median of the
iterations after the warm-up counts. Prints a line of markdown for each, for benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from pyspark.sql import SparkSession

from ap_spark import kernel
from ap_spark.convergence import Stability
from ap_spark.engines import make_engine
from ap_spark.graph import Graph, build_graph
from ap_spark.session import start_session
from ap_spark.settings import Settings
from benchmarks.workload import knn_graph

NEIGHBORS = 50
DAMPING = 0.9
NEVER = 10**9


def kernel_seconds(graph: Graph, iterations: int) -> list[float]:
    """The kernel alone, in this process, on one core."""
    table = graph.edges.select("i", "k", "s").toArrow()
    i, k = (table[name].to_numpy().astype(np.int32) for name in "ik")
    block = kernel.make_block(i, k, table["s"].to_numpy())
    seconds = []
    for _ in range(iterations):
        started = time.perf_counter()
        totals = kernel.responsibilities(block, DAMPING, graph.unit, graph.n_points) * graph.unit
        kernel.availabilities(block, np.asarray(totals), DAMPING)
        seconds.append(time.perf_counter() - started)
    return seconds


def engine_seconds(name: str, graph: Graph, iterations: int) -> list[float]:
    """An engine's iterations, as its trace tells them."""
    engine = make_engine(graph, Settings(engine=name, damping=DAMPING))
    try:
        return [done.seconds for done in engine.run(iterations, Stability(NEVER))]
    finally:
        engine.release()


def measure(spark: SparkSession, n_edges: int, iterations: int, warmup: int) -> None:
    similarities = spark.createDataFrame(knn_graph(n_edges // NEIGHBORS, NEIGHBORS))
    graph = build_graph(similarities, Settings())
    every = warmup + iterations
    runs = {
        "kernel, one core": kernel_seconds(graph, every),
        "block": engine_seconds("block", graph, every),
        "dataframe": engine_seconds("dataframe", graph, every),
    }
    for name, seconds in runs.items():
        counted = seconds[warmup:]
        median = statistics.median(counted)
        rate = graph.n_edges / median / 1e6
        print(
            f"| {graph.n_edges:,} | {name} | {median:.3f} | {min(counted):.3f} – {max(counted):.3f} | {rate:.1f} M |",
            flush=True,
        )
    graph.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, nargs="+", default=[1_000_000, 5_000_000])
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=3)
    given = parser.parse_args()
    # The full compiler, unlike in conf/local.properties: a long run is what is measured.
    java = "spark.driver.extraJavaOptions=-XX:+UseParallelGC"
    spark = start_session("local[*]", ["spark.driver.memory=8g", java])
    spark.sparkContext.setLogLevel("ERROR")
    print("| edges | engine | s an iteration | range | edges/s |\n|---|---|---|---|---|", flush=True)
    for n_edges in given.edges:
        measure(spark, n_edges, given.iterations, given.warmup)
    spark.stop()


if __name__ == "__main__":
    main()
