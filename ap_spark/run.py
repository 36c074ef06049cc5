"""From similarities to a result: graph, messages, clusters; once, or until there are so many clusters."""

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
from pyspark.sql import DataFrame, SparkSession

from ap_spark.clusters import make_clusters
from ap_spark.convergence import TRACE, Iteration, Stability, tolerated
from ap_spark.damping import MIN_WINDOW
from ap_spark.engines import Engine, make_engine
from ap_spark.errors import SettingError
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.build import build
from ap_spark.graph.describe import least_clusters
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.mistakes import find_mistakes
from ap_spark.graph.numbering import Numbering
from ap_spark.preference_search import MIN_REST_ITERATIONS, TOLERANCE, Trial, Trials, is_at_rest
from ap_spark.propagation import EndedEarly, Watch, propagate, without_iterating
from ap_spark.result import Clustering, Summary
from ap_spark.schema import count_of
from ap_spark.settings import Settings
from ap_spark.similarity.pairs import Pairs
from ap_spark.version import __version__

__all__ = ["Source", "check_target", "cluster", "format_not_converged", "opened_graph", "refuse_more_clusters"]

logger = logging.getLogger(__name__)

_Build = Callable[[Settings], EdgeGraph | BlockGraph]


@dataclass(frozen=True)
class Source:
    """What a run works on.

    Attributes
    ----------
    similarities : DataFrame or Pairs
        (i, k, s), by id; by number where there is a ``numbering``.
    points : DataFrame, optional
        (id) of all points.
    preferences : DataFrame, optional
        (id, preference) of all points.
    numbering : Numbering, optional
    options : dict
        How similarities came about, for the summary.
    neighbors : dict, optional
        How neighbours were found.
    seconds : dict
        By stage, until now.
    """

    similarities: DataFrame | Pairs
    points: DataFrame | None
    preferences: DataFrame | None
    numbering: Numbering | None = None
    options: dict[str, Any] = field(default_factory=dict)
    neighbors: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def spark(self) -> SparkSession:
        """The session that the tables are of."""
        return self.similarities.sparkSession


def cluster(source: Source, settings: Settings, watch: Watch) -> Clustering:
    """Cluster: once, or once for each preference that is tried for a number of clusters."""
    if watch.checkpoint:
        watch.checkpoint.open()
    settings = settings.with_window()
    make = _builder(source)
    look = partial(_warn_of_mistakes, source=source, settings=settings)
    if settings.clusters is None:
        found = _cluster_once(make, settings, watch, look)
    else:
        found = _cluster_to(make, settings, watch, look)
    about = found.summary
    options = {name: value if not callable(value) else repr(value) for name, value in source.options.items()}
    summary = replace(
        about, settings=about.settings | options, neighbors=source.neighbors, seconds=source.seconds | about.seconds
    )
    return replace(found, summary=summary)


@contextmanager
def opened_graph(source: Source, settings: Settings) -> Iterator[EdgeGraph | BlockGraph]:
    """_Build the graph, check that it permits the number of clusters, and release it at the end."""
    graph = _builder(source)(settings)
    try:
        if settings.clusters is not None:
            check_target(settings.clusters, graph)
        _warn_of_mistakes(graph, source, settings)
        yield graph
    finally:
        graph.release()


def _builder(source: Source) -> _Build:
    return partial(
        build,
        source.similarities,
        points=source.points,
        preferences=source.preferences,
        numbering=source.numbering,
    )


def _warn_of_mistakes(graph: EdgeGraph | BlockGraph, source: Source, settings: Settings) -> None:
    given_as_pairs = source.numbering is None and isinstance(source.similarities, DataFrame)
    for mistake in find_mistakes(graph, given_as_pairs=given_as_pairs and settings.symmetrize is None):
        logger.warning(mistake)


def _cluster_once(
    build: _Build,
    settings: Settings,
    watch: Watch,
    look: Callable[[EdgeGraph | BlockGraph], None] = lambda graph: None,
) -> Clustering:
    """Cluster once; call ``look`` with the graph before."""
    seconds: dict[str, float] = {}
    with _built(build, settings, seconds, watch) as graph:
        look(graph)
        return _run(graph, settings, seconds, watch)


@contextmanager
def _built(
    build: _Build, settings: Settings, seconds: dict[str, float], watch: Watch
) -> Iterator[EdgeGraph | BlockGraph]:
    """_Build the graph, time it, and release it at the end."""
    with watch.stage("graph"), _stage("graph", seconds):
        graph = build(settings)
    logger.info("%s points, %s edges", f"{graph.n_points:,}", f"{graph.n_edges:,}")
    try:
        yield graph
    finally:
        graph.release()


