"""What the task that writes a block makes of its edges, without Spark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ap_spark.blocks import build
from ap_spark.blocks.build import EdgeStats, Layout, split_by_rows, with_diagonal
from ap_spark.blocks.entries import Rules, make_entries
from ap_spark.blocks.parcels import pack_parcels


def test_a_task_with_little_memory_makes_the_same_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    n, m = 50, 2000
    i, k = np.unique(rng.integers(0, n, (m, 2)), axis=0).T
    s = rng.normal(size=len(i))
    cuts = np.array([0, n])
    given = [
        pa.RecordBatch.from_pydict({"i": i[part], "k": k[part], "s": s[part]})
        for part in np.array_split(rng.permutation(len(i)), 7)
    ]
    batches = list(pack_parcels(given, cuts, both=False))
    results = []
    for at_once in (10**6, 100):
        monkeypatch.setattr(build, "_BUCKET_EDGES", at_once)
        layout = Layout(1, cuts, Rules(), len(i))
        stats = EdgeStats(np.zeros(n, np.int64), 0, np.arange(n))
        parts = []
        for edges in split_by_rows(batches, layout, 0, n, tmp_path, stats):
            found = make_entries(edges["i"], edges["k"], edges["s"], layout.rules)
            stats.update(found, "error")
            parts.append(with_diagonal(found))
        assert (len(parts) > 10) == (at_once == 100)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        results.append([*(array.tobytes() for array in whole.values()), *stats.handle().values()])
    assert results[0] == results[1]
    assert list(tmp_path.iterdir()) == []
