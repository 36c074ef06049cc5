"""The estimator, its model, and how both are saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark import keyword_only
from pyspark.ml import Estimator, Model
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vector, VectorUDT
from pyspark.ml.util import (
    DefaultParamsReadable,
    DefaultParamsReader,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
)
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import ArrayType, NumericType

from ap_spark._spark import classic
from ap_spark.errors import InputError, NotConverged
from ap_spark.ml.params import AffinityPropagationParams, EstimatorParams, errors_by_params
from ap_spark.pipeline import affinity_propagation, cluster_points
from ap_spark.result import Clustering, Summary
from ap_spark.schema import require_columns
from ap_spark.settings import NewPoints, Quality, Settings, Similarity, Sparsification, check_values
from ap_spark.similarity.assignment import Exemplars, exemplars_in, with_nearest
from ap_spark.similarity.metrics import metric_of
from ap_spark.similarity.scaling import Scaling

__all__ = ["AffinityPropagation", "AffinityPropagationModel", "AffinityPropagationSummary"]


class _Writer(DefaultParamsWriter):
    """Write an estimator: its params. Also on Spark Connect, where pyspark's own writer does not overwrite."""

    def _handleOverwrite(self, path: str) -> None:
        if classic.is_connect(self.sparkSession):
            from pyspark.ml.connect.readwrite import RemoteMLWriter

            RemoteMLWriter.handleOverwrite(path, True)
        else:
            super()._handleOverwrite(path)


class AffinityPropagation(
    Estimator["AffinityPropagationModel"], EstimatorParams, DefaultParamsReadable["AffinityPropagation"], MLWritable
):
    """Affinity propagation as an estimator of pyspark.ml.

    Parameters
    ----------
    featuresCol, predictionCol, idCol, exemplarCol, similarityCol : str
        Features are vectors, or arrays of numbers. Without ``idCol`` points are numbered.
    preference, preferenceQuantile, k, damping, maxIter, convergenceIter, seed
        See `affinity_propagation`; ``k`` is its ``clusters``.
    polish : bool
    gap : float
        See `Quality`; infinity is no bound.
    scale, metric, width, neighbors, search, recall
        See `Similarity`.
    minSimilarity : float, optional
        Of the model: points that are less similar to their nearest exemplar have no prediction (null).
    srcCol, dstCol, weightCol, symmetrize : str
        Of `assignClusters`.

    Notes
    -----
    Params are checked when they are used; a SettingError then says the rule.

    Examples
    --------
    >>> rows = [(n, [float(x)]) for n, x in enumerate([1, 2, 3, 7, 8, 9])]
    >>> points = spark.createDataFrame(rows, "id int, features array<double>")
    >>> model = AffinityPropagation(idCol="id", preference=-25.0).fit(points)
    >>> [row.prediction for row in model.transform(points).orderBy("id").collect()]
    [0, 0, 0, 1, 1, 1]
    >>> model.summary.k, model.summary.clusterSizes
    (2, [3, 3])
    >>> model.exemplars().select("exemplar", "features").collect()
    [Row(exemplar=1, features=[2.0]), Row(exemplar=4, features=[8.0])]
    """

    _input_kwargs: dict[str, Any]

    @keyword_only
    def __init__(
        self,
        *,
        featuresCol: str = "features",
        predictionCol: str = "prediction",
        idCol: str | None = None,
        exemplarCol: str | None = None,
        similarityCol: str | None = None,
        minSimilarity: float | None = None,
        preference: float | None = None,
        preferenceQuantile: float | None = None,
        k: int | None = None,
        damping: float | None = None,
        maxIter: int = Settings.max_iter,
        convergenceIter: int | None = None,
        seed: int = Settings.seed,
        polish: bool = Quality.polish,
        gap: float = 0.001,
        scale: str = Similarity.scale,
        metric: str = "sqeuclidean",
        width: float | None = None,
        neighbors: int | None = None,
        search: str = Similarity.search,
        recall: float = Similarity.recall,
        srcCol: str = "src",
        dstCol: str = "dst",
        weightCol: str | None = None,
        symmetrize: str = "union",
    ) -> None:
        super().__init__()
        self._set(**self._input_kwargs)

    def setParams(self, **params: Any) -> AffinityPropagation:
        """Set the values of some params, by name; None leaves one alone."""
        return self._set(**params)

    def _fit(self, dataset: DataFrame) -> AffinityPropagationModel:
        """Cluster points.

        Raises
        ------
        InputError, SettingError, StorageError
            See `cluster_points`.
        NotConverged
            If there is no exemplar when the run ends.
        """
        similarity, passing = self._checked_parameters()
        features = _features(dataset, self.getFeaturesCol()).alias("features")
        is_numbered = not self.isDefined(self.idCol)
        if is_numbered:  # persisted, since rows that are read again may have other numbers
            points = dataset.select(features).zipWithIndex("id").persist()
        else:
            require_columns(dataset, (self.getIdCol(),), "the dataset")
            points = dataset.select(F.col(self.getIdCol()).alias("id"), features)
        try:
            with errors_by_params():
                found = cluster_points(points, similarity=similarity, **passing)
            return self._copyValues(_model_of(found)._resetUid(self.uid))
        finally:
            if is_numbered:
                points.unpersist()

    def assignClusters(self, dataset: DataFrame) -> DataFrame:
        """Cluster the points of a similarity graph, as PowerIterationClustering does.

        Parameters
        ----------
        dataset : DataFrame
            Pairs of points ``srcCol`` and ``dstCol`` (ids, integers or strings), and their similarity ``weightCol``, 1
            without such a column. A pair that is given once counts in both directions (``symmetrize``). Rows of a point
            with itself are its preference.

        Returns
        -------
        DataFrame
            (id, cluster, exemplar, similarity), a row for each point; no rows where there is no exemplar.

        Raises
        ------
        InputError, SettingError, StorageError
            See `affinity_propagation`.

        Examples
        --------
        >>> edges = spark.createDataFrame([(0, 1, 0.9), (1, 2, 0.2), (2, 3, 0.7)], "src int, dst int, weight double")
        >>> found = AffinityPropagation(weightCol="weight", preference=0.1).assignClusters(edges)
        >>> [(row.id, row.cluster) for row in found.orderBy("id").collect()]
        [(0, 0), (1, 0), (2, 1), (3, 1)]
        """
        _, passing = self._checked_parameters()
        weight = F.col(self.getWeightCol()) if self.isDefined(self.weightCol) else F.lit(1.0)
        require_columns(dataset, (self.getSrcCol(), self.getDstCol()), "the dataset")
        pairs = dataset.select(
            F.col(self.getSrcCol()).alias("i"), F.col(self.getDstCol()).alias("k"), weight.alias("s")
        )
        with errors_by_params():
            sparsification = Sparsification(symmetrize=self.getSymmetrize())  # type: ignore[arg-type]
            found = affinity_propagation(pairs, sparsification=sparsification, **passing)
        assignments: DataFrame = found.assignments
        return assignments.select("id", F.col("label").cast("int").alias("cluster"), "exemplar", "similarity")

    def write(self) -> _Writer:
        """Return the writer: ``estimator.write().overwrite().save(path)``."""
        return _Writer(self)


