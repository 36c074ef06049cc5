"""What an error means that comes from a machine without room: a full disk, too little memory."""

from __future__ import annotations

import re
from contextlib import suppress
from subprocess import TimeoutExpired

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException

__all__ = ["shortage"]

OUT_OF_MEMORY, KILLED = 52, -9  # how Spark's process ends: by itself, where a task finds no memory; by the system
ENDING = 10.0  # seconds that it takes to, at most
NO_MEMORY = re.compile("OutOfMemoryError|Not enough memory|UNABLE_TO_ACQUIRE_MEMORY")


def shortage(error: Exception) -> str | None:
    """What is short, and what to do; None if the error is another.

    Where Spark's process has ended, the error says only that it does not answer.
    """
    text = ""
    with suppress(Py4JError, OSError):  # an error of Java's has its text in that process
        text = str(error) if isinstance(error, (PySparkException, Py4JError)) else ""
    unanswered = isinstance(error, ConnectionError) or (
        isinstance(error, Py4JError) and (not isinstance(error, Py4JJavaError) or not text)
    )
    code = ended(ENDING if unanswered or "SparkContext was shut down" in text else 0.0)
    if "No space left on device" in text:
        return "Spark's local directories must have room, but a disk is full (--conf spark.local.dir=DIR: another)"
    if code == OUT_OF_MEMORY or NO_MEMORY.search(text):
        return (
            "Spark must have enough memory, but its heap is full "
            "(--conf spark.driver.memory=8g: more; on a cluster also spark.executor.memory)"
        )
    if code == KILLED:
        return "Spark's process must not be killed, but it was, perhaps by the system for want of memory"
    return None


def ended(patience: float) -> int | None:
    """The exit code of Spark's process; None if it lives on, or is not ours."""
    process = getattr(SparkContext._gateway, "proc", None)
    try:
        return process and process.wait(patience)
    except TimeoutExpired:
        return None
