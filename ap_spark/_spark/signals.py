"""SIGTERM, Ctrl-C and SIGHUP: how a run ends, and that it ends in time.

    a signal                        ──► the run stops after its iteration, with a snapshot; other jobs are cancelled
    after 80 % of the grace period  ──► the snapshot is cancelled too; the run ends by itself and says what happened
    after all of it                 ──► a last line; this process ends, and the Java that it has started

Spark's jobs outside of the iterations are cancelled as a job group. Java gets signals as well, under spark-submit
perhaps only Java. By default Java would end at once, and a thread that waits for a task of it would never return. So
Java passes its signals on to us instead (`_ForwardSignal`). Where it ends for another reason, it waits for our last
line (`_WaitForLastLine`). docs/operating.md says which promises rest on that.
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
_SAME_SIGNAL_S = 2.0  # a signal so soon after the first is the same one, which reached us through Java too
_CANCEL_FRACTION = 0.8  # of the grace period: then the jobs of `classic.uncancellable` are cancelled too
_LAST_LINE_S = 10  # that Java waits for our last line, where it has started us and ends for another reason than us
_TRANSFER_S = 0.5  # for what is under way between us and Java to arrive: a line, the end of a task, an answer
_HOOK_PRIORITY = 100  # above 50, which is that of Spark's own hook: it would stop the session first


class Interrupts:
    """What signals do to a run: the first asks it to end, a second one ends the process at once.

    Parameters
    ----------
    saved : callable
        Returns the text on what was saved, for the last line if the grace period ends before the run does.

    Attributes
    ----------
    received : signal.Signals or None
    grace : float
        Seconds from the first signal to the end of the process, at most.
    """

    def __init__(self, saved: Callable[[], str] = str) -> None:
        self.saved = saved
        self.grace = 30.0
        self.received: signal.Signals | None = None
        self._at = 0.0  # when it was received
        self._handlers_before: dict[signal.Signals, Any] = {}  # what the program had set is restored at the end
        self._wakeup_before: int | None = None
        self._spark: SparkSession | None = None
        # A new name, since Spark refuses all later jobs of a group that was cancelled.
        self._group = f"{classic.GROUP_PREFIX}{uuid.uuid4()}"
        self._group_before: str | None = None
        self._over = threading.Event()
        self._java_waits = False
        self._java_before: list[tuple[Any, Any]] = []
        self._hook: Any = None
        self._is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # Java has started us

    def __enter__(self) -> Interrupts:
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        self._waker = os.fdopen(waker, "wb", buffering=0)
        threading.Thread(target=self._watch, args=[wake], daemon=True).start()
        self._take_signals()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._wakeup_before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        self._over.set()
        self._waker.close()
        if self._java_waits:
            time.sleep(_TRANSFER_S)

    def _take_signals(self) -> None:
        """Set the handlers, which run in the main thread; and a pipe, for where that is blocked in a system call."""
        if threading.current_thread() is threading.main_thread():
            wakeup = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
            self._wakeup_before = wakeup if self._wakeup_before is None else self._wakeup_before
            for number in _SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                before = signal.signal(number, self._receive)
                self._handlers_before.setdefault(number, before)

    def attach(self, spark: SparkSession) -> None:
        """Have a signal cancel the jobs of this session from now on, those of `classic.uncancellable` later.

        Raises
        ------
        Interrupted
            If there was a signal already.
        """
        if self.received:
            raise Interrupted("stopped before anything was read: the same command starts again")
        self._spark = spark
        self._take_signals()  # the session has set a handler of its own
        self._group_before = spark.sparkContext.getLocalProperty(classic.GROUP)
        spark.sparkContext.setLocalProperty(classic.GROUP, self._group)
        gateway: Any = spark.sparkContext._gateway
        ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
        jvm = gateway.jvm
        for number in _SIGNALS:  # those that Java was started to ignore stay ignored
            with suppress(Py4JError):  # Java was started with -Xrs, so that it handles no signals
                taken = jvm.sun.misc.Signal(number.name.removeprefix("SIG"))
                self._java_before.append((taken, jvm.sun.misc.Signal.handle(taken, _ForwardSignal(self))))
        self._hook = jvm.java.lang.Thread(_WaitForLastLine(self))
        self._hooks.addShutdownHook(self._hook, _HOOK_PRIORITY, _LAST_LINE_S, jvm.java.util.concurrent.TimeUnit.SECONDS)

    @property
    def _hooks(self) -> Any:
        assert self._spark is not None
        jvm: Any = self._spark.sparkContext._jvm
        return jvm.org.apache.hadoop.util.ShutdownHookManager.get()

    def detach(self) -> None:
        """Restore the session as it was, before it is stopped, or because it is not ours."""
        if self._spark:
            with suppress(Py4JError, OSError):  # Java may have ended
                self._spark.sparkContext.setLocalProperty(classic.GROUP, self._group_before)  # type: ignore[arg-type]
                jvm: Any = self._spark.sparkContext._jvm
                for taken, before in self._java_before:
                    jvm.sun.misc.Signal.handle(taken, before)
                self._hooks.removeShutdownHook(self._hook)
            self._spark = None

    def _receive(self, number: int, frame: FrameType | None = None) -> None:
        """Note the first signal; raise KeyboardInterrupt in the main thread for a second one."""
        if self.received is None:
            self._at, self.received = time.monotonic(), signal.Signals(number)
        elif time.monotonic() - self._at > _SAME_SIGNAL_S and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def _watch(self, wake: int) -> None:
        """Wait for a signal, in a thread; then see to it that the run ends in time."""
        with os.fdopen(wake, "rb", buffering=0) as pipe:  # stays open, since later signals are written there too
            while (number := pipe.read(1)) and number[0] not in _SIGNALS:
                pass  # another signal, that the program handles itself
            if not number:
                return  # the run is over
            self._receive(number[0])
            _in_background(
                lambda: self._spark and self._spark.sparkContext._jsc.sc().cancelJobGroupAndFutureJobs(self._group)
            )
            if self._over.wait(_CANCEL_FRACTION * self.grace):
                return
            _in_background(
                lambda: (
                    self._spark
                    and self._spark.sparkContext._jsc.sc().cancelJobGroup(self._group + classic.UNCANCELLABLE_SUFFIX)
                )
            )
            if not self._over.wait((1 - _CANCEL_FRACTION) * self.grace):
                self._end()

    def _end(self) -> None:
        """End this process, whatever it waits for, and the Java that we have started."""
        assert self.received is not None
        line = f"stopped by {self.received.name}, and not done {self.grace:g} s later (--grace): {self.saved()}"
        _in_background(lambda: print(f"\nap-spark: {line}", file=sys.stderr, flush=True)).join(_TRANSFER_S)
        if self._is_submitted:
            time.sleep(_TRANSFER_S)  # Java has to pass the line on
            jvm: Any = SparkContext._jvm
            _in_background(lambda: jvm.java.lang.Runtime.getRuntime().halt(self.exit_code)).join(_TRANSFER_S)
        elif java := _started_java():
            java.kill()
        os._exit(self.exit_code)

    def end_java(self) -> None:
        """End the Java that we have started, if there was a signal. Call it after the session is stopped."""
        if self.received and (java := _started_java()):
            java.stdin.close()  # which makes it end
            try:
                java.wait(max(0.0, self._at + self.grace - time.monotonic()))
            except TimeoutExpired:
                java.kill()

    def requested(self) -> bool:
        """Return whether the run was asked to end."""
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """The exit code that a shell gives a process that a signal has ended."""
        return 128 + (self.received or signal.SIGINT)


def _in_background(call: Callable[[], Any]) -> threading.Thread:
    """Call in a thread what may never return. An error means that Java has ended in the meantime."""

    def run() -> None:
        with suppress(Py4JError, OSError, AttributeError):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _started_java() -> Any:
    """Return the process of the Java that we have started; None if there is none."""
    return getattr(SparkContext._gateway, "proc", None)


class _ForwardSignal:
    """Java's handler of a signal: it passes the signal on to us, and Java does not end.

    Without it Java would begin to end at once, before a snapshot could be taken. Under spark-submit it may be the only
    process that a scheduler signals. Java ends after us.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def handle(self, taken: Any) -> None:
        with suppress(OSError, ValueError):  # the run is over
            self.interrupts._waker.write(bytes([signal.Signals[f"SIG{taken.getName()}"]]))

    class Java:
        implements = ("sun.misc.SignalHandler",)


class _WaitForLastLine:
    """What Java runs before it ends for another reason than a signal, such as a full heap.

    Where Java has started us (spark-submit), our last line passes through it: it waits until we have ended. Where we
    have started Java, it only waits for its tasks to end: Spark would log an error for each task that it stops.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts

    def run(self) -> None:
        if not self.interrupts._over.is_set():
            self.interrupts._java_waits = True
            self.interrupts._over.wait(_LAST_LINE_S if self.interrupts._is_submitted else _TRANSFER_S)

    class Java:
        implements = ("java.lang.Runnable",)
