"""The checks of a table's cells, in one pass over all its rows.

Expressions are made as SQL text where they hold all features: a column object of its own for each would take longer to
make than 2,000 columns to read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NoReturn

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Row

from ap_spark.errors import InputError
from ap_spark.io.columns import is_number, is_text
from ap_spark.io.records import format_text
from ap_spark.io.tables import BROKEN, ROW, Table, cell, with_row_numbers
from ap_spark.schema import id_type
from ap_spark.wording import format_count, has_have

__all__ = [
    "MISSING",
    "NO_NUMBER",
    "WRONG",
    "any_of",
    "check_lengths",
    "id_types",
    "refuse_cells",
    "refuse_lines",
    "scan",
    "text_columns",
]

logger = logging.getLogger(__name__)

_LARGEST_FEATURE = 1e150  # its square has to be finite
_WHOLE_NUMBER = r"\A[ \t]*(0|-?[1-9][0-9]{0,17})[ \t]*\z"
_JAVA_NUMBER = "[xX]|[0-9.][dDfF]"  # of what Java takes for a number: 0x1p3, 1d and 1f
_SAMPLE_ROWS = 100  # rows that show whether a column is text, or numbers with a wrong cell


def _number(text: str) -> str:
    """Return SQL: the double that a text stands for, or null."""
    return f"CASE WHEN {text} RLIKE '{_JAVA_NUMBER}' THEN NULL ELSE try_cast({text} AS double) END"


# SQL tests of x: a text, a double, an array of doubles; never null.
_UNUSABLE = f"coalesce(abs({{}}) > {_LARGEST_FEATURE}D, true)"  # NaN is larger than all numbers
_IS_EMPTY = "x IS NULL OR trim(BOTH ' \t' FROM x) = ''"
WRONG = {
    "text": _UNUSABLE.format(_number("x")),
    "number": _UNUSABLE.format("x"),
    "vector": f"x IS NULL OR exists(x, y -> {_UNUSABLE.format('y')})",
}
NO_NUMBER = {"text": f"x IS NOT NULL AND {_number('x')} IS NULL"}
MISSING = {
    "text": f"{_IS_EMPTY} OR coalesce(isnan({_number('x')}), false)",
    "number": "x IS NULL OR isnan(x)",
    "vector": "x IS NULL OR exists(x, y -> y IS NULL OR isnan(y))",
}


def any_of(table: Table, columns: Sequence[int], tests: dict[str, str]) -> str:
    """Return SQL: whether a test holds for any column of a row; ``tests`` has one for each kind of column."""
    found = []
    for kind, condition in tests.items():
        if values := [_value(table, column) for column in columns if _kind_of(table, column) == kind]:
            found.append(f"exists(array({', '.join(values)}), x -> {condition})")
    return " OR ".join(found) or "false"


def _kind_of(table: Table, column: int) -> str:
    """Return which of the tests is a column's."""
    return "vector" if not is_number(table, column) else "text" if is_text(table, column) else "number"


def _value(table: Table, column: int) -> str:
    """Return SQL: what the tests of a column look at."""
    return f"CAST({cell(column)} AS double)" if _kind_of(table, column) == "number" else cell(column)


def scan(
    table: Table, ids: Sequence[int], numbers: Sequence[int], wrong: dict[str, str], incomplete: str = "false"
) -> tuple[Table, Row]:
    """Count what is wrong with a table, in one pass; again if the table turns out to be read in another way.

    Parameters
    ----------
    table : Table
    ids, numbers : sequence of int
        Columns.
    wrong : dict
        By kind of column, the test of a cell that is no number.
    incomplete : str
        SQL: whether a row is left out.

    Returns
    -------
    Table
        As it is rightly read.
    Row
        Counts for `refuse_lines`, `refuse_cells` and `id_types`.

    Raises
    ------
    InputError
        If an id column holds neither integers nor strings.
    """
    for column in ids:
        id_type(table.kinds[column], table.names[column])  # before anything is read
    while True:
        is_wrong = f"NOT ({incomplete}) AND ({any_of(table, numbers, wrong)})"
        found = table.rows.agg(*_counts(table, ids, is_wrong, incomplete)).collect()[0]
        resolved = table.resolve(found)
        if resolved is table:
            return table, found
        table = resolved


def _counts(table: Table, ids: Sequence[int], wrong: str, incomplete: str) -> list[Column]:
    """Return the aggregates of `scan`."""

    def count(condition: Column | str) -> Column:
        return F.count_if(table.is_data & (F.expr(condition) if isinstance(condition, str) else condition))

    broken = F.when(table.is_data, F.col(BROKEN)) if table.is_text else F.lit(None).cast("string")
    found = [count("true").alias("rows"), count(incomplete).alias("incomplete"), count(wrong).alias("wrong")]
    found += [F.count(broken).alias("broken"), F.min(broken).alias("example")]
    for n, column in enumerate(ids):
        text = F.col(cell(column)).cast("string")
        is_other = ~text.rlike(_WHOLE_NUMBER)
        found += [count(is_other).alias(f"text {n}"), count(is_other & (text != F.trim(text))).alias(f"padded {n}")]
    return found + table.watched()


