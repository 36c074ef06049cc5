"""What snapshots cost: python -m benchmarks.snapshots [--points 100000 1000000]

A run on a k-NN graph takes snapshots one after the other; the median counts, the first one, which warms up, does not.
The share of a run's time is that of one snapshot in a default interval. Prints a line of markdown for each graph.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from ap_spark._spark.session import start_session
from ap_spark.checkpoint import Checkpoint
from ap_spark.convergence import Stability
from ap_spark.engines import make_engine
from ap_spark.settings import Settings, Snapshots
from benchmarks.workload import ready_graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--snapshots", type=int, default=4)
    parser.add_argument("--memory", default="8g", help="of the JVM")
    parser.add_argument("--directory", type=Path, default=Path("out/benchmarks"), help="where the graphs are kept")
    given = parser.parse_args()
    spark = start_session("local[*]", [f"spark.driver.memory={given.memory}"])
    print("| edges | s an iteration | s a snapshot | range | bytes an edge | share | s to check and resume |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for n_points in given.points:
        graph = ready_graph(spark, n_points, given.neighbors, given.directory)
        place = Path(tempfile.mkdtemp(dir=given.directory))
        how = Snapshots(checkpoint=str(place))
        checkpoint = Checkpoint(spark, Settings(), how)
        checkpoint.open()
        checkpoint.begin(graph)
        engine = make_engine(graph, Settings())
        trace, seconds = [], []
        for _ in range(given.snapshots):
            trace += list(engine.run(3, Stability((10**9,))))
            started = time.perf_counter()
            assert checkpoint.write(engine, graph, trace)
            seconds.append(time.perf_counter() - started)
        engine.release()
        newest = max(place.iterdir())
        size = sum(file.stat().st_size for file in newest.rglob("*"))
        started = time.perf_counter()
        again = Checkpoint(spark, Settings(), how)
        again.open()
        found = again.begin(graph)
        assert found is not None
        resuming = make_engine(graph, Settings(), found.state)
        resumed = time.perf_counter() - started
        resuming.release()
        median = statistics.median(seconds[1:])
        iteration = statistics.median(done.seconds for done in trace[3:])
        share = median / (how.interval[1] + median)
        print(
            f"| {graph.n_edges:,} | {iteration:.3f} | {median:.1f} | {min(seconds[1:]):.1f} – {max(seconds[1:]):.1f} "
            f"| {size / graph.n_edges:.1f} | {share:.1%} | {resumed:.1f} |",
            flush=True,
        )
        shutil.rmtree(place)
    spark.stop()


if __name__ == "__main__":
    main()
