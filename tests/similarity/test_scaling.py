"""Scaled features against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyspark.sql.functions as F
import pytest
from pyspark.sql import SparkSession
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from ap_spark import (
    InputError,
    SettingError,
    scale,
)
from ap_spark.settings import Scale
from tests.similarity.examples import DATA, Array, make_frame


@pytest.mark.long
def test_scaling_is_that_of_scikit_learn(spark: SparkSession) -> None:
    some = DATA["random"][:200]
    x = np.column_stack([some[:, 0], 1e3 + 1e-3 * some[:, 1], some[:, 2] > 0, np.ones(200)])
    found: dict[str, Array] = {}
    for partitions in (1, 7):
        points = make_frame(spark, x).repartition(partitions)
        scalers: dict[Scale, Any] = {"standard": StandardScaler(), "minmax": MinMaxScaler()}
        for how, scaler in scalers.items():
            scaled = np.array([row.features for row in scale(points, how).orderBy("id").collect()])
            np.testing.assert_allclose(scaled, scaler.fit_transform(x), rtol=1e-7, atol=1e-7)
            assert (found.setdefault(how, scaled) == scaled).all(), "the same bits for any partitioning"
    assert scale(points, "none") is points
    wide = some[:10, :1] + np.arange(2000.0)  # minutes where the work grows with the square of the columns
    rows = scale(make_frame(spark, wide).withColumn("preference", F.lit(-1.0))).orderBy("id").collect()
    np.testing.assert_allclose([row.features for row in rows], StandardScaler().fit_transform(wide), rtol=1e-7)
    assert rows[0].preference == -1.0
    sizes = np.array([1e-300, 1e300, 1e-300, 1.0])
    rows = scale(make_frame(spark, sizes * x)).orderBy("id").collect()
    np.testing.assert_allclose([row.features for row in rows], found["standard"], rtol=1e-7, atol=1e-7)
    with pytest.raises(InputError, match=r"feature 1 goes from -1.7e.308 to 1.7e.308: divide it"):
        scale(make_frame(spark, np.array([[1.0, -1.7e308], [2.0, 1.7e308]])))
    with pytest.raises(SettingError, match="scale must be one of none, standard, minmax, got 'robust'"):
        scale(points, "robust")  # type: ignore[arg-type]
