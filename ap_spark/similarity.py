"""Points to similarities, all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window

from ap_spark import classic
from ap_spark.errors import SettingError
from ap_spark.settings import Input

__all__ = ["METRICS", "similarities"]

TILE = 512  # points a side of a tile of pairs: 2 MB of similarities

Floats = NDArray[np.float64]


def sqeuclidean(x: Floats, y: Floats) -> Floats:
    """Minus the squared Euclidean distance of each row of x, shape (m, d), to each row of y, shape (n, d).

    The squares are added dimension by dimension, so that the result does not depend on the shape of the arrays.

    >>> sqeuclidean(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[-25.,   0.]])
    """
    total = np.zeros((len(x), len(y)))
    for a, b in zip(x.T, y.T, strict=True):
        difference = a[:, None] - b[None, :]
        difference *= difference
        total -= difference
    return total


def euclidean(x: Floats, y: Floats) -> Floats:
    """Minus the Euclidean distance of each row of x, shape (m, d), to each row of y, shape (n, d).

    >>> euclidean(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]]))
    array([[-5.]])
    """
    return np.asarray(-np.sqrt(-sqeuclidean(x, y)))


METRICS: dict[str, Callable[[Floats, Floats], Floats]] = {"sqeuclidean": sqeuclidean, "euclidean": euclidean}


def similarities(points: DataFrame, *, metric: str = Input.metric, top: int | None = Input.top) -> DataFrame:
    """The similarity of every pair of different points.

    Parameters
    ----------
    points : DataFrame
        (id, features array<double>), as `make_points` gives it: unique ids, finite values, one length.
    metric : {"sqeuclidean", "euclidean"}
        Minus the squared Euclidean distance, or minus the Euclidean distance; computed in float64.
    top : int, optional
        Keep only the N largest similarities of each point, on ties those to the smallest ids.

    Returns
    -------
    DataFrame
        (i, k, s): n (n - 1) rows for n points, or n N. Work and result grow with the square of n: up to a few
        thousand points.

    Raises
    ------
    SettingError
        If the metric is unknown or ``top`` below 1.

    Examples
    --------
    >>> points = spark.createDataFrame([(0, [0.0]), (1, [1.0]), (2, [3.0])], "id int, features array<double>")
    >>> similarities(points, top=1).orderBy("i").collect()
    [Row(i=0, k=1, s=-1.0), Row(i=1, k=0, s=-1.0), Row(i=2, k=1, s=-4.0)]
    """
    Input(metric=metric, top=top)
    if "features" not in points.columns:
        raise SettingError(f"points must have a column 'features', got {', '.join(points.columns)}")
    kind = points.schema["id"].dataType.simpleString()
    tiles = points.select("id", "features").mapInArrow(tile, f"ids array<{kind}>, features binary")
    left, right = tiles, tiles.select(F.col("ids").alias("other_ids"), F.col("features").alias("other"))
    # A tile is some MB: a task for each few of them keeps all cores busy.
    pairs = left.repartition(4 * classic.cores(points.sparkSession)).crossJoin(right)
    edges = pairs.mapInArrow(partial(all_pairs, metric=metric, top=top), f"i {kind}, k {kind}, s double")
    if top is None:
        return edges
    rank = F.row_number().over(Window.partitionBy("i").orderBy(F.desc("s"), "k"))
    return edges.withColumn("rank", rank).where(F.col("rank") <= top).drop("rank")


def tile(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Gather points into rows of up to TILE points."""
    for batch in batches:
        for start in range(0, len(batch), TILE):
            some = batch.slice(start, TILE)
            features = some["features"].flatten().to_numpy()
            ids = pa.array([some["id"].to_pylist()], pa.list_(some["id"].type))
            yield pa.RecordBatch.from_arrays(
                [ids, pa.array([features.tobytes()], pa.binary())], names=["ids", "features"]
            )


def all_pairs(batches: Iterable[pa.RecordBatch], *, metric: str, top: int | None) -> Iterator[pa.RecordBatch]:
    """The similarities of the pairs of two tiles, the diagonal left out; with ``top``, each row's largest here."""
    for batch in batches:
        for n in range(len(batch)):
            ids, other_ids = (batch[name][n].values for name in ("ids", "other_ids"))
            x, y = (
                np.frombuffer(batch[name][n].as_buffer()).reshape(len(these), -1)
                for name, these in (("features", ids), ("other", other_ids))
            )
            s = METRICS[metric](x, y)
            code = pa.concat_arrays([ids, other_ids]).dictionary_encode().indices.to_numpy()
            different = code[: len(ids), None] != code[None, len(ids) :]
            if top is not None and top < len(other_ids):
                # Everything at least as large as the row's Nth largest; the exact cut is made over all tiles.
                among = np.where(different, s, -np.inf)
                nth = np.partition(among, -top, axis=1)[:, -top]
                different &= s >= nth[:, None]
            row, column = np.nonzero(different)
            yield pa.RecordBatch.from_arrays(
                [ids.take(pa.array(row)), other_ids.take(pa.array(column)), pa.array(s[row, column])],
                names=["i", "k", "s"],
            )
