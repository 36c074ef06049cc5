"""A number of clusters, reached by trying preferences (docs/semantics.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ap_spark.convergence import Iteration

__all__ = ["NEARLY", "REST", "Trial", "Trials", "is_at_rest"]

MOST_TRIALS = 20
FACTOR = 8.0  # between distances, until the target lies between two of them
ASIDE = 0.9  # of the distance, after a run whose number of clusters is not at rest
CLOSE = 1.0 + 1e-9  # distances nearer to each other than this have the same number of clusters
NEARLY = 0.01  # of a number of clusters: what it may move by at rest, and be off the target without converging
CLEARLY = 1.25  # times the target: more exemplars than this, once at rest, hardly become few enough
NEAR = 1.1  # times: the best is no farther off than this, if any is
REST = 50  # iterations that a number has to be at rest for, at least
INNER = 0.03, 0.97  # where between two trials the next one lies, at most


@dataclass(frozen=True)
class Trial:
    """A preference that was tried.

    Attributes
    ----------
    preference : float
    clusters : int
        How many it gave; of a run that was ended early, the exemplars until then.
    converged : bool
    at_rest : bool
        Whether their number had come to rest, as it has in a run that has converged.
    ended_early : bool
        Whether it was ended since there were clearly too many exemplars.
    """

    preference: float
    clusters: int
    converged: bool
    at_rest: bool
    ended_early: bool


@dataclass(frozen=True)
class Bound:
    """One end of the distances between which the target lies, and what was found there."""

    distance: float
    trial: Trial


class Trials:
    """Preferences to try, one after the other; each has to be answered before the next is asked for.

    The smaller the preference, the fewer clusters, by and large. Its distance from the largest similarity, above which
    every point is an exemplar, is multiplied until the target lies between two trials; then it is interpolated, as a
    power law, or halved where that does not bring both ends nearer. A run whose number of clusters is not at rest says
    little: the next trial is a little off its preference.

    Parameters
    ----------
    target : int
        The number of clusters.
    start : float
        The first preference to try.
    largest : float
        The largest similarity, at least ``start``.

    Examples
    --------
    >>> trials = Trials(10, start=-1.0, largest=0.0)
    >>> for preference in trials:
    ...     trials.answer(Trial(preference, round(100 / (1 - preference)), True, True, False))
    >>> [trial.clusters for trial in trials.tried]
    [50, 11, 2, 10]
    """

    def __init__(self, target: int, *, start: float, largest: float) -> None:
        self.target = target
        self.largest = largest
        self.distance = largest - start or abs(largest) or 1.0
        self.tried: list[Trial] = []
        self.stuck = False  # a smaller preference made no difference
        self.too_many: Bound | None = None
        self.too_few: Bound | None = None
        self.same_end = 0  # trials in a row that have moved the same end

    def __iter__(self) -> Iterator[float]:
        while not self.ended:
            yield self.largest - self.distance

    @property
    def ended(self) -> bool:
        """Whether the target has been met, or is not to be met by further trials."""
        closed = (
            self.too_many is not None
            and self.too_few is not None
            and self.too_few.distance <= max(CLOSE * self.too_many.distance, (CLOSE - 1.0) * abs(self.largest))
        )
        return self.reached or closed or self.stuck or len(self.tried) >= MOST_TRIALS

    @property
    def reached(self) -> bool:
        """Whether the target has been met: exactly, or by a run that does not converge nearly."""
        return any(self.meets(trial) for trial in self.tried)

    def meets(self, trial: Trial) -> bool:
        off = abs(trial.clusters - self.target)
        if trial.converged:
            return off == 0
        return trial.at_rest and off <= NEARLY * self.target and NEARLY * self.target >= 1.0

    def answer(self, trial: Trial) -> None:
        """Tell what the preference that was asked for gave."""
        self.tried.append(trial)
        if not trial.at_rest:
            self.distance = self.aside()
        elif trial.clusters > self.target:
            before = self.too_many and self.too_many.trial
            same = before and before.clusters == trial.clusters and not (before.ended_early or trial.ended_early)
            self.stuck = self.too_few is None and bool(same)
            self.same_end = max(1, self.same_end + 1)
            self.too_many = Bound(self.distance, trial)
            self.distance = self.between()
        else:
            self.same_end = min(-1, self.same_end - 1)
            self.too_few = Bound(self.distance, trial)
            self.distance = self.between()

    def aside(self) -> float:
        """A distance a little off the last one, between those where the target lies."""
        distance = ASIDE * self.distance
        if self.too_many and self.too_few and distance <= self.too_many.distance:
            return rounded(math.sqrt(self.too_many.distance) * math.sqrt(self.too_few.distance))
        return rounded(distance)

    def between(self) -> float:
        """The distance to be tried next, between those where the target lies."""
        if not self.too_many:
            assert self.too_few is not None
            return rounded(self.too_few.distance / FACTOR)
        if not self.too_few:
            return rounded(self.too_many.distance * FACTOR)
        place = 0.5
        if abs(self.same_end) < 2:
            most, fewest = math.log(self.too_many.trial.clusters), math.log(self.too_few.trial.clusters or 0.5)
            wanted = (most - math.log(self.target)) / (most - fewest)
            place = min(max(wanted, INNER[0]), INNER[1])
        low, high = math.log(self.too_many.distance), math.log(self.too_few.distance)
        return rounded(math.exp((1.0 - place) * low + place * high))

    def has_too_many(self, trace: Sequence[Iteration], forced: int, window: int) -> bool:
        """Whether a run is at rest with clearly too many exemplars: there are no fewer clusters."""
        return trace[-1].exemplars > CLEARLY * self.target and is_at_rest(trace, forced, window)

    @property
    def best(self) -> Trial:
        """The trial to take: one that meets the target, else one that is not far off; of those one at rest, converged.

        Of equally good ones the nearest, and of equally near ones the first.
        """

        def worth(trial: Trial) -> tuple[bool, bool, bool, bool, int]:
            off = abs(trial.clusters - self.target)
            low, high = sorted((trial.clusters, self.target))
            far = off > 1 and high > NEAR * low
            return not self.meets(trial), far, not trial.at_rest, not trial.converged, off

        return min(self.tried, key=worth)


def rounded(distance: float) -> float:
    """The same on every machine: logarithms differ in their last bits."""
    return float(f"{distance:.12g}")


def is_at_rest(trace: Sequence[Iteration], forced: int, window: int) -> bool:
    """Whether the number of exemplars, if there are any but the ``forced``, has hardly moved for so many iterations."""
    if len(trace) <= window:
        return False
    numbers = [done.exemplars - forced for done in trace[-window:]]
    return min(numbers) > 0 and max(numbers) - min(numbers) <= max(1.0, NEARLY * min(numbers))
