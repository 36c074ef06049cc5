"""Snapshots of a run, from which the same command goes on after a crash.

    DIR/snapshot-000007-9f86d081/messages/   i, k, r, a
                                 columns/    k, total, a, exemplar
                                 record/     one row
                                 _SUCCESS    written last: a snapshot without it is not whole

All of it is Parquet, by whatever engine and for whatever engine (`engines/state.py`). The record tells of which run a
snapshot is, which iterations that has behind it, and how many rows with which checksum the tables have: one that
has been damaged is found out, and the one before it taken. The last two are kept, and one that the engine still reads.

The name ends in letters of the process that wrote it: drivers that do not know of each other never write one snapshot
together. Each deletes, of those it found and its own, what it no longer needs itself; a driver that lives on beside its
successor may lose one that it would read again, or take it from the other, and end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa
import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.convergence import TRACE, Iteration
from ap_spark.engines import Engine, State
from ap_spark.engines.state import COLUMNS, MESSAGES
from ap_spark.errors import CheckpointError, SettingError, reason
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.io.stores import SUCCESS, Store
from ap_spark.preference_search import Trial
from ap_spark.settings import MIN_INTERVAL_FACTOR, Settings, Snapshots
from ap_spark.version import __version__

__all__ = ["Checkpoint", "Snapshot", "store_of"]

logger = logging.getLogger(__name__)

FORMAT = 3  # of the tables, and of the numbers in them
KEPT = 2
NAME = re.compile(r"snapshot-(\d{6,})-[0-9a-f]{8}")
UNREADABLE = (PySparkException, Py4JJavaError, OSError)
DECISIVE = ("damping", "convergence_iter", "jitter", "seed", "clusters")  # the graph's fingerprint tells of the others

TABLES = {"messages": MESSAGES, "columns": COLUMNS}
ENTRIES = (*TABLES, "record", SUCCESS)
TRIAL = {
    "preference": pa.float64(),
    "clusters": pa.int64(),
    "converged": pa.bool_(),
    "at_rest": pa.bool_(),
    "ended_early": pa.bool_(),
}
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
        "trace": pa.list_(pa.struct(list(TRACE))),
        "tried": pa.list_(pa.struct(TRIAL)),
        "checksum": pa.string(),
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


def store_of(spark: SparkSession, path: str) -> Store:
    """The directory of snapshots.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    if re.search(r"[][{}*?\\]", path):
        raise CheckpointError(f"the checkpoint must be a path without []{{}}*?\\, a pattern to Spark, got {path!r}")
    try:
        store = Store(spark, path)
        store.check_writable(f".ap-spark.probing.{secrets.token_hex(8)}")
    except OSError as error:
        raise CheckpointError(f"the checkpoint must be a directory that can be written, but {error}") from error
    return store


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
    last_words : str
        What can be gone on from, for whoever ends the run.
    """

    NONE_KEPT: ClassVar[str] = "without --checkpoint DIR the next run starts from the beginning"

    def __init__(self, spark: SparkSession, settings: Settings, snapshots: Snapshots) -> None:
        assert snapshots.checkpoint is not None
        if classic.is_connect(spark):
            raise SettingError("checkpoint needs classic Spark, and this is Spark Connect: leave it out")
        self.spark = spark
        self.settings = replace(settings, convergence_iter=settings.window)
        self.iterations, self.seconds = snapshots.interval
        self.store = store_of(spark, snapshots.checkpoint)
        self.resume = snapshots.resume
        self.tell_saved("", 0)
        self.known = self.names()  # our own, and those that were here before us
        self.damaged: set[str] = set()
        self.states: dict[str, State] = {}
        self.base = ""
        self.tried: Sequence[Trial] = ()
        with classic.uncancellable(spark):
            self.found = self.newest() if self.resume else None
        self.last, self.at, self.fresh = 0, time.monotonic(), True
        self.cost = 0.0  # seconds that the last one took, or the attempt

    def tell_saved(self, name: str, iteration: int) -> None:
        """Note which snapshot is the last one that is whole, "" for none."""
        command = "the same command" if self.resume else "the same command, but without --no-resume,"
        self.last_words = (
            f"the last snapshot is {self.store}/{name}, after iteration {iteration}: {command} goes on from it"
            if name
            else f"there is no snapshot in {self.store}: the same command starts from the beginning"
        )

    def names(self) -> list[str]:
        """The snapshots in the directory, the oldest first, whole or not."""
        return sorted((name for name in self.store.names() if NAME.fullmatch(name)), key=number_of)

    def is_whole(self, name: str) -> bool:
        return name not in self.damaged and self.store.exists(f"{name}/{SUCCESS}")

    def newest(self) -> Snapshot | None:
        """The newest snapshot that is whole."""
        unreadable = []
        for name in filter(self.is_whole, reversed(self.known)):
            try:
                record = self.read_record(name)
                state = self.state_of(name, record["iteration"])
                for table in TABLES if record["format"] == FORMAT else ():
                    if (found := checks(getattr(state, table))) != (record[table], record[f"{table}_checksum"]):
                        raise OSError(f"{table} has {found[0]:,} rows, or others, than the {record[table]:,} written")
            except UNREADABLE as error:
                logger.warning("%s/%s is damaged, so the one before it is taken: %s", self.store, name, reason(error))
                unreadable.append(name)
                continue
            self.check_record(record)
            self.base = name
            self.tell_saved(name, state.iteration)
            self.damaged = set(unreadable)  # and not in a store that does not answer
            self.tried = [Trial(**trial) for trial in record["tried"]]
            return Snapshot(record["fingerprint"], state, [Iteration(**done) for done in record["trace"]])
        return None

    def read(self, name: str, table: str) -> DataFrame:
        reader = self.spark.read.schema(TABLES[table]) if table in TABLES else self.spark.read
        return reader.parquet(f"{self.store}/{name}/{table}")

    def read_record(self, name: str) -> dict[str, Any]:
        """The record of a snapshot; OSError if it is not what was written."""
        row = self.read(name, "record").first()
        record = row.asDict(recursive=True) if row else {}
        if record.pop("checksum", None) != digest(record):
            raise OSError("its record is not what was written")
        return record

    def state_of(self, name: str, iteration: int) -> State:
        self.states[name] = State(iteration, *(self.read(name, table) for table in TABLES))
        return self.states[name]

    def check_record(self, record: dict[str, Any]) -> None:
        """Raise CheckpointError if a snapshot is of another format or of a run with other settings."""
        if record["format"] != FORMAT:
            self.refuse(
                f"format {record['format']}, by version {record['version']}", f"{FORMAT}, version {__version__}"
            )
        theirs, ours = json.loads(record["settings"]), self.decisive
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                self.refuse(f"{name} {theirs.get(name)}", ours.get(name))
        if record["iteration"] > self.settings.max_iter:
            self.refuse(f"{record['iteration']} iterations done", f"max_iter {self.settings.max_iter}")

    def refuse(self, theirs: str, ours: object) -> None:
        raise CheckpointError(
            f"snapshots must be of this run, but those in {self.store} are of another: {theirs} there, {ours} here "
            "(give another checkpoint directory, or --no-resume to start again and have them deleted)"
        )

    @property
    def extensible(self) -> bool:
        """Whether the same run may be given more iterations."""
        return self.settings.clusters is None

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that change the numbers. Where preferences are tried, also how long each is tried."""
        names = DECISIVE if self.extensible else (*DECISIVE, "max_iter")
        return {name: value for name, value in asdict(self.settings).items() if name in names}

    def begin(self, graph: EdgeGraph | BlockGraph) -> Snapshot | None:
        """Begin to iterate, the first time at the snapshot that was found, if any.

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
            if not self.resume:
                self.discard()
        if found:
            logger.info("going on after iteration %d, from %s/%s", found.state.iteration, self.store, self.base)
        return found

    def is_due(self, iteration: int) -> bool:
        if self.iterations:
            return iteration - self.last >= self.iterations
        return time.monotonic() - self.at >= max(self.seconds, MIN_INTERVAL_FACTOR * self.cost)

    def write(self, engine: Engine, graph: EdgeGraph | BlockGraph, trace: Sequence[Iteration]) -> bool:
        """Take a snapshot; whether that succeeded. A run goes on without one, with a warning."""
        started = time.monotonic()
        name = ""
        try:
            number = max(map(number_of, self.names()), default=0) + 1
            name = f"snapshot-{number:06d}-{secrets.token_hex(4)}"
            self.write_tables(name, engine.state(), graph.fingerprint, trace)
            self.known.append(name)
            self.tell_saved(name, engine.iteration)
            engine.set_recovery_point(self.state_of(name, engine.iteration))
            self.delete_old(engine.recovery_state)
            took = time.monotonic() - started
            logger.info("snapshot after iteration %d: %s/%s, %.1f s", engine.iteration, self.store, name, took)
        except UNREADABLE as error:
            logger.warning("no snapshot taken: %s", reason(error))
            if name not in self.known:
                self.delete([name])
            return False
        finally:
            self.last, self.at = engine.iteration, time.monotonic()
            self.cost = self.at - started
        return True

    def write_tables(self, name: str, state: State, fingerprint: str, trace: Sequence[Iteration]) -> None:
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": __version__,
            "fingerprint": fingerprint,
            "settings": json.dumps(self.decisive),
            "iteration": state.iteration,
            "trace": [done._asdict() for done in trace],
            "tried": [asdict(trial) for trial in self.tried],
        }
        if not self.store.exists():
            self.store.make_private()
        self.store.make_private(name)
        for table in TABLES:
            rows: DataFrame = getattr(state, table)
            rows.write.parquet(f"{self.store}/{name}/{table}")
            record[table], record[f"{table}_checksum"] = checks(self.read(name, table))
        row = self.spark.createDataFrame(pa.Table.from_pylist([record | {"checksum": digest(record)}], RECORD))
        row.coalesce(1).write.parquet(f"{self.store}/{name}/record")
        self.store.write_text(f"{name}/{SUCCESS}", "")

    def delete_old(self, needed: State | None) -> None:
        """Delete all but the last two whole ones, and what the engine would read if it lost something now."""
        keep = list(filter(self.is_whole, self.known))[-KEPT:]
        keep += [name for name, state in self.states.items() if state is needed]
        self.delete([name for name in self.known if name not in keep])

    def discard(self) -> None:
        """Delete this run's snapshots: it is over."""
        self.tell_saved("", 0)
        self.delete(list(self.known))

    def delete(self, names: Sequence[str]) -> None:
        for name in filter(None, names):
            with suppress(*UNREADABLE):  # it may come to be deleted another time
                if foreign := self.foreign(name):
                    logger.warning("%s/%s is left as it is: %s is not of a snapshot", self.store, name, foreign)
                else:
                    self.store.delete(name)
                self.states.pop(name, None)
                if name in self.known:
                    self.known.remove(name)

    def foreign(self, name: str) -> str | None:
        """The first thing in a directory that is not of a snapshot."""
        if not self.store.exists(name):
            return None
        if self.store.is_file(name):
            return name
        return next((found for found in sorted(self.store.entries(name)) if found not in ENTRIES), None)


def number_of(name: str) -> int:
    return int(name.split("-")[1])


def checks(table: DataFrame) -> tuple[int, int]:
    """The number of rows, and a checksum for which their order does not matter."""
    rows, checksum = table.agg(F.count("*"), F.bit_xor(F.xxhash64(*table.columns))).first() or (0, 0)
    return rows, checksum or 0


def digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
