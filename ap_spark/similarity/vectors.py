"""Points as vectors: the checks that features have to pass before they are compared (docs/semantics.md, section 7)."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark import cloudpickle
from pyspark.sql import Column, DataFrame
from pyspark.sql.types import ArrayType, NumericType

from ap_spark.errors import InputError, SettingError
from ap_spark.schema import id_type, is_finite, require_columns
from ap_spark.similarity.metrics import Floats, Metric, PairFunction, UndefinedFor, between
from ap_spark.wording import format_count, format_examples, format_reason, is_are

__all__ = ["are_undefined", "check_form", "check_range", "check_vectors", "matrix"]

_HEADROOM = 8.0  # features so many times larger still have finite similarities: searches add squares
_SMALLEST = 1e-145  # the largest feature in size, at least: then differences of 1e-9 of it have exact squares


def matrix(table: pa.Table | pa.RecordBatch, column: str = "features") -> Floats:
    """Return a column of vectors as an array of shape (n, d)."""
    return np.asarray(pc.list_flatten(table[column])).reshape(len(table), -1)


def check_form(points: DataFrame) -> None:
    """Raise InputError unless features (array<double>) are finite numbers, and all vectors have one length."""
    features = F.col("features")
    is_broken = ~F.coalesce(F.forall(features, is_finite), F.lit(False))
    size = F.size(features)
    found = points.agg(F.min(size), F.max(size), F.count_if(is_broken)).first()
    assert found is not None
    shortest, longest, broken = found
    if shortest is not None:
        _refuse_vectors(points, is_broken, broken, shortest, longest)


def _refuse_vectors(points: DataFrame, is_broken: Column, broken: int, shortest: int, longest: int) -> None:
    """Raise InputError if some vectors are broken, or the shortest and the longest differ, or all are empty."""
    if broken:
        raise InputError(
            f"features must be finite numbers, but in {format_count(broken, 'row')} they are not: "
            f"{format_examples(points.where(is_broken), ['id'])}"
        )
    if not 1 <= shortest == longest:
        lengths = points.groupBy(F.size("features").alias("length")).agg(F.min("id").alias("id")).orderBy("length")
        ends = lengths.where(F.col("length").isin(shortest, longest)).collect()
        found = " and ".join(f"{row.length} (id {row.id!r})" for row in ends)
        raise InputError(f"all vectors must have one length, at least 1, but they have lengths {found}")


def check_vectors(points: DataFrame, metric: Metric | PairFunction) -> tuple[DataFrame, int, int]:
    """Check the points; return them as (id, features array<double>), their number and the number of dimensions.

    Raises
    ------
    InputError
        If there are no points; if features are no arrays of finite numbers, all of one length; if a vector has no
        similarity under this metric, or none that 64-bit floats hold.
    SettingError
        If the metric is a function that fails.
    """
    require_columns(points, ("id", "features"), "points")
    kind = points.schema["features"].dataType
    if not (isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)):
        raise InputError(f"features must be arrays of numbers, got {kind.simpleString()} (`make_points` makes them)")
    ids = F.col("id").cast(id_type(points.schema["id"].dataType, "id"))
    points = points.select(ids.alias("id"), F.col("features").cast("array<double>").alias("features"))
    features = F.col("features")
    undefined_for = metric.undefined_for if isinstance(metric, Metric) else "none"
    is_undefined = _is_undefined(undefined_for, features)
    is_broken = ~F.coalesce(F.forall(features, is_finite), F.lit(False))
    size = F.size(features)
    found = points.agg(
        F.count("*"),
        *(F.min(size), F.max(size), F.count_if(is_broken), F.count_if(is_undefined)),
        *(F.min(F.array_min(features)), F.max(F.array_max(features))),
    ).first()
    assert found is not None
    count, shortest, dimensions, broken, undefined, low, high = found
    if not count:
        raise InputError("there must be at least one point, but the input is empty")
    _refuse_vectors(points, is_broken, broken, shortest, dimensions)
    if undefined:
        raise InputError(
            f"with this metric no vector may be {undefined_for}, since it has no similarity to others, but "
            f"{format_count(undefined, 'vector')} {is_are(undefined)}: "
            f"{format_examples(points.where(is_undefined), ['id'])}"
        )
    if isinstance(metric, Metric):
        check_range(metric, max(abs(low), abs(high)), dimensions)
    else:
        _check_function(metric, np.array([row.features for row in points.orderBy("id").limit(3).collect()]))
    return points, count, dimensions


def _is_undefined(undefined_for: UndefinedFor, features: Column) -> Column:
    """Return whether a vector has no similarity under a metric; see `Metric.undefined_for`."""
    match undefined_for:
        case "none":
            return F.lit(False)
        case "zero":
            return F.forall(features, lambda value: value == 0.0)
        case "constant":
            return F.array_min(features) == F.array_max(features)
        case _:
            assert_never(undefined_for)


def are_undefined(undefined_for: UndefinedFor, x: Floats) -> NDArray[np.bool_]:
    """Return which vectors of an array of shape (n, d) have no similarity under a metric; see `_is_undefined`."""
    match undefined_for:
        case "none":
            return np.zeros(len(x), bool)
        case "zero":
            return np.asarray(~x.any(axis=1))
        case "constant":
            return np.asarray(x.min(axis=1) == x.max(axis=1))
        case _:
            assert_never(undefined_for)


def check_range(metric: Metric, largest: float, dimensions: int) -> None:
    """Check that 64-bit floats hold the similarities of vectors whose elements have at most such a size.

    Raises
    ------
    InputError
        If the elements are too large, or all too small.
    """
    if metric.unit_vectors:
        return
    corner = np.full((dimensions, 1), _HEADROOM * largest)
    with np.errstate(over="ignore"):
        if not np.isfinite(metric.closeness(corner, -corner)).all():
            raise InputError(
                f"features must be so small that similarities are finite 64-bit floats, but they reach {largest:g}: "
                "divide them all by a power of ten, or scale them"
            )
    if metric.space != "l1" and 0.0 < largest < _SMALLEST:
        raise InputError(
            f"features must be so large that their squares are exact 64-bit floats, at least {_SMALLEST:g}, but they "
            f"reach {largest:g} only: multiply them all by a power of ten, or scale them"
        )


def _check_function(function: PairFunction, x: Floats) -> None:
    """Check that a function gives a number for every pair, and can be sent to tasks.

    Raises
    ------
    SettingError
        If it cannot be sent, fails, or returns anything else.
    """
    between(function, x, x[:2])
    try:
        cloudpickle.dumps(function)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise SettingError(
            f"a metric must be a function that can be sent to Spark's tasks, but {function!r} cannot: "
            f"{format_reason(error)}"
        ) from error
