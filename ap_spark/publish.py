"""Output that appears whole or not at all.

Everything is written to a staging directory beside the output, which is renamed when it is complete. Where a rename
is not atomic (object stores), the file _SUCCESS, written last, says that the rest is whole.

Paths are Hadoop paths, so that any store that Spark can write will do; these are calls of classic Spark.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyspark.sql.functions as F
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession

from ap_spark.clustering import Clustering
from ap_spark.errors import OutputError
from ap_spark.processes import is_running, machine

__all__ = ["OutputDirectory"]

ATOMIC_RENAME = ("file", "hdfs", "viewfs")
ROWS_A_FILE = 1_000_000
WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": ("parquet", {}),
    "csv": ("csv", {"header": True}),
    "tsv": ("csv", {"header": True, "sep": "\t"}),
    "json": ("json", {"ignoreNullFields": False}),
}


class OutputDirectory:
    """One output: claimed before the work, published after it.

    Parameters
    ----------
    spark : SparkSession
    path : str
        A directory anywhere Spark can write.
    overwrite : bool
        Whether an existing output may be replaced.

    Raises
    ------
    OutputError
        If there is an output already and it may not be replaced.
    """

    def __init__(self, spark: SparkSession, path: str, *, overwrite: bool) -> None:
        self.spark = spark
        jvm: Any = spark.sparkContext._jvm
        self.make_path: Callable[..., Any] = jvm.org.apache.hadoop.fs.Path
        given = self.make_path(path)
        self.fs = given.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
        self.target = self.fs.makeQualified(given)
        self.overwrite = overwrite
        if self.target.getParent() is None:
            raise OutputError(f"the output must be a directory of its own, got {path!r}")
        self.clear_leftovers()
        self.refuse_existing()
        self.check_writable()

    def check_writable(self) -> None:
        """Find out now, not after hours, whether the output can be written at all."""
        place = self.target.getParent()
        while not self.fs.exists(place):
            place = place.getParent()
        probe = self.make_path(place, self.beside("probe").getName())
        try:
            self.fs.create(probe, True).close()
            self.fs.delete(probe, False)
        except Py4JJavaError as error:
            problem = error.java_exception.toString().splitlines()[0]
            raise OutputError(
                f"the output must be in a directory that can be written, but {place}: {problem}"
            ) from error

    def refuse_existing(self) -> None:
        if self.fs.exists(self.target) and not self.overwrite:
            raise OutputError(f"the output must not exist yet, but {self.target} does: give --overwrite to replace it")

    def beside(self, purpose: str) -> Any:
        """A hidden name beside the output, of this process on this machine."""
        return self.make_path(self.target.getParent(), f".{self.target.getName()}.{purpose}.{machine()}.{os.getpid()}")

    def clear_leftovers(self) -> None:
        """Delete what killed runs to this output left beside it, on this machine; put a replaced output back."""
        prefix = f".{self.target.getName()}."
        parent = self.target.getParent()
        if not self.fs.exists(parent):
            return
        for found in self.fs.listStatus(parent):
            name = found.getPath().getName()
            if not name.startswith(prefix):
                continue
            purpose, _, owner = name.removeprefix(prefix).partition(".")
            host, _, process = owner.rpartition(".")
            if purpose not in ("staging", "old", "probe") or host != machine() or is_running(process):
                continue
            if purpose == "old" and not self.fs.exists(self.target):
                self.fs.rename(found.getPath(), self.target)  # killed between the two renames of `place`
            else:
                self.fs.delete(found.getPath(), True)

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
        """
        staging = self.beside("staging")
        try:
            started = time.perf_counter()
            for name, (table, count) in tables.items():
                self.write(table, f"{staging}/{name}", output_format, count)
            if output_format == "tsv" and numbers is not None:
                self.write_numbers(numbers, staging)
            summary["seconds"]["write"] = round(time.perf_counter() - started, 3)
            self.write_text(staging, "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
            atomic = self.fs.getUri().getScheme() in ATOMIC_RENAME
            if atomic:
                self.write_text(staging, "_SUCCESS", "")  # the last file
            self.place(staging)
            if not atomic:
                self.write_text(self.target, "_SUCCESS", "")
        finally:
            self.fs.delete(staging, True)

    def write(self, table: DataFrame, path: str, output_format: str, count: int) -> None:
        """Write a table of ``count`` rows, sorted by its first column, as few files."""
        kind, options = WRITERS[output_format]
        files, key = -(-count // ROWS_A_FILE), table.columns[0]
        few = table.repartitionByRange(files, key) if files > 1 else table.coalesce(1)
        few.sortWithinPartitions(key).write.format(kind).options(**options).save(path)

    def write_numbers(self, clustering: Clustering, staging: Any) -> None:
        """Labels, and rows of the exemplars, as plain columns of numbers: the files of Concurrent_AP."""
        is_exemplar = F.col("id") == F.col("exemplar")
        rows = clustering.assignments.orderBy("id").select("label", is_exemplar.alias("is_exemplar")).toArrow()
        self.write_text(staging, "labels.tsv", lines(rows["label"].to_numpy()))
        self.write_text(staging, "cluster_centers_indices.tsv", lines(np.flatnonzero(rows["is_exemplar"].to_numpy())))

    def write_text(self, directory: Any, name: str, text: str) -> None:
        stream = self.fs.create(self.make_path(directory, name), True)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def place(self, staging: Any) -> None:
        """Rename the complete output to its name; one that stood there goes only now."""
        old = self.beside("old")
        self.refuse_existing()
        replaced = self.fs.exists(self.target) and self.fs.rename(self.target, old)
        if not self.fs.rename(staging, self.target):
            if replaced:
                self.fs.rename(old, self.target)
            raise OutputError(f"the output could not be renamed from {staging} to {self.target}")
        if replaced:
            self.fs.delete(old, True)


def lines(numbers: NDArray[np.int64]) -> str:
    return "".join(f"{number}\n" for number in numbers.tolist())
