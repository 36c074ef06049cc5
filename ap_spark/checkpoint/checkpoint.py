"""The snapshots of one run, for the loop that takes them.

    checkpoint = Checkpoint(spark, settings, snapshots)    nothing is read
    checkpoint.open()                                      finds the newest snapshot of this run, or refuses
    snapshot = checkpoint.begin(graph)                     what to resume from; again for each trial of a search
    if checkpoint.is_due(iteration): checkpoint.write(…)   in the loop
    checkpoint.discard()                                   once the result is in a safe place

The last two snapshots are kept, and one more that the engine may still have to read. A run deletes its snapshots and
those that were there when it started, and no others. So two drivers in one directory, one of them taken for dead, do
not harm each other's results. But one of them may miss a snapshot that it has to read again, and end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from pyspark.sql import SparkSession

from ap_spark._spark import classic
from ap_spark.checkpoint.cadence import Cadence
from ap_spark.checkpoint.compatibility import Mismatch, check_settings, decisive, is_extensible
from ap_spark.checkpoint.record import Record
from ap_spark.checkpoint.store import UNREADABLE, SnapshotStore, writable_store
from ap_spark.convergence import Iteration
from ap_spark.engines import Engine, State
from ap_spark.errors import CheckpointError, SettingError
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.preference_search import Trial
from ap_spark.settings import Settings, Snapshots
from ap_spark.wording import format_reason

__all__ = ["WITHOUT_CHECKPOINT", "Checkpoint", "Snapshot"]

logger = logging.getLogger(__name__)

WITHOUT_CHECKPOINT = "without --checkpoint DIR the next run starts from the beginning"

_KEPT = 2  # snapshots


class Snapshot(NamedTuple):
    """What a run resumes from.

    Attributes
    ----------
    state : State
    trace : list of Iteration
        The records of all its iterations; the window of convergence is among them.
    """

    state: State
    trace: list[Iteration]


class _Last(NamedTuple):
    """The newest snapshot of this run that is whole."""

    name: str
    iteration: int


class Checkpoint:
    """The snapshots of one run in one directory.

    Parameters
    ----------
    spark : SparkSession
    settings : Settings
        Of the run.
    snapshots : Snapshots
        Where they are written, and when.

    Attributes
    ----------
    cadence : Cadence
        When a snapshot is due.
    tried : sequence of Trial
        Where a number of clusters is searched for: the trials that were over when the snapshot was taken.
    """

    def __init__(self, spark: SparkSession, settings: Settings, snapshots: Snapshots) -> None:
        assert snapshots.checkpoint is not None
        self._spark = spark
        self._settings = settings
        self._path = snapshots.checkpoint
        self._resumes = snapshots.resume
        self.cadence = Cadence(*snapshots.interval)
        self.tried: Sequence[Trial] = ()
        self._store: SnapshotStore | None = None
        self._known: list[str] = []  # those this run may delete: its own, and those that were there before it
        self._damaged: set[str] = set()
        self._states: dict[str, State] = {}
        self._last: _Last | None = None
        self._found: tuple[Record, State] | None = None  # until the run begins
        self._has_begun = False

    def open(self) -> None:
        """Open the directory, and find the newest snapshot that is whole.

        To be called before the run begins, once or more. With ``resume=False`` nothing is read.

        Raises
        ------
        CheckpointError
            If the directory cannot be written, or its newest snapshot is of a run with other settings, or of another
            format.
        SettingError
            On Spark Connect, which has no access to the cluster's file systems.
        """
        if classic.is_connect(self._spark):
            raise SettingError("checkpoint needs classic Spark, and this is Spark Connect: leave it out")
        self._store = SnapshotStore(self._spark, writable_store(self._spark, self._path))
        self._known = self._store.names()
        if self._resumes:
            with classic.uncancellable(self._spark):
                self._find()

    @property
    def store(self) -> SnapshotStore:
        """The snapshots on disk."""
        assert self._store is not None, "open the checkpoint first"
        return self._store

    def begin(self, graph: EdgeGraph | ArrayGraph) -> Snapshot | None:
        """Begin to iterate on a graph; return the snapshot to resume from, the first time, if there is one.

        A search for a number of clusters begins once for each trial. Without ``resume`` the first beginning deletes
        the snapshots that are there.

        Raises
        ------
        CheckpointError
            If the snapshot is of another graph.
        """
        found, self._found = self._found, None
        if found and found[0].fingerprint != graph.fingerprint:
            self.refuse(f"input and similarities have the fingerprint {found[0].fingerprint}", graph.fingerprint)
        self.cadence.begin(found[0].iteration if found else 0, time.monotonic())
        if not self._has_begun and not self._resumes:
            self.discard()
        self._has_begun = True
        if found is None or self._last is None:
            return None
        record, state = found
        logger.info("resuming after iteration %d, from %s/%s", record.iteration, self.store.directory, self._last.name)
        return Snapshot(state, record.trace)

    def is_due(self, iteration: int) -> bool:
        """Return whether a snapshot is to be taken after an iteration."""
        return self.cadence.is_due(iteration, time.monotonic())

    def wants_last(self, iteration: int) -> bool:
        """Return whether a run that ends after an iteration without converging ends with a snapshot.

        It does where the same run may be given more iterations, unless there is a snapshot of this one.
        """
        return is_extensible(self._settings) and self.cadence.last_iteration < iteration

    def is_worth(self, iteration: int) -> bool:
        """Return whether a snapshot is to be taken after the last iteration, before its exemplars are polished."""
        return self.cadence.is_worth(iteration, time.monotonic())

    def write(self, engine: Engine, graph: EdgeGraph | ArrayGraph, trace: Sequence[Iteration]) -> bool:
        """Take a snapshot; return whether that succeeded. Without one a run continues, with a warning."""
        started = time.monotonic()
        name = ""
        try:
            name = self.store.new_name()
            state = engine.state()
            checks = self.store.write_tables(name, state)
            settings = decisive(self._settings)
            record = Record(graph.fingerprint, settings, state.iteration, **checks, trace=[*trace], tried=[*self.tried])
            self.store.write_record(name, record)
            self._known.append(name)
            self._last = _Last(name, engine.iteration)
            self._states[name] = self.store.state(name, engine.iteration)
            engine.set_recovery_point(self._states[name])
            self._delete_old(engine.recovery_state)
            seconds = time.monotonic() - started
            logger.info(
                "snapshot after iteration %d: %s/%s, %.1f s", engine.iteration, self.store.directory, name, seconds
            )
        except UNREADABLE as error:
            logger.warning("no snapshot taken: %s", format_reason(error))
            if name and name not in self._known:
                self._delete([name])
            return False
        finally:
            self.cadence.note(engine.iteration, started, time.monotonic())
        return True

    def discard(self) -> None:
        """Delete this run's snapshots: it is over."""
        self._last = None
        self._delete(list(self._known))

    def format_saved(self) -> str:
        """Say what the next run can resume from, for whoever ends this one."""
        if self._store is None:
            return f"the same command resumes from the last snapshot in {self._path}, if there is one"
        if self._last is None:
            return f"there is no snapshot in {self._store.directory}: the same command starts from the beginning"
        return (
            f"the last snapshot is {self._store.directory}/{self._last.name}, after iteration {self._last.iteration}: "
            f"{self._command} resumes from it"
        )

    def format_stop(self, *, saved: bool) -> str:
        """Say whether a run that was stopped has ended with a snapshot, and how to resume."""
        if not saved:
            return f"without a snapshot of it; {self.format_saved()}"
        return f"with a snapshot in {self.store.directory}: {self._command} resumes from there"

    def refuse(self, theirs: str, ours: object) -> NoReturn:
        """Raise CheckpointError for snapshots of another run: what it has, and what this one has."""
        raise self._of_another_run(Mismatch(theirs, ours))

    def _of_another_run(self, mismatch: Mismatch) -> CheckpointError:
        return CheckpointError(
            f"snapshots must be of this run, but those in {self.store.directory} are of another: {mismatch} "
            "(give another checkpoint directory, or --no-resume to start again and have them deleted)"
        )

    @property
    def _command(self) -> str:
        return "the same command" if self._resumes else "the same command, but without --no-resume,"

    def _find(self) -> None:
        """Find the newest snapshot that is whole."""
        damaged: set[str] = set()
        for name in filter(self._is_whole, reversed(self._known)):
            try:
                record, state = self.store.read(name)
                check_settings(record.settings, record.iteration, self._settings)
            except UNREADABLE as error:
                where = f"{self.store.directory}/{name}"
                logger.warning("%s is damaged, so the one before it is taken: %s", where, format_reason(error))
                damaged.add(name)
                continue
            except Mismatch as mismatch:
                raise self._of_another_run(mismatch) from mismatch
            self._damaged = damaged  # known only now: where no snapshot can be read, the store may not answer
            self._states[name] = state
            self._last = _Last(name, record.iteration)
            self._found = record, state
            self.tried = record.tried
            return

    def _is_whole(self, name: str) -> bool:
        return name not in self._damaged and self.store.is_whole(name)

    def _delete_old(self, needed: State | None) -> None:
        """Delete all but the last two whole ones, and what the engine would read if it lost something now."""
        keep = list(filter(self._is_whole, self._known))[-_KEPT:]
        keep += [name for name, state in self._states.items() if state is needed]
        self._delete([name for name in self._known if name not in keep])

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            if self.store.delete(name):
                self._states.pop(name, None)
                if name in self._known:
                    self._known.remove(name)
