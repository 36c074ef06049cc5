"""A look at a similarity graph before it is clustered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window

from ap_spark import classic
from ap_spark.blocks import passes
from ap_spark.blocks.graph import BlockGraph
from ap_spark.engines import engine_of
from ap_spark.errors import SettingError, from_tasks, printable
from ap_spark.graph import Graph, build_graph
from ap_spark.preference import PreferenceRange, preference_range
from ap_spark.settings import Settings

__all__ = ["Degrees", "Description", "components", "describe", "describe_graph"]

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
HUBS = 5
LARGEST_COMPONENTS = 5
# Estimates. Resident: 36 bytes in the file, 28 while it is written, some 20 in the shuffle before. Dataframe: 40 for
# the four columns of an edge in Spark's storage, and 27.7 MB for 204,000 edges (benchmarks/results.md).
BYTES_AN_EDGE = {"resident": 84, "dataframe": 175}


@dataclass(frozen=True)
class Degrees:
    """How many edges the points have, in one direction."""

    smallest: int
    median: float
    mean: float
    largest: int


@dataclass(frozen=True)
class Description:
    """A similarity graph in numbers.

    Attributes
    ----------
    n_points, n_edges : int
        Points, and stored pairs of different points.
    degrees_out, degrees_in : Degrees
        To how many points a point is similar, and how many points are similar to it.
    hubs : dict
        The points that most others are similar to, with their degree.
    n_components : int
        Connected components, the direction of the edges left aside; isolated points count.
    largest_components : list of int
        Their sizes.
    n_isolated : int
        Points without any edge.
    n_exemplars_by_definition : int
        Points that are similar to no other: each is an exemplar.
    least_clusters : int
        No clustering of this graph has fewer: a cluster lies in one component and has at most as many points as are
        similar to its exemplar, and one.
    similarity_quantiles : dict
        Of the stored similarities, by quantile; each can be had as preference by ``preference_quantile``.
    preference : float or None
        The preference that these settings give; None if points have their own.
    preference_range : PreferenceRange
        Between which preferences the number of clusters goes from one to all.
    engine : str
        The engine that will run.
    bytes_needed : int
        What a run will need of memory or, where Spark spills, disk, for all tasks together; an estimate.
    """

    n_points: int
    n_edges: int
    degrees_out: Degrees
    degrees_in: Degrees
    hubs: dict[Any, int]
    n_components: int
    largest_components: list[int]
    n_isolated: int
    n_exemplars_by_definition: int
    least_clusters: int
    similarity_quantiles: dict[float, float]
    preference: float | None
    preference_range: PreferenceRange
    engine: str
    bytes_needed: int

    def __str__(self) -> str:
        def degrees(of: Degrees) -> str:
            return f"{of.smallest:,} to {of.largest:,}, median {of.median:g}, mean {of.mean:.4g}"

        quantiles = ", ".join(f"{100 * q:g} % {value:.6g}" for q, value in self.similarity_quantiles.items())
        low, high = self.preference_range.p_min, self.preference_range.p_max
        lines = (
            f"{self.n_points:,} points, {self.n_edges:,} similarities",
            f"similar to others: {degrees(self.degrees_out)}",
            f"others similar to a point: {degrees(self.degrees_in)}",
            "most of them: " + ", ".join(f"{degree:,} to {hub}" for hub, degree in self.hubs.items()),
            f"connected components: {self.n_components:,}, the largest of "
            f"{', '.join(f'{size:,}' for size in self.largest_components)} points",
            f"points without similarities: {self.n_isolated:,}; "
            f"exemplars since they are similar to none: {self.n_exemplars_by_definition:,}",
            f"clusters: at least {self.least_clusters:,}",
            f"similarities: {quantiles}",
            "preference: " + ("each point its own" if self.preference is None else f"{self.preference:.6g}"),
            f"preferences from one cluster to all points: {low:.6g} to {high:.6g}",
            f"a run: {self.engine} engine, about {size_of(self.bytes_needed)}",
        )
        return "\n".join(map(printable, lines))


def describe(
    similarities: DataFrame,
    *,
    points: DataFrame | None = None,
    preferences: DataFrame | None = None,
    settings: Settings | None = None,
) -> Description:
    """Describe a similarity graph without clustering it.

    Parameters
    ----------
    similarities, points : DataFrame
        As for `affinity_propagation`.
    preferences : DataFrame, optional
        (id, preference), each point's own.
    settings : Settings, optional
        What `affinity_propagation` would be called with.

    Raises
    ------
    InputError, SettingError
        As `affinity_propagation` would.

    Examples
    --------
    >>> x = [1, 2, 3, 7, 8, 9]
    >>> pairs = [(i, k, -abs(a - b)) for i, a in enumerate(x) for k, b in enumerate(x) if 0 < abs(a - b) < 4]
    >>> description = describe(spark.createDataFrame(pairs, "i int, k int, s int"))
    >>> description.n_components, description.least_clusters, description.preference
    (2, 2, -1.0)
    """
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        raise SettingError(f"settings must be a `Settings`, as of ap_spark.settings, got {settings!r}")
    with from_tasks():
        graph = build_graph(similarities, settings, points, preferences)
    try:
        return describe_graph(graph, settings)
    finally:
        graph.release()


def describe_graph(graph: Graph, settings: Settings) -> Description:
    """`describe`, of a graph that has been built."""
    members = components(graph).persist()
    try:
        return describe_components(graph, members, settings)
    finally:
        members.unpersist()


def describe_components(graph: Graph, members: DataFrame, settings: Settings) -> Description:
    stored = stored_similarities(graph)
    sizes = members.groupBy("component").count()
    n_components = sizes.count()
    largest = [row["count"] for row in sizes.orderBy(F.desc("count")).limit(LARGEST_COMPONENTS).collect()]
    hubs = graph.points.orderBy(F.desc("represents"), "index").limit(HUBS).collect()
    engine = engine_of(graph.spark, settings)
    values = graph.quantiles(*QUANTILES)
    bounds = preference_range(stored)
    if n_components > 1:  # points without similarities are unknown to it
        bounds = replace(bounds, p_min=float("-inf"))
    return Description(
        n_points=graph.n_points,
        n_edges=graph.n_edges,
        degrees_out=degrees(graph, "similar_to"),
        degrees_in=degrees(graph, "represents"),
        hubs={row.id: row.represents for row in hubs},
        n_components=n_components,
        largest_components=largest,
        n_isolated=graph.points.where("similar_to = 0 and represents = 0").count(),
        n_exemplars_by_definition=graph.n_lonely,
        least_clusters=least_clusters(graph, members),
        similarity_quantiles=dict(zip(QUANTILES, values, strict=True)),
        preference=graph.preference,
        preference_range=bounds,
        engine=engine,
        bytes_needed=graph.n_edges * BYTES_AN_EDGE[engine],
    )


def stored_similarities(graph: Graph) -> DataFrame:
    """The similarities of different points as given, by index: (i, k, s)."""
    return graph.edges.where("i != k").select("i", "k", F.col("similarity").alias("s"))


def degrees(graph: Graph, column: str) -> Degrees:
    found = graph.points.agg(F.min(column), F.median(column), F.sum(column), F.max(column)).first()
    assert found is not None
    return Degrees(found[0], found[1], found[2] / graph.n_points, found[3])


def components(graph: Graph) -> DataFrame:
    """The connected component of each point: (index, component), the smallest index in it.

    A partition's edges become a forest, in one pass; forests are merged, first on all cores, then into one. A
    task holds some ten numbers a point.
    """
    n_points = graph.n_points

    def merge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        root = smallest_connected(batches, n_points)
        (index,) = np.nonzero(root != np.arange(n_points))
        for start in range(0, len(index), 10_000):
            some = index[start : start + 10_000]
            yield pa.RecordBatch.from_arrays([pa.array(some), pa.array(root[some])], names=["i", "k"])

    forest = graph.edges.where("i != k").select("i", "k").mapInArrow(merge, "i bigint, k bigint")
    for partitions in (classic.cores(graph.edges.sparkSession), 1):
        forest = forest.repartition(partitions).mapInArrow(merge, "i bigint, k bigint")
    found = forest.select(F.col("i").alias("index"), F.col("k").alias("component"))
    return (
        graph.points.select("index")
        .join(found, "index", "left")
        .select("index", F.coalesce("component", "index").alias("component"))
    )


def smallest_connected(batches: Iterable[pa.RecordBatch], n: int) -> NDArray[np.int64]:
    """For each of n points the smallest one that the pairs (i, k) connect it with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    root = np.arange(n)
    waiting: list[NDArray[np.int64]] = []

    def connect() -> None:
        i, k = np.concatenate([np.stack([np.arange(n), root]), *waiting], axis=1)
        graph = coo_array((np.ones(len(i), dtype=np.int8), (i, k)), shape=(n, n))
        label = connected_components(graph, directed=False)[1]
        first = np.full(label.max(initial=0) + 1, n)
        np.minimum.at(first, label, np.arange(n))
        root[:] = first[label]
        waiting.clear()

    for batch in batches:
        waiting.append(np.stack([batch["i"].to_numpy(), batch["k"].to_numpy()]))
        if sum(pairs.shape[1] for pairs in waiting) > max(n, 1_000_000):
            connect()
    if waiting:
        connect()
    return root


