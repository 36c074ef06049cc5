"""The record of a snapshot: what was written is what is read, also by versions with other columns; without Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from ap_spark.checkpoint.compatibility import Mismatch
from ap_spark.checkpoint.record import FORMAT, SCHEMA, Checks, Record, digest, from_row, to_row
from ap_spark.convergence import Iteration
from ap_spark.preference_search import Trial

RECORD = Record(
    "f00d",
    {"damping": 0.9, "clusters": None},
    2,
    Checks(9, -7),
    Checks(3, 5),
    [Iteration(1, 2, 2, 2, 0.125), Iteration(2, 2, 0, 2, 1 / 3)],
    [Trial(-1.5, 7, True, True, False)],
)


def row(change: Callable[[dict[str, Any]], object] = lambda row: None) -> dict[str, Any]:
    """The row as another version may have written it, with a checksum that fits."""
    changed = to_row(RECORD)
    del changed["checksum"]
    change(changed)
    return changed | {"checksum": digest(changed)}


def test_a_record_is_read_as_it_was_written() -> None:
    (through_arrow,) = pa.Table.from_pylist([to_row(RECORD)], SCHEMA).to_pylist()
    assert from_row(through_arrow) == RECORD
    changed = row() | {"iteration": 3}
    with pytest.raises(OSError, match="its record is not what was written"):
        from_row(changed)
    with pytest.raises(OSError, match="its record is not what was written"):
        from_row({})


def test_columns_of_a_later_version_are_ignored() -> None:
    def add(changed: dict[str, Any]) -> None:
        changed["host"] = "elsewhere"
        for done in (*changed["trace"], *changed["tried"]):
            done["netsim"] = -1.0

    assert from_row(row(add)) == RECORD


def test_a_column_of_this_version_that_has_a_default_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Iteration, "_field_defaults", {"seconds": 0.0})
    found = from_row(row(lambda changed: [done.pop("seconds") for done in changed["trace"]]))
    assert [done.seconds for done in found.trace] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.update(format=FORMAT + 1), f"format {FORMAT + 1}, by version .* there, {FORMAT}, version"),
        (
            lambda row: [done.pop("changed") for done in row["trace"]],
            f"format {FORMAT} without the column 'changed', by version .* there, {FORMAT} with it, version .* here",
        ),
        (lambda row: [trial.pop("at_rest") for trial in row["tried"]], "without the column 'at_rest'"),
        (lambda row: row.pop("columns_checksum"), "without the column 'columns_checksum'"),
    ],
)
def test_what_this_version_cannot_read_is_refused_in_words(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(Mismatch, match=message):
        from_row(row(change))
