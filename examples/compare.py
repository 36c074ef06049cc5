"""Affinity propagation beside other algorithms of clustering, on five sets of points.

    python -m examples.compare

Writes the pictures ``docs/images/compare-*.png`` and the tables of ``docs/compare.md``, each between two marks. Takes
some 20 minutes on 2 cores, most of them for searches of a number of clusters and for mean shift in 64 dimensions. Needs
matplotlib. Up to 3,000 points are clustered in this process; for the 4,000 a local Spark session is started.
"""

from __future__ import annotations

import os
import platform
import re
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import shortest_path
from sklearn.cluster import DBSCAN, HDBSCAN, AgglomerativeClustering, KMeans, MeanShift, estimate_bandwidth
from sklearn.datasets import make_blobs, make_circles
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from ap_spark import Clustering, Quality, affinity_propagation, cluster_points
from ap_spark._spark.session import start_session

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compare.md"
IMAGES = ROOT / "docs" / "images"

NOISE = -1  # the label of points that belong to no cluster, in the truth and in what is found
STARTS = 5  # of k-means and of Gaussian mixtures
NEIGHBORS = 10  # of the graph for hierarchical clustering and for path lengths
# Of the values that the page names, those that do best on average over these sets, or within an ARI of 0.01.
BANDWIDTH_QUANTILE = 0.1
MIN_SAMPLES, DISTANCE_QUANTILE = 20, 0.8
SMALLEST_CLUSTER = 0.01  # of all points
POLISHED = Quality(gap=None)  # no other algorithm bounds how good its answer could be, so we don't either

RUNS = 3  # after one to warm up
LONG_RUN_S = 30.0  # such a run is not repeated

BLACK = "#000000"
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", BLACK)  # Okabe & Ito
MARKERS = ("o", "^", "s")
GREY = "#999999"
COLUMNS = 4


class Set(NamedTuple):
    """Points and the clusters they were made of; a point of the background has none."""

    name: str
    x: Floats
    truth: Integers

    @property
    def clusters(self) -> int:
        return len(np.unique(self.truth[self.truth != NOISE]))


class Found(NamedTuple):
    """The label of each point, and the exemplars where there are any."""

    labels: Integers
    exemplars: Integers | None = None


class Algorithm(NamedTuple):
    """A name, the parameters in words, and how it is run."""

    name: str
    parameters: str
    run: Callable[[Set], Found]


class Outcome(NamedTuple):
    """What an algorithm found, how well it agrees with the truth, and how long it took."""

    algorithm: Algorithm
    found: Found
    clusters: int
    ari: float
    nmi: float
    seconds: float
    runs: int


def gaussians() -> Set:
    """Make four Gaussians of 1,000 points each, three of them near each other."""
    rng = np.random.default_rng(0)
    parts = [
        rng.normal(5, 2, (1000, 2)),
        rng.normal(15, 3, (1000, 2)),
        rng.multivariate_normal([17, 3], np.eye(2), 1000),
        rng.multivariate_normal([2, 16], np.eye(2), 1000),
    ]
    return Set("gaussians", np.concatenate(parts), np.repeat(range(4), 1000))


def circles(n: int = 1000, noise: float = 0.05) -> Set:
    """Make two circles, one in the other."""
    return Set("circles", *make_circles(n, factor=0.5, noise=noise, random_state=0))


def digits() -> Set:
    """Read the 1,797 handwritten digits of 8 × 8 pixels."""
    table = np.loadtxt(ROOT / "data" / "digits.csv.gz", delimiter=",", skiprows=1)
    return Set("digits", table[:, :64], table[:, 64].astype(int))


def stretched() -> Set:
    """Make three Gaussians that are long and thin."""
    x, truth = make_blobs(900, random_state=170)
    return Set("stretched", x @ np.array([[0.6, -0.6], [-0.4, 0.8]]), truth)


