"""The examples: arguments for schedulers are ours, their settings the cluster's; the notebook runs. No Spark."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pyspark
import pytest
import yaml
from kubeflow_spark_api.models.spark_v1beta2_spark_application import SparkV1beta2SparkApplication
from nbclient import NotebookClient

from ap_spark.options import check_together, record
from ap_spark.parser import make_parser
from ap_spark.settings import GROUPS, Input, Settings, Similarity
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
DAY = "2026-01-31"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a command with programs that only say how they were called."""
    for name, script in {
        "spark-submit": 'printf "%s\\n" "$@"',
        "ap-spark": 'printf "%s\\n" "$@"',
        "date": f"[ $1 = +%F ] && echo {DAY}",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def run(command: list[str], **environment: str) -> list[str]:
        environment = {**os.environ, **environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        assert not done.stderr
        return done.stdout.splitlines()

    return run


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text().replace("${DAY}", DAY))
    return found


def airflow(run: Callable[..., list[str]], tmp_path: Path) -> list[str]:
    tree = ast.parse((EXAMPLES / "airflow_dag.py").read_text())
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "application_args"]
    return [argument.replace("{{ ds }}", DAY) for keyword in keywords for argument in ast.literal_eval(keyword.value)]


def cron(run: Callable[..., list[str]], tmp_path: Path) -> list[str]:
    lines = [line for line in (EXAMPLES / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    environment = dict(line.split("=", 1) for line in lines[:-1])
    environment |= {"STATE": str(tmp_path)}
    *times, command = lines[-1].split(maxsplit=5)
    assert times == ["0", "2-6", "*", "*", "*"]
    assert command.count("%") == command.count("\\%"), "cron takes a % for the end of the line"
    assert run([environment["SHELL"], "-c", command.replace("\\%", "%")], **environment) == []
    said = (tmp_path / f"{DAY}.log").read_text().splitlines()
    assert said.pop(0) == "cluster"
    return said


def kubernetes(run: Callable[..., list[str]], tmp_path: Path) -> list[str]:
    return [str(argument) for argument in manifest()["spec"]["arguments"]]


def yarn(run: Callable[..., list[str]], tmp_path: Path) -> list[str]:
    said = run([str(EXAMPLES / "yarn.sh")])
    return said[said.index("jobs/cluster.py") + 1 :]


@pytest.mark.parametrize("example", [airflow, cron, kubernetes, yarn])
def test_the_job_takes_the_arguments(
    example: Callable[..., list[str]], run: Callable[..., list[str]], tmp_path: Path
) -> None:
    given = make_parser().parse_args(["cluster", *example(run, tmp_path)])
    assert DAY in given.input[0]
    assert DAY in given.output
    assert DAY in given.checkpoint, "one day's messages are not another's"
    assert given.if_exists == "skip", "to start again what is done does no harm"
    for group in GROUPS.values():
        record(group, given)
    check_together(record(Settings, given), record(Input, given), record(Similarity, given))


def test_the_manifest_is_one_of_the_operator() -> None:
    found = SparkV1beta2SparkApplication.from_dict(manifest())
    assert found is not None
    assert found.to_dict() == manifest(), "the operator's own model drops what it does not know"
    spec = manifest()["spec"]
    assert spec["sparkVersion"] == pyspark.__version__
    for pod in (spec["driver"], spec["executor"]):
        assert [mount["name"] for mount in pod["volumeMounts"]] == [volume["name"] for volume in spec["volumes"]]
        assert pod["podSecurityContext"]["runAsNonRoot"]


def test_the_manifest_has_the_settings_for_clusters() -> None:
    lines = (ROOT / "conf" / "cluster.properties").read_text().splitlines()
    wanted = dict(line.split() for line in lines if line and not line.startswith("#"))
    spec = manifest()["spec"]
    given = spec["sparkConf"] | {
        "spark.driver.memory": spec["driver"]["memory"],
        "spark.executor.memory": spec["executor"]["memory"],
        "spark.executor.memoryOverhead": spec["executor"]["memoryOverhead"],
    }
    assert given.items() >= wanted.items()


@pytest.mark.programs
def test_the_notebook_runs_and_shows_what_is_stored_in_it() -> None:
    notebook = nbformat.read(EXAMPLES / "flowers.ipynb", as_version=4)  # type: ignore[no-untyped-call]

    def shown() -> list[list[str]]:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        return [[output.data["text/plain"] for output in cell.outputs] for cell in cells]

    stored = shown()
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": EXAMPLES}}).execute()
    assert shown() == stored
    assert all(len(outputs) == 1 for outputs in stored)
