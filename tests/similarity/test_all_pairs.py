"""The similarities of all pairs."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from ap_spark import (
    similarities,
)
from ap_spark.settings import MetricName
from ap_spark.similarity.metrics import pairwise
from tests.similarity.examples import DATA, make_frame, rows_of


@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_all_pairs(spark: SparkSession, metric: MetricName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap_spark.similarity.all_pairs._TILE_POINTS", 10)
    x = DATA["random"][:37]
    names = [f"p{n:02}" for n in range(len(x))]
    found = rows_of(similarities(make_frame(spark, x, names).repartition(3), metric=metric))
    s = pairwise(x, x, metric)
    assert sorted(found) == [(a, b, s[i, k]) for i, a in enumerate(names) for k, b in enumerate(names) if i != k]
