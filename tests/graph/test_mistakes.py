"""What looks like a mistake is said, and only that."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

from ap_spark.graph.build import build
from ap_spark.graph.mistakes import find_mistakes
from ap_spark.settings import EngineName, Settings
from tests.conftest import LONG, affinity_propagation, all_pairs
from tests.similarity.examples import DATA

EDGES = all_pairs(DATA["random"][:12])
UPPER = [(i, k, s) for i, k, s in EDGES if i < k]


@pytest.mark.long
@pytest.mark.parametrize("engine", ["resident", pytest.param("dataframe", marks=LONG)])
def test_pairs_given_once_and_preferences_out_of_range(spark: SparkSession, engine: EngineName) -> None:
    def found(edges: list[tuple[int, int, float]], preference: float | None, *, given_as_pairs: bool) -> list[str]:
        table = spark.createDataFrame(edges, "i int, k int, s double")
        graph = build(table, Settings(engine=engine, preference=preference), None, None)
        try:
            return find_mistakes(graph, given_as_pairs=given_as_pairs)
        finally:
            graph.release()

    low, high = min(s for _, _, s in EDGES), max(s for _, _, s in EDGES)
    assert found(EDGES, low - 1.0, given_as_pairs=True) == []
    one_way, above = found(UPPER, high + 1.0, given_as_pairs=True)
    assert "no pair is stored in both directions" in one_way
    assert "--symmetrize union" in one_way
    assert "is above all similarities, which reach" in above
    (below,) = found(UPPER, low - 20 * (high - low), given_as_pairs=False)
    assert "is far below all similarities, which lie in" in below


@pytest.mark.long
def test_they_are_said_before_the_run_unless_the_user_has_decided(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    table = spark.createDataFrame(UPPER, "i int, k int, s double")
    for options, said in (({}, 1), ({"symmetrize": "none"}, 0), ({"symmetrize": "union"}, 0)):
        caplog.clear()
        affinity_propagation(table, max_iter=1, **options)
        assert sum("stored in both directions" in text for text in caplog.messages) == said


@pytest.mark.long
@pytest.mark.parametrize("engine", ["resident", "dataframe"])
def test_mutual_that_leaves_out_most_pairs(spark: SparkSession, engine: EngineName) -> None:
    """As where each pair is given once; not where it is given in both directions, or small ones are left out before."""
    cases: list[tuple[list[tuple[int, int, float]], dict[str, Any], str]] = [
        (
            UPPER,
            {},
            "given in one direction alone: none of 66 are left. If each pair is given once, --symmetrize union",
        ),
        (UPPER, {"top": 3}, "none of 30 are left"),
        ([*UPPER, *((k, i, s) for i, k, s in UPPER[:9])], {}, "18 of 75 are left"),
        (EDGES, {}, ""),
        (EDGES, {"min_similarity": sorted(s for *_, s in EDGES)[-4]}, ""),
    ]
    for edges, options, warning in cases:
        table = spark.createDataFrame(edges, "i int, k int, s double")
        settings = Settings(engine=engine, symmetrize="mutual", preference=-1.0, **options)
        graph = build(table, settings, None, None)
        found = find_mistakes(graph, given_as_pairs=False)
        graph.release()
        assert any("symmetrize mutual" in text for text in found) == bool(warning)
        assert warning in " ".join(found)


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
