"""Sums whose result does not depend on the order of the addends.

A floating-point sum depends on its order, and on a cluster the order is an accident. Here an addend is rounded to a
multiple of a *unit* u = 2^q and added as a 64-bit integer; integer sums are the same in any order (docs/semantics.md,
section 3).

Where the addends differ so much in size that one unit would swallow the small ones, a sum has two words: whole
multiples of a coarse unit, and what is left of each addend in a fine one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pyspark.sql.functions as F
from pyspark.sql import Column

from ap_spark.errors import InputError

__all__ = ["Units", "exact_sum", "sum_in_units", "unit_of", "units_of", "words_of"]

SMALLEST_EXPONENT = -1022  # below it the inverse of a unit is no longer a finite double
SMALLEST = 2.0**-960  # the largest addend at least: its unit would otherwise lie below that
RESOLVED = 2.0**-30  # one word is enough where its unit is so small beside the smallest addend


class Units(NamedTuple):
    """The units of an exact sum.

    Attributes
    ----------
    coarse : float
        A power of two. The sum of its multiples cannot overflow 64 bits.
    fine : float
        The same, if sums have one word. Else the unit of the second word.
    """

    coarse: float
    fine: float

    @property
    def words(self) -> int:
        """The number of 64-bit integers that a sum needs: one or two."""
        return 1 if self.fine == self.coarse else 2


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
        If the similarities are so large that messages would leave the range of a double, or so small that their
        multiples of a unit would.

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
    if 0.0 < largest < SMALLEST:
        raise InputError(
            f"similarities and preferences must be large enough to be added as 64-bit floats, "
            f"but they reach only {largest:g}: multiply them all by a power of ten"
        )
    mantissa, exponent = math.frexp(bound)
    return math.ldexp(1.0, exponent - 62 - (mantissa == 0.5))


def units_of(largest: float, count: int, smallest: float = 0.0) -> Units:
    """The units of sums that resolve addends from ``smallest`` to ``largest``.

    Parameters
    ----------
    largest, count
        See `unit_of`.
    smallest : float
        The smallest addend in size that is not 0. One word is enough where its unit is RESOLVED times that or less.

    Raises
    ------
    InputError
        See `unit_of`.

    Examples
    --------
    >>> units_of(1.0, 2**10 - 1, smallest=1e-3).words
    1
    >>> units_of(1e18, 2**10 - 1, smallest=1e-3) == (2.0**10, 2.0**-41)
    True
    """
    coarse = unit_of(largest, count)
    if coarse <= RESOLVED * smallest:
        return Units(coarse, coarse)
    # The second word of an addend is at most coarse / fine; a few more than count of them stay below 2^62.
    bits = 62 - (count + 2).bit_length()
    return Units(coarse, max(math.ldexp(coarse, -bits), math.ldexp(1.0, SMALLEST_EXPONENT)))


def words_of(value: Column, units: Units) -> list[Column]:
    """A double column as whole numbers (bigint): of one unit, rounded half to even; or of the coarse and the fine one.

    The first of two is cut off towards 0, so that what is left for the second is exact.
    """
    if units.words == 1:
        return [rounded(value, units.coarse)]
    high = (value * F.lit(1.0 / units.coarse)).cast("bigint")
    return [high, rounded(value - high.cast("double") * F.lit(units.coarse), units.fine)]


def rounded(value: Column, unit: float) -> Column:
    return F.rint(value * F.lit(1.0 / unit)).cast("bigint")


def exact_sum(value: Column, units: Units) -> Column:
    """Aggregate: the sum of a double column, the same for every order and partitioning."""
    sums = [F.sum(word).cast("double") * F.lit(unit) for word, unit in zip(words_of(value, units), units, strict=False)]
    return sums[0] if len(sums) == 1 else sums[0] + sums[1]


def sum_in_units(value: Column, units: Units) -> Column:
    """Aggregate: the same as a whole number of fine units, to be compared with others: no two sums round to one."""
    sums = [F.sum(word) for word in words_of(value, units)]
    if len(sums) == 1:
        return sums[0]
    return sums[0].cast("decimal(38,0)") * F.lit(round(units.coarse / units.fine)) + sums[1]
