"""SIGTERM, Ctrl-C, SIGHUP: a run stops after its iteration, everything else at once, and all of it within a time.

What Spark is doing outside of the iterations is cancelled as a job group. Java takes signals too, under spark-submit
perhaps it alone: it passes them on instead of ending, since a Java that is about to end tells of no failed task any
more, and whoever waits for that task waits for ever.

    signal ──► stop after the iteration, take a snapshot
     80 % of the grace period ──► all its jobs are cancelled, so that the run itself can tell what came of it
    100 %                     ──► a last line, and the end of this process and of the Java it has started
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from subprocess import TimeoutExpired
from types import FrameType, TracebackType
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import SparkSession

from ap_spark._spark import classic
from ap_spark.errors import Interrupted

__all__ = ["Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_SIGNAL_S = 2.0  # seconds within which a second signal is the first one again, that reached us in two ways
_CANCEL_SHARE = 0.8  # of the grace period, after which also spared jobs are cancelled
_ANSWER_S = 0.5  # seconds for what is under way to Java: a last line through spark-submit, the answer of a hook
_HOOK_PRIORITY = 100  # priority of a hook: before Spark's own, which stops the session
_LAST_LINE_S = 10  # seconds that a Java with a reason of its own to end waits, for us to tell of it


class Interrupts:
    """Notes a signal that asks for the end; a second one ends the process without further ado.

    Parameters
    ----------
    saved : callable
        What to tell of the work so far where the grace period ends before the run does.

    Attributes
    ----------
    received : signal.Signals or None
    grace : float
        Seconds from a signal to the end, at most.
    """

    def __init__(self, saved: Callable[[], str] = str) -> None:
        self.saved = saved
        self.grace = 30.0
        self.received: signal.Signals | None = None
        self.at = 0.0
        self.before: dict[signal.Signals, Any] = {}
        self.wakeup: int | None = None  # of the program, before us
        self.spark: SparkSession | None = None
        self.group = f"{classic.GROUP_PREFIX}{uuid.uuid4()}"  # Spark refuses jobs of a cancelled group for ever
        self.group_before: str | None = None  # of the program
        self.over = threading.Event()
        self.java_waits = False
        self.java_before: list[tuple[Any, Any]] = []
        self.hook: Any = None
        self.submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # Java has started us, not we Java

    def __enter__(self) -> Interrupts:
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        self.waker = os.fdopen(waker, "wb", buffering=0)
        threading.Thread(target=self.watch, args=[wake], daemon=True).start()
        self.take_signals()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.wakeup is not None:
            signal.set_wakeup_fd(self.wakeup)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.over.set()
        self.waker.close()
        if self.java_waits:
            time.sleep(_ANSWER_S)

    def take_signals(self) -> None:
        """Take them in the main thread, and by the pipe also where that one is held up in a call of the system."""
        if threading.current_thread() is threading.main_thread():
            wakeup = signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
            self.wakeup = wakeup if self.wakeup is None else self.wakeup
            for number in _SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                before = signal.signal(number, self.receive)
                self.before.setdefault(number, before)

    def attach(self, spark: SparkSession) -> None:
        """From now on jobs of the command are cancelled by a signal, `classic.uncancellable` ones later."""
        if self.received:
            raise Interrupted("stopped before anything was read: the same command starts again")
        self.spark = spark
        self.take_signals()  # the session has set a handler of its own
        self.group_before = spark.sparkContext.getLocalProperty(classic.GROUP)
        spark.sparkContext.setLocalProperty(classic.GROUP, self.group)
        gateway: Any = spark.sparkContext._gateway
        ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
        jvm = gateway.jvm
        for number in _SIGNALS:  # one that Java was started to ignore it goes on ignoring
            with suppress(Py4JError):  # Java was started to leave signals alone (-Xrs)
                taken = jvm.sun.misc.Signal(number.name.removeprefix("SIG"))
                self.java_before.append((taken, jvm.sun.misc.Signal.handle(taken, _ForwardSignal(self))))
        self.hook = jvm.java.lang.Thread(_WaitForLastLine(self))
        self.hooks.addShutdownHook(self.hook, _HOOK_PRIORITY, _LAST_LINE_S, jvm.java.util.concurrent.TimeUnit.SECONDS)

    @property
    def hooks(self) -> Any:
        assert self.spark is not None
        jvm: Any = self.spark.sparkContext._jvm
        return jvm.org.apache.hadoop.util.ShutdownHookManager.get()

    def detach(self) -> None:
        """Leave the session alone: it is not ours, or about to be stopped."""
        if self.spark:
            with suppress(Py4JError, OSError):  # Java is about to end
                self.spark.sparkContext.setLocalProperty(classic.GROUP, self.group_before)  # type: ignore[arg-type]
                jvm: Any = self.spark.sparkContext._jvm
                for taken, before in self.java_before:
                    jvm.sun.misc.Signal.handle(taken, before)
                self.hooks.removeShutdownHook(self.hook)
            self.spark = None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        if self.received is None:
            self.at, self.received = time.monotonic(), signal.Signals(number)
        elif time.monotonic() - self.at > _SAME_SIGNAL_S and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def watch(self, wake: int) -> None:
        """Wait for a signal, in a thread of its own; see that the run ends in time."""
        with os.fdopen(wake, "rb", buffering=0) as pipe:  # open to the end: later signals are written there too
            while (number := pipe.read(1)) and number[0] not in _SIGNALS:
                pass  # another one that the program takes, for itself
            if not number:
                return  # the run is over
            self.receive(number[0])
            _in_background(
                lambda: self.spark and self.spark.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(self.group)
            )
            if self.over.wait(_CANCEL_SHARE * self.grace):
                return
            _in_background(
                lambda: (
                    self.spark
                    and self.spark.sparkContext._jsc.sc().cancelJobGroup(self.group + classic.UNCANCELLABLE_SUFFIX)
                )
            )
            if not self.over.wait((1 - _CANCEL_SHARE) * self.grace):
                self.end()

    def end(self) -> None:
        """End this process, whatever it waits for, and Java, where we have started it."""
        assert self.received is not None
        told = f"stopped by {self.received.name}, and not done {self.grace:g} s later (--grace): {self.saved()}"
        _in_background(lambda: print(f"\nap-spark: {told}", file=sys.stderr, flush=True)).join(_ANSWER_S)
        if self.submitted:
            time.sleep(_ANSWER_S)  # Java passes the line on
            jvm: Any = SparkContext._jvm
            _in_background(lambda: jvm.java.lang.Runtime.getRuntime().halt(self.exit_code)).join(_ANSWER_S)
        elif java := _started_java():
            java.kill()
        os._exit(self.exit_code)

    def end_java(self) -> None:
        """See the Java that we have started go in time, once the session is stopped."""
        if self.received and (java := _started_java()):
            java.stdin.close()  # upon which it goes
            try:
                java.wait(max(0.0, self.at + self.grace - time.monotonic()))
            except TimeoutExpired:
                java.kill()

    def requested(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """As a shell tells of a process that a signal has ended."""
        return 128 + (self.received or signal.SIGINT)


def _in_background(call: Callable[[], Any]) -> threading.Thread:
    """Call what may never answer; an error means that Java has ended in the meantime."""

    def run() -> None:
        with suppress(Py4JError, OSError, AttributeError):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _started_java() -> Any:
    """The process of the Java that we have started, if we have."""
    return getattr(SparkContext._gateway, "proc", None)


class _ForwardSignal:
    """What Java does with a signal: it tells us, instead of ending. We end, and Java after us."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def handle(self, taken: Any) -> None:
        with suppress(OSError, ValueError):  # the run is over
            self.interrupts.waker.write(bytes([signal.SIGINT if taken.getName() == "INT" else signal.SIGTERM]))

    class Java:
        implements = ("sun.misc.SignalHandler",)


class _WaitForLastLine:
    """What Java runs where it ends without us, as for want of memory.

    One that has started us waits for our line, which goes through it. One that we have started only lets its tasks come
    to their end: Spark would log an error of those it stops.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def run(self) -> None:
        if not self.interrupts.over.is_set():
            self.interrupts.java_waits = True
            self.interrupts.over.wait(_LAST_LINE_S if self.interrupts.submitted else _ANSWER_S)

    class Java:
        implements = ("java.lang.Runnable",)
