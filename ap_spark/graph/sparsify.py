"""Similarities to fewer, or to symmetric ones: pairs (i, k, s) that are unique and checked."""

from __future__ import annotations

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Window

from ap_spark.settings import Settings

__all__ = ["changes_pairs", "is_stored", "thin"]


def is_stored() -> Column:
    """Whether a row is a similarity of two different points, not a preference and not -infinity."""
    return (F.col("i") != F.col("k")) & (F.col("s") > float("-inf"))


def changes_pairs(settings: Settings) -> bool:
    """Whether `thin` would do anything."""
    return not (settings.min_similarity is None and settings.top is None and settings.symmetrize in (None, "none"))


def thin(pairs: DataFrame, settings: Settings) -> DataFrame:
    """Leave out small similarities, keep the largest of each row, then make the pairs symmetric: (i, k, s).

    Rows (k, k), which are preferences, stay as they are. Of equal similarities those to the smallest ids are kept.

    Parameters
    ----------
    pairs : DataFrame
        (i, k, s), each pair once.
    settings : Settings
        ``min_similarity``, ``top`` and ``symmetrize`` are used.

    Examples
    --------
    >>> pairs = spark.createDataFrame([(0, 1, -1.0), (0, 2, -3.0), (2, 1, -2.0)], "i int, k int, s double")
    >>> thin(pairs, Settings(top=1, symmetrize="union")).orderBy("i", "k").collect()[:2]
    [Row(i=0, k=1, s=-1.0), Row(i=1, k=0, s=-1.0)]
    """
    stored = pairs.where(is_stored()).select("i", "k", "s")
    if settings.min_similarity is not None:
        stored = stored.where(F.col("s") >= settings.min_similarity)
    if settings.top is not None:
        rank = F.row_number().over(Window.partitionBy("i").orderBy(F.desc("s"), "k"))
        stored = stored.withColumn("rank", rank).where(F.col("rank") <= settings.top).drop("rank")
    if settings.symmetrize not in (None, "none"):
        stored = both_ways(stored, needs_both=settings.symmetrize == "mutual")
    return stored.union(pairs.where("i = k").select("i", "k", "s"))


def both_ways(stored: DataFrame, *, needs_both: bool) -> DataFrame:
    """Each pair in both directions: those stored in both, or with the other one's similarity those stored in one."""
    ahead = F.col("i") < F.col("k")
    once = stored.groupBy(F.least("i", "k").alias("low"), F.greatest("i", "k").alias("high")).agg(
        F.max(F.when(ahead, F.col("s"))).alias("up"), F.max(F.when(~ahead, F.col("s"))).alias("down")
    )
    if needs_both:
        once = once.where("up is not null and down is not null")
    up = F.struct(F.col("low").alias("i"), F.col("high").alias("k"), F.coalesce("up", "down").alias("s"))
    down = F.struct(F.col("high").alias("i"), F.col("low").alias("k"), F.coalesce("down", "up").alias("s"))
    return once.select(F.inline(F.array(up, down)))
