"""Packs, rows that hold many points each, and the search in groups of packs.

Spark moves few large rows instead of many small ones.

    queries ──► packs ──┐
                        ├──► groups of packs (cogroup) ──► a search in each group ──► (i, k, s)
    corpus  ──► packs ──┘

Queries are the points whose neighbours are wanted; the corpus are the points among which they are looked for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Window

from ap_spark.similarity.knn_exact import Found, Positions, without_copies
from ap_spark.similarity.metrics import Floats, Metric, PairFunction
from ap_spark.similarity.pairs import Pairs, Transform
from ap_spark.similarity.vectors import matrix

__all__ = ["PACK_BYTES", "GroupSearch", "cogroup_search", "pack_cells"]

PACK_BYTES = 4 * 2**20  # of the vectors in one pack, at most
_PAIRS_A_BATCH = 500_000  # pairs found that are worked on together

# Takes the query vectors, the corpus vectors, the place of each query in the corpus (-1 for none) and the cell of each
# corpus vector; returns the neighbours.
GroupSearch = Callable[[Floats, Floats, Positions, Positions], Found]


def pack_cells(
    points: DataFrame, cell: Column, metric: Metric | PairFunction, *, copies: int | None = None
) -> DataFrame:
    """Put the points of each cell into packs: (cell, piece, ids array, vectors binary).

    Parameters
    ----------
    points : DataFrame
        (id, features).
    cell : Column
        The cell of each point. A large cell becomes several packs, its pieces; ids are in order.
    metric : Metric or callable
        Prepares the vectors.
    copies : int, optional
        Keep only so many of the equal vectors of a cell, those with the smallest ids.
    """
    kind = points.schema["id"].dataType.simpleString()
    pack_bytes = PACK_BYTES

    def packed(table: pa.Table) -> pa.Table:  # Spark reads these types, so they are written out
        return _pack_cell(table, metric, copies, pack_bytes)

    cells = points.select(cell.alias("cell"), "id", "features").groupBy("cell")
    return cells.applyInArrow(packed, f"cell int, piece int, ids array<{kind}>, vectors binary")


def _pack_cell(table: pa.Table, metric: Metric | PairFunction, copies: int | None, pack_bytes: int) -> pa.Table:
    """Put the points of one cell into packs."""
    table = table.sort_by("id")
    ids, vectors = table["id"].combine_chunks(), matrix(table)
    if isinstance(metric, Metric):
        vectors = metric.prepare(vectors)
    if copies is not None:
        kept = without_copies(vectors, copies)
        ids, vectors = ids.take(pa.array(kept)), vectors[kept]
    starts = range(0, len(ids), max(1, pack_bytes // (8 * vectors.shape[1])))
    ends = [*starts[1:], len(ids)]
    return pa.table(
        {
            "cell": pa.array([table["cell"][0].as_py()] * len(starts), pa.int32()),
            "piece": pa.array(range(len(starts)), pa.int32()),
            "ids": pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), ids),
            "vectors": pa.array(
                [vectors[start:end].tobytes() for start, end in zip(starts, ends, strict=True)], pa.binary()
            ),
        }
    )


def cogroup_search(
    queries: DataFrame,
    corpus: DataFrame,
    groups: int,
    metric: Metric | PairFunction,
    search: GroupSearch,
    best_of: int | None,
) -> Pairs:
    """Search in each group of packs, one task for a group at a time.

    Parameters
    ----------
    queries, corpus : DataFrame
        Packs: (group, cell, ids, vectors).
    groups : int
        The number of groups.
    metric : Metric or callable
    search : callable
        See `GroupSearch`.
    best_of : int, optional
        Queries are in several groups: keep so many of the neighbours that they find in all of them.
    """
    kind = dict(queries.dtypes)["ids"].removeprefix("array<").removesuffix(">")

    def in_group(query_packs: pa.Table, corpus_packs: pa.Table) -> pa.Table:
        if not len(query_packs) or not len(corpus_packs):
            nobody, none = pa.array([], query_packs["ids"].type.value_type), pa.array([], pa.float64())
            return pa.table({"i": nobody, "k": nobody, "s": none, "closeness": none})
        (i, x, _), (k, y, cell) = _unpack(query_packs), _unpack(corpus_packs)
        self_index = pc.fill_null(pc.index_in(i, k), -1).to_numpy().astype(np.int64)
        row, neighbor, closeness = search(x, y, self_index, cell)
        s = metric.similarity(closeness) if isinstance(metric, Metric) else closeness
        return pa.table({"i": i.take(pa.array(row)), "k": k.take(pa.array(neighbor)), "s": s, "closeness": closeness})

    left, right = (packs.repartition(groups, "group").groupBy("group") for packs in (queries, corpus))
    cogroups = left.cogroup(right)
    if best_of is not None:
        rank = F.row_number().over(Window.partitionBy("i").orderBy(F.desc("closeness"), "k"))
        found = cogroups.applyInArrow(in_group, f"i {kind}, k {kind}, s double, closeness double")
        best = found.withColumn("rank", rank).where(F.col("rank") <= best_of).select("i", "k", "s")
        return Pairs(best.mapInArrow, kind, best.sparkSession)

    def then(transform: Transform, columns: str) -> DataFrame:
        def task(query_packs: pa.Table, corpus_packs: pa.Table) -> pa.Table:
            pairs = in_group(query_packs, corpus_packs).select(["i", "k", "s"]).combine_chunks()
            batches = pairs.to_batches(max_chunksize=_PAIRS_A_BATCH) or [pa.RecordBatch.from_pylist([], pairs.schema)]
            return pa.Table.from_batches(transform(batches))

        return cogroups.applyInArrow(task, columns)

    return Pairs(then, kind, queries.sparkSession)


def _unpack(packs: pa.Table) -> tuple[pa.Array, Floats, Positions]:
    """Return the ids, vectors and cells of the points in packs, ordered by id."""
    ids = pc.list_flatten(packs["ids"]).combine_chunks()
    vectors = np.frombuffer(b"".join(packs["vectors"].to_pylist())).reshape(len(ids), -1)
    cell = packs["cell"].to_numpy().astype(np.int64).repeat(pc.list_value_length(packs["ids"]).to_numpy())
    order = pc.sort_indices(ids)
    return ids.take(order), vectors[order.to_numpy()], cell[order.to_numpy()]
