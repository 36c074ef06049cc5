"""The blocks of a graph as the driver sees them: written by one shuffle, visited by passes, rebuilt where lost.

A *handle* is a row that says where the file of a block is. Handles are persisted, so that Spark sends a task to the
executor that has the file. There is no other copy of a file. When an executor is lost, Spark computes its handles
again, and the task that computes a handle writes the file. When only a file is gone or torn, the driver has it written
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from pickle import PicklingError
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from py4j.protocol import Py4JError
from pyspark import RDD, Broadcast
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import with_settings
from ap_spark.blocks.build import HANDLES, Layout, Reusable, build, rebuild
from ap_spark.blocks.files import Shape, UnusableFile, delete_files, local_directories, opened
from ap_spark.errors import ApSparkError, SettingError, StorageError

__all__ = ["MAX_ATTEMPTS", "Blocks", "broadcast", "lost_blocks_error", "sent", "shape_of_handle", "storage_error"]

_COLLECTED_BYTES = 64 << 20  # up to so many bytes the driver adds the sums of all blocks itself
MAX_ATTEMPTS = 10  # to run a pass, or an iteration, over blocks that are lost again and again

_PLANNER_SETTINGS = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 2**20),
}


class Blocks:
    """The blocks of one graph.

    Parameters
    ----------
    edges : DataFrame
        Parcels (block, edges), see `parcels.pack_parcels`.
    layout : Layout
    keys : int64, shape (n_points,)
        See `hashing`.

    Raises
    ------
    SettingError
        If Spark may run copies of a task (``spark.speculation``): a copy runs where the file is not.
    StorageError
        Here and in all methods, if a local directory is full or cannot be written.

    Attributes
    ----------
    found : list of Row
        The handles of all blocks (`build.HANDLES`), as the first write returned them.
    located : RDD of Row
        The part (block, path, rows, entries) of the handles, on the executors that have the files.
    lineage : object
        What Spark reads to compute lost handles: the ``origin`` given to `rebuild_from`, or None for the edges.
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
        self._origin: object = None
        self.lineage: object = None
        self._reusable: Reusable | None = None
        self.handles: DataFrame | None = None
        self.located: RDD[Row]
        self.found: list[Row] = []
        with ExitStack() as held:
            held.callback(self.release)
            self.write()
            held.pop_all()

    def write(self) -> None:
        """Write the files that are not reusable, and note where all of them are."""
        if self.handles:
            self.handles.unpersist()
        task: Callable[..., Any]
        if self.entries is None:
            source, task = self.edges, partial(build, layout=self.layout, keys=self.keys, reusable=self._reusable)
        else:
            assert self._reusable is not None
            source, task = self.entries, partial(rebuild, layout=self.layout, reusable=self._reusable)
        self.lineage = self._origin
        classic.name_jobs(self.spark, "ap: blocks")
        with with_settings(self.spark, _PLANNER_SETTINGS):
            placed = source.repartitionById(self.layout.blocks, "block")
            if self.entries is not None:
                placed = placed.sortWithinPartitions("i")
            self.handles = placed.drop("block").mapInArrow(task, HANDLES).persist()
            found = self.handles.collect()
            self.located = self.handles.select("block", "path", "rows", "entries").rdd
        classic.name_jobs(self.spark, "")
        if problems := [handle.problem for handle in found if handle.problem]:
            raise storage_error(problems[0])
        self.found = self.found or sorted(found, key=lambda handle: int(handle.block))
        for before, now in zip(self.found, sorted(found, key=lambda handle: int(handle.block)), strict=True):
            if before.entries != now.entries or (now.hash and now.hash != before.hash):
                raise ApSparkError(
                    f"similarities must be the same each time they are read, but a lost block had {before.entries:,} "
                    f"entries, and was rebuilt with {now.entries:,}, or with other ones: write them to Parquet first"
                )

    def rebuild_from(self, engine: int, iteration: int, entries: DataFrame | None, origin: object = None) -> None:
        """Rebuild lost files, from now on, from the entries of an engine's recovery point.

        Parameters
        ----------
        engine, iteration : int
            Files with messages of this engine, of this iteration or a later one, are kept.
        entries : DataFrame, optional
            (block, i, k, similarity, r, a); by default files are built from the edges again.
        origin : object
            What ``entries`` are read from. It becomes the ``lineage`` when files are rebuilt, and has to stay readable.
        """
        self._reusable = Reusable(engine, iteration)
        self.entries, self._origin = entries, origin

    def visit(self, kernel: Callable[..., Any], *of_points: Any) -> list[Any]:
        """Run a pass over all blocks; return the results of ``kernel(parts, *of_points)``, one for each block in order.

        Arrays among ``of_points`` are broadcast. Blocks that are lost are rebuilt on the way.
        """
        for attempt in range(MAX_ATTEMPTS):
            with sent(self.spark, *of_points) as values:
                task = partial(_run_pass, kernel=kernel, layout=self.layout, values=values)
                found = dict(self.located.mapPartitions(task).collect())
            if all(result is not None for result in found.values()):
                return [found[block] for block in sorted(found)]
            if attempt:  # the first time the executor with the file may only have been busy: another got the task
                self.write()
        raise lost_blocks_error("a pass")

    def visit_columns(self, kernel: Callable[..., Any], *of_points: Any) -> tuple[list[Any], NDArray[np.int64]]:
        """Run a pass that adds something up for each column.

        ``kernel(parts, *of_points)`` returns a named tuple with a field ``sums``, int64 of shape (w, n_points). While
        they are small, the driver adds the sums of all blocks; beyond that they are shuffled by column range.

        Returns
        -------
        list
            What the kernel returned for each block, in order, without its sums.
        int64, shape (w, n_points)
            The sums of all blocks.
        """
        layout = self.layout
        for attempt in range(MAX_ATTEMPTS):
            with sent(self.spark, *of_points) as values:
                task = partial(_run_column_pass, kernel=kernel, layout=layout, values=values)
                pieces = self.located.mapPartitions(task)
                if layout.blocks * layout.n_points * 8 > _COLLECTED_BYTES:
                    added = pieces.partitionBy(layout.blocks, int).mapPartitions(partial(_add_up, layout=layout))
                    ranges = added.collect()
                else:
                    ranges = list(_add_up(pieces.collect(), layout))
            found = {number: result for number, result, _ in ranges}
            if all(result is not None for result in found.values()):
                sums = [part for _, _, part in sorted(ranges, key=lambda one: one[0])]
                return [found[block] for block in sorted(found)], np.concatenate(sums, axis=1)
            if attempt:
                self.write()
        raise lost_blocks_error("a pass")

    def read(self, task: Callable[..., Any], columns: str) -> DataFrame:
        """Return what a task computes from handles (block, path, rows, entries), on the executors that have the files.

        The task fails where a file is lost: have lost ones rebuilt before.
        """
        assert self.handles is not None
        return self.handles.select("block", "path", "rows", "entries").mapInArrow(task, columns)

    def pairs(self) -> DataFrame:
        """Return the stored pairs of different points, by index: (i, k, s)."""
        self.visit(_visit_only)
        return self.read(partial(_pairs, layout=self.layout), "i bigint, k bigint, s double")

    def release(self) -> None:
        """Delete the files, on all executors that can be reached."""
        if self.found and classic.is_local(self.spark):  # the driver is the executor
            if self.handles:
                self.handles.unpersist()
            delete_files(self.layout.run, {Path(handle.path).parent.parent for handle in self.found})
            return
        task = partial(_delete_here, run=self.layout.run)
        reachable = suppress(PySparkException, Py4JError, AttributeError)  # what is not goes with its executor
        with reachable, classic.uncancellable(self.spark):
            if self.handles:
                self.handles.unpersist()
            slots = classic.cores(self.spark)  # a task for each core at once: all executors get some
            self.spark.sparkContext.parallelize(range(slots), slots).mapPartitions(task).collect()


