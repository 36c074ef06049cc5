"""Where a run has come to, in one form for all engines: what a snapshot holds, and what an engine can go on from."""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import DataFrame

__all__ = ["COLUMNS", "MESSAGES", "State"]

MESSAGES = "i bigint, k bigint, similarity double, r double, a double"
COLUMNS = "k bigint, total double, a double, exemplar boolean"


class State(NamedTuple):
    """The messages between the two halves of an iteration's end: totals are known and have not reached the edges yet.

    Attributes
    ----------
    iteration : int
        The last iteration.
    messages : DataFrame
        (i, k, similarity, r, a) of all entries, the diagonal included, whose similarity has no meaning: similarities as
        given, so that the graph can be made again of them; the responsibilities of this iteration, and the
        availabilities of the one before.
    columns : DataFrame
        (k, total, a, exemplar): T(k), from which this iteration's availabilities follow; a(k,k) among them, which is
        not a number where k has no row; whether k is an exemplar. Columns without any entry may be left out.
    """

    iteration: int
    messages: DataFrame
    columns: DataFrame
