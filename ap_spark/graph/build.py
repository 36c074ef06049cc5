"""Which engine a run gets, and the graph built in the form that this engine works on."""

from __future__ import annotations

from typing import get_args

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.errors import SettingError
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.graph.edge_graph import EdgeGraph, build_edge_graph
from ap_spark.graph.numbering import Numbering
from ap_spark.settings import EngineName, Settings
from ap_spark.similarity.pairs import Pairs

__all__ = ["build", "engine_of", "in_blocks"]


def engine_of(spark: SparkSession, settings: Settings) -> EngineName:
    """Return the engine that the settings name; "auto" is the resident one on classic Spark.

    Raises
    ------
    SettingError
        If there is no engine of the name, or the resident one is named on Spark Connect.
    """
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
) -> EdgeGraph | BlockGraph:
    """Check the input and build the graph, in the form that the engine works on.

    See `build_edge_graph` and `build_block_graph`. A ``numbering`` is for the resident engine only.
    """
    if engine_of(similarities.sparkSession, settings) == "resident":
        return build_block_graph(similarities, settings, points, preferences, numbering)
    edges = similarities.frame if isinstance(similarities, Pairs) else similarities
    return build_edge_graph(edges, settings, points, preferences)


def in_blocks(graph: EdgeGraph, settings: Settings) -> BlockGraph:
    """Return the same graph in blocks, its points with the same numbers; to be released as well.

    Its keys are not those of the ids, so it is not for iterating.
    """
    points = graph.points.select("index", "id", "preference", "out_degree").toArrow().sort_by("index")
    numbering = Numbering(
        points=graph.points.select("index", "id"),
        ids=points["id"].combine_chunks(),
        keys=np.arange(graph.n_points),
        weights=points["out_degree"].to_numpy() + 1,
        release=lambda: None,
    )
    edges = graph.edges.where("i != k").selectExpr("i", "k", "similarity as s")
    plain = Settings(preference=0.0, partitions=settings.partitions, jitter=settings.jitter, seed=settings.seed)
    blocks = build_block_graph(edges, plain, numbering=numbering)
    return blocks.with_preference(points["preference"].to_numpy())
