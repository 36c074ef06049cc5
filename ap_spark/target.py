"""A number of clusters, reached by trying preferences (docs/semantics.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ap_spark.convergence import Iteration

__all__ = ["Trial", "Trials", "has_settled"]

MOST_TRIALS = 20
FACTOR = 8.0  # between distances, until the target lies between two of them
ASIDE = 0.9  # of the distance, after a run whose number of clusters is still moving
CLOSE = 1.0 + 1e-9  # distances nearer to each other than this have the same number of clusters
NEARLY = 0.01  # of a number of clusters: what it may move by to be settled, and be off the target without converging
CLEARLY = 1.25  # times the target: more exemplars than this, once they are settled, do not become few enough
INNER = 0.03, 0.97  # where between two trials the next one lies, at most


@dataclass(frozen=True)
class Trial:
    """A preference that was tried.

    Attributes
    ----------
    preference : float
    clusters : int
        How many it gave; of a run that was ended early, since there were clearly too many, the exemplars until then.
    converged : bool
    settled : bool
        Whether their number had come to rest, as it has in a run that has converged.
    """

    preference: float
    clusters: int
    converged: bool
    settled: bool


@dataclass(frozen=True)
class End:
    """One end of the distances between which the target lies, and the number of clusters there."""

    distance: float
    clusters: int


class Trials:
    """Preferences to try, one after the other; each has to be answered before the next is asked for.

    The smaller the preference, the fewer clusters, by and large. Its distance from the largest similarity, above which
    every point is an exemplar, is multiplied until the target lies between two trials; then it is interpolated, as a
    power law, or halved where that does not bring both ends nearer. A run whose number of clusters is not settled says
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
    ...     trials.answer(preference, round(100 / (1 - preference)), converged=True, settled=True)
    >>> [trial.clusters for trial in trials.tried]
    [50, 11, 2, 10]
    """

    def __init__(self, target: int, *, start: float, largest: float) -> None:
        self.target = target
        self.largest = largest
        self.distance = largest - start or abs(largest) or 1.0
        self.tried: list[Trial] = []
        self.stuck = False  # a smaller preference made no difference
        self.too_many: End | None = None
        self.too_few: End | None = None
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
        return off == 0 if trial.converged else trial.settled and off <= NEARLY * self.target

    def answer(self, preference: float, clusters: int, *, converged: bool, settled: bool) -> None:
        """Tell how many clusters a preference gave."""
        self.tried.append(Trial(preference, clusters, converged, settled))
        if not settled:
            self.distance *= ASIDE
            return
        here = End(self.distance, clusters)
        if clusters > self.target:
            self.stuck = self.too_few is None and self.too_many is not None and clusters == self.too_many.clusters
            self.same_end = max(1, self.same_end + 1)
            self.too_many = here
        else:
            self.same_end = min(-1, self.same_end - 1)
            self.too_few = here
        self.distance = self.next_distance()

    def next_distance(self) -> float:
        if self.too_many is None:
            assert self.too_few is not None
            return self.too_few.distance / FACTOR
        if self.too_few is None:
            return self.too_many.distance * FACTOR
        place = 0.5
        if abs(self.same_end) < 2:
            most, fewest = math.log(self.too_many.clusters), math.log(self.too_few.clusters)
            place = min(max((most - math.log(self.target)) / (most - fewest), INNER[0]), INNER[1])
        return math.exp((1.0 - place) * math.log(self.too_many.distance) + place * math.log(self.too_few.distance))

    def has_too_many(self, trace: Sequence[Iteration], window: int) -> bool:
        """Whether a run has settled on clearly too many exemplars: clusters are not fewer."""
        return trace[-1].exemplars > CLEARLY * self.target and has_settled(trace, window)

    @property
    def best(self) -> Trial:
        """The trial to take: one that meets the target, else the nearest to it; of equally near ones the first.

        Trials whose numbers are settled come first, and of those within one per cent of each other a converged one.
        """

        def worth(trial: Trial) -> tuple[bool, bool, float, bool, int]:
            off = abs(trial.clusters - self.target)
            steps = math.floor(off / max(1.0, NEARLY * self.target))
            return not self.meets(trial), not trial.settled, steps, not trial.converged, off

        return min(self.tried, key=worth)


def has_settled(trace: Sequence[Iteration], window: int) -> bool:
    """Whether the number of exemplars, if there are any, has hardly moved for so many iterations."""
    if len(trace) <= window:
        return False
    numbers = [done.exemplars for done in trace[-window:]]
    return min(numbers) > 0 and max(numbers) - min(numbers) <= NEARLY * min(numbers)
