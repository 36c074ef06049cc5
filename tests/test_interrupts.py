"""Signals in the process itself, without Spark."""

from __future__ import annotations

import os
import signal
import time

from ap_spark.interrupts import Interrupts


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
