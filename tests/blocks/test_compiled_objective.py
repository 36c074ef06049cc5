"""The compiled passes of polishing and of the bound, beside those in numpy: bitwise identical. No Spark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ap_spark.blocks import compiled_objective as compiled
from ap_spark.blocks import objective
from ap_spark.blocks.kernel import make_block
from ap_spark.blocks.objective import NONE, Found
from tests.conftest import LONG
from tests.quality.graphs import Graph, random_graphs

Arguments = tuple[Any, ...]


def tied(graph: Graph) -> Graph:
    """The same with whole numbers as similarities, of which many are equal."""
    return graph._replace(name=f"{graph.name}, tied", s=np.rint(graph.s / 4.0), preferences=np.full(graph.n, -3.0))


SOME = random_graphs(10, seed=12, most=40)
GRAPHS = [*SOME, *map(tied, SOME)]


def parts_of(graph: Graph, blocks: int) -> list[list[Any]]:
    """The parts of each block, with similarities as whole numbers and preferences on the diagonal."""
    own = np.unique(graph.i)
    i, k = np.append(graph.i, own), np.append(graph.k, own).astype(np.int32)
    s = np.rint(256.0 * np.append(graph.s, graph.preferences[own]))
    found = []
    for number in range(blocks):
        here = i * blocks // graph.n == number
        block = make_block(i[here], k[here], s[here])
        found.append([(part, part.s.astype(np.int64)) for part in block.parts])
    return found


def bits(found: Found) -> tuple[Any, ...]:
    arrays = [found.rows, *found.values, found.sums]
    return tuple((array.dtype, array.shape, array.tobytes()) for array in arrays)


def of_best_two(graph: Graph, rng: np.random.Generator, s: NDArray[np.int64]) -> Arguments:
    return (rng.random(graph.n) < rng.choice([0.0, 0.1, 0.5, 1.0]),)


def of_gains(graph: Graph, rng: np.random.Generator, s: NDArray[np.int64]) -> Arguments:
    """Exemplars, and what `best_two` finds: also where some rows have one exemplar or none, and lack a fallback."""
    is_exemplar = rng.random(graph.n) < rng.choice([0.1, 0.3])
    first, best, second = np.full(graph.n, -1, np.int32), np.full(graph.n, NONE), np.full(graph.n, NONE)
    for parts in parts_of(graph, 1):
        found = objective.best_two(parts, is_exemplar)
        first[found.rows], best[found.rows], second[found.rows] = found.values
    is_exemplar |= best == NONE
    lacks = ~is_exemplar & (second == NONE) & (rng.random(graph.n) < 0.7)
    fallback = np.where(second == NONE, rng.choice(s, graph.n), second)
    return is_exemplar, first, best, fallback, lacks


def of_extras(graph: Graph, rng: np.random.Generator, s: NDArray[np.int64]) -> Arguments:
    """Some of the exemplars that could be closed are looked at."""
    is_exemplar, first, best, fallback, lacks = of_gains(graph, rng, s)
    closable = is_exemplar & (best != NONE) & (np.bincount(first[lacks], minlength=graph.n) == 0)
    return is_exemplar, first, best, fallback, closable & (rng.random(graph.n) < 0.8)


def of_refusals(graph: Graph, rng: np.random.Generator, s: NDArray[np.int64]) -> Arguments:
    """Ranks of moves; those of a swap are at two points."""
    none = int(rng.choice([0, graph.n // 3, graph.n]))
    return rng.integers(0, none + 1 + graph.n // 2, graph.n).clip(0, none).astype(np.int32), none


def of_bound_step(graph: Graph, rng: np.random.Generator, s: NDArray[np.int64]) -> Arguments:
    """Numbers v that are similarities, some of them, so that there are ties."""
    v = rng.choice(s, graph.n) + rng.integers(-1, 2, graph.n) * rng.integers(0, 50, graph.n)
    direction = rng.integers(-4096, 4096, graph.n) / 1024.0
    return v, direction, rng.random(graph.n) < 0.3, float(rng.choice([0.0, 3.7, 1e3, 1e30])), 0.7, 1 << 50


@pytest.mark.parametrize("arguments", [of_best_two, of_gains, of_extras, of_refusals, of_bound_step])
@pytest.mark.parametrize("blocks", [1, 2, pytest.param(7, marks=LONG)])
def test_each_pass_gives_the_same_bits(
    arguments: Callable[..., Arguments], blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ap_spark.blocks.kernel._PART_ENTRIES", 64)  # several parts
    name, rng = arguments.__name__.removeprefix("of_"), np.random.default_rng(13)
    for graph in GRAPHS:
        in_blocks = parts_of(graph, blocks)
        s = np.concatenate([similarity for parts in in_blocks for _, similarity in parts])
        for _ in range(8):
            given = arguments(graph, rng, s)
            for parts in in_blocks:
                expected = getattr(objective, name)(parts, *given)
                assert bits(getattr(compiled, name)(parts, *given)) == bits(expected), graph.name


def test_units_are_rounded_up_alike() -> None:
    rng = np.random.default_rng(14)
    similarity = np.append(-rng.gamma(2.0, 1.0, 1000), [0.0, -0.0, 0.25, -0.25, 3.0, -1e15, 1e-300])
    found = compiled.in_whole_units(similarity, 2.0**-12)
    assert found.dtype == np.int64
    assert found.tolist() == objective.in_whole_units(similarity, 2.0**-12).tolist()
