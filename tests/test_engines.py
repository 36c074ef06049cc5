"""Both engines: against the oracle, against each other to the last bit, and what they leave in the cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyspark.sql.functions as F
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.session import with_settings
from ap_spark.blocks import compiled_kernel as compiled
from ap_spark.blocks import kernel, store
from ap_spark.blocks.kernel import make_block
from ap_spark.blocks.store import Blocks
from ap_spark.clusters import make_clusters
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines import Engine, make_engine, tasks
from ap_spark.engines.dataframe import DataFrameEngine, responsibilities
from ap_spark.engines.resident import ResidentEngine
from ap_spark.exact_sum import Units
from ap_spark.graph.edge_graph import EdgeGraph, build_edge_graph
from ap_spark.settings import EngineName, Settings
from benchmarks.workload import ready_graph
from tests import oracle
from tests.conftest import (
    FIXTURES,
    LONG,
    Edges,
    affinity_propagation,
    all_pairs,
    held_tables,
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


@pytest.mark.parametrize("name", ["resident", "dataframe"])
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
def tied() -> Edges:
    """A graph full of exact ties, where an order of addition or of rows would show."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 4, (40, 2)).astype(float) + rng.integers(0, 3, (40, 1)) * 20.1
    return [(i, k, s) for i, k, s in all_pairs(x) if s > -60]


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
    done = list(engine.run(4, Stability(NEVER)))
    exemplars = names(engine)
    mine = engine.graph if isinstance(engine, ResidentEngine) else graph
    of = type(mine).__name__, mine.fingerprint, *exemplars
    if of not in CLUSTERS:
        found = make_clusters(mine, engine.exemplars())
        rows = [sorted(table.collect()) for table in (found.assignments, found.exemplars)]
        CLUSTERS[of] = [*rows, found.n_clusters, found.promoted, found.dpsim, found.expref]
    digest = hashlib.sha256(bits(messages_of(engine)) + bits_of_columns(engine)).hexdigest()
    engine.release()
    return [digest, [record[:3] for record in done], exemplars, CLUSTERS[of]]


CLUSTERS: dict[tuple[object, ...], list[Any]] = {}  # what a graph in one form or the other makes of these exemplars


IN_SHORT = ("resident-numpy-2", "resident-numba-1", "resident-numba-7", "resident-exchanged", "dataframe")


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


@pytest.mark.parametrize(
    "ways",
    [("resident-numba-7", "dataframe"), pytest.param(("resident-numpy-2", "resident-exchanged"), marks=LONG)],
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


def test_words_that_travel_add_up() -> None:
    """Coarse words are sent for the few columns that have one; some have no fine word beside it."""
    rng = np.random.default_rng(0)
    block = make_block(*all_ends(9), s=rng.normal(size=81))
    for units in (Units(0.25, 0.25), Units(64.0, 2.0**-20)):
        plan = SimpleNamespace(layout=SimpleNamespace(cuts=np.array([0, 4, 9])), units=units)
        sent, expected = [], np.zeros((units.words, 9), np.int64)
        for number, low in ((0, 0), (1, 4)):
            part = block.part(low, (4, 9)[number])
            sums = rng.integers(0, 3, (units.words, 9)) * rng.integers(0, 2**40, (units.words, 9))
            expected += sums
            sent += list(tasks.partial_sums(part, plan, number, sums, reached=3))  # type: ignore[arg-type]
        found = sorted(tasks.reduce_sums(sent, plan), key=lambda column_sums: column_sums.number)  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.concatenate([column_sums.sums for column_sums in found], axis=1), expected)
        assert [column_sums.reached for column_sums in found] == [3, 3]


