"""The preference for a number of clusters, before any run (docs/quality.md).

With a number of exemplars given, the bound adds the so many largest C(k). Near its minimum the smallest of these and
the largest of the others meet: by so much the preference differs from the one at which neither opening nor closing one
more exemplar would pay.
"""

from __future__ import annotations

import numpy as np

from ap_spark.quality.bound import Bound
from ap_spark.quality.problem import Problem
from ap_spark.quality.solution import evaluate

__all__ = ["price_of"]

_MOST_PASSES, _LOOK_EVERY = 60, 10
_PATIENCE = 4  # see `Bound`
_STEADY = 0.02  # share of its distance from the largest similarity: a price that moves by less is taken


def price_of(problem: Problem, clusters: int, largest: float) -> float | None:
    """Return the preference at which so many exemplars are worth their price, by and large.

    Parameters
    ----------
    problem : Problem
        With one preference for all points.
    clusters : int
        At least 1, at most the number of points.
    largest : float
        The largest similarity.

    Returns
    -------
    float or None
        None where nothing tells: of so many exemplars none is free, or all points are.
    """
    n_points = problem.n_points
    if not np.count_nonzero(problem.forced) < clusters < n_points:
        return None
    spread = np.zeros(n_points, bool)
    spread[np.arange(clusters) * n_points // clusters] = True
    start = evaluate(problem, spread, keep_count=True)
    bound = Bound(problem, start, patience=_PATIENCE, clusters=clusters)
    preference = float(problem.preference[0]) * problem.unit
    distance: float | None = None
    for _ in range(_MOST_PASSES // _LOOK_EVERY):
        for _ in range(_LOOK_EVERY):
            if not bound.has_ended:
                bound.improve(start.netsim)
        before = distance
        inside, outside = bound.prices
        distance = largest - preference + (inside + outside) / 2.0 * problem.unit
        if before is not None and abs(distance - before) <= _STEADY * distance:
            break
    return largest - float(f"{distance:.6g}")
