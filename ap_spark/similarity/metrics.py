"""What makes two vectors similar, computed in float64, dimension by dimension.

The order of every addition is fixed, so that a similarity does not depend on which other pairs are computed with it;
a matrix product would (docs/semantics.md, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ap_spark.errors import SettingError, reason
from ap_spark.settings import Similarity

__all__ = ["METRICS", "Floats", "Metric", "PairFunction", "between", "metric_of", "pairwise"]

Floats = NDArray[np.float64]
PairFunction = Callable[[Floats, Floats], Floats]


def unchanged(x: Floats) -> Floats:
    return x


@dataclass(frozen=True)
class Metric:
    """A similarity of vectors.

    Attributes
    ----------
    closeness : callable
        Of two arrays of prepared vectors, dimensions first, the other axes broadcast: the larger, the nearer. Decides
        who is whose neighbour.
    similarity : callable
        Turns closeness into the similarity.
    prepare : callable
        Applied to each vector once, shape (n, d).
    space : {"l2", "l1", "dot"}
        The distance of prepared vectors by which a search may find the closest.
    refuses : {"", "zero", "constant"}
        Vectors that have no similarity.
    """

    closeness: PairFunction
    similarity: Callable[[Floats], Floats] = unchanged
    prepare: Callable[[Floats], Floats] = unchanged
    space: str = "l2"
    refuses: str = ""


def minus_squares(x: Floats, y: Floats) -> Floats:
    total: Floats = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]))
    for a, b in zip(x, y, strict=True):
        difference = a - b
        difference *= difference
        total -= difference
    return total


def minus_absolutes(x: Floats, y: Floats) -> Floats:
    total: Floats = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]))
    for a, b in zip(x, y, strict=True):
        difference = a - b
        total -= np.abs(difference, out=difference)
    return total


def products(x: Floats, y: Floats) -> Floats:
    total: Floats = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]))
    for a, b in zip(x, y, strict=True):
        total += a * b
    return total


def cosines(x: Floats, y: Floats) -> Floats:
    return np.clip(products(x, y), -1.0, 1.0)


def minus_root(closeness: Floats) -> Floats:
    return np.asarray(-np.sqrt(-closeness))


def gaussian(closeness: Floats, *, width: float) -> Floats:
    with np.errstate(over="ignore"):  # nothing is near where a width is so small
        return np.asarray(np.exp(closeness / width / width / 2.0))


def unit_length(x: Floats) -> Floats:
    """Each vector divided by its length; scaled by its largest element first, so that no square is lost."""
    x = x / np.abs(x).max(axis=1, keepdims=True)
    return np.asarray(x / np.sqrt(products(x.T, x.T))[:, None])


def standard_score(x: Floats) -> Floats:
    """Each vector minus its mean, divided by its length."""
    x = np.ldexp(x, -np.frexp(np.abs(x).max(axis=1, keepdims=True))[1])  # exact, and no sum is infinite
    for _ in range(2):  # again, since the mean of elements that hardly differ is rounded by as much as they differ
        total = np.zeros(len(x))
        for a in x.T:
            total += a
        x = x - total[:, None] / x.shape[1]
    return unit_length(x)


METRICS: dict[str, Metric] = {
    "sqeuclidean": Metric(minus_squares),
    "euclidean": Metric(minus_squares, minus_root),
    "manhattan": Metric(minus_absolutes, space="l1"),
    "cosine": Metric(cosines, prepare=unit_length, refuses="zero"),
    "correlation": Metric(cosines, prepare=standard_score, refuses="constant"),
    "gaussian": Metric(minus_squares, partial(gaussian, width=math.nan)),  # metric_of puts in the width
    "dot": Metric(products, space="dot"),
}


def metric_of(metric: str | PairFunction, width: float | None = None) -> Metric | PairFunction:
    """A metric by its name; a function stays what it is.

    Raises
    ------
    SettingError
        If there is none of that name, or a width is missing, too small, or given to another metric than "gaussian".
    """
    if (isinstance(metric, str) and metric not in METRICS) or not (isinstance(metric, str) or callable(metric)):
        raise SettingError(f"metric must be one of {', '.join(METRICS)}, or a function of two arrays, got {metric!r}")
    if (metric == "gaussian") != (width is not None):
        rule = (
            "metric gaussian needs a width" if width is None else f"width belongs to metric gaussian, not to {metric!r}"
        )
        raise SettingError(f"{rule}: s = exp(-d² / (2 width²)) for points at distance d")
    Similarity(width=width)
    if not isinstance(metric, str):
        return metric
    if width is None:
        return METRICS[metric]
    return Metric(minus_squares, partial(gaussian, width=float(width)))


def pairwise(x: Floats, y: Floats, metric: str | PairFunction = "sqeuclidean", width: float | None = None) -> Floats:
    """The similarity of each row of x, shape (m, d), to each row of y, shape (n, d): an array of shape (m, n).

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
    """`pairwise`, of vectors that the metric has prepared."""
    if not isinstance(metric, Metric):
        return by_function(metric, x, y)
    return metric.similarity(
        metric.closeness(np.ascontiguousarray(x.T)[:, :, None], np.ascontiguousarray(y.T)[:, None, :])
    )


def by_function(function: PairFunction, x: Floats, y: Floats) -> Floats:
    """What a function says of two arrays.

    Raises
    ------
    SettingError
        If it fails, or returns anything but a number for each pair.
    """
    name = getattr(function, "__name__", None) or repr(function)
    of = f"for arrays of shapes {x.shape} and {y.shape}"
    try:
        returned = function(x.copy(), y.copy())  # its own, to change as it likes
        s = np.asarray(returned)
    except Exception as error:
        raise SettingError(
            f"a metric must be a function of two arrays, but {name} failed {of}: "
            f"{type(error).__name__}: {reason(error)}"
        ) from error
    if s.dtype.kind not in "fiub" or s.shape != (len(x), len(y)):
        found = f"{s.dtype} of shape {s.shape}" if s.shape else type(returned).__name__
        raise SettingError(
            f"a metric must return numbers, in an array of shape (m, n) for arrays of shapes (m, d) and (n, d), but "
            f"{name} returned {found} {of}"
        )
    return s.astype(np.float64, copy=False)
