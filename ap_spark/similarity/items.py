"""Clusters as the items of the next level: what the similarities of all their members add up to (docs/levels.md).

An item e stands for the points x of the cluster around e. If all of them moved to another exemplar f, the net
similarity would grow by

    gain(e, f) = sum over x of s(x, f) - D(e),    D(e) = sum over x != e of s(x, e)

and by -p for the exemplar that is no longer one. So a clustering of the items with the similarities gain(e, f) and the
preference p has the net similarity of the points, less the sum of all D(e), which does not depend on it.

With S(e) = sum of x - e over the members, n of them, and s itself for pairs of exemplars:

    squared Euclidean         gain(e, f) = n s(e, f) - 2 S(e)·(e - f)              exactly
    cosine, correlation, dot  gain(e, f) = n s(e, f) + S(e)·f - D(e)               exactly
    others                    gain(e, f) = n s(e, f) - (n - 1) s(e, e)             as if every x were where e is
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ap_spark.similarity.knn_exact import Positions
from ap_spark.similarity.metrics import Floats, Metric, PairFunction, between, of_pairs, products

__all__ = ["Items"]

_SHORTEST = 1e-9  # mean of unit vectors that has a direction
_AT_ONCE = 4_000_000  # numbers that are worked on together


@dataclass(frozen=True)
class Items:
    """Clusters, by what is known of all their members.

    Attributes
    ----------
    metric : Metric or callable
    vectors : float64, shape (m, d)
        The exemplars, prepared by the metric.
    size : int64, shape (m,)
        Members, with the exemplar.
    similarity : float64, shape (m,)
        D: the sum of the similarities of the members to the exemplar, itself not counted.
    shift : float64, shape (m, d)
        S: the sum of the members, less so many times the exemplar.
    """

    metric: Metric | PairFunction
    vectors: Floats
    size: Positions
    similarity: Floats
    shift: Floats

    def __len__(self) -> int:
        return len(self.size)

    @property
    def is_exact(self) -> bool:
        """Whether gains are exact, and not estimates."""
        return isinstance(self.metric, Metric) and self.metric.sums != "unknown"

    @property
    def centers(self) -> Floats:
        """Among which neighbours are looked for: the means of the members, for other metrics the exemplars.

        Of unit vectors they are the directions of the means.
        """
        if not self.is_exact:
            return self.vectors
        means = np.asarray(self.vectors + self.shift / np.maximum(self.size, 1)[:, None])
        assert isinstance(self.metric, Metric)
        if not self.metric.unit_vectors:
            return means
        length = np.sqrt(products(means.T, means.T))[:, None]
        return np.where(length > _SHORTEST, means / np.maximum(length, _SHORTEST), self.vectors)

    @property
    def has_centers(self) -> bool:
        """Whether the sum of the similarities of all members to their center is known."""
        return (
            self.is_exact
            and isinstance(self.metric, Metric)
            and (self.metric.sums == "squares" or self.metric.unit_vectors)
        )

    @property
    def compactness(self) -> float:
        """The sum of the similarities of all members to the centers of their clusters."""
        assert isinstance(self.metric, Metric)
        if self.metric.sums == "squares":
            moved = products(self.shift.T, self.shift.T) / np.maximum(self.size, 1)
            return math.fsum(self.similarity + moved)
        total = self.size[:, None] * self.vectors + self.shift
        return math.fsum(np.sqrt(products(total.T, total.T)))

    def gains(self, i: Positions, k: Positions) -> Floats:
        """Return what is gained if items i move to the exemplars of items k; 0 where these are the same.

        Parameters
        ----------
        i, k : int64, shape (n,)

        Examples
        --------
        >>> from ap_spark.similarity.metrics import METRICS
        >>> items = Items(
        ...     METRICS["sqeuclidean"],
        ...     vectors=np.array([[0.0], [10.0]]),
        ...     size=np.array([2, 1]),
        ...     similarity=np.array([-1.0, 0.0]),
        ...     shift=np.array([[1.0], [0.0]]),
        ... )
        >>> items.gains(np.array([0, 1]), np.array([1, 0]))  # 0 and 1 to 10: -181, was -1
        array([-180., -100.])
        """
        portions = np.array_split(np.arange(len(i)), max(1, len(i) * self.vectors.shape[1] // _AT_ONCE))
        return np.where(i == k, 0.0, np.concatenate([self._gains(i[some], k[some]) for some in portions]))

    def _gains(self, i: Positions, k: Positions) -> Floats:
        own, other, size = self.vectors[i], self.vectors[k], self.size[i]
        if not self.is_exact:
            return np.asarray(size * self._similarities(i, k) - (size - 1) * self._own[i])
        assert isinstance(self.metric, Metric)
        moved = size * of_pairs(self.metric, own, other)
        if self.metric.sums == "squares":
            return np.asarray(moved - 2.0 * products(self.shift[i].T, (own - other).T))
        return np.asarray(moved + products(self.shift[i].T, other.T) - self.similarity[i])

    def _similarities(self, i: Positions, k: Positions) -> Floats:
        """Return the similarities of pairs of exemplars; a function is called once for each row, not for each pair."""
        if isinstance(self.metric, Metric):
            return of_pairs(self.metric, self.vectors[i], self.vectors[k])
        order = np.argsort(i, kind="stable")
        found = np.empty(len(i))
        for some in np.split(order, np.flatnonzero(np.diff(i[order])) + 1):
            if len(some):
                found[some] = between(self.metric, self.vectors[i[some[:1]]], self.vectors[k[some]])[0]
        return found

    @cached_property
    def _own(self) -> Floats:
        """The similarity of each exemplar to itself."""
        return self._similarities(np.arange(len(self)), np.arange(len(self)))

    def joined(self, exemplar: Positions) -> tuple[Items, Positions]:
        """Return clusters of items as items of the next level.

        Parameters
        ----------
        exemplar : int64, shape (m,)
            The item whose exemplar each item has now.

        Returns
        -------
        Items
            In the order of their exemplars.
        int64, shape (m,)
            The new item of each item.
        """
        heads, joined = np.unique(exemplar, return_inverse=True)
        difference = self.vectors - self.vectors[exemplar]
        shift = np.zeros((len(heads), self.vectors.shape[1]))
        np.add.at(shift, joined, self.shift + self.size[:, None] * difference)
        size, similarity = np.zeros(len(heads), np.int64), np.zeros(len(heads))
        np.add.at(size, joined, self.size)
        np.add.at(similarity, joined, self.similarity + self.gains(np.arange(len(self)), exemplar))
        return Items(self.metric, self.vectors[heads], size, similarity, shift), joined

    def tree(self) -> tuple[Positions, Floats, Positions]:
        """Join items two by two, those first that lose the least similarity by sharing one exemplar.

        The exemplar of a join is that of one of the two: where it has the larger sum.

        Returns
        -------
        int64, shape (m - 1, 2)
            Which items, or joins: the join in row r is number m + r. The smaller number comes first.
        float64, shape (m - 1,)
            The similarity lost, at least 0: the largest up to here, so that it never falls.
        int64, shape (m - 1,)
            The number of items under the join.
        """
        m = len(self)
        i, k = np.nonzero(np.ones((m, m), bool))
        moved = self.gains(i, k).reshape(m, m)  # of all members of a row, to the exemplar of a column
        moved[np.arange(m), np.arange(m)] = self._own  # an exemplar is a member of its cluster, too
        value, number, count = self._own.copy(), np.arange(m), np.ones(m, np.int64)
        loss = np.full((m, m), np.inf)
        for row in range(m):
            loss[row, row + 1 :] = _losses(moved, value, row)[row + 1 :]
        joins, heights, sizes = np.empty((max(m - 1, 0), 2), np.int64), np.empty(max(m - 1, 0)), count[1:].copy()
        nearest = loss.argmin(axis=1)
        for step in range(m - 1):
            a = int(loss[np.arange(m), nearest].argmin())
            b = int(nearest[a])
            heights[step], joins[step] = loss[a, b], sorted((number[a], number[b]))
            both = moved[a] + moved[b]
            if both[b] > both[a]:
                moved[:, a] = moved[:, b]
            moved[a], value[a] = both, max(both[a], both[b])
            moved[a, a] = value[a]
            count[a] += count[b]
            number[a], sizes[step] = m + step, count[a]
            loss[b, :] = loss[:, b] = np.inf
            changed = _losses(moved, value, a)
            alive = np.isfinite(loss).any(axis=1) | np.isfinite(loss).any(axis=0)
            alive[b] = False
            loss[a, a + 1 :] = np.where(alive[a + 1 :], changed[a + 1 :], np.inf)
            loss[:a, a] = np.where(alive[:a], changed[:a], np.inf)
            stale = (nearest == a) | (nearest == b)
            stale[a] = True
            stale[:a] |= loss[:a, a] < loss[np.arange(a), nearest[:a]]
            nearest[stale] = loss[stale].argmin(axis=1)
        return joins, np.maximum.accumulate(np.maximum(heights, 0.0)), sizes


def _losses(moved: Floats, value: Floats, row: int) -> Floats:
    """Return what is lost by joining one item with each."""
    to_own = moved[row, row] + moved[:, row]
    to_other = moved[row] + moved.diagonal()
    return np.asarray(value[row] + value - np.maximum(to_own, to_other))
