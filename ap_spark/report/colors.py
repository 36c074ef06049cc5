"""Colours of clusters: told apart without colour vision, and different for clusters that lie beside each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["ACCENT", "MUTED", "PALETTE", "color_clusters", "mark_clusters"]

# Okabe & Ito, Color Universal Design (2008), without black, and without yellow, which does not show on white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
ACCENT, MUTED = PALETTE[0], "#808080"  # both show on white and on black
_BESIDE = 8  # exemplars


def color_clusters(positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of a colour for each cluster, other than those of the clusters around it.

    With no more clusters than colours, each has its own.

    Parameters
    ----------
    positions : float64, shape (K, 2)
        Of the exemplars, in the picture.

    Examples
    --------
    >>> color_clusters(np.array([[0.0, 0.0], [1.0, 0.0]])).tolist()
    [0, 1]
    """
    count, colors = len(positions), len(PALETTE)
    if count <= colors:
        return np.arange(count)
    spread = np.ptp(positions, axis=0)
    scaled = positions / np.where(spread > 0, spread, 1.0)
    beside = cKDTree(scaled).query(scaled, min(_BESIDE + 1, count))[1]
    nearer_counts_more = 1.0 / np.arange(1, beside.shape[1] + 1) ** 2
    found = np.full(count, -1)
    for cluster, near in enumerate(beside):
        known = found[near] >= 0
        taken = np.bincount(found[near[known]], nearer_counts_more[known], minlength=colors)
        # The first of the free colours would be everywhere: begin at another one each time.
        found[cluster] = min(range(colors), key=lambda color: (taken[color], (color - cluster) % colors))
    return found


def mark_clusters(colors: NDArray[np.int64]) -> list[str]:
    """Return a marker for each cluster, so that few have both in common; "o" for all if they are too many.

    >>> mark_clusters(np.array([0, 1, 0]))
    ['o', 's', 's']
    """
    count = len(colors)
    if count > len(PALETTE) * len(MARKERS):
        return ["o"] * count
    before = [int(np.count_nonzero(colors[:cluster] == colors[cluster])) for cluster in range(count)]
    return [MARKERS[(color + nth) % len(MARKERS)] for color, nth in zip(colors, before, strict=True)]
