"""What can go wrong, as one tree. Each error carries the exit code that the command line ends with.

ApSparkError            1  a fault of ours
├── InputError          2  the data break a rule
├── SettingError        2  a parameter breaks a rule (also a ValueError)
├── OutputError         2  the output cannot be placed where it was asked for
│   └── OutputInUse     1  for now: another run is at work on it
├── CheckpointError     2  snapshots are of another run, or cannot be written where they were asked for
├── JavaNotFound        2  no Java 17 or newer to run Spark on
├── NotConverged        3  only raised when convergence was required
├── StorageError        4  no room, or no permission, where messages are kept; the command: too little memory
└── Interrupted       130  asked to stop before the end; the command says 143 after SIGTERM, 129 after SIGHUP
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "ApSparkError",
    "CheckpointError",
    "InputError",
    "Interrupted",
    "JavaNotFound",
    "NotConverged",
    "OutputError",
    "OutputInUse",
    "SettingError",
    "StorageError",
    "errors_from_tasks",
]


class ApSparkError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InputError(ApSparkError):
    """The points, similarities or preferences break a rule; the message says which, where, and what to do."""

    exit_code = 2


class SettingError(ApSparkError, ValueError):
    """A parameter is outside its range, or two parameters exclude each other."""

    exit_code = 2


class OutputError(ApSparkError):
    """The output directory exists already, or cannot be written."""

    exit_code = 2


class OutputInUse(OutputError):
    """Another run is at work on the same output; that passes."""

    exit_code = 1


class CheckpointError(ApSparkError):
    """Snapshots are of another run or format, or their directory cannot be written."""

    exit_code = 2


class JavaNotFound(ApSparkError):
    """Spark needs Java 17 or newer and none was found."""

    exit_code = 2


class NotConverged(ApSparkError):
    """The run had not converged by ``max_iter``, and convergence was required."""

    exit_code = 3


class StorageError(ApSparkError):
    """A local directory of the driver or of an executor is full or cannot be written."""

    exit_code = 4


class Interrupted(ApSparkError):
    """The run was asked to stop, and did after an iteration."""

    exit_code = 130


@contextmanager
def errors_from_tasks() -> Iterator[None]:
    """Raise an InputError or SettingError that ended a task as one of the driver: that of a metric that fails, say."""
    from py4j.protocol import Py4JJavaError  # here, as in `wording`: the command's help needs no Spark
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        for kind in (SettingError, InputError):
            if found := re.search(rf"^ap_spark\.errors\.{kind.__name__}: (.*)", str(error), re.MULTILINE):
                raise kind(found[1]) from error
        raise
