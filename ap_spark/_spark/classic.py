"""Calls that exist only on classic Spark.

On Spark Connect each does nothing, or the nearest to it, so that callers need not know where they run.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

__all__ = [
    "GROUP",
    "GROUP_PREFIX",
    "UNCANCELLABLE_SUFFIX",
    "cores",
    "free_unused",
    "is_connect",
    "is_local",
    "name_jobs",
    "only_reads_files",
    "reads_this_machine",
    "release",
    "replicated_checkpoint",
    "uncancellable",
]

GROUP = "spark.jobGroup.id"
# How the names of the job groups of the command begin, and how that of `uncancellable` ends.
GROUP_PREFIX, UNCANCELLABLE_SUFFIX = "ap-spark-", "-uncancellable"

_UNKNOWN_CORES = 8  # a Connect client cannot ask how many cores its cluster has


def is_connect(spark: SparkSession) -> bool:
    """Return whether the session is a Spark Connect client, without a JVM of its own."""
    return type(spark).__module__.startswith("pyspark.sql.connect")


def is_local(spark: SparkSession) -> bool:
    """Return whether the driver is the only executor; False on Spark Connect, which cannot know."""
    return not is_connect(spark) and re.match(r"local\b(?!-)", str(spark.sparkContext.master)) is not None


_SCANS = {"Project", "Filter", "LogicalRelation", "DataSourceV2Relation", "LocalRelation", "InMemoryRelation"}


def only_reads_files(table: DataFrame) -> bool:
    """Return whether a table is read row by row from files or memory: cheap to read again, and the same each time."""

    def is_scan(plan: Any) -> bool:
        children = plan.children()
        return (
            plan.nodeName() in _SCANS
            and plan.deterministic()
            and all(is_scan(children.apply(n)) for n in range(children.size()))
        )

    return not is_connect(table.sparkSession) and is_scan(table._jdf.queryExecution().withCachedData())


def free_unused(spark: SparkSession) -> None:
    """Let Java free the tables of earlier results that nobody holds any more.

    An object of py4j refers to itself, so it lives until Python looks for cycles. Python seldom does while Java works.
    """
    if not is_connect(spark):
        gc.collect()


def reads_this_machine(spark: SparkSession) -> bool:
    """Return whether a path without a scheme is one of this machine; a Connect client cannot know."""
    if is_connect(spark):
        return False
    return str(spark.sparkContext._jsc.hadoopConfiguration().get("fs.defaultFS")).startswith("file:")


def cores(spark: SparkSession) -> int:
    """Return the number of tasks that the cluster runs at once."""
    return _UNKNOWN_CORES if is_connect(spark) else spark.sparkContext.defaultParallelism


def name_jobs(spark: SparkSession, text: str) -> None:
    """Name the jobs that follow in the Spark UI (classic only)."""
    if not is_connect(spark):
        spark.sparkContext.setJobDescription(text)


@contextmanager
def uncancellable(spark: SparkSession) -> Iterator[None]:
    """Run jobs in a group of their own, which is not cancelled together with the group of the command."""
    group = ("" if is_connect(spark) else spark.sparkContext.getLocalProperty(GROUP)) or ""
    if not group.startswith(GROUP_PREFIX) or group.endswith(UNCANCELLABLE_SUFFIX):
        yield
        return
    spark.sparkContext.setLocalProperty(GROUP, group + UNCANCELLABLE_SUFFIX)
    try:
        yield
    finally:
        spark.sparkContext.setLocalProperty(GROUP, group)


def replicated_checkpoint(table: DataFrame) -> DataFrame:
    """Return a local checkpoint that survives the loss of an executor, where there is more than one."""
    spark = table.sparkSession
    if is_connect(spark) or is_local(spark):
        return table.localCheckpoint()
    return table.localCheckpoint(storageLevel=StorageLevel(True, True, False, True, 2))


def release(checkpointed: DataFrame) -> None:
    """Free the storage of a local checkpoint now.

    ``DataFrame.unpersist`` does not free it. On Connect the server does, once the client has dropped its reference.
    """
    if not is_connect(checkpointed.sparkSession):
        plan = cast("object", checkpointed._jdf.queryExecution().analyzed())
        plan.rdd().unpersist(False)  # type: ignore[attr-defined]
