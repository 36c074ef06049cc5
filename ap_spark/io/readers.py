"""Tables into points and similarities: which columns they are, and the checks of their cells.

Expressions are made as SQL text where they hold all features: a column object of its own for each would take longer to
make than 2,000 columns to read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import ArrayType, NumericType, StringType

from ap_spark.errors import InputError, SettingError
from ap_spark.io.formats import SEPARATORS, format_of, read_table
from ap_spark.io.records import LONGEST_EXAMPLE, shown
from ap_spark.io.tables import BROKEN, ROW, Table, cell, numbered, reading, table_of
from ap_spark.schema import check_unique, count_of, has_have, id_type, require_columns
from ap_spark.settings import Input

__all__ = ["make_points", "points_in", "read_points", "read_similarities"]

logger = logging.getLogger(__name__)

LARGEST_FEATURE = 1e150  # its square has to be finite
WHOLE_NUMBER = r"\A[ \t]*(0|-?[1-9][0-9]{0,17})[ \t]*\z"
JAVA_NUMBER = "[xX]|[0-9.][dDfF]"  # of what Java takes for a number: 0x1p3, 1d and 1f


def read_similarities(
    spark: SparkSession, path: str, *, format: str = "auto", header: bool = True, encoding: str = "utf-8"
) -> DataFrame:
    """Read similarities as (i, k, s).

    The columns are found by the names i, k and s; a table of exactly three columns may have other names, or none.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A file, a directory or a pattern, anywhere Spark can read.
    format : {"auto", "csv", "tsv", "parquet", "json", "orc"}
        "auto" goes by the name: .csv, .tsv, .tab, .parquet, .json, .jsonl, .ndjson, .orc, also compressed (.gz, ...).
    header : bool
        Whether the first line of a csv or tsv file names the columns.
    encoding : str
        Of csv and tsv files; any name that Python knows.

    Raises
    ------
    InputError
        If the file cannot be read, has other columns, or holds an s that is no number.
    """
    table = read_table(spark, path, format=format, header=header, encoding=encoding)
    if {"i", "k", "s"} <= set(table.names):
        i, k, s = (one_column(table.names, name) for name in "iks")
    else:
        in_order = (format_of(path) if format == "auto" else format) != "json"  # Spark sorts the fields of json
        if len(table.names) != 3 or not in_order:
            raise InputError(
                f"similarities must have the columns i, k, s{', or exactly three columns' if in_order else ''}; "
                f"{path!r} has {listed(table.names)}"
            )
        i, k, s = range(3)
        table = replace(table, names=list("iks"))
    if not is_number(table, s):
        raise InputError(f"column 's' must hold numbers, but it holds {table.kinds[s].simpleString()}")
    with reading(path):
        table, kinds = check(table, ids=[i, k], numbers=[s], wrong=NO_NUMBER, problem="is not a number")
    ids = [F.col(cell(column)).cast(common(kinds)).alias(name) for column, name in ((i, "i"), (k, "k"))]
    return table.frame.select(*ids, F.col(cell(s)).cast("double").alias("s"))


def common(kinds: Sequence[str]) -> str:
    """One type for several id columns."""
    return kinds[0] if len(set(kinds)) == 1 else "string"


def read_points(
    spark: SparkSession,
    path: str,
    *,
    format: str = "auto",
    header: bool = True,
    encoding: str = "utf-8",
    id_column: str | None = None,
    feature_columns: str | None = None,
    preference_column: str | None = None,
    drop_missing: bool = False,
) -> DataFrame:
    """Read points as (id, features), and (preference) if its column is named.

    Without an id column the id is the number of the row, from 0, files in the order of their names.

    Parameters
    ----------
    spark, path, format, header, encoding
        See `read_similarities`.
    id_column, preference_column : str, optional
        A column, by name or position from 0.
    feature_columns : str, optional
        Names, positions or ranges of positions, separated by commas, such as "x,y" or "0-3,7"; or one array or vector
        column. By default all columns but the id and the preference; "" for none.
    drop_missing : bool
        Leave out points with a feature that is null or NaN, instead of raising InputError.

    Raises
    ------
    InputError
        For every case of `make_points`, and if the file cannot be read.
    """
    table = read_table(spark, path, format=format, header=header, encoding=encoding)
    with reading(path):
        return choose_columns(table, id_column, feature_columns, preference_column, drop_missing)


def points_in(
    spark: SparkSession, path: str, *, header: bool, encoding: str, id_column: str | None, preference_column: str | None
) -> DataFrame:
    """Read a table of points that are known by their similarities: as (id), and (preference) if its column is named.

    The id column is "id" or, if there is none of that name, the first one.
    """
    is_text = format_of(path) in SEPARATORS  # INPUT may be, and have an encoding, where this table is not
    table = read_table(spark, path, header=header, encoding=encoding if is_text else "utf-8")
    with reading(path):
        column = id_column or ("id" if "id" in table.names else "0")
        return choose_columns(table, column, "", preference_column, drop_missing=False)


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
    id_column, preference_column : str
        A column, by name or position from 0.
    feature_columns : str or list of str, optional
    drop_missing : bool
        See `read_points`.

    Returns
    -------
    DataFrame
        (id, features array<double>[, preference double]); no features column if none were asked for.

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
    if id_column is None:
        raise SettingError("id_column must name a column, got None: the rows of a DataFrame have no numbers")
    return choose_columns(table_of(table), id_column, feature_columns, preference_column, drop_missing)


def choose_columns(
    table: Table,
    id_column: str | None,
    feature_columns: str | Sequence[str] | None,
    preference_column: str | None,
    drop_missing: bool,
) -> DataFrame:
    """The body of `make_points`; without an id column, rows are numbered."""
    Input(id_column=id_column, preference_column=preference_column, drop_missing=drop_missing)
    feature_columns = getattr(feature_columns, "tolist", lambda: feature_columns)()  # of an array, an index of pandas
    if not (feature_columns is None or isinstance(feature_columns, Sequence)) or not all(
        isinstance(part, str) for part in feature_columns or ()
    ):
        raise SettingError(f"feature_columns must be a string, or a list of strings, got {feature_columns!r}")
    names = table.names
    identity = None if id_column is None else one_column(names, id_column)
    preference = None if preference_column is None else one_column(names, preference_column)
    if feature_columns is None:
        features = [column for column in range(len(names)) if column not in (identity, preference)]
    else:
        wanted = feature_columns.split(",") if isinstance(feature_columns, str) else feature_columns
        features = [column for part in wanted if part for column in some_columns(names, part)]
    if not features and feature_columns is None:
        raise InputError(f"there must be at least one feature column, but the table has only {listed(names)}")

    numbers = features if preference is None else [*features, preference]
    vectors = [column for column in numbers if not is_number(table, column)]
    if vectors and (preference in vectors or len(features) > 1):
        raise InputError(
            "features must be number columns or one vector column, but these are mixed: "
            f"{listed([names[column] for column in numbers])}"
        )
    for column in vectors:
        table = replace(table, rows=table.rows.withColumn(cell(column), elements(table, column)))
    incomplete = any_of(table, features, MISSING) if drop_missing else "false"
    table, kinds = check(
        table,
        ids=[] if identity is None else [identity],
        numbers=numbers,
        wrong=WRONG,
        problem="is missing, no number, NaN, infinite or beyond 1e150",
        incomplete=incomplete,
    )
    rows, key = (numbered(table.frame), ROW) if identity is None else (table.frame, cell(identity))
    rows = rows.where(f"NOT ({incomplete})")
    for column in vectors:
        check_lengths(rows, cell(column), key, names[column])
    chosen = [F.col(key).cast(kinds[0] if kinds else "bigint").alias("id")]
    if features:
        chosen.append(F.col(cell(vectors[0])).alias("features") if vectors else numbers_as_array(features))
    if preference is not None:
        chosen.append(F.col(cell(preference)).cast("double").alias("preference"))
    points = rows.select(*chosen)
    if identity is not None:
        check_unique(points, "id", f"column {names[identity]!r}")
    return points


def one_column(names: Sequence[str], wanted: str) -> int:
    """The position of a column, by its name or, if there is none of that name, by its position from 0."""
    for name in (wanted, wanted.strip()):
        places = [column for column, other in enumerate(names) if other == name]
        if len(places) > 1:
            raise InputError(
                f"a column must have a name of its own to be found by it, but {len(places)} are called {name!r}: "
                f"give the position, one of {', '.join(map(str, places))}"
            )
        if places:
            return places[0]
    if re.fullmatch("[0-9]+", wanted.strip()) and int(wanted) < len(names):
        return int(wanted)
    raise InputError(f"there is no column {wanted!r}; there are {listed(names)} (or positions 0-{len(names) - 1})")


def some_columns(names: Sequence[str], wanted: str) -> list[int]:
    """The positions of the columns of one name, position, or range of positions.

    >>> some_columns(["a", "b", "c"], "1-2")
    [1, 2]
    """
    if wanted not in names and (ends := re.fullmatch(r"\s*([0-9]+)-([0-9]+)\s*", wanted)):
        first, last = int(ends[1]), int(ends[2])
        if first > last:
            raise InputError(f"a range of columns must ascend, got {wanted!r}")
        if last >= len(names):
            one_column(names, ends[2])
        return list(range(first, last + 1))
    return [one_column(names, wanted)]


def listed(names: Sequence[str]) -> str:
    """Names in words, not all of thousands.

    >>> listed(["a", "b", "a,b"])
    'a, b, a,b'
    """
    few = ", ".join(name if len(name) <= LONGEST_EXAMPLE else name[:LONGEST_EXAMPLE] + "..." for name in names[:20])
    return few if len(names) <= 20 else f"{few}, ... ({len(names):,} in all)"


def is_text(table: Table, column: int) -> bool:
    return isinstance(table.kinds[column], StringType)


def is_number(table: Table, column: int) -> bool:
    """Whether a column holds numbers, or text that stands for them; False if it holds vectors."""
    kind = table.kinds[column]
    if isinstance(kind, (NumericType, StringType)):
        return True
    if kind.typeName() == "vectorudt" or (isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)):
        return False
    raise InputError(
        f"column {table.names[column]!r} must hold numbers or vectors of numbers, but it holds {kind.simpleString()}"
    )


def elements(table: Table, column: int) -> Column:
    """The elements of a vector column, as an array of doubles."""
    vectors = F.col(cell(column))
    if isinstance(table.kinds[column], ArrayType):
        return vectors.cast("array<double>")
    from pyspark.ml.functions import vector_to_array  # slow to import, and seldom needed

    return F.when(vectors.isNotNull(), vector_to_array(vectors))


def numbers_as_array(columns: Sequence[int]) -> Column:
    """Number columns as one array of doubles."""
    return F.expr(f"array({', '.join(f'CAST({cell(column)} AS double)' for column in columns)}) AS features")


def number(text: str) -> str:
    """SQL: the double that a text stands for, or null."""
    return f"CASE WHEN {text} RLIKE '{JAVA_NUMBER}' THEN NULL ELSE try_cast({text} AS double) END"


# SQL tests of x: a text, a double, an array of doubles; never null.
UNUSABLE = f"coalesce(abs({{}}) > {LARGEST_FEATURE}D, true)"  # NaN is larger than all numbers
WRONG = {
    "text": UNUSABLE.format(number("x")),
    "number": UNUSABLE.format("x"),
    "vector": f"x IS NULL OR exists(x, y -> {UNUSABLE.format('y')})",
}
NO_NUMBER = {"text": f"x IS NOT NULL AND {number('x')} IS NULL"}
MISSING = {
    "text": f"x IS NULL OR trim(BOTH ' \t' FROM x) = '' OR coalesce(isnan({number('x')}), false)",
    "number": "x IS NULL OR isnan(x)",
    "vector": "x IS NULL OR exists(x, y -> y IS NULL OR isnan(y))",
}


def kind_of(table: Table, column: int) -> str:
    """Which of the tests is a column's."""
    return "vector" if not is_number(table, column) else "text" if is_text(table, column) else "number"


