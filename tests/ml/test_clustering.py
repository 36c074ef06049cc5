"""The estimator and its model: what Spark asks of its own clustering estimators."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyspark.sql.functions as F
import pytest
from pyspark.errors import AnalysisException, PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import ClusteringEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import DataFrame, SparkSession

from ap_spark import InputError, NotConverged, SettingError, Similarity, affinity_propagation, assign, cluster_points
from ap_spark.ml import AffinityPropagation, AffinityPropagationModel
from tests.conftest import held_tables

pytestmark = pytest.mark.usefixtures("spark")

RNG = np.random.default_rng(5)
X = np.repeat(np.array([[0.0, 0.0, 9.0], [20.0, 0.0, 9.0], [0.0, 30.0, 5.0]]), 8, axis=0) + RNG.normal(size=(24, 3))
NEW = np.array([[1.0, 0.0, 9.0], [30.0, 1.0, 9.0], [0.0, 31.0, 5.0]])


@pytest.fixture(scope="module")
def points(spark: SparkSession) -> DataFrame:
    """Names, vectors, and a column that is nobody's business."""
    rows = [(f"p{n:02}", Vectors.dense(row), n % 3) for n, row in enumerate(X)]
    return spark.createDataFrame(rows, ["name", "features", "other"])


@pytest.fixture(scope="module")
def estimator() -> AffinityPropagation:
    return AffinityPropagation(idCol="name", scale="standard", metric="manhattan", preferenceQuantile=0.1)


@pytest.fixture(scope="module")
def model(estimator: AffinityPropagation, points: DataFrame) -> AffinityPropagationModel:
    return estimator.fit(points)


def predictions(table: DataFrame, order: str = "name") -> list[Any]:
    return [row.prediction for row in table.orderBy(order).collect()]


def test_a_model_is_the_clustering_that_the_function_finds(
    estimator: AffinityPropagation, model: AffinityPropagationModel, points: DataFrame
) -> None:
    arrays = points.select(F.col("name").alias("id"), vector_to_array(F.col("features")).alias("features"))
    found = cluster_points(arrays, similarity=Similarity(scale="standard", metric="manhattan"), preference_quantile=0.1)
    known = {row.id: (row.exemplar, row.label) for row in found.assignments.collect()}
    said = model.transform(points, {model.exemplarCol: "exemplar"}).collect()
    assert {row["name"]: (row.exemplar, row.prediction) for row in said} == known
    assert len(set(known.values())) > 1
    summary, run = model.summary, found.summary
    assert model.hasSummary
    assert (summary.k, summary.numIter, summary.converged) == (run.n_clusters, run.n_iter, run.converged)
    assert (summary.netSimilarity, summary.upperBound) == (run.netsim, run.upper_bound)
    assert summary.clusterSizes == [row.size for row in found.exemplars.orderBy("label").collect()]
    assert summary.trace.count() == run.n_iter
    assert summary.assignments is not None
    assert sorted(summary.assignments.collect()) == sorted(found.assignments.collect())
    assert repr(summary) == str(model._found.run)
    assert model.uid == estimator.uid
    assert model.getMetric() == "manhattan"


def test_what_transform_adds(model: AffinityPropagationModel, points: DataFrame) -> None:
    """To vectors and to arrays, under other names, and to points that are too far from all exemplars."""
    plain = model.transform(points)
    assert plain.columns == ["name", "features", "other", "prediction"]
    assert plain.schema["prediction"].dataType.simpleString() == "int"
    assert plain.schema["features"] == points.schema["features"]
    spark = points.sparkSession
    arrays = spark.createDataFrame([(n, row) for n, row in enumerate(NEW.tolist())], "id int, v array<double>")
    named = model.copy()
    named.setFeaturesCol("v").setPredictionCol("p").setExemplarCol("e").setSimilarityCol("s")
    farthest, next_one, _ = sorted(row.s for row in named.transform(arrays).collect())
    least = (farthest + next_one) / 2
    named.setMinSimilarity(least)
    rows = named.transform(arrays).orderBy("id").collect()
    exemplars = model.exemplars().select(F.col("exemplar").alias("id"), "features")
    run = model._found
    assert run.run.scaling is not None
    shift, width = (np.array(run.run.scaling[name]) for name in ("shift", "width"))
    scaled = [(row.id, (np.array(row.features) - shift) / width) for row in sorted(exemplars.collect())]
    new = spark.createDataFrame(
        [(n, ((row - shift) / width).tolist()) for n, row in enumerate(NEW)], "id int, features array<double>"
    )
    table = spark.createDataFrame([(name, row.tolist()) for name, row in scaled], "id string, features array<double>")
    expected = assign(new, table, similarity=Similarity(metric="manhattan"), min_similarity=least)
    assert [(row.id, row.e, row.p, row.s) for row in rows] == sorted(map(tuple, expected.collect()))
    assert [row.p is None for row in rows].count(True) == 1
    assert [named.predict(Vectors.dense(row)) for row in NEW] == [row.p for row in rows]
    assert [center.tolist() for center in model.clusterCenters()] == [
        row.features for row in sorted(exemplars.collect())
    ]


