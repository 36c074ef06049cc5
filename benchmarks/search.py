"""Libraries for approximate neighbours beside each other, in one process: recall, seconds, memory.

    python -m benchmarks.search [--points 1000000] [--dimensions 16] [--neighbors 50] [--spread 10]

Each library runs in a process of its own, on all cores, on the same clustered points. Prints a line of markdown for
each, for docs/decisions/0004-neighbours.md. Needs faiss-cpu and usearch.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.workload import clustered_points

SAMPLE = 1000  # rows whose neighbours are compared with the exact ones

Build = Callable[[Any], Any]  # from points to an index of them


def faiss_ivf(cells: int, probes: int) -> Build:
    def build(x: Any) -> Any:
        import faiss

        index: Any = faiss.index_factory(x.shape[1], f"IVF{cells},Flat")
        index.train(x[: 64 * cells])
        index.add(x)
        index.nprobe = probes
        return index

    return build


def faiss_hnsw(links: int, breadth: int) -> Build:
    def build(x: Any) -> Any:
        import faiss

        index = faiss.IndexHNSWFlat(x.shape[1], links)
        index.hnsw.efConstruction = index.hnsw.efSearch = breadth
        index.add(x)
        return index

    return build


def usearch_hnsw(links: int, breadth: int) -> Build:
    def build(x: Any) -> Any:
        from usearch.index import Index

        about = {"connectivity": links, "expansion_add": breadth, "expansion_search": breadth}
        index = Index(ndim=x.shape[1], metric="l2sq", dtype="f32", **about)
        index.add(np.arange(len(x)), x)
        return index

    return build


METHODS = {
    "faiss IVF, 1,000 cells, 8 probed": faiss_ivf(1000, 8),
    "faiss IVF, 1,000 cells, 32 probed": faiss_ivf(1000, 32),
    "faiss HNSW, 32 links, breadth 80": faiss_hnsw(32, 80),
    "usearch HNSW, 32 links, breadth 80": usearch_hnsw(32, 80),
}


def measure(name: str, given: argparse.Namespace, results: Any) -> None:
    """One library, in a process of its own."""
    x = clustered_points(given.points, given.dimensions, a_cluster=given.a_cluster, spread=given.spread)
    sample = np.random.default_rng(1).choice(len(x), SAMPLE, replace=False)
    exact = cKDTree(x).query(x[sample], given.neighbors + 1, workers=-1)[1]
    x32 = x.astype(np.float32)
    del x
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    index = METHODS[name](x32)
    built = time.perf_counter() - started
    answer = index.search(x32, given.neighbors + 1)
    seconds = time.perf_counter() - started
    found = answer.keys.astype(np.int64) if name.startswith("usearch") else answer[1]
    recall = np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(exact, found[sample], strict=True)])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    results.put((recall, built, seconds - built, grown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=16)
    parser.add_argument("--neighbors", type=int, default=50)
    parser.add_argument("--a-cluster", type=int, default=1000)
    parser.add_argument("--spread", type=float, default=10.0)
    given = parser.parse_args()
    print(f"| library | recall@{given.neighbors} | build s | search s | GB beyond the points |\n|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for name in METHODS:
        results = context.Queue()
        process = context.Process(target=measure, args=(name, given, results))
        process.start()
        recall, built, searched, grown = results.get()
        process.join()
        print(f"| {name} | {recall:.3f} | {built:.0f} | {searched:.0f} | {grown:.1f} |", flush=True)


if __name__ == "__main__":
    main()
