"""What is shown of a result: a sample of its points, the largest clusters, the run in figures.

Whatever the size of a result, this is small: pictures and page are made of it without looking at the tables again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from ap_spark.blocks.kernel import Floats
from ap_spark.errors import InputError
from ap_spark.report.few_rows import by_chance, ends_of_clusters, with_labels
from ap_spark.report.points import KnownPoints, matrix_of
from ap_spark.report.rows import Rows, rows_of
from ap_spark.settings import PairFunction, Similarity
from ap_spark.similarity.metrics import Metric, between, metric_of
from ap_spark.similarity.scaling import Scaling

__all__ = ["ENDS", "LARGEST", "NAMED", "Content", "Result", "gather", "prepare", "similarities_of"]

SAMPLE = 20_000  # points drawn
LARGEST = 12  # clusters whose members are looked at
NAMED = 30  # clusters that are named
ENDS = 3  # members at each end of them
MATRIX = 240  # points of the matrix of similarities


class Result(Protocol):
    """What a `Clustering` has, which is of a room below this one."""

    @property
    def assignments(self) -> Any: ...

    @property
    def exemplars(self) -> Any: ...

    @property
    def trace(self) -> Any: ...

    @property
    def summary(self) -> Any: ...

    @property
    def exemplar_features(self) -> Any: ...

    @property
    def similarity(self) -> Similarity | None: ...

    @property
    def points(self) -> Any: ...

    @property
    def quality(self) -> Any: ...

    @property
    def tree(self) -> Any: ...


@dataclass(frozen=True)
class Content:
    """What is shown of a result.

    Attributes
    ----------
    summary : Summary
    trace, quality, tree : DataFrame of pandas
        Those of the result; the last two None where it has none.
    sizes : int64, shape (K,)
        Of all clusters, by label.
    largest : DataFrame of pandas
        (label, exemplar, size, mean_similarity) of the largest clusters, the largest first.
    sample : DataFrame of pandas
        (id, label) of points drawn by chance; of the exemplars, where there are no features of points.
    features : float64, shape (n, d), optional
        Of the sample, as they were given.
    heads : DataFrame of pandas
        (label, exemplar) of the clusters of the sample, in the order of the labels.
    head_features : float64, shape (len(heads), d), optional
    members : DataFrame of pandas
        Of the largest clusters; see `ends_of_clusters`.
    member_features : float64, shape (len(members), d), optional
    scaling : Scaling, optional
    metric : Metric or callable, optional
        How the features are compared.
    are_exemplars : bool
        Whether the sample is one of exemplars, since the points are not known.
    feature_names : list of str, optional
    rows : Rows
        Of the input.
    """

    summary: Any
    trace: pd.DataFrame
    quality: pd.DataFrame | None
    tree: pd.DataFrame | None
    sizes: NDArray[np.int64]
    largest: pd.DataFrame
    sample: pd.DataFrame
    features: Floats | None
    heads: pd.DataFrame
    head_features: Floats | None
    members: pd.DataFrame
    member_features: Floats | None
    scaling: Scaling | None
    metric: Metric | PairFunction | None
    are_exemplars: bool
    feature_names: list[str] | None
    rows: Rows

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """The place among the heads of the exemplar of each point of the sample."""
        return np.searchsorted(self.heads["label"].to_numpy(), self.sample["label"].to_numpy()).astype(np.int64)


def gather(
    result: Result,
    points: Any = None,
    rows: Any = None,
    *,
    names: list[str] | None = None,
    without_points: bool = False,
) -> Content:
    """Read from a result, its points and their rows what is to be shown.

    Parameters
    ----------
    result : Clustering
    points : DataFrame of Spark or pandas, or array, optional
        The points of the run, as `cluster_points` takes them; by default those that the result knows.
    rows : DataFrame of Spark or pandas, optional
        Their rows with whatever columns, to be shown; see `rows_of`.
    names : list of str, optional
        Of the features; by default those of the columns of the points.
    without_points : bool
        Whether features are not needed.

    Raises
    ------
    InputError
        If the points or the rows are not those of the result.
    """
    clusters = _few(result.exemplars, ["label", "exemplar", "size", "mean_similarity"])
    largest = clusters.sort_values(["size", "label"], ascending=[False, True]).head(NAMED)
    of_largest = largest["label"].head(LARGEST).tolist()
    assignments = result.assignments
    are_few = result.summary.n_points <= SAMPLE
    if are_few:  # one job instead of several
        assignments = in_order(assignments, "id")
    members = ends_of_clusters(assignments, of_largest, ENDS, max(MATRIX // max(len(of_largest), 1), 2))
    given = result.points if points is None else points
    known = None if given is None or without_points else KnownPoints.of(given)
    if known is not None and are_few and points is None:  # these are all of the run's, and no more
        known = known.read()
    sample = by_chance(_as_assignments(result.exemplars) if known is None else assignments, SAMPLE)
    heads = clusters[clusters["label"].isin({*sample["label"], *of_largest})][["label", "exemplar"]]
    features = head_features = member_features = None
    if known is not None:
        ids = [column.astype(str) for column in (sample["id"], heads["exemplar"], members["id"])]
        by_id = known.some(pd.concat(ids).drop_duplicates())
        _check_same(result, of_largest, by_id)
        features, head_features, member_features = (matrix_of(by_id[id] for id in some) for some in ids)
        names = known.names if names is None else names
    elif result.exemplar_features is not None and not without_points:
        table = with_labels(result.exemplar_features, heads["label"].tolist())
        features = head_features = matrix_of(table["features"])
        sample = heads.rename(columns={"exemplar": "id"})
    scaling = None if result.summary.scaling is None else Scaling.from_lists(result.summary.scaling)
    metric = None
    if result.similarity is not None:
        metric = metric_of(result.similarity.metric, result.similarity.width)
    shown = pd.concat([largest["exemplar"].head(LARGEST), members["id"]]).astype(str)
    return Content(
        summary=result.summary,
        trace=in_order(result.trace, "iteration"),
        quality=None if result.quality is None else in_order(result.quality, "step"),
        tree=None if result.tree is None else in_order(result.tree, "join"),
        sizes=clusters["size"].to_numpy(np.int64),
        largest=largest,
        sample=sample[["id", "label"]],
        features=features,
        heads=heads,
        head_features=head_features,
        members=members,
        member_features=member_features,
        scaling=scaling,
        metric=metric,
        are_exemplars=known is None,
        feature_names=names if names and features is not None and len(names) == features.shape[1] else None,
        rows=Rows() if rows is None else rows_of(rows, shown),
    )


def _check_same(result: Result, labels: list[int], by_id: dict[str, Floats]) -> None:
    """Raise InputError if exemplars of the result have other features than the points with their ids."""
    if result.exemplar_features is None:
        return
    table = with_labels(result.exemplar_features, labels)
    for exemplar, features in zip(table["exemplar"].astype(str), table["features"], strict=True):
        there = by_id[exemplar]
        if len(there) != len(features) or not np.array_equal(there, features):
            raise InputError(
                f"points must be those of the result, but exemplar {exemplar!r} has the features {_short(features)} "
                f"there, and {_short(there)} here: give the same table, with rows in the same order if it has no ids"
            )


def _short(features: Any) -> str:
    return f"({', '.join(f'{value:g}' for value in features[:3])}{', ...' if len(features) > 3 else ''})"


def similarities_of(content: Content) -> tuple[Floats, NDArray[np.int64]] | None:
    """Return the similarities of members of the largest clusters, in the order of the clusters, and their labels.

    None where features or metric are not known.
    """
    if content.member_features is None or content.metric is None or not len(content.members):
        return None
    order = {label: place for place, label in enumerate(content.largest["label"])}
    labels = content.members["label"].to_numpy()
    drawn = content.members["any"].to_numpy() <= max(MATRIX // len(set(labels)), 2)
    labels = labels[drawn]
    by_cluster = np.argsort([order[label] for label in labels], kind="stable")
    x = content.member_features[drawn][by_cluster]
    prepared = prepare(content, x)
    return between(content.metric, prepared, prepared), labels[by_cluster]


def prepare(content: Content, x: Floats) -> Floats:
    """Return features as they are compared: scaled, and of unit length where the metric wants that."""
    if not len(x):
        return x
    x = x if content.scaling is None else content.scaling.of(x)
    return content.metric.prepare(x) if isinstance(content.metric, Metric) else x


def in_order(table: Any, column: str) -> pd.DataFrame:
    """Return a small table as one of pandas, in the order of a column."""
    found: pd.DataFrame = table.orderBy(column).toArrow().to_pandas() if isinstance(table, DataFrame) else table
    return found.sort_values(column, ignore_index=True)


def _few(table: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Return some columns of the exemplars, in the order of the labels."""
    few = table.select(*columns) if isinstance(table, DataFrame) else table[list(columns)]
    return in_order(few, "label")


def _as_assignments(exemplars: Any) -> Any:
    """Return the exemplars as (id, label)."""
    if isinstance(exemplars, DataFrame):
        return exemplars.select(F.col("exemplar").alias("id"), "label")
    return exemplars.rename(columns={"exemplar": "id"})[["id", "label"]]
