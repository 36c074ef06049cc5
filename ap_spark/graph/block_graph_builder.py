"""From similarities to the graph in blocks.

    ids ──► numbers 0..n-1, in the order of the ids
    edges (i, k, s) ──► numbers ──► both directions, if asked for ──► one shuffle by row ──► block files

What is wrong with the input is found on the way: an edge that is wrong becomes a row without i. Then the graph is built
as an `EdgeGraph`, in plain DataFrames, which raises the error with the rows that are wrong.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import few_partitions, with_settings
from ap_spark.blocks.build import Layout
from ap_spark.blocks.entries import Rules
from ap_spark.blocks.kernel import Floats, Integers
from ap_spark.blocks.parcels import PARCELS, pack_parcels
from ap_spark.blocks.store import Blocks, broadcast
from ap_spark.errors import ApSparkError, InputError
from ap_spark.graph.array_graph import with_chosen_preference
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.checks import ids_of
from ap_spark.graph.edge_graph import build_edge_graph
from ap_spark.graph.numbering import Numbering, WrongInput, broadcast_if_small, number_ids, with_ids
from ap_spark.graph.sparsify import count_one_way, merge_duplicates, sparsify
from ap_spark.schema import edge_table, is_no_similarity, preference_table
from ap_spark.settings import Settings
from ap_spark.similarity.pairs import Pairs

__all__ = ["ONE_BLOCK_EDGES", "SYMMETRIC_FRACTION", "build_block_graph"]

ONE_BLOCK_EDGES = 10_000_000  # up to here one core is about done before a job over several has begun
SYMMETRIC_FRACTION = 0.7  # of the edges in both directions about so many are left, where neighbours are often mutual


def build_block_graph(
    similarities: DataFrame | Pairs,
    settings: Settings,
    points: DataFrame | None = None,
    preferences: DataFrame | None = None,
    numbering: Numbering | None = None,
) -> BlockGraph:
    """Check the input and build the graph.

    Parameters
    ----------
    similarities : DataFrame or Pairs
        (i, k, s); i and k are ids, or numbers if there is a ``numbering``.
    settings, points, preferences
        See `build_edge_graph`.
    numbering : Numbering, optional
        Of all points. Then ``similarities`` has numbers, and is known to be right.

    Raises
    ------
    InputError, SettingError
        See `build_edge_graph`.
    """
    with ExitStack() as held:
        table = similarities
        if not isinstance(table, Pairs):
            table = edge_table(table)
            if numbering is None and not classic.only_reads_files(table):
                # It is read twice, and again where a block is lost; it may not be the same each time.
                table = table.persist()
                held.callback(table.unpersist)
        try:
            return _build(table, settings, points, preferences, numbering, held)
        except WrongInput as wrong:
            edges = table.frame if isinstance(table, Pairs) else table
            if numbering is not None:
                edges, points = with_ids(edges, numbering.points), numbering.points.select("id")
            build_edge_graph(edges, settings, points, preferences).release()  # raises InputError
            raise ApSparkError(
                f"the input broke a rule when first read ({wrong}), but not when read again: write it to Parquet first"
            ) from wrong


def _build(
    table: DataFrame | Pairs,
    settings: Settings,
    points: DataFrame | None,
    preferences: DataFrame | None,
    numbering: Numbering | None,
    held: ExitStack,
) -> BlockGraph:
    """Build the graph; ``held`` releases what was persisted on the way.

    1. Number the points and the edges. 2. Write the blocks, by one shuffle. 3. Choose the preferences.

    Raises
    ------
    WrongInput
        If something is wrong with the input.
    """
    edges = table
    if numbering is None:
        assert not isinstance(table, Pairs)
        numbering = number_ids(_weighted_ids(table, points, both=settings.symmetrize not in (None, "none")))
        edges = _with_numbers(table, numbering)
    held.callback(numbering.release)
    if numbering.n_points == 0:
        raise InputError("there must be at least one point, but the input is empty")
    blocks = _write_blocks(edges, numbering, settings, held)
    graph = _graph_of(blocks, numbering, settings, held)
    if settings.top is not None and not isinstance(edges, Pairs):  # the blocks have got only what was left
        merged = merge_duplicates(edges.where("i is not null"), settings.on_duplicate)
        graph = replace(graph, n_one_way=count_one_way(merged, settings, graph.n_edges))
    return with_chosen_preference(graph, settings, None if preferences is None else _by_point(graph, preferences))


def _weighted_ids(table: DataFrame, points: DataFrame | None, *, both: bool) -> DataFrame:
    """Return (id, times, weight) of the points, or of the ends of the edges; see `number_ids`.

    With ``both``, a row has an entry for each edge to its point as well.
    """
    row, column = F.lit(1).cast("bigint"), F.lit(int(both)).cast("bigint")
    ends = F.array(
        F.struct(F.col("i").alias("id"), row.alias("weight")), F.struct(F.col("k").alias("id"), column.alias("weight"))
    )
    counted = table.select(F.inline(ends)).groupBy("id").agg((F.sum("weight") + 1).alias("weight"))
    if points is None:
        return counted.select("id", F.lit(1).alias("times"), "weight")
    times = ids_of(points, like=table).groupBy("id").agg(F.count("*").alias("times"))
    return times.join(counted, "id", "left").select("id", "times", F.coalesce("weight", F.lit(1)).alias("weight"))


def _with_numbers(table: DataFrame, numbering: Numbering) -> DataFrame:
    """Return edges by number; i is null where an end is unknown, or s is no similarity."""
    points = broadcast_if_small(numbering.points, numbering.n_points)
    row = points.select(F.col("id").alias("i"), F.col("index").alias("row"))
    column = points.select(F.col("id").alias("k"), F.col("index").alias("column"))
    is_right = ~is_no_similarity(F.col("s")) & F.col("column").isNotNull()
    return (
        table.join(row, "i", "left")
        .join(column, "k", "left")
        .select(F.when(is_right, F.col("row")).alias("i"), F.col("column").alias("k"), "s")
    )


def _write_blocks(edges: DataFrame | Pairs, numbering: Numbering, settings: Settings, held: ExitStack) -> Blocks:
    """Send the edges, by number, to the blocks of their rows.

    Raises
    ------
    WrongInput
        If rows or pairs are wrong.
    """
    spark = numbering.points.sparkSession
    rules = Rules(settings.on_duplicate, settings.min_similarity, settings.symmetrize or "none")
    if settings.top is not None:
        edges = edges.frame if isinstance(edges, Pairs) else edges
        edges, rules = _sparsified(edges, settings, held), Rules()
    both = rules.symmetrize != "none"
    n_entries = int(numbering.weights.sum())
    n_blocks = settings.partitions or _n_blocks((SYMMETRIC_FRACTION if both else 1.0) * n_entries, spark)
    cuts = _cut(numbering.weights, n_blocks)
    keys = broadcast(spark, numbering.keys)
    held.callback(keys.destroy)
    layout = Layout(secrets.randbits(63), cuts, rules, n_entries)
    then = edges.then if isinstance(edges, Pairs) else edges.select("i", "k", "s").mapInArrow
    blocks = Blocks(then(partial(pack_parcels, cuts=cuts, both=both), PARCELS), layout, keys)
    held.callback(blocks.release)
    if wrong := sum(handle.wrong or 0 for handle in blocks.found):
        raise WrongInput(f"{wrong} rows or pairs")
    return blocks


def _sparsified(edges: DataFrame, settings: Settings, held: ExitStack) -> DataFrame:
    """Sparsify edges by number; each wrong edge stays as a row without i.

    Tasks cannot do this with the edges they hold: the largest of a row are known only once the row is whole.
    """
    with with_settings(edges.sparkSession, few_partitions(edges.sparkSession)):
        merged = merge_duplicates(edges.where("i is not null"), settings.on_duplicate).persist()
    held.callback(merged.unpersist)
    wrong = edges.where("i is null").select("i", "k", "s")
    if settings.on_duplicate == "error":
        duplicates = merged.where("rows > 1").select(F.lit(None).cast("bigint").alias("i"), "k", "s")
        wrong = wrong.union(duplicates)
    kept = sparsify(
        merged,
        min_similarity=settings.min_similarity,
        top=settings.top,
        symmetrize=settings.symmetrize or "none",
    )
    return kept.union(wrong)


def _n_blocks(n_entries: float, spark: SparkSession) -> int:
    """Return the number of blocks by default."""
    return 1 if n_entries <= ONE_BLOCK_EDGES else classic.cores(spark)


def _cut(weights: Integers, blocks: int) -> Integers:
    """Cut the rows into blocks of about the same weight, none of them empty."""
    sums = np.cumsum(weights)
    ends = np.unique(1 + np.searchsorted(sums, sums[-1] * np.arange(1, blocks + 1) / blocks))
    return np.append(0, np.minimum(np.append(ends[:-1], len(weights)), len(weights)))


def _graph_of(blocks: Blocks, numbering: Numbering, settings: Settings, held: ExitStack) -> BlockGraph:
    """Return the graph, without preferences, from what the tasks have reported of its blocks."""
    handles = blocks.found
    degrees = np.zeros(numbering.n_points, np.int64)
    # There may be fewer handles than blocks: Spark skips the tasks of what it knows is empty.
    for handle, low, high in zip(handles, blocks.layout.cuts, blocks.layout.cuts[1:], strict=False):
        degrees[low:high] = np.frombuffer(handle.degrees, np.int32)
    preference_of = np.concatenate(
        [np.empty(0, np.int64), *(np.frombuffer(handle.preference_of, np.int64) for handle in handles)]
    )
    given = None
    if len(preference_of):
        given = np.full(numbering.n_points, np.nan)
        given[preference_of] = np.concatenate([np.frombuffer(handle.preference) for handle in handles])

    def all_of(name: str) -> list[float]:
        return [handle[name] for handle in handles if handle[name] is not None]

    return BlockGraph(
        numbering=numbering,
        keys=numbering.keys,
        blocks=blocks,
        n_edges=int(degrees.sum()),
        n_one_way=sum(handle.one_way or 0 for handle in handles),
        out_degree=degrees,
        symmetric=settings.symmetrize not in (None, "none"),
        low=min(all_of("low"), default=None),
        high=max(all_of("high"), default=None),
        min_nonzero=min(all_of("min_nonzero"), default=None),
        diagonal_preferences=given,
        edge_hash=int(np.bitwise_xor.reduce(np.array([handle.hash for handle in handles], np.int64))),
        seed=settings.seed,
        jitter=settings.jitter,
        release=held.pop_all().close,
    )


def _by_point(graph: BlockGraph, preferences: DataFrame) -> Floats:
    """Return the preference of each point; NaN where a point has none."""
    table = preference_table(preferences, dict(graph.numbering.points.dtypes)["id"])
    rows = graph.numbering.points.join(table, "id").select("index", "preference").toArrow()
    by_point = np.full(graph.n_points, np.nan)
    by_point[rows["index"].to_numpy()] = rows["preference"].to_numpy()
    return by_point
