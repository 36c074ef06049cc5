"""Output that appears whole or not at all.

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.processes import machine
from ap_spark.errors import OutputError, OutputInUse, reason
from ap_spark.io.paths import Place, conflict, irreplaceable
from ap_spark.io.stores import SUCCESS, Store, is_a
from ap_spark.schema import OUTPUTS, check_output

__all__ = ["SUMMARY", "OutputDirectory", "OutputIsThere", "claimed", "read_written"]

logger = logging.getLogger(__name__)

FORMAT = "ap_spark/1"  # in summary.json: by this an output of ours is known
SUMMARY, _LABELS, _CENTERS = "summary.json", "labels.tsv", "cluster_centers_indices.tsv"
_STAGED = "output"  # in a staging directory
_IN_A_TABLE = {  # what Spark, and its committers, write there
    False: re.compile(r"part-.*|_SUCCESS"),
    True: re.compile(r"_temporary|__magic.*"),  # directories
}
_UNFINISHED = "_PUBLISHING"  # in an output that is written in its place: by whom
_PROCESS = re.compile(r"\d{1,9}")
_ROWS_A_FILE = 1_000_000
_RFC_4180 = {"header": True, "escape": '"', "ignoreLeadingWhiteSpace": False, "ignoreTrailingWhiteSpace": False}
WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
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
        with directory.writable():
            granted = until.enter_context(directory.store.locked(f".{directory.name}.lock"))
        if granted is False:
            raise directory.in_use("is at work on")
        directory.clear_leftovers(alone=granted is True)
        if if_exists == "skip" and directory.is_complete and directory.is_ours(directory.name):
            if not any(name == table or name.startswith(f"{table}.") for name in directory.target.names()):
                raise OutputError(
                    f"only an output of the same command is skipped, but {directory.target} is one of another, without "
                    f"{table}: choose another directory, or give --overwrite to replace it"
                )
            summary = directory.target.read_text(SUMMARY) or ""
            raise OutputIsThere(f"{directory.target} is there already: nothing to do", summary)
        directory.refuse_existing()
        directory.refuse_foreign()
        yield directory


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

    Raises
    ------
    OutputError
        If that is no place for an output, or cannot be written: now, not after hours.
    """

    def __init__(self, spark: SparkSession, path: str, *, replace: bool, apart_from: Sequence[Place] = ()) -> None:
        self.replace = replace
        self.apart_from = apart_from
        self.owner, self.token = f"{machine()}.{os.getpid()}", secrets.token_hex(8)
        self.mark = f"{self.owner} {self.token}"
        with self.writable():
            self.target = Store(spark, path)
            if self.target.parent is None:
                raise OutputError(f"the output must be a directory of its own, got {path!r}")
            self.name = self.target.name
            self.store = Store(spark, self.target.parent)
            self.check_apart()
            self.store.check_writable(self.beside("probing"))

    @property
    def is_complete(self) -> bool:
        return self.target.exists(SUCCESS)

    @property
    def writer(self) -> str | None:
        """The mark of the run that has begun to write in the output's place, and not ended."""
        return None if self.is_complete else self.target.read_text(_UNFINISHED)

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Make an OSError the refusal of this place."""
        try:
            yield
        except OSError as error:
            raise OutputError(f"the output must be in a directory that can be written, but {error}") from error

    def check_apart(self) -> None:
        if found := conflict(Place.of("the output", self.target), self.apart_from):
            raise OutputError(
                f"the output must lie apart from the input and the snapshots, but {found}: choose another directory"
            )

    def refuse_existing(self) -> None:
        """Raise OutputError if there is an output that may not be replaced, OutputInUse if its writer lives.

        Half an output may be replaced if its writer is dead or on another machine. Should that one live, `check_mark`
        makes it end.
        """
        writer = self.writer
        if writer is not None and _lives(writer.partition(" ")[0]):
            raise self.in_use(f"says in {_UNFINISHED} (delete it if that run is dead) that it is writing to")
        if self.store.is_file(self.name):
            raise OutputError(f"the output must be a directory, but {self.target} is a file: move it away")
        if self.store.exists(self.name) and not self.replace and writer is None:
            whole = "does" if self.is_complete else f"does, and is no complete output (there is no {SUCCESS})"
            raise OutputError(
                f"the output must not exist yet, but {self.target} {whole}: give --overwrite (in Python "
                "overwrite=True) to replace it"
            )

    def refuse_foreign(self) -> None:
        """Raise OutputError if something else than an output of ours is in the place, or a file was put into it."""
        if not self.store.exists(self.name):
            return
        self.check_apart()
        problem = self.target.local and irreplaceable(self.target.local)
        problem = problem or self.foreign(self.name)
        if problem:
            raise OutputError(f"only an output of ap-spark is replaced, but {self.target} {problem}")

    def foreign(self, name: str) -> str | None:
        """Return why a directory may not be replaced; None if it is empty, or an output of ours and nothing else."""
        found = self.store.entries(name)
        if not found:
            return None
        if not self.is_ours(name):
            return f"is none (by its {SUMMARY}): choose another directory, or move it away"
        files = {SUCCESS, _UNFINISHED, SUMMARY, _LABELS, _CENTERS}
        files |= {f"{table}.{output_format}" for table in OUTPUTS for output_format in WRITERS}
        for entry, is_directory in found.items():
            if entry not in (OUTPUTS if is_directory else files):
                return f"holds {entry!r}, which is not of an output: move it away"
            for part, within in self.store.entries(f"{name}/{entry}").items() if is_directory else ():
                if not _IN_A_TABLE[within].fullmatch(part):
                    return f"holds {f'{entry}/{part}'!r}, which is not of an output: move it away"
        return None

    def is_ours(self, name: str) -> bool:
        """Return whether a directory is an output: by its summary, or by our mark where that is not written yet."""
        try:
            summary = json.loads(self.store.read_text(f"{name}/{SUMMARY}") or "null")
        except ValueError:
            return False
        if not isinstance(summary, dict):
            return summary is None and self.store.is_file(f"{name}/{_UNFINISHED}")
        before = {"settings", "seconds"} <= summary.keys() and bool({"fingerprint", "graph"} & summary.keys())
        return summary.get("format") == FORMAT or before

    def in_use(self, how: str) -> OutputInUse:
        return OutputInUse(f"another run {how} {self.target}: wait until it has ended, or choose another directory")

    def beside(self, purpose: str) -> str:
        """Return a hidden name beside the output, with this process and machine, and digits that nobody can guess."""
        return f".{self.name}.{purpose}.{self.owner}.{self.token}"

    def clear_leftovers(self, *, alone: bool) -> None:
        """Delete what killed runs to this output left beside it; put a replaced output back.

        If this run is ``alone``, since it holds the lock, all others are dead. If not, only those are known to be dead
        that were on this machine and have ended.
        """
        pattern = re.compile(rf"\.{re.escape(self.name)}\.(staging|old|probing)\.(.+-\d+\.\d+)\.[0-9a-f]{{16}}")
        for match in filter(None, map(pattern.fullmatch, self.store.names())):
            found, purpose, owner = match[0], match[1], match[2]
            if not (alone or _lives(owner) is False):
                continue
            try:
                problem = self.kept(found, purpose)
            except (OSError, Py4JJavaError) as error:  # another user's
                problem = reason(error)
            if problem:
                logger.warning("%s/%s is left as it is: %s", self.store, found, problem)
            elif purpose == "old" and not self.store.exists(self.name):
                self.store.rename(found, self.name)  # killed between the two renames of `place`
            else:
                with suppress(Py4JJavaError):  # another user's
                    self.store.delete(found)

    def kept(self, found: str, purpose: str) -> str | None:
        """Return why a leftover is left as it is; None if it may be deleted, or put back."""
        place = Place.of("a leftover", Store(self.store.spark, f"{self.store}/{found}", dangling=True))
        if read := conflict(place, self.apart_from):
            return read
        if purpose == "old":
            ours = self.is_ours(found) and not self.foreign(found)
        elif purpose == "staging":
            ours = self.store.entries(found).keys() <= {_STAGED}
        else:
            ours = self.store.is_file(found)
        return None if ours else "it is no output of ap-spark, or holds more"

    def publish(
        self,
        tables: dict[str, tuple[DataFrame, int]],
        output_format: str,
        summary: dict[str, Any],
        *,
        single_file: bool = False,
        numbers: DataFrame | None = None,
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

        Raises
        ------
        OutputInUse
            If another run has written to the same place, or is about to. What it has written is not deleted.
        """
        for name, (table, _) in tables.items():
            check_output(name, table)
        in_place = not self.store.renames_at_once
        staging = self.beside("staging")
        staged = self.name if in_place else f"{staging}/{_STAGED}"
        if in_place:
            self.make_room()
        else:
            self.store.make_private(staging)
        try:
            started = time.perf_counter()
            for name, (table, count) in tables.items():
                if in_place:
                    self.check_mark()
                self.write(table, f"{staged}/{name}", output_format, count, single_file=single_file)
                if single_file:
                    if in_place:
                        self.check_mark()
                    self.join(f"{staged}/{name}", output_format)
            if output_format == "tsv" and numbers is not None:
                self.write_numbers(numbers, staged)
            summary["seconds"]["write"] = round(time.perf_counter() - started, 3)
            layout = {
                "output_format": output_format,
                "single_file": single_file,
                "tables": {
                    name: ", ".join(f"{column.name} {column.dataType.simpleString()}" for column in table.schema)
                    for name, (table, _) in tables.items()
                },
            }
            text = json.dumps({"format": FORMAT} | layout | summary, indent=2, allow_nan=False) + "\n"
            self.store.write_text(f"{staged}/{SUMMARY}", text)
            if in_place:
                self.check_mark()
            self.store.write_text(f"{staged}/{SUCCESS}", "")  # the last file
            if in_place:
                self.conclude()
            else:
                self.place(staged)
        finally:
            if not in_place:
                self.store.delete(staging)
            elif self.writer == self.mark:
                self.store.delete(self.name)

    def make_room(self) -> None:
        """Delete an output that stands in the place, and mark the place as ours."""
        try:
            self.refuse_existing()
        except OutputError as error:  # it was not there at the beginning
            raise self.in_use("has written to") from error
        self.refuse_foreign()
        self.target.delete(SUCCESS)
        self.target.write_text(_UNFINISHED, self.mark)  # what is half deleted is still an output of ours
        for name in self.target.names():
            if name != _UNFINISHED:
                self.target.delete(name)

    def check_mark(self) -> None:
        """Raise OutputInUse if another run has made room for itself since we did."""
        if self.target.read_text(_UNFINISHED) != self.mark:
            raise self.in_use("has written to")

    def conclude(self) -> None:
        """Remove our mark. If another run has taken the place in the last moment, the output is not whole."""
        try:
            self.check_mark()
        except OutputInUse:
            self.target.delete(SUCCESS)
            raise
        self.target.delete(_UNFINISHED)

    def join(self, table: str, output_format: str) -> None:
        """Replace the directory of a table by its only file, named after the table."""
        (part,) = (name for name in self.store.entries(table) if name.startswith("part-"))
        self.store.rename(f"{table}/{part}", f"{table}.{output_format}")
        self.store.delete(table)

    def write(self, table: DataFrame, name: str, output_format: str, count: int, *, single_file: bool = False) -> None:
        """Write a table of ``count`` rows, sorted by its first column, as few files."""
        kind, options = WRITERS[output_format]
        files, key = 1 if single_file else -(-count // _ROWS_A_FILE), table.columns[0]
        if single_file:  # whatever the session says
            options = options | {"maxRecordsPerFile": 0} | ({} if kind == "parquet" else {"compression": "none"})
        few = table.repartitionByRange(files, key) if files > 1 else table.coalesce(1)
        few.sortWithinPartitions(key).write.format(kind).options(**options).save(f"{self.store}/{name}")

    def write_numbers(self, numbers: DataFrame, staged: str) -> None:
        """Write the labels, and the positions of the exemplars among them, one a line, as Concurrent_AP does."""
        rows = numbers.toArrow()
        self.store.write_text(f"{staged}/{_LABELS}", _lines(rows["label"].to_numpy()))
        centers = np.flatnonzero(rows["is_exemplar"].to_numpy())
        self.store.write_text(f"{staged}/{_CENTERS}", _lines(centers))

    def place(self, staged: str) -> None:
        """Rename the complete output to its name. Only now the one before it is deleted."""
        old = self.beside("old")
        replaced = self.replace and self.store.exists(self.name)
        if replaced:
            self.refuse_foreign()
        try:
            if replaced:
                self.store.rename(self.name, old)
            self.store.rename(staged, self.name)
        except Py4JJavaError as error:
            if is_a(error, "org.apache.hadoop.fs.FileAlreadyExistsException"):
                raise self.in_use("has written to") from error
            raise
        finally:
            if replaced and not self.store.exists(self.name):
                self.store.rename(old, self.name)
        if replaced:
            self.store.delete(old)


def read_written(spark: SparkSession, path: str, name: str, summary: dict[str, Any]) -> DataFrame:
    """Read a table of an output; its summary has the format and the types."""
    output_format = summary["output_format"]
    kind, options = WRITERS[output_format]
    file = f"{path}/{name}.{output_format}" if summary["single_file"] else f"{path}/{name}"
    more = {"multiLine": True} if kind == "csv" else {}
    return spark.read.format(kind).options(**options, **more).schema(summary["tables"][name]).load(file)


def _lives(owner: str) -> bool | None:
    """Return whether a process that left something behind still runs; None if it is another machine's.

    A process with our number was before us, and is dead: a container that is started again numbers anew.
    """
    host, _, process = owner.rpartition(".")
    if host != machine():
        return None
    if not _PROCESS.fullmatch(process):  # nobody knows: it may live
        return True
    return process != str(os.getpid()) and psutil.pid_exists(int(process))


def _lines(numbers: NDArray[np.int64]) -> str:
    return "".join(f"{number}\n" for number in numbers.tolist())
