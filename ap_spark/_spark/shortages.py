"""Errors that mean a shortage: a full disk, or too little memory."""

from __future__ import annotations

import re
from contextlib import suppress
from subprocess import TimeoutExpired

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException

__all__ = ["OUT_OF_MEMORY", "format_shortage"]

OUT_OF_MEMORY = 52  # exit code with which Spark ends its process where a task finds no memory
_KILLED = -9  # exit code of a process that the system has killed
_ENDING_S = 10.0  # seconds that Spark's process takes to end, at most
_NO_MEMORY = re.compile("OutOfMemoryError|Not enough memory|UNABLE_TO_ACQUIRE_MEMORY")


def format_shortage(error: Exception) -> str | None:
    """Say what is short, and what to do; return None for an error that means something else.

    Where Spark's process has ended, the error only says that it does not answer: then the exit code counts.
    """
    text = ""
    with suppress(Py4JError, OSError):  # the text of an error of Java is in Java, which may have ended
        text = str(error) if isinstance(error, (PySparkException, Py4JError)) else ""
    unanswered = isinstance(error, ConnectionError) or (
        isinstance(error, Py4JError) and (not isinstance(error, Py4JJavaError) or not text)
    )
    exit_code = _exit_code(_ENDING_S if unanswered or "SparkContext was shut down" in text else 0.0)
    if "No space left on device" in text:
        return "a disk with a local directory of Spark's is full (--conf spark.local.dir=DIR: another directory)"
    if exit_code == OUT_OF_MEMORY or _NO_MEMORY.search(text):
        return (
            "Spark ran out of memory: its heap is full "
            "(--conf spark.driver.memory=8g: more of it; on a cluster also spark.executor.memory)"
        )
    if exit_code == _KILLED:
        return (
            "Spark's process was killed, perhaps by the system because memory ran out: "
            "start again on a machine with more memory, or give Spark less (--conf spark.driver.memory)"
        )
    return None


def _exit_code(timeout_s: float) -> int | None:
    """Wait for Spark's process to end; return its exit code, or None if it lives on or is not ours."""
    process = getattr(SparkContext._gateway, "proc", None)
    try:
        return process and process.wait(timeout_s)
    except TimeoutExpired:
        return None
