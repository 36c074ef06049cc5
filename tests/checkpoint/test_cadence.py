"""When a snapshot is due, by a clock that the tests set."""

from __future__ import annotations

import math

import pytest

from ap_spark.checkpoint.cadence import Cadence
from ap_spark.errors import SettingError
from ap_spark.settings import MIN_INTERVAL_FACTOR, Snapshots


def test_by_iterations_the_clock_does_not_matter() -> None:
    cadence = Cadence(*Snapshots(checkpoint_every="3").interval)
    cadence.begin(12, now=0.0)
    assert [cadence.is_due(iteration, now=1e9) for iteration in (13, 14, 15)] == [False, False, True]
    cadence.note(15, started=0.0, now=1e6)
    assert [cadence.is_due(iteration, now=1e6) for iteration in (17, 18)] == [False, True]


def test_by_the_clock_snapshots_that_take_long_are_taken_less_often() -> None:
    cadence = Cadence(None, 60.0)
    cadence.begin(0, now=100.0)
    assert not cadence.is_due(10**6, now=159.0)
    assert cadence.is_due(1, now=160.0)
    cadence.note(1, started=160.0, now=161.0)
    assert cadence.is_due(2, now=221.0), "a quick one costs nothing"
    cadence.note(2, started=221.0, now=231.0)
    assert not cadence.is_due(3, now=231.0 + 10.0 * MIN_INTERVAL_FACTOR - 0.1)
    assert cadence.is_due(3, now=231.0 + 10.0 * MIN_INTERVAL_FACTOR)


def test_the_clock_goes_on_over_the_trials_of_a_search() -> None:
    cadence = Cadence(None, 60.0)
    cadence.begin(0, now=0.0)
    cadence.begin(0, now=50.0)
    assert cadence.is_due(1, now=60.0)
    assert not Cadence(7, math.inf).is_due(6, now=1.0), "nor before anything has begun"


def test_every_so_often_is_checked() -> None:
    for every in ("0", "-5", "10 minutes", "1.5", "", "0min"):
        with pytest.raises(SettingError, match="checkpoint_every must be a number of iterations"):
            Snapshots(checkpoint_every=every)
