"""From messages to clusters (semantics.md, section 5).

exemplars ──► promote ──► assign ──► refine ──► assign ──► labels, objective
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Window

from ap_spark import classic
from ap_spark.exact import exact_sum, to_units
from ap_spark.graph import Graph
from ap_spark.ordering import numbered

__all__ = ["Clusters", "make_clusters"]


@dataclass(frozen=True)
class Clusters:
    """The clusters and their objective.

    Attributes
    ----------
    assignments : DataFrame
        (id, exemplar, label, similarity); the similarity of an exemplar to itself is null.
    exemplars : DataFrame
        (label, exemplar, size, preference, mean_similarity); the mean over the other members, null if there is none.
    n_clusters, promoted : int
        Clusters; points promoted because they store no edge to any exemplar.
    dpsim, expref : float
        The sum of the similarities to the exemplars, and of the preferences of the exemplars.
    """

    assignments: DataFrame
    exemplars: DataFrame
    n_clusters: int
    promoted: int
    dpsim: float
    expref: float


def make_clusters(graph: Graph, exemplars: DataFrame) -> Clusters:
    """Assign every point to an exemplar, and move each exemplar to the best member of its cluster.

    Parameters
    ----------
    graph : Graph
    exemplars : DataFrame
        (index) of the exemplars that the messages name; none gives no clusters.

    Returns
    -------
    Clusters
        Its tables are local checkpoints, independent of the graph.
    """
    with ExitStack() as held:
        return find_clusters(graph, exemplars, held)


def find_clusters(graph: Graph, exemplars: DataFrame, held: ExitStack) -> Clusters:
    def kept(table: DataFrame) -> DataFrame:
        checkpoint = table.localCheckpoint()
        held.callback(classic.release, checkpoint)
        return checkpoint

    candidates = exemplars.persist()
    held.callback(candidates.unpersist)
    assigned = assign(graph, candidates).persist()
    held.callback(assigned.unpersist)
    unreached = assigned.where("exemplar is null").select("index")
    reached = assigned.agg(F.count("exemplar")).first()
    assert reached is not None
    promoted = graph.n_points - reached[0] if reached[0] else 0
    if promoted:
        assigned = kept(assign(graph, candidates.union(unreached)))
    assigned = kept(assign(graph, kept(refine(graph, assigned))))

    # Without any exemplar nobody has one, and the tables are empty.
    names = graph.small(graph.points.select("index", "id", "preference"))
    members = assigned.where("exemplar is not null").join(names, "index")
    heads = members.where("index = exemplar").select("exemplar", F.col("id").alias("name"), "preference")
    labelled, n_clusters = numbered(heads, "label", "exemplar")
    held.callback(classic.release, labelled)
    assignments = (
        members.drop("preference")
        .join(graph.small(labelled), "exemplar")
        .select("id", F.col("name").alias("exemplar"), "label", "similarity")
        .localCheckpoint()
    )
    similarity = exact_sum(F.col("similarity"), graph.report_unit)
    sums = assignments.groupBy("label").agg(F.count("*").alias("size"), similarity.alias("sum"))
    exemplar_rows = (
        labelled.join(sums, "label")
        .withColumn("mean_similarity", F.col("sum") / F.nullif(F.col("size") - 1, F.lit(0)))
        .select("label", F.col("name").alias("exemplar"), "size", "preference", "mean_similarity", "sum")
        .localCheckpoint()
    )
    objective = exemplar_rows.agg(
        exact_sum(F.col("sum"), graph.report_unit), exact_sum(F.col("preference"), graph.report_unit)
    ).first()
    assert objective is not None
    return Clusters(
        assignments, exemplar_rows.drop("sum"), n_clusters, promoted, objective[0] or 0.0, objective[1] or 0.0
    )


def largest(value: Column, name: Column) -> Column:
    """Aggregate: the name with the largest value, on ties the smallest; as a struct (value, name)."""
    best = F.max(F.struct(value.alias("value"), (-name).alias("minus_name")))
    return F.struct(best["value"].alias("value"), (-best["minus_name"]).alias("name"))


def assign(graph: Graph, candidates: DataFrame) -> DataFrame:
    """(index, exemplar, similarity): candidates to themselves, the others to the most similar candidate they reach."""
    near = (
        graph.edges.where("i <> k")
        .join(graph.small(candidates.select(F.col("index").alias("k"))), "k")
        .groupBy("i")
        .agg(largest(F.col("similarity"), F.col("k")).alias("best"))
        .select(F.col("i").alias("index"), "best.*")
    )
    itself = graph.small(candidates.withColumn("itself", F.lit(True)))
    other = F.col("itself").isNull()
    return (
        graph.points.select("index")
        .join(near, "index", "left")
        .join(itself, "index", "left")
        .select(
            "index",
            F.when(other, F.col("name")).otherwise(F.col("index")).alias("exemplar"),
            F.when(other, F.col("value")).alias("similarity"),
        )
    )


def refine(graph: Graph, assigned: DataFrame) -> DataFrame:
    """(index) of each cluster's best exemplar: the member j with the largest sum of s(i, j) over the members i.

    p(j) counts as s(j, j), and every other member has to store an edge to j.
    """
    unit = graph.report_unit
    of_i = graph.small(assigned.select(F.col("index").alias("i"), F.col("exemplar").alias("cluster")))
    of_k = graph.small(assigned.select(F.col("index").alias("k"), F.col("exemplar").alias("cluster")))
    within = graph.edges.where("i <> k").join(of_i, "i").join(of_k, ["k", "cluster"])
    sums = within.groupBy(F.col("k").alias("index")).agg(
        F.sum(to_units(F.col("similarity"), unit)).alias("sum"), F.count("*").alias("reached")
    )
    own = to_units(F.col("preference"), unit)
    size = F.count("*").over(Window.partitionBy("exemplar"))
    return (
        assigned.join(sums, "index", "left")
        .join(graph.small(graph.points.select("index", "preference")), "index")
        .withColumn("size", size)
        .where(F.coalesce("reached", F.lit(0)) == F.col("size") - 1)
        .groupBy("exemplar")
        .agg(largest(own + F.coalesce("sum", F.lit(0)), F.col("index")).alias("best"))
        .select(F.col("best.name").alias("index"))
    )