def densities() -> Set:
    """Make a wide sparse cluster, two small dense ones near each other, and a uniform background."""
    rng = np.random.default_rng(0)
    parts = [
        rng.normal((0, 0), 2.0, (1000, 2)),
        rng.normal((6, -1), 0.25, (300, 2)),
        rng.normal((6, 1), 0.25, (300, 2)),
        rng.uniform((-8, -8), (10, 8), (100, 2)),
    ]
    return Set("densities", np.concatenate(parts), np.repeat([0, 1, 2, NOISE], [len(part) for part in parts]))


Make = Callable[[], Set]

SETS: tuple[Make, ...] = (gaussians, circles, digits, stretched, densities)


def path_similarities(x: Floats) -> pd.DataFrame:
    """Return minus the lengths of the shortest paths from neighbour to neighbour; pairs without a path are left out."""
    near = kneighbors_graph(x, NEIGHBORS, mode="distance")
    lengths = shortest_path(near, directed=False)
    np.fill_diagonal(lengths, np.inf)
    i, k = np.nonzero(np.isfinite(lengths))
    return pd.DataFrame({"i": i, "k": k, "s": -lengths[i, k]})


def found_by(clustering: Clustering) -> Found:
    """Return the labels of points numbered from 0 on, and the exemplars."""
    rows = clustering.assignments.sort_values("id")
    return Found(rows["label"].to_numpy(), clustering.exemplars["exemplar"].to_numpy())


def by_distances(data: Set, **options: Any) -> Found:
    """Cluster by affinity propagation on minus the squared distances."""
    return found_by(cluster_points(data.x, quality=POLISHED, **options))


def by_paths(data: Set, **options: Any) -> Found:
    """Cluster by affinity propagation on minus the lengths of paths."""
    return found_by(affinity_propagation(path_similarities(data.x), quality=POLISHED, **options))


def by_ward_near(data: Set) -> Found:
    """Cluster hierarchically where only near neighbours merge."""
    near = kneighbors_graph(data.x, NEIGHBORS)
    return Found(AgglomerativeClustering(data.clusters, connectivity=near).fit_predict(data.x))


def by_mean_shift(data: Set) -> Found:
    """Move to peaks of density; start from a grid in the plane, from all points where a grid has too many cells."""
    width = estimate_bandwidth(data.x, quantile=BANDWIDTH_QUANTILE)
    return Found(MeanShift(bandwidth=width, bin_seeding=data.x.shape[1] == 2).fit_predict(data.x))


def by_dbscan(data: Set) -> Found:
    """Join dense regions, with the radius in which most points have enough neighbours."""
    distances, _ = NearestNeighbors(n_neighbors=MIN_SAMPLES).fit(data.x).kneighbors()
    radius = np.quantile(distances[:, -1], DISTANCE_QUANTILE)
    return Found(DBSCAN(eps=radius, min_samples=MIN_SAMPLES).fit_predict(data.x))


def by_hdbscan(data: Set) -> Found:
    """Join regions that are denser than what is around them."""
    return Found(HDBSCAN(min_cluster_size=int(SMALLEST_CLUSTER * len(data.x)), copy=True).fit_predict(data.x))


ALGORITHMS = (
    Algorithm(
        "k-means",
        f"K, {STARTS} starts",
        lambda data: Found(KMeans(data.clusters, n_init=STARTS, random_state=0).fit_predict(data.x)),
    ),
    Algorithm(
        "Gaussian mixture",
        f"K, {STARTS} starts",
        lambda data: Found(GaussianMixture(data.clusters, n_init=STARTS, random_state=0).fit_predict(data.x)),
    ),
    Algorithm("Ward", "K", lambda data: Found(AgglomerativeClustering(data.clusters).fit_predict(data.x))),
    Algorithm("Ward, neighbours", f"K, {NEIGHBORS} neighbours", by_ward_near),
    Algorithm(
        "single linkage",
        "K",
        lambda data: Found(AgglomerativeClustering(data.clusters, linkage="single").fit_predict(data.x)),
    ),
    Algorithm("mean shift", f"bandwidth: quantile {BANDWIDTH_QUANTILE}", by_mean_shift),
    Algorithm("DBSCAN", f"{MIN_SAMPLES} samples, radius: quantile {DISTANCE_QUANTILE}", by_dbscan),
    Algorithm("HDBSCAN", f"clusters of at least {SMALLEST_CLUSTER:.0%}", by_hdbscan),
    Algorithm(
        "AP, smallest similarity", "preference_quantile=0", lambda data: by_distances(data, preference_quantile=0.0)
    ),
    Algorithm("AP, K clusters", "clusters=K", lambda data: by_distances(data, clusters=data.clusters)),
)
MEDIAN = Algorithm("AP, median similarity", "nothing given", by_distances)
ONE_MORE = {  # in place of the median
    "gaussians": Algorithm(
        "AP, preference −10,000",
        "preference=-10000, damping=0.9",
        lambda data: by_distances(data, preference=-10_000.0, damping=0.9),
    ),
    "circles": Algorithm("AP, path lengths", "clusters=K", lambda data: by_paths(data, clusters=data.clusters)),
}


