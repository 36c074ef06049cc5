"""What the tasks of the resident engine do on the executors.

advance      handles, column totals        ──►  what each block contributes to the next totals, by column range
reduce_sums  contributions to some ranges  ──►  the sums of each range
run_locally  the handle of the only block  ──►  records of many iterations, the last totals and exemplars
messages     handles                       ──►  similarity, r and a of each entry
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import Row

from ap_spark.blocks import kernel
from ap_spark.blocks.build import Layout
from ap_spark.blocks.compiling import twin_of
from ap_spark.blocks.files import TORN, BlockFile, UnusableFile, opened
from ap_spark.blocks.kernel import Block, Flags, Floats, Integers, entry_damping, first_similarities
from ap_spark.blocks.store import shape_of_handle
from ap_spark.convergence import Iteration, Stability
from ap_spark.damping import Damping, Levels, PointDamping
from ap_spark.engines.one_block import OneBlock
from ap_spark.exact_sum import Units

__all__ = [
    "Beginning",
    "ColumnSums",
    "Iterate",
    "LocalRun",
    "PartialSums",
    "Plan",
    "advance",
    "begin_messages",
    "messages",
    "partial_sums",
    "reduce_sums",
    "run_locally",
]

_LOCAL_RUN_S = 5.0  # seconds until a local run reports to the driver
_MISSING = TORN - 1  # the iteration of a block whose file cannot be used

_Batches = Iterable[pa.RecordBatch]
_Handles = Iterable[Row]
_Sent = float | Broadcast[Levels]
Iterate = Callable[[Block, Floats, Damping, Units, Integers, Damping | None], None]  # `kernel.iterate` is one


class PartialSums(NamedTuple):
    """What a block contributes to the totals of one column range.

    Attributes
    ----------
    columns : int32 or int64
        The columns to which the block contributes, as positions in the range.
    sums : int64, shape (columns,)
        Its contributions, in units. Where sums have two words, the fine one.
    large, large_sums : int32 or int64, and int64, shape (few,)
        Where sums have two words: the positions whose coarse word is not 0, which are few, and that word.
    r : float64, shape (columns of the range,)
        r(k,k), NaN where k has no row. Only the block that has the rows of these points gives it.
    reached : int
        The iteration that this block has reached. Before the one that was asked for it contributes nothing.
    """

    columns: Integers = np.empty(0, np.int64)
    sums: Integers = np.empty(0, np.int64)
    large: Integers = np.empty(0, np.int64)
    large_sums: Integers = np.empty(0, np.int64)
    r: Floats | None = None
    reached: int = _MISSING


class ColumnSums(NamedTuple):
    """A column range after an iteration.

    Attributes
    ----------
    number : int
        Of the range, and of the block that has the rows of its points.
    sums : int64, shape (words, columns)
        The contributions of all blocks, in units.
    r : float64, shape (columns,)
        r(k,k), NaN where k has no row.
    reached : int
        The iteration that the block has reached.
    """

    number: int
    sums: Integers
    r: Floats
    reached: int


class LocalRun(NamedTuple):
    """What a task that iterates by itself has done.

    Attributes
    ----------
    records : list of Iteration
        Of its iterations.
    totals, a : float64, shape (n_points,)
        T(k) after the last of them, and a(k,k), which follows from it.
    exemplars : bool, shape (n_points,)
        Whether a(k,k) + r(k,k) > 0.
    damping : PointDamping
        After the last of them.
    """

    records: list[Iteration]
    totals: Floats
    a: Floats
    exemplars: Flags
    damping: PointDamping


@dataclass(frozen=True)
class Beginning:
    """The messages and similarities that an engine begins with.

    Attributes
    ----------
    keys : broadcast of int64, shape (n_points,)
        The keys of the points (`blocks/hashing.py`).
    preference : broadcast of float64, shape (n_points,)
    min_nonzero : float
        The smallest similarity or preference in size that is not 0.
    seed : int
    jitter : bool
    iteration : int
        Of the recovery point. A file written for the engine at this iteration holds the messages to begin with.
    """

    keys: Broadcast[Integers]
    preference: Broadcast[Floats]
    min_nonzero: float
    seed: int
    jitter: bool
    iteration: int


@dataclass(frozen=True)
class Plan:
    """What every task of an engine needs to know.

    Attributes
    ----------
    layout : Layout
        Block b has the rows of some points; column range b has the columns of the same points.
    engine : int
        A random number that identifies the engine.
    beginning : Beginning
    units : Units
    kernel : {"numpy", "numba", "auto"}
        What computes a block; see `compiling.twin_of`.
    n_edges : int
    """

    layout: Layout
    engine: int
    beginning: Beginning
    units: Units
    kernel: str
    n_edges: int

    @property
    def n_points(self) -> int:
        return self.layout.n_points

    @cached_property
    def iterate(self) -> Iterate:
        """`kernel.iterate`, or the same compiled by numba."""
        return twin_of(kernel.iterate, self.n_edges, self.kernel)


@contextmanager
def _opened_by_engine(handle: Row, plan: Plan) -> Iterator[BlockFile]:
    """Open the file of a block; where it holds no messages of this engine, they begin now."""
    with opened(Path(handle.path), shape_of_handle(handle, plan.layout)) as file:
        if file.engine != plan.engine:
            begin_messages(file, plan)
        yield file


def begin_messages(file: BlockFile, plan: Plan) -> None:
    """Write what an engine begins with into the file of a block.

    Messages are 0, or those of the recovery point if the file was written with them. Similarities get their jitter, and
    preferences their place on the diagonal.
    """
    given = plan.beginning
    has_messages = file.made_for == plan.engine and file.engine == 0 and file.iteration == given.iteration
    with file.handed_to(plan.engine, given.iteration if has_messages else 0):
        for part, similarity in file.parts():
            if not has_messages:
                part.r[:] = part.a[:] = 0.0
            part.s[:] = first_similarities(
                part,
                similarity,
                given.preference.value,
                given.keys.value,
                given.min_nonzero,
                given.seed if given.jitter else None,
            )


def advance(
    handles: _Handles,
    plan: Plan,
    totals: Broadcast[Floats],
    first: int,
    damping: _Sent,
    last_damping: _Sent | None = None,
    *,
    contribute: bool,
) -> Iterator[tuple[int, PartialSums]]:
    """Do iterations on blocks, and yield what they contribute to the next totals.

    Parameters
    ----------
    handles : iterable of Row
        Of the blocks of this task.
    plan : Plan
    totals : broadcast of float64, shape (m, n_points)
        Row t has the totals after iteration ``first`` + t: with them a block gets from there to the next iteration.
    first : int
    damping : float, or broadcast of uint8, shape (n_points,)
        One for all points, or the level of each: in all of these iterations.
    last_damping : float, or broadcast of uint8, optional
        In iteration ``first``, where it was another.
    contribute : bool
        Whether the blocks contribute to the next totals, or only catch up.

    Yields
    ------
    (int, PartialSums)
        For a block that has reached iteration ``first`` + m: one for each column range it contributes to, under the
        number of the range. For a block that is behind ``first``, or ahead, or without a usable file, or where it does
        not contribute: one without sums under the number of the block, which says where it is.
    """
    last = first + len(totals.value)
    for handle in handles:
        reached = _MISSING
        try:
            with _opened_by_engine(handle, plan) as file:
                sums = None
                while first <= file.iteration < last:
                    before = None
                    if last_damping is not None and file.iteration == first:
                        before = _value(last_damping)
                    sums = _iterate(file, plan, totals.value[file.iteration - first], _value(damping), before)
                reached = file.iteration
                if contribute and reached == last:
                    sums = _contributions(file, plan) if sums is None else sums
                    yield from partial_sums(file.block, plan, handle.block, sums, reached)
        except UnusableFile:
            pass
        if not contribute or reached != last:
            yield handle.block, PartialSums(reached=reached)


def _value(sent: _Sent) -> Damping:
    return sent.value if isinstance(sent, Broadcast) else sent


def _iterate(file: BlockFile, plan: Plan, totals: Floats, damping: Damping, last: Damping | None) -> Integers:
    """Do one iteration of a block; return its contributions to all columns, shape (words, n_points).

    ``damping`` is of the points, and so is ``last``, of the last iteration where it was another.
    """
    sums = file.room_for_sums(plan.units.words)
    before = None if last is None else entry_damping(file.block, last)
    with file.update_to(file.iteration + 1):
        plan.iterate(file.block, totals, entry_damping(file.block, damping), plan.units, sums, before)
    return sums


def _contributions(file: BlockFile, plan: Plan) -> Integers:
    """Return the contributions of a block that has done its iteration before."""
    sums = file.room_for_sums(plan.units.words)
    for part in file.block.parts:
        kernel.contributions(part, plan.units, sums)
    return sums


def partial_sums(
    block: Block, plan: Plan, number: int, sums: Integers, reached: int
) -> Iterator[tuple[int, PartialSums]]:
    """Yield the contributions of block ``number`` by column range; its own range gets r(k,k) too."""
    for target, (low, high) in enumerate(pairwise(plan.layout.cuts.tolist())):
        *coarse, fine = sums[:, low:high]
        columns = np.flatnonzero(fine)
        part = PartialSums(columns.astype(block.columns.dtype), fine[columns])
        for word in coarse:
            large = np.flatnonzero(word)
            part = part._replace(large=large.astype(block.columns.dtype), large_sums=word[large])
        if target == number:
            part = part._replace(r=block.diagonal_r(low, high), reached=reached)
        yield target, part


def reduce_sums(partial_sums: Iterable[tuple[int, PartialSums]], plan: Plan) -> Iterator[ColumnSums]:
    """Add the contributions to each column range."""
    ranges: dict[int, ColumnSums] = {}
    for number, part in partial_sums:
        shape = plan.units.words, plan.layout.cuts[number + 1] - plan.layout.cuts[number]
        column_sums = ranges.setdefault(number, ColumnSums(number, np.zeros(shape, np.int64), np.empty(0), _MISSING))
        column_sums.sums[-1][part.columns] += part.sums
        column_sums.sums[0][part.large] += part.large_sums  # with one word there are none
        if part.r is not None or part.reached != _MISSING:
            ranges[number] = column_sums._replace(
                r=part.r if part.r is not None else column_sums.r, reached=part.reached
            )
    yield from ranges.values()


def run_locally(
    handles: _Handles,
    plan: Plan,
    start: int,
    most: int,
    stability: Stability,
    damping: Broadcast[PointDamping],
    n_forced: int,
) -> Iterator[LocalRun]:
    """Do up to ``most`` iterations on a graph of one block, after iteration ``start``, for up to five seconds.

    A block that is behind ``start`` repeats the iterations it has missed: it needs no totals but its own. One that is
    ahead of it, since a task was lost whose records the driver never got, is discarded, to be rebuilt.

    Parameters
    ----------
    handles : iterable of Row
        Of the block.
    plan : Plan
    start : int
        The last iteration of which the driver knows.
    most : int
        Iterations at most; with 0 only what was missed is repeated.
    stability : Stability
        Ends the run where it is reached.
    damping : broadcast of PointDamping
        After iteration ``start``.
    n_forced : int
        The number of forced exemplars, which counts in the records.

    Yields
    ------
    LocalRun
        Nothing if there is no usable file.
    """
    until = time.perf_counter() + _LOCAL_RUN_S
    for handle in handles:
        try:
            with _opened_by_engine(handle, plan) as file:
                if file.iteration > start:
                    file.discard()
                    return
                run = OneBlock(
                    file.block,
                    _contributions(file, plan),
                    plan.units,
                    deepcopy(damping.value),
                    file.iteration,
                    n_forced,
                )
                records: list[Iteration] = []
                while run.iteration < start + most:
                    if run.iteration < start:
                        run.repeat(partial(_iterate, file, plan))
                        continue
                    records.append(run.iterate(partial(_iterate, file, plan), stability.windows))
                    if stability.reached(records[-1]) or time.perf_counter() > until:
                        break
                yield LocalRun(records, run.totals, run.a, run.exemplar, run.damping)
        except UnusableFile:
            return


def messages(handles: _Batches, plan: Plan, reached: int) -> Iterator[pa.RecordBatch]:
    """Yield all entries (i, k, similarity, r, a) of blocks that have to be at iteration ``reached``."""
    for handle in (Row(**row) for batch in handles for row in batch.to_pylist()):
        with _opened_by_engine(handle, plan) as file:
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
