"""The nearest vectors in one process, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from ap_spark.similarity.knn_exact import _by_tree, nearest
from ap_spark.similarity.metrics import METRICS, Metric, metric_of, pairwise
from ap_spark.similarity.vectors import check_range
from tests.similarity.examples import DATA, brute_force, width_of


@pytest.mark.parametrize("search", ["by_tree", "by_brute_force"])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_are_those_of_brute_force(
    data: str, metric: str, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = DATA[data]
    if metric == "correlation" and (np.ptp(x, axis=1) == 0).any():
        x = x + np.arange(x.shape[1])
    monkeypatch.setattr("ap_spark.similarity.knn_exact._TREE_DIMENSIONS", 100 if search == "by_tree" else 0)
    if search == "by_tree":
        monkeypatch.setattr("ap_spark.similarity.knn_exact._by_brute_force", _by_tree)
    by = metric_of(metric, width_of(metric))
    assert not callable(by)
    vectors = by.prepare(x)
    row, neighbor, closeness = nearest(vectors, vectors, np.arange(len(x)), 20, by)
    # Closeness, not similarity, since the root and the exponential make ties of what is none.
    expected = brute_force(by.closeness(vectors.T[:, :, None], vectors.T[:, None, :]), 20)
    assert set(zip(row.tolist(), neighbor.tolist(), closeness.tolist(), strict=True)) == expected


def test_the_nearest_where_hardly_anything_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.similarity.knn_exact._NUMBERS_AT_ONCE", 100)  # less than a row needs
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
