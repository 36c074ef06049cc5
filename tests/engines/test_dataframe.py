"""The dataframe engine: what an iteration shuffles, and what it holds."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyspark.sql.functions as F
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.session import with_settings
from ap_spark.engines.dataframe import DataFrameEngine, responsibilities
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.settings import Settings
from tests.conftest import (
    LONG,
    Edges,
    held_tables,
)
from tests.on_blocks import advance

Frame = Callable[[Edges], DataFrame]


def exchanges(plan: str) -> list[str]:
    """The columns that each exchange of a formatted plan sends."""
    return re.findall(r"\(\d+\) (?:Broadcast)?Exchange\s*\nInput \[\d+\]: \[([^\]]*)\]", plan)


@pytest.mark.parametrize("broadcast_columns", [10**6, 0])
def test_an_iteration_never_moves_the_edges(
    spark: SparkSession, frame: Frame, tied: Edges, broadcast_columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = build_edge_graph(frame(tied), Settings())
    engine = DataFrameEngine(graph, 0.8, 3, broadcast_columns)
    advance(engine, 2)
    with with_settings(spark, engine.planner):
        edges = responsibilities(engine.updated_edges(), 0.8)
        edges.explain("formatted")
    plan = capsys.readouterr().out
    with with_settings(spark, engine.planner):
        engine.new_columns().explain("formatted")
    new_columns = capsys.readouterr().out
    assert len(exchanges(new_columns)) == 1, "partial sums by column, and nothing else"
    assert "BroadcastExchange" not in new_columns
    plan += new_columns
    sent = exchanges(plan)
    assert len(sent) >= 2, plan
    for columns in sent:
        names = {column.split("#")[0].strip() for column in columns.split(",")}
        # a column's name and aggregates, and the block it is addressed to; no row index, no similarity
        assert "i" not in names, plan
        assert "s" not in names, plan
        assert "k" in names, plan
    assert ("BroadcastExchange" in plan) == (broadcast_columns > 0)
    # one block in each partition: nothing is skewed by accident
    placed = engine.edges.select("block", F.spark_partition_id().alias("partition")).distinct().collect()
    assert len({row.block for row in placed}) == len({row.partition for row in placed}) == len(placed) == 3
    engine.release()
    graph.release()


@LONG
def test_storage_and_plan_do_not_grow_and_are_given_back(spark: SparkSession, frame: Frame, tied: Edges) -> None:
    before = held_tables(spark).keys()  # other tests' leftovers, which may go at any time
    graph = build_edge_graph(frame(tied), Settings())
    engine = DataFrameEngine(graph, 0.8, 2)
    advance(engine, 3)
    early = {table: size for table, size in held_tables(spark).items() if table not in before}
    assert early
    advance(engine, 10)
    late = {table: size for table, size in held_tables(spark).items() if table not in before}
    assert len(late) == len(early)
    assert sum(late.values()) <= 1.2 * sum(early.values())
    plan = engine.updated_edges()._jdf.queryExecution()
    assert len(str(plan.optimizedPlan().stats().sizeInBytes())) < 60  # SPARK-52163 made it millions of digits
    engine.release()
    graph.release()
    assert held_tables(spark).keys() <= before
