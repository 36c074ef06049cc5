"""New points to their nearest exemplars.

Exemplars travel to the points, with the function that compares them: a piece of them at a time, where they are many.
Points stay where they are, so nothing is shuffled. That also works on a stream.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame

from ap_spark._spark import classic
from ap_spark.errors import InputError
from ap_spark.similarity.knn_exact import Positions, nearest_by_function, nearest_one
from ap_spark.similarity.metrics import Floats, Metric, PairFunction
from ap_spark.similarity.scaling import Scaling
from ap_spark.similarity.vectors import are_undefined, matrix
from ap_spark.wording import format_count, is_are

__all__ = ["NO_EXEMPLARS", "Exemplars", "collect_exemplars", "exemplars_in", "with_nearest"]

NO_EXEMPLARS = "new points are given to exemplars, but this result has none: it has no clusters"

_PIECE_BYTES = 2**26  # of the vectors of the exemplars that a task holds at once


@dataclass(frozen=True)
class _Piece:
    """Some of the exemplars, as tasks hold them.

    Attributes
    ----------
    labels : array of int64, shape (n,)
        In order.
    ids : Arrow array of length n
    vectors : array of float64, shape (n, d)
        Scaled, and prepared by the metric.
    metric : Metric or callable
    scaling : Scaling or None
    """

    labels: Positions
    ids: pa.Array
    vectors: Floats
    metric: Metric | PairFunction
    scaling: Scaling | None

    def nearest(self, features: pa.Array) -> pa.Array:
        """Return the nearest exemplar of each vector, as structs (closeness, similarity, label, exemplar).

        Raises
        ------
        InputError
            If a vector has another length than the exemplars, an element that is no finite number, or no similarity.
        """
        if not len(features):
            return pa.array([], pa.struct([]))
        x = self._prepared(features)
        if isinstance(self.metric, Metric):
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
                row, place, closeness = nearest_one(x, self.vectors, self.metric)
                similarity = self.metric.similarity(closeness)
        else:
            row, place, closeness = nearest_by_function(self.metric, x, self.vectors, np.full(len(x), -1), 1)
            similarity = closeness
        _refuse(~(np.bincount(row, np.isfinite(similarity), len(x)) > 0), features, "have a finite similarity")
        columns = [closeness, similarity, self.labels[place], self.ids.take(pa.array(place))]
        return pa.StructArray.from_arrays(columns, names=["closeness", "similarity", "label", "exemplar"])

    def _prepared(self, features: pa.Array) -> Floats:
        """Return the vectors as they are compared."""
        dimensions = self.vectors.shape[1]
        length = pc.fill_null(pc.list_value_length(features), -1).to_numpy()
        rule = f"be {format_count(dimensions, 'finite number')} each, as those of the exemplars are"
        _refuse(length != dimensions, features, rule)
        x = np.asarray(features.flatten()).reshape(len(features), -1)
        _refuse(~np.isfinite(x).all(axis=1), features, rule)
        if self.scaling:
            x = self.scaling.of(x)
        if not isinstance(self.metric, Metric):
            return x
        undefined_for = self.metric.undefined_for
        _refuse(are_undefined(undefined_for, x), features, f"not be {undefined_for} with this metric")
        return self.metric.prepare(x)


def _refuse(is_bad: np.ndarray, features: pa.Array, rule: str) -> None:
    """Raise InputError if some vectors break a rule."""
    if count := int(np.count_nonzero(is_bad)):
        example = str(features[int(np.argmax(is_bad))].as_py())
        raise InputError(
            f"features of new points must {rule}, but {format_count(count, 'vector')} of {len(features):,} "
            f"{is_are(count)} not so: {example[:60]}{'...' if len(example) > 60 else ''}"
        )


@dataclass(frozen=True)
class Exemplars:
    """What new points are compared with, on the driver.

    Attributes
    ----------
    pieces : sequence of _Piece
        In the order of the labels; at least one.
    """

    pieces: Sequence[_Piece]

    @property
    def metric(self) -> Metric | PairFunction:
        """How points are compared with exemplars."""
        return self.pieces[0].metric

    @property
    def is_scaled(self) -> bool:
        """Whether features are scaled before they are compared."""
        return self.pieces[0].scaling is not None

    @property
    def dimensions(self) -> int:
        """The number of features."""
        return int(self.pieces[0].vectors.shape[1])

    @property
    def fingerprint(self) -> str:
        """The same for the same exemplars, compared in the same way as far as their features tell."""
        found = sha256()
        for piece in self.pieces:
            found.update(np.ascontiguousarray(piece.vectors).tobytes())
            found.update(json.dumps(piece.ids.to_pylist()).encode())
        return found.hexdigest()[:32]

    def nearest(self, vector: Floats) -> dict[str, Any]:
        """Return what `with_nearest` adds, for one vector, in this process."""
        found = (piece.nearest(pa.array([vector]))[0].as_py() for piece in self.pieces)
        return max(found, key=itemgetter("closeness"))  # of equal ones the first

    def __len__(self) -> int:
        return sum(len(piece.labels) for piece in self.pieces)


def collect_exemplars(features: DataFrame, metric: Metric | PairFunction, scaling: Scaling | None) -> Exemplars:
    """Bring exemplars to the driver.

    Parameters
    ----------
    features : DataFrame
        (label, exemplar, features array<double>), as they were given. Labels count from 0.
    metric : Metric or callable
    scaling : Scaling, optional
        How the features are scaled before they are compared.

    Raises
    ------
    InputError
        If there is no exemplar.
    """
    found = features.agg(F.count("*"), F.max(F.size("features"))).first()
    assert found is not None
    count, dimensions = found
    if not count:
        raise InputError(NO_EXEMPLARS)

    step = max(1, _PIECE_BYTES // (8 * dimensions))
    in_portions = (features.where(F.col("label").between(n, n + step - 1)).toArrow() for n in range(0, count, step))
    return Exemplars([_piece_of(rows, metric, scaling) for rows in in_portions])


def exemplars_in(rows: pa.Table, metric: Metric | PairFunction, scaling: Scaling | None) -> Exemplars:
    """Return exemplars that are on the driver already; see `collect_exemplars`."""
    step = max(1, _PIECE_BYTES * len(rows) // (8 * matrix(rows).size))
    in_portions = (rows.sort_by("label").slice(n, step) for n in range(0, len(rows), step))
    return Exemplars([_piece_of(portion, metric, scaling) for portion in in_portions])


def _piece_of(rows: pa.Table, metric: Metric | PairFunction, scaling: Scaling | None) -> _Piece:
    """Return exemplars (label, exemplar, features) as tasks hold them."""
    rows = rows.sort_by("label").combine_chunks()
    x = matrix(rows)
    x = scaling.of(x) if scaling else x
    vectors = metric.prepare(x) if isinstance(metric, Metric) else x
    return _Piece(rows["label"].to_numpy(), rows["exemplar"].combine_chunks(), vectors, metric, scaling)


def with_nearest(points: DataFrame, features: Column, exemplars: Exemplars, name: str) -> DataFrame:
    """Add the nearest exemplar of each point, as a struct column (closeness, similarity, label, exemplar).

    Parameters
    ----------
    points : DataFrame
        Any table, also of a stream.
    features : Column
        Its features, array<double>. A task that meets a vector that breaks a rule raises InputError.
    exemplars : Exemplars
        Of equally close ones that with the smallest label is taken.
    name : str
        Of the new column.
    """
    kind = "string" if pa.types.is_string(exemplars.pieces[0].ids.type) else "bigint"
    columns = f"closeness double, similarity double, label bigint, exemplar {kind}"
    for number, piece in enumerate(exemplars.pieces):
        found = F.arrow_udf(piece.nearest, columns)(features)  # type: ignore[attr-defined]
        if number and not points.isStreaming:
            points = classic.replicated_checkpoint(points)  # a task would otherwise hold all pieces
        if number:
            best = F.col(name)
            found = F.when(found["closeness"] > best["closeness"], found).otherwise(best)
        points = points.withColumn(name, found)
    return points
