"""From points, or from similarities, to clusters: the steps of the command, the jobs and Python, in order.

points ──► features ──► scaled ──► numbered ──► similarities ─┐
                                                              ├──► run.cluster ──► Clustering
similarities (i, k, s), points, preferences ──────────────────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark import in_process
from ap_spark.checkpoint import Checkpoint
from ap_spark.convergence import Iteration
from ap_spark.errors import InputError, SettingError, errors_from_tasks
from ap_spark.foreign_names import explains_keywords
from ap_spark.graph.build import engine_of
from ap_spark.graph.describe import Description, describe_graph
from ap_spark.graph.numbering import WrongInput, broadcast_if_small, number_points
from ap_spark.io.frames import as_points, is_local, to_spark
from ap_spark.levels import cluster_in_levels
from ap_spark.propagation import Watch
from ap_spark.result import Clustering
from ap_spark.run import LocalSource, Source, opened_graph, refuse_more_clusters, warn_if_not_converged
from ap_spark.schema import check_unique, require_columns
from ap_spark.settings import Execution, Levels, Quality, Settings, Similarity, Snapshots, Sparsification
from ap_spark.similarity.all_pairs import all_pairs
from ap_spark.similarity.members import SparkMembers
from ap_spark.similarity.metrics import metric_of
from ap_spark.similarity.neighbors import find_neighbors
from ap_spark.similarity.pairs import Pairs
from ap_spark.similarity.scaling import fit_scaling

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Table = DataFrame | pd.DataFrame
    Points = DataFrame | pd.DataFrame | NDArray[np.floating[Any] | np.integer[Any]]

__all__ = [
    "affinity_propagation",
    "checked_settings",
    "cluster_points",
    "describe",
    "describe_points",
    "described",
    "require_records",
]

_Callback = Callable[[Iteration], bool | None]


@explains_keywords
def cluster_points(
    points: Points,
    *,
    similarity: Similarity = Similarity(),
    preference: float | Table | None = Settings.preference,
    preference_quantile: float | None = Settings.preference_quantile,
    clusters: int | None = Settings.clusters,
    cluster_size: float | None = Settings.cluster_size,
    damping: float | None = Settings.damping,
    max_iter: int = Settings.max_iter,
    convergence_iter: int | None = Settings.convergence_iter,
    seed: int | None = Settings.seed,
    levels: int | Literal["auto"] | Levels = Levels(),
    sparsification: Sparsification = Sparsification(),
    quality: Quality = Quality(),
    execution: Execution = Execution(),
    checkpoint: str | Snapshots | None = None,
    callback: _Callback | None = None,
) -> Clustering:
    """Cluster points by affinity propagation.

    Parameters
    ----------
    points : DataFrame of Spark or pandas, or array of shape (n_points, n_features)
        A row for each point: a column ``id`` (integers or strings), and the features, as one array or vector column or
        as number columns. A column ``preference`` holds each point's own preference. Without a column ``id`` the ids
        are the index of a pandas DataFrame, or the row numbers of an array. `make_points` chooses other columns.
    similarity : Similarity
        The metric, the scaling of features, and whether all pairs are stored or nearest neighbours alone. With
        neighbours, pairs are stored in both directions unless ``sparsification`` says otherwise.
    preference, preference_quantile, clusters, cluster_size, damping, max_iter, convergence_iter, seed
        See `affinity_propagation`.
    levels, sparsification, quality, execution, checkpoint, callback
        See `affinity_propagation`.

    Returns
    -------
    Clustering

    Raises
    ------
    InputError
        If ids or features break a rule of the input.
    SettingError
        If a parameter is outside its range, or two exclude each other.
    StorageError, CheckpointError, Interrupted
        See `affinity_propagation`.

    Notes
    -----
    Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007).

    Examples
    --------
    >>> rows = [(n, float(x), 0.0) for n, x in enumerate([1, 2, 3, 7, 8, 9])]
    >>> points = spark.createDataFrame(rows, "id int, x double, y double")
    >>> clustering = cluster_points(points, preference=-25.0)
    >>> [row.exemplar for row in clustering.assignments.orderBy("id").collect()]
    [1, 1, 1, 4, 4, 4]
    """
    settings, preferences = checked_settings(
        sparsification,
        execution,
        quality,
        levels,
        preference=preference,
        preference_quantile=preference_quantile,
        clusters=clusters,
        cluster_size=cluster_size,
        damping=damping,
        max_iter=max_iter,
        convergence_iter=convergence_iter,
        seed=seed,
    )
    require_records(Similarity, similarity=similarity)
    settings = settings.of_points(similarity)
    snapshots = _snapshots(checkpoint)
    _check_callback(callback)
    with _closing(callback), errors_from_tasks():
        if snapshots.checkpoint is None and is_local(points, preferences):
            here = partial(in_process.source_of_points, points, preferences, similarity, settings)
            if found := _clustered_here(here, settings, callback):
                return replace(found, similarity=similarity, points=points).in_order_of(points)
        with _source_of_points(points, _table(preferences), similarity, settings, callback) as source:
            found = _with_features(_clustered(source, settings, snapshots, callback), source, similarity, points)
            return found.to_pandas().in_order_of(points) if is_local(points) else found


@explains_keywords
def affinity_propagation(
    similarities: Table,
    *,
    points: Table | None = None,
    preference: float | Table | None = Settings.preference,
    preference_quantile: float | None = Settings.preference_quantile,
    clusters: int | None = Settings.clusters,
    cluster_size: float | None = Settings.cluster_size,
    damping: float | None = Settings.damping,
    max_iter: int = Settings.max_iter,
    convergence_iter: int | None = Settings.convergence_iter,
    seed: int | None = Settings.seed,
    levels: int | Literal["auto"] | Levels = Levels(),
    sparsification: Sparsification = Sparsification(),
    quality: Quality = Quality(),
    execution: Execution = Execution(),
    checkpoint: str | Snapshots | None = None,
    callback: _Callback | None = None,
) -> Clustering:
    """Cluster the points of a similarity graph by affinity propagation.

    Parameters
    ----------
    similarities : DataFrame of Spark or pandas
        (i, k, s): how well k would represent i, any finite number; need not be symmetric. i and k are ids, integers
        or strings. A pair that is left out, or is -infinity, is never a member and its exemplar. Rows (k, k) are
        preferences.
    points : DataFrame of Spark or pandas, optional
        (id) of all points, when some may occur in no similarity; every end of a similarity must then be among them.
    preference : float or DataFrame, optional
        How willing points are to be exemplars: one number for all, or a table (id, preference). By default the median
        similarity, unless the similarities have rows (k, k).
    preference_quantile : float, optional
        Take this quantile of the similarities as the preference, in [0, 1].
    clusters : int, optional
        Search for the preference that gives so many clusters, at least 1, by clustering up to 20 times. The nearest
        number that was found is returned, with a warning if it is another one.
    cluster_size : float, optional
        The same with the number of clusters that gives them this many points on average, at least 1.
    damping : float, optional
        A fixed damping, in [0.5, 1). By default each point has a damping of its own, from 0.5, which is raised where
        exemplars keep changing.
    max_iter : int
        Iterations at most, at least 1.
    convergence_iter : int, optional
        Iterations for which a point must not become or cease to be an exemplar, at least 1. By default the larger of
        15 and 5 / (1 - damping): 15 at 0.5, 100 at 0.95. With both given, the run is scikit-learn's.
    seed : int, optional
        Exact ties are broken by a relative 1e-10, a function of the seed and the ids; None leaves ties as they are.
    levels : int, "auto" or Levels
        Whether clusters are clustered again, where more points are to share an exemplar than similarities are stored
        to it: never (1), on so many levels at most, or ("auto") where the number of clusters or the preference
        asked for wants that.
    sparsification : Sparsification
        Which of the similarities are stored: how a pair given more than once is merged, the smallest similarity, how
        many of the largest of each point, and whether pairs are stored in both directions.
    quality : Quality
        Whether exemplars are polished after the iterations, and how far the run goes on to bound what any clustering
        could reach: by default until this one is known to be within 0.1 % of the best.
    execution : Execution
        The engine, and the number of blocks of rows. Results are bitwise identical, whatever is chosen.
    checkpoint : str or Snapshots, optional
        Directory for snapshots, anywhere Spark can write. If it holds some of a run with the same similarities,
        preferences and settings, that run is resumed. `Snapshots` says also how often they are taken, and whether to
        resume.
    callback : callable, optional
        Called with the `Iteration` record of each iteration. Where it returns True, a last snapshot is taken and
        Interrupted is raised. `Progress` is one: a bar on a terminal, lines in a log. An object may have more methods:
        ``stage(name, spark)``, a context for as long as another stage lasts, with the session, or None where there is
        none; ``improving(step)``, called with a `Step` after each round of polishing and each pass of the bound;
        ``resumes_from(checkpoint)``, called once with the run's snapshots; ``close()``, called at the end.

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
        When the callback asked to stop.

    Notes
    -----
    Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007), equations 1-3. Two runs on
    the same input and settings give bitwise identical results, on any number of partitions and executors.

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
    settings, preferences = checked_settings(
        sparsification,
        execution,
        quality,
        levels,
        preference=preference,
        preference_quantile=preference_quantile,
        clusters=clusters,
        cluster_size=cluster_size,
        damping=damping,
        max_iter=max_iter,
        convergence_iter=convergence_iter,
        seed=seed,
    )
    snapshots = _snapshots(checkpoint)
    _check_callback(callback)
    with _closing(callback), errors_from_tasks():
        if snapshots.checkpoint is None and is_local(similarities, points, preferences):
            here = partial(in_process.source_of_similarities, similarities, points, preferences, settings)
            if found := _clustered_here(here, settings, callback):
                return found
        source = _source_of_similarities(similarities, points, _table(preferences))
        found = _clustered(source, settings, snapshots, callback)
        return found.to_pandas() if is_local(similarities) else found


