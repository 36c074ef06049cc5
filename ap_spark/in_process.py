"""Small data clustered in this process: no session, no Java, the same bits.

Who gives tables of pandas or arrays, leaves the engine open and wants no snapshots gets his result from here, as long
as the data are small and follow the rules. Whatever is large or wrong goes by way of Spark, which says what is wrong.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ap_spark.blocks.kernel import Floats, Integers
from ap_spark.graph.numbering import WrongInput
from ap_spark.io.frames import arrow_table
from ap_spark.run import LocalSource, refuse_more_clusters
from ap_spark.settings import Settings, Similarity
from ap_spark.similarity.knn_exact import nearest, nearest_by_function
from ap_spark.similarity.members import LocalMembers
from ap_spark.similarity.metrics import Metric, between, metric_of
from ap_spark.similarity.vectors import are_undefined, check_range

__all__ = ["MOST_POINTS", "source_of_points", "source_of_similarities"]

MOST_POINTS = 3000  # 9 million pairs, 0.8 GB at most
_MOST_PAIRS = 1_000_000
_PORTION = 256  # points whose similarities are computed together
_EXACT_SEARCHES = ("auto", "exact")


def source_of_points(
    points: Any, preferences: Any, similarity: Similarity, settings: Settings, most: int = MOST_POINTS
) -> LocalSource:
    """Return points as a source without Spark.

    Parameters
    ----------
    points : DataFrame of pandas, or array of shape (n_points, n_features)
    preferences : DataFrame of pandas, optional
        (id, preference).
    similarity : Similarity
    settings : Settings
    most : int
        Points at most.

    Raises
    ------
    WrongInput, InputError
        If they have to go by way of Spark.
    SettingError
        If more clusters are asked for than there are points.
    """
    has_exact_search = similarity.neighbors is None or similarity.search in _EXACT_SEARCHES
    _require(_is_plain(settings) and similarity.scale == "none" and has_exact_search, "choices")
    started = time.perf_counter()
    _require(np.ndim(points) == 2 and len(points) <= most, "number of points")
    table = arrow_table(points, "points")
    _require({"id", "features"} <= {*table.column_names} <= {"id", "features", "preference"}, "columns")
    ids, order = _in_order(table["id"])
    vectors = _vectors(table["features"])[order]
    by_point = _by_id(preferences, ids)
    if "preference" in table.column_names:
        _require(by_point is None and not settings.has_preference, "preferences in two ways")
        by_point = _values_of(table["preference"])[order]
    if settings.clusters is not None:
        refuse_more_clusters(settings.clusters, len(ids))
    i, k, s, about, members = _similarities(vectors, ids, similarity)
    _require(np.isfinite(s).all(), "similarities")
    seconds = {"similarities": round(time.perf_counter() - started, 3)}
    return LocalSource(
        i, k, s, ids, by_point, vectors, members, options=asdict(similarity), neighbors=about, seconds=seconds
    )


def source_of_similarities(similarities: Any, points: Any, preferences: Any, settings: Settings) -> LocalSource:
    """Return similarities as a source without Spark.

    Parameters
    ----------
    similarities : DataFrame of pandas
        (i, k, s).
    points, preferences : DataFrame of pandas, optional
        (id), and (id, preference).
    settings : Settings

    Raises
    ------
    WrongInput, InputError
        If they have to go by way of Spark.
    """
    _require(_is_plain(settings), "choices")
    _require(len(similarities) <= _MOST_PAIRS, "number of similarities")
    table = arrow_table(similarities, "similarities")
    _require({"i", "k", "s"} <= {*table.column_names}, "columns")
    rows, columns, s = table["i"].combine_chunks(), table["k"].combine_chunks(), _values_of(table["s"])
    _require(not (np.isnan(s) | np.isposinf(s)).any() and len(rows), "similarities")
    if points is None:
        _require(rows.type == columns.type or all(map(pa.types.is_integer, (rows.type, columns.type))), "ids")
        ids, _ = _in_order(pa.concat_arrays([rows, columns.cast(rows.type)]).unique())
    else:
        _require(not isinstance(points, np.ndarray) and len(points) <= _MOST_PAIRS, "points")
        ids, _ = _in_order(arrow_table(points, "points")["id"])
    i, k = _places_of(rows, ids), _places_of(columns, ids)
    return LocalSource(i, k, s, ids, _by_id(preferences, ids), is_given_as_pairs=True)


def _require(condition: object, what: str) -> None:
    """Raise WrongInput unless the input is of a kind that this process can cluster."""
    if not condition:
        raise WrongInput(what)


def _is_plain(settings: Settings) -> bool:
    """Return whether nothing is asked for that only Spark has."""
    return settings.engine == "auto" and settings.partitions is None and settings.top is None


def _in_order(ids: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, Integers]:
    """Return ids in order, and where each was."""
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    is_integer = pa.types.is_integer(ids.type)
    _require(len(ids) and not ids.null_count and (is_integer or pa.types.is_string(ids.type)), "ids")
    order = pc.sort_indices(ids)
    found = ids.cast(pa.int64() if is_integer else pa.string()).take(order)
    _require(not pc.any(pc.equal(found[1:], found[:-1])).as_py(), "ids given twice")
    return found, order.to_numpy().astype(np.int64)


def _places_of(some: pa.Array, ids: pa.Array) -> Integers:
    """Return the place of each id among all."""
    _require(some.type == ids.type or (pa.types.is_integer(some.type) and pa.types.is_integer(ids.type)), "ids")
    places = pc.index_in(some.cast(ids.type), ids)
    _require(not places.null_count, "unknown ids")
    return np.asarray(places.to_numpy(), np.int64)


def _vectors(features: pa.ChunkedArray) -> Floats:
    """Return features as an array of shape (n, d)."""
    lists = features.combine_chunks()
    _require(pa.types.is_list(lists.type) and len(lists) and not lists.null_count, "features")
    values = _values_of(lists.flatten())
    lengths = pc.list_value_length(lists).to_numpy()
    _require(lengths[0] and (lengths == lengths[0]).all() and np.isfinite(values).all(), "features")
    return values.reshape(len(lists), -1)


def _values_of(column: pa.Array | pa.ChunkedArray) -> Floats:
    """Return numbers as float64, NaN where one is missing."""
    _require(pa.types.is_integer(column.type) or pa.types.is_floating(column.type), "numbers")
    return np.asarray(column.to_pandas(), np.float64)


def _by_id(preferences: Any, ids: pa.Array) -> Floats | None:
    """Return the preferences of a table (id, preference) by point; None without a table."""
    if preferences is None:
        return None
    table = arrow_table(preferences, "preference")
    _require({"id", "preference"} <= {*table.column_names}, "columns")
    of, order = _in_order(table["id"])
    _require(of.equals(ids), "ids of preferences")
    return _values_of(table["preference"])[order]


def _similarities(
    x: Floats, ids: pa.Array, similarity: Similarity
) -> tuple[Integers, Integers, Floats, dict[str, Any] | None, LocalMembers]:
    """Return the similarities (i, k, s) of points, how neighbours were found, and the points as they are compared."""
    metric = metric_of(similarity.metric, similarity.width)
    if isinstance(metric, Metric):
        _require(not are_undefined(metric.undefined_for, x).any(), "vectors without similarities")
        check_range(metric, float(np.abs(x).max()), x.shape[1])
        x = metric.prepare(x)
    n, members = len(x), LocalMembers(ids, x, metric)
    if similarity.neighbors is None:
        s = np.concatenate([between(metric, x[start : start + _PORTION], x) for start in range(0, n, _PORTION)])
        i, k = np.nonzero(~np.eye(n, dtype=bool))
        return i, k, s[i, k], None, members
    if isinstance(metric, Metric):
        i, k, closeness = nearest(x, x, np.arange(n), similarity.neighbors, metric)
        s = metric.similarity(closeness)
    else:
        i, k, s = nearest_by_function(metric, x, x, np.arange(n), similarity.neighbors)
    return i, k, s, {"neighbors": similarity.neighbors, "search": "exact", "recall": 1.0}, members
