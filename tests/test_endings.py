"""The three endings of a run with a damping of its own for each point, beside the oracle's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from ap_spark import Clustering, Interrupted
from ap_spark.cli import main
from tests import oracle
from tests.conftest import LONG, Edges, affinity_propagation, random_edges

Frame = Callable[[Edges], DataFrame]

PREFERENCE = -2.0


def restless(seed: int, n: int, n_points: int) -> Edges:
    """A random graph of n points some of which flip for ever, and pairs of points that come to rest at once."""
    edges = random_edges(np.random.default_rng(seed), n, 0.4, symmetric=False)
    for i in range(n, n_points, 2):
        edges += [(i, i + 1, -1.0), (i + 1, i, -1.5)]
    return edges


# the random graph, the number of points in all, and how the run ends
CASES: dict[str, tuple[int, int, int, str]] = {
    "all come to rest": (1, 8, 300, "converged"),
    "one point in 200 is unsettled": (35, 8, 600, "settled"),
    "more are unsettled": (35, 8, 398, "stopped"),
    "few points": (35, 8, 198, "stopped"),
    "refused before": (29, 16, 600, "settled"),
}
MAX_ITER = 90


def cluster(frame: Frame, edges: Edges, **options: Any) -> Clustering:
    given = {"preference": PREFERENCE, "jitter": False, "max_iter": MAX_ITER}
    return affinity_propagation(frame(edges), **(given | options))


@pytest.mark.parametrize(
    "options",
    [
        {"partitions": 1},
        pytest.param({"partitions": 3}, marks=LONG),
        pytest.param({"engine": "dataframe", "partitions": 2}, marks=LONG),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_endings_are_those_of_the_oracle(
    frame: Frame, caplog: pytest.LogCaptureFixture, case: str, options: dict[str, Any]
) -> None:
    seed, n, n_points, ending = CASES[case]
    edges = restless(seed, n, n_points)
    exemplars, n_iter, expected, unsettled = oracle.run_automatic(oracle.dense(n_points, edges, PREFERENCE), MAX_ITER)
    assert expected == ending
    with caplog.at_level(logging.WARNING):
        found = cluster(frame, edges, **options)
    summary = found.summary
    assert (found.n_iter, summary.ending, summary.unsettled) == (n_iter, ending, unsettled)
    assert found.converged == (ending == "converged")
    last = found.trace.orderBy("iteration").collect()[-1]
    assert (last.unsettled, last.exemplars) == (unsettled, exemplars.sum())
    assert ("not converged" in caplog.text) == (ending == "stopped")
    words = {
        "converged": f"converged after {n_iter} iterations",
        "settled": f"settled after {n_iter} iterations but for {unsettled} of {n_points:,} points",
        "stopped": f"NOT converged after {n_iter} iterations",
    }
    assert f"\n{words[ending]} (" in str(summary)


def test_a_fixed_damping_does_not_settle(frame: Frame) -> None:
    seed, n, n_points, _ = CASES["one point in 200 is unsettled"]
    found = cluster(frame, restless(seed, n, n_points), damping=0.5)
    assert (found.summary.ending, found.n_iter) == ("stopped", MAX_ITER)
    assert found.summary.unsettled > 0


@LONG
def test_a_run_that_was_refused_before_resumes_to_the_same_end(frame: Frame, tmp_path: Path) -> None:
    seed, n, n_points, _ = CASES["refused before"]
    edges = restless(seed, n, n_points)
    undisturbed = cluster(frame, edges)
    trace = undisturbed.trace.where("iteration >= 16").orderBy("iteration").collect()
    assert trace[0].unsettled <= n_points // 200 or trace[1].unsettled <= n_points // 200
    assert undisturbed.n_iter > 20, "it was refused before"
    snapshots = {"checkpoint": str(tmp_path / "snapshots"), "checkpoint_every": "1000"}
    for stop in range(17, undisturbed.n_iter, 3):
        with pytest.raises(Interrupted):
            cluster(frame, edges, **snapshots, callback=lambda done, stop=stop: done.iteration >= stop, partitions=2)
    resumed = cluster(frame, edges, **snapshots, partitions=2)
    for found in (undisturbed, resumed):
        assert found.summary.ending == "settled"
    assert resumed.n_iter == undisturbed.n_iter
    assert [row[:4] for row in resumed.trace.collect()] == [row[:4] for row in undisturbed.trace.collect()]
    assert sorted(resumed.assignments.collect()) == sorted(undisturbed.assignments.collect())


@pytest.mark.long
def test_a_run_that_has_settled_has_not_converged_for_the_flag(
    tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, n, n_points, _ = CASES["one point in 200 is unsettled"]
    lines = ["i,k,s", *(f"{i},{k},{s!r}" for i, k, s in restless(seed, n, n_points))]
    (tmp_path / "edges.csv").write_text("\n".join(lines))
    given = ["cluster", str(tmp_path / "edges.csv"), "--edges", "-p", str(PREFERENCE), "--no-jitter", "--output"]
    assert main([*given, str(tmp_path / "strict"), "--require-convergence"]) == 3
    assert "settled but for 3 of 600 points: try another preference" in capsys.readouterr().err
    assert not (tmp_path / "strict").exists()
    assert main([*given, str(tmp_path / "out")]) == 0
    assert "settled after 17 iterations but for 3 of 600 points (resident engine)" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["ending"] == "settled"
