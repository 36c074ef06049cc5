"""The algorithm as a pair of groupBy/join transformations over the edge DataFrame (docs/semantics.md, section 2).

    edges(block, i, k, s, r, a)      stay where they are, hash-partitioned by block; a row i lies in one block
    columns(k, total, a, exemplar)   only these move: a column's total is all that crosses the network

    one iteration:   edges   = responsibilities(edges)          groupBy row, join on the row: no shuffle
                     columns = column_totals(edges)             groupBy column: partial sums are shuffled
                     edges   = availabilities(edges, columns)   join on the column: totals are sent to the edges

Where points have a damping of their own, edges have another column, ``damping``. Columns have two more: the level of
each point's damping, and when it last became or ceased to be an exemplar. Levels move to the edges too, in the few
iterations before which they are raised.

The last line of an iteration and the first line of the next are evaluated together, in one pass over the edges. Its
result is a local checkpoint, so that neither the plan nor the storage grows with the iterations.

No RDD and no object of Java's is used, so the engine runs on Spark Connect too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import with_settings
from ap_spark.convergence import Iteration, Stability
from ap_spark.damping import DAMPINGS, RECENT, flips_after, is_raise_due
from ap_spark.engines.state import State
from ap_spark.exact_sum import Units, exact_sum
from ap_spark.graph.edge_graph import EdgeGraph

__all__ = ["DataFrameEngine", "availabilities", "column_totals", "responsibilities"]

_EDGES_PER_PARTITION = 1_000_000
_BROADCAST_COLUMNS = 5_000_000  # up to so many totals are broadcast: some 200 MB in the driver and in each executor

# These settings keep the edges where they are: rows of one block are grouped and joined by (block, i) or (block, k)
# without a shuffle. Adaptive execution would forget how a checkpoint is partitioned.
_PLANNER_SETTINGS = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.requireAllClusterKeysForCoPartition": "false",
    "spark.sql.requireAllClusterKeysForDistribution": "false",
}


def _is_diagonal() -> Column:
    """Return whether an edge is the diagonal of its row."""
    return F.col("i") == F.col("k")


def _damped(old: str, new: Column, damping: float | None) -> Column:
    """Return damping * old + (1 - damping) * new, under the old name; by default with the column ``damping``."""
    keep = F.col("damping") if damping is None else F.lit(damping)
    return (F.col(old) * keep + new * (F.lit(1.0) - keep)).alias(old)


def _own_damping(edges: DataFrame) -> list[str]:
    """Return the name of the column with the damping of each edge, if there is one."""
    return [name for name in edges.columns if name == "damping"]


def responsibilities(edges: DataFrame, damping: float | None) -> DataFrame:
    """Return the edges with new responsibilities: r'(i,k) = s(i,k) - max over k' != k of [a(i,k') + s(i,k')], damped.

    The maximum over the others is the largest a + s of the row; for the entry that holds it, the second largest.
    Without a damping for all, each edge has its own in the column ``damping``; here and below.
    """
    value = F.col("a") + F.col("s")
    rows = edges.groupBy("block", "i").agg(F.max_by(value, value, 2).alias("top"))
    largest, second = F.col("top")[0], F.col("top")[1]
    others = F.when(value == largest, second).otherwise(largest)
    return edges.join(rows.hint("shuffle_hash"), ["block", "i"]).select(
        "block", "i", "k", "s", _damped("r", F.col("s") - others, damping), "a", *_own_damping(edges)
    )


def column_totals(edges: DataFrame, damping: float | None, units: Units) -> DataFrame:
    """Return the columns (k, total, a, exemplar).

    The total T(k) = r(k,k) + sum over i' != k of max(0, r(i',k)) is an exact sum, and a(k,k) follows from it. A point
    without a row is a forced exemplar: its total is infinite.
    """
    contribution = F.when(_is_diagonal(), F.col("r")).otherwise(F.greatest(F.lit(0.0), F.col("r")))
    columns = edges.groupBy("k").agg(
        exact_sum(contribution, units).alias("total"),
        F.max(F.when(_is_diagonal(), F.col("r"))).alias("r"),
        F.max(F.when(_is_diagonal(), F.col("a"))).alias("a"),
        *(F.max(F.when(_is_diagonal(), F.col(name))).alias(name) for name in _own_damping(edges)),
    )
    availability = _damped("a", F.col("total") - F.col("r"), damping)
    return columns.select(
        "k",
        F.when(F.col("r").isNull(), F.lit(float("inf"))).otherwise(F.col("total")).alias("total"),
        F.coalesce(availability, F.lit(float("nan"))).alias("a"),
        F.coalesce(availability + F.col("r") > 0.0, F.lit(False)).alias("exemplar"),
    )


def availabilities(edges: DataFrame, columns: DataFrame, damping: float | None) -> DataFrame:
    """Return the edges with new availabilities, damped.

        a'(i,k) = min(0, T(k) - max(0, r(i,k))) for i != k;   a'(k,k) = T(k) - r(k,k)

    ``columns`` has (k, total), to be sent to all edges, or (block, k, total), for each block that needs the total.
    """
    keys: list[str] = [name for name in ("block", "k") if name in columns.columns]
    others = F.least(F.lit(0.0), F.col("total") - F.greatest(F.lit(0.0), F.col("r")))
    new = F.when(_is_diagonal(), F.col("total") - F.col("r")).otherwise(others)
    return edges.join(columns, keys).select(
        "block", "i", "k", "s", "r", _damped("a", new, damping), *_own_damping(edges)
    )


def _with_damping(edges: DataFrame, levels: DataFrame) -> DataFrame:
    """Return the edges with a damping of their own: that of the larger level of their two points.

    ``levels`` has (k, level), or (block, k, level), as the columns of `availabilities`.
    """
    keys: list[str] = [name for name in ("block", "k") if name in levels.columns]
    of_row = levels.withColumnsRenamed({"k": "i", "level": "row_level"})
    level = F.greatest("level", "row_level")
    joined = edges.join(levels, keys).join(of_row, [name if name == "block" else "i" for name in keys])
    return joined.select("block", "i", "k", "s", "r", "a", _by_level(level, DAMPINGS).alias("damping"))


def _by_level(level: Column, values: Sequence[float]) -> Column:
    """Return the value of a level; a single value is that of all levels."""
    return F.array(*map(F.lit, values))[level.cast("int")] if len(values) > 1 else F.lit(values[0])


def _known_unique(totals: DataFrame, *keys: str) -> DataFrame:
    """Group totals, or levels, by keys that are unique already: only so the planner knows that they are.

    Otherwise it takes the size of a join to be the product of both sides. From iteration to iteration that product
    grows, to a number of millions of digits (SPARK-52163).
    """
    (value,) = (name for name in ("total", "level") if name in totals.columns)
    return totals.groupBy(*keys).agg(F.max(value).alias(value))


def _with_messages(edges: DataFrame, start: State | None) -> DataFrame:
    """Return the edges with the messages to start from, (i, k, s, r, a); by default these are 0."""
    if start is None:
        return edges.select("i", "k", "s", F.lit(0.0).alias("r"), F.lit(0.0).alias("a"))
    return edges.select("i", "k", "s").join(start.messages.drop("similarity"), ["i", "k"])


class DataFrameEngine:
    """Computes iterations by groupBy and join; see the text of this module.

    Parameters
    ----------
    graph : EdgeGraph
    damping : float or None
        A fixed damping, in [0.5, 1); None for one of its own for each point (`damping.py`).
    partitions : int, optional
        The number of blocks; by default one for each million edges, and at least one for each core.
    broadcast_columns : int
        In graphs of more points totals are shuffled to the blocks that need them, instead of broadcast.
    start : State, optional
        Where to resume from, on the same graph.
    """

    name = "dataframe"
    recovery_state: State | None = None  # a local checkpoint that is lost cannot be rebuilt

    def __init__(
        self,
        graph: EdgeGraph,
        damping: float | None,
        partitions: int | None = None,
        broadcast_columns: int = _BROADCAST_COLUMNS,
        start: State | None = None,
    ) -> None:
        self.spark: SparkSession = graph.edges.sparkSession
        self.graph = graph
        self.is_automatic = damping is None
        self.damping: float | None = DAMPINGS[0] if damping is None else damping  # None: a column of the edges
        self.iteration = start.iteration if start else 0
        self.partitions = partitions or max(classic.cores(self.spark), -(-graph.n_edges // _EDGES_PER_PARTITION))
        self.planner = _PLANNER_SETTINGS | {"spark.sql.shuffle.partitions": str(self.partitions)}
        self.columns: DataFrame | None = None
        self.routes: DataFrame | None = None
        with with_settings(self.spark, self.planner), ExitStack() as held:
            self.edges = self._in_blocks(_with_messages(graph.edges, start)).localCheckpoint()
            held.callback(self.release)
            if graph.n_points > broadcast_columns:
                routes = self.edges.select("k", "block").distinct()
                self.routes = routes.repartition(self.partitions, "k").localCheckpoint()
            if start:
                self.columns = start.columns.localCheckpoint()
                edges = self._with_levels(self.edges) if self.is_automatic else self.edges
                if self.damping is None:
                    edges = edges.localCheckpoint()
                    classic.release(self.edges)
                    self.edges = edges
            held.pop_all()

    def _in_blocks(self, edges: DataFrame) -> DataFrame:
        """Distribute rows over blocks, one block for each partition.

        The number of a block is the smallest integer that Spark's hash partitioning sends to its partition.
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
            classic.name_jobs(self.spark, f"ap: iteration {self.iteration}")
            with with_settings(self.spark, self.planner):
                exemplars, changed, unsettled = self._iterate(stability.windows)
            classic.name_jobs(self.spark, "")
            seconds = time.perf_counter() - started
            done = Iteration(self.iteration, exemplars + self.graph.n_forced, changed, unsettled, seconds)
            yield done
            if stability.reached(done):
                return

    def _iterate(self, windows: Sequence[int]) -> tuple[int, int, int]:
        """Do one iteration; return how many exemplars there are, how many points flipped and how many are unsettled."""
        with ExitStack() as past:
            updated = self.updated_edges()
            if self.is_automatic and is_raise_due(self.iteration) and self.columns is not None:
                past.callback(classic.release, self.columns)
                self.columns = self._raised(self.columns).localCheckpoint()
                updated = self._with_levels(updated)
            edges = responsibilities(updated, self.damping).localCheckpoint()
            past.callback(classic.release, self.edges)
            self.edges = edges
            columns = self.new_columns().localCheckpoint()
            if self.columns is not None:
                past.callback(classic.release, self.columns)
            self.columns = columns
            since = [flips_after(self.iteration, window) for window in windows]
            unsettled = F.col("flipped") > _by_level(F.col("level"), since)
            flipped = F.col("flipped") == self.iteration
            counts = columns.agg(F.count_if("exemplar"), F.count_if(flipped), F.count_if(unsettled)).first()
        assert counts is not None
        return counts[0], counts[1], counts[2]

    def _raised(self, columns: DataFrame) -> DataFrame:
        """Return the columns with the levels of this iteration, before which they are raised."""
        raised = F.when(F.col("flipped") >= self.iteration - RECENT, F.least("level", F.lit(len(DAMPINGS) - 2)) + 1)
        return columns.withColumn("level", F.coalesce(raised, F.col("level")).cast("tinyint"))

    def _with_levels(self, edges: DataFrame) -> DataFrame:
        """Return the edges with the damping that follows from the levels of the columns, where these differ."""
        assert self.columns is not None
        lowest, highest = self.columns.agg(F.min("level"), F.max("level")).first() or (0, 0)
        edges = edges.drop("damping")
        if lowest == highest:
            self.damping = DAMPINGS[lowest]
            return edges
        self.damping = None
        return _with_damping(edges, self._addressed(self.columns.select("k", "level")))

    def new_columns(self) -> DataFrame:
        """Return the columns that follow from the responsibilities: (k, total, a, exemplar, level, flipped)."""
        now = column_totals(self.edges, self.damping, self.graph.units)
        if self.columns is None:
            flipped = F.col("exemplar").cast("int") * self.iteration
            return now.select("*", F.lit(0).cast("tinyint").alias("level"), flipped.alias("flipped"))
        before = self.columns.select("k", F.col("exemplar").alias("before"), "level", "flipped")
        flipped = F.when(F.col("exemplar") != F.col("before"), self.iteration).otherwise(F.col("flipped"))
        columns = now.join(before.hint("shuffle_hash"), "k")
        return columns.select("k", "total", "a", "exemplar", "level", flipped.alias("flipped"))

    def updated_edges(self) -> DataFrame:
        """Return the edges with the availabilities that follow from the totals of the last iteration."""
        if self.columns is None:
            return self.edges
        return availabilities(self.edges, self._addressed(self.columns.select("k", "total")), self.damping)

    def _addressed(self, columns: DataFrame) -> DataFrame:
        """Return a value of the columns as it is sent: to all edges, or to the blocks that need it."""
        values = _known_unique(columns, "k")
        if self.routes is None:
            return F.broadcast(values)
        addressed = values.join(self.routes.hint("shuffle_hash"), "k").repartition(self.partitions, "block")
        return _known_unique(addressed, "block", "k").hint("shuffle_hash")

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
        return State(self.iteration, messages.select("i", "k", "similarity", "r", "a"), self.columns)

    def set_recovery_point(self, state: State) -> None:
        """Do nothing: local checkpoints cannot be rebuilt."""

    def release(self) -> None:
        for held in (self.edges, self.columns, self.routes):
            if held is not None:
                classic.release(held)
