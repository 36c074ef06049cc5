"""Which runs may resume from a snapshot, without Spark."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ap_spark.checkpoint.compatibility import Mismatch, check_settings, decisive, is_extensible
from ap_spark.settings import Settings

RUN: dict[str, Any] = {"preference": -2.0, "damping": 0.7, "convergence_iter": 8, "max_iter": 200}


def check(**changed: Any) -> None:
    """Resume a run after 12 iterations, with other settings; its own have been written as JSON."""
    check_settings(json.loads(json.dumps(decisive(Settings(**RUN)))), 12, Settings(**RUN | changed))


@pytest.mark.parametrize(
    "changed", [{"max_iter": 12}, {"engine": "dataframe", "partitions": 3}, {"preference": -3.0}, {"top": 5}]
)
def test_what_may_differ(changed: dict[str, Any]) -> None:
    """What acts through the graph is seen by its fingerprint."""
    check(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"damping": 0.8}, "damping 0.7 there, 0.8 here"),
        ({"convergence_iter": None}, "convergence_iter 8 there, 17 here"),
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"jitter": False}, "jitter True there, False here"),
        ({"max_iter": 11}, "12 iterations done there, max_iter 11 here"),
        ({"preference": None, "clusters": 5}, "clusters None there, 5 here"),
    ],
)
def test_what_may_not_differ(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        check(**changed)


def test_in_a_search_the_number_of_iterations_may_not_differ() -> None:
    search = Settings(clusters=5, max_iter=100)
    assert not is_extensible(search)
    with pytest.raises(Mismatch, match="max_iter 100 there, 200 here"):
        check_settings(decisive(search), 12, Settings(clusters=5, max_iter=200))
