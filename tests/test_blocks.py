"""The graph in blocks: what becomes of edges, what passes find on blocks, without Spark; then against DataFrames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ap_spark import InputError, preference_range
from ap_spark._spark import classic
from ap_spark.blocks import build, passes, send
from ap_spark.blocks.assemble import Rules, assemble
from ap_spark.blocks.build import EdgeStats, Layout, split_by_rows, with_diagonal
from ap_spark.blocks.files import OPEN_FILES, UnusableFile, opened, shape_of, write_block
from ap_spark.blocks.hashing import hash_edges, hash_points, jittered
from ap_spark.blocks.send import parcels, unpacked
from ap_spark.clusters import make_clusters
from ap_spark.engines.tasks import Beginning, Plan, begin_messages
from ap_spark.exact_sum import Units
from ap_spark.graph import block_graph, numbering
from ap_spark.graph.block_graph import BlockGraph, _block_of
from ap_spark.graph.block_graph_builder import _cut, build_block_graph
from ap_spark.graph.describe import describe_graph
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.graph.numbering import number_points
from ap_spark.settings import Settings
from ap_spark.similarity.all_pairs import all_pairs as compared
from ap_spark.similarity.neighbors import find_neighbors
from tests.conftest import LONG, Edges, affinity_propagation, all_pairs, one_way, random_edges

Frame = Callable[[Edges], DataFrame]
Pairs = dict[tuple[int, int], float]

UNITS = Units(2.0**-40, 2.0**-40)


def test_hashes_are_those_of_spark(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    i, k = rng.integers(-(2**63), 2**63 - 1, (2, 200))
    s = np.append(rng.normal(size=197) * 10.0 ** rng.integers(-300, 300, 197), [0.0, -0.0, -np.inf])
    rows = spark.createDataFrame(list(zip(i.tolist(), k.tolist(), s.tolist(), strict=True)), "i long, k long, s double")
    seed = F.lit(-7).cast("bigint")
    told = rows.select(F.xxhash64("i", "k", "s"), F.xxhash64("i", "s"), F.xxhash64(seed, "i", "k")).collect()
    edges, points, both = (np.array(column) for column in zip(*told, strict=True))
    np.testing.assert_array_equal(hash_edges(i, k, s).view(np.int64), edges)
    np.testing.assert_array_equal(hash_points(i, s).view(np.int64), points)
    z = (both >> 11) / 2.0**52
    np.testing.assert_array_equal(jittered(s, i, k, -7, 0.5), s * (1.0 + 1e-10 * z) + 1e-10 * z * 0.5)


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
        found = assemble(i[order], k[order], s[order], rules)
        mine = dict(zip(zip(found.i.tolist(), found.k.tolist(), strict=True), found.s.tolist(), strict=True))
        expected = defined(edges, rules)
        assert mine == expected
        assert list(mine) == sorted(expected), "in order"
        assert set(found.preference_of.tolist()) == {i for i, k, _ in edges if i == k}
        counts = {pair: [edge[:2] for edge in edges].count(pair) for pair in {edge[:2] for edge in edges}}
        assert found.duplicates == sum(count > 1 for count in counts.values())


def test_a_task_with_little_memory_makes_the_same_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    n, m = 50, 2000
    i, k = np.unique(rng.integers(0, n, (m, 2)), axis=0).T
    s = rng.normal(size=len(i))
    cuts = np.array([0, n])
    given = [
        pa.RecordBatch.from_pydict({"i": i[part], "k": k[part], "s": s[part]})
        for part in np.array_split(rng.permutation(len(i)), 7)
    ]
    batches = list(parcels(given, cuts, both=False))
    results = []
    for at_once in (10**6, 100):
        monkeypatch.setattr(build, "_BUCKET_EDGES", at_once)
        layout = Layout(1, cuts, Rules(), len(i))
        stats = EdgeStats(np.zeros(n, np.int64), 0, np.arange(n))
        parts = []
        for edges in split_by_rows(batches, layout, 0, n, tmp_path, stats):
            found = assemble(edges["i"], edges["k"], edges["s"], layout.rules)
            stats.add(found, "error")
            parts.append(with_diagonal(found))
        assert (len(parts) > 10) == (at_once == 100)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        results.append([*(array.tobytes() for array in whole.values()), *stats.handle().values()])
    assert results[0] == results[1]
    assert list(tmp_path.iterdir()) == []


def test_edges_reach_the_blocks_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "_PARCEL_EDGES", 5)
    monkeypatch.setattr(send, "_LOAD_EDGES", 7)
    rng = np.random.default_rng(2)
    i, k = rng.integers(0, 20, (2, 60))
    wrong = rng.random(60) < 0.1
    given = [
        pa.RecordBatch.from_pydict({"i": pa.array(i[part], mask=wrong[part]), "k": k[part], "s": k[part] / 3.0})
        for part in np.array_split(np.arange(60), 4)
    ]
    for cuts in (np.array([0, 20]), np.array([0, 1, 8, 20])):
        for both in (False, True):
            reached: list[tuple[int, int, int, float]] = []
            for batch in parcels(given, cuts, both=both):
                for block in range(len(cuts) - 1):
                    for edges in unpacked([batch.filter(pc.equal(batch["block"], block))], 20):
                        assert len(edges) <= 5
                        reached += [(block, *edge) for edge in edges.tolist()]
            right = list(zip(i[~wrong].tolist(), k[~wrong].tolist(), strict=True))
            sent = [(row, column, column / 3.0) for row, column in right]
            if both:
                sent += [(column, ~row, column / 3.0) for row, column in right if row != column]
            block_of_row = [(int(np.searchsorted(cuts, edge[0], side="right")) - 1, *edge) for edge in sent]
            assert sorted(reached) == sorted([*block_of_row, *[(0, -1, 0, 0.0)] * int(wrong.sum())])


class OneBlock:
    """A random graph of one block in a file, and the same as plain arrays without its diagonal."""

    def __init__(self, directory: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.n = 30
        self.edges = random_edges(rng, self.n, 0.15, symmetric=False)
        self.i, self.k = np.array([edge[:2] for edge in self.edges]).T
        self.s = np.array([edge[2] for edge in self.edges])
        found = assemble(self.i, self.k, self.s, Rules())
        self.path = directory / f"block-{seed}"
        self.shape = write_block(self.path, 5, 0, self.n, 0, [with_diagonal(found)])

    def run(self, kernel: Callable[..., Any], *values: Any) -> Any:
        with opened(self.path, self.shape) as file:
            return kernel(file.parts(), *values)


@pytest.fixture(params=range(3))
def block(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneBlock]:
    monkeypatch.setattr("ap_spark.blocks.kernel._PART_ENTRIES", 20)  # several parts
    yield OneBlock(tmp_path, request.param)
    OPEN_FILES.pop(tmp_path / f"block-{request.param}").file.close()


def test_a_block_file_tells_what_it_holds(block: OneBlock) -> None:
    assert shape_of(block.path, block.n) == block.shape
    with opened(block.path, block.shape) as file:
        mine = {
            (int(i), int(k)): s
            for part, similarity in file.parts()
            for i, k, s in zip(np.repeat(part.rows, np.diff(part.starts)), part.columns, similarity, strict=True)
            if i != k
        }
    assert mine == {(i, k): s for i, k, s in block.edges}
    os.truncate(block.path, 20)
    with pytest.raises(UnusableFile):
        shape_of(block.path, block.n)


def test_rows_choose_the_most_similar_exemplar(block: OneBlock) -> None:
    exemplars = np.random.default_rng(9).random(block.n) < 0.3
    found = block.run(passes.assign, exemplars)
    for i, exemplar, similarity in zip(*found, strict=True):
        open_ = [(s, -k) for j, k, s in block.edges if j == i and exemplars[k]]
        assert (similarity, -exemplar) == (max(open_) if open_ else (-np.inf, 1))
    assert sorted(found.rows.tolist()) == sorted({i for i, _, _ in block.edges})


def test_sums_of_columns_and_of_clusters(block: OneBlock) -> None:
    cluster = np.random.default_rng(9).integers(0, 3, block.n)
    for found, taken in (
        (block.run(passes.refine, cluster, UNITS), cluster[block.i] == cluster[block.k]),
        (block.run(passes.refine, np.zeros(block.n, np.int64), UNITS), np.ones(len(block.i), bool)),
    ):
        sums, counts = np.zeros(block.n), np.zeros(block.n, int)
        np.add.at(sums, block.k[taken], block.s[taken])
        np.add.at(counts, block.k[taken], 1)
        np.testing.assert_array_equal(found.columns, np.flatnonzero(counts))
        np.testing.assert_array_equal(found.counts, counts[found.columns])
        np.testing.assert_allclose(found.sums[0] * UNITS.coarse, sums[found.columns], rtol=1e-9)


def test_degrees_best_similarities_and_components(block: OneBlock) -> None:
    np.testing.assert_array_equal(block.run(passes.in_degrees, block.n), np.bincount(block.k, minlength=block.n))
    rows, best = block.run(passes.best_similarity)
    assert dict(zip(rows.tolist(), best.tolist(), strict=True)) == {
        int(i): block.s[block.i == i].max() for i in set(block.i.tolist())
    }
    label = connected_components(coo_array((block.s, (block.i, block.k)), shape=(block.n, block.n)), directed=False)[1]
    smallest = [int(np.flatnonzero(label == own)[0]) for own in label]
    index, root = block.run(passes.components, block.n)
    assert dict(zip(index.tolist(), root.tolist(), strict=True)) == {
        point: least for point, least in enumerate(smallest) if least < point
    }
    serving = np.arange(block.n) % 4 == 0
    without = {i for i, _, _ in block.edges if not serving[i]} - {i for i, k, _ in block.edges if serving[k]}
    assert block.run(passes.unserved, serving) == len(without)


def test_histograms_count_what_lies_between(block: OneBlock) -> None:
    low, high = np.quantile(block.s, [0.2, 0.9])
    inside = block.s[(block.s >= low) & (block.s <= high)]
    found = block.run(passes.histogram, low, high)
    assert found.counts.sum() == len(inside)
    assert (found.lows.min(), found.highs.max()) == (inside.min(), inside.max())
    assert sorted(block.run(passes.values, low, high).tolist()) == sorted(inside.tolist())


def test_rows_are_cut_by_weight(spark: SparkSession) -> None:
    assert _cut(np.ones(10, np.int64), 1).tolist() == [0, 10]
    assert _cut(np.array([100, 1, 1, 1, 1, 1, 1]), 3).tolist() == [0, 1, 7]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        weights = rng.integers(0, 9, int(rng.integers(1, 60))) + (seed % 2)
        cuts = _cut(weights, int(rng.integers(1, 9)))
        assert (cuts[0], cuts[-1]) == (0, len(weights))
        assert (np.diff(cuts) > 0).all()
    cuts = np.array([0, 3, 4, 9])
    found = spark.range(9).select(F.expr(_block_of("id", cuts))).collect()
    assert [row[0] for row in found] == [0, 0, 0, 1, 2, 2, 2, 2, 2]


SETTINGS = [
    {},
    {"min_similarity": -3.0, "partitions": 3},
    {"symmetrize": "union", "partitions": 2},
    {"symmetrize": "mutual", "on_duplicate": "mean"},
    {"top": 3, "symmetrize": "union", "on_duplicate": "min"},
    {"preference_quantile": 0.1, "seed": 5, "partitions": 4},
]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(options, text, marks=LONG if (number + text) % 2 else ())
        for number, options in enumerate(SETTINGS)
        for text in (False, True)
    ],
)
def test_both_forms_of_a_graph_are_the_same(
    frame: Frame, options: dict[str, Any], text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain DataFrames state the rules; blocks come to the same points, edges, units, fingerprint and clusters."""
    rng = np.random.default_rng(len(str(options)))
    edges = [(i, k, float(round(s, 1))) for i, k, s in random_edges(rng, 40, 0.15, symmetric=False)]
    edges[0] = (*edges[0][:2], float("-inf"))
    if "on_duplicate" in options:
        edges += [(i, k, s - 1.0) for i, k, s in edges[::3]]
    table = frame(edges)
    if text:
        monkeypatch.setattr(numbering, "BROADCAST_POINTS", 10)  # also as for very many points
        table = table.selectExpr("concat('p', i) i", "concat('p', k) k", "s")
    settings = Settings(**options)
    plain, blocks = build_edge_graph(table, settings), build_block_graph(table, settings)
    points = plain.points.orderBy("index").collect()
    assert [row.out_degree for row in points] == blocks.out_degree.tolist()
    assert [row.in_degree for row in points] == blocks.in_degree.tolist()
    assert [row.preference for row in points] == blocks.preferences.tolist()
    assert edges_of(blocks) == {(row.i, row.k): row.s for row in plain.similarities().collect()}
    for name in ("n_points", "n_edges", "n_forced", "units", "report_units", "preference", "fingerprint", "uniform"):
        assert getattr(plain, name) == getattr(blocks, name), name
    quantiles = 0.0, 0.3, 0.5, 1.0
    assert plain.quantiles(*quantiles) == blocks.quantiles(*quantiles)
    monkeypatch.setattr(block_graph, "_DRIVER_SIMILARITIES", 10)
    monkeypatch.setattr(passes, "_BINS", 4)
    assert plain.quantiles(*quantiles) == blocks.quantiles(*quantiles)
    assert {(row.i, row.k): row.s for row in blocks.similarities().collect()} == edges_of(blocks)
    assert describe_graph(plain, settings) == describe_graph(blocks, settings)
    exemplars = (rng.random(plain.n_points) < 0.3) & ~blocks.forced
    index = plain.spark.createDataFrame([(int(number),) for number in np.flatnonzero(exemplars)], "index bigint")
    theirs = make_clusters(plain, plain.with_forced(index))
    ours = make_clusters(blocks, blocks.with_forced(exemplars))
    for name in ("assignments", "exemplars"):
        assert sorted(map(str, getattr(ours, name).collect())) == sorted(map(str, getattr(theirs, name).collect()))
    assert (ours.n_clusters, ours.promoted, ours.dpsim, ours.expref) == (
        *(theirs.n_clusters, theirs.promoted, theirs.dpsim, theirs.expref),
    )
    plain.release()
    blocks.release()


