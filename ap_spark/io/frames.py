"""Tables of Spark from what Python programs have: DataFrames of Spark or pandas, and arrays of NumPy."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.errors import PySparkTypeError
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, NumericType

from ap_spark._spark.session import current_session
from ap_spark.errors import InputError
from ap_spark.io.readers import make_points
from ap_spark.schema import id_type, require_columns
from ap_spark.wording import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["arrow_table", "as_points", "in_order_of", "in_pandas", "is_local", "to_spark"]

_KINDS = "must have columns of numbers, strings or arrays of numbers"


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
    if is_local(table):
        rows = arrow_table(table, name)  # before a session is started, which a mistake does not need
        try:
            return current_session().createDataFrame(rows)
        except (PySparkTypeError, ValueError) as error:
            raise InputError(f"{name} {_KINDS}, but {error}") from error
    if not isinstance(table, DataFrame) and hasattr(table, "tocoo"):  # of a DataFrame on Connect it would be a column
        raise InputError(_sparse(table, name))
    if not isinstance(table, DataFrame):
        array = ", or an array of shape (n_points, n_features)" if name == "points" else ""
        raise InputError(
            f"{name} must be a DataFrame of Spark or pandas{array}, got {type(table).__name__} of "
            f"{type(table).__module__}"
        )
    require_columns(table, (), name)
    found: DataFrame = table
    return found


def _sparse(matrix: Any, name: str) -> str:
    """Return what to do with a sparse matrix of SciPy."""
    if name == "points":
        return f"points must be an array that stores all features, got {type(matrix).__name__}: `.toarray()` makes one"
    return (
        f"{name} must be a table with columns i, k, s, got {type(matrix).__name__} of shape {matrix.shape}: "
        'S = S.tocoo(); table = pd.DataFrame({"i": S.row, "k": S.col, "s": S.data}), where rows (k, k) are preferences'
    )


def is_local(*tables: object) -> bool:
    """Return whether all tables that there are, not None, are of pandas or arrays of NumPy."""
    pandas = sys.modules.get("pandas")  # who has a table of pandas has imported it
    kinds = (np.ndarray, pandas.DataFrame) if pandas else (np.ndarray,)
    return all(table is None or isinstance(table, kinds) for table in tables)


def in_order_of(points: Any, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table (id, ...) of pandas with its rows in the order of points, of pandas or an array.

    A table without rows is returned as it is.
    """
    if table.empty:
        return table
    ids = np.arange(len(points))
    if not isinstance(points, np.ndarray):
        ids = points["id"] if "id" in points.columns else points.index
    return table.set_index("id").loc[list(ids)].reset_index()


def arrow_table(table: Any, name: str) -> pa.Table:
    """Return a table of pandas, or points as an array, with types that Spark has; see `to_spark`.

    Points have their features in one column where they are all numbers.
    """
    if isinstance(table, np.ndarray):
        return _points_of_array(table, name)
    if table.columns.nlevels > 1:
        raise InputError(
            f"{name} must have a single row of column names, got {table.columns.nlevels}: "
            '`table.columns = ["_".join(map(str, names)) for names in table.columns]` makes one'
        )
    return _of_pandas(table.rename(columns=str), name)


def _of_pandas(frame: Any, name: str) -> pa.Table:
    """Return a table of pandas as one of Arrow, with its index as ids where points have none."""
    if twice := sorted(frame.columns[frame.columns.duplicated()]):
        raise InputError(f"{name} must have each column once, but there are several called {twice[0]!r}: rename them")
    if name == "points" and "id" not in frame.columns:
        if like := next((column for column in frame.columns if column.strip().lower() == "id"), None):
            raise InputError(
                f"points have their ids in a column 'id' or in the index, but there is a column {like!r}"
                f"{did_you_mean(like, ['id'])}: rename it, or call `.set_index({like!r})`"
            )
        if twice := frame.index[frame.index.duplicated()].tolist():
            raise InputError(
                f"the index of points holds their ids, which must be given once, but {twice[0]!r} is given several "
                "times: `.reset_index(drop=True)` numbers the rows"
            )
        _refuse_text(frame)
        frame = frame.assign(id=frame.index)
    try:
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        if name == "points":
            rows = _with_features(rows)
        return rows.cast(pa.schema(map(_known_to_spark, rows.schema)))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} {_KINDS}, but {error}") from error


