"""A few rows of a table: the same of Spark's and of pandas', whatever the partitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from ap_spark.report.few_rows import by_chance, ends_of_clusters, with_ids, with_labels

RNG = np.random.default_rng(5)
LABEL = RNG.integers(0, 6, 300)
TABLE = pd.DataFrame(
    {
        "id": [f"p{n:03}" for n in range(300)],
        "exemplar": [f"p{label:03}" for label in LABEL],
        "label": LABEL,
        "similarity": np.where(np.arange(300) < 6, np.nan, -RNG.integers(1, 40, 300).astype(float)),  # with ties
    }
)


def test_rows_drawn_by_chance_do_not_depend_on_partitions(spark: SparkSession) -> None:
    frame = spark.createDataFrame(TABLE)
    drawn, again = (by_chance(frame.repartition(n, "similarity"), 50) for n in (1, 5))
    pd.testing.assert_frame_equal(drawn, again)
    here = by_chance(TABLE.sample(frac=1.0, random_state=1), 50)
    for found in (drawn, here):
        assert len(found) == 50 == found["id"].nunique()
        assert len(found.merge(TABLE)) == 50
        assert found["label"].nunique() == 6  # of 6 equally large clusters, which 50 neighbours would not show
    assert len(by_chance(frame, 1_000)) == len(by_chance(TABLE, 1_000)) == 300


def test_rows_by_label_and_by_id(spark: SparkSession) -> None:
    frame = spark.createDataFrame(TABLE.dropna())
    some = with_labels(frame, [1, 4])
    assert some["label"].tolist() == sorted(TABLE.dropna()["label"][TABLE.dropna()["label"].isin([1, 4])])
    assert with_labels(TABLE, [1, 4])["label"].unique().tolist() == [1, 4]
    assert set(with_ids(frame, pd.Series(["p011", "p200", "nobody"]))["id"]) == {"p011", "p200"}
    numbered = spark.createDataFrame(pd.DataFrame({"id": [1, 2, 3]}))
    assert with_ids(numbered, pd.Series(["2"]))["id"].tolist() == [2]


@pytest.mark.parametrize("is_spark", [False, True])
def test_ends_of_clusters_against_sorting(spark: SparkSession, is_spark: bool) -> None:
    table = spark.createDataFrame(TABLE.dropna()).repartition(3) if is_spark else TABLE
    found = ends_of_clusters(table, [0, 2], 3, 10)
    assert set(found["label"]) == {0, 2}
    assert found["similarity"].notna().all(), "exemplars are no members"
    for label in (0, 2):
        members = TABLE[(TABLE["label"] == label) & TABLE["similarity"].notna()]
        in_order = members.sort_values(["similarity", "id"], ascending=[False, True])["id"].tolist()
        here = found[found["label"] == label]
        assert here[here["first"] <= 3].sort_values("first")["id"].tolist() == in_order[:3]
        assert here[here["last"] <= 3].sort_values("last")["id"].tolist() == in_order[::-1][:3]
        assert np.count_nonzero(here["any"] <= 10) == 10
        assert ((here["first"] <= 3) | (here["last"] <= 3) | (here["any"] <= 10)).all()