def test_the_range_of_preferences_by_passes(frame: Frame) -> None:
    edges = all_pairs(np.random.default_rng(3).normal(size=(12, 2)))
    for some, bounded in ((edges, True), (edges[:-1], True), (one_way(edges, 5), False)):
        graph = build_block_graph(frame(some), Settings(preference=-1.0, partitions=2))
        found = describe_graph(graph, Settings()).preference_range
        assert found == preference_range(frame(some))
        assert np.isfinite(found.p_min) == bounded
        graph.release()


def test_similarities_go_into_blocks_in_the_tasks_that_compute_them(spark: SparkSession) -> None:
    x = np.random.default_rng(4).normal(size=(70, 2)).round(1)
    points = spark.createDataFrame(pa.table({"id": np.arange(70) * 3, "features": list(x)}))
    numbering, named = number_points(points, 10)
    neighbors, *_ = find_neighbors(named, 10, "sqeuclidean", None, "exact", 1.0)
    for pairs in (neighbors, compared(named, "manhattan", None)):
        for settings in (Settings(preference=-1.0, partitions=3), Settings(top=4, symmetrize="union")):
            by_task = build_block_graph(pairs, settings, numbering=numbering)
            by_row = build_block_graph(pairs.frame, settings, numbering=numbering)
            assert edges_of(by_task) == edges_of(by_row)
            assert by_task.fingerprint == by_row.fingerprint
            by_task.release()
            by_row.release()
    some = points.where("id > 0").select("id", F.lit(-1.0).alias("preference"))
    with pytest.raises(InputError, match="1 point has none: id=0"):
        build_block_graph(neighbors, Settings(), preferences=some, numbering=numbering)


