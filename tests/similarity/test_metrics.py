"""The metrics against SciPy and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel

from ap_spark.similarity.metrics import METRICS, pairwise
from tests.similarity.examples import DATA, Array, width_of

DEFINITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "sqeuclidean": lambda x, y: -cdist(x, y, "sqeuclidean"),
    "euclidean": lambda x, y: -cdist(x, y, "euclidean"),
    "manhattan": lambda x, y: -cdist(x, y, "cityblock"),
    "cosine": lambda x, y: 1 - cdist(x, y, "cosine"),
    "correlation": lambda x, y: 1 - cdist(x, y, "correlation"),
    "gaussian": lambda x, y: rbf_kernel(x, y, gamma=1 / (2 * 3.0**2)),
    "dot": lambda x, y: x @ y.T,
}


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


@pytest.mark.parametrize("name", METRICS)
def test_metrics_say_whether_they_compare_unit_vectors(name: str) -> None:
    lengths = np.linalg.norm(METRICS[name].prepare(DATA["random"]), axis=1)
    assert np.allclose(lengths, 1.0) == METRICS[name].unit_vectors


def test_correlation_of_vectors_that_hardly_vary_or_are_huge() -> None:
    step = np.spacing(1.0)
    x = np.array([[1.0, 1.0 + step, 1.0], [3.0, 9.0, 3.0], [1.0, 1.0 + step, 1.0 + 2 * step], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(pairwise(x, x, "correlation"), np.corrcoef([[0, 1, 0], [0, 1, 0], [0, 1, 2], [1, 2, 3]]))
    for size in (5e-324, 1.7e308):
        x = np.array([[0.0, 1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0]])
        for metric in ("cosine", "correlation"):
            np.testing.assert_allclose(pairwise(size * x, size * x, metric), pairwise(x, x, metric), rtol=1e-12)


def test_widths_of_any_size() -> None:
    """The square of a width need be no float."""
    x, y = np.array([[0.0]]), np.array([[0.0], [1e-3], [3.0], [1e149]])
    assert pairwise(x, y, "gaussian", 1e300).tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert pairwise(x, y, "gaussian", 1e-145).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert pairwise(1e-145 * x, 1e-145 * y[1:3], "gaussian", 1e-145) == pytest.approx(np.exp([[-5e-7, -4.5]]))
