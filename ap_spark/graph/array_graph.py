"""The similarity graph with a value for each point in arrays; what depends on its edges comes from passes over blocks.

It has two forms: `BlockGraph`, whose blocks are beside the executors, and `LocalGraph`, whose only block is in this
process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from ap_spark.blocks import passes
from ap_spark.blocks.hashing import JITTER, hash_points
from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.exact_sum import Units, unit_of, units_of
from ap_spark.graph.checks import COARSEST, check_one_preference
from ap_spark.graph.numbering import WrongInput
from ap_spark.settings import Settings

__all__ = ["ArrayGraph", "with_chosen_preference"]

_DRIVER_SIMILARITIES = 1_000_000  # so many the driver sorts to find a quantile


class _Visited(Protocol):
    """Blocks that passes visit."""

    def visit(self, kernel: Callable[..., Any], *of_points: Any) -> list[Any]:
        """Run a pass over all blocks; return what ``kernel(parts, *of_points)`` returns for each, in order."""


@dataclass(frozen=True, kw_only=True)
class ArrayGraph(ABC):
    """A similarity graph, ready to be clustered.

    Attributes
    ----------
    blocks : object
        What runs a pass over all rows.
    n_edges : int
        Stored pairs of different points.
    n_one_way : int
        Similarities that "mutual" left out.
    out_degree : int64, shape (n_points,)
        The number of edges from each point to others.
    symmetric : bool
        Whether each pair is known to be stored in both directions, since that is how the graph was built.
    low, high, min_nonzero : float or None
        The smallest and the largest similarity, and the smallest in size that is not 0; None where there is none.
    diagonal_preferences : float64, shape (n_points,), or None
        The preferences that stood in rows (k, k); NaN where there was none.
    preference_of : float64, shape (n_points,), or float
        The preferences; NaN before `with_preference`.
    keys : int64, shape (n_points,)
        See `hashing`.
    seed, jitter
        See `Settings`.
    edge_hash : int
        A hash of the stored similarities, in whatever order.
    release : callable
        Gives back the storage of the graph.
    """

    blocks: _Visited
    n_edges: int
    n_one_way: int
    out_degree: Integers
    symmetric: bool
    low: float | None
    high: float | None
    min_nonzero: float | None
    diagonal_preferences: Floats | None
    keys: Integers
    edge_hash: int
    seed: int
    jitter: bool
    release: Callable[[], None] = lambda: None
    preference_of: Floats | float = field(default=float("nan"))

    @property
    def spark(self) -> SparkSession | None:
        """The session that holds the blocks; None where this process does."""
        return None

    @property
    def n_points(self) -> int:
        """The number of points."""
        return len(self.out_degree)

    @abstractmethod
    def ids_at(self, index: Integers) -> pa.Array:
        """Return the ids of some points, in the order of the numbers given."""

    @property
    def n_forced(self) -> int:
        """The number of forced exemplars."""
        return int(np.count_nonzero(self.forced))

    @cached_property
    def forced(self) -> Flags:
        """Which points are forced exemplars."""
        return np.asarray(self.out_degree == 0)

    @cached_property
    def in_degree(self) -> Integers:
        """The number of edges to each point from others."""
        if self.symmetric:
            return self.out_degree
        return np.asarray(sum(self.blocks.visit(passes.in_degrees, self.n_points), np.zeros(self.n_points, np.int64)))

    def every_point(self) -> Flags:
        """Return all points as exemplars."""
        return np.ones(self.n_points, bool)

    def first_point(self) -> Flags:
        """Return the point with the smallest id as the only exemplar."""
        return np.asarray(np.arange(self.n_points) == 0)

    def with_forced(self, exemplars: Flags) -> Flags:
        """Add the forced exemplars to other exemplars."""
        return exemplars | self.forced

    def sums_in(self, cluster: Integers, units: Units) -> tuple[Integers, Integers]:
        """Sum for each point the similarities to it from the other members of its cluster; count those stored.

        Parameters
        ----------
        cluster : int64, shape (n_points,)
            The exemplar of each point.
        units : Units
            Of the sums.

        Returns
        -------
        sums : int64, shape (words, n_points)
            In units; see `passes.refine`.
        counts : int64, shape (n_points,)
        """
        sums, counts = np.zeros((units.words, self.n_points), np.int64), np.zeros(self.n_points, np.int64)
        for found in self.blocks.visit(passes.refine, cluster, units) if self.n_edges else ():
            sums[:, found.columns] += found.sums
            counts[found.columns] += found.counts
        return sums, counts

    @property
    def is_complete(self) -> bool:
        """Whether all pairs are stored."""
        return self.n_edges == self.n_points * (self.n_points - 1)

    @cached_property
    def preferences(self) -> Floats:
        """The preference of each point: float64, shape (n_points,)."""
        return np.broadcast_to(np.asarray(self.preference_of, np.float64), self.n_points)

    @property
    def preference(self) -> float | None:
        """The preference of all points; None if they differ."""
        low, high = self.preferences.min(), self.preferences.max()
        return float(low) if low == high else None

    @cached_property
    def smallest(self) -> float:
        """The smallest similarity or preference in size that is not 0; 1 where there is none."""
        sizes = np.abs(self.preferences)
        of_preferences = float(sizes.min(initial=np.inf, where=sizes > 0.0))
        found = min(of_preferences, np.inf if self.min_nonzero is None else self.min_nonzero)
        return found if found < np.inf else 1.0

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest of similarities and preferences."""
        low, high = float(self.preferences.min()), float(self.preferences.max())
        return (
            low if self.low is None else min(self.low, low),
            high if self.high is None else max(self.high, high),
        )

    @cached_property
    def units(self) -> Units:
        """The units of exact sums of messages."""
        low, high = self.range
        largest = max(abs(low), abs(high))
        width = (high - low) + 4.0 * JITTER * (largest + self.smallest)
        return units_of(width, int(self.in_degree.max(initial=0)), self.smallest)

    @cached_property
    def report_units(self) -> Units:
        """The units of exact sums of reported similarities."""
        return units_of(max(map(abs, self.range)), self.n_points, self.smallest)

    @property
    def uniform(self) -> bool:
        """Whether all pairs are stored, all with one similarity, and all preferences are equal."""
        return self.is_complete and (self.n_points == 1 or self.low == self.high) and self.preference is not None

    @property
    def uniform_gap(self) -> float:
        """Where the graph is uniform, its preference minus its similarity."""
        return float(self.preferences.min()) - self.low if self.low is not None else 0.0

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same similarities and preferences, in whatever order they come."""
        points = int(np.bitwise_xor.reduce(hash_points(self.keys, self.preferences)))
        return f"{self.edge_hash % 2**64:016x}{points:016x}"

    def quantiles(self, *quantiles: float) -> list[float]:
        """Return quantiles of the stored similarities, exactly, with linear interpolation; 0 where there are none."""
        if not self.n_edges:
            return [0.0 for _ in quantiles]
        assert self.low is not None
        assert self.high is not None
        if self.n_edges <= _DRIVER_SIMILARITIES:
            values = np.concatenate(self.blocks.visit(passes.values, self.low, self.high))
            return [float(value) for value in np.quantile(values, quantiles)]
        found = []
        for quantile in quantiles:
            rank, beyond = divmod(quantile * (self.n_edges - 1), 1)
            low, high = self._at_rank(int(rank))
            found.append(float(np.quantile([low, high], beyond)) if beyond else low)
        return found

    def sample_pairs(self, divisor: int) -> Integers:
        """Return one stored pair in ``divisor``, as rows (i, k): of the two directions of a pair both or neither."""
        none = np.empty((0, 2), np.int64)  # Spark may skip the only block of a graph without edges
        return np.concatenate([none, *self.blocks.visit(passes.sample_pairs, divisor)])

    def _at_rank(self, rank: int) -> tuple[float, float]:
        """Return the similarity of a rank, counted from 0, and that of the next rank.

        Nothing is sorted at first: the counts of a histogram tell in which bin the rank lies. That bin has a histogram
        of its own, and so on, until the similarities left are few enough for the driver.
        """
        low, high, count = self.low or 0.0, self.high or 0.0, self.n_edges
        after = high
        while count > _DRIVER_SIMILARITIES and low < high:
            parts = self.blocks.visit(passes.histogram, low, high)
            counts = np.sum([part.counts for part in parts], axis=0)
            lows, highs = np.min([part.lows for part in parts], axis=0), np.max([part.highs for part in parts], axis=0)
            (filled,) = np.nonzero(counts)
            before = np.append(0, np.cumsum(counts[filled]))
            chosen = int(np.searchsorted(before, rank, side="right")) - 1
            rank -= int(before[chosen])
            low, high, count = float(lows[filled[chosen]]), float(highs[filled[chosen]]), int(counts[filled[chosen]])
            after = float(lows[filled[chosen + 1]]) if chosen + 1 < len(filled) else after
        if low == high:
            return low, low if rank + 1 < count else after
        values = np.sort(np.concatenate(self.blocks.visit(passes.values, low, high)))
        return float(values[rank]), float(values[rank + 1]) if rank + 1 < count else after

    def with_preference(self, preference: Floats | float) -> Self:
        """Return the same graph, on the same blocks, with these preferences."""
        return replace(self, preference_of=preference)

    def is_resolved(self) -> bool:
        """Return whether exact sums resolve the similarities that have to count; see `checks.check_scales`."""
        if self.units.fine <= COARSEST * self.smallest:
            return True
        best = np.concatenate([np.empty(0), *(found[1] for found in self.blocks.visit(passes.best_similarity))])
        sizes = np.abs(best)
        scale = float(np.median(sizes[sizes > 0.0])) if (sizes > 0.0).any() else 0.0
        scale = max(scale, min(abs(float(self.preferences.min())), abs(float(self.preferences.max()))))
        return scale == 0.0 or self.units.fine <= COARSEST * scale


_Graph = TypeVar("_Graph", bound=ArrayGraph)


def with_chosen_preference(graph: _Graph, settings: Settings, by_point: Floats | None) -> _Graph:
    """Return a graph with the preferences that were given: by point, on the diagonal, or in the settings.

    Parameters
    ----------
    graph : ArrayGraph
    settings : Settings
    by_point : float64, shape (n_points,), optional
        NaN where a point has none.

    Raises
    ------
    InputError, SettingError
        If similarities lie too far apart, or preferences are given in two ways.
    WrongInput
        If a point lacks its preference, or similarities differ too much in size.
    """
    if graph.low is not None and graph.high is not None:
        unit_of(graph.high - graph.low, graph.n_edges)  # raises InputError where they lie too far apart
    check_one_preference(settings, by_point=by_point is not None, on_diagonal=graph.diagonal_preferences is not None)
    preference: Floats | float | None = graph.diagonal_preferences if by_point is None else by_point
    if preference is None:
        preference = settings.preference
    if preference is None:
        quantile = 0.5 if settings.preference_quantile is None else settings.preference_quantile
        preference = graph.quantiles(quantile)[0]
    graph = graph.with_preference(preference)
    if np.isnan(graph.preferences).any():
        raise WrongInput("points without a preference")
    if not graph.is_resolved():
        raise WrongInput("similarities of very different size")
    return graph
