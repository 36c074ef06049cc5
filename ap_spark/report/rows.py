"""Rows of the input, as they are shown beside points: some cells as text, and an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyspark.sql.functions as F
from pyspark.sql import DataFrame

from ap_spark.errors import InputError
from ap_spark.io.frames import to_spark
from ap_spark.io.readers import CELLS, IMAGE, MOST_CELLS
from ap_spark.report.few_rows import with_ids

__all__ = ["Rows", "rows_of"]


@dataclass(frozen=True)
class Rows:
    """Cells and images of some rows, by the id as a string.

    Attributes
    ----------
    names : list of str
        Of the cells.
    cells : dict
        A list of texts for each id; None for a cell that is missing.
    images : dict
        The bytes of an image, for ids that have one.
    """

    names: list[str] = field(default_factory=list)
    cells: dict[str, list[str | None]] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)


def rows_of(table: Any, ids: pd.Series) -> Rows:
    """Return the rows of some ids.

    Parameters
    ----------
    table : DataFrame of Spark or pandas
        Whatever columns: the id is in a column id, or in the index of pandas. The first eight columns are shown,
        and the first one of bytes as an image. A table that `read_points_of_command` has read has chosen them already.
    ids : Series of str

    Raises
    ------
    InputError
        If there is no such table, or none of the ids is in it.
    """
    rows = _of_pandas(table, ids) if isinstance(table, pd.DataFrame) else _of_spark(table, ids)
    if len(ids) and not rows.cells:
        raise InputError(
            f"rows must be those of the result, but id {ids.iloc[0]!r} is not among them, and no other one that is "
            "shown: the id is in a column 'id', or in the index of pandas"
        )
    return rows


def _of_pandas(table: pd.DataFrame, ids: pd.Series) -> Rows:
    if table.columns.nlevels > 1 or table.columns.has_duplicates:
        raise InputError("rows must have one name for each column, and each name once: rename the others")
    keys = table["id"] if "id" in table.columns else table.index.to_series()
    if table.index.nlevels > 1 and "id" not in table.columns:
        raise InputError("rows must have their ids in a column 'id', or in an index of one level")
    wanted = keys.astype(str).isin(ids).to_numpy()
    some = table[wanted]
    texts: list[tuple[str, list[Any]]] = []
    images: list[tuple[str, list[Any]]] = []
    for name in [name for name in some.columns if name != "id"]:
        cells = some[name].tolist()
        (images if any(isinstance(cell, bytes) for cell in cells) else texts).append((str(name), cells))
    texts = texts[:MOST_CELLS]
    shown = keys[wanted].astype(str).tolist()
    by_id = {id: [_text(column[row]) for _, column in texts] for row, id in enumerate(shown)}
    found = images[0][1] if images else []
    return Rows([name for name, _ in texts], by_id, _images(shown, found))


def _text(cell: Any) -> str | None:
    is_missing = pd.isna(cell) if pd.api.types.is_scalar(cell) else False
    return None if is_missing else str(cell)


def _of_spark(table: Any, ids: pd.Series) -> Rows:
    frame = to_spark(table, "rows")
    if "id" not in frame.columns:
        raise InputError(f"rows must have their ids in a column 'id', but there are {', '.join(frame.columns)}")
    names = None if CELLS not in frame.columns else frame.schema[CELLS].metadata.get("names")
    if names is None:
        frame, names = _chosen(frame)
    found = with_ids(frame, ids)
    shown = found["id"].astype(str).tolist()
    cells = {id: list(row) for id, row in zip(shown, found[CELLS], strict=True)}
    return Rows(names, cells, _images(shown, found[IMAGE].tolist() if IMAGE in found.columns else []))


def _chosen(frame: DataFrame) -> tuple[DataFrame, list[str]]:
    """Return (id, cells[, image]) of a table, and the names of the cells."""
    kinds = dict(frame.dtypes)
    names = [name for name in frame.columns if name != "id" and kinds[name] != "binary"][:MOST_CELLS]
    cells = [F.col(f"`{name}`").cast("string") for name in names] or [F.lit(None).cast("string")]
    images = [F.col(f"`{name}`").alias(IMAGE) for name, kind in kinds.items() if kind == "binary"][:1]
    return frame.select("id", F.array(*cells).alias(CELLS), *images), names


def _images(ids: list[str], images: list[Any]) -> dict[str, bytes]:
    return {id: bytes(image) for id, image in zip(ids, images, strict=False) if isinstance(image, (bytes, bytearray))}