def all_ends(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    i, k = np.divmod(np.arange(n * n), n)
    return i, k


def test_the_order_and_partitions_of_the_input_do_not_change_the_bits(frame: Frame, tied: Edges) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for partitions in (1, 2, 7):
        shuffled = [tied[n] for n in rng.permutation(len(tied))]
        graph = build_edge_graph(frame(shuffled).repartition(partitions), Settings())
        engine = OnBlocks(graph, 0.8, 1, "numpy")
        advance(engine, 4)
        seen.add(bits(messages_of(engine)))
        engine.release()
        graph.release()
    assert len(seen) == 1


@pytest.mark.parametrize("blocks", [1, 2])
def test_iterations_asked_for_one_by_one_give_the_same_bits(frame: Frame, tied: Edges, blocks: int) -> None:
    graph = build_edge_graph(frame(tied), Settings())
    whole, parts = (OnBlocks(graph, 0.8, blocks, "numpy") for _ in range(2))
    advance(whole, 9)
    for iterations in (1, 3, 5):
        advance(parts, iterations)
    assert bits(messages_of(whole)) == bits(messages_of(parts))
    assert names(whole) == names(parts)
    whole.release()
    parts.release()
    graph.release()


def test_there_are_no_more_blocks_than_rows(frame: Frame) -> None:
    graph = build_edge_graph(frame([(0, 1, -1.0), (1, 0, -1.5), (2, 1, -1.0)]), Settings(), points=None)
    engine = OnBlocks(graph, 0.8, 16, "numpy")
    assert engine.blocks.layout.cuts.tolist() == [0, 1, 2, 3]
    assert [handle.entries for handle in engine.blocks.found] == [2, 2, 2]
    engine.release()
    graph.release()


@pytest.mark.parametrize("iterate", [kernel.iterate, compiled.iterate])
def test_parts_and_damping_of_each_point_do_not_change_the_bits(
    tied: Edges, monkeypatch: pytest.MonkeyPatch, iterate: Callable[..., None]
) -> None:
    n = 40
    i, k, s = map(np.array, zip(*tied, *((p, p, -5.0) for p in range(n)), strict=True))
    results = []
    for size, damping in ((1 << 15, 0.8), (1, 0.8), (64, np.full(n, 0.8))):
        monkeypatch.setattr(kernel, "_PART_ENTRIES", size)
        block = kernel.make_block(i, k.astype(np.int32 if size == 1 else np.int64), s)
        totals: NDArray[np.float64] = np.zeros(n)
        for _ in range(10):
            sums = np.zeros((1, n), np.int64)
            iterate(block, totals, damping, Units(2.0**-40, 2.0**-40), sums)
            totals = np.asarray(sums[0] * 2.0**-40)
        results.append((block.r.tobytes(), block.a.tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize("iterate", [kernel.iterate, compiled.iterate])
def test_damping_of_each_point_is_its_own(iterate: Callable[..., None]) -> None:
    i, k = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    s = np.array([-2.0, -1.0, -1.0, -2.0])
    block = kernel.make_block(i, k, s)
    iterate(block, np.array([0.0, -4.0]), np.array([0.5, 0.75]), Units(2.0**-40, 2.0**-40), np.zeros((1, 2), np.int64))
    assert block.a.tolist() == [0.0, -2.0, 0.0, -1.0]
    assert block.r.tolist() == [0.5, 0.5, 0.5, -0.25]


def exchanges(plan: str) -> list[str]:
    """The columns that each exchange of a formatted plan sends."""
    return re.findall(r"\(\d+\) (?:Broadcast)?Exchange\s*\nInput \[\d+\]: \[([^\]]*)\]", plan)


@pytest.mark.parametrize("broadcast_columns", [10**6, 0])
def test_an_iteration_never_moves_the_edges(
    spark: SparkSession, frame: Frame, tied: Edges, broadcast_columns: int, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = build_edge_graph(frame(tied), Settings())
    engine = DataFrameEngine(graph, 0.8, 3, broadcast_columns)
    advance(engine, 2)
    with with_settings(spark, engine.planner):
        edges = responsibilities(engine.updated_edges(), 0.8)
        edges.explain("formatted")
    plan = capsys.readouterr().out
    with with_settings(spark, engine.planner):
        engine.new_columns().explain("formatted")
    new_columns = capsys.readouterr().out
    assert len(exchanges(new_columns)) == 1, "partial sums by column, and nothing else"
    assert "BroadcastExchange" not in new_columns
    plan += new_columns
    sent = exchanges(plan)
    assert len(sent) >= 2, plan
    for columns in sent:
        names = {column.split("#")[0].strip() for column in columns.split(",")}
        # a column's name and aggregates, and the block it is addressed to; no row index, no similarity
        assert "i" not in names, plan
        assert "s" not in names, plan
        assert "k" in names, plan
    assert ("BroadcastExchange" in plan) == (broadcast_columns > 0)
    # one block in each partition: nothing is skewed by accident
    placed = engine.edges.select("block", F.spark_partition_id().alias("partition")).distinct().collect()
    assert len({row.block for row in placed}) == len({row.partition for row in placed}) == len(placed) == 3
    engine.release()
    graph.release()


def test_storage_and_plan_do_not_grow_and_are_given_back(spark: SparkSession, frame: Frame, tied: Edges) -> None:
    before = held_tables(spark).keys()  # other tests' leftovers, which may go at any time
    graph = build_edge_graph(frame(tied), Settings())
    engine = DataFrameEngine(graph, 0.8, 2)
    advance(engine, 3)
    early = {table: size for table, size in held_tables(spark).items() if table not in before}
    assert early
    advance(engine, 10)
    late = {table: size for table, size in held_tables(spark).items() if table not in before}
    assert len(late) == len(early)
    assert sum(late.values()) <= 1.2 * sum(early.values())
    plan = engine.updated_edges()._jdf.queryExecution()
    assert len(str(plan.optimizedPlan().stats().sizeInBytes())) < 60  # SPARK-52163 made it millions of digits
    engine.release()
    graph.release()
    assert held_tables(spark).keys() <= before


def bytes_moved(spark: SparkSession, engine: ResidentEngine, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """What an iteration shuffles, and what it broadcasts."""
    tracker = spark.sparkContext._jsc.sc().statusStore()
    last_job = tracker.jobsList(None).head().jobId()
    sizes: list[int] = []
    send = store.broadcast

    def watched(session: SparkSession, value: Any) -> Any:
        variable = send(session, value)
        sizes.append(Path(variable._path).stat().st_size)
        return variable

    with monkeypatch.context() as patched:
        patched.setattr(store, "broadcast", watched)
        advance(engine, 1)
    jobs = [job for job in listed(tracker.jobsList(None)) if job.jobId() > last_job]
    stages = [tracker.lastStageAttempt(stage) for job in jobs for stage in listed(job.stageIds())]
    return sum(stage.shuffleWriteBytes() for stage in stages), sum(sizes)


def listed(sequence: Any) -> list[Any]:
    return [sequence.apply(number) for number in range(sequence.size())]


@LONG
def test_bytes_moved_go_with_points_and_blocks_and_not_with_edges(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(points: int, neighbors: int, blocks: int) -> tuple[int, int]:
        graph = ready_graph(spark, points, neighbors, tmp_path, blocks)
        engine = ResidentEngine(graph, 0.8, "numba", collected_bytes=0)
        advance(engine, 3)
        found = bytes_moved(spark, engine, monkeypatch)
        engine.release()
        graph.release()
        return found

    shuffled, broadcast = moved(30_000, 5, 2)
    shuffled_by_more_edges, broadcast_by_more_edges = moved(30_000, 20, 2)
    assert shuffled_by_more_edges == pytest.approx(shuffled, rel=0.1)
    assert broadcast_by_more_edges == pytest.approx(broadcast, rel=0.1)
    shuffled_by_more_points, broadcast_by_more_points = moved(60_000, 5, 2)
    assert shuffled_by_more_points == pytest.approx(2 * shuffled, rel=0.1)
    assert broadcast_by_more_points == pytest.approx(2 * broadcast, rel=0.1)
    assert broadcast == pytest.approx(8 * 30_000, rel=0.1)
    shuffled_by_more_blocks, broadcast_by_more_blocks = moved(30_000, 5, 6)
    assert shuffled < shuffled_by_more_blocks < 3 * shuffled  # 12 bytes at most a point and block, and 8 a point
    assert broadcast_by_more_blocks == pytest.approx(broadcast, rel=0.1)


@pytest.mark.parametrize("blocks", [1, 2])
def test_files_and_tables_go_when_a_run_is_interrupted(
    spark: SparkSession, frame: Frame, tied: Edges, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    before = held_tables(spark).keys()
    files: list[Path] = []
    write = Blocks.write

    def watched(blocks: Blocks) -> None:
        write(blocks)
        files.extend(Path(handle.path) for handle in blocks.found)

    def interrupt(done: Iteration) -> None:
        assert all(path.exists() for path in files)
        raise KeyboardInterrupt

    monkeypatch.setattr(Blocks, "write", watched)
    with pytest.raises(KeyboardInterrupt):
        affinity_propagation(frame(tied), partitions=blocks, callback=interrupt)
    assert len(files) == blocks
    assert not any(path.parent.exists() for path in files)
    assert held_tables(spark).keys() <= before
