"""Files into tables: which format they have, and how they are read."""

from __future__ import annotations

import codecs
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

import pyspark.sql.functions as F
from pyspark.sql import SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import with_settings
from ap_spark.errors import InputError, SettingError
from ap_spark.io.records import COMPRESSIONS, Dialect, format_text, lines_with_more
from ap_spark.io.tables import AS_WRITTEN, Table, cell, reading, with_places
from ap_spark.io.text_files import looks_like_tsv, read_lines, read_whole, text_files
from ap_spark.settings import Input, check_values

__all__ = ["check_format", "format_paths", "path_list", "read_table"]

logger = logging.getLogger(__name__)

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "txt",  # tsv if its first line has a tab, else csv
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".orc": "orc",
}
_SEPARATORS = {"csv": ",", "tsv": "\t"}
_TEXT = (*_SEPARATORS, "txt")
_MORE_JSON = r"[}\]]\s*(,\s*([{\[]|$)|[^\s,}\]])"  # an end, and not of what may follow one; or all this in a string


def path_list(path: str | Sequence[str]) -> list[str]:
    """Return one path, or several, as a list.

    Raises
    ------
    SettingError
        If it is neither a string nor a sequence of strings.
    """
    paths = [path] if isinstance(path, str) or not isinstance(path, Sequence) else list(path)
    for one in paths:
        if not isinstance(one, str):
            raise SettingError(f"a path must be a string, as Spark takes it, got {one!r}")
    if not paths:
        raise SettingError("there must be at least one path, got none")
    return paths


def format_paths(paths: Sequence[str]) -> str:
    """Format paths for a message: three at most.

    >>> format_paths(["a.csv", "b.csv", "c.csv", "d.csv"])
    "'a.csv', 'b.csv' and 2 more"
    """
    shown = paths if len(paths) <= 3 else paths[:2]
    rest = f" and {len(paths) - len(shown):,} more" if len(paths) > len(shown) else ""
    return ", ".join(map(repr, shown)) + rest


def check_format(
    path: str | Sequence[str], format: str = "auto", encoding: str = "utf-8", *, is_local: bool = True
) -> str | None:
    """Return the format of files as far as it is known without Spark: by their names, or those in a local directory.

    Parameters
    ----------
    path : str or sequence of str
        Files, directories and patterns, anywhere Spark can read.
    format : {"auto", "csv", "tsv", "parquet", "json", "orc"}
        "auto" goes by the names.
    encoding : str
        Only csv and tsv files may have another one than UTF-8.
    is_local : bool
        Whether paths without a scheme are of this machine, so that directories can be looked into.

    Returns
    -------
    str or None
        The format; "txt" for csv or tsv, as the first line will tell; None if only Spark can find the files.

    Raises
    ------
    InputError
        If names tell no format, or several.
    SettingError
        If an argument is none of those that are known, or the encoding is for another format.

    Examples
    --------
    >>> check_format("scores/part-0.tsv.gz")
    'tsv'
    """
    paths = path_list(path)
    check_values(Input, format=format, encoding=encoding)
    if format != "auto":
        return _check_encoding(format, encoding, paths)
    known: dict[str, str] = {}
    for one in paths:
        if kind := _format_of_name(one):
            known.setdefault(kind, one)
        else:
            for file in _local_files(one, is_local=is_local):
                known.setdefault(_format_of_file(file), file)
    if len(known) > 1:
        _refuse_formats(known)
    return _check_encoding(next(iter(known)), encoding, paths) if known else None


def _check_encoding(kind: str, encoding: str, paths: Sequence[str]) -> str:
    """Return the format; SettingError if an encoding has been named for one that is no text."""
    if kind not in _TEXT and not _is_utf8(encoding):
        raise SettingError(
            f"encoding is of csv and tsv files, but {format_paths(paths)} is read as {kind}: leave it out"
        )
    return kind


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _format_of_name(path: str) -> str | None:
    """Return the format that the name of a file or directory tells."""
    name = path.rstrip("/").lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def _format_of_file(file: str) -> str:
    """Return the format that the name of a file tells; InputError if it tells none."""
    if kind := _format_of_name(file):
        return kind
    kinds = sorted({*_SUFFIXES.values()} - {"txt"})
    raise InputError(
        f"the format of {file!r} cannot be told from its name: give --format (in Python format=...), one of "
        f"{', '.join(kinds)}; or use one of the endings {', '.join(_SUFFIXES)}"
    )


def _refuse_formats(known: dict[str, str]) -> None:
    (kind, file), (other, other_file) = list(known.items())[:2]
    raise InputError(
        f"all files must have one format, but {file!r} is {kind} by its name and {other_file!r} is {other}: read them "
        "one after the other, or give --format (in Python format=...)"
    )


def _local_files(path: str, *, is_local: bool) -> list[str]:
    """Return the files that Spark would read of a path of this machine; nothing if it is not here, or a pattern.

    Like Spark's, the list is without names that begin with _ or a dot, and without directories but those such as day=1.
    """
    scheme, colon, rest = path.partition(":")
    if not (is_local or scheme == "file"):
        return []
    if colon and "/" not in scheme and scheme != "file":
        return []
    place = Path(re.sub("^//(?=/)", "", rest) if colon and scheme == "file" else path)
    if place.is_file():
        return [path]
    found = []
    for where, directories, files in os.walk(place):
        directories[:] = [name for name in directories if "=" in name and name[0] not in "_."]
        found += [os.path.join(where, name) for name in files if name[0] not in "_."]
    return sorted(found)


