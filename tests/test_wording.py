"""The wording of messages."""

from __future__ import annotations

from ap_spark.wording import did_you_mean, format_reason


def test_a_reason_is_one_line_without_control_characters() -> None:
    assert format_reason(ValueError("\n a\tb\nmore")) == " a\\tb"
    assert format_reason(ValueError()) == "ValueError"


def test_the_nearest_name() -> None:
    assert did_you_mean("prefrence", ["preference", "id"]) == " (did you mean 'preference'?)"
    assert did_you_mean("X ", ["x", "y"]) == " (did you mean 'x'?)"
    assert did_you_mean("score", ["x", "y"]) == did_you_mean("x", []) == ""
