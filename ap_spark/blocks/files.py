"""Blocks in memory-mapped files beside the executor, where the next task finds them without any transfer.

    <a local directory of Spark's>/ap-spark.<run>.<process>.<machine>/block-<number>

A file holds a header and arrays, one after the other: the rows and their similarities, which stay, and the messages of
the engine that last worked on it. It says which engine that is, and which iteration the messages have reached. They
are updated in place: while that goes on it says that they are TORN, and a file found so is made anew.
The directory goes with the executor that made it; what a killed one leaves is cleared by the next run on that
machine, which knows it by the process that its name tells.
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
from numpy.typing import NDArray

from ap_spark._spark.processes import is_running, machine
from ap_spark.blocks.kernel import Block, Integers

__all__ = [
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

FORMAT = 0x4150_0002
TORN = -1
HEADER = 64  # bytes: eight integers
ITERATION, ENGINE, MADE_FOR = 5, 6, 7  # places among them
NAME = "ap-spark"
OWNER = re.compile(rf"{NAME}\.[0-9a-f]{{16}}\.(?P<process>\d{{1,9}})\.(?P<machine>.+)")
CHUNK = 1 << 20  # entries written at once


class UnusableFile(Exception):
    """There is no file of this block here, or it is not whole."""


@dataclass(frozen=True)
class Shape:
    """What a block's file has to hold.

    Attributes
    ----------
    run, number : int
        Of which run, which block.
    rows, entries : int
        Of the block.
    points : int
        Of the whole graph.
    """

    run: int
    number: int
    rows: int
    entries: int
    points: int

    @property
    def columns(self) -> str:
        return column_type(self.points)

    @property
    def header(self) -> list[int]:
        """What comes before the iteration."""
        return [FORMAT, self.run, self.number, self.rows, self.entries]

    @property
    def arrays(self) -> dict[str, tuple[str, int]]:
        """The arrays of the block in the order of the file: types and lengths."""
        of_rows = {"rows": self.rows, "starts": self.rows + 1, "diagonal": self.rows}
        of_entries = dict.fromkeys(("similarity", "s", "r", "a"), "float64") | {"columns": self.columns}
        return {name: ("int64", length) for name, length in of_rows.items()} | {
            name: (kind, self.entries) for name, kind in of_entries.items()
        }

    @property
    def places(self) -> dict[str, int]:
        """Where each array begins in the file, and under "end" where the last one ends."""
        sizes = [np.dtype(kind).itemsize * length for kind, length in self.arrays.values()]
        return dict(zip([*self.arrays, "end"], accumulate(sizes, initial=HEADER), strict=True))


def column_type(points: int) -> str:
    """The type of a point's number among so many."""
    return "int32" if points < 2**31 else "int64"


