"""The graph in blocks beside the same graph as DataFrames: points, edges, clusters, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import InputError, preference_range
from ap_spark._spark import classic
from ap_spark.blocks import passes
from ap_spark.clusters import make_clusters
from ap_spark.graph import array_graph, numbering
from ap_spark.graph.block_graph import BlockGraph, _block_of
from ap_spark.graph.block_graph_builder import _cut, build_block_graph
from ap_spark.graph.describe import describe_graph
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.graph.numbering import number_points
from ap_spark.settings import EngineName, Settings
from ap_spark.similarity.all_pairs import all_pairs as compared
from ap_spark.similarity.neighbors import find_neighbors
from tests.conftest import LONG, Edges, affinity_propagation, all_pairs, one_way, random_edges

Frame = Callable[[Edges], DataFrame]


def test_rows_are_cut_by_weight(spark: SparkSession) -> None:
    assert _cut(np.ones(10, np.int64), 1).tolist() == [0, 10]
    assert _cut(np.array([100, 1, 1, 1, 1, 1, 1]), 3).tolist() == [0, 1, 7]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 9, int(rng.integers(1, 60))) + (seed % 2)
        cuts = _cut(weights, int(rng.integers(1, 9)))
        assert (cuts[0], cuts[-1]) == (0, len(weights))
        assert (np.diff(cuts) > 0).all()
    cuts = np.array([0, 3, 4, 9])
    found = spark.range(9).select(F.expr(_block_of("id", cuts))).collect()
    assert [row[0] for row in found] == [0, 0, 0, 1, 2, 2, 2, 2, 2]


SETTINGS = [
    {},
    {"min_similarity": -3.0, "partitions": 3},
    {"symmetrize": "union", "partitions": 2},
    {"symmetrize": "mutual", "on_duplicate": "mean"},
    {"top": 3, "symmetrize": "union", "on_duplicate": "min"},
    {"top": 3},  # each rule alone, too: another one would hide that it is forgotten somewhere
    {"preference_quantile": 0.1, "seed": 5, "partitions": 4},
]


@pytest.mark.parametrize(
    ("options", "text"),
    [pytest.param(options, text, marks=LONG) for options in SETTINGS for text in (False, True)],
)
def test_both_forms_of_a_graph_are_the_same(
    frame: Frame, options: dict[str, Any], text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain DataFrames state the rules; blocks come to the same points, edges, units, fingerprint and clusters."""
    rng = np.random.default_rng(len(str(options)))
    edges = [(i, k, float(round(s, 1))) for i, k, s in random_edges(rng, 40, 0.15, symmetric=False)]
    edges[0] = (*edges[0][:2], float("-inf"))
    if "on_duplicate" in options:
        edges += [(i, k, s - 1.0) for i, k, s in edges[::3]]
    table = frame(edges)
    if text:
        monkeypatch.setattr(numbering, "_BROADCAST_POINTS", 10)  # also as for very many points
        table = table.selectExpr("concat('p', i) i", "concat('p', k) k", "s")
    settings = Settings(**options)
    plain, blocks = build_edge_graph(table, settings), build_block_graph(table, settings)
    points = plain.points.orderBy("index").collect()
    assert [row.out_degree for row in points] == blocks.out_degree.tolist()
    assert [row.in_degree for row in points] == blocks.in_degree.tolist()
    assert [row.preference for row in points] == blocks.preferences.tolist()
    assert edges_of(blocks) == {(row.i, row.k): row.s for row in plain.similarities().collect()}
    for name in ("n_points", "n_edges", "n_forced", "units", "report_units", "preference", "fingerprint", "uniform"):
        assert getattr(plain, name) == getattr(blocks, name), name
    quantiles = 0.0, 0.3, 0.5, 1.0
    assert plain.quantiles(*quantiles) == blocks.quantiles(*quantiles)
    monkeypatch.setattr(array_graph, "_DRIVER_SIMILARITIES", 10)
    monkeypatch.setattr(passes, "_BINS", 4)
    assert plain.quantiles(*quantiles) == blocks.quantiles(*quantiles)
    assert {(row.i, row.k): row.s for row in blocks.similarities().collect()} == edges_of(blocks)
    assert describe_graph(plain, settings) == describe_graph(blocks, settings)
    exemplars = (rng.random(plain.n_points) < 0.3) & ~blocks.forced
    index = plain.spark.createDataFrame([(int(number),) for number in np.flatnonzero(exemplars)], "index bigint")
    theirs = make_clusters(plain, plain.with_forced(index))
    ours = make_clusters(blocks, blocks.with_forced(exemplars))
    for name in ("assignments", "exemplars"):
        assert sorted(map(str, getattr(ours, name).collect())) == sorted(map(str, getattr(theirs, name).collect()))
    assert (ours.n_clusters, ours.promoted, ours.dpsim, ours.expref) == (
        *(theirs.n_clusters, theirs.promoted, theirs.dpsim, theirs.expref),
    )
    plain.release()
    blocks.release()


@LONG
def test_the_range_of_preferences_by_passes(frame: Frame) -> None:
    edges = all_pairs(np.random.default_rng(3).normal(size=(12, 2)))
    for some, bounded in ((edges, True), (edges[:-1], True), (one_way(edges, 5), False)):
        graph = build_block_graph(frame(some), Settings(preference=-1.0, partitions=2))
        found = describe_graph(graph, Settings()).preference_range
        assert found == preference_range(frame(some))
        assert np.isfinite(found.p_min) == bounded
        graph.release()


