"""What tasks of the resident engine do, without Spark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ap_spark.blocks.build import Layout
from ap_spark.blocks.entries import Rules
from ap_spark.blocks.files import OPEN_FILES, opened, write_block
from ap_spark.blocks.kernel import make_block
from ap_spark.engines import tasks
from ap_spark.engines.tasks import Beginning, Plan, begin_messages
from ap_spark.exact_sum import Units


def test_words_that_travel_add_up() -> None:
    """Coarse words are sent for the few columns that have one; some have no fine word beside it."""
    rng = np.random.default_rng(0)
    block = make_block(*all_ends(9), s=rng.normal(size=81))
    for units in (Units(0.25, 0.25), Units(64.0, 2.0**-20)):
        plan = SimpleNamespace(layout=SimpleNamespace(cuts=np.array([0, 4, 9])), units=units)
        sent, expected = [], np.zeros((units.words, 9), np.int64)
        for number, low in ((0, 0), (1, 4)):
            part = block.part(low, (4, 9)[number])
            sums = rng.integers(0, 3, (units.words, 9)) * rng.integers(0, 2**40, (units.words, 9))
            expected += sums
            sent += list(tasks.partial_sums(part, plan, number, sums, reached=3))  # type: ignore[arg-type]
        found = sorted(tasks.reduce_sums(sent, plan), key=lambda column_sums: column_sums.number)  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.concatenate([column_sums.sums for column_sums in found], axis=1), expected)
        assert [column_sums.reached for column_sums in found] == [3, 3]


def all_ends(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    i, k = np.divmod(np.arange(n * n), n)
    return i, k


UNITS = Units(2.0**-40, 2.0**-40)


@pytest.mark.parametrize("engine", [7, 8])
def test_messages_of_another_engine_are_not_taken_for_ones_own(tmp_path: Path, engine: int) -> None:
    """A lost block may be rebuilt from the snapshot of another trial, after as many iterations."""
    entries = {"i": np.array([0, 0, 1, 1]), "k": np.array([0, 1, 0, 1]), "similarity": np.array([0.0, -1.0, -1.0, 0.0])}
    messages = {"r": np.full(4, 2.0), "a": np.full(4, 3.0)}
    shape = write_block(tmp_path / "block", 1, 0, 2, 50, [entries | messages], 7)
    array: Callable[[Any], Any] = lambda values: SimpleNamespace(value=values)  # noqa: E731
    beginning = Beginning(array(np.arange(2)), array(np.full(2, -5.0)), 1.0, 0, False, 50)
    plan = Plan(Layout(1, np.array([0, 2]), Rules(), 2), engine, beginning, UNITS, "numpy", 2)
    with opened(tmp_path / "block", shape) as file:
        begin_messages(file, plan)
        assert (file.iteration, file.engine) == ((50, 7) if engine == 7 else (0, 8))
        assert file.block.r.tolist() == [2.0 if engine == 7 else 0.0] * 4
        assert sorted(file.block.s.tolist()) == [-5.0, -5.0, -1.0, -1.0]
    OPEN_FILES.pop(tmp_path / "block").file.close()
