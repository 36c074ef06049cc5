"""Exemplars polished on a sample of the points, against all swaps tried. No Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from ap_spark.quality.sample import polished_on_sample
from ap_spark.similarity.members import LocalMembers
from ap_spark.similarity.metrics import Metric, between, metric_of

N, K = 400, 6


def swapped(similarity: NDArray[np.float64], exemplars: NDArray[np.int64]) -> float:
    """The sum of similarities after the best swap of any exemplar for any point."""
    best = -np.inf
    for place in range(len(exemplars)):
        kept = np.delete(exemplars, place)
        found = np.maximum(similarity, similarity[:, kept].max(axis=1)[:, None])
        found[kept], found[np.diag_indices(N)] = 0.0, 0.0  # an exemplar counts its preference instead
        best = max(best, np.delete(found.sum(axis=0), kept).max())
    return float(best)


def total(similarity: NDArray[np.float64], exemplars: NDArray[np.int64]) -> float:
    return float(np.delete(similarity[:, exemplars].max(axis=1), exemplars).sum())


@pytest.mark.parametrize("metric_name", ["sqeuclidean", "cosine", "dot", "manhattan"])
@pytest.mark.parametrize("stored", [N, 60])
def test_hardly_a_swap_is_left(metric_name: str, stored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """None at all, where all points may become exemplars; few of them may where a point stores 60 similarities."""
    monkeypatch.setattr("ap_spark.quality.sample._MOST_EDGES", N * stored)
    rng = np.random.default_rng(4)
    metric = metric_of(metric_name)
    assert isinstance(metric, Metric)
    x = metric.prepare(3.0 * rng.normal(size=(K, 8))[rng.integers(0, K, N)] + rng.normal(size=(N, 8)))
    members = LocalMembers(pa.array(np.arange(N)), x, metric)
    similarity = between(metric, x, x)

    under = members.under(members.heads_of(pa.array(np.arange(K))))
    found = polished_on_sample(members, under, -10.0, keep_count=True)
    assert found is not None
    exemplars = found.ids.to_numpy()
    assert len(set(exemplars)) == K
    before, after = (total(similarity, chosen) for chosen in (np.arange(K), exemplars))
    assert before < after
    left = (swapped(similarity, exemplars) - after) / abs(after)
    assert left <= (1e-9 if stored == N else 0.02 if under.items.has_centers else 0.07)


def test_too_small_a_sample_of_each_cluster_is_not_polished_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.quality.sample._MOST_EDGES", N * 49)
    members = LocalMembers(
        pa.array(np.arange(N)), np.random.default_rng(0).normal(size=(N, 2)), metric_of("sqeuclidean")
    )
    under = members.under(members.heads_of(pa.array(np.arange(K))))
    assert polished_on_sample(members, under, -10.0, keep_count=True) is None
