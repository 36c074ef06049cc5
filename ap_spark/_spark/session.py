"""The Spark session: start or join it for the command and the jobs; change its settings for a block of code."""

from __future__ import annotations

import importlib.resources
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ap_spark._spark import classic
from ap_spark.errors import StorageError

__all__ = [
    "JAVA_OPTIONS",
    "configuration",
    "current_session",
    "few_partitions",
    "read_properties",
    "start_session",
    "with_log",
    "with_settings",
]

JAVA_OPTIONS = "spark.driver.extraJavaOptions"
_PARTITIONS = "spark.sql.shuffle.partitions"
_PARTITIONS_PER_CORE = 3
_QUICK_COMPILER = "-XX:TieredStopAtLevel=1"


def start_session(master: str | None = None, conf: Sequence[str] = (), *, short: bool = True) -> SparkSession:
    """Start the session, or join the one that spark-submit has prepared.

    Parameters
    ----------
    master : str, optional
        By default what spark-submit says, else all cores of this machine.
    conf : sequence of str
        Spark settings, "key=value". They win over `conf/local.properties`, which applies to a local master outside
        spark-submit.
    short : bool
        Whether the job is short: Java then compiles quickly rather than well, where conf/local.properties applies.

    Returns
    -------
    SparkSession

    Raises
    ------
    JavaNotFound
        If there is no Java to run Spark on.
    StorageError
        If Spark cannot write any of its local directories.
    """
    builder = SparkSession.builder.appName("ap-spark")
    settings: dict[str, Any] = {}
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # set by spark-submit
        from ap_spark.java import (
            use_java,  # here: `python -m ap_spark.java` would otherwise find itself imported
        )

        use_java()
        # Executors would otherwise start the python3 of their PATH.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        master = master or "local[*,4]"  # four attempts at a task, as on a cluster
        if master.startswith("local"):
            settings |= read_properties(configuration("local.properties"))
        settings[JAVA_OPTIONS] = with_log(settings.get(JAVA_OPTIONS, ""))
        if not short:
            settings[JAVA_OPTIONS] = settings[JAVA_OPTIONS].replace(_QUICK_COMPILER, "")
    if master:
        builder = builder.master(master)
    settings |= dict(setting.split("=", 1) for setting in conf)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        _check_local_directories(settings)
    return builder.config(map=settings).getOrCreate()


def current_session() -> SparkSession:
    """Return the session of this program; one with our settings is started where there is none."""
    return SparkSession.getActiveSession() or start_session()


def with_log(options: str) -> str:
    """Return options of Java with our configuration of its log."""
    return f"{options} -Dlog4j2.configurationFile={configuration('log4j2.properties').as_uri()}".strip()


def _check_local_directories(settings: Mapping[str, Any]) -> None:
    """Check that Spark can write one of its local directories: otherwise Java would end without a message."""
    named = os.environ.get("SPARK_LOCAL_DIRS") or settings.get("spark.local.dir")
    if not named:
        return
    problems = []
    for local in named.split(","):
        try:
            Path(local).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=local).close()
        except OSError as error:
            problems.append(f"{local}: {error.strerror}")
        else:
            return
    raise StorageError(
        f"Spark needs a local directory that it can write (--conf spark.local.dir=DIR), but {'; '.join(problems)}"
    )


def configuration(name: str) -> Path:
    """Return the path of a file of conf/: in the installed package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("ap_spark")))
    places = (package / "conf" / name, package.parent / "conf" / name)
    return next(place for place in places if place.exists())


def read_properties(path: Path) -> dict[str, str]:
    """Read a Spark properties file: a key, blanks, a value on each line; # begins a comment."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split(None, 1) for line in lines if line and not line.startswith("#"))
    return {key: value.strip() for key, value in pairs}


def few_partitions(spark: SparkSession) -> dict[str, str]:
    """Return settings for a few shuffle partitions for each core, on one machine.

    Spark does not merge the small partitions of a table that is persisted.
    """
    if not classic.is_local(spark):
        return {}
    wanted = int(str(spark.conf.get(_PARTITIONS)))
    return {_PARTITIONS: str(min(wanted, _PARTITIONS_PER_CORE * classic.cores(spark)))}


@contextmanager
def with_settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Change settings of the session, and restore them at the end."""
    before = {key: spark.conf.get(key) for key in settings}
    for key, value in settings.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            spark.conf.set(key, str(old))
