"""Text files into tables: CSV and TSV as RFC 4180 and pandas have them.

Cells are strings: an id such as 007 keeps its zeros, and a cell that is no number is shown as it stands in the file.

A file is read line by line, in as many tasks as it has blocks. That is wrong where a quoted cell holds a line break, so
the pass over the cells that checks them also counts what looks like it (`LinesTable.watched`), and
`LinesTable.resolve` then gives the same table read in another way: whole files, each in one task. In the same pass are
found files whose header orders the columns differently, and bytes that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Row, SparkSession

from ap_spark._spark.session import with_settings
from ap_spark.errors import InputError
from ap_spark.io.records import COMPRESSIONS, Dialect, begins, records, wrong_encoding
from ap_spark.io.tables import (
    AS_WRITTEN,
    BROKEN,
    IS_HEADER,
    PATH,
    ROW,
    START,
    Table,
    cell,
    numbered,
    placed,
)

__all__ = ["read_lines", "read_whole", "text_files"]

LINE = "line"
MARK = "\ufeff"  # left out by Spark's parser where a line begins
NO_CHARACTER = "\uffff"  # ends its input
LARGEST_WHOLE_FILE = 512 << 20  # bytes of a file that one task reads whole: Spark's process holds it several times
PACKED = 10  # a compressed file becomes so many times as large, about


def read_lines(spark: SparkSession, dialect: Dialect) -> Table:
    """Read text files line by line."""
    raw, parts = text_files(spark, dialect.path)
    lines = placed(raw, [LINE, *map(part, range(len(parts)))])
    # Spark writes the address of a local file in two ways.
    files = sorted(re.sub("^file:/+", "file:/", file) for file in raw.inputFiles())
    first, file = first_line(lines, files, dialect)
    if "\ufffd" in first:
        refuse_other_encodings(lines)
    if not re.fullmatch(dialect.whole_line, first):
        return read_whole(spark, dialect)
    names = dialect.names(dialect.first_record(first, file))
    layout = Layout(header=first if dialect.header else None, order=tuple(range(len(names))))
    return LinesTable(
        rows=cells(lines, dialect, [layout], len(parts)),
        names=[*names, *parts],
        source=dialect.path,
        is_text=True,
        lines=lines,
        dialect=dialect,
        width=len(names),
        first=(file, first),
        with_header=frozenset(files) if dialect.header else frozenset(),
    )


def text_files(spark: SparkSession, path: str, *, whole: bool = False) -> tuple[DataFrame, list[str]]:
    """The lines of files, or whole files; and the names of the columns that their directories (day=1) add."""
    with with_settings(spark, AS_WRITTEN):
        raw = spark.read.schema("`/` string").text(path, wholetext=whole)  # no directory adds a column of this name
        names = raw.columns[1:]
    return raw, names


def part(column: int) -> str:
    """The internal name of a column that directories add."""
    return f"part{column}"


def is_filled(dialect: Dialect) -> Column:
    """Whether a line is more than blanks, as in pandas. The first character decides, but for a few."""
    return (F.col(LINE) >= "!") | F.col(LINE).rlike(f"[^{dialect.blanks}]")


def first_line(lines: DataFrame, files: list[str], dialect: Dialect) -> tuple[str, str]:
    """The first line of the first file that has one, and that file."""
    in_first = F.col(PATH).isin(files[:1]) & (F.col(START) == 0) & is_filled(dialect)
    if found := lines.where(in_first).select(LINE, PATH).limit(1).collect():
        return found[0][LINE], found[0][PATH]
    if others := first_lines(lines, dialect):
        file = min(others)
        return others[file], file
    raise InputError(f"there must be at least one row, but {dialect.path!r} is empty")


def first_lines(lines: DataFrame, dialect: Dialect) -> dict[str, str]:
    """The first line of each file that has one."""
    begin = lines.where((F.col(START) == 0) & is_filled(dialect))
    begin = begin.select(LINE, PATH, F.monotonically_increasing_id().alias(ROW))
    return {row[PATH]: row[LINE] for row in begin.groupBy(PATH).agg(F.min_by(LINE, ROW).alias(LINE)).collect()}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Files with the same header.

    Attributes
    ----------
    header : str, optional
        The line.
    order : tuple of int
        Which of the table's columns each of theirs is.
    files : frozenset of str, optional
        All of them by default.
    """

    header: str | None
    order: tuple[int, ...]
    files: frozenset[str] | None = None


