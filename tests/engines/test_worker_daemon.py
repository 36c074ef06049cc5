"""What the daemon of Python workers prints."""

from __future__ import annotations

import pytest

from ap_spark.engines import worker_daemon


def test_only_a_worker_that_was_ended_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    for error, told in ((BrokenPipeError(), ""), (ValueError("a fault"), "ValueError: a fault")):
        try:
            raise error
        except type(error):
            worker_daemon._print_exc()
        assert (told in capsys.readouterr().err) if told else not capsys.readouterr().err
