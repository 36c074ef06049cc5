"""The main function: known answers, scikit-learn's answers, and the behaviours that scikit-learn's tests pin down."""

from __future__ import annotations

import gc
import logging
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyspark.sql.functions as F
import pytest
from pyspark.sql import DataFrame, SparkSession
from sklearn.cluster import affinity_propagation as sklearn_affinity_propagation
from sklearn.datasets import make_blobs

from ap_spark import InputError, Iteration, Quality, SettingError, cluster_points, describe
from ap_spark.clusters import make_clusters
from ap_spark.convergence import Stability
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.settings import EngineName, Settings
from tests import oracle
from tests.conftest import (
    FIXTURES,
    LONG,
    MESSAGES_ALONE,
    Edges,
    affinity_propagation,
    all_pairs,
    assigned,
    held_tables,
    load,
    one_way,
    random_edges,
)
from tests.on_blocks import OnBlocks, names

Frame = Callable[[Edges], DataFrame]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_fixture(frame: Frame, path: Path) -> None:
    fixture, edges = load(path)
    expected = fixture["expected"]
    settings = {name: fixture[name] for name in ("preference", "damping", "max_iter", "convergence_iter")}
    clustering = affinity_propagation(frame(edges), **settings, **MESSAGES_ALONE)
    assert clustering.converged
    assert assigned(clustering) == expected["assignment"]
    rows = clustering.exemplars.orderBy("label").collect()
    assert [row.exemplar for row in rows] == sorted(set(expected["assignment"]))
    assert [row.size for row in rows] == [expected["assignment"].count(row.exemplar) for row in rows]
    if "exemplars" in expected:
        assert [row.exemplar for row in rows] == expected["exemplars"]
    for name in ("dpsim", "expref", "netsim"):
        if name in expected:
            assert getattr(clustering.summary, name) == pytest.approx(expected[name], abs=1e-6)
    if "n_iter" in expected:
        assert clustering.n_iter == expected["n_iter"]
    # the objective is the sum of what the tables show
    total = sum(row.similarity or 0.0 for row in clustering.assignments.collect())
    assert clustering.summary.dpsim == pytest.approx(total, abs=1e-9)
    assert clustering.trace.count() == clustering.n_iter


DAMPINGS = (0.5, 0.7, 0.95)
SKLEARN_WINDOW = 15


def blobs(seed: int) -> tuple[np.ndarray, float]:
    """Random blobs, 20 to 150 points (small ones more often), and a damping."""
    rng = np.random.default_rng(seed)
    n = round(20 * 7.5 ** rng.random())
    x, _ = make_blobs(n, centers=int(rng.integers(2, 7)), cluster_std=float(rng.uniform(0.3, 1.2)), random_state=seed)
    return x, float(rng.choice(DAMPINGS))


def sklearn_answer(
    s: np.ndarray, damping: float, preference: float, max_iter: int = 500
) -> tuple[list[int], list[int], int] | None:
    """Exemplars, each point's exemplar and n_iter; None where they depend on the random state or nothing converges."""
    answers = set()
    for state in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            centers, labels, n_iter = sklearn_affinity_propagation(
                s.copy(),
                preference=preference,
                damping=damping,
                max_iter=max_iter,
                random_state=state,
                return_n_iter=True,
            )
        if n_iter == max_iter:
            return None
        answers.add((tuple(centers.tolist()), tuple(centers[labels].tolist()), n_iter))
    if len(answers) > 1:
        return None
    (answer,) = answers
    return list(answer[0]), list(answer[1]), answer[2]


def blobs_answer(seed: int) -> tuple[Edges, float, float, tuple[list[int], list[int], int] | None]:
    """The edges of some blobs, preference and damping, and what scikit-learn says."""
    x, damping = blobs(seed)
    edges = all_pairs(x)
    preference = float(np.median([value for _, _, value in edges]))
    return edges, preference, damping, sklearn_answer(oracle.dense(len(x), edges, 0.0), damping, preference)


