"""The passes of `objective` compiled by numba: the same integers, but in one pass over the memory.

Most entries of a row lie below its threshold, and are skipped at the cost of a comparison. `entries_of` runs once, and
has no twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap_spark.blocks.compiling import jit
from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.blocks.objective import NONE, QUANTUM, Found, UnitParts, Values, joined

__all__ = ["best_two", "bound_step", "gains", "in_whole_units", "refusals"]

_Columns = NDArray[Any]
_NONE = int(NONE)


def in_whole_units(similarity: Floats, unit: float) -> Integers:
    """Return similarities as multiples of a unit; see `objective.in_whole_units`."""
    found = np.empty(len(similarity), np.int64)
    _in_whole_units(similarity, 1.0 / unit, found)
    return found


@jit
def _in_whole_units(similarity: Floats, inverse: float, found: Integers) -> None:
    for e in range(len(similarity)):
        found[e] = np.int64(np.ceil(similarity[e] * inverse))


@jit
def _find_larger(similarity: Integers, low: int, found: Integers) -> int:
    """Write which entries are larger, and return how many: without a branch, which no processor would predict."""
    count = 0
    for e in range(len(similarity)):
        found[count] = e
        count += similarity[e] > low
    return count


@jit
def _find_flagged(columns: _Columns, flags: Flags, found: Integers) -> int:
    """Write which entries are in columns with a flag, and return how many."""
    count = 0
    for e in range(len(columns)):
        found[count] = e
        count += flags[columns[e]]
    return count


def best_two(parts: UnitParts, is_exemplar: Flags) -> Found:
    """Find the two best exemplars of each row; see `objective.best_two`."""
    rows = [np.empty(0, np.int64)]
    values: Values = [[np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int64)]]
    for block, similarity in parts:
        m = len(block.rows)
        first, best, second = np.empty(m, np.int32), np.empty(m, np.int64), np.empty(m, np.int64)
        _best_two(block.starts, block.diagonal, block.columns, similarity, is_exemplar, first, best, second)
        rows.append(block.rows)
        values.append([first, best, second])
    return joined(rows, values, np.empty((0, len(is_exemplar)), np.int64))


@jit
def _best_two(
    starts: Integers,
    diagonal: Integers,
    columns: _Columns,
    similarity: Integers,
    is_exemplar: Flags,
    first: NDArray[np.int32],
    best: Integers,
    second: Integers,
) -> None:
    chosen = np.empty(np.diff(starts).max(), np.int64)
    for j in range(len(first)):
        name, largest, next_one = -1, _NONE, _NONE
        row, own = slice(starts[j], starts[j + 1]), diagonal[j] - starts[j]
        row_s, row_k = similarity[row], columns[row]
        for e in chosen[: _find_flagged(row_k, is_exemplar, chosen)]:
            s, k = row_s[e], row_k[e]
            if s > next_one and e != own:
                if s > largest or (s == largest and k < name):
                    name, largest, next_one = k, s, largest
                else:
                    next_one = s
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
    chosen = np.empty(np.diff(starts).max(), np.int64)
    for j in range(len(rows)):
        i, row, own = rows[j], slice(starts[j], starts[j + 1]), similarity[diagonal[j]]
        row_s, row_k = similarity[row], columns[row]
        if is_exemplar[i]:
            for e in range(len(row_k)):
                k = row_k[e]
                if first[k] == i and not is_exemplar[k]:
                    swapped[k] += max(row_s[e], best[i]) - own
                    reached[k] += 1
            continue
        opened[i] += own - best[i]
        swapped[i] += own - fallback[i]
        served[i] += lacks[i]
        low = _NONE if lacks[i] else fallback[i]
        for e in chosen[: _find_larger(row_s, low, chosen)]:
            s, k = row_s[e], row_k[e]
            if not is_exemplar[k] and k != i:
                more = max(s - best[i], 0)
                opened[k] += more
                if first[k] == first[i]:
                    swapped[k] += s - fallback[i]
                    served[k] += lacks[i]
                else:
                    swapped[k] += more


def refusals(parts: UnitParts, rank: NDArray[np.int32], none: int) -> Found:
    """Count, for each column, the rows that pick another move than its own; see `objective.refusals`."""
    sums = np.zeros((1, len(rank)), np.int64)
    for block, _ in parts:
        _refusals(block.starts, block.columns, rank, none, sums[0])
    return Found(np.empty(0, np.int64), [], sums)


@jit
def _refusals(starts: Integers, columns: _Columns, rank: NDArray[np.int32], none: int, refused: Integers) -> None:
    for j in range(len(starts) - 1):
        row_k = columns[starts[j] : starts[j + 1]]
        picked = none
        for e in range(len(row_k)):
            picked = min(picked, rank[row_k[e]])
        if picked < none:
            for e in range(len(row_k)):
                if picked < rank[row_k[e]] < none:
                    refused[row_k[e]] += 1


def bound_step(
    parts: UnitParts, v: Integers, direction: Floats, is_open: Flags, step: float, keep: float, limit: int
) -> Found:
    """Move the numbers v of the bound one step, and add up what the columns earn; see `objective.bound_step`."""
    sums = np.zeros((1, len(v)), np.int64)
    rows = [np.empty(0, np.int64)]
    values: Values = [[np.empty(0, np.int64), np.empty(0)]]
    for block, similarity in parts:
        moved, turned = np.empty(len(block.rows), np.int64), np.empty(len(block.rows))
        matrix = block.rows, block.starts, block.diagonal, block.columns
        _bound_step(*matrix, similarity, v, direction, is_open, step, keep, limit, moved, turned, sums[0])
        rows.append(block.rows)
        values.append([moved, turned])
    return joined(rows, values, sums)


@jit
def _bound_step(
    rows: Integers,
    starts: Integers,
    diagonal: Integers,
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
    chosen = np.empty(np.diff(starts).max(), np.int64)
    for j in range(len(rows)):
        i, row = rows[j], slice(starts[j], starts[j + 1])
        row_s, row_k = similarity[row], columns[row]
        above = 0
        for e in chosen[: _find_larger(row_s, v[i], chosen)]:
            above += is_open[row_k[e]] and row_k[e] != i
        found = 1.0 - is_open[i] - above
        turned[j] = np.rint((found + keep * direction[i]) * QUANTUM) / QUANTUM
        change = np.int64(min(max(np.rint(step * turned[j]), -2.0 * limit), 2.0 * limit))
        price = min(max(v[i] - change, -limit), limit)
        moved[j] = price
        for e in chosen[: _find_larger(row_s, price, chosen)]:
            if row_k[e] != i:
                earned[row_k[e]] += row_s[e] - price
