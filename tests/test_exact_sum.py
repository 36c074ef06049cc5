"""Exact sums over many scales: messages of the kernel, in numpy and compiled, beside plain float64; without Spark."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest

from ap_spark.blocks import compiled_kernel as compiled
from ap_spark.blocks import kernel
from ap_spark.errors import InputError
from ap_spark.exact_sum import Units, in_units, unit_of, units_of
from tests import oracle

Floats = oracle.Floats
ITERATIONS = 40
N = 18
SCALES = [10.0**exponent for exponent in range(0, 24, 2)]


def blobs(seed: int) -> tuple[Floats, Floats]:
    """Similarities of three groups of six points, and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.repeat(range(3), N // 3)
    x = rng.normal(size=(N, 2)) + 6.0 * group[:, None]
    return -((x[:, None] - x[None]) ** 2).sum(axis=-1), group


def far_pairs(scale: float) -> Floats:
    """A large negative number that stands for "too far"."""
    s, group = blobs(1)
    s[group[:, None] != group] *= scale
    np.fill_diagonal(s, -4.0)
    return s


def excluded_points(scale: float) -> Floats:
    """Some points that are never to be exemplars."""
    s, _ = blobs(2)
    np.fill_diagonal(s, np.where(np.arange(N) % 3 == 0, -4.0 * scale, -4.0))
    return s


def bound_pairs(scale: float) -> Floats:
    """A large positive number that stands for "belong together"."""
    s, _ = blobs(3)
    s[[1, 8, 15], [2, 9, 16]] = scale
    np.fill_diagonal(s, -4.0)
    return s


def outlier(scale: float) -> Floats:
    """A point far from all the others."""
    s, _ = blobs(4)
    s[7] *= scale
    s[:, 7] *= scale
    np.fill_diagonal(s, -4.0)
    return s


def run(s: Floats, units: Units, iterate: Callable[..., None]) -> tuple[kernel.Block, kernel.Flags]:
    n = len(s)
    i, k = np.nonzero(np.isfinite(s))
    block = kernel.make_block(i, k, s[i, k])
    totals, a, exemplars = np.zeros(n), np.zeros(n), np.zeros(n, bool)
    for _ in range(ITERATIONS):
        sums = np.zeros((units.words, n), np.int64)
        iterate(block, totals, 0.7, units, sums)
        totals, a, exemplars = kernel.column_totals(sums, block.r[block.diagonal], a, 0.7, units)
    return block, exemplars


@pytest.mark.parametrize("graph", [far_pairs, excluded_points, bound_pairs, outlier])
@pytest.mark.parametrize("scale", SCALES, ids="{:g}".format)
def test_messages_at_every_scale_are_those_of_float64(graph: Callable[[float], Floats], scale: float) -> None:
    s = graph(scale)
    units = units_of(np.ptp(s), len(s) - 1, np.abs(s).min())
    messages = next(islice(oracle.iterate(s, 0.7), ITERATIONS - 1, None))
    block, exemplars = run(s, units, kernel.iterate)
    rows = np.repeat(block.rows, np.diff(block.starts))
    np.testing.assert_allclose(block.r, messages.r[rows, block.columns], rtol=1e-8, atol=1e-10)
    assert exemplars.tolist() == oracle.exemplars(s, messages).tolist()
    assert 3 <= exemplars.sum() < N // 2
    compiled_block, compiled_exemplars = run(s, units, compiled.iterate)
    assert compiled_block.r.tobytes() == block.r.tobytes()
    assert compiled_block.a.tobytes() == block.a.tobytes()
    assert compiled_exemplars.tolist() == exemplars.tolist()


def test_one_word_where_it_is_enough_and_refusals_where_two_are_not() -> None:
    assert units_of(70.0, 150, smallest=0.01).words == 1
    assert units_of(1e18, 150, smallest=1.0).words == 2
    with pytest.raises(InputError, match="but they reach 1e\\+308: divide them all by a power of ten"):
        unit_of(1e308, 10)
    with pytest.raises(InputError, match="but they reach only 1e-300: multiply them all by a power of ten"):
        unit_of(1e-300, 10)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 10**6, 2**31])
def test_sums_of_the_largest_addends_do_not_overflow(count: int) -> None:
    units = units_of(1.0, count)
    for sign in (1.0, -1.0):
        for value in (2.0, np.nextafter(2.0, 0.0)):
            words = in_units(np.array([sign * value]), units)
            assert all(abs(int(word[0])) * (count + 1) < 2**63 for word in words)
            assert words[0][0] * units.coarse + words[1][0] * units.fine == sign * value
