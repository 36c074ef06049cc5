"""Blocks in memory-mapped files beside the executor, where the next task finds them without any transfer.

    <a local directory of Spark's>/ap-spark.<run>.<process>.<machine>/block-<number>

A file holds a header and arrays, one after the other: the rows and their similarities, which stay, and the messages of
the engine that last worked on it. The header says which engine that is, and which iteration the messages have reached.
Messages are updated in place. During an update the header says that they are TORN; a file that is found so is rebuilt.

The directory is deleted at the end of the run. What a killed executor leaves is cleared by the next run on the same
machine: the name of the directory has the process and the machine, so a run can tell that the process is gone.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
from numpy.typing import NDArray

from ap_spark._spark.machine import machine_name
from ap_spark.blocks.kernel import Block, Integers

__all__ = [
    "OPEN_FILES",
    "TORN",
    "BlockFile",
    "Shape",
    "UnusableFile",
    "clear_leftovers",
    "column_type",
    "delete_files",
    "local_directories",
    "opened",
    "path_of",
    "shape_of",
    "write_block",
]

_FORMAT = 0x4150_0002
TORN = -1
_HEADER_BYTES = 64  # eight integers
_ITERATION, _ENGINE, _MADE_FOR = 5, 6, 7  # where in the header they are; before them Shape.header
_PREFIX = "ap-spark"
_OWNER = re.compile(rf"{_PREFIX}\.[0-9a-f]{{16}}\.(?P<process>\d{{1,9}})\.(?P<machine>.+)")
_CHUNK_ENTRIES = 1 << 20  # written at once


class UnusableFile(Exception):
    """There is no file of the block on this executor, or it is damaged."""


@dataclass(frozen=True)
class Shape:
    """What the file of a block has to hold.

    Attributes
    ----------
    run : int
        The random number of the graph (`build.Layout`).
    number : int
        Of the block.
    rows, entries : int
        How many the block has.
    points : int
        How many the whole graph has.
    """

    run: int
    number: int
    rows: int
    entries: int
    points: int

    @property
    def columns(self) -> str:
        """The type of the columns of entries."""
        return column_type(self.points)

    @property
    def header(self) -> list[int]:
        """The integers at the beginning of the header, before the iteration."""
        return [_FORMAT, self.run, self.number, self.rows, self.entries]

    @property
    def arrays(self) -> dict[str, tuple[str, int]]:
        """The type and length of each array, in the order of the file."""
        of_rows = {"rows": self.rows, "starts": self.rows + 1, "diagonal": self.rows}
        of_entries = dict.fromkeys(("similarity", "s", "r", "a"), "float64") | {"columns": self.columns}
        return {name: ("int64", length) for name, length in of_rows.items()} | {
            name: (kind, self.entries) for name, kind in of_entries.items()
        }

    @property
    def places(self) -> dict[str, int]:
        """Where each array begins in the file, in bytes, and under "end" where the last one ends."""
        sizes = [np.dtype(kind).itemsize * length for kind, length in self.arrays.values()]
        return dict(zip([*self.arrays, "end"], accumulate(sizes, initial=_HEADER_BYTES), strict=True))


def column_type(points: int) -> str:
    """Return the type that holds the index of a point among so many."""
    return "int32" if points < 2**31 else "int64"


def local_directories() -> list[Path]:
    """Return Spark's local directories of this executor, usually one for each disk."""
    return [Path(local) for local in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")]


def path_of(run: int, number: int) -> Path:
    """Return where this executor keeps a block: blocks are spread over its local directories."""
    local = local_directories()
    return local[number % len(local)] / f"{_PREFIX}.{run:016x}.{os.getppid()}.{machine_name()}" / f"block-{number}"


def shape_of(path: Path, points: int) -> Shape:
    """Read the shape of a block from the header of its file.

    Raises
    ------
    UnusableFile
        If it is not the file of a block.
    """
    try:
        begin = np.fromfile(path, np.int64, _ITERATION)
    except OSError as error:
        raise UnusableFile(str(error)) from error
    if len(begin) < _ITERATION or begin[0] != _FORMAT:
        raise UnusableFile(f"{path} begins with {begin.tolist()}")
    run, number, rows, entries = begin[1:].tolist()
    return Shape(run, number, rows, entries, points)


def write_block(
    path: Path,
    run: int,
    number: int,
    points: int,
    iteration: int,
    edges: Iterable[dict[str, NDArray[Any]]],
    engine: int = 0,
) -> Shape:
    """Write the file of a block; it appears whole or not at all.

    Rows are ordered by their smallest column. Rows that share columns then lie near each other, and totals that an
    iteration has read for one row are still in the processor's cache for the next.

    Parameters
    ----------
    run, number, points
        See `Shape`.
    iteration : int
        That the messages have reached.
    engine : int
        The engine that the messages are of; 0 where none are given.
    edges : iterable of dict
        Arrays i, k, similarity, r, a of entries, the diagonal included. All entries of a row come together. Where r and
        a are left out, messages are 0. The similarity of a diagonal entry is not used.

    Raises
    ------
    OSError
        If there is no room for it, or no permission.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as loose, unfinished.open("wb") as file:
            given, rows, starts = _collect_entries(loose, points, edges)
            shape = Shape(run, number, len(rows), int(starts[-1]), points)
            entries = np.memmap(loose, given, "r", shape=(shape.entries,)) if shape.entries else np.empty(0, given)
            _write_arrays(file, shape, (iteration, 0, engine), rows, starts, entries)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return shape


def _entry_type(points: int, names: Iterable[str]) -> np.dtype[Any]:
    """Return the type of an entry as a record: without i, which is stored by rows."""
    return np.dtype([(name, column_type(points) if name == "k" else "float64") for name in names if name != "i"])


def _collect_entries(
    loose: BinaryIO, points: int, edges: Iterable[dict[str, NDArray[Any]]]
) -> tuple[np.dtype[Any], Integers, Integers]:
    """Write entries to a temporary file as they come; return their type, the rows, and where each begins."""
    rows, starts, done, last = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0, -1
    given = _entry_type(points, ("k", "similarity"))
    for arrays in edges:
        given, i = _entry_type(points, arrays), arrays["i"]
        entries = np.empty(len(i), given)
        for name in given.names or ():
            entries[name] = arrays[name]
        loose.write(entries.data)
        begins = np.flatnonzero(np.diff(i, prepend=last))
        rows.append(i[begins])
        starts.append(begins + done)
        done, last = done + len(i), i[-1] if len(i) else last
    loose.flush()
    return given, np.concatenate(rows), np.append(np.concatenate(starts), done)


def _write_arrays(
    file: BinaryIO, shape: Shape, state: tuple[int, int, int], rows: Integers, starts: Integers, loose: NDArray[Any]
) -> None:
    """Write the file of a block from its entries, rows ordered by their smallest column."""
    smallest = np.minimum.reduceat(loose["k"], starts[:-1]) if shape.rows else np.empty(0, np.int64)
    order = np.argsort(smallest, kind="stable")
    rows, lengths, starts_before = rows[order], np.diff(starts)[order], starts[order]
    starts = np.append(0, np.cumsum(lengths))
    diagonal = np.empty(shape.rows, np.int64)

    def put(name: str, array: NDArray[Any], offset: int = 0) -> None:
        kind = np.dtype(shape.arrays[name][0])
        file.seek(shape.places[name] + offset * kind.itemsize)
        file.write(np.ascontiguousarray(array, kind).data)

    cuts = np.unique(np.append(np.searchsorted(starts, np.arange(0, shape.entries, _CHUNK_ENTRIES)), shape.rows))
    for low, high in pairwise(cuts.tolist()):
        first, last = starts[low], starts[high]
        place = np.repeat(starts_before[low:high] - starts[low:high], lengths[low:high]) + np.arange(first, last)
        entries = loose[place]
        diagonal[low:high] = first + np.flatnonzero(entries["k"] == np.repeat(rows[low:high], lengths[low:high]))
        put("columns", entries["k"], first)
        put("similarity", entries["similarity"], first)
        nothing = np.zeros(last - first)  # is written too, so that a full disk is an error now and not in an iteration
        put("s", nothing, first)
        for name in "ra":
            put(name, entries[name] if name in entries.dtype.fields else nothing, first)
    for name, array in (("rows", rows), ("starts", starts), ("diagonal", diagonal)):
        put(name, array)
    file.seek(0)
    file.write(np.array([*shape.header, *state], np.int64).data)


class BlockFile:
    """The file of a block, open and mapped.

    Parameters
    ----------
    path : Path
    shape : Shape

    Raises
    ------
    UnusableFile
        If it is not there, has another size than it should, or is of another block.
    """

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path, self.shape = path, shape
        try:
            self.file = path.open("r+b")
            self.map = mmap.mmap(self.file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise UnusableFile(str(error)) from error
        if len(self.map) != shape.places["end"]:
            raise UnusableFile(f"{path} has {len(self.map):,} bytes instead of {shape.places['end']:,}")
        self.header = np.frombuffer(self.map, np.int64, 8)
        if self.header[:_ITERATION].tolist() != shape.header:
            raise UnusableFile(f"{path} begins with {self.header.tolist()} instead of {shape.header}")
        places = shape.places
        arrays = {
            name: np.frombuffer(self.map, kind, length, places[name]) for name, (kind, length) in shape.arrays.items()
        }
        self.similarity = arrays.pop("similarity")
        self.block = Block(**arrays)
        self.sums: Integers | None = None

    @property
    def iteration(self) -> int:
        """The iteration that the messages have reached, or TORN."""
        return int(self.header[_ITERATION])

    @property
    def engine(self) -> int:
        """The engine that last worked on the messages; 0 for none since the file was written."""
        return int(self.header[_ENGINE])

    @property
    def made_for(self) -> int:
        """The engine whose messages the file was written with; 0 where it was written without messages."""
        return int(self.header[_MADE_FOR])

    def parts(self) -> Iterator[tuple[Block, NDArray[np.float64]]]:
        """Yield the parts of the block, each with its similarities as given; on the diagonal they have no meaning."""
        start = 0
        for part in self.block.parts:
            yield part, self.similarity[start : start + len(part.s)]
            start += len(part.s)

    @property
    def is_current(self) -> bool:
        """Whether the file at the path is still this one, of the same size, and of the same block."""
        try:
            there = self.path.stat()
        except OSError:
            return False
        mine = os.fstat(self.file.fileno())
        whole = (there.st_dev, there.st_ino, there.st_size) == (mine.st_dev, mine.st_ino, len(self.map))
        return whole and self.header[:_ITERATION].tolist() == self.shape.header

    def room_for_sums(self, words: int) -> Integers:
        """Return zeros, shape (words, points), for the contributions of the block: the same array every time."""
        if self.sums is None:
            self.sums = np.zeros((words, self.shape.points), np.int64)
        self.sums.fill(0)
        return self.sums

    @contextmanager
    def update_to(self, iteration: int) -> Iterator[None]:
        """Mark the messages as TORN while they change; they stay so if an error or a kill ends that."""
        self.discard()
        yield
        self.header[_ITERATION] = iteration

    @contextmanager
    def handed_to(self, engine: int, iteration: int) -> Iterator[None]:
        """Mark the messages as TORN while they are written for an engine that begins after ``iteration``."""
        with self.update_to(iteration):
            yield
            self.header[_ENGINE] = engine

    def discard(self) -> None:
        """Mark the messages as TORN."""
        self.header[_ITERATION] = TORN


# Of this process. To map a file again for each iteration would cost a page fault for every 4 KiB.
OPEN_FILES: dict[Path, BlockFile] = {}


@contextmanager
def opened(path: Path, shape: Shape, *, messages: bool = True) -> Iterator[BlockFile]:
    """Open and lock the file of a block: a task that Spark has given up may still be at work on it.

    Parameters
    ----------
    path : Path
    shape : Shape
    messages : bool
        Whether messages are needed: otherwise they may be torn.

    Raises
    ------
    UnusableFile
        If there is no such file, or it is damaged.
    """
    for known, file in list(OPEN_FILES.items()):
        if not file.is_current:
            OPEN_FILES.pop(known).file.close()
    if path not in OPEN_FILES:
        OPEN_FILES[path] = BlockFile(path, shape)
    file = OPEN_FILES[path]
    fcntl.flock(file.file, fcntl.LOCK_EX)
    try:
        if messages and file.iteration == TORN:
            raise UnusableFile(f"{path} was left in the middle of an update")
        yield file
    finally:
        fcntl.flock(file.file, fcntl.LOCK_UN)


def clear_leftovers() -> None:
    """Delete what ended executors of this machine have left beside the local directories of this one."""
    for local in local_directories():
        with suppress(OSError):  # other runs write and delete there too
            for beside in local.parent.iterdir():
                with suppress(OSError):
                    for found in beside.glob(f"{_PREFIX}.*"):
                        if _has_lost_its_owner(found.name):
                            shutil.rmtree(found, ignore_errors=True)


def _has_lost_its_owner(name: str) -> bool:
    """Return whether the name of a directory is that of a process of this machine that has ended."""
    owner = _OWNER.fullmatch(name)
    if owner is None or owner["machine"] != machine_name():
        return False
    return not psutil.pid_exists(int(owner["process"]))


def delete_files(run: int, directories: Iterable[Path]) -> None:
    """Delete all files of a run in some local directories.

    Files are emptied first: an idle Python worker that has one mapped would otherwise hold its space.
    """
    for local in directories:
        with suppress(OSError):  # other tasks delete the same files
            for found in local.glob(f"{_PREFIX}.{run:016x}.*"):
                for file in found.iterdir():
                    os.truncate(file, 0)
                shutil.rmtree(found, ignore_errors=True)
