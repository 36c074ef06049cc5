"""Edges on their way to the blocks of their rows, many together: the shuffle moves a few large rows, not every edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ap_spark.blocks.files import column_type

__all__ = ["PARCELS", "parcels", "record", "unpacked"]

A_PARCEL = 262_144  # edges: 4 MB
A_LOAD = 1_000_000  # edges that a task keeps before it sends them
PARCELS = "block int, edges binary"

Integers = NDArray[np.int64]


def record(n_points: int) -> np.dtype[Any]:
    """An edge as it is sent: i, k, s."""
    kind = column_type(n_points)
    return np.dtype([("i", kind), ("k", kind), ("s", np.float64)])


def parcels(batches: Iterable[pa.RecordBatch], cuts: Integers, *, both: bool) -> Iterator[pa.RecordBatch]:
    """Address edges to the blocks of their rows.

    Parameters
    ----------
    batches : iterable of (i, k, s)
        By number. An edge without i is wrong: it is sent to block 0 with i = -1.
    cuts : int64, shape (blocks + 1,)
        See `build.Layout`.
    both : bool
        Send each edge to the block of its column as well, as (k, ~i, s).
    """
    none = np.empty(0, record(int(cuts[-1])))
    waiting = [none]
    for batch in batches:
        edges = records(batch, int(cuts[-1]))
        waiting.append(edges)
        if both:
            waiting.append(reversed_(edges[(edges["i"] >= 0) & (edges["i"] != edges["k"])]))
        if sum(map(len, waiting)) >= A_LOAD:
            yield from packed(np.concatenate(waiting), cuts)
            waiting = [none]
    yield from packed(np.concatenate(waiting), cuts)


def records(batch: pa.RecordBatch, n_points: int) -> NDArray[Any]:
    """The edges of a batch, the wrong ones last."""
    wrong = batch["i"].null_count
    right = batch.filter(batch["i"].is_valid()) if wrong else batch
    edges = np.empty(len(batch), record(n_points))
    for name in "iks":
        edges[name][: len(right)] = right[name].to_numpy()
    edges["s"] += 0.0  # -0.0 becomes 0.0
    edges[len(right) :] = (-1, 0, 0.0)
    return edges


def reversed_(edges: NDArray[Any]) -> NDArray[Any]:
    """The same edges as their columns' blocks get them: (k, ~i, s)."""
    back = np.empty_like(edges)
    back["i"], back["k"], back["s"] = edges["k"], ~edges["i"], edges["s"]
    return back


def packed(edges: NDArray[Any], cuts: Integers) -> Iterator[pa.RecordBatch]:
    """The edges of each block together, in rows of up to A_PARCEL."""
    blocks = len(cuts) - 1
    ends = [len(edges)]
    if blocks > 1:
        block = np.maximum(np.searchsorted(cuts, edges["i"], side="right") - 1, 0)
        ends = np.cumsum(np.bincount(block, minlength=blocks)).tolist()
        edges = edges[np.argsort(block, kind="stable")]
    numbers, rows = [], []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        for first in range(start, end, A_PARCEL):
            numbers.append(number)
            rows.append(edges[first : min(first + A_PARCEL, end)].tobytes())
    yield pa.RecordBatch.from_pydict({"block": pa.array(numbers, pa.int32()), "edges": pa.array(rows, pa.binary())})


def unpacked(batches: Iterable[pa.RecordBatch], n_points: int) -> Iterator[NDArray[Any]]:
    """The edges of parcels."""
    kind = record(n_points)
    for batch in batches:
        for parcel in batch["edges"]:
            yield np.frombuffer(parcel.as_buffer(), kind)
