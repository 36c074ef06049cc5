"""What the resident engine's tasks do on the executors.

advance    handle, column totals    ──►  what the block contributes to the next totals, by column range
reduce_sums        sums of a column range  ──►  their sum
loop       handle of the one block  ──►  records of many iterations, the last totals and exemplars
messages   handle                   ──►  similarity, r and a of each entry
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import Row

from ap_spark.blocks import kernel
from ap_spark.blocks.build import Layout
from ap_spark.blocks.files import TORN, BlockFile, UnusableFile, opened
from ap_spark.blocks.hashing import jittered
from ap_spark.blocks.kernel import Block, Damping, Flags, Floats, Integers, column_totals
from ap_spark.blocks.store import shape_of_handle
from ap_spark.convergence import Iteration, Stability
from ap_spark.exact_sum import Units

__all__ = [
    "MISSING",
    "Beginning",
    "ColumnSums",
    "LocalRun",
    "PartialSums",
    "Plan",
    "advance",
    "messages",
    "reduce_sums",
    "run_locally",
]

LOCAL_RUN_SECONDS = 5.0  # a job longer than this would keep the driver in the dark
COMPILED_ENTRIES = 1_000_000  # with fewer, importing numba takes longer than it saves
MISSING = TORN - 1  # what a block has reached whose file cannot be used

Batches = Iterable[pa.RecordBatch]
Handles = Iterable[Row]


class PartialSums(NamedTuple):
    """What a block contributes to the totals of a column range.

    Attributes
    ----------
    columns : int32 or int64
        Places in the range; only those to which the block contributes.
    sums : int64, shape (columns,)
        The contributions there, in units; of two words the fine one.
    large, large_sums : int32 or int64, and int64, shape (few,)
        Of two words: the places whose coarse word is not 0, which are few, and that word.
    r : float64, shape (columns of the range,)
        r(k,k), with which the block of these rows completes its share; not a number where k has no row.
    reached : int
        Which iteration that block has reached. Before the one that was asked for it shares nothing.
    """

    columns: Integers = np.empty(0, np.int64)
    sums: Integers = np.empty(0, np.int64)
    large: Integers = np.empty(0, np.int64)
    large_sums: Integers = np.empty(0, np.int64)
    r: Floats | None = None
    reached: int = MISSING


class ColumnSums(NamedTuple):
    """A column range after an iteration: the sums of its shares, its r(k,k), what its block has reached."""

    number: int
    sums: Integers
    r: Floats
    reached: int


class LocalRun(NamedTuple):
    """What a task has done that iterates by itself: the records, and where the last one has left the columns."""

    records: list[Iteration]
    totals: Floats
    a: Floats
    exemplars: Flags


@dataclass(frozen=True)
class Beginning:
    """What an engine begins with.

    Attributes
    ----------
    keys : broadcast of int64, shape (n_points,)
        See `blocks.hashing`.
    preference : broadcast of float64, shape (n_points,)
    min_nonzero : float
        The smallest similarity or preference in size that is not 0.
    seed : int
    jitter : bool
    iteration : int
        Messages of this iteration, in a file that nobody has worked on, are those of the state to start from.
    """

    keys: Broadcast[Integers]
    preference: Broadcast[Floats]
    min_nonzero: float
    seed: int
    jitter: bool
    iteration: int


@dataclass(frozen=True)
class Plan:
    """What every task knows.

    Attributes
    ----------
    layout : Layout
        Column range b is that of the points whose rows block b has.
    engine : int
        A number of this engine's own.
    beginning : Beginning
    damping : float
    units : Units
    kernel : {"numpy", "numba", "auto"}
        By default numba where it is installed and the graph has so many edges that importing it is worth while.
    n_edges : int
    """

    layout: Layout
    engine: int
    beginning: Beginning
    damping: float
    units: Units
    kernel: str
    n_edges: int

    @property
    def n_points(self) -> int:
        return self.layout.n_points

    @cached_property
    def iterate(self) -> Callable[[Block, Floats, Damping, Units, Integers], None]:
        """`kernel.iterate`, or the same compiled where that is worth it and numba is installed."""
        if self.kernel == "numpy" or (self.kernel == "auto" and self.n_edges < COMPILED_ENTRIES):
            return kernel.iterate
        try:
            compiled = importlib.import_module("ap_spark.blocks.compiled_kernel")
        except ImportError:
            if self.kernel == "numba":
                raise
            return kernel.iterate
        return compiled.iterate  # type: ignore[no-any-return]


@contextmanager
def at_work(handle: Row, plan: Plan) -> Iterator[BlockFile]:
    """The file of a block with the messages of this engine, which begin now if it is new to it."""
    with opened(Path(handle.path), shape_of_handle(handle, plan.layout)) as file:
        if file.engine != plan.engine:
            begin(file, plan)
        yield file


def begin(file: BlockFile, plan: Plan) -> None:
    """Make the messages of a block ready: 0, or those of the state to start from; similarities with jitter."""
    given = plan.beginning
    resumed = file.made_for == plan.engine and file.engine == 0 and file.iteration == given.iteration
    keys, preference = given.keys.value, given.preference.value
    with file.handed_to(plan.engine, given.iteration if resumed else 0):
        for part, similarity in file.parts():
            if not resumed:
                part.r[:] = part.a[:] = 0.0
            value = similarity + 0.0  # -0.0 becomes 0.0
            value[part.diagonal] = preference[part.rows] + 0.0
            if given.jitter:
                key_i = np.repeat(keys[part.rows], np.diff(part.starts))
                value = jittered(value, key_i, keys[part.columns], given.seed, given.min_nonzero)
            part.s[:] = value


def advance(
    handles: Handles, plan: Plan, totals: Broadcast[Floats], first: int, *, contribute: bool
) -> Iterator[tuple[int, PartialSums]]:
    """Take blocks from iteration ``first``, or from where they are after it, as far as the totals reach.

    ``totals`` holds those of iteration ``first`` and on, one a row. What a block then contributes is addressed to the
    column ranges, if it is to ``contribute``. A block that has not come so far, or has no usable file, only says so.
    """
    last = first + len(totals.value)
    for handle in handles:
        reached = MISSING
        try:
            with at_work(handle, plan) as file:
                sums = None
                while first <= file.iteration < last:
                    sums = iterate(file, plan, totals.value[file.iteration - first])
                reached = file.iteration
                if contribute and reached == last:
                    sums = contributions(file, plan) if sums is None else sums
                    yield from partial_sums(file.block, plan, handle.block, sums, reached)
        except UnusableFile:
            pass
        if not contribute or reached != last:
            yield handle.block, PartialSums(reached=reached)


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


def partial_sums(
    block: Block, plan: Plan, number: int, sums: Integers, reached: int
) -> Iterator[tuple[int, PartialSums]]:
    for target, (low, high) in enumerate(pairwise(plan.layout.cuts.tolist())):
        *coarse, fine = sums[:, low:high]
        columns = np.flatnonzero(fine)
        part = PartialSums(columns.astype(block.columns.dtype), fine[columns])
        for word in coarse:
            large = np.flatnonzero(word)
            part = part._replace(large=large.astype(block.columns.dtype), large_sums=word[large])
        if target == number:
            part = part._replace(r=diagonal_r(block, low, high), reached=reached)
        yield target, part


def diagonal_r(block: Block, low: int, high: int) -> Floats:
    """r(k,k) for a range of columns; not a number where k has no row."""
    r = np.full(high - low, np.nan)
    r[block.rows - low] = block.r[block.diagonal]
    return r


def reduce_sums(partial_sums: Iterable[tuple[int, PartialSums]], plan: Plan) -> Iterator[ColumnSums]:
    """Add what is addressed to each range."""
    ranges: dict[int, ColumnSums] = {}
    for number, part in partial_sums:
        shape = plan.units.words, plan.layout.cuts[number + 1] - plan.layout.cuts[number]
        column_sums = ranges.setdefault(number, ColumnSums(number, np.zeros(shape, np.int64), np.empty(0), MISSING))
        column_sums.sums[-1][part.columns] += part.sums
        column_sums.sums[0][part.large] += part.large_sums  # the same word, if there is one, and then nothing
        if part.r is not None or part.reached != MISSING:
            ranges[number] = column_sums._replace(
                r=part.r if part.r is not None else column_sums.r, reached=part.reached
            )
    yield from ranges.values()


def run_locally(
    handles: Handles, plan: Plan, start: int, most: int, stability: Stability, n_forced: int
) -> Iterator[LocalRun]:
    """Up to ``most`` iterations of a graph of one block, after the first ``start``; nothing without a usable file.

    A block that is behind goes through the iterations again: it needs no totals but its own. One that is ahead of what
    the driver has heard of has to be made anew.
    """
    until = time.perf_counter() + LOCAL_RUN_SECONDS
    n = plan.n_points
    for handle in handles:
        try:
            with at_work(handle, plan) as file:
                block = file.block
                if file.iteration > start:
                    file.discard()
                    return
                a = np.zeros(n)
                a[block.rows] = block.a[block.diagonal]

                def totals_of(sums: Integers, a: Floats, block: Block = block) -> tuple[Floats, Floats, Flags]:
                    return column_totals(sums, diagonal_r(block, 0, n), a, plan.damping, plan.units)

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
                    count = int(np.count_nonzero(exemplars)) + n_forced
                    records.append(Iteration(file.iteration, count, changed, now - started))
                    if stability.reached(records[-1]) or now > until:
                        break
                yield LocalRun(records, totals, a, before)
        except UnusableFile:
            return


def messages(handles: Batches, plan: Plan, reached: int) -> Iterator[pa.RecordBatch]:
    """All entries (i, k, similarity, r, a) of the iteration that the blocks have reached."""
    for handle in (Row(**row) for batch in handles for row in batch.to_pylist()):
        with at_work(handle, plan) as file:
            if file.iteration != reached:
                raise UnusableFile(f"{file.path} has reached iteration {file.iteration}, not {reached}")
            for part, similarity in file.parts():
                columns = {
                    "i": np.repeat(part.rows, np.diff(part.starts)),
                    "k": part.columns.astype(np.int64),
                    "similarity": similarity.copy(),
                    "r": part.r.copy(),
                    "a": part.a.copy(),
                }
                yield pa.RecordBatch.from_pydict(columns)
