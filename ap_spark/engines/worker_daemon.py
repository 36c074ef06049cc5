"""Spark's daemon of Python workers, with our imports done once, and without stack traces of workers that are idle.

Workers are forks of the daemon, so they find imported what it has imported. Spark ends a worker that has been idle for
a minute by closing its socket. The worker then tries to report an error to that socket, and PySpark prints the stack
of the failure, which means nothing to anybody. Set by ``spark.python.daemon.module`` in conf/local.properties.
"""

from __future__ import annotations

import sys
import traceback
from types import SimpleNamespace

from pyspark import daemon

import ap_spark.engines.tasks
import ap_spark.similarity.all_pairs  # noqa: F401


def _print_exc() -> None:
    """Print the error that is being handled, unless it is that of an idle worker."""
    if not isinstance(sys.exc_info()[1], BrokenPipeError):
        traceback.print_exc()


if __name__ == "__main__":
    setattr(daemon, "traceback", SimpleNamespace(print_exc=_print_exc, format_exc=traceback.format_exc))  # noqa: B010
    daemon.manager()
