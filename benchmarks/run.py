"""Edges per second of an iteration: the bare kernel in plain processes and the engines, beside each other.

    python -m benchmarks.run [--points 20000 100000] [--only "a block a core" "one block" kernel dataframe]

All iterate on the same k-NN graph with damping 0.9; the median of the iterations after the warm-up counts. The bare
kernel runs in one plain process for each block of the resident engine, on its arrays, and waits for nothing but the
others. Prints a line of markdown for each, for benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from dataclasses import fields, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import start_session
from ap_spark.blocks.files import BlockFile, Shape
from ap_spark.blocks.kernel import Block, Floats
from ap_spark.blocks.store import shape_of_handle
from ap_spark.convergence import Stability
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.engines.tasks import Plan
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.settings import Settings
from benchmarks.workload import ready_edges, ready_graph

DAMPING = 0.9
NEVER = Stability((10**9,))


def bare_kernel(plan: Plan, shape: Shape, path: str, totals: Floats, iterations: int, together: Barrier) -> None:
    """A plain process: a copy of one block in memory, iterated."""
    block = BlockFile(Path(path), shape).block
    block = Block(**{field.name: getattr(block, field.name).copy() for field in fields(Block)})
    for _ in range(iterations):
        together.wait()
        plan.iterate(block, totals, DAMPING, plan.units, np.zeros((plan.units.words, plan.n_points), np.int64), None)
        together.wait()


def bare_seconds(engine: ResidentEngine, iterations: int) -> list[float]:
    """The kernel alone on the engine's blocks, from where it has got to."""
    context = multiprocessing.get_context("spawn")
    bare = replace(engine.plan, beginning=None)  # type: ignore[arg-type]  # broadcasts stay with Spark
    together = context.Barrier(engine.blocks.layout.blocks + 1)
    processes = [
        context.Process(
            target=bare_kernel,
            args=(bare, shape_of_handle(row, engine.plan.layout), row.path, engine.totals, iterations, together),
        )
        for row in engine.blocks.located.collect()
    ]
    seconds = []
    for process in processes:
        process.start()
    for _ in range(iterations):
        together.wait()
        started = time.perf_counter()
        together.wait()
        seconds.append(time.perf_counter() - started)
    for process in processes:
        process.join()
    return seconds


def engine_seconds(engine: ResidentEngine | DataFrameEngine, iterations: int) -> list[float]:
    return [done.seconds for done in engine.run(iterations, NEVER)]


def measure(spark: SparkSession, n_points: int, given: argparse.Namespace) -> None:
    every = given.warmup + given.iterations
    cores = classic.cores(spark)
    workload = spark, n_points, given.neighbors, given.directory

    def report(name: str, n_edges: int, seconds: list[float]) -> None:
        counted = seconds[given.warmup :]
        median = statistics.median(counted)
        rate = n_edges / median / 1e6
        print(
            f"| {n_edges:,} | {name} | {median:.3f} | {min(counted):.3f} – {max(counted):.3f} | {rate:.1f} M |",
            flush=True,
        )

    for where in ("a block a core", "one block"):
        if where not in given.only:
            continue
        graph = ready_graph(*workload, blocks=1 if where == "one block" else cores)
        for kernel in given.kernels:
            engine = ResidentEngine(graph, DAMPING, kernel)
            report(f"resident, {where}, {kernel}", graph.n_edges, engine_seconds(engine, every))
            if "kernel" in given.only:
                name = f"bare kernel, processes: {graph.blocks.layout.blocks}, {kernel}"
                report(name, graph.n_edges, bare_seconds(engine, every))
            engine.release()
        graph.release()
    if "dataframe" in given.only:
        plain = build_edge_graph(ready_edges(*workload), Settings(jitter=False))
        joins = DataFrameEngine(plain, DAMPING)
        report("dataframe", plain.n_edges, engine_seconds(joins, every))
        joins.release()
        plain.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--only", nargs="+", default=["a block a core", "one block", "kernel", "dataframe"])
    parser.add_argument("--kernels", nargs="+", default=["numpy", "numba"])
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=6)
    parser.add_argument("--memory", default="8g", help="of the JVM")
    parser.add_argument("--directory", type=Path, default=Path("out/benchmarks"), help="where the graphs are kept")
    given = parser.parse_args()
    # The full compiler, unlike in conf/local.properties: a long run is what is measured.
    java = "spark.driver.extraJavaOptions=-XX:+UseParallelGC"
    spark = start_session("local[*]", [f"spark.driver.memory={given.memory}", java])
    spark.sparkContext.setLogLevel("ERROR")
    print("| edges | what | s an iteration | range | edges/s |\n|---|---|---|---|---|", flush=True)
    for n_points in given.points:
        measure(spark, n_points, given)
    spark.stop()


if __name__ == "__main__":
    main()
