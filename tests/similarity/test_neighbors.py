"""The nearest neighbours over Spark tasks, against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from scipy.spatial.distance import cdist

from ap_spark import (
    SettingError,
    nearest_neighbors,
    similarities,
)
from ap_spark.settings import MetricName, Search
from ap_spark.similarity.metrics import pairwise
from benchmarks.workload import clustered_points
from tests.conftest import LONG
from tests.similarity.examples import DATA, Array, brute_force, make_frame, rows_of


@pytest.mark.long
@pytest.mark.parametrize("partitions", [pytest.param(1, marks=LONG), 3, pytest.param(16, marks=LONG)])
@pytest.mark.parametrize("data", [pytest.param("random", marks=LONG), "duplicates"])
def test_exact_neighbours_are_those_of_brute_force(
    spark: SparkSession, data: str, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = DATA[data]
    if partitions == 3:  # several parts ask several shards, each in several packs
        for name, value in (
            ("distributed_search._QUERIES_A_TASK", 150),
            ("distributed_search._SHARD_BYTES", x.nbytes // 3),
            ("packs.PACK_BYTES", 2000),
        ):
            monkeypatch.setattr(f"ap_spark.similarity.{name}", value)
    found = nearest_neighbors(make_frame(spark, x).repartition(partitions), 20, search="exact")
    assert (found.search, found.recall) == ("exact", 1.0)
    rows = rows_of(found.edges)
    assert len(rows) == 20 * len(x)
    assert {(i, k) for i, k, _ in rows} == {(i, k) for i, k, _ in brute_force(-cdist(x, x, "sqeuclidean"), 20)}
    s = pairwise(x, x)
    assert all(value == s[i, k] for i, k, value in rows)


@LONG
def test_approximate_neighbours(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """In many groups, of regions in parts and shards, with names as ids and many duplicates."""
    x = clustered_points(3000, 6, a_cluster=100, spread=2.0)
    x[:500] = x[500:505].repeat(100, axis=0)
    names = [f"p{n:04}" for n in range(len(x))]
    for name, value in (
        ("distributed_search._QUERIES_A_TASK", 400),
        ("distributed_search._SHARD_BYTES", 40_000),
        ("distributed_search._SAMPLE_POINTS", 300),
        ("packs.PACK_BYTES", 3000),
    ):
        monkeypatch.setattr(f"ap_spark.similarity.{name}", value)
    points = make_frame(spark, x, names)
    found = nearest_neighbors(points, 10, search="approximate", recall=0.9)
    assert found.search == "approximate"
    assert 0.9 <= found.recall < 1.0, "the sample asks for some of the cells, not all"
    rows = rows_of(found.edges)
    index = {name: n for n, name in enumerate(names)}
    s = pairwise(x, x)
    assert all(value == s[index[i], index[k]] for i, k, value in rows)
    assert len(rows) == len({(i, k) for i, k, _ in rows}) <= 10 * len(x)
    assert all(i != k for i, k, _ in rows)
    true = brute_force(s, 10)
    share = len({(index[i], index[k], value) for i, k, value in rows} & true) / len(true)
    assert share > found.recall - 0.02  # in shards of a region more cells are searched than asked for
    again = nearest_neighbors(points.repartition(5), 10, search="approximate", recall=0.9)
    assert (again.recall, sorted(rows_of(again.edges))) == (found.recall, sorted(rows))


@pytest.mark.long
@pytest.mark.parametrize("metric", ["manhattan", "correlation"])
def test_approximate_neighbours_by_other_metrics_are_all_found(spark: SparkSession, metric: MetricName) -> None:
    x = DATA["random"]
    found = nearest_neighbors(make_frame(spark, x), 10, metric=metric, search="approximate", recall=1.0)
    assert found.recall == 1.0
    assert sorted(rows_of(found.edges)) == sorted(brute_force(pairwise(x, x, metric), 10))


@pytest.mark.long
@pytest.mark.parametrize("shard_bytes", [2**27, 1000])
def test_everyone_has_as_many_neighbours(
    spark: SparkSession, shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cells looked into hold fewer: correlations of three numbers lie on a circle."""
    monkeypatch.setattr("ap_spark.similarity.distributed_search._SHARD_BYTES", shard_bytes)
    monkeypatch.setattr("ap_spark.similarity.distributed_search._QUERIES_A_TASK", 100)
    x = np.random.default_rng(1).normal(size=(300, 3))
    found = nearest_neighbors(make_frame(spark, x), 10, metric="correlation", search="approximate", recall=0.5)
    rows = rows_of(found.edges)
    assert (np.bincount([i for i, _, _ in rows]) == 10).all()
    true = brute_force(pairwise(x, x, "correlation"), 10)
    assert len({(i, k) for i, k, _ in rows} & {(i, k) for i, k, _ in true}) / len(true) >= found.recall - 0.01


