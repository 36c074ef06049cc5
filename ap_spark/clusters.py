"""From messages to clusters (docs/semantics.md, section 5).

exemplars ──► promote ──► assign ──► refine ──► polish, bound ──► assign ──► labels, objective

Polishing and the bound (`quality/`) are for an `ArrayGraph`. Every other step is stated twice: on an `ArrayGraph` by
passes over its blocks, which give arrays with a value a point; on an `EdgeGraph` by joins of DataFrames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame

from ap_spark._spark import classic
from ap_spark.blocks import passes
from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.blocks.store import sent
from ap_spark.exact_sum import exact_sum, in_floats, in_units, sum_in_units, summed
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.numbering import numbered
from ap_spark.quality.improve import Goal, Improved, Told, improve
from ap_spark.quality.problem import problem_of

__all__ = ["NEGLIGIBLE", "Clusters", "make_clusters"]

NEGLIGIBLE = 1e-9  # share of a net similarity that rounding may change without a word


@dataclass(frozen=True)
class Clusters:
    """The clusters and their objective.

    The tables are of Spark, or of Arrow for a `LocalGraph`.

    Attributes
    ----------
    assignments : DataFrame
        (id, exemplar, label, similarity), a row a point. The similarity of an exemplar to itself is null.
    exemplars : DataFrame
        (label, exemplar, size, preference, mean_similarity), a row a cluster. The mean is that of the other members,
        null if there is none.
    n_clusters : int
    promoted : int
        Points that became exemplars because they store no edge to any.
    dpsim, expref : float
        The sum of the similarities of points to their exemplars, and of the preferences of the exemplars.
    is_exemplar : bool of shape (n_points,), optional
        On an `ArrayGraph`: the exemplars.
    improved : Improved, optional
        With a goal: how good any could be.
    """

    assignments: Any
    exemplars: Any
    n_clusters: int
    promoted: int
    dpsim: float
    expref: float
    is_exemplar: Flags | None = None
    improved: Improved | None = None


def make_clusters(
    graph: EdgeGraph | ArrayGraph, exemplars: Any, goal: Goal | None = None, told: Told | None = None
) -> Clusters:
    """Assign every point to an exemplar, move each exemplar to the best member of its cluster, and polish.

    Parameters
    ----------
    graph : EdgeGraph or ArrayGraph
    exemplars : DataFrame (index), or bool of shape (n_points,)
        The exemplars that the messages name, as a DataFrame for an `EdgeGraph` and as an array for an `ArrayGraph`.
        Without any exemplar there are no clusters.
    goal : Goal, optional
        For an `ArrayGraph`: how far to polish the exemplars, and to bound what any could reach.
    told : callable, optional
        See `improve`.

    Returns
    -------
    Clusters
        Its tables can still be read when the graph has been released.
    """
    if isinstance(graph, ArrayGraph):
        return _clusters_of_arrays(graph, exemplars, goal, told)
    with ExitStack() as held, ExitStack() as result:
        clusters = _clusters_of_edges(graph, exemplars, held, result)
        result.pop_all()
        return clusters


# On an ArrayGraph


def _clusters_of_arrays(graph: ArrayGraph, exemplars: Flags, goal: Goal | None, told: Told | None) -> Clusters:
    """Make the clusters by passes; see `make_clusters`."""
    exemplar, _ = _assign_rows(graph, exemplars)
    promoted = 0
    if exemplars.any() and (exemplar < 0).any():
        promoted = int(np.count_nonzero(exemplar < 0))
        exemplars = exemplars | (exemplar < 0)
        exemplar, _ = _assign_rows(graph, exemplars)
    improved = None
    if exemplars.any():
        exemplars = _refine_rows(graph, exemplar)
        if goal is not None:
            with problem_of(graph) as problem:
                improved = improve(problem, exemplars, goal, told)
            exemplars = _better(graph, exemplars, improved, keep_count=goal.clusters is not None)
    exemplar, similarity = _assign_rows(graph, exemplars)
    (heads,) = np.nonzero(exemplars)
    label = np.searchsorted(heads, exemplar)
    is_member = (exemplar >= 0) & ~exemplars
    units = graph.report_units
    size = np.bincount(label[exemplar >= 0], minlength=len(heads))
    words = np.zeros((units.words, len(heads)), np.int64)
    for word, addends in zip(words, in_units(similarity[is_member], units), strict=True):
        np.add.at(word, label[is_member], addends)
    total = in_floats(words, units)
    is_alone = size == 1
    mean = np.where(is_alone, np.nan, total / np.maximum(size - 1, 1))
    preference = graph.preferences[heads]
    ids = graph.ids_at(heads)
    exemplar_rows = pa.table(
        {
            "label": np.arange(len(heads)),
            "exemplar": ids,
            "size": size,
            "preference": preference,
            "mean_similarity": pa.array(mean, mask=is_alone),
        }
    )
    return Clusters(
        _assignments(graph, ids, label, np.where(is_member, similarity, np.nan)),
        _table(graph, exemplar_rows),
        len(heads),
        promoted,
        summed(total[~is_alone], units),
        summed(preference, units),
        exemplars,
        improved,
    )


def _better(graph: ArrayGraph, before: Flags, improved: Improved, *, keep_count: bool) -> Flags:
    """Return polished exemplars, or those of before where these are better.

    That can only be where similarities of very different sizes make the unit of polishing coarse.
    """
    after = improved.is_exemplar
    value = _net_similarity(graph, after)
    if keep_count or improved.slack <= NEGLIGIBLE * abs(value) or value >= _net_similarity(graph, before):
        return after
    return before


def _net_similarity(graph: ArrayGraph, exemplars: Flags) -> float:
    """Return the net similarity with some exemplars, to which every other point stores an edge."""
    _, similarity = _assign_rows(graph, exemplars)
    return summed(np.where(exemplars, graph.preferences, similarity), graph.report_units)


def _assign_rows(graph: ArrayGraph, exemplars: Flags) -> tuple[Integers, Floats]:
    """Return the exemplar of each point, -1 for none, and its similarity to it, which has no meaning for exemplars."""
    exemplar, similarity = np.full(graph.n_points, -1), np.full(graph.n_points, -np.inf)
    for found in graph.blocks.visit(passes.assign, exemplars) if graph.n_edges else ():
        exemplar[found.rows], similarity[found.rows] = found.exemplar, found.similarity
    exemplar[exemplars] = np.flatnonzero(exemplars)
    return exemplar, similarity


def _refine_rows(graph: ArrayGraph, cluster: Integers) -> Flags:
    """Return the best exemplar of each cluster: the member j with the largest sum of s(i, j) over the members i.

    p(j) counts as s(j, j), and every other member has to store an edge to j. A forced exemplar stores no edge itself,
    so its cluster keeps it.
    """
    units = graph.report_units
    sums, counts = graph.sums_in(cluster, units)
    sums += np.stack(in_units(np.asarray(graph.preferences), units))
    if units.words == 2:  # carry, so that the second word is less than a unit of the first and sums can be compared
        ratio = round(units.coarse / units.fine)
        carried, sums[1] = np.divmod(sums[1], ratio)
        sums[0] += carried
    size = np.bincount(cluster, minlength=graph.n_points)
    (best,) = np.nonzero((counts == size[cluster] - 1) & ~graph.forced)
    order = np.lexsort((best, *(-word[best] for word in sums[::-1]), cluster[best]))
    best = best[order]
    is_first = np.diff(cluster[best], prepend=-1) != 0
    exemplars = graph.forced.copy()
    exemplars[best[is_first]] = True
    return exemplars


def _table(graph: ArrayGraph, rows: pa.Table) -> Any:
    """Return a table of the kind that the results of the graph are."""
    return graph.spark.createDataFrame(rows) if graph.spark else rows


def _assignments(graph: ArrayGraph, exemplar_ids: pa.Array, label: Integers, similarity: Floats) -> Any:
    """Return (id, exemplar, label, similarity) of all points; no rows where there is no exemplar."""
    if isinstance(graph, BlockGraph) and graph.numbering.ids is None:
        return _assignments_of_many(graph, exemplar_ids, label, similarity)
    n_rows = graph.n_points if len(exemplar_ids) else 0
    rows = _assignment_rows(graph.ids_at(np.arange(n_rows)), exemplar_ids, label[:n_rows], similarity[:n_rows])
    return _table(graph, pa.Table.from_batches([rows]))


def _assignments_of_many(graph: BlockGraph, exemplar_ids: pa.Array, label: Integers, similarity: Floats) -> DataFrame:
    """Return the assignments where the ids are too many for the driver."""
    points, kind = graph.numbering.points, dict(graph.numbering.points.dtypes)["id"]
    schema = f"id {kind}, exemplar {kind}, label bigint, similarity double"
    if not len(exemplar_ids):
        return graph.spark.createDataFrame([], schema)
    with sent(graph.spark, label, similarity) as (labels, similarities):

        def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                index = batch["index"].to_numpy()
                yield _assignment_rows(batch["id"], exemplar_ids, labels.value[index], similarities.value[index])

        return classic.replicated_checkpoint(points.mapInArrow(assign, schema))


def _assignment_rows(ids: pa.Array, exemplar_ids: pa.Array, label: Integers, similarity: Floats) -> pa.RecordBatch:
    """Return (id, exemplar, label, similarity) of some points; a similarity that is NaN becomes null."""
    exemplar = exemplar_ids.take(pa.array(label))
    columns = [ids, exemplar, pa.array(label), pa.array(similarity, mask=np.isnan(similarity))]
    return pa.RecordBatch.from_arrays(columns, names=["id", "exemplar", "label", "similarity"])


# On an EdgeGraph


def _clusters_of_edges(graph: EdgeGraph, exemplars: DataFrame, held: ExitStack, result: ExitStack) -> Clusters:
    """Make the clusters by joins; see `make_clusters`.

    What is needed on the way is released with ``held``, the tables of the result with ``result``.
    """
    candidates = _checkpointed(exemplars, held)
    assigned = _checkpointed(_assign(graph, candidates), held)
    n_assigned = assigned.count()
    promoted = graph.n_points - n_assigned if n_assigned else 0  # without any exemplar there are no clusters
    if promoted:
        unassigned = graph.points.select("index").join(assigned.select("index"), "index", "left_anti")
        assigned = _checkpointed(_assign(graph, candidates.union(unassigned)), held)
    refined = _checkpointed(_refine(graph, assigned), held)
    n_clusters = refined.count()

    names = graph.small(graph.points.select("index", "id", "preference"))
    heads = refined.join(names, "index").select(
        F.col("index").alias("exemplar"), F.col("id").alias("name"), "preference"
    )
    labelled = numbered(heads, "label", "exemplar", count=n_clusters)
    held.callback(labelled.unpersist)
    assignments = _checkpointed(
        _assign(graph, refined)
        .join(names.drop("preference"), "index")
        .join(graph.small(labelled), "exemplar")
        .select("id", F.col("name").alias("exemplar"), "label", "similarity"),
        result,
    )
    similarity = exact_sum(F.col("similarity"), graph.report_units)
    sums = assignments.groupBy("label").agg(F.count("*").alias("size"), similarity.alias("sum"))
    exemplar_rows = _checkpointed(
        labelled.join(sums, "label")
        .withColumn("mean_similarity", F.col("sum") / F.nullif(F.col("size") - 1, F.lit(0)))
        .select("label", F.col("name").alias("exemplar"), "size", "preference", "mean_similarity", "sum"),
        result,
    )
    objective = exemplar_rows.agg(
        exact_sum(F.col("sum"), graph.report_units), exact_sum(F.col("preference"), graph.report_units)
    ).first()
    assert objective is not None
    return Clusters(
        assignments, exemplar_rows.drop("sum"), n_clusters, promoted, objective[0] or 0.0, objective[1] or 0.0
    )


def _checkpointed(table: DataFrame, until: ExitStack) -> DataFrame:
    """Return a local checkpoint of the table, released with the stack."""
    checkpoint = classic.replicated_checkpoint(table)
    until.callback(classic.release, checkpoint)
    return checkpoint


def _assign(graph: EdgeGraph, candidates: DataFrame) -> DataFrame:
    """Return (index, exemplar, similarity): candidates are assigned to themselves, the others to the most similar.

    Points that store no edge to a candidate are left out.
    """
    to = graph.small(candidates.select(F.col("index").alias("k")))
    themselves = graph.small(candidates.select(F.col("index").alias("i")))
    others = (
        graph.edges.join(to, "k")
        .join(themselves, "i", "left_anti")
        .groupBy("i")
        .agg(_largest(F.col("similarity"), F.col("k")).alias("best"))
        .select(
            F.col("i").alias("index"), F.col("best.name").alias("exemplar"), F.col("best.value").alias("similarity")
        )
    )
    none = F.lit(None).cast("double").alias("similarity")
    return others.union(candidates.select("index", F.col("index").alias("exemplar"), none))


def _refine(graph: EdgeGraph, assigned: DataFrame) -> DataFrame:
    """Return (index) of the best exemplar of each cluster; see `_refine_rows`."""
    of_i = graph.small(assigned.select(F.col("index").alias("i"), F.col("exemplar").alias("cluster")))
    of_k = graph.small(assigned.select(F.col("index").alias("k"), F.col("exemplar").alias("cluster")))
    sizes = assigned.groupBy(F.col("exemplar").alias("cluster")).agg(F.count("*").alias("size"))
    best = (
        graph.edges.join(of_i, "i")
        .join(of_k, ["k", "cluster"])
        .groupBy("cluster", "k")
        .agg(sum_in_units(F.col("similarity"), graph.report_units).alias("sum"), F.count("*").alias("stored"))
        .join(graph.small(sizes), "cluster")
        .where("stored = size")
        .groupBy("cluster")
        .agg(_largest(F.col("sum"), F.col("k")).alias("best"))
        .select(F.col("best.name").alias("index"))
    )
    forced = graph.points.where("forced").select("index")
    return best.union(forced)


def _largest(value: Column, name: Column) -> Column:
    """Aggregate: the largest value and its name, on ties the smallest name; as a struct (value, name)."""
    best = F.max(F.struct(value.alias("value"), (-name).alias("minus_name")))
    return F.struct(best["value"].alias("value"), (-best["minus_name"]).alias("name"))