def _run_pass(
    handles: Iterable[Row], kernel: Callable[..., Any], layout: Layout, values: list[Any]
) -> Iterator[tuple[int, Any]]:
    """Yield the number of each block and the result of a pass; None where there is no usable file."""
    arguments = [value.value if isinstance(value, Broadcast) else value for value in values]
    for handle in handles:
        try:
            with opened(Path(handle.path), shape_of_handle(handle, layout), messages=False) as file:
                yield handle.block, kernel(file.parts(), *arguments)
        except UnusableFile:
            yield handle.block, None


def _run_column_pass(
    handles: Iterable[Row], kernel: Callable[..., Any], layout: Layout, values: list[Any]
) -> Iterator[tuple[int, Any]]:
    """Run a pass, and yield what it finds by column range.

    A block yields its result without the sums under its own number, None if it has no usable file; and, under the
    number of each range, a tuple: to which of its columns the block adds something, and what.
    """
    for block, result in _run_pass(handles, kernel, layout, values):
        if result is None:
            yield block, None
            continue
        yield block, result._replace(sums=result.sums[:, :0])
        for target, (low, high) in enumerate(pairwise(layout.cuts.tolist())):
            part = result.sums[:, low:high]
            columns = np.flatnonzero(part.any(axis=0)).astype(np.int32)
            yield target, (columns, part[:, columns])


