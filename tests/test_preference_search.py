"""The search for a preference that gives so many clusters, where nothing converges or too few are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import preference_search as target
from ap_spark.engines.resident import ResidentEngine
from tests.conftest import Edges, affinity_propagation, all_pairs, held_tables

Frame = Callable[[Edges], DataFrame]


def test_a_number_of_clusters_that_is_out_of_reach(frame: Frame, caplog: pytest.LogCaptureFixture) -> None:
    """A ring: nobody is similar to more than two, yet far fewer clusters are permitted than found."""
    n = 30
    edges = [(i, (i + step) % n, -1.0 - 0.01 * i) for i in range(n) for step in (1, -1)]
    found = affinity_propagation(frame(edges), clusters=10, damping=0.7)
    assert 10 <= found.summary.n_clusters < 20
    assert [trial["clusters"] for trial in found.summary.tried]
    if found.summary.n_clusters > 10:
        assert "10 clusters were asked for" in caplog.text


def test_a_run_with_clearly_too_many_exemplars_is_ended_early(
    spark: SparkSession, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing converges here, and nothing is left of the runs that were ended."""
    monkeypatch.setattr(ResidentEngine, "unserved", lambda engine: 1)
    rng = np.random.default_rng(6)
    x = np.concatenate([center + rng.normal(size=(20, 2)) for center in ((0, 0), (12, 0), (0, 12))])
    edges = frame(all_pairs(x)[1:])
    monkeypatch.setattr(target, "MAX_TRIALS", 5)
    before = held_tables(spark)
    found = affinity_propagation(edges, clusters=2, max_iter=100)
    assert found.summary.n_clusters <= 3
    assert found.summary.tried[0]["ended_early"]
    assert held_tables(spark).keys() <= before.keys()
