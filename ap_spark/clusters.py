"""From messages to clusters (semantics.md, section 5).

exemplars ──► promote ──► assign ──► refine ──► assign ──► labels, objective
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame

from ap_spark import classic
from ap_spark.exact import exact_sum, sum_in_units
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
    with ExitStack() as held, ExitStack() as result:
        clusters = find_clusters(graph, exemplars, held, result)
        result.pop_all()
        return clusters


def kept(table: DataFrame, until: ExitStack) -> DataFrame:
    """A local checkpoint of the table, released with the stack."""
    checkpoint = classic.kept_twice(table)
    until.callback(classic.release, checkpoint)
    return checkpoint


def find_clusters(graph: Graph, exemplars: DataFrame, held: ExitStack, result: ExitStack) -> Clusters:
    candidates = kept(exemplars, held)
    assigned = kept(assign(graph, candidates), held)
    reached = assigned.count()
    promoted = graph.n_points - reached if reached else 0  # without any exemplar there are no clusters
    if promoted:
        unreached = graph.points.select("index").join(assigned.select("index"), "index", "left_anti")
        assigned = kept(assign(graph, candidates.union(unreached)), held)
    refined = kept(refine(graph, assigned), held)
    n_clusters = refined.count()

    names = graph.small(graph.points.select("index", "id", "preference"))
    heads = refined.join(names, "index").select(
        F.col("index").alias("exemplar"), F.col("id").alias("name"), "preference"
    )
    labelled = numbered(heads, "label", "exemplar", count=n_clusters)
    held.callback(labelled.unpersist)
    assignments = kept(
        assign(graph, refined)
        .join(names.drop("preference"), "index")
        .join(graph.small(labelled), "exemplar")
        .select("id", F.col("name").alias("exemplar"), "label", "similarity"),
        result,
    )
    similarity = exact_sum(F.col("similarity"), graph.report_units)
    sums = assignments.groupBy("label").agg(F.count("*").alias("size"), similarity.alias("sum"))
    exemplar_rows = kept(
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


def largest(value: Column, name: Column) -> Column:
    """Aggregate: the name with the largest value, on ties the smallest; as a struct (value, name)."""
    best = F.max(F.struct(value.alias("value"), (-name).alias("minus_name")))
    return F.struct(best["value"].alias("value"), (-best["minus_name"]).alias("name"))


def assign(graph: Graph, candidates: DataFrame) -> DataFrame:
    """(index, exemplar, similarity): candidates to themselves, the others to the most similar candidate they reach.

    Points that reach none are left out.
    """
    to = graph.small(candidates.select(F.col("index").alias("k")))
    themselves = graph.small(candidates.select(F.col("index").alias("i")))
    others = (
        graph.edges.join(to, "k")
        .join(themselves, "i", "left_anti")
        .groupBy("i")
        .agg(largest(F.col("similarity"), F.col("k")).alias("best"))
        .select(
            F.col("i").alias("index"), F.col("best.name").alias("exemplar"), F.col("best.value").alias("similarity")
        )
    )
    own = candidates.select("index", F.col("index").alias("exemplar"), F.lit(None).cast("double").alias("similarity"))
    return others.union(own)


def refine(graph: Graph, assigned: DataFrame) -> DataFrame:
    """(index) of each cluster's best exemplar: the member j with the largest sum of s(i, j) over the members i.

    p(j) counts as s(j, j), and every other member has to store an edge to j. An exemplar that is similar to nobody
    stores none, so its cluster keeps it.
    """
    of_i = graph.small(assigned.select(F.col("index").alias("i"), F.col("exemplar").alias("cluster")))
    of_k = graph.small(assigned.select(F.col("index").alias("k"), F.col("exemplar").alias("cluster")))
    sizes = assigned.groupBy(F.col("exemplar").alias("cluster")).agg(F.count("*").alias("size"))
    best = (
        graph.edges.join(of_i, "i")
        .join(of_k, ["k", "cluster"])
        .groupBy("cluster", "k")
        .agg(sum_in_units(F.col("similarity"), graph.report_units).alias("sum"), F.count("*").alias("reached"))
        .join(graph.small(sizes), "cluster")
        .where("reached = size")
        .groupBy("cluster")
        .agg(largest(F.col("sum"), F.col("k")).alias("best"))
        .select(F.col("best.name").alias("index"))
    )
    lonely = graph.points.where("lonely").select("index")
    return best.union(lonely)
