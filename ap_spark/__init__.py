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
    from ap_spark.description import Description, describe
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

# Where each name is at home. It is imported when it is first asked for: a Python worker of Spark's, which starts within
# the time that a small run takes, needs none of pandas and what else there is.
HOMES = {
    "clustering": ("Clustering", "Summary", "affinity_propagation"),
    "convergence": ("Iteration",),
    "description": ("Description", "describe"),
    "errors": (
        *("ApSparkError", "CheckpointError", "InputError", "Interrupted", "JavaNotFound", "NotConverged"),
        *("OutputError", "OutputInUse", "SettingError", "StorageError"),
    ),
    "neighbors": ("Neighbors", "nearest_neighbors"),
    "preference": ("PreferenceRange", "preference_quantile", "preference_range"),
    "progress": ("Progress",),
    "readers": ("make_points", "read_points", "read_similarities"),
    "scaling": ("scale",),
    "similarity": ("similarities",),
}


def __getattr__(name: str) -> Any:
    for module, names in HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
