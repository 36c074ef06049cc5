"""Sums whose result does not depend on the order of the addends.

A floating-point sum depends on the order of its addends, and on a cluster that order changes from run to run. So each
addend is rounded to a multiple of a *unit* u = 2^q and added as a 64-bit integer: integer sums are the same in any
order (docs/semantics.md, section 3).

Where the addends differ so much in size that the small ones would be rounded to 0, a sum has two *words*, both 64-bit
integers: each addend is split into a multiple of a coarse unit, and a remainder that is a multiple of a fine unit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import Column

from ap_spark.errors import InputError

__all__ = [
    "Units",
    "exact_sum",
    "in_floats",
    "in_units",
    "sum_in_units",
    "summed",
    "unit_of",
    "units_of",
    "words_of",
]

_MIN_EXPONENT = -1022  # of a unit: the inverse of a smaller one is no finite double
_MIN_LARGEST = 2.0**-960  # of the largest addend: the unit of a smaller one would be below 2^_MIN_EXPONENT
_RESOLUTION = 2.0**-30  # one word is enough where its unit is at most so many times the smallest addend


class Units(NamedTuple):
    """The units of an exact sum.

    Attributes
    ----------
    coarse : float
        A power of two. The sum of its multiples cannot overflow 64 bits.
    fine : float
        The unit of the second word; equal to ``coarse`` where sums have one word.
    """

    coarse: float
    fine: float

    @property
    def words(self) -> int:
        """The number of 64-bit integers of a sum: 1 or 2."""
        return 1 if self.fine == self.coarse else 2


def unit_of(largest: float, count: int) -> float:
    """Return the finest unit in which a sum of ``count`` + 1 addends cannot overflow 64 bits.

    Each addend is at most 2 * ``largest`` in size. The unit is the smallest power of two that is at least
    4 * largest * (count + 1) / 2^62.

    Parameters
    ----------
    largest : float
        Finite, at least 0. For messages it is the range of the similarities, for sums that are only reported the
        largest similarity in size.
    count : int
        The number of addends.

    Raises
    ------
    InputError
        If the similarities are so large that messages would overflow a double, or so small that a unit would underflow
        one.

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
    if 0.0 < largest < _MIN_LARGEST:
        raise InputError(
            f"similarities and preferences must be large enough to be added as 64-bit floats, "
            f"but they reach only {largest:g}: multiply them all by a power of ten"
        )
    mantissa, exponent = math.frexp(bound)
    return math.ldexp(1.0, exponent - 62 - (mantissa == 0.5))


def units_of(largest: float, count: int, smallest: float = 0.0) -> Units:
    """Return the units of sums that resolve addends from ``smallest`` to ``largest`` in size.

    Parameters
    ----------
    largest, count
        See `unit_of`.
    smallest : float
        The smallest addend in size that is not 0. One word is used where its unit is at most 2^-30 times that.

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
    if coarse <= _RESOLUTION * smallest:
        return Units(coarse, coarse)
    # The second word of an addend is at most coarse / fine; a few more than count of them stay below 2^62.
    bits = 62 - (count + 2).bit_length()
    return Units(coarse, max(math.ldexp(coarse, -bits), math.ldexp(1.0, _MIN_EXPONENT)))


def words_of(value: Column, units: Units) -> list[Column]:
    """Return a double column as integers (bigint): multiples of the one unit, or of the coarse and the fine one.

    The last word is rounded half to even. The first of two is rounded towards 0, so that the remainder is exact.
    """
    if units.words == 1:
        return [_round(value, units.coarse)]
    high = (value * F.lit(1.0 / units.coarse)).cast("bigint")
    return [high, _round(value - high.cast("double") * F.lit(units.coarse), units.fine)]


def _round(value: Column, unit: float) -> Column:
    return F.rint(value * F.lit(1.0 / unit)).cast("bigint")


def exact_sum(value: Column, units: Units) -> Column:
    """Return an aggregate: the sum of a double column, the same for every order and partitioning."""
    sums = [F.sum(word).cast("double") * F.lit(unit) for word, unit in zip(words_of(value, units), units, strict=False)]
    return sums[0] if len(sums) == 1 else sums[0] + sums[1]


def sum_in_units(value: Column, units: Units) -> Column:
    """Return an aggregate: the sum as a multiple of the fine unit, for comparisons: different sums stay different."""
    sums = [F.sum(word) for word in words_of(value, units)]
    if len(sums) == 1:
        return sums[0]
    return sums[0].cast("decimal(38,0)") * F.lit(round(units.coarse / units.fine)) + sums[1]


def in_units(values: NDArray[np.float64], units: Units) -> list[NDArray[np.int64]]:
    """Return numbers as multiples of units, one array for each word; the same as `words_of` in SQL."""
    if units.words == 1:
        return [_rounded(values, units.coarse)]
    high = (values * (1.0 / units.coarse)).astype(np.int64)
    return [high, _rounded(values - high * units.coarse, units.fine)]


def _rounded(values: NDArray[np.float64], unit: float) -> NDArray[np.int64]:
    return np.rint(values * (1.0 / unit)).astype(np.int64)


def in_floats(words: NDArray[np.int64], units: Units) -> NDArray[np.float64]:
    """Return the sums whose words are given."""
    return np.asarray(sum(word.astype(np.float64) * unit for word, unit in zip(words, units, strict=False)))


def summed(values: NDArray[np.float64], units: Units) -> float:
    """Return the exact sum of some values."""
    return float(in_floats(np.array([word.sum(keepdims=True) for word in in_units(values, units)]), units)[0])
