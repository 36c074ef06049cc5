"""Small data in this process, beside scikit-learn: fit, the number of clusters, predict.

    python -m benchmarks.small

Both classes take turns on the same points, in a warm process; prints medians in milliseconds, and their ratio.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AffinityPropagation as Theirs
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning

from ap_spark.sklearn import AffinityPropagation as Ours


def milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1000.0 * (time.perf_counter() - started)


def fit(kind: Any, x: NDArray[np.float64]) -> Any:
    return kind(random_state=0).fit(x)


def whole(kind: Any, x: NDArray[np.float64]) -> int:
    fitted = fit(kind, x)
    fitted.predict(x)
    return len(fitted.cluster_centers_indices_)


def report(n_points: int, centers: int, turns: int) -> None:
    x, _ = make_blobs(n_points, centers=centers, random_state=0)
    for name, run in (("fit, clusters, predict", whole), ("fit", fit)):
        run(Ours, x), run(Theirs, x)
        times = [(milliseconds(lambda: run(Ours, x)), milliseconds(lambda: run(Theirs, x))) for _ in range(turns)]  # noqa: B023
        ours, theirs = map(median, zip(*times, strict=True))
        print(f"| {n_points:,} | {name} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # both stop at the default 200 iterations on 2,000 points
    report(50, 5, 101)
    report(2_000, 20, 5)