class Components:
    """The blobs that share a damping, as the components of one graph: a run for all of them.

    Seeds for which scikit-learn's answer depends on its random state are left out.
    """

    def __init__(self, spark: SparkSession, frame: Frame, damping: float) -> None:
        self.expected: dict[int, tuple[list[int], list[int], int]] = {}
        self.first: dict[int, int] = {}
        edges: Edges = []
        preferences: list[tuple[int, float]] = []
        for seed in range(30):
            own, preference, its_damping, answer = blobs_answer(seed)
            if its_damping == damping and answer is not None:
                self.expected[seed] = answer
                self.first[seed] = first = len(preferences)
                edges += [(first + i, first + k, s) for i, k, s in own]
                preferences += [(first + point, preference) for point in range(len(answer[1]))]
        assert len(self.expected) >= 9
        table = spark.createDataFrame(preferences, "id bigint, preference double")
        self.graph = build_edge_graph(frame(edges), Settings(), preferences=table)

    def points(self, seed: int) -> range:
        return range(self.first[seed], self.first[seed] + len(self.expected[seed][1]))

    def check(self, exemplars: dict[int, set[int]], n_iter: dict[int, int]) -> None:
        """Compare the exemplars of each seed, before refinement, the clusters they give, and n_iter."""
        rows = [(point,) for found in exemplars.values() for point in found]
        clusters = make_clusters(self.graph, self.graph.edges.sparkSession.createDataFrame(rows, "index bigint"))
        exemplar_of: dict[int, int] = {row.id: row.exemplar for row in clusters.assignments.collect()}
        for seed, expected in self.expected.items():
            mine = [exemplar_of[point] - self.first[seed] for point in self.points(seed)]
            assert (sorted(set(mine)), mine, n_iter[seed]) == expected, f"seed {seed}"


@pytest.fixture(params=[DAMPINGS[0], *(pytest.param(damping, marks=LONG) for damping in DAMPINGS[1:])])
def components(spark: SparkSession, frame: Frame, request: pytest.FixtureRequest) -> Iterator[tuple[Components, float]]:
    components = Components(spark, frame, request.param)
    yield components, request.param
    components.graph.release()


@LONG
@pytest.mark.usefixtures("compiled")
def test_blobs_as_scikit_learn_on_the_resident_engine(components: tuple[Components, float]) -> None:
    """An engine for each component: it stops by itself."""
    blobs, damping = components
    exemplars, n_iter = {}, {}
    for seed in blobs.expected:
        mine = blobs.points(seed)
        edges = blobs.graph.edges.where(F.col("i").isin(*mine))
        others = blobs.graph.n_points - len(mine)
        own = replace(blobs.graph, edges=edges, n_edges=edges.count() - len(mine), n_forced=others)
        engine = OnBlocks(own, damping, 1)
        stability, still = Stability((SKLEARN_WINDOW,)), False
        while not still and engine.iteration < 500:
            for done in engine.run(500 - engine.iteration, replace(stability)):
                still = stability.reached(done)
            if still and done.exemplars == others:  # those of the other components
                stability.refuse(done)
                still = False
        n_iter[seed] = engine.iteration
        exemplars[seed] = set(names(engine))
        engine.release()
    blobs.check(exemplars, n_iter)


# One damping here, since iterations are slow on this engine; both are bitwise identical (engines/test_engines.py).
@LONG
@pytest.mark.parametrize("components", [0.7], indirect=True)
@pytest.mark.usefixtures("compiled")
def test_blobs_as_scikit_learn_on_the_dataframe_engine(components: tuple[Components, float]) -> None:
    """One engine for all of them, each component with a stop of its own."""
    blobs, damping = components
    watched = {seed: Stability((SKLEARN_WINDOW,)) for seed in blobs.expected}
    exemplars: dict[int, set[int]] = {}
    n_iter: dict[int, int] = {}
    now: set[int] = set()
    engine = DataFrameEngine(blobs.graph, damping, partitions=1)
    for done in engine.run(500, Stability((10**9,))):
        before = now
        if done.changed:
            now = {row["index"] for row in engine.exemplars().collect()}
        for seed in blobs.expected.keys() - n_iter.keys():
            mine, changed = now & set(blobs.points(seed)), (now ^ before) & set(blobs.points(seed))
            last = done.iteration if changed else watched[seed].last_change
            unsettled = int(done.iteration - last + 1 < SKLEARN_WINDOW)
            if watched[seed].reached(Iteration(done.iteration, len(mine), len(changed), unsettled, 0.0)):
                exemplars[seed], n_iter[seed] = mine, done.iteration
        if len(n_iter) == len(blobs.expected):
            break
    engine.release()
    blobs.check(exemplars, n_iter)


