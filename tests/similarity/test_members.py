"""All points under exemplars, in this process and in Spark: the same bits, against sums over the points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from ap_spark.similarity.given_items import GivenItems, LocalGiven, SparkGiven
from ap_spark.similarity.members import Heads, LocalMembers, SparkMembers
from ap_spark.similarity.metrics import METRICS, between
from tests.conftest import LONG

RNG = np.random.default_rng(23)
X = np.round(RNG.normal(size=(90, 4)), 1) + 0.5  # some are equally far from two exemplars
IDS = pa.array([f"p{number:02d}" for number in range(len(X))])
HEADS = np.array([3, 17, 40, 41, 77])


def in_spark(spark: SparkSession, metric: str, partitions: int) -> SparkMembers:
    table = spark.createDataFrame(pd.DataFrame({"id": IDS.to_pylist(), "features": X.tolist()}))
    return SparkMembers(table.repartition(partitions), METRICS[metric])


def of_items(items: Any) -> list[Any]:
    return [items.vectors, items.size, items.similarity, items.shift]


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", pytest.param("manhattan", marks=LONG)])
def test_both_forms_give_the_same_bits(spark: SparkSession, metric: str) -> None:
    prepared = METRICS[metric].prepare(X)
    here = LocalMembers(IDS, prepared, METRICS[metric])
    heads = here.heads_of(IDS.take(pa.array(HEADS)))
    under = here.under(heads)
    s = between(METRICS[metric], prepared, prepared[HEADS])
    expected = s.argmax(axis=1)
    expected[HEADS] = np.arange(len(HEADS))
    assert (under.label == expected).all()
    is_member = ~np.isin(np.arange(len(X)), HEADS)
    assert (under.similarity[is_member] == s.max(axis=1)[is_member]).all()
    assert np.isnan(under.similarity[HEADS]).all()
    for partitions in (7,) if metric == "sqeuclidean" else (1, 2):
        there = in_spark(spark, metric, partitions)
        again = there.under(there.heads_of(heads.ids))
        rows = again.rows().orderBy("id").toArrow()
        assert rows.equals(under.rows().cast(rows.schema))
        for ours, theirs in zip(of_items(under.items), of_items(again.items), strict=True):
            assert ours.tobytes() == theirs.tobytes()
        assert again.best().ids.equals(under.best().ids)
        assert again.best().vectors.tobytes() == under.best().vectors.tobytes()
        again.release()


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine", "correlation", "dot"])
def test_the_best_member_has_the_largest_sum(metric: str) -> None:
    prepared = METRICS[metric].prepare(X)
    members = LocalMembers(IDS, prepared, METRICS[metric])
    under = members.under(members.heads_of(IDS.take(pa.array(HEADS))))
    s = between(METRICS[metric], prepared, prepared)
    found = [int(name[1:]) for name in under.best().ids.to_pylist()]
    for label in range(len(HEADS)):
        (cluster,) = np.nonzero(under.label == label)
        within = s[np.ix_(cluster, cluster)]
        (best,) = set(found) & set(cluster.tolist())
        # A product with itself counts among the members here; of squares it is 0.
        sums = within.sum(axis=0)
        assert sums[cluster.tolist().index(best)] == pytest.approx(sums.max())


def test_other_metrics_keep_their_exemplars() -> None:
    members = LocalMembers(IDS, X, METRICS["manhattan"])
    under = members.under(members.heads_of(IDS.take(pa.array(HEADS))))
    assert under.best() is under.heads


def test_many_clusters_are_added_up_by_label(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.similarity.members._CROWDED", 0)  # a batch adds up what it has
    members = in_spark(spark, "sqeuclidean", 3)
    batches = members.under(members.heads_of(IDS.take(pa.array(HEADS))))
    found = of_items(batches.items), batches.best().ids
    monkeypatch.setattr("ap_spark.similarity.members._CROWDED", 1_000_000)  # rows of a label come together first
    together = members.under(members.heads_of(IDS.take(pa.array(HEADS))))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found[0], of_items(together.items), strict=True))
    assert together.best().ids.equals(found[1])


# Similarities that are given


def given(missing: float) -> tuple[LocalGiven, pd.DataFrame, np.ndarray[Any, Any]]:
    """Half of all pairs, a clustering, and a matrix with ``missing`` for the others."""
    n = 30
    s = np.round(RNG.normal(size=(n, n)) - 3.0, 2)
    stored = RNG.random((n, n)) < 0.5
    np.fill_diagonal(stored, False)
    heads = np.array([2, 9, 15, 28])
    label = RNG.integers(0, 4, n)
    label[heads] = np.arange(4)
    matrix = np.where(stored, s, missing)
    similarity = np.where(np.isin(np.arange(n), heads), np.nan, matrix[np.arange(n), heads[label]])
    first = pd.DataFrame({"id": np.arange(n), "label": label, "similarity": similarity})
    i, k = np.nonzero(stored)
    return LocalGiven(pa.array(np.arange(n)), i, k, s[i, k], missing), first, matrix


def test_given_similarities_are_added_up_with_a_value_for_the_others(spark: SparkSession) -> None:
    here, first, matrix = given(-7.0)
    heads = here.heads_of(pa.array([2, 9, 15, 28]))
    items = here.as_assigned(heads, first).items
    label = first["label"].to_numpy()
    for e in range(4):
        for f in range(4):
            own = [x for x in np.flatnonzero(label == e) if x != heads.ids[e].as_py()]
            now = sum(matrix[x, heads.ids[e].as_py()] for x in own)
            then = sum(matrix[x, heads.ids[f].as_py()] for x in np.flatnonzero(label == e))
            if e != f:
                assert items.gains(np.array([e]), np.array([f])) == pytest.approx(then - now)
    edges = spark.createDataFrame(pa.table({"i": here.i, "k": here.k, "s": here.s}))
    there = SparkGiven(edges.repartition(3), -7.0)
    table = here.as_assigned(heads, first)
    again = there.as_assigned(heads, spark.createDataFrame(table.rows()))
    assert_same(items, again.items)
    few, fallback = heads.take(np.array([0, 2])), np.array([0, 1, 1, 0])
    ours = here.under(few, table.rows(), fallback)
    rows = there.under(few, again.rows(), fallback).rows().orderBy("id").toArrow()
    assert rows.equals(ours.rows().cast(rows.schema))
    joined, _ = items.joined(np.array([0, 2, 2, 0]))
    exemplar = np.array([2, 15])[fallback[label]]
    similarity = np.where(np.isin(np.arange(30), (2, 15)), np.nan, matrix[np.arange(30), exemplar])
    whole = here.as_assigned(few, first.assign(label=fallback[label], similarity=similarity)).items
    np.testing.assert_allclose(joined.similarity, whole.similarity)
    pairs = np.array([0, 1]), np.array([1, 0])
    np.testing.assert_allclose(joined.gains(*pairs), whole.gains(*pairs))


def assert_same(ours: GivenItems, theirs: GivenItems) -> None:
    assert ours.size.tolist() == theirs.size.tolist()
    assert ours.similarity.tobytes() == theirs.similarity.tobytes()
    for name in ("sums", "counts", "links"):
        assert (getattr(ours, name).toarray() == getattr(theirs, name).toarray()).all()


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_centers_are_no_points_and_have_all_members(metric: str) -> None:
    prepared = METRICS[metric].prepare(X)
    members = LocalMembers(IDS, prepared, METRICS[metric])
    now = members.under(members.heads_of(IDS.take(pa.array(HEADS))))
    for _ in range(3):
        centers = now.items.centers
        expected = between(METRICS[metric], prepared, centers)[np.arange(len(X)), now.label]
        assert now.items.compactness == pytest.approx(expected.sum())
        after = members.under(Heads(None, centers))
        assert (after.similarity == between(METRICS[metric], prepared, centers).max(axis=1)).all()
        assert after.items.size.sum() == len(X)
        assert after.items.compactness >= now.items.compactness - 1e-9
        now = after
