"""Damping of its own for each point: both engines beside the oracle, bitwise identical, resumed and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from ap_spark.convergence import Iteration, Stability
from ap_spark.damping import DAMPINGS
from ap_spark.engines import Engine, State
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.graph.edge_graph import EdgeGraph, build_edge_graph
from ap_spark.settings import Settings
from tests import oracle
from tests.conftest import LONG, Edges, one_way, random_edges
from tests.on_blocks import OnBlocks, advance, bits, bits_of_columns, delete, messages_of, names, paths, tear

Frame = Callable[[Edges], DataFrame]
Spoil = Callable[[Path, bytes], None]

N = 120
LAST = 84  # levels are raised before iterations 41 and 81
PREFERENCE = -2.0
WINDOWS = Settings().windows


@pytest.fixture(scope="module")
def edges() -> Edges:
    """A random graph, without geometry: exemplars keep changing. Two points are forced exemplars."""
    return one_way(random_edges(np.random.default_rng(4), N, 0.08, symmetric=False), 7, 50)


@pytest.fixture(scope="module")
def graph(frame: Frame, edges: Edges) -> Iterator[EdgeGraph]:
    graph = build_edge_graph(frame(edges), Settings(preference=PREFERENCE, jitter=False))
    yield graph
    graph.release()


def resident(blocks: int, kernel: str = "numpy", **options: Any) -> Callable[..., Engine]:
    settings = Settings(jitter=False)
    return lambda graph, **start: OnBlocks(graph, None, blocks, kernel, settings=settings, **options, **start)


WAYS: dict[str, Callable[..., Engine]] = {
    f"resident-{kernel}-{blocks}": resident(blocks, kernel) for kernel in ("numpy", "numba") for blocks in (1, 2, 7)
}
WAYS["resident-exchanged"] = resident(7, collected_bytes=0)
WAYS["dataframe"] = lambda graph, **start: DataFrameEngine(graph, None, 2, **start)
WAYS["dataframe-shuffled"] = lambda graph, **start: DataFrameEngine(graph, None, 3, broadcast_columns=0, **start)


def go(engine: Engine, iterations: int) -> list[Iteration]:
    """Iterate under the windows of automatic damping; nothing ends the run."""
    return list(engine.run(iterations, NeverReached(WINDOWS)))


class NeverReached(Stability):
    def reached(self, done: Iteration) -> bool:
        return False


def end(engine: Engine) -> tuple[bytes, list[int]]:
    found = bits(messages_of(engine)) + bits_of_columns(engine), names(engine)
    engine.release()
    return found


def levels(engine: Engine) -> NDArray[np.int8]:
    columns = engine.state().columns.orderBy("k").toArrow()
    return np.asarray(columns["level"].to_numpy())


@pytest.fixture(scope="module")
def undisturbed(graph: EdgeGraph) -> tuple[list[Any], bytes, list[int]]:
    engine = WAYS["resident-numpy-1"](graph)
    done = [record[:4] for record in go(engine, LAST)]
    assert len(set(levels(engine).tolist())) >= 3
    return done, *end(engine)


def test_records_and_messages_are_those_of_the_oracle(graph: EdgeGraph, edges: Edges) -> None:
    s = oracle.dense(N, edges, PREFERENCE)
    engine = WAYS["resident-numpy-2"](graph)
    found = go(engine, LAST)
    steps = list(zip(range(LAST), oracle.automatic(s), strict=False))
    assert [record[1:4] for record in found] == [step.record for _, step in steps]
    expected = oracle.Messages(steps[-1][1].messages.r, steps[-2][1].messages.a)
    mine = messages_of(engine)
    np.testing.assert_allclose(mine.r, expected.r[mine.i, mine.k], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(mine.a, expected.a[mine.i, mine.k], rtol=1e-7, atol=1e-9)
    assert [DAMPINGS[level] for level in levels(engine)] == steps[-1][1].damping.tolist()
    engine.release()


SHORT = ("resident-numba-1",)


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way in SHORT else LONG) for way in WAYS])
def test_all_ways_give_the_same_bits_where_levels_differ(
    graph: EdgeGraph, undisturbed: tuple[list[Any], bytes, list[int]], way: str
) -> None:
    engine = WAYS[way](graph)
    done = [record[:4] for record in go(engine, LAST)]
    assert (done, *end(engine)) == undisturbed


def saved(engine: Engine, directory: Path) -> State:
    state = engine.state()
    for name in ("messages", "columns"):
        getattr(state, name).write.parquet(str(directory / name))
    read = state.columns.sparkSession.read
    return State(state.iteration, *(read.parquet(str(directory / name)) for name in ("messages", "columns")))


# 80: levels are raised where the run resumes; 81: they have just been raised
@pytest.mark.parametrize(
    ("first", "at", "second"),
    [
        pytest.param("resident-numpy-1", 80, "dataframe", marks=LONG),
        pytest.param("resident-numpy-2", 81, "resident-numba-1", marks=LONG),
        pytest.param("resident-numpy-1", 81, "resident-numpy-2", marks=LONG),
        pytest.param("dataframe", 81, "resident-numpy-7", marks=LONG),
        pytest.param("resident-numpy-7", 79, "dataframe-shuffled", marks=LONG),
    ],
)
def test_each_engine_resumes_from_the_state_of_each(
    graph: EdgeGraph,
    undisturbed: tuple[list[Any], bytes, list[int]],
    tmp_path: Path,
    first: str,
    at: int,
    second: str,
) -> None:
    engine = WAYS[first](graph)
    done = go(engine, at)
    state = saved(engine, tmp_path)
    engine.release()
    engine = WAYS[second](graph, start=state)
    done += go(engine, LAST - at)
    assert ([record[:4] for record in done], *end(engine)) == undisturbed


@pytest.mark.parametrize(
    ("blocks", "spoil", "recovery_point"),
    [
        (1, delete, 0),
        pytest.param(2, tear, 60, marks=LONG),
        pytest.param(2, delete, 0, marks=LONG),
        pytest.param(7, delete, 80, marks=LONG),
        pytest.param(1, tear, 60, marks=LONG),
        pytest.param(1, delete, 80, marks=LONG),
    ],
)
def test_lost_blocks_repeat_their_iterations_with_the_levels_of_each(
    graph: EdgeGraph,
    undisturbed: tuple[list[Any], bytes, list[int]],
    tmp_path: Path,
    blocks: int,
    spoil: Spoil,
    recovery_point: int,
) -> None:
    engine = resident(blocks)(graph)
    assert isinstance(engine, ResidentEngine)
    if recovery_point:
        advance(engine, recovery_point)
        engine.set_recovery_point(saved(engine, tmp_path))
    advance(engine, 82 - recovery_point)
    path = paths(engine)[-1]
    spoil(path, path.read_bytes())
    advance(engine, 2)
    path = paths(engine)[0]
    spoil(path, path.read_bytes())
    assert end(engine) == undisturbed[1:]
