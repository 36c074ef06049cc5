"""The state of a run, in one form for all engines: what a snapshot holds, and what an engine can resume from."""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import DataFrame

__all__ = ["COLUMNS", "MESSAGES", "State"]

MESSAGES = "i bigint, k bigint, similarity double, r double, a double"
COLUMNS = "k bigint, total double, a double, exemplar boolean, level tinyint, flipped int"


class State(NamedTuple):
    """The messages after an iteration, while its availabilities are still only known as column totals.

    An iteration ends with the totals T(k) (docs/semantics.md, section 2). The availabilities that follow from them are
    computed where the next iteration begins, so the state holds the totals and the availabilities of before.

    Attributes
    ----------
    iteration : int
        The last iteration.
    messages : DataFrame
        (i, k, similarity, r, a), a row for each entry, the diagonal included. Similarities are as given, so that the
        graph can be rebuilt from them; on the diagonal they have no meaning. r is of this iteration, a of the one
        before.
    columns : DataFrame
        (k, total, a, exemplar, level, flipped), a row for each column: T(k) of this iteration; a(k,k) of this
        iteration, NaN where k has no row (a forced exemplar); whether a(k,k) + r(k,k) > 0; the level of the damping of
        k in this iteration; the last iteration in which k became or ceased to be an exemplar, 0 for none. Columns
        without any entry may be left out.
    """

    iteration: int
    messages: DataFrame
    columns: DataFrame
