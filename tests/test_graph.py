"""Thinner graphs, symmetric graphs, and what a graph is said to be, against plain Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ap_spark import InputError, describe
from ap_spark import preference_search as target
from ap_spark.cli import main
from ap_spark.engines.resident import ResidentEngine
from ap_spark.graph.edge_graph import build_graph
from ap_spark.settings import Settings
from tests.conftest import ROOT, Edges, affinity_propagation, all_pairs, held_tables, random_edges

Frame = Callable[[Edges], DataFrame]
Pairs = dict[tuple[int, int], float]


def thinned(edges: Edges, settings: Settings) -> Pairs:
    """The definition: cut small ones off, keep the largest of each row, then look at both directions."""
    kept = {(i, k): s for i, k, s in edges if s > -np.inf}
    if settings.min_similarity is not None:
        kept = {pair: s for pair, s in kept.items() if s >= settings.min_similarity}
    if settings.top is not None:
        order = sorted(kept, key=lambda pair: (pair[0], -kept[pair], pair[1]))
        place = {pair: n for n, pair in enumerate(order)}
        first = {i: min(place[pair] for pair in order if pair[0] == i) for i, _ in order}
        kept = {pair: kept[pair] for pair in order if place[pair] - first[pair[0]] < settings.top}
    if settings.symmetrize == "union":
        return {(k, i): s for (i, k), s in kept.items()} | kept
    if settings.symmetrize == "mutual":
        return {(i, k): s for (i, k), s in kept.items() if (k, i) in kept}
    return kept


@pytest.mark.parametrize(
    "options",
    [
        {"min_similarity": -2.0},
        {"top": 3, "symmetrize": "union"},
        {"min_similarity": -2.5, "top": 4, "symmetrize": "mutual"},
    ],
)
def test_thinner_and_symmetric_graphs(frame: Frame, options: dict[str, object]) -> None:
    rng = np.random.default_rng(3)
    edges = [(i, k, float(round(s))) for i, k, s in random_edges(rng, 25, 0.3, symmetric=False)]  # many ties
    edges[0] = (*edges[0][:2], float("-inf"))
    settings = Settings(**options, preference=-1.0)  # type: ignore[arg-type]
    graph = build_graph(frame(edges), settings)
    found = {(row.i, row.k): row.s for row in graph.similarities().collect()}
    points = {row.id for row in graph.points.collect()}
    graph.release()
    assert found == thinned(edges, settings)
    assert points == {end for i, k, _ in edges for end in (i, k)}, "a point that lost all its edges stays"


def test_thinning_keeps_preferences_and_comes_after_the_checks(frame: Frame) -> None:
    edges = [(0, 1, -1.0), (1, 0, -1.0), (1, 2, -5.0), (0, 0, -9.0), (1, 1, -3.0), (2, 2, -9.0)]
    found = affinity_propagation(frame(edges), min_similarity=-2.0)
    assert [row.exemplar for row in found.assignments.orderBy("id").collect()] == [1, 1, 2]
    assert found.summary.expref == -12.0
    with pytest.raises(InputError, match="i=1, k=2, s=nan"):
        affinity_propagation(frame([*edges[:2], (1, 2, float("nan"))]), top=1)
    with pytest.raises(InputError, match="1 pair is given more often"):
        affinity_propagation(frame([*edges[:3], (1, 2, -7.0)]), top=1)


def least(edges: Edges, n: int) -> int:
    """The fewest clusters, component by component, largest in-degrees first; those similar to none come first."""
    i, k = np.array([edge[:2] for edge in edges]).T
    label = connected_components(coo_array((np.ones(len(i)), (i, k)), shape=(n, n)), directed=False)[1]
    into, out = np.bincount(k, minlength=n), np.bincount(i, minlength=n)
    total = 0
    for component in np.unique(label):
        (members,) = np.nonzero(label == component)
        covered = 0
        for point in sorted(members, key=lambda point: (out[point] > 0, -into[point])):
            if covered < len(members) or out[point] == 0:
                total += 1
                covered += into[point] + 1
    return total


def test_a_graph_described(spark: SparkSession, frame: Frame) -> None:
    rng = np.random.default_rng(0)
    n = 60
    ends = rng.integers(0, n, (60, 2))
    edges = [(int(i), int(k), -float(rng.gamma(2.0))) for i, k in {(i, k) for i, k in ends.tolist() if i != k}]
    points = spark.createDataFrame([(point,) for point in range(n)], "id int")
    before = held_tables(spark)
    found = describe(frame(edges).repartition(5), points=points)
    assert held_tables(spark).keys() <= before.keys()
    i, k, s = np.array(edges).T
    graph = coo_array((s, (i.astype(int), k.astype(int))), shape=(n, n))
    number, label = connected_components(graph, directed=False)
    assert (found.n_points, found.n_edges, found.n_components) == (n, len(edges), number)
    assert found.largest_components == sorted(np.bincount(label).tolist(), reverse=True)[:5]
    into, out = (np.bincount(end.astype(int), minlength=n) for end in (k, i))
    for degrees, told in ((into, found.degrees_in), (out, found.degrees_out)):
        assert (told.smallest, told.median, told.largest) == (degrees.min(), np.median(degrees), degrees.max())
        assert told.mean == pytest.approx(degrees.mean())
    assert list(found.hubs.items()) == sorted(enumerate(into.tolist()), key=lambda hub: (-hub[1], hub[0]))[:5]
    assert found.n_isolated == np.count_nonzero(into + out == 0)
    assert found.n_exemplars_by_definition == np.count_nonzero(out == 0)
    assert found.least_clusters == least(edges, n)
    assert found.similarity_quantiles == {q: np.quantile(s, q) for q in found.similarity_quantiles}
    assert found.preference == np.median(s)
    clustering = affinity_propagation(frame(edges), points=points, preference=-1e3)
    assert clustering.summary.n_clusters >= found.least_clusters


def test_a_number_of_clusters_that_is_out_of_reach(frame: Frame, caplog: pytest.LogCaptureFixture) -> None:
    """A ring: nobody is similar to more than two, yet far fewer clusters are permitted than found."""
    n = 30
    edges = [(i, (i + step) % n, -1.0 - 0.01 * i) for i in range(n) for step in (1, -1)]
    found = affinity_propagation(frame(edges), clusters=10, damping=0.7)
    assert 10 <= found.summary.n_clusters < 20
    assert [trial["clusters"] for trial in found.summary.tried]
    if found.summary.n_clusters > 10:
        assert "10 clusters were asked for" in caplog.text


def test_a_run_with_clearly_too_many_exemplars_is_ended_early(
    spark: SparkSession, frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing converges here, and nothing is left of the runs that were ended."""
    monkeypatch.setattr(ResidentEngine, "unserved", lambda engine: 1)
    rng = np.random.default_rng(6)
    x = np.concatenate([center + rng.normal(size=(20, 2)) for center in ((0, 0), (12, 0), (0, 12))])
    edges = frame(all_pairs(x)[1:])
    monkeypatch.setattr(target, "MOST_TRIALS", 5)
    before = held_tables(spark)
    found = affinity_propagation(edges, clusters=2, max_iter=100)
    assert found.summary.n_clusters <= 3
    assert found.summary.tried[0]["ended_early"]
    assert held_tables(spark).keys() <= before.keys()


def test_the_graph_command(tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    iris = [str(ROOT / "data" / "iris.csv"), "--feature-columns", "0-3", "--neighbors", "10"]
    assert main(["graph", *iris]) == 0
    told = capsys.readouterr().out
    assert "connected components: 2, the largest of 100, 50 points" in told
    assert "neighbours: 10 a point, exact search" in told
    assert list(tmp_path.iterdir()) == []
    assert main(["graph", *iris, "--symmetrize", "none", "--output", str(tmp_path / "out")]) == 0
    assert f"written to {tmp_path / 'out'}: similarities, summary.json" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["graph"]["n_edges"] == 1500
    assert summary["graph"]["preference_range"] == {"p_min": None, "p_max": 0.0}
    assert summary["neighbors"] == {"neighbors": 10, "search": "exact", "recall": 1.0}
    written = spark.read.parquet(str(tmp_path / "out" / "similarities"))
    assert written.columns == ["i", "k", "s"]
    assert written.count() == 1500
    assert main(["graph", *iris, "--output", str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
