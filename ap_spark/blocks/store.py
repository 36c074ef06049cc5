"""The blocks of a graph as the driver sees them: written by one shuffle, visited by passes, made again where lost.

    handles   a row for each block: where its file is; persisted, so that Spark sends a task to where the file is

Where an executor is lost, Spark makes its handles again, by lineage: the task that makes a handle writes the file. A
file that is gone or torn is made again by the driver's order. Nobody else has a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from pickle import PicklingError
from typing import Any

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import RDD, Broadcast
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import with_settings
from ap_spark.blocks.build import HANDLES, Kept, Layout, build, rebuild
from ap_spark.blocks.files import Shape, UnusableFile, delete_files, local_directories, opened
from ap_spark.errors import ApSparkError, SettingError, StorageError

__all__ = ["MAX_ATTEMPTS", "Blocks", "broadcast", "lost", "no_storage", "shape_of_handle"]

MAX_ATTEMPTS = 10

PLANNER = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 2**20),
}


class Blocks:
    """The blocks of one graph.

    Parameters
    ----------
    edges : DataFrame
        Parcels (block, edges), see `send.parcels`.
    layout : Layout
    keys : int64, shape (n_points,)
        See `hashing`.

    Raises
    ------
    SettingError
        If Spark may run a task twice at once (``spark.speculation``): the copy would find no file where it is.
    StorageError
        Here and in all methods, if a local directory is full or cannot be written.

    Attributes
    ----------
    found : list of Row
        What the tasks had to say of the blocks (`build.HANDLES`).
    located : RDD of Row
        (block, path, rows, entries), on the executors that have the files.
    lineage : object
        What Spark reads again to make lost handles, beside the edges.
    """

    def __init__(self, edges: DataFrame, layout: Layout, keys: Broadcast[Any]) -> None:
        self.spark: SparkSession = edges.sparkSession
        if self.spark.sparkContext.getConf().get("spark.speculation") == "true":
            raise SettingError(
                "spark.speculation must be false for the resident engine, whose blocks are on one executor each, "
                "got true (or take --engine dataframe)"
            )
        self.layout = layout
        self.edges = edges
        self.keys = keys
        self.entries: DataFrame | None = None
        self.origin: object = None
        self.lineage: object = None
        self.kept: Kept | None = None
        self.handles: DataFrame | None = None
        self.located: RDD[Row]
        self.found: list[Row] = []
        with ExitStack() as held:
            held.callback(self.release)
            self.write()
            held.pop_all()

    def write(self) -> None:
        """Write the files that are not kept, and know where they are."""
        if self.handles:
            self.handles.unpersist()
        task: Callable[..., Any]
        if self.entries is None:
            source, task = self.edges, partial(build, layout=self.layout, keys=self.keys, kept=self.kept)
        else:
            assert self.kept is not None
            source, task = self.entries, partial(rebuild, layout=self.layout, kept=self.kept)
        self.lineage = self.origin
        classic.describe(self.spark, "ap: blocks")
        with with_settings(self.spark, PLANNER):
            placed = source.repartitionById(self.layout.blocks, "block")
            if self.entries is not None:
                placed = placed.sortWithinPartitions("i")
            self.handles = placed.drop("block").mapInArrow(task, HANDLES).persist()
            found = self.handles.collect()
            self.located = self.handles.select("block", "path", "rows", "entries").rdd
        classic.describe(self.spark, "")
        if problems := [handle.problem for handle in found if handle.problem]:
            raise no_storage(problems[0])
        self.found = self.found or sorted(found, key=lambda handle: int(handle.block))
        for before, now in zip(self.found, sorted(found, key=lambda handle: int(handle.block)), strict=True):
            if before.entries != now.entries or (now.hash and now.hash != before.hash):
                raise ApSparkError(
                    f"a block that was lost was to be made again, but had {before.entries:,} entries and has "
                    f"{now.entries:,}, or others: the similarities are not the same each time they are read"
                )

    def keep(self, engine: int, iteration: int, entries: DataFrame | None, origin: object = None) -> None:
        """Write what is written from now on out of these entries, a copy of what an engine has reached (`rebuild`).

        ``origin`` is what they are read from; once they have been used it is the ``lineage``, and has to stay.
        """
        self.kept = Kept(engine, iteration)
        self.entries, self.origin = entries, origin

    def visit(self, kernel: Callable[..., Any], *of_points: Any) -> list[Any]:
        """Run a pass over all blocks: what ``kernel(parts, *of_points)`` returns for each, in their order.

        Arrays among ``of_points`` are broadcast.
        """
        for attempt in range(MAX_ATTEMPTS):
            with sent(self.spark, *of_points) as values:
                task = partial(on_each, kernel=kernel, layout=self.layout, values=values)
                found = dict(self.located.mapPartitions(task).collect())
            if all(result is not None for result in found.values()):
                return [found[block] for block in sorted(found)]
            if attempt:  # at first the task may only have been sent to another executor, for want of a core
                self.write()
        raise lost("a pass")

    def read(self, task: Callable[..., Any], columns: str) -> DataFrame:
        """What a task makes of the handles (block, path, rows, entries) where their files are.

        It fails without them: bring lost ones back before.
        """
        assert self.handles is not None
        return self.handles.select("block", "path", "rows", "entries").mapInArrow(task, columns)

    def pairs(self) -> DataFrame:
        """The stored pairs of different points, by number: (i, k, s)."""
        self.visit(is_there)
        return self.read(partial(pairs, layout=self.layout), "i bigint, k bigint, s double")

    def release(self) -> None:
        if self.found and classic.is_local(self.spark):  # the driver is the executor
            if self.handles:
                self.handles.unpersist()
            delete_files(self.layout.run, {Path(handle.path).parent.parent for handle in self.found})
            return
        task = partial(delete, run=self.layout.run)
        reachable = suppress(PySparkException, Py4JError, AttributeError)  # what is not goes with its executor
        with reachable, classic.uncancellable(self.spark):
            if self.handles:
                self.handles.unpersist()
            slots = classic.cores(self.spark)  # a task for each core at once: all executors get some
            self.spark.sparkContext.parallelize(range(slots), slots).mapPartitions(task).collect()


def on_each(
    handles: Iterator[Row], kernel: Callable[..., Any], layout: Layout, values: list[Any]
) -> Iterator[tuple[int, Any]]:
    """What a pass has found on each block; None without a usable file."""
    arguments = [value.value if isinstance(value, Broadcast) else value for value in values]
    for handle in handles:
        try:
            with opened(Path(handle.path), shape_of_handle(handle, layout), messages=False) as file:
                yield handle.block, kernel(file.parts(), *arguments)
        except UnusableFile:
            yield handle.block, None


def is_there(parts: Any) -> bool:
    """A pass that looks at nothing: `visit` makes lost blocks again."""
    return True


def pairs(handles: Iterator[pa.RecordBatch], layout: Layout) -> Iterator[pa.RecordBatch]:
    """The entries of blocks without the diagonal: (i, k, s)."""
    for handle in (Row(**row) for batch in handles for row in batch.to_pylist()):
        with opened(Path(handle.path), shape_of_handle(handle, layout), messages=False) as file:
            for block, similarity in file.parts():
                i, k = np.repeat(block.rows, np.diff(block.starts)), block.columns.astype(np.int64)
                yield pa.RecordBatch.from_pydict({"i": i, "k": k, "s": similarity.copy()}).filter(pa.array(i != k))


def shape_of_handle(handle: Row, layout: Layout) -> Shape:
    return Shape(layout.run, handle.block, handle.rows, handle.entries, layout.n_points)


def delete(ids: Iterator[int], run: int) -> Iterator[int]:
    """Delete what this executor keeps of a graph."""
    delete_files(run, local_directories())
    return iter(())


@contextmanager
def sent(spark: SparkSession, *values: Any) -> Iterator[list[Any]]:
    """Arrays as broadcast variables, for a while; other values as they are."""
    variables = [broadcast(spark, value) if isinstance(value, np.ndarray) else value for value in values]
    try:
        yield variables
    finally:
        for variable in variables:
            if isinstance(variable, Broadcast):
                variable.destroy()


def broadcast(spark: SparkSession, value: Any) -> Broadcast[Any]:
    try:
        return spark.sparkContext.broadcast(value)
    except (OSError, PicklingError) as error:  # it is written to a file of the driver's first
        raise no_storage(f"{spark.sparkContext._temp_dir}: {error}") from error


def no_storage(problem: str) -> StorageError:
    return StorageError(
        f"messages are kept in Spark's local directories, which must have room and be writable, but {problem} "
        "(another directory: --conf spark.local.dir=DIR)"
    )


def lost(when: str) -> ApSparkError:
    return ApSparkError(
        f"blocks were lost again and again in {when}: {MAX_ATTEMPTS} attempts "
        "(see the executors' logs; spark.locality.wait may be too short for the tasks to reach their executor)"
    )
