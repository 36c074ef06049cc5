"""What the resident engine's tasks do on the executors: Arrow batches in, Arrow batches out.

build      edges of a block         ──►  its file, and a handle: where it is
advance    handle, column totals    ──►  what the block contributes to the next totals, by column range
add        contributions of a range ──►  its totals and exemplars
loop       handle of the one block  ──►  records of many iterations, the last totals and exemplars
messages   handle, column totals    ──►  r and a of each entry
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Broadcast, TaskContext

from ap_spark import kernel
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines.files import (
    TORN,
    BlockFile,
    Shape,
    UnusableFile,
    clear_leftovers,
    delete_files,
    opened,
    path_of,
    write_block,
)
from ap_spark.kernel import Block, Damping, Flags, Floats, Integers, column_totals

__all__ = ["MISSING", "Plan", "add", "advance", "build", "delete", "loop", "messages", "unpacked"]

BURST_SECONDS = 5.0  # a job longer than this would keep the driver in the dark
PIECE = 1 << 20  # columns in one row of sums: 8 MB
MISSING = -1  # what a block has reached whose file cannot be used

# The tables that tasks return. Arrays travel as bytes.
HANDLES = "block int, path string, problem string"
SUMS = "range int, start bigint, sums binary, r binary, a binary, reached int"
TOTALS = "range int, totals binary, flags binary, reached int"
RECORDS = "iteration int, exemplars bigint, changed bigint, seconds double, totals binary, flags binary"
MESSAGES = "i bigint, k bigint, r double, a double"
TYPES = {"int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "binary": pa.binary(), "string": pa.string()}

Batches = Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class Plan:
    """What every task knows.

    Attributes
    ----------
    run : int
        A number of this run's own.
    cuts : int64, shape (blocks + 1,)
        Block b holds the rows of the points ``cuts[b]:cuts[b + 1]``, which are also column range b.
    rows, entries : int64, shape (blocks,)
        How many of them each block has.
    damping, unit : float
    kernel : {"auto", "numpy", "numba"}
    """

    run: int
    cuts: Integers
    rows: Integers
    entries: Integers
    damping: float
    unit: float
    kernel: str

    @property
    def n_points(self) -> int:
        return int(self.cuts[-1])

    def columns(self, number: int) -> tuple[int, int]:
        """The columns of a range: the first, and the one after the last."""
        return int(self.cuts[number]), int(self.cuts[number + 1])

    def shape(self, block: int) -> Shape:
        columns = "int32" if self.n_points < 2**31 else "int64"
        return Shape(self.run, block, int(self.rows[block]), int(self.entries[block]), columns)

    @cached_property
    def iterate(self) -> Callable[[Block, Floats, Damping, float, Integers], None]:
        """`kernel.iterate`, or the same compiled where numba is installed."""
        if self.kernel == "numpy":
            return kernel.iterate
        try:
            compiled = importlib.import_module("ap_spark.compiled")
        except ImportError:
            if self.kernel == "numba":
                raise
            return kernel.iterate
        return compiled.iterate  # type: ignore[no-any-return]


def build(edges: Batches, plan: Plan) -> Iterator[pa.RecordBatch]:
    """Write the block of this partition, unless it is there from before."""
    block = partition()
    path, problem = path_of(plan.run, block), None
    try:
        clear_leftovers(path)
        path.parent.mkdir(exist_ok=True)
        try:
            with opened(path, plan.shape(block)):
                pass
        except UnusableFile:
            write_block(path, plan.shape(block), (tuple(batch[name].to_numpy() for name in "iks") for batch in edges))
    except OSError as error:
        problem = f"{path.parent}: {error.strerror or error}"
    yield table(HANDLES, block=[block], path=[str(path)], problem=[problem])


def advance(
    handles: Batches, plan: Plan, totals: Broadcast[Floats], first: int, contribute: bool
) -> Iterator[pa.RecordBatch]:
    """Take the blocks from iteration ``first``, or from where they are after it, as far as the totals reach.

    ``totals`` holds those of iteration ``first`` and on, one a row. A block that has not reached ``first`` stays, and
    tells what it has reached; so does one without a usable file.
    """
    last = first + len(totals.value)
    for block, path in located(handles):
        reached, sums = MISSING, np.empty(0, np.int64)
        try:
            with opened(path, plan.shape(block)) as file:
                mend(file)
                for number in range(file.iteration if file.iteration >= first else last, last):
                    sums = iteration(file, plan, totals.value[number - first])
                reached = file.iteration
                if contribute and reached == last:
                    yield from contributed(file.block, plan, block, sums, reached)
        except UnusableFile:
            pass
        if not contribute or reached != last:
            yield table(SUMS, range=[block], reached=[reached])


def mend(file: BlockFile) -> None:
    """Messages that were left in the middle of an update are of no use."""
    if file.iteration == TORN:
        file.reset()


def iteration(file: BlockFile, plan: Plan, totals: Floats) -> Integers:
    """One iteration of a block; its contributions to all columns."""
    sums = np.zeros(plan.n_points, np.int64)
    with file.update_to(file.iteration + 1):
        plan.iterate(file.block, totals, plan.damping, plan.unit, sums)
    return sums


def contributions(block: Block, plan: Plan) -> Integers:
    """The contributions of a block that has done its iteration."""
    sums = np.zeros(plan.n_points, np.int64)
    for part in block.parts:
        kernel.contributions(part, plan.unit, sums)
    return sums


def diagonal(block: Block, low: int, high: int) -> tuple[Floats, Floats]:
    """r(k,k) and a(k,k) for the columns of a range; not a number where k has no row."""
    r, a = np.full((2, high - low), np.nan)
    r[block.rows - low] = block.r[block.diagonal]
    a[block.rows - low] = block.a[block.diagonal]
    return r, a


def contributed(block: Block, plan: Plan, number: int, sums: Integers, reached: int) -> Iterator[pa.RecordBatch]:
    """The contributions by column range; to the range of the block's own rows their diagonal entries too."""
    if not len(sums):
        sums = contributions(block, plan)
    for range_, (low, high) in enumerate(pairwise(plan.cuts.tolist())):
        own = dict(zip("ra", diagonal(block, low, high), strict=True)) if range_ == number else {}
        for start in range(low, high, PIECE):
            piece = slice(start - low, min(start + PIECE, high) - low)
            arrays = {"sums": sums[low:high]} | own
            yield table(
                SUMS,
                range=[range_],
                start=[start],
                **{name: [array[piece].tobytes()] for name, array in arrays.items()},
                reached=[reached if range_ == number else None],
            )


