"""The whole loop inside one Spark task, on one block that holds the whole graph.

A job of this engine is one task: it reads the block, iterates until it is done or BURST_SECONDS have gone by, and
leaves the block behind as a DataFrame for the next job. In between, the driver sees the records of the iterations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import DataFrame

from ap_spark import classic, kernel
from ap_spark.convergence import Iteration, Stability
from ap_spark.graph import Graph
from ap_spark.kernel import Block, make_block

__all__ = ["BlockEngine"]

BURST_SECONDS = 5.0  # a job longer than this would keep the driver in the dark
PAGE = 1 << 18  # entries in one row of the state: 8 MB

# A page of the block: its arrays as bytes (i and k are int32, the others float64). The first carries the records.
STATE = (
    "i binary, k binary, s binary, r binary, a binary, "
    "done array<struct<iteration: int, exemplars: bigint, changed: bigint, seconds: double>>"
)
STATE_ARROW = pa.schema(
    [(name, pa.binary()) for name in "iksra"]
    + [
        (
            "done",
            pa.list_(
                pa.struct(
                    [
                        ("iteration", pa.int32()),
                        ("exemplars", pa.int64()),
                        ("changed", pa.int64()),
                        ("seconds", pa.float64()),
                    ]
                )
            ),
        )
    ]
)

Batches = Iterable[pa.RecordBatch]


def from_edges(batches: Batches) -> Block:
    """The block of edges (i, k, s), all messages 0."""
    table = pa.Table.from_batches(batches)
    i, k = (table[name].to_numpy().astype(np.int32) for name in "ik")
    return make_block(i, k, table["s"].to_numpy())


def from_pages(batches: Batches) -> Block:
    """The block that the last job left."""
    table = pa.Table.from_batches(batches)

    def joined(name: str, kind: type) -> np.ndarray:
        return np.concatenate([np.frombuffer(page.as_buffer(), kind) for page in table[name]])

    return make_block(
        joined("i", np.int32),
        joined("k", np.int32),
        *(joined(name, np.float64) for name in "sra"),
    )


def to_pages(block: Block, done: list[Iteration]) -> Iterator[pa.RecordBatch]:
    """The block as rows of the state."""
    arrays = {"i": np.repeat(block.rows, np.diff(block.starts)).astype(np.int32), "k": block.columns}
    arrays |= {"s": block.s, "r": block.r, "a": block.a}
    for start in range(0, len(block.s), PAGE):
        page = {name: [array[start : start + PAGE].tobytes()] for name, array in arrays.items()}
        records = [record._asdict() for record in done] if start == 0 else []
        yield pa.RecordBatch.from_pydict(page | {"done": [records]}, schema=STATE_ARROW)


def burst(
    batches: Batches,
    *,
    read: Callable[[Batches], Block],
    iteration: int,
    most: int,
    stability: Stability,
    damping: float,
    unit: float,
    n_points: int,
    n_lonely: int,
) -> Iterator[pa.RecordBatch]:
    """Iterate on the block: the body of the task."""
    until = time.perf_counter() + BURST_SECONDS
    block = read(batches)
    before = kernel.exemplars(block)
    totals = np.full(n_points, np.inf)  # stays infinite for exemplars by definition, which have no row
    done: list[Iteration] = []
    for number in range(iteration + 1, iteration + 1 + most):
        started = time.perf_counter()
        contributions = kernel.responsibilities(block, damping, unit, n_points)
        totals[block.rows] = contributions[block.rows] * unit
        kernel.availabilities(block, totals, damping)
        now = kernel.exemplars(block)
        changed = int(np.count_nonzero(now != before))
        seconds = time.perf_counter() - started
        done.append(Iteration(number, int(np.count_nonzero(now)) + n_lonely, changed, seconds))
        before = now
        if stability.reached(done[-1]) or time.perf_counter() > until:
            break
    yield from to_pages(block, done)


def own_exemplars(batches: Batches) -> Iterator[pa.RecordBatch]:
    block = from_pages(batches)
    yield pa.RecordBatch.from_pydict({"index": block.rows[kernel.exemplars(block)]})


def own_messages(batches: Batches) -> Iterator[pa.RecordBatch]:
    block = from_pages(batches)
    i = np.repeat(block.rows, np.diff(block.starts))
    yield pa.RecordBatch.from_pydict({"i": i, "k": block.columns.astype(np.int64), "r": block.r, "a": block.a})


class BlockEngine:
    """See the module's text.

    Parameters
    ----------
    graph : Graph
    damping : float
        In [0.5, 1).
    """

    name = "block"

    def __init__(self, graph: Graph, damping: float) -> None:
        self.graph = graph
        self.damping = damping
        self.iteration = 0
        self.state: DataFrame | None = None

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        last = self.iteration + most
        while self.iteration < last:
            for done in self.job(last - self.iteration, stability):
                yield done
                if stability.reached(done):
                    return

    def job(self, most: int, stability: Stability) -> list[Iteration]:
        """One task: up to ``most`` iterations, at least one."""
        graph, old = self.graph, self.state
        classic.describe(graph.edges.sparkSession, f"ap: iteration {self.iteration + 1} and on")
        task = partial(
            burst,
            read=from_pages if old else from_edges,
            iteration=self.iteration,
            most=most,
            stability=stability,
            damping=self.damping,
            unit=graph.unit,
            n_points=graph.n_points,
            n_lonely=graph.n_lonely,
        )
        source = old or graph.edges.select("i", "k", "s").coalesce(1)
        self.state = source.mapInArrow(task, STATE).localCheckpoint()
        if old:
            classic.release(old)
        rows = self.state.select(F.inline("done")).collect()
        classic.describe(graph.edges.sparkSession, "")
        done = sorted(Iteration(*row) for row in rows)
        self.iteration = done[-1].iteration
        return done

    def exemplars(self) -> DataFrame:
        assert self.state is not None, "run at least one iteration first"
        return self.state.mapInArrow(own_exemplars, "index bigint")

    def messages(self) -> DataFrame:
        assert self.state is not None, "run at least one iteration first"
        return self.state.mapInArrow(own_messages, "i bigint, k bigint, r double, a double")

    def release(self) -> None:
        if self.state is not None:
            classic.release(self.state)
