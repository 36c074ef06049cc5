"""What a run tells of itself while it is at it."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ap_spark import progress
from ap_spark.convergence import Iteration
from ap_spark.progress import Progress

# Stages of Spark's with their tasks, one look after the other.
LOOKS = [{3: (0, 4)}, {3: (2, 4)}, {3: (4, 4), 5: (1, 2)}, {}]


class Tracker:
    """Spark's, of a job that goes on at each look."""

    def __init__(self) -> None:
        self.looks = iter(LOOKS)
        self.now: dict[int, tuple[int, int]] = {}

    def getActiveStageIds(self) -> list[int]:  # noqa: N802
        self.now = next(self.looks, {})
        return list(self.now)

    def getStageInfo(self, stage: int) -> Any:  # noqa: N802
        done, tasks = self.now[stage]
        return SimpleNamespace(stageId=stage, numTasks=tasks, numCompletedTasks=done)


def test_a_long_stage_tells_of_its_tasks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "_POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(progress, "_LINE_INTERVAL_S", 0.0)
    tracker = Tracker()
    spark: Any = SimpleNamespace(sparkContext=SimpleNamespace(statusTracker=lambda: tracker))
    with caplog.at_level(logging.INFO, "ap_spark.progress"), Progress(10).stage("graph", spark):
        until = time.monotonic() + 20.0
        while len(caplog.messages) < len(LOOKS) and time.monotonic() < until:
            time.sleep(0.01)
    told = [message.split(";")[0].split(", 0 s")[0] for message in caplog.messages[: len(LOOKS)]]
    assert told == [
        "graph: step 1, 0 of 4 tasks",
        "graph: step 1, 2 of 4 tasks",
        "graph: step 2, 5 of 6 tasks",
        "graph: between two steps",
    ]


def test_the_pace_is_that_of_the_iterations(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    monkeypatch.setattr("ap_spark.progress.time", SimpleNamespace(monotonic=lambda: now))
    with caplog.at_level(logging.INFO, "ap_spark.progress"):
        telling = Progress(10)
        now = 1000.0  # what comes before the first iteration takes long
        for number in (1, 2):
            telling(Iteration(number, 5, 1, 1, 2.0))
            now += 2.0
        telling(Iteration(3, 5, 1, 1, 2.0))
        telling.close()
    assert all("0.5 iterations/s" in message for message in caplog.messages), caplog.messages
    assert caplog.messages
