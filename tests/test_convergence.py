"""When a run has converged: the rule of docs/semantics.md, section 4, stated once more over whole histories."""

from __future__ import annotations

import numpy as np
import pytest

from ap_spark.convergence import Iteration, Stability


def records(history: list[frozenset[int]]) -> list[Iteration]:
    """The records of iterations after which these points were exemplars; before the first none was."""
    before = [frozenset[int](), *history]
    return [
        Iteration(number, len(now), len(now ^ then), 0.0)
        for number, (then, now) in enumerate(zip(before, history, strict=False), start=1)
    ]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_exemplars_that_stood_still_for_the_window(window: int) -> None:
    rng = np.random.default_rng(window)
    for _ in range(200):
        history: list[frozenset[int]] = []
        while len(history) < 4 * window + 2:
            found = frozenset(rng.integers(0, 3, int(rng.integers(0, 3))).tolist())
            history += [found] * int(rng.integers(1, window + 3))
        stability = Stability(window)
        for number, done in enumerate(records(history), start=1):
            last = history[max(0, number - window) : number]
            expected = number > window and len(set(last)) == 1 and bool(last[-1])
            assert stability.reached(done) == expected, (history, number)


def test_as_many_other_exemplars_are_a_change() -> None:
    stability = Stability(2)
    swapped = [frozenset({1}), frozenset({2}), frozenset({1}), frozenset({2}), frozenset({2})]
    assert [stability.reached(done) for done in records(swapped)] == [False, False, False, False, True]


def test_exemplars_that_were_refused_have_to_change_first() -> None:
    stability = Stability(2)
    for done in records([frozenset({1})] * 3):
        reached = stability.reached(done)
    assert reached
    stability.refuse()
    assert not any(stability.reached(Iteration(number, 1, 0, 0.0)) for number in range(4, 30))
    assert [stability.reached(Iteration(number, 2, number == 30, 0.0)) for number in (30, 31)] == [False, True]
