"""Read points and similarities: files, or DataFrames, into the tables that the algorithm takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import ArrayType, BinaryType

from ap_spark.errors import InputError, SettingError
from ap_spark.io.cells import (
    MISSING,
    NO_NUMBER,
    WRONG,
    any_of,
    check_lengths,
    id_types,
    refuse_cells,
    refuse_lines,
    scan,
    text_columns,
)
from ap_spark.io.columns import (
    Chosen,
    Columns,
    check_header,
    choose_columns,
    format_names,
    format_option,
    is_number,
    leave_out_texts,
    one_column,
    warn_of_lookalikes,
)
from ap_spark.io.formats import check_format, read_table
from ap_spark.io.tables import ROW, Table, cell, reading, table_of, with_row_numbers
from ap_spark.schema import check_unique, require_columns
from ap_spark.settings import Input, check_values
from ap_spark.wording import call, did_you_mean

__all__ = [
    "CELLS",
    "IMAGE",
    "MOST_CELLS",
    "make_points",
    "read_points",
    "read_points_by_id",
    "read_points_of_command",
    "read_similarities",
]

CELLS, IMAGE = "cells", "image"
MOST_CELLS = 8


def read_similarities(
    spark: SparkSession,
    path: str | Sequence[str],
    *,
    format: str = "auto",
    header: bool | None = None,
    encoding: str = "utf-8",
) -> DataFrame:
    """Read similarities as (i, k, s).

    The columns are found by the names i, k and s. A table of exactly three columns may have other names, or none: they
    are taken in this order.

    Parameters
    ----------
    spark : SparkSession
    path : str or sequence of str
        Files, directories and patterns, anywhere Spark can read.
    format : {"auto", "csv", "tsv", "parquet", "json", "orc"}
        "auto" goes by the names of the files: .csv, .tsv, .tab, .txt, .parquet, .json, .jsonl, .ndjson, .orc, also
        compressed (.gz, ...). A .txt file is tsv if its first line has a tab, else csv.
    header : bool, optional
        Whether the first line of a csv or tsv file names the columns. By default it does. But where columns of numbers
        would then be called by numbers, it is refused, since it looks like data; unless these count up from 0 or 1, as
        pandas writes them.
    encoding : str
        Of csv and tsv files; any name that Python knows.

    Returns
    -------
    DataFrame
        (i, k, s double); i and k are both bigint or both string.

    Raises
    ------
    InputError
        If a file cannot be read, has other columns, or holds an s that is no number.
    SettingError
        If an argument is of the wrong type, or none that is known.
    """
    table, kind = read_table(spark, path, format=format, header=header, encoding=encoding)
    names = table.names
    if {"i", "k", "s"} <= set(names):
        i, k, s = (one_column(names, name) for name in "iks")
    else:
        in_order = kind != "json"  # Spark sorts the fields of json
        if len(names) != 3 or not in_order:
            close = "".join(did_you_mean(name, set(names) - set("iks")) for name in "iks" if name not in names)
            raise InputError(
                f"similarities must have the columns i, k, s{', or exactly three columns' if in_order else ''}; "
                f"{table.source} has {format_names(names)}{close}: rename three of them"
                + (", or write a file of three columns, in this order" if in_order else "")
                + '; in Python spark.read... .withColumnsRenamed({"...": "i", ...})'
            )
        i, k, s = range(3)
        check_header(table, range(3))
        if names == ["0", "1", "2"]:  # the file has no names
            table = replace(table, names=list("iks"))
    if not is_number(table, s):
        raise InputError(f"column {table.names[s]!r} must hold numbers, but it holds {table.kinds[s].simpleString()}")
    with reading(table.source):
        ids = [i, k]
        table, found = scan(table, ids, [s], NO_NUMBER)
        refuse_lines(table, found)
        refuse_cells(table, found, ids, [s], NO_NUMBER, problem="is not a number")
    kinds = id_types(table, found, ids)
    kind = kinds[0] if len(set(kinds)) == 1 else "string"
    chosen = (("i", i, kind), ("k", k, kind), ("s", s, "double"))
    return table.frame.select(*(call(F.col(cell(at)).cast(type_), name, table.names[at]) for name, at, type_ in chosen))


def read_points(
    spark: SparkSession,
    path: str | Sequence[str],
    *,
    format: str = "auto",
    header: bool | None = None,
    encoding: str = "utf-8",
    id_column: str | None = None,
    feature_columns: str | Sequence[str] | None = None,
    preference_column: str | None = None,
    drop_missing: bool = False,
) -> DataFrame:
    """Read points as (id, features), and (preference) if its column is named.

    Parameters
    ----------
    spark, path, format, header, encoding
        See `read_similarities`.
    id_column : str, optional
        A column, by name or position from 0. By default the column called id. Without one, or with "", the id is the
        number of the row, from 0, files in the order of their names.
    feature_columns : str or list of str, optional
        Names, positions or ranges of positions, separated by commas, such as "x,y" or "0-3,7"; or one array or vector
        column; "" for none. By default the only array or vector column or, where there is none, all columns but the id
        and the preference; of these, columns of text are left out if an id is known.
    preference_column : str, optional
        A column, by name or position.
    drop_missing : bool
        Leave out points with a feature that is null or NaN, instead of raising InputError.

    Returns
    -------
    DataFrame
        See `make_points`.

    Raises
    ------
    InputError
        For every case of `make_points`, and if a file cannot be read.
    SettingError
        If an argument is of the wrong type, or none that is known.
    """
    check_values(Input, id_column=id_column, preference_column=preference_column, drop_missing=drop_missing)
    table, _ = read_table(spark, path, format=format, header=header, encoding=encoding)
    with reading(table.source):
        return _points_of(table, id_column, feature_columns, preference_column, drop_missing)[0]


def read_points_of_command(
    spark: SparkSession,
    path: str | Sequence[str],
    *,
    format: str,
    header: bool | None,
    encoding: str,
    id_column: str | None,
    feature_columns: str | Sequence[str] | None,
    preference_column: str | None,
    drop_missing: bool,
    with_rows: bool = False,
    with_cells: bool = False,
) -> tuple[DataFrame, Chosen]:
    """Read points as `read_points` does; return them, and how their table was understood.

    ``with_rows`` adds the column ROW: the number of the row, from 0. ``with_cells`` adds the column CELLS: some cells
    of the row as text, whose names are in the metadata of the column; and IMAGE, the first cell of bytes, if any.
    """
    table, _ = read_table(spark, path, format=format, header=header, encoding=encoding)
    chosen = (id_column, feature_columns, preference_column, drop_missing)
    with reading(table.source):
        return _points_of(table, *chosen, with_rows=with_rows, with_cells=with_cells)


def read_points_by_id(
    spark: SparkSession,
    path: str | Sequence[str],
    *,
    header: bool | None,
    encoding: str,
    id_column: str | None,
    preference_column: str | None,
) -> DataFrame:
    """Read a table of points without features, beside similarities: as (id), and (preference) if its column is named.

    The id column is the one called id or, if there is none, the first one. Header and encoding are those of the
    similarities: they count where this table is text too.
    """
    try:
        check_format(path, "auto", encoding)
    except SettingError:
        encoding = "utf-8"
    table, _ = read_table(spark, path, header=header, encoding=encoding)
    with reading(table.source):
        column = id_column or ("id" if "id" in table.names else "0")
        return _points_of(table, column, "", preference_column, drop_missing=False)[0]


def make_points(
    table: DataFrame,
    *,
    id_column: str = "id",
    feature_columns: str | Sequence[str] | None = None,
    preference_column: str | None = None,
    drop_missing: bool = False,
) -> DataFrame:
    """Choose and check the columns of a table of points.

    Parameters
    ----------
    table : DataFrame
        One row a point.
    id_column : str
        A column of integers or strings, by name or position from 0.
    feature_columns, preference_column, drop_missing
        See `read_points`.

    Returns
    -------
    DataFrame
        (id, features array<double>[, preference double]); no features column if none were asked for. The id is bigint
        or string.

    Raises
    ------
    InputError
        If a column does not exist or holds the wrong type; an id is null or given twice; a feature is null, NaN or
        infinite; vectors differ in length.
    SettingError
        If an argument that names columns is no string.

    Examples
    --------
    >>> table = spark.createDataFrame([("a", 1.0, 2), ("b", 3.0, 4)], "name string, x double, y int")
    >>> make_points(table, id_column="name").collect()
    [Row(id='a', features=[1.0, 2.0]), Row(id='b', features=[3.0, 4.0])]
    """
    require_columns(table, (), "the table")
    if id_column is None or id_column == "":
        raise SettingError(f"id_column must name a column, got {id_column!r}: the rows of a DataFrame have no numbers")
    check_values(Input, id_column=id_column, preference_column=preference_column, drop_missing=drop_missing)
    if id_column == "id" and "id" not in table.columns:
        raise InputError(
            f"points must have an id, but there is no column 'id'{did_you_mean('id', table.columns)}; there are "
            f"{format_names(table.columns)}: name the one it is, id_column='...'"
        )
    return _points_of(table_of(table), id_column, feature_columns, preference_column, drop_missing)[0]


def _points_of(
    table: Table,
    id_column: str | None,
    feature_columns: str | Sequence[str] | None,
    preference_column: str | None,
    drop_missing: bool,
    *,
    with_rows: bool = False,
    with_cells: bool = False,
) -> tuple[DataFrame, Chosen]:
    """Return the points of a table, checked, and which columns they are; without an id column, rows are numbered.

    ``with_rows`` and ``with_cells``: see `read_points_of_command`.
    """
    names = table.names
    columns = choose_columns(table, id_column, feature_columns, preference_column)
    check_header(table, columns.numbers)
    if columns.is_vector:
        (vectors,) = columns.features
        table = replace(table, rows=table.rows.withColumn(cell(vectors), _elements(table, vectors)))
    table, columns, incomplete, id_kind = _checked_cells(table, columns, drop_missing=drop_missing)
    warn_of_lookalikes(columns, names)

    identity = columns.identity
    key = ROW if identity is None else cell(identity)
    rows = with_row_numbers(table.frame) if with_rows or identity is None else table.frame
    rows = rows.where(f"NOT ({incomplete})")
    chosen = [F.col(key).cast(id_kind).alias("id")]
    if columns.is_vector:
        check_lengths(rows, cell(vectors), key, names[vectors])
        chosen.append(F.col(cell(vectors)).alias("features"))
    elif columns.features:
        chosen.append(_numbers_as_array(columns.features))
    if columns.preference is not None:
        chosen.append(F.col(cell(columns.preference)).cast("double").alias("preference"))
    if with_rows:
        chosen.append(F.col(ROW).cast("bigint"))
    if with_cells:
        chosen += _cells_as_text(table, columns)
    points = rows.select(*chosen)
    if identity is not None:
        check_unique(points, "id", f"column {names[identity]!r}")
    return points, Chosen.of(columns, names)


def _checked_cells(table: Table, columns: Columns, *, drop_missing: bool) -> tuple[Table, Columns, str, str]:
    """Check the cells of points.

    Returns
    -------
    Table
        As it is rightly read.
    Columns
        Without columns of text among features that nobody has chosen.
    str
        SQL: whether a row is left out.
    str
        The type of the ids.
    """
    ids = [] if columns.identity is None else [columns.identity]
    incomplete = any_of(table, columns.features, MISSING) if drop_missing else "false"
    table, found = scan(table, ids, columns.numbers, WRONG, incomplete)
    refuse_lines(table, found)
    if columns.by_default and found["wrong"] and (texts := text_columns(table, columns.features)):
        columns = leave_out_texts(columns, texts, table.names)
        incomplete = any_of(table, columns.features, MISSING) if drop_missing else "false"
        table, found = scan(table, ids, columns.numbers, WRONG, incomplete)
    elif not columns.by_default and found["wrong"]:
        _refuse_text(table, columns)
    hint = f"; if it is no feature, choose those that are: {format_option('feature_columns', 'NAMES')}"
    refuse_cells(
        *(table, found, ids, columns.numbers, WRONG),
        problem="is missing, no number, NaN, infinite or beyond 1e150",
        incomplete=incomplete,
        hint=hint if columns.by_default else "",
        may_be_missing=() if drop_missing else columns.features,
    )
    return table, columns, incomplete, next(iter(id_types(table, found, ids)), "bigint")


def _refuse_text(table: Table, columns: Columns) -> None:
    """Raise InputError if a column that was named holds text."""
    for column in text_columns(table, columns.numbers):
        what = "the preference" if column == columns.preference else "features"
        raise InputError(f"{what} must be numbers, but column {table.names[column]!r} is text: leave it out")


def _elements(table: Table, column: int) -> Column:
    """Return the elements of a vector column, as an array of doubles."""
    vectors = F.col(cell(column))
    if isinstance(table.kinds[column], ArrayType):
        return vectors.cast("array<double>")
    from pyspark.ml.functions import vector_to_array  # slow to import, and rarely needed

    return F.when(vectors.isNotNull(), vector_to_array(vectors))


def _cells_as_text(table: Table, columns: Columns) -> list[Column]:
    """Return the first cells of a row as CELLS, those first that are no features; and its first image as IMAGE."""
    others = [n for n in range(len(table.names)) if n not in (columns.identity, *columns.features)]
    is_image = {n: isinstance(table.kinds[n], BinaryType) for n in others}
    texts = [n for n in others if not is_image[n]] + ([] if columns.is_vector else list(columns.features))
    shown = texts[:MOST_CELLS]
    cells = F.array(*(F.col(cell(n)).cast("string") for n in shown)).cast("array<string>")  # also where there are none
    found = [cells.alias(CELLS, metadata={"names": [table.names[n] for n in shown]})]
    return found + [F.col(cell(n)).alias(IMAGE) for n in others if is_image[n]][:1]


def _numbers_as_array(columns: Sequence[int]) -> Column:
    """Return number columns as one array of doubles.

    It is SQL text: a column object for each feature would take longer to make than 2,000 columns to read.
    """
    return F.expr(f"array({', '.join(f'CAST({cell(column)} AS double)' for column in columns)}) AS features")
