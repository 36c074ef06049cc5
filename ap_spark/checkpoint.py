"""Snapshots of a run, from which the same command goes on after a crash.

    DIR/snapshot-000007/messages/   i, k, r, a
                        columns/    k, total, a, exemplar
                        record/     one row, written last: a snapshot without it is not whole

All of it is Parquet, by whatever engine and for whatever engine (`engines/state.py`). The record tells of which run a
snapshot is, which iterations that has behind it, and how many rows with which checksum the tables have: one that
has been damaged is found out, and the one before it taken. The last two are kept, and the one the run started from.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pyarrow as pa
import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Observation, Row, SparkSession

from ap_spark import classic
from ap_spark.convergence import Iteration
from ap_spark.engines import Engine, State
from ap_spark.engines.state import COLUMNS, MESSAGES
from ap_spark.errors import CheckpointError, SettingError
from ap_spark.graph import Graph
from ap_spark.settings import Settings, Snapshots
from ap_spark.stores import Store
from ap_spark.target import Trial
from ap_spark.version import __version__

__all__ = ["Checkpoint", "Snapshot"]

logger = logging.getLogger(__name__)

FORMAT = 1  # of the tables, and of the numbers in them
KEPT = 2
NAME = re.compile(r"snapshot-(\d{6,})")
DECISIVE = ("damping", "convergence_iter", "jitter", "seed", "clusters")  # the graph's fingerprint tells of the others

TABLES = {"messages": MESSAGES, "columns": COLUMNS}
RECORD = pa.schema(
    {
        "format": pa.int32(),
        "version": pa.string(),
        "fingerprint": pa.string(),
        "settings": pa.string(),
        "iteration": pa.int32(),
        "messages": pa.int64(),
        "messages_checksum": pa.int64(),
        "columns": pa.int64(),
        "columns_checksum": pa.int64(),
        "trace": pa.list_(
            pa.struct(
                {"iteration": pa.int32(), "exemplars": pa.int64(), "changed": pa.int64(), "seconds": pa.float64()}
            )
        ),
        "tried": pa.list_(pa.struct({"preference": pa.float64(), "clusters": pa.int64(), "converged": pa.bool_()})),
    }
)


class Snapshot(NamedTuple):
    """A run that can be gone on with.

    Attributes
    ----------
    fingerprint : str
        Of its graph.
    state : State
    trace : list of Iteration
        The records of all its iterations: the window of convergence is among them.
    """

    fingerprint: str
    state: State
    trace: list[Iteration]


class Checkpoint:
    """The snapshots of one run in one directory.

    Parameters
    ----------
    spark : SparkSession
    settings : Settings
        Of the run.
    snapshots : Snapshots
        Where they are written, and when.

    Raises
    ------
    CheckpointError
        If the directory cannot be written, or holds snapshots of another run or of another format.
    SettingError
        On Spark Connect, which has no access to the cluster's file systems.

    Attributes
    ----------
    tried : sequence of Trial
        With a number of clusters asked for: the trials that were over when the snapshot was taken.
    """

    def __init__(self, spark: SparkSession, settings: Settings, snapshots: Snapshots) -> None:
        assert snapshots.checkpoint is not None
        if classic.is_connect(spark):
            raise SettingError("checkpoint needs classic Spark, and this is Spark Connect: leave it out")
        self.spark = spark
        self.settings = settings
        self.iterations, self.seconds = snapshots.interval
        try:
            self.store = Store(spark, snapshots.checkpoint)
            self.store.check_writable(".ap-spark.probe")
        except OSError as error:
            raise CheckpointError(f"the checkpoint must be a directory that can be written, but {error}") from error
        self.base = ""  # the snapshot that the engine may still come back to
        self.known = self.names()
        self.tried: Sequence[Trial] = ()
        self.found = self.newest() if snapshots.resume else None
        self.last, self.at, self.fresh = 0, time.monotonic(), True

    def names(self) -> list[str]:
        """The snapshots in the directory, the oldest first, whole or not."""
        return sorted((name for name in self.store.names() if NAME.fullmatch(name)), key=number_of)

    def newest(self) -> Snapshot | None:
        """The newest snapshot that is whole."""
        for name in reversed(self.known):
            if not self.store.exists(f"{name}/record/_SUCCESS"):
                continue  # killed while it was written
            try:
                record = self.read(name, "record").first()
                if record is None:
                    raise OSError("its record is empty")
                if record.format == FORMAT:
                    self.check_tables(name, record)
            except (PySparkException, Py4JJavaError, OSError) as error:
                problem = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                logger.warning(
                    "snapshot %s/%s is damaged, so the one before it is taken: %s", self.store, name, problem
                )
                continue
            self.check_record(record)
            self.base = name
            self.tried = [Trial(**trial.asDict()) for trial in record.tried]
            state = State(record.iteration, *(self.read(name, table, columns) for table, columns in TABLES.items()))
            return Snapshot(record.fingerprint, state, [Iteration(*row) for row in record.trace])
        return None

    def read(self, name: str, table: str, columns: str | None = None) -> DataFrame:
        reader = self.spark.read.schema(columns) if columns else self.spark.read
        return reader.parquet(f"{self.store}/{name}/{table}")

    def check_tables(self, name: str, record: Row) -> None:
        """Raise OSError if a table does not hold what was written."""
        for table, columns in TABLES.items():
            found = self.read(name, table, columns)
            rows, checksum = found.agg(*checks(found)).first() or (0, 0)
            if (rows, checksum) != (record[table], record[f"{table}_checksum"]):
                raise OSError(f"{table} has {rows:,} rows with another checksum than the {record[table]:,} written")

    def check_record(self, record: Row) -> None:
        """Raise CheckpointError if a snapshot is of another format or of a run with other settings."""
        if record.format != FORMAT:
            self.refuse(f"format {record.format}, by version {record.version}", f"{FORMAT}, version {__version__}")
        theirs, ours = json.loads(record.settings), self.decisive
        for name in DECISIVE:
            if theirs[name] != ours[name]:
                self.refuse(f"{name} {theirs[name]}", ours[name])
        if record.iteration > self.settings.max_iter:
            self.refuse(f"{record.iteration} iterations done", f"max_iter {self.settings.max_iter}")

    def refuse(self, theirs: str, ours: object) -> None:
        raise CheckpointError(
            f"snapshots must be of this run, but those in {self.store} are of another: {theirs} there, {ours} here "
            "(give another checkpoint directory, or --no-resume to start again and have them deleted)"
        )

    @property
    def decisive(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self.settings).items() if name in DECISIVE}

    def begin(self, graph: Graph) -> Snapshot | None:
        """Begin to iterate, the first time at the snapshot that was found, if any; others are of no use then.

        Raises
        ------
        CheckpointError
            If that is of another graph.
        """
        found, self.found = self.found, None
        if found and found.fingerprint != graph.fingerprint:
            self.refuse(f"input and similarities have the fingerprint {found.fingerprint}", graph.fingerprint)
        self.last = found.state.iteration if found else 0
        if self.fresh:
            self.fresh, self.at = False, time.monotonic()
            usable = self.known[: self.known.index(self.base) + 1] if found else []
            for name in self.known[len(usable) :]:
                self.store.delete(name)
            self.known = usable
        if found:
            logger.info("going on after iteration %d, from %s/%s", found.state.iteration, self.store, self.base)
        return found

    def is_due(self, iteration: int) -> bool:
        if self.iterations:
            return iteration - self.last >= self.iterations
        return time.monotonic() - self.at >= self.seconds

    def write(self, engine: Engine, graph: Graph, trace: Sequence[Iteration]) -> bool:
        """Take a snapshot; whether that succeeded. A run goes on without one, with a warning."""
        started = time.monotonic()
        taken = self.names()
        self.last, self.at = engine.iteration, started
        if strange := [name for name in taken if name not in self.known]:
            logger.warning("no snapshot taken: another run has written %s/%s", self.store, strange[0])
            return False
        name = f"snapshot-{number_of(self.known[-1]) + 1 if self.known else 1:06d}"
        try:
            self.write_tables(name, engine.state(), graph.fingerprint, trace)
        except (PySparkException, Py4JJavaError, OSError) as error:
            logger.warning("no snapshot taken: %s", next(iter(str(error).splitlines()), type(error).__name__))
            self.store.delete(name)
            return False
        self.known.append(name)
        engine.rebase(State(engine.iteration, *(self.read(name, table, columns) for table, columns in TABLES.items())))
        for old in self.known[:-KEPT]:
            if old != self.base:
                self.store.delete(old)
        self.known = [kept for kept in self.known if kept == self.base or kept in self.known[-KEPT:]]
        self.at = time.monotonic()
        logger.info("snapshot after iteration %d: %s/%s, %.1f s", self.last, self.store, name, self.at - started)
        return True

    def write_tables(self, name: str, state: State, fingerprint: str, trace: Sequence[Iteration]) -> None:
        counts: dict[str, int] = {}
        for table in TABLES:
            rows: DataFrame = getattr(state, table)
            observed = Observation()
            rows.observe(observed, *checks(rows)).write.parquet(f"{self.store}/{name}/{table}")
            counts |= {table: observed.get["rows"], f"{table}_checksum": observed.get["checksum"]}
        record = {
            "format": FORMAT,
            "version": __version__,
            "fingerprint": fingerprint,
            "settings": json.dumps(self.decisive),
            "iteration": state.iteration,
            "trace": [done._asdict() for done in trace],
            "tried": [asdict(trial) for trial in self.tried],
        }
        row = self.spark.createDataFrame(pa.Table.from_pylist([record | counts], RECORD))
        row.coalesce(1).write.parquet(f"{self.store}/{name}/record")

    def discard(self) -> None:
        """Delete this run's snapshots: it is over."""
        for name in self.known:
            self.store.delete(name)
        self.known = []


def number_of(name: str) -> int:
    return int(name.removeprefix("snapshot-"))


def checks(table: DataFrame) -> tuple[Column, Column]:
    """The number of rows, and a checksum for which their order does not matter."""
    return F.count("*").alias("rows"), F.bit_xor(F.xxhash64(*table.columns)).alias("checksum")
