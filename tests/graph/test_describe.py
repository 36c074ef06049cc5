"""What is said of a graph, against plain Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ap_spark import Degrees, Execution, SettingError, Sparsification, describe
from ap_spark.cli import main
from tests.conftest import LONG, ROOT, Edges, affinity_propagation, held_tables

Frame = Callable[[Edges], DataFrame]


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


@pytest.mark.long
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
    for degrees, stats in ((into, found.degrees_in), (out, found.degrees_out)):
        assert (stats.smallest, stats.median, stats.largest) == (
            degrees.min(),
            np.median(degrees),
            degrees.max(),
        )
        assert stats.mean == pytest.approx(degrees.mean())
    assert list(found.hubs.items()) == sorted(enumerate(into.tolist()), key=lambda hub: (-hub[1], hub[0]))[:5]
    assert found.n_isolated == np.count_nonzero(into + out == 0)
    assert found.n_forced == np.count_nonzero(out == 0)
    assert found.least_clusters == least(edges, n)
    assert found.similarity_quantiles == {q: np.quantile(s, q) for q in found.similarity_quantiles}
    assert found.preference == np.median(s)
    clustering = affinity_propagation(frame(edges), points=points, preference=-1e3)
    assert clustering.summary.n_clusters >= found.least_clusters


def test_degrees_have_separators() -> None:
    assert str(Degrees(2, 1499.0, 12345.6, 1499)) == "2 to 1,499, median 1,499, mean 12,346"


@LONG
def test_the_arguments_are_those_of_a_run(spark: SparkSession, frame: Frame) -> None:
    edges = frame([(0, 1, -1.0), (1, 0, -2.0), (1, 2, -3.0), (2, 1, -9.0)])
    preference = spark.createDataFrame([(0, -1.0), (1, -2.0), (2, -3.0)], "id int, preference double")
    sparsification, execution = Sparsification(min_similarity=-5.0, symmetrize="union"), Execution(engine="dataframe")
    found = describe(edges, preference=preference, sparsification=sparsification, execution=execution)
    assert (found.n_edges, found.similarity_quantiles[0.0], found.preference) == (4, -3.0, None)
    assert found.engine == "dataframe"
    assert describe(edges, preference=0.25).preference == 0.25
    assert describe(edges, preference_quantile=0.25).preference == -4.5
    with pytest.raises(
        SettingError, match="give the preference in one way: a table, preference_quantile, clusters or cluster_size"
    ):
        describe(edges, preference=preference, preference_quantile=0.5)
    with pytest.raises(SettingError, match="give either preference or clusters, not both"):
        describe(edges, preference=-1.0, clusters=2)


def test_the_graph_command(tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    iris = [str(ROOT / "data" / "iris.csv"), "--feature-columns", "0-3", "--neighbors", "10"]
    assert main(["graph", *iris]) == 0
    output = capsys.readouterr().out
    assert "connected components: 2, the largest of 100, 50 points" in output
    assert "neighbours: 10 a point, exact search" in output
    assert re.search(r"largest in-degrees: \d+ \(point \d+\), ", output)
    assert "preferences: none gives one cluster; above 0 every point is an exemplar" in output
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