@LONG
def test_similarities_go_into_blocks_in_the_tasks_that_compute_them(spark: SparkSession) -> None:
    x = np.random.default_rng(4).normal(size=(70, 2)).round(1)
    points = spark.createDataFrame(pa.table({"id": np.arange(70) * 3, "features": list(x)}))
    numbering, named = number_points(points, 10)
    neighbors, *_ = find_neighbors(named, 10, "sqeuclidean", None, "exact", 1.0)
    for pairs in (neighbors, compared(named, "manhattan", None)):
        for settings in (Settings(preference=-1.0, partitions=3), Settings(top=4, symmetrize="union")):
            by_task = build_block_graph(pairs, settings, numbering=numbering)
            by_row = build_block_graph(pairs.frame, settings, numbering=numbering)
            assert edges_of(by_task) == edges_of(by_row)
            assert by_task.fingerprint == by_row.fingerprint
            by_task.release()
            by_row.release()
    some = points.where("id > 0").select("id", F.lit(-1.0).alias("preference"))
    with pytest.raises(InputError, match="1 point has none: id=0"):
        build_block_graph(neighbors, Settings(), preferences=some, numbering=numbering)


def edges_of(graph: BlockGraph) -> dict[tuple[Any, Any], float]:
    ids = [row.id for row in graph.numbering.points.orderBy("index").collect()]
    found: dict[tuple[Any, Any], float] = {}
    for rows, columns, s in graph.blocks.visit(entries):
        found |= {(ids[i], ids[k]): value for i, k, value in zip(rows, columns, s, strict=True) if i != k}
    return found


def entries(parts: passes.Parts) -> tuple[list[int], list[int], list[float]]:
    parts = list(parts)
    rows = np.concatenate([np.repeat(part.rows, np.diff(part.starts)) for part, _ in parts])
    columns = np.concatenate([part.columns for part, _ in parts])
    return rows.tolist(), columns.tolist(), np.concatenate([s for _, s in parts]).tolist()


def test_points_without_any_edge_are_exemplars(frame: Frame, spark: SparkSession) -> None:
    """Spark may skip the tasks of a table that it knows, or finds, to be empty."""
    points, edges = spark.range(3), frame([(0, 1, -1.0), (1, 0, -1.0)])
    for none in (edges.where("false"), edges.where("s > 1e9").distinct()):
        for partitions in (1, 2):
            found = affinity_propagation(none, points=points, preference=-1.0, partitions=partitions)
            assert (found.summary.n_clusters, found.summary.netsim, found.converged) == (3, -3.0, True)
            assert sorted(found.assignments.collect()) == [(n, n, n, None) for n in range(3)]


def test_what_may_change_or_costs_much_is_not_read_twice(spark: SparkSession, frame: Frame, tmp_path: Path) -> None:
    frame([(0, 1, -1.0), (1, 0, -1.0)]).write.parquet(str(tmp_path / "edges"))
    read = spark.read.parquet(str(tmp_path / "edges"))
    for table, scanned in (
        (read.where("s < 0"), True),
        (read.where(F.rand() < 2.0), False),
        (read.distinct(), False),
        (read.join(read.select("i"), "i"), False),
    ):
        assert classic.only_reads_files(table) == scanned


@LONG
def test_duplicates_are_merged_before_preferences_are_looked_at(frame: Frame) -> None:
    edges = [(1, 1, float("-inf")), (1, 1, -5.0), (2, 2, -5.0), (1, 2, -1.0), (2, 1, -1.0)]
    for engine in get_args(EngineName):
        found = affinity_propagation(frame(edges), on_duplicate="max", engine=engine, max_iter=20)
        assert found.summary.netsim == -6.0


BAD: list[tuple[Edges, dict[str, Any], str]] = [
    ([(0, 1, float("nan")), (1, 0, -1.0)], {}, "in column 's' 1 row is null, NaN or .infinite: i=0, k=1"),
    ([(0, 1, -1.0), (0, 1, -2.0)], {}, "1 pair is given more often: i=0, k=1, rows=2"),
    ([(0, 1, -1.0), (0, 1, -2.0)], {"symmetrize": "union"}, "1 pair is given more often: i=0, k=1, rows=2"),
    ([(0, 1, -1.0), (0, 1, -2.0)], {"top": 1}, "1 pair is given more often: i=0, k=1, rows=2"),
    ([(0, 1, -1.0), (0, 0, float("-inf"))], {}, "a preference must be finite, but 1 row"),
    ([(0, 1, -1.0), (1, 0, -1.0), (0, 0, -3.0)], {}, "1 point has none: id=1"),
    ([(0, 1, -1.0), (1, 0, -1.0), (0, 0, -3.0)], {"preference": -1.0}, "must be given in one way"),
    ([(0, 1, 1e308), (1, 0, -1e308)], {}, "close enough together"),
]


@pytest.mark.parametrize(
    ("edges", "options", "message"),
    [pytest.param(*case, marks=() if number % 3 == 0 else LONG) for number, case in enumerate(BAD)],
)
def test_what_is_wrong_is_refused_in_the_same_words(
    frame: Frame, edges: Edges, options: dict[str, Any], message: str
) -> None:
    for make in (build_edge_graph, build_block_graph):
        with pytest.raises(InputError, match=message):
            make(frame(edges), Settings(**options))
