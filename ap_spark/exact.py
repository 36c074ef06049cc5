"""Sums whose result does not depend on the order of the addends.

A floating-point sum depends on its order, and on a cluster the order is an accident. Here an addend is rounded to a
multiple of a *unit* u = 2^q and added as a 64-bit integer; integer sums are the same in any order (semantics.md,
section 3).
"""

from __future__ import annotations

import math

import pyspark.sql.functions as F
from pyspark.sql import Column

from ap_spark.errors import InputError

__all__ = ["exact_sum", "to_units", "unit_of"]

SMALLEST_EXPONENT = -1000  # below it the inverse of the unit is no longer a finite double


def unit_of(largest: float, count: int) -> float:
    """The finest unit in which ``count`` + 1 addends, each at most 2 * ``largest`` in size, cannot overflow 64 bits.

    That is the smallest power of two that is at least 4 * largest * (count + 1) / 2^62.

    Parameters
    ----------
    largest : float
        For messages the range of the similarities, for reported sums the largest similarity in size; finite, >= 0.
    count : int
        The number of addends.

    Raises
    ------
    InputError
        If the similarities are so large that messages would leave the range of a double.

    Examples
    --------
    >>> unit_of(1.0, 2**10 - 1) == 2.0**-50
    True
    """
    bound = 4.0 * (largest or 1.0) * (count + 1)
    if not math.isfinite(bound):
        raise InputError(
            f"similarities and preferences must lie close enough together to be added as 64-bit floats, "
            f"but they reach {largest:g}: divide them all by a power of ten"
        )
    mantissa, exponent = math.frexp(bound)
    exponent -= 62 + (mantissa == 0.5)
    return math.ldexp(1.0, max(exponent, SMALLEST_EXPONENT))


def to_units(value: Column, unit: float) -> Column:
    """A double column as a whole number of units (bigint), rounded half to even."""
    return F.rint(value * F.lit(1.0 / unit)).cast("bigint")


def exact_sum(value: Column, unit: float) -> Column:
    """Aggregate: the sum of a double column, the same for every order and partitioning."""
    return F.sum(to_units(value, unit)).cast("double") * F.lit(unit)
