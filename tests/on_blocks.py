"""The resident engine on a graph that was made as DataFrames, so that both engines work on one graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from ap_spark.engines import Engine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.numbering import Numbering
from ap_spark.settings import Settings

__all__ = ["OnBlocks", "in_blocks", "names"]


def in_blocks(graph: EdgeGraph, blocks: int | None = None, settings: Settings | None = None) -> BlockGraph:
    """The same graph in blocks; ``settings`` tell of the jitter."""
    points = graph.points.select("index", "id", "preference", "out_degree").toArrow().sort_by("index")
    numbering = Numbering(
        points=graph.points.select("index", "id"),
        ids=points["id"].combine_chunks(),
        keys=points["id"].to_numpy(),
        weights=points["out_degree"].to_numpy() + 1,
        release=lambda: None,
    )
    given = settings or Settings()
    edges = graph.edges.where("i != k").selectExpr("i", "k", "similarity as s")
    plain = Settings(preference=-1.0, partitions=blocks, jitter=given.jitter, seed=given.seed)
    found = build_block_graph(edges, plain, numbering=numbering)
    return found.with_preference(points["preference"].to_numpy())


class OnBlocks(ResidentEngine):
    """An engine that takes its blocks with it."""

    def __init__(
        self,
        graph: EdgeGraph,
        damping: float,
        blocks: int | None = None,
        kernel: str = "auto",
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_blocks(graph, blocks, settings), damping, kernel, **options)

    def release(self) -> None:
        super().release()
        self.graph.release()


def names(engine: Engine) -> list[int]:
    """The exemplars of an engine by index, in order."""
    found = engine.exemplars()
    if isinstance(found, np.ndarray):
        return [int(index) for index in np.flatnonzero(found)]
    return sorted(row["index"] for row in found.collect())
