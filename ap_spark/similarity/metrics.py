"""The metrics: how similar two vectors are, computed in float64, dimension by dimension.

The order of every addition is fixed, so that a similarity does not depend on which other pairs are computed with it.
The result of a matrix product does depend on that, so none is used here (docs/semantics.md, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ap_spark.errors import SettingError
from ap_spark.settings import PairFunction, Similarity
from ap_spark.wording import format_reason

__all__ = [
    "METRICS",
    "Floats",
    "Metric",
    "PairFunction",
    "UndefinedFor",
    "between",
    "metric_of",
    "of_pairs",
    "pairwise",
    "products",
]

Floats = NDArray[np.float64]
_Space = Literal["l2", "l1", "dot"]
UndefinedFor = Literal["none", "zero", "constant"]
_Sums = Literal["squares", "products", "unknown"]


def _unchanged(x: Floats) -> Floats:
    return x


@dataclass(frozen=True)
class Metric:
    """A similarity of vectors, in two steps: a closeness that orders the neighbours, and what it becomes.

    Attributes
    ----------
    closeness : callable
        Takes two arrays of prepared vectors, with the dimensions as the first axis; the other axes are broadcast. The
        larger the closeness, the nearer are two vectors. It decides who is whose neighbour.
    similarity : callable
        Turns closeness into the similarity.
    prepare : callable
        Takes the vectors, shape (n, d), and returns what is compared. It is applied to each vector once.
    space : {"l2", "l1", "dot"}
        By what a search may look for the closest of the prepared vectors: Euclidean distance, Manhattan distance or
        product.
    undefined_for : {"none", "zero", "constant"}
        Vectors that have no similarity to any other, and are refused: none, those whose elements are all zero, or
        those whose elements are all equal.
    unit_vectors : bool
        Whether prepared vectors have length 1: only directions count, and closeness is a product in [-1, 1].
    sums : {"squares", "products", "unknown"}
        How the sum of the similarities of many vectors to one follows from the sum of these vectors: as that of minus
        squared distances, as that of products, or not at all.
    """

    closeness: PairFunction
    similarity: Callable[[Floats], Floats] = _unchanged
    prepare: Callable[[Floats], Floats] = _unchanged
    space: _Space = "l2"
    undefined_for: UndefinedFor = "none"
    unit_vectors: bool = False
    sums: _Sums = "unknown"


def _minus_squares(x: Floats, y: Floats) -> Floats:
    """Return minus the squared Euclidean distance."""
    total: Floats = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]))
    for a, b in zip(x, y, strict=True):
        difference = a - b
        difference *= difference
        total -= difference
    return total


def _minus_absolutes(x: Floats, y: Floats) -> Floats:
    """Return minus the Manhattan distance."""
    total: Floats = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]))
    for a, b in zip(x, y, strict=True):
        difference = a - b
        total -= np.abs(difference, out=difference)
    return total


def products(x: Floats, y: Floats) -> Floats:
    """Return the products x·y."""
    total: Floats = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]))
    for a, b in zip(x, y, strict=True):
        total += a * b
    return total


def _cosines(x: Floats, y: Floats) -> Floats:
    """Return the products of unit vectors, which rounding may have moved beyond 1 or -1."""
    return np.clip(products(x, y), -1.0, 1.0)


def _minus_root(closeness: Floats) -> Floats:
    """Turn minus a squared distance into minus the distance."""
    return np.asarray(-np.sqrt(-closeness))


def _gaussian(closeness: Floats, *, width: float) -> Floats:
    """Turn minus a squared distance d² into exp(-d² / (2 width²))."""
    with np.errstate(over="ignore"):  # beside a very small width, distances are infinite and similarities 0
        return np.asarray(np.exp(closeness / width / width / 2.0))


def _unit_length(x: Floats) -> Floats:
    """Divide each vector by its length.

    It is divided by its largest element first, so that no square overflows or vanishes.
    """
    x = x / np.abs(x).max(axis=1, keepdims=True)
    return np.asarray(x / np.sqrt(products(x.T, x.T))[:, None])


def _standard_score(x: Floats) -> Floats:
    """Take its mean from each vector, then divide it by its length."""
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])  # a power of two: exact, and no sum overflows
    # Twice: where elements hardly differ, the first mean is rounded by as much as they differ.
    for _ in range(2):
        total = np.zeros(len(x))
        for a in x.T:
            total += a
        x = x - total[:, None] / x.shape[1]
    return _unit_length(x)


METRICS: dict[str, Metric] = {
    "sqeuclidean": Metric(_minus_squares, sums="squares"),
    "euclidean": Metric(_minus_squares, _minus_root),
    "manhattan": Metric(_minus_absolutes, space="l1"),
    "cosine": Metric(_cosines, prepare=_unit_length, undefined_for="zero", unit_vectors=True, sums="products"),
    "correlation": Metric(
        _cosines, prepare=_standard_score, undefined_for="constant", unit_vectors=True, sums="products"
    ),
    "gaussian": Metric(_minus_squares, partial(_gaussian, width=math.nan)),  # metric_of sets the width
    "dot": Metric(products, space="dot", sums="products"),
}


def metric_of(metric: str | Metric | PairFunction, width: float | None = None) -> Metric | PairFunction:
    """Return the metric of a name; return a metric, or a function, as it is.

    Raises
    ------
    SettingError
        If there is no metric of that name, or the width is missing, too small, or given for another metric than
        "gaussian".
    """
    if isinstance(metric, Metric):
        return metric
    chosen = Similarity(metric=metric, width=width)  # type: ignore[arg-type]
    if not isinstance(chosen.metric, str):
        return chosen.metric
    if chosen.width is None:
        return METRICS[chosen.metric]
    return Metric(_minus_squares, partial(_gaussian, width=chosen.width))


def pairwise(x: Floats, y: Floats, metric: str | PairFunction = "sqeuclidean", width: float | None = None) -> Floats:
    """Return the similarity of each row of x to each row of y.

    Parameters
    ----------
    x, y : array, shapes (m, d) and (n, d)
    metric : str or callable
        A name of the list below, or a function that takes x and y and returns the similarities.
    width : float, optional
        For "gaussian" only, which needs it.

    Returns
    -------
    array of float64, shape (m, n)

    Raises
    ------
    SettingError
        See `metric_of`; or if the function fails.

    Notes
    -----
    sqeuclidean
        −Σ (xⱼ − yⱼ)²
    euclidean
        −√ of that sum
    manhattan
        −Σ |xⱼ − yⱼ|
    cosine
        x·y / (‖x‖ ‖y‖), from −1 to 1
    correlation
        Pearson's: the cosine of x and y after each has lost its own mean
    gaussian
        exp(−Σ (xⱼ − yⱼ)² / (2 width²)), from 0 to 1
    dot
        x·y

    Examples
    --------
    >>> x, y = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> pairwise(x, y), pairwise(x, y, "manhattan")
    (array([[-25.,   0.]]), array([[-7.,  0.]]))
    """
    by = metric_of(metric, width)
    return between(by, by.prepare(x), by.prepare(y)) if isinstance(by, Metric) else between(by, x, y)


def between(metric: Metric | PairFunction, x: Floats, y: Floats) -> Floats:
    """Return the similarities of vectors that the metric has prepared; see `pairwise`."""
    if not isinstance(metric, Metric):
        return _by_function(metric, x, y)
    return metric.similarity(
        metric.closeness(np.ascontiguousarray(x.T)[:, :, None], np.ascontiguousarray(y.T)[:, None, :])
    )


def of_pairs(metric: Metric, x: Floats, y: Floats) -> Floats:
    """Return the similarity of each row of x to the same row of y, both prepared; shapes (n, d), (n, d) and (n,)."""
    return metric.similarity(metric.closeness(x.T, y.T))


def _by_function(function: PairFunction, x: Floats, y: Floats) -> Floats:
    """Return the similarities that a user's function gives.

    Raises
    ------
    SettingError
        If the function fails, or returns anything but a number for each pair.
    """
    name = getattr(function, "__name__", None) or repr(function)
    of = f"for arrays of shapes {x.shape} and {y.shape}"
    try:
        returned = function(x.copy(), y.copy())  # copies, since the function may change its arguments
        s = np.asarray(returned)
    except Exception as error:
        raise SettingError(
            f"a metric must be a function of two arrays, but {name} failed {of}: "
            f"{type(error).__name__}: {format_reason(error)}"
        ) from error
    if s.dtype.kind not in "fiub" or s.shape != (len(x), len(y)):
        found = f"{s.dtype} of shape {s.shape}" if s.shape else type(returned).__name__
        raise SettingError(
            f"a metric must return numbers, in an array of shape (m, n) for arrays of shapes (m, d) and (n, d), but "
            f"{name} returned {found} {of}"
        )
    return s.astype(np.float64, copy=False)