def _add_up(pieces: Iterable[tuple[int, Any]], layout: Layout) -> Iterator[tuple[int, Any, NDArray[np.int64]]]:
    """Yield the number of each column range, what was found on the block of that number, and the sums of the range."""
    results: dict[int, Any] = {}
    sums: dict[int, NDArray[np.int64]] = {}
    for number, piece in pieces:
        if type(piece) is tuple:
            columns, addends = piece
            if number not in sums:
                width = int(layout.cuts[number + 1] - layout.cuts[number])
                sums[number] = np.zeros((len(addends), width), np.int64)
            sums[number][:, columns] += addends
        else:
            results[number] = piece
    for number, result in results.items():
        yield number, result, sums.get(number, np.zeros((0, 0), np.int64))


def _visit_only(parts: Any) -> bool:
    """Return at once: a pass that computes nothing, so that `visit` rebuilds lost blocks."""
    return True


def _pairs(handles: Iterator[pa.RecordBatch], layout: Layout) -> Iterator[pa.RecordBatch]:
    """Yield the entries of blocks without the diagonal: (i, k, s)."""
    for handle in (Row(**row) for batch in handles for row in batch.to_pylist()):
        with opened(Path(handle.path), shape_of_handle(handle, layout), messages=False) as file:
            for block, similarity in file.parts():
                i, k = np.repeat(block.rows, np.diff(block.starts)), block.columns.astype(np.int64)
                yield pa.RecordBatch.from_pydict({"i": i, "k": k, "s": similarity.copy()}).filter(pa.array(i != k))


def shape_of_handle(handle: Row, layout: Layout) -> Shape:
    """Return the shape of the block that a handle is of."""
    return Shape(layout.run, handle.block, handle.rows, handle.entries, layout.n_points)


def _delete_here(ids: Iterator[int], run: int) -> Iterator[int]:
    """Delete the files that this executor keeps of a graph."""
    delete_files(run, local_directories())
    return iter(())


@contextmanager
def sent(spark: SparkSession, *values: Any) -> Iterator[list[Any]]:
    """Send arrays as broadcast variables, which are freed at the end; other values stay as they are."""
    with ExitStack() as made:

        def send(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            variable = broadcast(spark, value)
            made.callback(variable.destroy)
            return variable

        yield [send(value) for value in values]


def broadcast(spark: SparkSession, value: Any) -> Broadcast[Any]:
    """Broadcast a value.

    Raises
    ------
    StorageError
        If the driver's local directory is full.
    """
    try:
        return spark.sparkContext.broadcast(value)
    except (OSError, PicklingError) as error:  # PySpark writes it to a local file first
        raise storage_error(f"{spark.sparkContext._temp_dir}: {error}") from error


def storage_error(problem: str) -> StorageError:
    """Return the error for a local directory that is full or cannot be written."""
    return StorageError(
        f"no room, or no permission, in a local directory of Spark's, where messages are kept: {problem} "
        "(another directory: --conf spark.local.dir=DIR)"
    )


def lost_blocks_error(when: str) -> ApSparkError:
    """Return the error for blocks that are lost again and again."""
    return ApSparkError(
        f"blocks were lost again and again in {when}, in {MAX_ATTEMPTS} attempts "
        "(see the executors' logs; spark.locality.wait may be too short for the tasks to reach their executor)"
    )
