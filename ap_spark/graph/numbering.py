"""Numbers for points: 0..n-1 in the order of the ids, so that "the smallest id" is the smallest number everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame

from ap_spark._spark.session import few_partitions, with_settings
from ap_spark.blocks.kernel import Integers

__all__ = [
    "Numbering",
    "WrongInput",
    "broadcast_if_small",
    "ids_among",
    "key_of",
    "number_ids",
    "number_points",
    "numbered",
    "with_ids",
]

_BROADCAST_POINTS = 5_000_000  # up to so many points, a table of one small row a point is broadcast
_PLACE_BITS = 33  # monotonically_increasing_id: partition in the upper bits, place in the partition in these
_ROWS_A_TASK = 1_000_000  # up to so many rows, one task sorts them all


class WrongInput(Exception):
    """The input breaks some rule. It never reaches the user: `build_edge_graph` then raises the error itself."""


@dataclass(frozen=True)
class Numbering:
    """Points by number.

    Attributes
    ----------
    points : DataFrame
        (index, id).
    ids : pyarrow.Array or None
        The ids in order; None where they are too many for the driver.
    keys : int64, shape (n,)
        What is hashed of each id; see `blocks.hashing`.
    weights : int64, shape (n,)
        About how many entries the row of each point will have.
    release : callable
        Gives back the storage of the points.
    """

    points: DataFrame
    ids: pa.Array | None
    keys: Integers
    weights: Integers
    release: Callable[[], None]

    @property
    def n_points(self) -> int:
        """The number of points."""
        return len(self.keys)


def number_points(points: DataFrame, entries: int | None) -> tuple[Numbering, DataFrame]:
    """Number points; return the numbering, and the points with numbers for their ids.

    Parameters
    ----------
    points : DataFrame
        (id) and other columns, which stay.
    entries : int, optional
        About how many entries the row of each point will have; by default one for each point.

    Raises
    ------
    WrongInput
        See `number_ids`.
    """
    counted = points.select("id", F.lit(1).alias("times"), F.lit(entries or 0).cast("bigint").alias("weight"))
    numbering = number_ids(counted)
    if entries is None:
        numbering = replace(numbering, weights=np.full(numbering.n_points, numbering.n_points))
    named = points.join(broadcast_if_small(numbering.points, numbering.n_points), "id")
    return numbering, named.drop("id").withColumnRenamed("index", "id")


def number_ids(ids: DataFrame) -> Numbering:
    """Number ids.

    Parameters
    ----------
    ids : DataFrame
        (id, times, weight): how often each id was given, and about how many entries its row will have.

    Raises
    ------
    WrongInput
        If an id is null, or was given more than once.
    """
    spark = ids.sparkSession
    kind = dict(ids.dtypes)["id"]
    with with_settings(spark, few_partitions(spark)):
        table = ids.withColumn("key", key_of(F.col("id"), kind)).persist()
    try:
        found = table.agg(F.count("*"), F.count_if(F.col("id").isNull()), F.max("times")).first()
        assert found is not None
        n, null, times = found
        if null or (times or 0) > 1:
            raise WrongInput("ids are null, or given more than once")
        if n <= _BROADCAST_POINTS:
            rows = table.toArrow().sort_by("id")
            in_order = rows["id"].combine_chunks()
            if n > 1 and pc.any(pc.equal(in_order[1:], in_order[:-1])).as_py():
                raise WrongInput("ids are given more than once")
            points = spark.createDataFrame(pa.table({"index": np.arange(n), "id": in_order}))
            return Numbering(points, in_order, rows["key"].to_numpy(), rows["weight"].to_numpy(), lambda: None)
        if table.select("id").distinct().count() < n:
            raise WrongInput("ids are given more than once")
        indexed = numbered(table, "index", "id", count=n)
        rows = indexed.select("index", "key", "weight").toArrow()
        order = np.argsort(rows["index"].to_numpy())
        keys, weights = (rows[name].to_numpy()[order] for name in ("key", "weight"))

        def release() -> None:
            indexed.unpersist()

        return Numbering(indexed.select("index", "id"), None, keys, weights, release)
    finally:
        table.unpersist()


def numbered(rows: DataFrame, name: str, *order: Column | str, count: int) -> DataFrame:
    """Add a column that numbers the rows from 0 in the given order. No single task holds all rows.

    Parameters
    ----------
    rows : DataFrame
        Any table.
    name : str
        The new column, bigint.
    order : columns
        What to sort by; ties make the numbers arbitrary.
    count : int
        The number of rows.

    Returns
    -------
    DataFrame
        The table with the new column, persisted. Where an executor is lost, Spark computes the same numbers again.
    """
    place = F.monotonically_increasing_id()
    if count <= _ROWS_A_TASK:  # in one partition the place is the number
        return rows.repartition(1).sortWithinPartitions(*order).withColumn(name, place).persist()
    placed = rows.orderBy(*order).withColumn(name, place).persist()
    part = F.shiftright(name, _PLACE_BITS)
    sizes = {row.part: row["count"] for row in placed.groupBy(part.alias("part")).count().collect()}
    in_order = [sizes.get(number, 0) for number in range(max(sizes) + 1)]
    offsets = F.array(*(F.lit(offset).cast("bigint") for offset in accumulate(in_order, initial=0)))
    within = F.col(name).bitwiseAND(F.lit((1 << _PLACE_BITS) - 1))
    result = placed.withColumn(name, offsets[part.cast("int")] + within).persist()
    result.count()
    placed.unpersist()
    return result


def key_of(id_: Column, kind: str) -> Column:
    """Return what is hashed of an id: a number itself, or a hash of a string (`blocks.hashing` has the same)."""
    return id_ if kind == "bigint" else F.xxhash64(id_)


def broadcast_if_small(table: DataFrame, n_points: int) -> DataFrame:
    """Mark a table with at most a row a point to be broadcast, up to _BROADCAST_POINTS points."""
    return F.broadcast(table) if n_points <= _BROADCAST_POINTS else table


def with_ids(edges: DataFrame, points: DataFrame) -> DataFrame:
    """Return edges by number, (i, k, s), with the ids of their ends instead; ``points`` has (index, id)."""
    row = points.select(F.col("index").alias("i"), F.col("id").alias("from"))
    column = points.select(F.col("index").alias("k"), F.col("id").alias("to"))
    return edges.join(row, "i").join(column, "k").select(F.col("from").alias("i"), F.col("to").alias("k"), "s")


def ids_among(points: DataFrame, index: Integers) -> pa.Array:
    """Return the ids of some points of a table (index, id), in the order of the numbers given."""
    wanted = points.sparkSession.createDataFrame(pa.table({"index": index, "place": np.arange(len(index))}))
    found = points.select("index", "id").join(broadcast_if_small(wanted, len(index)), "index")
    return found.toArrow().sort_by("place")["id"].combine_chunks()
