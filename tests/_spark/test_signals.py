"""Signals: who notices them, which jobs they cancel, and that a process ends in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from ap_spark._spark import classic
from ap_spark._spark.signals import Interrupts, _ForwardSignal


def wait_until(interrupts: Interrupts, *, received: signal.Signals | None) -> bool:
    for _ in range(100):
        if interrupts.received is received:
            return True
        time.sleep(0.02)
    return False


def test_signals_that_the_program_takes_for_itself_do_not_end_a_run() -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: taken.append(number))
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    wakeup = signal.set_wakeup_fd(waker)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)
            assert (taken, interrupts.received) == ([signal.SIGUSR1], None)
            os.kill(os.getpid(), signal.SIGTERM)
            assert wait_until(interrupts, received=signal.SIGTERM)
        assert signal.set_wakeup_fd(-1) == waker, "what the program had set is set again"
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGUSR1, before)
        os.close(wake)
        os.close(waker)


def test_only_jobs_of_the_run_are_cancelled(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At last also those not cancelled at first; never those of others in the session, whatever their group."""

    def wait(rows: Iterable[int]) -> Iterator[int]:
        (tmp_path / str(*rows)).touch()
        while not (tmp_path / "done").exists():
            time.sleep(0.02)
        yield 1

    def job(number: int) -> list[int]:
        return spark.sparkContext.parallelize([number], 1).mapPartitions(wait).collect()

    found: list[list[int]] = []
    other = threading.Thread(target=lambda: found.append(job(1)))
    other.start()
    while not (tmp_path / "1").exists():
        time.sleep(0.02)
    monkeypatch.setattr("ap_spark._spark.signals._CANCEL_FRACTION", 0.02)
    spark.sparkContext.setJobGroup("theirs", "before")
    with Interrupts() as interrupts:
        interrupts.grace = 50.0
        interrupts.attach(spark)
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with classic.uncancellable(spark), pytest.raises(Py4JJavaError, match="cancelled part of cancelled job group"):
            job(2)
        assert interrupts.received is signal.SIGTERM
        interrupts.detach()
    assert spark.sparkContext.getLocalProperty(classic.GROUP) == "theirs"
    with classic.uncancellable(spark):
        assert spark.sparkContext.getLocalProperty(classic.GROUP) == "theirs", "who may cancel all that he starts"
    spark.sparkContext.setLocalProperty(classic.GROUP, None)  # type: ignore[arg-type]
    (tmp_path / "done").touch()
    other.join()
    assert found == [[1]]


@pytest.mark.parametrize("held_up", ["import time; time.sleep(60)", "import os; os.read(os.pipe()[0], 1)"])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_waits_for_ever_is_ended(held_up: str, sent: signal.Signals) -> None:
    program = f"""
import os, signal
from ap_spark._spark.signals import Interrupts, _ForwardSignal
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with Interrupts(lambda: "nothing was saved") as interrupts:
    interrupts.grace = 0.3
    print("waits", flush=True)
    {held_up}
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "waits\n"
    for _ in range(3):  # a group's signal comes in several ways
        process.send_signal(sent)
        time.sleep(0.05)
    _, output = process.communicate(timeout=30)
    assert process.returncode == 128 + sent
    assert output == f"\nap-spark: stopped by {sent.name}, and not done 0.3 s later (--grace): nothing was saved\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_only_java_gets_keeps_its_name_and_exit_code(number: signal.Signals) -> None:
    taken = SimpleNamespace(getName=lambda: number.name.removeprefix("SIG"))  # sun.misc.Signal
    with Interrupts() as interrupts:
        _ForwardSignal(interrupts).handle(taken)
        assert wait_until(interrupts, received=number)
        assert interrupts.exit_code == 128 + number


def test_under_nohup_a_terminal_may_close() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupts.requested()
    finally:
        signal.signal(signal.SIGHUP, before)
