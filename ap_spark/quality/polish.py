"""Polish: open, close and swap exemplars while that makes the net similarity larger (docs/quality.md).

A round makes many moves at once. A move *touches* the rows that store an edge to the points that it opens or closes,
and these points themselves. Every row picks the best move that touches it; a move is made where all rows that it
touches have picked it. So no two moves of a round share a row, and their gains add up exactly. The best move of all is
always made: a round without a move is the last. `exchange` is another search, for a given number of exemplars: its
swaps may share rows, and are tried.

The gain of a swap follows Resende & Werneck (European Journal of Operational Research 174, 2006).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from ap_spark.blocks.kernel import Flags, Integers
from ap_spark.blocks.objective import NONE, extras, gains, refusals
from ap_spark.quality.problem import Problem
from ap_spark.quality.solution import Solution, evaluate

__all__ = ["bring_to", "exchange", "polish"]

_MAX_ROUNDS = 200
_SMALL = 2_000_000  # edges: a round takes no time

_OPEN, _CLOSE, _SWAP = 1, 2, 3
_NO_GAIN = NONE
_SHARE_EXCHANGED = 5  # one exemplar in so many is exchanged at once, then ever fewer
_LEAST_SHARE = 1_000_000  # in larger graphs, a round of exchanges that gains less than this part is the last


def polish(
    problem: Problem,
    solution: Solution,
    *,
    keep_count: bool = False,
    told: Callable[[Solution], None] = lambda solution: None,
) -> Solution:
    """Move exemplars until no single move makes the net similarity larger.

    Parameters
    ----------
    problem : Problem
    solution : Solution
    keep_count : bool
        Swap only, so that the number of exemplars stays.
    told : callable
        Called with the solution after each round.

    Returns
    -------
    Solution
        With at least the same net similarity.
    """
    kinds = (_SWAP,) if keep_count else (_OPEN, _CLOSE, _SWAP)
    for _ in range(_most_rounds(problem, solution)):
        gain, kind = _moves(problem, solution, kinds, keep_count=keep_count)
        (points,) = np.nonzero(gain > 0)
        if not len(points):
            break
        better, promised = _make(problem, solution, points, gain, kind, keep_count=keep_count)
        assert better.netsim >= solution.netsim + promised, "a round has to bring what its moves promise"
        solution = better
        told(solution)
    return solution


def bring_to(problem: Problem, solution: Solution, clusters: int) -> Solution:
    """Open or close the cheapest exemplars until there are so many, as far as that goes."""
    while solution.n_clusters != clusters:
        missing = clusters - solution.n_clusters
        gain, kind = _moves(problem, solution, (_OPEN if missing > 0 else _CLOSE,), keep_count=True)
        (points,) = np.nonzero(gain > _NO_GAIN)
        if not len(points):
            break
        solution, _ = _make(problem, solution, points, gain, kind, keep_count=True, most=abs(missing))
    return solution


def exchange(
    problem: Problem, solution: Solution, *, told: Callable[[Solution], None] = lambda solution: None
) -> Solution:
    """Swap any exemplars for any points, and polish, until no such swap makes the net similarity (much) larger.

    `polish` swaps an exemplar for one of its members. Here one cluster is given up for another one somewhere else, as
    in PAM (Kaufman & Rousseeuw, 1990). A round swaps many at once, whether or not they share rows, if that is better
    than what there is; else fewer, at last one. Exemplars with a member that no other one can serve stay. There are as
    many rounds at most as those of `polish`; in large graphs one that gains less than a millionth is the last.

    Parameters
    ----------
    problem : Problem
    solution : Solution
    told : callable
        Called with the solution after each round.

    Returns
    -------
    Solution
        With as many exemplars, and at least the same net similarity.
    """
    together = max(1, solution.n_clusters // _SHARE_EXCHANGED)
    for _ in range(_most_rounds(problem, solution)):
        opened, closed = _swaps(problem, solution)
        if not len(opened):
            polished = polish(problem, solution, keep_count=True, told=told)
            if polished is solution:
                break
            solution = polished
            continue
        together = min(together, len(opened))
        while True:
            is_exemplar = solution.is_exemplar.copy()
            is_exemplar[closed[:together]] = False
            is_exemplar[opened[:together]] = True
            other = evaluate(problem, is_exemplar, keep_count=True)
            if other.netsim > solution.netsim and other.n_clusters == solution.n_clusters:
                break
            assert together > 1, "a swap has to bring what it promises"
            together //= 2
        gained, solution = other.netsim - solution.netsim, other
        told(solution)
        if problem.n_edges > _SMALL and gained < abs(solution.netsim) // _LEAST_SHARE:
            return polish(problem, solution, keep_count=True, told=told)
    return solution


def _most_rounds(problem: Problem, solution: Solution) -> int:
    """Return how many rounds there are at most.

    In small graphs there are as many more as there are exemplars: where all rows store edges to each other, a round
    closes one of them.
    """
    return _MAX_ROUNDS + (solution.n_clusters if problem.n_edges <= _SMALL else 0)


class _Gains(NamedTuple):
    """What moves bring, an array with a value for each point.

    Attributes
    ----------
    opened, swapped, reached, served
        See `objective.gains`.
    closed
        What the members of an exemplar lose when it is closed (less than 0).
    leaving
        What an exemplar itself gains then.
    alone
        Exemplars that no other one can serve.
    closable
        Exemplars that can be closed without a member or themselves being left without one.
    fallback
        See `objective.gains`.
    lacking
        How many members of an exemplar have nothing to fall back on.
    """

    opened: Integers
    swapped: Integers
    reached: Integers
    served: Integers
    closed: Integers
    leaving: Integers
    alone: Flags
    closable: Flags
    fallback: Integers
    lacking: Integers


def _gains(problem: Problem, solution: Solution, *, keep_count: bool) -> _Gains:
    is_exemplar, first, best = solution.is_exemplar, solution.first, solution.best
    has_second = solution.second != NONE
    lacks = ~is_exemplar & ~has_second if keep_count else np.zeros(len(first), bool)
    # A member whose exemplar is closed falls back on its second best, or becomes an exemplar itself.
    preference = problem.preference
    second = np.where(has_second, solution.second, preference)
    fallback = second if keep_count else np.maximum(second, preference)
    member = ~is_exemplar
    _, (opened, swapped, reached, served) = problem.visit(gains, is_exemplar, first, best, fallback, lacks)

    closed = np.zeros(len(first), np.int64)
    np.add.at(closed, first[member], (fallback - best)[member])
    lacking = np.bincount(first[lacks], minlength=len(first))
    alone = best == NONE
    closable = is_exemplar & ~alone & ~problem.forced & (lacking == 0)
    leaving = np.where(alone, 0, best) - preference
    return _Gains(opened, swapped, reached, served, closed, leaving, alone, closable, fallback, lacking)


def _moves(
    problem: Problem, solution: Solution, kinds: tuple[int, ...], *, keep_count: bool
) -> tuple[Integers, NDArray[np.int8]]:
    """Return the best move of each point, and what it brings: `_NO_GAIN` where it has none.

    The move of an exemplar is to close it. That of another point is to open it, or to swap it for its exemplar.
    """
    is_exemplar, first = solution.is_exemplar, solution.first
    member = ~is_exemplar
    found = _gains(problem, solution, keep_count=keep_count)
    gain, kind = np.full(len(first), _NO_GAIN), np.zeros(len(first), np.int8)
    if _OPEN in kinds:
        gain[member], kind[member] = found.opened[member], _OPEN
    if _CLOSE in kinds:
        gain[found.closable], kind[found.closable] = (found.closed + found.leaving)[found.closable], _CLOSE
    if _SWAP in kinds:
        old = np.where(member, first, 0)
        reached = found.reached > 0
        can = member & ~problem.forced[old] & (reached | ~found.alone[old]) & (found.served == found.lacking[old])
        swap = found.swapped + found.closed[old] + np.where(reached, 0, found.leaving[old])
        can &= swap > gain
        gain[can], kind[can] = swap[can], _SWAP
    return gain, kind


def _swaps(problem: Problem, solution: Solution) -> tuple[Integers, Integers]:
    """Return points to open, and for each an exemplar to close, the best first; each exemplar once."""
    is_exemplar, n_points = solution.is_exemplar, problem.n_points
    found = _gains(problem, solution, keep_count=True)
    if not found.closable.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    parts, _ = problem.visit(extras, is_exemplar, solution.first, solution.best, found.fallback, found.closable)
    k, e, extra = (
        np.concatenate(arrays) for arrays in zip(*((part.rows, *part.values) for part in parts), strict=True)
    )
    added = coo_array((extra, (k, e)), shape=(n_points, n_points)).tocsr()

    # For points without anything to add to a pair, the exemplar that costs least.
    cost = np.where(found.closable, found.closed + found.leaving, _NO_GAIN)
    (member,) = np.nonzero(~is_exemplar)
    opened = np.append(np.repeat(np.arange(n_points), np.diff(added.indptr)), member)
    closed = np.append(added.indices, np.full(len(member), cost.argmax()))
    gain = np.append(added.data, np.zeros(len(member), np.int64)) + found.opened[opened] + cost[closed]
    (better,) = np.nonzero(gain > 0)
    order = better[np.lexsort((closed[better], opened[better], -gain[better]))]
    for points in (opened, closed):
        _, each = np.unique(points[order], return_index=True)
        order = order[np.sort(each)]
    return opened[order], closed[order]


def _make(
    problem: Problem,
    solution: Solution,
    points: Integers,
    gain: Integers,
    kind: NDArray[np.int8],
    *,
    keep_count: bool,
    most: int | None = None,
) -> tuple[Solution, int]:
    """Make those moves that no better one stands in the way of, at most so many; return what they bring."""
    order = points[np.lexsort((points, -gain[points]))]
    none = len(order)
    own = np.full(len(gain), none, np.int32)
    own[order] = np.arange(none, dtype=np.int32)
    rank = own.copy()
    swaps = order[kind[order] == _SWAP]
    np.minimum.at(rank, solution.first[swaps], own[swaps])
    _, (refused,) = problem.visit(refusals, rank, none)

    def is_free(point: Integers, move: NDArray[np.int32]) -> Flags:
        return np.asarray((rank[point] == move) & (refused[point] == 0))

    old = np.where(kind[order] == _SWAP, solution.first[order], order)
    made = order[is_free(order, own[order]) & is_free(old, own[order])][:most]
    is_exemplar = solution.is_exemplar.copy()
    is_exemplar[solution.first[made[kind[made] == _SWAP]]] = False
    is_exemplar[made] = kind[made] != _CLOSE
    return evaluate(problem, is_exemplar, keep_count=keep_count), int(gain[made].sum())
