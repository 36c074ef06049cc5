"""The tables of input and output: their columns, their types, and the checks of both (docs/semantics.md, section 7).

    points        id, features array<double>[, preference double]
    similarities  i, k, s double                 i, k are ids; (k, k) is the preference of k
    preferences   id, preference double

What is written is in `OUTPUTS`. An id is a bigint or a string, the same throughout a run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import NoReturn

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame
from pyspark.sql.types import (
    ByteType,
    DataType,
    IntegerType,
    LongType,
    NumericType,
    ShortType,
    StringType,
)

from ap_spark.errors import ApSparkError, InputError
from ap_spark.wording import call, called, format_count, format_examples, is_are

__all__ = [
    "OUTPUTS",
    "check_output",
    "check_unique",
    "edge_table",
    "id_type",
    "is_finite",
    "is_no_similarity",
    "preference_table",
    "refuse_ids",
    "refuse_similarities",
    "require_columns",
]

_ID = "id"  # stands for the type of the ids
_EXEMPLAR_ID = "exemplar"  # stands for that of the exemplars of another table than the points are of

# The tables that are published: the name and the type of each column, in order.
OUTPUTS: dict[str, dict[str, str]] = {
    "assignments": {"id": _ID, "exemplar": _ID, "label": "bigint", "similarity": "double"},
    "exemplars": {
        "label": "bigint",
        "exemplar": _ID,
        "size": "bigint",
        "preference": "double",
        "mean_similarity": "double",
    },
    "exemplar_features": {"label": "bigint", "exemplar": _ID, "features": "array<double>"},
    "trace": {
        "iteration": "int",
        "exemplars": "bigint",
        "changed": "bigint",
        "unsettled": "bigint",
        "seconds": "double",
    },
    "quality": {"step": "bigint", "kind": "string", "netsim": "double", "upper_bound": "double"},
    "levels": {"level": "int", "id": _ID, "exemplar": _ID},
    "tree": {"join": "bigint", "left": "bigint", "right": "bigint", "height": "double", "size": "bigint"},
    "similarities": {"i": _ID, "k": _ID, "s": "double"},
    "assigned": {"id": _ID, "exemplar": _EXEMPLAR_ID, "label": "bigint", "similarity": "double"},
}

_LEVEL = re.compile(r"level_\d+")  # columns that assignments have besides, of the type of the ids

_INTEGERS = (ByteType, ShortType, IntegerType, LongType)


def is_finite(value: Column) -> Column:
    """Return whether a double is neither null, NaN nor infinite."""
    infinity = F.lit(float("inf"))
    return value.isNotNull() & ~F.isnan(value) & (value < infinity) & (value > -infinity)


def id_type(kind: DataType, column: str) -> str:
    """Return the type under which ids are kept: bigint or string.

    Raises
    ------
    InputError
        If the column holds anything else.
    """
    if isinstance(kind, _INTEGERS):
        return "bigint"
    if isinstance(kind, StringType):
        return "string"
    raise InputError(
        f"ids must be integers or strings, but column {column!r} holds {kind.simpleString()}: cast it to one of these"
    )


def require_columns(table: DataFrame, names: Sequence[str], what: str) -> None:
    """Raise InputError unless a table is one of Spark's and has these columns, each once."""
    if not isinstance(table, DataFrame):
        raise InputError(
            f"{what} must be a Spark DataFrame, got {type(table).__name__} of {type(table).__module__}: "
            "spark.createDataFrame makes one"
        )
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(
            f"{what} must have the columns {', '.join(names)}, but {', '.join(missing)} "
            f"{is_are(len(missing))} missing; it has {', '.join(table.columns)}{_how_to_rename(table, names, missing)}"
        )
    alike = [name for name in table.columns if name.lower() in names]
    if len(alike) > len(names):  # Spark tells no capitals from small letters
        raise InputError(
            f"{what} must have the columns {', '.join(names)} once each, capitals aside, but there are "
            f"{', '.join(alike)}: rename or drop those in excess"
        )


def _how_to_rename(table: DataFrame, names: Sequence[str], missing: Sequence[str]) -> str:
    """Return the call that gives a table the missing columns: of its other ones, those of the right type in order."""
    others = [field for field in table.schema.fields if field.name not in names]
    renamed: dict[str, str] = {}
    for name in missing:
        if name in ("s", "preference"):
            fitting = [field.name for field in others if isinstance(field.dataType, NumericType)]
            fitting.sort(
                key=lambda other: dict(table.dtypes)[other] not in ("double", "float")
            )  # ids are whole numbers
        else:
            fitting = [field.name for field in others if isinstance(field.dataType, (*_INTEGERS, StringType))]
        chosen = next((other for other in fitting if other not in renamed), None)
        if chosen is None:
            return ""
        renamed[chosen] = name
    words = ", ".join(f'"{other}": "{name}"' for other, name in renamed.items())
    return f": rename them, such as .withColumnsRenamed({{{words}}})"


