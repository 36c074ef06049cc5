"""Tables that Python programs hold, of Spark, pandas or NumPy, as tables of Spark."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, NumericType

from ap_spark._spark.session import current_session
from ap_spark.errors import InputError
from ap_spark.io.readers import make_points
from ap_spark.schema import require_columns

__all__ = ["as_points", "to_spark"]


def to_spark(table: Any, name: str) -> DataFrame:
    """Return a table as one of Spark; a session is started where there is none.

    Parameters
    ----------
    table : DataFrame of Spark or pandas, or array of shape (n_points, n_features)
        The index of a pandas DataFrame, and the row numbers of an array, become the column ``id`` where points have
        none.
    name : str
        What it is to the caller, for errors: "points", "similarities", ...

    Raises
    ------
    InputError
        If it is none of these, or an array that does not hold points.
    """
    pandas = sys.modules.get("pandas")  # who has a table of pandas has imported it
    if isinstance(table, np.ndarray):
        return current_session().createDataFrame(_points_of_array(table, name))
    if pandas and isinstance(table, pandas.DataFrame):
        frame = table.rename(columns=str)
        if name == "points" and "id" not in frame.columns:
            frame = frame.assign(id=frame.index)
        try:
            rows = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"{name} must have columns of one type each, but {error}") from error
        return current_session().createDataFrame(rows)
    require_columns(table, (), name)
    found: DataFrame = table
    return found


def _points_of_array(x: np.ndarray[Any, Any], name: str) -> pa.Table:
    """Return the rows of an array as (id, features)."""
    if name != "points":
        raise InputError(
            f"{name} must be a DataFrame of Spark or pandas, got an array of shape {x.shape}: `cluster_points` takes "
            "points as an array; similarities are a table with columns i, k, s"
        )
    if x.ndim != 2 or not (np.issubdtype(x.dtype, np.integer) or np.issubdtype(x.dtype, np.floating)):
        raise InputError(
            f"points must be an array of numbers of shape (n_points, n_features), got {x.dtype} of shape {x.shape}"
        )
    starts = pa.array(np.arange(0, x.size + 1, x.shape[1] or 1)[: len(x) + 1], pa.int32())
    features = pa.ListArray.from_arrays(starts, pa.array(np.ascontiguousarray(x, np.float64).ravel()))
    return pa.table({"id": pa.array(np.arange(len(x))), "features": features})


def as_points(table: DataFrame) -> DataFrame:
    """Return points as (id, features array<double>[, preference]); those that have this form stay as they are.

    See `make_points` for what is chosen, and for the errors.
    """
    kinds = {column.name: column.dataType for column in table.schema}
    if kinds.keys() <= {"id", "features", "preference"} and "features" in kinds:
        features = kinds["features"]
        if isinstance(features, ArrayType) and isinstance(features.elementType, NumericType):
            return table
    return make_points(table, preference_column="preference" if "preference" in kinds else None)
