"""When a run stops (docs/semantics.md, section 4): the same rule on the driver and inside a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

__all__ = ["TRACE", "Iteration", "Stability"]


class Iteration(NamedTuple):
    """What one iteration leaves behind.

    Attributes
    ----------
    iteration : int
        Counted from 1.
    exemplars : int
        The number of exemplars after it, forced exemplars included.
    changed : int
        How many points became or ceased to be exemplars in it.
    seconds : float
        How long it took.
    """

    iteration: int
    exemplars: int
    changed: int
    seconds: float


TRACE = pa.schema(
    [("iteration", pa.int32()), ("exemplars", pa.int64()), ("changed", pa.int64()), ("seconds", pa.float64())]
)


@dataclass
class Stability:
    """Watches the exemplars: which they are counts, not how many.

    Attributes
    ----------
    convergence_iter : int
        Iterations for which they have to stand still.
    last_change : int
        The last iteration in which a point became or ceased to be an exemplar.
    refused : int, optional
        The last change before exemplars that have stood still, but leave points without any.

    Examples
    --------
    >>> stability = Stability(convergence_iter=2)
    >>> [stability.reached(Iteration(t, 1, changed, 0.0)) for t, changed in enumerate([1, 2, 0, 0], start=1)]
    [False, False, True, True]
    """

    convergence_iter: int
    last_change: int = 0
    refused: int | None = None

    def reached(self, done: Iteration) -> bool:
        """Take note of an iteration; True once the exemplars have stood still, some have been found, and not refused.

        As in scikit-learn the question is first asked after iteration ``convergence_iter`` + 1.
        """
        if done.changed:
            self.last_change = done.iteration
        still = done.iteration - self.last_change + 1
        return (
            done.exemplars > 0
            and done.iteration > self.convergence_iter
            and still >= self.convergence_iter
            and self.last_change != self.refused
        )

    def refuse(self) -> None:
        """Go on until the exemplars change: those there are leave points without any."""
        self.refused = self.last_change
