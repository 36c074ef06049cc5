"""The searches for neighbours as Spark jobs: which queries are searched in which part of the corpus.

    exact        every part of the queries is searched in every shard of the corpus
    approximate  points lie in cells; the queries of a region of cells are searched in all cells that they probe

A task searches in one process (`knn_exact.py`, `knn_ivf.py`). Sizes are chosen so that it needs little memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.similarity import packs
from ap_spark.similarity.knn_exact import Found, Positions, nearest, nearest_by_function
from ap_spark.similarity.knn_ivf import (
    TRAINING_POINTS,
    Cells,
    cells_that_hold,
    cells_to_probe,
    group_cells,
    nearest_in_cells,
    train,
)
from ap_spark.similarity.metrics import Floats, Metric, PairFunction
from ap_spark.similarity.packs import cogroup_search, pack_cells
from ap_spark.similarity.pairs import Pairs
from ap_spark.similarity.vectors import matrix

__all__ = ["search_approximately", "search_exactly"]

logger = logging.getLogger(__name__)

_SHARD_BYTES = 128 * 2**20  # of the vectors of the corpus in one task
_QUERIES_A_TASK = 50_000  # about, at most
_NEIGHBORS_A_TASK = 5_000_000  # that one task finds: about, at most
_TRAINING_BYTES = 2**29  # of the vectors on which the driver trains the cells, at most
_SAMPLE_POINTS = 1000  # on which the recall is measured


def search_exactly(points: DataFrame, count: int, dimensions: int, n: int, metric: Metric | PairFunction) -> Pairs:
    """Find the n nearest neighbours of each point.

    Parameters
    ----------
    points : DataFrame
        (id, features array<double>), checked.
    count, dimensions : int
        Of the points and of their vectors.
    n : int
        Neighbours of each point, at least 1.
    metric : Metric or callable
    """
    parts = _n_parts(points, count, dimensions, n)
    return _search_shards(points, points, parts, _n_shards(count, dimensions), n, metric)


def _search_shards(
    queries: DataFrame, corpus: DataFrame, parts: int, shards: int, n: int, metric: Metric | PairFunction
) -> Pairs:
    """Find the n nearest neighbours of the queries: each part of them, in each shard of the corpus, is a group."""
    group = (F.col("part") * F.lit(shards) + F.col("shard")).alias("group")
    query_packs = pack_cells(queries, _bucket(parts), metric).select(
        F.col("cell").alias("part"), _each_of(shards).alias("shard"), "cell", "ids", "vectors"
    )
    corpus_packs = pack_cells(corpus, _bucket(shards), metric, copies=n + 1).select(
        _each_of(parts).alias("part"), F.col("cell").alias("shard"), "cell", "ids", "vectors"
    )

    def search(x: Floats, y: Floats, self_index: Positions, cell: Positions) -> Found:
        if isinstance(metric, Metric):
            return nearest(x, y, self_index, n, metric)
        return nearest_by_function(metric, x, y, self_index, n)

    return cogroup_search(
        query_packs.select(group, "cell", "ids", "vectors"),
        corpus_packs.select(group, "cell", "ids", "vectors"),
        parts * shards,
        metric,
        search,
        best_of=n if shards > 1 else None,
    )


def _n_parts(points: DataFrame, count: int, dimensions: int, n: int) -> int:
    """Return in how many parts the queries are searched: enough for all cores, and none too large for a task."""
    a_task = max(1, min(_QUERIES_A_TASK, _SHARD_BYTES // (8 * dimensions), _NEIGHBORS_A_TASK // n))
    return max(-(-count // a_task), min(4 * classic.cores(points.sparkSession), -(-count // 1000)))


def _n_shards(count: int, dimensions: int) -> int:
    """Return in how many shards so many points are searched."""
    return -(-count * dimensions * 8 // _SHARD_BYTES)


def _bucket(number: int) -> Column:
    """Return one of so many buckets, chosen by the id: the same on every machine."""
    return F.pmod(F.xxhash64("id"), F.lit(number)).cast("int")


def _each_of(number: int) -> Column:
    """Return a row for each number from 0."""
    return F.explode(F.sequence(F.lit(0), F.lit(number - 1)))


def search_approximately(
    points: DataFrame, count: int, dimensions: int, n: int, metric: Metric, recall: float
) -> tuple[Pairs, float]:
    """Find the n nearest neighbours of each point in the cells nearest to it.

    1. Train the cells on a sample of points.
    2. Find out on a smaller sample how many cells a point has to probe for the recall asked for.
    3. Put cells that lie together into regions, and find the cells that the points of each region probe.
    4. Search: a group is a region, with all of these cells.

    Parameters
    ----------
    points, count, dimensions, n, metric
        As for `search_exactly`.
    recall : float
        The share of the true neighbours to be found, in (0, 1].

    Returns
    -------
    pairs : Pairs
    recall : float
        What was reached on the sample.
    """
    cells = _train_cells(points, count, dimensions, metric)
    probes, reached = _measure_probes(points, count, dimensions, n, metric, cells, recall)
    parts = _n_parts(points, count, dimensions, n)
    region = group_cells(cells, parts)
    sizes, probed = _probed_cells(points, n, metric, cells, region, probes)
    query_groups, corpus_groups = _group_packs(region, sizes, probed, dimensions, -(-count // parts))
    in_cells = _with_cells(points, cells, metric)
    query_packs = pack_cells(in_cells, F.col("cell"), metric)
    corpus_packs = pack_cells(in_cells, F.col("cell"), metric, copies=n + 1)

    def search(x: Floats, y: Floats, self_index: Positions, cell: Positions) -> Found:
        return nearest_in_cells(x, y, self_index, n, metric, cells, cell, probes)

    pairs = cogroup_search(
        query_packs.join(_from_driver(points.sparkSession, query_groups), ["cell", "piece"]).select(
            "group", "cell", "ids", "vectors"
        ),
        corpus_packs.join(_from_driver(points.sparkSession, corpus_groups), "cell").select(
            "group", "cell", "ids", "vectors"
        ),
        int(query_groups["group"].max()) + 1,
        metric,
        search,
        best_of=n if int(corpus_groups["shard"].max()) > 0 else None,
    )
    return pairs, reached


def _train_cells(points: DataFrame, count: int, dimensions: int, metric: Metric) -> Cells:
    """Train about 4 √count cells on a sample of the points."""
    number = max(1, 4 * math.isqrt(count))
    training = _sample(points, count, min(TRAINING_POINTS * number, _TRAINING_BYTES // (8 * dimensions)))
    return train(metric.prepare(matrix(training.toArrow().sort_by("id"))), number)


def _measure_probes(
    points: DataFrame, count: int, dimensions: int, n: int, metric: Metric, cells: Cells, recall: float
) -> tuple[int, float]:
    """Return how many cells a point has to probe, and the recall that this gives, on a sample of points.

    Their true neighbours are found first, by the exact search.
    """
    spark = points.sparkSession
    some = _sample(points, count, _SAMPLE_POINTS)
    shards = max(2 * classic.cores(spark), _n_shards(count, dimensions))
    truth = _search_shards(some, points, 1, shards, n, metric).frame.select("i", F.col("k").alias("id")).toArrow()
    true_ids = spark.createDataFrame(pa.table({"id": truth["id"].unique()}))
    true_neighbors = points.join(F.broadcast(true_ids), "id")
    cell_of = _with_cells(true_neighbors, cells, metric).select("id", "cell").toArrow()
    rows = some.toArrow().sort_by("id")
    row = pc.index_in(truth["i"], rows["id"]).to_numpy()
    cell = cell_of["cell"].to_numpy()[pc.index_in(truth["id"], cell_of["id"]).to_numpy()]
    probes, reached = cells_to_probe(cells, metric.prepare(matrix(rows)), row, cell, recall)
    logger.info("%s cells, %d of them searched for each point: recall %.4f", f"{len(cells):,}", probes, reached)
    return probes, reached


def _sample(points: DataFrame, count: int, wanted: int) -> DataFrame:
    """Return about so many of the points, chosen by their ids."""
    return points.where(_bucket(count) < wanted).select("id", "features")


def _with_cells(points: DataFrame, cells: Cells, metric: Metric) -> DataFrame:
    """Add the cell of each point: (id, features, cell)."""
    kind = points.schema["id"].dataType.simpleString()

    def place(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            cell = cells.place(metric.prepare(matrix(batch)))
            yield batch.append_column("cell", pa.array(cell, pa.int32()))

    return points.select("id", "features").mapInArrow(place, f"id {kind}, features array<double>, cell int")


def _probed_cells(
    points: DataFrame, n: int, metric: Metric, cells: Cells, region: Positions, probes: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the size of each cell that is not empty, (cell, count), and the cells of each region, (region, cell).

    The cells of a region are those that its points probe, those that they lie in, and enough of the nearest that
    every point finds n neighbours.
    """
    probed = _with_cells(points, cells, metric).mapInArrow(
        partial(_probe_cells, cells=cells, metric=metric, region=region, probes=probes),
        "region int, cell int, count bigint",
    )
    counts = probed.groupBy("region", "cell").agg(F.sum("count").alias("count")).toArrow().to_pandas()
    sizes = counts.loc[counts["count"] > 0, ["cell", "count"]]
    cell, near = cells_that_hold(cells, sizes["cell"].to_numpy(), sizes["count"].to_numpy(), n + 1)
    enough = pd.DataFrame({"region": region[cell], "cell": near})
    return sizes, pd.concat([counts[["region", "cell"]], enough]).drop_duplicates()


