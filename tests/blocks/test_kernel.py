"""The kernel, in numpy and compiled: what must not change its results, without Spark."""

from __future__ import annotations

from collections.abc import Callable

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


@pytest.mark.parametrize("iterate", [kernel.iterate, pytest.param(compiled.iterate, marks=LONG)])
def test_parts_and_damping_of_each_point_do_not_change_the_bits(
    tied: Edges, monkeypatch: pytest.MonkeyPatch, iterate: Callable[..., None]
) -> None:
    n = 40
    i, k, s = map(np.array, zip(*tied, *((p, p, -5.0) for p in range(n)), strict=True))
    results = []
    for size, damping in ((1 << 15, 0.8), (1, 0.8), (64, np.full(n, 0.8))):
        monkeypatch.setattr(kernel, "_PART_ENTRIES", size)
        block = kernel.make_block(i, k.astype(np.int32 if size == 1 else np.int64), s)
        totals: NDArray[np.float64] = np.zeros(n)
        for _ in range(10):
            sums = np.zeros((1, n), np.int64)
            iterate(block, totals, damping, Units(2.0**-40, 2.0**-40), sums)
            totals = np.asarray(sums[0] * 2.0**-40)
        results.append((block.r.tobytes(), block.a.tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize("iterate", [kernel.iterate, compiled.iterate])
def test_damping_of_each_point_is_its_own(iterate: Callable[..., None]) -> None:
    i, k = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    s = np.array([-2.0, -1.0, -1.0, -2.0])
    block = kernel.make_block(i, k, s)
    iterate(block, np.array([0.0, -4.0]), np.array([0.5, 0.75]), Units(2.0**-40, 2.0**-40), np.zeros((1, 2), np.int64))
    assert block.a.tolist() == [0.0, -2.0, 0.0, -1.0]
    assert block.r.tolist() == [0.5, 0.5, 0.5, -0.25]
