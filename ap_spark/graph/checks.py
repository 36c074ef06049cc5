"""The checks of similarities, points and preferences, and the errors they raise.

The rules are those of docs/semantics.md, section 7. Statistics of one pass tell whether a rule is broken; only then are
the rows looked up that break it.
"""

from __future__ import annotations

import pyspark.sql.functions as F
from pyspark.sql import DataFrame, Row

from ap_spark.errors import InputError, SettingError
from ap_spark.exact_sum import Units
from ap_spark.graph.numbering import key_of
from ap_spark.schema import id_type, is_no_similarity, refuse_ids, refuse_similarities, require_columns
from ap_spark.settings import Settings
from ap_spark.wording import format_count, format_examples, has_have, is_are

__all__ = [
    "COARSEST",
    "check_ends",
    "check_one_preference",
    "check_pairs",
    "check_points",
    "check_scales",
    "collect_pair_stats",
    "collect_point_stats",
    "ids_of",
]

COARSEST = 1e-6  # the unit of exact sums at most, relative to the similarities that have to count


def ids_of(points: DataFrame, like: DataFrame) -> DataFrame:
    """Return the points as (id), in the type of the ids of some pairs (i, k).

    Raises
    ------
    InputError
        If there is no column id, or it has another type.
    """
    require_columns(points, ("id",), "the points")
    kind = id_type(points.schema["id"].dataType, "id")
    if kind != dict(like.dtypes)["i"]:
        raise InputError(
            f"ids must have one type, but the points hold {kind}, the similarities {dict(like.dtypes)['i']}"
        )
    return points.select(F.col("id").cast(kind))


def collect_pair_stats(pairs: DataFrame) -> Row:
    """Return everything that the checks and the units need to know about the pairs, in one pass.

    Parameters
    ----------
    pairs : DataFrame
        (i, k, s, rows, bad); see `sparsify.merge_duplicates`.

    Returns
    -------
    Row
        Counts: ``pairs``, ``bad`` values, ``null_ids``, ``duplicates``, ``diagonal`` rows (k, k), ``forbidden`` ones
        among these, and ``stored`` pairs of different points. Of the stored pairs ``low``, ``high`` and
        ``min_nonzero``, the smallest similarity in size that is not 0, and a ``hash``.
    """
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


def check_pairs(given: DataFrame, pairs: DataFrame, stats: Row, on_duplicate: str) -> None:
    """Check ids, values, duplicates and diagonal; ``given`` are the pairs before duplicates were merged.

    Raises
    ------
    InputError
        If one breaks its rule.
    """
    if stats.null_ids:
        bad = pairs.where("i is null or k is null")
        raise InputError(
            f"ids must not be null, but in columns 'i' and 'k' {format_count(stats.null_ids, 'pair')} "
            f"{has_have(stats.null_ids)} a null id: {format_examples(bad, ['i', 'k', 's'])}"
        )
    if stats.bad:
        refuse_similarities(stats.bad, given.where(is_no_similarity(F.col("s"))))  # merging may have hidden them
    if stats.duplicates and on_duplicate == "error":
        bad = pairs.where("rows > 1")
        raise InputError(
            f"a pair (i, k) must be given once, but {format_count(stats.duplicates, 'pair')} "
            f"{is_are(stats.duplicates)} given more often: {format_examples(bad, ['i', 'k'], ['i', 'k', 'rows'])}"
            f" (--on-duplicate max, min or mean merges them)"
        )
    if stats.forbidden:
        bad = pairs.where((F.col("i") == F.col("k")) & (F.col("s") == float("-inf")))
        raise InputError(
            f"a preference must be finite, but {format_count(stats.forbidden, 'row')} (k, k) of the similarities "
            f"{is_are(stats.forbidden)} -infinite: {format_examples(bad, ['i', 'k'], ['i', 'k', 's'])}"
        )


def check_ends(pairs: DataFrame, points: DataFrame) -> None:
    """Check that both ends of every pair are among the points (id).

    Raises
    ------
    InputError
        If one is not.
    """
    known = points.select(F.col("id").alias("end"))
    ends = pairs.select("i", "k", F.explode(F.array("i", "k")).alias("end"))
    unknown = ends.join(known, "end", "left_anti").select("i", "k").distinct()
    if count := unknown.count():
        raise InputError(
            f"both ends of an edge must be among the points, but {format_count(count, 'edge')} "
            f"{has_have(count)} an end that is not: {format_examples(unknown, ['i', 'k'])}"
        )


