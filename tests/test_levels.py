"""Levels: clusters of clusters, and all points to the exemplars that are left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.cluster.hierarchy import fcluster, is_valid_linkage

from ap_spark import (
    Clustering,
    Execution,
    InputError,
    Interrupted,
    Iteration,
    Levels,
    Quality,
    SettingError,
    Similarity,
    Snapshots,
    Sparsification,
    affinity_propagation,
    cluster_points,
)
from ap_spark.cli import main
from ap_spark.similarity.metrics import METRICS, pairwise
from tests.conftest import INTERPRETING, LONG

RNG = np.random.default_rng(29)
CENTERS = 6.0 * RNG.normal(size=(8, 3))
TRUTH = np.repeat(np.arange(8), 60)
X = CENTERS[TRUTH] + RNG.normal(size=(480, 3))
POINTS = pd.DataFrame(X, columns=["x", "y", "z"])
NEAREST = Similarity(neighbors=10)


def sum_of(found: Clustering, metric: str = "sqeuclidean") -> float:
    """The similarities of all points to their exemplars, by brute force; each has to have the most similar one."""
    exemplars = np.sort(found.exemplars["exemplar"].to_numpy())
    s = pairwise(X, X[exemplars], metric)
    rows = found.assignments.sort_values("id")
    is_member = ~np.isin(np.arange(len(X)), exemplars)
    assert (rows["exemplar"].to_numpy()[is_member] == exemplars[s.argmax(axis=1)][is_member]).all()
    assert (rows["similarity"].to_numpy()[is_member] == s.max(axis=1)[is_member]).all()
    return float(s.max(axis=1)[is_member].sum())


def check_levels(found: Clustering) -> None:
    """The hierarchy is nested, and `assignments` says of each point where it is at each level."""
    table, rows = found.levels, found.assignments.sort_values("id").reset_index(drop=True)
    below = rows["id"]
    for number, level in enumerate(found.summary.levels):
        this = table[table["level"] == number].set_index("id")["exemplar"]
        assert len(this) == level["n_items"]
        assert this.nunique() == level["n_clusters"]
        below = below.map(this)
        assert (below == rows[f"level_{number}"]).all()
    assert table["level"].max() == len(found.summary.levels) - 1


def test_fewer_clusters_than_the_graph_permits() -> None:
    with pytest.raises(SettingError, match=r"clusters must be at least \d+ in this graph, got 8"):
        cluster_points(POINTS, similarity=NEAREST, clusters=8, levels=1)
    found = cluster_points(POINTS, similarity=NEAREST, clusters=8)
    assert found.summary.n_clusters == len(found.exemplars) == 8
    assert found.summary.dpsim == pytest.approx(sum_of(found))
    whole = cluster_points(POINTS, clusters=8)
    assert found.summary.dpsim >= 1.001 * whole.summary.dpsim  # below 0
    assert (found.summary.upper_bound, found.summary.gap) == (None, None)
    assert found.summary.preference is not None
    assert found.summary.expref == 8 * found.summary.preference
    assert found.exemplars["size"].sum() == len(X)
    check_levels(found)
    assert found.summary.levels[-1]["n_clusters"] == 8
    assert "levels: 480 → " in str(found.summary)
    assert "no bound is known across levels" in str(found.summary)


@pytest.mark.parametrize("clusters", [1, pytest.param(2, marks=LONG), pytest.param(23, marks=LONG)])
def test_as_many_clusters_as_asked_for(clusters: int) -> None:
    found = cluster_points(POINTS, similarity=NEAREST, clusters=clusters)
    assert found.summary.n_clusters == clusters
    assert found.summary.dpsim == pytest.approx(sum_of(found))
    if clusters == 1:
        assert sum_of(found) == pytest.approx(pairwise(X, X).sum(axis=0).max())


def test_clusters_of_a_size() -> None:
    found = cluster_points(POINTS, similarity=NEAREST, cluster_size=59.0)
    assert (found.summary.n_clusters, found.summary.settings["clusters"]) == (8, 8)
    assert cluster_points(POINTS[:20], cluster_size=1000.0).summary.n_clusters == 1
    with pytest.raises(SettingError, match="give either clusters or cluster_size, not both"):
        cluster_points(POINTS, clusters=8, cluster_size=60.0)
    with pytest.raises(SettingError, match="cluster_size must be a finite number of at least 1, got 0"):
        affinity_propagation(given(), cluster_size=0.5)


def test_one_preference_at_all_levels() -> None:
    quick = Quality(gap=None)
    flat = cluster_points(POINTS, similarity=NEAREST, preference=-500.0, levels=1, quality=quick)
    found = cluster_points(POINTS, similarity=NEAREST, preference=-500.0, quality=quick)
    whole = cluster_points(POINTS, preference=-500.0)
    assert [level["preference"] for level in found.summary.levels] == [-500.0] * len(found.summary.levels)
    assert found.summary.levels[0]["netsim"] == pytest.approx(flat.summary.netsim)
    assert flat.summary.netsim < found.summary.levels[-1]["netsim"] <= found.summary.netsim
    assert found.summary.netsim == pytest.approx(whole.summary.netsim, rel=1e-3)
    assert found.summary.netsim == pytest.approx(sum_of(found) - 500.0 * found.summary.n_clusters)
    check_levels(found)


def test_what_is_large_enough_has_one_level() -> None:
    flat = cluster_points(POINTS, similarity=NEAREST, levels=1)
    for options in ({}, {"clusters": 200}, {"preference": flat.summary.preference}):
        found = cluster_points(POINTS, similarity=NEAREST, **options)
        assert (found.summary.levels, found.levels, found.tree) == ([], None, None)
    with pytest.raises(InputError, match="this result has 1 level and"):
        flat.linkage()
    whole = cluster_points(POINTS, clusters=8, levels=3)  # all pairs are stored: there is nothing to go up for
    assert whole.summary.levels == []


def test_levels_that_are_asked_for() -> None:
    for levels in (2, 3):
        found = cluster_points(POINTS, similarity=NEAREST, levels=levels, preference_quantile=0.1)
        assert len(found.summary.levels) <= levels
    found = cluster_points(POINTS, similarity=NEAREST, levels=2, clusters=40)
    assert [level["n_clusters"] for level in found.summary.levels][1:] == [40]
    check_levels(found)


def test_exemplars_are_joined_to_a_tree() -> None:
    found = cluster_points(POINTS, similarity=NEAREST, clusters=16)
    tree = found.linkage()
    assert is_valid_linkage(tree)
    assert tree.shape == (15, 4)
    products = cluster_points(POINTS, similarity=Similarity(neighbors=10, metric="cosine"), clusters=16).linkage()
    assert is_valid_linkage(products)
    assert np.count_nonzero(products[:, 2]) >= 12
    label = fcluster(tree, 8, "maxclust")[found.assignments.sort_values("id")["label"]]
    assert (pd.crosstab(label, TRUTH) > 0).to_numpy().sum() <= 16  # of 64: clusters are those that were made, nearly


@pytest.mark.parametrize("metric", ["cosine", pytest.param("dot", marks=LONG), pytest.param("correlation", marks=LONG)])
def test_metrics_of_products(metric: Any) -> None:
    found = cluster_points(POINTS, similarity=Similarity(neighbors=10, metric=metric), clusters=6)
    prepared = METRICS[metric].prepare(X)
    assert found.summary.n_clusters == 6
    assert found.summary.dpsim == pytest.approx(sum_of(found, metric))
    assert len(prepared) == len(X)


@pytest.mark.parametrize("metric", ["euclidean", lambda x, y: pairwise(x, y, "manhattan")])
def test_metrics_whose_sums_are_estimated(metric: Any) -> None:
    found = cluster_points(POINTS, similarity=Similarity(neighbors=10, metric=metric), clusters=6)
    whole = cluster_points(POINTS, similarity=Similarity(metric=metric), clusters=6)
    assert found.summary.n_clusters == 6
    assert found.summary.dpsim >= 1.05 * whole.summary.dpsim


@pytest.fixture(scope="module")
def here() -> Clustering:
    return cluster_points(POINTS, similarity=NEAREST, clusters=8)


@pytest.mark.parametrize("partitions", [1, pytest.param(2, marks=LONG), pytest.param(7, marks=LONG)])
def test_spark_gives_the_same_bits(spark: SparkSession, here: Clustering, partitions: int) -> None:
    points = spark.createDataFrame(POINTS.assign(id=POINTS.index)).repartition(3)
    found = cluster_points(points, similarity=NEAREST, clusters=8, execution=Execution(partitions=partitions))
    assert isinstance(found.levels, DataFrame)
    found = found.to_pandas()
    ours = here.assignments.sort_values("id").reset_index(drop=True)
    pd.testing.assert_frame_equal(found.assignments, ours, check_exact=True, check_dtype=False)
    pd.testing.assert_frame_equal(found.exemplars, here.exemplars, check_exact=True, check_dtype=False)
    order = ["level", "id"]
    levels = here.levels.sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(found.levels, levels, check_exact=True, check_dtype=False)
    assert (found.linkage() == here.linkage()).all()
    about, known = found.summary, here.summary
    assert [about.dpsim, about.netsim, about.preference] == [known.dpsim, known.netsim, known.preference]


def test_centers_of_large_clusters_move(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 120 points on average: better than by members alone, with the same bits through Spark."""
    x = np.random.default_rng(5).normal(size=(480, 3))  # without structure, so that there is somewhere to move
    points = pd.DataFrame(x, columns=["x", "y", "z"])
    there = spark.createDataFrame(points.assign(id=points.index)).repartition(3)
    asked: dict[str, Any] = {"similarity": NEAREST, "clusters": 4, "quality": Quality(polish=False)}
    found = cluster_points(points, **asked)
    assert cluster_points(there, **asked).summary.dpsim == found.summary.dpsim
    monkeypatch.setattr("ap_spark.levels._CENTERS_FROM", 121)
    assert found.summary.dpsim > cluster_points(points, **asked).summary.dpsim


