"""One run: build the graph, iterate, make the clusters; for a number of clusters, once for each preference tried."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark.blocks.entries import Rules
from ap_spark.blocks.kernel import Floats, Integers
from ap_spark.clusters import NEGLIGIBLE, Clusters, make_clusters
from ap_spark.convergence import TRACE, Iteration, Stability, tolerated
from ap_spark.damping import MIN_WINDOW
from ap_spark.engines import Engine, make_engine
from ap_spark.errors import SettingError
from ap_spark.graph.array_graph import ArrayGraph, with_chosen_preference
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.build import build as build_graph
from ap_spark.graph.build import in_blocks
from ap_spark.graph.describe import least_clusters
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.local_graph import LocalGraph, keys_of, local_graph
from ap_spark.graph.mistakes import find_mistakes
from ap_spark.graph.numbering import Numbering, WrongInput
from ap_spark.preference_search import MIN_REST_ITERATIONS, TOLERANCE, Trial, Trials, is_at_rest
from ap_spark.propagation import EndedEarly, Propagation, Watch, propagate, without_iterating
from ap_spark.quality.improve import Goal
from ap_spark.quality.price import price_of
from ap_spark.quality.problem import problem_of
from ap_spark.result import Clustering, Summary
from ap_spark.settings import Settings
from ap_spark.similarity.members import LocalMembers, SparkMembers
from ap_spark.similarity.pairs import Pairs
from ap_spark.similarity.scaling import Scaling
from ap_spark.version import __version__
from ap_spark.wording import format_count

__all__ = [
    "LocalSource",
    "Source",
    "TooFewClusters",
    "cluster",
    "format_not_converged",
    "opened_graph",
    "refuse_more_clusters",
    "warn_if_not_converged",
    "warn_of_another_number",
]

logger = logging.getLogger(__name__)

_ENOUGH = 0.05  # share of a number of clusters: polishing makes up for so much
_LEAST_DISTANCE = 1 / 64  # of the first preference from the largest similarity, as a share of the median's


class TooFewClusters(SettingError):
    """No clustering of the graph has so few clusters."""


_Outcome = tuple[Clustering, Clusters, list[Iteration]]
_Build = Callable[[Settings], EdgeGraph | ArrayGraph]


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
    features : DataFrame, optional
        (id, features) of all points, as they were given.
    members : SparkMembers, optional
        The same as they are compared, where the clusters may be clustered again.
    scaling : Scaling, optional
        How the features were scaled.
    seconds : dict
        By stage, until now.
    """

    similarities: DataFrame | Pairs
    points: DataFrame | None
    preferences: DataFrame | None
    numbering: Numbering | None = None
    options: dict[str, Any] = field(default_factory=dict)
    neighbors: dict[str, Any] | None = None
    features: DataFrame | None = None
    members: SparkMembers | None = None
    scaling: Scaling | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def spark(self) -> SparkSession:
        """The session that the tables are of."""
        return self.similarities.sparkSession

    @property
    def n_points(self) -> int:
        """The number of points."""
        if self.numbering is not None:
            return self.numbering.n_points
        if self.points is not None:
            return self.points.count()
        assert isinstance(self.similarities, DataFrame)
        return self.similarities.select(F.explode(F.array("i", "k"))).distinct().count()

    @property
    def is_given_as_pairs(self) -> bool:
        """Whether the user gave the similarities."""
        return self.numbering is None and isinstance(self.similarities, DataFrame)

    def build(self, settings: Settings) -> EdgeGraph | BlockGraph:
        """Build the graph by some settings."""
        return build_graph(self.similarities, settings, self.points, self.preferences, self.numbering)


@dataclass(frozen=True)
class LocalSource:
    """What a run works on that needs no Spark.

    Attributes
    ----------
    i, k, s : int64 and float64, shape (edges,)
        Similarities by number; rows (k, k) are preferences.
    ids : pyarrow.Array
        Of all points, in order.
    preferences : float64, shape (n_points,), optional
    features : float64, shape (n_points, n_features), optional
        Of points, as they were given.
    members : LocalMembers, optional
        The same as they are compared.
    is_given_as_pairs : bool
        Whether the user gave the similarities.
    options, neighbors, seconds
        See `Source`.
    """

    i: Integers
    k: Integers
    s: Floats
    ids: pa.Array
    preferences: Floats | None = None
    features: Floats | None = None
    members: LocalMembers | None = None
    is_given_as_pairs: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    neighbors: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def spark(self) -> None:
        """There is no session."""

    @property
    def n_points(self) -> int:
        """The number of points."""
        return len(self.ids)

    def build(self, settings: Settings) -> LocalGraph:
        """Build the graph by some settings.

        Raises
        ------
        WrongInput
            If pairs break a rule, points lack their preference, or similarities differ too much in size.
        """
        rules = Rules(settings.on_duplicate, settings.min_similarity, settings.symmetrize or "none")
        graph, wrong = local_graph(
            self.i,
            self.k,
            self.s,
            self.ids,
            keys_of(self.ids),
            rules=rules,
            seed=settings.seed,
            jitter=settings.jitter,
        )
        if wrong:
            raise WrongInput(f"{wrong} pairs")
        return with_chosen_preference(graph, settings, self.preferences)