def _probe_cells(
    batches: Iterable[pa.RecordBatch], *, cells: Cells, metric: Metric, region: Positions, probes: int
) -> Iterator[pa.RecordBatch]:
    """Return the cells that points probe, or lie in: (region of the points, cell, how many of them lie in it)."""
    is_probed = np.zeros((region.max() + 1, len(cells)), dtype=bool)
    counts = np.zeros(len(cells), dtype=np.int64)
    for batch in batches:
        cell = batch["cell"].to_numpy()
        near = cells.nearest(metric.prepare(matrix(batch)), probes)
        is_probed[region[cell, None], near] = is_probed[region[cell], cell] = True
        counts += np.bincount(cell, minlength=len(cells))
    of_region, cell = np.nonzero(is_probed)
    count = np.where(region[cell] == of_region, counts[cell], 0)
    columns = [pa.array(of_region, pa.int32()), pa.array(cell, pa.int32()), pa.array(count)]
    yield pa.RecordBatch.from_arrays(columns, names=["region", "cell", "count"])


def _group_packs(
    region: Positions, sizes: pd.DataFrame, probed: pd.DataFrame, dimensions: int, queries_a_part: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decide which packs come together in a group.

    A region is one group. If its queries or its corpus are too many, each part of the queries with each shard of the
    corpus is a group.

    Parameters
    ----------
    region : array of int64
        The region of each cell.
    sizes : (cell, count)
    probed : (region, cell)
        The cells that the points of a region probe.
    dimensions : int
        Of the vectors.
    queries_a_part : int
        About how many queries a group has.

    Returns
    -------
    queries : (cell, piece, group)
    corpus : (cell, shard, group)
    """
    points_a_pack = max(1, packs.PACK_BYTES // (8 * dimensions))
    pieces = -(-sizes["count"] // points_a_pack)
    queries = sizes.loc[sizes.index.repeat(pieces), ["cell"]].sort_values("cell", ignore_index=True)
    queries["piece"] = queries.groupby("cell").cumcount()
    queries["region"] = region[queries["cell"]]
    counts = sizes.set_index("cell")["count"]
    points = (queries["cell"].map(counts) - queries["piece"] * points_a_pack).clip(upper=points_a_pack)
    queries["part"] = (points.groupby(queries["region"]).cumsum() - points) // queries_a_part
    is_occupied = probed["cell"].isin(counts.index)
    corpus = probed[is_occupied].sort_values(["region", "cell"], ignore_index=True)
    size = corpus["cell"].map(counts) * dimensions * 8
    corpus["shard"] = (size.groupby(corpus["region"]).cumsum() - size) // _SHARD_BYTES
    groups = queries[["region", "part"]].drop_duplicates().merge(corpus[["region", "shard"]].drop_duplicates())
    groups["group"] = np.arange(len(groups))
    queries = queries.merge(groups)[["cell", "piece", "group"]].astype("int32")
    return queries, corpus.merge(groups)[["cell", "shard", "group"]].astype("int32")


def _from_driver(spark: SparkSession, table: pd.DataFrame) -> DataFrame:
    """Send a small table to every executor."""
    return F.broadcast(spark.createDataFrame(pa.Table.from_pandas(table, preserve_index=False)))
