"""The pictures of README and docs, made from runs on the digits: python -m docs.pictures [NAME ...]"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from pyspark.sql import SparkSession

from ap_spark import affinity_propagation, preference_range, read_points, similarities
from ap_spark._spark.session import start_session
from ap_spark.settings import MetricName
from benchmarks.digits import NEIGHBORS, PATH, cluster_digits

mpl.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parent / "images"
PREFERENCE = -25_000.0
COLUMNS = 10
METRICS: dict[MetricName, float | None] = {
    "sqeuclidean": None,
    "euclidean": None,
    "manhattan": None,
    "cosine": None,
    "correlation": None,
    "gaussian": 20.0,
    "dot": None,
}


def exemplars(spark: SparkSession) -> Figure:
    """The exemplars themselves."""
    points = read_points(spark, PATH, feature_columns="0-63")
    clustering = affinity_propagation(similarities(points), points=points.select("id"), preference=PREFERENCE)
    found = clustering.exemplars.orderBy("size", ascending=False).toPandas()
    pixels = np.loadtxt(PATH, delimiter=",", skiprows=1)[:, :64].reshape(-1, 8, 8)
    rows = -(-len(found) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(COLUMNS, 1.25 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (_, row) in zip(axes.flat, found.iterrows(), strict=False):
        axis.imshow(pixels[int(row.exemplar)], cmap="gray_r")
        axis.set_title(f"{int(row['size'])}", fontsize=9, pad=2)
    summary = clustering.summary
    figure.suptitle(
        f"{summary.n_points:,} handwritten digits, {summary.n_clusters} exemplars and the sizes of their clusters "
        f"({summary.n_iter} iterations, preference {PREFERENCE:,.0f})",
        fontsize=9,
    )
    return figure


def neighbors(spark: SparkSession) -> Figure:
    """How the clustering changes with the number of neighbours."""
    found = [cluster_digits(spark, number, preference=PREFERENCE) for number in NEIGHBORS]
    names = [str(number or "all") for number in NEIGHBORS]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.8))
    left.bar(names, [one.n_clusters for one in found], color="tab:blue")
    left.set_title("clusters", fontsize=9)
    middle.bar(names, [one.netsim / found[-1].netsim for one in found], color="tab:orange")
    middle.axhline(1.0, color="black", linewidth=0.5)
    middle.set_title("net similarity, of all pairs' (1 is best)", fontsize=9)
    right.plot(names, [one.ari for one in found], "o-", label="ARI")
    right.plot(names, [one.nmi for one in found], "s-", label="NMI")
    right.set_ylim(0, 1)
    right.legend(fontsize=8)
    right.set_title("agreement with the digits written", fontsize=9)
    figure.supxlabel(f"neighbours a point (preference {PREFERENCE:,.0f})", fontsize=9)
    return figure


def preferences(spark: SparkSession) -> Figure:
    """How the number of clusters follows from the preference."""
    points = read_points(spark, PATH, feature_columns="0-63").persist()
    bounds = preference_range(similarities(points))
    values = -np.geomspace(100, -bounds.p_min / 4, 9)  # at the bound itself messages oscillate
    figure, axis = plt.subplots(figsize=(6, 3))
    for number, style in ((None, "o-"), (50, "s-")):
        clusters = [cluster_digits(spark, number, preference=float(value)).n_clusters for value in values]
        axis.plot(-values, clusters, style, label=f"{number or 'all'} neighbours")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.invert_xaxis()
    axis.set_xlabel(f"−preference (range: {bounds.p_min:,.0f} to {bounds.p_max:,.0f})", fontsize=9)
    axis.set_ylabel("clusters", fontsize=9)
    axis.legend(fontsize=8)
    return figure


def metrics(spark: SparkSession) -> Figure:
    """How well each metric finds the digits, at the same number of clusters."""
    found = [cluster_digits(spark, 50, metric=name, width=width, clusters=100) for name, width in METRICS.items()]
    figure, axis = plt.subplots(figsize=(7, 2.8))
    place = np.arange(len(METRICS))
    axis.bar(place - 0.2, [one.ari for one in found], 0.4, label="ARI")
    axis.bar(place + 0.2, [one.nmi for one in found], 0.4, label="NMI")
    axis.set_xticks(place, [f"{name}\n{one.n_clusters}" for name, one in zip(METRICS, found, strict=True)], fontsize=8)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    axis.set_title(
        "agreement with the digits written, 50 neighbours; below: clusters, where 100 were asked for", fontsize=9
    )
    return figure


PICTURES = {"digits": exemplars, "neighbors": neighbors, "preferences": preferences, "metrics": metrics}


def main(names: Sequence[str]) -> None:
    spark = start_session()
    spark.sparkContext.setLogLevel("ERROR")
    IMAGES.mkdir(exist_ok=True)
    for name in names or PICTURES:
        figure = PICTURES[name](spark)
        figure.tight_layout()
        figure.savefig(IMAGES / f"{name}.png", dpi=110)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
