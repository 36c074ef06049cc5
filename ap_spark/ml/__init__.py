"""Affinity propagation as pyspark.ml has its algorithms: an estimator, its model, their params.

points ──► AffinityPropagation.fit ──► AffinityPropagationModel.transform ──► points with a prediction
edges ──► AffinityPropagation.assignClusters ──► (id, cluster, exemplar, similarity)
"""

from ap_spark.ml.clustering import AffinityPropagation, AffinityPropagationModel, AffinityPropagationSummary

__all__ = ["AffinityPropagation", "AffinityPropagationModel", "AffinityPropagationSummary"]
