"""A number of clusters, reached by trying preferences (semantics.md, section 6)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Trial", "Trials"]

MOST_TRIALS = 20
FACTOR = 8.0  # between distances, until the target lies between two of them
ASIDE = 0.9  # of the distance, after a run that has not converged
CLOSE = 1.0 + 1e-9  # distances nearer to each other than this have the same number of clusters


@dataclass(frozen=True)
class Trial:
    """A preference that was tried, the number of clusters it gave, and whether that run converged."""

    preference: float
    clusters: int
    converged: bool


class Trials:
    """Preferences to try, one after the other; each has to be answered before the next is asked for.

    The smaller the preference, the fewer clusters, by and large. Its distance from the largest similarity, above which
    every point is an exemplar, is multiplied until the target lies between two trials, and then halved as a power. A
    run that has not converged says little: the next trial is a little off its preference.

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
    ...     trials.answer(preference, round(100 / (1 - preference)), converged=True)
    >>> [trial.clusters for trial in trials.tried]
    [50, 11, 2, 4, 7, 9, 10]
    """

    def __init__(self, target: int, *, start: float, largest: float) -> None:
        self.target = target
        self.largest = largest
        self.distance = largest - start or abs(largest) or 1.0
        self.tried: list[Trial] = []
        self.last, self.stuck = 0, False  # a smaller preference made no difference
        self.too_many, self.too_few = 0.0, math.inf  # the largest and smallest distance with so many clusters

    def __iter__(self) -> Iterator[float]:
        while not self.ended:
            yield self.largest - self.distance

    @property
    def ended(self) -> bool:
        """Whether the target has been met, or is not to be met by further trials."""
        closed = self.too_few <= max(CLOSE * self.too_many, (CLOSE - 1.0) * abs(self.largest))
        return self.reached or closed or self.stuck or len(self.tried) >= MOST_TRIALS

    @property
    def reached(self) -> bool:
        """Whether the target has been met."""
        return any(trial.clusters == self.target and trial.converged for trial in self.tried)

    def answer(self, preference: float, clusters: int, *, converged: bool) -> None:
        """Tell how many clusters a preference gave."""
        self.tried.append(Trial(preference, clusters, converged))
        if not converged:
            self.distance *= ASIDE
            return
        if clusters > self.target:
            self.stuck = math.isinf(self.too_few) and clusters == self.last
            self.last = clusters
            self.too_many = max(self.too_many, self.distance)
        else:
            self.too_few = min(self.too_few, self.distance)
        if not self.too_many:
            self.distance = self.too_few / FACTOR
        elif math.isinf(self.too_few):
            self.distance = self.too_many * FACTOR
        else:
            self.distance = math.sqrt(self.too_many) * math.sqrt(self.too_few)

    @property
    def best(self) -> Trial:
        """The trial nearest to the target, of those that converged if any did; of equally near ones the first."""
        return min(self.tried, key=lambda trial: (not trial.converged, abs(trial.clusters - self.target)))