def count_clusters(labels: Integers) -> int:
    """Return the number of clusters, noise left out."""
    return len(np.unique(labels[labels != NOISE]))


def agreement(data: Set, labels: Integers) -> tuple[float, float]:
    """Return ARI and NMI over the points that belong to a cluster; those called noise count as one group."""
    known = data.truth != NOISE
    return (
        adjusted_rand_score(data.truth[known], labels[known]),
        normalized_mutual_info_score(data.truth[known], labels[known]),
    )


def timed(algorithm: Algorithm, data: Set) -> tuple[float, Found]:
    """Run an algorithm; return the seconds, and what it found."""
    started = time.perf_counter()
    found = algorithm.run(data)
    return time.perf_counter() - started, found


def measure(algorithm: Algorithm, data: Set) -> Outcome:
    """Run an algorithm once to warm up, then some times more; return what it found, and the median of the seconds."""
    first, found = timed(algorithm, data)
    seconds = [first] if first > LONG_RUN_S else [timed(algorithm, data)[0] for _ in range(RUNS)]
    clusters, (ari, nmi) = count_clusters(found.labels), agreement(data, found.labels)
    print(f"{data.name}, {algorithm.name}: {clusters} clusters, ARI {ari:z.2f}, {median(seconds):.3g} s", flush=True)
    return Outcome(algorithm, found, clusters, ari, nmi, median(seconds), len(seconds))


def compare(data: Set) -> list[Outcome]:
    """Run all algorithms on a set."""
    return [measure(algorithm, data) for algorithm in (*ALGORITHMS, ONE_MORE.get(data.name, MEDIAN))]


def alike(truth: Integers, labels: Integers) -> Integers:
    """Number clusters anew, such that those that are alike have the numbers of true ones: they get the same colours."""
    known, names = np.unique(truth[truth != NOISE]), np.unique(labels[labels != NOISE])
    both = (truth != NOISE) & (labels != NOISE)
    table = np.zeros((len(names), len(known)))
    table[np.ix_(np.isin(names, labels[both]), np.isin(known, truth[both]))] = contingency_matrix(
        labels[both], truth[both]
    )
    rows, columns = linear_sum_assignment(-table)
    numbers = dict(zip(names[rows].tolist(), columns.tolist(), strict=True))
    for name in names.tolist():
        numbers.setdefault(name, len(numbers))
    return np.array([NOISE if label == NOISE else numbers[label] for label in labels.tolist()])