def refuse_lines(table: Table, found: Row) -> None:
    """Raise InputError if there are no rows, or lines have too few or too many cells; ``found`` is of `scan`."""
    if not found["rows"]:
        raise InputError(f"there must be at least one row, but {table.source} is empty")
    if found["broken"]:
        raise InputError(
            f"every line must have {format_count(len(table.names), 'field')}, but in {table.source} "
            f"{format_count(found['broken'], 'line')} {has_have(found['broken'])} more or fewer, "
            f"such as {format_text(found['example'])}: check the separator and the quotes"
        )


def refuse_cells(
    table: Table,
    found: Row,
    ids: Sequence[int],
    numbers: Sequence[int],
    wrong: dict[str, str],
    *,
    problem: str,
    incomplete: str = "false",
    hint: str = "",
) -> None:
    """Raise InputError if some cells are no numbers, or all rows miss one; warn if some rows do.

    Parameters
    ----------
    table, found
        What `scan` returned.
    ids, numbers, wrong, incomplete
        What it was given.
    problem : str
        What is wrong with such a cell.
    hint : str
        What else to do about it.
    """
    if found["incomplete"] == found["rows"]:
        raise InputError(
            f"there must be at least one complete row, but all {found['rows']:,} of {table.source} miss a feature"
        )
    if found["incomplete"]:
        logger.warning(
            "%s of %s without all features left out", format_count(found["incomplete"], "row"), f"{found['rows']:,}"
        )
    if found["wrong"]:
        rows, keys = (table.frame, list(map(cell, ids))) if ids else (with_row_numbers(table.frame), [ROW])
        labels = ["id"] if len(ids) < 2 else [table.names[column] for column in ids]
        rows = rows.where(f"NOT ({incomplete})")
        _refuse_numbers(table, rows, dict(zip(keys, labels, strict=True)), numbers, wrong, problem, hint)


def _refuse_numbers(
    table: Table,
    rows: DataFrame,
    keys: dict[str, str],
    numbers: Sequence[int],
    wrong: dict[str, str],
    problem: str,
    hint: str,
) -> NoReturn:
    """Raise InputError for the first column with cells that are no numbers; ``keys`` names what tells rows."""
    tests = [any_of(table, [column], wrong) for column in numbers]
    flags = rows.select(F.posexplode(F.expr(f"array({', '.join(tests)})")).alias("place", "is_wrong"))
    first = flags.where("is_wrong").groupBy("place").count().orderBy("place").limit(1).collect()[0]
    column = numbers[first["place"]]
    example_cells = rows.where(tests[first["place"]]).select(*keys, cell(column)).orderBy(*keys, cell(column)).limit(3)
    labels = [*keys.values(), table.names[column]]
    examples = "; ".join(", ".join(map("{}={!r}".format, labels, row)) for row in example_cells.collect())
    raise InputError(
        f"column {table.names[column]!r} must hold finite numbers, but in {format_count(first['count'], 'row')} "
        f"it {problem}: {examples}{hint}"
    )


def text_columns(table: Table, columns: Sequence[int]) -> list[int]:
    """Return the columns whose cells are text, by the first rows: some are filled, and none of these is a number."""
    texts = [column for column in columns if is_text(table, column)]
    if not texts:
        return []
    is_number_or_null = f"CASE WHEN {_IS_EMPTY} THEN NULL ELSE {_number('x')} IS NOT NULL END"
    cells = f"transform(array({', '.join(map(cell, texts))}), x -> {is_number_or_null}) AS cells"
    first = [row["cells"] for row in table.frame.selectExpr(cells).limit(_SAMPLE_ROWS).collect()]
    return [
        column for column, found in zip(texts, zip(*first, strict=True), strict=True) if set(found) - {None} == {False}
    ]


def id_types(table: Table, found: Row, ids: Sequence[int]) -> list[str]:
    """Return the types of id columns, bigint or string; warn of ids with blanks around.

    Texts of a csv or tsv file that are all whole numbers, written without leading zeros, count as integers. ``found``
    is of `scan`.
    """
    kinds = []
    for n, column in enumerate(ids):
        kind = id_type(table.kinds[column], table.names[column])
        if table.is_text and not found[f"text {n}"]:
            kind = "bigint"
        elif found[f"padded {n}"]:
            logger.warning(
                "%s of column %r begin or end with blanks, which are part of them",
                format_count(found[f"padded {n}"], "id"),
                table.names[column],
            )
        kinds.append(kind)
    return kinds


def check_lengths(rows: DataFrame, vectors: str, key: str, name: str) -> None:
    """Raise InputError if the vectors of a column differ in length."""
    lengths = rows.groupBy(F.size(vectors).alias("length")).agg(F.min(key).alias("id"))
    found = lengths.orderBy("length").limit(2).collect()
    if len(found) > 1:
        two = " and ".join(f"{row.length} (id {row.id!r})" for row in found)
        raise InputError(f"all vectors must have one length, but those in column {name!r} have lengths {two}")
