"""A table of cells under internal names, and where its rows are.

The columns are c0, c1, ...; their names are kept beside them. So no name is special, and names may be equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql.types import DataType

from ap_spark.errors import InputError

__all__ = [
    "AS_WRITTEN",
    "BROKEN",
    "IS_HEADER",
    "PATH",
    "ROW",
    "START",
    "Table",
    "cell",
    "reading",
    "table_of",
    "with_places",
    "with_row_numbers",
]

PATH, START, BROKEN, IS_HEADER, ROW = "path", "start", "broken", "is_header", "row"

# Names of columns, and of directories (day=01), as they are: to Spark x would be X, and 01 would be 1.
AS_WRITTEN = {"spark.sql.caseSensitive": "true", "spark.sql.sources.partitionColumnTypeInference.enabled": "false"}

# Java's classes in an error of reading that says nothing of the file: the store did not answer, or not to us.
_STORE = re.compile(
    r"java\.net|javax\.net|java\.nio\.file|java\.io\.FileNotFound|io\.netty|org\.apache\.hadoop\.(?!fs\.Checksum)"
    r"|org\.apache\.http|com\.(amazonaws|google|azure|microsoft)|software\.amazon"
)

# What Spark says of files whose columns have different types, and of each column.
_SCHEMAS = re.compile(
    r'Initial schema:\s*"STRUCT<(.*?)>"\s*Schema that cannot be merged with the initial schema:\s*"STRUCT<(.*?)>"\. '
)
_COLUMN = re.compile(r"(`(?:[^`]|``)*`|[^ ,<`]+): ([^,(]*(?:\([^)]*\))?[^,]*)")


def cell(column: int) -> str:
    """Return the internal name of a column."""
    return f"c{column}"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells, with the names of their columns beside them.

    Attributes
    ----------
    rows : DataFrame
        Columns c0, c1, ...; of a file also PATH and START, the block of the file that holds the row; of a text file
        also IS_HEADER, and BROKEN: the text of a row that has too few or too many cells.
    names : list of str
        What the file calls the columns.
    source : str
        What a message calls the table.
    is_text : bool
        Whether it is of a csv or tsv file, so that all cells are text.
    header_is_assumed : bool
        Whether the first line has been taken for a header without anybody having said so.
    """

    rows: DataFrame
    names: list[str]
    source: str
    is_text: bool = False
    header_is_assumed: bool = False

    @cached_property
    def kinds(self) -> list[DataType]:
        """The types of the columns."""
        kinds = {field.name: field.dataType for field in self.rows.schema.fields}
        return [kinds[cell(column)] for column in range(len(self.names))]

    @property
    def is_data(self) -> Column:
        """Whether a row is no header."""
        return ~F.col(IS_HEADER) if self.is_text else F.lit(True)

    @property
    def frame(self) -> DataFrame:
        """The rows without headers."""
        return self.rows.where(self.is_data)

    def watched(self) -> list[Column]:
        """Return aggregates over all rows, by which `resolve` knows whether the table was read rightly."""
        return []

    def resolve(self, found: Row) -> Table:
        """Return this table if it was read rightly, else the same one read in another way."""
        return self


def table_of(frame: DataFrame) -> Table:
    """Return the table of a DataFrame, whose columns may have any names."""
    return Table(rows=frame.toDF(*map(cell, range(len(frame.columns)))), names=frame.columns, source="the table")


def with_places(frame: DataFrame, names: Iterable[str]) -> DataFrame:
    """Give a file's columns internal names, and add PATH and START."""
    with_place = frame.select("*", "_metadata.file_path", "_metadata.file_block_start")
    return with_place.toDF(*names, PATH, START)


def with_row_numbers(frame: DataFrame) -> DataFrame:
    """Add ROW to rows with PATH and START: their number from 0, files in the order of their names.

    It is the same at every evaluation: a file is read in blocks, and the rows of a block have consecutive
    monotonically increasing ids.
    """
    frame = frame.select("*", F.monotonically_increasing_id().alias(ROW))
    blocks = frame.groupBy(PATH, START).agg(F.min(ROW).alias("first"), F.count("*").alias("count"))
    in_order = blocks.orderBy(PATH, START).collect()
    before = accumulate((block["count"] for block in in_order), initial=0)
    moves = [(*block[:2], start - block["first"]) for block, start in zip(in_order, before, strict=False)]
    if len(moves) == 1:
        return frame.withColumn(ROW, F.col(ROW) + F.lit(moves[0][2]))
    known = frame.sparkSession.createDataFrame(moves, f"{PATH} string, {START} bigint, move bigint")
    return frame.join(F.broadcast(known), [PATH, START]).withColumn(ROW, F.col(ROW) + F.col("move"))


@contextmanager
def reading(source: str, kind: str = "") -> Iterator[None]:
    """Turn Spark's errors of reading into what is wrong with the file; ``source`` is what a message calls it.

    Raises
    ------
    InputError
        If there is no such file, it is damaged, or names of columns differ in case alone.
    """
    try:
        yield
    except AnalysisException as error:
        if error.getCondition() == "COLUMN_ALREADY_EXISTS":
            raise InputError(
                f"names of columns must differ, in more than upper and lower case, but in {source} one is there twice: "
                "rename it (in csv and tsv files it may)"
            ) from error
        problem = str(error).splitlines()[0]
        if error.getCondition() == "PATH_NOT_FOUND":
            problem = f"there is no {(error.getMessageParameters() or {}).get('path', 'such path')}"
        raise InputError(f"cannot read {source}{f' as {kind}' if kind else ''}: {problem}") from error
    except (Py4JJavaError, PySparkException) as error:
        text = str(error)
        if found := _SCHEMAS.search(text):
            types, others = (dict(_COLUMN.findall(schema)) for schema in found.groups())
            name = next((name for name in types if others.get(name, types[name]) != types[name]), "")
            raise InputError(
                f"a column must have one type in all files, but in {source} column {name.strip('`')!r} is "
                f"{types.get(name, '').lower()} in some and {others.get(name, '').lower()} in others: "
                "write it with one type, or leave it out of all"
            ) from error
        if "CONFLICTING_PARTITION" in text:
            directories = " and ".join(re.findall(r"^\s*(\S+:/\S+)", text, re.MULTILINE)[:2])
            raise InputError(
                f"directories such as day=1 must have the same names at each level, but in {source} they differ: "
                f"{directories}"
            ) from error
        if "UnsupportedFileSystemException" in text:
            raise InputError(
                f"a path must be of a file system that Spark knows, got {source} (on this machine: one '/' first)"
            ) from error
        file = re.search(r"FAILED_READ_FILE.*? reading file (\S+?)\.?\s|Checksum error: (\S+)", text)
        causes = re.findall(r"^Caused by: (.*)", text, re.MULTILINE)
        if (not file and "apache.orc" not in text) or any(map(_STORE.match, causes)):
            raise
        problem = causes[-1] if causes else text.splitlines()[-1]
        problem = re.sub(r"^[a-zA-Z0-9_.$]+: ", "", problem)  # without the class
        damaged = (file[1] or file[2]) if file else source
        raise InputError(
            f"a file must be whole, but {damaged} is damaged or cut off, or is no file of its kind ({problem}): "
            "write or copy it again"
        ) from error
