"""One iteration on the whole graph, in two ways that give the same bits.

`dataframe.DataFrameEngine` is the plain statement of the algorithm, a pair of groupBy/join transformations over the
cluster; `block.BlockEngine` runs the whole loop in one task and is the fast one while the graph fits there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pyspark.sql import DataFrame

from ap_spark.convergence import Iteration, Stability
from ap_spark.engines.block import BlockEngine
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.graph import Graph
from ap_spark.settings import Settings

__all__ = ["BLOCK_EDGES", "Engine", "engine_of", "make_engine"]

BLOCK_EDGES = 5_000_000  # the largest graph that "auto" gives to one task: about 1 GiB there


class Engine(Protocol):
    """What `propagation.py` asks of an engine. Points are named by their index."""

    @property
    def name(self) -> str:
        """The name under which the settings and the summary know it."""

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        """Up to ``most`` further iterations, one record each; none after the one in which stability is reached."""

    def exemplars(self) -> DataFrame:
        """The points (``index``) with a(k,k) + r(k,k) > 0, exemplars by definition left out."""

    def messages(self) -> DataFrame:
        """All messages (``i``, ``k``, ``r``, ``a``), the diagonal included."""

    def release(self) -> None:
        """Give back everything the engine holds in the cluster."""


def engine_of(graph: Graph, settings: Settings) -> str:
    """The engine that the settings name; for "auto" the one that suits the number of edges."""
    if settings.engine != "auto":
        return settings.engine
    return "block" if graph.n_edges <= BLOCK_EDGES else "dataframe"


def make_engine(graph: Graph, settings: Settings) -> Engine:
    """The engine of `engine_of`."""
    if engine_of(graph, settings) == "block":
        return BlockEngine(graph, settings.damping)
    return DataFrameEngine(graph, settings.damping, settings.partitions)
