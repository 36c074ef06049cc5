"""Few clusters from many points, by levels: seconds and sums of similarities, beside what else there is.

    python -m benchmarks.levels --only kmeans [--points 1000000] [--clusters 500 5000 50000] [--by scikit-learn]
    python -m benchmarks.levels --only fasterpam [--points 10000] [--clusters 10 100 1000]
    python -m benchmarks.levels --only digits

Prints lines of markdown for benchmarks/results.md.

kmeans     pyspark.ml's k-means with the same K, each center moved to its nearest point, and then all points to the
           nearest of these; beside a flat run (levels=1, the median preference) in the same session. Of a million
           points pyspark.ml takes 44 minutes for 5,000 centers and hours for 50,000: by scikit-learn it is minutes.
fasterpam  k-medoids on all pairs (``pip install kmedoids``), one core.
digits     K = 10 of the handwritten digits: by levels from 50 neighbours, on all pairs, and k-means.

Sums are those of the similarities of all points to their representatives: minus squared distances.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.ml.clustering import KMeans
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame
from scipy.spatial.distance import cdist
from sklearn import cluster as scikit_learn
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from ap_spark import Clustering, Similarity, assign, cluster_points
from ap_spark._spark.session import start_session
from ap_spark.similarity.vectors import matrix
from benchmarks.assign import write_points
from benchmarks.quality import ROOT, points_of
from benchmarks.workload import clustered_points

Floats = NDArray[np.float64]
NEAREST = Similarity(neighbors=50)


def timed(run: Callable[..., Any], *given: Any, **options: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run(*given, **options)
    return time.perf_counter() - started, found


def sum_of(x: Floats, exemplars: Floats) -> float:
    """Return the sum of the similarities of points to the nearest of some exemplars, in this process."""
    return sum(-float(cdist(some, exemplars, "sqeuclidean").min(axis=1).sum()) for some in np.array_split(x, 100))


def centers_by_spark(points: DataFrame, clusters: int) -> Floats:
    vectors = points.select(array_to_vector(F.col("features")).alias("vector")).persist()
    model = KMeans(k=clusters, featuresCol="vector", seed=1).fit(vectors)
    vectors.unpersist()
    return np.array(model.clusterCenters())


def centers_by_scikit_learn(points: DataFrame, clusters: int) -> Floats:
    """Return centers after as many rounds as pyspark.ml does, begun at random points and in single precision."""
    x = matrix(points.select("features").toArrow()).astype(np.float32)
    found = scikit_learn.KMeans(clusters, init="random", n_init=1, max_iter=20, random_state=1).fit(x)
    return np.asarray(found.cluster_centers_, np.float64)


KMEANS = {"spark": centers_by_spark, "scikit-learn": centers_by_scikit_learn}


def by_kmeans(points: DataFrame, clusters: int, by: str) -> tuple[float, int]:
    """Cluster by k-means, move each center to its nearest point, give all points to these; return sum and number."""
    centers = KMEANS[by](points, clusters)
    lists = pa.ListArray.from_arrays(np.arange(0, centers.size + 1, centers.shape[1], dtype=np.int32), centers.ravel())
    numbered = points.sparkSession.createDataFrame(pa.table({"id": np.arange(len(centers)), "features": lists}))
    near = assign(points, numbered.withColumn("id", -1 - F.col("id"))).join(points, "id")  # no center is a point
    chosen = near.groupBy("label").agg(F.max_by(F.struct("id", "features"), "similarity").alias("point"))
    medoids = chosen.select("point.*").persist()
    total = assign(points, medoids).agg(F.sum("similarity")).first()
    count = medoids.count()
    medoids.unpersist()
    assert total is not None
    return float(total[0]), count


def report_kmeans(n_points: int, clusters: list[int], by: str) -> None:
    x = clustered_points(n_points, 16, a_cluster=200, spread=2.0)
    with tempfile.TemporaryDirectory() as directory:
        write_points(x, f"{directory}/points.parquet")
        spark = start_session(short=False)
        points = spark.read.parquet(f"{directory}/points.parquet")
        seconds, flat = timed(cluster_points, points, similarity=NEAREST, levels=1)
        print(f"| {n_points:,} | flat: {flat.summary.n_clusters:,} | {seconds:.0f} | | {flat.summary.dpsim:,.0f} | | |")
        for k in clusters:
            ours, found = timed(cluster_points, points, similarity=NEAREST, clusters=k)
            steps = " → ".join(f"{level['n_clusters']:,}" for level in found.summary.levels)
            line = f"| {n_points:,} | {found.summary.n_clusters:,} ({steps}) | {ours:.0f} | {ours / seconds:.2f} "
            print(f"{line}| {found.summary.dpsim:,.0f} | {found.summary.seconds} |", flush=True)
            theirs, (total, count) = timed(by_kmeans, points, k, by)
            print(
                f"| {n_points:,} | k-means of {by}, {count:,} | {theirs:.0f} | {theirs / seconds:.2f} | {total:,.0f} "
                f"| ours is {100.0 * (found.summary.dpsim - total) / abs(total):+.2f} % |",
                flush=True,
            )


def report_fasterpam(n_points: int, clusters: list[int], spreads: list[float]) -> None:
    import kmedoids

    start_session(short=False)
    for spread in spreads:
        x = clustered_points(n_points, 16, a_cluster=50, spread=spread)
        distance = cdist(x, x, "sqeuclidean").astype(np.float32)
        for k in clusters:
            found = [timed(kmedoids.fasterpam, distance, k, random_state=seed, n_cpu=1) for seed in range(3)]
            sums = [sum_of(x, x[medoids.medoids]) for _, medoids in found]
            seconds, ours = timed(cluster_points, x, similarity=NEAREST, clusters=k, levels=levels_of(k))
            steps = " → ".join(f"{level['n_clusters']:,}" for level in ours.summary.levels)
            best, pam = max(sums), found[0][0]
            print(
                f"| {n_points:,}, spread {spread:g} | {ours.summary.n_clusters:,} ({steps}) "
                f"| {ours.summary.dpsim:,.0f} | {seconds:.1f} | {best:,.0f} (worst of 3 {min(sums):,.0f}) | {pam:.1f} "
                f"| {100.0 * (ours.summary.dpsim - best) / abs(best):+.2f} % |",
                flush=True,
            )


def levels_of(clusters: int) -> Any:
    """Return the levels to ask for: two at least where auto would take one."""
    return 2 if clusters >= 500 else "auto"


def report_digits() -> None:
    x = points_of("digits")
    truth = np.loadtxt(ROOT / "data" / "digits.csv.gz", delimiter=",", skiprows=1, usecols=64, dtype=int)
    for name, run in {
        "levels from 50 neighbours": lambda: cluster_points(x, similarity=NEAREST, clusters=10),
        "all pairs": lambda: cluster_points(x, clusters=10),
        "k-means": lambda: scikit_learn.KMeans(10, n_init=10, random_state=0).fit(x),
    }.items():
        seconds, found = timed(run)
        ours = isinstance(found, Clustering)
        labels = found.assignments["label"].to_numpy() if ours else found.labels_
        total = found.summary.dpsim if ours else sum_of(x, nearest_points(x, found.cluster_centers_))
        ari, nmi = adjusted_rand_score(truth, labels), normalized_mutual_info_score(truth, labels)
        print(f"| {name} | {total:,.0f} | {ari:.3f} | {nmi:.3f} | {seconds:.1f} |", flush=True)


def nearest_points(x: Floats, centers: Floats) -> Floats:
    return np.asarray(x[cdist(centers, x, "sqeuclidean").argmin(axis=1)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("kmeans", "fasterpam", "digits"), required=True)
    parser.add_argument("--points", type=int)
    parser.add_argument("--clusters", type=int, nargs="+")
    parser.add_argument("--by", choices=tuple(KMEANS), default="spark")
    parser.add_argument("--spreads", type=float, nargs="+", default=[1.0, 2.0])
    given = parser.parse_args()
    if given.only == "kmeans":
        report_kmeans(given.points or 1_000_000, given.clusters or [500, 5_000, 50_000], given.by)
    elif given.only == "fasterpam":
        report_fasterpam(given.points or 10_000, given.clusters or [10, 100, 1_000], given.spreads)
    else:
        report_digits()


if __name__ == "__main__":
    main()