def _clustered_here(
    source: Callable[[], LocalSource], settings: Settings, callback: _Callback | None
) -> Clustering | None:
    """Cluster in this process; return None where the data are large or break a rule: Spark will say which."""
    watch = _watch(None, settings, Snapshots(), callback)
    has_begun = False

    def noting(done: Iteration) -> bool | None:
        nonlocal has_begun
        has_begun = True
        return watch.callback(done)

    try:
        with _stage(callback, "similarities", None):
            made = source()
        if settings.cluster_size is not None:
            settings = settings.with_clusters(made.n_points)
        found = cluster_in_levels(made, settings, replace(watch, callback=noting))
    except (InputError, WrongInput):
        if has_begun:  # it is the callback's
            raise
        return None
    warn_if_not_converged(found.summary)
    return _with_features_here(found.to_pandas(), made)


def _clustered(source: Source, settings: Settings, snapshots: Snapshots, callback: _Callback | None) -> Clustering:
    """Cluster on Spark, and warn where the run has not converged."""
    if settings.cluster_size is not None:
        settings = settings.with_clusters(source.n_points)
    found = cluster_in_levels(source, settings, _watch(source.spark, settings, snapshots, callback))
    warn_if_not_converged(found.summary)
    return found


@explains_keywords
def describe_points(
    points: Points,
    *,
    similarity: Similarity = Similarity(),
    preference: float | Table | None = Settings.preference,
    preference_quantile: float | None = Settings.preference_quantile,
    clusters: int | None = Settings.clusters,
    sparsification: Sparsification = Sparsification(),
    execution: Execution = Execution(),
) -> Description:
    """Describe the similarity graph of points, without clustering them.

    Parameters
    ----------
    points, similarity
        See `cluster_points`.
    preference, preference_quantile, clusters, sparsification, execution
        See `affinity_propagation`.

    Returns
    -------
    Description

    Raises
    ------
    InputError, SettingError, StorageError
        See `cluster_points`.

    Examples
    --------
    >>> points = spark.createDataFrame([(n, [float(n)]) for n in (1, 2, 3, 7, 8, 9)], "id int, features array<double>")
    >>> description = describe_points(points, similarity=Similarity(neighbors=2))
    >>> description.n_points, description.n_edges, description.neighbors["search"]
    (6, 12, 'exact')
    """
    with described(
        points,
        points=None,
        similarity=similarity,
        sparsification=sparsification,
        execution=execution,
        preference=preference,
        preference_quantile=preference_quantile,
        clusters=clusters,
    ) as (description, *_):
        return description


