"""One Spark session for all tests, and the small graphs they share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

import ap_spark
from ap_spark import Clustering, Execution, Quality, Snapshots, Sparsification
from ap_spark._spark.session import start_session

ROOT = Path(__file__).parent.parent
FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.json"))

# Spark would compile each query, which takes longer than running it on a few rows. The jobs of test_jobs.py do compile.
INTERPRETED = ("spark.sql.codegen.wholeStage=false", "spark.sql.codegen.factoryMode=NO_CODEGEN")
INTERPRETING = [option for setting in INTERPRETED for option in ("--conf", setting)]  # the same, for the command

LONG = pytest.mark.long  # as `marks` of a case: make test-long

Edges = list[tuple[int, int, float]]


def every_third(cases: Iterable[Any]) -> list[Any]:
    """Cases of which `make test` runs every third, and `make test-long` the others."""
    return [case if number % 3 == 0 else pytest.param(case, marks=LONG) for number, case in enumerate(cases)]


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    conf = ["spark.ui.enabled=false", "spark.sql.shuffle.partitions=2", "spark.default.parallelism=2", *INTERPRETED]
    conf += [f"spark.{name}=50" for name in ("ui.retainedJobs", "ui.retainedStages", "sql.ui.retainedExecutions")]
    session = start_session("local[2,4]", conf)  # four attempts at a task, as on a cluster
    yield session
    session.stop()


def one_way(edges: Edges, *forced: int) -> Edges:
    """The same without the rows of some points, which others may still be similar to."""
    return [(i, k, s) for i, k, s in edges if i not in forced]


@pytest.fixture
def compiled(spark: SparkSession) -> Iterator[None]:
    """Compiled queries, for tests with many rows."""
    before = {setting.split("=")[0]: spark.conf.get(setting.split("=")[0]) for setting in INTERPRETED}
    for key in before:
        spark.conf.unset(key)
    yield
    for key, value in before.items():
        spark.conf.set(key, str(value))


@pytest.fixture(scope="session")
def frame(spark: SparkSession) -> Callable[[Edges], DataFrame]:
    """Edges as a DataFrame."""

    def make(edges: Edges) -> DataFrame:
        columns = zip(*edges, strict=True)
        return spark.createDataFrame(pa.table([pa.array(column) for column in columns], names=["i", "k", "s"]))

    return make


def all_pairs(x: NDArray[np.float64]) -> Edges:
    """Minus the squared Euclidean distance of all pairs of rows."""
    s = -((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=-1)
    return [(i, k, float(s[i, k])) for i in range(len(x)) for k in range(len(x)) if i != k]


def load(path: Path) -> tuple[dict[str, Any], Edges]:
    """A fixture and its edges."""
    fixture = json.loads(path.read_text())
    if fixture["kind"] == "edges":
        return fixture, [(i, k, float(s)) for i, k, s in fixture["edges"]]
    if fixture["kind"] == "iris":
        x = np.loadtxt(ROOT / "data" / "iris.csv", delimiter=",", skiprows=1, usecols=range(4))
        return fixture, all_pairs(x)
    return fixture, all_pairs(np.array(fixture["points"]))


def random_edges(rng: np.random.Generator, n: int, share: float, *, symmetric: bool) -> Edges:
    """A random graph that stores a share of all pairs."""
    s = -rng.gamma(2.0, 1.0, (n, n))
    stored = rng.random((n, n)) < share
    if symmetric:
        s, stored = np.minimum(s, s.T), stored & stored.T
    return [(i, k, float(s[i, k])) for i in range(n) for k in range(n) if i != k and stored[i, k]]


def held_tables(spark: SparkSession) -> dict[int, int]:
    """Cached tables and checkpoints, and the bytes of each, from Spark's own status."""
    infos = spark.sparkContext._jsc.sc().getRDDStorageInfo()
    return {info.id(): info.memSize() + info.diskSize() for info in infos}


def affinity_propagation(similarities: Any, **options: Any) -> Clustering:
    """The function of this name, with the fields of its records given one by one, as cases of tests have them."""
    for record, keyword in ((Sparsification, "sparsification"), (Quality, "quality"), (Execution, "execution")):
        names = [declared.name for declared in fields(record) if declared.name in options]
        if names:
            options[keyword] = record(**{name: options.pop(name) for name in names})
    if not options.pop("jitter", True):
        options["seed"] = None
    names = [declared.name for declared in fields(Snapshots) if declared.name in options]
    if names:
        options["checkpoint"] = Snapshots(**{name: options.pop(name) for name in names})
    return ap_spark.affinity_propagation(similarities, **options)


MESSAGES_ALONE: dict[str, Any] = {"polish": False, "gap": None}  # the clusters that the messages name, not polished


def assigned(clustering: Any) -> list[Any]:
    """The exemplar of each point, in the order of the ids."""
    assignments = clustering.to_pandas().assignments
    return list(assignments.sort_values("id")["exemplar"])


@pytest.fixture(scope="session")
def tied() -> Edges:
    """A graph full of exact ties, where an order of addition or of rows would show."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 4, (40, 2)).astype(float) + rng.integers(0, 3, (40, 1)) * 20.1
    return [(i, k, s) for i, k, s in all_pairs(x) if s > -60]
