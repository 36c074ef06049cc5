"""What a job has written, to be compared with another's: python -m tests.outputs OUTPUT... prints a line for each."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ORDER = {"assignments": "id", "exemplars": "label", "trace": "iteration"}
OPTIONAL = {"quality": "step"}  # where clusters were improved
NUMBERS = (
    "n_points",
    "n_edges",
    "n_clusters",
    "n_iter",
    "converged",
    "netsim",
    "dpsim",
    "expref",
    "upper_bound",
    "gap",
    "fingerprint",
)


def result(output: Path) -> list[Any]:
    """All but the seconds, and the order of rows."""
    assert (output / "_SUCCESS").exists()
    there = {name: order for name, order in OPTIONAL.items() if (output / name).exists()}
    tables = [pq.read_table(output / name).sort_by(order) for name, order in (ORDER | there).items()]
    numbers = summary(output)
    return [
        *(table.select([name for name in table.column_names if name != "seconds"]).to_pydict() for table in tables),
        {name: numbers[name] for name in NUMBERS},
    ]


def summary(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return found


def main() -> None:
    for output in sys.argv[1:]:
        print(hashlib.sha256(repr(result(Path(output))).encode()).hexdigest())


if __name__ == "__main__":
    main()