@explains_keywords
def describe(
    similarities: Table,
    *,
    points: Table | None = None,
    preference: float | Table | None = Settings.preference,
    preference_quantile: float | None = Settings.preference_quantile,
    clusters: int | None = Settings.clusters,
    sparsification: Sparsification = Sparsification(),
    execution: Execution = Execution(),
) -> Description:
    """Describe a similarity graph, without clustering it.

    Parameters
    ----------
    similarities, points, preference, preference_quantile, clusters, sparsification, execution
        See `affinity_propagation`.

    Returns
    -------
    Description

    Raises
    ------
    InputError, SettingError, StorageError
        See `affinity_propagation`.

    Examples
    --------
    >>> x = [1, 2, 3, 7, 8, 9]
    >>> pairs = [(i, k, -abs(a - b)) for i, a in enumerate(x) for k, b in enumerate(x) if 0 < abs(a - b) < 4]
    >>> description = describe(spark.createDataFrame(pairs, "i int, k int, s int"))
    >>> description.n_components, description.least_clusters, description.preference
    (2, 2, -1.0)
    """
    with described(
        similarities,
        points=points,
        similarity=None,
        sparsification=sparsification,
        execution=execution,
        preference=preference,
        preference_quantile=preference_quantile,
        clusters=clusters,
    ) as (description, *_):
        return description


