"""The main function: similarities in, exemplars and assignments out."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
from pyspark.sql import DataFrame

from ap_spark.checkpoint import Checkpoint
from ap_spark.clusters import make_clusters
from ap_spark.convergence import TRACE, Iteration
from ap_spark.engines import Engine, make_engine
from ap_spark.errors import SettingError, from_tasks
from ap_spark.graph.block_graph import BlockGraph, Numbering
from ap_spark.graph.build import build
from ap_spark.graph.describe import least_clusters
from ap_spark.graph.edge_graph import Graph
from ap_spark.preference_search import NEARLY, REST, Trial, Trials, is_at_rest
from ap_spark.propagation import EndedEarly, Watch, propagate, without_iterating
from ap_spark.schema import count_of, require_columns
from ap_spark.settings import EngineName, OnDuplicate, Settings, Snapshots, Symmetrize
from ap_spark.similarity.pairs import Pairs
from ap_spark.version import __version__

__all__ = [
    "Clustering",
    "Summary",
    "affinity_propagation",
    "check_target",
    "cluster_similarities",
    "what_is_missing",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """A run in numbers; `summary.json` holds the same fields.

    Attributes
    ----------
    settings, versions : dict
        The parameters of the run; the versions of what it ran on.
    fingerprint : str
        The same for the same similarities and preferences, in whatever order they come.
    engine : str
        The engine that ran; "none" for degenerate input, which is answered without iterating.
    n_points, n_edges, n_clusters : int
        Points, stored pairs of different points, clusters.
    converged : bool
    n_iter : int
        Iterations done.
    dpsim, expref, netsim : float
        Sum of the similarities of points to their exemplars, of the exemplars' preferences, and of both.
    preference : float or None
        The preference of all points; None if they differ.
    promoted : int
        Points made exemplars because they store no edge to one; 0 where the run converged.
    seconds : dict
        By stage.
    tried : list of dict
        With a number of clusters asked for, each preference that was tried, the number of clusters it gave (see
        `target.Trial`), and whether that run converged, was at rest, or was ended early. The best is run once more
        where its result is not at hand.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    engine: str
    n_points: int
    n_edges: int
    n_clusters: int
    converged: bool
    n_iter: int
    dpsim: float
    expref: float
    netsim: float
    preference: float | None
    promoted: int
    seconds: dict[str, float]
    tried: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Clustering:
    """The result of a run.

    Attributes
    ----------
    assignments : DataFrame
        (id, exemplar, label, similarity), a row for each point. Labels 0..K-1 follow the exemplars' ids in order; the
        similarity of an exemplar to itself is null. No rows when there is no exemplar.
    exemplars : DataFrame
        (label, exemplar, size, preference, mean_similarity), a row for each cluster.
    trace : DataFrame
        (iteration, exemplars, changed, seconds), a row for each iteration.
    summary : Summary
    discard_snapshots : callable
        With a checkpoint: deletes the run's snapshots, once the result is in a safe place.
    """

    assignments: DataFrame
    exemplars: DataFrame
    trace: DataFrame
    summary: Summary
    discard_snapshots: Callable[[], None] = lambda: None

    @property
    def converged(self) -> bool:
        """Whether the exemplars stood still for ``convergence_iter`` iterations, and every point had one."""
        return self.summary.converged

    @property
    def n_iter(self) -> int:
        """The number of iterations done."""
        return self.summary.n_iter


