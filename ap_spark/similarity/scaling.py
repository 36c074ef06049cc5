"""Scaling: features shifted and stretched, so that their sizes can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from ap_spark.errors import InputError
from ap_spark.exact_sum import unit_of
from ap_spark.schema import require_columns
from ap_spark.settings import Scale, Similarity
from ap_spark.similarity.metrics import Floats
from ap_spark.similarity.vectors import check_form, matrix

__all__ = ["Scaling", "fit_scaling", "scale"]


@dataclass(frozen=True)
class Scaling:
    """What is subtracted from each feature, and by what it is then divided.

    Attributes
    ----------
    shift, width : array of float64, shape (d,)
    """

    shift: Floats
    width: Floats

    def of(self, x: Floats) -> Floats:
        """Return vectors of shape (n, d), scaled."""
        return np.asarray((x - self.shift) / self.width)

    def scale(self, points: DataFrame) -> DataFrame:
        """Return points (id, features array<double>, ...) with their features scaled."""

        def scaled(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                x = self.of(matrix(batch))
                features = pa.ListArray.from_arrays(np.arange(0, x.size + 1, x.shape[1], dtype=np.int32), x.ravel())
                yield batch.set_column(batch.schema.get_field_index("features"), "features", features)

        return points.mapInArrow(scaled, points.schema)

    def as_lists(self) -> dict[str, list[float]]:
        """Return what `from_lists` takes, for JSON."""
        return {"shift": self.shift.tolist(), "width": self.width.tolist()}

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[float]]) -> Scaling:
        """Return the scaling of which `as_lists` has given the numbers."""
        return cls(np.array(lists["shift"]), np.array(lists["width"]))


def scale(points: DataFrame, how: Scale = "standard") -> DataFrame:
    """Shift and stretch each feature, so that none counts more than others because of its unit.

    Parameters
    ----------
    points : DataFrame
        (id, features array<double>) and other columns, which stay; finite values, one length. It is read up to three
        times: persist it if that is expensive.
    how : {"standard", "minmax", "none"}
        "standard": mean 0 and standard deviation 1 (of the population, as scikit-learn's StandardScaler has it).
        "minmax": from 0 to 1. "none": unchanged. A feature that is the same for all points becomes 0.

    Returns
    -------
    DataFrame
        The same columns. The result is bitwise identical for every partitioning.

    Raises
    ------
    InputError
        If there are no columns id and features, or a feature's range is no finite 64-bit float.
    SettingError
        If ``how`` is none of the three.

    Examples
    --------
    >>> points = spark.createDataFrame([(0, [1.0, 5.0]), (1, [3.0, 5.0])], "id int, features array<double>")
    >>> [row.features for row in scale(points).orderBy("id").collect()]
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    scaling = fit_scaling(points, how)
    return points if scaling is None else scaling.scale(points)


def fit_scaling(points: DataFrame, how: Scale) -> Scaling | None:
    """Find out how features are to be shifted and stretched; None for "none". See `scale`."""
    how = Similarity(scale=how).scale
    require_columns(points, ("id", "features"), "points")
    if how == "none":
        return None
    check_form(points)
    low, high = _smallest_and_largest(points)
    with np.errstate(over="ignore"):
        shift, width = low, high - low
    if np.isinf(width).any():
        worst = int(width.argmax())
        raise InputError(
            f"a feature must lie in a range that 64-bit floats hold, but feature {worst} goes from {low[worst]:g} to "
            f"{high[worst]:g}: divide it by a power of ten"
        )
    width = np.where(width > 0, width, 1.0)
    if how == "standard":  # means are of x / width, whose squares neither overflow nor vanish
        shift = low + width * _mean(points, lambda x: (x - low) / width)
        width = width * np.sqrt(_mean(points, lambda x: np.square((x - shift) / width)))
    return Scaling(shift, np.where(width > 0, width, 1.0))


def _smallest_and_largest(points: DataFrame) -> tuple[Floats, Floats]:
    """Return the smallest and the largest value of each feature."""

    def ends(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            x = matrix(batch)
            yield pa.RecordBatch.from_pylist([{"low": x.min(axis=0), "high": x.max(axis=0)}])

    found = points.select("features").mapInArrow(ends, "low array<double>, high array<double>").toArrow()
    return matrix(found, "low").min(axis=0), matrix(found, "high").max(axis=0)


def _mean(points: DataFrame, function: Callable[[Floats], Floats]) -> Floats:
    """Return the mean of a function of each feature.

    Its values are at most 1 in size. They are added as integers, so that their order does not matter (`exact_sum.py`).
    """
    count = points.count()
    unit = unit_of(1.0, count)

    def sum_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sums = np.rint(function(matrix(batch)) / unit).astype(np.int64).sum(axis=0)
            yield pa.RecordBatch.from_pylist([{"sums": sums}])

    found = points.select("features").mapInArrow(sum_batches, "sums array<bigint>").toArrow()
    return np.asarray(matrix(found, "sums").sum(axis=0) * unit / count)
