"""New points to their nearest exemplars, as a task finds them, against brute force. No Spark."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import pairwise_distances_argmin_min

from ap_spark.errors import InputError
from ap_spark.similarity import knn_exact
from ap_spark.similarity.assignment import _Piece
from ap_spark.similarity.metrics import METRICS, Metric, metric_of, pairwise
from ap_spark.similarity.scaling import Scaling
from tests.similarity.examples import DATA, Array, width_of

CONSTANT = ("correlation", "zeros of both signs")  # where many vectors have no similarity


def piece_of(y: Array, metric: str = "sqeuclidean", scaling: Scaling | None = None) -> _Piece:
    measure = metric_of(metric, width_of(metric))
    assert isinstance(measure, Metric)
    ids = pa.array([f"exemplar {n}" for n in range(len(y))])
    return _Piece(np.arange(10, 10 + len(y)), ids, measure.prepare(scaling.of(y) if scaling else y), measure, scaling)


def found_in(piece: _Piece, x: Array) -> tuple[Array, Array, Array, list[str]]:
    found = piece.nearest(pa.array(list(x)))
    closeness, similarity, label = (found.field(name).to_numpy() for name in ("closeness", "similarity", "label"))
    return closeness, similarity, label, found.field("exemplar").to_pylist()


@pytest.mark.parametrize(("metric", "name"), [pair for pair in product(METRICS, DATA) if pair != CONSTANT])
def test_the_nearest_is_that_of_brute_force(metric: str, name: str) -> None:
    """Of all exemplars, and of one alone; ties go to the first of them, and similarities are those of `pairwise`."""
    points = DATA[name][np.random.default_rng(1).permutation(len(DATA[name]))]
    if metric == "correlation":
        points = points[points.min(axis=1) < points.max(axis=1)]
    measure = metric_of(metric, width_of(metric))
    assert isinstance(measure, Metric)
    for x, y in ((points[60:], points[:60]), (points[1:], points[:1])):
        all_closeness = measure.closeness(measure.prepare(x).T[:, :, None], measure.prepare(y).T[:, None, :])
        closeness, similarity, label, exemplar = found_in(piece_of(y, metric), x)
        best = all_closeness.argmax(axis=1)
        assert (label == 10 + best).all()
        assert exemplar == [f"exemplar {n}" for n in best]
        assert (closeness == all_closeness.max(axis=1)).all()
        assert (similarity == pairwise(x, y, metric, width_of(metric))[np.arange(len(x)), best]).all()


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "dot"])
def test_what_single_precision_cannot_tell_apart_is_decided_exactly(metric: str) -> None:
    """Exemplars all about as far from, or as much in the direction of, each point: they differ in the tenth digit."""
    rng = np.random.default_rng(2)
    y = np.array([3.0, 1.0, -2.0]) + 1e-9 * rng.normal(size=(50, 3))
    x = rng.normal(size=(100, 3))
    s = pairwise(x, y, metric)
    _, similarity, label, _ = found_in(piece_of(y, metric), x)
    assert (label == 10 + s.argmax(axis=1)).all()
    assert len(set(label)) > 3
    assert (similarity == s.max(axis=1)).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
def test_clear_cases_are_decided_in_single_precision(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search that decides the others is not asked, whatever the size of the features, and wherever they lie."""
    searched: list[int] = []
    decide = knn_exact._decide

    def counted(search: Any, rows: Any, *others: Any) -> Any:
        searched.append(len(rows))
        return decide(search, rows, *others)

    monkeypatch.setattr(knn_exact, "_decide", counted)
    x, y = DATA["random"][100:], DATA["random"][:100]
    for size, shift in ((1.0, 0.0), (1e140, 0.0), (1e-140, 0.0), (1.0, 1e6)):
        if shift and metric != "euclidean":
            continue  # they all have about the same direction then
        searched.clear()
        found_in(piece_of(size * y + shift, metric), size * x + shift)
        assert searched[0] == 300
        assert sum(searched[1:]) <= 3


def test_distances_are_those_of_scikit_learn() -> None:
    x, y = DATA["random"][100:], DATA["random"][:100]
    for metric, name in (("euclidean", "euclidean"), ("manhattan", "manhattan"), ("cosine", "cosine")):
        place, distance = pairwise_distances_argmin_min(x, y, metric=name)
        _, similarity, label, _ = found_in(piece_of(y, metric), x)
        assert (label == 10 + place).all()
        np.testing.assert_allclose(similarity, 1 - distance if metric == "cosine" else -distance, rtol=1e-12)


def test_features_are_scaled_as_those_of_the_exemplars() -> None:
    x, y = DATA["random"][100:], DATA["random"][:100]
    scaling = Scaling(np.arange(5.0), np.array([1.0, 100.0, 0.01, 1.0, 1.0]))
    plain, scaled = piece_of(scaling.of(y)), piece_of(y, scaling=scaling)
    assert piece_of(y).nearest(pa.array(list(x))) != scaled.nearest(pa.array(list(x)))
    assert plain.nearest(pa.array(list(scaling.of(x)))) == scaled.nearest(pa.array(list(x)))


@pytest.mark.parametrize(
    ("metric", "vector", "message"),
    [
        ("euclidean", [1.0, 2.0], r"must be 3 finite numbers each, .*but 1 vector of 2 is not so: \[1.0, 2.0\]"),
        ("euclidean", None, "must be 3 finite numbers each, .*: None"),
        ("euclidean", [1.0, None, 2.0], "must be 3 finite numbers each"),
        ("euclidean", [1.0, np.nan, 2.0], "must be 3 finite numbers each"),
        ("euclidean", [1.0, -np.inf, 2.0], "must be 3 finite numbers each"),
        ("cosine", [0.0, -0.0, 0.0], "must not be zero with this metric"),
        ("correlation", [0.1, 0.1, 0.1], "must not be constant with this metric"),
        ("sqeuclidean", [1e200, 0.0, 0.0], "must have a finite similarity"),
        ("dot", [1e308, 1e308, 1e308], "must have a finite similarity"),
    ],
)
def test_a_vector_that_breaks_a_rule_is_refused(metric: str, vector: list[float] | None, message: str) -> None:
    """Beside one that is in order."""
    piece = piece_of(np.array([[4.0, 1.0, 0.0], [2.0, 1.0, 5.0]]), metric)
    with pytest.raises(InputError, match=message):
        piece.nearest(pa.array([[1.0, 2.0, 3.0], vector], pa.list_(pa.float64())))


def test_a_function_may_compare() -> None:
    x, y = DATA["random"][100:], DATA["random"][:100]
    piece = _Piece(np.arange(100), pa.array(np.arange(100)), y, lambda x, y: x @ y.T, None)
    _, similarity, label, _ = found_in(piece, x)
    assert (label == (x @ y.T).argmax(axis=1)).all()
    assert (similarity == (x @ y.T).max(axis=1)).all()
    broken = _Piece(np.arange(100), pa.array(np.arange(100)), y, lambda x, y: np.full((len(x), len(y)), np.nan), None)
    with pytest.raises(InputError, match="must have a finite similarity"):
        found_in(broken, x)


def test_no_points_have_no_exemplars() -> None:
    assert len(piece_of(DATA["random"]).nearest(pa.array([], pa.list_(pa.float64())))) == 0
