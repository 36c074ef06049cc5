"""Affinity propagation clustering as a distributed dataflow job on Apache Spark.

    points ──► cluster_points ──────────────┐
                                            ├──► Clustering: assignments, exemplars, trace, summary
    similarities ──► affinity_propagation ──┘

Frey & Dueck, Clustering by passing messages between data points, Science 315 (2007).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ap_spark.version import __version__

if TYPE_CHECKING:
    from ap_spark.animation import animate
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
    from ap_spark.graph.describe import Degrees, Description
    from ap_spark.graph.preferences import PreferenceRange, preference_quantile, preference_range
    from ap_spark.graph.sparsify import sparsify
    from ap_spark.io.readers import make_points, read_points, read_similarities
    from ap_spark.new_points import assign
    from ap_spark.pipeline import affinity_propagation, cluster_points, describe, describe_points
    from ap_spark.progress import Progress
    from ap_spark.quality.improve import Step
    from ap_spark.result import Clustering, Summary
    from ap_spark.settings import Execution, Levels, Quality, Similarity, Snapshots, Sparsification
    from ap_spark.similarity.all_pairs import similarities
    from ap_spark.similarity.neighbors import Neighbors, nearest_neighbors
    from ap_spark.similarity.scaling import scale
    from ap_spark.stream import assign_stream

__all__ = [
    "ApSparkError",
    "CheckpointError",
    "Clustering",
    "Degrees",
    "Description",
    "Execution",
    "InputError",
    "Interrupted",
    "Iteration",
    "JavaNotFound",
    "Levels",
    "Neighbors",
    "NotConverged",
    "OutputError",
    "OutputInUse",
    "PreferenceRange",
    "Progress",
    "Quality",
    "SettingError",
    "Similarity",
    "Snapshots",
    "Sparsification",
    "Step",
    "StorageError",
    "Summary",
    "__version__",
    "affinity_propagation",
    "animate",
    "assign",
    "assign_stream",
    "cluster_points",
    "describe",
    "describe_points",
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
_HOMES = {
    "animation": ("animate",),
    "convergence": ("Iteration",),
    "errors": (
        "ApSparkError",
        "CheckpointError",
        "InputError",
        "Interrupted",
        "JavaNotFound",
        "NotConverged",
        "OutputError",
        "OutputInUse",
        "SettingError",
        "StorageError",
    ),
    "graph.describe": (
        "Degrees",
        "Description",
    ),
    "graph.preferences": (
        "PreferenceRange",
        "preference_quantile",
        "preference_range",
    ),
    "graph.sparsify": ("sparsify",),
    "io.readers": (
        "make_points",
        "read_points",
        "read_similarities",
    ),
    "new_points": ("assign",),
    "pipeline": (
        "affinity_propagation",
        "cluster_points",
        "describe",
        "describe_points",
    ),
    "progress": ("Progress",),
    "quality.improve": ("Step",),
    "result": (
        "Clustering",
        "Summary",
    ),
    "settings": (
        "Execution",
        "Levels",
        "Quality",
        "Similarity",
        "Snapshots",
        "Sparsification",
    ),
    "similarity.all_pairs": ("similarities",),
    "similarity.neighbors": (
        "Neighbors",
        "nearest_neighbors",
    ),
    "similarity.scaling": ("scale",),
    "stream": ("assign_stream",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
