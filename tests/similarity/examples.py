"""Points, and their neighbours by brute force, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

Array = NDArray[np.float64]


rng = np.random.default_rng(0)


DATA = {
    "random": rng.normal(size=(400, 5)),
    "duplicates": np.repeat(rng.integers(-9, 9, (8, 4)).astype(float) + 0.5, 30, axis=0)[rng.permutation(240)],
    "grid": rng.integers(0, 3, (300, 3)).astype(float) + np.array([1.0, 2.0, 4.0]),
    "wide": rng.normal(size=(200, 40)),
    "far away": np.array([1e9, 0.0, 0.0]) + rng.integers(0, 40, (200, 3)),
    "outlier": np.vstack([rng.normal(size=(200, 3)), [[1e9, 0.0, 1.0]]]),
    "zeros of both signs": np.array([0.0, -0.0, 1.0, 0.0] * 40).reshape(-1, 2) + np.array([[0.0, 1.0]]),
}


def width_of(metric: str) -> float | None:
    return 3.0 if metric == "gaussian" else None


def make_frame(spark: SparkSession, x: Array, ids: list[Any] | None = None) -> DataFrame:
    features = pa.ListArray.from_arrays(np.arange(0, x.size + 1, x.shape[1], dtype=np.int32), np.ravel(x))
    return spark.createDataFrame(pa.table({"id": ids or list(range(len(x))), "features": features}))


def brute_force(s: Array, n: int) -> set[tuple[int, int, float]]:
    """The n largest similarities of each row, the diagonal left out, ties towards the smallest id."""
    s = np.where(np.eye(len(s), dtype=bool), -np.inf, s)
    best = np.lexsort((np.broadcast_to(np.arange(len(s)), s.shape), -s))[:, :n]
    return {(i, int(k), float(s[i, k])) for i in range(len(s)) for k in best[i]}


def rows_of(edges: DataFrame) -> list[tuple[Any, Any, float]]:
    return [(row.i, row.k, row.s) for row in edges.collect()]
