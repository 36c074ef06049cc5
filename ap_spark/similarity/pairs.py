"""Similarities that tasks compute, and may go on with before Spark sees them row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

__all__ = ["Pairs", "Transform"]

Transform = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Pairs:
    """Similarities that tasks compute, and may go on with before Spark sees them row by row.

    Attributes
    ----------
    then : callable
        Runs a function on the batches (i, k, s) within the tasks that compute them; takes the function and the columns
        that it returns, and returns those as a DataFrame.
    kind : str
        The type of the ids.
    sparkSession : SparkSession
        As of a DataFrame.
    """

    then: Callable[[Transform, str], DataFrame]
    kind: str
    sparkSession: SparkSession  # noqa: N815

    @property
    def frame(self) -> DataFrame:
        """(i, k, s)."""
        return self.then(unchanged, f"i {self.kind}, k {self.kind}, s double")


def unchanged(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches
