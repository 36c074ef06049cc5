"""The cluster of docker-compose.yml, and what befalls it in a night (make test-compose).

Two workers with one core each. Jobs are submitted from containers of their own, and something is done to a container
once the job has told of its first snapshot. Whatever it is, the output has the bits of an undisturbed run elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.compose

PROJECT = f"ap-spark-test-{os.getpid()}"
NETWORK = f"{PROJECT}_default"
TIMEOUT = 20  # seconds of silence after which an executor is given up: Spark's 120 would only make the tests longer

JOB = "jobs/cluster.py /shared/edges.parquet --edges --partitions 2 -i 80 -c 80 -d 0.8 --checkpoint-every 20"
LOCAL = f"spark-submit --master local[2] --properties-file conf/local.properties {JOB}"
ON_CLUSTER = (
    "spark-submit --master spark://master:7077 --properties-file /home/spark/cluster.properties "
    f"--conf spark.cores.max=2 --conf spark.network.timeout={TIMEOUT}s --conf spark.network.timeoutInterval=5s "
    f"--conf spark.executor.heartbeatInterval=2s --conf spark.shuffle.io.retryWait=1s {JOB}"
)
EDGES = """
import numpy as np, pandas as pd
rng = np.random.default_rng(3)
i, k = np.repeat(np.arange(20_000), 50), rng.integers(0, 20_000, 1_000_000)
edges = pd.DataFrame({"i": i, "k": k, "s": -rng.gamma(2.0, 1.0, len(i))})[i != k].drop_duplicates(["i", "k"])
edges.to_parquet("/shared/edges.parquet")
"""


def compose() -> list[str]:
    """`docker compose`, or `docker-compose` where that is what there is."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    return [*(["docker", "compose"] if plugin else ["docker-compose"]), "--project-name", PROJECT]


def call(*command: str, timeout: float = 600) -> str:
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def run(*command: str, service: str = "demo", timeout: float = 1800) -> str:
    """Run a command, or what the service is for, in a container of the cluster."""
    return call(*compose(), "run", "--rm", "-T", service, *command, timeout=timeout)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    call(*compose(), "build", timeout=3000)
    try:
        yield
    finally:
        subprocess.run([*compose(), "down", "--volumes", "--timeout", "5"], cwd=ROOT, capture_output=True, check=False)


def test_the_demo_is_all_it_takes() -> None:
    """From nothing: no container, no volume, no secret."""
    assert "1,797 points, 3,227,412 similarities: 17 clusters" in run()


def test_jobs_on_the_cluster_give_the_bits_of_one_machine() -> None:
    """The digits, a million edges, both engines, packages sent along in an archive, and none without the secret."""
    run("sh", "-ec", "make pack; python -m pytest -q -m on_cluster tests/test_on_cluster.py", service="test")


@pytest.fixture(scope="module")
def expected() -> str:
    """The digest of an undisturbed run on one machine."""
    run("python", "-c", EDGES)
    run(*LOCAL.split(), "--output", "/shared/expected")
    return digest("expected")


def digest(output: str) -> str:
    return run("python", "-m", "tests.outputs", f"/shared/{output}").splitlines()[-1]


def workers() -> list[str]:
    return call(*compose(), "ps", "-q", "worker").split()


@contextmanager
def job(name: str) -> Iterator[subprocess.Popen[str]]:
    """A job on the cluster that has come to its first snapshot."""
    command = [*compose(), "run", "--rm", "-T", "--name", f"{PROJECT}-{name}", "demo", *ON_CLUSTER.split()]
    command += ["--output", f"/shared/{name}", "--checkpoint", f"/shared/{name}-checkpoint"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(process, "snapshot after iteration 20")
    try:
        yield process
    finally:
        with suppress(AssertionError):
            call("docker", "rm", "--force", f"{PROJECT}-{name}")
        process.wait(60)


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Until a job has told something."""
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return
    raise AssertionError("".join(lines))


def ended(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=900)
    assert process.returncode == 0, told
    return told


def test_one_worker_is_killed_and_then_the_other(expected: str) -> None:
    with job("worker-killed") as process:
        first, second = workers()
        call("docker", "kill", first)
        wait_for(process, "snapshot after iteration 40")
        call("docker", "start", first)
        time.sleep(TIMEOUT)  # it registers, and gets an executor of the job
        call("docker", "kill", second)
        assert "Lost executor" in ended(process)
    call("docker", "start", second)
    assert digest("worker-killed") == expected


def test_a_driver_is_killed(expected: str) -> None:
    with job("driver-killed") as process:
        call("docker", "kill", f"{PROJECT}-driver-killed")
        process.communicate(timeout=60)
        assert process.returncode == 137
    command = [
        *ON_CLUSTER.split(),
        "--output",
        "/shared/driver-killed",
        "--checkpoint",
        "/shared/driver-killed-checkpoint",
    ]
    assert "resuming after iteration 20" in run(*command)
    assert digest("driver-killed") == expected


def test_a_driver_is_stopped(expected: str) -> None:
    """`docker stop`, like Kubernetes and YARN, sends SIGTERM to Java; Python takes a snapshot all the same."""
    with job("driver-stopped") as process:
        call("docker", "stop", "--time", "120", f"{PROJECT}-driver-stopped")
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 143
        assert "with a snapshot in file:/shared/driver-stopped-checkpoint: the same command resumes" in told
    command = [*ON_CLUSTER.split(), "--output", "/shared/driver-stopped"]
    assert "resuming after iteration" in run(*command, "--checkpoint", "/shared/driver-stopped-checkpoint")
    assert digest("driver-stopped") == expected


def test_a_worker_is_paused_for_longer_than_the_heartbeat(expected: str) -> None:
    with job("worker-paused") as process:
        paused = workers()[-1]
        call("docker", "pause", paused)
        try:
            time.sleep(2 * TIMEOUT)
        finally:
            call("docker", "unpause", paused)
        assert "Lost executor" in ended(process)
    assert digest("worker-paused") == expected


def test_a_worker_is_cut_off_and_comes_back(expected: str) -> None:
    with job("network-cut") as process:
        cut = workers()[-1]
        call("docker", "network", "disconnect", NETWORK, cut)
        try:
            time.sleep(2 * TIMEOUT)
        finally:
            call("docker", "network", "connect", "--alias", "worker", NETWORK, cut)
        assert "Lost executor" in ended(process)
    assert digest("network-cut") == expected
