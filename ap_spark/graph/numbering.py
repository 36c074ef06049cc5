"""Numbering the rows of a table, without a single task that holds them all."""

from __future__ import annotations

from itertools import accumulate

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame

__all__ = ["numbered"]

PLACE_BITS = 33  # monotonically_increasing_id: partition in the upper bits, place in the partition in these
ROWS_A_TASK = 1_000_000  # up to this many rows one task sorts them all


def numbered(rows: DataFrame, name: str, *order: Column | str, count: int) -> DataFrame:
    """Add a column that numbers the rows from 0 in the given order.

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
        The table with the new column, persisted; made again, the same, where an executor is lost.
    """
    place = F.monotonically_increasing_id()
    if count <= ROWS_A_TASK:  # one partition: the place is the number
        return rows.repartition(1).sortWithinPartitions(*order).withColumn(name, place).persist()
    placed = rows.orderBy(*order).withColumn(name, place).persist()
    part = F.shiftright(name, PLACE_BITS)
    sizes = {row.part: row["count"] for row in placed.groupBy(part.alias("part")).count().collect()}
    in_order = [sizes.get(number, 0) for number in range(max(sizes) + 1)]
    offsets = F.array(*(F.lit(offset).cast("bigint") for offset in accumulate(in_order, initial=0)))
    within = F.col(name).bitwiseAND(F.lit((1 << PLACE_BITS) - 1))
    result = placed.withColumn(name, offsets[part.cast("int")] + within).persist()
    result.count()
    placed.unpersist()
    return result
