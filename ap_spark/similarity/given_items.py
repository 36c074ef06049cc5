"""Clusters of given similarities as the items of the next level: sums of what is given, and a value for what is not.

There are no features to tell how similar two points are whose pair is not given. So what cluster e gains by moving to
the exemplar f is a sum of given similarities, and of ``missing`` for each member without one:

    gain(e, f) = sum over x with (x, f) given of s(x, f) + missing * (members without) - D(e)

Exemplars of a level are exemplars of the level below, so the sums of all levels follow from those of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import DataFrame
from scipy.sparse import csr_array, issparse

from ap_spark._spark import classic
from ap_spark.exact_sum import Units, exact_sum, in_floats, in_units, units_of
from ap_spark.similarity.knn_exact import Positions
from ap_spark.similarity.members import Heads
from ap_spark.similarity.metrics import Floats

__all__ = ["Given", "GivenItems", "LocalGiven", "SparkGiven"]

_SMALL = 1e-280  # similarities so small are rounded in a sum


@dataclass(frozen=True)
class GivenItems:
    """Clusters, by the sums of the similarities that are given.

    Attributes
    ----------
    sums, counts : sparse array, shape (m, m)
        Of the members of a row: the sum of the similarities given to the exemplar of a column, and how many are.
    links : sparse array, shape (m, m)
        Which items have any members whose similarity is given.
    size : int64, shape (m,)
        Members, with the exemplar.
    similarity : float64, shape (m,)
        D: the sum of the similarities of the members to their exemplar, itself not counted.
    missing : float
    """

    sums: csr_array
    counts: csr_array
    links: csr_array
    size: Positions
    similarity: Floats
    missing: float

    def __len__(self) -> int:
        return len(self.size)

    def pairs(self) -> tuple[Positions, Positions]:
        """Return the pairs (i, k) of items that are linked."""
        i, k = self.links.nonzero()
        apart = i != k
        return i[apart].astype(np.int64), k[apart].astype(np.int64)

    def gains(self, i: Positions, k: Positions) -> Floats:
        """Return what is gained if items i move to the exemplars of items k; 0 where these are the same."""
        given = _entries(self.counts, i, k)
        gained = _entries(self.sums, i, k) + (self.size[i] - given) * self.missing - self.similarity[i]
        return np.where(i == k, 0.0, gained)

    def joined(self, exemplar: Positions) -> tuple[GivenItems, Positions]:
        """Return clusters of items as items of the next level; see `Items.joined`."""
        heads, joined = np.unique(exemplar, return_inverse=True)
        m = len(self)
        group = csr_array((np.ones(m), (joined, np.arange(m))), shape=(len(heads), m))
        size, similarity = np.zeros(len(heads), np.int64), np.zeros(len(heads))
        np.add.at(size, joined, self.size)
        np.add.at(similarity, joined, self.similarity + self.gains(np.arange(m), exemplar))
        sums, counts = (csr_array((group @ table).tocsc()[:, heads]) for table in (self.sums, self.counts))
        links = csr_array(group @ self.links @ group.T)
        return GivenItems(sums, counts, links, size, similarity, self.missing), joined


def _entries(table: csr_array, i: Positions, k: Positions) -> Floats:
    """Return some entries of a sparse array: float64, shape (n,)."""
    found = table[i, k]
    return np.asarray(found.toarray() if issparse(found) else found, np.float64).ravel()


@dataclass(frozen=True)
class Given:
    """Points under exemplars, by given similarities.

    Attributes
    ----------
    heads : Heads
        Without vectors.
    table : DataFrame of Spark, or Arrow table
        (id, label, similarity) of all points; null for exemplars.
    make_items : callable
        Takes a table like this; returns what its clusters add up to.
    """

    heads: Heads
    table: Any
    make_items: Callable[[Heads, Any], GivenItems]

    @cached_property
    def items(self) -> GivenItems:
        return self.make_items(self.heads, self.table)

    def rows(self) -> Any:
        return self.table

    def release(self) -> None:
        pass


def _items_of(
    size: Positions, similarity: Floats, i: Positions, k: Positions, sums: Floats, counts: Positions, missing: float
) -> GivenItems:
    """Return items; ``sums`` and ``counts`` are of the members of i to the exemplar of k, each linked pair once."""
    shape = (len(size), len(size))
    table, number, link = (csr_array((values, (i, k)), shape=shape) for values in (sums, counts, np.ones(len(i))))
    return GivenItems(table, number, link, size, similarity, missing)


@dataclass(frozen=True)
class LocalGiven:
    """All points with the similarities that are given, in this process.

    Attributes
    ----------
    ids : Arrow array of length n
        In order.
    i, k, s : int64 and float64, shape (edges,)
        The pairs that are stored, by number.
    missing : float
        What a pair counts that is not among them.
    """

    ids: pa.Array
    i: Positions
    k: Positions
    s: Floats
    missing: float

    def heads_of(self, ids: pa.Array) -> Heads:
        """Return exemplars, whose ids are in order."""
        return Heads(ids, np.empty((len(ids), 0)))

    def as_assigned(self, heads: Heads, assignments: Any) -> Given:
        """Give points to exemplars by a table of pandas (id, label, similarity)."""
        in_order = assignments.sort_values("id")
        similarity = in_order["similarity"].to_numpy(np.float64)
        table = pa.table(
            {"id": self.ids, "label": in_order["label"], "similarity": pa.array(similarity, mask=np.isnan(similarity))}
        )
        return Given(heads, table, self._items)

    def under(self, heads: Heads, first: Any, fallback: Positions) -> Given:
        """Give each point to the most similar exemplar that is given, else, at ``missing``, to that of its cluster.

        Parameters
        ----------
        heads : Heads
        first : Arrow table
            (id, label, similarity): the clusters of the first level.
        fallback : int64
            The place of the exemplar of each of these among ``heads``.
        """
        place = self._places(heads)
        some = place[self.k] >= 0
        i, label, s = self.i[some], place[self.k[some]], self.s[some]
        order = np.lexsort((label, -s, i))
        best = order[np.diff(i[order], prepend=-1) > 0]
        found, similarity = fallback[first["label"].to_numpy()], np.full(len(self.ids), self.missing)
        found[i[best]], similarity[i[best]] = label[best], s[best]
        is_head = place >= 0
        found[is_head] = place[is_head]
        columns = {"id": self.ids, "label": found, "similarity": pa.array(similarity, mask=is_head)}
        return Given(heads, pa.table(columns), self._items)

    def _places(self, heads: Heads) -> Positions:
        """Return the place of each point among exemplars, -1 for others."""
        found = pc.fill_null(pc.index_in(self.ids, heads.ids), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)

    def _items(self, heads: Heads, table: Any) -> GivenItems:
        label, m = table["label"].to_numpy(), len(heads)
        similarity = table["similarity"].to_numpy()
        size = np.abs(np.append(self.s, similarity[~np.isnan(similarity)]))
        smallest = float(size.min(initial=np.inf, where=size > 0.0))
        units = units_of(max(float(size.max(initial=0.0)), _SMALL), 2 * len(self.s), smallest)
        pairs, at = np.unique(label[self.i] * m + label[self.k], return_inverse=True)
        to_head = self._places(heads)[self.k] >= 0
        sums = _added(self.s[to_head], at[to_head], len(pairs), units)
        counts = np.bincount(at[to_head], minlength=len(pairs))
        is_member = ~np.isnan(similarity)
        of_labels = _added(similarity[is_member], label[is_member], m, units)
        size = np.bincount(label, minlength=m)
        return _items_of(size, of_labels, pairs // m, pairs % m, sums, counts, self.missing)


def _added(values: Floats, at: Positions, count: int, units: Units) -> Floats:
    """Return the sums of values by place."""
    words = np.zeros((units.words, count), np.int64)
    for total, word in zip(words, in_units(values, units), strict=True):
        np.add.at(total, at, word)
    return in_floats(words, units)


@dataclass(frozen=True)
class SparkGiven:
    """All points with the similarities that are given, as tables of Spark.

    Attributes
    ----------
    edges : DataFrame
        (i, k, s) by id: the pairs that are stored. It is read again and again: persist it.
    missing : float
        What a pair counts that is not among them.
    """

    edges: DataFrame
    missing: float

    @cached_property
    def _n_edges(self) -> int:
        return self.edges.count()

    def heads_of(self, ids: pa.Array) -> Heads:
        """Return exemplars, whose ids are in order."""
        return Heads(ids, np.empty((len(ids), 0)))

    def as_assigned(self, heads: Heads, assignments: Any) -> Given:
        """Give points to exemplars by a table (id, label, similarity)."""
        return Given(heads, assignments.select("id", "label", "similarity"), self._items)

    def under(self, heads: Heads, first: Any, fallback: Positions) -> Given:
        """Give each point to the most similar exemplar that is given; see `LocalGiven.under`."""
        spark = self.edges.sparkSession
        to = self._labels(heads)
        own = to.select(F.col("k").alias("id"), F.col("to").alias("own"))
        best = F.max(F.struct("s", (-F.col("to")).alias("minus")))
        given = self.edges.join(to, "k").groupBy(F.col("i").alias("id")).agg(best.alias("best"))
        after = spark.createDataFrame(pa.table({"label": np.arange(len(fallback)), "after": fallback}))
        rows = first.join(F.broadcast(after), "label").join(given, "id", "left").join(F.broadcast(own), "id", "left")
        label = F.coalesce("own", -F.col("best.minus"), "after").alias("label")
        similarity = F.when(F.col("own").isNull(), F.coalesce("best.s", F.lit(self.missing))).alias("similarity")
        return Given(heads, classic.replicated_checkpoint(rows.select("id", label, similarity)), self._items)

    def _labels(self, heads: Heads) -> DataFrame:
        """Return (k, to): exemplars by id, and their places."""
        table = pa.table({"k": heads.ids, "to": np.arange(len(heads))})
        return F.broadcast(self.edges.sparkSession.createDataFrame(table))

    def _items(self, heads: Heads, table: Any) -> GivenItems:
        size = F.abs("s")
        smallest = F.min(F.when(size > 0.0, size))
        both = self.edges.select("s").union(table.where("similarity is not null").select("similarity"))
        ends = both.agg(F.max(size), smallest).first()
        assert ends is not None
        units = units_of(max(ends[0] or 0.0, _SMALL), 2 * self._n_edges, ends[1] or float("inf"))
        of, to = (
            table.select(F.col("id").alias(i), F.col("label").alias(name)) for i, name in (("i", "of"), ("k", "to"))
        )
        is_head = F.broadcast(self._labels(heads).select("k", F.lit(True).alias("is_head")))
        linked = self.edges.join(is_head, "k", "left").join(of, "i").join(to, "k")
        to_head = F.when(F.col("is_head"), F.col("s"))
        sums, counts = exact_sum(to_head, units), F.count(to_head)
        found = linked.groupBy("of", "to").agg(sums.alias("sum"), counts.alias("count")).toArrow()
        sums = exact_sum(F.col("similarity"), units).alias("sum")
        labels = table.groupBy("label").agg(sums, F.count("*").alias("size")).toArrow().sort_by("label")
        return _items_of(
            labels["size"].to_numpy(),
            np.nan_to_num(labels["sum"].to_numpy().astype(np.float64)),
            found["of"].to_numpy(),
            found["to"].to_numpy(),
            np.nan_to_num(found["sum"].to_numpy().astype(np.float64)),
            found["count"].to_numpy(),
            self.missing,
        )