def affinity_propagation(
    similarities: DataFrame,
    *,
    points: DataFrame | None = None,
    preference: float | DataFrame | None = Settings.preference,
    preference_quantile: float | None = Settings.preference_quantile,
    clusters: int | None = Settings.clusters,
    damping: float = Settings.damping,
    max_iter: int = Settings.max_iter,
    convergence_iter: int | None = Settings.convergence_iter,
    jitter: bool = Settings.jitter,
    seed: int = Settings.seed,
    on_duplicate: OnDuplicate = Settings.on_duplicate,
    min_similarity: float | None = Settings.min_similarity,
    top: int | None = Settings.top,
    symmetrize: Symmetrize | None = Settings.symmetrize,
    engine: EngineName = Settings.engine,
    partitions: int | None = Settings.partitions,
    checkpoint: str | None = Snapshots.checkpoint,
    checkpoint_every: str = Snapshots.checkpoint_every,
    resume: bool = Snapshots.resume,
    report: Callable[[Iteration], None] = Watch.report,
    stop: Callable[[], bool] = Watch.stop,
) -> Clustering:
    """Cluster the points of a similarity graph by affinity propagation.

    Parameters
    ----------
    similarities : DataFrame
        (i, k, s): how well k would represent i, any finite number; need not be symmetric. i and k are ids, integers
        or strings. Pairs that are left out, or are -infinity, can never be exemplar and member. Rows (k, k) are
        preferences.
    points : DataFrame, optional
        (id) of all points, when some may occur in no similarity; every end of a similarity must then be among them.
    preference : float or DataFrame, optional
        How willing points are to be exemplars: one number for all, or a table (id, preference). By default the median
        similarity, unless the similarities have rows (k, k).
    preference_quantile : float, optional
        Take this quantile of the similarities as the preference, in [0, 1].
    clusters : int, optional
        Search for the preference that gives so many clusters, at least 1, by clustering up to 20 times. The nearest
        number that was found is returned, with a warning if it is another one.
    damping : float
        In [0.5, 1).
    max_iter : int
        Iterations at most, at least 1.
    convergence_iter : int, optional
        Iterations for which the exemplars have to stand still, at least 1. By default the larger of 15 and
        5 / (1 - damping), 50 at damping 0.9.
    jitter : bool
        Break exact ties by a relative 1e-10, a function of ``seed`` and the ids.
    seed : int
    on_duplicate : {"error", "max", "min", "mean"}
        What to do with a pair given more than once.
    min_similarity : float, optional
        Leave out smaller similarities.
    top : int, optional
        Keep only so many of the largest similarities of each point i, on ties those to the smallest ids.
    symmetrize : {"none", "union", "mutual"}, optional
        Where only one of (i, k) and (k, i) is stored, after the two cuts above: "union" adds the other one, "mutual"
        takes the one away. To be used with the lists of `nearest_neighbors`.
    engine : {"auto", "resident", "dataframe"}
        How to compute it; the result is the same to the last bit.
    partitions : int, optional
        Blocks of rows; by default resident takes one up to 10 million edges, else one a core.
    checkpoint : str, optional
        Directory for snapshots, anywhere Spark can write. If it holds some of a run with the same similarities,
        preferences and settings, that is gone on with.
    checkpoint_every : str
        Time between two snapshots, as in "10min", longer where one takes long; or how many iterations, as in "50".
    resume : bool
        False: start from the beginning, and delete the snapshots that are there.
    report : callable, optional
        Called with the `Iteration` record of each iteration.
    stop : callable, optional
        Asked after iterations whether to stop: then a last snapshot is taken, and Interrupted raised.

    Returns
    -------
    Clustering

    Raises
    ------
    InputError
        If the similarities, points or preferences break a rule of the input.
    SettingError
        If a parameter is outside its range, or the graph does not permit so few or so many clusters.
    StorageError
        If a local directory of Spark's is full or cannot be written.
    CheckpointError
        If the snapshots are of another run, or cannot be written.
    Interrupted
        When asked to stop.

    Notes
    -----
    Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007), equations 1-3. Two runs on
    the same input and settings give the same result to the last bit, on any number of partitions and executors.

    Examples
    --------
    >>> x = [1, 2, 3, 7, 8, 9]
    >>> pairs = [(i, k, -float((a - b) ** 2)) for i, a in enumerate(x) for k, b in enumerate(x) if i != k]
    >>> similarities = spark.createDataFrame(pairs, "i int, k int, s double")
    >>> clustering = affinity_propagation(similarities, preference=-25.0)
    >>> [row.exemplar for row in clustering.assignments.orderBy("id").collect()]
    [1, 1, 1, 4, 4, 4]
    >>> clustering.converged, clustering.summary.netsim
    (True, -54.0)
    """
    by_point = preference if isinstance(preference, DataFrame) else None
    settings = Settings(
        preference=None if isinstance(preference, DataFrame) else preference,
        preference_quantile=preference_quantile,
        clusters=clusters,
        damping=damping,
        max_iter=max_iter,
        convergence_iter=convergence_iter,
        jitter=jitter,
        seed=seed,
        on_duplicate=on_duplicate,
        min_similarity=min_similarity,
        top=top,
        symmetrize=symmetrize,
        engine=engine,
        partitions=partitions,
    )
    snapshots = Snapshots(checkpoint=checkpoint, checkpoint_every=checkpoint_every, resume=resume)
    watch = Watch(report, stop)
    require_columns(similarities, ("i", "k", "s"), "similarities")
    if snapshots.checkpoint is not None:
        watch = replace(watch, checkpoint=Checkpoint(similarities.sparkSession, settings, snapshots))
    with from_tasks():
        return cluster_similarities(similarities, settings, points=points, preferences=by_point, watch=watch)