@pytest.mark.long
def test_an_evaluator_takes_the_predictions(model: AffinityPropagationModel, points: DataFrame) -> None:
    silhouette = ClusteringEvaluator().evaluate(model.transform(points))
    assert silhouette > 0.9


def test_a_copy_of_a_model_has_the_same_exemplars(model: AffinityPropagationModel, points: DataFrame) -> None:
    other = model.copy({model.predictionCol: "p"})
    assert other.uid == model.uid
    assert model.getPredictionCol() == "prediction"
    assert [row.p for row in other.transform(points).orderBy("name").collect()] == predictions(model.transform(points))


@pytest.mark.long
def test_an_estimator_is_saved_and_loaded(tmp_path: Path, estimator: AffinityPropagation) -> None:
    path = str(tmp_path / "estimator")
    estimator.save(path)
    metadata = json.loads(next((tmp_path / "estimator" / "metadata").glob("part-*")).read_text())
    assert metadata["class"] == "ap_spark.ml.clustering.AffinityPropagation"
    loaded = AffinityPropagation.load(path)
    assert loaded.uid == estimator.uid
    assert loaded._paramMap == estimator._paramMap
    assert loaded._defaultParamMap == estimator._defaultParamMap
    with pytest.raises(AnalysisException, match="already exists"):
        estimator.save(path)
    other = AffinityPropagation(k=3)
    other.write().overwrite().save(path)
    assert AffinityPropagation.load(path).uid == other.uid


def test_a_model_is_saved_and_loaded(tmp_path: Path, model: AffinityPropagationModel, points: DataFrame) -> None:
    path = str(tmp_path / "model")
    model.save(path)
    loaded = AffinityPropagationModel.load(path)
    assert loaded.uid == model.uid
    assert loaded._paramMap == model._paramMap
    assert loaded._found.run == model._found.run
    assert loaded._found.exemplars == model._found.exemplars
    assert loaded._found.trace == model._found.trace
    assert loaded.hasSummary
    assert loaded.summary.assignments is None, "training data are not saved"
    assert predictions(loaded.transform(points)) == predictions(model.transform(points))
    assert loaded.predict(Vectors.dense(NEW[2])) == model.predict(Vectors.dense(NEW[2]))


@pytest.mark.long
def test_pairs_as_of_power_iteration_clustering(spark: SparkSession) -> None:
    """Each given once; without a weight all count the same."""
    pairs = [(1, 0, 0.5), (2, 0, 0.4), (2, 1, 0.7), (4, 3, 0.9), (5, 3, 0.8), (5, 4, 0.6), (3, 2, 0.01)]
    table = spark.createDataFrame(pairs, "a int, b int, w double")
    one = AffinityPropagation(srcCol="a", dstCol="b", weightCol="w", preference=0.3)
    found = one.assignClusters(table)
    assert found.columns == ["id", "cluster", "exemplar", "similarity"]
    assert found.schema["cluster"].dataType.simpleString() == "int"
    both = spark.createDataFrame(pairs + [(b, a, w) for a, b, w in pairs], "i int, k int, s double")
    expected = affinity_propagation(both, preference=0.3).assignments
    rows = sorted(map(tuple, found.select("id", "exemplar", "cluster", "similarity").collect()), key=repr)
    assert rows == sorted(map(tuple, expected.collect()), key=repr)
    assert len({cluster for _, _, cluster, _ in rows}) == 2


@pytest.mark.long
def test_pairs_without_a_weight_all_count_the_same(spark: SparkSession) -> None:
    pairs = spark.createDataFrame([(0, 1), (0, 2), (3, 4), (3, 5)], "src int, dst int")
    rows = AffinityPropagation(preference=0.0).assignClusters(pairs).orderBy("id").collect()
    assert [row.exemplar for row in rows] == [0, 0, 0, 3, 3, 3]
    with pytest.raises(SettingError, match="symmetrize must be one of none, union, mutual"):
        AffinityPropagation(symmetrize="both").assignClusters(pairs)


@pytest.mark.long
def test_what_cannot_be_clustered_or_assigned_is_refused_in_words(
    model: AffinityPropagationModel, points: DataFrame
) -> None:
    with pytest.raises(InputError, match="features must be vectors or arrays of numbers, but column 'name' holds str"):
        AffinityPropagation(featuresCol="name").fit(points)
    with pytest.raises(InputError, match="the dataset must have the columns id, but id is missing"):
        AffinityPropagation(idCol="id").fit(points)
    with pytest.raises(SettingError, match="minSimilarity must be a finite number"):
        model.transform(points, {model.minSimilarity: float("inf")})
    short = points.sparkSession.createDataFrame([([1.0],), (None,)], "features array<double>")
    with pytest.raises(PySparkException, match="InputError: features of new points must be 3 finite numbers each"):
        model.transform(short).collect()


