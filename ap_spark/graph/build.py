"""From similarities to a graph, in the form that the engine reads."""

from __future__ import annotations

from typing import get_args

from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.errors import SettingError
from ap_spark.graph.block_graph import BlockGraph, Numbering, build_block_graph
from ap_spark.graph.edge_graph import Graph, build_graph
from ap_spark.settings import EngineName, Settings
from ap_spark.similarity.pairs import Pairs

__all__ = ["build", "engine_of"]


def engine_of(spark: SparkSession, settings: Settings) -> str:
    """The engine that the settings name; "auto" is the resident one wherever there is a classic Spark."""
    if settings.engine not in get_args(EngineName):  # also where the checks of Settings were passed by
        raise SettingError(f"engine must be one of {', '.join(get_args(EngineName))}, got {settings.engine!r}")
    connect = classic.is_connect(spark)
    if settings.engine == "resident" and connect:
        raise SettingError(
            "engine must be dataframe on Spark Connect, which has no broadcast variables, got 'resident'"
        )
    if settings.engine != "auto":
        return settings.engine
    return "dataframe" if connect else "resident"


def build(
    similarities: DataFrame | Pairs,
    settings: Settings,
    points: DataFrame | None,
    preferences: DataFrame | None,
    numbering: Numbering | None = None,
) -> Graph | BlockGraph:
    """Check the input and make the graph, in the form that the engine reads; see `build_graph`, `build_block_graph`.

    A ``numbering`` is for the resident engine alone.
    """
    if engine_of(similarities.sparkSession, settings) == "resident":
        return build_block_graph(similarities, settings, points, preferences, numbering)
    edges = similarities.frame if isinstance(similarities, Pairs) else similarities
    return build_graph(edges, settings, points, preferences)
