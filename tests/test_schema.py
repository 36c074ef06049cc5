"""The tables: what a message says of wrong ones, and what may be published."""

from __future__ import annotations

import re

import pytest
from pyspark.sql import SparkSession

from ap_spark import ApSparkError
from ap_spark.schema import check_output


def test_new_points_and_exemplars_may_have_ids_of_two_types(spark: SparkSession) -> None:
    columns = "id {}, exemplar {}, label bigint, similarity double"
    check_output("assigned", spark.createDataFrame([], columns.format("bigint", "string")))
    with pytest.raises(ApSparkError, match="the table assigned must have the columns"):
        check_output("assigned", spark.createDataFrame([], columns.format("bigint", "int")))


@pytest.mark.parametrize(
    ("columns", "is_right"),
    [
        ("i bigint, k bigint, s double", True),
        ("i string, k string, s double", True),
        ("i string, k bigint, s double", False),
        ("k bigint, i bigint, s double", False),
        ("i bigint, k bigint, s float", False),
        ("i bigint, k bigint, s double, t double", False),
        ("i int, k int, s double", False),
    ],
)
def test_only_tables_of_the_declared_types_are_published(spark: SparkSession, columns: str, is_right: bool) -> None:
    table = spark.createDataFrame([], columns)
    if is_right:
        check_output("similarities", table)
    else:
        with pytest.raises(ApSparkError, match=re.escape("the table similarities must have the columns {'i': 'id'")):
            check_output("similarities", table)
