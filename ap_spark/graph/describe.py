"""A look at a similarity graph before it is clustered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F

from ap_spark._spark import classic
from ap_spark.blocks import passes
from ap_spark.blocks.kernel import Integers, in_floats, summed
from ap_spark.errors import printable
from ap_spark.exact_sum import units_of
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.build import engine_of
from ap_spark.graph.edge_graph import Graph
from ap_spark.graph.preferences import PreferenceRange, preference_range
from ap_spark.settings import Settings

__all__ = ["Degrees", "Description", "describe_graph", "format_neighbors", "least_clusters"]

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
HUBS = 5
LARGEST_COMPONENTS = 5
# Estimates. Resident: 36 bytes in the file, 28 while it is written, some 16 in the shuffle before. Dataframe: 40 for
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
    neighbors : dict, optional
        Where nearest neighbours were searched: how many a point, by which search, and its recall on a sample.
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
    neighbors: dict[str, Any] | None = None

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
        found = (format_neighbors(self.neighbors),) if self.neighbors else ()
        return "\n".join(map(printable, lines + found))


def format_neighbors(neighbors: dict[str, Any]) -> str:
    """Say how neighbours were found."""
    words = f"neighbours: {neighbors['neighbors']:,} a point, {neighbors['search']} search"
    return words + (f", recall {neighbors['recall']:.3f} on a sample" if neighbors["search"] != "exact" else "")


def describe_graph(graph: Graph | BlockGraph, settings: Settings) -> Description:
    """Describe a graph that has been built."""
    members = components(graph)
    sizes = np.bincount(members)
    sizes = np.sort(sizes[sizes > 0])[::-1]
    hubs = np.lexsort((np.arange(graph.n_points), -graph.in_degree))[:HUBS]
    bounds = range_of(graph)
    if len(sizes) > 1:  # points without similarities are unknown to it
        bounds = replace(bounds, p_min=float("-inf"))
    engine = engine_of(graph.spark, settings)
    return Description(
        n_points=graph.n_points,
        n_edges=graph.n_edges,
        degrees_out=degrees(graph.out_degree),
        degrees_in=degrees(graph.in_degree),
        hubs=dict(zip(graph.ids_at(hubs).to_pylist(), graph.in_degree[hubs].tolist(), strict=True)),
        n_components=len(sizes),
        largest_components=sizes[:LARGEST_COMPONENTS].tolist(),
        n_isolated=int(np.count_nonzero((graph.out_degree == 0) & (graph.in_degree == 0))),
        n_exemplars_by_definition=graph.n_forced,
        least_clusters=least_clusters(graph, members),
        similarity_quantiles=dict(zip(QUANTILES, graph.quantiles(*QUANTILES), strict=True)),
        preference=graph.preference,
        preference_range=bounds,
        engine=engine,
        bytes_needed=graph.n_edges * BYTES_AN_EDGE[engine],
    )


def degrees(of_points: Integers) -> Degrees:
    least, most = int(of_points.min()), int(of_points.max())
    return Degrees(least, float(np.median(of_points)), float(of_points.mean()), most)


def components(graph: Graph | BlockGraph) -> Integers:
    """The connected component of each point: the smallest index in it, the direction of the edges left aside.

    What holds edges says for points the smallest one that they connect it with; the driver connects those.
    """
    root = np.arange(graph.n_points)
    if isinstance(graph, BlockGraph):
        forests = graph.blocks.visit(passes.components, graph.n_points) if graph.n_edges else []
    else:
        pairs = forest_of(graph)
        forests = [(pairs["i"].to_numpy(), pairs["k"].to_numpy())]
    for i, k in forests:  # one after the other: together they may be as large as the graph
        root = passes.connected([np.arange(graph.n_points), i], [root, k], graph.n_points)
    return root


def forest_of(graph: Graph) -> pa.Table:
    """Pairs (i, k) that connect what the edges connect, merged first on all cores, then in one task.

    A task holds some ten numbers a point.
    """
    n_points = graph.n_points

    def smallest(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        root = np.arange(n_points)
        for some in passes.grouped(batches, len, max(n_points, passes.AT_ONCE)):
            i, k = ([batch[name].to_numpy() for batch in some] for name in "ik")
            root = passes.connected([np.arange(n_points), *i], [root, *k], n_points)
        (index,) = np.nonzero(root != np.arange(n_points))
        yield from pa.table({"i": index, "k": root[index]}).to_batches(max_chunksize=10_000)

    forest = graph.edges.where("i != k").select("i", "k").mapInArrow(smallest, "i bigint, k bigint")
    for partitions in (classic.cores(graph.spark), 1):
        forest = forest.repartition(partitions).mapInArrow(smallest, "i bigint, k bigint")
    return forest.toArrow()


def least_clusters(graph: Graph | BlockGraph, component: Integers | None = None) -> int:
    """The fewest exemplars whose in-degrees, and they themselves, reach the size of each component."""
    component = components(graph) if component is None else component
    order = np.lexsort((np.arange(graph.n_points), -graph.in_degree, ~graph.forced, component))
    component, forced = component[order], graph.forced[order]
    covered = np.cumsum(graph.in_degree[order] + 1)
    begins = np.flatnonzero(np.diff(component, prepend=-1))
    size = np.diff(begins, append=graph.n_points)
    before = np.append(0, covered[:-1])
    before -= np.repeat(before[begins], size)
    return int(np.count_nonzero(forced | (before < np.repeat(size, size))))


def range_of(graph: Graph | BlockGraph) -> PreferenceRange:
    """`preference_range` of a graph."""
    if isinstance(graph, Graph):
        return preference_range(graph.edges.where("i != k").select("i", "k", F.col("similarity").alias("s")))
    if graph.low is None or graph.high is None:
        return PreferenceRange(float("-inf"), float("-inf"))
    complete = graph.in_degree == graph.n_points - 1
    if graph.n_forced or not complete.any():
        return PreferenceRange(float("-inf"), graph.high)
    units = units_of(max(abs(graph.low), abs(graph.high)), graph.n_edges)
    sums, _ = graph.sums_in(np.zeros(graph.n_points, np.int64), units)
    best = np.sort(np.concatenate([found[1] for found in graph.blocks.visit(passes.best_similarity)]))
    largest = in_floats(sums[:, complete], units).max()
    return PreferenceRange(float(largest) - summed(best, units) + float(best[:2].sum()), graph.high)


def size_of(number: int) -> str:
    """Bytes in words.

    >>> size_of(3 * 2**30 // 2)
    '1.5 GiB'
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 2**10:.3g} KiB"
