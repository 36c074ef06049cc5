"""Spark's daemon of Python workers: it imports once what every worker needs, and spares the log a stack.

Workers are forks of it. One that Spark ends after a minute's idleness finds its socket closed, reports that as an
error, to the closed socket, and fails at it. Set by ``spark.python.daemon.module`` in conf/local.properties.
"""

from __future__ import annotations

import sys
import traceback
from types import SimpleNamespace

from pyspark import daemon

import ap_spark.engines.tasks
import ap_spark.similarity.all_pairs  # noqa: F401


def print_exc() -> None:
    if not isinstance(sys.exc_info()[1], BrokenPipeError):
        traceback.print_exc()


if __name__ == "__main__":
    setattr(daemon, "traceback", SimpleNamespace(print_exc=print_exc, format_exc=traceback.format_exc))  # noqa: B010
    daemon.manager()
