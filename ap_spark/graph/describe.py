"""A similarity graph in numbers, before it is clustered: degrees, components, preferences, what a run needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F

from ap_spark._spark import classic
from ap_spark.blocks import passes
from ap_spark.blocks.kernel import Integers
from ap_spark.exact_sum import in_floats, summed, units_of
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.build import engine_of
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.preferences import PreferenceRange, preference_range
from ap_spark.settings import Settings
from ap_spark.wording import format_bytes, printable

__all__ = ["Degrees", "Description", "bytes_needed", "describe_graph", "format_neighbors", "least_clusters"]

_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_HUBS = 5
_LARGEST_COMPONENTS = 5
# Estimates. Resident: 36 bytes in the file, 28 while it is written, some 16 in the shuffle before. Dataframe: 40 for
# the four columns of an edge in Spark's storage, and 27.7 MB for 204,000 edges (benchmarks/results.md).
_BYTES_AN_EDGE = {"resident": 84, "dataframe": 175}


@dataclass(frozen=True)
class Degrees:
    """The out-degrees, or the in-degrees, of all points in four numbers: smallest, median, mean, largest."""

    smallest: int
    median: float
    mean: float
    largest: int

    def __str__(self) -> str:
        median, mean = _format_number(self.median), _format_number(self.mean)
        return f"{self.smallest:,} to {self.largest:,}, median {median}, mean {mean}"


@dataclass(frozen=True)
class Description:
    """A similarity graph in numbers.

    Attributes
    ----------
    n_points, n_edges : int
        Points, and stored pairs of different points.
    degrees_out, degrees_in : Degrees
        Out-degrees: to how many others a point stores an edge. In-degrees: how many others store an edge to it.
    hubs : dict
        The points with the largest in-degrees, and these: {id: in-degree}.
    n_components : int
        Connected components, with edges taken as undirected. An isolated point is a component.
    largest_components : list of int
        The numbers of points in the largest components.
    n_isolated : int
        Points without any edge.
    n_forced : int
        Forced exemplars: points without out-edges.
    least_clusters : int
        No clustering of this graph has fewer clusters. A cluster lies in one component, and its exemplar has an edge
        from every other member.
    similarity_quantiles : dict
        Quantiles of the stored similarities: {quantile: similarity}. ``preference_quantile`` makes one of them the
        preference.
    preference : float or None
        The preference of all points; None if they differ.
    preference_range : PreferenceRange
        Between which preferences the number of clusters goes from one to all.
    engine : str
        The engine that will run, one of `settings.EngineName`.
    bytes_needed : int
        An estimate of the memory that a run needs, in all tasks together. Where Spark spills, it is disk instead.
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
    n_forced: int
    least_clusters: int
    similarity_quantiles: dict[float, float]
    preference: float | None
    preference_range: PreferenceRange
    engine: str
    bytes_needed: int
    neighbors: dict[str, Any] | None = None

    def __str__(self) -> str:
        quantiles = ", ".join(f"{100 * q:g} % {value:.6g}" for q, value in self.similarity_quantiles.items())
        lines = (
            f"{self.n_points:,} points, {self.n_edges:,} similarities",
            f"out-degrees (to how many others a point is similar): {self.degrees_out}",
            f"in-degrees (how many others are similar to a point): {self.degrees_in}",
            "largest in-degrees: " + ", ".join(f"{degree:,} (point {hub})" for hub, degree in self.hubs.items()),
            f"connected components: {self.n_components:,}, the largest of "
            f"{', '.join(f'{size:,}' for size in self.largest_components)} points",
            f"points without any similarity: {self.n_isolated:,}",
            f"forced exemplars (similar to no other point): {self.n_forced:,}",
            f"clusters: at least {self.least_clusters:,}",
            f"similarities: {quantiles}",
            "preference: " + ("each point its own" if self.preference is None else f"{self.preference:.6g}"),
            _format_range(self.preference_range, self.least_clusters),
            f"a run: {self.engine} engine, about {format_bytes(self.bytes_needed)}",
        )
        found = (format_neighbors(self.neighbors),) if self.neighbors else ()
        return "\n".join(map(printable, lines + found))


def format_neighbors(neighbors: dict[str, Any]) -> str:
    """Say how neighbours were found."""
    words = f"neighbours: {neighbors['neighbors']:,} a point, {neighbors['search']} search"
    return words + (f", recall {neighbors['recall']:.3f} on a sample" if neighbors["search"] != "exact" else "")


def describe_graph(graph: EdgeGraph | BlockGraph, settings: Settings) -> Description:
    """Describe a graph that has been built; see `pipeline.describe`."""
    component = _components(graph)
    sizes = np.bincount(component)
    sizes = np.sort(sizes[sizes > 0])[::-1]
    hubs = np.lexsort((np.arange(graph.n_points), -graph.in_degree))[:_HUBS]
    preferences = _preference_range(graph)
    if len(sizes) > 1:  # `preference_range` of similarities knows nothing of points that have none
        preferences = replace(preferences, p_min=float("-inf"))
    engine = engine_of(graph.spark, settings)
    return Description(
        n_points=graph.n_points,
        n_edges=graph.n_edges,
        degrees_out=_degrees(graph.out_degree),
        degrees_in=_degrees(graph.in_degree),
        hubs=dict(zip(graph.ids_at(hubs).to_pylist(), graph.in_degree[hubs].tolist(), strict=True)),
        n_components=len(sizes),
        largest_components=sizes[:_LARGEST_COMPONENTS].tolist(),
        n_isolated=int(np.count_nonzero((graph.out_degree == 0) & (graph.in_degree == 0))),
        n_forced=graph.n_forced,
        least_clusters=least_clusters(graph, component),
        similarity_quantiles=dict(zip(_QUANTILES, graph.quantiles(*_QUANTILES), strict=True)),
        preference=graph.preference,
        preference_range=preferences,
        engine=engine,
        bytes_needed=bytes_needed(graph.n_edges, engine),
    )


