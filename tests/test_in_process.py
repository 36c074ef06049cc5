"""Small data clustered in this process: no Spark is started, and the bits are those of Spark."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ap_spark import (
    Clustering,
    Execution,
    InputError,
    Interrupted,
    Iteration,
    Quality,
    SettingError,
    Similarity,
    Sparsification,
    affinity_propagation,
    cluster_points,
)
from tests.conftest import LONG, ROOT, Edges, all_pairs

RNG = np.random.default_rng(11)
POINTS = pd.DataFrame(RNG.normal(size=(60, 3)).round(1), columns=["x", "y", "z"])
NAMES = POINTS.set_index(pd.Index([f"é{number * 7 % 60}" for number in range(60)]))
OWN = pd.DataFrame({"id": POINTS.index[::-1], "preference": -np.arange(60.0)})

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "numbers": (POINTS, {}),
    "names": (NAMES, {"preference": -9.0}),
    "array": (POINTS.to_numpy(), {"damping": 0.8, "seed": None}),
    "preferences": (POINTS, {"preference": OWN}),
    "neighbours": (NAMES, {"similarity": Similarity(neighbors=7, metric="manhattan")}),
    "cosine": (POINTS + 1, {"similarity": Similarity(metric="cosine"), "preference_quantile": 0.2}),
    "function": (POINTS, {"similarity": Similarity(metric=lambda x, y: x @ y.T, neighbors=9)}),
    "clusters": (POINTS, {"clusters": 5}),
    "one-sided": (
        POINTS,
        {
            "similarity": Similarity(neighbors=5),
            "sparsification": Sparsification(symmetrize="mutual", min_similarity=-4.0),
        },
    ),
    "messages alone": (POINTS, {"quality": Quality(polish=False, gap=None), "max_iter": 20}),
}


def told(clustering: Any) -> dict[str, Any]:
    """A summary without what may differ: how long it took, on what, and how it was to be computed."""
    about: dict[str, Any] = vars(clustering.summary) | {"seconds": None, "versions": None, "engine": None}
    execution = {"engine": None, "partitions": None, "metric": None}
    return about | {"settings": about["settings"] | execution}


@pytest.mark.parametrize("name", [case if case == "names" else pytest.param(case, marks=LONG) for case in CASES])
@pytest.mark.usefixtures("spark")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_bits_are_those_of_spark(name: str) -> None:
    points, options = CASES[name]
    here = cluster_points(points, **options)
    there = cluster_points(points, **options, execution=Execution(engine="resident", partitions=3))
    assert (here.summary.engine, there.summary.engine) == ("in-process", "resident")
    assert told(here) == told(there)
    for table in ("assignments", "exemplars"):
        pd.testing.assert_frame_equal(getattr(here, table), getattr(there, table), check_exact=True)
    columns = ["iteration", "exemplars", "changed", "unsettled"]
    assert here.trace[columns].equals(there.trace[columns].astype(here.trace[columns].dtypes))
    assert list(here.assignments["id"]) == list(range(60) if name == "array" else points.index)


SCORES = pd.DataFrame(
    {"i": list("abcab"), "k": list("bcdcd"), "s": [0.9, 0.2, 0.7, 0.3, 0.1]},
)


@pytest.mark.usefixtures("spark")
def test_similarities_too(tied: Edges) -> None:
    table = pd.DataFrame(tied, columns=["i", "k", "s"])
    for similarities, options in (
        (table, {"points": pd.DataFrame({"id": range(45)})}),
        (SCORES, {"preference": 0.1, "sparsification": Sparsification(symmetrize="union")}),
    ):
        here = affinity_propagation(similarities, **options)
        there = affinity_propagation(similarities, **options, execution=Execution(engine="resident"))
        assert told(here) == told(there)
        pd.testing.assert_frame_equal(here.assignments, there.assignments, check_exact=True)


def test_no_spark_is_started() -> None:
    program = (
        "import numpy as np; from ap_spark import cluster_points; from pyspark.sql import SparkSession\n"
        "found = cluster_points(np.array([[1.0], [2.0], [3.0], [7.0], [8.0], [9.0]]), preference=-25.0)\n"
        "assert found.assignments['exemplar'].tolist() == [1, 1, 1, 4, 4, 4]\n"
        "assert SparkSession.getActiveSession() is None"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PATH": "", "JAVA_HOME": "/nowhere"})


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    ("points", "options"),
    [
        (POINTS.assign(x=np.nan), {}),
        (pd.DataFrame({"id": [1, 1, 2], "x": [1.0, 2.0, 3.0]}), {}),
        pytest.param(POINTS, {"preference": OWN.head(10)}, marks=LONG),
        pytest.param(POINTS * 0, {"similarity": Similarity(metric="cosine")}, marks=LONG),
        pytest.param(POINTS.assign(preference=-1.0), {"preference": -2.0}, marks=LONG),
        pytest.param(POINTS, {"clusters": 61}, marks=LONG),
        pytest.param(POINTS.assign(x="a"), {}, marks=LONG),
    ],
)
def test_what_is_wrong_is_refused_in_the_words_of_spark(points: Any, options: Any, spark: SparkSession) -> None:
    with pytest.raises((InputError, SettingError)) as here:
        cluster_points(points, **options)
    with pytest.raises((InputError, SettingError)) as there:
        cluster_points(points, **options, execution=Execution(engine="resident"))
    assert str(here.value) == str(there.value)


def test_a_result_of_pandas_is_pickled_and_shown_in_a_notebook(caplog: pytest.LogCaptureFixture) -> None:
    found = cluster_points(NAMES.set_index(NAMES.index.where(NAMES.index != "é0", "<b>&")), preference=-9.0)
    again = pickle.loads(pickle.dumps(found))
    assert again.summary == found.summary
    assert again.assignments.equals(found.assignments)
    shown = found._repr_html_()
    assert f"of {found.summary.n_clusters} clusters" in shown
    assert "<b>" not in shown
    assert f"<td>{found.exemplars['size'].max()}</td>" in shown
    assert found.largest()[0][1] == found.exemplars["size"].max()
    with caplog.at_level(logging.WARNING):
        stopped = cluster_points(POINTS, max_iter=1, quality=Quality(polish=False, gap=None), preference=-1e3)
    assert "not converged after 1 iteration" in caplog.text
    assert "<table>" not in stopped._repr_html_()
    assert stopped.assignments.empty


def test_a_callback_may_stop_it() -> None:
    seen: list[int] = []

    def stops(done: Iteration) -> bool:
        seen.append(done.iteration)
        return done.iteration == 4

    with pytest.raises(Interrupted, match="after iteration 4"):
        cluster_points(POINTS, callback=stops)
    assert seen == [1, 2, 3, 4]


def test_the_errors_of_a_callback_are_its_own() -> None:
    """They are not taken for those of the data, which would go to Spark."""

    def fails(done: Iteration) -> None:
        raise InputError(f"mine, {done.iteration}")

    with pytest.raises(InputError, match="mine, 1"):
        cluster_points(POINTS, callback=fails)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (pd.DataFrame(np.eye(3)[:, :2], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])), "single row of"),
        (pd.DataFrame({"x": [1.0, 2.0], "z": pd.Categorical(["a", "b"])}), "column 'z' holds text"),
        (pd.DataFrame({"x": [1.0, 2.0]}, index=[2**70, 1]), "columns of numbers, strings or arrays"),
        (np.arange(4.0), r"shape \(n_points, n_features\)"),
        (np.array(5.0), r"shape \(n_points, n_features\)"),
    ],
)
def test_mistakes_are_told_without_spark(points: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def started() -> None:
        raise AssertionError("a session was started")

    monkeypatch.setattr("ap_spark.io.frames.current_session", started)
    with pytest.raises(InputError, match=message):
        cluster_points(points)


@pytest.mark.usefixtures("spark")
@pytest.mark.long
def test_what_this_process_has_found_is_saved(tmp_path: Any) -> None:
    found = cluster_points(NAMES, preference=-9.0)
    found.save(tmp_path / "out")
    loaded = Clustering.load(tmp_path / "out").to_pandas()
    expected = found.assignments.sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(loaded.assignments, expected, check_exact=True)
    assert loaded.summary.netsim == found.summary.netsim


def test_a_graph_in_this_process_is_that_of_the_definition() -> None:
    """Without Spark's help: the exemplars of all pairs by brute force over all sets of exemplars."""
    x = np.array([[0.0], [1.0], [3.0], [10.0], [11.0], [14.0]])
    pairs = all_pairs(x)
    s = np.full((6, 6), 0.0)
    for i, k, value in pairs:
        s[i, k] = value
    best = max(
        sum(-6.0 if chosen[i] else max(s[i, k] for k in range(6) if chosen[k]) for i in range(6))
        for number in range(1, 64)
        if (chosen := [bool(number >> k & 1) for k in range(6)])
    )
    found = cluster_points(x, preference=-6.0).summary
    assert found.netsim == best
    assert found.gap == 0.0


def test_the_digits_are_near_their_proved_optimum() -> None:
    """50 neighbours, the median: the best net similarity is -723,403, which a solver has proved."""
    digits = np.loadtxt(ROOT / "data" / "digits.csv.gz", delimiter=",", skiprows=1, usecols=range(64))
    about = cluster_points(digits, similarity=Similarity(neighbors=50)).summary
    assert -723_403 * 1.0001 <= about.netsim <= -723_403
    assert about.upper_bound is not None
    assert about.upper_bound >= -723_403