def _refuse_text(frame: Any) -> None:
    """Raise InputError if rows would be numbered though there are columns of text, one of which may be the id."""
    first = frame.head(100)
    texts = [
        name
        for name, kind in frame.dtypes.items()
        if kind.kind == "O" and any(isinstance(value, str) for value in first[name])  # categories too
    ]
    if texts and type(frame.index).__name__ == "RangeIndex":
        raise InputError(
            f"column {texts[0]!r} holds text: if it is the id, `.set_index({texts[0]!r})` makes it that; if it is no "
            f"feature, `.drop(columns={texts!r})` leaves it out"
        )


def _with_features(rows: pa.Table) -> pa.Table:
    """Return points with their number columns as one column ``features``: hundreds of columns are slow in Spark."""
    kinds = {field.name: field.type for field in rows.schema if field.name not in ("id", "preference")}
    if not kinds or not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds.values()):
        return rows
    columns = [rows[name].to_numpy().astype(np.float64) for name in kinds]  # null is not a number there
    features = _vectors(np.stack(columns, axis=1))
    return rows.select([name for name in rows.column_names if name not in kinds]).append_column("features", features)


def _vectors(x: np.ndarray[Any, Any]) -> pa.Array:
    """Return the rows of an array of shape (n, d) as a column of arrays."""
    starts = pa.array(np.arange(0, x.size + 1, x.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(starts, pa.array(np.ascontiguousarray(x, np.float64).ravel()))


def _known_to_spark(field: pa.Field) -> pa.Field:
    """Return a column of pandas with a type that Spark has too: it knows no unsigned and no half numbers."""

    def is_text(kind: pa.DataType) -> bool:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def known(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_unsigned_integer(kind):
            return pa.int64()
        if pa.types.is_float16(kind):
            return pa.float64()
        if pa.types.is_large_string(kind) or (pa.types.is_dictionary(kind) and is_text(kind.value_type)):
            return pa.string()
        return pa.list_(known(kind.value_type)) if pa.types.is_list(kind) else kind

    return field.with_type(known(field.type))


def _points_of_array(x: np.ndarray[Any, Any], name: str) -> pa.Table:
    """Return the rows of an array as (id, features)."""
    if name != "points":
        raise InputError(
            f"{name} must be a DataFrame of Spark or pandas, got an array of shape {x.shape}: "
            + (
                "i, k = np.nonzero(~np.eye(len(S), dtype=bool)); "
                'table = pd.DataFrame({"i": i, "k": k, "s": S[i, k]}) makes one of a matrix S of similarities'
                if x.ndim == 2 and x.shape[0] == x.shape[1]
                else "`cluster_points` takes points as an array; similarities are a table with columns i, k, s"
            )
        )
    if isinstance(x, np.ma.MaskedArray):
        raise InputError("points must be an array without a mask: fill what is missing, or leave those points out")
    if x.ndim != 2 or x.shape[1] < 1 or x.dtype.kind not in "iuf":
        raise InputError(
            f"points must be an array of numbers of shape (n_points, n_features), got {x.dtype} of shape {x.shape}"
        )
    return pa.table({"id": pa.array(np.arange(len(x))), "features": _vectors(x)})


def in_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table of numbers and strings as one of pandas: what `to_pandas` gives, in a third of the time."""
    import pandas as pd  # slow to import, and only needed here

    return pd.DataFrame({name: table[name].to_numpy() for name in table.column_names})


def as_points(table: DataFrame) -> DataFrame:
    """Return points as (id, features array<double>[, preference]).

    See `make_points` for what is chosen, and for the errors. A table (id, features array[, preference]) is taken as it
    is but for its types: ids are checked when they are numbered, vectors before they are compared.
    """
    kinds = {column.name: column.dataType for column in table.schema}
    if kinds.keys() <= {"id", "features", "preference"} and "features" in kinds:
        features = kinds["features"]
        if isinstance(features, ArrayType) and isinstance(features.elementType, NumericType):
            require_columns(table, ("id",), "points")
            types = {"id": id_type(kinds["id"], "id"), "features": "array<double>", "preference": "double"}
            return table.select(*(F.col(name).cast(types[name]).alias(name) for name in types if name in kinds))
    return make_points(table, preference_column="preference" if "preference" in kinds else None)
