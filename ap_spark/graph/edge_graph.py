"""The similarity graph as DataFrames, with every check of the input.

    similarities, points, preference  ──►  EdgeGraph: points (index, id, preference), edges (i, k, s, similarity)

The dataframe engine works on it. The resident engine works on a `BlockGraph`; where the input of that is wrong, it is
built as an `EdgeGraph` as well, which raises the error.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Row, SparkSession

from ap_spark.blocks.hashing import JITTER
from ap_spark.blocks.kernel import Flags, Integers
from ap_spark.errors import InputError
from ap_spark.exact_sum import Units, unit_of, units_of
from ap_spark.graph.checks import (
    COARSEST,
    check_ends,
    check_one_preference,
    check_pairs,
    check_points,
    check_scales,
    collect_pair_stats,
    collect_point_stats,
    ids_of,
)
from ap_spark.graph.numbering import broadcast_if_small, ids_among, key_of, numbered, with_ids
from ap_spark.graph.preferences import quantiles_of
from ap_spark.graph.sparsify import changes_pairs, is_stored, merge_duplicates, sparsify
from ap_spark.schema import edge_table, preference_table
from ap_spark.settings import Settings

__all__ = ["EdgeGraph", "build_edge_graph"]


@dataclass(frozen=True)
class EdgeGraph:
    """A similarity graph as DataFrames, ready to be clustered.

    Attributes
    ----------
    points : DataFrame
        (index, id, preference, out_degree, in_degree, forced). Forced exemplars are the points without out-edges.
    edges : DataFrame
        (i, k, s, similarity) by index: the similarity with jitter, and as it was given. Rows (k, k) hold the
        preferences; forced exemplars have none.
    n_points, n_edges, n_forced : int
        Points, stored pairs of different points, forced exemplars.
    units, report_units : Units
        Of exact sums, of messages and of reported similarities.
    low, high : float or None
        The smallest and the largest similarity; None where there is none.
    uniform : bool
        Whether all pairs are stored, all with one similarity, and all preferences are equal.
    uniform_gap : float
        Where the graph is uniform, its preference minus its similarity.
    preference : float or None
        The preference of all points; None if they differ.
    fingerprint : str
        The same for the same similarities and preferences, in whatever order they come.
    release : callable
        Gives back the storage of the graph.
    """

    points: DataFrame
    edges: DataFrame
    n_points: int
    n_edges: int
    n_forced: int
    units: Units
    report_units: Units
    low: float | None
    high: float | None
    uniform: bool
    uniform_gap: float
    preference: float | None
    fingerprint: str
    release: Callable[[], None]

    @property
    def is_complete(self) -> bool:
        """Whether all pairs are stored."""
        return self.n_edges == self.n_points * (self.n_points - 1)

    @property
    def symmetric(self) -> bool:
        """Whether each pair is stored in both directions by construction: not known here."""
        return False

    def sample_pairs(self, divisor: int) -> Integers:
        """Return one stored pair in ``divisor``, as rows (i, k): of the two directions of a pair both or neither."""
        chosen = F.pmod(F.xxhash64(F.least("i", "k"), F.greatest("i", "k")), F.lit(divisor)) == 0
        rows = self.edges.where(chosen & (F.col("i") != F.col("k"))).select("i", "k").toArrow()
        return np.stack([rows["i"].to_numpy(), rows["k"].to_numpy()], axis=1)

    @property
    def spark(self) -> SparkSession:
        """The session that the tables are of."""
        return self.edges.sparkSession

    @cached_property
    def out_degree(self) -> Integers:
        """The number of edges from each point to others."""
        return self._of_points("out_degree")

    @cached_property
    def in_degree(self) -> Integers:
        """The number of edges to each point from others."""
        return self._of_points("in_degree")

    @cached_property
    def forced(self) -> Flags:
        """Which points are forced exemplars."""
        return np.asarray(self.out_degree == 0)

    def _of_points(self, column: str) -> Integers:
        return np.asarray(self.points.select("index", column).toArrow().sort_by("index")[column].to_numpy())

    def ids_at(self, index: Integers) -> pa.Array:
        """Return the ids of some points, in the order of the indices given."""
        return ids_among(self.points, index)

    def similarities(self) -> DataFrame:
        """Return the stored similarities by the ids as given: (i, k, s)."""
        between = self.edges.where("i != k").select("i", "k", F.col("similarity").alias("s"))
        return with_ids(between, self.small(self.points))

    def every_point(self) -> DataFrame:
        """Return all points as exemplars: (index)."""
        return self.points.select("index")

    def first_point(self) -> DataFrame:
        """Return the point with the smallest id as the only exemplar: (index)."""
        return self.points.agg(F.min("index").alias("index"))

    def with_forced(self, exemplars: DataFrame) -> DataFrame:
        """Add the forced exemplars to other exemplars: (index)."""
        return exemplars.union(self.points.where("forced").select("index"))

    def quantiles(self, *quantiles: float) -> list[float]:
        """Return quantiles of the stored similarities, exactly, with linear interpolation; 0 where there are none."""
        return quantiles_of(self.edges.where("i != k").select(F.col("similarity").alias("s")), self.n_edges, quantiles)

    def small(self, table: DataFrame) -> DataFrame:
        """Mark a table with at most a row a point to be broadcast, while that fits."""
        return broadcast_if_small(table, self.n_points)


def build_edge_graph(
    similarities: DataFrame,
    settings: Settings,
    points: DataFrame | None = None,
    preferences: DataFrame | None = None,
) -> EdgeGraph:
    """Check the input and build the graph.

    Parameters
    ----------
    similarities : DataFrame
        (i, k, s), ids bigint or string. A pair with s = -infinity counts as not stored; rows (k, k) are preferences.
    settings : Settings
        ``on_duplicate``, ``min_similarity``, ``top``, ``symmetrize``, ``preference``, ``preference_quantile``,
        ``jitter`` and ``seed`` are used.
    points : DataFrame, optional
        (id): all points; by default those that occur in the similarities.
    preferences : DataFrame, optional
        (id, preference) for every point.

    Raises
    ------
    InputError
        For every case of docs/semantics.md, section 7.
    SettingError
        If preferences are given in more than one way.
    """
    with ExitStack() as held:
        return _build(similarities, settings, points, preferences, held)


def _build(
    similarities: DataFrame,
    settings: Settings,
    points: DataFrame | None,
    preferences: DataFrame | None,
    held: ExitStack,
) -> EdgeGraph:
    """Build the graph; ``held`` releases what was persisted on the way.

    1. Merge duplicates and check the pairs; sparsify them. 2. Number the points. 3. Choose the preferences and check
    the points. 4. Number the edges and add jitter.
    """
    merged, pairs, points, pair_stats = _checked_pairs(similarities, settings, points, held)
    ids = _all_ids(pairs, points).persist()
    held.callback(ids.unpersist)
    n_points = ids.count()
    if merged is not pairs:
        merged.unpersist()
    if n_points == 0:
        raise InputError("there must be at least one point, but the input is empty")
    indexed = numbered(ids, "index", "id", count=n_points)
    held.callback(indexed.unpersist)
    table, point_stats = _checked_points(indexed, pairs, pair_stats, settings, preferences, held)
    values = _Values.of(pair_stats, point_stats)
    units = values.units(point_stats.in_degree)
    stored = pairs.where(is_stored())
    if units.fine > COARSEST * values.min_nonzero:
        check_scales(stored, pair_stats, point_stats, units)
    edges = _indexed_edges(stored, table, settings, values.min_nonzero).persist()
    held.callback(edges.unpersist)
    if edges.count() != pair_stats.stored + n_points - point_stats.forced:
        check_ends(pairs, table)
    ids.unpersist()
    pairs.unpersist()
    has_one_preference = point_stats.low == point_stats.high
    return EdgeGraph(
        points=table,
        edges=edges,
        n_points=n_points,
        n_edges=pair_stats.stored,
        n_forced=point_stats.forced,
        units=units,
        report_units=units_of(values.largest, n_points, values.min_nonzero),
        low=pair_stats.low,
        high=pair_stats.high,
        uniform=(
            pair_stats.stored == n_points * (n_points - 1)
            and (n_points == 1 or pair_stats.low == pair_stats.high)
            and has_one_preference
        ),
        uniform_gap=point_stats.low - pair_stats.low if pair_stats.low is not None else 0.0,
        preference=point_stats.low if has_one_preference else None,
        fingerprint=f"{(pair_stats.hash or 0) % 2**64:016x}{(point_stats.hash or 0) % 2**64:016x}",
        release=held.pop_all().close,
    )


@dataclass(frozen=True)
class _Values:
    """The range of similarities and preferences, and the smallest of them in size that is not 0; 1 if all are 0."""

    low: float
    high: float
    min_nonzero: float

    @classmethod
    def of(cls, pair_stats: Row, point_stats: Row) -> _Values:
        """Put together what was found of pairs and of points."""
        ends = (pair_stats.low, pair_stats.high, point_stats.low, point_stats.high)
        values = [value for value in ends if value is not None]
        sizes = [value for value in (pair_stats.min_nonzero, point_stats.min_nonzero) if value is not None]
        return cls(min(values), max(values), min(sizes, default=1.0))

    @property
    def largest(self) -> float:
        """The largest in size."""
        return max(abs(self.low), abs(self.high))

    def units(self, in_degree: int) -> Units:
        """Return the units of sums of messages; ``in_degree`` is the largest one."""
        width = (self.high - self.low) + 4.0 * JITTER * (self.largest + self.min_nonzero)
        return units_of(width, in_degree, self.min_nonzero)


def _checked_pairs(
    similarities: DataFrame, settings: Settings, points: DataFrame | None, held: ExitStack
) -> tuple[DataFrame, DataFrame, DataFrame | None, Row]:
    """Return the pairs with duplicates merged, the pairs to be stored, the points as (id), and statistics of the pairs.

    Pairs are checked before they are sparsified, and ends of those that are left out as well.
    """
    table = edge_table(similarities)
    merged = merge_duplicates(table, settings.on_duplicate).persist()
    held.callback(merged.unpersist)
    stats = collect_pair_stats(merged)
    check_pairs(table, merged, stats, settings.on_duplicate)
    if points is not None:
        points = ids_of(points, like=merged)
        if stats.pairs > stats.stored + stats.diagonal or changes_pairs(settings):
            check_ends(merged, points)
    pairs = merged
    if changes_pairs(settings):
        if points is None:
            points = merged.select(F.explode(F.array("i", "k")).alias("id")).distinct()
        kept = sparsify(
            merged,
            min_similarity=settings.min_similarity,
            top=settings.top,
            symmetrize=settings.symmetrize or "none",
        )
        pairs = kept.select("*", F.lit(1).alias("rows"), F.lit(0).alias("bad")).persist()
        held.callback(pairs.unpersist)
        stats = collect_pair_stats(pairs)
    if stats.stored:
        unit_of(stats.high - stats.low, stats.stored)  # raises InputError where they lie too far apart
    return merged, pairs, points, stats


def _checked_points(
    indexed: DataFrame,
    pairs: DataFrame,
    pair_stats: Row,
    settings: Settings,
    preferences: DataFrame | None,
    held: ExitStack,
) -> tuple[DataFrame, Row]:
    """Return the points with their preferences, and what is forced, after all checks; and statistics of them."""
    diagonal = pairs.where("i = k").select(F.col("i").alias("id"), F.col("s").alias("preference"))
    given = diagonal if pair_stats.diagonal else None
    forced = (F.col("out_degree") == 0).alias("forced")
    table = (
        _with_preference(indexed, settings, preferences, given, pairs.where(is_stored()), pair_stats)
        .select("index", "id", "count", "preference", "out_degree", "in_degree", forced)
        .persist()
    )
    held.callback(table.unpersist)
    stats = collect_point_stats(table)
    check_points(table, stats, pair_stats.diagonal)
    return table, stats


def _all_ids(pairs: DataFrame, points: DataFrame | None) -> DataFrame:
    """Return all points: (id, count, out_degree, in_degree); count says how often the id was given."""
    one = is_stored().cast("bigint")
    none = F.lit(0).cast("bigint")
    ends = pairs.select(
        F.inline(
            F.array(
                F.struct(F.col("i").alias("id"), one.alias("out"), none.alias("into")),
                F.struct(F.col("k").alias("id"), none.alias("out"), one.alias("into")),
            )
        )
    )
    degrees = ends.groupBy("id").agg(F.sum("out").alias("out_degree"), F.sum("into").alias("in_degree"))
    if points is None:
        return degrees.withColumn("count", F.lit(1))
    return points.groupBy("id").count().join(degrees, "id", "left").fillna(0, ["out_degree", "in_degree"])


def _with_preference(
    points: DataFrame,
    settings: Settings,
    preferences: DataFrame | None,
    diagonal: DataFrame | None,
    stored: DataFrame,
    stats: Row,
) -> DataFrame:
    """Add the preference of each point, null where it has none.

    It comes from a table, from the diagonal, from the settings, or is a quantile of the stored similarities.

    Raises
    ------
    InputError, SettingError
        If preferences are given in more than one way, or the table is wrong.
    """
    check_one_preference(settings, by_point=preferences is not None, on_diagonal=diagonal is not None)
    if preferences is not None:
        return points.join(preference_table(preferences, dict(stored.dtypes)["i"]), "id", "left")
    if diagonal is not None:
        return points.join(diagonal, "id", "left")
    value = settings.preference
    if value is None:
        quantile = 0.5 if settings.preference_quantile is None else settings.preference_quantile
        (value,) = quantiles_of(stored, stats.stored, [quantile])
    return points.withColumn("preference", F.lit(float(value)))


def _indexed_edges(stored: DataFrame, points: DataFrame, settings: Settings, min_nonzero: float) -> DataFrame:
    """Return the stored pairs and the diagonal by index: (i, k, s, similarity); s has jitter (docs/semantics.md, 3)."""
    kind = dict(points.dtypes)["id"]

    def jittered(i: Column, k: Column, value: Column) -> Column:
        if not settings.jitter:
            return value + F.lit(0.0)  # -0.0 becomes 0.0
        hashed = F.xxhash64(F.lit(settings.seed).cast("bigint"), key_of(i, kind), key_of(k, kind))
        z = F.shiftright(hashed, 11) / F.lit(2.0**52)  # in [-1, 1)
        return value * (F.lit(1.0) + F.lit(JITTER) * z) + F.lit(JITTER) * z * F.lit(min_nonzero)

    row_index = points.select(F.col("id").alias("i"), F.col("index").alias("row"))
    column_index = points.select(F.col("id").alias("k"), F.col("index").alias("column"))
    between = (
        stored.select("i", "k", "s", jittered(F.col("i"), F.col("k"), F.col("s")).alias("jittered"))
        .join(row_index, "i")
        .join(column_index, "k")
        .select(
            F.col("row").alias("i"),
            F.col("column").alias("k"),
            F.col("jittered").alias("s"),
            F.col("s").alias("similarity"),
        )
    )
    diagonal = points.where("not forced").select(
        F.col("index").alias("i"),
        F.col("index").alias("k"),
        jittered(F.col("id"), F.col("id"), F.col("preference")).alias("s"),
        F.col("preference").alias("similarity"),
    )
    return between.union(diagonal)
