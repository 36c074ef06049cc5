"""Affinity propagation clustering as a distributed dataflow job on Apache Spark.

    points ──► similarities ──► affinity_propagation ──► Clustering: assignments, exemplars, trace, summary

Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007).
"""

from ap_spark.clustering import Clustering, Summary, affinity_propagation
from ap_spark.convergence import Iteration
from ap_spark.describe import Description, describe
from ap_spark.errors import (
    ApSparkError,
    CheckpointError,
    InputError,
    Interrupted,
    JavaNotFound,
    NotConverged,
    OutputError,
    OutputInUse,
    SettingError,
    StorageError,
)
from ap_spark.neighbors import Neighbors, nearest_neighbors
from ap_spark.preference import PreferenceRange, preference_quantile, preference_range
from ap_spark.progress import Progress
from ap_spark.readers import make_points, read_points, read_similarities
from ap_spark.scaling import scale
from ap_spark.similarity import similarities
from ap_spark.version import __version__

__all__ = [
    "ApSparkError",
    "CheckpointError",
    "Clustering",
    "Description",
    "InputError",
    "Interrupted",
    "Iteration",
    "JavaNotFound",
    "Neighbors",
    "NotConverged",
    "OutputError",
    "OutputInUse",
    "PreferenceRange",
    "Progress",
    "SettingError",
    "StorageError",
    "Summary",
    "__version__",
    "affinity_propagation",
    "describe",
    "make_points",
    "nearest_neighbors",
    "preference_quantile",
    "preference_range",
    "read_points",
    "read_similarities",
    "scale",
    "similarities",
]