def cluster_similarities(
    similarities: DataFrame | Pairs,
    settings: Settings,
    *,
    points: DataFrame | None,
    preferences: DataFrame | None,
    watch: Watch,
    numbering: Numbering | None = None,
) -> Clustering:
    """`affinity_propagation`, of similarities by id, or by number if there is a ``numbering``."""
    settings = replace(settings, convergence_iter=settings.window)
    make = partial(build, similarities, points=points, preferences=preferences, numbering=numbering)
    return cluster(make, settings, watch) if settings.clusters is None else cluster_to(make, settings, watch)


Build = Callable[[Settings], Graph | BlockGraph]


def cluster(build: Build, settings: Settings, watch: Watch) -> Clustering:
    """Cluster once."""
    seconds: dict[str, float] = {}
    with built(build, settings, seconds, watch) as graph:
        return run(graph, settings, seconds, watch)


@contextmanager
def built(build: Build, settings: Settings, seconds: dict[str, float], watch: Watch) -> Iterator[Graph | BlockGraph]:
    """A graph, for a while."""
    with watch.stage("graph"), stage("graph", seconds):
        graph = build(settings)
    logger.info("%s points, %s edges", f"{graph.n_points:,}", f"{graph.n_edges:,}")
    try:
        yield graph
    finally:
        graph.release()


