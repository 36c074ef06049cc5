"""A clustering as its exemplars, with what is known of each row; two clusterings put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ap_spark.blocks.kernel import Flags, Integers
from ap_spark.blocks.objective import NONE, best_two
from ap_spark.quality.problem import Problem

__all__ = ["Solution", "evaluate", "recombine"]


@dataclass(frozen=True)
class Solution:
    """Exemplars, each point with one.

    Attributes
    ----------
    is_exemplar : bool, shape (n_points,)
    first : int32, shape (n_points,)
        The best exemplar of each point other than itself; -1 for none.
    best, second : int64, shape (n_points,)
        The similarities to it, and to the second best; `objective.NONE` for none.
    value : int64, shape (n_points,)
        What each point counts: its preference, or the similarity to its exemplar.
    netsim : int
        The net similarity in units: the sum of these.
    """

    is_exemplar: Flags
    first: NDArray[np.int32]
    best: Integers
    second: Integers
    value: Integers
    netsim: int

    @property
    def exemplar(self) -> Integers:
        """The exemplar of each point, which is the point itself for exemplars."""
        return np.where(self.is_exemplar, np.arange(len(self.first)), self.first)

    @property
    def n_clusters(self) -> int:
        """The number of exemplars."""
        return int(np.count_nonzero(self.is_exemplar))


def evaluate(problem: Problem, is_exemplar: Flags, *, keep_count: bool = False) -> Solution:
    """Find what each point counts with these exemplars.

    Points that store no edge to any become exemplars. Then, unless ``keep_count``, so do those that count more as one.
    """
    is_exemplar = is_exemplar | problem.forced
    while True:
        first, best, second = problem.of_rows(best_two, is_exemplar, fill=(np.int32(-1), NONE, NONE))
        becomes = ~is_exemplar & (best == NONE)
        if not (keep_count or becomes.any()):
            becomes = ~is_exemplar & (best < problem.preference)
        if not becomes.any():
            break
        is_exemplar = is_exemplar | becomes
    value = np.where(is_exemplar, problem.preference, best)
    return Solution(is_exemplar, first, best, second, value, int(value.sum()))


def recombine(ours: Solution, other: Solution, *, keep_count: bool = False) -> Flags:
    """Take from another solution those exemplars that do better than ours where they are.

    Exemplars that only one of the two has are joined where a point has one as its exemplar here, and the other there.
    Each group that is so joined is taken from ours or from the other as a whole, whichever counts more over its points:
    no point has its exemplars in two groups, so the gains of the groups add up. (Whitley, Hains & Howe, GECCO 2009, do
    the same with tours.)

    Parameters
    ----------
    ours, other : Solution
    keep_count : bool
        Take only groups that have as many exemplars in both, or the whole other solution if that is better.

    Returns
    -------
    bool, shape (n_points,)
        Exemplars with at least the net similarity of ours.
    """
    n_points = len(ours.first)
    only_ours, only_other = ours.is_exemplar & ~other.is_exemplar, other.is_exemplar & ~ours.is_exemplar
    here, there = ours.exemplar, other.exemplar
    joined = only_ours[here] & only_other[there]
    ones = np.ones(np.count_nonzero(joined), bool)
    pairs = coo_array((ones, (here[joined], there[joined])), shape=(n_points, n_points))
    group_of = connected_components(pairs, directed=False)[1]
    group = np.where(only_ours[here], group_of[here], np.where(only_other[there], group_of[there], -1))
    differs = group >= 0
    gain = np.zeros(n_points, np.int64)
    np.add.at(gain, group[differs], (other.value - ours.value)[differs])
    is_better = gain > 0
    if keep_count:
        size = np.zeros(n_points, np.int64)
        np.add.at(size, group_of[only_other], 1)
        np.add.at(size, group_of[only_ours], -1)
        is_better &= size == 0
        is_as_many = ours.n_clusters == other.n_clusters
        if is_as_many and other.netsim > ours.netsim + int(gain[is_better].sum()):
            return other.is_exemplar
    taken = is_better[group_of]
    return np.asarray((ours.is_exemplar & ~(only_ours & taken)) | (only_other & taken))
