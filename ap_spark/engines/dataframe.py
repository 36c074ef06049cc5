"""The algorithm as a pair of groupBy/join transformations over the edge DataFrame (docs/semantics.md, section 2).

    edges(block, i, k, s, r, a)      stay where they are, hash-partitioned by block; a row i lies in one block
    columns(k, total, a, exemplar)   one number a column is all that moves: its total

    one iteration:   edges   = responsibilities(edges)          groupBy row,    join on the row
                     columns = column_totals(edges)             groupBy column: partial sums are shuffled
                     edges   = availabilities(edges, columns)   join on the column: totals are sent to the edges

The last line of an iteration and the first of the next are evaluated together, in one pass over the edges whose
result is a local checkpoint: plan and storage stay those of one iteration.

No RDD and no JVM object is touched, so the engine runs on Spark Connect too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import with_settings
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines.state import State
from ap_spark.exact_sum import Units, exact_sum
from ap_spark.graph.edge_graph import EdgeGraph

__all__ = ["DataFrameEngine", "availabilities", "column_totals", "responsibilities"]

EDGES_A_PARTITION = 1_000_000
BROADCAST_COLUMNS = 5_000_000  # up to this many, the totals are broadcast: some 200 MB in the driver and an executor

# What keeps the edges where they are. Adaptive execution forgets the partitioning of a checkpoint; rows of one block
# may be grouped and joined by (block, i) or (block, k) without a shuffle.
PLANNER = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.requireAllClusterKeysForCoPartition": "false",
    "spark.sql.requireAllClusterKeysForDistribution": "false",
}


def is_diagonal() -> Column:
    """Whether an edge is its row's diagonal."""
    return F.col("i") == F.col("k")


def damped(old: str, new: Column, damping: float) -> Column:
    """damping * old + (1 - damping) * new, under the old name."""
    return (F.col(old) * F.lit(damping) + new * F.lit(1.0 - damping)).alias(old)


def responsibilities(edges: DataFrame, damping: float) -> DataFrame:
    """r'(i,k) = s(i,k) - max over k' != k of [a(i,k') + s(i,k')], damped.

    The maximum of the others is the row's largest a + s, or for the entry that holds it the second largest.
    """
    value = F.col("a") + F.col("s")
    rows = edges.groupBy("block", "i").agg(F.max_by(value, value, 2).alias("top"))
    largest, second = F.col("top")[0], F.col("top")[1]
    others = F.when(value == largest, second).otherwise(largest)
    return edges.join(rows.hint("shuffle_hash"), ["block", "i"]).select(
        "block", "i", "k", "s", damped("r", F.col("s") - others, damping), "a"
    )


def column_totals(edges: DataFrame, damping: float, units: Units) -> DataFrame:
    """(k, total, a, exemplar): T(k) = r(k,k) + sum over i' != k of max(0, r(i',k)), exactly; what that makes of a(k,k).

    A column without a row of its own is a forced exemplar: its total is infinite.
    """
    contribution = F.when(is_diagonal(), F.col("r")).otherwise(F.greatest(F.lit(0.0), F.col("r")))
    columns = edges.groupBy("k").agg(
        exact_sum(contribution, units).alias("total"),
        F.max(F.when(is_diagonal(), F.col("r"))).alias("r"),
        F.max(F.when(is_diagonal(), F.col("a"))).alias("a"),
    )
    availability = damped("a", F.col("total") - F.col("r"), damping)
    return columns.select(
        "k",
        F.when(F.col("r").isNull(), F.lit(float("inf"))).otherwise(F.col("total")).alias("total"),
        F.coalesce(availability, F.lit(float("nan"))).alias("a"),
        F.coalesce(availability + F.col("r") > 0.0, F.lit(False)).alias("exemplar"),
    )


def availabilities(edges: DataFrame, columns: DataFrame, damping: float) -> DataFrame:
    """a'(i,k) = min(0, T(k) - max(0, r(i,k))) for i != k, a'(k,k) = T(k) - r(k,k), damped.

    ``columns`` has (k, total) to be sent to all edges, or (block, k, total) addressed to each block that needs it.
    """
    keys: list[str] = [name for name in ("block", "k") if name in columns.columns]
    others = F.least(F.lit(0.0), F.col("total") - F.greatest(F.lit(0.0), F.col("r")))
    new = F.when(is_diagonal(), F.col("total") - F.col("r")).otherwise(others)
    return edges.join(columns, keys).select("block", "i", "k", "s", "r", damped("a", new, damping))


def unique(totals: DataFrame, *keys: str) -> DataFrame:
    """The totals, grouped by keys that are unique already, so that the planner knows they are.

    It takes the size of a join to be the product of both sides unless one is unique on the keys, and from iteration to
    iteration that product grows to numbers of millions of digits (SPARK-52163).
    """
    return totals.groupBy(*keys).agg(F.max("total").alias("total"))


def with_messages(edges: DataFrame, start: State | None) -> DataFrame:
    """(i, k, s, r, a): the edges with the messages to start from, which are 0 at the beginning."""
    if start is None:
        return edges.select("i", "k", "s", F.lit(0.0).alias("r"), F.lit(0.0).alias("a"))
    return edges.select("i", "k", "s").join(start.messages.drop("similarity"), ["i", "k"])


