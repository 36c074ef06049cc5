"""Files into the tables of `schema.py`: points and similarities, from CSV, TSV, Parquet, JSON Lines or ORC.

Text files are read as text and converted here, so that an id such as 007 keeps its zeros and a cell that is no number
is shown as it stands in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from operator import or_

import pyspark.sql.functions as F
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import ArrayType, NumericType, StringType, StructField, StructType

from ap_spark.errors import InputError
from ap_spark.schema import check_unique, count_of, examples, finite, has_have, id_type

__all__ = ["make_points", "read_points", "read_similarities", "read_table"]

logger = logging.getLogger(__name__)

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".orc": "orc",
}
COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate")
SEPARATORS = {"csv": ",", "tsv": "\t"}
BROKEN, ROW = "__broken__", "__row__"
BLOCK_COLUMNS = ("__path__", "__start__")
LARGEST_FEATURE = 1e150  # its square has to be finite
WHOLE_NUMBER = r"^(0|-?[1-9][0-9]{0,17})$"


def read_table(spark: SparkSession, path: str, *, format: str = "auto", header: bool = True) -> DataFrame:
    """Read a table; columns of text files are strings, named by the header or by their position from 0.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A file, a directory or a pattern, anywhere Spark can read.
    format : {"auto", "csv", "tsv", "parquet", "json", "orc"}
        "auto" goes by the name: .csv, .tsv, .tab, .parquet, .json, .jsonl, .ndjson, .orc, also compressed (.gz, ...).
    header : bool
        Whether the first line of a csv or tsv file names the columns.

    Raises
    ------
    InputError
        If there is no such file, or its format cannot be told.
    """
    kind = format_of(path) if format == "auto" else format
    try:
        if kind not in SEPARATORS:
            return spark.read.format(kind).load(path)
        reader = spark.read.options(
            sep=SEPARATORS[kind], header=header, ignoreLeadingWhiteSpace=True, ignoreTrailingWhiteSpace=True
        )
        names = reader.csv(path).columns if header else [str(n) for n in range(len(reader.csv(path).columns))]
        if not names:
            raise InputError(f"there must be at least one row, but {path!r} is empty")
        fields = [StructField(name, StringType()) for name in [*names, BROKEN]]
        return reader.csv(path, schema=StructType(fields), columnNameOfCorruptRecord=BROKEN, mode="PERMISSIVE")
    except AnalysisException as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"cannot read {path!r} as {kind}: {problem}") from error


def format_of(path: str) -> str:
    """The format that a path's name tells.

    >>> format_of("scores/part-0.tsv.gz")
    'tsv'
    """
    name = path.rstrip("/").lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise InputError(
        f"the format of {path!r} cannot be told from its name: "
        f"give --format ({', '.join(sorted(set(SUFFIXES.values())))}), or use one of the endings {', '.join(SUFFIXES)}"
    )


def read_similarities(spark: SparkSession, path: str, *, format: str = "auto", header: bool = True) -> DataFrame:
    """Read similarities as (i, k, s).

    The columns are found by the names i, k and s; a table of exactly three columns may have other names, or none.

    Raises
    ------
    InputError
        If the file cannot be read, has other columns, or holds an s that is no number.
    """
    table = read_table(spark, path, format=format, header=header)
    names = [name for name in table.columns if name != BROKEN]
    if not {"i", "k", "s"} <= set(names):
        in_order = (format_of(path) if format == "auto" else format) != "json"  # Spark sorts the fields of json
        if len(names) != 3 or not in_order:
            raise InputError(
                f"similarities must have the columns i, k, s{', or exactly three columns' if in_order else ''}; "
                f"{path!r} has {', '.join(names)}"
            )
        table, names = table.withColumnsRenamed(dict(zip(names, "iks", strict=True))), list("iks")
    if not is_number(table, "s"):
        raise InputError(f"column 's' must hold numbers, but it holds {table.schema['s'].dataType.simpleString()}")
    cell = F.col("s")
    wrong = cell.isNotNull() & cell.try_cast("double").isNull() if is_text(table, "s") else F.lit(False)
    kinds = look_at(table, path, ids=["i", "k"], wrong={"s": wrong}, problem="is not a number")
    ids = [F.col(name).cast(common(kinds)).alias(name) for name in "ik"]
    return table.select(*ids, F.col("s").cast("double").alias("s"))


def common(kinds: Sequence[str]) -> str:
    """One type for several id columns."""
    return kinds[0] if len(set(kinds)) == 1 else "string"


def read_points(
    spark: SparkSession,
    path: str,
    *,
    format: str = "auto",
    header: bool = True,
    id_column: str | None = None,
    feature_columns: str | None = None,
    preference_column: str | None = None,
    drop_missing: bool = False,
) -> DataFrame:
    """Read points as (id, features), and (preference) if its column is named.

    Without an id column the id is the number of the row, from 0, files in the order of their names.

    Parameters
    ----------
    spark, path, format, header
        See `read_table`.
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
    table = read_table(spark, path, format=format, header=header)
    if id_column is None:
        where = zip(("_metadata.file_path", "_metadata.file_block_start"), BLOCK_COLUMNS, strict=True)
        place = [F.col(name).alias(alias) for name, alias in where]
        table = table.select("*", *place, F.monotonically_increasing_id().alias(ROW))
    return choose_columns(table, path, id_column or ROW, feature_columns, preference_column, drop_missing)


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

    Examples
    --------
    >>> table = spark.createDataFrame([("a", 1.0, 2), ("b", 3.0, 4)], "name string, x double, y int")
    >>> make_points(table, id_column="name").collect()
    [Row(id='a', features=[1.0, 2.0]), Row(id='b', features=[3.0, 4.0])]
    """
    return choose_columns(table, "the table", id_column, feature_columns, preference_column, drop_missing)


def choose_columns(
    table: DataFrame,
    source: str,
    id_column: str,
    feature_columns: str | Sequence[str] | None,
    preference_column: str | None,
    drop_missing: bool,
) -> DataFrame:
    """The body of `make_points`; with ROW as id column, rows are numbered."""
    names = [name for name in table.columns if name not in (BROKEN, ROW, *BLOCK_COLUMNS)]
    identity = ROW if id_column == ROW else one_column(names, id_column)
    preference = one_column(names, preference_column) if preference_column is not None else None
    if feature_columns is None:
        features = [name for name in names if name not in (identity, preference)]
    else:
        wanted = feature_columns.split(",") if isinstance(feature_columns, str) else feature_columns
        features = [name for part in wanted if part for name in some_columns(names, part)]
    if not features and feature_columns is None:
        raise InputError(f"there must be at least one feature column, but the table has only {', '.join(names)}")

    numbers = [*features, preference] if preference else features
    arrays = [name for name in numbers if not is_number(table, name)]
    if arrays and (preference in arrays or len(features) > 1):
        raise InputError(
            f"features must be number columns or one vector column, but these are mixed: {', '.join(numbers)}"
        )
    gaps = [is_missing(table, name) for name in features] if drop_missing else []
    incomplete = reduce(or_, gaps, F.lit(False))
    (kind,) = look_at(
        table,
        source,
        ids=[identity],
        wrong={name: ~is_finite(table, name) & ~incomplete for name in numbers},
        problem="is missing, no number, NaN, infinite or beyond 1e150",
        incomplete=incomplete,
    )
    for name in arrays:
        check_lengths(table.where(~incomplete), name, identity)
    chosen = [F.col(quoted(identity)).cast(kind).alias("id")]
    if features:
        chosen.append(vector(table, features).alias("features"))
    if preference:
        chosen.append(F.col(quoted(preference)).cast("double").alias("preference"))
    if identity == ROW:
        return numbered_rows(table).where(~incomplete).select(*chosen)
    points = table.where(~incomplete).select(*chosen)
    check_unique(points, "id", f"column {identity!r}")
    return points


def numbered_rows(table: DataFrame) -> DataFrame:
    """Make ROW the number of the row, files in the order of their names; the same at every evaluation.

    A file is read in blocks, and the rows of a block have consecutive monotonically increasing ids.
    """
    blocks = table.groupBy(*BLOCK_COLUMNS).agg(F.min(ROW).alias("first"), F.count("*").alias("count"))
    in_order = blocks.orderBy(*BLOCK_COLUMNS).collect()
    before = accumulate((block["count"] for block in in_order), initial=0)
    moves = [(*block[:2], start - block["first"]) for block, start in zip(in_order, before, strict=False)]
    if len(moves) == 1:
        return table.withColumn(ROW, F.col(ROW) + F.lit(moves[0][2]))
    known = table.sparkSession.createDataFrame(moves, "__path__ string, __start__ bigint, move bigint")
    return table.join(F.broadcast(known), list(BLOCK_COLUMNS)).withColumn(ROW, F.col(ROW) + F.col("move"))


def quoted(name: str) -> str:
    """A column name that may hold dots."""
    return "`" + name.replace("`", "``") + "`"


def one_column(names: Sequence[str], wanted: str) -> str:
    """A column by its name or, if there is none of that name, by its position from 0."""
    if wanted in names:
        return wanted
    if wanted.isdigit() and int(wanted) < len(names):
        return names[int(wanted)]
    raise InputError(f"there is no column {wanted!r}; there are {', '.join(names)} (or positions 0-{len(names) - 1})")


def some_columns(names: Sequence[str], wanted: str) -> list[str]:
    """The columns of one name, position, or range of positions.

    >>> some_columns(["a", "b", "c"], "1-2")
    ['b', 'c']
    """
    first, dash, last = wanted.partition("-")
    if wanted not in names and dash and first.isdigit() and last.isdigit():
        if int(first) > int(last):
            raise InputError(f"a range of columns must ascend, got {wanted!r}")
        one_column(names, last)
        return list(names[int(first) : int(last) + 1])
    return [one_column(names, wanted)]


def is_text(table: DataFrame, name: str) -> bool:
    return isinstance(table.schema[name].dataType, StringType)


def look_at(
    table: DataFrame,
    source: str,
    *,
    ids: Sequence[str],
    wrong: dict[str, Column],
    problem: str,
    incomplete: Column | None = None,
) -> list[str]:
    """Check a table in one pass over it, and find the types of its id columns.

    Raises InputError if there are no rows but incomplete ones, lines have too few or too many fields, or a column has
    wrong cells. Text ids of a csv or tsv file that are all whole numbers, written without leading zeros, count as
    integers.
    """
    from_text = BROKEN in table.columns
    kinds = [id_type(table.schema[name].dataType, name) for name in ids]
    cells = [F.col(quoted(name)) for name in ids]
    line = F.col(BROKEN) if from_text else F.lit(None).cast("string")
    fields = [name for name in table.columns if name not in (BROKEN, ROW, *BLOCK_COLUMNS)]
    found = table.agg(
        F.count("*").alias("rows"),
        F.count_if(F.lit(False) if incomplete is None else incomplete).alias("incomplete"),
        F.count(line).alias("broken"),
        F.min(line).alias("example"),
        F.max(F.hash(*map(quoted, fields))),  # Spark tells of broken lines only where it has to read all fields
        *(F.count_if(~cell.cast("string").rlike(WHOLE_NUMBER)).alias(f"text {n}") for n, cell in enumerate(cells)),
        *(F.count_if(condition).alias(f"wrong {name}") for name, condition in wrong.items()),
    ).collect()[0]
    if not found["rows"]:
        raise InputError(f"there must be at least one row, but {source} is empty")
    if found["broken"]:
        raise InputError(
            f"every line must have {count_of(len(fields), 'field')}, but in {source} "
            f"{count_of(found['broken'], 'line')} {has_have(found['broken'])} more or fewer, "
            f"such as {found['example']!r}: check the separator and the quotes"
        )
    if found["incomplete"] == found["rows"]:
        raise InputError(
            f"there must be at least one complete row, but all {found['rows']:,} of {source} miss a feature"
        )
    if found["incomplete"]:
        logger.warning(
            "%s of %s without all features left out", count_of(found["incomplete"], "row"), f"{found['rows']:,}"
        )
    for name, condition in wrong.items():
        if count := found[f"wrong {name}"]:
            shown = [F.col(quoted(ids[0])).alias("id")] if len(ids) == 1 else list(map(F.col, ids))
            bad = table.where(condition).select(*shown, quoted(name))
            raise InputError(
                f"column {name!r} must hold finite numbers, but in {count_of(count, 'row')} it {problem}: "
                f"{examples(bad, [quoted(each) for each in bad.columns])}"
            )
    return [
        "bigint" if from_text and is_text(table, name) and not found[f"text {n}"] else kind
        for n, (name, kind) in enumerate(zip(ids, kinds, strict=True))
    ]


def check_lengths(table: DataFrame, name: str, identity: str) -> None:
    """Raise InputError if the vectors of a column differ in length."""
    length = F.size(elements(table, name)).alias("length")
    found = table.groupBy(length).agg(F.min(quoted(identity)).alias("id")).orderBy("length").limit(2).collect()
    if len(found) > 1:
        rows = " and ".join(f"{row.length} (id {row.id!r})" for row in found)
        raise InputError(f"all vectors must have one length, but those in column {name!r} have lengths {rows}")


def is_finite(table: DataFrame, name: str) -> Column:
    """Whether a cell is a finite number, or a vector of them; never null."""
    cell = F.col(quoted(name))
    if not is_number(table, name):
        values = elements(table, name)
        return values.isNotNull() & F.forall(F.coalesce(values, F.array()), usable)
    return usable(cell.try_cast("double") if is_text(table, name) else cell.cast("double"))


def is_missing(table: DataFrame, name: str) -> Column:
    """Whether a cell is null or NaN, or a vector has such an element; never null."""
    cell = F.col(quoted(name))
    if not is_number(table, name):
        values = elements(table, name)
        return values.isNull() | F.exists(F.coalesce(values, F.array()), no_number)
    return cell.isNull() | F.isnan(cell.try_cast("double") if is_text(table, name) else cell.cast("double"))


def no_number(value: Column) -> Column:
    return value.isNull() | F.isnan(value)


def usable(value: Column) -> Column:
    """Whether a double is finite, and so is its square."""
    return finite(value) & (F.abs(value) <= LARGEST_FEATURE)


def is_number(table: DataFrame, name: str) -> bool:
    """Whether a column holds numbers, or text that stands for them; False if it holds vectors."""
    kind = table.schema[name].dataType
    if isinstance(kind, (NumericType, StringType)):
        return True
    if kind.typeName() == "vectorudt" or (isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)):
        return False
    raise InputError(f"column {name!r} must hold numbers or vectors of numbers, but it holds {kind.simpleString()}")


def elements(table: DataFrame, name: str) -> Column:
    """The elements of a vector column, as an array of doubles."""
    column = F.col(quoted(name))
    if isinstance(table.schema[name].dataType, ArrayType):
        return column.cast("array<double>")
    from pyspark.ml.functions import vector_to_array  # slow to import, and seldom needed

    return F.when(column.isNotNull(), vector_to_array(column))


def vector(table: DataFrame, features: Sequence[str]) -> Column:
    """The features as one array of doubles."""
    if len(features) == 1 and not is_number(table, features[0]):
        return elements(table, features[0])
    return F.array(*(F.col(quoted(name)).cast("double") for name in features))