def value(table: Table, column: int) -> str:
    """SQL: what the tests of a column look at."""
    return f"CAST({cell(column)} AS double)" if kind_of(table, column) == "number" else cell(column)


def any_of(table: Table, columns: Sequence[int], tests: dict[str, str]) -> str:
    """SQL: whether a test holds for any column of a row."""
    found = []
    for kind, condition in tests.items():
        if values := [value(table, column) for column in columns if kind_of(table, column) == kind]:
            found.append(f"exists(array({', '.join(values)}), x -> {condition})")
    return " OR ".join(found) or "false"


def check(
    table: Table,
    *,
    ids: Sequence[int],
    numbers: Sequence[int],
    wrong: dict[str, str],
    problem: str,
    incomplete: str = "false",
) -> tuple[Table, list[str]]:
    """Check a table in one pass over it, and find the types of its id columns.

    Parameters
    ----------
    table : Table
    ids, numbers : sequence of int
        Columns; without an id, a row is told by its number.
    wrong : dict
        By kind of column, the test of a cell that is no number.
    problem : str
        What such a cell is.
    incomplete : str
        SQL: whether a row is left out.

    Returns
    -------
    Table
        As it is rightly read.
    list of str
        The types of the ids. Texts of a csv or tsv file that are all whole numbers, written without leading zeros,
        count as integers.

    Raises
    ------
    InputError
        If there are no rows but incomplete ones, lines have too few or too many cells, or numbers are none.
    """
    names = table.names
    kinds = [id_type(table.kinds[column], names[column]) for column in ids]
    complete = f"NOT ({incomplete})"
    while True:
        found = table.rows.agg(*counts(table, ids, f"{complete} AND ({any_of(table, numbers, wrong)})", incomplete))
        told = found.collect()[0]
        sound = table.resolve(told)
        if sound is table:
            break
        table = sound
    if not told["rows"]:
        raise InputError(f"there must be at least one row, but {table.source} is empty")
    if told["broken"]:
        raise InputError(
            f"every line must have {count_of(len(names), 'field')}, but in {table.source} "
            f"{count_of(told['broken'], 'line')} {has_have(told['broken'])} more or fewer, "
            f"such as {shown(told['example'])}: check the separator and the quotes"
        )
    if told["incomplete"] == told["rows"]:
        raise InputError(
            f"there must be at least one complete row, but all {told['rows']:,} of {table.source} miss a feature"
        )
    if told["incomplete"]:
        logger.warning(
            "%s of %s without all features left out", count_of(told["incomplete"], "row"), f"{told['rows']:,}"
        )
    if told["wrong"]:
        rows, keys = (table.frame, list(map(cell, ids))) if ids else (numbered(table.frame), [ROW])
        labels = ["id"] if len(ids) < 2 else [names[column] for column in ids]
        refuse_numbers(table, rows.where(complete), dict(zip(keys, labels, strict=True)), numbers, wrong, problem)
    for n, column in enumerate(ids):
        if table.is_text and not told[f"text {n}"]:
            kinds[n] = "bigint"
        elif told[f"padded {n}"]:
            logger.warning(
                "%s of column %r begin or end with blanks, which are part of them",
                count_of(told[f"padded {n}"], "id"),
                names[column],
            )
    return table, kinds


