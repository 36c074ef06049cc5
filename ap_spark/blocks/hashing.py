"""Spark's ``xxhash64`` on arrays, and the jitter made of it (docs/semantics.md, section 3).

A point is hashed by its *key*: the id itself if it is an integer, else the hash of the string.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["JITTER", "hash_edges", "hash_points", "jittered"]

JITTER = 1e-10

SPARK_SEED = np.uint64(42)
P1, P2, P3, P4, P5 = (
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Words = NDArray[np.uint64]


def rotated(word: Words, bits: int) -> Words:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


def hash_words(words: Words, seed: Words | np.uint64) -> Words:
    """xxhash64 of 8 bytes each."""
    word = rotated(words * P2, 31) * P1
    word ^= seed + (P5 + np.uint64(8))
    word = rotated(word, 27) * P1 + P4
    word ^= word >> np.uint64(33)
    word *= P2
    word ^= word >> np.uint64(29)
    word *= P3
    return word ^ (word >> np.uint64(32))


def hash_edges(key_i: Integers, key_k: Integers, s: Floats) -> Words:
    """What Spark's ``xxhash64(i, k, s)`` gives for keys and similarities.

    Examples
    --------
    >>> hash_edges(np.array([1]), np.array([2]), np.array([-1.5])).view(np.int64).tolist()
    [-3469925257449543409]
    """
    return hash_words((s + 0.0).view(np.uint64), hash_words(words(key_k), hash_words(words(key_i), SPARK_SEED)))


def hash_points(keys: Integers, preference: Floats) -> Words:
    """What Spark's ``xxhash64(id, preference)`` gives for keys and preferences."""
    return hash_words((preference + 0.0).view(np.uint64), hash_words(words(keys), SPARK_SEED))


def jittered(value: Floats, key_i: Integers, key_k: Integers, seed: int, min_nonzero: float) -> Floats:
    """Similarities with jitter: value (1 + 1e-10 z) + 1e-10 z min_nonzero, z in [-1, 1) a hash of (seed, i, k).

    Parameters
    ----------
    value : float64, shape (entries,)
    key_i, key_k : int64, shape (entries,)
    seed : int
    min_nonzero : float
        The smallest similarity or preference in size that is not 0; 1 where there is none.
    """
    with np.errstate(over="ignore"):
        start = hash_words(np.array([seed]).view(np.uint64), SPARK_SEED)
        hashed = hash_words(words(key_k), hash_words(words(key_i), start))
    z = (hashed.view(np.int64) >> 11) / 2.0**52
    return np.asarray(value * (1.0 + JITTER * z) + JITTER * z * min_nonzero)


def words(keys: Integers) -> Words:
    return np.ascontiguousarray(keys, np.int64).view(np.uint64)