@pytest.mark.parametrize(
    "graphs", [[(0.4, (2, 3))], pytest.param([(0.15, ()), (1.0, (7,))], marks=LONG)], ids=["half", "sparse, full"]
)
def test_random_sparse_graphs_cluster_as_the_oracle(frame: Frame, graphs: list[tuple[float, tuple[int, ...]]]) -> None:
    rng = np.random.default_rng(11)
    for share, forced in graphs:
        n = 30
        edges = one_way(random_edges(rng, n, share, symmetric=False), *forced)
        s = oracle.dense(n, edges, -6.0)
        found, n_iter, converged = oracle.run(s, 0.8, 300, 15)
        points = frame([(p, p, 0.0) for p in range(n)]).selectExpr("i as id")
        clustering = affinity_propagation(
            frame(edges),
            points=points,
            preference=-6.0,
            damping=0.8,
            max_iter=300,
            convergence_iter=15,
            jitter=False,
            **MESSAGES_ALONE,
        )
        assert (clustering.n_iter, clustering.converged) == (n_iter, converged)
        assert assigned(clustering) == oracle.clusters(s, found).tolist()


@LONG
@pytest.mark.parametrize(("window", "least"), [(None, -1715.0), pytest.param(15, -1800.0, marks=LONG)])
def test_a_run_has_not_converged_while_points_are_without_an_exemplar(
    frame: Frame, window: int | None, least: float
) -> None:
    """Of nine blobs with 35 one-sided neighbours a single point is an exemplar at first, and stands still for long."""
    x, _ = make_blobs(220, n_features=3, centers=9, cluster_std=2.0, random_state=32)
    s = -((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=-1)
    near = np.argsort(-s, axis=1)[:, 1:36]
    edges = [(i, int(k), float(s[i, k])) for i in range(len(x)) for k in near[i]]
    clustering = affinity_propagation(frame(edges), damping=0.9, convergence_iter=window, **MESSAGES_ALONE)
    assert clustering.converged
    assert clustering.n_iter > 35
    assert clustering.summary.promoted == 0
    assert clustering.summary.netsim > least, "the optimum is -1,694.8; with 209 points promoted it was -4,544"
    assert clustering.summary.settings["convergence_iter"] == (window or 50)


@pytest.mark.parametrize(
    ("engine", "partitions"),
    [("resident", 1), pytest.param("resident", 2, marks=LONG), pytest.param("dataframe", 2, marks=LONG)],
)
def test_exemplars_that_leave_points_without_are_refused_and_the_run_goes_on(
    spark: SparkSession,
    frame: Frame,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    engine: EngineName,
    partitions: int,
) -> None:
    """0 and 1 have each other. 2, 3 and 4 are alike, and none of them is worth its preference to two others."""
    edges = [(0, 1, -1.0), (1, 0, -1.0)] + [(i, k, -2.0) for i in (2, 3, 4) for k in (2, 3, 4) if i != k]
    preferences = [(0, -0.5), (1, -9.0), (2, -1e6), (3, -1e6), (4, -1e6)]
    table = spark.createDataFrame(preferences, "id bigint, preference double")
    for max_iter in (6, 9):  # the second goes on from the snapshot of the first
        clustering = affinity_propagation(
            frame(edges),
            preference=table,
            damping=0.5,
            convergence_iter=3,
            max_iter=max_iter,
            engine=engine,
            partitions=partitions,
            checkpoint=str(tmp_path),
        )
        assert (clustering.converged, clustering.n_iter, clustering.summary.promoted) == (False, max_iter, 3)
        words = f"not converged after {max_iter} iterations, and 3 of 5 points store no edge to an exemplar"
        assert words in caplog.text


@pytest.mark.parametrize(("pairs", "promoted"), [(300, 3), (200, 0)])
def test_few_points_without_an_exemplar_do_not_keep_a_run_from_ending(
    spark: SparkSession, frame: Frame, pairs: int, promoted: int
) -> None:
    """Pairs that have each other, and three points as above: as many as may be left of 603, and more than of 403."""
    edges = [(2 * n + end, 2 * n + 1 - end, -1.0) for n in range(pairs) for end in (0, 1)]
    three = range(2 * pairs, 2 * pairs + 3)
    edges += [(i, k, -2.0) for i in three for k in three if i != k]
    preferences = [(i, -1e6 if i in three else -9.0 if i % 2 else -0.5) for i in range(2 * pairs + 3)]
    table = spark.createDataFrame(preferences, "id bigint, preference double")
    found = affinity_propagation(frame(edges), preference=table, quality=Quality(polish=False, gap=None)).summary
    assert (found.ending, found.promoted, found.n_clusters) == ("settled", promoted, pairs + max(promoted, 1))
    if promoted:
        assert f"settled after {found.n_iter} iterations but for 3 of 603 points" in str(found)
    assert affinity_propagation(frame(edges), preference=table).summary.n_clusters == pairs + 1


@pytest.mark.parametrize("scale", [1e3, 1e18])
def test_a_number_for_too_far_is_as_good_as_no_edge(frame: Frame, scale: float) -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(range(3), 5)
    x = rng.normal(size=(15, 2)) + 100.0 * group[:, None]
    near = [(i, k, s) for i, k, s in all_pairs(x) if group[i] == group[k]]
    far = [(i, k, -scale) for i in range(15) for k in range(15) if group[i] != group[k]]
    apart, together = (affinity_propagation(frame(edges), preference=-10.0) for edges in (near, near + far))
    assert assigned(together) == assigned(apart)
    assert together.summary.netsim == pytest.approx(apart.summary.netsim, rel=1e-12)


# What scikit-learn's own tests pin down


def test_equal_similarities_and_low_preference_give_one_cluster(frame: Frame) -> None:
    edges = [(i, k, -1.0) for i in range(3) for k in range(3) if i != k]
    clustering = affinity_propagation(frame(edges), preference=-10.0)
    assert assigned(clustering) == [0, 0, 0]
    assert (clustering.converged, clustering.n_iter, clustering.summary.engine) == (True, 0, "none")


def test_equal_similarities_and_high_preference_make_all_exemplars(frame: Frame) -> None:
    edges = [(i, k, -1.0) for i in range(3) for k in range(3) if i != k]
    clustering = affinity_propagation(frame(edges), preference=10.0)
    assert assigned(clustering) == [0, 1, 2]
    assert clustering.summary.netsim == 30.0


def test_equal_similarities_and_equal_preference_give_the_smallest_id(frame: Frame) -> None:
    edges = [(i, k, -1.0) for i in (5, 7, 9) for k in (5, 7, 9) if i != k]
    assert assigned(affinity_propagation(frame(edges))) == [5, 5, 5]


def test_equal_similarities_and_different_preferences_are_iterated(spark: SparkSession, frame: Frame) -> None:
    edges = [(i, k, -1.0) for i in range(3) for k in range(3) if i != k]
    table = spark.createDataFrame([(0, -10.0), (1, -0.5), (2, -10.0)], "id bigint, preference double")
    clustering = affinity_propagation(frame(edges), preference=table, damping=0.5)
    assert clustering.summary.engine == "resident"
    assert assigned(clustering) == [1, 1, 1]


def test_identical_points_are_one_cluster(frame: Frame) -> None:
    # scikit-learn: test_affinity_propagation_equal_points
    edges = [(i, k, 0.0) for i in range(8) for k in range(8) if i != k]
    assert set(assigned(affinity_propagation(frame(edges), preference=-1.0))) == {0}


def test_two_points(frame: Frame) -> None:
    # scikit-learn: test_affinity_propagation_equal_mutual_similarities
    edges = [(0, 1, -100.0), (1, 0, -100.0)]
    assert assigned(affinity_propagation(frame(edges), preference=0.0)) == [0, 1]
    assert assigned(affinity_propagation(frame(edges), preference=-1000.0)) == [0, 0]


def test_one_point(spark: SparkSession, frame: Frame) -> None:
    points = spark.createDataFrame([("only",)], "id string")
    similarities = spark.createDataFrame([], "i string, k string, s double")
    clustering = affinity_propagation(similarities, points=points, preference=-3.0)
    assert assigned(clustering) == ["only"]
    assert (clustering.converged, clustering.summary.netsim) == (True, -3.0)


def test_not_converged_with_exemplars_gives_them_and_warns(frame: Frame, caplog: pytest.LogCaptureFixture) -> None:
    # scikit-learn: test_affinity_propagation_fit_non_convergence
    x, _ = blobs(1)
    with caplog.at_level(logging.WARNING, "ap_spark"):
        clustering = affinity_propagation(frame(all_pairs(x)), damping=0.5, max_iter=12)
    assert "not converged after 12 iterations" in caplog.text
    assert (clustering.converged, clustering.n_iter) == (False, 12)
    assert clustering.summary.n_clusters > 0
    assert clustering.assignments.count() == len(x)


def test_not_converged_without_exemplars_gives_no_clusters(frame: Frame) -> None:
    # scikit-learn: test_affinity_propagation_non_convergence_regressiontest
    edges = all_pairs(np.array([[0.0, 0.0], [1.0, 1.0], [-2.0, -2.0]]))
    clustering = affinity_propagation(frame(edges), preference=-10.0, max_iter=2)
    assert (clustering.converged, clustering.summary.n_clusters) == (False, 0)
    assert clustering.assignments.count() == clustering.exemplars.count() == 0
    assert clustering.summary.netsim == 0.0


@LONG
def test_preferences_for_each_point_as_one_number(spark: SparkSession, frame: Frame) -> None:
    x, _ = blobs(2)
    table = spark.createDataFrame([(p, -30.0) for p in range(len(x))], "id bigint, preference double")
    one = affinity_propagation(frame(all_pairs(x)), preference=-30.0)
    each = affinity_propagation(frame(all_pairs(x)), preference=table)
    diagonal = affinity_propagation(frame(all_pairs(x) + [(p, p, -30.0) for p in range(len(x))]))
    assert assigned(one) == assigned(each) == assigned(diagonal)
    assert one.summary.fingerprint == each.summary.fingerprint == diagonal.summary.fingerprint


def test_correct_clusters_of_three_far_groups(frame: Frame) -> None:
    # scikit-learn: test_correct_clusters
    x = np.array([[1, 0], [1, 1], [2, 1], [10, 10], [10, 11], [11, 10]], float)
    found = assigned(affinity_propagation(frame(all_pairs(x)), preference=-20.0))
    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]


