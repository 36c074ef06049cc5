"""What a run would read, do and write, and how long about, without doing it.

    input ──► checks in one pass ──► how many points, how many similarities ──► forecast ──► DryRun

Nothing is searched, built or written. What only the graph shows is not checked: `_UNCHECKED` says what.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.forecast import (
    LOCAL_DISK,
    Pairing,
    Seconds,
    Workload,
    forecast_bytes,
    forecast_seconds,
    format_seconds,
    n_stored,
)
from ap_spark.graph.build import engine_of
from ap_spark.graph.checks import check_ends, check_one_preference, check_pairs, collect_pair_stats, ids_of
from ap_spark.graph.sparsify import is_stored
from ap_spark.io.frames import as_points
from ap_spark.run import refuse_more_clusters
from ap_spark.schema import edge_table, is_no_similarity
from ap_spark.settings import Settings, Similarity
from ap_spark.similarity.metrics import metric_of
from ap_spark.similarity.neighbors import choose_search
from ap_spark.similarity.scaling import scale
from ap_spark.similarity.vectors import check_vectors
from ap_spark.wording import format_bytes, format_count, printable

__all__ = ["DryRun", "foresee_points", "foresee_similarities"]

_STAGES = 3  # that are named
_UNCHECKED = {
    "points": "how many clusters the graph permits",
    "similarities": "pairs given more than once, points without a preference, how many clusters the graph permits",
}


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would work on, need and take.

    Attributes
    ----------
    work : Workload
    settings : Settings
    is_certain : bool
        Whether the number of similarities is more than an estimate.
    similarities : str
        Where they come from.
    free : int or None
        Bytes that are free in Spark's local directory, where that is on this machine.
    reading : float
        Seconds that reading has taken.
    snapshots : bool
        Whether the run takes some.
    clustering : bool
        Whether it clusters, and does not only describe the graph.
    """

    work: Workload
    settings: Settings
    is_certain: bool
    similarities: str
    free: int | None
    reading: float = 0.0
    snapshots: bool = False
    clustering: bool = True

    @cached_property
    def seconds(self) -> dict[str, Seconds]:
        """By stage: if all goes well, and at most."""
        return forecast_seconds(self.work, self.settings, self.reading, clustering=self.clustering)

    @cached_property
    def bytes(self) -> dict[str, int]:
        """By the place where they are needed."""
        return forecast_bytes(self.work, snapshots=self.snapshots)

    @property
    def unchecked(self) -> str:
        """What a run checks, and a dry run does not."""
        return _UNCHECKED["similarities" if self.work.pairing == "given" else "points"]

    def summary(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return asdict(self.work) | {
            "settings": asdict(self.settings),
            "is_certain": self.is_certain,
            "seconds": self.seconds | {"all": self.in_all},
            "bytes": self.bytes,
            "free": self.free,
            "unchecked": self.unchecked,
        }

    @property
    def in_all(self) -> Seconds:
        """The seconds of all stages."""
        low, high = zip(*self.seconds.values(), strict=True)
        return sum(low), sum(high)

    def __str__(self) -> str:
        work = self.work
        about = "" if self.is_certain else "about "
        needs = [f"{format_bytes(number)} of {place}" for place, number in self.bytes.items()]
        lines = [
            f"{format_count(work.n_points, 'point')}, {about}{work.n_edges:,} similarities: {self.similarities}",
            f"a run: {work.engine} engine, {format_count(work.cores, 'core')}, {self._format_seconds()}",
            f"beside what Spark itself needs: about {', '.join(needs)}{self._format_free()}",
            f"not checked: {self.unchecked}",
        ]
        return "\n".join(map(printable, lines))

    def _format_seconds(self) -> str:
        """Say how long a run takes, in all and the stages that take longest."""
        low, high = map(format_seconds, self.in_all)
        most = f"{self.settings.max_iter:,} iterations" + (" of 20 trials" if self.settings.clusters else "")
        extent = f"{low} if it converges soon, {high} with {most}" if self.clustering else f"{low} to {high}"
        longest = sorted(self.seconds, key=lambda stage: -self.seconds[stage][1])[:_STAGES]
        return f"roughly {extent} (most of it: {', '.join(longest)})"

    def _format_free(self) -> str:
        """Say how much disk is free, where that is known, and whether it will do."""
        if self.free is None:
            return ""
        needed = self.bytes[LOCAL_DISK]
        return f"; {format_bytes(self.free)} free" + (", WHICH IS TOO LITTLE" if needed > self.free else "")


def foresee_points(rows: DataFrame, similarity: Similarity, settings: Settings) -> DryRun:
    """Check points, and say what a run on them would take.

    Parameters
    ----------
    rows, similarity
        See `pipeline.cluster_points`, also for the errors.
    settings : Settings
    """
    metric = metric_of(similarity.metric, similarity.width)
    _, n_points, dimensions = check_vectors(scale(as_points(rows), similarity.scale), metric)
    pairing: Pairing = "all"
    neighbors, where = n_points - 1, "of all pairs"
    if similarity.neighbors is not None:
        search = choose_search(similarity.search, metric, n_points, dimensions)
        pairing = "approximate" if search == "approximate" else "exact"
        neighbors = min(similarity.neighbors, n_points - 1)
        where = f"of each point to its {neighbors:,} nearest, {pairing} search"
        settings = settings if settings.symmetrize else replace(settings, symmetrize="union")
    is_complete = neighbors == n_points - 1
    n_edges, is_certain = n_stored(n_points * neighbors, n_points, settings, one_way=0 if is_complete else None)
    return DryRun(
        work=_workload(rows.sparkSession, n_points, n_edges, dimensions, pairing, settings),
        settings=settings,
        is_certain=is_certain,
        similarities=f"{similarity.metric} {where}",
        free=_free(rows.sparkSession),
    )


def foresee_similarities(rows: DataFrame, points: DataFrame | None, settings: Settings, *, by_point: bool) -> DryRun:
    """Check similarities, and say what a run on them would take.

    Parameters
    ----------
    rows, points
        See `pipeline.affinity_propagation`, also for the errors.
    settings : Settings
    by_point : bool
        Whether there is a preference for each of the points.
    """
    edges = edge_table(rows)
    is_bad = is_no_similarity(F.col("s")).cast("bigint")
    pairs = edges.select("i", "k", "s", F.lit(1).alias("rows"), is_bad.alias("bad"))
    found = collect_pair_stats(pairs)
    check_pairs(edges, pairs, found, settings.on_duplicate)
    check_one_preference(settings, by_point=by_point, on_diagonal=found.diagonal > 0)
    n_points, n_upward = _count_points(edges, points)
    one_way = abs(found.stored - 2 * n_upward)  # at least; and none is stored both ways if it is all of them
    n_edges, is_certain = n_stored(found.stored, n_points, settings, one_way=one_way)
    return DryRun(
        work=_workload(rows.sparkSession, n_points, n_edges, 0, "given", settings),
        settings=settings,
        is_certain=is_certain and settings.on_duplicate == "error",
        similarities="given, none in both directions" if one_way == found.stored > 0 else "given",
        free=_free(rows.sparkSession),
    )


def _count_points(edges: DataFrame, points: DataFrame | None) -> tuple[int, int]:
    """Return how many points there are, and how many stored similarities go from a smaller id to a larger one.

    Raises
    ------
    InputError
        If an end is not among the points.
    """
    upward = (is_stored() & (F.col("i") < F.col("k"))).cast("bigint")
    one_end = F.struct(F.col("i").alias("id"), upward.alias("upward"))
    other_end = F.struct(F.col("k").alias("id"), F.lit(0).cast("bigint").alias("upward"))
    ends = edges.select(F.inline(F.array(one_end, other_end))).groupBy("id").agg(F.sum("upward").alias("upward"))
    if points is None:
        found = ends.agg(F.count("*"), F.sum("upward")).first()
        assert found is not None
        return found[0], found[1] or 0
    ids = ids_of(points, like=edges)
    is_known = ids.select("id", F.lit(True).alias("is_known"))
    found = ends.join(is_known, "id", "left").agg(F.count_if(F.col("is_known").isNull()), F.sum("upward")).first()
    assert found is not None
    if found[0]:
        check_ends(edges, ids)  # raises the error
    return ids.count(), found[1] or 0


def _workload(
    spark: SparkSession, n_points: int, n_edges: int, dimensions: int, pairing: Pairing, settings: Settings
) -> Workload:
    """Return what a run works on.

    Raises
    ------
    SettingError
        If the engine cannot be had here, or more clusters are asked for than there are points.
    """
    if settings.clusters is not None:
        refuse_more_clusters(settings.clusters, n_points)
    return Workload(
        n_points=n_points,
        n_edges=n_edges,
        dimensions=dimensions,
        pairing=pairing,
        engine=engine_of(spark, settings),
        cores=classic.cores(spark),
        compiled=find_spec("numba") is not None,
    )


def _free(spark: SparkSession) -> int | None:
    """Return the bytes that are free in Spark's local directory, where that is on this machine."""
    return shutil.disk_usage(spark.sparkContext._temp_dir).free if classic.is_local(spark) else None
