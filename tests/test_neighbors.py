"""Points to similarities: metrics against SciPy, neighbours against brute force, scaling against scikit-learn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from ap_spark import (
    InputError,
    SettingError,
    affinity_propagation,
    describe,
    nearest_neighbors,
    preference_quantile,
    preference_range,
    scale,
    similarities,
)
from ap_spark.settings import Search
from ap_spark.similarity.all_pairs import check_range
from ap_spark.similarity.knn_exact import by_tree, nearest
from ap_spark.similarity.knn_ivf import Cells, cells_that_hold, cells_to_probe, nearest_in_cells, train
from ap_spark.similarity.metrics import METRICS, Metric, metric_of, pairwise
from benchmarks.workload import clustered_points

Array = NDArray[np.float64]

DEFINITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "sqeuclidean": lambda x, y: -cdist(x, y, "sqeuclidean"),
    "euclidean": lambda x, y: -cdist(x, y, "euclidean"),
    "manhattan": lambda x, y: -cdist(x, y, "cityblock"),
    "cosine": lambda x, y: 1 - cdist(x, y, "cosine"),
    "correlation": lambda x, y: 1 - cdist(x, y, "correlation"),
    "gaussian": lambda x, y: rbf_kernel(x, y, gamma=1 / (2 * 3.0**2)),
    "dot": lambda x, y: x @ y.T,
}
rng = np.random.default_rng(0)
DATA = {
    "random": rng.normal(size=(400, 5)),
    "duplicates": np.repeat(rng.integers(-9, 9, (8, 4)).astype(float) + 0.5, 30, axis=0)[rng.permutation(240)],
    "grid": rng.integers(0, 3, (300, 3)).astype(float) + np.array([1.0, 2.0, 4.0]),
    "wide": rng.normal(size=(200, 40)),
    "far away": np.array([1e9, 0.0, 0.0]) + rng.integers(0, 40, (200, 3)),
    "outlier": np.vstack([rng.normal(size=(200, 3)), [[1e9, 0.0, 1.0]]]),
    "zeros of both signs": np.array([0.0, -0.0, 1.0, 0.0] * 40).reshape(-1, 2) + np.array([[0.0, 1.0]]),
}


def width_of(metric: str) -> float | None:
    return 3.0 if metric == "gaussian" else None


def make_frame(spark: SparkSession, x: Array, ids: list[Any] | None = None) -> DataFrame:
    features = pa.ListArray.from_arrays(np.arange(0, x.size + 1, x.shape[1], dtype=np.int32), np.ravel(x))
    return spark.createDataFrame(pa.table({"id": ids or list(range(len(x))), "features": features}))


def brute_force(s: Array, n: int) -> set[tuple[int, int, float]]:
    """The n largest similarities of each row, the diagonal left out, ties towards the smallest id."""
    s = np.where(np.eye(len(s), dtype=bool), -np.inf, s)
    best = np.lexsort((np.broadcast_to(np.arange(len(s)), s.shape), -s))[:, :n]
    return {(i, int(k), float(s[i, k])) for i in range(len(s)) for k in best[i]}


def rows_of(edges: DataFrame) -> list[tuple[Any, Any, float]]:
    return [(row.i, row.k, row.s) for row in edges.collect()]


@pytest.mark.parametrize("metric", DEFINITIONS)
def test_every_metric_is_that_of_scipy_or_scikit_learn(metric: str) -> None:
    x, y = 7 * DATA["random"][:50] + 2, 7 * DATA["random"][50:90] - 1
    y[:5] = x[:5]
    for level in (0.0, 1e5):
        if level and metric in ("gaussian", "dot"):
            continue  # rounded data have other similarities; these two say so in the twelfth digit
        found, expected = (
            pairwise(x + level, y + level, metric, width_of(metric)),
            DEFINITIONS[metric](x + level, y + level),
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_similarity_does_not_depend_on_the_other_pairs() -> None:
    x = DATA["wide"]
    for metric in METRICS:
        s = pairwise(x, x, metric, width_of(metric))
        assert (s == s.T).all()
        assert s[13, 57] == pairwise(x[13:14], x[57:58], metric, width_of(metric))[0, 0]


@pytest.mark.parametrize("search", ["by_tree", "by_brute_force"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_are_those_of_brute_force(
    data: str, metric: str, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = DATA[data]
    if metric == "correlation" and (np.ptp(x, axis=1) == 0).any():
        x = x + np.arange(x.shape[1])
    monkeypatch.setattr("ap_spark.similarity.knn_exact.TREE_DIMENSIONS", 100 if search == "by_tree" else 0)
    if search == "by_tree":
        monkeypatch.setattr("ap_spark.similarity.knn_exact.by_brute_force", by_tree)
    by = metric_of(metric, width_of(metric))
    assert not callable(by)
    vectors = by.prepare(x)
    row, neighbor, closeness = nearest(vectors, vectors, np.arange(len(x)), 20, by)
    # Closeness, not similarity, since the root and the exponential make ties of what is none.
    expected = brute_force(by.closeness(vectors.T[:, :, None], vectors.T[:, None, :]), 20)
    assert set(zip(row.tolist(), neighbor.tolist(), closeness.tolist(), strict=True)) == expected


def test_the_nearest_where_hardly_anything_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.similarity.knn_exact.AT_ONCE", 100)  # less than a row needs
    for x, metric in ((np.eye(60), "sqeuclidean"), (np.ones((70, 3)), "manhattan"), (1e-9 * np.eye(60) + 1, "cosine")):
        by = metric_of(metric)
        assert not callable(by)
        vectors = by.prepare(x)
        row, neighbor, closeness = nearest(vectors, vectors, np.arange(len(x)), 5, by)
        expected = brute_force(by.closeness(vectors.T[:, :, None], vectors.T[:, None, :]), 5)
        assert set(zip(row.tolist(), neighbor.tolist(), closeness.tolist(), strict=True)) == expected


@pytest.mark.parametrize("size", [1e-140, 1e-80, 1e80, 1e150])
@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_at_any_scale(metric: str, size: float) -> None:
    by = metric_of(metric, size if metric == "gaussian" else None)
    assert isinstance(by, Metric)
    vectors = by.prepare(size * DATA["random"][:150])
    check_range(by, float(np.abs(vectors).max()), vectors.shape[1])
    row, neighbor, closeness = nearest(vectors, vectors, np.arange(len(vectors)), 20, by)
    expected = brute_force(by.closeness(vectors.T[:, :, None], vectors.T[:, None, :]), 20)
    assert set(zip(row.tolist(), neighbor.tolist(), closeness.tolist(), strict=True)) == expected
    s = by.similarity(closeness)
    unscaled = pairwise(DATA["random"][:150], DATA["random"][:150], metric, 1.0 if metric == "gaussian" else None)
    power = {"sqeuclidean": 2, "dot": 2, "euclidean": 1, "manhattan": 1}.get(metric, 0)
    np.testing.assert_allclose(s / size**power, unscaled[row, neighbor], rtol=1e-9)


def test_correlation_of_vectors_that_hardly_vary_or_are_huge() -> None:
    step = np.spacing(1.0)
    x = np.array([[1.0, 1.0 + step, 1.0], [3.0, 9.0, 3.0], [1.0, 1.0 + step, 1.0 + 2 * step], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(pairwise(x, x, "correlation"), np.corrcoef([[0, 1, 0], [0, 1, 0], [0, 1, 2], [1, 2, 3]]))
    for size in (5e-324, 1.7e308):
        x = np.array([[0.0, 1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0]])
        for metric in ("cosine", "correlation"):
            np.testing.assert_allclose(pairwise(size * x, size * x, metric), pairwise(x, x, metric), rtol=1e-12)


def groups_far_apart(spread: float) -> Array:
    some = np.random.default_rng(4)
    return np.asarray(1e6 * some.integers(0, 3, (3000, 1)) + spread * some.normal(size=(3000, 4)))


some = np.random.default_rng(5)
RESOLVED_BADLY = {  # in 32 bits
    "groups": groups_far_apart(1e-2),
    "overlapping": clustered_points(3000, 4, spread=2.0),
    "grid": DATA["grid"].repeat(3, axis=0),
    "outlier": DATA["outlier"],
    "one dimension dwarfs the others": some.normal(size=(1000, 3)) * [1e15, 1.0, 1.0],
    "by far": some.normal(size=(1000, 3)) * [1e60, 1.0, 1.0],
    "outliers": np.vstack([some.normal(size=(1000, 3)), 1e40 * some.normal(size=(50, 3)), [[1e100, 0.0, 0.0]]]),
    "9 stands for unknown": np.where(some.random((1000, 3)) < 0.05, 1e30, some.normal(size=(1000, 3))),
    "a group in a point": some.normal(size=(1000, 3)) * np.repeat([[1.0], [1e-25]], [700, 300], axis=0),
    "cut off": np.where(np.arange(1000) < 800, some.normal(size=1000), 10.0 ** some.uniform(13, 17, 1000))[:, None],
    "many dimensions": 100.0 + some.normal(size=(300, 300)),
    "more cells than points": some.normal(size=(40, 2)),
    "one dimension": some.normal(size=(1000, 1)),
}


@pytest.mark.parametrize("metric", ["sqeuclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("data", RESOLVED_BADLY)
def test_the_recall_said_is_the_recall_reached(data: str, metric: str) -> None:
    """In 32 bits the points of a group far out are one; the search must not be deceived by that."""
    by = METRICS[metric]
    x = by.prepare(RESOLVED_BADLY[data])
    everyone, cells = np.arange(len(x)), train(x, 100)
    place = cells.place(x)
    assert (cells.place(x[::-2])[::-1] == place[::-2][::-1]).all(), "whatever others it is found with"
    row, true, _ = nearest(x, x, everyone, 10, by)
    probes, said = cells_to_probe(cells, x, row, place[true], 0.9)
    found_row, found, _ = nearest_in_cells(x, x, everyone, 10, by, cells, place, probes)
    assert (np.bincount(found_row, minlength=len(x)) == 10).all(), "everyone has as many as were asked for"
    reached = np.isin(row * len(x) + true, found_row * len(x) + found).mean()
    assert said >= 0.9
    # Who would find too few looks into more cells, and finds more than was said.
    assert said - 0.005 < reached < (said + 0.005 if data in ("groups", "overlapping") else 1.01)


def test_cells_that_hold_enough() -> None:
    line = np.array([[0.0], [1.0], [3.0], [10.0], [11.5]], dtype=np.float32)
    cells, occupied, sizes = Cells(np.zeros(1), 1.0, line), np.array([0, 1, 3, 4]), np.array([1, 2, 1, 5])
    pairs = {
        least: [f"{a}{b}" for a, b in sorted(zip(*cells_that_hold(cells, occupied, sizes, least), strict=True))]
        for least in (1, 3, 99)
    }
    assert pairs[1] == ["00", "11", "33", "44"]
    assert pairs[3] == ["00", "01", "10", "11", "33", "34", "44"]
    assert len(pairs[99]) == 16, "all there are"


@pytest.mark.parametrize("partitions", [1, 3, 16])
@pytest.mark.parametrize("data", ["random", "duplicates"])
def test_exact_neighbours_are_those_of_brute_force(
    spark: SparkSession, data: str, partitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = DATA[data]
    if partitions == 3:  # several parts ask several shards, each in several packs
        for name, value in (("POINTS_ASKING", 150), ("SHARD_BYTES", x.nbytes // 3), ("PACK_BYTES", 2000)):
            monkeypatch.setattr(f"ap_spark.similarity.neighbors.{name}", value)
    found = nearest_neighbors(make_frame(spark, x).repartition(partitions), 20, search="exact")
    assert (found.search, found.recall) == ("exact", 1.0)
    rows = rows_of(found.edges)
    assert len(rows) == 20 * len(x)
    assert {(i, k) for i, k, _ in rows} == {(i, k) for i, k, _ in brute_force(-cdist(x, x, "sqeuclidean"), 20)}
    s = pairwise(x, x)
    assert all(value == s[i, k] for i, k, value in rows)


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_all_pairs(spark: SparkSession, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.similarity.all_pairs.TILE", 10)
    x = DATA["random"][:37]
    names = [f"p{n:02}" for n in range(len(x))]
    found = rows_of(similarities(make_frame(spark, x, names).repartition(3), metric=metric))
    s = pairwise(x, x, metric)
    assert sorted(found) == [(a, b, s[i, k]) for i, a in enumerate(names) for k, b in enumerate(names) if i != k]


def test_approximate_neighbours(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """In many groups, of regions in parts and shards, with names as ids and many duplicates."""
    x = clustered_points(3000, 6, a_cluster=100, spread=2.0)
    x[:500] = x[500:505].repeat(100, axis=0)
    names = [f"p{n:04}" for n in range(len(x))]
    for name, value in (("POINTS_ASKING", 400), ("SHARD_BYTES", 40_000), ("PACK_BYTES", 3000), ("SAMPLE", 300)):
        monkeypatch.setattr(f"ap_spark.similarity.neighbors.{name}", value)
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


@pytest.mark.parametrize("metric", ["manhattan", "correlation"])
def test_approximate_neighbours_by_other_metrics_are_all_found_when_asked_for(spark: SparkSession, metric: str) -> None:
    x = DATA["random"]
    found = nearest_neighbors(make_frame(spark, x), 10, metric=metric, search="approximate", recall=1.0)
    assert found.recall == 1.0
    assert sorted(rows_of(found.edges)) == sorted(brute_force(pairwise(x, x, metric), 10))


@pytest.mark.parametrize("shard_bytes", [2**27, 1000])
def test_everyone_has_as_many_neighbours(
    spark: SparkSession, shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cells looked into hold fewer: correlations of three numbers lie on a circle."""
    monkeypatch.setattr("ap_spark.similarity.neighbors.SHARD_BYTES", shard_bytes)
    monkeypatch.setattr("ap_spark.similarity.neighbors.POINTS_ASKING", 100)
    x = np.random.default_rng(1).normal(size=(300, 3))
    found = nearest_neighbors(make_frame(spark, x), 10, metric="correlation", search="approximate", recall=0.5)
    rows = rows_of(found.edges)
    assert (np.bincount([i for i, _, _ in rows]) == 10).all()
    true = brute_force(pairwise(x, x, "correlation"), 10)
    assert len({(i, k) for i, k, _ in rows} & {(i, k) for i, k, _ in true}) / len(true) >= found.recall - 0.01


def test_auto_is_exact_while_that_is_cheap(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flat, points = make_frame(spark, DATA["grid"]), make_frame(spark, DATA["random"])
    assert nearest_neighbors(points, 3).search == "exact"
    monkeypatch.setattr("ap_spark.similarity.neighbors.EXACT_WORK", 100)
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


def test_widths_of_any_size() -> None:
    """The square of a width need be no float."""
    x, y = np.array([[0.0]]), np.array([[0.0], [1e-3], [3.0], [1e149]])
    assert pairwise(x, y, "gaussian", 1e300).tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert pairwise(x, y, "gaussian", 1e-145).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert pairwise(1e-145 * x, 1e-145 * y[1:3], "gaussian", 1e-145) == pytest.approx(np.exp([[-5e-7, -4.5]]))


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


@pytest.mark.parametrize(
    ("metric", "row", "message"),
    [
        ("cosine", [0.0, 0.0], "no vector may be zero.*2 vectors are: id=1; id=2"),
        ("correlation", [4.0, 4.0], "constant"),
    ],
)
def test_vectors_without_similarity(spark: SparkSession, metric: str, row: list[float], message: str) -> None:
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


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_hardly_any_points(spark: SparkSession, search: Search) -> None:
    for n in (1, 2):
        found = nearest_neighbors(make_frame(spark, DATA["random"][:n]), 3, search=search)
        assert found.recall == 1.0
        assert found.edges.count() == n * (n - 1)


@pytest.mark.parametrize(
    ("schema", "rows", "message"),
    [
        ("id int, features array<string>", [(0, ["1"])], "features must be arrays of numbers, got array<string>"),
        (
            "id int, features array<float>",
            [(0, [1.0]), (1, [1.0, 2.0])],
            "one length, at least 1, but they have 1 to 2",
        ),
        ("id int, features array<float>", [(0, []), (1, [])], "one length, at least 1, but they have 0 to 0"),
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


def test_scaling_is_that_of_scikit_learn(spark: SparkSession) -> None:
    some = DATA["random"][:200]
    x = np.column_stack([some[:, 0], 1e3 + 1e-3 * some[:, 1], some[:, 2] > 0, np.ones(200)])
    found: dict[str, Array] = {}
    for partitions in (1, 7):
        points = make_frame(spark, x).repartition(partitions)
        for how, scaler in (("standard", StandardScaler()), ("minmax", MinMaxScaler())):
            scaled = np.array([row.features for row in scale(points, how).orderBy("id").collect()])
            np.testing.assert_allclose(scaled, scaler.fit_transform(x), rtol=1e-7, atol=1e-7)
            assert (found.setdefault(how, scaled) == scaled).all(), "the same bits for any partitioning"
    assert scale(points, "none") is points
    wide = some[:10, :1] + np.arange(2000.0)  # minutes where the work grows with the square of the columns
    rows = scale(make_frame(spark, wide).withColumn("preference", F.lit(-1.0))).orderBy("id").collect()
    np.testing.assert_allclose([row.features for row in rows], StandardScaler().fit_transform(wide), rtol=1e-7)
    assert rows[0].preference == -1.0
    sizes = np.array([1e-300, 1e300, 1e-300, 1.0])
    rows = scale(make_frame(spark, sizes * x)).orderBy("id").collect()
    np.testing.assert_allclose([row.features for row in rows], found["standard"], rtol=1e-7, atol=1e-7)
    with pytest.raises(InputError, match=r"feature 1 goes from -1.7e.308 to 1.7e.308: divide it"):
        scale(make_frame(spark, np.array([[1.0, -1.7e308], [2.0, 1.7e308]])))
    with pytest.raises(SettingError, match="scale must be one of none, standard, minmax, got 'robust'"):
        scale(points, "robust")
