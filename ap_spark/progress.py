"""Progress a person can read: a bar on a terminal or in a notebook, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn

from pyspark.sql import SparkSession
from tqdm import tqdm

from ap_spark._spark import classic
from ap_spark.convergence import Iteration
from ap_spark.quality.improve import Step
from ap_spark.settings import Settings
from ap_spark.wording import format_rounded_up

__all__ = ["Progress"]

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 10.0  # between two lines in a log
_POLL_INTERVAL_S = 1.0  # between two counts of Spark's tasks


class Progress:
    """A callback that shows iterations as they are done, and how many tasks of other stages Spark has done.

    Parameters
    ----------
    max_iter : int
        The most iterations there can be.
    quiet : bool
        Say nothing.
    """

    def __init__(self, max_iter: int = Settings.max_iter, *, quiet: bool = False) -> None:
        self.max_iter = max_iter
        self.quiet = quiet
        self.bar: tqdm[NoReturn] | None = None
        self.started: float | None = None
        self.last_line_at = time.monotonic()
        self.last: Iteration | None = None
        self.seen = 0

    def __call__(self, done: Iteration) -> bool:
        """Show an iteration; return False, so that the run continues."""
        if not self.quiet:
            self._show(done)
        return False

    def _show(self, done: Iteration) -> None:
        if self.started is None:
            self.started = time.monotonic() - done.seconds
        if self.bar is None and _shows_bars():
            past = done.iteration - 1  # done before the run was resumed
            self.bar = tqdm(
                initial=past, total=self.max_iter, desc="iterations", unit="it", file=sys.stderr, leave=False
            )
        self.last = done
        self.seen += 1
        if self.bar is not None:
            self.bar.set_postfix(
                exemplars=done.exemplars, changed=done.changed, unsettled=done.unsettled, refresh=False
            )
            self.bar.update()
        elif time.monotonic() - self.last_line_at >= _LINE_INTERVAL_S:
            self._log_iteration(done)

    def improving(self, step: Step) -> None:
        """Show a round of polishing, or a pass of the bound, unless the last line was just now."""
        if self.quiet or time.monotonic() - self.last_line_at < _LINE_INTERVAL_S:
            return
        self.last_line_at = time.monotonic()
        bound = "" if step.upper_bound is None else f", at most {format_rounded_up(step.upper_bound, 6)} is possible"
        logger.info("%s: %d done, net similarity %.6g%s", step.name, step.done, step.netsim, bound)

    def _log_iteration(self, done: Iteration) -> None:
        assert self.started is not None
        self.last_line_at = time.monotonic()
        pace = self.seen / max(self.last_line_at - self.started, 1e-9)
        logger.info(
            "iteration %d of at most %d: %s exemplars, %s changed, %s unsettled, %.3g iterations/s",
            done.iteration,
            self.max_iter,
            f"{done.exemplars:,}",
            f"{done.changed:,}",
            f"{done.unsettled:,}",
            pace,
        )

    def close(self) -> None:
        """Remove the bar; in a log, write a line for the last iteration."""
        if self.bar is not None:
            self.bar.close()
        elif self.last is not None:
            self._log_iteration(self.last)

    @contextmanager
    def stage(self, name: str, spark: SparkSession | None) -> Iterator[None]:
        """Show how many tasks Spark has done, while a stage lasts."""
        if self.quiet or spark is None:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=_show_tasks, args=(name, spark, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=5 * _POLL_INTERVAL_S)
            self.last_line_at = time.monotonic()


def _shows_bars() -> bool:
    """Return whether a line can be written over: on a terminal, and in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _show_tasks(name: str, spark: SparkSession, ended: threading.Event) -> None:
    """Show every second how many tasks Spark has done, until the stage has ended."""
    if classic.is_connect(spark):
        return
    started = last_line_at = time.monotonic()
    finished: dict[int, int] = {}  # by Spark's stage
    with suppress(Exception), ExitStack() as held:  # Spark may end at any moment, and says so elsewhere
        tracker = spark.sparkContext.statusTracker()
        bar: tqdm[NoReturn] | None = None
        while not ended.wait(_POLL_INTERVAL_S):
            now = [info for stage in tracker.getActiveStageIds() if (info := tracker.getStageInfo(stage))]
            finished |= {info.stageId: info.numCompletedTasks for info in now}
            done, tasks = sum(info.numCompletedTasks for info in now), sum(info.numTasks for info in now)
            seconds = time.monotonic() - started
            pace = sum(finished.values()) / seconds
            if _shows_bars():
                if bar is None:
                    bar = tqdm(desc=name, unit="task", file=sys.stderr, leave=False)
                    held.callback(bar.close)
                bar.n, bar.total = done, tasks
                bar.set_postfix(step=len(finished), refresh=True)
            elif time.monotonic() - last_line_at >= _LINE_INTERVAL_S:
                last_line_at = time.monotonic()
                if not tasks:
                    logger.info("%s: between two steps, %.0f s so far", name, seconds)
                    continue
                logger.info(
                    "%s: step %d, %d of %d tasks; %.3g tasks/s, %.0f s so far",
                    *(name, len(finished), done, tasks, pace, seconds),
                )
