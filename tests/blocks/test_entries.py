"""Edges become entries by the rules of the input, without Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ap_spark.blocks.entries import Rules, make_entries
from tests.conftest import Edges

Pairs = dict[tuple[int, int], float]


def defined(edges: Edges, rules: Rules) -> Pairs:
    """The rules, one after the other."""
    pairs: dict[tuple[int, int], list[float]] = {}
    for i, k, s in edges:
        pairs.setdefault((i, k), []).append(s)
    merges: dict[str, Callable[[list[float]], float]] = {
        "min": min,
        "mean": lambda values: sum(sorted(values)) / len(values),
    }
    merge = merges.get(rules.on_duplicate, max)
    kept = {pair: merge(values) for pair, values in pairs.items() if pair[0] != pair[1]}
    least = -np.inf if rules.min_similarity is None else rules.min_similarity
    kept = {pair: s for pair, s in kept.items() if s > -np.inf and s >= least}
    if rules.symmetrize == "union":
        return {(k, i): s for (i, k), s in kept.items()} | kept
    if rules.symmetrize == "mutual":
        return {(i, k): s for (i, k), s in kept.items() if (k, i) in kept}
    return kept


def as_arrays(edges: Edges, symmetrize: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """As they reach a block: in both directions, if it has to be, the other one with ~k."""
    sent = [(i, k, s) for i, k, s in edges]
    if symmetrize != "none":
        sent += [(k, ~i, s) for i, k, s in edges if i != k]
    i, k, s = zip(*sent, strict=True)
    return np.array(i, np.int32), np.array(k, np.int32), np.array(s)


@pytest.mark.parametrize("symmetrize", ["none", "union", "mutual"])
@pytest.mark.parametrize("on_duplicate", ["error", "max", "min", "mean"])
@pytest.mark.parametrize("least", [None, -3.0])
def test_edges_become_entries_by_the_rules(symmetrize: str, on_duplicate: str, least: float | None) -> None:
    rules = Rules(on_duplicate, least, symmetrize)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 12))
        ends = rng.integers(0, n, (int(rng.integers(1, 60)), 2)).tolist()
        if on_duplicate == "error":
            ends = [list(pair) for pair in {tuple(pair) for pair in ends}]
        edges = [(i, k, float(rng.choice([-np.inf, -1.0, -3.0, -7.0, rng.normal()]))) for i, k in ends]
        edges = [(i, k, -2.0 if i == k else s) for i, k, s in edges]
        i, k, s = as_arrays(edges, symmetrize)
        order = rng.permutation(len(i))
        found = make_entries(i[order], k[order], s[order], rules)
        mine = dict(zip(zip(found.i.tolist(), found.k.tolist(), strict=True), found.s.tolist(), strict=True))
        expected = defined(edges, rules)
        assert mine == expected
        assert list(mine) == sorted(expected), "in order"
        assert set(found.preference_of.tolist()) == {i for i, k, _ in edges if i == k}
        counts = {pair: [edge[:2] for edge in edges].count(pair) for pair in {edge[:2] for edge in edges}}
        assert found.duplicates == sum(count > 1 for count in counts.values())