def test_a_block_that_is_lost_is_made_again_before_its_similarities_are_read(frame: Frame) -> None:
    edges = random_edges(np.random.default_rng(5), 20, 0.3, symmetric=False)
    graph = build_block_graph(frame(edges), Settings(partitions=3))
    Path(graph.blocks.found[1].path).unlink()
    assert {(row.i, row.k): row.s for row in graph.similarities().collect()} == {(i, k): s for i, k, s in edges}
    graph.release()


def edges_of(graph: BlockGraph) -> dict[tuple[Any, Any], float]:
    ids = [row.id for row in graph.numbering.points.orderBy("index").collect()]
    found: dict[tuple[Any, Any], float] = {}
    for rows, columns, s in graph.blocks.visit(entries):
        found |= {(ids[i], ids[k]): value for i, k, value in zip(rows, columns, s, strict=True) if i != k}
    return found


def entries(parts: passes.Parts) -> tuple[list[int], list[int], list[float]]:
    parts = list(parts)
    rows = np.concatenate([np.repeat(part.rows, np.diff(part.starts)) for part, _ in parts])
    columns = np.concatenate([part.columns for part, _ in parts])
    return rows.tolist(), columns.tolist(), np.concatenate([s for _, s in parts]).tolist()


def test_points_without_any_edge_are_exemplars(frame: Frame, spark: SparkSession) -> None:
    """Spark may skip the tasks of a table that it knows, or finds, to be empty."""
    points, edges = spark.range(3), frame([(0, 1, -1.0), (1, 0, -1.0)])
    for none in (edges.where("false"), edges.where("s > 1e9").distinct()):
        for partitions in (1, 2):
            found = affinity_propagation(none, points=points, preference=-1.0, partitions=partitions)
            assert (found.summary.n_clusters, found.summary.netsim, found.converged) == (3, -3.0, True)
            assert sorted(found.assignments.collect()) == [(n, n, n, None) for n in range(3)]


