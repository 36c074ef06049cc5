"""From similarities to the graph in blocks.

    ids ──► numbers 0..n-1, in the order of the ids
    edges (i, k, s) ──► numbers ──► both directions, if asked for ──► one shuffle by row ──► block files

What is wrong with the input is found on the way, as a row without a number; `graph.build_graph`, the same in plain
DataFrames, then looks at the input again and says what it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import few_partitions, with_settings
from ap_spark.blocks import passes
from ap_spark.blocks.assemble import Rules
from ap_spark.blocks.build import Layout
from ap_spark.blocks.hashing import JITTER, hash_points
from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.blocks.send import PARCELS, parcels
from ap_spark.blocks.store import Blocks, broadcast
from ap_spark.errors import ApSparkError, InputError
from ap_spark.exact_sum import Units, unit_of, units_of
from ap_spark.graph.edge_graph import (
    BROADCAST_POINTS,
    COARSEST,
    build_graph,
    check_ways,
    ids_among,
    ids_of,
    key_of,
    merge,
    small,
    span,
    with_ids,
)
from ap_spark.graph.numbering import numbered
from ap_spark.graph.sparsify import sparsify
from ap_spark.schema import edge_table, no_similarity, preference_table
from ap_spark.settings import Settings
from ap_spark.similarity.pairs import Pairs

__all__ = ["BlockGraph", "Numbering", "build_block_graph", "number_points"]

ONE_BLOCK_EDGES = 10_000_000  # up to here one core is about done before a job over several has begun
BOTH_STORED = 0.7  # of the edges in both directions, about so many are left where neighbours are often mutual
ROWS_AT_ONCE = 1_000_000  # similarities that the driver sorts to find a quantile

SCANS = {"Project", "Filter", "LogicalRelation", "DataSourceV2Relation", "LocalRelation", "InMemoryRelation"}


@dataclass(frozen=True)
class Numbering:
    """Points by number: 0..n-1, in the order of the ids.

    Attributes
    ----------
    points : DataFrame
        (index, id).
    ids : pyarrow.Array or None
        The ids in order; None where they are too many for the driver.
    keys : int64, shape (n,)
        See `hashing`.
    weights : int64, shape (n,)
        About how many entries the row of each will have.
    release : callable
    """

    points: DataFrame
    ids: pa.Array | None
    keys: Integers
    weights: Integers
    release: Callable[[], None]

    @property
    def n_points(self) -> int:
        return len(self.keys)


def number_ids(ids: DataFrame) -> Numbering:
    """Number points.

    Parameters
    ----------
    ids : DataFrame
        (id, times, weight): how often each id was given, and about how many entries its row will have.

    Raises
    ------
    Wrong
        If an id is null, or was given more than once.
    """
    spark = ids.sparkSession
    kind = dict(ids.dtypes)["id"]
    with with_settings(spark, few_partitions(spark)):
        table = ids.withColumn("key", key_of(F.col("id"), kind)).persist()
    try:
        found = table.agg(F.count("*"), F.count_if(F.col("id").isNull()), F.max("times")).first()
        assert found is not None
        n, null, times = found
        if null or (times or 0) > 1:
            raise Wrong("ids are null, or given more than once")
        if n <= BROADCAST_POINTS:
            rows = table.toArrow().sort_by("id")
            in_order = rows["id"].combine_chunks()
            points = spark.createDataFrame(pa.table({"index": np.arange(n), "id": in_order}))
            return Numbering(points, in_order, rows["key"].to_numpy(), rows["weight"].to_numpy(), lambda: None)
        indexed = numbered(table, "index", "id", count=n)
        rows = indexed.select("index", "key", "weight").toArrow()
        order = np.argsort(rows["index"].to_numpy())
        keys, weights = (rows[name].to_numpy()[order] for name in ("key", "weight"))
        return Numbering(indexed.select("index", "id"), None, keys, weights, partial(unpersist, indexed))
    finally:
        table.unpersist()


def unpersist(table: DataFrame) -> None:
    table.unpersist()


def number_points(points: DataFrame, entries: int | None) -> tuple[Numbering, DataFrame]:
    """Number points with unique ids; the points, numbers for their ids.

    Their rows will have about so many ``entries``, or all others.
    """
    counted = points.select("id", F.lit(1).alias("times"), F.lit(entries or 0).cast("bigint").alias("weight"))
    numbering = number_ids(counted)
    if entries is None:
        numbering = replace(numbering, weights=np.full(numbering.n_points, numbering.n_points))
    named = points.join(small(numbering.points, numbering.n_points), "id")
    return numbering, named.drop("id").withColumnRenamed("index", "id")


@dataclass(frozen=True)
class BlockGraph:
    """A similarity graph in blocks, ready to be clustered.

    Attributes
    ----------
    spark : SparkSession
    numbering : Numbering
    blocks : Blocks
    n_points, n_edges, n_forced : int
        Points, stored pairs of different points, forced exemplars: points that are similar to no other.
    out_degree : int64, shape (n_points,)
        To how many others each point is similar.
    symmetric : bool
        Whether each pair is stored in both directions by construction.
    low, high, min_nonzero : float or None
        The smallest and the largest similarity, and the smallest in size that is not 0; None where there is none.
    given : float64, shape (n_points,), or None
        The preferences that stood in rows (k, k); not a number where there was none.
    preference_of : float64, shape (n_points,), or float
        The preferences; not a number before `with_preference`.
    seed, jitter
        See `Settings`.
    edge_hash : int
    release : callable
        Gives back the storage of the graph.
    """

    spark: SparkSession
    numbering: Numbering
    blocks: Blocks
    n_edges: int
    out_degree: Integers
    symmetric: bool
    low: float | None
    high: float | None
    min_nonzero: float | None
    given: Floats | None
    edge_hash: int
    seed: int
    jitter: bool
    release: Callable[[], None]
    preference_of: Floats | float = field(default=float("nan"))

    @property
    def n_points(self) -> int:
        return self.numbering.n_points

    @property
    def n_forced(self) -> int:
        return int(np.count_nonzero(self.forced))

    @cached_property
    def forced(self) -> Flags:
        """Which points are forced exemplars."""
        return np.asarray(self.out_degree == 0)

    @cached_property
    def in_degree(self) -> Integers:
        """How many others are similar to each point."""
        if self.symmetric:
            return self.out_degree
        return np.asarray(sum(self.blocks.visit(passes.in_degrees, self.n_points), np.zeros(self.n_points, np.int64)))

    def every_point(self) -> Flags:
        """All points as exemplars."""
        return np.ones(self.n_points, bool)

    def first_point(self) -> Flags:
        """The smallest id as the only exemplar."""
        return np.asarray(np.arange(self.n_points) == 0)

    def with_forced(self, exemplars: Flags) -> Flags:
        """Exemplars, and those by definition."""
        return exemplars | self.forced

    def sums_in(self, cluster: Integers, units: Units) -> tuple[Integers, Integers]:
        """How similar the other members of its cluster are to each point, and how many store an edge to it.

        See `passes.refine`; the sums as words, shape (words, n_points).
        """
        sums, counts = np.zeros((units.words, self.n_points), np.int64), np.zeros(self.n_points, np.int64)
        for found in self.blocks.visit(passes.refine, cluster, units) if self.n_edges else ():
            sums[:, found.columns] += found.sums
            counts[found.columns] += found.counts
        return sums, counts

    def ids_at(self, index: Integers) -> pa.Array:
        """The ids of some points, in the order of their numbers given."""
        if self.numbering.ids is not None:
            return self.numbering.ids.take(pa.array(index))
        return ids_among(self.numbering.points, index)

    @property
    def is_complete(self) -> bool:
        """Whether all pairs are stored."""
        return self.n_edges == self.n_points * (self.n_points - 1)

    @cached_property
    def preferences(self) -> Floats:
        """The preference of each point."""
        return np.broadcast_to(np.asarray(self.preference_of, np.float64), self.n_points)

    @property
    def preference(self) -> float | None:
        """The preference of all points; None if they differ."""
        low, high = self.preferences.min(), self.preferences.max()
        return float(low) if low == high else None

    @cached_property
    def smallest(self) -> float:
        """The smallest similarity or preference in size that is not 0; 1 where there is none."""
        sizes = np.abs(self.preferences)
        own = float(sizes.min(initial=np.inf, where=sizes > 0.0))
        found = min(own, np.inf if self.min_nonzero is None else self.min_nonzero)
        return found if found < np.inf else 1.0

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and the largest of similarities and preferences."""
        return span(self.low, self.high, float(self.preferences.min()), float(self.preferences.max()))

    @cached_property
    def units(self) -> Units:
        """Of exact sums of messages."""
        low, high = self.reach
        largest = max(abs(low), abs(high))
        width = (high - low) + 4.0 * JITTER * (largest + self.smallest)
        return units_of(width, int(self.in_degree.max(initial=0)), self.smallest)

    @cached_property
    def report_units(self) -> Units:
        """Of exact sums of reported similarities."""
        return units_of(max(map(abs, self.reach)), self.n_points, self.smallest)

    @property
    def uniform(self) -> bool:
        """Whether all pairs are stored, all with one similarity, and all preferences are equal."""
        return self.is_complete and (self.n_points == 1 or self.low == self.high) and self.preference is not None

    @property
    def uniform_gap(self) -> float:
        """Then that preference minus that similarity."""
        return float(self.preferences.min()) - self.low if self.low is not None else 0.0

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same similarities and preferences, in whatever order they come."""
        points = int(np.bitwise_xor.reduce(hash_points(self.numbering.keys, self.preferences)))
        return f"{self.edge_hash % 2**64:016x}{points:016x}"

    def quantiles(self, *quantiles: float) -> list[float]:
        """Quantiles of the stored similarities, exactly, with linear interpolation; 0 where there are none."""
        if not self.n_edges:
            return [0.0 for _ in quantiles]
        assert self.low is not None
        assert self.high is not None
        if self.n_edges <= ROWS_AT_ONCE:
            values = np.concatenate(self.blocks.visit(passes.values, self.low, self.high))
            return [float(value) for value in np.quantile(values, quantiles)]
        found = []
        for quantile in quantiles:
            rank, beyond = divmod(quantile * (self.n_edges - 1), 1)
            low, high = self.at_rank(int(rank))
            found.append(float(np.quantile([low, high], beyond)) if beyond else low)
        return found

    def at_rank(self, rank: int) -> tuple[float, float]:
        """The similarity of a rank from 0, and that of the next rank.

        How many lie in each of many bins tells in which one the rank is, and so on, until there are few left.
        """
        low, high, count = self.low or 0.0, self.high or 0.0, self.n_edges
        after = high
        while count > ROWS_AT_ONCE and low < high:
            parts = self.blocks.visit(passes.histogram, low, high)
            counts = np.sum([part.counts for part in parts], axis=0)
            lows, highs = np.min([part.lows for part in parts], axis=0), np.max([part.highs for part in parts], axis=0)
            (held,) = np.nonzero(counts)
            before = np.append(0, np.cumsum(counts[held]))
            chosen = int(np.searchsorted(before, rank, side="right")) - 1
            rank -= int(before[chosen])
            low, high, count = float(lows[held[chosen]]), float(highs[held[chosen]]), int(counts[held[chosen]])
            after = float(lows[held[chosen + 1]]) if chosen + 1 < len(held) else after
        if low == high:
            return low, low if rank + 1 < count else after
        values = np.sort(np.concatenate(self.blocks.visit(passes.values, low, high)))
        return float(values[rank]), float(values[rank + 1]) if rank + 1 < count else after

    def with_preference(self, preference: Floats | float) -> BlockGraph:
        """The same graph, on the same blocks, with these preferences."""
        return replace(self, preference_of=preference)

    def similarities(self) -> DataFrame:
        """The stored similarities by the ids as given: (i, k, s); while the blocks are there."""
        return with_ids(self.blocks.pairs(), small(self.numbering.points, self.n_points))

    def placed(self, entries: DataFrame) -> DataFrame:
        """Entries with the block of their row."""
        return entries.select("*", F.expr(block_of("i", self.blocks.layout.cuts)).alias("block"))

    def is_resolved(self) -> bool:
        """Whether exact sums hold what has to count: see `graph.check_scales`."""
        if self.units.fine <= COARSEST * self.smallest:
            return True
        best = np.concatenate([np.empty(0), *(found[1] for found in self.blocks.visit(passes.best_similarity))])
        sizes = np.abs(best)
        scale = float(np.median(sizes[sizes > 0.0])) if (sizes > 0.0).any() else 0.0
        scale = max(scale, min(abs(float(self.preferences.min())), abs(float(self.preferences.max()))))
        return scale == 0.0 or self.units.fine <= COARSEST * scale


def build_block_graph(
    similarities: DataFrame | Pairs,
    settings: Settings,
    points: DataFrame | None = None,
    preferences: DataFrame | None = None,
    numbering: Numbering | None = None,
) -> BlockGraph:
    """Check the input and make the graph; as `graph.build_graph`, with the same errors.

    Parameters
    ----------
    similarities : DataFrame or Pairs
        (i, k, s); i and k are ids, or numbers if there is a ``numbering``.
    settings, points, preferences
        See `graph.build_graph`.
    numbering : Numbering, optional
        Of all points: then ``similarities`` has numbers, and is known to be right.
    """
    with ExitStack() as held:
        table = similarities
        if not isinstance(table, Pairs):
            table = edge_table(table)
            if numbering is None and not is_scan(table):
                # It is read twice, and again where a block is lost; it may not be the same each time.
                table = table.persist()
                held.callback(table.unpersist)
        try:
            return find(table, settings, points, preferences, numbering, held)
        except Wrong as wrong:
            edges = table.frame if isinstance(table, Pairs) else table
            if numbering is not None:
                edges, points = with_ids(edges, numbering.points), numbering.points.select("id")
            build_graph(edges, settings, points, preferences).release()  # raises InputError
            raise ApSparkError(f"the input is wrong, but is found to be right when looked at again: {wrong}") from wrong


class Wrong(Exception):
    """Something is wrong with the input."""


def find(
    table: DataFrame | Pairs,
    settings: Settings,
    points: DataFrame | None,
    preferences: DataFrame | None,
    numbering: Numbering | None,
    held: ExitStack,
) -> BlockGraph:
    """The graph; Wrong if something is wrong with the input."""
    symmetrize = settings.symmetrize or "none"
    edges = table
    if numbering is None:
        assert not isinstance(table, Pairs)
        numbering = number_ids(weighted_ids(table, points, both=symmetrize != "none"))
        edges = with_numbers(table, numbering)
    held.callback(numbering.release)
    spark = numbering.points.sparkSession
    if numbering.n_points == 0:
        raise InputError("there must be at least one point, but the input is empty")
    rules = Rules(settings.on_duplicate, settings.min_similarity, symmetrize)
    if settings.top is not None:
        edges = edges.frame if isinstance(edges, Pairs) else edges
        edges, rules = sparsified(edges, settings, held), Rules()
    n_entries = int(numbering.weights.sum())
    share = BOTH_STORED if rules.symmetrize != "none" else 1.0
    cuts = cut(numbering.weights, settings.partitions or blocks_for(share * n_entries, spark))
    keys = broadcast(spark, numbering.keys)
    held.callback(keys.destroy)
    layout = Layout(secrets.randbits(63), cuts, rules, n_entries)
    blocks = Blocks(in_parcels(edges, cuts, both=rules.symmetrize != "none"), layout, keys)
    held.callback(blocks.release)
    if wrong := sum(handle.wrong or 0 for handle in blocks.found):
        raise Wrong(f"{wrong} rows or pairs")
    graph = described(spark, numbering, blocks, settings, held)
    if graph.low is not None and graph.high is not None:
        unit_of(graph.high - graph.low, graph.n_edges)  # raises where they lie too far apart
    check_ways(settings, by_point=preferences is not None, on_diagonal=graph.given is not None)
    graph = graph.with_preference(chosen(graph, settings, preferences))
    if np.isnan(graph.preferences).any():
        raise Wrong("points without a preference")
    if not graph.is_resolved():
        raise Wrong("similarities of very different size")
    return graph


def blocks_for(n_entries: float, spark: SparkSession) -> int:
    return 1 if n_entries <= ONE_BLOCK_EDGES else classic.cores(spark)


def is_scan(table: DataFrame) -> bool:
    """Whether reading the table a second time is no more than reading files again."""

    def plain(plan: Any) -> bool:
        children = plan.children()
        return (
            plan.nodeName() in SCANS
            and plan.deterministic()
            and all(plain(children.apply(n)) for n in range(children.size()))
        )

    return plain(table._jdf.queryExecution().withCachedData())


def weighted_ids(table: DataFrame, points: DataFrame | None, *, both: bool) -> DataFrame:
    """(id, times, weight) of the points, or of the ends of the edges; see `number_ids`."""
    row, column = F.lit(1).cast("bigint"), F.lit(int(both)).cast("bigint")
    ends = F.array(
        F.struct(F.col("i").alias("id"), row.alias("weight")), F.struct(F.col("k").alias("id"), column.alias("weight"))
    )
    counted = table.select(F.inline(ends)).groupBy("id").agg((F.sum("weight") + 1).alias("weight"))
    if points is None:
        return counted.select("id", F.lit(1).alias("times"), "weight")
    times = ids_of(points, like=table).groupBy("id").agg(F.count("*").alias("times"))
    return times.join(counted, "id", "left").select("id", "times", F.coalesce("weight", F.lit(1)).alias("weight"))


def with_numbers(table: DataFrame, numbering: Numbering) -> DataFrame:
    """Edges by number; i is null where the ends are unknown, or the similarity is none."""
    points = small(numbering.points, numbering.n_points)
    row = points.select(F.col("id").alias("i"), F.col("index").alias("row"))
    column = points.select(F.col("id").alias("k"), F.col("index").alias("column"))
    right = ~no_similarity(F.col("s")) & F.col("column").isNotNull()
    return (
        table.join(row, "i", "left")
        .join(column, "k", "left")
        .select(F.when(right, F.col("row")).alias("i"), F.col("column").alias("k"), "s")
    )


def sparsified(edges: DataFrame, settings: Settings, held: ExitStack) -> DataFrame:
    """Sparsify edges by number; each wrong edge stays as a row without i.

    Tasks cannot do this with the edges they hold: the largest of a row are known only once the row is whole.
    """
    with with_settings(edges.sparkSession, few_partitions(edges.sparkSession)):
        merged = merge(edges.where("i is not null"), settings.on_duplicate).persist()
    held.callback(merged.unpersist)
    wrong = edges.where("i is null").select("i", "k", "s")
    if settings.on_duplicate == "error":
        again = merged.where("rows > 1").select(F.lit(None).cast("bigint").alias("i"), "k", "s")
        wrong = wrong.union(again)
    kept = sparsify(
        merged,
        min_similarity=settings.min_similarity,
        top=settings.top,
        symmetrize=settings.symmetrize or "none",
    )
    return kept.union(wrong)


def cut(weights: Integers, blocks: int) -> Integers:
    """Cut the rows into blocks of about the same weight, none of them empty."""
    sums = np.cumsum(weights)
    ends = np.unique(1 + np.searchsorted(sums, sums[-1] * np.arange(1, blocks + 1) / blocks))
    return np.append(0, np.minimum(np.append(ends[:-1], len(weights)), len(weights)))


def in_parcels(edges: DataFrame | Pairs, cuts: Integers, *, both: bool) -> DataFrame:
    """Edges on their way to the blocks of their rows; see `send.parcels`."""
    then = edges.then if isinstance(edges, Pairs) else edges.select("i", "k", "s").mapInArrow
    return then(partial(parcels, cuts=cuts, both=both), PARCELS)


def block_of(name: str, cuts: Integers) -> str:
    """SQL for the block of a point: a search in the cuts."""

    def between(low: int, high: int) -> str:
        if high - low == 1:
            return str(low)
        middle = (low + high) // 2
        return f"if({name} < {cuts[middle]}, {between(low, middle)}, {between(middle, high)})"

    return between(0, len(cuts) - 1)


def described(
    spark: SparkSession, numbering: Numbering, blocks: Blocks, settings: Settings, held: ExitStack
) -> BlockGraph:
    """The graph, from what the tasks have said of its blocks."""
    found = blocks.found
    degrees = np.zeros(numbering.n_points, np.int64)
    for handle, low, high in zip(found, blocks.layout.cuts, blocks.layout.cuts[1:], strict=False):
        degrees[low:high] = np.frombuffer(handle.degrees, np.int32)  # Spark skips the tasks of what it knows is empty
    preference_of = np.concatenate(
        [np.empty(0, np.int64), *(np.frombuffer(handle.preference_of, np.int64) for handle in found)]
    )
    given = None
    if len(preference_of):
        given = np.full(numbering.n_points, np.nan)
        given[preference_of] = np.concatenate([np.frombuffer(handle.preference) for handle in found])

    def all_of(name: str) -> list[float]:
        return [handle[name] for handle in found if handle[name] is not None]

    return BlockGraph(
        spark=spark,
        numbering=numbering,
        blocks=blocks,
        n_edges=int(degrees.sum()),
        out_degree=degrees,
        symmetric=(settings.symmetrize or "none") != "none",
        low=min(all_of("low"), default=None),
        high=max(all_of("high"), default=None),
        min_nonzero=min(all_of("min_nonzero"), default=None),
        given=given,
        edge_hash=int(np.bitwise_xor.reduce(np.array([handle.hash for handle in found], np.int64))),
        seed=settings.seed,
        jitter=settings.jitter,
        release=held.pop_all().close,
    )


def chosen(graph: BlockGraph, settings: Settings, preferences: DataFrame | None) -> Floats | float:
    """The preference of each point, or of all; not a number where a point has none."""
    if preferences is not None:
        table = preference_table(preferences, dict(graph.numbering.points.dtypes)["id"])
        rows = graph.numbering.points.join(table, "id").select("index", "preference").toArrow()
        by_point = np.full(graph.n_points, np.nan)
        by_point[rows["index"].to_numpy()] = rows["preference"].to_numpy()
        return by_point
    if graph.given is not None:
        return graph.given
    if settings.preference is not None:
        return float(settings.preference)
    return graph.quantiles(0.5 if settings.preference_quantile is None else settings.preference_quantile)[0]
