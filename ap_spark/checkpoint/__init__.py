"""Snapshots of a run: after a crash the same command resumes from the newest one.

`store`          snapshots on disk: write, read, list, delete
`record`         the row that says which run a snapshot is of: to and from a table, no Spark
`compatibility`  whether a snapshot is of this run: records and settings in, a mismatch out, no Spark
`cadence`        when a snapshot is due: iterations and seconds in, yes or no out, no Spark
`checkpoint`     the four put together, for the loop of `propagation.py`
"""

from __future__ import annotations

from ap_spark.checkpoint.checkpoint import WITHOUT_CHECKPOINT, Checkpoint, Snapshot
from ap_spark.checkpoint.store import writable_store

__all__ = ["WITHOUT_CHECKPOINT", "Checkpoint", "Snapshot", "writable_store"]
