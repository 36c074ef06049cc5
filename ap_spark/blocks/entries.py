"""The entries of rows, made of edges in any order: duplicates merged, small ones left out, both directions stored.

The same rules in SQL are in `graph/edge_graph.py` and `graph/sparsify.py` (docs/semantics.md, sections 1 and 7).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Entries", "Rules", "make_entries"]

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]


class Rules(NamedTuple):
    """How edges become entries; see `settings.Sparsification`.

    Attributes
    ----------
    on_duplicate : {"error", "max", "min", "mean"}
    min_similarity : float or None
    symmetrize : {"none", "union", "mutual"}
    """

    on_duplicate: str = "error"
    min_similarity: float | None = None
    symmetrize: str = "none"


class Entries(NamedTuple):
    """The entries of some rows, ordered by (i, k).

    Attributes
    ----------
    i, k : int64, shape (entries,)
    s : float64, shape (entries,)
        Their similarities. The diagonal is not among them.
    preference_of, preference : int64 and float64, shape (given,)
        The edges (i, i): points, and the preference given for each.
    duplicates : int
        How many pairs were given more than once.
    """

    i: _Integers
    k: _Integers
    s: _Floats
    preference_of: _Integers
    preference: _Floats
    duplicates: int


def make_entries(i: NDArray[Any], k: NDArray[Any], s: _Floats, rules: Rules) -> Entries:
    """Turn edges into entries.

    Parameters
    ----------
    i, k : integers, shape (edges,)
        Row and column. A negative k stands for column ~k, of an edge that was given as (~k, i).
    s : float64, shape (edges,)
        Similarities; -infinity for a pair that is not stored.
    rules : Rules

    Returns
    -------
    Entries

    Examples
    --------
    >>> i, k, s = np.array([0, 1, 1, 2, 2]), np.array([1, ~0, 2, ~1, 2]), np.array([-1.0, -1.0, -3.0, -3.0, -9.0])
    >>> found = make_entries(i, k, s, Rules(symmetrize="union"))
    >>> list(zip(found.i.tolist(), found.k.tolist(), found.s.tolist())), found.preference_of, found.preference
    ([(0, 1, -1.0), (1, 0, -1.0), (1, 2, -3.0), (2, 1, -3.0)], array([2]), array([-9.]))
    """
    low = int(i.min()) if len(i) else 0
    reversed_ = k < 0
    column = np.where(reversed_, ~k, k)
    bits = int(column.max(initial=0)).bit_length()
    key = (((i.astype(np.int64) - low) << bits) | column) << 1 | reversed_
    order = np.argsort(key)
    key, s = key[order], s[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    duplicates = 0
    if len(first) < len(key):
        times = np.diff(first, append=len(key))
        key = key[first]
        duplicates = int(np.count_nonzero((times > 1) & (key & 1 == 0)))
        s = _merge_duplicates(s, first, times, rules.on_duplicate)
    pair = key >> 1
    row, column = (pair >> bits) + low, pair & ((1 << bits) - 1)
    diagonal = row == column
    given = row[diagonal], s[diagonal]
    stored = ~diagonal & (s > -np.inf)
    if rules.min_similarity is not None:
        stored &= s >= rules.min_similarity
    if not stored.all():
        key, pair, row, column, s = (array[stored] for array in (key, pair, row, column, s))
    if rules.symmetrize != "none":
        again = np.diff(pair, prepend=-1, append=-1) == 0  # the same pair given as (k, i) comes second
        kept = again[1:] if rules.symmetrize == "mutual" else ~again[:-1]
        row, column, s = row[kept], column[kept], s[kept]
    return Entries(row, column, s, *given, duplicates)


def _merge_duplicates(s: _Floats, first: _Integers, times: _Integers, rule: str) -> _Floats:
    """Return one similarity for each pair. A mean adds them by size, so that the order they came in does not matter."""
    if rule == "min":
        return np.asarray(np.minimum.reduceat(s, first))
    if rule != "mean":
        return np.asarray(np.maximum.reduceat(s, first))
    s = s[np.lexsort((s, np.repeat(np.arange(len(first)), times)))]
    total = np.zeros(len(first))
    for place in range(int(times.max())):
        more = times > place
        total[more] += s[first[more] + place]
    return np.asarray(total / times)