def _cluster_to(
    build: _Build, settings: Settings, watch: Watch, look: Callable[[EdgeGraph | BlockGraph], None]
) -> Clustering:
    """Cluster with one preference after the other until there are so many clusters."""
    assert settings.clusters is not None
    target, started, seconds = settings.clusters, time.perf_counter(), dict[str, float]()
    with _built(build, settings, seconds, watch) as graph:
        check_target(target, graph)
        look(graph)
        median, largest = graph.quantiles(0.5, 1.0)
        above = largest + abs(largest) + 1.0  # there every point is an exemplar
        trials = Trials(target, start=above if target == graph.n_points else median, largest=largest)

        def cluster_at(preference: float, watch: Watch) -> Clustering:
            if watch.checkpoint:
                watch.checkpoint.tried = tuple(trials.tried)
            plain = replace(settings, clusters=None, preference=preference)
            if isinstance(graph, BlockGraph) and (other := graph.with_preference(preference)).is_resolved():
                return _run(other, plain, dict(seconds), watch)
            return _cluster_once(build, plain, watch)  # raises InputError if it swallows the similarities

        window = max(settings.windows[0], MIN_REST_ITERATIONS, settings.max_iter // 10)
        best = _try_out(trials, cluster_at, graph.n_forced, window, watch)
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


def _try_out(
    trials: Trials, cluster_at: Callable[[float, Watch], Clustering], forced: int, window: int, watch: Watch
) -> Clustering:
    """Cluster with each preference that the trials ask for; return the best result.

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
        at_rest = about.ending != "stopped" or (
            about.promoted <= TOLERANCE * about.n_clusters
            and is_at_rest([Iteration(*row) for row in found.trace.collect()], forced, window)
        )
        settled = about.ending == "settled"
        trials.answer(Trial(preference, about.n_clusters, about.converged, at_rest, ended_early=False, settled=settled))
        logger.info("preference %g: %s clusters", preference, f"{about.n_clusters:,}")
        if trials.best == trials.tried[-1]:
            best = found
    if best is None or best.summary.preference != trials.best.preference:
        best = cluster_at(trials.best.preference, watch)
    return best


def refuse_more_clusters(target: int, n_points: int) -> None:
    """Raise SettingError if more clusters are asked for than there are points."""
    if target > n_points:
        raise SettingError(f"clusters must be at most the number of points, {n_points:,}, got {target:,}")


def check_target(target: int, graph: EdgeGraph | BlockGraph) -> None:
    """Raise SettingError if no clustering of the graph has so few or so many clusters."""
    refuse_more_clusters(target, graph.n_points)
    if graph.uniform and 1 < target < graph.n_points:
        raise SettingError(
            f"clusters must be 1 or {graph.n_points:,} where all similarities are equal, got {target:,}: "
            "nothing tells one point from another"
        )
    least = least_clusters(graph)
    if target < least:
        raise SettingError(
            f"clusters must be at least {least:,} in this graph, got {target:,}: a cluster lies in one connected "
            "component and has at most as many points as are similar to its exemplar, and it (`ap-spark graph` shows "
            "both; more neighbours join components)"
        )


def _run(graph: EdgeGraph | BlockGraph, settings: Settings, seconds: dict[str, float], watch: Watch) -> Clustering:
    """Iterate on a graph and make the clusters; return the result."""
    engine: Engine | None = None
    snapshot = watch.checkpoint.begin(graph) if watch.checkpoint else None
    found = without_iterating(graph)
    try:
        with _stage("propagation", seconds):
            if found is None:
                engine = make_engine(graph, settings, snapshot and snapshot.state)
                found = propagate(
                    graph,
                    engine,
                    max_iter=settings.max_iter,
                    stability=Stability(settings.windows, tolerated(graph.n_points) if settings.damping is None else 0),
                    watch=watch,
                    past=snapshot.trace if snapshot else (),
                )
        with watch.stage("clusters"), _stage("clusters", seconds):
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
        converged=found.ending == "converged",
        ending=found.ending,
        n_iter=len(found.trace),
        unsettled=found.trace[-1].unsettled if found.trace else 0,
        dpsim=clusters.dpsim,
        expref=clusters.expref,
        netsim=clusters.dpsim + clusters.expref,
        preference=graph.preference,
        promoted=clusters.promoted,
        seconds=seconds,
    )
    if found.ending == "stopped":
        logger.warning(
            "not converged %s: try more iterations (max_iter)%s, or another preference",
            format_not_converged(summary),
            "" if settings.damping is None else ", more damping",
        )
    columns = zip(*found.trace, strict=True) if found.trace else ([],) * len(TRACE)
    rows = pa.Table.from_arrays(
        [pa.array(column, kind) for column, kind in zip(columns, TRACE.types, strict=True)], schema=TRACE
    )
    trace = graph.spark.createDataFrame(rows)
    discard = watch.checkpoint.discard if watch.checkpoint else Clustering.discard_snapshots
    return Clustering(clusters.assignments, clusters.exemplars, trace, summary, discard)


def format_not_converged(summary: Summary) -> str:
    """Say after how many iterations a run has not converged, and which points lack an exemplar."""
    words = f"after {count_of(summary.n_iter, 'iteration')}"
    if summary.ending == "settled":
        return f"{words}, settled but for {summary.unsettled:,} of {count_of(summary.n_points, 'point')}"
    if not summary.n_clusters:
        words += ", and there is no exemplar yet"
    elif summary.promoted:
        words += f", and {summary.promoted:,} of {count_of(summary.n_points, 'point')} store no edge to an exemplar"
    window = summary.settings["convergence_iter"] or MIN_WINDOW
    if window >= summary.settings["max_iter"]:
        words += f"; exemplars have to stand still for {window:,} (convergence_iter)"
    return words


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage."""
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 3)
    logger.info("%s: %.1f s", name, seconds[name])
