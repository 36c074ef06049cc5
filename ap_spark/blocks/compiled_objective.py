"""The passes of `objective` compiled by numba: the same integers, found row by row and without temporary arrays.

Few entries of a row count in a pass. Which ones is found first, without a branch, which no processor would predict;
then they alone are looked at. `entries_of` runs once, and has no twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.compiling import jit
from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.blocks.objective import NONE, QUANTUM, Found, UnitParts, Values, joined

__all__ = ["best_two", "bound_step", "extras", "gains", "in_whole_units", "refusals"]

_Columns = NDArray[Any]


def in_whole_units(similarity: Floats, unit: float) -> Integers:
    """Return similarities as multiples of a unit; see `objective.in_whole_units`."""
    units = np.empty(len(similarity), np.int64)
    _in_whole_units(similarity, 1.0 / unit, units)
    return units


@jit
def _in_whole_units(similarity: Floats, inverse: float, units: Integers) -> None:
    for e in range(len(similarity)):
        units[e] = np.int64(np.ceil(similarity[e] * inverse))


@jit
def _find_larger(s: Integers, low: int, found: Integers) -> int:
    """Write which entries are larger than a number, and return how many."""
    count = 0
    for e in range(len(s)):
        found[count] = e
        count += s[e] > low
    return count


@jit
def _find_flagged(k: _Columns, flags: Flags, found: Integers) -> int:
    """Write which entries are in columns with a flag, and return how many."""
    count = 0
    for e in range(len(k)):
        found[count] = e
        count += flags[k[e]]
    return count


def best_two(parts: UnitParts, is_exemplar: Flags) -> Found:
    """Find the two best exemplars of each row; see `objective.best_two`."""
    rows = [np.empty(0, np.int64)]
    values: Values = [[np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)]]
    for block, similarity in parts:
        m = len(block.rows)
        first, best, second = np.empty(m, np.int32), np.empty(m, np.int64), np.empty(m, np.int64)
        _best_two(block.rows, block.starts, block.columns, similarity, is_exemplar, first, best, second)
        rows.append(block.rows)
        values.append([first, best, second])
    return joined(rows, values, np.empty((0, len(is_exemplar)), np.int64))


@jit
def _best_two(
    rows: Integers,
    starts: Integers,
    columns: _Columns,
    similarity: Integers,
    is_exemplar: Flags,
    first: NDArray[np.int32],
    best: Integers,
    second: Integers,
) -> None:
    found = np.empty(np.diff(starts).max(), np.int64)
    for j in range(len(rows)):
        row = slice(starts[j], starts[j + 1])
        s, k = similarity[row], columns[row]
        name, largest, next_one = -1, NONE, NONE
        for e in found[: _find_flagged(k, is_exemplar, found)]:
            if s[e] > next_one and k[e] != rows[j]:
                if s[e] > largest or (s[e] == largest and k[e] < name):
                    name, largest, next_one = k[e], s[e], largest
                else:
                    next_one = s[e]
        first[j], best[j], second[j] = name, largest, next_one


def gains(
    parts: UnitParts, is_exemplar: Flags, first: NDArray[np.int32], best: Integers, fallback: Integers, lacks: Flags
) -> Found:
    """Add up what each point would bring its neighbours as an exemplar; see `objective.gains`."""
    sums = np.zeros((4, len(is_exemplar)), np.int64)
    for block, similarity in parts:
        matrix = block.rows, block.starts, block.diagonal, block.columns
        _gains(*matrix, similarity, is_exemplar, first, best, fallback, lacks, *sums)
    return Found(np.empty(0, np.int64), [], sums)


@jit
def _gains(
    rows: Integers,
    starts: Integers,
    diagonal: Integers,
    columns: _Columns,
    similarity: Integers,
    is_exemplar: Flags,
    first: NDArray[np.int32],
    best: Integers,
    fallback: Integers,
    lacks: Flags,
    opened: Integers,
    swapped: Integers,
    reached: Integers,
    served: Integers,
) -> None:
    found = np.empty(np.diff(starts).max(), np.int64)
    for j in range(len(rows)):
        i, own, row = rows[j], similarity[diagonal[j]], slice(starts[j], starts[j + 1])
        s, k = similarity[row], columns[row]
        if is_exemplar[i]:
            for e in range(len(s)):
                if first[k[e]] == i and not is_exemplar[k[e]]:
                    swapped[k[e]] += max(s[e], best[i]) - own
                    reached[k[e]] += 1
            continue
        opened[i] += own - best[i]
        swapped[i] += own - fallback[i]
        served[i] += lacks[i]
        for e in found[: _find_larger(s, NONE if lacks[i] else fallback[i], found)]:
            if is_exemplar[k[e]] or k[e] == i:
                continue
            more = max(s[e] - best[i], 0)
            opened[k[e]] += more
            if first[k[e]] == first[i]:
                swapped[k[e]] += s[e] - fallback[i]
                served[k[e]] += lacks[i]
            else:
                swapped[k[e]] += more


def extras(
    parts: UnitParts,
    is_exemplar: Flags,
    first: NDArray[np.int32],
    best: Integers,
    fallback: Integers,
    closable: Flags,
) -> Found:
    """Find what swaps bring beyond closing the one and opening the other; see `objective.extras`."""
    found, values = [np.empty(0, np.int64)], [[np.empty(0, np.int64), np.empty(0, np.int64)]]
    for block, similarity in parts:
        matrix = block.rows, block.starts, block.columns
        opened, closed, extra = _extras(*matrix, similarity, is_exemplar, first, best, fallback, closable)
        found.append(opened)
        values.append([closed, extra])
    return joined(found, values, np.empty((0, len(closable)), np.int64))


@jit
def _extras(
    rows: Integers,
    starts: Integers,
    columns: _Columns,
    similarity: Integers,
    is_exemplar: Flags,
    first: NDArray[np.int32],
    best: Integers,
    fallback: Integers,
    closable: Flags,
) -> tuple[Integers, Integers, Integers]:
    found = np.empty(np.diff(starts).max(), np.int64)
    most = len(rows)
    for j in range(len(rows)):
        i = rows[j]
        if closable[i if is_exemplar[i] else first[i]]:
            low = best[i] if is_exemplar[i] else fallback[i]
            most += _find_larger(similarity[starts[j] : starts[j + 1]], low, found)
    opened, closed, extra = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    count = 0
    for j in range(len(rows)):
        i = rows[j]
        if not is_exemplar[i] and closable[first[i]]:
            opened[count], closed[count], extra[count] = i, first[i], best[i] - fallback[i]
            count += 1
    for j in range(len(rows)):
        i, row, is_open = rows[j], slice(starts[j], starts[j + 1]), is_exemplar[rows[j]]
        exemplar = i if is_open else first[i]
        if closable[exemplar]:
            s, k = similarity[row], columns[row]
            low = best[i] if is_open else fallback[i]
            for e in found[: _find_larger(s, low, found)]:
                if not is_exemplar[k[e]] and k[e] != i:
                    reached = s[e] if is_open else min(s[e], best[i])
                    opened[count], closed[count], extra[count] = k[e], exemplar, reached - low
                    count += 1
    return opened[:count], closed[:count], extra[:count]


def refusals(parts: UnitParts, rank: NDArray[np.int32], none: int) -> Found:
    """Count, for each column, the rows that pick another move than its own; see `objective.refusals`."""
    sums = np.zeros((1, len(rank)), np.int64)
    for block, _ in parts:
        _refusals(block.starts, block.columns, rank, none, sums[0])
    return Found(np.empty(0, np.int64), [], sums)


@jit
def _refusals(starts: Integers, columns: _Columns, rank: NDArray[np.int32], none: int, refused: Integers) -> None:
    for j in range(len(starts) - 1):
        k = columns[starts[j] : starts[j + 1]]
        picked = none
        for e in range(len(k)):
            picked = min(picked, rank[k[e]])
        if picked < none:
            for e in range(len(k)):
                if picked < rank[k[e]] < none:
                    refused[k[e]] += 1


def bound_step(
    parts: UnitParts, v: Integers, direction: Floats, is_open: Flags, step: float, keep: float, limit: int
) -> Found:
    """Move the numbers v of the bound one step, and add up what the columns earn; see `objective.bound_step`."""
    sums = np.zeros((1, len(v)), np.int64)
    rows = [np.empty(0, np.int64)]
    values: Values = [[np.empty(0, np.int64), np.empty(0)]]
    for block, similarity in parts:
        moved, turned = np.empty(len(block.rows), np.int64), np.empty(len(block.rows))
        matrix = block.rows, block.starts, block.columns
        _bound_step(*matrix, similarity, v, direction, is_open, step, keep, limit, moved, turned, sums[0])
        rows.append(block.rows)
        values.append([moved, turned])
    return joined(rows, values, sums)


@jit
def _bound_step(
    rows: Integers,
    starts: Integers,
    columns: _Columns,
    similarity: Integers,
    v: Integers,
    direction: Floats,
    is_open: Flags,
    step: float,
    keep: float,
    limit: int,
    moved: Integers,
    turned: Floats,
    earned: Integers,
) -> None:
    found = np.empty(np.diff(starts).max(), np.int64)
    for j in range(len(rows)):
        i, row = rows[j], slice(starts[j], starts[j + 1])
        s, k = similarity[row], columns[row]
        above = 0
        for e in found[: _find_larger(s, v[i], found)]:
            above += is_open[k[e]] and k[e] != i
        turned[j] = np.rint((1.0 - is_open[i] - above + keep * direction[i]) * QUANTUM) / QUANTUM
        change = np.int64(min(max(np.rint(step * turned[j]), -2.0 * limit), 2.0 * limit))
        moved[j] = min(max(v[i] - change, -limit), limit)
        for e in found[: _find_larger(s, moved[j], found)]:
            if k[e] != i:
                earned[k[e]] += s[e] - moved[j]
