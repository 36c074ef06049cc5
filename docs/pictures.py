"""The pictures of README and docs, moving ones too, made from runs on data: python -m docs.pictures [NAME ...]"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from ap_spark import (
    Iteration,
    Quality,
    Similarity,
    Step,
    animate,
    cluster_points,
    preference_range,
    read_points,
    similarities,
)
from ap_spark._spark.session import start_session
from ap_spark.settings import MetricName
from benchmarks.digits import NEIGHBORS, PATH, Outcome, cluster_digits
from benchmarks.workload import clustered_points

mpl.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parent / "images"
IRIS = Path(PATH).parent / "iris.csv"
IRIS_PREFERENCE = -50.0  # that of README's example
DIGITS_PREFERENCE = -25_000.0  # that of `make demo`
DIGITS_A_ROW = 9
METRICS: dict[MetricName, float | None] = {  # and the width of the one that has one
    "sqeuclidean": None,
    "euclidean": None,
    "manhattan": None,
    "cosine": None,
    "correlation": None,
    "gaussian": 20.0,
    "dot": None,
}
MEASURES = "ARI: adjusted Rand index (0: chance).  NMI: normalized mutual information.  Both are 1 for the same groups."


def iris(spark: SparkSession) -> Figure:
    """Draw the clusters of README's example: each flower joined to its exemplar."""
    flowers = pd.read_csv(IRIS)
    result = cluster_points(flowers.drop(columns="species"), preference=IRIS_PREFERENCE)
    rows = result.assignments.set_index("id")
    x, y = flowers["petal_length"].to_numpy(), flowers["petal_width"].to_numpy()
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for label, members in rows.groupby("label"):
        color, exemplar = f"C{label}", int(members["exemplar"].iloc[0])
        for member in members.index:
            axis.plot(x[[member, exemplar]], y[[member, exemplar]], color=color, linewidth=0.4)
        axis.scatter(x[members.index], y[members.index], s=12, color=color)
        said = f"{flowers['species'][exemplar]}, for {len(members)} flowers"
        axis.scatter(x[exemplar], y[exemplar], s=160, marker="*", color=color, edgecolor="black", zorder=3, label=said)
    axis.legend(title="exemplars", fontsize=8, title_fontsize=8)
    axis.set_xlabel("petal length, cm", fontsize=9)
    axis.set_ylabel("petal width, cm", fontsize=9)
    axis.set_title("150 flowers, each joined to its exemplar", fontsize=10)
    return figure


def bound(spark: SparkSession) -> Figure:
    """Draw net similarity and bound over the passes, on clustered points with 50 neighbours each."""
    steps: list[Step] = []

    class Watch:
        def __call__(self, done: Iteration) -> None:
            pass

        def improving(self, step: Step) -> None:
            steps.append(step)

    points = clustered_points(20_000, 16, a_cluster=80, spread=2.0)
    cluster_points(points, similarity=Similarity(neighbors=50), quality=Quality(gap=0.0), callback=Watch())
    passes = [step for step in steps if step.name == "bound"]
    figure, axis = plt.subplots(figsize=(7, 3.2))
    done = [step.done for step in passes]
    bounds = [step.upper_bound for step in passes if step.upper_bound is not None]
    axis.plot(done, bounds, color="C1", label="upper bound: no clustering is better")
    axis.plot(done, [step.netsim for step in passes], color="C0", label="the clustering found")
    last = passes[-1]
    assert last.upper_bound is not None
    axis.set_ylim(last.netsim * 1.0015, last.netsim * 0.985)
    axis.set_xlabel("passes of the bound", fontsize=9)
    axis.set_ylabel("net similarity", fontsize=9)
    gap = 100.0 * (last.upper_bound - last.netsim) / abs(last.netsim)
    axis.set_title(f"20,000 points: within {gap:.2g} % of the best possible", fontsize=10)
    axis.legend(fontsize=8)
    return figure


