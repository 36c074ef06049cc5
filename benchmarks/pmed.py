"""The p-median problems of the OR-Library: what `clusters` finds beside the smallest sums known.

    python -m benchmarks.pmed DIRECTORY [--only pmed1 pmed3]

DIRECTORY holds files pmed*.txt (Beasley: "n edges p", then an undirected edge "i j length" a line), and a README.md
with a table of the smallest sums known. Similarities are minus the shortest paths between all pairs. Prints a line of
markdown for each file, for benchmarks/results.md, then the worst and the mean distance.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse.csgraph import csgraph_from_dense, shortest_path

from ap_spark import affinity_propagation
from ap_spark._spark.session import start_session


class PMedian(NamedTuple):
    """Choose ``p`` points so that the distances of all to the nearest one have the smallest sum."""

    distance: NDArray[np.float64]
    p: int

    @property
    def n_points(self) -> int:
        return len(self.distance)

    @property
    def similarities(self) -> pd.DataFrame:
        i, k = np.nonzero(~np.eye(self.n_points, dtype=bool))
        return pd.DataFrame({"i": i, "k": k, "s": -self.distance[i, k]})


def read_problem(path: Path) -> PMedian:
    """Read a file; where an edge is repeated the last line counts."""
    numbers = np.array(path.read_text().split(), dtype=np.int64)
    n_points, n_edges, p = map(int, numbers[:3])
    length = np.full((n_points, n_points), np.inf)
    for i, k, cost in numbers[3 : 3 + 3 * n_edges].reshape(-1, 3):
        length[i - 1, k - 1] = length[k - 1, i - 1] = cost
    return PMedian(np.asarray(shortest_path(csgraph_from_dense(length, null_value=np.inf), directed=False)), p)


def known_sums(directory: Path) -> dict[str, int]:
    """Read the smallest sums known, by file, from the table in README.md."""
    rows = re.findall(r"^\| (pmed\d+) \| (\d+) \|$", (directory / "README.md").read_text(), re.MULTILINE)
    return {name: int(smallest) for name, smallest in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", nargs="+", help="names of files, without .txt")
    given = parser.parse_args()
    known = {name: sum for name, sum in known_sums(given.directory).items() if not given.only or name in given.only}
    problems = {name: read_problem(given.directory / f"{name}.txt") for name in known}
    spark = start_session()
    spark.sparkContext.setLogLevel("ERROR")
    print("| file | n | p | K | sum found | smallest known | above it, % | bound | gap, % | trials | s |")
    print("|" + "---|" * 11)
    above = []
    for name in sorted(known, key=lambda name: (problems[name].n_points, problems[name].p)):
        problem = problems[name]
        similarities = problem.similarities
        started = time.perf_counter()
        found = affinity_propagation(similarities, clusters=problem.p)
        exemplars = found.to_pandas().exemplars["exemplar"].to_numpy()
        seconds = time.perf_counter() - started
        total = float(problem.distance[:, exemplars].min(axis=1).sum())
        summary = found.summary
        # The bound is of the net similarity, in which each exemplar counts the preference.
        bound, gap = "", ""
        if summary.upper_bound is not None:
            least = total - (summary.upper_bound - summary.netsim)
            bound, gap = f"{least:,.2f}", f"{100.0 * (total - least) / total:.3f}"
        above.append(100.0 * (total / known[name] - 1.0))
        print(
            f"| {name} | {problem.n_points} | {problem.p} | {summary.n_clusters} | {total:,.0f} | {known[name]:,} "
            f"| {above[-1]:.3f} | {bound} | {gap} | {len(summary.tried)} | {seconds:.1f} |",
            flush=True,
        )
    print(f"\nAbove the smallest known: at worst {max(above):.3f} %, on average {np.mean(above):.3f} %.")
    spark.stop()


if __name__ == "__main__":
    main()
