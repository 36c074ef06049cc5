"""Preferences: a quantile of the similarities, or a range in which to look (docs/semantics.md, section 6)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyspark.sql.functions as F
from pyspark.sql import DataFrame

from ap_spark.errors import SettingError, errors_from_tasks
from ap_spark.exact_sum import exact_sum, units_of
from ap_spark.graph.sparsify import is_stored
from ap_spark.schema import edge_table, is_no_similarity, refuse_similarities
from ap_spark.settings import Settings

__all__ = ["PreferenceRange", "preference_quantile", "preference_range", "quantiles_of"]

_DRIVER_SIMILARITIES = 10_000_000  # up to so many (80 MB) the driver sorts them; beyond, the cluster counts
_BUCKETS = 4096  # of a histogram


def preference_quantile(similarities: DataFrame, quantile: float = 0.5) -> float:
    """Return a quantile of the stored similarities, to be used as the preference.

    It is exact at any size, with linear interpolation.

    Parameters
    ----------
    similarities : DataFrame
        (i, k, s); rows with i = k or s = -infinity are left out.
    quantile : float
        In [0, 1]; 0.5 is the median, R's default preference; 0 gives few clusters.

    Returns
    -------
    float
        0.0 where there is no similarity at all.

    Raises
    ------
    InputError
        If a column is missing, or a similarity is null, NaN or +infinite.
    SettingError
        If the quantile is outside [0, 1].

    Examples
    --------
    >>> pairs = spark.createDataFrame([(0, 1, -1.0), (1, 0, -2.0), (1, 2, -4.0)], "i int, k int, s double")
    >>> preference_quantile(pairs), preference_quantile(pairs, 0.25)
    (-2.0, -3.0)
    """
    if quantile is None:
        raise SettingError("quantile must be in [0, 1], got None")
    checked = Settings(preference_quantile=quantile).preference_quantile
    assert checked is not None
    stored = _off_diagonal(similarities)
    return quantiles_of(stored, stored.count(), [checked])[0]


def quantiles_of(stored: DataFrame, count: int, quantiles: Sequence[float]) -> list[float]:
    """Return quantiles of the column s of a table of known length; 0 where it has no rows."""
    if not count:
        return [0.0 for _ in quantiles]
    if count <= _DRIVER_SIMILARITIES:
        return [float(value) for value in np.quantile(stored.select("s").toArrow()["s"].to_numpy(), quantiles)]
    places = [divmod(quantile * (count - 1), 1) for quantile in quantiles]
    ends = [(*_at_rank(stored, int(rank)), beyond) for rank, beyond in places]
    return [float(np.quantile([low, high], beyond)) if beyond else low for low, high, beyond in ends]


def _at_rank(stored: DataFrame, rank: int) -> tuple[float, float]:
    """Return the value of s of a rank, counted from 0, and that of the next rank.

    Nothing is sorted at first: the counts of a histogram tell in which bucket the rank lies. That bucket gets a
    histogram of its own, and so on, until the values left are few enough for the driver.
    """
    low, high, count = stored.agg(F.min("s"), F.max("s"), F.count("s")).first() or (0.0, 0.0, 0)
    after = high
    while count > _DRIVER_SIMILARITIES and low < high:
        scale = 1.0 if math.isfinite(high - low) else 0.25
        place = (F.col("s") * scale - low * scale) / (high * scale - low * scale)
        bucket = F.floor(place * _BUCKETS).alias("bucket")
        inside = stored.where(F.col("s").between(low, high)).groupBy(bucket)
        found = inside.agg(F.min("s"), F.max("s"), F.count("s")).orderBy("bucket").drop("bucket").collect()
        before = list(accumulate((row[2] for row in found), initial=0))
        chosen = bisect_right(before, rank) - 1
        rank -= before[chosen]
        low, high, count = found[chosen]
        after = found[chosen + 1][0] if chosen + 1 < len(found) else after
    if low == high:
        return low, low if rank + 1 < count else after
    values = np.sort(stored.where(F.col("s").between(low, high)).select("s").toArrow()["s"].to_numpy())
    return float(values[rank]), float(values[rank + 1]) if rank + 1 < count else after


@dataclass(frozen=True)
class PreferenceRange:
    """Between which preferences the number of clusters goes from one to all.

    Attributes
    ----------
    p_min : float
        Below it there is one cluster. It is a bound: there may be one cluster above it, too. It is -infinity where no
        point has edges from all others.
    p_max : float
        Above it every point is an exemplar.
    """

    p_min: float
    p_max: float


def preference_range(similarities: DataFrame) -> PreferenceRange:
    """Return the range in which to look for a preference.

    Parameters
    ----------
    similarities : DataFrame
        (i, k, s); rows with i = k or s = -infinity are left out.

    Returns
    -------
    PreferenceRange

    Raises
    ------
    InputError
        If a column is missing, or a similarity is null, NaN or +infinite.

    Notes
    -----
    This is R's ``preferenceRange`` with its bound for p_min: Bodenhofer, Kothmeier & Hochreiter, APCluster,
    Bioinformatics 27 (2011); docs/semantics.md, section 6. p_max is the largest similarity. p_min is
    d1 - sum of m_i + the two smallest m_i, where m_i is the largest similarity of row i. d1 is the largest sum of a
    column, among the columns that every other row stores.

    Examples
    --------
    >>> x = [1, 2, 3, 7, 8, 9]
    >>> pairs = [(i, k, -float((a - b) ** 2)) for i, a in enumerate(x) for k, b in enumerate(x) if i != k]
    >>> preference_range(spark.createDataFrame(pairs, "i int, k int, s double"))
    PreferenceRange(p_min=-78.0, p_max=-1.0)
    """
    stored = _off_diagonal(similarities)
    sizes = stored.agg(F.max(F.abs("s")), F.count("s")).first()
    assert sizes is not None
    units = units_of(sizes[0] or 0.0, sizes[1])
    rows = stored.groupBy("i").agg(F.max("s").alias("m")).persist()
    columns = stored.groupBy("k").agg(exact_sum(F.col("s"), units).alias("d"), F.count("s").alias("n"))
    found = rows.agg(exact_sum(F.col("m"), units), F.max("m"), F.count("m")).first()
    two_smallest = [row.m for row in rows.orderBy("m").limit(2).collect()]
    assert found is not None
    total, p_max, n_rows = found
    points = stored.select(F.col("i").alias("id")).union(stored.select("k")).distinct().count()
    best = columns.where(F.col("n") == points - 1).agg(F.max("d")).first()
    rows.unpersist()
    if best is None or best[0] is None or n_rows < points:
        return PreferenceRange(float("-inf"), float("-inf") if p_max is None else p_max)
    return PreferenceRange(best[0] - total + sum(two_smallest), p_max)


def _off_diagonal(similarities: DataFrame) -> DataFrame:
    """Return the stored similarities of pairs of different points.

    Raises
    ------
    InputError
        If a similarity is null, NaN or +infinite.
    """
    edges = edge_table(similarities)
    bad = edges.where(is_no_similarity(F.col("s")))
    with errors_from_tasks():
        count = bad.count()
    if count:
        refuse_similarities(count, bad)
    return edges.where(is_stored())