def local_directories() -> list[Path]:
    """Spark's local directories of this executor, one a disk."""
    return [Path(local) for local in os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")]


def path_of(run: int, number: int) -> Path:
    """Where this executor keeps a block of a run: blocks take turns on its disks."""
    local = local_directories()
    return local[number % len(local)] / f"{NAME}.{run:016x}.{os.getppid()}.{machine()}" / f"block-{number}"


def shape_of(path: Path, points: int) -> Shape:
    """The shape of the block in a file, as that tells it itself; UnusableFile if there is none."""
    try:
        begin = np.fromfile(path, np.int64, ITERATION)
    except OSError as error:
        raise UnusableFile(str(error)) from error
    if len(begin) < ITERATION or begin[0] != FORMAT:
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
    """Make the file of a block; it appears whole or not at all.

    Rows are put in the order of their smallest column: rows that share columns come to lie near each other, and what
    an iteration looks up for one is still in the processor's cache for the next.

    Parameters
    ----------
    run, number, points
        See `Shape`.
    iteration : int
        Which the messages have reached.
    engine : int
        Whose messages they are, if any are given.
    edges : iterable of dict
        Arrays i, k, similarity, r, a of entries, row by row, the diagonal included; r and a may be left out, and are 0
        then. The similarity of a diagonal entry is not used.

    Raises
    ------
    OSError
        If there is no room for it, or no permission.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryFile(dir=path.parent) as loose, unfinished.open("wb") as file:
            given, rows, starts = collect(loose, points, edges)
            shape = Shape(run, number, len(rows), int(starts[-1]), points)
            entries = np.memmap(loose, given, "r", shape=(shape.entries,)) if shape.entries else np.empty(0, given)
            arrange(file, shape, (iteration, 0, engine), rows, starts, entries)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return shape


def entry_of(points: int, names: Iterable[str]) -> np.dtype[Any]:
    return np.dtype([(name, column_type(points) if name == "k" else "float64") for name in names if name != "i"])


def collect(
    loose: BinaryIO, points: int, edges: Iterable[dict[str, NDArray[Any]]]
) -> tuple[np.dtype[Any], Integers, Integers]:
    """Write the entries as they come; their type, the rows, and where each begins."""
    rows, starts, done, last = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0, -1
    given = entry_of(points, ("k", "similarity"))
    for arrays in edges:
        given, i = entry_of(points, arrays), arrays["i"]
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


def arrange(
    file: BinaryIO, shape: Shape, state: tuple[int, int, int], rows: Integers, starts: Integers, loose: NDArray[Any]
) -> None:
    """Write the block's file from its entries."""
    smallest = np.minimum.reduceat(loose["k"], starts[:-1]) if shape.rows else np.empty(0, np.int64)
    order = np.argsort(smallest, kind="stable")
    rows, lengths, starts_before = rows[order], np.diff(starts)[order], starts[order]
    starts = np.append(0, np.cumsum(lengths))
    diagonal = np.empty(shape.rows, np.int64)

    def put(name: str, array: NDArray[Any], offset: int = 0) -> None:
        kind = np.dtype(shape.arrays[name][0])
        file.seek(shape.places[name] + offset * kind.itemsize)
        file.write(np.ascontiguousarray(array, kind).data)

    cuts = np.unique(np.append(np.searchsorted(starts, np.arange(0, shape.entries, CHUNK)), shape.rows))
    for low, high in pairwise(cuts.tolist()):
        first, last = starts[low], starts[high]
        place = np.repeat(starts_before[low:high] - starts[low:high], lengths[low:high]) + np.arange(first, last)
        entries = loose[place]
        diagonal[low:high] = first + np.flatnonzero(entries["k"] == np.repeat(rows[low:high], lengths[low:high]))
        put("columns", entries["k"], first)
        put("similarity", entries["similarity"], first)
        nothing = np.zeros(last - first)  # is written too: a full disk says so now, not in the middle of an iteration
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
        If it is not there, not as long as it should be, or another block's.
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
        if self.header[:ITERATION].tolist() != shape.header:
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
        """How many iterations the messages have behind them, or TORN."""
        return int(self.header[ITERATION])

    @property
    def engine(self) -> int:
        """Whose messages they are; 0 after the file was written."""
        return int(self.header[ENGINE])

    @property
    def made_for(self) -> int:
        """For which engine the file was written, with its messages; 0 for none, without any."""
        return int(self.header[MADE_FOR])

    def parts(self) -> Iterator[tuple[Block, NDArray[np.float64]]]:
        """The parts of the block, each with its similarities as given; those of the diagonal have no meaning."""
        start = 0
        for part in self.block.parts:
            yield part, self.similarity[start : start + len(part.s)]
            start += len(part.s)

    @property
    def is_current(self) -> bool:
        """Whether this is still the file at its path, as long as it should be, and this block's."""
        try:
            there = self.path.stat()
        except OSError:
            return False
        mine = os.fstat(self.file.fileno())
        whole = (there.st_dev, there.st_ino, there.st_size) == (mine.st_dev, mine.st_ino, len(self.map))
        return whole and self.header[:ITERATION].tolist() == self.shape.header

    def room_for_sums(self, words: int) -> Integers:
        """Zeros for what the block contributes to all columns, shape (words, points): the same array every time."""
        if self.sums is None:
            self.sums = np.zeros((words, self.shape.points), np.int64)
        self.sums.fill(0)
        return self.sums

    @contextmanager
    def update_to(self, iteration: int) -> Iterator[None]:
        """While the messages change; left by an error or a kill, the file stays TORN."""
        self.discard()
        yield
        self.header[ITERATION] = iteration

    @contextmanager
    def handed_to(self, engine: int, iteration: int) -> Iterator[None]:
        """While the messages are made ready for an engine, as they are after ``iteration``."""
        with self.update_to(iteration):
            yield
            self.header[ENGINE] = engine

    def discard(self) -> None:
        """Make it known that the messages are of no use."""
        self.header[ITERATION] = TORN


OPEN: dict[Path, BlockFile] = {}  # mapping a file anew for each iteration would cost a page fault for every 4 KiB


@contextmanager
def opened(path: Path, shape: Shape, *, messages: bool = True) -> Iterator[BlockFile]:
    """The file of a block, for this process alone: a task that was given up may still be at work on it.

    Whoever needs no ``messages`` gets it also where they are torn.

    Raises
    ------
    UnusableFile
    """
    for known, file in list(OPEN.items()):
        if not file.is_current:
            OPEN.pop(known).file.close()
    if path not in OPEN:
        OPEN[path] = BlockFile(path, shape)
    file = OPEN[path]
    fcntl.flock(file.file, fcntl.LOCK_EX)
    try:
        if messages and file.iteration == TORN:
            raise UnusableFile(f"{path} was left in the middle of an update")
        yield file
    finally:
        fcntl.flock(file.file, fcntl.LOCK_UN)


def clear_leftovers() -> None:
    """Delete what executors of this machine that live no more have left beside this one's local directories."""
    for local in local_directories():
        with suppress(OSError):  # others come and go there, and clear too
            for beside in local.parent.iterdir():
                with suppress(OSError):
                    for found in beside.glob(f"{NAME}.*"):
                        owner = OWNER.fullmatch(found.name)
                        if owner and owner["machine"] == machine() and not is_running(owner["process"]):
                            shutil.rmtree(found, ignore_errors=True)


def delete_files(run: int, directories: Iterable[Path]) -> None:
    """Delete what executors keep of a run in some local directories.

    Files are emptied first: idle processes may have them mapped.
    """
    for local in directories:
        with suppress(OSError):  # other tasks are at it too
            for found in local.glob(f"{NAME}.{run:016x}.*"):
                for file in found.iterdir():
                    os.truncate(file, 0)
                shutil.rmtree(found, ignore_errors=True)
