"""The features of some points, as a run has compared them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from ap_spark.blocks.kernel import Floats
from ap_spark.errors import InputError
from ap_spark.io.frames import arrow_table, as_points, is_local, to_spark
from ap_spark.report.few_rows import with_ids

__all__ = ["KnownPoints", "matrix_of"]


@dataclass(frozen=True)
class KnownPoints:
    """Points, as they were given.

    Attributes
    ----------
    table : DataFrame of Spark or pandas
        (id, features).
    names : list of str
        What the table calls its columns, as far as they may be features.
    """

    table: Any
    names: list[str]

    @classmethod
    def of(cls, points: Any) -> KnownPoints:
        """Return points as `cluster_points` takes them."""
        columns = [] if isinstance(points, np.ndarray) else list(getattr(points, "columns", []))
        names = [name for name in columns if isinstance(name, str) and name not in ("id", "features", "preference")]
        if is_local(points):
            table = arrow_table(points, "points").to_pandas()
            if "features" in table.columns:
                return cls(table, names)
        return cls(as_points(to_spark(points, "points")), names)

    def read(self) -> KnownPoints:
        """Return them as a table of pandas, read at once."""
        is_read = not isinstance(self.table, DataFrame)
        return self if is_read else KnownPoints(self.table.toArrow().to_pandas(), self.names)

    def some(self, ids: pd.Series) -> dict[str, Floats]:
        """Return the features of the points with these ids, by the id as a string.

        Raises
        ------
        InputError
            If an id is not there, or given twice.
        """
        table = self.table
        found = with_ids(table, ids) if isinstance(table, DataFrame) else table[table["id"].astype(str).isin(ids)]
        keys = found["id"].astype(str)
        if keys.duplicated().any():
            raise InputError(f"points must have each id once, but {keys[keys.duplicated()].iloc[0]!r} is given twice")
        features = dict(zip(keys, matrix_of(found["features"]), strict=True))
        missing = next((id for id in ids if id not in features), None)
        if missing is not None:
            raise InputError(
                f"points must be those of the result, but id {missing!r} is not among them: give the same table, with "
                "the same id column"
            )
        return features


def matrix_of(vectors: Iterable[Any]) -> Floats:
    """Return vectors as an array of shape (n, d)."""
    rows = list(vectors)
    return np.array(rows, np.float64).reshape(len(rows), -1 if rows else 0)
