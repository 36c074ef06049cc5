"""Similarities and preferences, checked and put in the form that the engines and the clusters read.

    similarities, points, preference  ──►  Graph: points(index, id, preference), edges(i, k, s, similarity)

Ids become indices 0..n-1 in the order of the ids, so that "the smallest id" is the smallest index everywhere.
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
from ap_spark.errors import InputError, SettingError
from ap_spark.exact_sum import Units, unit_of, units_of
from ap_spark.graph.numbering import numbered
from ap_spark.graph.preferences import quantiles_of
from ap_spark.graph.sparsify import changes_pairs, is_stored, sparsify
from ap_spark.schema import (
    count_of,
    edge_table,
    examples,
    has_have,
    id_type,
    is_are,
    no_similarity,
    preference_table,
    refuse_ids,
    refuse_similarities,
    require_columns,
)
from ap_spark.settings import Settings

__all__ = ["Graph", "build_graph"]

COARSEST = 1e-6  # the unit of exact sums at most, beside the similarities that have to count
BROADCAST_POINTS = 5_000_000  # a table of one small row a point is broadcast up to this many points


@dataclass(frozen=True)
class Graph:
    """A similarity graph ready to be clustered.

    Attributes
    ----------
    points : DataFrame
        (index, id, preference, out_degree, in_degree, forced): to how many others a point is similar, and how many to
        it; forced: whether it is a forced exemplar, similar to no other point.
    edges : DataFrame
        (i, k, s, similarity): indices, the similarity with jitter and the one given. The diagonal is there, except
        for forced exemplars.
    n_points, n_edges, n_forced : int
        Points, stored pairs of different points, forced exemplars.
    units, report_units : Units
        Of exact sums, of messages and of reported similarities.
    uniform : bool
        Whether all pairs are stored, all with one similarity, and all preferences are equal.
    uniform_gap : float
        Then that preference minus that similarity.
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
    def spark(self) -> SparkSession:
        return self.edges.sparkSession

    @cached_property
    def out_degree(self) -> Integers:
        """To how many others each point is similar."""
        return self.of_points("out_degree")

    @cached_property
    def in_degree(self) -> Integers:
        """How many others are similar to each point."""
        return self.of_points("in_degree")

    @cached_property
    def forced(self) -> Flags:
        """Which points are forced exemplars."""
        return np.asarray(self.out_degree == 0)

    def of_points(self, column: str) -> Integers:
        return np.asarray(self.points.select("index", column).toArrow().sort_by("index")[column].to_numpy())

    def ids_at(self, index: Integers) -> pa.Array:
        """The ids of some points, in the order of the indices given."""
        return ids_among(self.points, index)

    def similarities(self) -> DataFrame:
        """The stored similarities by the ids as given: (i, k, s)."""
        between = self.edges.where("i != k").select("i", "k", F.col("similarity").alias("s"))
        return with_ids(between, self.small(self.points))

    def every_point(self) -> DataFrame:
        """All points as exemplars: (index)."""
        return self.points.select("index")

    def first_point(self) -> DataFrame:
        """The smallest id as the only exemplar."""
        return self.points.agg(F.min("index").alias("index"))

    def with_forced(self, exemplars: DataFrame) -> DataFrame:
        """Exemplars, and those by definition."""
        return exemplars.union(self.points.where("forced").select("index"))

    def quantiles(self, *quantiles: float) -> list[float]:
        """Quantiles of the stored similarities, exactly, with linear interpolation; 0 where there are none."""
        return quantiles_of(self.edges.where("i != k").select(F.col("similarity").alias("s")), self.n_edges, quantiles)

    def small(self, table: DataFrame) -> DataFrame:
        """Mark a table with at most a row a point to be broadcast, while that fits."""
        return small(table, self.n_points)


