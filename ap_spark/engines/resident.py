"""The fast engine: blocks of rows stay in files beside the executors, and only column totals travel.

    one iteration:   partial sums = advance(blocks, totals)     a task for each block updates its messages
                     column sums  = reduce_sums(partial sums)   integers, added by column range
                     totals, exemplars = column_totals(…)       on the driver

The driver keeps the totals of all iterations since the *recovery point*: the beginning, or the last snapshot. A block
that was lost is rebuilt as it was there (`blocks/store.py`). Then it repeats the iterations it has missed, with the
totals that were kept and the damping that each point had then: the result is bitwise identical.

A graph of one block needs no exchange. There a job is one task, which iterates for up to five
seconds (`LocalRun`).

Broadcast variables exist on classic Spark only; on Spark Connect there is the dataframe engine.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD

from ap_spark._spark import classic
from ap_spark.blocks import passes
from ap_spark.blocks.kernel import Flags, Floats, column_totals
from ap_spark.blocks.store import MAX_ATTEMPTS, broadcast, lost_blocks_error, sent, storage_error
from ap_spark.convergence import Iteration, Stability
from ap_spark.damping import PointDamping, is_raise_due, last_before_raise
from ap_spark.engines import tasks
from ap_spark.engines.state import MESSAGES, State
from ap_spark.engines.tasks import Beginning, ColumnSums, LocalRun, PartialSums, Plan
from ap_spark.graph.block_graph import BlockGraph

__all__ = ["ResidentEngine"]

_COLLECTED_BYTES = 64 << 20  # up to so many bytes the driver adds partial sums itself
_REPLAY_BYTES = 64 << 20  # of totals that are sent at once to blocks that have to catch up


class ResidentEngine:
    """Computes iterations on blocks; see the text of this module.

    Parameters
    ----------
    graph : BlockGraph
        Several engines may work on it, one after the other.
    damping : float or None
        A fixed damping, in [0.5, 1); None for one of its own for each point (`damping.py`).
    kernel : {"auto", "numpy", "numba"}
        What computes a block. By default numba, where it is installed and the graph has at least a million edges: with
        fewer, importing numba takes longer than it saves. Results are bitwise identical.
    collected_bytes : int
        Up to so many bytes of partial sums the driver adds itself; beyond that they are shuffled by column range.
    start : State, optional
        Where to resume from, on the same graph. It has to stay readable.

    Raises
    ------
    StorageError
        Here and in all methods, if a local directory is full or cannot be written.
    """

    name = "resident"

    def __init__(
        self,
        graph: BlockGraph,
        damping: float | None,
        kernel: str = "auto",
        collected_bytes: int = _COLLECTED_BYTES,
        start: State | None = None,
    ) -> None:
        self.graph = graph
        self.blocks = graph.blocks
        self.collected_bytes = collected_bytes
        self.spark = graph.spark
        self.iteration = start.iteration if start else 0
        self.totals = np.zeros(graph.n_points)  # of the last iteration
        self.a = np.zeros(graph.n_points)  # a(k,k), which follows from them
        self.exemplar: Flags = np.zeros(graph.n_points, bool)
        level, flipped = np.zeros(graph.n_points, np.uint8), np.zeros(graph.n_points, np.int32)
        if start:
            columns = start.columns.toArrow()
            k = columns["k"].to_numpy()
            arrays: dict[str, NDArray[Any]] = {"total": self.totals, "a": self.a, "exemplar": self.exemplar}
            for name, array in (arrays | {"level": level, "flipped": flipped}).items():
                array[k] = columns[name].to_numpy()
        self.damping = PointDamping(damping, level, flipped)
        self.history = _TotalsHistory(self.spark.sparkContext._temp_dir, graph.n_points)
        with ExitStack() as held:
            held.callback(self.history.close)
            preference = broadcast(self.spark, np.ascontiguousarray(graph.preferences))
            held.callback(preference.destroy)
            self.preference = preference
            self.history.begin(self.iteration, self.totals)
            beginning = Beginning(
                graph.blocks.keys, preference, graph.smallest, graph.seed, graph.jitter, self.iteration
            )
            engine = secrets.randbits(62) + 1
            self.plan = Plan(graph.blocks.layout, engine, beginning, graph.units, kernel, graph.n_edges)
            self._recover_from(start)
            if start:
                self.blocks.write()
            held.pop_all()

    def _recover_from(self, state: State | None) -> None:
        """Rebuild lost blocks, from now on, from this state; None for the beginning."""
        entries = state and self.graph.with_block(state.messages)
        self.blocks.rebuild_from(self.plan.engine, state.iteration if state else 0, entries, state)

    @property
    def recovery_state(self) -> State | None:
        return cast("State | None", self.blocks.lineage)

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        last = self.iteration + most
        while self.iteration < last:
            one_block = self.blocks.layout.blocks == 1
            for done in self._iterate_locally(last, stability) if one_block else self._iterate_once(stability):
                yield done
                if stability.reached(done):
                    return

    def _iterate_locally(self, last: int, stability: Stability) -> list[Iteration]:
        """Run one job on a graph of one block: at least one iteration, none after ``last``."""
        classic.name_jobs(self.spark, f"ap: iteration {self.iteration + 1} and on")
        found = self._run_locally(last - self.iteration, stability)
        records, self.totals, self.a, self.exemplar, self.damping = found
        classic.name_jobs(self.spark, "")
        self.iteration = records[-1].iteration
        return records

    def _run_locally(self, most: int, stability: Stability) -> LocalRun:
        """Have a task do up to ``most`` iterations; return its records, and the columns after the last."""
        damping = broadcast(self.spark, self.damping)
        task = partial(
            tasks.run_locally,
            plan=self.plan,
            start=self.iteration,
            most=most,
            stability=stability,
            damping=damping,
            n_forced=self.graph.n_forced,
        )
        try:
            for attempt in range(MAX_ATTEMPTS):
                if found := self.blocks.located.mapPartitions(task).collect():
                    return found[0]
                if attempt:  # as in `_advance_to`
                    self.blocks.write()
        finally:
            damping.destroy()
        raise lost_blocks_error(f"iteration {self.iteration}")

    def _iterate_once(self, stability: Stability) -> list[Iteration]:
        """Run one iteration, a job on a graph of many blocks."""
        started = time.perf_counter()
        number = self.iteration + 1
        self.damping.raise_levels(number)
        classic.name_jobs(self.spark, f"ap: iteration {number}")
        ranges = self._advance_to(number)
        classic.name_jobs(self.spark, "")
        sums = np.concatenate([column_sums.sums for column_sums in ranges], axis=1)
        r = np.concatenate([column_sums.r for column_sums in ranges])
        before = self.exemplar
        self.totals, self.a, self.exemplar = column_totals(sums, r, self.a, self.damping.at(number), self.plan.units)
        self.history.append(self.totals)
        self.iteration = number
        flipped = self.exemplar != before
        self.damping.note(number, flipped)
        exemplars, changed = int(np.count_nonzero(self.exemplar)) + self.graph.n_forced, int(np.count_nonzero(flipped))
        unsettled = self.damping.unsettled(number, stability.windows)
        return [Iteration(number, exemplars, changed, unsettled, time.perf_counter() - started)]

    def _advance_to(self, number: int) -> list[ColumnSums]:
        """Bring all blocks to an iteration, lost ones included; return the column sums of all ranges, in order."""
        for attempt in range(MAX_ATTEMPTS):
            with self._sent(number - 1, number) as values:
                task = partial(tasks.advance, plan=self.plan, first=number - 1, contribute=True, **values)
                ranges = self._reduce(self.blocks.located.mapPartitions(task))
            reached = [column_sums.reached for column_sums in ranges]
            if min(reached) == number:
                return ranges
            if min(reached) >= self.history.first:
                self._catch_up(min(reached), number)
            elif attempt:  # the first time the executor with the file may only have been busy: another got the task
                self.blocks.write()
        raise lost_blocks_error(f"iteration {number}")

    def _reduce(self, partial_sums: RDD[tuple[int, PartialSums]]) -> list[ColumnSums]:
        """Add partial sums by column range: in a shuffle, or on the driver while they are small."""
        reduce_sums = partial(tasks.reduce_sums, plan=self.plan)
        if self.blocks.layout.blocks * self.totals.nbytes > self.collected_bytes:
            found = partial_sums.partitionBy(self.blocks.layout.blocks, int).mapPartitions(reduce_sums).collect()
        else:
            found = list(reduce_sums(partial_sums.collect()))
        return sorted(found, key=lambda column_sums: column_sums.number)

    def _catch_up(self, first: int, last: int) -> None:
        """Have blocks that are behind repeat the iterations after ``first`` up to ``last``, with the totals kept.

        A job repeats iterations of the same levels.
        """
        at_once = max(1, _REPLAY_BYTES // self.totals.nbytes)
        while first < last:
            stop = min(first + at_once, last, last_before_raise(first + 1))
            with self._sent(first, stop) as values:
                task = partial(tasks.advance, plan=self.plan, first=first, contribute=False, **values)
                self.blocks.located.mapPartitions(task).collect()
            first = stop

    @contextmanager
    def _sent(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """Send what blocks need to get from iteration ``first`` to ``last``: totals and damping (`tasks.advance`)."""
        before = self.damping.at(first) if is_raise_due(first + 1) else None
        with sent(self.spark, self.history.read(first, last), self.damping.at(first + 1), before) as values:
            yield dict(zip(("totals", "damping", "last_damping"), values, strict=True))

    def unserved(self) -> int:
        serving = self.exemplar | np.isinf(self.totals)
        return sum(self.blocks.visit(passes.unserved, serving))

    def exemplars(self) -> Flags:
        return self.exemplar

    def _recover(self) -> None:
        """Rebuild the blocks that have been lost since the last iteration."""
        if self.blocks.layout.blocks == 1:
            self._run_locally(0, Stability((1,)))
        elif self.iteration > self.history.first:
            self._advance_to(self.iteration)

    def state(self) -> State:
        self._recover()
        messages = self.blocks.read(partial(tasks.messages, plan=self.plan, reached=self.iteration), MESSAGES)
        k = np.arange(self.graph.n_points)
        columns = pa.table(
            {
                "k": k,
                "total": self.totals,
                "a": self.a,
                "exemplar": self.exemplar,
                "level": self.damping.level.astype(np.int8),
                "flipped": self.damping.flipped,
            }
        )
        return State(self.iteration, messages, self.spark.createDataFrame(columns))

    def set_recovery_point(self, state: State) -> None:
        self.plan = replace(self.plan, beginning=replace(self.plan.beginning, iteration=state.iteration))
        self._recover_from(state)
        self.history.begin(state.iteration, self.totals)

    def release(self) -> None:
        self.history.close()
        self.preference.destroy()


class _TotalsHistory:
    """The totals of all iterations since the recovery point, in a temporary file of the driver.

    Parameters
    ----------
    directory : str
        Where to make the file.
    n_points : int

    Attributes
    ----------
    first : int
        The iteration of the recovery point.
    """

    def __init__(self, directory: str, n_points: int) -> None:
        self.n_points = n_points
        self.directory = directory
        self.first = 0
        try:
            self.file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        except OSError as error:
            raise storage_error(f"{directory}: {error.strerror}") from error

    def begin(self, iteration: int, totals: Floats) -> None:
        """Forget all totals but these, which are of the new recovery point."""
        self.first = iteration
        self.file.truncate(0)
        self.append(totals)

    def append(self, totals: Floats) -> None:
        """Keep the totals of the next iteration."""
        try:
            self.file.seek(0, 2)
            self.file.write(totals.data)
            self.file.flush()
        except OSError as error:
            raise storage_error(f"{self.directory}: {error.strerror}") from error

    def read(self, first: int, last: int) -> Floats:
        """Return the totals of the iterations from ``first`` to ``last`` - 1, shape (last - first, n_points)."""
        self.file.seek((first - self.first) * self.n_points * 8)
        return np.fromfile(self.file, count=(last - first) * self.n_points).reshape(-1, self.n_points)

    def close(self) -> None:
        with suppress(OSError):  # of a full disk, which takes nothing that is still buffered
            self.file.close()