def test_what_may_change_or_costs_much_is_not_read_twice(spark: SparkSession, frame: Frame, tmp_path: Path) -> None:
    frame([(0, 1, -1.0), (1, 0, -1.0)]).write.parquet(str(tmp_path / "edges"))
    read = spark.read.parquet(str(tmp_path / "edges"))
    for table, scanned in (
        (read.where("s < 0"), True),
        (read.where(F.rand() < 2.0), False),
        (read.distinct(), False),
        (read.join(read.select("i"), "i"), False),
    ):
        assert classic.only_reads_files(table) == scanned


def test_duplicates_are_merged_before_preferences_are_looked_at(frame: Frame) -> None:
    edges = [(1, 1, float("-inf")), (1, 1, -5.0), (2, 2, -5.0), (1, 2, -1.0), (2, 1, -1.0)]
    for engine in ("resident", "dataframe"):
        found = affinity_propagation(frame(edges), on_duplicate="max", engine=engine, max_iter=20)
        assert found.summary.netsim == -6.0


@pytest.mark.parametrize("engine", [7, 8])
def test_messages_of_another_engine_are_not_taken_for_ones_own(tmp_path: Path, engine: int) -> None:
    """A lost block may be made again from the snapshot of another trial, after as many iterations."""
    entries = {"i": np.array([0, 0, 1, 1]), "k": np.array([0, 1, 0, 1]), "similarity": np.array([0.0, -1.0, -1.0, 0.0])}
    messages = {"r": np.full(4, 2.0), "a": np.full(4, 3.0)}
    shape = write_block(tmp_path / "block", 1, 0, 2, 50, [entries | messages], 7)
    array: Callable[[Any], Any] = lambda values: SimpleNamespace(value=values)  # noqa: E731
    beginning = Beginning(array(np.arange(2)), array(np.full(2, -5.0)), 1.0, 0, False, 50)
    plan = Plan(Layout(1, np.array([0, 2]), Rules(), 2), engine, beginning, 0.9, UNITS, "numpy", 2)
    with opened(tmp_path / "block", shape) as file:
        begin_messages(file, plan)
        assert (file.iteration, file.engine) == ((50, 7) if engine == 7 else (0, 8))
        assert file.block.r.tolist() == [2.0 if engine == 7 else 0.0] * 4
        assert sorted(file.block.s.tolist()) == [-5.0, -5.0, -1.0, -1.0]
    OPEN_FILES.pop(tmp_path / "block").file.close()


