"""From points or similarities to clusters, as Python programs hold them."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyspark.sql.functions as F
import pytest
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession
from scipy.sparse import coo_array

from ap_spark import (
    Clustering,
    Execution,
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
from ap_spark.settings import EngineName
from tests.conftest import LONG, assigned

X = np.array([[1.0, 0.0], [2.0, 0.5], [3.0, 0.0], [7.0, 0.0], [8.0, 0.5], [9.0, 0.0]])
TABLE = pd.DataFrame(X, columns=["x", "y"])
NAMES = ["a", "b", "c", "d", "e", "f"]

pytestmark = pytest.mark.usefixtures("spark")


def outcome(clustering: Clustering) -> tuple[Any, ...]:
    summary = clustering.summary
    return assigned(clustering), summary.netsim, summary.n_iter, summary.fingerprint


@LONG
@pytest.mark.parametrize("part", [0, 1])
def test_points_of_any_form_give_the_same_clusters(spark: SparkSession, part: int) -> None:
    """Arrays, tables of pandas, columns, arrays and vectors of Spark; and what the two functions compute."""
    numbered = spark.createDataFrame([(n, *row) for n, row in enumerate(X.tolist())], "id bigint, x double, y double")
    arrays = numbered.select("id", F.array("x", "y").alias("features"))
    expected = outcome(affinity_propagation(similarities(arrays), preference=-25.0))
    assert expected[0] == [1, 1, 1, 4, 4, 4]
    assembled = VectorAssembler(inputCols=["x", "y"], outputCol="features").transform(numbered)
    forms: list[Any] = [X, X.astype(np.float32), TABLE, numbered, arrays, assembled.select("id", "features")]
    forms += [pd.DataFrame({"id": range(6), "features": list(X)}), TABLE.set_index(np.arange(6)).iloc[::-1]]
    forms += [numbered.selectExpr("cast(id as int) id", "array(float(x), y) features")]
    for points in forms[part::2]:
        assert outcome(cluster_points(points, preference=-25.0)) == expected
    for small in ("uint8", "float16"):  # which Spark has not
        assert assigned(cluster_points((2 * TABLE).astype(small), preference=-100.0)) == expected[0]


def test_ids_are_the_index_of_pandas_or_the_column_id() -> None:
    named = [NAMES[n] for n in (1, 1, 1, 4, 4, 4)]
    assert assigned(cluster_points(TABLE.set_index(pd.Index(NAMES)), preference=-25.0)) == named
    assert assigned(cluster_points(TABLE.assign(id=NAMES), preference=-25.0)) == named


@LONG
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


@pytest.mark.long
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


@LONG
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
    matrices: list[Any] = [X, X @ X.T, coo_array(X @ X.T)]
    for matrix, message in zip(matrices, ("`cluster_points` takes", "np.nonzero", "S = S.tocoo()"), strict=True):
        with pytest.raises(InputError, match="similarities must be a .*" + re.escape(message)):
            affinity_propagation(matrix)
    with pytest.raises(InputError, match=r"points must be an array .*`\.toarray\(\)`"):
        cluster_points(matrices[2])
    for x in (np.array(["a"]), np.zeros(3), np.zeros((2, 2, 2))):
        with pytest.raises(InputError, match=r"points must be an array of numbers of shape \(n_points, n_features\)"):
            cluster_points(x)
    functions: list[Any] = [cluster_points, affinity_propagation, describe, describe_points]
    for function in functions:
        with pytest.raises(InputError, match=r"must be a DataFrame of Spark or pandas.*, got list of builtins"):
            function([1, 2])
    with pytest.raises(InputError, match="i, k, s"):
        affinity_propagation(TABLE)


def test_the_table_of_a_matrix_is_made_as_the_message_says() -> None:
    s = -((X[:, None] - X[None]) ** 2).sum(axis=-1)
    i, k = np.nonzero(~np.eye(len(s), dtype=bool))
    table = pd.DataFrame({"i": i, "k": k, "s": s[i, k]})
    assert outcome(affinity_propagation(table, preference=-25.0)) == outcome(cluster_points(X, preference=-25.0))
    np.fill_diagonal(s, -25.0)
    sparse = coo_array(s)
    table = pd.DataFrame({"i": sparse.row, "k": sparse.col, "s": sparse.data})
    assert assigned(affinity_propagation(table)) == [1, 1, 1, 4, 4, 4]


WRONG_KEYWORDS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "n_clusters": (cluster_points, {"n_clusters": 3}, "cluster_points() has no argument 'n_clusters': write clu"),
    "affinity": (cluster_points, {"affinity": "euclidean"}, "write similarity=Similarity(metric='euclidean')"),
    "precomputed": (cluster_points, {"affinity": "precomputed"}, "affinity_propagation takes similarities"),
    "max_iterations": (affinity_propagation, {"max_iterations": 9}, "'max_iterations': write max_iter=9"),
    "two": (cluster_points, {"convergence": 9, "random_state": 1}, "=9, and 'random_state': write seed=1"),
    "metric": (affinity_propagation, {"metric": "cosine"}, "'metric': it is of points, which cluster_points and"),
    "neighbors": (cluster_points, {"neighbors": 5}, "write similarity=Similarity(neighbors=5)"),
    "n_neighbors": (describe_points, {"n_neighbors": X}, "write similarity=Similarity(neighbors=...)"),
    "top": (affinity_propagation, {"top": 5}, "write sparsification=Sparsification(top=5)"),
    "resume": (cluster_points, {"resume": False}, "write checkpoint=Snapshots(resume=False)"),
    "polish": (cluster_points, {"polish": False}, "write quality=Quality(polish=False)"),
    "gap": (describe_points, {"gap": 0.01}, "'gap': it is of cluster_points and affinity_propagation"),
    "a slip": (cluster_points, {"dampin": 0.5}, "has no argument 'dampin' (did you mean 'damping'?)"),
    "of a run": (describe, {"damping": 0.5}, "it is of cluster_points and affinity_propagation"),
    "jitter": (affinity_propagation, {"jitter": False}, "seed=None leaves ties as they are"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_KEYWORDS)
def test_arguments_that_there_are_not_say_what_to_write(case: str) -> None:
    function, given, message = WRONG_KEYWORDS[case]
    with pytest.raises(TypeError, match=re.escape(message)):
        function(X, **given)


def test_arguments_of_the_wrong_kind_show_the_right_one() -> None:
    wrong: Any
    for wrong, message in (
        ({"similarity": "cosine"}, "got 'cosine': similarity=Similarity(metric='cosine')"),
        ({"execution": "dataframe"}, "got 'dataframe': execution=Execution(engine='dataframe')"),
        ({"clusters": 8.0}, "clusters must be a whole number, at least 1, got 8.0, of type float"),
        ({"preference": np.zeros(5000)}, 'got 5,000 in a ndarray: pd.DataFrame({"id": ids, "preference": values})'),
    ):
        with pytest.raises(SettingError, match=re.escape(message)):
            cluster_points(X, **wrong)


@pytest.mark.parametrize("engine", [name for name in get_args(EngineName) if name != "auto"])
def test_ids_of_points_with_arrays_are_checked_too(spark: SparkSession, engine: EngineName) -> None:
    for ids, message in ((["a", "a", "b"], "'a'"), (["a", None, "b"], "null")):
        table = spark.createDataFrame(
            [(name, [float(n)]) for n, name in enumerate(ids)], "id string, features array<double>"
        )
        with pytest.raises(InputError, match=message):
            cluster_points(table, execution=Execution(engine=engine))
    for columns in ("features", "double(n) id, features"):
        table = spark.range(3).selectExpr("id n", "array(double(id)) features").selectExpr(*columns.split(", "))
        with pytest.raises(InputError, match="id"):
            cluster_points(table, execution=Execution(engine=engine))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (TABLE.assign(name=NAMES), r"column 'name' holds text: if it is the id, `.set_index\('name'\)`"),
        (TABLE.assign(ID=range(6)), r"there is a column 'ID' .*`.set_index\('ID'\)`"),
        (TABLE.iloc[[0, 0, 1]], r"0 is given several times: `.reset_index\(drop=True\)`"),
        (pd.concat([TABLE, TABLE], axis=1), "several called 'x'"),
        (TABLE.assign(x=1j), "must have columns of numbers, strings or arrays of numbers"),
        (TABLE.assign(x=float("nan")), "features must be finite numbers, but in 6 rows they are not: id=0"),
        (np.ma.masked_array(X, mask=X > 8), "without a mask"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
    ],
)
def test_tables_of_pandas_that_are_no_points_are_refused_in_words(points: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_points(points)


@pytest.mark.parametrize("given", ["median", [-1.0, -2.0], np.array([-1.0])])
def test_a_preference_is_a_number_or_a_table(given: Any) -> None:
    with pytest.raises(SettingError, match=r"preference must be a finite number, or a table \(id, preference\), got"):
        cluster_points(X, preference=given)


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

        def stage(self, name: str, spark: SparkSession | None) -> Any:
            heard.append(name)
            return nullcontext()

        def close(self) -> None:
            heard.append("closed")

    cluster_points(X, callback=Callback())
    assert [name for n, name in enumerate(heard) if name not in heard[:n]] == [
        "similarities",
        "graph",
        "iteration",
        "clusters",
        "closed",
    ]
