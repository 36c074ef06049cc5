"""When a snapshot is due."""

from __future__ import annotations

from dataclasses import dataclass

from ap_spark.settings import MIN_INTERVAL_FACTOR

__all__ = ["Cadence"]

_MUCH_S = 30.0  # of iterations


@dataclass
class Cadence:
    """Decides when a snapshot is due: after so many iterations, or after so many seconds.

    By the clock, a snapshot also waits MIN_INTERVAL_FACTOR times as long as the last one took: where snapshots take
    long they are taken less often, and never cost more than a fixed share of a run. All times are in seconds, of one
    monotonic clock.

    Attributes
    ----------
    iterations : int or None
        Iterations between two snapshots; None to go by the clock.
    seconds : float
        Seconds between two snapshots, where ``iterations`` is None.
    last_iteration : int
        The iteration of the last snapshot, or of the last attempt; 0 before the first.
    last_time : float or None
        When the last attempt ended, or the first iterations began; None before them.
    last_cost : float
        How long the last attempt took, whether it succeeded or not.

    Examples
    --------
    >>> cadence = Cadence(iterations=None, seconds=60.0)
    >>> cadence.begin(0, now=0.0)
    >>> cadence.is_due(5, now=59.0), cadence.is_due(6, now=61.0)
    (False, True)
    >>> cadence.note(6, started=61.0, now=71.0)  # the next one waits 12 times 10 seconds
    >>> cadence.is_due(20, now=190.0), cadence.is_due(21, now=191.0)
    (False, True)
    """

    iterations: int | None
    seconds: float
    last_iteration: int = 0
    last_time: float | None = None
    last_cost: float = 0.0

    def begin(self, iteration: int, now: float) -> None:
        """Note that a run begins to iterate after ``iteration``. The clock starts with the first run of a search."""
        self.last_iteration = iteration
        if self.last_time is None:
            self.last_time = now

    def is_due(self, iteration: int, now: float) -> bool:
        """Return whether a snapshot is to be taken after ``iteration``."""
        if self.iterations is not None:
            return iteration - self.last_iteration >= self.iterations
        began = now if self.last_time is None else self.last_time
        return now - began >= max(self.seconds, MIN_INTERVAL_FACTOR * self.last_cost)

    def is_worth(self, iteration: int, now: float) -> bool:
        """Return whether there is much to lose after the last iteration of a run, while its exemplars are polished."""
        began = now if self.last_time is None else self.last_time
        waited = self.iterations is not None or now - began >= max(_MUCH_S, MIN_INTERVAL_FACTOR * self.last_cost)
        return iteration > self.last_iteration and waited

    def note(self, iteration: int, started: float, now: float) -> None:
        """Note that a snapshot was taken after ``iteration``, or that the attempt failed."""
        self.last_iteration, self.last_time, self.last_cost = iteration, now, now - started
