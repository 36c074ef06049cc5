"""What features have to be, and what a function has to be that compares them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.spatial.distance import cdist

from ap_spark import (
    InputError,
    SettingError,
    describe,
    nearest_neighbors,
    preference_quantile,
    preference_range,
    similarities,
)
from ap_spark.settings import MetricName
from ap_spark.similarity.metrics import METRICS
from ap_spark.similarity.vectors import check_range
from tests.conftest import LONG, affinity_propagation
from tests.similarity.examples import DATA, Array, make_frame


@pytest.mark.parametrize(
    ("metric", "row", "message"),
    [
        ("cosine", [0.0, 0.0], "no vector may be zero.*2 vectors are: id=1; id=2"),
        ("correlation", [4.0, 4.0], "constant"),
    ],
)
def test_vectors_without_similarity(spark: SparkSession, metric: MetricName, row: list[float], message: str) -> None:
    points = make_frame(spark, np.array([[1.0, 2.0], row, row]))
    for function in (similarities, lambda *_, **options: nearest_neighbors(points, 1, **options)):
        with pytest.raises(InputError, match=message):
            function(points, metric=metric)


@pytest.mark.parametrize(
    ("metric", "size", "message"),
    [
        ("sqeuclidean", 1e160, "features must be so small that .* but they reach 1e.160: divide them all"),
        ("dot", 1e154, "so small that"),
        ("manhattan", 1e308, "so small that"),
        ("euclidean", 1e-170, "features must be so large that .* reach 1e-170 only: multiply them all"),
        ("dot", 1e-170, "so large that"),
    ],
)
def test_features_whose_similarities_64_bits_do_not_hold(metric: str, size: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_range(METRICS[metric], size, 3)


def test_features_are_checked_for_their_size(spark: SparkSession) -> None:
    points = make_frame(spark, np.array([[1.0], [-1e160]]))
    for function in (similarities, lambda points: nearest_neighbors(points, 1)):
        with pytest.raises(InputError, match=r"they reach 1e\+160"):
            function(points)


@pytest.mark.parametrize(
    ("schema", "rows", "message"),
    [
        ("id int, features array<string>", [(0, ["1"])], "features must be arrays of numbers, got array<string>"),
        (
            "id int, features array<float>",
            [(0, [1.0]), (1, [1.0, 2.0])],
            r"one length, at least 1, but they have lengths 1 \(id 0\) and 2 \(id 1\)",
        ),
        (
            "id int, features array<float>",
            [(0, []), (1, [])],
            r"but they have lengths 0 \(id 0\)$",
        ),
        ("id int, features array<double>", [(0, [1.0]), (1, [None])], "in 1 row they are not: id=1"),
        ("id int, features array<double>", [(0, [1.0]), (1, None)], "in 1 row they are not: id=1"),
        ("id double, features array<double>", [(0.5, [1.0])], "ids must be integers or strings"),
    ],
)
def test_points_that_are_none(spark: SparkSession, schema: str, rows: list[Any], message: str) -> None:
    points = spark.createDataFrame(rows, schema)
    for function in (similarities, lambda points: nearest_neighbors(points, 1)):
        with pytest.raises(InputError, match=message):
            function(points)


FAILING = "a metric must be a function of two arrays, but"


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (lambda x, y: None, "<lambda> returned NoneType for arrays of shapes (3, 5) and (2, 5)"),
        (lambda x, y: -1.0, "<lambda> returned float for"),
        (lambda x, y: x @ y.T + 1j, "<lambda> returned complex128 of shape (3, 2) for"),
        (lambda x, y: np.full((len(x), len(y)), "1"), "<lambda> returned <U1 of shape (3, 2) for"),
        (lambda x, y: np.full((len(x), len(y)), None), "<lambda> returned object of shape (3, 2) for"),
        (
            lambda x, y: y @ x.T,
            "in an array of shape (m, n) for arrays of shapes (m, d) and (n, d), but <lambda> returned",
        ),
        (lambda x: x, FAILING + " <lambda> failed for arrays of shapes (3, 5) and (2, 5): TypeError: "),
        (lambda x, y: [[1.0], [1.0, 2.0], [1.0]], FAILING + " <lambda> failed for"),
    ],
)
def test_a_function_that_gives_no_numbers(spark: SparkSession, returns: Any, message: str) -> None:
    points = make_frame(spark, DATA["random"][:5])
    for function in (similarities, lambda points, metric: nearest_neighbors(points, 3, metric=metric)):
        with pytest.raises(SettingError) as refused:
            function(points, metric=returns)
        assert message in str(refused.value)
    assert isinstance(refused.value.__cause__, Exception) == ("failed" in str(refused.value))


@LONG
def test_a_function_that_fails_in_a_task(spark: SparkSession) -> None:
    """On points that it is not tried on before; whoever reads the similarities first is told."""

    def picky(x: Array, y: Array) -> Array:
        if max(x.max(), y.max()) > 100.0:
            raise KeyError("too far\nby much")
        return x @ y.T

    points = make_frame(spark, np.array([[0.0], [1.0], [2.0], [3.0], [101.0]]))
    found = [similarities(points, metric=picky), nearest_neighbors(points, 3, metric=picky).edges]
    readers: list[Callable[[DataFrame], Any]] = [affinity_propagation, describe, preference_range, preference_quantile]
    for read, edges in zip(readers, 2 * found, strict=True):
        with pytest.raises(SettingError, match=r"but picky failed for arrays of shapes .*: KeyError: 'too far"):
            read(edges)
    lock = threading.Lock()
    with pytest.raises(SettingError, match=r"can be sent to Spark's tasks, but <function .*lock"):
        similarities(points, metric=lambda x, y: x @ y.T if lock else y)


def test_a_function_may_change_what_it_is_given(spark: SparkSession) -> None:
    points = make_frame(spark, DATA["random"][:20])

    def careless(x: Array, y: Array) -> Array:
        return np.negative(x, out=x) @ y.T

    for compute in (similarities, lambda points, metric: nearest_neighbors(points, 5, metric=metric).edges):
        found, expected = (compute(points, metric=metric).collect() for metric in (careless, lambda x, y: -x @ y.T))
        assert sorted(found) == sorted(expected)


def test_a_function_that_is_no_metric(spark: SparkSession) -> None:
    points = make_frame(spark, DATA["random"])
    with pytest.raises(SettingError, match=r"shape \(m, n\).*<lambda> returned float64 of shape \(3,\) for"):
        nearest_neighbors(points, 3, metric=lambda x, y: x.sum(axis=1))
    with pytest.raises(SettingError, match="approximate is not possible here: it needs a metric that is a distance"):
        nearest_neighbors(points, 3, metric=lambda x, y: -cdist(x, y), search="approximate")
    broken = nearest_neighbors(points, 3, metric=lambda x, y: np.where(x[:, :1] > y[:, 0], np.nan, -1.0))
    with pytest.raises(InputError, match=r"in column 's' [0-9,]+ rows are null, NaN or \+infinite: i=0"):
        affinity_propagation(broken.edges)
