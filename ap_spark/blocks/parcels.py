"""Parcels: rows that carry many edges each through the shuffle, to the blocks of their rows.

A *parcel* is a row (block, edges) with edges of one block. So the shuffle moves a few large rows instead of many small
ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ap_spark.blocks.files import column_type

__all__ = ["PARCELS", "edge_type", "pack_parcels", "unpack_parcels"]

_PARCEL_EDGES = 262_144  # of one parcel at most: 4 MB
_LOAD_EDGES = 1_000_000  # that a task collects before it packs them
PARCELS = "block int, edges binary"

_Integers = NDArray[np.int64]


def edge_type(n_points: int) -> np.dtype[Any]:
    """Return the type of an edge in a parcel: i, k, s."""
    kind = column_type(n_points)
    return np.dtype([("i", kind), ("k", kind), ("s", np.float64)])


def pack_parcels(batches: Iterable[pa.RecordBatch], cuts: _Integers, *, both: bool) -> Iterator[pa.RecordBatch]:
    """Pack edges into parcels for the blocks of their rows.

    Parameters
    ----------
    batches : iterable of (i, k, s)
        Points are given by index. An edge without i breaks a rule: it is sent to block 0 with i = -1.
    cuts : int64, shape (blocks + 1,)
        See `build.Layout`.
    both : bool
        Whether to send each edge to the block of its column as well, as (k, ~i, s).
    """
    none = np.empty(0, edge_type(int(cuts[-1])))
    waiting = [none]
    for batch in batches:
        edges = _to_records(batch, int(cuts[-1]))
        waiting.append(edges)
        if both:
            waiting.append(_reversed(edges[(edges["i"] >= 0) & (edges["i"] != edges["k"])]))
        if sum(map(len, waiting)) >= _LOAD_EDGES:
            yield from _pack(np.concatenate(waiting), cuts)
            waiting = [none]
    yield from _pack(np.concatenate(waiting), cuts)


def _to_records(batch: pa.RecordBatch, n_points: int) -> NDArray[Any]:
    """Return the edges of a batch as records, those without i last."""
    wrong = batch["i"].null_count
    right = batch.filter(batch["i"].is_valid()) if wrong else batch
    edges = np.empty(len(batch), edge_type(n_points))
    for name in "iks":
        edges[name][: len(right)] = right[name].to_numpy()
    edges["s"] += 0.0  # -0.0 becomes 0.0
    edges[len(right) :] = (-1, 0, 0.0)
    return edges


def _reversed(edges: NDArray[Any]) -> NDArray[Any]:
    """Return the edges as the blocks of their columns get them: (k, ~i, s)."""
    back = np.empty_like(edges)
    back["i"], back["k"], back["s"] = edges["k"], ~edges["i"], edges["s"]
    return back


def _pack(edges: NDArray[Any], cuts: _Integers) -> Iterator[pa.RecordBatch]:
    """Yield the parcels of some edges, for each block in turn."""
    blocks = len(cuts) - 1
    ends = [len(edges)]
    if blocks > 1:
        block = np.maximum(np.searchsorted(cuts, edges["i"], side="right") - 1, 0)
        ends = np.cumsum(np.bincount(block, minlength=blocks)).tolist()
        edges = edges[np.argsort(block, kind="stable")]
    numbers, rows = [], []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        for first in range(start, end, _PARCEL_EDGES):
            numbers.append(number)
            rows.append(edges[first : min(first + _PARCEL_EDGES, end)].tobytes())
    yield pa.RecordBatch.from_pydict({"block": pa.array(numbers, pa.int32()), "edges": pa.array(rows, pa.binary())})


def unpack_parcels(batches: Iterable[pa.RecordBatch], n_points: int) -> Iterator[NDArray[Any]]:
    """Yield the edges of parcels, one array for each."""
    kind = edge_type(n_points)
    for batch in batches:
        for parcel in batch["edges"]:
            yield np.frombuffer(parcel.as_buffer(), kind)
