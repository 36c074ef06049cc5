"""The search for a number of clusters: which preference to try next (docs/semantics.md, section 6).

A *distance* here is how far a preference lies below the largest similarity: a larger distance is a smaller preference,
and by and large gives fewer clusters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ap_spark.convergence import Iteration

__all__ = ["MAX_TRIALS", "MIN_REST_ITERATIONS", "TOLERANCE", "Trial", "Trials", "is_at_rest"]

MAX_TRIALS = 20
TOLERANCE = 0.01  # share of a number of clusters: it may move by so much at rest, and miss the target by so much
MIN_REST_ITERATIONS = 50  # for which a number of exemplars has to be at rest

_FACTOR = 8.0  # from one distance to the next, at most, until the target lies between two of them
_LEAST_FACTOR = 1.05
_ASIDE = 0.9  # from one distance to the next, after a run whose number of clusters was not at rest
_CLOSE = 1.0 + 1e-9  # distances with a smaller ratio give the same number of clusters
_TOO_MANY = 1.25  # times the target: more exemplars than this, once at rest, hardly ever become few enough
_NEAR = 1.1  # ratio to the target: a trial within it is preferred to all others
_INNER = 0.03, 0.97  # the next trial lies in this part of the way between two others


@dataclass(frozen=True)
class Trial:
    """A preference that was tried, and what it gave.

    Attributes
    ----------
    preference : float
    clusters : int
        How many clusters it gave; for a run that was ended early, its exemplars at that moment.
    converged : bool
    at_rest : bool
        Whether the number had come to rest, as it always has in a run that has converged or settled.
    ended_early : bool
        Whether the run was ended early, because it had far too many exemplars.
    settled : bool
        Whether the run has settled: its exemplars stood still but for a few.
    missed : bool
        Whether its clusters were polished, and did not come to the number that was asked for.
    """

    preference: float
    clusters: int
    converged: bool
    at_rest: bool
    ended_early: bool
    settled: bool = False
    missed: bool = False


@dataclass(frozen=True)
class _Bound:
    """One of the two distances between which the target lies, and the trial made there."""

    distance: float
    trial: Trial


class Trials:
    """Preferences to try, one after the other. Each has to be answered before the next is asked for.

    The distance is multiplied by the ratio of the clusters to the target (at least 1.05, at most 8), or divided by its
    inverse. While trials stay on one side of the target, the ratio is raised to the power of 1, 2, 4 and so on. Once
    the target lies between two trials, the distance is interpolated between them by a power law; where that has moved
    the same end twice in a row, it is halved on a logarithmic scale. A run whose number of clusters is not at rest says
    little: the next trial is near its preference.

    Parameters
    ----------
    target : int
        The number of clusters.
    start : float
        The first preference to try; the better it is, the fewer trials there are.
    largest : float
        The largest similarity. Above it every point is an exemplar.
    enough : float
        A number of clusters at rest that differs from the target by at most so many is good enough: where the
        clusters are polished afterwards, which brings them to the target. 0: never.

    Examples
    --------
    >>> trials = Trials(10, start=-1.0, largest=0.0)
    >>> for preference in trials:
    ...     trials.answer(Trial(preference, round(100 / (1 - preference)), True, True, False))
    >>> [trial.clusters for trial in trials.tried]
    [50, 17, 6, 10]
    """

    def __init__(self, target: int, *, start: float, largest: float, enough: float = 0.0) -> None:
        self.target = target
        self.enough = enough
        self.largest = largest
        self.distance = largest - start or abs(largest) or 1.0
        self.tried: list[Trial] = []
        self.stuck = False  # preferences that are far apart, on one side of the target, gave as many clusters
        self._same_since = self.distance  # the first distance that gave as many as the last one
        self._too_many: _Bound | None = None
        self._too_few: _Bound | None = None
        self._same_end = 0  # trials in a row that moved the same end: positive for too_many, negative for too_few

    def __iter__(self) -> Iterator[float]:
        while not self.ended:
            yield self.largest - self.distance

    @property
    def ended(self) -> bool:
        """Whether the target has been met, or further trials will not meet it."""
        closed = (
            self._too_many is not None
            and self._too_few is not None
            and self._too_few.distance <= max(_CLOSE * self._too_many.distance, (_CLOSE - 1.0) * abs(self.largest))
        )
        return self.reached or closed or self.stuck or len(self.tried) >= MAX_TRIALS

    @property
    def reached(self) -> bool:
        """Whether the target has been met: exactly, or nearly by a run that has not converged but is at rest."""
        return any(self._meets(trial) for trial in self.tried)

    def _meets(self, trial: Trial) -> bool:
        off = abs(trial.clusters - self.target)
        is_good = self.enough and trial.at_rest and not (trial.ended_early or trial.missed)
        if is_good and off <= self.enough:
            return True
        if trial.converged or (trial.settled and off == 0):
            return off == 0
        return trial.at_rest and off <= TOLERANCE * self.target and TOLERANCE * self.target >= 1.0

    def answer(self, trial: Trial) -> None:
        """Note what the last preference gave, and choose the next."""
        is_astray = self._is_astray(trial)
        self.tried.append(trial)
        if is_astray:
            assert self._too_many is not None
            self.distance = _round(math.sqrt(self._too_many.distance) * math.sqrt(self.distance))
        elif not trial.at_rest:
            self.distance = self._step_aside()
        elif trial.clusters > self.target:
            self._note_same(self._too_many, trial)
            self.stuck = self._too_few is None and self.distance >= _FACTOR * self._same_since
            self._same_end = max(1, self._same_end + 1)
            self._too_many = _Bound(self.distance, trial)
            self.distance = self._interpolate()
        else:
            self._note_same(self._too_few, trial)
            self.stuck = self._too_many is None and self.distance <= self._same_since / _FACTOR
            self._same_end = min(-1, self._same_end - 1)
            self._too_few = _Bound(self.distance, trial)
            self.distance = self._interpolate()

    def miss(self) -> bool:
        """Note that polishing the best trial has not come to the target; return whether there is more to try."""
        best = self.best
        if not self.enough or best.missed:
            return False
        self.tried[self.tried.index(best)] = replace(best, missed=True)
        return not self.ended

    def _note_same(self, before: _Bound | None, trial: Trial) -> None:
        """Note since which distance there are as many clusters."""
        is_early = trial.ended_early or (before is not None and before.trial.ended_early)
        if before is None or before.trial.clusters != trial.clusters or is_early:
            self._same_since = self.distance

    def _is_astray(self, trial: Trial) -> bool:
        """Return whether a run was ended early with more exemplars than a larger preference gives: they say nothing.

        Far below all similarities messages take long to form, and until then all points may be exemplars. The target
        lies between the two preferences.
        """
        return (
            trial.ended_early
            and self._too_many is not None
            and self._too_many.distance < self.distance
            and self._too_many.trial.clusters < trial.clusters
        )

    def _step_aside(self) -> float:
        """Return a distance near the last one, between those where the target lies."""
        distance = _ASIDE * self.distance
        if self._too_many and self._too_few and distance <= self._too_many.distance:
            return _round(math.sqrt(self._too_many.distance) * math.sqrt(self._too_few.distance))
        return _round(distance)

    def _interpolate(self) -> float:
        """Return the next distance, between those where the target lies."""
        if not self._too_many:
            assert self._too_few is not None
            return _round(self._too_few.distance / self._factor(self.target / (self._too_few.trial.clusters or 0.5)))
        if not self._too_few:
            return _round(self._too_many.distance * self._factor(self._too_many.trial.clusters / self.target))
        place = 0.5
        if abs(self._same_end) < 2:
            most, fewest = math.log(self._too_many.trial.clusters), math.log(self._too_few.trial.clusters or 0.5)
            wanted = (most - math.log(self.target)) / (most - fewest)
            place = min(max(wanted, _INNER[0]), _INNER[1])
        low, high = math.log(self._too_many.distance), math.log(self._too_few.distance)
        return _round(math.exp((1.0 - place) * low + place * high))

    def _factor(self, ratio: float) -> float:
        """Return the next step of the distance, where all trials lie on one side of the target."""
        power = 2.0 ** min(abs(self._same_end) - 1, 6)
        return float(min(min(max(ratio, _LEAST_FACTOR), _FACTOR) ** power, _FACTOR))

    def has_too_many(self, trace: Sequence[Iteration], forced: int, window: int) -> bool:
        """Return whether a run is at rest with far too many exemplars: it would not give fewer clusters."""
        return trace[-1].exemplars > _TOO_MANY * self.target and is_at_rest(trace, forced, window)

    @property
    def best(self) -> Trial:
        """The trial to take.

        These count, one after the other: that it meets the target, that it is near, that it is at rest, that it has
        converged, how near it is, and that it was made first.
        """

        def worth(trial: Trial) -> tuple[bool, bool, bool, bool, int]:
            off = abs(trial.clusters - self.target)
            low, high = sorted((trial.clusters, self.target))
            far = off > 1 and high > _NEAR * low
            return not self._meets(trial), far, not trial.at_rest, not trial.converged, off

        return min(self.tried, key=worth)


def _round(distance: float) -> float:
    """Round a distance to 12 digits: logarithms differ in their last bits from machine to machine."""
    return float(f"{distance:.12g}")


def is_at_rest(trace: Sequence[Iteration], forced: int, window: int) -> bool:
    """Return whether the number of exemplars has hardly moved for ``window`` iterations.

    The ``forced`` ones are left out; there must be others.
    """
    if len(trace) <= window:
        return False
    numbers = [done.exemplars - forced for done in trace[-window:]]
    return min(numbers) > 0 and max(numbers) - min(numbers) <= max(1.0, TOLERANCE * min(numbers))
