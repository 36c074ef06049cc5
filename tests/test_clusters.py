"""From messages to clusters: promoted, assigned and refined as the oracle has it, and the sums that are reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pyspark.sql import DataFrame

from tests import oracle
from tests.conftest import LONG, MESSAGES_ALONE, Edges, affinity_propagation, all_pairs, assigned, random_edges

Frame = Callable[[Edges], DataFrame]


def test_points_that_reach_no_exemplar_are_promoted(frame: Frame) -> None:
    rng = np.random.default_rng(4)
    n = 40
    edges = random_edges(rng, n, 0.08, symmetric=False)
    s = oracle.dense(n, edges, -3.0)
    found, _, _ = oracle.run(s, 0.5, 6, 15)
    points = frame([(p, p, 0.0) for p in range(n)]).selectExpr("i as id")
    clustering = affinity_propagation(
        frame(edges), points=points, preference=-3.0, damping=0.5, max_iter=6, jitter=False, **MESSAGES_ALONE
    )
    unreached = [p for p in range(n) if not found[p] and not np.isfinite(np.where(found, s[p], -np.inf)).any()]
    assert clustering.summary.promoted == len(unreached) > 0
    assert assigned(clustering) == oracle.clusters(s, found).tolist()


def test_forced_exemplars_are_an_answer_where_they_serve_all(frame: Frame) -> None:
    """Queries matched to a catalogue: no edge between queries, none from the catalogue."""
    rng = np.random.default_rng(6)
    edges = [(q, 100 + c, -float(rng.gamma(2.0))) for q in range(12) for c in rng.choice(5, 3, replace=False).tolist()]
    clustering = affinity_propagation(frame(edges), preference=-50.0)
    assert (clustering.converged, clustering.n_iter) == (True, 16)
    best = {q: max((s, k) for i, k, s in edges if i == q)[1] for q in range(12)}
    assert assigned(clustering)[:12] == list(best.values())
    assert assigned(clustering)[12:] == sorted({k for _, k, _ in edges})


def test_the_one_outlier_does_not_swallow_the_sum(frame: Frame) -> None:
    """A feature of 1e8: similarities of 1e16 beside such of 1."""
    x = np.append(np.random.default_rng(0).normal(size=(60, 2)), [[1e8, 0.0]], axis=0)
    clustering = affinity_propagation(frame(all_pairs(x)), preference=-4.0)
    total = sum(row.similarity or 0.0 for row in clustering.assignments.collect())
    assert clustering.summary.dpsim == pytest.approx(total, rel=1e-12)
    assert -100.0 < total < -10.0


def test_sparse_similarities_never_join_what_is_not_stored(frame: Frame) -> None:
    # scikit-learn refuses sparse input: test_affinity_propagation_precomputed_with_sparse_input
    rng = np.random.default_rng(5)
    edges = random_edges(rng, 40, 0.35, symmetric=True)
    clustering = affinity_propagation(frame(edges), preference_quantile=0.2)
    stored = {(i, k) for i, k, _ in edges}
    for row in clustering.assignments.collect():
        assert row.id == row.exemplar or (row.id, row.exemplar) in stored


def test_reports_never_contain_jitter(frame: Frame) -> None:
    edges = all_pairs(np.array([[0.0], [1.0], [3.0], [10.0], [11.0]]))
    clustering = affinity_propagation(frame(edges), preference=-4.0)
    stored = {(i, k): s for i, k, s in edges}
    for row in clustering.assignments.collect():
        assert row.similarity == (None if row.id == row.exemplar else stored[row.id, row.exemplar])
    assert {row.preference for row in clustering.exemplars.collect()} == {-4.0}


@pytest.mark.parametrize("sentinel", [-1e16, pytest.param(-1e17, marks=LONG)])
def test_polishing_does_not_lower_the_net_similarity_beside_a_huge_similarity(frame: Frame, sentinel: float) -> None:
    """One pair has a size that makes the unit of polishing coarser than what the other similarities differ by."""
    x = np.random.default_rng(5).normal(size=(40, 2)) * 3
    edges = [(i, k, sentinel if (i, k) == (0, 1) else s) for i, k, s in all_pairs(x)]
    plain = affinity_propagation(frame(edges), preference=-12.0, **MESSAGES_ALONE)
    polished = affinity_propagation(frame(edges), preference=-12.0)
    assert polished.summary.netsim >= plain.summary.netsim
    assert polished.summary.upper_bound is not None
    assert polished.summary.upper_bound > polished.summary.netsim, "no proof where units are so coarse"
