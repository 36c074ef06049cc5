"""From points or similarities to clusters, as Python programs hold them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pyspark.sql.functions as F
import pytest
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession

from ap_spark import (
    Clustering,
    InputError,
    SettingError,
    Similarity,
    Sparsification,
    affinity_propagation,
    cluster_points,
    describe,
    describe_points,
    nearest_neighbors,
    similarities,
)
from tests.conftest import assigned

X = np.array([[1.0, 0.0], [2.0, 0.5], [3.0, 0.0], [7.0, 0.0], [8.0, 0.5], [9.0, 0.0]])
TABLE = pd.DataFrame(X, columns=["x", "y"])
NAMES = ["a", "b", "c", "d", "e", "f"]

pytestmark = pytest.mark.usefixtures("spark")


def outcome(clustering: Clustering) -> tuple[Any, ...]:
    summary = clustering.summary
    return assigned(clustering), summary.netsim, summary.n_iter, summary.fingerprint


def test_points_of_any_form_give_the_same_clusters(spark: SparkSession) -> None:
    """Arrays, tables of pandas, columns, arrays and vectors of Spark; and what the two functions compute."""
    numbered = spark.createDataFrame([(n, *row) for n, row in enumerate(X.tolist())], "id bigint, x double, y double")
    arrays = numbered.select("id", F.array("x", "y").alias("features"))
    expected = outcome(affinity_propagation(similarities(arrays), preference=-25.0))
    assert expected[0] == [1, 1, 1, 4, 4, 4]
    assembled = VectorAssembler(inputCols=["x", "y"], outputCol="features").transform(numbered)
    forms: list[Any] = [X, X.astype(np.float32), TABLE, numbered, arrays, assembled.select("id", "features")]
    forms += [pd.DataFrame({"id": range(6), "features": list(X)}), TABLE.set_index(np.arange(6)).iloc[::-1]]
    for points in forms:
        assert outcome(cluster_points(points, preference=-25.0)) == expected


def test_ids_are_the_index_of_pandas_or_the_column_id() -> None:
    named = [NAMES[n] for n in (1, 1, 1, 4, 4, 4)]
    assert assigned(cluster_points(TABLE.set_index(pd.Index(NAMES)), preference=-25.0)) == named
    assert assigned(cluster_points(TABLE.assign(id=NAMES), preference=-25.0)) == named


def test_neighbours_are_stored_in_both_directions_unless_told_otherwise(spark: SparkSession) -> None:
    few = Similarity(neighbors=1)
    found = cluster_points(X, similarity=few, preference=-25.0)
    points = spark.createDataFrame([(n, row) for n, row in enumerate(X.tolist())], "id bigint, features array<double>")
    edges = nearest_neighbors(points, 1).edges
    union = affinity_propagation(edges, preference=-25.0, sparsification=Sparsification(symmetrize="union"))
    assert outcome(found) == outcome(union)
    assert found.summary.neighbors == {"neighbors": 1, "search": "exact", "recall": 1.0}
    one_way = cluster_points(X, similarity=few, preference=-25.0, sparsification=Sparsification(symmetrize="none"))
    assert one_way.summary.n_edges == 6 < found.summary.n_edges


def test_scaling_metric_and_own_preferences() -> None:
    own = TABLE.assign(preference=[-9.0, -1.0, -9.0, -9.0, -1.0, -9.0])
    found = cluster_points(own, similarity=Similarity(scale="minmax", metric="manhattan"))
    assert assigned(found) == [1, 1, 1, 4, 4, 4]
    given = pd.DataFrame({"id": range(6), "preference": own["preference"]})
    again = cluster_points(TABLE, similarity=Similarity(scale="minmax", metric="manhattan"), preference=given)
    assert outcome(again) == outcome(found)
    for more in ({"preference": -1.0}, {"clusters": 2}, {"preference": given}):
        with pytest.raises(SettingError, match="give the preference in one way"):
            cluster_points(own, **more)


def test_similarities_of_pandas_and_a_function_as_metric() -> None:
    def minus_squares(x: Any, y: Any) -> Any:
        return -((x[:, None] - y[None]) ** 2).sum(axis=-1)

    found = cluster_points(X, similarity=Similarity(metric=minus_squares), preference=-25.0)
    s = minus_squares(X, X)
    i, k = np.nonzero(~np.eye(6, dtype=bool))
    table = pd.DataFrame({"i": i, "k": k, "s": s[i, k]})
    points = pd.DataFrame({"id": range(6)})
    given = affinity_propagation(table, points=points, preference=-25.0)
    assert outcome(given) == outcome(found)
    assert "minus_squares" in found.summary.settings["metric"]
    assert describe(table, preference=-25.0).n_edges == 30
    assert describe_points(X, similarity=Similarity(metric=minus_squares)).similarity_quantiles[1.0] == -1.25


def test_what_is_no_table_is_refused_in_words() -> None:
    with pytest.raises(InputError, match=r"similarities must be a DataFrame of Spark or pandas, got an array of shape"):
        affinity_propagation(X)  # type: ignore[arg-type]
    for x in (np.array(["a"]), np.zeros(3), np.zeros((2, 2, 2))):
        with pytest.raises(InputError, match=r"points must be an array of numbers of shape \(n_points, n_features\)"):
            cluster_points(x)
    functions: list[Any] = [cluster_points, affinity_propagation, describe, describe_points]
    for function in functions:
        with pytest.raises(InputError, match="must be a Spark DataFrame, got list"):
            function([1, 2])
    with pytest.raises(InputError, match="i, k, s"):
        affinity_propagation(TABLE)


def test_more_clusters_than_points_are_refused_before_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.pipeline._similarities", None)
    with pytest.raises(SettingError, match="clusters must be at most the number of points, 6, got 7"):
        cluster_points(X, clusters=7)


def test_a_callback_stops_the_run_and_hears_of_stages() -> None:
    heard: list[str] = []

    class Callback:
        def __call__(self, done: object) -> bool:
            heard.append("iteration")
            return False

        def stage(self, name: str, spark: SparkSession) -> Any:
            heard.append(name)
            return nullcontext()

    cluster_points(X, callback=Callback())
    assert [name for n, name in enumerate(heard) if name not in heard[:n]] == [
        "similarities",
        "graph",
        "iteration",
        "clusters",
    ]
