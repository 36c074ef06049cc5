"""Progress a person can read: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import NoReturn

from tqdm import tqdm

from ap_spark.convergence import Iteration

__all__ = ["Progress"]

logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0  # between two lines in a log


class Progress:
    """Tells of iterations as they are done; to be called with each record.

    Parameters
    ----------
    max_iter : int
        The most iterations there can be.
    """

    def __init__(self, max_iter: int) -> None:
        self.max_iter = max_iter
        self.bar: tqdm[NoReturn] | None = None
        self.started = self.told = time.monotonic()
        self.last: Iteration | None = None
        self.seen = 0

    def __call__(self, done: Iteration) -> None:
        if self.bar is None and sys.stderr.isatty():
            past = done.iteration - 1  # of a run that is gone on with
            self.bar = tqdm(
                initial=past, total=self.max_iter, desc="iterations", unit="it", file=sys.stderr, leave=False
            )
        self.last = done
        self.seen += 1
        if self.bar is not None:
            self.bar.set_postfix(exemplars=done.exemplars, changed=done.changed, refresh=False)
            self.bar.update()
        elif time.monotonic() - self.told >= LINE_SECONDS:
            self.tell(done)

    def tell(self, done: Iteration) -> None:
        self.told = time.monotonic()
        pace = self.seen / (self.told - self.started)
        logger.info(
            "iteration %d of at most %d: %s exemplars, %s changed, %.3g iterations/s",
            done.iteration,
            self.max_iter,
            f"{done.exemplars:,}",
            f"{done.changed:,}",
            pace,
        )

    def close(self) -> None:
        """Take the bar away; in a log, tell of the last iteration."""
        if self.bar is not None:
            self.bar.close()
        elif self.last is not None:
            self.tell(self.last)
