"""Hashes and jitter of arrays, beside those of Spark."""

from __future__ import annotations

import numpy as np
import pyspark.sql.functions as F
from pyspark.sql import SparkSession

from ap_spark.blocks.hashing import hash_edges, hash_points, jittered


def test_hashes_are_those_of_spark(spark: SparkSession) -> None:
    rng = np.random.default_rng(0)
    i, k = rng.integers(-(2**63), 2**63 - 1, (2, 200))
    s = np.append(rng.normal(size=197) * 10.0 ** rng.integers(-300, 300, 197), [0.0, -0.0, -np.inf])
    rows = spark.createDataFrame(list(zip(i.tolist(), k.tolist(), s.tolist(), strict=True)), "i long, k long, s double")
    seed = F.lit(-7).cast("bigint")
    told = rows.select(F.xxhash64("i", "k", "s"), F.xxhash64("i", "s"), F.xxhash64(seed, "i", "k")).collect()
    edges, points, both = (np.array(column) for column in zip(*told, strict=True))
    np.testing.assert_array_equal(hash_edges(i, k, s).view(np.int64), edges)
    np.testing.assert_array_equal(hash_points(i, s).view(np.int64), points)
    z = (both >> 11) / 2.0**52
    np.testing.assert_array_equal(jittered(s, i, k, -7, 0.5), s * (1.0 + 1e-10 * z) + 1e-10 * z * 0.5)