def digits(spark: SparkSession) -> Figure:
    """Draw the exemplars that `make demo` finds."""
    points = read_points(spark, PATH, feature_columns="0-63")
    result = cluster_points(points, preference=DIGITS_PREFERENCE)
    found = result.exemplars.orderBy("size", ascending=False).toPandas()
    pixels = np.loadtxt(PATH, delimiter=",", skiprows=1)[:, :64].reshape(-1, 8, 8)
    rows = -(-len(found) // DIGITS_A_ROW)
    figure, axes = plt.subplots(rows, DIGITS_A_ROW, figsize=(DIGITS_A_ROW, 1.25 * rows + 0.2), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (_, row) in zip(axes.flat, found.iterrows(), strict=False):
        axis.imshow(pixels[int(row.exemplar)], cmap="gray_r")
        axis.set_title(f"for {int(row['size'])}", fontsize=9, pad=2)
    figure.suptitle(f"The {len(found)} exemplars of {result.summary.n_points:,} handwritten digits", fontsize=10)
    return figure


def neighbors(spark: SparkSession) -> Figure:
    """Draw how the clustering changes with the number of neighbours."""
    found = [cluster_digits(spark, number, preference=DIGITS_PREFERENCE) for number in NEIGHBORS]
    names = [str(number or "all") for number in NEIGHBORS]
    best = found[-1].netsim
    losses = [100 * (one.netsim / best - 1) for one in found]  # both are below 0
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.2))
    for axis, heights, form in ((left, [one.n_clusters for one in found], "{:.0f}"), (middle, losses, "{:.0f} %")):
        axis.bar_label(axis.bar(names, heights, color="tab:blue"), fmt=form.format, fontsize=8)
        axis.margins(y=0.15)
    left.set_title("clusters", fontsize=9)
    middle.set_title("net similarity lost, beside all pairs", fontsize=9)
    right.plot(names, [one.ari for one in found], "o-", label="ARI")
    right.plot(names, [one.nmi for one in found], "s-", label="NMI")
    right.set_ylim(0, 1)
    right.legend(fontsize=8, loc="lower right")
    right.set_title("agreement with the ten digits", fontsize=9)
    figure.supxlabel(f"neighbours a point (preference {DIGITS_PREFERENCE:,.0f})\n{MEASURES}", fontsize=8)
    return figure


def preferences(spark: SparkSession) -> Figure:
    """Draw how the number of clusters follows from the preference."""
    points = read_points(spark, PATH, feature_columns="0-63").persist()
    bounds = preference_range(similarities(points))
    values = -np.geomspace(-bounds.p_min / 4, 100, 9)  # at the bound itself messages oscillate
    figure, axis = plt.subplots(figsize=(7, 3.4))
    for number, style in ((None, "o-"), (50, "s-")):
        clusters = [cluster_digits(spark, number, preference=float(value)).n_clusters for value in values]
        axis.plot(values, clusters, style, label="all pairs" if number is None else f"{number} neighbours")
    axis.set_xscale("symlog", linthresh=100)
    axis.set_yscale("log")
    axis.set_xlim(right=-80)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_xlabel("preference: more willing to be exemplars →", fontsize=9)
    axis.set_ylabel("clusters", fontsize=9)
    axis.legend(fontsize=8)
    return figure


def metrics(spark: SparkSession) -> Figure:
    """Draw how well each metric finds the digits, at the same number of clusters."""
    found = [cluster_digits(spark, 50, metric=name, width=width, clusters=100) for name, width in METRICS.items()]
    figure, axis = plt.subplots(figsize=(8, 3.2))
    place = np.arange(len(METRICS))
    bars: list[tuple[float, str, Callable[[Outcome], float]]] = [
        (-0.2, "ARI", lambda one: one.ari),
        (0.2, "NMI", lambda one: one.nmi),
    ]
    for shift, name, measure in bars:
        drawn = axis.bar(place + shift, [measure(one) for one in found], 0.4, label=name)
        axis.bar_label(drawn, fmt="{:.2f}".format, fontsize=7)
    axis.set_xticks(place, [f"{name}\n{one.n_clusters} clusters" for name, one in zip(METRICS, found, strict=True)])
    axis.tick_params(labelsize=8)
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    axis.set_title("agreement with the ten digits (50 neighbours; 100 clusters asked for)", fontsize=9)
    axis.set_xlabel(MEASURES, fontsize=8)
    return figure


