"""The similarity graph in this process: no Spark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

from ap_spark.blocks.build import EdgeStats, with_diagonal
from ap_spark.blocks.entries import Entries, Rules, make_entries
from ap_spark.blocks.kernel import Block, Floats, Integers, first_similarities
from ap_spark.blocks.local import LocalBlocks
from ap_spark.graph.array_graph import ArrayGraph

__all__ = ["LocalGraph", "keys_of", "local_graph"]

_AS_GIVEN = Rules()
_SPARK_SEED = 42  # of the function xxhash64


@dataclass(frozen=True, kw_only=True)
class LocalGraph(ArrayGraph):
    """A similarity graph in this process.

    Attributes
    ----------
    blocks : LocalBlocks
    ids : pyarrow.Array
        In order.
    """

    blocks: LocalBlocks
    ids: pa.Array

    def ids_at(self, index: Integers) -> pa.Array:
        """Return the ids of some points, in the order of the numbers given."""
        return self.ids.take(pa.array(index))

    def with_messages(self) -> Block:
        """Return the rows, to be iterated on: with preferences, jitter, and messages that are 0."""
        whole = self.blocks.block(self.blocks.similarity)
        seed = self.seed if self.jitter else None
        return self.blocks.block(
            first_similarities(whole, self.blocks.similarity, self.preferences, self.keys, self.smallest, seed)
        )


def keys_of(ids: pa.Array) -> Integers:
    """Return the keys of ids, int64, of integers or of strings; the same as `numbering.key_of` in Spark.

    >>> keys_of(pa.array([7, 8])), keys_of(pa.array(["Ada"]))
    (array([7, 8]), array([699459151357491900]))
    """
    if pa.types.is_integer(ids.type):
        return np.asarray(ids.to_numpy(zero_copy_only=False), np.int64)
    hashes = [xxhash.xxh64_intdigest(text.encode(), _SPARK_SEED) for text in ids.to_pylist()]
    return np.array(hashes, np.uint64).view(np.int64)


def local_graph(
    i: Integers,
    k: Integers,
    s: Floats,
    ids: pa.Array,
    keys: Integers,
    *,
    rules: Rules = _AS_GIVEN,
    seed: int = 0,
    jitter: bool = True,
) -> tuple[LocalGraph, int]:
    """Make the graph of some edges, without preferences.

    Parameters
    ----------
    i, k : int64, shape (edges,)
        Numbers of points, in any order; rows (k, k) are preferences.
    s : float64, shape (edges,)
        Similarities; -infinity for a pair that is not stored.
    ids : pyarrow.Array
        Of the points, in order.
    keys : int64, shape (n_points,)
        See `hashing`.
    rules : Rules
    seed, jitter
        See `Settings`.

    Returns
    -------
    LocalGraph
    int
        How many pairs break a rule.

    Examples
    --------
    >>> i, k, s = np.array([0, 1, 1, 2]), np.array([1, 0, 2, 1]), np.array([-1.0, -1.0, -3.0, -3.0])
    >>> graph, wrong = local_graph(i, k, s, pa.array([5, 6, 7]), np.array([5, 6, 7]))
    >>> graph.n_points, graph.n_edges, graph.quantiles(0.5), wrong
    (3, 4, [-2.0], 0)
    """
    if rules.symmetrize != "none":
        apart = i != k
        i, k, s = np.append(i, k[apart]), np.append(k, ~i[apart]), np.append(s, s[apart])
    found = make_entries(i, k, s + 0.0, rules)  # -0.0 becomes 0.0
    stats = EdgeStats(np.zeros(len(keys), np.int64), 0, keys)
    stats.update(found, rules.on_duplicate)
    entries = with_diagonal(found)
    graph = LocalGraph(
        blocks=LocalBlocks(entries["i"], entries["k"], entries["similarity"]),
        ids=ids,
        n_edges=len(found.s),
        n_one_way=found.one_way,
        out_degree=stats.degrees,
        symmetric=rules.symmetrize != "none",
        low=stats.low,
        high=stats.high,
        min_nonzero=stats.min_nonzero,
        diagonal_preferences=_diagonal(found, len(keys)),
        keys=keys,
        edge_hash=int(np.uint64(stats.hash).view(np.int64)),
        seed=seed,
        jitter=jitter,
    )
    return graph, stats.wrong


def _diagonal(found: Entries, n_points: int) -> Floats | None:
    """Return the preferences that stood in rows (k, k); None where there are none."""
    if not len(found.preference_of):
        return None
    given = np.full(n_points, np.nan)
    given[found.preference_of] = found.preference
    return given
