"""What near neighbours alone cost in quality: the handwritten digits with 10 to 200 neighbours, and with all pairs.

    python -m benchmarks.digits [--preference -25000]

Prints a line of markdown for each number of neighbours, for benchmarks/results.md. Net similarities are comparable,
since the preference is the same; ARI and NMI compare the clusters with the digits that were written.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from ap_spark import Sparsification, affinity_propagation, nearest_neighbors, read_points, similarities
from ap_spark._spark.session import start_session
from ap_spark.settings import MetricName

PATH = str(Path(__file__).parent.parent / "data" / "digits.csv.gz")
NEIGHBORS = (10, 25, 50, 100, 200, None)


@dataclass(frozen=True)
class Outcome:
    """A clustering of the digits, and how well it agrees with what was written."""

    n_edges: int
    n_clusters: int
    netsim: float
    ari: float
    nmi: float
    n_iter: int
    converged: bool
    seconds: float


def cluster_digits(
    spark: SparkSession,
    neighbors: int | None,
    *,
    metric: MetricName = "sqeuclidean",
    width: float | None = None,
    preference: float | None = None,
    clusters: int | None = None,
) -> Outcome:
    """Cluster the digits with so many neighbours, known from both sides, or with all pairs."""
    started = time.perf_counter()
    points = read_points(spark, PATH, feature_columns="0-63").persist()
    if neighbors is None:
        edges = similarities(points, metric=metric, width=width)
    else:
        edges = nearest_neighbors(points, neighbors, metric=metric, width=width).edges
    found = affinity_propagation(
        edges,
        points=points.select("id"),
        preference=preference,
        clusters=clusters,
        sparsification=Sparsification(symmetrize="none" if neighbors is None else "union"),
    )
    label = found.assignments.orderBy("id").select("label").toArrow()["label"].to_numpy()
    seconds = time.perf_counter() - started
    points.unpersist()
    written = np.loadtxt(PATH, delimiter=",", skiprows=1, usecols=64)
    return Outcome(
        n_edges=found.summary.n_edges,
        n_clusters=found.summary.n_clusters,
        netsim=found.summary.netsim,
        ari=float(adjusted_rand_score(written, label)),
        nmi=float(normalized_mutual_info_score(written, label)),
        n_iter=found.n_iter,
        converged=found.converged,
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preference", type=float, default=-25_000.0)
    given = parser.parse_args()
    spark = start_session()
    cluster_digits(spark, 10)  # warm-up
    outcomes = {number: cluster_digits(spark, number, preference=given.preference) for number in NEIGHBORS}
    best = outcomes[None].netsim
    print(f"Preference {given.preference:,.0f}:\n")
    print("| neighbours | similarities | clusters | netsim | of all pairs' | ARI | NMI | iterations | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for number, found in outcomes.items():
        state = "" if found.converged else " (not converged)"
        print(
            f"| {number or 'all'} | {found.n_edges:,} | {found.n_clusters} | {found.netsim:,.0f} "
            f"| {found.netsim / best:.3f} | {found.ari:.3f} | {found.nmi:.3f} | {found.n_iter}{state} "
            f"| {found.seconds:.1f} |"
        )
    spark.stop()


if __name__ == "__main__":
    main()