def bytes_needed(n_edges: int, engine: str) -> int:
    """Return about how many bytes a run needs in all tasks together; where Spark spills, on disk."""
    return n_edges * _BYTES_AN_EDGE.get(engine, max(_BYTES_AN_EDGE.values()))


def _degrees(of_points: Integers) -> Degrees:
    """Return the smallest, median, mean and largest degree."""
    smallest, largest = int(of_points.min()), int(of_points.max())
    return Degrees(smallest, float(np.median(of_points)), float(of_points.mean()), largest)


def _components(graph: EdgeGraph | ArrayGraph) -> Integers:
    """Return the connected component of each point, named by the smallest index in it; edges count as undirected.

    Each block, or task, reduces its edges to a forest: at most one pair a point, which connects the same points. The
    driver connects the forests.
    """
    component = np.arange(graph.n_points)
    if isinstance(graph, ArrayGraph):
        forests = graph.blocks.visit(passes.components, graph.n_points) if graph.n_edges else []
    else:
        pairs = _forest(graph)
        forests = [(pairs["i"].to_numpy(), pairs["k"].to_numpy())]
    for i, k in forests:  # one after the other: together they may be as large as the graph
        component = passes.connected([np.arange(graph.n_points), i], [component, k], graph.n_points)
    return component


def _forest(graph: EdgeGraph) -> pa.Table:
    """Return pairs (i, k) that connect the same points as the edges do, at most one pair a point.

    Forests are merged first on all cores, then in one task. A task holds some ten numbers a point.
    """
    n_points = graph.n_points

    def merge(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        component = np.arange(n_points)
        for some in passes.grouped(batches, len, max(n_points, passes.AT_ONCE)):
            i, k = ([batch[name].to_numpy() for batch in some] for name in "ik")
            component = passes.connected([np.arange(n_points), *i], [component, *k], n_points)
        (index,) = np.nonzero(component != np.arange(n_points))
        yield from pa.table({"i": index, "k": component[index]}).to_batches(max_chunksize=10_000)

    forest = graph.edges.where("i != k").select("i", "k").mapInArrow(merge, "i bigint, k bigint")
    for partitions in (classic.cores(graph.spark), 1):
        forest = forest.repartition(partitions).mapInArrow(merge, "i bigint, k bigint")
    return forest.toArrow()


def least_clusters(graph: EdgeGraph | ArrayGraph, component: Integers | None = None) -> int:
    """Return a number of clusters that no clustering of the graph can go below.

    An exemplar serves itself and at most as many points as store an edge to it. So a component needs exemplars until
    their in-degrees, plus one each, reach its size. Those with the largest in-degrees are counted first, after the
    forced exemplars, which are exemplars in any case.

    Parameters
    ----------
    graph : EdgeGraph or ArrayGraph
    component : int64, shape (n_points,), optional
        The connected component of each point, where it is known already.
    """
    component = _components(graph) if component is None else component
    order = np.lexsort((np.arange(graph.n_points), -graph.in_degree, ~graph.forced, component))
    component, forced = component[order], graph.forced[order]
    begins = np.flatnonzero(np.diff(component, prepend=-1))
    size = np.diff(begins, append=graph.n_points)
    served = np.cumsum(graph.in_degree[order] + 1)
    served_before = np.append(0, served[:-1])  # by the points ahead in the order
    served_before -= np.repeat(served_before[begins], size)  # of the same component only
    return int(np.count_nonzero(forced | (served_before < np.repeat(size, size))))


def _preference_range(graph: EdgeGraph | ArrayGraph) -> PreferenceRange:
    """Return the `preference_range` of the stored similarities."""
    if isinstance(graph, EdgeGraph):
        return preference_range(graph.edges.where("i != k").select("i", "k", F.col("similarity").alias("s")))
    if graph.low is None or graph.high is None:
        return PreferenceRange(float("-inf"), float("-inf"))
    serves_all = graph.in_degree == graph.n_points - 1
    if graph.n_forced or not serves_all.any():
        return PreferenceRange(float("-inf"), graph.high)
    units = units_of(max(abs(graph.low), abs(graph.high)), graph.n_edges)
    sums, _ = graph.sums_in(np.zeros(graph.n_points, np.int64), units)
    best = np.sort(np.concatenate([found[1] for found in graph.blocks.visit(passes.best_similarity)]))
    largest = in_floats(sums[:, serves_all], units).max()
    return PreferenceRange(float(largest) - summed(best, units) + float(best[:2].sum()), graph.high)


def _format_range(found: PreferenceRange, least_clusters: int) -> str:
    """Say between which preferences the number of clusters goes from one to all."""
    low, high = found.p_min, found.p_max
    if not math.isfinite(high):
        return "preferences: every point is an exemplar at any, since there are no similarities"
    if not math.isfinite(low):
        none = "none gives one cluster" if least_clusters > 1 else "none is known to give one cluster"
        return f"preferences: {none}; above {high:.6g} every point is an exemplar"
    return f"preferences from one cluster to all points: {low:.6g} to {high:.6g}"


def _format_number(number: float) -> str:
    """Return a number in at most four digits, or as a whole number where it is larger.

    >>> _format_number(2.5), _format_number(1499.0)
    ('2.5', '1,499')
    """
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:,.0f}"
