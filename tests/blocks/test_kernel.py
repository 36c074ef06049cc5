"""The kernel, in numpy and compiled: what must not change its results, without Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ap_spark.blocks import compiled_kernel as compiled
from ap_spark.blocks import kernel
from ap_spark.exact_sum import Units
from tests.conftest import (
    LONG,
    Edges,
)

UNITS = Units(2.0**-40, 2.0**-40)


@pytest.mark.parametrize("iterate", [kernel.iterate, pytest.param(compiled.iterate, marks=LONG)])
def test_parts_and_levels_that_are_all_equal_do_not_change_the_bits(
    tied: Edges, monkeypatch: pytest.MonkeyPatch, iterate: Callable[..., None]
) -> None:
    n = 40
    i, k, s = map(np.array, zip(*tied, *((p, p, -5.0) for p in range(n)), strict=True))
    results = []
    for size, damping in ((1 << 15, 0.8), (1, 0.8), (64, np.full(len(i), 2, np.uint8))):
        monkeypatch.setattr(kernel, "_PART_ENTRIES", size)
        block = kernel.make_block(i, k.astype(np.int32 if size == 1 else np.int64), s)
        totals: NDArray[np.float64] = np.zeros(n)
        for _ in range(10):
            sums = np.zeros((1, n), np.int64)
            iterate(block, totals, damping, UNITS, sums)
            totals = np.asarray(sums[0] * 2.0**-40)
        results.append((block.r.tobytes(), block.a.tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize("iterate", [kernel.iterate, compiled.iterate])
def test_an_entry_has_the_larger_damping_of_its_two_points(iterate: Callable[..., None]) -> None:
    i, k = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    block = kernel.make_block(i, k, np.array([-2.0, -1.0, -1.0, -2.0]))
    level = kernel.entry_levels(block, np.array([0, 3], np.uint8))
    iterate(block, np.array([0.0, -4.0]), level, UNITS, np.zeros((1, 2), np.int64))
    take = 1.0 - 0.95
    assert block.a.tolist() == [0.0, -4.0 * take, 0.0, -4.0 * take]
    others = -1.0 - 4.0 * take, -2.0, -2.0 - 4.0 * take, -1.0  # the largest a + s but that of the entry itself
    expected = (-2.0 - others[0]) * 0.5, (-1.0 - others[1]) * take, (-1.0 - others[2]) * take, (-2.0 - others[3]) * take
    assert block.r.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("iterate", [kernel.iterate, compiled.iterate])
def test_availabilities_have_the_damping_of_the_iteration_before(iterate: Callable[..., None]) -> None:
    i, k = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    block = kernel.make_block(i, k, np.array([-2.0, -1.0, -1.0, -2.0]))
    levels = np.full(4, 2, np.uint8)
    iterate(block, np.array([0.0, -4.0]), levels, UNITS, np.zeros((1, 2), np.int64), 0.5)
    assert block.a.tolist() == [0.0, -2.0, 0.0, -2.0]


def test_numpy_and_numba_give_the_same_bits_where_levels_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_PART_ENTRIES", 64)
    rng = np.random.default_rng(0)
    n = 60
    i, k = np.nonzero((rng.random((n, n)) < 0.3) | np.eye(n, dtype=bool))
    s = -rng.gamma(2.0, 1.0, len(i))
    results = []
    for iterate in (kernel.iterate, compiled.iterate):
        block = kernel.make_block(i, k, s)
        chance, totals = np.random.default_rng(1), np.zeros(n)
        last: Any = 0.5
        for _ in range(12):
            sums = np.zeros((1, n), np.int64)
            damping = kernel.entry_levels(block, chance.integers(0, 4, n).astype(np.uint8))
            iterate(block, totals, damping, UNITS, sums, last)
            last, totals = damping, np.asarray(sums[0] * 2.0**-40 - 0.3)
        results.append((block.r.tobytes(), block.a.tobytes(), sums.tobytes()))
    assert results[0] == results[1]
