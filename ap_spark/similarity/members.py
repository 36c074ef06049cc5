"""All points under some exemplars: each goes to the most similar one, and the members of each are added up.

Two forms: in this process, and as a table of Spark. Sums are those of integers, so they are the same in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import DataFrame

from ap_spark.errors import SettingError
from ap_spark.exact_sum import Units, in_floats, in_units, units_of
from ap_spark.similarity.items import Items
from ap_spark.similarity.knn_exact import Positions, nearest_by_function, nearest_one
from ap_spark.similarity.metrics import Floats, Metric, PairFunction, products
from ap_spark.similarity.vectors import matrix

__all__ = ["Heads", "LocalMembers", "Members", "SparkMembers", "Under"]

_SMALL = 1e-280  # similarities so small are rounded in a sum
_CROWDED = 100  # members of a cluster on average, from which on a batch adds up many of them


@dataclass(frozen=True)
class Heads:
    """Exemplars, in the order of their ids; or centers, which are no points.

    Attributes
    ----------
    ids : Arrow array of length m
        None for centers.
    vectors : float64, shape (m, d)
        Prepared by the metric.
    """

    ids: pa.Array
    vectors: Floats

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, places: Positions) -> Heads:
        """Return some of them; ``places`` are in order."""
        return Heads(self.ids.take(pa.array(places)), self.vectors[places])

    def nearest(self, ids: pa.Array, x: Floats, metric: Metric | PairFunction) -> tuple[Positions, Floats]:
        """Return the place of the most similar exemplar of each vector, and the similarity; exemplars have themselves.

        Parameters
        ----------
        ids : Arrow array of length n
        x : float64, shape (n, d)
            Prepared by the metric.
        metric : Metric or callable

        Returns
        -------
        int64, shape (n,)
            Of equally similar ones the first.
        float64, shape (n,)
            NaN for exemplars.
        """
        if isinstance(metric, Metric):
            _, place, closeness = nearest_one(x, self.vectors, metric)
            similarity = metric.similarity(closeness)
        else:
            _, place, similarity = nearest_by_function(metric, x, self.vectors, np.full(len(x), -1), 1)
            if len(place) < len(x):
                raise SettingError(
                    "levels need a metric with a finite similarity of every point to some exemplar, but it gives "
                    f"-infinity for {len(x) - len(place):,} of {len(x):,} points: levels=1 keeps one level"
                )
        if self.ids is None:
            return place.astype(np.int64), similarity
        own = pc.fill_null(pc.index_in(ids, self.ids), -1).to_numpy(zero_copy_only=False)
        return np.where(own < 0, place, own).astype(np.int64), np.where(own < 0, similarity, np.nan)


class Under(Protocol):
    """Points under some exemplars."""

    @property
    def heads(self) -> Heads:
        """The exemplars."""

    @property
    def items(self) -> Items:
        """The clusters by what their members add up to."""

    def best(self) -> Heads:
        """Return the member of each cluster with the largest sum of similarities from the others.

        For metrics whose sums are unknown these are the exemplars that there are. Clusters without members have none.
        """

    def rows(self) -> Any:
        """Return (id, label, similarity) of all points, a table of Spark or of Arrow; null for exemplars."""

    def release(self) -> None:
        """Give back what is held of it."""


class Members(Protocol):
    """All points with their vectors."""

    @property
    def metric(self) -> Metric | PairFunction:
        """How points are compared."""

    @property
    def n_points(self) -> int:
        """The number of points."""

    def sample(self, count: int) -> Heads:
        """Return about so many of the points, chosen by their ids; all where there are not more."""

    def heads_of(self, ids: pa.Array) -> Heads:
        """Return points as exemplars; ids are in order."""

    def under(self, heads: Heads) -> Under:
        """Give each point to the most similar exemplar."""

    def as_assigned(self, heads: Heads, assignments: Any) -> Under:
        """Give points to exemplars by a table (id, label, similarity)."""


class _Units(NamedTuple):
    """The units of the two sums of members."""

    shift: Units
    similarity: Units


def _units_of(
    metric: Metric | PairFunction, largest: float, dimensions: int, count: int, largest_similarity: Callable[[], float]
) -> _Units:
    """Return the units of sums over so many points, whose elements have at most such a size.

    What similarities a function gives, ``largest_similarity`` finds out.
    """
    if isinstance(metric, Metric):
        corner = np.full((dimensions, 1), largest)
        ends = [metric.similarity(metric.closeness(corner, other)) for other in (corner, -corner)]
        found = 1.0 if metric.unit_vectors else float(np.abs(ends).max())
    else:
        found = largest_similarity()
    return _Units(units_of(2.0 * max(largest, _SMALL), count), units_of(max(found, _SMALL), count))


@dataclass(frozen=True)
class _Sums:
    """What the members of some clusters add up to, in whole units.

    Attributes
    ----------
    label : int64, shape (k,)
        Which clusters, each once.
    size : int64, shape (k,)
    words : int64, shape (2, k, d + 1)
        The sums of the members less the exemplar, and in the last column those of the similarities.
    """

    label: Positions
    size: Positions
    words: Positions

    @classmethod
    def of(cls, label: Positions, difference: Floats, similarity: Floats, units: _Units) -> _Sums:
        """Add up members: what they differ by from their exemplars, and their similarities to these."""
        found, place, size = np.unique(label, return_inverse=True, return_counts=True)
        words = np.zeros((2, len(found), difference.shape[1] + 1), np.int64)
        of_vectors = in_units(difference, units.shift)
        of_numbers = in_units(np.nan_to_num(similarity), units.similarity)
        for total, vectors, numbers in zip(words, of_vectors, of_numbers, strict=True):
            np.add.at(total[:, :-1], place, vectors)
            np.add.at(total[:, -1], place, numbers)
        return cls(found, size, words)

    def all_of(self, count: int) -> _Sums:
        """Put together sums that may have several rows for a cluster, of so many clusters."""
        size, words = np.zeros(count, np.int64), np.zeros((2, count, self.words.shape[2]), np.int64)
        np.add.at(size, self.label, self.size)
        for total, word in zip(words, self.words, strict=True):
            np.add.at(total, self.label, word)
        return _Sums(np.arange(count), size, words)

    def items(self, heads: Heads, metric: Metric | PairFunction, units: _Units) -> Items:
        """Return the clusters of some exemplars, from sums with a row for each, or fewer."""
        whole = self.all_of(len(heads))
        shift = in_floats(whole.words[:, :, :-1], units.shift)
        similarity = in_floats(whole.words[:, :, -1], units.similarity)
        return Items(metric, heads.vectors, whole.size, similarity, shift)


def _has_unit_vectors(metric: Metric | PairFunction) -> bool:
    return isinstance(metric, Metric) and metric.unit_vectors


def _target_of(items: Items) -> Floats:
    """Return what the best member of each cluster is the closest to."""
    assert isinstance(items.metric, Metric)
    if items.metric.sums == "squares":
        return items.centers
    return np.asarray(items.size[:, None] * items.vectors + items.shift)


def _closeness(metric: Metric | PairFunction, x: Floats, target: Floats) -> Floats:
    """Return how close each vector is to its target; a product with a sum may be larger than 1."""
    assert isinstance(metric, Metric)
    return metric.closeness(x.T, target.T) if metric.sums == "squares" else products(x.T, target.T)


def _prepared(metric: Metric | PairFunction, rows: pa.Table | pa.RecordBatch) -> Floats:
    x = matrix(rows)
    return metric.prepare(x) if isinstance(metric, Metric) else x


@dataclass(frozen=True)
class LocalMembers:
    """All points in this process.

    Attributes
    ----------
    ids : Arrow array of length n
        In order.
    vectors : float64, shape (n, d)
        Prepared by the metric.
    metric : Metric or callable
    """

    ids: pa.Array
    vectors: Floats
    metric: Metric | PairFunction

    @property
    def n_points(self) -> int:
        return len(self.ids)

    def sample(self, count: int) -> Heads:
        return Heads(self.ids, self.vectors)  # they are few

    def heads_of(self, ids: pa.Array) -> Heads:
        return Heads(ids, self.vectors[pc.index_in(ids, self.ids).to_numpy()])

    def under(self, heads: Heads) -> _LocalUnder:
        return _LocalUnder(self, heads, *heads.nearest(self.ids, self.vectors, self.metric))

    def as_assigned(self, heads: Heads, assignments: Any) -> _LocalUnder:
        in_order = assignments.sort_values("id")
        return _LocalUnder(self, heads, in_order["label"].to_numpy(), in_order["similarity"].to_numpy(np.float64))


@dataclass(frozen=True)
class _LocalUnder:
    members: LocalMembers
    heads: Heads
    label: Positions
    similarity: Floats

    @cached_property
    def items(self) -> Items:
        members, x = self.members, self.members.vectors
        largest = 1.0 if _has_unit_vectors(members.metric) else float(np.abs(x).max())
        units = _units_of(
            members.metric, largest, x.shape[1], len(x), lambda: float(np.nanmax(np.abs(self.similarity), initial=0.0))
        )
        sums = _Sums.of(self.label, x - self.heads.vectors[self.label], self.similarity, units)
        return sums.items(self.heads, members.metric, units)

    def best(self) -> Heads:
        if not self.items.is_exact:
            return self.heads
        members = self.members
        closeness = _closeness(members.metric, members.vectors, _target_of(self.items)[self.label])
        order = np.lexsort((-closeness, self.label))  # stable: of equal ones that with the smallest id
        places = np.sort(order[np.diff(self.label[order], prepend=-1) > 0])
        return Heads(members.ids.take(pa.array(places)), members.vectors[places])

    def rows(self) -> pa.Table:
        similarity = pa.array(self.similarity, mask=np.isnan(self.similarity))
        return pa.table({"id": self.members.ids, "label": self.label, "similarity": similarity})

    def release(self) -> None:
        pass


@dataclass(frozen=True)
class SparkMembers:
    """All points in a table of Spark.

    Attributes
    ----------
    table : DataFrame
        (id, features array<double>), scaled. It is read again and again: persist it.
    metric : Metric or callable
    """

    table: DataFrame
    metric: Metric | PairFunction

    @cached_property
    def n_points(self) -> int:
        return self.table.count()

    @cached_property
    def largest(self) -> float:
        """The largest element of prepared vectors in size, about."""
        if _has_unit_vectors(self.metric):
            return 1.0
        found = self.table.agg(F.max(F.abs(F.array_max("features"))), F.max(F.abs(F.array_min("features")))).first()
        assert found is not None
        return float(max(found))

    def sample(self, count: int) -> Heads:
        chosen = F.pmod(F.xxhash64("id"), F.lit(self.n_points)) < count
        return self._as_heads(self.table if count >= self.n_points else self.table.where(chosen))

    def heads_of(self, ids: pa.Array) -> Heads:
        wanted = self.table.sparkSession.createDataFrame(pa.table({"id": ids}))
        return self._as_heads(self.table.join(wanted, "id"))

    def _as_heads(self, points: DataFrame) -> Heads:
        rows = points.select("id", "features").toArrow().sort_by("id").combine_chunks()
        return Heads(rows["id"].combine_chunks(), _prepared(self.metric, rows))

    def under(self, heads: Heads) -> Under:
        metric, kind = self.metric, dict(self.table.dtypes)["id"]

        def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                label, similarity = heads.nearest(batch["id"], _prepared(metric, batch), metric)
                columns = [batch["id"], batch["features"], label, pa.array(similarity, mask=np.isnan(similarity))]
                yield pa.RecordBatch.from_arrays(columns, names=["id", "features", "label", "similarity"])

        columns = f"id {kind}, features array<double>, label bigint, similarity double"
        return _SparkUnder(self, heads, self.table.select("id", "features").mapInArrow(assign, columns).persist())

    def as_assigned(self, heads: Heads, assignments: Any) -> Under:
        given = assignments.select("id", "label", "similarity")
        return _SparkUnder(self, heads, self.table.join(given, "id").persist())


@dataclass(frozen=True)
class _SparkUnder:
    members: SparkMembers
    heads: Heads
    frame: DataFrame  # id, features, label, similarity

    @cached_property
    def items(self) -> Items:
        metric, vectors, members = self.members.metric, self.heads.vectors, self.members
        units = _units_of(metric, members.largest, vectors.shape[1], members.n_points, self._largest_similarity)

        def add_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                label, similarity = batch["label"].to_numpy(), batch["similarity"].to_numpy(zero_copy_only=False)
                sums = _Sums.of(label, _prepared(metric, batch) - vectors[label], similarity, units)
                words = sums.words.transpose(1, 0, 2).reshape(len(sums.label), -1)
                lists = pa.ListArray.from_arrays(
                    np.arange(0, words.size + 1, words.shape[1], dtype=np.int32), words.ravel()
                )
                yield pa.RecordBatch.from_arrays([sums.label, sums.size, lists], names=["label", "size", "words"])

        found = self._by_label.mapInArrow(add_up, "label bigint, size bigint, words array<bigint>").toArrow()
        words = np.asarray(pc.list_flatten(found["words"])).reshape(len(found), 2, -1).transpose(1, 0, 2)
        sums = _Sums(found["label"].to_numpy(), found["size"].to_numpy(), words)
        return sums.items(self.heads, metric, units)

    def _largest_similarity(self) -> float:
        found = self.frame.agg(F.max(F.abs("similarity"))).first()
        return float((found and found[0]) or 0.0)

    @property
    def _by_label(self) -> DataFrame:
        """The rows, those of a label together where they are few."""
        if self.members.n_points > _CROWDED * len(self.heads):
            return self.frame
        return self.frame.repartition("label").sortWithinPartitions("label")

    def best(self) -> Heads:
        if not self.items.is_exact:
            return self.heads
        metric, target, kind = self.members.metric, _target_of(self.items), dict(self.frame.dtypes)["id"]

        def best_of(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                label = batch["label"].to_numpy()
                closeness = _closeness(metric, _prepared(metric, batch), target[label])
                rows = pa.table([label, closeness, batch["id"], batch["features"]], names=_BEST)
                yield from _first_of_labels(rows).to_batches()

        columns = f"label bigint, closeness double, id {kind}, features array<double>"
        best = _first_of_labels(self._by_label.mapInArrow(best_of, columns).toArrow()).sort_by("id").combine_chunks()
        return Heads(best["id"].combine_chunks(), _prepared(metric, best))

    def rows(self) -> DataFrame:
        return self.frame.select("id", "label", "similarity")

    def release(self) -> None:
        self.frame.unpersist()


_BEST = ["label", "closeness", "id", "features"]


def _first_of_labels(rows: pa.Table) -> pa.Table:
    """Return the closest row of each label, of equally close ones that with the smallest id."""
    rows = rows.sort_by([("label", "ascending"), ("closeness", "descending"), ("id", "ascending")])
    return rows.filter(pa.array(np.diff(rows["label"].to_numpy(), prepend=-1) > 0))