@pytest.mark.long
def test_auto_is_exact_while_that_is_cheap(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flat, points = make_frame(spark, DATA["grid"]), make_frame(spark, DATA["random"])
    assert nearest_neighbors(points, 3).search == "exact"
    monkeypatch.setattr("ap_spark.similarity.neighbors._EXACT_WORK", 100)
    assert nearest_neighbors(flat, 3).search == "exact", "three dimensions"
    assert nearest_neighbors(points, 3).search == "approximate"
    assert nearest_neighbors(points, 3, metric="dot").search == "exact"
    monkeypatch.setattr("ap_spark.similarity.neighbors.find_spec", lambda _: None)
    assert nearest_neighbors(points, 3).search == "exact"
    assert "takes long: for an approximate search it needs faiss: pip install" in caplog.text
    with pytest.raises(SettingError, match="approximate is not possible here: it needs faiss"):
        nearest_neighbors(points, 3, search="approximate")


def test_a_function_as_metric(spark: SparkSession) -> None:
    def third_power(x: Array, y: Array) -> Array:
        return np.asarray(-(cdist(x, y, "minkowski", p=3) ** 3))

    x = DATA["grid"][:90]
    points = make_frame(spark, x).repartition(3)
    s = third_power(x, x)
    assert sorted(rows_of(nearest_neighbors(points, 7, metric=third_power).edges)) == sorted(brute_force(s, 7))
    assert {(i, k): value for i, k, value in rows_of(similarities(points, metric=third_power))} == {
        (i, k): s[i, k] for i in range(90) for k in range(90) if i != k
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbors": None}, "neighbors must be at least 1, got None"),
        ({"neighbors": 0}, "neighbors must be at least 1, or all, got 0"),
        ({"search": "quick"}, "search must be one of auto, exact, approximate, got 'quick'"),
        ({"recall": 0.0}, r"recall must be in \(0, 1\], got 0.0"),
        ({"metric": "l3"}, "metric must be one of sqeuclidean, .* or a function of two arrays, got 'l3'"),
        ({"metric": 3}, "or a function of two arrays, got 3"),
        ({"metric": "gaussian"}, "metric gaussian needs a width"),
        ({"metric": "gaussian", "width": -1.0}, "width must be a finite number of at least 1e-145, got -1.0"),
        ({"metric": "gaussian", "width": 1e-300}, "width must be a finite number of at least 1e-145, got 1e-300"),
        ({"metric": "cosine", "width": 1.0}, "width belongs to metric gaussian, not to 'cosine'"),
        ({"metric": "dot", "search": "approximate"}, "it needs a metric that is a distance, not dot"),
    ],
)
def test_settings_of_the_search(spark: SparkSession, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        nearest_neighbors(make_frame(spark, DATA["wide"]), **({"neighbors": 3} | options))


@pytest.mark.long
@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_hardly_any_points(spark: SparkSession, search: Search) -> None:
    for n in (1, 2):
        found = nearest_neighbors(make_frame(spark, DATA["random"][:n]), 3, search=search)
        assert found.recall == 1.0
        assert found.edges.count() == n * (n - 1)