def read_table(
    spark: SparkSession,
    path: str | Sequence[str],
    *,
    format: str = "auto",
    header: bool | None = None,
    encoding: str = "utf-8",
) -> tuple[Table, str]:
    """Read a table; columns of text files are strings, named by the header or by their position from 0.

    Parameters
    ----------
    spark, path, format, header, encoding
        See `readers.read_similarities`. Text in other encodings than UTF-8 is read whole, each file in one task.

    Returns
    -------
    Table
    str
        The format.

    Raises
    ------
    InputError
        If there is no such file, it is empty or damaged, its files do not go together, or its format cannot be told.
    SettingError
        If an argument is of the wrong type, or none that is known.
    """
    paths = path_list(path)
    check_values(Input, header=header)
    kind = check_format(paths, format, encoding, is_local=classic.reads_this_machine(spark))
    source = format_paths(paths)
    with reading(source, kind or ""):
        files = _check_files(spark, paths, source)
        if kind is None:
            known = {_format_of_file(unquote(file)): unquote(file) for file in reversed(files)}
            if len(known) > 1:
                _refuse_formats(known)
            if not known:
                raise InputError(f"there must be at least one file, but there is none in {source}")
            kind = _check_encoding(next(iter(known)), encoding, paths)
        if kind == "txt":
            kind = "tsv" if looks_like_tsv(spark, paths) else "csv"
        read = _read_text if kind in _SEPARATORS else _read_typed
        return read(spark, paths, kind, source, header, encoding), kind


def _read_text(
    spark: SparkSession, paths: Sequence[str], kind: str, source: str, header: bool | None, encoding: str
) -> Table:
    """Read csv or tsv files."""
    dialect = Dialect(source=source, separator=_SEPARATORS[kind], header=header is not False, encoding=encoding)
    read = read_lines if _is_utf8(encoding) else read_whole
    return read(spark, paths, dialect, header_is_assumed=header is None)


def _read_typed(spark: SparkSession, paths: Sequence[str], kind: str, source: str, *_: object) -> Table:
    """Read files that say themselves which columns they have."""
    with with_settings(spark, AS_WRITTEN):
        frame = spark.read.format(kind).option("mergeSchema", True).load(list(paths))
        names = frame.columns
    _check_names(names, source)
    if kind == "json":
        _check_lines(spark, paths, source, names)
    return Table(rows=with_places(frame, map(cell, range(len(names)))), names=names, source=source)


def _check_names(names: Iterable[str], source: str) -> None:
    """Raise InputError if names of columns differ in case alone: of one of them Spark would read nothing."""
    spellings: dict[str, str] = {}
    for name in names:
        if (other := spellings.setdefault(name.lower(), name)) != name:
            raise InputError(
                f"names of columns must differ, in more than upper and lower case, but in {source} there are "
                f"{other!r} and {name!r}: rename one, in all files alike (in csv and tsv files they may)"
            )


def _check_files(spark: SparkSession, paths: Sequence[str], source: str) -> list[str]:
    """Return the files that Spark will read, in order; warn of those in a directory that it leaves out without a word.

    Raises
    ------
    InputError
        If a file is named twice; or some files lie in directories such as day=1, and others do not, or in those of
        other names.
    """
    listed = spark.read.format("binaryFile").load(list(paths))
    files = sorted(listed.inputFiles())
    if len(paths) > 1:
        counts = listed.groupBy("path").count().where("count > 1").orderBy("path").limit(1)
        for file, count in counts.collect():
            raise InputError(f"a file must be named once, but among {source} {file} is {count:,} times: leave one out")
    examples: dict[tuple[str, ...], str] = {}
    for file in files:
        ahead = (part.partition("=") for part in unquote(file).split("/")[:-1])
        names = tuple(name for name, equals, _ in ahead if equals and name in listed.columns)
        examples.setdefault(names, file)
    if len(examples) > 1:
        first, second = list(examples.values())[:2]
        raise InputError(
            f"either all files or none must lie in directories such as day=1, with the same names, but in {source} "
            f"there are {first} and {second}: move them, or read them one after the other"
        )
    below = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(list(paths)).inputFiles()
    if left_out := sorted(set(below).difference(files)):
        logger.warning(
            "files in directories below %s are left out, such as %s (%s in all): to read them, move them up",
            *(source, left_out[0], f"{len(left_out):,}"),
        )
    return files


def _check_lines(spark: SparkSession, paths: Sequence[str], source: str, names: Sequence[str]) -> None:
    """Raise InputError unless each line is one JSON value: of several Spark would read the first, and say nothing."""
    if "_corrupt_record" in names:
        raise InputError(
            f"every line must be a JSON object in UTF-8, but in {source} some are not: `jq . FILE` says which"
        )
    lines = text_files(spark, paths)[0]
    suspicious = lines.select(F.col(lines.columns[0]).alias("value")).where(F.col("value").rlike(_MORE_JSON))
    for (line,) in suspicious.mapInArrow(lines_with_more, "value string").limit(1).collect():
        raise InputError(
            f"every line must be one JSON object, but in {source} there are some with more, such as "
            f"{format_text(line)}: `jq -c . FILE` puts each on a line"
        )
