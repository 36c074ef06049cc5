"""The tables: their columns, and the checks that input has to pass (docs/semantics.md, section 7).

    points        id, features array<double>[, preference double]
    similarities  i, k, s double                 i, k are ids; (k, k) is the preference of k
    preferences   id, preference double

What is written is in `OUTPUTS`. An id is a bigint or a string, the same throughout a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
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

__all__ = [
    "OUTPUTS",
    "call",
    "called",
    "check_output",
    "check_unique",
    "count_of",
    "did_you_mean",
    "edge_table",
    "examples",
    "finite",
    "has_have",
    "id_type",
    "is_are",
    "no_similarity",
    "preference_table",
    "refuse_ids",
    "refuse_similarities",
    "require_columns",
]

_ID = "id"  # stands for the type of the ids
_CALLED = "called"  # in the metadata of a column
_CLOSE = 0.75  # the likeness of a slip and what was meant; "iterations" is to "partitions" 0.7

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
    "trace": {"iteration": "int", "exemplars": "bigint", "changed": "bigint", "seconds": "double"},
    "similarities": {"i": _ID, "k": _ID, "s": "double"},
}

_INTEGERS = (ByteType, ShortType, IntegerType, LongType)


def finite(value: Column) -> Column:
    """Return whether a double is neither null, NaN nor infinite."""
    infinity = F.lit(float("inf"))
    return value.isNotNull() & ~F.isnan(value) & (value < infinity) & (value > -infinity)


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count_of(1, "row"), count_of(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_are(number: int) -> str:
    return "is" if number == 1 else "are"


def has_have(number: int) -> str:
    return "has" if number == 1 else "have"


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Return the question after the name that is closest to a wrong one; nothing if none is close.

    >>> did_you_mean("Customer_ID", ["customer_id", "x", "y"])
    " (did you mean 'customer_id'?)"
    >>> did_you_mean("z", ["customer_id", "x", "y"])
    ''
    """
    spellings = {name.strip().lower(): name for name in names}
    close = get_close_matches(wanted.strip().lower(), spellings, n=1, cutoff=_CLOSE)
    return f" (did you mean {spellings[close[0]]!r}?)" if close else ""


def examples(rows: DataFrame, order: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Format up to three rows, the first in the given order."""
    names = [called(rows, name) for name in shown or order]
    first = rows.orderBy(*order).select(*(shown or order)).limit(3).collect()
    return "; ".join(", ".join(map("{}={!r}".format, names, row)) for row in first)


def call(column: Column, name: str, theirs: str) -> Column:
    """Name a column, and keep what the user calls it."""
    return column.alias(name) if name == theirs else column.alias(name, metadata={_CALLED: theirs})


def called(table: DataFrame, name: str) -> str:
    """Return what the user calls a column, for messages: its name, unless `call` has kept another one."""
    return str(table.schema[name].metadata.get(_CALLED, name))


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
    """Check that a table has the columns of an output, in order, and that all its ids have one type.

    Raises
    ------
    ApSparkError
        If it has not: a fault of ours, and nothing is to be written.
    """
    found = dict(table.dtypes)
    for ids in ("bigint", "string"):
        if list(found.items()) == [(column, ids if kind == _ID else kind) for column, kind in OUTPUTS[name].items()]:
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


def no_similarity(value: Column) -> Column:
    """Return whether a double is no similarity: null, NaN or +infinite. -infinity is one: the pair is not stored."""
    return value.isNull() | F.isnan(value) | (value == F.lit(float("inf")))


def refuse_similarities(count: int, bad: DataFrame) -> NoReturn:
    """Raise InputError for so many similarities that are none; ``bad`` has their (i, k, s)."""
    raise InputError(
        f"similarities must be numbers below infinity, but in column {called(bad, 's')!r} {count_of(count, 'row')} "
        f"{is_are(count)} null, NaN or +infinite: {examples(bad, ['i', 'k'], ['i', 'k', 's'])}"
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
    bad = table.where(~finite(F.col(column)))
    if count := bad.count():
        raise InputError(
            f"column {column!r} must hold finite numbers, but {count_of(count, 'row')} "
            f"{is_are(count)} null, NaN or infinite: {examples(bad, [*order, column])}"
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
        raise InputError(f"ids must not be null, but in {what} {count_of(null, 'row')} {is_are(null)} without one")
    if twice:
        raise InputError(
            f"ids must be unique, but in {what} {count_of(twice, 'id')} {is_are(twice)} given more than once: "
            f"{examples(repeated, [column], [column, 'count'])}"
        )