def levels(spark: SparkSession) -> Figure:
    """Draw one data set at three levels: points, the exemplars of a level, and to which each belongs."""
    x = clustered_points(20_000, 2, a_cluster=800, spread=6.0, seed=4)
    found = cluster_points(x, similarity=Similarity(neighbors=30), clusters=25).to_pandas()
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6))
    numbers = np.linspace(0, len(found.summary.levels) - 1, 3).round().astype(int)
    for axis, number in zip(axes, numbers, strict=True):
        level = found.summary.levels[number]
        exemplars = found.assignments[f"level_{number}"].to_numpy()
        last = number == numbers[-1]
        exemplars = found.assignments["exemplar"].to_numpy() if last else exemplars
        heads, place = np.unique(exemplars, return_inverse=True)
        color = np.random.default_rng(1).permutation(len(heads))[place]
        axis.scatter(*x.T, c=color, s=0.5, cmap="turbo", alpha=0.5, rasterized=True)
        axis.scatter(*x[heads].T, s=14 if last else 1, color="black")
        name = "all points to the last exemplars" if last else f"level {number}"
        axis.set_title(f"{name}: {level['n_clusters']:,} clusters", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle("20,000 points, 30 neighbours each, 25 clusters asked for", fontsize=10)
    return figure


def _film(name: str, points: NDArray[np.float64], **options: Any) -> None:
    animate(points, IMAGES / f"{name}.gif", overwrite=True, **options)


def _groups() -> NDArray[np.float64]:
    """Return 320 points in four groups, two of which are near each other."""
    rng = np.random.default_rng(0)
    centers = ((0, 0), (6.5, 1), (3, 6), (9, 7))
    return np.concatenate([rng.normal(center, 1.0, (80, 2)) for center in centers])


def _gaussians() -> NDArray[np.float64]:
    """Return four groups of 1,000 points: two wide ones, two narrow ones."""
    rng = np.random.default_rng(0)
    wide = [rng.normal(center, spread, (1_000, 2)) for center, spread in ((5, 2), (15, 3))]
    narrow = [rng.multivariate_normal(center, np.eye(2), 1_000) for center in ((17, 3), (2, 16))]
    return np.concatenate([*wide, *narrow])


FILMS: dict[str, Callable[[str], None]] = {
    "messages": lambda name: _film(name, _groups(), preference=-200.0),
    "preference": lambda name: _film(name, _groups(), preference=-200.0, what="preference"),
    "damping": lambda name: _film(name, _groups(), preference=-200.0, what="damping"),
    "clusters-of-clusters": lambda name: _film(
        name, _groups(), clusters=4, what="levels", similarity=Similarity(neighbors=8)
    ),
    "gaussians": lambda name: _film(name, _gaussians(), preference=-10_000.0, damping=0.9),
}

PICTURES = {
    "iris": iris,
    "bound": bound,
    "digits": digits,
    "neighbors": neighbors,
    "preferences": preferences,
    "metrics": metrics,
    "levels": levels,
}


def main(names: Sequence[str]) -> None:
    spark = start_session()
    spark.sparkContext.setLogLevel("ERROR")
    IMAGES.mkdir(exist_ok=True)
    for name in names or [*PICTURES, *FILMS]:
        if name in FILMS:
            FILMS[name](name)
            continue
        figure = PICTURES[name](spark)
        figure.tight_layout()
        figure.savefig(IMAGES / f"{name}.png", dpi=110)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
