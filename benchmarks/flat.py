"""300 iterations of the dataframe engine on a graph that does not converge: do time and memory stay flat?

    python -m benchmarks.flat [--iterations 300] [--edges 200000]

Prints, at iterations 30 and every 30 after it, the median seconds of the last 20 iterations, the heap in use after a
collection, the storage that Spark's status shows, and the size of the optimised plan.
"""

from __future__ import annotations

import argparse
import statistics
import time

from ap_spark._spark.session import start_session
from ap_spark.convergence import Stability
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.settings import Settings
from benchmarks.workload import knn_graph

NEVER = 10**9

# Spark's UI keeps the last 1,000 jobs and stages in the driver; with few of them kept, what is left is ours.
FORGET = [
    "spark.ui.retainedJobs=10",
    "spark.ui.retainedStages=10",
    "spark.ui.retainedTasks=100",
    "spark.sql.ui.retainedExecutions=10",
    "spark.ui.dagGraph.retainedRootRDDs=10",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--edges", type=int, default=200_000)
    given = parser.parse_args()
    spark = start_session("local[*]", ["spark.driver.extraJavaOptions=-XX:+UseParallelGC", *FORGET])
    spark.sparkContext.setLogLevel("ERROR")
    graph = build_edge_graph(spark.createDataFrame(knn_graph(given.edges // 50, 50)), Settings())
    engine = DataFrameEngine(graph, 0.5)
    seconds: list[float] = []
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    print("| iteration | s (median of 20) | heap used, MB | storage, MB | tables | plan, characters |")
    print("|---|---|---|---|---|---|")
    for done in engine.run(given.iterations, Stability((NEVER,))):
        seconds.append(done.seconds)
        if done.iteration % 30 == 0:
            for _ in range(3):  # the cleaner frees what a collection finds, and the next one frees that
                jvm.System.gc()
                time.sleep(1)
            runtime = jvm.Runtime.getRuntime()
            heap = (runtime.totalMemory() - runtime.freeMemory()) / 2**20
            held = list(spark.sparkContext._jsc.sc().getRDDStorageInfo())
            storage = sum(info.memSize() + info.diskSize() for info in held) / 2**20
            plan = len(engine.updated_edges()._jdf.queryExecution().optimizedPlan().toString())
            median = statistics.median(seconds[-20:])
            print(
                f"| {done.iteration} | {median:.3f} | {heap:.0f} | {storage:.1f} | {len(held)} | {plan} |", flush=True
            )
    engine.release()
    graph.release()
    spark.stop()


if __name__ == "__main__":
    main()
