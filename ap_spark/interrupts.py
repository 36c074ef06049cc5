"""SIGTERM and Ctrl-C: a run stops after its iteration, everything else at once.

What Spark is doing outside of the iterations is cancelled as a job group. Under spark-submit the signal may go to the
Java process that started this one, and a terminal or a scheduler may send it to both: a shutdown hook in Java passes
it on, and waits until we are done.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

from py4j.protocol import Py4JError
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession

from ap_spark import classic
from ap_spark.errors import Interrupted

__all__ = ["Interrupts"]

FIRST = 100  # priority of a hook: before Spark's own, which stops the session
PATIENCE = 600  # seconds that Java waits for an iteration and a snapshot
SAME = 2.0  # seconds within which a second signal is the first one again, that reached us in two ways
ANSWER = 0.5  # seconds for the hook's answer to reach Java, which would show a stack without it
LAST_WORDS = 10.0  # seconds that a Java with a reason of its own waits, for us to tell of it


class Interrupts:
    """Notes a signal that asks for the end; a second one ends the process without further ado.

    Attributes
    ----------
    received : signal.Signals or None
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.at = 0.0
        self.before: dict[signal.Signals, Any] = {}
        self.spark: SparkSession | None = None
        self.group = f"ap-spark-{uuid.uuid4()}"  # Spark refuses jobs of a cancelled group for ever
        self.over = threading.Event()
        self.java_waits = False
        self.hook: Any = None
        self.submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # Java has started us, not we Java

    def __enter__(self) -> Interrupts:
        self.take_signals()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.over.set()
        if self.java_waits:
            time.sleep(ANSWER)

    def take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self.receive)
                self.before.setdefault(number, before)

    def attach(self, spark: SparkSession) -> None:
        """From now on jobs of this session are cancelled by a signal, but for `classic.spared` ones."""
        if self.received:
            raise Interrupted("stopped before anything was read: the same command starts again")
        self.spark = spark
        self.take_signals()  # the session has set a handler of its own
        spark.sparkContext.setLocalProperty(classic.GROUP, self.group)
        gateway: Any = spark.sparkContext._gateway
        ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
        self.hook = gateway.jvm.java.lang.Thread(PassOn(self))
        seconds = gateway.jvm.java.util.concurrent.TimeUnit.SECONDS
        self.hooks.addShutdownHook(self.hook, FIRST, PATIENCE, seconds)

    @property
    def hooks(self) -> Any:
        assert self.spark is not None
        jvm: Any = self.spark.sparkContext._jvm
        return jvm.org.apache.hadoop.util.ShutdownHookManager.get()

    def detach(self) -> None:
        """Leave the session alone: it is not ours, or about to be stopped."""
        if self.spark:
            with suppress(Py4JError, OSError):  # Java is about to end
                self.spark.sparkContext.setLocalProperty(classic.GROUP, None)  # type: ignore[arg-type]
                self.hooks.removeShutdownHook(self.hook)
            self.spark = None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        if self.received:
            if time.monotonic() - self.at > SAME and threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            return
        self.received, self.at = signal.Signals(number), time.monotonic()
        threading.Thread(target=self.cancel, daemon=True).start()  # Java is not to be called from inside a handler

    def cancel(self) -> None:
        with suppress(Py4JError, OSError, AttributeError):  # the session has ended in the meantime
            if self.spark:
                self.spark.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(self.group)

    def java_was_signalled(self) -> bool:
        """Whether a signal ends Java, which takes each in a thread named after it, such as "SIGTERM handler"."""
        with suppress(Py4JError, OSError, AttributeError):  # it has no memory, or is let go: not by a signal
            jvm: Any = self.spark and self.spark.sparkContext._jvm
            threads = jvm.java.lang.Thread.getAllStackTraces().keySet()
            return any(thread.getName().startswith("SIG") for thread in threads)
        return False

    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that a signal has ended."""
        return 128 + (self.received or signal.SIGINT)


class PassOn:
    """What a thread of Java's runs at its end: it tells us, and waits for ours.

    A Java that we have started, and that ends without a signal to us as well, ends for a reason of its own, such as
    too little memory. One that has started us, and ends without a signal to itself, does so too.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def run(self) -> None:
        ours = self.interrupts
        if not ours.submitted and not ours.received:
            ours.over.wait(ANSWER)  # the signal may be on its way
        if ours.over.is_set() or not (ours.submitted or ours.received):
            return
        ours.java_waits = True
        if ours.received or ours.java_was_signalled():
            ours.receive(signal.SIGTERM)
            ours.over.wait(PATIENCE)
        else:
            ours.over.wait(LAST_WORDS)

    class Java:
        implements = ("java.lang.Runnable",)
