"""Similarities still in the tasks that compute them, where a next step can take whole batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

__all__ = ["Pairs", "Transform"]

Transform = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Pairs:
    """Similarities that are computed in tasks.

    As a DataFrame they would go through Spark row by row. A function that is given to `then` gets whole batches, in the
    same task.

    Attributes
    ----------
    then : callable
        Takes a function and the columns that it returns. Runs the function on the batches (i, k, s), in the tasks that
        compute them, and returns its result as a DataFrame.
    kind : str
        The type of the ids.
    sparkSession : SparkSession
        Named as that of a DataFrame.
    """

    then: Callable[[Transform, str], DataFrame]
    kind: str
    sparkSession: SparkSession  # noqa: N815

    @property
    def frame(self) -> DataFrame:
        """The similarities as a DataFrame: (i, k, s)."""
        return self.then(_unchanged, f"i {self.kind}, k {self.kind}, s double")


def _unchanged(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches
