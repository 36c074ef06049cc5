"""When a run stops (docs/semantics.md, section 4): one rule for the driver and for tasks that iterate alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

__all__ = ["TRACE", "Iteration", "Stability"]


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
    """Decides whether the exemplars have stood still. Which points they are counts, not how many.

    Attributes
    ----------
    convergence_iter : int
        Iterations for which they have to stand still, at least 1.
    last_change : int
        The last iteration in which a point became or ceased to be an exemplar.
    refused : int, optional
        The ``last_change`` of exemplars that stood still, but left points without an exemplar.

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
        """Note an iteration; return whether the exemplars have stood still since.

        There must be some, and they must not have been refused. As in scikit-learn, the answer is False up to iteration
        ``convergence_iter``.
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
        """Refuse the present exemplars, which leave points without an exemplar: they have to change first."""
        self.refused = self.last_change
