"""Text into records, as RFC 4180 and pandas have them: what a task does with a whole file, and with a header.

Nothing in here needs a Spark session.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv as pa_csv

from ap_spark.errors import InputError

__all__ = [
    "COMPRESSIONS",
    "LONGEST_EXAMPLE",
    "Dialect",
    "encoding_error",
    "first_records",
    "format_text",
    "lines_with_more",
    "parse_records",
    "whole_records",
]

COMPRESSIONS = (".gz", ".bz2", ".zst", ".lz4", ".snappy", ".deflate")
LONGEST_EXAMPLE = 200  # characters of a line, or of a name, in a message


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How text files are read.

    Attributes
    ----------
    source : str
        What a message calls the files.
    separator : str
        The character between two cells.
    header : bool
        Whether the first record names the columns.
    encoding : str
    """

    source: str
    separator: str
    header: bool = True
    encoding: str = "utf-8"

    @property
    def blanks(self) -> str:
        """The characters that do not fill a line: one of nothing else counts as empty."""
        return " \t".replace(self.separator, "")

    @property
    def whole_line(self) -> str:
        """The pattern of lines whose cells all end in them, be they quoted or not.

        A line that does not match may continue in the next one. Nothing in the pattern is tried again (++): long lines
        would exhaust Java's stack.
        """
        cell = f'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{self.separator}][^{self.separator}]*+|)'
        return f"{cell}(?:{self.separator}{cell})*+"

    def first_record(self, text: str, file: str) -> list[str]:
        """Return the cells of the first record of a text; ``file`` is for the message."""
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=self.separator))
        except csv.Error as error:
            raise InputError(
                f"a file must begin with a record of cells, but {unquote(file)} does not: {error}"
            ) from error

    def names(self, first: list[str]) -> list[str]:
        """Return the names of the columns: the first record, or the positions.

        Raises
        ------
        InputError
            If the first record is one cell that looks like several with another separator.
        """
        if len(first) == 1 and (other := self._other_separator(first[0])):
            raise InputError(
                f"cells must be separated by {_format_separator(self.separator)}, but the first line of "
                f"{self.source} is {format_text(first[0])}, as if {_format_separator(other)} were the separator: write "
                "the file with another one"
            )
        if not self.header:
            return [str(n) for n in range(len(first))]
        return [name.strip() for name in first]

    def _other_separator(self, text: str) -> str | None:
        """Return the separator that a text seems to have; None if there is none."""
        if self.header and ";" in text:
            return ";"
        numbers = re.fullmatch(r"[-+.\deE]*\d(?:([ \t]*[,;\t ])[ \t]*[-+]?\.?\d[-+.\deE]*)+", text.strip())
        return numbers and (numbers[1].strip(" ") or " ")

    def order(self, names: list[str], file: str, other: list[str], other_file: str) -> tuple[int, ...]:
        """Return which of the table's columns each of another file's is.

        Raises
        ------
        InputError
            If that file does not have the same columns, or which is which cannot be told.
        """
        if other == names:
            return tuple(range(len(names)))
        if sorted(other) != sorted(names) or len(set(names)) < len(names):
            raise InputError(
                f"all files of {self.source} must have the same columns, but {unquote(file)} has "
                f"{format_text(','.join(names))} and {unquote(other_file)} has {format_text(','.join(other))}"
            )
        return tuple(map(names.index, other))


def _format_separator(separator: str) -> str:
    """Return a separator as a message names it."""
    return {"\t": "a tab", " ": "a blank"}.get(separator, repr(separator))


def format_text(text: str) -> str:
    """Return a text in quotes, cut off where it is long."""
    return repr(text if len(text) <= LONGEST_EXAMPLE else text[:LONGEST_EXAMPLE] + "...")


def encoding_error(encoding: str, file: str, line: int, content: bytes, count: int = 0) -> InputError:
    """Return the error for bytes that stand for no characters.

    Parameters
    ----------
    encoding, file : str
    line : int
        The number of the first line with such bytes, from 1.
    content : bytes
        The line.
    count : int
        How many such lines there are, if that is known.
    """
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    likely = "utf-16" if line == 1 and content.startswith(marks) else "windows-1252"
    return InputError(
        f"text must be {encoding}, but line {line:,} of {unquote(file)} is not: {content[:80]!r}"
        + (f" (and {count - 1:,} more)" if count > 1 else "")
        + f"; give its --encoding, such as {likely}"
    )


