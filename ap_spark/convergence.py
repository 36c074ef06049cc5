"""When a run stops (docs/semantics.md, section 4): one rule for the driver and for tasks that iterate alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa

from ap_spark.damping import MIN_WINDOW

__all__ = ["TRACE", "Ending", "Iteration", "Stability", "tolerated"]

Ending = Literal["converged", "settled", "stopped"]

_UNSETTLED_SHARE = 200  # one point in so many may be unsettled where a run has settled
_MIN_INTERVAL = 10  # iterations between two refusals of exemplars that still change


class Iteration(NamedTuple):
    """The record of one iteration.

    Attributes
    ----------
    iteration : int
        Counted from 1.
    exemplars : int
        The number of exemplars after it, forced exemplars included.
    changed : int
        How many points became or ceased to be exemplars in it.
    unsettled : int
        How many points have done so within their window (docs/semantics.md, section 4).
    seconds : float
        How long it took.
    """

    iteration: int
    exemplars: int
    changed: int
    unsettled: int
    seconds: float


TRACE = pa.schema(
    [
        ("iteration", pa.int32()),
        ("exemplars", pa.int64()),
        ("changed", pa.int64()),
        ("unsettled", pa.int64()),
        ("seconds", pa.float64()),
    ]
)


def tolerated(n_points: int) -> int:
    """Return how many points may be unsettled where a run has settled.

    >>> tolerated(199), tolerated(20_000)
    (0, 100)
    """
    return n_points // _UNSETTLED_SHARE


@dataclass
class Stability:
    """Decides whether the exemplars have stood still. Which points they are counts, not how many.

    Attributes
    ----------
    windows : tuple of int
        Iterations for which a point must not flip to be settled, each at least 1: by the level of its damping, or one
        number for all.
    tolerated : int
        So many unsettled points do not keep a run from ending.
    last_change : int
        The last iteration in which a point became or ceased to be an exemplar.
    refused : int, optional
        The ``last_change`` of exemplars that could have ended the run, but left points without an exemplar, while all
        points were settled.
    refused_at : int, optional
        The iteration after which exemplars were refused last.

    Examples
    --------
    >>> stability = Stability((2,))
    >>> history = [(1, 1), (2, 3), (0, 2), (0, 0)]
    >>> [stability.reached(Iteration(t, 1, *flips, 0.0)) for t, flips in enumerate(history, start=1)]
    [False, False, False, True]
    """

    windows: tuple[int, ...]
    tolerated: int = 0
    last_change: int = 0
    refused: int | None = None
    refused_at: int | None = None

    def reached(self, done: Iteration) -> bool:
        """Note an iteration; return whether the exemplars may end the run: all points are settled, or nearly all.

        There must be exemplars, and they must not have been refused. As in scikit-learn, the answer is False up to the
        iteration of the window's number. Where some points are unsettled, exemplars may be refused once in 10
        iterations.
        """
        if done.changed:
            self.last_change = done.iteration
        if not done.exemplars or done.iteration <= self.windows[0] or self.last_change == self.refused:
            return False
        if not done.unsettled:
            return True
        rested = self.refused_at is None or done.iteration >= self.refused_at + _MIN_INTERVAL
        return done.unsettled <= self.tolerated and done.iteration > MIN_WINDOW and rested

    def refuse(self, done: Iteration) -> None:
        """Refuse the exemplars after an iteration, which leave points without one.

        They have to change first. If some points are unsettled, these may also settle first; and early in a run,
        exemplars that leave only few points without one have to wait.
        """
        self.refused_at = done.iteration
        if not done.unsettled and done.iteration > MIN_WINDOW:
            self.refused = self.last_change