def cluster(source: Source | LocalSource, settings: Settings, watch: Watch, *, warns: bool = True) -> Clustering:
    """Cluster: once, or once for each preference that is tried for a number of clusters.

    The tables of the result are of Spark, or of Arrow for a `LocalSource`. ``warns`` of what looks like a mistake in
    the graph, and of another number of clusters than was asked for.
    """
    if watch.checkpoint:
        watch.checkpoint.open()
    settings = settings.with_window()
    if source.spark:
        classic.free_unused(source.spark)
    build = source.build
    inspect = partial(_warn_of_mistakes, source=source, settings=settings) if warns else _pass_by
    if settings.clusters is None:
        found = _cluster_once(build, settings, watch, inspect)
    else:
        found = _search_for_clusters(build, settings, watch, inspect)
        if warns and found.summary.n_clusters != settings.clusters:
            warn_of_another_number(settings.clusters, found.summary)
    about = found.summary
    options = {name: value if not callable(value) else repr(value) for name, value in source.options.items()}
    summary = replace(
        about, settings=about.settings | options, neighbors=source.neighbors, seconds=source.seconds | about.seconds
    )
    return replace(found, summary=summary)


@contextmanager
def opened_graph(source: Source, settings: Settings) -> Iterator[EdgeGraph | BlockGraph]:
    """Build the graph, check that it permits the number of clusters, and release it at the end."""
    graph = source.build(settings)
    try:
        if settings.clusters is not None and source.members is None:  # points with members can go to further levels
            _check_target(settings.clusters, graph)
        _warn_of_mistakes(graph, source, settings)
        yield graph
    finally:
        graph.release()


def _pass_by(graph: EdgeGraph | ArrayGraph) -> None:
    pass


def _warn_of_mistakes(graph: EdgeGraph | ArrayGraph, source: Source | LocalSource, settings: Settings) -> None:
    """Log a warning for each thing that looks like a mistake in the graph."""
    given_as_pairs = source.is_given_as_pairs and settings.symmetrize is None
    for mistake in find_mistakes(graph, given_as_pairs=given_as_pairs):
        logger.warning(mistake)


def _cluster_once(
    build: _Build,
    settings: Settings,
    watch: Watch,
    inspect: Callable[[EdgeGraph | ArrayGraph], None],
) -> Clustering:
    """Cluster once; call ``inspect`` with the graph before."""
    seconds: dict[str, float] = {}
    with _built(build, settings, seconds, watch) as graph:
        inspect(graph)
        clustering, *_ = _cluster_graph(graph, settings, seconds, watch, _goal_of(settings))
        return clustering


def _goal_of(settings: Settings) -> Goal | None:
    """Return how far to polish and to bound; None where neither is asked for."""
    if not settings.polish and settings.gap is None:
        return None
    return Goal(settings.polish, settings.gap, settings.exact)


@contextmanager
def _built(
    build: _Build, settings: Settings, seconds: dict[str, float], watch: Watch
) -> Iterator[EdgeGraph | ArrayGraph]:
    """Build the graph, time it, and release it at the end."""
    with watch.stage("graph"), _stage("graph", seconds):
        graph = build(settings)
    logger.info("%s points, %s edges", f"{graph.n_points:,}", f"{graph.n_edges:,}")
    try:
        yield graph
    finally:
        graph.release()