def test_the_seed_decides_ties_and_the_run_repeats(frame: Frame) -> None:
    # scikit-learn: test_affinity_propagation_random_state; four corners of a square are one big tie
    edges = all_pairs(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]))
    options = {"preference": -1.5, "damping": 0.9} | MESSAGES_ALONE
    found = {seed: assigned(affinity_propagation(frame(edges), **options, seed=seed)) for seed in (0, 2)}
    again = assigned(affinity_propagation(frame(edges), **options, seed=0))
    assert again == found[0]
    assert len({tuple(answer) for answer in found.values()}) > 1


@pytest.mark.long
def test_a_lonely_point_does_not_stop_the_others(frame: Frame) -> None:
    fixture, edges = load(next(path for path in FIXTURES if path.stem == "toy25"))
    settings = {"preference": fixture["preference"], "convergence_iter": 15}
    alone = affinity_propagation(frame(edges), **settings)
    beside = affinity_propagation(frame([*edges, (98, 0, float("-inf"))]), **settings)
    assert assigned(beside)[:25] == assigned(alone)
    assert assigned(beside)[25] == 98
    assert alone.n_iter > 16


def test_everything_is_released(spark: SparkSession, frame: Frame) -> None:
    before = held_tables(spark).keys()
    clustering = affinity_propagation(frame(all_pairs(blobs(3)[0])))
    assert held_tables(spark).keys() <= before, "the driver has the result"
    with pytest.raises(InputError):
        affinity_propagation(frame([(0, 1, float("nan"))]))
    assert held_tables(spark).keys() <= before
    assert clustering.assignments.count() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping": 0.4}, "damping must be in [0.5, 1), got 0.4"),
        ({"damping": 1}, "damping must be in [0.5, 1), got 1"),
        ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"convergence_iter": 0}, "convergence_iter must be at least 1, got 0"),
        ({"max_iter": 1.5}, "max_iter must be a whole number, at least 1, got 1.5"),
        ({"top": 2**63}, "top must be at most 2,147,483,647, got 9223372036854775808"),
        ({"partitions": 2**40}, "partitions must be at most 1,000,000, got 1099511627776"),
        ({"engine": "gpu"}, f"engine must be one of {', '.join(get_args(EngineName))}, got 'gpu'"),
        ({"preference": float("nan")}, "preference must be a finite number, got nan"),
        ({"preference_quantile": 1.5}, "preference_quantile must be in [0, 1], got 1.5"),
        ({"preference": 1.0, "preference_quantile": 0.5}, "either preference or preference_quantile"),
        ({"gap": -0.1}, "gap must be at least 0, got -0.1"),
        ({"exact": True, "gap": None}, "exact needs polishing and a bound"),
        ({"exact": True, "polish": False}, "exact needs polishing and a bound"),
    ],
)
def test_parameters_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError) as error:
        Settings(**arguments)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert error.value.exit_code == 2


