"""Single moves of exemplars, one after the other: what `quality.polish` is measured against.

A move opens a point as an exemplar, closes one, or swaps one for a point beside its cluster: all exemplars come into
question, where polishing looks at a point's own one only. The moves that bring something are tried in the order of
their gains, each with its gain at that moment, until none is left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.blocks.objective import in_whole_units
from ap_spark.exact_sum import unit_of

__all__ = ["Searched", "search"]

_NONE = -(1 << 60)  # less than any gain, and small enough for sums of a few
_MAX_ROUNDS = 1000


class Searched(NamedTuple):
    """Where the search has ended."""

    is_exemplar: Flags
    netsim: float
    rounds: int
    moves: int


def search(i: Integers, k: Integers, s: Floats, preferences: Floats, is_exemplar: Flags) -> Searched:
    """Move exemplars of the graph of edges (i, k, s), without rows (k, k), until no single move brings anything."""
    n_points = len(preferences)
    unit = unit_of(float(max(np.abs(s).max(), np.abs(preferences).max())), n_points)
    p = in_whole_units(preferences, unit)
    number = csr_array((np.arange(1, len(s) + 1), (i, k)), shape=(n_points, n_points))
    units = in_whole_units(s, unit)
    out = number.indptr.astype(np.int64), number.indices.astype(np.int64), units[number.data - 1]
    turned = number.T.tocsr()
    into = turned.indptr.astype(np.int64), turned.indices.astype(np.int64), units[turned.data - 1]
    is_open = is_exemplar.copy()
    rounds, moves = _search(p, *out, *into, is_open, _MAX_ROUNDS)
    best = np.full(n_points, _NONE, np.int64)
    to_open = is_open[k]
    np.maximum.at(best, i[to_open], units[to_open])
    assert (is_open | (best > _NONE)).all(), "a point is left without an exemplar"
    return Searched(is_open, float(np.where(is_open, p, best).sum()) * unit, rounds, moves)


def _compiled(function: Any) -> Any:
    return njit(cache=True)(function)


@_compiled
def _search(
    p: Integers,
    out_start: Integers,
    out_k: Integers,
    out_s: Integers,
    in_start: Integers,
    in_i: Integers,
    in_s: Integers,
    is_open: NDArray[np.bool_],
    max_rounds: int,
) -> tuple[int, int]:
    n = len(p)
    first = np.full(n, -1, np.int64)  # the best exemplar other than the point itself
    best = np.full(n, _NONE, np.int64)
    fall = p.copy()  # what is left without the first: the second best, or the own preference
    closed = np.zeros(n, np.int64)  # what closing an exemplar brings its members
    counted = np.zeros(n, np.bool_)  # whether a row is among these
    extra = np.zeros(n, np.int64)  # scratch: what a swap brings beside an opening and a closing
    reach = np.full(n, _NONE, np.int64)  # scratch: the similarity of an exemplar to the point to be opened
    seen = np.zeros(n, np.bool_)
    near = np.empty(n, np.int64)
    todo = np.empty(3 * n + len(out_k), np.int64)
    gain = np.empty(n, np.int64)

    todo[:n] = np.arange(n)
    count = n
    rounds, moves, made, place = 0, 0, -1, 0
    order = todo[:0]
    while True:
        # Rows that see an exemplar more or less are looked at again. One that would be left with less than its own
        # preference becomes an exemplar, and is seen by others.
        while count > 0:
            count -= 1
            row = todo[count]
            if counted[row]:
                closed[first[row]] -= fall[row] - best[row]
                counted[row] = False
            _look(row, p, out_start, out_k, out_s, is_open, first, best, fall)
            if is_open[row]:
                continue
            if first[row] >= 0 and best[row] >= p[row]:
                closed[first[row]] += fall[row] - best[row]
                counted[row] = True
                continue
            is_open[row] = True
            count = _push(row, in_start, in_i, todo, count)
        # The next move in the order of gains; after the last one a round anew.
        brings, old, k = 0, -1, -1
        while brings <= 0:
            if made < 0 or place == n or gain[order[place]] <= 0:
                if made == 0 or rounds == max_rounds:
                    return rounds, moves
                for k in range(n):
                    gain[k], _ = _best_move(
                        k,
                        p,
                        in_start,
                        in_i,
                        in_s,
                        out_start,
                        out_k,
                        is_open,
                        first,
                        best,
                        fall,
                        closed,
                        extra,
                        reach,
                        seen,
                        near,
                    )
                order = np.argsort(-gain)
                rounds, made, place = rounds + 1, 0, 0
                if gain[order[0]] <= 0:
                    return rounds, moves
            k = order[place]
            place += 1
            brings, old = _best_move(
                k,
                p,
                in_start,
                in_i,
                in_s,
                out_start,
                out_k,
                is_open,
                first,
                best,
                fall,
                closed,
                extra,
                reach,
                seen,
                near,
            )
        is_open[k] = not is_open[k]
        todo[0] = k
        count = _push(k, in_start, in_i, todo, 1)
        if old >= 0:
            is_open[old] = False
            todo[count] = old
            count = _push(old, in_start, in_i, todo, count + 1)
        moves, made = moves + 1, made + 1


@_compiled
def _push(k: int, in_start: Integers, in_i: Integers, todo: Integers, count: int) -> int:
    """Note down the rows that store an edge to a point; return how many are noted down."""
    for at in range(in_start[k], in_start[k + 1]):
        todo[count] = in_i[at]
        count += 1
    return count


@_compiled
def _look(
    row: int,
    p: Integers,
    out_start: Integers,
    out_k: Integers,
    out_s: Integers,
    is_open: NDArray[np.bool_],
    first: Integers,
    best: Integers,
    fall: Integers,
) -> None:
    """Find the two best exemplars of a row."""
    one, two, name = _NONE, _NONE, -1
    for at in range(out_start[row], out_start[row + 1]):
        if is_open[out_k[at]]:
            if out_s[at] > one:
                one, two, name = out_s[at], one, out_k[at]
            elif out_s[at] > two:
                two = out_s[at]
    first[row], best[row], fall[row] = name, one, max(two, p[row])


@_compiled
def _best_move(
    k: int,
    p: Integers,
    in_start: Integers,
    in_i: Integers,
    in_s: Integers,
    out_start: Integers,
    out_k: Integers,
    is_open: NDArray[np.bool_],
    first: Integers,
    best: Integers,
    fall: Integers,
    closed: Integers,
    extra: Integers,
    reach: Integers,
    seen: NDArray[np.bool_],
    near: Integers,
) -> tuple[int, int]:
    """Return what the best move of a point brings, and the exemplar that it is swapped for (-1 for none)."""
    if is_open[k]:
        if first[k] < 0:
            return _NONE, -1
        return closed[k] + best[k] - p[k], -1
    opened = p[k] - best[k]
    count = 0
    # Its own exemplar, which it leaves by itself, and all that it stores an edge to.
    seen[first[k]] = True
    near[count] = first[k]
    count += 1
    extra[first[k]] = best[k] - fall[k]
    for at in range(out_start[k], out_start[k + 1]):
        e = out_k[at]
        if is_open[e] and not seen[e]:
            seen[e] = True
            near[count] = e
            count += 1
    for at in range(in_start[k], in_start[k + 1]):
        i, s = in_i[at], in_s[at]
        e = i if is_open[i] else first[i]
        if not seen[e]:
            seen[e] = True
            near[count] = e
            count += 1
        if is_open[i]:
            reach[i] = s
        else:
            more = max(s - best[i], 0)
            opened += more
            extra[e] += max(s, fall[i]) - fall[i] - more
    brings, old = opened, -1
    for c in range(count):
        e = near[c]
        other = max(reach[e], best[e])
        if other > _NONE:
            swap = opened + closed[e] + extra[e] + other - p[e]
            if swap > brings:
                brings, old = swap, e
        extra[e] = 0
        reach[e] = _NONE
        seen[e] = False
    return brings, old
