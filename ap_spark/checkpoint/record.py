"""The record of a snapshot: one row that says which run it is of, and what its tables hold.

Rows are plain dictionaries here, so that nothing of this needs Spark. A version of the program may add a column to the
trace of iterations, or to the trials, without another FORMAT: columns that this version does not know are ignored,
and one that it misses takes its default. Where there is no default the snapshot is refused; the message names the
column and the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, NamedTuple

import pyarrow as pa

from ap_spark.checkpoint.compatibility import Mismatch
from ap_spark.convergence import TRACE, Iteration
from ap_spark.preference_search import Trial
from ap_spark.version import __version__

__all__ = ["FORMAT", "SCHEMA", "Checks", "Record", "digest", "from_row", "to_row"]

FORMAT = 4  # of the tables, and of the numbers in them

_TRIAL = {
    "preference": pa.float64(),
    "clusters": pa.int64(),
    "converged": pa.bool_(),
    "at_rest": pa.bool_(),
    "ended_early": pa.bool_(),
    "settled": pa.bool_(),
    "missed": pa.bool_(),
}
SCHEMA = pa.schema(
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
        "tried": pa.list_(pa.struct(_TRIAL)),
        "checksum": pa.string(),
    }
)


class Checks(NamedTuple):
    """What is compared to find out whether a table is the one that was written."""

    rows: int
    checksum: int


@dataclass(frozen=True)
class Record:
    """What a snapshot says of itself.

    Attributes
    ----------
    fingerprint : str
        Of the graph.
    settings : dict
        Those that change the numbers (`compatibility.decisive`).
    iteration : int
        The last iteration that is in it.
    messages, columns : Checks
        Of its two tables.
    trace : list of Iteration
        The records of all iterations.
    tried : list of Trial
        Where a number of clusters is searched for: the trials before the one that the snapshot is of.
    """

    fingerprint: str
    settings: dict[str, Any]
    iteration: int
    messages: Checks
    columns: Checks
    trace: list[Iteration]
    tried: list[Trial]


def to_row(record: Record) -> dict[str, Any]:
    """Return the row of a record (SCHEMA), with a checksum of itself."""
    row = {
        "format": FORMAT,
        "version": __version__,
        "fingerprint": record.fingerprint,
        "settings": json.dumps(record.settings),
        "iteration": record.iteration,
        "messages": record.messages.rows,
        "messages_checksum": record.messages.checksum,
        "columns": record.columns.rows,
        "columns_checksum": record.columns.checksum,
        "trace": [done._asdict() for done in record.trace],
        "tried": [asdict(trial) for trial in record.tried],
    }
    return row | {"checksum": digest(row)}


def from_row(row: Mapping[str, Any]) -> Record:
    """Return the record of a row.

    Raises
    ------
    OSError
        If the row is not what was written.
    Mismatch
        If it is of another format, or lacks a column that this version needs.

    Examples
    --------
    >>> record = Record("f00d", {"damping": 0.9}, 1, Checks(9, 7), Checks(3, 5), [Iteration(1, 2, 2, 2, 0.5)], [])
    >>> from_row(to_row(record)) == record
    True
    """
    written = {name: value for name, value in row.items() if name != "checksum"}
    if row.get("checksum") != digest(written):
        raise OSError("its record is not what was written")
    if row["format"] != FORMAT:
        raise Mismatch(f"format {row['format']}, by version {row['version']}", f"{FORMAT}, version {__version__}")
    _require(row, set(SCHEMA.names) - {"checksum"}, row)
    defaults = Iteration._field_defaults
    trials = {given.name: given.default for given in fields(Trial) if given.default is not MISSING}
    return Record(
        fingerprint=row["fingerprint"],
        settings=json.loads(row["settings"]),
        iteration=row["iteration"],
        messages=Checks(row["messages"], row["messages_checksum"]),
        columns=Checks(row["columns"], row["columns_checksum"]),
        trace=[Iteration(**_known(done, Iteration._fields, defaults, row)) for done in row["trace"]],
        tried=[Trial(**_known(trial, [given.name for given in fields(Trial)], trials, row)) for trial in row["tried"]],
    )


def digest(row: Mapping[str, Any]) -> str:
    """Return a checksum of a row, whatever the order of its columns."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()


def _known(
    found: Mapping[str, Any], names: Iterable[str], defaults: Mapping[str, Any], row: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the columns that this version knows; others are ignored."""
    _require(found, set(names) - defaults.keys(), row)
    return {name: found.get(name, defaults.get(name)) for name in names}


def _require(found: Mapping[str, Any], names: set[str], row: Mapping[str, Any]) -> None:
    if missing := sorted(names - found.keys()):
        raise Mismatch(
            f"format {row['format']} without the column {missing[0]!r}, by version {row['version']}",
            f"{FORMAT} with it, version {__version__}",
        )
