"""`kernel.iterate` compiled by numba: the same operations in the same order, but in fewer passes over the memory.

To be imported only where numba is installed (``pip install 'ap-spark[fast]'``). Each stage is a function of its own
over a whole part of the block: only so does the compiler know that arrays do not overlap, and vectorizes the loops.
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

_Columns = NDArray[Any]


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function, and cache it on disk for other processes where that is possible."""
    try:
        compiled: Callable[..., Any] = njit(error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache can be written
        compiled = njit(error_model="numpy")(function)
    return compiled


def iterate(block: Block, totals: Floats, damping: Damping, units: Units, sums: Integers) -> None:
    """Compute the messages of one iteration, in place; see `kernel.iterate`."""
    matrix = (block.cuts, block.rows, block.starts, block.diagonal, block.columns)
    messages = (block.s, block.r, block.a)
    each = np.atleast_1d(np.asarray(damping, np.float64))
    _iterate_parts(*matrix, *messages, totals, each, *units, sums, *block.scratch)


@_jit
def _iterate_parts(
    cuts: Integers,
    rows: Integers,
    starts: Integers,
    diagonal: Integers,
    columns: _Columns,
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
    """Iterate all parts of a block. ``damping`` has one number, or one a row; ``value`` and ``other`` are scratch."""
    positive = np.empty(len(value), np.int64)
    for part in range(len(cuts) - 1):
        low, high = cuts[part], cuts[part + 1]
        entries = slice(starts[low], starts[high])
        begin = starts[low : high + 1] - starts[low]
        self_index = diagonal[low:high] - starts[low]
        keep = np.empty(high - low)
        keep[:] = damping[low:high] if len(damping) > 1 else damping
        _availabilities(
            rows[low:high], begin, self_index, columns[entries], r[entries], a[entries], totals, keep, other
        )
        _add(a[entries], s[entries], value)
        _responsibilities(begin, value, s[entries], r[entries], keep)
        addends = positive[: _find_positive(r[entries], positive)]
        if len(sums) == 1:
            _contributions(columns[entries], r[entries], addends, 1.0 / coarse, sums[0])
        else:
            _contributions_in_two_words(columns[entries], r[entries], addends, coarse, 1.0 / fine, sums)


@_jit
def _availabilities(
    rows: Integers,
    starts: Integers,
    diagonal: Integers,
    columns: _Columns,
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
    _damp(starts, a, new, damping)


@_jit
def _damp(starts: Integers, old: Floats, new: Floats, damping: Floats) -> None:
    for j in range(len(damping)):
        keep = damping[j]
        take = 1.0 - keep
        for e in range(starts[j], starts[j + 1]):
            old[e] = old[e] * keep + new[e] * take


@_jit
def _add(a: Floats, s: Floats, value: Floats) -> None:
    for e in range(len(a)):
        value[e] = a[e] + s[e]


@_jit
def _responsibilities(starts: Integers, value: Floats, s: Floats, r: Floats, damping: Floats) -> None:
    for j in range(len(damping)):
        keep = damping[j]
        take = 1.0 - keep
        row = slice(starts[j], starts[j + 1])
        largest, second = _two_largest(value[row])
        for e in range(starts[j], starts[j + 1]):
            others = second if value[e] == largest else largest
            r[e] = r[e] * keep + (s[e] - others) * take


@_jit
def _two_largest(values: Floats) -> tuple[float, float]:
    """Return the largest and the second largest: by four independent pairs, which the processor updates in parallel."""
    l0 = l1 = l2 = l3 = s0 = s1 = s2 = s3 = -np.inf
    whole = len(values) // 4 * 4
    for e in range(0, whole, 4):
        l0, s0 = _insert(l0, s0, values[e])
        l1, s1 = _insert(l1, s1, values[e + 1])
        l2, s2 = _insert(l2, s2, values[e + 2])
        l3, s3 = _insert(l3, s3, values[e + 3])
    for e in range(whole, len(values)):
        l0, s0 = _insert(l0, s0, values[e])
    l0, s0 = _insert(l0, max(s0, s1), l1)
    l0, s0 = _insert(l0, max(s0, s2), l2)
    l0, s0 = _insert(l0, max(s0, s3), l3)
    return l0, s0


@_jit
def _insert(largest: float, second: float, value: float) -> tuple[float, float]:
    """Return the largest and the second largest after one more value."""
    smaller = value if value < largest else largest
    return (largest if value < largest else value), (smaller if smaller > second else second)


@_jit
def _find_positive(r: Floats, positive: Integers) -> int:
    """Write which entries are positive, and return how many: without a branch, which no processor would predict."""
    count = 0
    for e in range(len(r)):
        positive[count] = e
        count += r[e] > 0.0
    return count


@_jit
def _contributions(columns: _Columns, r: Floats, positive: Integers, inverse: float, sums: Integers) -> None:
    for e in positive:
        sums[columns[e]] += np.int64(np.rint(r[e] * inverse))


@_jit
def _contributions_in_two_words(
    columns: _Columns, r: Floats, positive: Integers, coarse: float, inverse_fine: float, sums: Integers
) -> None:
    inverse = 1.0 / coarse
    for e in positive:
        high = np.int64(r[e] * inverse)
        if high:  # rarely: it saves an access to memory
            sums[0, columns[e]] += high
        sums[1, columns[e]] += np.int64(np.rint((r[e] - high * coarse) * inverse_fine))
