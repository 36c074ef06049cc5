"""Both engines: their messages beside those of the oracle, and bitwise identical to each other's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from ap_spark.clusters import make_clusters
from ap_spark.convergence import Stability
from ap_spark.engines import Engine, make_engine
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.errors import SettingError
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.build import engine_of
from ap_spark.graph.edge_graph import EdgeGraph, build_edge_graph
from ap_spark.settings import EngineName, Settings
from tests import oracle
from tests.conftest import (
    FIXTURES,
    LONG,
    Edges,
    load,
    one_way,
    random_edges,
)
from tests.on_blocks import NEVER, OnBlocks, advance, bits, bits_of_columns, messages_of, names

Frame = Callable[[Edges], DataFrame]


@pytest.fixture(scope="module")
def components() -> tuple[list[NDArray[np.float64]], Edges, list[float]]:
    """Dense, sparse and asymmetric graphs as the components of one: their matrices, edges and preferences."""
    rng = np.random.default_rng(7)
    matrices: list[NDArray[np.float64]] = []
    edges: Edges = []
    preferences: list[float] = []
    for n, share, symmetric in [
        (2, 1.0, True),
        (12, 1.0, True),
        (12, 1.0, False),
        (20, 0.3, True),
        (20, 0.3, False),
        (15, 0.7, False),
    ] * 2:
        own = random_edges(rng, n, share, symmetric=symmetric)
        if n == 15:
            own = one_way(own, 4, 11)  # forced exemplars that others are similar to
        preference = -rng.gamma(2.0, 2.0, n)
        matrices.append(oracle.dense(n, own, preference))
        start = len(preferences)
        edges += [(i + start, k + start, s) for i, k, s in own]
        preferences += preference.tolist()
    return matrices, edges, preferences


@pytest.fixture(scope="module")
def graph(
    spark: SparkSession, frame: Frame, components: tuple[list[NDArray[np.float64]], Edges, list[float]]
) -> Iterator[EdgeGraph]:
    _, edges, preferences = components
    table = spark.createDataFrame(list(enumerate(preferences)), "id bigint, preference double")
    graph = build_edge_graph(frame(edges), Settings(jitter=False), points=table.select("id"), preferences=table)
    yield graph
    graph.release()


@pytest.mark.parametrize("name", [name for name in get_args(EngineName) if name != "auto"])
def test_messages_are_those_of_the_oracle(
    graph: EdgeGraph, components: tuple[list[NDArray[np.float64]], Edges, list[float]], name: EngineName
) -> None:
    matrices, _, _ = components
    assert graph.points.where("forced and in_degree > 0").count() == 4
    runs = [list(zip(range(50), oracle.iterate(s, 0.7), strict=False)) for s in matrices]
    settings = Settings(engine=name, damping=0.7, partitions=1, jitter=False)
    engine = OnBlocks(graph, 0.7, 1, settings=settings) if name == "resident" else make_engine(graph, settings)
    done = 0
    for iterations in (1, 2, 10, 50) if name == "resident" else (1, 2, 10):  # the other one is slow
        advance(engine, iterations - done)
        done = iterations
        found = messages_of(engine)
        start = 0
        for s, steps in zip(matrices, runs, strict=True):
            expected = oracle.Messages(steps[iterations - 1][1].r, steps[iterations - 2][1].a)
            if iterations == 1:
                expected = expected._replace(a=np.zeros_like(s))
            mine = found[(found.i >= start) & (found.i < start + len(s))]
            i, k = mine.i - start, mine.k - start
            scale = np.abs(expected.r).max()
            np.testing.assert_allclose(mine.r, expected.r[i, k], rtol=1e-9, atol=1e-12 * scale)
            np.testing.assert_allclose(mine.a, expected.a[i, k], rtol=1e-9, atol=1e-12 * scale)
            partakes = np.isfinite(s).sum(axis=1) > 1
            assert len(mine) == np.isfinite(s)[partakes].sum()
            start += len(s)
        inside = np.concatenate(
            [oracle.exemplars(s, steps[iterations - 1][1]) for s, steps in zip(matrices, runs, strict=True)]
        )
        forced = np.concatenate([np.isfinite(s).sum(axis=1) == 1 for s in matrices])
        assert names(engine) == np.flatnonzero(inside & ~forced).tolist()
    engine.release()


@pytest.fixture(scope="module")
def everything(spark: SparkSession, frame: Frame, tied: Edges) -> Iterator[EdgeGraph]:
    """All fixtures and random graphs as components of one graph, with jitter, each point its own preference."""
    rng = np.random.default_rng(11)
    graphs = [(edges, fixture["preference"]) for fixture, edges in map(load, FIXTURES)]
    graphs += [(tied, None), (random_edges(rng, 60, 0.1, symmetric=False), None)]
    graphs += [(one_way(random_edges(rng, 30, 0.4, symmetric=True), 3, 17), -1.0)]
    edges: Edges = []
    preferences: list[float] = []
    for own, preference in graphs:
        start, n = len(preferences), 1 + max(max(i, k) for i, k, _ in own)
        edges += [(i + start, k + start, s) for i, k, s in own]
        preferences += [float(np.median([s for *_, s in own]) if preference is None else preference)] * n
    table = spark.createDataFrame(list(enumerate(preferences)), "id bigint, preference double")
    graph = build_edge_graph(frame(edges), Settings(), points=table.select("id"), preferences=table)
    yield graph
    graph.release()


Way = Callable[[EdgeGraph], Engine]


def resident(blocks: int, kernel: str, **options: Any) -> Way:
    return lambda graph: OnBlocks(graph, 0.8, blocks, kernel, **options)


WAYS: dict[str, Way] = {
    f"resident-{kernel}-{blocks}": resident(blocks, kernel) for kernel in ("numpy", "numba") for blocks in (1, 2, 7, 16)
}
WAYS["resident-exchanged"] = resident(7, "numpy", collected_bytes=0)
WAYS["dataframe"] = lambda graph: DataFrameEngine(graph, 0.8, 2)
WAYS["dataframe-shuffled"] = lambda graph: DataFrameEngine(graph, 0.8, 7, broadcast_columns=0)


@pytest.fixture(scope="module")
def expected(everything: EdgeGraph) -> list[Any]:
    """What one block and numpy make of it."""
    return outcome(WAYS["resident-numpy-1"](everything), everything)


def outcome(engine: Engine, graph: EdgeGraph) -> list[Any]:
    """The messages' bits after some iterations, the records, the exemplars and the assignments."""
    done = list(engine.run(4, Stability((NEVER,))))
    exemplars = names(engine)
    mine = engine.graph if isinstance(engine, ResidentEngine) else graph
    of = type(mine).__name__, mine.fingerprint, *exemplars
    if of not in CLUSTERS:
        found = make_clusters(mine, engine.exemplars())
        rows = [sorted(table.collect()) for table in (found.assignments, found.exemplars)]
        CLUSTERS[of] = [*rows, found.n_clusters, found.promoted, found.dpsim, found.expref]
    digest = hashlib.sha256(bits(messages_of(engine)) + bits_of_columns(engine)).hexdigest()
    engine.release()
    return [digest, [record[:4] for record in done], exemplars, CLUSTERS[of]]