def add(sums: Batches, plan: Plan, number: int | None = None) -> Iterator[pa.RecordBatch]:
    """The totals and exemplars of a column range, by default this partition's; what its block has reached."""
    number = partition() if number is None else number
    low, high = plan.columns(number)
    total, reached = np.zeros(high - low, np.int64), MISSING
    r, a = np.full((2, high - low), np.nan)
    for batch in sums:
        for row in range(len(batch)):
            values = {name: batch[name][row] for name in batch.schema.names}
            if values["reached"].is_valid:
                reached = values["reached"].as_py()
            if values["sums"].is_valid:
                addends = np.frombuffer(values["sums"].as_buffer(), np.int64)
                start = values["start"].as_py() - low
                piece = slice(start, start + len(addends))
                total[piece] += addends
            if values["r"].is_valid:
                r[piece] = np.frombuffer(values["r"].as_buffer())
                a[piece] = np.frombuffer(values["a"].as_buffer())
    totals, exemplars = column_totals(total, r, a, plan.damping, plan.unit)
    yield table(TOTALS, range=[number], totals=[totals.tobytes()], flags=[packed(exemplars)], reached=[reached])


def loop(handles: Batches, plan: Plan, start: int, most: int, stability: Stability) -> Iterator[pa.RecordBatch]:
    """Up to ``most`` iterations of a graph of one block, after the first ``start``; no rows without a usable file.

    A block that is behind, or ahead of what the driver has heard of, goes through the iterations again: it needs no
    totals but its own. The last record carries totals and exemplars.
    """
    until = time.perf_counter() + BURST_SECONDS
    n_lonely = plan.n_points - int(plan.rows[0])
    for block, path in located(handles):
        try:
            with opened(path, plan.shape(block)) as file:
                mend(file)
                if file.iteration > start:
                    file.reset()
                totals, before = all_totals(file.block, plan, contributions(file.block, plan))
                for number in range(file.iteration + 1, start + most + 1):
                    started = time.perf_counter()
                    totals, exemplars = all_totals(file.block, plan, iteration(file, plan, totals))
                    changed = int(np.count_nonzero(exemplars != before))
                    before = exemplars
                    if number <= start:
                        continue
                    now = time.perf_counter()
                    done = Iteration(number, int(np.count_nonzero(exemplars)) + n_lonely, changed, now - started)
                    ended = stability.reached(done) or now > until or number == start + most
                    last = {"totals": [totals.tobytes()], "flags": [packed(exemplars)]} if ended else {}
                    yield table(RECORDS, **{name: [value] for name, value in done._asdict().items()}, **last)
                    if ended:
                        return
        except UnusableFile:
            return


def all_totals(block: Block, plan: Plan, sums: Integers) -> tuple[Floats, Flags]:
    """The totals and exemplars of a graph of one block."""
    return column_totals(sums, *diagonal(block, 0, plan.n_points), plan.damping, plan.unit)


def messages(handles: Batches, plan: Plan, totals: Broadcast[Floats], reached: int) -> Iterator[pa.RecordBatch]:
    """All messages (i, k, r, a), once the totals have reached the availabilities; the files stay as they are."""
    for number, path in located(handles):
        with opened(path, plan.shape(number)) as file:
            if file.iteration != reached:
                raise UnusableFile(f"{path} has reached iteration {file.iteration}, not {reached}")
            for part in file.block.parts:
                arrived = replace(part, a=part.a.copy())
                kernel.availabilities(arrived, totals.value[0], plan.damping)
                i = np.repeat(part.rows, np.diff(part.starts))
                yield table(MESSAGES, i=i, k=part.columns.astype(np.int64), r=part.r.copy(), a=arrived.a)


def delete(ids: Batches, run: int) -> Iterator[pa.RecordBatch]:
    """Delete what this executor keeps of a run."""
    delete_files(run)
    yield from ids


def partition() -> int:
    """The number of the partition this task works on."""
    context = TaskContext.get()
    assert context is not None
    return context.partitionId()


def located(handles: Batches) -> Iterator[tuple[int, Path]]:
    for batch in handles:
        for handle in batch.to_pylist():
            yield handle["block"], Path(handle["path"])


def table(columns: str, **values: Any) -> pa.RecordBatch:
    """Rows of one of the tables above; columns not given are null."""
    schema = pa.schema([(name, TYPES[kind]) for name, kind in (column.split() for column in columns.split(", "))])
    length = len(next(iter(values.values())))
    return pa.RecordBatch.from_arrays(
        [pa.array(values.get(field.name, [None] * length), field.type) for field in schema], schema=schema
    )


def packed(flags: Flags) -> bytes:
    return np.packbits(flags).tobytes()


def unpacked(flags: bytes, count: int) -> Flags:
    return np.unpackbits(np.frombuffer(flags, np.uint8), count=count).astype(bool)
