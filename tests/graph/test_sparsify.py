"""Fewer similarities, or symmetric ones, against plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import InputError, SettingError, Sparsification, sparsify
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.graph.sparsify import changes_pairs
from ap_spark.settings import Settings, parameters
from tests.conftest import LONG, Edges, affinity_propagation, random_edges

Frame = Callable[[Edges], DataFrame]
Pairs = dict[tuple[int, int], float]


def sparsified(
    edges: Edges, min_similarity: float | None = None, top: int | None = None, symmetrize: str = "none"
) -> Pairs:
    """The definition: leave out small similarities, keep the largest of each row, then look at both directions."""
    kept = {(i, k): s for i, k, s in edges if s > -np.inf}
    if min_similarity is not None:
        kept = {pair: s for pair, s in kept.items() if s >= min_similarity}
    if top is not None:
        order = sorted(kept, key=lambda pair: (pair[0], -kept[pair], pair[1]))
        place = {pair: n for n, pair in enumerate(order)}
        first = {i: min(place[pair] for pair in order if pair[0] == i) for i, _ in order}
        kept = {pair: kept[pair] for pair in order if place[pair] - first[pair[0]] < top}
    if symmetrize == "union":
        return {(k, i): s for (i, k), s in kept.items()} | kept
    if symmetrize == "mutual":
        return {(i, k): s for (i, k), s in kept.items() if (k, i) in kept}
    return kept


def pairs_of(edges: DataFrame) -> Pairs:
    rows = [((row.i, row.k), row.s) for row in edges.collect()]
    assert len(rows) == len(dict(rows)), "each pair once"
    return dict(rows)


def test_the_function_and_the_graph_sparsify_by_the_definition(frame: Frame) -> None:
    rng = np.random.default_rng(3)
    edges = [(i, k, float(round(s))) for i, k, s in random_edges(rng, 25, 0.3, symmetric=False)]  # many ties
    edges[0] = (*edges[0][:2], float("-inf"))
    ways: list[dict[str, Any]] = [
        {"min_similarity": -2.0},
        {"top": 3, "symmetrize": "union"},
        {"min_similarity": -2.5, "top": 4, "symmetrize": "mutual"},
    ]
    table = frame(edges)
    for way in ways:
        expected = sparsified(edges, **way)
        assert 0 < len(expected) != len(sparsified(edges))
        assert pairs_of(sparsify(table, **way)) == expected, way
    graph = build_edge_graph(table, Settings(**ways[2], preference=-1.0))
    found, points = pairs_of(graph.similarities()), {row.id for row in graph.points.collect()}
    graph.release()
    assert found == expected
    assert points == {end for i, k, _ in edges for end in (i, k)}, "a point that lost all its edges stays"


def test_preferences_and_what_is_refused_later_stay(spark: SparkSession) -> None:
    rows = [(0, 1, -1.0), (0, 2, -3.0), (2, 1, None), (3, 0, float("nan")), (None, 1, -9.0), (1, 1, -7.0)]
    table = spark.createDataFrame(rows, "i int, k int, s double")
    found = [tuple(row) for row in sparsify(table, min_similarity=-2.0, top=1, symmetrize="union").collect()]
    pairs = {(i, k): s for i, k, s in found}
    assert len(found) == len(pairs) == 8
    assert [pairs[pair] for pair in ((0, 1), (1, 0), (None, 1), (1, 1))] == [-1.0, -1.0, -9.0, -7.0]
    assert all(math.isnan(pairs[pair]) for pair in ((2, 1), (1, 2), (3, 0), (0, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_similarity": float("nan")}, "min_similarity must be a finite number, got nan"),
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"symmetrize": "both"}, "symmetrize must be one of none, union, mutual, got 'both'"),
    ],
)
def test_parameters_out_of_range(spark: SparkSession, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        sparsify(spark.createDataFrame([(0, 1, -1.0)], "i int, k int, s double"), **options)


@LONG
def test_sparsifying_keeps_preferences_and_comes_after_the_checks(frame: Frame) -> None:
    edges = [(0, 1, -1.0), (1, 0, -1.0), (1, 2, -5.0), (0, 0, -9.0), (1, 1, -3.0), (2, 2, -9.0)]
    found = affinity_propagation(frame(edges), min_similarity=-2.0)
    assert [row.exemplar for row in found.assignments.orderBy("id").collect()] == [1, 1, 2]
    assert found.summary.expref == -12.0
    with pytest.raises(InputError, match="i=1, k=2, s=nan"):
        affinity_propagation(frame([*edges[:2], (1, 2, float("nan"))]), top=1)
    with pytest.raises(InputError, match="1 pair is given more often"):
        affinity_propagation(frame([*edges[:3], (1, 2, -7.0)]), top=1)


def test_each_rule_alone_changes_pairs() -> None:
    """Also one that is new: together with another rule it would not show that `changes_pairs` has forgotten it."""
    assert not changes_pairs(Sparsification())
    for declared, kind in parameters(Sparsification):
        examples = {int: 3, float: -3.0, bool: not declared.default, str: "".join(declared.metadata["choices"][-1:])}
        if declared.name != "on_duplicate":  # duplicates are merged in any case
            given: dict[str, Any] = {declared.name: examples[kind]}
            assert changes_pairs(Sparsification(**given)), declared.name