def draw(data: Set, outcomes: list[Outcome]) -> None:
    """Draw a panel for the truth and for each algorithm."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plane = data.x if data.x.shape[1] == 2 else TSNE(random_state=0).fit_transform(data.x)
    size = 5.0 if len(plane) < 2000 else 2.0
    panels = [(f"the truth\n{data.clusters} clusters", Found(data.truth))]
    panels += [(f"{one.algorithm.name}\n{one.clusters} found, ARI {one.ari:z.2f}", one.found) for one in outcomes]
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(9.6, 2.75 * rows), squeeze=False)
    for axis, (title, found) in zip(axes.flat, panels, strict=True):
        number = alike(data.truth, found.labels)
        stars = 90 if number.max() < 20 else 45
        axis.scatter(*plane[number == NOISE].T, s=size, color=GREY, linewidths=0)
        for one in np.unique(number[number != NOISE]):
            color, marker = COLORS[one % len(COLORS)], MARKERS[one // len(COLORS) % len(MARKERS)]
            axis.scatter(*plane[number == one].T, s=size, color=color, marker=marker, linewidths=0)
            if found.exemplars is not None:
                star = plane[found.exemplars[number[found.exemplars] == one]].T
                inside = "white" if color == BLACK else color
                axis.scatter(*star, s=stars, marker="*", color=inside, edgecolor="black", linewidths=0.8, zorder=3)
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(IMAGES / f"compare-{data.name}.png", dpi=100)
    plt.close(figure)


def table_of(outcomes: list[Outcome]) -> str:
    """Return the table of a set."""
    lines = ["| algorithm | parameters | clusters | ARI | NMI | s |", "|---|---|---|---|---|---|"]
    for one in outcomes:
        noise = np.mean(one.found.labels == NOISE)
        clusters = f"{one.clusters}, {noise:.0%} noise" if noise else f"{one.clusters}"
        seconds = f"{one.seconds:.3f}" if one.seconds < 1 else f"{one.seconds:.1f}"
        lines.append(
            f"| {one.algorithm.name} | {one.algorithm.parameters} | {clusters} | {one.ari:z.2f} | {one.nmi:z.2f} "
            f"| {seconds}{'' if one.runs > 1 else ' (one run)'} |"
        )
    return "\n".join(lines)


def summary_of(compared: dict[str, list[Outcome]]) -> str:
    """Return the table of the ARI of each algorithm on each set."""
    lines = [f"| algorithm | {' | '.join(compared)} |", "|---|" + "---|" * len(compared)]
    for number, algorithm in enumerate(ALGORITHMS):
        lines.append(f"| {algorithm.name} | " + " | ".join(f"{of[number].ari:z.2f}" for of in compared.values()) + " |")
    return "\n".join(lines)


def paths_table() -> str:
    """Return the table of what path lengths find in circles, by preference and where points lie between them."""
    lines = ["| noise | similarity | given | clusters | ARI |", "|---|---|---|---|---|"]
    preferences: list[dict[str, Any]] = [{"preference": p, "damping": 0.9} for p in (-300.0, -400.0, -500.0, -1000.0)]
    ways = [("squared distances", by_distances, {"clusters": 2}), ("path lengths", by_paths, {"clusters": 2})]
    cases = [(0.05, *way) for way in ways] + [(0.05, "path lengths", by_paths, given) for given in preferences]
    for noise, name, run, given in [*cases, (0.1, "path lengths", by_paths, {"clusters": 2})]:
        data = circles(noise=noise)
        labels = run(data, **given).labels
        said = ", ".join(f"{key}={value:g}" for key, value in given.items())
        lines.append(f"| {noise} | {name} | {said} | {count_clusters(labels)} | {agreement(data, labels)[0]:z.2f} |")
    return "\n".join(lines)


def machine(load: float) -> str:
    """Return when and with what the figures were made, and how busy the machine was before."""
    names = ("scikit-learn", "numpy", "scipy", "pyspark")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("ap-spark", *names))
    return (
        f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}. "
        f"Load of the machine before: {load:.1f}."
    )


def write(tables: dict[str, str]) -> None:
    """Write tables into the page, each between its marks."""
    page = PAGE.read_text()
    for name, table in tables.items():
        marks = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, found = re.subn(marks, lambda at, table=table: f"{at[1]}\n{table}\n\n{at[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
        assert found == 1, f"the page has to have marks for {name}"
    PAGE.write_text(page)


def main() -> None:
    warnings.simplefilter("ignore", UserWarning)  # that circles are not connected, says Ward of its neighbours
    load = os.getloadavg()[0]
    start_session().sparkContext.setLogLevel("ERROR")  # that no figure has its start in it
    compared: dict[str, list[Outcome]] = {}
    for make in SETS:
        data = make()
        compared[data.name] = compare(data)
        draw(data, compared[data.name])
    tables = {name: table_of(outcomes) for name, outcomes in compared.items()}
    write({"summary": summary_of(compared), "machine": machine(load), "paths": paths_table(), **tables})


if __name__ == "__main__":
    main()