@contextmanager
def described(
    rows: Points,
    *,
    points: Table | None,
    similarity: Similarity | None,
    sparsification: Sparsification,
    execution: Execution,
    callback: _Callback | None = None,
    **preference: Any,
) -> Iterator[tuple[Description, DataFrame, dict[str, Any]]]:
    """Describe the graph of similarities, or of points where there is a ``similarity``.

    Yields
    ------
    Description
    DataFrame
        The pairs (i, k, s) that are stored.
    dict
        For a summary: ``settings`` and, by stage, ``seconds``.
    """
    settings, preferences = checked_settings(sparsification, execution, **preference)
    with ExitStack() as held:
        held.enter_context(errors_from_tasks())
        if similarity is None:
            source = _source_of_similarities(rows, points, _table(preferences))
        else:
            require_records(Similarity, similarity=similarity)
            if similarity.neighbors is not None and settings.symmetrize is None:
                settings = replace(settings, symmetrize="union")
            source = held.enter_context(_source_of_points(rows, _table(preferences), similarity, settings, callback))
        started = time.perf_counter()
        if settings.cluster_size is not None:
            settings = settings.with_clusters(source.n_points)
        with _stage(callback, "graph", source.spark):
            graph = held.enter_context(opened_graph(source, settings))
            description = replace(describe_graph(graph, settings), neighbors=source.neighbors)
        seconds = source.seconds | {"graph": round(time.perf_counter() - started, 3)}
        yield description, graph.similarities(), {"settings": asdict(settings) | source.options, "seconds": seconds}


