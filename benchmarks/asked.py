"""Numbers of clusters asked for on one level: trials, seconds and sums, beside a run with the median preference.

    python -m benchmarks.asked [--data structureless digits neighbors]

structureless  1,797 points of one normal distribution in four dimensions, all pairs; beside 20 runs of FasterPAM
digits         all pairs; beside 20 runs of FasterPAM (``pip install kmedoids``)
neighbors      20,000 points, 50 neighbours

Prints lines of markdown for benchmarks/results.md. Seconds of trials are those in all, the graph included.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ap_spark import Similarity, cluster_points
from benchmarks.quality import percent, points_of
from benchmarks.workload import clustered_points

Floats = NDArray[np.float64]
STARTS = 20  # of FasterPAM


def data_of(name: str) -> tuple[Floats, int | None, tuple[int, ...]]:
    """Return points, neighbours to store, and the numbers of clusters to ask for."""
    if name == "digits":
        return points_of(name), None, (5, 10, 30, 100, 600)
    if name == "structureless":
        return np.random.default_rng(0).normal(size=(1797, 4)), None, (5, 10, 30, 100, 600)
    return clustered_points(20_000, 16, a_cluster=200, spread=1.5), 50, (600, 1_000, 3_000, 8_000)


def by_fasterpam(distance: Floats, clusters: int) -> str:
    import kmedoids

    started = time.perf_counter()
    sums = sorted(-kmedoids.fasterpam(distance, clusters, random_state=seed).loss for seed in range(STARTS))
    seconds = (time.perf_counter() - started) / STARTS
    return f"{sums[-1]:,.2f} | {sums[len(sums) // 2]:,.2f} | {seconds:.1f}"


def report(name: str) -> None:
    x, neighbors, numbers = data_of(name)
    distance = cdist(x, x, "sqeuclidean") if neighbors is None else None
    alone = 0.0
    for clusters in (None, *numbers):
        asked: dict[str, Any] = {} if clusters is None else {"clusters": clusters}
        iterations = 0

        def count(done: object) -> None:
            nonlocal iterations
            iterations += 1

        started = time.perf_counter()
        nearest = Similarity(neighbors=neighbors)
        about = cluster_points(x, similarity=nearest, levels=1, callback=count, **asked).summary
        seconds = time.perf_counter() - started
        alone = alone or seconds
        tried = ", ".join(f"{trial['clusters']:,}" for trial in about.tried)
        theirs = by_fasterpam(distance, clusters) if distance is not None and clusters else " | |"
        print(
            f"| {name} | {'median' if clusters is None else f'{clusters:,}'} | {about.n_clusters:,} | {tried} "
            f"| {iterations} | {seconds:.1f} | {seconds / alone:.2f} | {about.dpsim:,.2f} | {percent(about.gap)} "
            f"| {theirs} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("structureless", "digits", "neighbors")
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    given = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(700, 2))
    cluster_points(x)  # loads what is compiled
    for name in given.data:
        report(name)


if __name__ == "__main__":
    main()
