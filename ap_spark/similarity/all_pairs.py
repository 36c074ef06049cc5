"""Points to the similarities of all pairs.

Points travel in tiles, a row for up to 512 of them. Each tile is joined with every tile, and a task
computes the similarities of two tiles at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import DataFrame

from ap_spark.settings import MetricName, PairFunction, Similarity
from ap_spark.similarity.metrics import Metric, between, metric_of
from ap_spark.similarity.pairs import Pairs, Transform
from ap_spark.similarity.vectors import check_vectors

__all__ = ["all_pairs", "similarities"]

logger = logging.getLogger(__name__)

_TILE_POINTS = 512  # a side of the pairs of two tiles: 2 MB of similarities
_DRIVER_BYTES = 256 << 20  # up to here all vectors go by way of the driver: there is one job less to wait for
_MANY_POINTS = 10_000  # points of which all pairs are worth a warning


def similarities(
    points: DataFrame,
    *,
    metric: MetricName | PairFunction = Similarity.metric,
    width: float | None = Similarity.width,
) -> DataFrame:
    """Compute the similarity of every pair of different points.

    Parameters
    ----------
    points : DataFrame
        (id, features array<double>), as `make_points` gives it: unique ids, finite values, one length.
    metric : {"sqeuclidean", "euclidean", "manhattan", "cosine", "correlation", "gaussian", "dot"} or callable
        Minus a distance, or how much two vectors agree; `metrics.pairwise` has the formulas. A function takes arrays
        of shapes (m, d) and (n, d) and returns the similarities, shape (m, n). Computed in float64.
    width : float, optional
        Of the metric "gaussian", exp(-d² / (2 width²)).

    Returns
    -------
    DataFrame
        (i, k, s): n (n - 1) rows for n points. Work and result grow with the square of n, which is bearable up to a
        few thousand points; for more there is `nearest_neighbors`.

    Raises
    ------
    InputError
        If a vector has no similarity under this metric (zero for cosine, constant for correlation). If features are
        so large, or all so small, that 64-bit floats don't hold their similarities.
    SettingError
        If the metric is unknown, lacks its width, or is a function that fails.

    Examples
    --------
    >>> points = spark.createDataFrame([(0, [0.0]), (1, [1.0]), (2, [3.0])], "id int, features array<double>")
    >>> similarities(points, metric="euclidean").where("i = 2").orderBy("k").collect()
    [Row(i=2, k=0, s=-3.0), Row(i=2, k=1, s=-2.0)]
    """
    return all_pairs(points, metric, width).frame


def all_pairs(points: DataFrame, metric: MetricName | PairFunction, width: float | None) -> Pairs:
    """Compute the similarity of every pair, as `Pairs`, which stay in the tasks; see `similarities`."""
    measure = metric_of(metric, width)
    points, count, dimensions = check_vectors(points, measure)
    if count > _MANY_POINTS:
        logger.warning(
            "all pairs of %s points are %s similarities: --neighbors N keeps only the nearest",
            f"{count:,}",
            f"{count * (count - 1):,}",
        )
    kind = points.schema["id"].dataType.simpleString()
    vectors = points.select("id", "features")
    if is_small := 8 * count * dimensions <= _DRIVER_BYTES:
        rows = pa.Table.from_batches(_tiles(vectors.toArrow().combine_chunks().to_batches(), measure))
        tiles = points.sparkSession.createDataFrame(rows)
    else:
        tiles = vectors.mapInArrow(partial(_tiles, metric=measure), f"ids array<{kind}>, vectors binary")
    others = tiles.toDF("other_ids", "others")
    pairs = tiles.repartition(-(-count // _TILE_POINTS)).crossJoin(F.broadcast(others) if is_small else others)

    def then(transform: Transform, columns: str) -> DataFrame:
        return pairs.mapInArrow(lambda batches: transform(_pairs_of_tiles(batches, measure)), columns)

    return Pairs(then, kind, points.sparkSession)


def _tiles(batches: Iterable[pa.RecordBatch], metric: Metric | PairFunction) -> Iterator[pa.RecordBatch]:
    """Put points (id, features) into tiles (ids array, vectors binary), with vectors prepared by the metric."""
    for batch in batches:
        for start in range(0, len(batch), _TILE_POINTS):
            some = batch.slice(start, _TILE_POINTS)
            vectors = some["features"].flatten().to_numpy().reshape(len(some), -1)
            if isinstance(metric, Metric):
                vectors = metric.prepare(vectors)
            ids = pa.ListArray.from_arrays(pa.array([0, len(some)], pa.int32()), some["id"])
            yield pa.RecordBatch.from_arrays([ids, pa.array([vectors.tobytes()])], names=["ids", "vectors"])


def _pairs_of_tiles(batches: Iterable[pa.RecordBatch], metric: Metric | PairFunction) -> Iterator[pa.RecordBatch]:
    """Compute the similarities (i, k, s) of the pairs of two tiles; pairs of a point with itself are left out."""
    for batch in batches:
        for n in range(len(batch)):
            ids, other_ids = (batch[name][n].values for name in ("ids", "other_ids"))
            x, y = (
                np.frombuffer(batch[name][n].as_buffer()).reshape(len(these), -1)
                for name, these in (("vectors", ids), ("others", other_ids))
            )
            s = between(metric, x, y)
            code = pa.concat_arrays([ids, other_ids]).dictionary_encode().indices.to_numpy()
            row, column = np.nonzero(code[: len(ids), None] != code[None, len(ids) :])
            yield pa.RecordBatch.from_arrays(
                [ids.take(pa.array(row)), other_ids.take(pa.array(column)), pa.array(s[row, column])],
                names=["i", "k", "s"],
            )
