"""Spark's ``xxhash64`` on arrays, and the jitter that is made from it (docs/semantics.md, section 3).

A point is hashed by its *key*: an id that is an integer is its own key, an id that is a string has its hash as key.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["JITTER", "hash_edges", "hash_points", "jittered"]

JITTER = 1e-10  # the largest relative change of a similarity

_SPARK_SEED = np.uint64(42)
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Words = NDArray[np.uint64]


def _rotate(word: _Words, bits: int) -> _Words:
    """Rotate the bits of 64-bit words to the left."""
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


def _hash_words(words: _Words, seed: _Words | np.uint64) -> _Words:
    """Return the xxhash64 of each word, which is of 8 bytes."""
    word = _rotate(words * _P2, 31) * _P1
    word ^= seed + (_P5 + np.uint64(8))
    word = _rotate(word, 27) * _P1 + _P4
    word ^= word >> np.uint64(33)
    word *= _P2
    word ^= word >> np.uint64(29)
    word *= _P3
    return word ^ (word >> np.uint64(32))


def hash_edges(key_i: _Integers, key_k: _Integers, s: _Floats) -> _Words:
    """Return what Spark's ``xxhash64(i, k, s)`` returns for keys and similarities.

    Examples
    --------
    >>> hash_edges(np.array([1]), np.array([2]), np.array([-1.5])).view(np.int64).tolist()
    [-3469925257449543409]
    """
    return _hash_words(
        (s + 0.0).view(np.uint64), _hash_words(_as_words(key_k), _hash_words(_as_words(key_i), _SPARK_SEED))
    )


def hash_points(keys: _Integers, preference: _Floats) -> _Words:
    """Return what Spark's ``xxhash64(id, preference)`` returns for keys and preferences."""
    return _hash_words((preference + 0.0).view(np.uint64), _hash_words(_as_words(keys), _SPARK_SEED))


def jittered(value: _Floats, key_i: _Integers, key_k: _Integers, seed: int, min_nonzero: float) -> _Floats:
    """Return similarities with jitter: value (1 + 1e-10 z) + 1e-10 z min_nonzero.

    z in [-1, 1) is a hash of (seed, i, k).

    Parameters
    ----------
    value : float64, shape (entries,)
    key_i, key_k : int64, shape (entries,)
    seed : int
    min_nonzero : float
        The smallest similarity or preference in size that is not 0; 1 where there is none.
    """
    with np.errstate(over="ignore"):
        start = _hash_words(np.array([seed]).view(np.uint64), _SPARK_SEED)
        hashed = _hash_words(_as_words(key_k), _hash_words(_as_words(key_i), start))
    z = (hashed.view(np.int64) >> 11) / 2.0**52
    return np.asarray(value * (1.0 + JITTER * z) + JITTER * z * min_nonzero)


def _as_words(keys: _Integers) -> _Words:
    """Return the same bits as unsigned integers, whose arithmetic wraps around."""
    return np.ascontiguousarray(keys, np.int64).view(np.uint64)