def components_of_blocks(graph: BlockGraph) -> NDArray[np.int64]:
    """The connected component of each point: the smallest index in it."""
    everyone = np.arange(graph.n_points)
    found = graph.blocks.visit(passes.components, graph.n_points) if graph.n_edges else [everyone]
    return passes.connected([everyone] * len(found), found, graph.n_points)


def least_clusters_of_blocks(graph: BlockGraph) -> int:
    component = components_of_blocks(graph)
    order = np.lexsort((np.arange(graph.n_points), -graph.in_degree, ~graph.forced, component))
    component, forced = component[order], graph.forced[order]
    covered = np.cumsum(graph.in_degree[order] + 1)
    begins = np.flatnonzero(np.diff(component, prepend=-1))
    size = np.diff(begins, append=graph.n_points)
    before = np.append(0, covered[:-1])
    before -= np.repeat(before[begins], size)
    return int(np.count_nonzero(forced | (before < np.repeat(size, size))))


def least_clusters(graph: Graph | BlockGraph, members: DataFrame | None = None) -> int:
    """The fewest exemplars whose in-degrees, and they themselves, reach the size of each component."""
    if isinstance(graph, BlockGraph):
        return least_clusters_of_blocks(graph)
    largest_first = Window.partitionBy("component").orderBy(F.desc("lonely"), F.desc("represents"), "index")
    before = F.sum(F.col("represents") + 1).over(largest_first.rowsBetween(Window.unboundedPreceding, -1))
    size = F.count("*").over(Window.partitionBy("component"))
    points = graph.points.join(components(graph) if members is None else members, "index").select(
        "lonely", F.coalesce(before, F.lit(0)).alias("before"), size.alias("size")
    )
    return points.where("lonely or before < size").count()


def size_of(number: int) -> str:
    """Bytes in words.

    >>> size_of(3 * 2**30 // 2)
    '1.5 GiB'
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 2**10:.3g} KiB"
