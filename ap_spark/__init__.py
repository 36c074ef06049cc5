"""Affinity propagation clustering as a distributed dataflow job on Apache Spark.

    points ──► similarities ──► affinity_propagation ──► Clustering: assignments, exemplars, trace, summary

Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ap_spark.version import __version__

if TYPE_CHECKING:
    from ap_spark.clustering import Clustering, Summary, affinity_propagation
    from ap_spark.convergence import Iteration
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
    from ap_spark.graph.describe import Description, describe
    from ap_spark.graph.preferences import PreferenceRange, preference_quantile, preference_range
    from ap_spark.graph.sparsify import sparsify
    from ap_spark.io.readers import make_points, read_points, read_similarities
    from ap_spark.progress import Progress
    from ap_spark.settings import Execution, Sparsification
    from ap_spark.similarity.all_pairs import similarities
    from ap_spark.similarity.neighbors import Neighbors, nearest_neighbors
    from ap_spark.similarity.scaling import scale

__all__ = [
    "ApSparkError",
    "CheckpointError",
    "Clustering",
    "Description",
    "Execution",
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
    "Sparsification",
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
    "sparsify",
]

# Where each name is at home. It is imported when it is first asked for: a Python worker of Spark's, which starts within
# the time that a small run takes, needs none of pandas and what else there is.
HOMES = {
    "clustering": ("Clustering", "Summary", "affinity_propagation"),
    "convergence": ("Iteration",),
    "graph.describe": ("Description", "describe"),
    "errors": (
        *("ApSparkError", "CheckpointError", "InputError", "Interrupted", "JavaNotFound", "NotConverged"),
        *("OutputError", "OutputInUse", "SettingError", "StorageError"),
    ),
    "similarity.neighbors": ("Neighbors", "nearest_neighbors"),
    "graph.preferences": ("PreferenceRange", "preference_quantile", "preference_range"),
    "graph.sparsify": ("sparsify",),
    "progress": ("Progress",),
    "io.readers": ("make_points", "read_points", "read_similarities"),
    "settings": ("Execution", "Sparsification"),
    "similarity.scaling": ("scale",),
    "similarity.all_pairs": ("similarities",),
}


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
