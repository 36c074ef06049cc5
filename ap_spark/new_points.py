"""New points: each gets the nearest of the exemplars that a run has found.

points ──► features ──┐
                      ├──► compared in tasks ──► (id, exemplar, label, similarity)
exemplars ────────────┘
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, Window

from ap_spark._spark.session import current_session
from ap_spark.errors import InputError, SettingError, errors_from_tasks
from ap_spark.exact_sum import exact_sum, units_of
from ap_spark.foreign_names import explains_keywords
from ap_spark.io.frames import arrow_table, as_points, is_local, to_spark
from ap_spark.io.writer import OutputDirectory
from ap_spark.result import Clustering
from ap_spark.schema import check_unique
from ap_spark.settings import NewPoints, Similarity, TablesOutput, check_values
from ap_spark.similarity.assignment import NO_EXEMPLARS, Exemplars, collect_exemplars, with_nearest
from ap_spark.similarity.metrics import METRICS, metric_of
from ap_spark.similarity.scaling import Scaling
from ap_spark.similarity.vectors import check_vectors
from ap_spark.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Points = DataFrame | pd.DataFrame | NDArray[np.floating[Any] | np.integer[Any]]

__all__ = ["Totals", "assign", "assigned", "exemplars_of", "publish_assigned", "totals_of", "unless_below"]

_SMALL = 1e-280  # similarities so small are rounded in a mean


@explains_keywords
def assign(
    points: Points,
    exemplars: Clustering | str | PathLike[str] | Points,
    *,
    min_similarity: float | None = NewPoints.min_similarity,
    similarity: Similarity | None = None,
) -> Any:
    """Assign new points to the nearest of the exemplars that a run has found.

    Parameters
    ----------
    points : DataFrame of Spark or pandas, or array of shape (n_points, n_features)
        As `cluster_points` takes them, with the same features as the points of the run. Any number of points; each is
        assigned by itself. Their ids need not be of the same type as those of the exemplars.
    exemplars : Clustering, str or DataFrame
        A result of points; the directory of one that `Clustering.save` or the command has written; or a table of
        exemplars, as points.
    min_similarity : float, optional
        A finite number. Points that are less similar to their nearest exemplar stay unassigned.
    similarity : Similarity, optional
        How points are compared: only its metric and width count. By default as the run has compared them. Give it with
        a table of exemplars, unless the metric is "sqeuclidean"; and with a result that was loaded, if the metric was a
        function. A table of exemplars is not scaled.

    Returns
    -------
    DataFrame of Spark or pandas, as the points
        (id, exemplar, label, similarity), a row for each point, in the order of the points of pandas. One of Spark is
        computed when it is used. The similarity is that to
        the nearest exemplar, in float64, exactly; of equally near ones that with the smallest id is taken. Exemplar and
        label are null where the point stays unassigned. Labels of a table of exemplars follow their ids in order.

    Raises
    ------
    InputError
        If the points break a rule of the input, or have other features than the exemplars; if the result is one of
        similarities, without features, or has no exemplars; if the directory holds no result.
    SettingError
        If a parameter is outside its range, or the points are a stream.

    Examples
    --------
    >>> from ap_spark import cluster_points
    >>> points = spark.createDataFrame([(n, [float(n)]) for n in (1, 2, 3, 7, 8, 9)], "id int, features array<double>")
    >>> clustering = cluster_points(points, preference=-25.0)
    >>> new = spark.createDataFrame([("a", [4.0]), ("b", [50.0])], "id string, features array<double>")
    >>> for row in assign(new, clustering, min_similarity=-100.0).orderBy("id").collect():
    ...     print(row.id, row.exemplar, row.label, row.similarity)
    a 2 0 -4.0
    b None None -1764.0
    """
    check_values(NewPoints, min_similarity=min_similarity)
    if not is_local(points):
        given = to_spark(points, "points")
        if given.isStreaming:
            raise SettingError("points must be a table, not a stream: `assign_stream` takes one")
        return assigned(as_points(given), exemplars_of(exemplars, similarity), min_similarity)[0]
    rows = arrow_table(points, "points")
    place = rows.schema.get_field_index("id")
    numbered = rows.set_column(place, "id", pa.array(np.arange(len(rows))))
    table = current_session().createDataFrame(numbered)
    known = exemplars_of(exemplars, similarity)
    found = assigned(as_points(table), known, min_similarity)[0].toArrow().sort_by("id")
    return _in_pandas(found.set_column(0, "id", rows["id"]))


def _in_pandas(table: pa.Table) -> pd.DataFrame:
    """Return assigned points as a table of pandas, whose exemplars and labels may be missing whole numbers."""
    import pandas as pd

    found: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return found.assign(id=table["id"].to_pandas())


def exemplars_of(
    exemplars: Clustering | str | PathLike[str] | Points, similarity: Similarity | None = None
) -> Exemplars:
    """Return what new points are compared with; see `assign`."""
    if similarity is not None and not isinstance(similarity, Similarity):
        raise SettingError(f"similarity must be a `Similarity`, got {similarity!r}")
    if isinstance(exemplars, (str, PathLike)):
        exemplars = Clustering.load(fspath(exemplars))
    if not isinstance(exemplars, Clustering):
        chosen = similarity or Similarity()
        if chosen.scale != "none":
            raise SettingError(
                f"a table of exemplars is compared as it is, so scale must be none, got {chosen.scale!r}: scale it "
                "together with the points"
            )
        features = _labelled(as_points(to_spark(exemplars, "points")))
        return collect_exemplars(features, metric_of(chosen.metric, chosen.width), None)
    if not exemplars.summary.n_clusters:
        raise InputError(NO_EXEMPLARS)
    if exemplars.exemplar_features is None:
        raise InputError(
            "new points are compared with the features of exemplars, but this result has none: it is one of "
            "similarities, or was saved before features were kept; give the exemplars as a table (id, features)"
        )
    as_run = similarity or exemplars.similarity
    if as_run is None:
        raise SettingError(
            "the metric of this result was a function, which is not saved: give it again, "
            "similarity=Similarity(metric=function)"
        )
    lists = exemplars.summary.scaling
    scaling = None if lists is None else Scaling.from_lists(lists)
    features = to_spark(exemplars.exemplar_features, "exemplar features")
    return collect_exemplars(features, metric_of(as_run.metric, as_run.width), scaling)


def _labelled(points: DataFrame) -> DataFrame:
    """Return a table of exemplars as (label, exemplar, features): labels follow the ids in order."""
    check_unique(points, "id", "the exemplars")
    label = F.row_number().over(Window.orderBy("id")).cast("bigint") - F.lit(1).cast("bigint")
    return points.select(label.alias("label"), F.col("id").alias("exemplar"), "features")


def assigned(points: DataFrame, exemplars: Exemplars, min_similarity: float | None) -> tuple[DataFrame, int]:
    """Check points (id, features array<double>); return them as (id, exemplar, label, similarity), and their number."""
    # Scaled vectors are checked in the tasks; here it is only seen that they are vectors.
    points, count, dimensions = check_vectors(points, METRICS["manhattan"] if exemplars.is_scaled else exemplars.metric)
    if dimensions != exemplars.dimensions:
        raise InputError(
            f"new points must have the features of the exemplars, {exemplars.dimensions:,} of them, but they have "
            f"{dimensions:,}: name the columns with the features, in the same order"
        )
    found = with_nearest(points, F.col("features"), exemplars, "nearest")
    return found.select("id", *unless_below(min_similarity, F.col("nearest"))), count


def publish_assigned(
    points: DataFrame,
    exemplars: Exemplars,
    min_similarity: float | None,
    directory: OutputDirectory,
    output: TablesOutput,
    summary: dict[str, Any],
) -> Totals:
    """Assign points, and publish them in a directory that has been claimed.

    ``summary`` is for summary.json: ``settings``, and ``seconds``, to which those of writing are added.
    """
    with errors_from_tasks():
        table, count = assigned(points, exemplars, min_similarity)
        table.persist()
        try:
            totals = totals_of(table)
            directory.publish(
                {"assigned": (table, count)},
                output.output_format,
                asdict(totals) | {"n_exemplars": len(exemplars), "versions": {"ap_spark": __version__}} | summary,
                single_file=output.single_file,
            )
        finally:
            table.unpersist()
    return totals


def unless_below(min_similarity: float | None, nearest: Column) -> list[Column]:
    """Return exemplar, label and similarity of a nearest exemplar; the first two are null if it is too far away."""

    def near(field: str) -> Column:
        return nearest[field] if min_similarity is None else F.when(is_near, nearest[field])

    is_near = nearest["similarity"] >= F.lit(min_similarity)
    return [near("exemplar").alias("exemplar"), near("label").alias("label"), nearest["similarity"].alias("similarity")]


@dataclass(frozen=True)
class Totals:
    """How some points were assigned.

    Attributes
    ----------
    n_points, n_unassigned : int
    unassigned : float
        The share of points that are not assigned, in [0, 1].
    mean_similarity : float or None
        Of all points to their nearest exemplar, whether they are assigned to it or not; None without points.
    """

    n_points: int
    n_unassigned: int
    unassigned: float
    mean_similarity: float | None

    def __str__(self) -> str:
        mean = "" if self.mean_similarity is None else f", mean similarity {self.mean_similarity:.6g}"
        return f"{self.n_points:,} points{mean}, {100 * self.unassigned:.3g} % unassigned"


def totals_of(table: DataFrame) -> Totals:
    """Return how the points of a table (id, exemplar, label, similarity) were assigned. It is read twice."""
    size = F.abs("similarity")
    found = table.agg(F.count("*"), F.count_if(F.isnull("label")), F.max(size), F.min(F.when(size > 0, size))).first()
    assert found is not None
    count, unassigned, largest, smallest = found
    if not count:
        return Totals(0, 0, 0.0, None)
    total = table.agg(
        exact_sum(F.col("similarity"), units_of(max(largest, _SMALL), count, smallest or math.inf))
    ).first()
    assert total is not None
    return Totals(count, unassigned, unassigned / count, total[0] / count)