def cells(lines: DataFrame, dialect: Dialect, layouts: Sequence[Layout], parts: int) -> DataFrame:
    """The rows of a `Table` out of lines."""
    width = len(layouts[0].order)
    options = {"sep": dialect.separator, "quote": '"', "escape": '"', "maxColumns": str(2 * width + 20_480)}
    options |= {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": BROKEN}
    ends = [F.col(part(n)).alias(cell(width + n)) for n in range(parts)]
    frames = []
    for layout in layouts:
        schema = ", ".join(f"{cell(n)} string" for n in layout.order) + f", {BROKEN} string"
        chosen = lines if layout.files is None else lines.where(F.col(PATH).isin(sorted(layout.files)))
        is_header = F.lit(False) if layout.header is None else F.col(LINE) == layout.header
        # Of a struct's fields Spark would parse each line once for a filter, and once more; not of those of `inline`.
        parsed = F.inline(F.array(F.from_csv(LINE, schema, options)))
        rows = chosen.where(is_filled(dialect))
        frames.append(rows.select(parsed, *ends, LINE, PATH, START, is_header.alias(IS_HEADER)))
    return reduce(DataFrame.unionByName, frames)


@dataclass(frozen=True, kw_only=True)
class LinesTable(Table):
    """A table of text files that are read line by line.

    Attributes
    ----------
    lines : DataFrame
    dialect : Dialect
    width : int
        How many cells a line has.
    first : tuple of str
        The first file, and its first line.
    with_header : frozenset of str
        The files that should have a header.
    """

    lines: DataFrame
    dialect: Dialect
    width: int
    first: tuple[str, str]
    with_header: frozenset[str]

    def watched(self) -> list[Column]:
        line, is_header = F.col(LINE), F.col(IS_HEADER)
        goes_on = line.contains('"') & ~line.rlike(rf"\A{self.dialect.whole_line}\z")
        misread = line.startswith(MARK) | line.contains(NO_CHARACTER)
        return [
            F.count_if(~F.is_valid_utf8(line)).alias("not utf8"),
            F.count_if(goes_on | misread).alias("open"),
            F.count_if(is_header).alias("headers"),
            F.collect_set(F.when(is_header, F.col(PATH))).alias("files"),
        ]

    def resolve(self, found: Row) -> Table:
        if found["not utf8"]:
            refuse_other_encodings(self.lines)
        with_first = frozenset(found["files"])
        if found["open"] or found["headers"] > len(
            with_first
        ):  # a record goes on in the next line, or is like the header
            return read_whole(self.lines.sparkSession, self.dialect)
        if not (others := self.with_header - with_first):
            return self
        firsts = first_lines(self.lines.where(F.col(PATH).isin(sorted(others))), self.dialect)
        return self.with_headers(firsts | dict.fromkeys(with_first, self.first[1])) if firsts else self

    def with_headers(self, firsts: dict[str, str]) -> Table:
        """The same table where files have different headers; ``firsts`` has them."""
        if not all(re.fullmatch(self.dialect.whole_line, line) for line in firsts.values()):
            return read_whole(self.lines.sparkSession, self.dialect)
        file, line = self.first
        names = self.dialect.names(self.dialect.first_record(line, file))
        layouts = []
        for header in sorted(set(firsts.values()), key=lambda line: (line != self.first[1], line)):
            files = sorted(file for file, line in firsts.items() if line == header)
            other = self.dialect.names(self.dialect.first_record(header, files[0]))
            order = self.dialect.order(names, file, other, files[0])
            layouts.append(Layout(header=header, order=order, files=frozenset(files)))
        rows = cells(self.lines, self.dialect, layouts, len(self.names) - self.width)
        return replace(self, rows=rows, with_header=frozenset(firsts))


def refuse_other_encodings(lines: DataFrame) -> None:
    """Raise InputError if some lines are not UTF-8."""
    wrong = ~F.is_valid_utf8(LINE)
    count, file = lines.where(wrong).agg(F.count("*"), F.min(PATH)).collect()[0]
    if count:
        numbers = numbered(lines.where(F.col(PATH) == file)).where(wrong).orderBy(ROW)
        line, content = numbers.select(ROW, F.col(LINE).cast("binary")).limit(1).collect()[0]
        raise wrong_encoding("UTF-8", file, line + 1, bytes(content), count)


def read_whole(spark: SparkSession, dialect: Dialect) -> Table:
    """Read text files whole, each in one task.

    Raises
    ------
    InputError
        If a file is too large for that, or not in its encoding.
    """
    sizes = spark.read.format("binaryFile").load(dialect.path).select("path", "length")
    packed = reduce(or_, (F.col("path").endswith(ending) for ending in COMPRESSIONS))
    limit = F.when(packed, LARGEST_WHOLE_FILE // PACKED).otherwise(LARGEST_WHOLE_FILE)
    too_large = sizes.withColumn("limit", limit).where("length > limit").orderBy("path").limit(1)
    for file, size, most in too_large.collect():
        raise InputError(
            f"a file with line breaks inside of cells, U+FEFF or U+FFFF, or in another encoding than UTF-8, must have "
            f"at most {most >> 20} MiB, but {file} has {size >> 20:,}: split it, or write it as Parquet"
        )
    raw, parts = text_files(spark, dialect.path, whole=True)
    ends = list(map(part, range(len(parts))))
    files = placed(raw, [LINE, *ends]).select(F.col(LINE).cast("binary"), PATH, *ends)
    first_records = files.mapInArrow(
        partial(begins, dialect), "path string, cells array<string>, line int, wrong binary, problem string"
    )
    firsts = {}
    for file, cells, line, wrong, problem in first_records.orderBy("path").collect():
        if problem is not None:
            raise InputError(problem)
        if wrong is not None:
            raise wrong_encoding(dialect.encoding, file, line, bytes(wrong))
        firsts[file] = cells
    if not firsts:
        raise InputError(f"there must be at least one row, but {dialect.path!r} is empty")
    file, first = next(iter(firsts.items()))
    names, orders = dialect.names(first), {}
    if dialect.header:
        orders = {other: dialect.order(names, file, dialect.names(cells), other) for other, cells in firsts.items()}
    schema = ", ".join(f"{cell(n)} string" for n in range(len(names) + len(parts)))
    found = files.mapInArrow(partial(records, dialect, orders, len(names)), f"{schema}, {BROKEN} string, {PATH} string")
    rows = found.select("*", F.lit(0).cast("bigint").alias(START), F.lit(False).alias(IS_HEADER))
    return Table(rows=rows, names=[*names, *parts], source=dialect.path, is_text=True)
