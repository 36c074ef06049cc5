"""Quantiles of similarities against numpy, and the range of preferences against R."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

import ap_spark
from tests.conftest import LONG, ROOT, Edges

Frame = Callable[[Edges], DataFrame]


def test_preference_range_of_iris(spark: SparkSession) -> None:
    x = np.loadtxt(ROOT / "data" / "iris.csv", delimiter=",", skiprows=1, usecols=range(4))
    points = spark.createDataFrame([(n, row) for n, row in enumerate(x.tolist())], "id int, features array<double>")
    found = ap_spark.preference_range(ap_spark.similarities(points))
    assert found.p_min == pytest.approx(-688.76, abs=0.005)
    assert found.p_max == 0.0


def test_preference_quantiles_are_those_of_numpy(spark: SparkSession) -> None:
    values = np.random.default_rng(0).normal(size=200)
    edges = spark.createDataFrame([(0, n + 1, float(s)) for n, s in enumerate(values)], "i int, k int, s double")
    for q in (0.0, 0.1, 0.5, 0.93, 1.0):
        assert ap_spark.preference_quantile(edges, q) == np.quantile(values, q)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_preferences_of_what_is_no_similarity(spark: SparkSession, bad: float | None) -> None:
    edges = spark.createDataFrame([(0, 1, -1.0), (1, 0, bad)], "i int, k int, s double")
    for function in (ap_spark.preference_quantile, ap_spark.preference_range):
        with pytest.raises(ap_spark.InputError, match="in column 's' 1 row is null, NaN or \\+infinite: i=1, k=0"):
            function(edges)


@LONG
@pytest.mark.parametrize("decimals", [pytest.param(0, marks=LONG), 2, pytest.param(17, marks=LONG)])
def test_quantiles_are_exact_where_the_cluster_counts(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, decimals: int
) -> None:
    """With few decimals many are equal, and of the 5,001 at most ten are looked at together."""
    monkeypatch.setattr("ap_spark.graph.preferences._DRIVER_SIMILARITIES", 10)
    monkeypatch.setattr("ap_spark.graph.preferences._BUCKETS", 16)
    values = np.round(np.random.default_rng(0).normal(size=5001), decimals)
    values[:2] = -1e308, 1e308
    edges = spark.createDataFrame([(0, n + 1, float(s)) for n, s in enumerate(values)], "i int, k int, s double")
    for q in (0.0, 0.25, 0.33, 1.0):
        assert ap_spark.preference_quantile(edges.repartition(3), q) == np.quantile(values, q)
