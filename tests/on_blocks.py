"""Engines for tests: the resident one on a graph made as DataFrames, as the other has it; what they have computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.convergence import Stability
from ap_spark.engines import Engine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.block_graph_builder import build_block_graph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.numbering import Numbering
from ap_spark.settings import Settings

__all__ = [
    "NEVER",
    "OnBlocks",
    "advance",
    "bits",
    "bits_of_columns",
    "delete",
    "in_blocks",
    "messages_of",
    "names",
    "paths",
    "tear",
]

NEVER = 10**9  # a convergence_iter that is never reached


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
        damping: float | None,
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


def advance(engine: Engine, iterations: int) -> None:
    done = list(engine.run(iterations, Stability((NEVER,))))
    assert len(done) == iterations


def messages_of(engine: Engine) -> Any:
    """All messages as a record array, sorted by (i, k): r, and the a of the iteration before."""
    table = engine.state().messages.toArrow()
    rows = np.rec.fromarrays([table[name].to_numpy() for name in "ikra"], names=["i", "k", "r", "a"])  # type: ignore[call-overload]
    return np.sort(rows, order=["i", "k"])


def bits(rows: NDArray[Any]) -> bytes:
    return b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in "ikra")


def bits_of_columns(engine: Engine) -> bytes:
    """Totals, availabilities and exemplars of the columns that have a row."""
    columns = engine.state().columns.where("not isnan(a)").orderBy("k").toArrow()
    return b"".join(column.to_numpy().tobytes() for column in columns.columns)


def paths(engine: ResidentEngine) -> list[Path]:
    return [Path(row.path) for row in engine.blocks.located.collect()]


def delete(path: Path, older: bytes) -> None:
    path.unlink()


def tear(path: Path, older: bytes) -> None:
    """Leave a file as a process does that dies in the middle of an update."""
    with path.open("r+b") as file:
        file.seek(5 * 8)
        file.write(np.array([-1], np.int64).tobytes())
        file.seek(len(older) // 2)
        file.write(np.full(8, 1e3).tobytes())
