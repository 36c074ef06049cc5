"""Edges in parcels reach the blocks of their rows, without Spark."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ap_spark.blocks import parcels
from ap_spark.blocks.parcels import pack_parcels, unpack_parcels


def test_edges_reach_the_blocks_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcels, "_PARCEL_EDGES", 5)
    monkeypatch.setattr(parcels, "_LOAD_EDGES", 7)
    rng = np.random.default_rng(2)
    i, k = rng.integers(0, 20, (2, 60))
    wrong = rng.random(60) < 0.1
    given = [
        pa.RecordBatch.from_pydict({"i": pa.array(i[part], mask=wrong[part]), "k": k[part], "s": k[part] / 3.0})
        for part in np.array_split(np.arange(60), 4)
    ]
    for cuts in (np.array([0, 20]), np.array([0, 1, 8, 20])):
        for both in (False, True):
            reached: list[tuple[int, int, int, float]] = []
            for batch in pack_parcels(given, cuts, both=both):
                for block in range(len(cuts) - 1):
                    for edges in unpack_parcels([batch.filter(pc.equal(batch["block"], block))], 20):
                        assert len(edges) <= 5
                        reached += [(block, *edge) for edge in edges.tolist()]
            right = list(zip(i[~wrong].tolist(), k[~wrong].tolist(), strict=True))
            sent = [(row, column, column / 3.0) for row, column in right]
            if both:
                sent += [(column, ~row, column / 3.0) for row, column in right if row != column]
            block_of_row = [(int(np.searchsorted(cuts, edge[0], side="right")) - 1, *edge) for edge in sent]
            assert sorted(reached) == sorted([*block_of_row, *[(0, -1, 0, 0.0)] * int(wrong.sum())])
