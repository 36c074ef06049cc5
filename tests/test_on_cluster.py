"""The jobs on the cluster of docker-compose.yml (`docker compose run --rm test`): the same bits as on one machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.outputs import result
from tests.test_jobs import start

pytestmark = pytest.mark.on_cluster

MASTER = os.environ.get("AP_SPARK_TEST_MASTER", "")
SHARED = Path(os.environ.get("AP_SPARK_TEST_SHARED", "/shared")) / "tests"
PROPERTIES = Path.home() / "cluster.properties"
TIMEOUT_S = 900  # seconds for a job, of which most take one minute
HISTORY = "http://history:18080/api/v1/applications"
STATE = "http://master:8080/json/"

# Spark then knows how many executors to wait for: both workers have one core.
CLUSTER = ["--master", MASTER, "--properties-file", str(PROPERTIES), "--conf", "spark.cores.max=2"]
LOCAL = ["--master", "local[2]", "--properties-file", str(ROOT / "conf" / "local.properties")]
JOB = str(ROOT / "jobs" / "cluster.py")
DIGITS = [str(ROOT / "data" / "digits.csv.gz"), "--feature-columns", "0-63"]


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """A directory that the driver and all workers see."""
    shutil.rmtree(SHARED, ignore_errors=True)
    SHARED.mkdir()
    yield
    shutil.rmtree(SHARED)


def submit(spark: list[str], *arguments: str, script: str = JOB) -> list[Any]:
    """What the job has written."""
    output = SHARED / "out"
    job = start(["spark-submit", *spark, script, *arguments, "--output", str(output), "--overwrite"], cwd=ROOT)
    told, _ = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0, told
    found = result(output)
    assert all(table for table in found)
    return found


@pytest.fixture(scope="module")
def digits() -> list[Any]:
    return submit(LOCAL, *DIGITS)


@pytest.mark.parametrize("options", [[], ["--engine", "resident", "--partitions", "4"]])
def test_the_digits(digits: list[Any], options: list[str]) -> None:
    assert submit(CLUSTER, *DIGITS, *options) == digits


@pytest.fixture(scope="module")
def graph() -> list[str]:
    """A random graph of a million edges: 20,000 points, each similar to 50 others."""
    n, others = 20_000, 50
    rng = np.random.default_rng(0)
    stride = (n - 1) // others
    i = np.repeat(np.arange(n), others)
    k = (i + 1 + np.tile(np.arange(others) * stride, n) + rng.integers(stride, size=len(i))) % n
    path = SHARED / "edges.parquet"
    pq.write_table(pa.table({"i": i, "k": k, "s": -rng.gamma(2.0, 1.0, len(i))}), path)
    return [str(path), "--edges"]


def ask(address: str) -> Any:
    with urlopen(address, timeout=10) as answer:
        return json.load(answer)


def executors_that_iterated(since: float) -> list[set[str]]:
    """For each stage of the resident engine with four blocks, in the job since then: the executors it ran on."""
    deadline = time.monotonic() + 60  # the history server looks for new jobs every ten seconds
    while (job := ask(f"{HISTORY}?status=completed")[0])["attempts"][0]["startTimeEpoch"] < since * 1000:
        assert time.monotonic() < deadline, "the history server shows the job"
        time.sleep(1)
    stages = ask(f"{HISTORY}/{job['id']}/stages?status=complete")
    iterated = [stage["stageId"] for stage in stages if "resident.py" in stage["name"] and stage["numTasks"] == 4]
    return [set(ask(f"{HISTORY}/{job['id']}/stages/{id}/0")["executorSummary"]) for id in iterated]


def test_a_random_graph_in_blocks_on_both_workers(graph: list[str]) -> None:
    options = [*graph, "--engine", "resident", "--partitions", "4", "--max-iter", "15"]
    since = time.time()
    on_cluster = submit(CLUSTER, *options)
    executors = executors_that_iterated(since)
    assert len(executors) >= 15
    assert all(len(both) == 2 for both in executors)
    assert on_cluster == submit(LOCAL, *options)


def test_a_random_graph_on_the_dataframe_engine(graph: list[str]) -> None:
    options = [*graph, "--engine", "dataframe", "--preference", "-0.3", "--damping", "0.5", "--max-iter", "4"]
    assert submit(CLUSTER, *options) == submit(LOCAL, *options)


PROBE = """
import sys
from pyspark.sql import SparkSession
from ap_spark.cli import main

def where(_):
    import ap_spark
    return sys.prefix, ap_spark.__file__

spark = SparkSession.builder.getOrCreate()
prefix, package = spark.sparkContext.parallelize([0], 1).map(where).first()
assert prefix.endswith("/environment"), prefix
assert package.startswith(prefix), package
code = main(["cluster", *sys.argv[1:]])
spark.stop()
sys.exit(code)
"""


def test_workers_that_get_their_python_from_the_archive() -> None:
    """What `make pack` has built is sent along, and the workers' own packages are not used."""
    probe = SHARED / "probe.py"
    probe.write_text(PROBE)
    archive = ROOT / "dist" / "ap-spark-environment.tar.gz"
    packed = ["--archives", f"{archive}#environment", "--conf", "spark.pyspark.python=./environment/bin/python"]
    packed += ["--conf", f"spark.pyspark.driver.python={sys.executable}"]
    iris = [str(ROOT / "data" / "iris.csv"), "--feature-columns", "0-3", "--engine", "resident", "--partitions", "2"]
    assert submit([*CLUSTER, *packed], *iris, script=str(probe)) == submit(LOCAL, *iris)


def applications() -> list[str]:
    state = ask(STATE)
    return sorted(job["id"] for job in state["activeapps"] + state["completedapps"])


def test_who_has_no_secret_is_refused() -> None:
    """Without authentication, and with another secret; the same job with the secret is what the other tests run."""
    lines = [line for line in PROPERTIES.read_text().splitlines() if not line.startswith("spark.authenticate.secret ")]
    assert len(lines) < len(PROPERTIES.read_text().splitlines())
    attempts = {"none": "spark.authenticate false", "another": f"spark.authenticate.secret {'0' * 64}"}
    jobs, before = {}, applications()
    for name, line in attempts.items():
        properties = SHARED / f"{name}.properties"
        properties.write_text("\n".join([*lines, line]))
        spark = ["--master", MASTER, "--properties-file", str(properties)]
        jobs[name] = start(["spark-submit", *spark, JOB, *DIGITS, "--output", str(SHARED / name)], cwd=ROOT)
    for name, job in jobs.items():
        told, _ = job.communicate(timeout=TIMEOUT_S)
        assert job.returncode == 1, told
        assert not (SHARED / name).exists()
    assert applications() == before, "the master has heard of none"