def check_one_preference(settings: Settings, *, by_point: bool, on_diagonal: bool) -> None:
    """Check that preferences are given in one way.

    Parameters
    ----------
    settings : Settings
    by_point : bool
        Whether there is a table of preferences.
    on_diagonal : bool
        Whether the similarities have rows (k, k).

    Raises
    ------
    InputError, SettingError
        If there are several: of the input where rows (k, k) are one of them.
    """
    ways = {
        "a preference": settings.preference is not None,
        "a preference quantile": settings.preference_quantile is not None,
        "a number of clusters": settings.clusters is not None,
        "a preference for each point": by_point,
        "rows (k, k) among the similarities": on_diagonal,
    }
    chosen = [way for way, is_given in ways.items() if is_given]
    if len(chosen) > 1:
        kind = InputError if on_diagonal else SettingError
        raise kind(f"preferences must be given in one way, but there are {' and '.join(chosen)}")


def collect_point_stats(points: DataFrame) -> Row:
    """Return everything that the checks and the units need to know about the points, in one pass.

    Parameters
    ----------
    points : DataFrame
        (id, count, preference, in_degree, forced) and more.

    Returns
    -------
    Row
        Counts: ``null_ids``, ``repeated`` ids, ``missing`` and given ``preferences``, ``forced`` exemplars. The largest
        ``in_degree``. Of the preferences ``low``, ``high``, ``min_nonzero``, and a ``hash``.
    """
    p = F.col("preference")
    stats = points.agg(
        F.sum(F.when(F.col("id").isNull(), F.col("count"))).alias("null_ids"),
        F.count_if(F.col("count") > 1).alias("repeated"),
        F.count_if(p.isNull()).alias("missing"),
        F.count(p).alias("preferences"),
        F.count_if("forced").alias("forced"),
        F.max("in_degree").alias("in_degree"),
        F.min(p).alias("low"),
        F.max(p).alias("high"),
        F.min(F.when(p != 0.0, F.abs(p))).alias("min_nonzero"),
        F.bit_xor(F.xxhash64(key_of(F.col("id"), dict(points.dtypes)["id"]), p)).alias("hash"),
    ).first()
    assert stats is not None
    return stats


def check_points(points: DataFrame, stats: Row, diagonal: int) -> None:
    """Check that ids are unique, and that preferences and points belong to each other.

    Parameters
    ----------
    points, stats
        See `collect_point_stats`.
    diagonal : int
        The number of rows (k, k) among the similarities.

    Raises
    ------
    InputError
        If they break a rule.
    """
    repeated = points.where("count > 1 and id is not null")
    refuse_ids(stats.null_ids or 0, stats.repeated, repeated, "id", "the points")
    if stats.missing:
        bad = points.where("preference is null")
        raise InputError(
            f"every point must have a preference, but {format_count(stats.missing, 'point')} "
            f"{has_have(stats.missing)} none: {format_examples(bad, ['id'])}"
        )
    if (without := diagonal - stats.preferences) > 0:
        raise InputError(
            f"a preference must be that of a point, but {format_count(without, 'row')} (k, k) of the "
            f"similarities {is_are(without)} for an id that is not among the points"
        )


def check_scales(stored: DataFrame, pair_stats: Row, point_stats: Row, units: Units) -> None:
    """Check that exact sums do not swallow the similarities that have to count, beside others that are far larger.

    Those that have to count are as large as the best similarities of half of the points, or as the preferences where
    these are larger in size.

    Raises
    ------
    InputError
        If similarities or preferences are too large beside them.
    """
    size = F.abs("s")
    best = stored.groupBy("i").agg(F.abs(F.max("s")).alias("size")).where("size > 0")
    median = (best.agg(F.median("size")).first() or [None])[0] or 0.0
    scale = max(median, min(abs(point_stats.low), abs(point_stats.high)))
    if scale == 0.0 or units.fine <= COARSEST * scale:
        return
    allowed = COARSEST * scale / units.fine  # as a share of the range that there is
    limit = allowed * (max(pair_stats.high, point_stats.high) - min(pair_stats.low, point_stats.low))
    if pair_stats.high - pair_stats.low <= limit:
        raise InputError(
            f"preferences must be comparable with the similarities, which lie in {pair_stats.low:g} … "
            f"{pair_stats.high:g}, but they reach from {point_stats.low:g} to {point_stats.high:g}: bring them closer"
        )
    far = stored.where(size > limit / 2.0)
    count = far.count()
    raise InputError(
        f"similarities must be comparable with each other, but {format_count(count, 'row')} "
        f"{has_have(count)} one beyond ±{limit / 2.0:.2g}, while the best of half of the points is within "
        f"±{scale:.2g}: {format_examples(far, ['i', 'k', 's'])} "
        "(leave out what is too far to count: --min-similarity, or -infinity)"
    )
