"""Affinity propagation in plain dense numpy, written from the equations: what the tests compare with.

Frey & Dueck, Science 315 (2007); a pair that is not stored has similarity -infinity. No exact sums, no blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Messages(NamedTuple):
    """Dense responsibilities and availabilities, shape (n, n), after an iteration."""

    r: Floats
    a: Floats


def dense(n: int, edges: list[tuple[int, int, float]], preference: float | Floats) -> Floats:
    """The similarity matrix with the preferences on its diagonal."""
    s = np.full((n, n), -np.inf)
    for i, k, value in edges:
        s[i, k] = value
    s[np.arange(n), np.arange(n)] = preference
    return s


def iterate(s: Floats, given: float | Floats) -> Iterator[Messages]:
    """The messages after iteration 1, 2, ...; with a damping of its own for each point, which may change in place."""
    n = len(s)
    stored = np.isfinite(s)
    forced = stored.sum(axis=1) == 1
    r, a = np.zeros((n, n)), np.zeros((n, n))
    while True:
        damping = given if isinstance(given, float) else np.maximum.outer(given, given)
        new_r, new_a = np.zeros((n, n)), np.zeros((n, n))
        for i in np.flatnonzero(~forced):
            for k in np.flatnonzero(stored[i]):
                others = stored[i].copy()
                others[k] = False
                new_r[i, k] = s[i, k] - np.max(a[i, others] + s[i, others])
        r = np.where(stored, damping * r + (1 - damping) * new_r, 0.0)
        positive = np.maximum(r, 0.0)
        for i in np.flatnonzero(~forced):
            for k in np.flatnonzero(stored[i]):
                supporters = positive[:, k].sum() - positive[k, k] - (positive[i, k] if i != k else 0.0)
                if i == k:
                    new_a[i, k] = supporters
                else:
                    new_a[i, k] = 0.0 if forced[k] else min(0.0, r[k, k] + supporters)
        a = np.where(stored, damping * a + (1 - damping) * new_a, 0.0)
        yield Messages(r, a)


def exemplars(s: Floats, messages: Messages) -> NDArray[np.bool_]:
    """a(k,k) + r(k,k) > 0, or nobody else stored in the row."""
    return np.asarray((np.diag(messages.a) + np.diag(messages.r) > 0) | (np.isfinite(s).sum(axis=1) == 1))


def run(s: Floats, damping: float, max_iter: int, convergence_iter: int) -> tuple[NDArray[np.bool_], int, bool]:
    """Exemplars, iterations and whether they converged: a window of memberships, and nobody without an exemplar."""
    window: list[NDArray[np.bool_]] = []
    for n_iter, messages in enumerate(iterate(s, damping), start=1):
        found = exemplars(s, messages)
        window = [*window, found][-convergence_iter:]
        still = n_iter > convergence_iter and all(np.array_equal(found, before) for before in window)
        if still and np.isfinite(s[:, found]).any(axis=1).all():
            return found, n_iter, True
        if n_iter == max_iter:
            return found, n_iter, False
    raise AssertionError


class Step(NamedTuple):
    """An iteration under automatic damping: exemplars, changed and unsettled; and the damping of each point in it."""

    messages: Messages
    exemplars: NDArray[np.bool_]
    record: tuple[int, int, int]
    damping: Floats


def automatic(s: Floats) -> Iterator[Step]:
    """Iterations 1, 2, ... with a damping of its own for each point (docs/semantics.md, sections 2 and 4)."""
    n = len(s)
    forced = np.isfinite(s).sum(axis=1) == 1
    damping = np.full(n, 0.5)
    flips: list[NDArray[np.bool_]] = []
    before = forced
    for messages in iterate(s, damping):
        now = exemplars(s, messages)
        flips.append(now != before)
        before = now
        windows = [max(15, round(5 / (1 - own) + 0.499)) for own in damping]
        unsettled = [any(flip[k] for flip in flips[-(window - 1) :]) for k, window in enumerate(windows)]
        yield Step(messages, now, (int(now.sum()), int(flips[-1].sum()), sum(unsettled)), damping.copy())
        if len(flips) % 40 == 0:
            raised = np.any(flips[-25:], axis=0)
            damping[raised] = [{0.5: 0.65, 0.65: 0.8, 0.8: 0.95, 0.95: 0.95}[own] for own in damping[raised]]


def run_automatic(s: Floats, max_iter: int) -> tuple[NDArray[np.bool_], int, str, int]:
    """Exemplars, iterations, how the run has ended, and how many points are unsettled."""
    changed, asked = True, -10
    for n_iter, step in enumerate(automatic(s), start=1):
        found, unsettled = step.exemplars, step.record[2]
        changed |= step.record[1] > 0
        rested = unsettled == 0 or n_iter >= asked + 10
        if n_iter > 15 and found.any() and unsettled <= len(s) // 200 and changed and rested:
            if np.isfinite(s[:, found]).any(axis=1).all():
                return found, n_iter, "settled" if unsettled else "converged", unsettled
            changed, asked = False, n_iter
        if n_iter == max_iter:
            return found, n_iter, "stopped", unsettled
    raise AssertionError


def clusters(s: Floats, found: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The exemplar of each point: promote, assign, refine, assign (docs/semantics.md, section 5)."""
    n = len(s)
    candidates = set(np.flatnonzero(found).tolist())
    off = s.copy()
    np.fill_diagonal(off, -np.inf)
    candidates |= {i for i in range(n) if i not in candidates and not np.isfinite(off[i, sorted(candidates)]).any()}

    def assign(chosen: set[int]) -> NDArray[np.int64]:
        order = sorted(chosen)
        return np.array([i if i in chosen else order[int(np.argmax(off[i, order]))] for i in range(n)])

    assigned = assign(candidates)
    refined = set()
    for exemplar in candidates:
        members = np.flatnonzero(assigned == exemplar)
        refined.add(int(members[np.argmax(s[np.ix_(members, members)].sum(axis=0))]))
    return assign(refined)
