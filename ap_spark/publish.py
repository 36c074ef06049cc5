"""Output that appears whole or not at all.

Everything is written to a staging directory beside the output, which is renamed when it is complete. Object stores
cannot rename at once: there it is written in its place, and the file _SUCCESS, written last, says that it is whole.

Of two runs aimed at one output, one is refused: at its beginning where a file can be locked, else when it finds the
other's output in its place, or that the other has begun to write there.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyspark.sql.functions as F
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from ap_spark.clustering import Clustering
from ap_spark.errors import OutputError, OutputInUse
from ap_spark.processes import is_running, machine
from ap_spark.stores import SUCCESS, Store, is_a

__all__ = ["OutputDirectory", "OutputIsThere", "claimed"]

UNFINISHED = "_PUBLISHING"  # in an output that is written in its place: by whom
ROWS_A_FILE = 1_000_000
RFC_4180 = {"header": True, "escape": '"', "ignoreLeadingWhiteSpace": False, "ignoreTrailingWhiteSpace": False}
WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("parquet", {}),
    "csv": ("csv", RFC_4180),
    "tsv": ("csv", RFC_4180 | {"sep": "\t"}),
    "json": ("json", {"ignoreNullFields": False}),
}


class OutputIsThere(Exception):
    """The output is complete already, and the run was asked to leave it so."""


@contextmanager
def claimed(spark: SparkSession, path: str, if_exists: str) -> Iterator[OutputDirectory]:
    """An output that no other run is at work on, for as long as this one is.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A directory anywhere Spark can write.
    if_exists : {"refuse", "replace", "skip"}

    Raises
    ------
    OutputError
        If there is an output already and it is to be refused, or it cannot be written.
    OutputInUse
        If another run is at work on it.
    OutputIsThere
        If there is a complete one and it is to be skipped.
    """
    directory = OutputDirectory(spark, path, replace=if_exists == "replace")
    with directory.store.locked(f".{directory.name}.lock") as granted:
        if granted is False:
            raise directory.in_use("is at work on")
        directory.clear_leftovers(alone=granted is True)
        if if_exists == "skip" and directory.is_complete:
            raise OutputIsThere(f"{directory.target} is there already: nothing to do")
        directory.refuse_existing()
        yield directory


class OutputDirectory:
    """One output: looked at before the work, published after it.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A directory anywhere Spark can write.
    replace : bool
        Whether an existing output may be replaced.

    Raises
    ------
    OutputError
        If that is no place for an output, or cannot be written: now, not after hours.
    """

    def __init__(self, spark: SparkSession, path: str, *, replace: bool) -> None:
        self.replace = replace
        self.owner = f"{machine()}.{os.getpid()}"
        self.mark = f"{self.owner} {secrets.token_hex(8)}"
        try:
            self.target = Store(spark, path)
            if self.target.parent is None:
                raise OutputError(f"the output must be a directory of its own, got {path!r}")
            self.name = self.target.name
            self.store = Store(spark, self.target.parent)
            self.store.check_writable(self.beside("probe"))
        except OSError as error:
            raise OutputError(f"the output must be in a directory that can be written, but {error}") from error

    @property
    def is_complete(self) -> bool:
        return self.target.exists(SUCCESS)

    @property
    def writer(self) -> str | None:
        """The mark of the run that has begun to write in the output's place, and not ended."""
        return None if self.is_complete else self.target.read_text(UNFINISHED)

    def refuse_existing(self) -> None:
        """Raise OutputError if there is an output that may not be replaced, OutputInUse if its writer lives.

        Half an output of a writer that is dead, or on another machine, may be; should it live, `check_mark` tells it.
        """
        writer = self.writer
        if writer is not None and lives(writer.partition(" ")[0]):
            raise self.in_use(f"says in {UNFINISHED} (delete it if that run is dead) that it is writing to")
        if self.store.exists(self.name) and not self.replace and writer is None:
            whole = "does" if self.is_complete else f"does, and is no complete output (there is no {SUCCESS})"
            raise OutputError(
                f"the output must not exist yet, but {self.target} {whole}: give --overwrite to replace it"
            )

    def in_use(self, how: str) -> OutputInUse:
        return OutputInUse(f"an output must be of one run, but another one {how} {self.target}")

    def beside(self, purpose: str) -> str:
        """A hidden name beside the output, of this process on this machine."""
        return f".{self.name}.{purpose}.{self.owner}"

    def clear_leftovers(self, *, alone: bool) -> None:
        """Delete what killed runs to this output left beside it; put a replaced output back.

        With the output locked this run is alone, and all others are dead. Elsewhere those are that no longer run on
        this machine.
        """
        prefix = f".{self.name}."
        for found in self.store.names():
            if not found.startswith(prefix):
                continue
            purpose, _, owner = found.removeprefix(prefix).partition(".")
            if purpose not in ("staging", "old", "probe") or not (alone or lives(owner) is False):
                continue
            if purpose == "old" and not self.store.exists(self.name):
                self.store.rename(found, self.name)  # killed between the two renames of `place`
            else:
                self.store.delete(found)

    def publish(
        self,
        tables: dict[str, tuple[DataFrame, int]],
        output_format: str,
        summary: dict[str, Any],
        numbers: Clustering | None = None,
    ) -> None:
        """Write tables and a summary, and put them in their place.

        Parameters
        ----------
        tables : dict
            By name, which becomes a directory: the table, and about how many rows it has.
        output_format : str
        summary : dict
            Becomes summary.json, with the seconds of writing added.
        numbers : Clustering, optional
            With tsv, written as labels.tsv and cluster_centers_indices.tsv too: one number a line, points in the
            order of their ids.

        Raises
        ------
        OutputInUse
            If another run has put an output in this one's place, or is about to; nothing of the other's is deleted.
        """
        in_place = not self.store.renames_at_once
        staged = self.name if in_place else self.beside("staging")
        if in_place:
            self.make_room()
        try:
            started = time.perf_counter()
            for name, (table, count) in tables.items():
                if in_place:
                    self.check_mark()
                self.write(table, f"{self.store}/{staged}/{name}", output_format, count)
            if output_format == "tsv" and numbers is not None:
                self.write_numbers(numbers, staged)
            summary["seconds"]["write"] = round(time.perf_counter() - started, 3)
            text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
            self.store.write_text(f"{staged}/summary.json", text)
            if in_place:
                self.check_mark()
            self.store.write_text(f"{staged}/{SUCCESS}", "")  # the last file
            if in_place:
                self.conclude()
            else:
                self.place(staged)
        finally:
            if not in_place or self.writer == self.mark:
                self.store.delete(staged)

    def make_room(self) -> None:
        """Begin to write in the output's place. One that stands there is no longer whole from now on."""
        try:
            self.refuse_existing()
        except OutputError as error:  # it was not there at the beginning
            raise self.in_use("has written to") from error
        self.target.delete(SUCCESS)
        self.store.delete(self.name)
        self.target.write_text(UNFINISHED, self.mark)

    def check_mark(self) -> None:
        """Raise OutputInUse if another run has made room for itself since we did."""
        if self.target.read_text(UNFINISHED) != self.mark:
            raise self.in_use("has written to")

    def conclude(self) -> None:
        """Take our mark away; what another run has made room for in the last moment is not whole."""
        try:
            self.check_mark()
        except OutputInUse:
            self.target.delete(SUCCESS)
            raise
        self.target.delete(UNFINISHED)

    def write(self, table: DataFrame, path: str, output_format: str, count: int) -> None:
        """Write a table of ``count`` rows, sorted by its first column, as few files."""
        kind, options = WRITERS[output_format]
        files, key = -(-count // ROWS_A_FILE), table.columns[0]
        few = table.repartitionByRange(files, key) if files > 1 else table.coalesce(1)
        few.sortWithinPartitions(key).write.format(kind).options(**options).save(path)

    def write_numbers(self, clustering: Clustering, staging: str) -> None:
        """Labels, and rows of the exemplars, as plain columns of numbers: the files of Concurrent_AP."""
        is_exemplar = F.col("id") == F.col("exemplar")
        rows = clustering.assignments.orderBy("id").select("label", is_exemplar.alias("is_exemplar")).toArrow()
        self.store.write_text(f"{staging}/labels.tsv", lines(rows["label"].to_numpy()))
        centers = np.flatnonzero(rows["is_exemplar"].to_numpy())
        self.store.write_text(f"{staging}/cluster_centers_indices.tsv", lines(centers))

    def place(self, staged: str) -> None:
        """Rename the complete output to its name; one that stood there goes only now."""
        old = self.beside("old")
        replaced = self.replace and self.store.exists(self.name)
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


def lives(owner: str) -> bool | None:
    """Whether a process that left something behind still runs; None if it is another machine's.

    One of our own number was before us: a container that is started again may count from the beginning.
    """
    host, _, process = owner.rpartition(".")
    return (process != str(os.getpid()) and is_running(process)) if host == machine() else None


def lines(numbers: NDArray[np.int64]) -> str:
    return "".join(f"{number}\n" for number in numbers.tolist())