def checked_settings(
    sparsification: Sparsification,
    execution: Execution,
    quality: Quality = Quality(),
    levels: int | Literal["auto"] | Levels = Levels(),
    *,
    preference: float | Table | None,
    seed: int | None = Settings.seed,
    **others: Any,
) -> tuple[Settings, Any]:
    """Return the checked parameters, and the points' own preferences if there are any."""
    require_records(Sparsification, sparsification=sparsification)
    require_records(Execution, execution=execution)
    require_records(Quality, quality=quality)
    if not isinstance(levels, Levels):
        levels = Levels(levels=levels)  # type: ignore[arg-type]
    by_point = None
    if preference is not None and not isinstance(preference, Real):
        if not (isinstance(preference, DataFrame) or hasattr(preference, "columns")):
            shown = repr(preference)
            if isinstance(preference, Sized) and not isinstance(preference, str):
                shown = f"{len(preference):,} in a {type(preference).__name__}: "
                shown += 'pd.DataFrame({"id": ids, "preference": values}) makes a table'
            raise SettingError(f"preference must be a finite number, or a table (id, preference), got {shown}")
        by_point = preference
    others["preference"] = preference if by_point is None else None
    others |= {"jitter": False} if seed is None else {"seed": seed}
    settings = Settings(**others, **asdict(sparsification), **asdict(quality), **asdict(levels), **asdict(execution))
    if by_point is not None and settings.has_preference:
        raise SettingError("give the preference in one way: a table, preference_quantile, clusters or cluster_size")
    return settings, by_point


def require_records(kind: type, **given: object) -> None:
    """Raise SettingError unless an argument is a record of this kind."""
    field = {Similarity: "metric", Execution: "engine"}.get(kind)
    for name, value in given.items():
        if not isinstance(value, kind):
            example = f": {name}={kind.__name__}({field}={value!r})" if isinstance(value, str) and field else ""
            raise SettingError(f"{name} must be a `{kind.__name__}`, got {value!r}{example}")


def _source_of_similarities(similarities: Points, points: Table | None, preferences: DataFrame | None) -> Source:
    """Return similarities that are given, and what belongs to them, as tables of Spark."""
    table = to_spark(similarities, "similarities")
    require_columns(table, ("i", "k", "s"), "similarities")
    return Source(table, None if points is None else to_spark(points, "points"), preferences)


@contextmanager
def _source_of_points(
    points: Points,
    preferences: DataFrame | None,
    similarity: Similarity,
    settings: Settings,
    callback: _Callback | None = None,
) -> Iterator[Source]:
    """Compute the similarities of points; what is persisted on the way is released at the end.

    1. Take the ids and the features; 2. scale the features; 3. number the points, where the engine works on blocks;
    4. compute the similarities of all pairs, or of nearest neighbours.
    """
    table = given = as_points(to_spark(points, "points"))
    spark = table.sparkSession
    preferences = _chosen_preferences(table, preferences, settings)
    if settings.clusters is not None:
        refuse_more_clusters(settings.clusters, table.count())
    started = time.perf_counter()
    with ExitStack() as held:

        def persisted(rows: DataFrame) -> DataFrame:
            held.callback(rows.persist().unpersist)
            return rows

        with _stage(callback, "similarities", spark):
            scaling = None
            if similarity.scale != "none":
                scaling = fit_scaling(persisted(table), similarity.scale)
                table = scaling.scale(table) if scaling else table
            numbering, named = None, table
            if engine_of(spark, settings) == "resident":
                both = 1 if settings.symmetrize in (None, "none") else 2
                entries = both * similarity.neighbors if similarity.neighbors else None
                try:
                    numbering, named = number_points(table, entries)
                except WrongInput:
                    check_unique(table, "id", "the points")
                    raise
            else:
                check_unique(table, "id", "the points")
            members = None
            if similarity.neighbors is not None:
                named = persisted(named)  # the search reads it more than once
                if settings.levels != 1:
                    metric = metric_of(similarity.metric, similarity.width)
                    members = SparkMembers(persisted(table.select("id", "features")), metric)
            try:
                pairs, about = _similarities(named, similarity)
            except InputError:
                if numbering is not None:
                    _similarities(table, similarity)  # raises the error with ids instead of numbers
                raise
        seconds = {"similarities": round(time.perf_counter() - started, 3)}
        options, features = asdict(similarity), given.select("id", "features")
        source = Source(
            pairs,
            table.select("id"),
            preferences,
            numbering,
            options,
            about,
            features,
            members,
            scaling,
            seconds=seconds,
        )
        yield source


