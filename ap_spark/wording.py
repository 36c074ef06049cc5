"""The wording of messages: numbers with nouns, the closest name, the names of columns, examples, an error as a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command's help needs no Spark
    from pyspark.sql import Column, DataFrame

__all__ = [
    "call",
    "called",
    "did_you_mean",
    "format_bytes",
    "format_count",
    "format_examples",
    "format_reason",
    "format_rounded_up",
    "has_have",
    "is_are",
    "printable",
]

_CALLED = "called"  # in the metadata of a column
_CLOSE = 0.75  # the likeness of a slip and what was meant; "iterations" is to "partitions" 0.7


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> format_count(1, "row"), format_count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_bytes(number: int) -> str:
    """Return a number of bytes with its unit.

    >>> format_bytes(3 * 2**30 // 2)
    '1.5 GiB'
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 2**10:.3g} KiB"


def format_rounded_up(value: float, digits: int) -> str:
    """Return a number with so many digits that is not less: what bounds must not be rounded down.

    >>> format_rounded_up(0.1249, 2), format_rounded_up(-326670.51, 6), format_rounded_up(2.5, 6)
    ('0.13', '-326670', '2.5')
    """
    rounded = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(Decimal(value))
    return f"{float(rounded):.{digits}g}"


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
    close = get_close_matches(wanted.strip().lower(), spellings, n=1, cutoff=_CLOSE)
    return f" (did you mean {spellings[close[0]]!r}?)" if close else ""


def format_examples(rows: DataFrame, order: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """Format up to three rows, the first in the given order."""
    names = [called(rows, name) for name in shown or order]
    first = rows.orderBy(*order).select(*(shown or order)).limit(3).collect()
    return "; ".join(", ".join(map("{}={!r}".format, names, row)) for row in first)


def call(column: Column, name: str, theirs: str) -> Column:
    """Name a column, and keep what the user calls it."""
    return column.alias(name) if name == theirs else column.alias(name, metadata={_CALLED: theirs})


def called(table: DataFrame, name: str) -> str:
    """Return what the user calls a column, for messages: its name, unless `call` has kept another one."""
    return str(table.schema[name].metadata.get(_CALLED, name))


def printable(text: str) -> str:
    r"""Escape control characters, line ends and the like in what comes from data, for a terminal or a log.

    >>> print(printable("caf\u00e9 \x1b[31m\u202e"))
    café \x1b[31m\u202e
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def format_reason(error: Exception) -> str:
    """Return an error as one line; of an error of Java's, what Java says, without the stack."""
    from py4j.protocol import Py4JJavaError

    text = str(error.java_exception.toString()) if isinstance(error, Py4JJavaError) else str(error)
    return printable(next((line for line in text.splitlines() if line.strip()), type(error).__name__))
