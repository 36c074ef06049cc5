"""What looks like a mistake is said, and only that."""

from __future__ import annotations

import logging

import pytest
from pyspark.sql import SparkSession

from ap_spark.graph.build import build
from ap_spark.settings import EngineName, Settings
from tests.conftest import affinity_propagation, all_pairs
from tests.similarity.examples import DATA

EDGES = all_pairs(DATA["random"][:12])
UPPER = [(i, k, s) for i, k, s in EDGES if i < k]


@pytest.mark.parametrize("engine", ["resident", "dataframe"])
def test_pairs_given_once_and_preferences_out_of_range(
    spark: SparkSession, caplog: pytest.LogCaptureFixture, engine: EngineName
) -> None:
    def said(edges: list[tuple[int, int, float]], **options: object) -> list[str]:
        caplog.clear()
        table = spark.createDataFrame(edges, "i int, k int, s double")
        with caplog.at_level(logging.WARNING, "ap_spark.run"):
            affinity_propagation(table, engine=engine, max_iter=1, **options)
        return [text for text in caplog.messages if "not converged" not in text]

    low, high = min(s for _, _, s in EDGES), max(s for _, _, s in EDGES)
    assert said(EDGES) == []
    assert said(EDGES, preference=low - 1.0) == []
    assert said(UPPER, symmetrize="union") == said(UPPER, symmetrize="none") == []
    (one_way,) = said(UPPER)
    assert "no pair is stored in both directions" in one_way
    assert "--symmetrize union" in one_way
    (above,) = said(EDGES, preference=high + 1.0)
    assert "is above all similarities, which reach" in above
    (below,) = said(EDGES, preference=low - 20 * (high - low))
    assert "is far below all similarities, which lie in" in below


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_sample_has_both_directions_or_neither(spark: SparkSession, partitions: int) -> None:
    edges = all_pairs(DATA["random"][:60])
    graph = build(spark.createDataFrame(edges, "i int, k int, s double"), Settings(partitions=partitions), None, None)
    try:
        pairs = {tuple(pair) for pair in graph.sample_pairs(10).tolist()}
    finally:
        graph.release()
    assert 200 < len(pairs) < 520  # of 3,540
    assert pairs == {(k, i) for i, k in pairs}
    assert all(i != k for i, k in pairs)
