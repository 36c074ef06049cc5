"""Passes over one block beside plain numpy, without Spark."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ap_spark.blocks import passes
from ap_spark.exact_sum import Units
from tests.blocks.conftest import OneBlock

UNITS = Units(2.0**-40, 2.0**-40)


def test_rows_choose_the_most_similar_exemplar(block: OneBlock) -> None:
    exemplars = np.random.default_rng(9).random(block.n) < 0.3
    found = block.run(passes.assign, exemplars)
    for i, exemplar, similarity in zip(*found, strict=True):
        open_ = [(s, -k) for j, k, s in block.edges if j == i and exemplars[k]]
        assert (similarity, -exemplar) == (max(open_) if open_ else (-np.inf, 1))
    assert sorted(found.rows.tolist()) == sorted({i for i, _, _ in block.edges})


def test_sums_of_columns_and_of_clusters(block: OneBlock) -> None:
    cluster = np.random.default_rng(9).integers(0, 3, block.n)
    for found, taken in (
        (block.run(passes.refine, cluster, UNITS), cluster[block.i] == cluster[block.k]),
        (block.run(passes.refine, np.zeros(block.n, np.int64), UNITS), np.ones(len(block.i), bool)),
    ):
        sums, counts = np.zeros(block.n), np.zeros(block.n, int)
        np.add.at(sums, block.k[taken], block.s[taken])
        np.add.at(counts, block.k[taken], 1)
        np.testing.assert_array_equal(found.columns, np.flatnonzero(counts))
        np.testing.assert_array_equal(found.counts, counts[found.columns])
        np.testing.assert_allclose(found.sums[0] * UNITS.coarse, sums[found.columns], rtol=1e-9)


def test_degrees_best_similarities_and_components(block: OneBlock) -> None:
    np.testing.assert_array_equal(block.run(passes.in_degrees, block.n), np.bincount(block.k, minlength=block.n))
    rows, best = block.run(passes.best_similarity)
    assert dict(zip(rows.tolist(), best.tolist(), strict=True)) == {
        int(i): block.s[block.i == i].max() for i in set(block.i.tolist())
    }
    label = connected_components(coo_array((block.s, (block.i, block.k)), shape=(block.n, block.n)), directed=False)[1]
    smallest = [int(np.flatnonzero(label == own)[0]) for own in label]
    index, root = block.run(passes.components, block.n)
    assert dict(zip(index.tolist(), root.tolist(), strict=True)) == {
        point: least for point, least in enumerate(smallest) if least < point
    }
    serving = np.arange(block.n) % 4 == 0
    without = {i for i, _, _ in block.edges if not serving[i]} - {i for i, k, _ in block.edges if serving[k]}
    assert block.run(passes.unserved, serving) == len(without)


def test_histograms_count_what_lies_between(block: OneBlock) -> None:
    low, high = np.quantile(block.s, [0.2, 0.9])
    inside = block.s[(block.s >= low) & (block.s <= high)]
    found = block.run(passes.histogram, low, high)
    assert found.counts.sum() == len(inside)
    assert (found.lows.min(), found.highs.max()) == (inside.min(), inside.max())
    assert sorted(block.run(passes.values, low, high).tolist()) == sorted(inside.tolist())
