"""`kernel.iterate` compiled by numba: the same operations on each entry, without a pass over the memory for each.

To be imported where numba is installed (``pip install 'ap-spark[fast]'``). Each stage is a function of its own, over a
whole part of the block: so the compiler knows what cannot overlap, and vectorizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ap_spark.blocks.kernel import Block, Damping, Floats, Integers
from ap_spark.exact_sum import Units

__all__ = ["iterate"]

Columns = NDArray[Any]


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled once, and kept on disk for the other processes where there is a place for it."""
    try:
        compiled: Callable[..., Any] = njit(error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache can be written
        compiled = njit(error_model="numpy")(function)
    return compiled


def iterate(block: Block, totals: Floats, damping: Damping, units: Units, sums: Integers) -> None:
    """See `kernel.iterate`."""
    matrix = (block.cuts, block.rows, block.starts, block.diagonal, block.columns)
    messages = (block.s, block.r, block.a)
    each = np.atleast_1d(np.asarray(damping, np.float64))
    parts(*matrix, *messages, totals, each, *units, sums, *block.scratch)


@jit
def parts(
    cuts: Integers,
    rows: Integers,
    starts: Integers,
    diagonal: Integers,
    columns: Columns,
    s: Floats,
    r: Floats,
    a: Floats,
    totals: Floats,
    damping: Floats,
    coarse: float,
    fine: float,
    sums: Integers,
    value: Floats,
    other: Floats,
) -> None:
    """All parts of a block. ``damping`` is one number, or one for each row; ``value`` and ``other`` are scratch."""
    positive = np.empty(len(value), np.int64)
    for part in range(len(cuts) - 1):
        low, high = cuts[part], cuts[part + 1]
        entries = slice(starts[low], starts[high])
        begin = starts[low : high + 1] - starts[low]
        own = diagonal[low:high] - starts[low]
        of_row = np.empty(high - low)
        of_row[:] = damping[low:high] if len(damping) > 1 else damping
        availabilities(rows[low:high], begin, own, columns[entries], r[entries], a[entries], totals, of_row, other)
        add(a[entries], s[entries], value)
        responsibilities(begin, value, s[entries], r[entries], of_row)
        addends = positive[: where_positive(r[entries], positive)]
        if len(sums) == 1:
            contributions(columns[entries], r[entries], addends, 1.0 / coarse, sums[0])
        else:
            contributions_of_two_words(columns[entries], r[entries], addends, coarse, 1.0 / fine, sums)


@jit
def availabilities(
    rows: Integers,
    starts: Integers,
    diagonal: Integers,
    columns: Columns,
    r: Floats,
    a: Floats,
    totals: Floats,
    damping: Floats,
    new: Floats,
) -> None:
    for e in range(len(columns)):
        new[e] = min(totals[columns[e]] - max(r[e], 0.0), 0.0)
    for j in range(len(rows)):
        new[diagonal[j]] = totals[rows[j]] - r[diagonal[j]]
    damp(starts, a, new, damping)


@jit
def damp(starts: Integers, old: Floats, new: Floats, damping: Floats) -> None:
    for j in range(len(damping)):
        keep = damping[j]
        take = 1.0 - keep
        for e in range(starts[j], starts[j + 1]):
            old[e] = old[e] * keep + new[e] * take


@jit
def add(a: Floats, s: Floats, value: Floats) -> None:
    for e in range(len(a)):
        value[e] = a[e] + s[e]


@jit
def responsibilities(starts: Integers, value: Floats, s: Floats, r: Floats, damping: Floats) -> None:
    for j in range(len(damping)):
        keep = damping[j]
        take = 1.0 - keep
        row = slice(starts[j], starts[j + 1])
        largest, second = two_largest(value[row])
        for e in range(starts[j], starts[j + 1]):
            others = second if value[e] == largest else largest
            r[e] = r[e] * keep + (s[e] - others) * take


@jit
def two_largest(values: Floats) -> tuple[float, float]:
    """The largest and the second largest; four pairs at once, which do not wait for each other."""
    l0 = l1 = l2 = l3 = s0 = s1 = s2 = s3 = -np.inf
    whole = len(values) // 4 * 4
    for e in range(0, whole, 4):
        l0, s0 = with_one_more(l0, s0, values[e])
        l1, s1 = with_one_more(l1, s1, values[e + 1])
        l2, s2 = with_one_more(l2, s2, values[e + 2])
        l3, s3 = with_one_more(l3, s3, values[e + 3])
    for e in range(whole, len(values)):
        l0, s0 = with_one_more(l0, s0, values[e])
    l0, s0 = with_one_more(l0, max(s0, s1), l1)
    l0, s0 = with_one_more(l0, max(s0, s2), l2)
    l0, s0 = with_one_more(l0, max(s0, s3), l3)
    return l0, s0


@jit
def with_one_more(largest: float, second: float, value: float) -> tuple[float, float]:
    smaller = value if value < largest else largest
    return (largest if value < largest else value), (smaller if smaller > second else second)


@jit
def where_positive(r: Floats, positive: Integers) -> int:
    """Note which entries are positive, and how many. Without a branch: few are, and no processor foresees which."""
    count = 0
    for e in range(len(r)):
        positive[count] = e
        count += r[e] > 0.0
    return count


@jit
def contributions(columns: Columns, r: Floats, positive: Integers, inverse: float, sums: Integers) -> None:
    for e in positive:
        sums[columns[e]] += np.int64(np.rint(r[e] * inverse))


@jit
def contributions_of_two_words(
    columns: Columns, r: Floats, positive: Integers, coarse: float, inverse_fine: float, sums: Integers
) -> None:
    inverse = 1.0 / coarse
    for e in positive:
        high = np.int64(r[e] * inverse)
        if high:  # hardly ever, beside a fine word: another place in memory
            sums[0, columns[e]] += high
        sums[1, columns[e]] += np.int64(np.rint((r[e] - high * coarse) * inverse_fine))