CLUSTERS: dict[tuple[object, ...], list[Any]] = {}  # what a graph in one form or the other makes of these exemplars


IN_SHORT = ("resident-numpy-2", "resident-numba-1")


@pytest.mark.parametrize("way", [pytest.param(way, marks=() if way in IN_SHORT else LONG) for way in WAYS])
def test_all_ways_to_compute_give_the_same_bits(everything: EdgeGraph, expected: list[Any], way: str) -> None:
    engine = WAYS[way](everything)
    if isinstance(engine, ResidentEngine):
        sizes = np.array([handle.entries for handle in engine.blocks.found])
        assert len(sizes) == (int(way.split("-")[-1]) if way[-1].isdigit() else 7)
        assert sizes.sum() == everything.edges.count()
        assert sizes.max() <= 1.5 * sizes.mean()
    found = outcome(engine, everything)
    assert found == expected
    assert 10 < len(found[2]) < everything.n_points
    assert found[1][-1][2] > 0, "exemplars still change, so that a wrong total would show"


@pytest.mark.long
@pytest.mark.parametrize(
    "ways",
    [("resident-numba-7",), ("resident-exchanged",), ("resident-numpy-2", "dataframe")],
)
def test_all_ways_give_the_same_bits_where_sums_have_two_words(
    frame: Frame, tied: Edges, ways: tuple[str, ...]
) -> None:
    """A large number stands for "too far", as some tables have it."""
    far = [(i, k, -1e18) for i in range(40) for k in range(40) if i != k and (i, k) not in {edge[:2] for edge in tied}]
    graph = build_edge_graph(frame(tied + far), Settings(preference=-5.0))
    assert graph.units.words == 2
    expected = outcome(WAYS["resident-numpy-1"](graph), graph)
    for way in ways:
        assert outcome(WAYS[way](graph), graph) == expected, way
    graph.release()


def test_an_engine_that_the_graph_is_not_made_for_is_refused(spark: SparkSession) -> None:
    """Also where the checks of the settings were bypassed: no name stands for another engine in silence."""
    cases: list[tuple[Any, str]] = [(BlockGraph, "dataframe"), (EdgeGraph, "resident"), (BlockGraph, "Resident")]
    for form, name in cases:
        settings = Settings()
        object.__setattr__(settings, "engine", name)
        with pytest.raises(SettingError, match=f"engine must be auto or .* for .*{form.__name__}, got '{name}'"):
            make_engine(form.__new__(form), settings)
    with pytest.raises(SettingError, match=f"engine must be one of {', '.join(get_args(EngineName))}, got 'Resident'"):
        engine_of(spark, settings)