def check_output(name: str, table: DataFrame) -> None:
    """Check that a table has the columns of an output, in order, and that all ids of a kind have one type.

    Assignments may have the exemplars of levels besides.

    Raises
    ------
    ApSparkError
        If it has not: a fault of ours, and nothing is to be written.
    """
    found = {column: kind for column, kind in table.dtypes if name != "assignments" or not _LEVEL.fullmatch(column)}
    for ids, exemplar_ids in product(("bigint", "string"), repeat=2):
        types = {_ID: ids, _EXEMPLAR_ID: exemplar_ids}
        if list(found.items()) == [(column, types.get(kind, kind)) for column, kind in OUTPUTS[name].items()]:
            return
    raise ApSparkError(
        f"the table {name} must have the columns {OUTPUTS[name]} (id: bigint or string), but it has {found}: this is a "
        "fault of ap_spark's"
    )


def _number(table: DataFrame, column: str) -> Column:
    kind = table.schema[column].dataType
    if not isinstance(kind, NumericType):
        raise InputError(f"column {column!r} must hold numbers, but it holds {kind.simpleString()}")
    return F.col(column).cast("double")


def edge_table(similarities: DataFrame) -> DataFrame:
    """Return similarities as (i, k, s): ids as bigint or string, s as double; other columns are dropped.

    Raises
    ------
    InputError
        If a column is missing or has the wrong type.
    """
    require_columns(similarities, ("i", "k", "s"), "similarities")
    types = {name: id_type(similarities.schema[name].dataType, name) for name in "ik"}
    if types["i"] != types["k"]:
        raise InputError(f"ids must have one type, but column 'i' holds {types['i']} and column 'k' {types['k']}")
    columns = {name: F.col(name).cast(kind) for name, kind in types.items()}
    columns["s"] = _number(similarities, "s") + F.lit(0.0)  # -0.0 becomes 0.0
    return similarities.select(*(call(column, name, called(similarities, name)) for name, column in columns.items()))


def is_no_similarity(value: Column) -> Column:
    """Return whether a double is no similarity: null, NaN or +infinite. -infinity is one: the pair is not stored."""
    return value.isNull() | F.isnan(value) | (value == F.lit(float("inf")))


def refuse_similarities(count: int, bad: DataFrame) -> NoReturn:
    """Raise InputError for so many similarities that are none; ``bad`` has their (i, k, s)."""
    raise InputError(
        f"similarities must be numbers below infinity, but in column {called(bad, 's')!r} "
        f"{format_count(count, 'row')} {is_are(count)} null, NaN or +infinite: "
        f"{format_examples(bad, ['i', 'k'], ['i', 'k', 's'])}"
    )


def preference_table(preferences: DataFrame, ids: str) -> DataFrame:
    """Check preferences; return them as (id, preference), one finite number for each id.

    Raises
    ------
    InputError
        If a column is missing or has the wrong type, a value is not finite, or an id is null or given twice.
    """
    require_columns(preferences, ("id", "preference"), "the preferences")
    kind = id_type(preferences.schema["id"].dataType, "id")
    if kind != ids:
        raise InputError(f"ids must have one type, but the similarities hold {ids} and the preferences {kind}")
    table = preferences.select(F.col("id").cast(kind), _number(preferences, "preference").alias("preference"))
    _check_finite(table, "preference", ["id"])
    check_unique(table, "id", "the preferences")
    return table


def _check_finite(table: DataFrame, column: str, order: Sequence[str]) -> None:
    bad = table.where(~is_finite(F.col(column)))
    if count := bad.count():
        raise InputError(
            f"column {column!r} must hold finite numbers, but {format_count(count, 'row')} "
            f"{is_are(count)} null, NaN or infinite: {format_examples(bad, [*order, column])}"
        )


def check_unique(table: DataFrame, column: str, what: str) -> None:
    """Raise InputError if an id is null or occurs twice."""
    counts = table.groupBy(column).count()
    null, twice = F.col(column).isNull(), F.col(column).isNotNull() & (F.col("count") > 1)
    found = counts.agg(F.sum(F.when(null, F.col("count"))), F.count_if(twice)).first()
    assert found is not None
    refuse_ids(found[0] or 0, found[1], counts.where(twice), column, what)


def refuse_ids(null: int, twice: int, repeated: DataFrame, column: str, what: str) -> None:
    """Raise InputError if some ids are null, or given twice; ``repeated`` has (column, count) of these."""
    if null:
        raise InputError(f"ids must not be null, but in {what} {format_count(null, 'row')} {is_are(null)} without one")
    if twice:
        raise InputError(
            f"ids must be unique, but in {what} {format_count(twice, 'id')} {is_are(twice)} given more than once: "
            f"{format_examples(repeated, [column], [column, 'count'])}"
        )
