"""A driver killed while it polishes, or bounds: the next run resumes after the iterations, bitwise identical."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ap_spark import Iteration, Step, affinity_propagation
from ap_spark.result import Clustering
from ap_spark.settings import Snapshots
from tests.conftest import ROOT, random_edges

# Run in a process of its own, which kills itself in the given step.
KILLED = """
import os, signal, sys
from ap_spark._spark.session import start_session
from tests.quality.test_resume import Watch, clustered

class Killing(Watch):
    def improving(self, step):
        if (step.name, step.done) == (sys.argv[3], 2):
            os.kill(os.getpid(), signal.SIGKILL)

clustered(start_session("local[2]", []), sys.argv[1], sys.argv[2], Killing())
"""


class Watch:
    """A callback that counts iterations and steps."""

    def __init__(self) -> None:
        self.iterations = 0
        self.steps: list[Step] = []

    def __call__(self, done: Iteration) -> None:
        self.iterations += 1

    def improving(self, step: Step) -> None:
        self.steps.append(step)


def clustered(spark: SparkSession, edges: str, checkpoint: str, watch: Watch) -> Clustering:
    snapshots = Snapshots(checkpoint=checkpoint, checkpoint_every="1000")
    return affinity_propagation(spark.read.parquet(edges), preference=-3.0, checkpoint=snapshots, callback=watch)


@pytest.mark.cluster
@pytest.mark.parametrize("step", ["polish", "bound"])
def test_a_run_killed_after_its_iterations_does_not_iterate_again(
    spark: SparkSession, tmp_path: Path, step: str
) -> None:
    edges = str(tmp_path / "edges.parquet")
    table = random_edges(np.random.default_rng(9), 80, 0.3, symmetric=False)
    pd.DataFrame(table, columns=["i", "k", "s"]).to_parquet(edges)
    whole = Watch()
    expected = clustered(spark, edges, str(tmp_path / "whole"), whole)
    assert whole.iterations > 10
    assert {done.name for done in whole.steps} == {"polish", "bound"}
    killed = str(tmp_path / "killed")
    command = [sys.executable, "-c", KILLED, edges, killed, step]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    again = Watch()
    found = clustered(spark, edges, killed, again)
    assert again.iterations == 0
    assert again.steps == whole.steps
    assert sorted(found.assignments.collect()) == sorted(expected.assignments.collect())
    numbers = ("n_iter", "netsim", "upper_bound", "gap", "converged")
    assert [getattr(found.summary, name) for name in numbers] == [getattr(expected.summary, name) for name in numbers]
