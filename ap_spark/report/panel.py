"""Clusters at one moment of a moving picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from ap_spark.blocks.kernel import Flags, Integers

__all__ = ["Panel"]


@dataclass(frozen=True)
class Panel:
    """Clusters at one moment.

    Attributes
    ----------
    title : str
    chosen : int64, shape (n,)
        For each point, the one that is its exemplar or would be.
    is_exemplar : bool, shape (n,)
    counts : list of int
        Exemplars up to this moment.
    """

    title: str
    chosen: Integers
    is_exemplar: Flags
    counts: list[int] = field(default_factory=list)
