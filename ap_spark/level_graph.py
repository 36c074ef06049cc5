"""The graph of a level: what it gains to move clusters of the level below to near ones (docs/levels.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.blocks.store import sent
from ap_spark.run import LocalSource, Source
from ap_spark.settings import Search
from ap_spark.similarity.given_items import GivenItems
from ap_spark.similarity.items import Items
from ap_spark.similarity.knn_exact import Positions, nearest, nearest_by_function
from ap_spark.similarity.metrics import Metric
from ap_spark.similarity.neighbors import find_neighbors

__all__ = ["ALL_PAIRS", "level_source", "nearest_items"]

ALL_PAIRS = 2_500  # items, up to which all pairs of them are stored

_SEARCHED_HERE = 10_000  # items whose neighbours are found in this process
_CLUSTERED_HERE = 10_000_000  # pairs of items that are clustered in this process
_RECALL = 0.95  # of an approximate search for the neighbours of items


@contextmanager
def level_source(items: Items | GivenItems, below: Source | LocalSource) -> Iterator[Source | LocalSource]:
    """Return the problem of a level: items by number, with what it brings to move them to near ones."""
    count, spark, about = len(items), below.spark, below.neighbors
    if isinstance(items, GivenItems):
        i, k = items.pairs()
        yield LocalSource(i, k, items.gains(i, k), pa.array(np.arange(count)))
        return
    assert about is not None
    wanted = min(about["neighbors"], count - 1)
    everybody = np.arange(count)
    if count <= ALL_PAIRS:
        i, k = np.nonzero(~np.eye(count, dtype=bool))
    elif spark is None or count <= _SEARCHED_HERE:
        i, k = _in_both_directions(*nearest_items(items, everybody, wanted), count)
    else:
        with _searched(items, wanted, about["search"], spark) as pairs:
            if count * wanted > _CLUSTERED_HERE and not classic.is_connect(spark):
                with _computed(pairs, items, spark) as similarities:
                    yield Source(similarities, spark.range(count), None)
                    return
            found = pairs.toArrow()
        i, k = _in_both_directions(found["i"].to_numpy(), found["k"].to_numpy(), count)
    yield LocalSource(i, k, items.gains(i, k), pa.array(everybody))


def nearest_items(items: Items, rows: Positions, n: int) -> tuple[Positions, Positions]:
    """Return the n nearest other items of some items, in this process: places in ``rows``, and items."""
    centers = items.centers
    if isinstance(items.metric, Metric):
        i, k, _ = nearest(centers[rows], centers, rows, n, items.metric)
    else:
        i, k, _ = nearest_by_function(items.metric, centers[rows], centers, rows, n)
    return i, k


def _in_both_directions(i: Positions, k: Positions, count: int) -> tuple[Positions, Positions]:
    """Return pairs and their other directions, each once."""
    pairs = np.unique(np.concatenate([i * count + k, k * count + i]))
    return pairs // count, pairs % count


@contextmanager
def _searched(items: Items, wanted: int, search: Search, spark: SparkSession) -> Iterator[DataFrame]:
    """Return the nearest items of each item, found by Spark: (i, k)."""
    centers = np.ascontiguousarray(items.centers)
    starts = pa.array(np.arange(0, centers.size + 1, centers.shape[1]), pa.int32())
    features = pa.ListArray.from_arrays(starts, pa.array(centers.ravel()))
    points = spark.createDataFrame(pa.table({"id": np.arange(len(items)), "features": features})).persist()
    try:
        pairs, _, _ = find_neighbors(points, wanted, items.metric, None, search, _RECALL)
        yield pairs.frame.select("i", "k")
    finally:
        points.unpersist()


@contextmanager
def _computed(pairs: DataFrame, items: Items, spark: SparkSession) -> Iterator[DataFrame]:
    """Return what is gained along pairs (i, k) of items, in both directions: (i, k, s), some of them twice."""
    arrays = (items.vectors, items.size, items.similarity, items.shift)
    with sent(spark, *arrays) as (vectors, size, similarity, shift):
        metric = items.metric

        def gains(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            known = Items(metric, vectors.value, size.value, similarity.value, shift.value)
            for batch in batches:
                i, k = batch["i"].to_numpy(), batch["k"].to_numpy()
                i, k = np.append(i, k), np.append(k, i)
                yield pa.RecordBatch.from_arrays([i, k, known.gains(i, k)], names=["i", "k", "s"])

        yield pairs.mapInArrow(gains, "i bigint, k bigint, s double")