def cluster_to(build: Build, settings: Settings, watch: Watch) -> Clustering:
    """Cluster with one preference after the other until there are so many clusters."""
    assert settings.clusters is not None
    target, started, seconds = settings.clusters, time.perf_counter(), dict[str, float]()
    with built(build, settings, seconds, watch) as graph:
        check_target(target, graph)
        median, largest = graph.quantiles(0.5, 1.0)
        above = largest + abs(largest) + 1.0  # there every point is an exemplar
        trials = Trials(target, start=above if target == graph.n_points else median, largest=largest)

        def cluster_at(preference: float, watch: Watch) -> Clustering:
            if watch.checkpoint:
                watch.checkpoint.tried = tuple(trials.tried)
            plain = replace(settings, clusters=None, preference=preference)
            if isinstance(graph, BlockGraph) and (other := graph.with_preference(preference)).is_resolved():
                return run(other, plain, dict(seconds), watch)
            return cluster(build, plain, watch)  # which tells of a preference that swallows the similarities

        window = max(settings.window, REST, settings.max_iter // 10)
        best = try_out(trials, cluster_at, graph.n_forced, window, watch)
    if best.summary.n_clusters != target:
        logger.warning(
            "%s clusters were asked for, the nearest number in %d trials is %s",
            f"{target:,}",
            len(trials.tried),
            f"{best.summary.n_clusters:,}",
        )
    summary = replace(
        best.summary,
        settings=asdict(settings),
        tried=[asdict(trial) for trial in trials.tried],
        seconds=best.summary.seconds | {"search": round(time.perf_counter() - started, 3)},
    )
    return replace(best, summary=summary)


def try_out(
    trials: Trials, cluster_at: Callable[[float, Watch], Clustering], forced: int, window: int, watch: Watch
) -> Clustering:
    """Cluster with each preference that the trials ask for; the best one.

    A run that is at rest with clearly too many exemplars is ended early.
    """
    best: Clustering | None = None
    past = list(watch.checkpoint.tried) if watch.checkpoint else []
    watch_trial = replace(watch, ends_early=partial(trials.has_too_many, forced=forced, window=window))
    for preference in trials:
        if past:  # a run before this one has tried it
            trial = past.pop(0)
            if watch.checkpoint and trial.preference != preference:
                watch.checkpoint.refuse(f"preference {trial.preference} tried", preference)
            trials.answer(trial)
            continue
        try:
            found = cluster_at(preference, watch_trial)
        except EndedEarly as ended:
            trials.answer(Trial(preference, ended.exemplars, converged=False, at_rest=True, ended_early=True))
            logger.info("preference %g: %s exemplars and more", preference, f"{ended.exemplars:,}")
            continue
        about = found.summary
        at_rest = about.converged or (
            about.promoted <= NEARLY * about.n_clusters
            and is_at_rest([Iteration(*row) for row in found.trace.collect()], forced, window)
        )
        trials.answer(Trial(preference, about.n_clusters, about.converged, at_rest, ended_early=False))
        logger.info("preference %g: %s clusters", preference, f"{about.n_clusters:,}")
        if trials.best == trials.tried[-1]:
            best = found
    if best is None or best.summary.preference != trials.best.preference:
        best = cluster_at(trials.best.preference, watch)
    return best


def check_target(target: int, graph: Graph | BlockGraph) -> None:
    """Raise SettingError if no clustering of the graph has so few or so many clusters."""
    if target > graph.n_points:
        raise SettingError(f"clusters must be at most the number of points, {graph.n_points:,}, got {target:,}")
    if graph.uniform and 1 < target < graph.n_points:
        raise SettingError(
            f"clusters must be 1 or {graph.n_points:,} where all similarities are equal, got {target:,}: "
            "nothing tells one point from another"
        )
    least = least_clusters(graph)
    if target < least:
        raise SettingError(
            f"clusters must be at least {least:,} in this graph, got {target:,}: a cluster lies in one connected "
            "component and has at most as many points as are similar to its exemplar, and one (`ap-spark graph` shows "
            "both; more neighbours join components)"
        )


def run(graph: Graph | BlockGraph, settings: Settings, seconds: dict[str, float], watch: Watch) -> Clustering:
    """From the graph to the result."""
    engine: Engine | None = None
    snapshot = watch.checkpoint.begin(graph) if watch.checkpoint else None
    found = without_iterating(graph)
    try:
        with stage("propagation", seconds):
            if found is None:
                engine = make_engine(graph, settings, snapshot and snapshot.state)
                found = propagate(
                    graph,
                    engine,
                    max_iter=settings.max_iter,
                    convergence_iter=settings.window,
                    watch=watch,
                    past=snapshot.trace if snapshot else (),
                )
        with watch.stage("clusters"), stage("clusters", seconds):
            clusters = make_clusters(graph, found.exemplars)
    finally:
        if engine:
            engine.release()
    summary = Summary(
        settings=asdict(settings),
        versions={
            "ap_spark": __version__,
            "spark": graph.spark.version,
            "pyspark": pyspark.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        fingerprint=graph.fingerprint,
        engine=engine.name if engine else "none",
        n_points=graph.n_points,
        n_edges=graph.n_edges,
        n_clusters=clusters.n_clusters,
        converged=found.converged,
        n_iter=len(found.trace),
        dpsim=clusters.dpsim,
        expref=clusters.expref,
        netsim=clusters.dpsim + clusters.expref,
        preference=graph.preference,
        promoted=clusters.promoted,
        seconds=seconds,
    )
    if not found.converged:
        logger.warning("not converged %s: try more of them (max_iter), or more damping", what_is_missing(summary))
    columns = zip(*found.trace, strict=True) if found.trace else ([],) * len(TRACE)
    rows = pa.Table.from_arrays(
        [pa.array(column, kind) for column, kind in zip(columns, TRACE.types, strict=True)], schema=TRACE
    )
    trace = graph.spark.createDataFrame(rows)
    discard = watch.checkpoint.discard if watch.checkpoint else Clustering.discard_snapshots
    return Clustering(clusters.assignments, clusters.exemplars, trace, summary, discard)


def what_is_missing(summary: Summary) -> str:
    """How far a run has come that has not converged."""
    words = f"after {count_of(summary.n_iter, 'iteration')}"
    if not summary.n_clusters:
        words += ", and there is no exemplar yet"
    elif summary.promoted:
        words += f", and {summary.promoted:,} of {count_of(summary.n_points, 'point')} store no edge to an exemplar"
    if (window := summary.settings["convergence_iter"]) >= summary.settings["max_iter"]:
        words += f"; exemplars have to stand still for {window:,} (convergence_iter)"
    return words


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage."""
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 3)
    logger.info("%s: %.1f s", name, seconds[name])
