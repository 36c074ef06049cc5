"""Points to similarities: all pairs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark import cloudpickle
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, NumericType

from ap_spark.errors import InputError, SettingError, reason
from ap_spark.schema import count_of, examples, finite, id_type, is_are, require_columns
from ap_spark.settings import Similarity
from ap_spark.similarity.metrics import Floats, Metric, PairFunction, between, metric_of
from ap_spark.similarity.pairs import Pairs, Transform

__all__ = ["all_pairs", "check_vectors", "similarities"]

logger = logging.getLogger(__name__)

TILE = 512  # points a side of a tile of pairs: 2 MB of similarities
COLLECTED_BYTES = 256 << 20  # of all vectors, which then go by way of the driver: there is one job less to wait for
MANY = 10_000  # points of which all pairs are worth a warning
ROOM = 8.0  # so many times larger features are still to have finite similarities: searches add squares
SMALLEST = 1e-145  # the largest feature in size, at least: differences of 1e-9 of it have exact squares


def similarities(
    points: DataFrame, *, metric: str | PairFunction = Similarity.metric, width: float | None = Similarity.width
) -> DataFrame:
    """The similarity of every pair of different points.

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
        (i, k, s): n (n - 1) rows for n points. Work and result grow with the square of n: up to a few thousand points;
        `nearest_neighbors` is for more.

    Raises
    ------
    InputError
        If a vector has no similarity under this metric: zero for cosine, constant for correlation; or if features are
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


def all_pairs(points: DataFrame, metric: str | PairFunction, width: float | None) -> Pairs:
    """`similarities`, for tasks to go on with."""
    by = metric_of(metric, width)
    points, count, dimensions = check_vectors(points, by)
    if count > MANY:
        logger.warning(
            "all pairs of %s points are %s similarities: --neighbors N keeps the nearest alone",
            f"{count:,}",
            f"{count * (count - 1):,}",
        )
    kind = points.schema["id"].dataType.simpleString()
    vectors = points.select("id", "features")
    if is_small := 8 * count * dimensions <= COLLECTED_BYTES:
        of_points = pa.Table.from_batches(tiled(vectors.toArrow().combine_chunks().to_batches(), by))
        tiles = points.sparkSession.createDataFrame(of_points)
    else:
        tiles = vectors.mapInArrow(partial(tiled, metric=by), f"ids array<{kind}>, vectors binary")
    others = tiles.toDF("other_ids", "others")
    pairs = tiles.repartition(-(-count // TILE)).crossJoin(F.broadcast(others) if is_small else others)

    def then(transform: Transform, columns: str) -> DataFrame:
        return pairs.mapInArrow(lambda batches: transform(pairs_of_tiles(batches, by)), columns)

    return Pairs(then, kind, points.sparkSession)


def check_vectors(points: DataFrame, metric: Metric | PairFunction) -> tuple[DataFrame, int, int]:
    """Points as (id, features array<double>), checked, and the numbers of points and of dimensions.

    Raises
    ------
    InputError
        If there are no points, features are no arrays of finite numbers of one length, or a vector has no similarity
        under this metric, or none that 64-bit floats hold.
    """
    require_columns(points, ("id", "features"), "points")
    kind = points.schema["features"].dataType
    if not (isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)):
        raise InputError(f"features must be arrays of numbers, got {kind.simpleString()} (`make_points` makes them)")
    ids = F.col("id").cast(id_type(points.schema["id"].dataType, "id"))
    points = points.select(ids.alias("id"), F.col("features").cast("array<double>").alias("features"))
    x = F.col("features")
    refuses = metric.refuses if isinstance(metric, Metric) else ""
    undefined = {
        "": F.lit(False),
        "zero": F.forall(x, lambda value: value == 0.0),
        "constant": F.array_min(x) == F.array_max(x),
    }[refuses]
    broken = ~F.coalesce(F.forall(x, finite), F.lit(False))
    size = F.size(x)
    found = points.agg(
        F.count("*"),
        *(F.min(size), F.max(size), F.count_if(broken), F.count_if(undefined)),
        *(F.min(F.array_min(x)), F.max(F.array_max(x))),
    ).first()
    assert found is not None
    count, shortest, dimensions, unusable, without, low, high = found
    if not count:
        raise InputError("there must be at least one point, but the input is empty")
    if unusable:
        raise InputError(
            f"features must be finite numbers, but in {count_of(unusable, 'row')} they are not: "
            f"{examples(points.where(broken), ['id'])}"
        )
    if not 1 <= shortest == dimensions:
        raise InputError(f"all vectors must have one length, at least 1, but they have {shortest} to {dimensions}")
    if without:
        raise InputError(
            f"with this metric no vector may be {refuses}, since it has no similarity to others, but "
            f"{count_of(without, 'vector')} {is_are(without)}: {examples(points.where(undefined), ['id'])}"
        )
    if isinstance(metric, Metric):
        check_range(metric, max(abs(low), abs(high)), dimensions)
    else:
        check_function(metric, np.array([row.features for row in points.orderBy("id").limit(3).collect()]))
    return points, count, dimensions


def check_range(metric: Metric, largest: float, dimensions: int) -> None:
    """Raise InputError unless 64-bit floats hold the similarities of vectors with elements of such a size."""
    if metric.refuses:  # only directions count
        return
    corner = np.full((dimensions, 1), ROOM * largest)
    with np.errstate(over="ignore"):
        if not np.isfinite(metric.closeness(corner, -corner)).all():
            raise InputError(
                f"features must be so small that similarities are finite 64-bit floats, but they reach {largest:g}: "
                "divide them all by a power of ten, or scale them"
            )
    if metric.space != "l1" and 0.0 < largest < SMALLEST:
        raise InputError(
            f"features must be so large that their squares are exact 64-bit floats, at least {SMALLEST:g}, but they "
            f"reach {largest:g} only: multiply them all by a power of ten, or scale them"
        )


def check_function(function: PairFunction, x: Floats) -> None:
    """Raise SettingError unless the function gives a number for every pair, and can be sent to tasks."""
    between(function, x, x[:2])
    try:
        cloudpickle.dumps(function)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise SettingError(
            f"a metric must be a function that can be sent to Spark's tasks, but {function!r} cannot: {reason(error)}"
        ) from error


def tiled(batches: Iterable[pa.RecordBatch], metric: Metric | PairFunction) -> Iterator[pa.RecordBatch]:
    """Points (id, features) in rows of up to TILE, vectors prepared by the metric: (ids array, vectors binary)."""
    for batch in batches:
        for start in range(0, len(batch), TILE):
            some = batch.slice(start, TILE)
            vectors = some["features"].flatten().to_numpy().reshape(len(some), -1)
            if isinstance(metric, Metric):
                vectors = metric.prepare(vectors)
            ids = pa.ListArray.from_arrays(pa.array([0, len(some)], pa.int32()), some["id"])
            yield pa.RecordBatch.from_arrays([ids, pa.array([vectors.tobytes()])], names=["ids", "vectors"])


def pairs_of_tiles(batches: Iterable[pa.RecordBatch], metric: Metric | PairFunction) -> Iterator[pa.RecordBatch]:
    """The similarities of the pairs of two tiles, the diagonal left out."""
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
