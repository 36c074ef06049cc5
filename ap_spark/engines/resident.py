"""Blocks of rows that stay beside the executors; only column totals travel.

    handles = edges by block, written to files            a row for each block: where its file is (persisted)
    one iteration:   shares = advance(handles, totals)    each block's messages; what it adds to each column range
                     totals = add(shares by range)        integers; with r(k,k) they tell who is an exemplar

The driver keeps the totals of all iterations since the base: the beginning, or a snapshot. A block whose executor is
lost is made again from the base, by lineage, one whose file is gone or torn likewise; then it goes through the
iterations it has missed with the totals kept, to the same bits.

A graph of one block needs no exchange: a job is then one task, which iterates by itself for up to BURST_SECONDS.

Broadcast variables are classic Spark's: on Spark Connect there is the dataframe engine.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pickle import PicklingError
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from numpy.typing import NDArray
from py4j.protocol import Py4JError
from pyspark import RDD, Broadcast
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row

from ap_spark import classic
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines import tasks
from ap_spark.engines.state import MESSAGES, State
from ap_spark.engines.tasks import MISSING, Burst, Plan, Range, Share
from ap_spark.errors import ApSparkError, SettingError, StorageError
from ap_spark.graph import Graph
from ap_spark.kernel import Flags, Floats, column_totals
from ap_spark.session import with_settings

__all__ = ["ResidentEngine"]

ONE_BLOCK_EDGES = 10_000_000  # up to here one core is about done before a job over several has begun
BUCKETS_A_BLOCK = 32  # blocks are cut at these: their sizes differ by a few per cent
COLLECTED_BYTES = 64 << 20
REPLAY_BYTES = 64 << 20  # totals sent at once to blocks that have to catch up
PATIENCE = 10  # attempts at one iteration

PLANNER = {"spark.sql.adaptive.enabled": "false"}  # it may merge partitions; one block is one partition


class ResidentEngine:
    """See the module's text.

    Parameters
    ----------
    graph : Graph
    damping : float
        In [0.5, 1).
    blocks : int, optional
        By default one up to ONE_BLOCK_EDGES, else one for each core. There are fewer where there are fewer rows.
    kernel : {"auto", "numpy", "numba"}
        What computes a block: by default numba where it is installed and the graph has a million edges, which it takes
        to make up for a second of importing it. Both give the same bits.
    collected_bytes : int
        Contributions of all blocks to all columns are added by the driver up to so many bytes, beyond by an exchange.
    start : State, optional
        Where to go on from, on the same graph; it has to stay readable.

    Raises
    ------
    SettingError
        If Spark may run a task twice at once (``spark.speculation``): the copy would find no file where it is.
    StorageError
        Here and in all methods, if a local directory is full or cannot be written.
    """

    name = "resident"

    def __init__(
        self,
        graph: Graph,
        damping: float,
        blocks: int | None = None,
        kernel: str = "auto",
        collected_bytes: int = COLLECTED_BYTES,
        start: State | None = None,
    ) -> None:
        self.graph = graph
        self.collected_bytes = collected_bytes
        self.spark = graph.edges.sparkSession
        if self.spark.sparkContext.getConf().get("spark.speculation") == "true":
            raise SettingError(
                "spark.speculation must be false for the resident engine, whose blocks are on one executor each, "
                "got true (or take --engine dataframe)"
            )
        if blocks is None:
            blocks = 1 if graph.n_edges <= ONE_BLOCK_EDGES else classic.cores(self.spark)
        self.base = self.needs = start
        self.iteration = start.iteration if start else 0
        self.totals = np.zeros(graph.n_points)  # of the last iteration
        self.a = np.zeros(graph.n_points)  # a(k,k), once they have reached it
        self.exemplar: Flags = np.zeros(graph.n_points, bool)
        if start:
            columns = start.columns.toArrow()
            k = columns["k"].to_numpy()
            for array, name in ((self.totals, "total"), (self.a, "a"), (self.exemplar, "exemplar")):
                array[k] = columns[name].to_numpy()
        self.plan, self.block_of_row = self.cut(blocks, damping, kernel)
        self.handles: DataFrame | None = None
        self.located: RDD[Row]
        self.history = History(self.spark.sparkContext._temp_dir, graph.n_points)
        with ExitStack() as held:
            held.callback(self.release)
            self.history.begin(self.iteration, self.totals)
            self.build()
            held.pop_all()

    @property
    def blocks(self) -> int:
        return len(self.plan.rows)

    def cut(self, blocks: int, damping: float, kernel: str) -> tuple[Plan, Column]:
        """Cut the rows into blocks of about as many entries; the plan, and the block of a row ``i``."""
        n = self.graph.n_points
        run = secrets.randbits(63)
        plan = partial(Plan, run, self.iteration, damping=damping, units=self.graph.units, kernel=kernel)
        if blocks == 1:
            own = n - self.graph.n_lonely
            return plan(np.array([0, n]), np.array([own]), np.array([own + self.graph.n_edges])), F.lit(0)
        buckets = min(n, BUCKETS_A_BLOCK * blocks)
        bucket = "{} * {} div {}"
        counted = (
            self.graph.points.where("not lonely")
            .groupBy(F.expr(bucket.format("index", buckets, n)).alias("bucket"))
            .agg(F.count("*").alias("rows"), F.sum(F.col("similar_to") + 1).alias("entries"))
            .toArrow()
        )
        rows, entries = np.zeros((2, buckets), np.int64)
        rows[counted["bucket"].to_numpy()] = counted["rows"].to_numpy()
        entries[counted["bucket"].to_numpy()] = counted["entries"].to_numpy()
        sums = np.cumsum(entries)
        ends = np.unique(1 + np.searchsorted(sums, sums[-1] * np.arange(1, blocks + 1) / blocks))
        ends[-1] = buckets
        starts = np.append(0, ends[:-1])
        cuts = np.append(-(-starts * n // buckets), n)
        block_of_bucket = np.repeat(np.arange(len(ends)), np.diff(np.append(starts, buckets)))
        literal = f"array({','.join(map(str, block_of_bucket))})"
        of_blocks = np.add.reduceat(rows, starts), np.add.reduceat(entries, starts)
        return plan(cuts, *of_blocks), F.expr(f"{literal}[int({bucket.format('i', buckets, n)})]")

    def in_blocks(self) -> DataFrame:
        """The handles; to be persisted, for the task that makes one writes the file."""
        edges = self.graph.edges.select("i", "k", "s")
        if self.base:
            edges = edges.join(self.base.messages, ["i", "k"])
        placed = edges.coalesce(1) if self.blocks == 1 else edges.repartitionById(self.blocks, self.block_of_row)
        return placed.sortWithinPartitions("i").mapInArrow(partial(tasks.build, plan=self.plan), tasks.HANDLES)

    def build(self) -> None:
        """Write the files that are missing, and know where they are."""
        classic.describe(self.spark, "ap: blocks")
        if self.handles:
            self.handles.unpersist()
        with with_settings(self.spark, PLANNER):
            self.needs = self.base
            self.handles = self.in_blocks().persist()
            self.located = self.handles.rdd
            problems = [handle.problem for handle in self.located.collect() if handle.problem]
        classic.describe(self.spark, "")
        if problems:
            raise no_storage(problems[0])

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        last = self.iteration + most
        while self.iteration < last:
            for done in self.burst(last, stability) if self.blocks == 1 else self.round():
                yield done
                if stability.reached(done):
                    return

    def burst(self, last: int, stability: Stability) -> list[Iteration]:
        """One job of a graph of one block: up to iteration ``last``, at least one."""
        classic.describe(self.spark, f"ap: iteration {self.iteration + 1} and on")
        records, self.totals, self.a, self.exemplar = self.looped(last - self.iteration, stability)
        classic.describe(self.spark, "")
        self.iteration = records[-1].iteration
        return records

    def looped(self, most: int, stability: Stability) -> Burst:
        """What a task has come to that does up to ``most`` iterations."""
        task = partial(
            tasks.loop,
            plan=self.plan,
            start=self.iteration,
            most=most,
            stability=stability,
            n_lonely=self.graph.n_lonely,
        )
        for attempt in range(PATIENCE):
            if found := self.located.mapPartitions(task).collect():
                return found[0]
            if attempt:  # as in `reach`
                self.build()
        raise lost(self.iteration)

    def round(self) -> list[Iteration]:
        """One job of a graph of many blocks, and one iteration."""
        started = time.perf_counter()
        number = self.iteration + 1
        classic.describe(self.spark, f"ap: iteration {number}")
        ranges = self.reach(number)
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
        return [Iteration(number, int(exemplars) + self.graph.n_lonely, int(changed), seconds)]

    def reach(self, number: int) -> list[Range]:
        """Bring all blocks to an iteration; the column ranges, in order."""
        for attempt in range(PATIENCE):
            with self.sent(self.history.read(number - 1, number)) as totals:
                task = partial(tasks.advance, plan=self.plan, totals=totals, first=number - 1, share=True)
                ranges = self.added(self.located.mapPartitions(task))
            reached = [range_.reached for range_ in ranges]
            if min(reached) == number:
                return ranges
            if min(reached) >= self.history.first:
                self.catch_up(min(reached), number)
            elif attempt:  # at first the task may only have been sent to another executor, for want of a core
                self.build()
        raise lost(number)

    def added(self, shares: RDD[tuple[int, Share]]) -> list[Range]:
        """The shares of each column range added: a groupBy, or without its exchange while they are few."""
        add = partial(tasks.add, plan=self.plan)
        if self.blocks * self.totals.nbytes > self.collected_bytes:
            found = shares.partitionBy(self.blocks, int).mapPartitions(add).collect()
        else:
            found = list(add(shares.collect()))
        return sorted(found, key=lambda range_: range_.number)

    def catch_up(self, first: int, last: int) -> None:
        """Take the blocks that are behind through the iterations they have missed, with the totals of then."""
        at_once = max(1, REPLAY_BYTES // self.totals.nbytes)
        for start in range(first, last, at_once):
            with self.sent(self.history.read(start, min(start + at_once, last))) as totals:
                task = partial(tasks.advance, plan=self.plan, totals=totals, first=start, share=False)
                self.located.mapPartitions(task).collect()

    @contextmanager
    def sent(self, of_points: NDArray[Any]) -> Iterator[Broadcast[NDArray[Any]]]:
        """An array with a value a point, or totals, one iteration a row, on all executors."""
        broadcast = self.broadcast(of_points)
        try:
            yield broadcast
        finally:
            broadcast.destroy()

    def broadcast(self, of_points: NDArray[Any]) -> Broadcast[NDArray[Any]]:
        try:
            return self.spark.sparkContext.broadcast(of_points)
        except (OSError, PicklingError) as error:  # it is written to a file of the driver's first
            raise no_storage(f"{self.history.directory}: {error}") from error

    def unserved(self) -> int:
        serving = self.exemplar | np.isinf(self.totals)
        for attempt in range(PATIENCE):
            with self.sent(serving) as sent:
                task = partial(tasks.unserved, plan=self.plan, serving=sent)
                found = self.located.mapPartitions(task).collect()
            if MISSING not in found:
                return sum(found)
            if attempt:  # as in `reach`
                self.build()
        raise lost(self.iteration)

    def exemplars(self) -> DataFrame:
        return self.spark.createDataFrame(pa.table({"index": np.flatnonzero(self.exemplar)}))

    def settle(self) -> None:
        """Bring blocks back that have been lost since the last iteration."""
        if self.blocks == 1:
            self.looped(0, Stability(1))
        elif self.iteration > self.history.first:
            self.reach(self.iteration)

    def state(self) -> State:
        assert self.handles is not None
        self.settle()
        messages = self.handles.mapInArrow(partial(tasks.messages, plan=self.plan, reached=self.iteration), MESSAGES)
        k = np.arange(self.graph.n_points)
        columns = pa.table({"k": k, "total": self.totals, "a": self.a, "exemplar": self.exemplar})
        return State(self.iteration, messages, self.spark.createDataFrame(columns))

    def rebase(self, state: State) -> None:
        self.base = state
        self.plan = replace(self.plan, start=state.iteration)
        self.history.begin(state.iteration, self.totals)

    def release(self) -> None:
        self.history.close()
        delete = partial(tasks.delete, run=self.plan.run)
        reachable = suppress(PySparkException, Py4JError, AttributeError)  # what is not goes with its executor
        with reachable, classic.spared(self.spark):
            if self.handles:
                self.handles.unpersist()
            slots = classic.cores(self.spark)  # a task for each core at once: all executors get some
            self.spark.sparkContext.parallelize(range(slots), slots).mapPartitions(delete).collect()


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


def no_storage(problem: str) -> StorageError:
    return StorageError(
        f"messages are kept in Spark's local directories, which must have room and be writable, but {problem} "
        "(another directory: --conf spark.local.dir=DIR)"
    )


def lost(iteration: int) -> ApSparkError:
    return ApSparkError(
        f"blocks were lost again and again in iteration {iteration}: {PATIENCE} attempts "
        "(see the executors' logs; spark.locality.wait may be too short for the tasks to reach their executor)"
    )
