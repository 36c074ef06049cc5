"""What is said of similarities and preferences that break a rule; tests/test_cli.py has more of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import InputError
from tests.conftest import LONG, Edges, affinity_propagation, assigned

Frame = Callable[[Edges], DataFrame]


@LONG
def test_similarities_too_far_apart_to_be_added_are_named(spark: SparkSession, frame: Frame) -> None:
    edges = [(i, k, -1e40 if (i, k) == (2, 5) else -1.0 - i) for i in range(6) for k in range(6) if i != k]
    with pytest.raises(
        InputError, match=r"1 row has one beyond .*: i=2, k=5, s=-1e\+40 \(leave out .*--min-similarity"
    ):
        affinity_propagation(frame(edges), preference=-3.0)
    table = spark.createDataFrame([(p, -1e40 if p == 3 else -3.0) for p in range(6)], "id bigint, preference double")
    with pytest.raises(InputError, match=r"but they reach from -1e\+40 to -3: bring them closer"):
        affinity_propagation(frame([(i, k, max(s, -9.0)) for i, k, s in edges]), preference=table)


def test_minus_infinity_is_a_pair_that_is_not_stored(frame: Frame) -> None:
    edges = [(0, 1, -1.0), (1, 0, -1.0), (2, 3, -1.0), (3, 2, -1.5)]
    given = [*edges, (0, 2, float("-inf")), (4, 0, float("-inf"))]
    clustering = affinity_propagation(frame(given), preference=-2.0)
    assert clustering.summary.n_edges == 4
    assert assigned(clustering)[4] == 4
