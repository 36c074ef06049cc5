"""Cells in one process: the recall that is said, and cells that hold enough."""

from __future__ import annotations

import numpy as np
import pytest

from ap_spark.similarity.knn_exact import nearest
from ap_spark.similarity.knn_ivf import Cells, cells_that_hold, cells_to_probe, nearest_in_cells, train
from ap_spark.similarity.metrics import METRICS
from benchmarks.workload import clustered_points
from tests.similarity.examples import DATA, Array


def groups_far_apart(spread: float) -> Array:
    some = np.random.default_rng(4)
    return np.asarray(1e6 * some.integers(0, 3, (3000, 1)) + spread * some.normal(size=(3000, 4)))


some = np.random.default_rng(5)


RESOLVED_BADLY = {  # in 32 bits
    "groups": groups_far_apart(1e-2),
    "overlapping": clustered_points(3000, 4, spread=2.0),
    "grid": DATA["grid"].repeat(3, axis=0),
    "outlier": DATA["outlier"],
    "one dimension dwarfs the others": some.normal(size=(1000, 3)) * [1e15, 1.0, 1.0],
    "by far": some.normal(size=(1000, 3)) * [1e60, 1.0, 1.0],
    "outliers": np.vstack([some.normal(size=(1000, 3)), 1e40 * some.normal(size=(50, 3)), [[1e100, 0.0, 0.0]]]),
    "9 stands for unknown": np.where(some.random((1000, 3)) < 0.05, 1e30, some.normal(size=(1000, 3))),
    "a group in a point": some.normal(size=(1000, 3)) * np.repeat([[1.0], [1e-25]], [700, 300], axis=0),
    "cut off": np.where(np.arange(1000) < 800, some.normal(size=1000), 10.0 ** some.uniform(13, 17, 1000))[:, None],
    "many dimensions": 100.0 + some.normal(size=(300, 300)),
    "more cells than points": some.normal(size=(40, 2)),
    "one dimension": some.normal(size=(1000, 1)),
}


@pytest.mark.parametrize("metric", ["sqeuclidean", "manhattan", "cosine"])
@pytest.mark.parametrize("data", RESOLVED_BADLY)
def test_the_recall_said_is_the_recall_reached(data: str, metric: str) -> None:
    """In 32 bits the points of a group far out are one; the search must not be deceived by that."""
    by = METRICS[metric]
    x = by.prepare(RESOLVED_BADLY[data])
    everyone, cells = np.arange(len(x)), train(x, 100)
    place = cells.place(x)
    assert (cells.place(x[::-2])[::-1] == place[::-2][::-1]).all(), "whatever others it is found with"
    row, true, _ = nearest(x, x, everyone, 10, by)
    probes, said = cells_to_probe(cells, x, row, place[true], 0.9)
    found_row, found, _ = nearest_in_cells(x, x, everyone, 10, by, cells, place, probes)
    assert (np.bincount(found_row, minlength=len(x)) == 10).all(), "everyone has as many as were asked for"
    reached = np.isin(row * len(x) + true, found_row * len(x) + found).mean()
    assert said >= 0.9
    # Who would find too few looks into more cells, and finds more than was said.
    assert said - 0.005 < reached < (said + 0.005 if data in ("groups", "overlapping") else 1.01)


def test_cells_that_hold_enough() -> None:
    line = np.array([[0.0], [1.0], [3.0], [10.0], [11.5]], dtype=np.float32)
    cells, occupied, sizes = Cells(np.zeros(1), 1.0, line), np.array([0, 1, 3, 4]), np.array([1, 2, 1, 5])
    pairs = {
        least: [f"{a}{b}" for a, b in sorted(zip(*cells_that_hold(cells, occupied, sizes, least), strict=True))]
        for least in (1, 3, 99)
    }
    assert pairs[1] == ["00", "11", "33", "44"]
    assert pairs[3] == ["00", "01", "10", "11", "33", "34", "44"]
    assert len(pairs[99]) == 16, "all there are"
