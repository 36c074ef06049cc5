"""Which similarities are stored: merge duplicates, leave out small ones, keep the largest of each point, symmetrize."""

from __future__ import annotations

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Window

from ap_spark.schema import edge_table, is_no_similarity
from ap_spark.settings import OnDuplicate, Sparsification, Symmetrize

__all__ = ["changes_pairs", "is_stored", "merge_duplicates", "sparsify"]


def is_stored() -> Column:
    """Return whether a row is a stored similarity: of two different points, and not -infinity."""
    return (F.col("i") != F.col("k")) & (F.col("s") > float("-inf"))


def merge_duplicates(edges: DataFrame, on_duplicate: OnDuplicate) -> DataFrame:
    """Return one row for each pair: (i, k, s, rows, bad).

    s is the largest, smallest or mean value of the pair, as ``on_duplicate`` says; for "error" it is the largest.
    ``rows`` counts how often the pair was given, ``bad`` how many of the values are no similarity.
    """
    is_bad = is_no_similarity(F.col("s"))
    # The mean adds in the order of the values, so that it does not depend on the order of the rows.
    total = F.aggregate(F.array_sort(F.collect_list("s")), F.lit(0.0), lambda sum_, s: sum_ + s)
    merged = {"min": F.min("s"), "mean": total / F.nullif(F.count("s"), F.lit(0))}.get(on_duplicate, F.max("s"))
    return edges.groupBy("i", "k").agg(
        merged.alias("s"), F.count("*").alias("rows"), F.sum(is_bad.cast("bigint")).alias("bad")
    )


def changes_pairs(rules: Sparsification) -> bool:
    """Return whether `sparsify` does anything by these rules."""
    return not (rules.min_similarity is None and rules.top is None and rules.symmetrize in (None, "none"))


def sparsify(
    similarities: DataFrame,
    *,
    min_similarity: float | None = None,
    top: int | None = None,
    symmetrize: Symmetrize = "none",
) -> DataFrame:
    """Leave out small similarities, keep the largest of each point, then make the pairs symmetric.

    The three steps are taken in this order. `affinity_propagation` takes the same steps when it is given the same
    arguments.

    Parameters
    ----------
    similarities : DataFrame
        (i, k, s), each pair (i, k) once. Rows (k, k) are preferences and stay as they are. Pairs with s = -infinity
        are not stored, and are left out. Other columns are dropped.
    min_similarity : float, optional
        Leave out similarities below this number.
    top : int, optional
        Keep so many of the largest similarities of each point i, at least 1. Of equal ones those to the smallest ids
        are kept.
    symmetrize : {"none", "union", "mutual"}
        What to do with a pair that is stored in one direction only. "union" adds the other direction, with the same
        similarity. "mutual" leaves the pair out. "none" leaves it as it is. Where both directions are stored, each
        keeps its own similarity.

    Returns
    -------
    DataFrame
        (i, k, s), with ids as bigint or string and s as double. Nothing is computed before it is read.

    Raises
    ------
    InputError
        If a column is missing or has the wrong type.
    SettingError
        If a parameter breaks its rule.

    Notes
    -----
    Values are not checked here. A row that `affinity_propagation` refuses (s null or NaN, an id null) is still there
    in the result; an s that was null is NaN.

    Examples
    --------
    >>> edges = spark.createDataFrame([(0, 1, -1.0), (0, 2, -3.0), (2, 1, -2.0)], "i int, k int, s double")
    >>> sparsify(edges, top=1, symmetrize="union").orderBy("i", "k").show()
    +---+---+----+
    |  i|  k|   s|
    +---+---+----+
    |  0|  1|-1.0|
    |  1|  0|-1.0|
    |  1|  2|-2.0|
    |  2|  1|-2.0|
    +---+---+----+
    <BLANKLINE>
    """
    rules = Sparsification(min_similarity=min_similarity, top=top, symmetrize=symmetrize)
    # NaN is larger than any number in Spark, so no step below leaves it out, as they would leave out null.
    edges = edge_table(similarities).withColumn("s", F.coalesce("s", F.lit(float("nan"))))
    is_pair = F.coalesce(F.col("i") != F.col("k"), F.lit(False))  # null where an id is null
    stored = edges.where(is_pair & is_stored())
    if rules.min_similarity is not None:
        stored = stored.where(F.col("s") >= rules.min_similarity)
    if rules.top is not None:
        rank = F.row_number().over(Window.partitionBy("i").orderBy(F.desc("s"), "k"))
        stored = stored.withColumn("rank", rank).where(F.col("rank") <= rules.top).drop("rank")
    if rules.symmetrize not in (None, "none"):
        stored = _both_directions(stored, needs_both=rules.symmetrize == "mutual")
    return stored.union(edges.where(~is_pair))


def _both_directions(stored: DataFrame, *, needs_both: bool) -> DataFrame:
    """Return each pair in both directions.

    A direction that is not stored gets the similarity of the other one. With ``needs_both``, pairs that are stored in
    one direction only are left out instead.
    """
    is_upward = F.col("i") < F.col("k")
    pairs = stored.groupBy(F.least("i", "k").alias("low"), F.greatest("i", "k").alias("high")).agg(
        F.max(F.when(is_upward, F.col("s"))).alias("up"), F.max(F.when(~is_upward, F.col("s"))).alias("down")
    )
    if needs_both:
        pairs = pairs.where("up is not null and down is not null")
    up = F.struct(F.col("low").alias("i"), F.col("high").alias("k"), F.coalesce("up", "down").alias("s"))
    down = F.struct(F.col("high").alias("i"), F.col("low").alias("k"), F.coalesce("down", "up").alias("s"))
    return pairs.select(F.inline(F.array(up, down)))
