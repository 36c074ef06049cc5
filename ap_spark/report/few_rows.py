"""A few rows of a large table, of Spark or of pandas, as a table of pandas.

Which rows are drawn by chance depends on the ids alone, so that a picture is the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, Window

__all__ = ["by_chance", "ends_of_clusters", "with_ids", "with_labels"]

_DRAW, _FIRST, _LAST, _ANY = "draw", "first", "last", "any"


def by_chance(table: Any, count: int) -> pd.DataFrame:
    """Return so many rows of a table (id, ...), drawn by chance, in the order of the ids; all if there are fewer."""
    if isinstance(table, DataFrame):
        drawn = table.orderBy(F.xxhash64("id"), "id").limit(count)
        return _in_pandas(drawn).sort_values("id", ignore_index=True)
    chosen: pd.DataFrame = table.iloc[np.sort(np.argsort(_hash(table["id"]), kind="stable")[:count])]
    return chosen


def with_labels(table: Any, labels: Sequence[int]) -> pd.DataFrame:
    """Return the rows of a table (label, ...) with these labels, in their order."""
    if isinstance(table, DataFrame):
        wanted = table.sparkSession.createDataFrame(pa.table({"label": pa.array(labels, pa.int64())}))
        return _in_pandas(table.join(F.broadcast(wanted), "label").select(table.columns)).sort_values("label")
    found: pd.DataFrame = table[table["label"].isin(labels)].sort_values("label")
    return found


def with_ids(table: DataFrame, ids: pd.Series) -> pd.DataFrame:
    """Return the rows of a table of Spark (id, ...) with these ids. Ids are compared as strings."""
    wanted = table.sparkSession.createDataFrame(pa.table({"key": pa.array(ids.astype(str), pa.string())}))
    return _in_pandas(table.join(F.broadcast(wanted), F.col("id").cast("string") == F.col("key"), "left_semi"))


def ends_of_clusters(assignments: Any, labels: Sequence[int], ends: int, others: int) -> pd.DataFrame:
    """Return the most and the least similar members of some clusters, and others drawn by chance.

    Parameters
    ----------
    assignments : DataFrame of Spark or pandas
        (id, exemplar, label, similarity).
    labels : sequence of int
    ends : int
        Members at each end, of each cluster; exemplars are none.
    others : int
        Members drawn by chance, of each cluster.

    Returns
    -------
    DataFrame of pandas
        (id, exemplar, label, similarity, first, last, any): the last three are places from 1 in the cluster, by
        falling similarity, by rising similarity, and by chance.
    """
    if isinstance(assignments, DataFrame):
        members = assignments.where(F.col("label").isin(list(labels)) & F.col("similarity").isNotNull())
        places = {
            _FIRST: [F.desc("similarity"), F.asc("id")],
            _LAST: [F.asc("similarity"), F.desc("id")],
            _ANY: [F.xxhash64("id"), F.asc("id")],
        }
        for name, order in places.items():
            members = members.withColumn(name, F.row_number().over(Window.partitionBy("label").orderBy(*order)))
        chosen = members.where(f"{_FIRST} <= {ends} OR {_LAST} <= {ends} OR {_ANY} <= {others}")
        columns = ["id", "exemplar", "label", "similarity", _FIRST, _LAST, _ANY]
        return _in_pandas(chosen.select(columns)).sort_values(["label", "id"], ignore_index=True)
    table: pd.DataFrame = assignments[assignments["label"].isin(labels) & assignments["similarity"].notna()]
    table = table.sort_values("id", ignore_index=True)
    in_clusters = table.assign(**{_DRAW: _hash(table["id"])}).groupby("label")
    by_similarity = in_clusters["similarity"]
    table = table.assign(
        **{
            _FIRST: by_similarity.rank(method="first", ascending=False).astype(int),
            _ANY: in_clusters[_DRAW].rank(method="first").astype(int),
        }
    )
    size = table.groupby("label")["id"].transform("size")
    table[_LAST] = size - table[_FIRST] + 1
    is_chosen = (table[[_FIRST, _LAST]].min(axis=1) <= ends) | (table[_ANY] <= others)
    return table[is_chosen].sort_values(["label", "id"], ignore_index=True)


def _hash(ids: pd.Series) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.asarray(pd.util.hash_array(ids.to_numpy(), categorize=False))


def _in_pandas(table: DataFrame) -> pd.DataFrame:
    found: pd.DataFrame = table.toArrow().to_pandas()
    return found
