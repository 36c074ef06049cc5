"""Few clusters from many points: clusters of clusters, then all points to the exemplars that are left (docs/levels.md).

level 0      points ──► graph ──► clusters
level 1, …   clusters as items, with the sums of their members ──► neighbours ──► graph ──► clusters of clusters
down         all points to the most similar exemplar of the last level ──► best members ──► polished on a sample
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from ap_spark.checkpoint import Checkpoint
from ap_spark.convergence import Ending
from ap_spark.errors import InputError, Interrupted, SettingError
from ap_spark.graph.numbering import WrongInput
from ap_spark.level_graph import ALL_PAIRS, level_source, nearest_items
from ap_spark.level_tables import Hierarchy, exemplar_table, tree_table
from ap_spark.propagation import Watch
from ap_spark.quality.sample import polished_on_sample
from ap_spark.result import Clustering
from ap_spark.run import LocalSource, Source, TooFewClusters, cluster, opened_graph, warn_of_another_number
from ap_spark.settings import Settings
from ap_spark.similarity.given_items import Given, GivenItems, LocalGiven, SparkGiven
from ap_spark.similarity.items import Items
from ap_spark.similarity.knn_exact import Positions
from ap_spark.similarity.members import Heads, LocalMembers, Members, SparkMembers, Under

__all__ = ["Climb", "cluster_in_levels"]

_AnyMembers = LocalMembers | SparkMembers | LocalGiven | SparkGiven
_AnyUnder = Under | Given
logger = logging.getLogger(__name__)

_NEEDS_MISSING = (
    "levels of similarities that are given need missing_similarity: what a pair counts that is not among them, got "
    "levels {} without it"
)
_ONE_PREFERENCE = "levels need one preference for all points, got levels {} with many"
_WORST_FIRST: tuple[Ending, ...] = ("stopped", "settled", "converged")
_SHARE = 4  # clusters are to have at most one in so many of the neighbours that a point stores
_TESTED = 1_000  # items that show whether clusters would rather be joined
_WOULD_JOIN = 0.05  # share of them
_MOST_CENTERS, _LEAST_GAIN = 10, 0.002  # rounds of centers; what one has to gain for the next, as a share
_CENTERS_FROM = 100  # members of a cluster on average: of fewer, none is near the center, and a round gains little
_ROUNDS = 2  # of moving exemplars to the best member


@dataclass(frozen=True)
class Climb:
    """One level, for a summary.

    Attributes
    ----------
    n_items, n_edges, n_clusters : int
        Points, or clusters of the level below; stored pairs of them; clusters of this level.
    n_iter : int
    ending : str
    preference : float or None
    netsim : float
        The net similarity of all points if each stays with its cluster, at this level's preference.
    seconds : float
    """

    n_items: int
    n_edges: int
    n_clusters: int
    n_iter: int
    ending: str
    preference: float | None
    netsim: float
    seconds: float


def cluster_in_levels(source: Source | LocalSource, settings: Settings, watch: Watch) -> Clustering:
    """Cluster points on one level, or on several where that is asked for.

    Parameters
    ----------
    source, settings, watch
        As for `run.cluster`.
    """
    started = time.perf_counter()
    several = settings.levels is not None and settings.levels > 1
    if settings.missing_similarity is not None and not source.is_given_as_pairs:
        raise SettingError(
            "missing_similarity is for similarities that are given: those of points are computed from their features, "
            f"got {settings.missing_similarity:g}"
        )
    if settings.levels == 1:
        return cluster(source, settings, watch)
    if several and source.preferences is not None:
        raise SettingError(_ONE_PREFERENCE.format(settings.levels))
    if source.is_given_as_pairs:
        if settings.missing_similarity is None:
            if settings.levels is not None:
                raise SettingError(_NEEDS_MISSING.format(settings.levels))
            return cluster(source, settings, watch)
        with _given(source, settings) as given:
            return _cluster(source, settings, watch, given, 0.0, started)
    if settings.min_similarity is not None:
        if several:
            raise SettingError(
                "levels of points need all similarities to the exemplars, so leave out min_similarity, got "
                f"{settings.min_similarity:g}"
            )
        return cluster(source, settings, watch)
    neighbors = 0 if source.neighbors is None else source.neighbors["neighbors"]
    if source.members is None or not 0 < neighbors < source.n_points - 1:
        return cluster(source, settings, watch)
    return _cluster(source, settings, watch, source.members, neighbors / _SHARE, started)


def _cluster(
    source: Source | LocalSource, settings: Settings, watch: Watch, members: _AnyMembers, reach: float, started: float
) -> Clustering:
    """Cluster where levels are possible; see `_Climber`."""
    target = settings.clusters
    if target is None:
        has_default = (settings.preference, settings.preference_quantile) == (None, None)
        if settings.levels is None and has_default:
            return cluster(source, settings, watch)
        below = settings if settings.levels is None else replace(settings, gap=None, exact=False)
    else:
        if settings.levels is None and reach and source.n_points <= reach * target:
            with suppress(TooFewClusters):
                return cluster(source, settings, watch)
        below = _halfway(settings)
    first = cluster(source, below, watch)
    first = first.to_pandas() if source.spark is None else first
    if first.summary.preference is None and settings.levels is not None:
        raise SettingError(_ONE_PREFERENCE.format(settings.levels))
    if not first.summary.n_clusters or first.summary.preference is None:
        return first
    if target is not None and first.summary.n_clusters <= target:
        with _after_snapshots(watch.checkpoint, "in the search after the first run"):
            found = cluster(source, settings, replace(watch, checkpoint=None))
        return replace(found, discard_snapshots=first.discard_snapshots)
    climber = _Climber(source, settings, watch, members, reach, first)
    if settings.levels is None and target is None and not climber.would_join():
        return first
    climber.climb()
    if target is None and len(climber.found) == 1:
        return first
    found = climber.result(started)
    if target is not None and found.summary.n_clusters != target:
        warn_of_another_number(target, found.summary)
    return found


@contextmanager
def _after_snapshots(checkpoint: Checkpoint | None, where: str) -> Iterator[None]:
    """Say of a stop after the first run, whose snapshots are the only ones, what the next run can resume from."""
    try:
        yield
    except Interrupted as stopped:
        if checkpoint is None:
            raise
        reason = f"stopped {where}, of which no snapshots are taken"
        raise Interrupted(f"{reason}; {checkpoint.format_saved()}") from stopped


@contextmanager
def _given(source: Source | LocalSource, settings: Settings) -> Iterator[LocalGiven | SparkGiven]:
    """Return all points with the similarities that are stored."""
    assert settings.missing_similarity is not None
    plain = replace(settings, clusters=None)
    if isinstance(source, LocalSource):
        i, k, s = source.build(plain).blocks.pairs()
        yield LocalGiven(source.ids, i, k, s, settings.missing_similarity)
        return
    with opened_graph(source, plain) as graph:
        edges = graph.similarities().persist()
        try:
            yield SparkGiven(edges, settings.missing_similarity)
        finally:
            edges.unpersist()


@dataclass
class _Climber:
    """A run from its first level on: up, and down again.

    Attributes
    ----------
    reach : float
        Members that a cluster may have on average without being kept small by the graph.
    first : Clustering
        Of the points.
    items : Items
        The clusters of the highest level.
    heads : Heads
        Their exemplars.
    above : list of int64 arrays
        For each level above the first one: the cluster of each of its items, by number.
    found : list of Climb
    """

    source: Source | LocalSource
    settings: Settings
    watch: Watch
    members: _AnyMembers
    reach: float
    first: Clustering
    items: Items | GivenItems = field(init=False)
    heads: Heads = field(init=False)
    ids: list[pa.Array] = field(default_factory=list)
    above: list[Positions] = field(default_factory=list)
    found: list[Climb] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False
    checkpoint: Checkpoint | None = None

    def __post_init__(self) -> None:
        about = self.first.summary
        self.watch, self.checkpoint = replace(self.watch, checkpoint=None), self.watch.checkpoint
        assert about.preference is not None
        self.preference = about.preference
        self.heads = self.members.heads_of(_exemplar_ids(self.first))
        with self.watch.stage("levels"):
            under = self.members.as_assigned(self.heads, self.first.assignments)
            self.items, self.assigned = under.items, under.rows()
            under.release()
        self.ids.append(self.heads.ids)
        self._note(about.n_points, self.first, sum(about.seconds.values()))

    def _note(self, n_items: int, found: Clustering, seconds: float) -> None:
        about = found.summary
        preference = about.preference if about.preference is not None else self.preference
        netsim = math.fsum(self.items.similarity) + preference * len(self.items)
        level = Climb(
            n_items, about.n_edges, about.n_clusters, about.n_iter, about.ending, preference, netsim, round(seconds, 3)
        )
        self.found.append(level)
        logger.info("level %d: %s clusters of %s", len(self.found) - 1, f"{level.n_clusters:,}", f"{n_items:,}")

    def would_join(self) -> bool:
        """Return whether many clusters would rather be joined to a near one, to which their points store no edge."""
        if len(self.items) < 2:
            return False
        if isinstance(self.items, GivenItems):
            i, k = self.items.pairs()
            would = np.unique(i[self.items.gains(i, k) > self.preference])
            return len(would) > _WOULD_JOIN * len(self.items)
        some = np.unique(np.arange(min(_TESTED, len(self.items))) * len(self.items) // min(_TESTED, len(self.items)))
        i, k = nearest_items(self.items, some, 1)
        return bool(np.mean(self.items.gains(some[i], k) > self.preference) > _WOULD_JOIN)

    def climb(self) -> None:
        """Cluster the clusters until there are as many as were asked for, or none would be joined."""
        target, most = self.settings.clusters, self.settings.levels
        while len(self.items) > (target or 1) and (most is None or len(self.found) < most):
            started, n_items = time.perf_counter(), len(self.items)
            is_given = isinstance(self.items, GivenItems)
            is_last = (n_items <= ALL_PAIRS and not is_given) or len(self.found) + 1 == most
            with level_source(self.items, self.source) as source:
                if target is None:
                    asked = replace(self.settings, preference=self.preference, preference_quantile=None)
                    found = self._cluster(source, asked)
                elif is_last or is_given or n_items <= self.reach * target:
                    found, is_last = self._at_target(source, is_last=is_last)
                else:
                    found = self._cluster(source, _halfway(self.settings))
                    if 0 < found.summary.n_clusters < target:
                        found, is_last = self._at_target(source, is_last=True)
            if not found.summary.n_clusters:
                self.stopped = True
            if found.summary.n_clusters in (0, n_items):
                break
            exemplar = found.assignments.sort_values("id")["exemplar"].to_numpy(np.int64)
            self.items, joined = self.items.joined(exemplar)
            self.heads = self.heads.take(np.unique(exemplar))
            self.above.append(joined)
            self.ids.append(self.heads.ids)
            self.tried = found.summary.tried
            if target is not None:
                assert found.summary.preference is not None
                self.preference = found.summary.preference
            self._note(n_items, found, time.perf_counter() - started)
            if is_last:
                break

    def _cluster(self, source: Source | LocalSource, settings: Settings) -> Clustering:
        try:
            with _after_snapshots(self.checkpoint, f"on level {len(self.found)}"):
                return cluster(source, _of_level(settings), self.watch, warns=False).to_pandas()
        except WrongInput as error:
            raise InputError(
                f"clusters must have similarities that can be added, but on level {len(self.found)} there are {error}: "
                "levels=1 keeps one level"
            ) from error

    def _at_target(self, source: Source | LocalSource, *, is_last: bool) -> tuple[Clustering, bool]:
        """Return so many clusters as were asked for, or more, and whether there are not more.

        Raises
        ------
        TooFewClusters
            If no level permits so few.
        """
        try:
            found = self._cluster(source, self.settings)
            return found, found.summary.n_clusters <= (self.settings.clusters or 1)
        except TooFewClusters:
            if is_last or not isinstance(self.items, GivenItems):
                raise
            found = self._cluster(source, _halfway(self.settings))
            if found.summary.n_clusters == len(self.items):
                raise
            return found, False

    def result(self, started: float) -> Clustering:
        """Go down again, and return what came out."""
        going_down = time.perf_counter()
        with self.watch.stage("members"):
            under = self._down()
            try:
                return self._tables(under, started, going_down)
            finally:
                under.release()

    def _value(self, under: _AnyUnder) -> float:
        """Return the net similarity of all points."""
        return math.fsum(under.items.similarity) + self.preference * len(under.heads)

    def _down(self) -> _AnyUnder:
        """Give all points to the exemplars of the highest level, and move these where that is better."""
        if not isinstance(self.members, (LocalMembers, SparkMembers)):
            fallback = np.arange(len(self.ids[0]))
            for joined in self.above:
                fallback = joined[fallback]
            return self.members.under(self.heads, self.assigned, fallback)
        best = self._around_centers(self.members, self.members.under(self.heads))
        best = self._with_best_members(self.members, best)
        polished = None
        if self.settings.polish:
            keep_count = self.settings.clusters is not None
            polished = polished_on_sample(self.members, best, self.preference, keep_count=keep_count)
        if polished is None:
            return best
        return self._better(best, self._with_best_members(self.members, self.members.under(polished)))

    def _around_centers(self, members: Members, under: Under) -> Under:
        """Give points to the nearest centers of clusters, again and again, as k-means does; then take their members.

        Exemplars move in steps, from point to point, and come to rest early; centers do not.
        """
        if members.n_points < _CENTERS_FROM * len(under.heads) or not under.items.has_centers:
            return under
        now = under
        for _ in range(_MOST_CENTERS):
            after = members.under(Heads(None, now.items.centers))
            gained = after.items.compactness - now.items.compactness
            is_over = gained <= _LEAST_GAIN * abs(now.items.compactness)
            kept, other = (after, now) if gained > 0.0 else (now, after)
            if other is not under:
                other.release()
            now = kept
            if is_over:
                break
        heads = now.best()
        if now is not under:
            now.release()
        return self._better(under, members.under(heads)) if len(heads) == len(under.heads) else under

    def _with_best_members(self, members: Members, under: Under) -> Under:
        for _ in range(_ROUNDS):
            heads = under.best()
            if heads.ids.equals(under.heads.ids):
                break
            under = self._better(under, moved := members.under(heads))
            if under is not moved:
                break
        return under

    def _better(self, before: Under, after: Under) -> Under:
        """Return the better of two, and release the other."""
        kept, other = (after, before) if self._value(after) > self._value(before) else (before, after)
        other.release()
        return kept

    def _tables(self, under: _AnyUnder, started: float, going_down: float) -> Clustering:
        about, items, ids = self.first.summary, under.items, under.heads.ids
        endings = {level.ending for level in self.found} | ({"stopped"} if self.stopped else set())
        dpsim, expref = math.fsum(items.similarity), self.preference * len(ids)
        below = sum(value for name, value in about.seconds.items() if name not in self.source.seconds)
        seconds = {"levels": going_down - started - below, "members": _since(going_down)}
        summary = replace(
            about,
            settings=about.settings | asdict(self.settings),
            n_clusters=len(ids),
            converged=endings == {"converged"},
            ending=next(ending for ending in _WORST_FIRST if ending in endings),
            dpsim=dpsim,
            expref=expref,
            netsim=dpsim + expref,
            preference=self.preference,
            upper_bound=None,
            gap=None,
            tried=self.tried,
            levels=[asdict(level) for level in self.found],
            seconds=about.seconds | {name: round(value, 3) for name, value in seconds.items()},
        )
        spark, hierarchy = self.source.spark, Hierarchy(self.first.assignments, self.ids, self.above)
        return replace(
            self.first,
            assignments=hierarchy.assignments(under.rows(), ids),
            exemplars=exemplar_table(items, ids, self.preference, spark),
            summary=summary,
            quality=None,  # which was of the first level
            levels=hierarchy.table(spark),
            tree=tree_table(items, spark),
        )


def _since(started: float) -> float:
    return time.perf_counter() - started


def _halfway(settings: Settings) -> Settings:
    """Return the settings of a level that is not the last: clusters as the median preference has them."""
    return replace(settings, clusters=None, gap=None, exact=False)


def _of_level(settings: Settings) -> Settings:
    """Return the settings of a level above the first: its similarities are made as they are to be stored.

    No bound is computed, since it would hold for this level alone.
    """
    return replace(
        settings,
        levels=1,
        missing_similarity=None,
        engine="auto",
        partitions=None,
        top=None,
        min_similarity=None,
        on_duplicate="max",
        symmetrize="none",
        gap=None,
        exact=False,
    )


def _exemplar_ids(found: Clustering) -> pa.Array:
    """Return the exemplars of a clustering, in the order of their ids."""
    table = found.exemplars
    if isinstance(table, DataFrame):
        return table.orderBy("label").select("exemplar").toArrow()["exemplar"].combine_chunks()
    return pa.array(table.sort_values("label")["exemplar"])
