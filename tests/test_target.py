"""The search for a number of clusters, without Spark: preferences, and made-up numbers of clusters for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ap_spark.convergence import Iteration
from ap_spark.target import MOST_TRIALS, Trials, has_settled

Law = Callable[[float], float]


def power(preference: float) -> float:
    return float(90_000 * (1.0 - preference) ** -0.45)


def steep_then_flat(preference: float) -> float:
    return 60_000 / (1.0 + (preference / 7.0) ** 4) + 40.0


def search(trials: Trials, law: Law, *, converged: bool, settled: bool = True) -> None:
    for preference in trials:
        trials.answer(preference, max(1, round(law(preference))), converged=converged, settled=settled)


@pytest.mark.parametrize("law", [power, steep_then_flat])
@pytest.mark.parametrize("target", [50, 500, 5_000, 50_000])
def test_a_number_is_found_within_few_trials(law: Law, target: int) -> None:
    exact = Trials(target, start=-3.0, largest=-1e-3)
    search(exact, law, converged=True)
    assert (exact.best.clusters, exact.reached) == (target, True)
    assert len(exact.tried) <= 14
    near = Trials(target, start=-3.0, largest=-1e-3)
    search(near, law, converged=False)
    assert abs(near.best.clusters - target) <= 0.01 * target
    assert len(near.tried) <= 12


def test_a_number_that_is_jumped_over_is_left_at_the_nearest() -> None:
    trials = Trials(10, start=-1.0, largest=0.0)
    search(trials, lambda preference: 13 if preference > -5.0 else 8, converged=True)
    assert (trials.reached, trials.best.clusters) == (False, 8)


def test_where_the_number_no_longer_falls_the_search_ends() -> None:
    trials = Trials(10, start=-1.0, largest=0.0)
    search(trials, lambda preference: 13, converged=True)
    assert [trial.clusters for trial in trials.tried] == [13, 13]


def test_numbers_that_have_not_come_to_rest_say_nothing() -> None:
    rng = np.random.default_rng(0)
    trials = Trials(100, start=-10.0, largest=0.0)
    search(trials, lambda preference: float(rng.integers(1, 1000)), converged=False, settled=False)
    assert len(trials.tried) == MOST_TRIALS
    np.testing.assert_allclose([trial.preference for trial in trials.tried], -10.0 * 0.9 ** np.arange(MOST_TRIALS))


def test_the_best_is_near_before_it_is_converged() -> None:
    trials = Trials(5000, start=-7.0, largest=0.0)
    for clusters, converged, settled in ((89_751, True, True), (4_890, False, True), (4_950, False, False)):
        trials.answer(-7.0, clusters, converged=converged, settled=settled)
    assert trials.best.clusters == 4_890
    trials.answer(-7.0, 4_885, converged=True, settled=True)
    assert trials.best.clusters == 4_885, "hardly farther off, and converged"


def test_a_run_is_ended_where_exemplars_are_clearly_too_many() -> None:
    trials = Trials(100, start=-1.0, largest=0.0)

    def trace(*exemplars: int) -> list[Iteration]:
        return [Iteration(number, count, 1, 0.0) for number, count in enumerate(exemplars, start=1)]

    assert trials.has_too_many(trace(0, 50, *[127] * 10), window=10)
    assert not trials.has_too_many(trace(*[127] * 10), window=10), "as for convergence, one more than the window"
    assert not trials.has_too_many(trace(0, 50, *[124] * 10), window=10), "too near"
    assert not trials.has_too_many(trace(0, 50, *range(127, 137)), window=10), "still moving"
    assert not has_settled(trace(*[0] * 20), window=10), "no exemplars yet"
