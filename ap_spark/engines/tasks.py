"""What the resident engine's tasks do on the executors.

build      edges of a block         ──►  its file, and a handle: where it is
advance    handle, column totals    ──►  what the block contributes to the next totals, by column range
add        shares of a column range ──►  their sum
loop       handle of the one block  ──►  records of many iterations, the last totals and exemplars
unserved   handle, exemplars        ──►  how many of its points have none
messages   handle                   ──►  r and a of each entry
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast, TaskContext
from pyspark.sql import Row

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
from ap_spark.exact import Units
from ap_spark.kernel import Block, Damping, Flags, Floats, Integers, column_totals

__all__ = [
    "HANDLES",
    "MISSING",
    "Burst",
    "Plan",
    "Range",
    "Share",
    "add",
    "advance",
    "build",
    "delete",
    "loop",
    "messages",
    "unserved",
]

BURST_SECONDS = 5.0  # a job longer than this would keep the driver in the dark
COMPILED_ENTRIES = 1_000_000  # with fewer, importing numba takes longer than it saves
MISSING = TORN - 1  # what a block has reached whose file cannot be used

HANDLES = "block bigint, path string, problem string"

Batches = Iterable[pa.RecordBatch]
Handles = Iterable[Row]


class Share(NamedTuple):
    """What a block contributes to the totals of a column range.

    Attributes
    ----------
    columns : int32 or int64
        Places in the range; only those to which the block contributes.
    sums : int64, shape (words, columns)
        The contributions there, in units.
    r : float64, shape (columns of the range,)
        r(k,k), with which the block of these rows completes its share; not a number where k has no row.
    reached : int
        Which iteration that block has reached. Before the one that was asked for it shares nothing.
    """

    columns: Integers = np.empty(0, np.int64)
    sums: Integers = np.empty((1, 0), np.int64)
    r: Floats | None = None
    reached: int = MISSING


class Range(NamedTuple):
    """A column range after an iteration: the sums of its shares, its r(k,k), what its block has reached."""

    number: int
    sums: Integers
    r: Floats
    reached: int


class Burst(NamedTuple):
    """What a task has done that iterates by itself: the records, and where the last one has left the columns."""

    records: list[Iteration]
    totals: Floats
    a: Floats
    exemplars: Flags


@dataclass(frozen=True)
class Plan:
    """What every task knows.

    Attributes
    ----------
    run : int
        A number of this run's own.
    start : int
        The iteration that new blocks have reached.
    cuts : int64, shape (blocks + 1,)
        Block b holds the rows of the points ``cuts[b]:cuts[b + 1]``, which are also column range b.
    rows, entries : int64, shape (blocks,)
        How many of them each block has.
    damping : float
    units : Units
    kernel : {"auto", "numpy", "numba"}
    """

    run: int
    start: int
    cuts: Integers
    rows: Integers
    entries: Integers
    damping: float
    units: Units
    kernel: str

    @property
    def n_points(self) -> int:
        return int(self.cuts[-1])

    def shape(self, block: int) -> Shape:
        return Shape(self.run, block, int(self.rows[block]), int(self.entries[block]), self.n_points)

    @cached_property
    def iterate(self) -> Callable[[Block, Floats, Damping, Units, Integers], None]:
        """`kernel.iterate`, or the same compiled where that is worth it and numba is installed."""
        if self.kernel == "numpy" or (self.kernel == "auto" and self.entries.sum() < COMPILED_ENTRIES):
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
    path, problem = path_of(plan.run, block), ""
    try:
        clear_leftovers()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with opened(path, plan.shape(block)) as file:
                if file.iteration < plan.start:
                    raise UnusableFile(f"{path} has reached iteration {file.iteration}, not {plan.start}")
        except UnusableFile:
            write_block(path, plan.shape(block), plan.start, map(arrays_of, edges))
    except OSError as error:
        problem = f"{path.parent}: {error.strerror or error}"
    yield pa.RecordBatch.from_pydict({"block": [block], "path": [str(path)], "problem": [problem]})


def arrays_of(batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
    return {name: batch[name].to_numpy() for name in batch.schema.names}


def advance(
    handles: Handles, plan: Plan, totals: Broadcast[Floats], first: int, *, share: bool
) -> Iterator[tuple[int, Share]]:
    """Take blocks from iteration ``first``, or from where they are after it, as far as the totals reach.

    ``totals`` holds those of iteration ``first`` and on, one a row. What a block then contributes is addressed to the
    column ranges, if it is to ``share`` it. A block that has not come so far, or has no usable file, only says so.
    """
    last = first + len(totals.value)
    for handle in handles:
        reached = MISSING
        try:
            with opened(Path(handle.path), plan.shape(handle.block)) as file:
                sums = None
                while first <= file.iteration < last:
                    sums = iterate(file, plan, totals.value[file.iteration - first])
                reached = file.iteration
                if share and reached == last:
                    sums = contributions(file, plan) if sums is None else sums
                    yield from shares(file.block, plan, handle.block, sums, reached)
        except UnusableFile:
            pass
        if not share or reached != last:
            yield handle.block, Share(reached=reached)


def iterate(file: BlockFile, plan: Plan, totals: Floats) -> Integers:
    """One iteration of a block; its contributions to all columns."""
    sums = file.room_for_sums(plan.units.words)
    with file.update_to(file.iteration + 1):
        plan.iterate(file.block, totals, plan.damping, plan.units, sums)
    return sums


def contributions(file: BlockFile, plan: Plan) -> Integers:
    """The contributions of a block that has done its iteration."""
    sums = file.room_for_sums(plan.units.words)
    for part in file.block.parts:
        kernel.contributions(part, plan.units, sums)
    return sums


def shares(block: Block, plan: Plan, number: int, sums: Integers, reached: int) -> Iterator[tuple[int, Share]]:
    for range_, (low, high) in enumerate(pairwise(plan.cuts.tolist())):
        of_range = sums[:, low:high]
        columns = np.flatnonzero(of_range.any(axis=0))
        share = Share(columns.astype(block.columns.dtype), of_range[:, columns])
        yield range_, share._replace(r=own(block, low, high), reached=reached) if range_ == number else share


def own(block: Block, low: int, high: int) -> Floats:
    """r(k,k) for a range of columns; not a number where k has no row."""
    r = np.full(high - low, np.nan)
    r[block.rows - low] = block.r[block.diagonal]
    return r


def add(shares: Iterable[tuple[int, Share]], plan: Plan) -> Iterator[Range]:
    """Add what is addressed to each range."""
    ranges: dict[int, Range] = {}
    for number, share in shares:
        shape = plan.units.words, plan.cuts[number + 1] - plan.cuts[number]
        range_ = ranges.setdefault(number, Range(number, np.zeros(shape, np.int64), np.empty(0), MISSING))
        for word, addends in zip(range_.sums, share.sums, strict=False):  # who has nothing to share has one word of it
            word[share.columns] += addends
        if share.r is not None or share.reached != MISSING:
            ranges[number] = range_._replace(r=share.r if share.r is not None else range_.r, reached=share.reached)
    yield from ranges.values()


def loop(handles: Handles, plan: Plan, start: int, most: int, stability: Stability, n_lonely: int) -> Iterator[Burst]:
    """Up to ``most`` iterations of a graph of one block, after the first ``start``; nothing without a usable file.

    A block that is behind goes through the iterations again: it needs no totals but its own. One that is ahead of what
    the driver has heard of has to be made anew.
    """
    until = time.perf_counter() + BURST_SECONDS
    n = plan.n_points
    for handle in handles:
        try:
            with opened(Path(handle.path), plan.shape(handle.block)) as file:
                block = file.block
                if file.iteration > start:
                    file.discard()
                    return
                a = np.zeros(n)
                a[block.rows] = block.a[block.diagonal]

                def totals_of(sums: Integers, a: Floats, block: Block = block) -> tuple[Floats, Floats, Flags]:
                    return column_totals(sums, own(block, 0, n), a, plan.damping, plan.units)

                totals, a, before = totals_of(contributions(file, plan), a)
                records: list[Iteration] = []
                while file.iteration < start + most:
                    started = time.perf_counter()
                    totals, a, exemplars = totals_of(iterate(file, plan, totals), a)
                    changed = int(np.count_nonzero(exemplars != before))
                    before = exemplars
                    if file.iteration <= start:
                        continue
                    now = time.perf_counter()
                    count = int(np.count_nonzero(exemplars)) + n_lonely
                    records.append(Iteration(file.iteration, count, changed, now - started))
                    if stability.reached(records[-1]) or now > until:
                        break
                yield Burst(records, totals, a, before)
        except UnusableFile:
            return


def unserved(handles: Handles, plan: Plan, serving: Broadcast[Flags]) -> Iterator[int]:
    """How many points of each block store no edge to one that serves, themselves included; MISSING without a file."""
    for handle in handles:
        try:
            with opened(Path(handle.path), plan.shape(handle.block)) as file:
                yield sum(kernel.unserved(part, serving.value) for part in file.block.parts)
        except UnusableFile:
            yield MISSING


def messages(handles: Batches, plan: Plan, reached: int) -> Iterator[pa.RecordBatch]:
    """All messages (i, k, r, a) of the iteration that the blocks have reached."""
    for handle in (row for batch in handles for row in batch.to_pylist()):
        with opened(Path(handle["path"]), plan.shape(handle["block"])) as file:
            if file.iteration != reached:
                raise UnusableFile(f"{file.path} has reached iteration {file.iteration}, not {reached}")
            for part in file.block.parts:
                i, k = np.repeat(part.rows, np.diff(part.starts)), part.columns.astype(np.int64)
                yield pa.RecordBatch.from_pydict({"i": i, "k": k, "r": part.r.copy(), "a": part.a.copy()})


def delete(ids: Iterable[int], run: int) -> Iterator[int]:
    """Delete what this executor keeps of a run."""
    delete_files(run)
    return iter(())


def partition() -> int:
    """The number of the partition this task works on."""
    context = TaskContext.get()
    assert context is not None
    return context.partitionId()
