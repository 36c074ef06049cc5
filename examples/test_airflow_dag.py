"""The DAG, read by a real Airflow (`make test-airflow`); tests/test_examples.py has what needs none."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.serialization.serialized_objects import DagSerialization


@pytest.fixture(scope="module")
def dag():
    bag = DagBag(Path(__file__).with_name("airflow_dag.py"))
    assert bag.import_errors == {}
    return bag.dags["ap_spark"]


@pytest.fixture
def yarn(monkeypatch):
    """The connection of the DAG's docstring."""
    extra = {"yarn_resourcemanager_webapp_address": "http://resourcemanager:8088"}
    connection = {"conn_type": "spark", "host": "yarn", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_YARN", json.dumps(connection))


def test_the_scheduler_can_keep_it(dag):
    kept = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert kept.task_dict["cluster"].has_retry_policy
    assert kept.task_dict["cluster"].retries == 3
    assert (kept.max_active_runs, kept.catchup) == (1, False)
    assert kept.timetable.summary == "0 2 * * *"


def test_the_command_of_a_day(dag, yarn):
    task = copy.copy(dag.get_task("cluster"))
    task.render_template_fields({"ds": "2026-01-31"})
    hook = task._get_hook()
    hook._validate_yarn_track_via_rm_api_config()
    command = hook._build_spark_submit_command(task.application)
    program = command.index("/opt/ap-spark/jobs/cluster.py")
    assert command[0] == "spark-submit"
    pairs = list(zip(command[1:program:2], command[2:program:2], strict=True))
    conf = {value for option, value in pairs if option == "--conf"}
    assert dict(pair for pair in pairs if pair[0] != "--conf") == {
        "--master": "yarn",
        "--deploy-mode": "cluster",
        "--name": "ap-spark 2026-01-31",
        "--properties-file": "/opt/ap-spark/conf/cluster.properties",
        "--archives": "/opt/ap-spark/dist/ap-spark-environment.tar.gz#environment",
        "--num-executors": "8",
        "--executor-cores": "4",
    }
    assert conf == {
        "spark.pyspark.python=./environment/bin/python",
        "spark.yarn.maxAppAttempts=1",
        "spark.yarn.submit.waitAppCompletion=false",
    }
    arguments = command[program + 1 :]
    assert arguments[0] == "hdfs:///points/2026-01-31"
    assert "hdfs:///clusters/2026-01-31" in arguments
    assert "hdfs:///checkpoints/ap-spark/2026-01-31" in arguments
    assert not [argument for argument in arguments if "{" in argument]


@pytest.mark.parametrize(
    ("diagnosis", "action"),
    [
        ("User application exited with status 1", RetryAction.DEFAULT),
        ("User application exited with status 2", RetryAction.FAIL),
        ("User application exited with status 3", RetryAction.FAIL),
        ("User application exited with status 4", RetryAction.DEFAULT),
        ("User application exited with status 143", RetryAction.DEFAULT),
        ("Application killed by user", RetryAction.DEFAULT),
    ],
)
def test_only_what_may_pass_is_tried_again(dag, yarn, monkeypatch, diagnosis, action):
    task = dag.get_task("cluster")
    hook = task._get_hook()
    monkeypatch.setattr(hook, "_query_yarn_application_status", lambda _: ("FINISHED", "FAILED", diagnosis))
    with pytest.raises(RuntimeError) as error:
        hook._start_yarn_application_status_tracking("application_1_0001")
    assert task.retry_policy.evaluate(error.value, try_number=1, max_tries=3).action == action