def test_scores_that_no_sum_holds() -> None:
    far = np.concatenate([RNG.normal(size=(60, 2)), RNG.normal(size=(60, 2)) + 1e15])
    with pytest.raises(InputError, match="on level 1 there are similarities of very different size: levels=1"):
        cluster_points(far, similarity=Similarity(neighbors=8), preference=-100.0)


@pytest.mark.long
def test_levels_through_spark_alone(spark: SparkSession, here: Clustering, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many items are searched, their gains computed and clustered by Spark; few are here, with the same result."""
    for limit in ("ALL_PAIRS", "_SEARCHED_HERE", "_CLUSTERED_HERE"):
        monkeypatch.setattr(f"ap_spark.level_graph.{limit}", 0)
    monkeypatch.setattr("ap_spark.levels.ALL_PAIRS", 0)
    points = spark.createDataFrame(POINTS.assign(id=POINTS.index))
    found = cluster_points(points, similarity=NEAREST, clusters=8).to_pandas()
    assert found.summary.n_clusters == 8
    assert found.summary.dpsim == pytest.approx(sum_of(found))
    assert found.summary.dpsim >= 1.01 * here.summary.dpsim
    check_levels(found)


def test_a_result_of_levels_is_saved_and_loaded(spark: SparkSession, here: Clustering, tmp_path: Path) -> None:
    here.save(tmp_path / "out", format="csv")
    again = Clustering.load(tmp_path / "out").to_pandas()
    assert (again.linkage() == here.linkage()).all()
    assert again.summary.levels == here.summary.levels
    check_levels(again)


@LONG
def test_the_command(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    POINTS.to_csv(tmp_path / "points.csv", index=False)
    command = ["cluster", str(tmp_path / "points.csv"), "--neighbors", "10", "--clusters", "8"]
    assert main([*command, "--output", str(tmp_path / "out"), "--output-format", "tsv", *INTERPRETING]) == 0
    told = capsys.readouterr().out
    assert "levels: 480 → " in told
    assert "assignments, exemplars, trace, levels, tree, summary.json" in told
    assert {"levels", "tree"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["levels"]) > 1
    assert main([*command, "--levels", "1", "--output", str(tmp_path / "flat"), *INTERPRETING]) == 2
    assert "clusters must be at least" in capsys.readouterr().err
    assert not (tmp_path / "flat").exists()


@pytest.mark.parametrize("level", [1, pytest.param(0, marks=LONG)])
def test_a_run_that_is_stopped_at_any_level_resumes_to_the_same_bits(
    spark: SparkSession, here: Clustering, tmp_path: Path, level: int
) -> None:
    points = spark.createDataFrame(POINTS.assign(id=POINTS.index))
    options: dict[str, Any] = {"similarity": NEAREST, "clusters": 8, "checkpoint": str(tmp_path)}
    seen: list[int] = []

    def stops(done: Iteration) -> bool:
        seen.append(done.iteration)
        return seen.count(1) == level + 1 and done.iteration == 5

    with pytest.raises(Interrupted, match="of which no snapshots are taken" if level else "with a snapshot"):
        cluster_points(points, **options, callback=stops)
    again = cluster_points(points, **options).to_pandas()
    order = {"assignments": ["id"], "exemplars": ["label"], "levels": ["level", "id"], "tree": ["join"]}
    for name, columns in order.items():
        whole = getattr(here, name).sort_values(columns).reset_index(drop=True)
        pd.testing.assert_frame_equal(getattr(again, name), whole, check_exact=True, check_dtype=False)


def test_a_search_on_one_level_after_the_first_run_resumes(spark: SparkSession, tmp_path: Path) -> None:
    """The median gives no more clusters than were asked for: its snapshots are not those of the search."""
    points = spark.createDataFrame(POINTS.assign(id=POINTS.index))
    options: dict[str, Any] = {"similarity": NEAREST, "clusters": 170, "levels": 2}
    known = cluster_points(points, **options).to_pandas()
    assert (known.summary.n_clusters, known.summary.levels) == (170, [])
    seen: list[int] = []

    def stops(done: Iteration) -> bool:
        seen.append(done.iteration)
        return seen.count(1) == 2 and done.iteration == 5  # in the search

    snapshots = Snapshots(checkpoint=str(tmp_path), checkpoint_every="1")
    with pytest.raises(
        Interrupted, match="in the search after the first run, of which no snapshots are taken; the last"
    ):
        cluster_points(points, **options, checkpoint=snapshots, callback=stops)
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    again = cluster_points(points, **options, checkpoint=snapshots).to_pandas()
    assert again.summary.netsim == known.summary.netsim
    again.discard_snapshots()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_level_with_too_few_clusters_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level above the first would leave fewer clusters than were asked for, at its median preference."""
    monkeypatch.setattr("ap_spark.levels.ALL_PAIRS", 0)
    found = cluster_points(POINTS, similarity=Similarity(neighbors=4), clusters=100)
    assert found.summary.n_clusters == 100
    assert len(found.summary.levels) == 2


# Similarities that are given


def given(neighbors: int = 8) -> pd.DataFrame:
    s = pairwise(X, X)
    np.fill_diagonal(s, -np.inf)
    k = np.argsort(-s, axis=1, kind="stable")[:, :neighbors]
    i = np.repeat(np.arange(len(X)), neighbors)
    return pd.DataFrame({"i": i, "k": k.ravel(), "s": s[i, k.ravel()]})


UNION = Sparsification(symmetrize="union")


def test_given_similarities_need_a_value_for_the_others() -> None:
    with pytest.raises(SettingError, match=r"got 8: .*of given similarities with a missing_similarity"):
        affinity_propagation(given(), clusters=8, sparsification=UNION)
    with pytest.raises(SettingError, match=r"need missing_similarity: .*, got levels 3 without it"):
        affinity_propagation(given(), clusters=8, levels=3, sparsification=UNION)
    with pytest.raises(SettingError, match=r"missing_similarity is for similarities that are given: .* got -50"):
        cluster_points(POINTS, similarity=NEAREST, levels=Levels(missing_similarity=-50.0))
    with pytest.raises(SettingError, match="levels must be at least 1, or auto, got 0"):
        cluster_points(POINTS, levels=0)
    with pytest.raises(SettingError, match="levels need one preference for all points, got levels 2 with many"):
        cluster_points(POINTS.assign(preference=-np.arange(480.0)), similarity=NEAREST, levels=2)


@pytest.mark.parametrize("options", [{"clusters": 8}, pytest.param({"preference": -500.0}, marks=LONG)])
def test_given_similarities(spark: SparkSession, options: dict[str, Any]) -> None:
    options = options | {"levels": Levels(missing_similarity=-60.0), "sparsification": UNION}
    options |= {"quality": Quality(gap=None)}
    found = affinity_propagation(given(), **options)
    if "clusters" in options:
        assert found.summary.n_clusters == 8
        agreement = pd.crosstab(found.assignments.sort_values("id")["exemplar"].to_numpy(), TRUTH)
        assert agreement.to_numpy().max(axis=1).sum() > 0.8 * len(X)  # two of the eight lie close together
    check_levels(found)
    table = given()
    both = pd.concat([table, table.rename(columns={"i": "k", "k": "i"})]).drop_duplicates(["i", "k"])
    known = both.set_index(["i", "k"])["s"]
    rows = found.assignments.dropna(subset="similarity")
    expected = [known.get((row.id, row.exemplar), -60.0) for row in rows.itertuples()]
    assert rows["similarity"].tolist() == expected
    assert found.summary.dpsim == pytest.approx(sum(expected))
    for partitions in (1,) if "clusters" in options else (1, 3):
        there = affinity_propagation(
            spark.createDataFrame(table), **options, execution=Execution(partitions=partitions)
        ).to_pandas()
        for name in ("assignments", "exemplars", "levels"):
            ours = getattr(found, name)
            if name != "exemplars":
                ours = ours.sort_values([column for column in ("level", "id") if column in ours]).reset_index(drop=True)
            pd.testing.assert_frame_equal(getattr(there, name), ours, check_exact=True, check_dtype=False)


def test_a_threshold_is_for_pairs_and_not_for_sums() -> None:
    options: dict[str, Any] = {"clusters": 8, "levels": Levels(missing_similarity=-60.0)}
    cut = Sparsification(symmetrize="union", min_similarity=-40.0)
    found = affinity_propagation(given(), **options, sparsification=cut)
    assert found.summary.n_clusters == 8
    with pytest.raises(SettingError, match="so leave out min_similarity, got -40"):
        cluster_points(POINTS, similarity=NEAREST, levels=2, sparsification=Sparsification(min_similarity=-40.0))


def test_a_number_that_no_level_permits_is_refused() -> None:
    apart = pd.DataFrame({"i": [0, 1, 2, 3], "k": [1, 0, 3, 2], "s": [-1.0, -1.0, -1.5, -1.5]})
    with pytest.raises(SettingError, match="clusters must be at least 2 in this graph, got 1"):
        affinity_propagation(apart, clusters=1, levels=Levels(missing_similarity=-9.0))


@pytest.mark.long
def test_a_table_of_records_on_two_levels(spark: SparkSession, tmp_path: Path) -> None:
    """Scores of record linkage by file: the command, and the refusal in its words."""
    given(6).to_csv(tmp_path / "scores.csv", index=False)
    command = ["cluster", str(tmp_path / "scores.csv"), "--edges", "--symmetrize", "union", "--clusters", "8"]
    assert main([*command, "--output", str(tmp_path / "no"), *INTERPRETING]) == 2
    with_value = [*command, "--missing-similarity", "-60", "--output", str(tmp_path / "out")]
    assert main([*with_value, *INTERPRETING]) == 0
    assert Clustering.load(tmp_path / "out").summary.n_clusters == 8
