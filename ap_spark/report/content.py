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

from ap_spark.errors import InputError
from ap_spark.io.frames import arrow_table, as_points, is_local, to_spark
from ap_spark.io.readers import CELLS, IMAGE, MOST_CELLS
from ap_spark.report.few_rows import by_chance, ends_of_clusters, with_ids, with_labels
from ap_spark.settings import PairFunction, Similarity
from ap_spark.similarity.metrics import Metric, between, metric_of
from ap_spark.similarity.scaling import Scaling

__all__ = ["Content", "Floats", "Result", "Rows", "gather", "in_pandas", "rows_of"]

Floats = NDArray[np.float64]

SAMPLE = 20_000  # points drawn
LARGEST = 12  # clusters whose members are looked at
NAMED = 30  # clusters that are named
ENDS = 3  # members at each end of them
MATRIX = 240  # points of the matrix of similarities


class Result(Protocol):
    """What a `Clustering` has."""

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
class Rows:
    """Rows of the input, as they are shown beside points.

    Attributes
    ----------
    table : DataFrame
        (id, cells array<string>[, image binary]), of Spark or of pandas.
    names : list of str
        Of the cells.
    """

    table: Any
    names: list[str]


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
        Of the sample, as points were compared.
    heads : DataFrame of pandas
        (label, exemplar) of the clusters of the sample, in the order of the labels.
    head_features : float64, shape (len(heads), d), optional
    members : DataFrame of pandas
        Of the largest clusters; see `ends_of_clusters`.
    member_features : float64, shape (len(members), d), optional
    metric : Metric or callable, optional
        How the features are compared.
    are_exemplars : bool
        Whether the sample is one of exemplars, since the points are not known.
    feature_names : list of str, optional
    rows : dict
        Cells of rows of the input, by the id as a string.
    images : dict
        Images in rows of the input, likewise.
    row_names : list of str
        Of the cells.
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
    metric: Metric | PairFunction | None
    are_exemplars: bool
    feature_names: list[str] | None
    rows: dict[str, list[str | None]]
    images: dict[str, bytes]
    row_names: list[str]

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """The place among the heads of the exemplar of each point of the sample."""
        return np.searchsorted(self.heads["label"].to_numpy(), self.sample["label"].to_numpy()).astype(np.int64)