@dataclass(frozen=True, repr=False)
class AffinityPropagationSummary:
    """How a model came about.

    Attributes
    ----------
    run : Summary
        The run in numbers, all of them.
    trace : DataFrame
        (iteration, exemplars, changed, unsettled, seconds).
    clusterSizes : list of int
    assignments : DataFrame or None
        (id, exemplar, label, similarity) of the points that were clustered; None for a model that was loaded.
    """

    run: Summary
    trace: DataFrame
    clusterSizes: list[int]
    assignments: DataFrame | None

    def __repr__(self) -> str:
        return str(self.run)

    @property
    def k(self) -> int:
        """The number of clusters."""
        return self.run.n_clusters

    @property
    def numIter(self) -> int:
        """The number of iterations."""
        return self.run.n_iter

    @property
    def converged(self) -> bool:
        """Whether the exemplars stood still, and every point had one."""
        return self.run.converged

    @property
    def netSimilarity(self) -> float:
        """The objective: similarities to exemplars, and preferences of exemplars."""
        return self.run.netsim

    @property
    def upperBound(self) -> float | None:
        """What no clustering exceeds; None where it was not computed."""
        return self.run.upper_bound


@dataclass(frozen=True)
class _Found:
    """What a run has found, on the driver.

    Attributes
    ----------
    run : Summary
    exemplars : Arrow table (label, exemplar, size, preference, mean_similarity, features)
        By label.
    trace : Arrow table
    assignments : DataFrame or None
    """

    run: Summary
    exemplars: pa.Table
    trace: pa.Table
    assignments: DataFrame | None = None

    @cached_property
    def compared(self) -> Exemplars:
        """What points are compared with."""
        settings, lists = self.run.settings, self.run.scaling
        scaling = None if lists is None else Scaling.from_lists(lists)
        return exemplars_in(self.exemplars, metric_of(settings["metric"], settings["width"]), scaling)


