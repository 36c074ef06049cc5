"""The wording of messages: numbers with their nouns, the closest name, examples of rows, an error as one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame

__all__ = [
    "did_you_mean",
    "format_count",
    "format_examples",
    "format_reason",
    "has_have",
    "is_are",
    "printable",
]


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> format_count(1, "row"), format_count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_are(number: int) -> str:
    """Return the verb that goes with a number of things."""
    return "is" if number == 1 else "are"


def has_have(number: int) -> str:
    """Return the verb that goes with a number of things."""
    return "has" if number == 1 else "have"


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Return a question that suggests the name closest to a wrong one; nothing if none is close.

    >>> did_you_mean("Customer_ID", ["customer_id", "x", "y"])
    " (did you mean 'customer_id'?)"
    >>> did_you_mean("z", ["customer_id", "x", "y"])
    ''
    """
    spellings = {name.strip().lower(): name for name in names}
    close = get_close_matches(wanted.strip().lower(), spellings, n=1)
    return f" (did you mean {spellings[close[0]]!r}?)" if close else ""


def format_examples(rows: DataFrame, order: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Format up to three rows, the first in the given order."""
    first = rows.orderBy(*order).select(*(shown or order)).limit(3).collect()
    return "; ".join(", ".join(f"{name}={value!r}" for name, value in row.asDict().items()) for row in first)


def printable(text: str) -> str:
    r"""Escape control characters, line ends and the like in what comes from data, for a terminal or a log.

    >>> print(printable("caf\u00e9 \x1b[31m\u202e"))
    café \x1b[31m\u202e
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def format_reason(error: Exception) -> str:
    """Return an error as one line; of an error of Java's, what Java says, without the stack."""
    text = str(error.java_exception.toString()) if isinstance(error, Py4JJavaError) else str(error)
    return printable(next((line for line in text.splitlines() if line.strip()), type(error).__name__))
