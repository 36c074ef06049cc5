"""SIGTERM and Ctrl-C: a run stops after its iteration, everything else at once.

What Spark is doing outside of the iterations is cancelled as a job group. Under spark-submit the signal goes to the
Java process that started this one: there a shutdown hook passes it on, and waits until we are done.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from types import FrameType, TracebackType
from typing import Any

from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession

from ap_spark import classic
from ap_spark.errors import Interrupted

__all__ = ["Interrupts"]

FIRST = 100  # priority of a hook: before Spark's own, which stops the session
PATIENCE = 600  # seconds that Java waits for an iteration and a snapshot
ANSWER = 0.5  # seconds for the answer to reach Java, which would show a stack without it


class Interrupts:
    """Notes a signal that asks for the end; a second one ends the process without further ado.

    Attributes
    ----------
    received : signal.Signals or None
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.before: dict[signal.Signals, Any] = {}
        self.spark: SparkSession | None = None
        self.group = f"ap-spark-{uuid.uuid4()}"  # Spark refuses jobs of a cancelled group for ever
        self.hook = PassOn()

    def __enter__(self) -> Interrupts:
        self.take_signals()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.hook.let_go()

    def take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self.receive)
                self.before.setdefault(number, before)

    def attach(self, spark: SparkSession) -> None:
        """From now on jobs of this session are cancelled by a signal, but for `classic.spared` ones."""
        if self.received:
            raise Interrupted("stopped before anything was read")
        self.spark = spark
        self.take_signals()  # the session has set a handler of its own
        spark.sparkContext.setLocalProperty(classic.GROUP, self.group)
        if "PYSPARK_GATEWAY_PORT" in os.environ:
            gateway: Any = spark.sparkContext._gateway
            ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
            hooks = gateway.jvm.org.apache.hadoop.util.ShutdownHookManager.get()
            hooks.addShutdownHook(self.hook, FIRST, PATIENCE, gateway.jvm.java.util.concurrent.TimeUnit.SECONDS)

    def detach(self) -> None:
        """Leave the session alone."""
        if self.spark:
            self.spark.sparkContext.setLocalProperty(classic.GROUP, None)  # type: ignore[arg-type]
            self.spark = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        threading.Thread(target=self.cancel, daemon=True).start()  # Java is not to be called from inside a handler

    def cancel(self) -> None:
        if self.spark:
            self.spark.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(self.group)

    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that a signal has ended."""
        return 128 + (self.received or signal.SIGINT)


class PassOn:
    """A shutdown hook of Java's that sends this process SIGTERM and waits for its end."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.waits = False

    def run(self) -> None:
        if not self.over.is_set():
            self.waits = True
            os.kill(os.getpid(), signal.SIGTERM)
            self.over.wait(PATIENCE)

    def let_go(self) -> None:
        self.over.set()
        if self.waits:
            time.sleep(ANSWER)

    def hashCode(self) -> int:  # noqa: N802 - Java asks when it keeps hooks in a set
        return 0

    def equals(self, other: object) -> bool:
        return False

    class Java:
        implements = ("java.lang.Runnable",)
