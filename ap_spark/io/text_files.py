"""Text files into tables: CSV and TSV as RFC 4180 and pandas have them.

Cells are strings: an id such as 007 keeps its zeros, and a cell that is no number is shown as it stands in the file.

A file is read line by line, in as many tasks as it has blocks. That is wrong where a quoted cell holds a line break, so
the pass over the cells that checks them also counts what looks like it (`_LinesTable.watched`), and
`_LinesTable.resolve` then gives the same table read in another way: whole files, each in one task. In the same pass are
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
from ap_spark.io.records import COMPRESSIONS, Dialect, encoding_error, first_records, whole_records
from ap_spark.io.tables import (
    AS_WRITTEN,
    BROKEN,
    IS_HEADER,
    PATH,
    ROW,
    START,
    Table,
    cell,
    with_places,
    with_row_numbers,
)

__all__ = ["looks_like_tsv", "read_lines", "read_whole", "text_files"]

_LINE = "line"
_MARK = "\ufeff"  # left out by Spark's parser where a line begins
_NO_CHARACTER = "\uffff"  # ends the input of Spark's parser
_LARGEST_WHOLE_FILE = 512 << 20  # bytes of a file that one task reads whole: Spark's process holds it several times
_PACKED = 10  # about so many times as large a compressed file becomes


def read_lines(
    spark: SparkSession, paths: Sequence[str], dialect: Dialect, *, header_is_assumed: bool = False
) -> Table:
    """Read text files line by line; read them whole if the first record has a line break in it."""
    raw, parts = text_files(spark, paths)
    lines = with_places(raw, [_LINE, *map(_part, range(len(parts)))])
    files = _files_of(raw)
    first, file = _first_line(lines, files, dialect)
    if "\ufffd" in first:
        _refuse_other_encodings(lines)
    if not re.fullmatch(dialect.whole_line, first):
        return read_whole(spark, paths, dialect, header_is_assumed=header_is_assumed)
    names = dialect.names(dialect.first_record(first, file))
    layout = _Layout(header=first if dialect.header else None, order=tuple(range(len(names))))
    return _LinesTable(
        rows=_rows_of(lines, dialect, [layout], len(parts)),
        names=[*names, *parts],
        source=dialect.source,
        is_text=True,
        header_is_assumed=header_is_assumed,
        paths=tuple(paths),
        lines=lines,
        dialect=dialect,
        width=len(names),
        first=(file, first),
        with_header=frozenset(files) if dialect.header else frozenset(),
    )


def looks_like_tsv(spark: SparkSession, paths: Sequence[str]) -> bool:
    """Return whether the first line of the first file has a tab."""
    raw, _ = text_files(spark, paths)
    lines = with_places(raw.select(raw.columns[0]), [_LINE])
    line, _ = _first_line(lines, _files_of(raw), Dialect(source=", ".join(map(repr, paths)), separator=","))
    return "\t" in line


def _files_of(raw: DataFrame) -> list[str]:
    """Return the files of a table in order; Spark writes the address of a local file in two ways."""
    return sorted(re.sub("^file:/+", "file:/", file) for file in raw.inputFiles())


def text_files(spark: SparkSession, paths: Sequence[str], *, whole: bool = False) -> tuple[DataFrame, list[str]]:
    """Return the lines of files, or whole files, and the names of the columns that their directories (day=1) add."""
    with with_settings(spark, AS_WRITTEN):
        raw = spark.read.schema("`/` string").text(
            list(paths), wholetext=whole
        )  # no directory adds a column of this name
        names = raw.columns[1:]
    return raw, names


def _part(column: int) -> str:
    """Return the internal name of a column that directories add."""
    return f"part{column}"


def _is_filled(dialect: Dialect) -> Column:
    """Return whether a line is more than blanks, as in pandas. The first character decides, but for a few."""
    return (F.col(_LINE) >= "!") | F.col(_LINE).rlike(f"[^{dialect.blanks}]")


def _first_line(lines: DataFrame, files: list[str], dialect: Dialect) -> tuple[str, str]:
    """Return the first line of the first file that has one, and that file."""
    in_first = F.col(PATH).isin(files[:1]) & (F.col(START) == 0) & _is_filled(dialect)
    if found := lines.where(in_first).select(_LINE, PATH).limit(1).collect():
        return found[0][_LINE], found[0][PATH]
    if others := _first_lines(lines, dialect):
        file = min(others)
        return others[file], file
    raise InputError(f"there must be at least one row, but {dialect.source} is empty")


def _first_lines(lines: DataFrame, dialect: Dialect) -> dict[str, str]:
    """Return the first line of each file that has one."""
    begin = lines.where((F.col(START) == 0) & _is_filled(dialect))
    begin = begin.select(_LINE, PATH, F.monotonically_increasing_id().alias(ROW))
    return {row[PATH]: row[_LINE] for row in begin.groupBy(PATH).agg(F.min_by(_LINE, ROW).alias(_LINE)).collect()}


@dataclass(frozen=True, kw_only=True)
class _Layout:
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


def _rows_of(lines: DataFrame, dialect: Dialect, layouts: Sequence[_Layout], parts: int) -> DataFrame:
    """Return the rows of a `Table`, made of lines."""
    width = len(layouts[0].order)
    options = {"sep": dialect.separator, "quote": '"', "escape": '"', "maxColumns": str(2 * width + 20_480)}
    options |= {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": BROKEN}
    ends = [F.col(_part(n)).alias(cell(width + n)) for n in range(parts)]
    frames = []
    for layout in layouts:
        schema = ", ".join(f"{cell(n)} string" for n in layout.order) + f", {BROKEN} string"
        chosen = lines if layout.files is None else lines.where(F.col(PATH).isin(sorted(layout.files)))
        is_header = F.lit(False) if layout.header is None else F.col(_LINE) == layout.header
        # Of a struct's fields Spark would parse each line once for a filter, and once more; not of those of `inline`.
        parsed = F.inline(F.array(F.from_csv(_LINE, schema, options)))
        rows = chosen.where(_is_filled(dialect))
        frames.append(rows.select(parsed, *ends, _LINE, PATH, START, is_header.alias(IS_HEADER)))
    return reduce(DataFrame.unionByName, frames)


@dataclass(frozen=True, kw_only=True)
class _LinesTable(Table):
    """A table of text files that are read line by line.

    Attributes
    ----------
    paths : tuple of str
    lines : DataFrame
    dialect : Dialect
    width : int
        How many cells a line has.
    first : tuple of str
        The first file, and its first line.
    with_header : frozenset of str
        The files that should have a header.
    """

    paths: tuple[str, ...]
    lines: DataFrame
    dialect: Dialect
    width: int
    first: tuple[str, str]
    with_header: frozenset[str]

    def watched(self) -> list[Column]:
        line, is_header = F.col(_LINE), F.col(IS_HEADER)
        continues = line.contains('"') & ~line.rlike(rf"\A{self.dialect.whole_line}\z")
        misread = line.startswith(_MARK) | line.contains(_NO_CHARACTER)
        return [
            F.count_if(~F.is_valid_utf8(line)).alias("not utf8"),
            F.count_if(continues | misread).alias("open"),
            F.count_if(is_header).alias("headers"),
            F.collect_set(F.when(is_header, F.col(PATH))).alias("files"),
        ]

    def resolve(self, found: Row) -> Table:
        if found["not utf8"]:
            _refuse_other_encodings(self.lines)
        with_first = frozenset(found["files"])
        is_repeated = found["headers"] > len(with_first)  # a record equals the header, or the header has a line break
        if found["open"] or is_repeated:
            return self._read_whole()
        if not (others := self.with_header - with_first):
            return self
        firsts = _first_lines(self.lines.where(F.col(PATH).isin(sorted(others))), self.dialect)
        return self._with_headers(firsts | dict.fromkeys(with_first, self.first[1])) if firsts else self

    def _read_whole(self) -> Table:
        """Return the same table read as whole files."""
        return read_whole(self.lines.sparkSession, self.paths, self.dialect, header_is_assumed=self.header_is_assumed)

    def _with_headers(self, firsts: dict[str, str]) -> Table:
        """Return the same table where files have different headers; ``firsts`` has them."""
        if not all(re.fullmatch(self.dialect.whole_line, line) for line in firsts.values()):
            return self._read_whole()
        file, line = self.first
        names = self.dialect.names(self.dialect.first_record(line, file))
        layouts = []
        for header in sorted(set(firsts.values()), key=lambda line: (line != self.first[1], line)):
            files = sorted(file for file, line in firsts.items() if line == header)
            other = self.dialect.names(self.dialect.first_record(header, files[0]))
            order = self.dialect.order(names, file, other, files[0])
            layouts.append(_Layout(header=header, order=order, files=frozenset(files)))
        rows = _rows_of(self.lines, self.dialect, layouts, len(self.names) - self.width)
        return replace(self, rows=rows, with_header=frozenset(firsts))


def _refuse_other_encodings(lines: DataFrame) -> None:
    """Raise InputError if some lines are not UTF-8."""
    wrong = ~F.is_valid_utf8(_LINE)
    count, file = lines.where(wrong).agg(F.count("*"), F.min(PATH)).collect()[0]
    if count:
        numbers = with_row_numbers(lines.where(F.col(PATH) == file)).where(wrong).orderBy(ROW)
        line, content = numbers.select(ROW, F.col(_LINE).cast("binary")).limit(1).collect()[0]
        raise encoding_error("UTF-8", file, line + 1, bytes(content), count)


def read_whole(
    spark: SparkSession, paths: Sequence[str], dialect: Dialect, *, header_is_assumed: bool = False
) -> Table:
    """Read text files whole, each in one task.

    Raises
    ------
    InputError
        If a file is too large for that, or not in its encoding.
    """
    sizes = spark.read.format("binaryFile").load(list(paths)).select("path", "length")
    packed = reduce(or_, (F.col("path").endswith(ending) for ending in COMPRESSIONS))
    limit = F.when(packed, _LARGEST_WHOLE_FILE // _PACKED).otherwise(_LARGEST_WHOLE_FILE)
    too_large = sizes.withColumn("limit", limit).where("length > limit").orderBy("path").limit(1)
    for file, size, most in too_large.collect():
        raise InputError(
            f"a file with line breaks inside of cells, U+FEFF or U+FFFF, or in another encoding than UTF-8, must have "
            f"at most {most >> 20} MiB, but {file} has {size >> 20:,}: split it, or write it as Parquet"
        )
    raw, parts = text_files(spark, paths, whole=True)
    ends = list(map(_part, range(len(parts))))
    files = with_places(raw, [_LINE, *ends]).select(F.col(_LINE).cast("binary"), PATH, *ends)
    begins = files.mapInArrow(
        partial(first_records, dialect), "path string, cells array<string>, line int, wrong binary, problem string"
    )
    firsts = {}
    for file, cells, line, wrong, problem in begins.orderBy("path").collect():
        if problem is not None:
            raise InputError(problem)
        if wrong is not None:
            raise encoding_error(dialect.encoding, file, line, bytes(wrong))
        firsts[file] = cells
    if not firsts:
        raise InputError(f"there must be at least one row, but {dialect.source} is empty")
    file, first = next(iter(firsts.items()))
    names, orders = dialect.names(first), {}
    if dialect.header:
        orders = {other: dialect.order(names, file, dialect.names(cells), other) for other, cells in firsts.items()}
    schema = ", ".join(f"{cell(n)} string" for n in range(len(names) + len(parts)))
    found = files.mapInArrow(
        partial(whole_records, dialect, orders, len(names)), f"{schema}, {BROKEN} string, {PATH} string"
    )
    rows = found.select("*", F.lit(0).cast("bigint").alias(START), F.lit(False).alias(IS_HEADER))
    return Table(
        rows=rows, names=[*names, *parts], source=dialect.source, is_text=True, header_is_assumed=header_is_assumed
    )
