"""The preference for a number of clusters, before any run (docs/quality.md).

With a number of exemplars given, the bound adds the so many largest C(k). Near its minimum the smallest of these and
the largest of the others meet: the preference less their mean is the one at which one exemplar more or less changes
nothing.
"""

from __future__ import annotations

import numpy as np

from ap_spark.quality.bound import Bound
from ap_spark.quality.problem import Problem
from ap_spark.quality.solution import evaluate

__all__ = ["PRICE_PASSES", "price_of"]

_LOOK_EVERY, _FEWEST_LOOKS, _MOST_LOOKS = 10, 2, 6  # passes; the first look has nothing to be compared with
PRICE_PASSES = _FEWEST_LOOKS * _LOOK_EVERY, _MOST_LOOKS * _LOOK_EVERY
_PATIENCE = 4  # see `Bound`
_STEADY = 0.02  # share of its distance from the largest similarity: a price that moves by less is taken
_BELOW = 50  # the bound is taken to be at least one part in so many too large


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
        None if only forced exemplars are asked for, or every point.
    """
    n_points = problem.n_points
    if not np.count_nonzero(problem.forced) < clusters < n_points:
        return None
    spread = np.zeros(n_points, bool)
    spread[np.arange(clusters) * n_points // clusters] = True
    start = evaluate(problem, spread, keep_count=True)
    bound = Bound(problem, start, patience=_PATIENCE, clusters=clusters)
    preference = float(problem.preference[0]) * problem.unit
    distance, smallest = np.inf, bound.smallest
    for _ in range(_MOST_LOOKS):
        for _ in range(_LOOK_EVERY):
            if not bound.has_ended:
                # Where points without an exemplar became some, the bound may come below the start.
                bound.improve(min(start.netsim, bound.smallest - abs(bound.smallest) // _BELOW))
        inside, outside = bound.prices
        before, distance = distance, largest - preference + (inside + outside) / 2.0 * problem.unit
        fell, smallest = bound.smallest < smallest, bound.smallest
        if bound.has_ended or (fell and abs(distance - before) <= _STEADY * abs(distance)):
            break
    return largest - float(f"{distance:.6g}")
