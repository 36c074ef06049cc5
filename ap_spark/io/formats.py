"""Files into tables: which format a file has, and how it is read."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Sequence
from urllib.parse import unquote

import pyspark.sql.functions as F
from pyspark.sql import SparkSession

from ap_spark._spark.session import with_settings
from ap_spark.errors import InputError, SettingError
from ap_spark.io.records import COMPRESSIONS, Dialect, shown, with_more
from ap_spark.io.tables import AS_WRITTEN, Table, cell, placed, reading
from ap_spark.io.text_files import read_lines, read_whole, text_files
from ap_spark.settings import Input

__all__ = ["SEPARATORS", "format_of", "read_table"]

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
MORE_JSON = r"[}\]]\s*(,\s*([{\[]|$)|[^\s,}\]])"  # an end, and not of what may follow one; or all this in a string
SEPARATORS = {"csv": ",", "tsv": "\t"}


def read_table(
    spark: SparkSession, path: str, *, format: str = "auto", header: bool = True, encoding: str = "utf-8"
) -> Table:
    """Read a table; columns of text files are strings, named by the header or by their position from 0.

    Parameters
    ----------
    spark, path, format, header, encoding
        See `readers.read_similarities`. Text in other encodings than UTF-8 is read whole, each file in one task.

    Raises
    ------
    InputError
        If there is no such file, it is empty or damaged, its files do not go together, or its format cannot be told.
    SettingError
        If an argument is no string, or none that is known.
    """
    if not isinstance(path, str):
        raise SettingError(f"a path must be a string, as Spark takes it, got {path!r}")
    Input(format=format, header=header, encoding=encoding)
    kind = format_of(path) if format == "auto" else format
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    if kind not in SEPARATORS and not is_utf8:
        raise SettingError(f"encoding is of csv and tsv files, but {path!r} is read as {kind}: leave it out")
    with reading(path, kind):
        check_files(spark, path)
        if kind in SEPARATORS:
            dialect = Dialect(path=path, separator=SEPARATORS[kind], header=header, encoding=encoding)
            return read_lines(spark, dialect) if is_utf8 else read_whole(spark, dialect)
        with with_settings(spark, AS_WRITTEN):
            frame = spark.read.format(kind).option("mergeSchema", True).load(path)
            names = frame.columns
        check_names(names, path)
        if kind == "json":
            check_lines(spark, path, names)
        return Table(rows=placed(frame, map(cell, range(len(names)))), names=names, source=path)


def check_names(names: Sequence[str], path: str) -> None:
    """Raise InputError if names of columns differ in case alone: of one of them Spark would read nothing."""
    spellings: dict[str, str] = {}
    for name in names:
        if (other := spellings.setdefault(name.lower(), name)) != name:
            raise InputError(
                f"names of columns must differ, in more than upper and lower case, but in {path!r} there are "
                f"{other!r} and {name!r}: rename one, in all files alike (in csv and tsv files they may)"
            )


def check_files(spark: SparkSession, path: str) -> None:
    """Tell of the files of a directory that Spark would leave out without a word.

    Raises
    ------
    InputError
        If some files lie in directories such as day=1, and others do not, or in those of other names.
    """
    listed = spark.read.format("binaryFile").load(path)
    files = listed.inputFiles()
    examples: dict[tuple[str, ...], str] = {}
    for file in sorted(files):
        ahead = (part.partition("=") for part in unquote(file).split("/")[:-1])
        names = tuple(name for name, equals, _ in ahead if equals and name in listed.columns)
        examples.setdefault(names, file)
    if len(examples) > 1:
        first, second = list(examples.values())[:2]
        raise InputError(
            f"either all files or none must lie in directories such as day=1, with the same names, but in {path!r} "
            f"there are {first} and {second}: move them, or read them one after the other"
        )
    below = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(path).inputFiles()
    if left_out := sorted(set(below).difference(files)):
        logger.warning(
            "files in directories below %r are left out, such as %s (%s in all): to read them, move them up",
            *(path, left_out[0], f"{len(left_out):,}"),
        )


def check_lines(spark: SparkSession, path: str, names: list[str]) -> None:
    """Raise InputError unless each line is one JSON value: of several Spark would read the first, and say nothing."""
    if "_corrupt_record" in names:
        raise InputError(
            f"every line must be a JSON object in UTF-8, but in {path!r} some are not: `jq . FILE` says which"
        )
    lines = text_files(spark, path)[0]
    suspicious = lines.select(F.col(lines.columns[0]).alias("value")).where(F.col("value").rlike(MORE_JSON))
    for (line,) in suspicious.mapInArrow(with_more, "value string").limit(1).collect():
        raise InputError(
            f"every line must be one JSON object, but in {path!r} there are some with more, such as {shown(line)}: "
            "`jq -c . FILE` puts each on a line"
        )


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
