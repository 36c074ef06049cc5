"""The output directory, which appears whole or not at all.

Everything is written to a staging directory beside the output, and renamed when it is complete. Object stores
cannot rename at once: there it is written in its place, and the file _SUCCESS, written last, says that it is whole.

An output lies apart from all that is read. It replaces nothing but an output of ours, or an empty directory.

Of two runs aimed at one output, one is refused: at its beginning where a file can be locked, else when it finds the
other's output in its place, or that the other has begun to write there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.machine import machine_name
from ap_spark.errors import OutputError, OutputInUse
from ap_spark.io.paths import Place, conflict, irreplaceable
from ap_spark.io.stores import SUCCESS, Store, is_of_class
from ap_spark.schema import OUTPUTS, check_output
from ap_spark.wording import format_reason

__all__ = [
    "FORMAT",
    "PAGE",
    "PICTURES",
    "SUMMARY",
    "OutputDirectory",
    "OutputIsThere",
    "claimed",
    "foresee",
    "read_written",
    "write_batch",
]

logger = logging.getLogger(__name__)

FORMAT = "ap_spark/1"  # in summary.json: by this an output of ours is known
SUMMARY, _LABELS, _CENTERS = "summary.json", "labels.tsv", "cluster_centers_indices.tsv"
PAGE, PICTURES = "report.html", "pictures"  # of a report: the page, and the directory with what it shows
_STAGED = "output"  # in a staging directory
_IN_A_TABLE = {  # what Spark, and its committers, write there
    False: re.compile(r"part-.*|_SUCCESS"),
    True: re.compile(r"_temporary|__magic.*"),  # directories
}
_IN_PICTURES = re.compile(r"[a-z]+\.(svg|png)")
_UNFINISHED = "_PUBLISHING"  # in an output that is written in its place: by whom
_PROCESS = re.compile(r"\d{1,9}")
_ROWS_A_FILE = 1_000_000
_RFC_4180 = {"header": True, "escape": '"', "ignoreLeadingWhiteSpace": False, "ignoreTrailingWhiteSpace": False}
_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("parquet", {}),
    "csv": ("csv", _RFC_4180),
    "tsv": ("csv", _RFC_4180 | {"sep": "\t"}),
    "json": ("json", {"ignoreNullFields": False}),
}


class OutputIsThere(Exception):
    """The output is complete already, and the run was asked to leave it so.

    Attributes
    ----------
    summary : str
        The text of its summary.json.
    """

    def __init__(self, message: str, summary: str) -> None:
        super().__init__(message)
        self.summary = summary


@contextmanager
def claimed(
    spark: SparkSession, path: str, if_exists: str, apart_from: Sequence[Place] = (), table: str = "assignments"
) -> Iterator[OutputDirectory]:
    """Claim an output, so that no other run writes to it while this one does.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A directory anywhere Spark can write.
    if_exists : {"refuse", "replace", "skip"}
    apart_from : sequence of Place
        What it may not be, contain or lie in.
    table : str
        One that an output of this command holds, and of no other.

    Raises
    ------
    OutputError
        If there is an output already and it is to be refused, or skipped and of another command; or it cannot be
        written, or not be replaced.
    OutputInUse
        If another run is at work on it.
    OutputIsThere
        If there is a complete one and it is to be skipped.
    """
    directory = OutputDirectory(spark, path, replace=if_exists == "replace", apart_from=apart_from)
    with ExitStack() as until:
        with directory._writable():
            granted = until.enter_context(directory._store.locked(f".{directory._name}.lock"))
        if granted is False:
            raise directory._in_use_error("is at work on")
        directory._clear_leftovers(alone=granted is True)
        directory._check_existing(if_exists, table)
        yield directory


def foresee(
    spark: SparkSession, path: str, if_exists: str, apart_from: Sequence[Place] = (), table: str = "assignments"
) -> bool:
    """Return whether a run would replace an output that is there, and touch nothing; see `claimed`.

    Whether another run is at work, or a store takes what is written, does not show without writing.

    Raises
    ------
    OutputError, OutputInUse, OutputIsThere
        As `claimed`.
    """
    directory = OutputDirectory(spark, path, replace=if_exists == "replace", apart_from=apart_from, probe=False)
    directory._check_existing(if_exists, table)
    return directory._store.exists(directory._name)


class OutputDirectory:
    """The directory of one output: checked before the run, published after it.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A directory anywhere Spark can write.
    replace : bool
        Whether an existing output may be replaced.
    apart_from : sequence of Place
        What it may not be, contain or lie in.
    probe : bool
        Whether to find out if it can be written by writing a file, and not by looking alone.

    Raises
    ------
    OutputError
        If that is no place for an output, or cannot be written: now, not after hours.
    """

    def __init__(
        self,
        spark: SparkSession,
        path: str,
        *,
        replace: bool,
        apart_from: Sequence[Place] = (),
        probe: bool = True,
    ) -> None:
        self._replace = replace
        self._apart_from = apart_from
        self._owner, self._token = f"{machine_name()}.{os.getpid()}", secrets.token_hex(8)
        self._mark = f"{self._owner} {self._token}"
        with self._writable():
            self._target = Store(spark, path)
            if self._target.parent is None:
                raise OutputError(f"the output must be a directory of its own, got {path!r}")
            self._name = self._target.name
            self._store = Store(spark, self._target.parent)
            self._check_apart()
            if probe:
                self._store.check_writable(self._hidden_name("probing"))
            else:
                self._store.check_access()

    @property
    def _is_complete(self) -> bool:
        return self._target.exists(SUCCESS)

    @property
    def _writing_run(self) -> str | None:
        """The mark of the run that is writing in the output's place, or died there; None if there is none."""
        return None if self._is_complete else self._target.read_text(_UNFINISHED)

    @property
    def _is_written_in_place(self) -> bool:
        """Whether the output is written in its place, where a store cannot rename a directory at once."""
        return not self._store.renames_at_once

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Turn an OSError into the OutputError that refuses this place."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"the output must be in a directory that can be written, but {error}") from error

    def _check_apart(self) -> None:
        if found := conflict(Place.of("the output", self._target), self._apart_from):
            raise OutputError(
                f"the output must lie apart from the input and the snapshots, but {found}: choose another directory"
            )

    def _check_existing(self, if_exists: str, table: str) -> None:
        """Raise what `claimed` raises for what is in the output's place."""
        if if_exists == "skip" and self._is_complete and self._is_ours(self._name):
            if not any(name == table or name.startswith(f"{table}.") for name in self._target.names()):
                raise OutputError(
                    f"only an output of the same command is skipped, but {self._target} is one of another, "
                    f"without {table}: choose another directory, or give --overwrite to replace it"
                )
            summary = self._target.read_text(SUMMARY) or ""
            raise OutputIsThere(f"{self._target} is there already: nothing to do", summary)
        self._refuse_existing()
        self._refuse_foreign()

    def _refuse_existing(self) -> None:
        """Raise OutputError if there is an output that may not be replaced, OutputInUse if its writer lives.

        Half an output may be replaced if its writer is dead or on another machine. If that one still lives,
        `_check_mark` ends it.
        """
        writer = self._writing_run
        if writer is not None and _lives(writer.partition(" ")[0]):
            raise self._in_use_error(f"says in {_UNFINISHED} (delete it if that run is dead) that it is writing to")
        if self._store.is_file(self._name):
            raise OutputError(f"the output must be a directory, but {self._target} is a file: move it away")
        if self._store.exists(self._name) and not self._replace and writer is None:
            whole = "does" if self._is_complete else f"does, and is no complete output (there is no {SUCCESS})"
            raise OutputError(
                f"the output must not exist yet, but {self._target} {whole}: give --overwrite (in Python "
                "overwrite=True) to replace it"
            )

    def _refuse_foreign(self) -> None:
        """Raise OutputError if something else than an output of ours is in the place, or a file was put into it."""
        if not self._store.exists(self._name):
            return
        self._check_apart()
        problem = self._target.local and irreplaceable(self._target.local)
        problem = problem or self._why_not_replaced(self._name)
        if problem:
            raise OutputError(f"only an output of ap-spark is replaced, but {self._target} {problem}")

    def _why_not_replaced(self, name: str) -> str | None:
        """Return why a directory may not be replaced; None if it is empty, or an output of ours and nothing else."""
        found = self._store.entries(name)
        if not found:
            return None
        if not self._is_ours(name):
            return f"is none (by its {SUMMARY}): choose another directory, or move it away"
        files = {SUCCESS, _UNFINISHED, SUMMARY, _LABELS, _CENTERS, PAGE}
        files |= {f"{table}.{output_format}" for table in OUTPUTS for output_format in _WRITERS}
        for entry, is_directory in found.items():
            if entry not in ({*OUTPUTS, PICTURES} if is_directory else files):
                return f"holds {entry!r}, which is not of an output: move it away"
            for part, within in self._store.entries(f"{name}/{entry}").items() if is_directory else ():
                of_output = _IN_PICTURES if entry == PICTURES and not within else _IN_A_TABLE[within]
                if not of_output.fullmatch(part):
                    return f"holds {f'{entry}/{part}'!r}, which is not of an output: move it away"
        return None

    def _is_ours(self, name: str) -> bool:
        """Return whether a directory is an output: by its summary, or by our mark where that is not written yet."""
        try:
            summary = json.loads(self._store.read_text(f"{name}/{SUMMARY}") or "null")
        except ValueError:
            return False
        if not isinstance(summary, dict):
            return summary is None and self._store.is_file(f"{name}/{_UNFINISHED}")
        before = {"settings", "seconds"} <= summary.keys() and bool({"fingerprint", "graph"} & summary.keys())
        return summary.get("format") == FORMAT or before

    def _in_use_error(self, how: str) -> OutputInUse:
        return OutputInUse(f"another run {how} {self._target}: wait until it has ended, or choose another directory")

    def _hidden_name(self, purpose: str) -> str:
        """Return a hidden name beside the output, with this process and machine, and digits that nobody can guess."""
        return f".{self._name}.{purpose}.{self._owner}.{self._token}"

    def _clear_leftovers(self, *, alone: bool) -> None:
        """Delete what killed runs to this output left beside it; put a replaced output back.

        If this run is ``alone``, since it holds the lock, all others are dead. If not, only those are known to be dead
        that were on this machine and have ended.
        """
        pattern = re.compile(rf"\.{re.escape(self._name)}\.(staging|old|probing)\.(.+-\d+\.\d+)\.[0-9a-f]{{16}}")
        for match in filter(None, map(pattern.fullmatch, self._store.names())):
            found, purpose, owner = match[0], match[1], match[2]
            if not (alone or _lives(owner) is False):
                continue
            try:
                problem = self._why_left(found, purpose)
            except (OSError, Py4JJavaError) as error:  # another user's
                problem = format_reason(error)
            if problem:
                logger.warning("%s/%s is left as it is: %s", self._store, found, problem)
            elif purpose == "old" and not self._store.exists(self._name):
                self._store.rename(found, self._name)  # killed between the two renames of `_rename_into_place`
            else:
                with suppress(Py4JJavaError):  # another user's
                    self._store.delete(found)

    def _why_left(self, found: str, purpose: str) -> str | None:
        """Return why a leftover is left as it is; None if it may be deleted, or put back."""
        place = Place.of("a leftover", Store(self._store.spark, f"{self._store}/{found}", dangling=True))
        if read := conflict(place, self._apart_from):
            return read
        if purpose == "old":
            ours = self._is_ours(found) and not self._why_not_replaced(found)
        elif purpose == "staging":
            ours = self._store.entries(found).keys() <= {_STAGED}
        else:
            ours = self._store.is_file(found)
        return None if ours else "it is no output of ap-spark, or holds more"

    def publish(
        self,
        tables: dict[str, tuple[DataFrame, int]],
        output_format: str,
        summary: dict[str, Any],
        *,
        single_file: bool = False,
        numbers: DataFrame | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write tables and a summary, and put them in their place.

        Parameters
        ----------
        tables : dict
            By name, which becomes a directory: the table, and about how many rows it has.
        output_format : str
        summary : dict
            Becomes summary.json, with the seconds of writing added.
        single_file : bool
            Write each table as one file, NAME.FORMAT, instead of a directory of files.
        numbers : DataFrame, optional
            (label, is_exemplar) of all points, in order, written with tsv as labels.tsv and
            cluster_centers_indices.tsv: one number a line.
        files : dict, optional
            Those of a report, by name: PAGE, and others in the directory PICTURES.

        Raises
        ------
        OutputInUse
            If another run has written to the same place, or is about to. What it has written is not deleted.
        """
        for name, (table, _) in tables.items():
            check_output(name, table)
        in_place = self._is_written_in_place
        staging = self._hidden_name("staging")
        staged = self._name if in_place else f"{staging}/{_STAGED}"
        if in_place:
            self._clear_place()
        else:
            self._store.make_private(staging)
        try:
            started = time.perf_counter()
            for name, (table, count) in tables.items():
                self._check_mark()
                kind = _format_of(name, output_format)
                self._write_table(table, f"{staged}/{name}", kind, count, single_file=single_file)
                if single_file:
                    self._check_mark()
                    self._join_parts(f"{staged}/{name}", kind)
            if output_format == "tsv" and numbers is not None:
                self._write_numbers(numbers, staged)
            for name, data in (files or {}).items():
                self._store.write_bytes(f"{staged}/{name}", data)
            summary["seconds"]["write"] = round(time.perf_counter() - started, 3)
            layout = _layout_of(tables, output_format, single_file=single_file)
            text = json.dumps({"format": FORMAT} | layout | summary, indent=2, allow_nan=False) + "\n"
            self._store.write_text(f"{staged}/{SUMMARY}", text)
            self._check_mark()
            self._store.write_text(f"{staged}/{SUCCESS}", "")  # the last file
            if in_place:
                self._remove_mark()
            else:
                self._rename_into_place(staged)
        finally:
            if not in_place:
                self._store.delete(staging)
            elif self._writing_run == self._mark:
                self._store.delete(self._name)

    def _clear_place(self) -> None:
        """Delete an output that stands in the place, and mark the place as ours."""
        try:
            self._refuse_existing()
        except OutputError as error:  # it was not there at the beginning
            raise self._in_use_error("has written to") from error
        self._refuse_foreign()
        self._target.delete(SUCCESS)
        self._target.write_text(_UNFINISHED, self._mark)  # what is half deleted is still an output of ours
        for name in self._target.names():
            if name != _UNFINISHED:
                self._target.delete(name)

    def _check_mark(self) -> None:
        """Raise OutputInUse if another run has begun to write in the output's place since we did."""
        if self._is_written_in_place and self._target.read_text(_UNFINISHED) != self._mark:
            raise self._in_use_error("has written to")

    def _remove_mark(self) -> None:
        """Remove our mark. If another run has taken the place in the last moment, the output is not whole."""
        try:
            self._check_mark()
        except OutputInUse:
            self._target.delete(SUCCESS)
            raise
        self._target.delete(_UNFINISHED)

    def _join_parts(self, table: str, output_format: str) -> None:
        """Replace the directory of a table by its only file, named after the table."""
        (part,) = (name for name in self._store.entries(table) if name.startswith("part-"))
        self._store.rename(f"{table}/{part}", f"{table}.{output_format}")
        self._store.delete(table)

    def _write_table(
        self, table: DataFrame, name: str, output_format: str, count: int, *, single_file: bool = False
    ) -> None:
        """Write a table of ``count`` rows, sorted by its first column, as few files."""
        kind, options = _WRITERS[output_format]
        files, key = 1 if single_file else -(-count // _ROWS_A_FILE), table.columns[0]
        if single_file:  # whatever the session says
            options = options | {"maxRecordsPerFile": 0} | ({} if kind == "parquet" else {"compression": "none"})
        few = table.repartitionByRange(files, key) if files > 1 else table.coalesce(1)
        few.sortWithinPartitions(key).write.format(kind).options(**options).save(f"{self._store}/{name}")

    def _write_numbers(self, numbers: DataFrame, staged: str) -> None:
        """Write the labels, and the positions of the exemplars among them, one a line, as Concurrent_AP does."""
        rows = numbers.toArrow()
        self._store.write_text(f"{staged}/{_LABELS}", _lines(rows["label"].to_numpy()))
        centers = np.flatnonzero(rows["is_exemplar"].to_numpy())
        self._store.write_text(f"{staged}/{_CENTERS}", _lines(centers))

    def _rename_into_place(self, staged: str) -> None:
        """Rename the complete output to its name. Only now the one before it is deleted."""
        old = self._hidden_name("old")
        replaced = self._replace and self._store.exists(self._name)
        if replaced:
            self._refuse_foreign()
        try:
            if replaced:
                self._store.rename(self._name, old)
            self._store.rename(staged, self._name)
        except Py4JJavaError as error:
            if is_of_class(error, "org.apache.hadoop.fs.FileAlreadyExistsException"):
                raise self._in_use_error("has written to") from error
            raise
        finally:
            if replaced and not self._store.exists(self._name):
                self._store.rename(old, self._name)
        if replaced:
            self._store.delete(old)


def _format_of(table: str, output_format: str) -> str:
    """Return the format of a table: csv and tsv have no place for arrays."""
    return "parquet" if table == "exemplar_features" else output_format


def _layout_of(tables: dict[str, tuple[DataFrame, int]], output_format: str, *, single_file: bool) -> dict[str, Any]:
    """Return what the summary says of the files: their format, and the columns of each table."""
    columns = {
        name: ", ".join(f"{column.name} {column.dataType.simpleString()}" for column in table.schema)
        for name, (table, _) in tables.items()
    }
    return {"output_format": output_format, "single_file": single_file, "tables": columns}


def read_written(spark: SparkSession, path: str, name: str, summary: dict[str, Any]) -> DataFrame:
    """Read a table of an output; its summary has the format and the types."""
    output_format = _format_of(name, summary["output_format"])
    kind, options = _WRITERS[output_format]
    file = f"{path}/{name}.{output_format}" if summary["single_file"] else f"{path}/{name}"
    more = {"multiLine": True} if kind == "csv" else {}
    return spark.read.format(kind).options(**options, **more).schema(summary["tables"][name]).load(file)


def write_batch(table: DataFrame, path: str, output_format: str, count: int) -> None:
    """Write ``count`` points that were assigned to a directory, in place of what an attempt before has left there."""
    check_output("assigned", table)
    kind, options = _WRITERS[output_format]
    few = table.coalesce(-(-count // _ROWS_A_FILE))
    few.write.format(kind).options(**options).mode("overwrite").save(path)


def _lives(owner: str) -> bool | None:
    """Return whether a process that left something behind still runs; None if it is another machine's.

    A process with our number was before us, and is dead: a container that is started again numbers anew.
    """
    host, _, process = owner.rpartition(".")
    if host != machine_name():
        return None
    if not _PROCESS.fullmatch(process):  # nobody knows: it may live
        return True
    return process != str(os.getpid()) and psutil.pid_exists(int(process))


def _lines(numbers: NDArray[np.int64]) -> str:
    return "".join(f"{number}\n" for number in numbers.tolist())
