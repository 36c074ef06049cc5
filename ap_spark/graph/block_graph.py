"""The similarity graph in blocks beside the executors, for the resident engine."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyspark.sql.functions as F
from pyspark.sql import DataFrame, SparkSession

from ap_spark.blocks.kernel import Integers
from ap_spark.blocks.store import Blocks
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.numbering import Numbering, broadcast_if_small, ids_among, with_ids

__all__ = ["BlockGraph"]


@dataclass(frozen=True, kw_only=True)
class BlockGraph(ArrayGraph):
    """A similarity graph in blocks beside the executors.

    Attributes
    ----------
    numbering : Numbering
    blocks : Blocks
    """

    numbering: Numbering
    blocks: Blocks

    @property
    def spark(self) -> SparkSession:
        """The session that holds the blocks."""
        return self.blocks.spark

    def ids_at(self, index: Integers) -> pa.Array:
        """Return the ids of some points, in the order of the numbers given."""
        if self.numbering.ids is not None:
            return self.numbering.ids.take(pa.array(index))
        return ids_among(self.numbering.points, index)

    def similarities(self) -> DataFrame:
        """Return the stored similarities by the ids as given: (i, k, s); readable until the graph is released."""
        return with_ids(self.blocks.pairs(), broadcast_if_small(self.numbering.points, self.n_points))

    def with_block(self, entries: DataFrame) -> DataFrame:
        """Add the block of its row to each entry (i, …)."""
        return entries.select("*", F.expr(_block_of("i", self.blocks.layout.cuts)).alias("block"))


def _block_of(name: str, cuts: Integers) -> str:
    """Return SQL for the block of a point: a binary search in the cuts."""

    def between(low: int, high: int) -> str:
        if high - low == 1:
            return str(low)
        middle = (low + high) // 2
        return f"if({name} < {cuts[middle]}, {between(low, middle)}, {between(middle, high)})"

    return between(0, len(cuts) - 1)
