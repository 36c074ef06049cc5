"""The damping of each point, which is raised where exemplars keep changing (docs/semantics.md, section 2).

A point has a *level*, the place of its damping in DAMPINGS: one byte, of which numpy, numba and SQL make the same
double. An entry has the larger level of its two points.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DAMPINGS",
    "MIN_WINDOW",
    "RECENT",
    "Damping",
    "Levels",
    "PointDamping",
    "flips_after",
    "is_raise_due",
    "last_before_raise",
    "window_of",
]

DAMPINGS = (0.5, 0.65, 0.8, 0.95)  # by level
RECENT = 25  # iterations: a point that has flipped in so many is raised
MIN_WINDOW = 15

_EVERY = 40  # iterations from one raise to the next
_NEVER = np.iinfo(np.int32).max

Levels = NDArray[np.uint8]
Damping = float | Levels  # one for all points, columns or entries, or the level of each


def window_of(damping: float) -> int:
    """Return for how many iterations exemplars have to stand still, so that it outlasts the damping.

    >>> [window_of(damping) for damping in (*DAMPINGS, 0.9, 0.98)]
    [15, 15, 25, 100, 50, 250]
    """
    return max(MIN_WINDOW, math.ceil(round(5.0 / (1.0 - damping), 6)))  # 1 - 0.9 is a little less than 0.1


def is_raise_due(iteration: int) -> bool:
    """Return whether levels are raised before an iteration.

    >>> [iteration for iteration in range(1, 100) if is_raise_due(iteration)]
    [41, 81]
    """
    return iteration > 1 and iteration % _EVERY == 1


def last_before_raise(iteration: int) -> int:
    """Return the last iteration that has the levels of this one.

    >>> [last_before_raise(iteration) for iteration in (1, 40, 41)]
    [40, 40, 80]
    """
    return -(-iteration // _EVERY) * _EVERY


def flips_after(iteration: int, window: int) -> int:
    """Return the iteration after which a flip is in the window: a point that has flipped later is not settled.

    A point that has never flipped is settled.
    """
    return max(iteration + 1 - window, 0)


class PointDamping:
    """The damping of all points, fixed or raised where they flip: become or cease to be exemplars.

    Parameters
    ----------
    fixed : float or None
        One damping for all points and iterations; None for one of its own for each point.
    level : uint8, shape (n_points,)
        The level of each point in the last iteration.
    flipped : int32, shape (n_points,)
        The last iteration in which it flipped; 0 where it never has.

    Examples
    --------
    >>> damping = PointDamping(None, np.zeros(3, np.uint8), np.zeros(3, np.int32))
    >>> damping.note(40, np.array([False, True, False]))
    >>> damping.unsettled(40, (15,)), damping.unsettled(54, (15,))
    (1, 0)
    >>> damping.raise_levels(41)
    >>> damping.at(40), damping.at(41)
    (0.5, array([0, 1, 0], dtype=uint8))
    """

    def __init__(self, fixed: float | None, level: Levels, flipped: NDArray[np.int32]) -> None:
        self.fixed = fixed
        self.level = level
        self.flipped = flipped
        self._raised_at = 0
        # The first iteration of each higher level, so that the levels of iterations that are repeated are known.
        self._since = np.full((len(DAMPINGS) - 1, len(level) if fixed is None else 0), _NEVER, np.int32)
        if fixed is None:
            for higher, since in enumerate(self._since):
                since[level > higher] = 0

    def at(self, iteration: int) -> Damping:
        """Return the damping in an iteration: one number where all points have the same."""
        if self.fixed is not None:
            return self.fixed
        level = self.level
        if iteration < self._raised_at:
            level = np.asarray((self._since <= iteration).sum(axis=0, dtype=np.uint8))
        lowest = int(level.min())
        return level if lowest < level.max() else DAMPINGS[lowest]

    def raise_levels(self, iteration: int) -> None:
        """Raise the levels before an iteration, where that is due: of each point that has flipped recently."""
        if self.fixed is not None or not is_raise_due(iteration) or self._raised_at == iteration:
            return
        recent = self.flipped >= iteration - RECENT
        raised = np.flatnonzero(recent & (self.level < len(DAMPINGS) - 1))
        self._since[self.level[raised], raised] = iteration
        self.level = self.level.copy()  # the last one is still in use
        self.level[raised] += 1
        self._raised_at = iteration

    def note(self, iteration: int, flipped: NDArray[np.bool_]) -> None:
        """Note which points have flipped in an iteration."""
        self.flipped[flipped] = iteration

    def unsettled(self, iteration: int, windows: tuple[int, ...]) -> int:
        """Count the points that have flipped within their window.

        Parameters
        ----------
        iteration : int
            The last one.
        windows : tuple of int
            By level; a single one is for all levels.
        """
        since = np.array([flips_after(iteration, window) for window in windows], np.int32)
        return int(np.count_nonzero(self.flipped > (since[self.level] if len(windows) > 1 else since[0])))
