"""Blocks of rows that stay beside the executors; only column totals travel.

    one iteration:   sums = advance(blocks, totals)      each block's messages; what it adds to each column range
                     totals = reduce_sums(by range)      integers; with r(k,k) they tell who is an exemplar

The driver keeps the totals of all iterations since the base: the beginning, or a snapshot. A block that was lost is
made again (`blocks.store`) as it was in the base; then it goes through the iterations it has missed with the totals
kept, to the same bits.

A graph of one block needs no exchange: a job is then one task, which iterates by itself for up to LOCAL_RUN_SECONDS.

Broadcast variables are classic Spark's: on Spark Connect there is the dataframe engine.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import pyarrow as pa
from pyspark import RDD

from ap_spark._spark import classic
from ap_spark.blocks import passes
from ap_spark.blocks.kernel import Flags, Floats, column_totals
from ap_spark.blocks.store import MAX_ATTEMPTS, broadcast, lost, no_storage, sent
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines import tasks
from ap_spark.engines.state import MESSAGES, State
from ap_spark.engines.tasks import Beginning, ColumnSums, LocalRun, PartialSums, Plan
from ap_spark.graph.block_graph import BlockGraph

__all__ = ["ResidentEngine"]

COLLECTED_BYTES = 64 << 20
REPLAY_BYTES = 64 << 20  # totals sent at once to blocks that have to catch up


class ResidentEngine:
    """See the module's text.

    Parameters
    ----------
    graph : BlockGraph
        One engine after the other may work on it.
    damping : float
        In [0.5, 1).
    kernel : {"auto", "numpy", "numba"}
        What computes a block: by default numba where it is installed and the graph has a million edges, which it takes
        to make up for a second of importing it. Both give the same bits.
    collected_bytes : int
        Contributions of all blocks to all columns are added by the driver up to so many bytes, beyond by an exchange.
    start : State, optional
        Where to go on from, on the same graph; it has to stay readable.

    Raises
    ------
    StorageError
        Here and in all methods, if a local directory is full or cannot be written.
    """

    name = "resident"

    def __init__(
        self,
        graph: BlockGraph,
        damping: float,
        kernel: str = "auto",
        collected_bytes: int = COLLECTED_BYTES,
        start: State | None = None,
    ) -> None:
        self.graph = graph
        self.blocks = graph.blocks
        self.collected_bytes = collected_bytes
        self.spark = graph.spark
        self.iteration = start.iteration if start else 0
        self.totals = np.zeros(graph.n_points)  # of the last iteration
        self.a = np.zeros(graph.n_points)  # a(k,k), once they have reached it
        self.exemplar: Flags = np.zeros(graph.n_points, bool)
        if start:
            columns = start.columns.toArrow()
            k = columns["k"].to_numpy()
            for array, name in ((self.totals, "total"), (self.a, "a"), (self.exemplar, "exemplar")):
                array[k] = columns[name].to_numpy()
        self.history = History(self.spark.sparkContext._temp_dir, graph.n_points)
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
            self.plan = Plan(graph.blocks.layout, engine, beginning, damping, graph.units, kernel, graph.n_edges)
            self.rest_on(start)
            if start:
                self.blocks.write()
            held.pop_all()

    def rest_on(self, state: State | None) -> None:
        """Make lost blocks as they are in this state, or at the beginning."""
        entries = state and self.graph.placed(state.messages)
        self.blocks.keep(self.plan.engine, state.iteration if state else 0, entries, state)

    @property
    def recovery_state(self) -> State | None:
        return cast("State | None", self.blocks.lineage)

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        last = self.iteration + most
        while self.iteration < last:
            for done in self.burst(last, stability) if self.blocks.layout.blocks == 1 else self.round():
                yield done
                if stability.reached(done):
                    return

    def burst(self, last: int, stability: Stability) -> list[Iteration]:
        """One job of a graph of one block: up to iteration ``last``, at least one."""
        classic.describe(self.spark, f"ap: iteration {self.iteration + 1} and on")
        records, self.totals, self.a, self.exemplar = self.run_locally(last - self.iteration, stability)
        classic.describe(self.spark, "")
        self.iteration = records[-1].iteration
        return records

    def run_locally(self, most: int, stability: Stability) -> LocalRun:
        """What a task has come to that does up to ``most`` iterations."""
        task = partial(
            tasks.run_locally,
            plan=self.plan,
            start=self.iteration,
            most=most,
            stability=stability,
            n_forced=self.graph.n_forced,
        )
        for attempt in range(MAX_ATTEMPTS):
            if found := self.blocks.located.mapPartitions(task).collect():
                return found[0]
            if attempt:  # as in `advance_to`
                self.blocks.write()
        raise lost(f"iteration {self.iteration}")

    def round(self) -> list[Iteration]:
        """One job of a graph of many blocks, and one iteration."""
        started = time.perf_counter()
        number = self.iteration + 1
        classic.describe(self.spark, f"ap: iteration {number}")
        ranges = self.advance_to(number)
        classic.describe(self.spark, "")
        sums, r = (
            np.concatenate([found.sums for found in ranges], axis=1),
            np.concatenate([found.r for found in ranges]),
        )
        before = self.exemplar
        self.totals, self.a, self.exemplar = column_totals(sums, r, self.a, self.plan.damping, self.plan.units)
        self.history.append(self.totals)
        self.iteration = number
        exemplars, changed = np.count_nonzero(self.exemplar), np.count_nonzero(self.exemplar != before)
        seconds = time.perf_counter() - started
        return [Iteration(number, int(exemplars) + self.graph.n_forced, int(changed), seconds)]

    def advance_to(self, number: int) -> list[ColumnSums]:
        """Bring all blocks to an iteration; the column ranges, in order."""
        for attempt in range(MAX_ATTEMPTS):
            with sent(self.spark, self.history.read(number - 1, number)) as (totals,):
                task = partial(tasks.advance, plan=self.plan, totals=totals, first=number - 1, contribute=True)
                ranges = self.added(self.blocks.located.mapPartitions(task))
            reached = [column_sums.reached for column_sums in ranges]
            if min(reached) == number:
                return ranges
            if min(reached) >= self.history.first:
                self.catch_up(min(reached), number)
            elif attempt:  # at first the task may only have been sent to another executor, for want of a core
                self.blocks.write()
        raise lost(f"iteration {number}")

    def added(self, partial_sums: RDD[tuple[int, PartialSums]]) -> list[ColumnSums]:
        """The sums of each column range: a groupBy, or without its exchange while they are few."""
        reduce_sums = partial(tasks.reduce_sums, plan=self.plan)
        if self.blocks.layout.blocks * self.totals.nbytes > self.collected_bytes:
            found = partial_sums.partitionBy(self.blocks.layout.blocks, int).mapPartitions(reduce_sums).collect()
        else:
            found = list(reduce_sums(partial_sums.collect()))
        return sorted(found, key=lambda column_sums: column_sums.number)

    def catch_up(self, first: int, last: int) -> None:
        """Take the blocks that are behind through the iterations they have missed, with the totals of then."""
        at_once = max(1, REPLAY_BYTES // self.totals.nbytes)
        for start in range(first, last, at_once):
            with sent(self.spark, self.history.read(start, min(start + at_once, last))) as (totals,):
                task = partial(tasks.advance, plan=self.plan, totals=totals, first=start, contribute=False)
                self.blocks.located.mapPartitions(task).collect()

    def unserved(self) -> int:
        serving = self.exemplar | np.isinf(self.totals)
        return sum(self.blocks.visit(passes.unserved, serving))

    def exemplars(self) -> Flags:
        return self.exemplar

    def recover(self) -> None:
        """Bring blocks back that have been lost since the last iteration."""
        if self.blocks.layout.blocks == 1:
            self.run_locally(0, Stability(1))
        elif self.iteration > self.history.first:
            self.advance_to(self.iteration)

    def state(self) -> State:
        self.recover()
        messages = self.blocks.read(partial(tasks.messages, plan=self.plan, reached=self.iteration), MESSAGES)
        k = np.arange(self.graph.n_points)
        columns = pa.table({"k": k, "total": self.totals, "a": self.a, "exemplar": self.exemplar})
        return State(self.iteration, messages, self.spark.createDataFrame(columns))

    def set_recovery_point(self, state: State) -> None:
        self.plan = replace(self.plan, beginning=replace(self.plan.beginning, iteration=state.iteration))
        self.rest_on(state)
        self.history.begin(state.iteration, self.totals)

    def release(self) -> None:
        self.history.close()
        self.preference.destroy()


class History:
    """The totals of all iterations from the ``first``, in a file of the driver that goes with the process.

    Parameters
    ----------
    directory : str
        Where to make the file.
    n_points : int
    """

    def __init__(self, directory: str, n_points: int) -> None:
        self.n_points = n_points
        self.directory = directory
        self.first = 0
        try:
            self.file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        except OSError as error:
            raise no_storage(f"{directory}: {error.strerror}") from error

    def begin(self, iteration: int, totals: Floats) -> None:
        """Forget all others."""
        self.first = iteration
        self.file.truncate(0)
        self.append(totals)

    def append(self, totals: Floats) -> None:
        try:
            self.file.seek(0, 2)
            self.file.write(totals.data)
            self.file.flush()
        except OSError as error:
            raise no_storage(f"{self.directory}: {error.strerror}") from error

    def read(self, first: int, last: int) -> Floats:
        """The totals of the iterations from ``first`` to before ``last``, one a row."""
        self.file.seek((first - self.first) * self.n_points * 8)
        return np.fromfile(self.file, count=(last - first) * self.n_points).reshape(-1, self.n_points)

    def close(self) -> None:
        with suppress(OSError):  # what a full disk has not taken
            self.file.close()
