"""The search for a number of clusters: preferences with made-up answers, without Spark; then whole searches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import preference_search as target
from ap_spark.convergence import Iteration
from ap_spark.engines.resident import ResidentEngine
from ap_spark.preference_search import MAX_TRIALS, Trial, Trials
from tests.conftest import Edges, affinity_propagation, all_pairs, held_tables

Law = Callable[[float], float]


def power(preference: float) -> float:
    return float(90_000 * (1.0 - preference) ** -0.45)


def steep_then_flat(preference: float) -> float:
    return 60_000 / (1.0 + (preference / 7.0) ** 4) + 40.0


def search(trials: Trials, law: Law, *, converged: bool, at_rest: bool = True) -> None:
    for preference in trials:
        trials.answer(Trial(preference, max(1, round(law(preference))), converged, at_rest, False))


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
    assert near.reached == (target >= 100), "of fewer, exactly so many of a run that has converged"
    assert len(near.tried) <= (12 if near.reached else MAX_TRIALS)


@pytest.mark.parametrize("law", [power, steep_then_flat])
@pytest.mark.parametrize("clusters", [52, 48])
def test_a_good_start_leaves_little_to_do(law: Law, clusters: int) -> None:
    sizes = np.geomspace(1e9, 1e-2, 2000)
    numbers = np.array([law(-size) for size in sizes])
    start = -float(sizes[np.searchsorted(numbers, clusters)])
    trials = Trials(50, start=start, largest=-1e-3, enough=2.5)
    search(trials, law, converged=True)
    assert len(trials.tried) <= 2


def test_polishing_makes_up_for_one_cluster() -> None:
    def trials(enough: float) -> Trials:
        found = Trials(3, start=-1.0, largest=0.0, enough=enough)
        found.answer(Trial(-1.0, 4, True, True, False))
        return found

    assert trials(1.0).reached
    assert not trials(0.0).reached


def test_a_number_that_is_jumped_over_is_left_at_the_nearest() -> None:
    trials = Trials(10, start=-1.0, largest=0.0)
    search(trials, lambda preference: 13 if preference > -5.0 else 8, converged=True)
    assert (trials.reached, trials.best.clusters) == (False, 8)


def test_where_the_number_no_longer_falls_the_search_ends() -> None:
    trials = Trials(10, start=-1.0, largest=0.0)
    search(trials, lambda preference: 13, converged=True)
    assert trials.stuck
    assert {trial.clusters for trial in trials.tried} == {13}
    assert len(trials.tried) <= 6
    assert trials.tried[-1].preference <= 8.0 * trials.tried[0].preference


@pytest.mark.parametrize(("target", "clusters"), [(1, 100_000), (70_000, 1), (30, 6)])
def test_a_number_far_from_all_that_is_asked_for_ends_the_search(target: int, clusters: int) -> None:
    trials = Trials(target, start=-1.0, largest=0.0)
    search(trials, lambda preference: clusters, converged=True)
    assert trials.stuck
    assert len(trials.tried) <= 4


def test_where_polishing_has_missed_the_number_the_search_goes_on() -> None:
    trials = Trials(100, start=-1.0, largest=0.0, enough=5.0)
    law = {1: 103, 2: 98, 3: 100}
    numbers = []
    for _ in range(3):
        for preference in trials:
            trials.answer(Trial(preference, law[len(trials.tried) + 1], True, True, False))
        numbers.append(trials.best.clusters)
        assert numbers[-1] == 100 or trials.miss()
    assert numbers == [103, 98, 100]
    assert [trial.missed for trial in trials.tried] == [True, True, False]


def test_numbers_that_have_not_come_to_rest_say_nothing() -> None:
    rng = np.random.default_rng(0)
    trials = Trials(100, start=-10.0, largest=0.0)
    search(trials, lambda preference: float(rng.integers(1, 1000)), converged=False, at_rest=False)
    assert len(trials.tried) == MAX_TRIALS
    np.testing.assert_allclose([trial.preference for trial in trials.tried], -10.0 * 0.9 ** np.arange(MAX_TRIALS))


def test_a_step_aside_stays_between_what_is_known() -> None:
    trials = Trials(100, start=-10.0, largest=0.0)
    answers = [(103, True), (50, True), (70, False), (71, False), (72, False)]
    for preference, (clusters, at_rest) in zip(trials, answers, strict=False):
        trials.answer(Trial(preference, clusters, False, at_rest, False))
    assert all(10.0 < -trial.preference <= 80.0 for trial in trials.tried[1:])
    assert not trials.ended


@pytest.mark.parametrize(
    ("target", "tried", "best"),
    [
        (5000, [(89_751, True, True), (4_890, False, True), (4_990, False, False)], 4_890),
        (5000, [(4_890, False, True), (4_885, True, True)], 4_885),
        (5000, [(4_885, True, True), (4_960, False, True)], 4_960),
        (50, [(50, False, True), (51, True, True)], 51),
        (10, [(400, True, True), (11, False, False)], 11),
        (3, [(3, False, True), (4, True, True)], 4),
    ],
)
def test_the_best_is_near_then_at_rest_then_converged(
    target: int, tried: list[tuple[int, bool, bool]], best: int
) -> None:
    trials = Trials(target, start=-7.0, largest=0.0)
    for clusters, converged, at_rest in tried:
        trials.answer(Trial(-7.0, clusters, converged, at_rest, False))
    assert trials.best.clusters == best


def test_a_run_is_ended_where_exemplars_are_clearly_too_many() -> None:
    trials = Trials(1000, start=-1.0, largest=0.0)

    def has_too_many(*exemplars: int, forced: int = 0) -> bool:
        trace = [Iteration(number, count, 1, 1, 0.0) for number, count in enumerate(exemplars, start=1)]
        return trials.has_too_many(trace, forced, window=10)

    assert has_too_many(0, 50, *[1270] * 10)
    assert not has_too_many(*[1270] * 10), "as for convergence, one more than the window"
    assert not has_too_many(0, 50, *[1240] * 10), "too near"
    assert not has_too_many(0, 50, *range(1270, 1370, 10)), "still moving"
    assert not has_too_many(*[1500] * 20, forced=1500), "no exemplars of their own yet"
    assert not has_too_many(0, *[1520, 1570] * 5, forced=1500), "those of their own move"


def test_runs_that_were_ended_early_do_not_say_that_the_number_no_longer_falls() -> None:
    trials = Trials(10, start=-1.0, largest=0.0)
    for preference, early in zip(trials, (True, True, True, True, False, False), strict=False):
        trials.answer(Trial(preference, 13, False, True, early))
        assert trials.stuck == (len(trials.tried) == 6)
    assert len(trials.tried) == 6


Frame = Callable[[Edges], DataFrame]


def test_runs_whose_messages_have_not_formed_do_not_lead_astray() -> None:
    trials = Trials(10, start=-1.0, largest=0.0)
    for preference in trials:
        has_formed = preference > -500.0
        clusters = max(1, round(100 / (1 - preference / 20))) if has_formed else 1000
        trials.answer(Trial(preference, clusters, has_formed, True, ended_early=not has_formed))
    assert trials.best.clusters == 10
    assert len(trials.tried) < 12


def test_a_number_of_clusters_that_is_out_of_reach(frame: Frame, caplog: pytest.LogCaptureFixture) -> None:
    """A ring: nobody is similar to more than two, yet far fewer clusters are permitted than found."""
    n = 30
    edges = [(i, (i + step) % n, -1.0 - 0.01 * i) for i in range(n) for step in (1, -1)]
    found = affinity_propagation(frame(edges), clusters=10, damping=0.7)
    assert 10 <= found.summary.n_clusters < 20
    assert [trial["clusters"] for trial in found.summary.tried]
    if found.summary.n_clusters > 10:
        assert "10 clusters were asked for" in caplog.text


@pytest.mark.long
def test_a_run_with_clearly_too_many_exemplars_is_ended_early(
    spark: SparkSession, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing converges here, and nothing is left of the runs that were ended."""
    monkeypatch.setattr(ResidentEngine, "unserved", lambda engine: 1)
    rng = np.random.default_rng(6)
    x = np.concatenate([center + rng.normal(size=(20, 2)) for center in ((0, 0), (12, 0), (0, 12))])
    edges = frame(all_pairs(x)[1:])
    monkeypatch.setattr(target, "MAX_TRIALS", 5)
    monkeypatch.setattr(
        "ap_spark.run._first_preference", lambda graph, *_: graph.quantiles(0.5)[0]
    )  # far from the price
    before = held_tables(spark)
    found = affinity_propagation(edges, clusters=2, damping=0.9, max_iter=100)
    assert found.summary.n_clusters <= 3
    assert found.summary.tried[0]["ended_early"]
    assert held_tables(spark).keys() <= before.keys()
