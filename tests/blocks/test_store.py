"""Blocks that are lost are rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pyspark.sql import DataFrame

from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.settings import Settings
from tests.conftest import LONG, Edges, random_edges

Frame = Callable[[Edges], DataFrame]


@LONG
def test_a_block_that_is_lost_is_rebuilt_before_its_similarities_are_read(frame: Frame) -> None:
    edges = random_edges(np.random.default_rng(5), 20, 0.3, symmetric=False)
    graph = build_block_graph(frame(edges), Settings(partitions=3))
    Path(graph.blocks.found[1].path).unlink()
    assert {(row.i, row.k): row.s for row in graph.similarities().collect()} == {(i, k): s for i, k, s in edges}
    graph.release()