def counts(table: Table, ids: Sequence[int], wrong: str, incomplete: str) -> list[Column]:
    """The aggregates of `check`."""

    def count(condition: Column | str) -> Column:
        return F.count_if(table.is_data & (F.expr(condition) if isinstance(condition, str) else condition))

    broken = F.when(table.is_data, F.col(BROKEN)) if table.is_text else F.lit(None).cast("string")
    found = [count("true").alias("rows"), count(incomplete).alias("incomplete"), count(wrong).alias("wrong")]
    found += [F.count(broken).alias("broken"), F.min(broken).alias("example")]
    for n, column in enumerate(ids):
        text = F.col(cell(column)).cast("string")
        is_other = ~text.rlike(WHOLE_NUMBER)
        found += [count(is_other).alias(f"text {n}"), count(is_other & (text != F.trim(text))).alias(f"padded {n}")]
    return found + table.watched()


def refuse_numbers(
    table: Table,
    rows: DataFrame,
    keys: dict[str, str],
    numbers: Sequence[int],
    wrong: dict[str, str],
    problem: str,
) -> NoReturn:
    """Raise InputError for the first column with cells that are no numbers; ``keys`` names what tells rows."""
    tests = [any_of(table, [column], wrong) for column in numbers]
    flags = rows.select(F.posexplode(F.expr(f"array({', '.join(tests)})")).alias("place", "is_wrong"))
    first = flags.where("is_wrong").groupBy("place").count().orderBy("place").limit(1).collect()[0]
    column = numbers[first["place"]]
    shown_cells = rows.where(tests[first["place"]]).select(*keys, cell(column)).orderBy(*keys, cell(column)).limit(3)
    labels = [*keys.values(), table.names[column]]
    examples = (", ".join(map("{}={!r}".format, labels, row)) for row in shown_cells.collect())
    raise InputError(
        f"column {table.names[column]!r} must hold finite numbers, but in {count_of(first['count'], 'row')} "
        f"it {problem}: {'; '.join(examples)}"
    )


def check_lengths(rows: DataFrame, vectors: str, key: str, name: str) -> None:
    """Raise InputError if the vectors of a column differ in length."""
    lengths = rows.groupBy(F.size(vectors).alias("length")).agg(F.min(key).alias("id"))
    found = lengths.orderBy("length").limit(2).collect()
    if len(found) > 1:
        told = " and ".join(f"{row.length} (id {row.id!r})" for row in found)
        raise InputError(f"all vectors must have one length, but those in column {name!r} have lengths {told}")