BAD: list[tuple[Edges, dict[str, Any], str]] = [
    ([(0, 1, float("nan")), (1, 0, -1.0)], {}, "in column 's' 1 row is null, NaN or .infinite: i=0, k=1"),
    ([(0, 1, -1.0), (0, 1, -2.0)], {}, "1 pair is given more often: i=0, k=1, rows=2"),
    ([(0, 1, -1.0), (0, 1, -2.0)], {"symmetrize": "union"}, "1 pair is given more often: i=0, k=1, rows=2"),
    ([(0, 1, -1.0), (0, 1, -2.0)], {"top": 1}, "1 pair is given more often: i=0, k=1, rows=2"),
    ([(0, 1, -1.0), (0, 0, float("-inf"))], {}, "a preference must be finite, but 1 row"),
    ([(0, 1, -1.0), (1, 0, -1.0), (0, 0, -3.0)], {}, "1 point has none: id=1"),
    ([(0, 1, -1.0), (1, 0, -1.0), (0, 0, -3.0)], {"preference": -1.0}, "must be given in one way"),
    ([(0, 1, 1e308), (1, 0, -1e308)], {}, "close enough together"),
]


@pytest.mark.parametrize(("edges", "options", "message"), BAD)
def test_what_is_wrong_is_told_in_the_same_words(
    frame: Frame, edges: Edges, options: dict[str, Any], message: str
) -> None:
    for make in (build_edge_graph, build_block_graph):
        with pytest.raises(InputError, match=message):
            make(frame(edges), Settings(**options))