def test_arguments_of_a_wrong_type(frame: Frame) -> None:
    edges = frame([(0, 1, -1.0), (1, 0, -1.0)])
    with pytest.raises(SettingError, match="callback must be a function, got 1: leave it out for none"):
        affinity_propagation(edges, callback=1)
    with pytest.raises(SettingError, match=r"sparsification must be a `Sparsification`, got {}"):
        describe(edges, sparsification={})  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"similarity must be a `Similarity`, got 'cosine'"):
        cluster_points(edges, similarity="cosine")  # type: ignore[arg-type]


def test_ordinary_similarities_that_differ_much_are_no_reason_to_refuse(frame: Frame) -> None:
    """Gaussian kernels of far points vanish; of each point of two sources there is a copy that is rounded otherwise."""
    x = np.concatenate([np.random.default_rng(1).normal(size=(8, 2)), [[30.0, 0.0]] * 4 + np.eye(4, 2)])
    kernels = [(i, k, float(np.exp(s / 2))) for i, k, s in all_pairs(x)]
    assert min(s for *_, s in kernels) < 1e-150
    assert affinity_propagation(frame(kernels), preference=0.3).converged
    points = 1e3 * np.random.default_rng(2).normal(size=(10, 2))
    copies = [(i, k, s) for i, k, s in all_pairs(np.concatenate([points, points * (1.0 + 1e-14)])) if s < 0]
    clustering = affinity_propagation(frame(copies))
    assert min(abs(s) for *_, s in copies) < 1e-18
    assert clustering.summary.n_clusters < 10


def test_tables_of_an_earlier_result_are_freed_by_the_next_run(frame: Frame) -> None:
    """Java holds them as long as Python does, which here would not look for cycles by itself."""
    edges = frame([(i, k, -1.0 - i - 2.0 * k) for i in range(6) for k in range(6) if i != k])
    gc.disable()
    try:
        first = affinity_propagation(edges)
        assert first.assignments.count() == 6
        held = weakref.ref(first.assignments._jdf)
        del first
        affinity_propagation(edges)
        assert held() is None
    finally:
        gc.enable()