def build_graph(
    similarities: DataFrame,
    settings: Settings,
    points: DataFrame | None = None,
    preferences: DataFrame | None = None,
) -> Graph:
    """Check the input and make the graph.

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
        return make_graph(similarities, settings, points, preferences, held)


def make_graph(
    similarities: DataFrame,
    settings: Settings,
    points: DataFrame | None,
    preferences: DataFrame | None,
    held: ExitStack,
) -> Graph:
    table = edge_table(similarities)
    given = pairs = merge(table, settings.on_duplicate).persist()
    held.callback(pairs.unpersist)
    found = collect_stats(pairs)
    check_pairs(table, pairs, found, settings.on_duplicate)
    if points is not None:
        points = ids_of(points, like=pairs)
        if found.pairs > found.stored + found.diagonal or changes_pairs(settings):
            check_ends(pairs, points)  # also of pairs that are not stored, or will be left out
    if changes_pairs(settings):
        if points is None:
            points = ends_of(pairs)
        kept = sparsify(
            pairs,
            min_similarity=settings.min_similarity,
            top=settings.top,
            symmetrize=settings.symmetrize or "none",
        )
        pairs = kept.select("*", F.lit(1).alias("rows"), F.lit(0).alias("bad")).persist()
        held.callback(pairs.unpersist)
        found = collect_stats(pairs)
    if found.stored:
        unit_of(found.high - found.low, found.stored)  # raises where they lie too far apart
    ids = all_ids(pairs, points).persist()
    held.callback(ids.unpersist)
    n_points = ids.count()
    if given is not pairs:
        given.unpersist()
    if n_points == 0:
        raise InputError("there must be at least one point, but the input is empty")
    indexed = numbered(ids, "index", "id", count=n_points)
    held.callback(indexed.unpersist)

    stored = pairs.where(is_stored())
    diagonal = pairs.where("i = k").select(F.col("i").alias("id"), F.col("s").alias("preference"))
    with_preference = choose_preference(
        settings, preferences, diagonal if found.diagonal else None, stored, found.stored
    )
    forced = (F.col("out_degree") == 0).alias("forced")
    table = with_preference(indexed).select("index", "id", "count", "preference", "out_degree", "in_degree", forced)
    table = table.persist()
    held.callback(table.unpersist)
    about = look_at_points(table)
    check_points(table, about, found.diagonal)

    low, high = span(found.low, found.high, about.low, about.high)
    largest = max(abs(low), abs(high))
    min_nonzero = min((x for x in (found.min_nonzero, about.min_nonzero) if x is not None), default=1.0)
    units = units_of((high - low) + 4.0 * JITTER * (largest + min_nonzero), about.in_degree, min_nonzero)
    if units.fine > COARSEST * min_nonzero:
        check_scales(stored, found, about, units)
    edges = indexed_edges(stored, table, settings, min_nonzero).persist()
    held.callback(edges.unpersist)
    if edges.count() != found.stored + n_points - about.forced:
        check_ends(pairs, table)
    ids.unpersist()
    pairs.unpersist()
    return Graph(
        points=table,
        edges=edges,
        n_points=n_points,
        n_edges=found.stored,
        n_forced=about.forced,
        units=units,
        report_units=units_of(largest, n_points, min_nonzero),
        uniform=(
            found.stored == n_points * (n_points - 1)
            and (n_points == 1 or found.low == found.high)
            and about.low == about.high
        ),
        uniform_gap=about.low - found.low if found.low is not None else 0.0,
        preference=about.low if about.low == about.high else None,
        fingerprint=f"{(found.hash or 0) % 2**64:016x}{(about.hash or 0) % 2**64:016x}",
        release=held.pop_all().close,
    )


def ids_among(points: DataFrame, index: Integers) -> pa.Array:
    """The ids of some points of a table (index, id), in the order of the indices given."""
    wanted = pa.table({"index": index, "place": np.arange(len(index))})
    found = points.select("index", "id").join(small(points.sparkSession.createDataFrame(wanted), len(index)), "index")
    return found.toArrow().sort_by("place")["id"].combine_chunks()


def with_ids(edges: DataFrame, points: DataFrame) -> DataFrame:
    """Edges by index with the ids of their ends instead."""
    row = points.select(F.col("index").alias("i"), F.col("id").alias("from"))
    column = points.select(F.col("index").alias("k"), F.col("id").alias("to"))
    return edges.join(row, "i").join(column, "k").select(F.col("from").alias("i"), F.col("to").alias("k"), "s")


def small(table: DataFrame, n_points: int) -> DataFrame:
    """Mark a table with at most a row a point to be broadcast, while that fits."""
    return F.broadcast(table) if n_points <= BROADCAST_POINTS else table


def indexed_edges(stored: DataFrame, points: DataFrame, settings: Settings, min_nonzero: float) -> DataFrame:
    """(i, k, s, similarity): the stored pairs and the diagonal, by index; s has jitter (docs/semantics.md, 3)."""

    kind = dict(points.dtypes)["id"]

    def jittered(i: Column, k: Column, value: Column) -> Column:
        if not settings.jitter:
            return value + F.lit(0.0)  # -0.0 becomes 0.0
        z = F.shiftright(F.xxhash64(F.lit(settings.seed).cast("bigint"), key_of(i, kind), key_of(k, kind)), 11) / F.lit(
            2.0**52
        )
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
    own = points.where("not forced").select(
        F.col("index").alias("i"),
        F.col("index").alias("k"),
        jittered(F.col("id"), F.col("id"), F.col("preference")).alias("s"),
        F.col("preference").alias("similarity"),
    )
    return between.union(own)


def merge(edges: DataFrame, on_duplicate: str) -> DataFrame:
    """One row for each pair: (i, k, s, rows, bad), s merged as asked; bad counts values that are no similarity."""
    bad = no_similarity(F.col("s"))
    # The mean adds in the order of the values, so that it does not depend on the order of the rows.
    total = F.aggregate(F.array_sort(F.collect_list("s")), F.lit(0.0), lambda sum_, s: sum_ + s)
    merged = {"min": F.min("s"), "mean": total / F.nullif(F.count("s"), F.lit(0))}.get(on_duplicate, F.max("s"))
    return edges.groupBy("i", "k").agg(
        merged.alias("s"), F.count("*").alias("rows"), F.sum(bad.cast("bigint")).alias("bad")
    )


def collect_stats(pairs: DataFrame) -> Row:
    """Everything the checks and the units need to know about the pairs, in one pass."""
    between, finite = F.col("i") != F.col("k"), F.col("s") > float("-inf")
    i, k = (key_of(F.col(name), dict(pairs.dtypes)[name]) for name in "ik")
    value = F.when(between & finite, F.col("s"))
    found = pairs.agg(
        F.count("*").alias("pairs"),
        F.sum("bad").alias("bad"),
        F.count_if(F.col("i").isNull() | F.col("k").isNull()).alias("null_ids"),
        F.count_if(F.col("rows") > 1).alias("duplicates"),
        F.count_if(~between).alias("diagonal"),
        F.count_if(~between & ~finite).alias("forbidden"),
        F.count_if(between & finite).alias("stored"),
        F.min(value).alias("low"),
        F.max(value).alias("high"),
        F.min(F.when(value != 0.0, F.abs(value))).alias("min_nonzero"),
        F.bit_xor(F.when(between & finite, F.xxhash64(i, k, F.col("s")))).alias("hash"),
    ).first()
    assert found is not None
    return found


def check_pairs(given: DataFrame, pairs: DataFrame, found: Row, on_duplicate: str) -> None:
    if found.null_ids:
        bad = pairs.where("i is null or k is null")
        raise InputError(
            f"ids must not be null, but in columns 'i' and 'k' {count_of(found.null_ids, 'pair')} "
            f"{has_have(found.null_ids)} one: {examples(bad, ['i', 'k', 's'])}"
        )
    if found.bad:
        refuse_similarities(found.bad, given.where(no_similarity(F.col("s"))))  # merging may have hidden them
    if found.duplicates and on_duplicate == "error":
        bad = pairs.where("rows > 1")
        raise InputError(
            f"a pair (i, k) must be given once, but {count_of(found.duplicates, 'pair')} "
            f"{is_are(found.duplicates)} given more often: {examples(bad, ['i', 'k'], ['i', 'k', 'rows'])}"
            f" (--on-duplicate max, min or mean merges them)"
        )
    if found.forbidden:
        bad = pairs.where((F.col("i") == F.col("k")) & (F.col("s") == float("-inf")))
        raise InputError(
            f"a preference must be finite, but {count_of(found.forbidden, 'row')} (k, k) of the similarities "
            f"{is_are(found.forbidden)} -infinite: {examples(bad, ['i', 'k'], ['i', 'k', 's'])}"
        )


def all_ids(pairs: DataFrame, points: DataFrame | None) -> DataFrame:
    """All points: (id, count, out_degree, in_degree), given how often, similar to how many, and how many to them."""
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


def ids_of(points: DataFrame, like: DataFrame) -> DataFrame:
    """The points as (id), of the type that the ids of some pairs have."""
    require_columns(points, ("id",), "the points")
    kind = id_type(points.schema["id"].dataType, "id")
    if kind != dict(like.dtypes)["i"]:
        raise InputError(
            f"ids must have one type, but the points hold {kind}, the similarities {dict(like.dtypes)['i']}"
        )
    return points.select(F.col("id").cast(kind))


def ends_of(pairs: DataFrame) -> DataFrame:
    """The ids that occur in pairs."""
    return pairs.select(F.explode(F.array("i", "k")).alias("id")).distinct()


def check_ends(pairs: DataFrame, points: DataFrame) -> None:
    """Every end of an edge is one of the points."""
    known = points.select(F.col("id").alias("end"))
    ends = pairs.select("i", "k", F.explode(F.array("i", "k")).alias("end"))
    unknown = ends.join(known, "end", "left_anti").select("i", "k").distinct()
    if count := unknown.count():
        raise InputError(
            f"both ends of an edge must be among the points, but {count_of(count, 'edge')} "
            f"{has_have(count)} an end that is not: {examples(unknown, ['i', 'k'])}"
        )


def choose_preference(
    settings: Settings,
    preferences: DataFrame | None,
    diagonal: DataFrame | None,
    stored: DataFrame,
    n_edges: int,
) -> Callable[[DataFrame], DataFrame]:
    """How the points get their preference: a function that adds the column; null where a point has none."""
    check_ways(settings, by_point=preferences is not None, on_diagonal=diagonal is not None)
    table = diagonal
    if preferences is not None:
        table = preference_table(preferences, dict(stored.dtypes)["i"])
    if table is not None:
        by_id = table
        return lambda points: points.join(by_id, "id", "left")
    value = settings.preference
    if value is None:
        quantile = settings.preference_quantile
        (value,) = quantiles_of(stored, n_edges, [0.5 if quantile is None else quantile])
    return lambda points: points.withColumn("preference", F.lit(float(value)))


def check_ways(settings: Settings, *, by_point: bool, on_diagonal: bool) -> None:
    """Raise an error if preferences are given in more than one way."""
    ways = {
        "a preference": settings.preference is not None,
        "a preference quantile": settings.preference_quantile is not None,
        "a number of clusters": settings.clusters is not None,
        "a preference for each point": by_point,
        "rows (k, k) among the similarities": on_diagonal,
    }
    chosen = [way for way, given in ways.items() if given]
    if len(chosen) > 1:
        kind = InputError if on_diagonal else SettingError
        raise kind(f"preferences must be given in one way, but there are {' and '.join(chosen)}")


def key_of(id_: Column, kind: str) -> Column:
    """What is hashed of an id: itself if it is a number, else a hash of the string (`blocks.hashing`)."""
    return id_ if kind == "bigint" else F.xxhash64(id_)


def look_at_points(table: DataFrame) -> Row:
    """What the checks and the units need to know about the preferences, in one pass."""
    p = F.col("preference")
    about = table.agg(
        F.sum(F.when(F.col("id").isNull(), F.col("count"))).alias("null_ids"),
        F.count_if(F.col("count") > 1).alias("repeated"),
        F.count_if(p.isNull()).alias("missing"),
        F.count(p).alias("preferences"),
        F.count_if("forced").alias("forced"),
        F.max("in_degree").alias("in_degree"),
        F.min(p).alias("low"),
        F.max(p).alias("high"),
        F.min(F.when(p != 0.0, F.abs(p))).alias("min_nonzero"),
        F.bit_xor(F.xxhash64(key_of(F.col("id"), dict(table.dtypes)["id"]), p)).alias("hash"),
    ).first()
    assert about is not None
    return about


def check_points(points: DataFrame, about: Row, diagonal: int) -> None:
    repeated = points.where("count > 1 and id is not null")
    refuse_ids(about.null_ids or 0, about.repeated, repeated, "id", "the points")
    if about.missing:
        bad = points.where("preference is null")
        raise InputError(
            f"every point must have a preference, but {count_of(about.missing, 'point')} "
            f"{has_have(about.missing)} none: {examples(bad, ['id'])}"
        )
    if diagonal > about.preferences:
        raise InputError(
            f"a preference must be that of a point, but {count_of(diagonal - about.preferences, 'row')} (k, k) of the "
            f"similarities {is_are(diagonal - about.preferences)} for an id that is not among the points"
        )


def check_scales(stored: DataFrame, found: Row, about: Row, units: Units) -> None:
    """Raise InputError if similarities, or preferences, are so large that exact sums would swallow the others.

    What has to count is the largest similarity of half of the points, or the preferences where they are larger in size.
    """
    size = F.abs("s")
    best = stored.groupBy("i").agg(F.abs(F.max("s")).alias("size")).where("size > 0")
    scale = max((best.agg(F.median("size")).first() or [None])[0] or 0.0, min(abs(about.low), abs(about.high)))
    if scale == 0.0 or units.fine <= COARSEST * scale:
        return
    allowed = COARSEST * scale / units.fine  # of the range that there is
    limit = allowed * (max(found.high, about.high) - min(found.low, about.low))
    if found.high - found.low <= limit:
        raise InputError(
            f"preferences must be comparable with the similarities, which lie in {found.low:g} … {found.high:g}, "
            f"but they reach from {about.low:g} to {about.high:g}: bring them closer"
        )
    far = stored.where(size > limit / 2.0)
    count = far.count()
    raise InputError(
        f"similarities must be comparable with each other, but {count_of(count, 'row')} {has_have(count)} one beyond "
        f"±{limit / 2.0:.2g}, while the best of half of the points is within ±{scale:.2g}: "
        f"{examples(far, ['i', 'k', 's'])} (leave out what is too far to count: --min-similarity, or -infinity)"
    )


def span(*values: float | None) -> tuple[float, float]:
    """The smallest and the largest of the values that are there."""
    present = [value for value in values if value is not None]
    return min(present), max(present)