@pytest.mark.long
def test_points_without_ids_are_numbered(points: DataFrame) -> None:
    before = held_tables(points.sparkSession)
    found = AffinityPropagation(preferenceQuantile=0.1).fit(points)
    exemplars = [row.exemplar for row in found.exemplars().orderBy("label").collect()]
    known = cluster_points(X, preference_quantile=0.1)
    assert exemplars == known.exemplars.sort_values("label")["exemplar"].tolist()
    assert held_tables(points.sparkSession).keys() <= before.keys()


@pytest.mark.long
def test_without_an_exemplar_there_is_no_model(points: DataFrame) -> None:
    with pytest.raises(NotConverged, match="needs at least one exemplar, but there is none after 1 iterations"):
        AffinityPropagation(preference=-1e6, maxIter=1).fit(points)


@pytest.mark.long
def test_in_a_pipeline(spark: SparkSession, tmp_path: Path) -> None:
    table = spark.createDataFrame(
        [(n, *row) for n, row in enumerate(X.tolist())], "id int, x double, y double, z double"
    )
    assembler = VectorAssembler(inputCols=["x", "y", "z"], outputCol="v")
    pipeline = Pipeline(stages=[assembler, AffinityPropagation(featuresCol="v", idCol="id", preferenceQuantile=0.1)])
    fitted = pipeline.fit(table)
    before = predictions(fitted.transform(table), "id")
    pipeline.write().overwrite().save(str(tmp_path / "pipeline"))
    fitted.write().overwrite().save(str(tmp_path / "fitted"))
    loaded = PipelineModel.load(str(tmp_path / "fitted"))
    assert [type(stage).__name__ for stage in loaded.stages] == ["VectorAssembler", "AffinityPropagationModel"]
    assert predictions(loaded.transform(table), "id") == before
    again = Pipeline.load(str(tmp_path / "pipeline")).fit(table)
    assert predictions(again.transform(table), "id") == before


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Spark leaves thread pools open
def test_tuning_finds_the_better_preference(points: DataFrame, tmp_path: Path) -> None:
    one = AffinityPropagation(polish=False, gap=float("inf"))
    grid = ParamGridBuilder().addGrid(one.preference, [-1000.0, -0.5]).build()
    split = TrainValidationSplit(estimator=one, estimatorParamMaps=grid, evaluator=ClusteringEvaluator(), seed=1)
    assert split.fit(points).bestModel.getPreference() == -1000.0  # type: ignore[attr-defined]
    validator = CrossValidator(
        estimator=one, estimatorParamMaps=grid, evaluator=ClusteringEvaluator(), numFolds=2, seed=1, parallelism=2
    )
    found = validator.fit(points)
    assert found.avgMetrics[0] > found.avgMetrics[1]
    best = found.bestModel
    assert isinstance(best, AffinityPropagationModel)
    assert best.summary.k == 3
    found.save(str(tmp_path / "validated"))
    loaded = CrossValidatorModel.load(str(tmp_path / "validated")).bestModel
    assert predictions(loaded.transform(points)) == predictions(best.transform(points))
    gc.collect()


@pytest.mark.long
def test_a_model_transforms_a_stream(model: AffinityPropagationModel, points: DataFrame, tmp_path: Path) -> None:
    arrays = points.select("name", vector_to_array(F.col("features")).alias("features"))
    arrays.write.parquet(str(tmp_path / "points"))
    stream = points.sparkSession.readStream.schema(arrays.schema).parquet(str(tmp_path / "points"))
    query = model.transform(stream).writeStream.format("memory").queryName("assigned").start()
    query.processAllAvailable()
    query.stop()
    assert predictions(points.sparkSession.table("assigned")) == predictions(model.transform(points))


CONNECT = """
from pyspark.sql import SparkSession
from pyspark.ml.linalg import Vectors
from ap_spark.ml import AffinityPropagation, AffinityPropagationModel

spark = SparkSession.builder.remote("local[2]").config("spark.sql.shuffle.partitions", 2).getOrCreate()
assert type(spark).__module__.startswith("pyspark.sql.connect")
rows = [(n, Vectors.dense([float(x)])) for n, x in enumerate([1, 2, 3, 7, 8, 9])]
points = spark.createDataFrame(rows, ["id", "features"])
estimator = AffinityPropagation(idCol="id", preference=-25.0, damping=0.5, convergenceIter=3, exemplarCol="exemplar")
for _ in range(2):
    estimator.write().overwrite().save("estimator")
model = AffinityPropagation.load("estimator").fit(points)
for _ in range(2):
    model.write().overwrite().save("model")
loaded = AffinityPropagationModel.load("model")
for one in (model, loaded):
    print([tuple(row)[2:] for row in one.transform(points).orderBy("id").collect()], one.summary.k)
print(loaded.predict(Vectors.dense([50.0])), loaded.exemplars().count(), loaded.summary.trace.count() > 3)
spark.stop()
"""


@pytest.mark.programs
def test_on_spark_connect(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CONNECT], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    rows = "[(0, 1), (0, 1), (0, 1), (1, 4), (1, 4), (1, 4)] 2"
    assert done.stdout.splitlines()[-3:] == [rows, rows, "1 2 True"], done.stdout + done.stderr
