"""Snapshots on disk, or wherever Spark can write.

    DIR/snapshot-000007-9f86d081/messages/   i, k, similarity, r, a
                                 columns/    k, total, a, exemplar, level, flipped
                                 record/     one row (`record.py`)
                                 _SUCCESS    written last: a snapshot without it is not whole

All of it is Parquet. Any engine can resume from the snapshot of any other: messages and columns are a
`State` (`engines/state.py`). The name ends in random letters, so that two drivers that do not know of each other
never write into one snapshot.
"""

from __future__ import annotations

import logging
import re
import secrets
from contextlib import suppress

import pyarrow as pa
import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from ap_spark.checkpoint.record import SCHEMA, Checks, Record, from_row, to_row
from ap_spark.engines.state import COLUMNS, MESSAGES, State
from ap_spark.errors import CheckpointError
from ap_spark.io.stores import SUCCESS, Store

__all__ = ["UNREADABLE", "SnapshotStore", "number_of", "writable_store"]

logger = logging.getLogger(__name__)

UNREADABLE = (PySparkException, Py4JJavaError, OSError)  # how reading or writing a snapshot fails

_NAME = re.compile(r"snapshot-(\d{6,})-[0-9a-f]{8}")
_TABLES = {"messages": MESSAGES, "columns": COLUMNS}
_ENTRIES = (*_TABLES, "record", SUCCESS)


def writable_store(spark: SparkSession, path: str, *, probe: bool = True) -> Store:
    """Return the directory of snapshots, after a file was written there and deleted; without ``probe``, by looking.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    if re.search(r"[][{}*?\\]", path):
        raise CheckpointError(f"the checkpoint must be a path without []{{}}*?\\, a pattern to Spark, got {path!r}")
    try:
        store = Store(spark, path)
        if probe:
            store.check_writable(f".ap-spark.probing.{secrets.token_hex(8)}")
        else:
            store.check_access()
    except OSError as error:
        raise CheckpointError(f"the checkpoint must be a directory that can be written, but {error}") from error
    return store


def number_of(name: str) -> int:
    """Return the number in the name of a snapshot.

    >>> number_of("snapshot-000007-9f86d081")
    7
    """
    return int(name.split("-")[1])


def _checks_of(table: DataFrame) -> Checks:
    """Count the rows of a table, and compute a checksum for which their order does not matter."""
    rows, checksum = table.agg(F.count("*"), F.bit_xor(F.xxhash64(*table.columns))).first() or (0, 0)
    return Checks(rows, checksum or 0)


class SnapshotStore:
    """The snapshots in one directory, by name.

    Parameters
    ----------
    spark : SparkSession
    directory : Store
    """

    def __init__(self, spark: SparkSession, directory: Store) -> None:
        self._spark = spark
        self.directory = directory

    def names(self) -> list[str]:
        """List the snapshots, the oldest first, whole or not."""
        return sorted((name for name in self.directory.names() if _NAME.fullmatch(name)), key=number_of)

    def new_name(self) -> str:
        """Return a name for the next snapshot, larger in number than all that are there."""
        number = max(map(number_of, self.names()), default=0) + 1
        return f"snapshot-{number:06d}-{secrets.token_hex(4)}"

    def is_whole(self, name: str) -> bool:
        """Return whether a snapshot was written to its end."""
        return self.directory.exists(f"{name}/{SUCCESS}")

    def read(self, name: str) -> tuple[Record, State]:
        """Read a snapshot; its tables are compared with their checksums.

        Raises
        ------
        OSError, PySparkException or Py4JJavaError
            If it is damaged, or cannot be read (UNREADABLE).
        Mismatch
            If it is of a format that this version does not read.
        """
        row = self._table(name, "record").first()
        record = from_row(row.asDict(recursive=True) if row else {})
        state = self.state(name, record.iteration)
        for table in _TABLES:
            found, written = _checks_of(getattr(state, table)), getattr(record, table)
            if found != written:
                raise OSError(f"{table} has {found.rows:,} rows, or others, than the {written.rows:,} written")
        return record, state

    def state(self, name: str, iteration: int) -> State:
        """Return the tables of a snapshot, which Spark reads when they are used."""
        return State(iteration, *(self._table(name, table) for table in _TABLES))

    def write_tables(self, name: str, state: State) -> dict[str, Checks]:
        """Write the tables of a snapshot, where only this user may read them; return the checks of what is there."""
        if not self.directory.exists():
            self.directory.make_private()
        self.directory.make_private(name)
        checks = {}
        for table in _TABLES:
            rows: DataFrame = getattr(state, table)
            rows.write.parquet(f"{self.directory}/{name}/{table}")
            checks[table] = _checks_of(self._table(name, table))
        return checks

    def write_record(self, name: str, record: Record) -> None:
        """Write the record of a snapshot whose tables are there: from now on it is whole."""
        row = self._spark.createDataFrame(pa.Table.from_pylist([to_row(record)], SCHEMA))
        row.coalesce(1).write.parquet(f"{self.directory}/{name}/record")
        self.directory.write_text(f"{name}/{SUCCESS}", "")

    def delete(self, name: str) -> bool:
        """Delete a snapshot, unless something else lies in its directory; return whether nothing went wrong."""
        with suppress(*UNREADABLE):  # it may come to be deleted another time
            if foreign := self._foreign(name):
                logger.warning("%s/%s is left as it is: %s is not of a snapshot", self.directory, name, foreign)
            else:
                self.directory.delete(name)
            return True
        return False

    def _table(self, name: str, table: str) -> DataFrame:
        reader = self._spark.read.schema(_TABLES[table]) if table in _TABLES else self._spark.read
        return reader.parquet(f"{self.directory}/{name}/{table}")

    def _foreign(self, name: str) -> str | None:
        """Return the first thing in a directory that is not of a snapshot."""
        if not self.directory.exists(name):
            return None
        if self.directory.is_file(name):
            return name
        return next((found for found in sorted(self.directory.entries(name)) if found not in _ENTRIES), None)