class DataFrameEngine:
    """See the module's text.

    Parameters
    ----------
    graph : EdgeGraph
    damping : float
        In [0.5, 1).
    partitions : int, optional
        The number of blocks; by default one for each million edges and for each core.
    broadcast_columns : int
        Graphs of more points have their totals shuffled to the blocks that need them, instead of broadcast.
    start : State, optional
        Where to go on from, on the same graph.
    """

    name = "dataframe"
    recovery_state: State | None = None  # what it holds cannot be made again

    def __init__(
        self,
        graph: EdgeGraph,
        damping: float,
        partitions: int | None = None,
        broadcast_columns: int = BROADCAST_COLUMNS,
        start: State | None = None,
    ) -> None:
        self.spark: SparkSession = graph.edges.sparkSession
        self.graph = graph
        self.damping = damping
        self.iteration = start.iteration if start else 0
        self.partitions = partitions or max(classic.cores(self.spark), -(-graph.n_edges // EDGES_A_PARTITION))
        self.planner = PLANNER | {"spark.sql.shuffle.partitions": str(self.partitions)}
        self.columns: DataFrame | None = None
        self.routes: DataFrame | None = None
        with with_settings(self.spark, self.planner), ExitStack() as held:
            self.edges = self.in_blocks(with_messages(graph.edges, start)).localCheckpoint()
            held.callback(self.release)
            if start:
                self.columns = start.columns.localCheckpoint()
            if graph.n_points > broadcast_columns:
                routes = self.edges.select("k", "block").distinct()
                self.routes = routes.repartition(self.partitions, "k").localCheckpoint()
            held.pop_all()

    def in_blocks(self, edges: DataFrame) -> DataFrame:
        """Assign rows to blocks, one block a partition.

        A block is named by the smallest integer that Spark's hash partitioning sends to its partition.
        """
        partition_of = F.pmod(F.hash("id"), F.lit(self.partitions))
        names = self.spark.range(64 * self.partitions).groupBy(partition_of.alias("p")).agg(F.min("id").alias("id"))
        blocks = [F.lit(row.id).cast("bigint") for row in names.orderBy("p").collect()]
        row_hash = F.pmod(F.hash("i"), F.lit(len(blocks)))
        return (
            edges.select(F.array(*blocks)[row_hash].alias("block"), "i", "k", "s", "r", "a")
            .repartition(self.partitions, "block")
            .sortWithinPartitions("block", "i")
        )

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        for _ in range(most):
            started = time.perf_counter()
            self.iteration += 1
            classic.describe(self.spark, f"ap: iteration {self.iteration}")
            with with_settings(self.spark, self.planner):
                exemplars, changed = self.iterate()
            classic.describe(self.spark, "")
            done = Iteration(self.iteration, exemplars + self.graph.n_forced, changed, time.perf_counter() - started)
            yield done
            if stability.reached(done):
                return

    def iterate(self) -> tuple[int, int]:
        """One iteration; returns how many exemplars there are and how many memberships changed."""
        with ExitStack() as past:
            edges = responsibilities(self.arrived(), self.damping).localCheckpoint()
            past.callback(classic.release, self.edges)
            self.edges = edges
            columns = self.new_columns().localCheckpoint()
            if self.columns is not None:
                past.callback(classic.release, self.columns)
            self.columns = columns
            counts = columns.agg(F.count_if("exemplar"), F.count_if(F.col("exemplar") != F.col("before"))).first()
        assert counts is not None
        return counts[0], counts[1]

    def new_columns(self) -> DataFrame:
        """The totals of the edges' responsibilities, and whether k was an exemplar before."""
        now = column_totals(self.edges, self.damping, self.graph.units)
        if self.columns is None:
            return now.withColumn("before", F.lit(False))
        before = self.columns.select("k", F.col("exemplar").alias("before"))
        return now.join(before.hint("shuffle_hash"), "k")

    def arrived(self) -> DataFrame:
        """The edges after the availabilities of the last iteration have reached them."""
        if self.columns is None:
            return self.edges
        totals = unique(self.columns, "k")
        if self.routes is None:
            return availabilities(self.edges, F.broadcast(totals), self.damping)
        addressed = totals.join(self.routes.hint("shuffle_hash"), "k").repartition(self.partitions, "block")
        return availabilities(self.edges, unique(addressed, "block", "k").hint("shuffle_hash"), self.damping)

    def unserved(self) -> int:
        assert self.columns is not None, "run at least one iteration first"
        serving = self.columns.where("exemplar or total = double('infinity')").select("k")
        served = self.edges.join(serving.hint("shuffle_hash"), "k").select("i").distinct().count()
        return self.graph.n_points - self.graph.n_forced - served

    def exemplars(self) -> DataFrame:
        assert self.columns is not None, "run at least one iteration first"
        return self.columns.where("exemplar").select(F.col("k").alias("index"))

    def state(self) -> State:
        assert self.columns is not None, "run at least one iteration first"
        messages = self.edges.select("i", "k", "r", "a").join(self.graph.edges.drop("s"), ["i", "k"])
        return State(self.iteration, messages.select("i", "k", "similarity", "r", "a"), self.columns.drop("before"))

    def set_recovery_point(self, state: State) -> None:
        """Local checkpoints cannot be made again from anything."""

    def release(self) -> None:
        for held in (self.edges, self.columns, self.routes):
            if held is not None:
                classic.release(held)