def gather(result: Result, points: Any = None, rows: Any = None) -> Content:
    """Read from a result, its points and their rows what is to be shown.

    Parameters
    ----------
    result : Clustering
    points : DataFrame of Spark or pandas, or array, optional
        The points of the run, as `cluster_points` takes them; by default those that the result knows.
    rows : DataFrame of Spark or pandas, optional
        Their rows with whatever columns, to be shown: the id is in a column id, or in the index of pandas.

    Raises
    ------
    InputError
        If the points or the rows are not those of the result.
    """
    points = result.points if points is None else points
    clusters = _few(result.exemplars, ["label", "exemplar", "size", "mean_similarity"])
    largest = clusters.sort_values(["size", "label"], ascending=[False, True]).head(NAMED)
    of_largest = largest["label"].head(LARGEST).tolist()
    members = ends_of_clusters(result.assignments, of_largest, ENDS, max(MATRIX // max(len(of_largest), 1), 2))
    known = None if points is None else _Points.of(points)
    are_exemplars = known is None
    sample = by_chance(result.assignments if known else _as_assignments(result.exemplars), SAMPLE)[["id", "label"]]
    heads = clusters[clusters["label"].isin({*sample["label"], *of_largest})][["label", "exemplar"]]
    features = head_features = member_features = None
    if known is not None:
        wanted = pd.concat([sample["id"], heads["exemplar"], members["id"]]).astype(str)
        known = known.some(wanted.drop_duplicates())
        features, head_features, member_features = (
            known.features_of(ids, result.summary) for ids in (sample["id"], heads["exemplar"], members["id"])
        )
    elif result.exemplar_features is not None:
        table = with_labels(result.exemplar_features, heads["label"].tolist())
        features = head_features = _scaled(_matrix(table["features"]), result.summary)
        sample = heads.rename(columns={"exemplar": "id"})[["id", "label"]]
    metric = None
    if result.similarity is not None:
        metric = metric_of(result.similarity.metric, result.similarity.width)
    shown = pd.concat([largest["exemplar"], members["id"]]).astype(str)
    cells, images, names = _cells(rows_of(rows), shown) if rows is not None else ({}, {}, [])
    return Content(
        result.summary,
        in_pandas(result.trace, "iteration"),
        None if result.quality is None else in_pandas(result.quality, "step"),
        None if result.tree is None else in_pandas(result.tree, "join"),
        clusters["size"].to_numpy(np.int64),
        largest,
        sample,
        features,
        heads,
        head_features,
        members,
        member_features,
        metric,
        are_exemplars,
        known.names if known is not None else None,
        cells,
        images,
        names,
    )


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
    prepared = content.metric.prepare(x) if isinstance(content.metric, Metric) else x
    return between(content.metric, prepared, prepared), labels[by_cluster]


def in_pandas(table: Any, order: str) -> pd.DataFrame:
    """Return a small table as one of pandas, in the order of a column."""
    found: pd.DataFrame = table.orderBy(order).toArrow().to_pandas() if isinstance(table, DataFrame) else table
    return found.sort_values(order, ignore_index=True)


def rows_of(rows: Any) -> Rows:
    """Return a table as rows to be shown: its first columns as text, and its first column of images."""
    if isinstance(rows, DataFrame) and CELLS in rows.columns:  # as `read_points_of_command` has read them
        kept = [name for name in ("id", CELLS, IMAGE) if name in rows.columns]
        return Rows(rows.select(*kept), rows.schema[CELLS].metadata.get("names", []))
    if isinstance(rows, pd.DataFrame):
        named = rows.rename(columns=str)
        named = named if "id" in named.columns else named.reset_index(names="id")
        is_image = [name for name in named.columns if named[name].map(lambda cell: isinstance(cell, bytes)).any()]
        names = [name for name in named.columns if name != "id" and name not in is_image][:MOST_CELLS]
        texts = [[None if _is_missing(cell) else str(cell) for cell in row] for row in named[names].to_numpy()]
        here = pd.DataFrame({"id": named["id"].astype(str), CELLS: texts})
        return Rows(here.assign(**{IMAGE: named[is_image[0]]}) if is_image else here, names)
    table = to_spark(rows, "rows")
    if "id" not in table.columns:
        raise InputError(f"rows must have their ids in a column 'id', but there are {', '.join(table.columns)}")
    kinds = dict(table.dtypes)
    names = [name for name in table.columns if name != "id" and kinds[name] != "binary"][:MOST_CELLS]
    images = [F.col(f"`{name}`").alias(IMAGE) for name, kind in kinds.items() if kind == "binary"][:1]
    cells = F.array(*(F.col(f"`{name}`").cast("string") for name in names)).alias(CELLS)
    return Rows(table.select(F.col("id").cast("string"), cells, *images), names)


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell)


def _cells(rows: Rows, ids: pd.Series) -> tuple[dict[str, list[str | None]], dict[str, bytes], list[str]]:
    """Return the cells and the images of some rows, by id, and the names of the cells."""
    table = rows.table
    found = with_ids(table, ids) if isinstance(table, DataFrame) else table[table["id"].isin(ids)]
    keys = found["id"].astype(str)
    cells = {key: list(row) for key, row in zip(keys, found["cells"], strict=True)}
    images = dict(zip(keys, found["image"], strict=True)) if "image" in found.columns else {}
    return cells, {key: image for key, image in images.items() if image is not None}, rows.names


def _few(table: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Return some columns of the exemplars, in the order of the labels."""
    few = table.select(*columns) if isinstance(table, DataFrame) else table[list(columns)]
    return in_pandas(few, "label")


def _as_assignments(exemplars: Any) -> Any:
    """Return the exemplars as (id, label)."""
    if isinstance(exemplars, DataFrame):
        return exemplars.select(F.col("exemplar").alias("id"), "label")
    return exemplars.rename(columns={"exemplar": "id"})[["id", "label"]]


@dataclass(frozen=True)
class _Points:
    """Points, of which some are wanted.

    Attributes
    ----------
    table : DataFrame of Spark or pandas
        (id, features).
    names : list of str, optional
        Of the features.
    """

    table: Any
    names: list[str] | None

    @classmethod
    def of(cls, points: Any) -> _Points:
        names = [str(name) for name in getattr(points, "columns", []) if name not in ("id", "features", "preference")]
        if is_local(points):
            table = arrow_table(points, "points").to_pandas()
            if "features" not in table.columns:  # some columns are no features: the readers say which
                table = as_points(to_spark(points, "points"))
        else:
            table = as_points(to_spark(points, "points"))
        return cls(table, names or None)

    def some(self, ids: pd.Series) -> _Points:
        """Return the points with these ids, by their ids as strings."""
        table = self.table
        found = with_ids(table, ids) if isinstance(table, DataFrame) else table
        return _Points(found.set_axis(found["id"].astype(str), axis=0), self.names)

    def features_of(self, ids: pd.Series, summary: Any) -> Floats:
        """Return the features of some points, scaled as those of the run."""
        wanted = ids.astype(str)
        missing = ~wanted.isin(self.table.index)
        if missing.any():
            raise InputError(
                f"points must be those of the result, but id {ids[missing].iloc[0]!r} is not among them: give the same "
                "table, with the same id column"
            )
        return _scaled(_matrix(self.table["features"].loc[wanted.tolist()]), summary)


def _matrix(features: pd.Series) -> Floats:
    return np.array(features.tolist(), np.float64).reshape(len(features), -1 if len(features) else 0)


def _scaled(x: Floats, summary: Any) -> Floats:
    return x if summary.scaling is None or not len(x) else Scaling.from_lists(summary.scaling).of(x)
