"""`kernel.iterate` compiled by numba: the same operations in the same order, but in fewer passes over the memory.

Each stage is a function of its own over a whole part of the block: only so does the compiler know that arrays do not
overlap, and vectorizes the loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.compiling import jit
from ap_spark.blocks.kernel import Block, Floats, Integers
from ap_spark.damping import DAMPINGS, Damping, Levels
from ap_spark.exact_sum import Units

__all__ = ["iterate"]

_Columns = NDArray[Any]

_TABLE = np.array(DAMPINGS)
_NO_LEVELS = np.empty(0, np.uint8)


def iterate(
    block: Block, totals: Floats, damping: Damping, units: Units, sums: Integers, last: Damping | None = None
) -> None:
    """Compute the messages of one iteration, in place; see `kernel.iterate`."""
    matrix = (block.cuts, block.rows, block.starts, block.diagonal, block.columns)
    messages = (block.s, block.r, block.a)
    dampings = (*_split(damping if last is None else last), *_split(damping))
    _iterate_parts(*matrix, *messages, totals, last is not None, *dampings, _TABLE, *units, sums, *block.scratch)


def _split(damping: Damping) -> tuple[float, Levels]:
    """Return one damping for all entries, or the level of each."""
    return (damping, _NO_LEVELS) if isinstance(damping, float) else (0.0, damping)


@jit
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
    differs: bool,
    last: float,
    last_levels: Levels,
    damping: float,
    levels: Levels,
    table: Floats,
    coarse: float,
    fine: float,
    sums: Integers,
    value: Floats,
    other: Floats,
    keep: Floats,
) -> None:
    """Iterate all parts of a block. ``value``, ``other`` and ``keep`` are scratch.

    ``last`` is the damping of availabilities, where it ``differs`` from that of responsibilities.
    """
    positive = np.empty(len(value), np.int64)
    for part in range(len(cuts) - 1):
        low, high = cuts[part], cuts[part + 1]
        entries = slice(starts[low], starts[high])
        begin = starts[low : high + 1] - starts[low]
        self_index = diagonal[low:high] - starts[low]
        _look_up(last, last_levels, entries, table, keep)
        _availabilities(rows[low:high], self_index, columns[entries], r[entries], a[entries], totals, keep, other)
        _add(a[entries], s[entries], value)
        if differs:
            _look_up(damping, levels, entries, table, keep)
        _responsibilities(begin, value, s[entries], r[entries], keep)
        addends = positive[: _find_positive(r[entries], positive)]
        if len(sums) == 1:
            _contributions(columns[entries], r[entries], addends, 1.0 / coarse, sums[0])
        else:
            _contributions_in_two_words(columns[entries], r[entries], addends, coarse, 1.0 / fine, sums)


@jit
def _look_up(damping: float, levels: Levels, entries: slice, table: Floats, keep: Floats) -> None:
    """Write the damping of each entry."""
    if len(levels) == 0:
        keep[: entries.stop - entries.start] = damping
    else:
        _look_up_levels(levels[entries], table, keep)


@jit
def _look_up_levels(levels: Levels, table: Floats, keep: Floats) -> None:
    for e in range(len(levels)):
        keep[e] = table[levels[e]]


@jit
def _availabilities(
    rows: Integers,
    diagonal: Integers,
    columns: _Columns,
    r: Floats,
    a: Floats,
    totals: Floats,
    keep: Floats,
    new: Floats,
) -> None:
    for e in range(len(columns)):
        new[e] = min(totals[columns[e]] - max(r[e], 0.0), 0.0)
    for j in range(len(rows)):
        new[diagonal[j]] = totals[rows[j]] - r[diagonal[j]]
    _damp(a, new, keep)


@jit
def _damp(old: Floats, new: Floats, keep: Floats) -> None:
    for e in range(len(old)):
        old[e] = old[e] * keep[e] + new[e] * (1.0 - keep[e])


@jit
def _add(a: Floats, s: Floats, value: Floats) -> None:
    for e in range(len(a)):
        value[e] = a[e] + s[e]


@jit
def _responsibilities(starts: Integers, value: Floats, s: Floats, r: Floats, keep: Floats) -> None:
    for j in range(len(starts) - 1):
        row = slice(starts[j], starts[j + 1])
        largest, second = _two_largest(value[row])
        for e in range(starts[j], starts[j + 1]):
            others = second if value[e] == largest else largest
            r[e] = r[e] * keep[e] + (s[e] - others) * (1.0 - keep[e])


@jit
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


@jit
def _insert(largest: float, second: float, value: float) -> tuple[float, float]:
    """Return the largest and the second largest after one more value."""
    smaller = value if value < largest else largest
    return (largest if value < largest else value), (smaller if smaller > second else second)


@jit
def _find_positive(r: Floats, positive: Integers) -> int:
    """Write which entries are positive, and return how many: without a branch, which no processor would predict."""
    count = 0
    for e in range(len(r)):
        positive[count] = e
        count += r[e] > 0.0
    return count


@jit
def _contributions(columns: _Columns, r: Floats, positive: Integers, inverse: float, sums: Integers) -> None:
    for e in positive:
        sums[columns[e]] += np.int64(np.rint(r[e] * inverse))


@jit
def _contributions_in_two_words(
    columns: _Columns, r: Floats, positive: Integers, coarse: float, inverse_fine: float, sums: Integers
) -> None:
    inverse = 1.0 / coarse
    for e in positive:
        high = np.int64(r[e] * inverse)
        if high:  # rarely: it saves an access to memory
            sums[0, columns[e]] += high
        sums[1, columns[e]] += np.int64(np.rint((r[e] - high * coarse) * inverse_fine))
