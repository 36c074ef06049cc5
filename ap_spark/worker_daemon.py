"""Spark's daemon of Python workers, without the stack that an idle one prints when Spark ends it after a minute.

Such a worker finds its socket closed, reports that as an error, to the closed socket, and fails at it. Set by
``spark.python.daemon.module`` in conf/local.properties.
"""

from __future__ import annotations

import sys
import traceback
from types import SimpleNamespace

from pyspark import daemon


def print_exc() -> None:
    if not isinstance(sys.exc_info()[1], BrokenPipeError):
        traceback.print_exc()


if __name__ == "__main__":
    setattr(daemon, "traceback", SimpleNamespace(print_exc=print_exc, format_exc=traceback.format_exc))  # noqa: B010
    daemon.manager()
