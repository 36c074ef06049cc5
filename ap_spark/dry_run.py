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
from ap_spark.graph.sparsify import is_stored, merge_duplicates
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
_SAMPLED_PAIRS = 1_000_000
_CLUSTERS = "how many clusters the graph permits"
_UNCHECKED = {
    "points without a preference": f"whether each point has a preference, {_CLUSTERS}",
    "all pairs": f"whether a pair is given more than once (but in a sample), each point has a preference, {_CLUSTERS}",
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
    unchecked : str
        What a run checks, and a dry run does not.
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
    unchecked: str = _CLUSTERS
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
        needs = [f"{format_bytes(number)} of {place}{self._format_free(place)}" for place, number in self.bytes.items()]
        lines = [
            f"{format_count(work.n_points, 'point')}, {about}{work.n_edges:,} similarities: {self.similarities}",
            f"a run: {work.engine} engine, {format_count(work.cores, 'core')}, {self._format_seconds()}",
            f"beside what Spark itself needs: about {', '.join(needs)}",
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

    def _format_free(self, place: str) -> str:
        """Say how much is free, where that is known, and whether it will do."""
        if place != LOCAL_DISK or self.free is None:
            return ""
        return f" ({format_bytes(self.free)} free{', WHICH IS TOO LITTLE' * (self.bytes[place] > self.free)})"


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
    settings = _with_clusters(settings, n_points)
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
    pairs = edges.select("i", "k", "s", F.lit(1).alias("rows"), is_no_similarity(F.col("s")).cast("int").alias("bad"))
    found = collect_pair_stats(pairs)
    check_pairs(edges, pairs, found, settings.on_duplicate)
    check_one_preference(settings, by_point=by_point, on_diagonal=found.diagonal > 0)
    sample = _sample_pairs(edges, found.pairs)
    if sample.repeated and settings.on_duplicate == "error":
        merged = merge_duplicates(edges, settings.on_duplicate)
        check_pairs(edges, merged, collect_pair_stats(merged), settings.on_duplicate)  # raises the error
    n_pairs, one_way = (round(found.stored * share) for share in (sample.distinct, sample.one_way))
    n_points = _count_points(edges, points)
    settings = _with_clusters(settings, n_points)
    n_edges, is_certain = n_stored(n_pairs, n_points, settings, one_way=one_way)
    return DryRun(
        work=_workload(rows.sparkSession, n_points, n_edges, 0, "given", settings),
        settings=settings,
        is_certain=is_certain and sample.is_all,
        similarities="given, none in both directions" if one_way == n_pairs > 0 else "given",
        free=_free(rows.sparkSession),
        unchecked=_UNCHECKED["points without a preference"] if sample.is_all else _UNCHECKED["all pairs"],
    )


def _with_clusters(settings: Settings, n_points: int) -> Settings:
    """Return settings with a number of clusters in place of their size."""
    return settings if settings.cluster_size is None else settings.with_clusters(n_points)


@dataclass(frozen=True)
class _Sample:
    """What a sample of similarities shows, as shares of those that are given.

    Attributes
    ----------
    is_all : bool
        Whether all were looked at.
    distinct : float
        Once a pair that is given again has been left out.
    one_way : float
        Without the other direction.
    repeated : bool
        Whether a pair is given again.
    """

    is_all: bool
    distinct: float
    one_way: float
    repeated: bool


def _sample_pairs(edges: DataFrame, n_pairs: int) -> _Sample:
    """Look at some of the similarities (i, k, s), with their other directions; at all where they are few."""
    one_in = -(-n_pairs // _SAMPLED_PAIRS)
    ends = F.least("i", "k").alias("low"), F.greatest("i", "k").alias("high")
    upward = F.col("i") < F.col("k")
    some = edges.where(is_stored() & (F.pmod(F.xxhash64(*ends), F.lit(one_in)) == 0)).groupBy(*ends)
    directions = some.agg(F.count("*").alias("rows"), (F.max(upward) != F.min(upward)).alias("both"))
    distinct = F.col("both").cast("int") + 1
    found = directions.agg(F.sum("rows"), F.sum(distinct), F.count_if(~F.col("both"))).first()
    assert found is not None
    rows, n_distinct, n_one_way = (number or 0 for number in found)
    return _Sample(one_in == 1, n_distinct / max(1, rows), n_one_way / max(1, rows), n_distinct < rows)


def _count_points(edges: DataFrame, points: DataFrame | None) -> int:
    """Return how many points there are.

    Raises
    ------
    InputError
        If an end is not among the points that are given.
    """
    ends = edges.select(F.explode(F.array("i", "k")).alias("id")).distinct()
    if points is None:
        return ends.count()
    known = ids_of(points, like=edges)
    if not ends.join(known, "id", "left_anti").isEmpty():
        check_ends(edges, known)  # raises the error
    return known.count()


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