def lines_with_more(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return the lines that have more behind their first JSON value."""
    decoder = json.JSONDecoder()

    def has_more(line: str) -> bool:
        try:
            return bool(line[decoder.raw_decode(line)[1] :])
        except ValueError:  # Spark refuses it, or can read it
            return False

    for batch in batches:
        lines = [line for line in batch["value"].to_pylist() if has_more(line.strip())]
        yield pa.RecordBatch.from_pydict({"value": pa.array(lines, pa.string())})


def _decoded(content: bytes, dialect: Dialect) -> str:
    """Return the text of a file, from its first line that is more than blanks."""
    text = content.decode(dialect.encoding).removeprefix("\ufeff")
    return re.sub(rf"\A([{dialect.blanks}]*(\r\n|\r|\n))+", "", text)


def first_records(dialect: Dialect, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Find the first record of each file, or what is wrong with the file.

    Parameters
    ----------
    dialect : Dialect
    batches : iterable of RecordBatch
        Content and path of each file.

    Yields
    ------
    RecordBatch
        path, cells, line, wrong, problem. Cells are the first record. Wrong is a line that is not in the encoding, and
        line is its number. Problem is a message of anything else.
    """
    for content, path, _ in _files_of(batches):
        cells, line, wrong, problem = None, None, None, None
        try:
            text = _decoded(content, dialect)
        except UnicodeDecodeError as error:
            before = content[: error.start].decode(dialect.encoding, "ignore")
            line, wrong = len(re.findall(r"\r\n|\r|\n", before)) + 1, content[error.start : error.start + 20]
        else:
            if not text:
                continue
            try:
                cells = dialect.first_record(text, path)
            except InputError as error:
                problem = str(error)
        columns = [pa.array([path]), pa.array([cells], pa.list_(pa.string()))]
        columns += [pa.array([line], pa.int32()), pa.array([wrong], pa.binary()), pa.array([problem], pa.string())]
        yield pa.RecordBatch.from_arrays(columns, names=["path", "cells", "line", "wrong", "problem"])


def _files_of(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[bytes, str, list[str]]]:
    """Return the content of each file, its path, and what its directories add."""
    for batch in batches:
        for content, path, *parts in zip(*batch.columns, strict=True):
            yield content.as_py(), path.as_py(), [part.as_py() for part in parts]


def parse_records(text: str, dialect: Dialect, width: int) -> tuple[pa.Table, list[str]]:
    r"""Return the records of a text, without its header.

    Parameters
    ----------
    text : str
    dialect : Dialect
    width : int
        How many cells a record should have.

    Returns
    -------
    pyarrow.Table
        The records of so many cells, in columns 0, 1, ... of text. An empty cell is null; in quotes it is "".
    list of str
        The text of all other records.

    >>> table, others = parse_records('a,b\n"1""\n",""\n2\n', Dialect(source="x.csv", separator=","), 2)
    >>> table.to_pylist(), others
    ([{'0': '1"\n', '1': ''}], ['2'])
    """
    others: list[str] = []

    def keep(row: pa_csv.InvalidRow) -> str:
        others.append(row.text)
        return "skip"

    # A last line that is no record: where a quote is not closed, it is part of a cell.
    end = dialect.separator * width
    content = f"{text}\n{end}\n".encode()
    names = [str(n) for n in range(width)]
    table = pa_csv.read_csv(
        pa.BufferReader(content),
        read_options=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(content) + 1),
        parse_options=pa_csv.ParseOptions(
            delimiter=dialect.separator, newlines_in_values=True, invalid_row_handler=keep
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    if others and others[-1] == end:
        others.pop()
    elif not others or end not in others[-1]:
        others.append(dialect.separator.join(str(column[-1]) for column in table.columns))
    return table.slice(1 if dialect.header else 0), [row for row in others if row.strip(dialect.blanks)]


def whole_records(
    dialect: Dialect, orders: Mapping[str, Iterable[int]], width: int, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Return the records of whole files.

    Parameters
    ----------
    dialect : Dialect
    orders : mapping
        By file: which of the table's columns each of the file's is; in order by default.
    width : int
        How many cells a record has.
    batches : iterable of RecordBatch
        Content and path of each file, and what its directories add.

    Yields
    ------
    RecordBatch
        c0, c1, ..., broken, path.
    """
    for content, path, parts in _files_of(batches):
        table, others = parse_records(_decoded(content, dialect), dialect, width)
        found = dict(zip(orders.get(path, range(width)), table.columns, strict=True))
        none = pa.nulls(len(others), pa.string())
        rows = len(table) + len(others)
        columns = [pa.chunked_array([*found[n].chunks, none]) for n in range(width)]
        columns += [pa.repeat(pa.scalar(part, pa.string()), rows) for part in parts]
        broken = pa.chunked_array([pa.nulls(len(table), pa.string()), pa.array(others, pa.string())])
        names = [*(f"c{n}" for n in range(width + len(parts))), "broken", "path"]
        yield from pa.table([*columns, broken, pa.repeat(path, rows)], names=names).combine_chunks().to_batches(10_000)