def _with_features_here(found: Clustering, source: LocalSource) -> Clustering:
    """Return a clustering of points with what new points are compared with; one of similarities as it is."""
    if source.features is None or not found.summary.n_clusters:
        return found
    place = pc.index_in(pa.array(found.exemplars["exemplar"], source.ids.type), source.ids).to_numpy()
    features = found.exemplars[["label", "exemplar"]].assign(features=list(source.features[place]))
    return replace(found, exemplar_features=features)


def _with_features(found: Clustering, source: Source, similarity: Similarity, points: Points) -> Clustering:
    """Return a clustering of points with what new points are compared with, and what pictures are made of."""
    assert source.features is not None
    exemplars = broadcast_if_small(found.exemplars.select("label", "exemplar"), found.summary.n_clusters)
    features = source.features.join(exemplars, F.col("id") == F.col("exemplar"))
    return replace(
        found,
        exemplar_features=features.select("label", "exemplar", "features"),
        similarity=similarity,
        points=points,
        summary=replace(found.summary, scaling=source.scaling.as_lists() if source.scaling else None),
    )


def _chosen_preferences(points: DataFrame, preferences: DataFrame | None, settings: Settings) -> DataFrame | None:
    """Return the preferences to take: those that were given, or the column of the points."""
    if "preference" not in points.columns:
        return preferences
    if preferences is not None or settings.has_preference:
        raise SettingError(
            "give the preference in one way: the column 'preference' of the points, or preference, "
            "preference_quantile, clusters or cluster_size"
        )
    return points.select("id", "preference")


def _similarities(points: DataFrame, similarity: Similarity) -> tuple[Pairs, dict[str, Any] | None]:
    """Return the similarities of points, and how neighbours were found."""
    if similarity.neighbors is None:
        return all_pairs(points, similarity.metric, similarity.width), None
    pairs, search, recall = find_neighbors(
        points, similarity.neighbors, similarity.metric, similarity.width, similarity.search, similarity.recall
    )
    return pairs, {"neighbors": similarity.neighbors, "search": search, "recall": round(recall, 4)}


def _table(preferences: Table | None) -> DataFrame | None:
    """Return preferences as a table of Spark."""
    return None if preferences is None else to_spark(preferences, "preference")


def _stage(callback: _Callback | None, name: str, spark: SparkSession | None) -> AbstractContextManager[None]:
    """Return the callback's context for a stage, if it has a method ``stage``."""
    stage = getattr(callback, "stage", None)
    return stage(name, spark) if stage else nullcontext()


def _snapshots(checkpoint: str | Snapshots | None) -> Snapshots:
    """Return the checked choices of snapshots."""
    return checkpoint if isinstance(checkpoint, Snapshots) else Snapshots(checkpoint=checkpoint)


def _check_callback(callback: object) -> None:
    if callback is not None and not callable(callback):
        raise SettingError(f"callback must be a function, got {callback!r}: leave it out for none")


@contextmanager
def _closing(callback: _Callback | None) -> Iterator[None]:
    """Close the callback at the end, if it can be closed."""
    try:
        yield
    finally:
        if close := getattr(callback, "close", None):
            close()


def _watch(spark: SparkSession | None, settings: Settings, snapshots: Snapshots, callback: _Callback | None) -> Watch:
    """Return what is called while the run iterates."""
    watch = Watch(
        callback or Watch.callback,
        stage=partial(_stage, callback, spark=spark),
        improving=getattr(callback, "improving", None),
    )
    if snapshots.checkpoint is None or spark is None:
        return watch
    watch = replace(watch, checkpoint=Checkpoint(spark, settings, snapshots))
    if resumes_from := getattr(callback, "resumes_from", None):
        resumes_from(watch.checkpoint)
    return watch
