"""The price of exact sums of two words: iterations with one and with two, in turn.

    python -m benchmarks.words [--points 100000 1000000] [--kernels numpy numba] [--far 1e18]

Both engines iterate on the same k-NN graph, which one word is enough for; one is made to use two: those of a graph with
a similarity that is --far times the median ("too far", as some tables have it), or else words that nearly every column
has both of, as where the smallest similarity is tiny. Prints the median seconds of each and of the ratios of pairs, as
lines of markdown for benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from ap_spark._spark.session import start_session
from ap_spark.engines.resident import ResidentEngine
from ap_spark.exact_sum import units_of
from benchmarks.run import DAMPING, engine_seconds
from benchmarks.workload import ready_graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--kernels", nargs="+", default=["numpy", "numba"])
    parser.add_argument("--far", type=float, help="times the median similarity")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--at-once", type=int, default=5, help="iterations of an engine before it is the other's turn")
    parser.add_argument("--directory", type=Path, default=Path("out/benchmarks"), help="where the graphs are kept")
    given = parser.parse_args()
    java = "spark.driver.extraJavaOptions=-XX:+UseParallelGC"  # the full compiler, as in benchmarks.run
    spark = start_session("local[*]", ["spark.driver.memory=8g", java])
    spark.sparkContext.setLogLevel("ERROR")
    print(
        "| edges | blocks | kernel | one word, s | two words, s | two to one, median (range) |\n"
        "|---|---|---|---|---|---|"
    )
    for n_points in given.points:
        graph = ready_graph(spark, n_points, given.neighbors, given.directory)
        assert graph.units.words == 1
        two = units_of(graph.units.coarse * 2.0**60 / n_points, n_points)
        if given.far:
            median = abs(graph.quantiles(0.5)[0])
            two = units_of(given.far * median, int(graph.in_degree.max()), graph.smallest)
        assert two.words == 2
        blocks = graph.blocks.layout.blocks
        for kernel in given.kernels:
            # Each on blocks of its own: two engines on one graph would begin anew at every turn.
            graphs = [ready_graph(spark, n_points, given.neighbors, given.directory) for _ in range(2)]
            engines = [ResidentEngine(own, DAMPING, kernel) for own in graphs]
            engines[1].plan = replace(engines[1].plan, units=two)
            seconds: list[list[float]] = [[], []]
            for pair in range(given.pairs + 2):
                for words in (0, 1) if pair % 2 else (1, 0):  # who comes first takes turns
                    seconds[words].append(statistics.median(engine_seconds(engines[words], given.at_once)))
            first, second = (own[2:] for own in seconds)  # without the warm-up
            ratios = [b / a for a, b in zip(first, second, strict=True)]
            print(
                f"| {graph.n_edges:,} | {blocks} | {kernel} | {statistics.median(first):.4f} "
                f"| {statistics.median(second):.4f} "
                f"| {statistics.median(ratios):.3f} ({min(ratios):.2f} – {max(ratios):.2f}) |",
                flush=True,
            )
            for engine in engines:
                engine.release()
                engine.graph.release()
        graph.release()
    spark.stop()


if __name__ == "__main__":
    main()