def _search_for_clusters(
    build: _Build, settings: Settings, watch: Watch, inspect: Callable[[EdgeGraph | ArrayGraph], None]
) -> Clustering:
    """Cluster with one preference after the other until there are so many clusters."""
    assert settings.clusters is not None
    target, started, seconds = settings.clusters, time.perf_counter(), dict[str, float]()
    with _built(build, settings, seconds, watch) as graph:
        _check_target(target, graph)
        inspect(graph)
        past = list(watch.checkpoint.tried) if watch.checkpoint else []
        with watch.stage("price"), _stage("price", seconds):
            start = past[0].preference if past else _first_preference(graph, settings, target)
        enough = _ENOUGH * target if settings.polish and _can_polish(graph.spark) else 0.0
        if enough and settings.gap is not None:
            enough = max(1.0, enough)  # what the bound opens makes up for one of few
        trials = Trials(target, start=start, largest=graph.quantiles(1.0)[0], enough=enough)

        def cluster_at(preference: float, watch: Watch) -> _Outcome:
            if watch.checkpoint:
                watch.checkpoint.tried = tuple(trials.tried)
            plain = replace(settings, clusters=None, preference=preference)
            if isinstance(graph, ArrayGraph) and (other := graph.with_preference(preference)).is_resolved():
                return _cluster_graph(other, plain, dict(seconds), watch)
            with _built(build, plain, {}, watch) as rebuilt:  # raises InputError if it is too large beside them
                return _cluster_graph(rebuilt, plain, {}, watch)

        window = max(settings.windows[0], MIN_REST_ITERATIONS, settings.max_iter // 10)
        goal = _goal_of(settings)
        while True:
            best, clusters, _ = _cluster_with_each(trials, cluster_at, past, graph.n_forced, window, watch)
            if goal and clusters.n_clusters:
                with watch.stage("clusters"):
                    best = _polished(graph, best, clusters, settings, replace(goal, clusters=target), watch)
            if best.summary.n_clusters == target or not trials.miss():
                break
    summary = replace(
        best.summary,
        settings=asdict(settings),
        tried=[asdict(trial) for trial in trials.tried],
        seconds=best.summary.seconds | {"search": round(time.perf_counter() - started, 3)},
    )
    return replace(best, summary=summary)


def _first_preference(graph: EdgeGraph | ArrayGraph, settings: Settings, target: int) -> float:
    """Return the preference to try first: what the bound says of so many exemplars, or else the median.

    A graph of edges is put into blocks for that only where its clusters are to be polished or bounded, in blocks too.
    """
    median, largest = graph.quantiles(0.5, 1.0)
    if target == graph.n_points:
        return largest + abs(largest) + 1.0  # there every point is an exemplar
    if not (isinstance(graph, ArrayGraph) or (_goal_of(settings) and _can_polish(graph.spark))):
        return median
    with _blocks_of(graph, settings) as blocks, problem_of(blocks) as problem:
        price = price_of(problem, target, largest)
    if price is None:
        return median
    return min(price, largest - _LEAST_DISTANCE * (largest - median))


def _polished(
    graph: EdgeGraph | ArrayGraph, best: Clustering, clusters: Clusters, settings: Settings, goal: Goal, watch: Watch
) -> Clustering:
    """Bring the best trial of a search to the number of clusters that was asked for, and polish it there."""
    exemplars: Any = clusters.is_exemplar
    if isinstance(graph, EdgeGraph):
        ids = best.exemplars.select(F.col("exemplar").alias("id"))
        exemplars = graph.points.join(ids, "id").select("index")
    found = _make_clusters(graph, exemplars, settings, goal, watch, best.summary.preference)
    summary = replace(best.summary, **_objective(found) | {"promoted": best.summary.promoted})
    quality = _quality_table(graph, found)
    return replace(best, assignments=found.assignments, exemplars=found.exemplars, summary=summary, quality=quality)


def _cluster_with_each(
    trials: Trials,
    cluster_at: Callable[[float, Watch], _Outcome],
    past: list[Trial],
    forced: int,
    window: int,
    watch: Watch,
) -> _Outcome:
    """Cluster with each preference that the trials ask for; return the best result.

    Trials of the ``past`` are taken over from a run before this one. A run that is at rest with clearly too many
    exemplars is ended early.
    """
    best: _Outcome | None = None
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
        about = found[0].summary
        at_rest = about.ending != "stopped" or (
            about.promoted <= TOLERANCE * about.n_clusters and is_at_rest(found[2], forced, window)
        )
        settled = about.ending == "settled"
        trials.answer(Trial(preference, about.n_clusters, about.converged, at_rest, ended_early=False, settled=settled))
        logger.info("preference %g: %s clusters", preference, f"{about.n_clusters:,}")
        if trials.best == trials.tried[-1]:
            best = found
    if best is None or best[0].summary.preference != trials.best.preference:
        best = cluster_at(trials.best.preference, watch)
    return best


def refuse_more_clusters(target: int, n_points: int) -> None:
    """Raise SettingError if more clusters are asked for than there are points."""
    if target > n_points:
        raise SettingError(f"clusters must be at most the number of points, {n_points:,}, got {target:,}")


def _check_target(target: int, graph: EdgeGraph | ArrayGraph) -> None:
    """Raise SettingError if no clustering of the graph has so few or so many clusters."""
    refuse_more_clusters(target, graph.n_points)
    if graph.uniform and 1 < target < graph.n_points:
        raise SettingError(
            f"clusters must be 1 or {graph.n_points:,} where all similarities are equal, got {target:,}: "
            "nothing tells one point from another"
        )
    least = least_clusters(graph)
    if target < least:
        raise TooFewClusters(
            f"clusters must be at least {least:,} in this graph, got {target:,}: a cluster lies in one connected "
            "component and has at most as many points as are similar to its exemplar, and it (`ap-spark graph` shows "
            "both; more neighbours join components). Clusters of clusters can be fewer: of points with neighbors, "
            "unless levels is 1 or there is a min_similarity; of given similarities with a missing_similarity for the "
            "other pairs"
        )


def _cluster_graph(
    graph: EdgeGraph | ArrayGraph,
    settings: Settings,
    seconds: dict[str, float],
    watch: Watch,
    goal: Goal | None = None,
) -> _Outcome:
    """Iterate on a graph and make the clusters; return the result, and the clusters that it is made of."""
    engine: Engine | None = None
    snapshot = watch.checkpoint.begin(graph) if watch.checkpoint else None
    found = without_iterating(graph)
    try:
        with _stage("propagation", seconds):
            if found is None:
                engine = make_engine(graph, settings, snapshot and snapshot.state)
                with _uncancellable(graph):
                    found = propagate(
                        graph,
                        engine,
                        max_iter=settings.max_iter,
                        stability=Stability(
                            settings.windows, tolerated(graph.n_points) if settings.damping is None else 0
                        ),
                        watch=watch,
                        past=snapshot.trace if snapshot else (),
                    )
        if engine and goal and watch.checkpoint and watch.checkpoint.is_worth(engine.iteration):
            with _uncancellable(graph):
                watch.checkpoint.write(engine, graph, found.trace)
        with watch.stage("clusters"), _stage("clusters", seconds):
            clusters = _make_clusters(graph, found.exemplars, settings, goal if engine else None, watch)
    finally:
        if engine:
            engine.release()
    summary = _summarize(graph, settings, found, clusters, engine.name if engine else "none", seconds)
    discard = watch.checkpoint.discard if watch.checkpoint else Clustering.discard_snapshots
    table = _trace_table(found.trace)
    trace = graph.spark.createDataFrame(table) if graph.spark else table
    found_clusters = Clustering(
        *(clusters.assignments, clusters.exemplars, trace, summary, discard), quality=_quality_table(graph, clusters)
    )
    return found_clusters, clusters, found.trace


def _uncancellable(graph: EdgeGraph | ArrayGraph) -> AbstractContextManager[None]:
    """Keep Spark's jobs from being cancelled, where it has some."""
    return classic.uncancellable(graph.spark) if graph.spark else nullcontext()


def _can_polish(spark: SparkSession | None) -> bool:
    """Return whether a graph can be held in blocks: in this process, or on classic Spark, where no task runs twice."""
    return spark is None or (not classic.is_connect(spark) and spark.conf.get("spark.speculation", "false") != "true")


def _make_clusters(
    graph: EdgeGraph | ArrayGraph,
    exemplars: Any,
    settings: Settings,
    goal: Goal | None,
    watch: Watch,
    preference: float | None = None,
) -> Clusters:
    """Make the clusters, at another preference where one is given.

    Clusters that are to be polished are made in blocks, whatever engine has iterated.
    """
    if goal is None:
        return make_clusters(graph, exemplars)
    if isinstance(graph, ArrayGraph):
        there = graph if preference is None else graph.with_preference(preference)
        return make_clusters(there, exemplars, goal, watch.improving)
    if not _can_polish(graph.spark):
        logger.warning(
            "clusters are polished and bounded in blocks, which need classic Spark without spark.speculation: "
            "here they are as the messages name them"
        )
        return make_clusters(graph, exemplars)
    with _blocks_of(graph, settings) as blocks:
        is_exemplar = np.zeros(graph.n_points, bool)
        is_exemplar[exemplars.toArrow()["index"].to_numpy()] = True
        return _make_clusters(blocks, is_exemplar, settings, goal, watch, preference)


@contextmanager
def _blocks_of(graph: EdgeGraph | ArrayGraph, settings: Settings) -> Iterator[ArrayGraph]:
    """Return the graph as arrays; what is made for that is released at the end."""
    if isinstance(graph, ArrayGraph):
        yield graph
        return
    blocks = in_blocks(graph, settings)
    try:
        yield blocks
    finally:
        blocks.release()


def _summarize(
    graph: EdgeGraph | ArrayGraph,
    settings: Settings,
    found: Propagation,
    clusters: Clusters,
    engine: str,
    seconds: dict[str, float],
) -> Summary:
    """Return the run in numbers."""
    return Summary(
        settings=asdict(settings),
        versions={
            "ap_spark": __version__,
            **({"spark": graph.spark.version} if graph.spark else {}),
            "pyspark": pyspark.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        fingerprint=graph.fingerprint,
        engine=engine,
        n_points=graph.n_points,
        n_edges=graph.n_edges,
        converged=found.ending == "converged",
        ending=found.ending,
        n_iter=len(found.trace),
        unsettled=found.trace[-1].unsettled if found.trace else 0,
        preference=graph.preference,
        seconds=seconds,
        **_objective(clusters, is_best=engine == "none"),
    )


def _objective(clusters: Clusters, *, is_best: bool = False) -> dict[str, Any]:
    """Return what a summary says of clusters; those of degenerate input are the best possible."""
    netsim = clusters.dpsim + clusters.expref
    upper_bound = netsim if is_best else None
    improved = clusters.improved
    if improved and improved.upper_bound is not None:
        is_exact = improved.slack <= NEGLIGIBLE * abs(netsim)
        upper_bound = netsim if improved.is_proved and is_exact else max(netsim, improved.upper_bound)
    gap = None
    if upper_bound is not None and (netsim or upper_bound == netsim):
        gap = (upper_bound - netsim) / (abs(netsim) or 1.0)
    return {
        "n_clusters": clusters.n_clusters,
        "promoted": clusters.promoted,
        "dpsim": clusters.dpsim,
        "expref": clusters.expref,
        "netsim": netsim,
        "upper_bound": upper_bound,
        "gap": gap,
    }


def _trace_table(trace: Sequence[Iteration]) -> pa.Table:
    """Return the records of iterations as a table."""
    columns = zip(*trace, strict=True) if trace else ([],) * len(TRACE)
    return pa.Table.from_arrays(
        [pa.array(column, kind) for column, kind in zip(columns, TRACE.types, strict=True)], schema=TRACE
    )


def _quality_table(graph: EdgeGraph | ArrayGraph, clusters: Clusters) -> Any:
    """Return net similarity and bound after each step of polishing and bounding, as a table; None where none was."""
    if clusters.improved is None:
        return None
    steps = clusters.improved.steps
    table = pa.table(
        {
            "step": np.arange(1, len(steps) + 1),
            "kind": pa.array([step.name for step in steps], pa.string()),
            "netsim": pa.array([step.netsim for step in steps], pa.float64()),
            "upper_bound": pa.array([step.upper_bound for step in steps], pa.float64()),
        }
    )
    return graph.spark.createDataFrame(table) if graph.spark else table


def warn_of_another_number(asked: int, summary: Summary) -> None:
    """Log a warning that there are more or fewer clusters than were asked for."""
    logger.warning(
        "%s clusters were asked for, the nearest number in %d trials is %s",
        f"{asked:,}",
        len(summary.tried),
        f"{summary.n_clusters:,}",
    )


def warn_if_not_converged(summary: Summary) -> None:
    """Log a warning if a run has done all its iterations, and what to try."""
    if summary.ending == "stopped":
        logger.warning(
            "not converged %s: try more iterations (max_iter)%s, or another preference",
            format_not_converged(summary),
            "" if summary.settings["damping"] is None else ", more damping",
        )


def format_not_converged(summary: Summary) -> str:
    """Say after how many iterations a run has not converged, and which points lack an exemplar."""
    words = f"after {format_count(summary.n_iter, 'iteration')}"
    if summary.ending == "settled":
        left = summary.unsettled + summary.promoted
        return f"{words}, settled but for {left:,} of {format_count(summary.n_points, 'point')}"
    if not summary.n_clusters:
        words += ", and there is no exemplar yet"
    elif summary.promoted:
        words += f", and {summary.promoted:,} of {format_count(summary.n_points, 'point')} store no edge to an exemplar"
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
