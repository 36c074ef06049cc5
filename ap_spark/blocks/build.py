"""The task that writes the file of a block from the edges that the shuffle brings it, and returns a handle to it.

A *handle* is one row (HANDLES): where the file is, and what the driver needs to know about its edges.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import Broadcast, TaskContext

from ap_spark.blocks.entries import Entries, Rules, make_entries
from ap_spark.blocks.files import (
    Shape,
    UnusableFile,
    clear_leftovers,
    opened,
    path_of,
    shape_of,
    write_block,
)
from ap_spark.blocks.hashing import hash_edges
from ap_spark.blocks.parcels import edge_type, unpack_parcels

__all__ = ["HANDLES", "EdgeStats", "Layout", "Reusable", "build", "rebuild", "split_by_rows", "with_diagonal"]

_BUCKET_EDGES = 4_000_000  # a task makes entries of so many edges at once, in some 300 MB

_HANDLE = pa.schema(
    {
        "block": pa.int32(),
        "path": pa.string(),
        "problem": pa.string(),
        "rows": pa.int64(),
        "entries": pa.int64(),
        "wrong": pa.int64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "min_nonzero": pa.float64(),
        "hash": pa.int64(),
        "degrees": pa.binary(),
        "preference_of": pa.binary(),
        "preference": pa.binary(),
    }
)
_SQL_TYPES = {
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "binary",
}
HANDLES = ", ".join(f"{column.name} {_SQL_TYPES[column.type]}" for column in _HANDLE)

_Batches = Iterable[pa.RecordBatch]
_Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Layout:
    """How the rows of a graph are cut into blocks.

    Attributes
    ----------
    run : int
        A random number that identifies the graph.
    cuts : int64, shape (blocks + 1,)
        Block b holds the rows of the points ``cuts[b]:cuts[b + 1]``.
    rules : Rules
    n_edges : int
        About how many edges there are before they become entries.
    """

    run: int
    cuts: NDArray[np.int64]
    rules: Rules
    n_edges: int

    @property
    def blocks(self) -> int:
        return len(self.cuts) - 1

    @property
    def n_points(self) -> int:
        return int(self.cuts[-1])


class Reusable(NamedTuple):
    """Which files need not be written again: those with messages of this engine, of this iteration or a later one."""

    engine: int
    iteration: int


@dataclass
class EdgeStats:
    """What the driver has to know about the edges of a block.

    Attributes
    ----------
    degrees : int64, shape (rows,)
        Stored edges of each row.
    first : int
        The point of the first row.
    keys : int64, shape (n_points,)
        See `hashing.py`.
    wrong : int
        Edges and pairs that break a rule.
    low, high : float, optional
        The smallest and largest similarity.
    min_nonzero : float, optional
        The smallest similarity in size that is not 0.
    hash : int
        Of all edges, whatever their order.
    preference_of, preference
        See `entries.Entries`.
    """

    degrees: NDArray[np.int64]
    first: int
    keys: NDArray[np.int64]
    wrong: int = 0
    low: float | None = None
    high: float | None = None
    min_nonzero: float | None = None
    hash: int = 0
    preference_of: list[NDArray[np.int64]] = field(default_factory=list)
    preference: list[NDArray[np.float64]] = field(default_factory=list)

    def update(self, found: Entries, on_duplicate: str) -> None:
        if on_duplicate == "error":
            self.wrong += found.duplicates
        self.wrong += int(np.count_nonzero(np.isneginf(found.preference)))
        self.preference_of.append(found.preference_of)
        self.preference.append(found.preference)
        if not len(found.s):
            return
        self.degrees += np.bincount(found.i - self.first, minlength=len(self.degrees))
        low, high = float(found.s.min()), float(found.s.max())
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        sizes = np.abs(found.s)
        smallest = float(sizes.min(initial=np.inf, where=sizes > 0.0))
        if smallest < np.inf:
            self.min_nonzero = smallest if self.min_nonzero is None else min(self.min_nonzero, smallest)
        for start in range(0, len(found.s), 1 << 16):
            some = slice(start, start + (1 << 16))
            hashes = hash_edges(self.keys[found.i[some]], self.keys[found.k[some]], found.s[some])
            self.hash ^= int(np.bitwise_xor.reduce(hashes))

    def handle(self) -> dict[str, Any]:
        return {
            "wrong": self.wrong,
            "low": self.low,
            "high": self.high,
            "min_nonzero": self.min_nonzero,
            "hash": int(np.uint64(self.hash).view(np.int64)),
            "degrees": self.degrees.astype(np.int32).tobytes(),
            "preference_of": np.concatenate([np.empty(0, np.int64), *self.preference_of]).tobytes(),
            "preference": np.concatenate([np.empty(0), *self.preference]).tobytes(),
        }


def build(
    batches: _Batches, layout: Layout, keys: Broadcast[NDArray[np.int64]], reusable: Reusable | None = None
) -> Iterator[pa.RecordBatch]:
    """Write the block of this partition from parcels of edges in any order (`parcels.py`); yield its handle."""
    number = _block_number()
    path = path_of(layout.run, number)
    low, high = layout.cuts[number], layout.cuts[number + 1]
    stats = EdgeStats(np.zeros(high - low, np.int64), int(low), keys.value)

    def entries() -> Iterator[_Arrays]:
        for edges in split_by_rows(batches, layout, int(low), int(high), path.parent, stats):
            found = make_entries(edges["i"], edges["k"], edges["s"], layout.rules)
            stats.update(found, layout.rules.on_duplicate)
            yield with_diagonal(found)

    found = _write_file(path, layout, number, 0, entries(), reusable)
    yield pa.RecordBatch.from_pylist([found | stats.handle()], _HANDLE)


def rebuild(batches: _Batches, layout: Layout, reusable: Reusable) -> Iterator[pa.RecordBatch]:
    """Write the block of this partition from entries (i, k, similarity, r, a), ordered by i; yield its handle."""
    number = _block_number()
    found = _write_file(
        path_of(layout.run, number), layout, number, reusable.iteration, map(_batch_arrays, batches), reusable
    )
    yield pa.RecordBatch.from_pylist([found], _HANDLE)


def _write_file(
    path: Path, layout: Layout, number: int, iteration: int, entries: Iterable[_Arrays], reusable: Reusable | None
) -> dict[str, Any]:
    """Write the file, unless there is a reusable one; return where it is, or the problem that prevented it."""
    problem, size = "", {"rows": 0, "entries": 0}
    try:
        clear_leftovers()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        shape = (reusable and _reusable_shape(path, layout, number, reusable)) or write_block(
            path,
            layout.run,
            number,
            layout.n_points,
            iteration,
            entries,
            reusable.engine if reusable and iteration else 0,
        )
        size = {"rows": shape.rows, "entries": shape.entries}
    except OSError as error:
        problem = f"{path.parent}: {error.strerror or error}"
    return {"block": number, "path": str(path), "problem": problem, **size}


def _reusable_shape(path: Path, layout: Layout, number: int, reusable: Reusable) -> Shape | None:
    """Return the shape of the block if its file is there and need not be written again."""
    try:
        shape = shape_of(path, layout.n_points)
        if (shape.run, shape.number) != (layout.run, number):
            return None
        with opened(path, shape) as file:
            return shape if file.engine == reusable.engine and file.iteration >= reusable.iteration else None
    except UnusableFile:
        return None


def split_by_rows(
    batches: _Batches, layout: Layout, low: int, high: int, directory: Path, stats: EdgeStats
) -> Iterator[_Arrays]:
    """Yield the edges of a block by ranges of rows, about _BUCKET_EDGES at once, by way of temporary files."""
    edges_a_block = layout.n_edges / layout.blocks
    if layout.rules.symmetrize != "none":
        edges_a_block *= 2
    buckets = int(min(max(1, -(-edges_a_block // _BUCKET_EDGES)), 256, high - low))
    edge = edge_type(layout.n_points)
    with ExitStack() as held:
        files: list[BinaryIO] = []
        if buckets > 1:
            files = [held.enter_context(tempfile.TemporaryFile(dir=directory)) for _ in range(buckets)]
        kept: list[NDArray[Any]] = []
        for edges in unpack_parcels(batches, layout.n_points):
            wrong = edges["i"] < 0
            if wrong.any():
                stats.wrong += int(np.count_nonzero(wrong))
                edges = edges[~wrong]
            if not files:
                kept.append(edges)
                continue
            bucket = ((edges["i"].astype(np.int64) - low) * buckets // (high - low)).astype(np.uint8)
            order = np.argsort(bucket, kind="stable")
            ends = np.cumsum(np.bincount(bucket, minlength=buckets)).tolist()
            edges = edges[order]
            for file, start, end in zip(files, [0, *ends], ends, strict=False):
                file.write(edges[start:end].data)
        if not files:
            yield _to_arrays(np.concatenate([np.empty(0, edge), *kept]))
        for file in files:
            file.seek(0)
            yield _to_arrays(np.fromfile(file, edge))
            file.truncate(0)


def _to_arrays(edges: NDArray[Any]) -> _Arrays:
    """Return the fields of records as arrays."""
    return {name: np.ascontiguousarray(edges[name]) for name in edges.dtype.names or ()}


def with_diagonal(found: Entries) -> _Arrays:
    """Return the entries with the diagonal, which comes first in each row."""
    begins = np.flatnonzero(np.diff(found.i, prepend=-1))
    rows = found.i[begins]
    return {
        "i": np.insert(found.i, begins, rows),
        "k": np.insert(found.k, begins, rows),
        "similarity": np.insert(found.s, begins, 0.0),
    }


def _batch_arrays(batch: pa.RecordBatch) -> _Arrays:
    """Return the columns of a batch as arrays."""
    return {name: batch[name].to_numpy() for name in batch.schema.names}


def _block_number() -> int:
    """Return the number of this task's block: that of its partition."""
    context = TaskContext.get()
    assert context is not None
    return context.partitionId()
