"""The tables of a result of levels: who is where at each level, and how the last clusters join (docs/levels.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.similarity.given_items import GivenItems
from ap_spark.similarity.items import Items
from ap_spark.similarity.knn_exact import Positions

__all__ = ["Hierarchy", "exemplar_table", "tree_table"]

_MOST_IN_A_TREE = 1_000  # clusters


@dataclass(frozen=True)
class Hierarchy:
    """Which clusters became one, level by level.

    Attributes
    ----------
    points : DataFrame of Spark or pandas
        (id, exemplar): the clusters of the first level.
    ids : sequence of Arrow arrays
        The exemplars of each level, in order.
    above : sequence of int64 arrays
        For each level above the first one: the cluster of each cluster of the level below, by number.
    """

    points: Any
    ids: Sequence[pa.Array]
    above: Sequence[Positions]

    def names(self) -> pa.Table:
        """Return the exemplar at each level, level_0, level_1, …, of each cluster of the first one."""
        place = np.arange(len(self.ids[0]))
        names = {"level_0": self.ids[0]}
        for number, (joined, ids) in enumerate(zip(self.above, self.ids[1:], strict=True), start=1):
            place = joined[place]
            names[f"level_{number}"] = ids.take(pa.array(place))
        return pa.table(names)

    def table(self, spark: SparkSession | None) -> Any:
        """Return (level, id, exemplar): of all points at level 0, and above it of the exemplars of the level below."""
        upper = [
            pa.table({"level": pa.array([number] * len(ids), pa.int32()), "id": ids, "exemplar": above.take(joined)})
            for number, (ids, joined, above) in enumerate(
                zip(self.ids[:-1], map(pa.array, self.above), self.ids[1:], strict=True), start=1
            )
        ]
        points = self.points
        if spark is None:
            first = points.assign(level=np.int32(0))[["level", "id", "exemplar"]]
            lowest = pa.Table.from_pandas(first, preserve_index=False)
            return pa.concat_tables([lowest, *(table.cast(lowest.schema) for table in upper)]).to_pandas()
        first = points.select(F.lit(0).alias("level"), "id", "exemplar")
        return first.union(spark.createDataFrame(pa.concat_tables(upper))) if upper else first

    def assignments(self, rows: Any, ids: pa.Array) -> Any:
        """Return (id, exemplar, label, similarity, level_0, …) of all points.

        Parameters
        ----------
        rows : DataFrame of Spark, or Arrow table
            (id, label, similarity).
        ids : Arrow array
            The exemplar of each label.
        """
        names, first = self.names(), self.points
        if not isinstance(rows, DataFrame):
            columns = {"id": rows["id"], "exemplar": ids.take(rows["label"].combine_chunks())}
            table = pa.table(columns | {name: rows[name] for name in ("label", "similarity")}).to_pandas()
            named = first.sort_values("id")[["exemplar"]].merge(
                names.to_pandas(), left_on="exemplar", right_on="level_0", how="left"
            )
            return table.assign(**{name: named[name].to_numpy() for name in names.column_names})
        spark = rows.sparkSession
        exemplars = spark.createDataFrame(pa.table({"label": np.arange(len(ids)), "exemplar": ids}))
        lowest = first.select("id", F.col("exemplar").alias("level_0"))
        joined = (
            rows.join(F.broadcast(exemplars), "label").join(lowest, "id").join(spark.createDataFrame(names), "level_0")
        )
        return classic.replicated_checkpoint(
            joined.select("id", "exemplar", "label", "similarity", *names.column_names)
        )


def exemplar_table(items: Items | GivenItems, ids: pa.Array, preference: float, spark: SparkSession | None) -> Any:
    """Return (label, exemplar, size, preference, mean_similarity) of the clusters, whose exemplars have these ids."""
    is_alone = items.size == 1
    mean = np.where(is_alone, np.nan, items.similarity / np.maximum(items.size - 1, 1))
    table = pa.table(
        {
            "label": np.arange(len(ids)),
            "exemplar": ids,
            "size": items.size,
            "preference": np.full(len(ids), preference),
            "mean_similarity": pa.array(mean, mask=is_alone),
        }
    )
    return spark.createDataFrame(table) if spark else table.to_pandas()


def tree_table(items: Items | GivenItems, spark: SparkSession | None) -> Any:
    """Return the joins of the clusters (join, left, right, height, size); None where they are too many."""
    if not (isinstance(items, Items) and 1 < len(items) <= _MOST_IN_A_TREE):
        return None
    joins, height, size = items.tree()
    number = np.arange(len(items), 2 * len(items) - 1)
    table = pa.table({"join": number, "left": joins[:, 0], "right": joins[:, 1], "height": height, "size": size})
    return spark.createDataFrame(table) if spark else table.to_pandas()
