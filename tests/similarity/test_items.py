"""What the members of clusters add up to, against sums over the points themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.cluster.hierarchy import is_valid_linkage

from ap_spark.similarity.items import Items
from ap_spark.similarity.members import LocalMembers
from ap_spark.similarity.metrics import METRICS, Metric, between

RNG = np.random.default_rng(17)
X = RNG.normal(size=(60, 5)) + 1.0
EXACT = ["sqeuclidean", "cosine", "correlation", "dot"]


def items_of(metric: Metric, exemplar: np.ndarray[Any, Any]) -> tuple[Items, np.ndarray[Any, Any]]:
    """The clusters of X with these exemplars as items, and the exemplars in order."""
    heads, label = np.unique(exemplar, return_inverse=True)
    members = LocalMembers(pa.array(np.arange(len(X))), metric.prepare(X), metric)
    s = between(metric, members.vectors, members.vectors)[np.arange(len(X)), exemplar]
    s[heads] = np.nan
    table = pd.DataFrame({"id": np.arange(len(X)), "label": label, "similarity": s})
    return members.as_assigned(members.heads_of(pa.array(heads)), table).items, heads


def some_clusters(count: int) -> np.ndarray[Any, Any]:
    heads = np.sort(RNG.choice(len(X), count, replace=False))
    exemplar = heads[RNG.integers(0, count, len(X))]
    exemplar[heads] = heads
    return exemplar


def example(name: str, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], Items, np.ndarray[Any, Any]]:
    """All similarities, the exemplar of each point in so many clusters, these as items, and the exemplars in order."""
    metric = METRICS[name]
    prepared = metric.prepare(X)
    exemplar = some_clusters(count)
    return between(metric, prepared, prepared), exemplar, *items_of(metric, exemplar)


def netsim(s: np.ndarray[Any, Any], exemplar: np.ndarray[Any, Any]) -> float:
    is_member = exemplar != np.arange(len(s))
    return float(s[np.flatnonzero(is_member), exemplar[is_member]].sum())


@pytest.mark.parametrize("name", EXACT)
def test_gains_are_those_of_all_members(name: str) -> None:
    s, exemplar, items, heads = example(name, 9)
    assert items.is_exact
    for i in range(9):
        for k in range(9):
            moved = np.where(exemplar == heads[i], heads[k], exemplar)
            gain = netsim(s, moved) - netsim(s, exemplar)
            if i != k:  # the exemplar is a member now, and counted nothing before
                assert items.gains(np.array([i]), np.array([k])) == pytest.approx(gain, rel=1e-9, abs=1e-9)
    assert (items.gains(np.arange(9), np.arange(9)) == 0.0).all()


@pytest.mark.parametrize("name", EXACT)
def test_levels_have_the_net_similarity_of_the_points(name: str) -> None:
    s, exemplar, items, heads = example(name, 20)
    for count in (11, 5, 2):
        chosen = np.sort(RNG.choice(len(items), count, replace=False))
        to = chosen[RNG.integers(0, count, len(items))]
        to[chosen] = chosen
        exemplar = heads[to][np.searchsorted(heads, exemplar)]
        items, joined = items.joined(to)
        heads = heads[chosen]
        assert (chosen[joined] == to).all()
        assert items.similarity.sum() == pytest.approx(netsim(s, exemplar), rel=1e-9)
        assert items.size.tolist() == [np.count_nonzero(exemplar == head) for head in heads]
        again, _ = items_of(METRICS[name], exemplar)
        np.testing.assert_allclose(items.shift, again.shift, atol=1e-9)
        np.testing.assert_allclose(items.centers, again.centers, atol=1e-9)


def test_other_metrics_are_estimated_and_say_so() -> None:
    s, exemplar, items, heads = example("euclidean", 9)
    assert not items.is_exact
    for i, k in ((0, 1), (3, 7)):
        gain = netsim(s, np.where(exemplar == heads[i], heads[k], exemplar)) - netsim(s, exemplar)
        (estimate,) = items.gains(np.array([i]), np.array([k]))
        assert estimate == pytest.approx(items.size[i] * s[heads[i], heads[k]])
        assert estimate <= gain  # the triangle inequality


@pytest.mark.parametrize("name", EXACT)
def test_a_tree_joins_what_loses_least(name: str) -> None:
    metric = METRICS[name]
    items, _ = items_of(metric, some_clusters(12))
    joins, height, size = items.tree()
    assert is_valid_linkage(np.column_stack([joins, height, size]).astype(float))
    assert (np.diff(height) >= 0.0).all()
    i, k = np.nonzero(~np.eye(12, dtype=bool))
    gains = items.gains(i, k)
    own = between(metric, items.vectors, items.vectors).diagonal()
    losses = own[i] - gains  # the exemplar that moves has counted itself
    assert height[0] == pytest.approx(max(0.0, losses.min()))
    best = int(losses.argmin())
    assert sorted(joins[0].tolist()) == sorted((int(i[best]), int(k[best])))
    assert size[-1] == 12


def test_the_tree_of_one_item_is_empty() -> None:
    joins, height, size = items_of(METRICS["sqeuclidean"], np.zeros(len(X), int))[0].tree()
    assert (joins.shape, height.shape, size.shape) == ((0, 2), (0,), (0,))