class AffinityPropagationModel(Model, AffinityPropagationParams, MLReadable["AffinityPropagationModel"], MLWritable):
    """Exemplars, to which points are assigned: each to the nearest, exactly. See `AffinityPropagation`."""

    def __init__(self, found: _Found) -> None:
        super().__init__()
        self._found = found

    def _transform(self, dataset: DataFrame) -> DataFrame:
        """Add the label of the nearest exemplar, its id and the similarity to it, where there are columns for these.

        Raises
        ------
        InputError
            If the features are no vectors. A task raises it for a vector that breaks a rule.
        SettingError
            If ``minSimilarity`` is not finite.
        """
        features, nearest = _features(dataset, self.getFeaturesCol()), f"{self.uid}_nearest"
        found = with_nearest(dataset, features, self._found.compared, nearest)
        is_near = F.lit(True)
        if self.isDefined(self.minSimilarity):
            with errors_by_params():
                check_values(NewPoints, min_similarity=self.getMinSimilarity())
            is_near = F.col(nearest)["similarity"] >= F.lit(self.getMinSimilarity())
        label, exemplar = (F.when(is_near, F.col(nearest)[field]) for field in ("label", "exemplar"))
        added = {self.getPredictionCol(): label.cast("int")}
        if self.isDefined(self.exemplarCol):
            added[self.getExemplarCol()] = exemplar
        if self.isDefined(self.similarityCol):
            added[self.getSimilarityCol()] = F.col(nearest)["similarity"]
        return found.withColumns(added).drop(nearest)

    @property
    def hasSummary(self) -> bool:
        """Whether there is a summary; a model that was loaded has one too."""
        return True

    @property
    def summary(self) -> AffinityPropagationSummary:
        """How the model came about."""
        found = self._found
        sizes = found.exemplars["size"].to_pylist()
        trace = SparkSession.active().createDataFrame(found.trace)
        return AffinityPropagationSummary(found.run, trace, sizes, found.assignments)

    def exemplars(self) -> DataFrame:
        """Return (label, exemplar, size, preference, mean_similarity, features), a row for each cluster."""
        return SparkSession.active().createDataFrame(self._found.exemplars)

    def clusterCenters(self) -> list[NDArray[np.float64]]:
        """Return the features of the exemplars, by label."""
        return [np.array(features) for features in self._found.exemplars["features"].to_pylist()]

    def predict(self, value: Vector) -> int | None:
        """Return the label of the nearest exemplar of one vector; None below ``minSimilarity``."""
        found = self._found.compared.nearest(value.toArray())
        if self.isDefined(self.minSimilarity) and found["similarity"] < self.getMinSimilarity():
            return None
        return int(found["label"])

    def write(self) -> _ModelWriter:
        """Return the writer: ``model.write().overwrite().save(path)``."""
        return _ModelWriter(self)

    @classmethod
    def read(cls) -> _ModelReader:
        """Return the reader: ``AffinityPropagationModel.read().load(path)``."""
        return _ModelReader()


def _model_of(found: Clustering) -> AffinityPropagationModel:
    """Return the model of a clustering of points.

    Raises
    ------
    NotConverged
        If there is no exemplar.
    """
    if not found.summary.n_clusters:
        raise NotConverged(
            f"a model needs at least one exemplar, but there is none after {found.n_iter:,} iterations: try more "
            "(maxIter), or another preference"
        )
    assert found.exemplar_features is not None
    features = found.exemplar_features.select("label", "features")
    exemplars = found.exemplars.join(features, "label").toArrow().sort_by("label")
    return AffinityPropagationModel(_Found(found.summary, exemplars, found.trace.toArrow(), found.assignments))


class _ModelWriter(_Writer):
    """Write a model: its params and the run in numbers as JSON, exemplars and trace as Parquet."""

    def saveImpl(self, path: str) -> None:
        found = self.instance._found  # type: ignore[attr-defined]
        DefaultParamsWriter.saveMetadata(self.instance, path, self.sparkSession, {"run": asdict(found.run)})
        for name in ("exemplars", "trace"):
            table = self.sparkSession.createDataFrame(getattr(found, name))
            table.coalesce(1).write.parquet(f"{path}/{name}")


class _ModelReader(MLReader[AffinityPropagationModel]):
    """Read what `_ModelWriter` has written."""

    def load(self, path: str) -> AffinityPropagationModel:
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        known = {field.name for field in fields(Summary)}
        run = Summary(**{name: value for name, value in metadata["run"].items() if name in known})
        tables = (
            self.sparkSession.read.parquet(f"{path}/{name}").toArrow().sort_by(order)
            for name, order in (("exemplars", "label"), ("trace", "iteration"))
        )
        model = AffinityPropagationModel(_Found(run, *tables))._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model


def _features(dataset: DataFrame, name: str) -> Column:
    """Return a column of vectors or arrays of numbers, as arrays of doubles."""
    require_columns(dataset, (name,), "the dataset")
    kind = dataset.schema[name].dataType
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType):
        return F.col(name).cast("array<double>")
    if isinstance(kind, VectorUDT):
        return F.when(F.col(name).isNotNull(), vector_to_array(F.col(name)))
    raise InputError(
        f"features must be vectors or arrays of numbers, but column {name!r} holds {kind.simpleString()}: a "
        "VectorAssembler makes vectors of columns"
    )
