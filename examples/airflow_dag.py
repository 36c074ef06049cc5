"""Clusters each night's points on YARN. For Airflow 3.3 and newer, whose tasks can have a retry policy.

The worker needs `spark-submit` in its PATH, the Hadoop configuration in HADOOP_CONF_DIR, and the project in
/opt/ap-spark with the archive of `make pack`. The connection `yarn` says where the cluster is:

    airflow connections add yarn --conn-type spark --conn-host yarn \\
        --conn-extra '{"yarn_resourcemanager_webapp_address": "http://resourcemanager:8088"}'
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, RetryDecision, RetryPolicy

HOME = "/opt/ap-spark"


class UnlessInVain(RetryPolicy):
    """Retry, unless the job's exit code says that the same command would fail the same way.

    The job runs far from here, and `spark-submit` has ended long before it; but the operator's error quotes YARN's
    diagnosis, and that has the exit code.
    """

    def evaluate(self, exception, try_number, max_tries, context=None):
        code = re.search(r"User application exited with status (\d+)", str(exception))
        if code and code[1] == "2":
            return RetryDecision.fail("bad input or arguments (2): the log of the driver says which")
        if code and code[1] == "3":
            return RetryDecision.fail("not converged (3): it takes a larger --max-iter, or another preference")
        return RetryDecision.default()


with DAG(
    dag_id="ap_spark",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # The nights before today are not caught up with unasked: each is hours of a cluster (`airflow backfill create`).
    catchup=False,
    # One night at a time: two would share executors and disks, and both would be late.
    max_active_runs=1,
):
    SparkSubmitOperator(
        task_id="cluster",
        conn_id="yarn",
        deploy_mode="cluster",
        application=f"{HOME}/jobs/cluster.py",
        # `ds` is the day on which the run is due. A retry has the same one, and so the same command: it resumes from
        # the last snapshot. If the output was published already it ends at once (--if-exists skip).
        application_args=[
            "hdfs:///points/{{ ds }}",
            "--id-column",
            "id",
            "--neighbors",
            "50",
            "--output",
            "hdfs:///clusters/{{ ds }}",
            "--if-exists",
            "skip",
            "--checkpoint",
            "hdfs:///checkpoints/ap-spark/{{ ds }}",
            "--checkpoint-every",
            "10min",
            "--require-convergence",
        ],
        name="ap-spark {{ ds }}",
        properties_file=f"{HOME}/conf/cluster.properties",
        archives=f"{HOME}/dist/ap-spark-environment.tar.gz#environment",
        conf={
            "spark.pyspark.python": "./environment/bin/python",
            # Airflow tries again, and only where it helps; YARN would try everything twice.
            "spark.yarn.maxAppAttempts": "1",
        },
        num_executors=8,
        executor_cores=4,
        # YARN is asked how the job is doing, so that a worker that comes back finds the job that it left running.
        yarn_track_via_rm_api=True,
        status_poll_interval=30,
        retries=3,
        retry_delay=timedelta(minutes=10),
        retry_policy=UnlessInVain(),
    )
