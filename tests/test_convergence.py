"""When a run has converged: the rule of docs/semantics.md, section 4, stated once more over whole histories."""

from __future__ import annotations

import numpy as np
import pytest

from ap_spark.convergence import Iteration, Stability


def records(history: list[frozenset[int]], window: int) -> list[Iteration]:
    """The records of iterations after which these points were exemplars; before the first none was."""
    before = [frozenset[int](), *history]
    flipped: dict[int, int] = {}
    found = []
    for number, (then, now) in enumerate(zip(before, history, strict=False), start=1):
        flipped |= dict.fromkeys(now ^ then, number)
        unsettled = sum(number - last + 1 < window for last in flipped.values())
        found.append(Iteration(number, len(now), len(now ^ then), unsettled, 0.0))
    return found


@pytest.mark.parametrize("window", [1, 2, 5])
def test_exemplars_that_stood_still_for_the_window(window: int) -> None:
    rng = np.random.default_rng(window)
    for _ in range(200):
        history: list[frozenset[int]] = []
        while len(history) < 4 * window + 2:
            found = frozenset(rng.integers(0, 3, int(rng.integers(0, 3))).tolist())
            history += [found] * int(rng.integers(1, window + 3))
        stability = Stability((window,))
        for number, done in enumerate(records(history, window), start=1):
            last = history[max(0, number - window) : number]
            expected = number > window and len(set(last)) == 1 and bool(last[-1])
            assert stability.reached(done) == expected, (history, number)


def test_as_many_other_exemplars_are_a_change() -> None:
    stability = Stability((2,))
    swapped = [frozenset({1}), frozenset({2}), frozenset({1}), frozenset({2}), frozenset({2})]
    assert [stability.reached(done) for done in records(swapped, 2)] == [False, False, False, False, True]


def test_exemplars_that_were_refused_have_to_change_first() -> None:
    stability = Stability((2,))
    still = [Iteration(number, 1, int(number == 1), 0, 0.0) for number in range(1, 60)]
    asked = []
    for done in still:
        if stability.reached(done):
            asked.append(done.iteration)
            stability.refuse(done)
    assert asked == [*range(3, 17)], "early in a run they may only have to wait; then no more"
    last = [Iteration(60, 2, 1, 1, 0.0), Iteration(61, 2, 0, 0, 0.0)]
    assert [stability.reached(done) for done in last] == [False, True]


def test_a_run_whose_exemplars_keep_changing_has_settled_where_few_points_do() -> None:
    stability = Stability((15, 15, 25, 100), tolerated=3)
    few = {number: 4 if number < 20 else 3 for number in range(1, 60)}
    assert [number for number in few if stability.reached(Iteration(number, 9, 1, few[number], 0.0))] == [
        *range(20, 60)
    ]
    early = Stability((15, 15, 25, 100), tolerated=3)
    assert [number for number in range(1, 20) if early.reached(Iteration(number, 9, 1, 3, 0.0))] == [*range(16, 20)]


def test_exemplars_that_keep_changing_are_refused_once_in_ten_iterations() -> None:
    stability = Stability((15, 15, 25, 100), tolerated=3)
    asked = []
    for number in range(1, 61):
        done = Iteration(number, 9, number % 3 == 0 and number <= 45, 2, 0.0)
        if stability.reached(done):
            asked.append(number)
            stability.refuse(done)
    assert asked == [16, 26, 36, 46, 56]
    settled = Iteration(61, 9, 0, 0, 0.0)
    assert stability.reached(settled), "at once, where all are settled, though none has changed"
    stability.refuse(settled)
    assert not any(stability.reached(Iteration(number, 9, 0, 0, 0.0)) for number in range(62, 90))
    assert stability.reached(Iteration(90, 9, 1, 1, 0.0)), "others"
    stability.refuse(Iteration(90, 9, 1, 1, 0.0))
    assert not stability.reached(Iteration(91, 9, 1, 1, 0.0)), "too early"
