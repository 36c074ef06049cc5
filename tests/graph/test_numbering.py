"""Numbers in the order of the ids."""

from __future__ import annotations

from collections.abc import Callable

import pyspark.sql.functions as F
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.session import with_settings
from ap_spark.graph.numbering import numbered
from tests.conftest import FIXTURES, Edges, affinity_propagation, assigned, load

Frame = Callable[[Edges], DataFrame]


def test_rows_are_numbered_in_order_over_several_partitions(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ap_spark.graph.numbering._ROWS_A_TASK", 4)
    with with_settings(spark, {"spark.sql.adaptive.enabled": "false"}):  # which would make one partition of them
        rows = numbered(spark.range(200).select((F.col("id") * 77 % 200).alias("value")), "number", "value", count=200)
    assert rows.rdd.getNumPartitions() > 1
    assert all(row.number == row.value for row in rows.collect())
    rows.unpersist()


@pytest.mark.parametrize("rows_a_task", [10**6, 4])
def test_string_ids_cluster_as_numbers_do(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, rows_a_task: int
) -> None:
    monkeypatch.setattr("ap_spark.graph.numbering._ROWS_A_TASK", rows_a_task)
    fixture, edges = load(next(path for path in FIXTURES if path.stem == "toy25"))
    named = spark.createDataFrame([(f"p{i:02}", f"p{k:02}", s) for i, k, s in edges], "i string, k string, s double")
    clustering = affinity_propagation(named, preference=fixture["preference"])
    assert assigned(clustering) == [f"p{k:02}" for k in fixture["expected"]["assignment"]]
