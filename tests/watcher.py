"""Reads an output all the while, as somebody else's job would: python -m tests.watcher OUTPUT REPORT

Every time it looks there is either no output, or a whole one: all its files, and tables that can be read. What has
been seen is counted in REPORT, by the output's summary; "partial" is what never may be seen.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

PAUSE = 0.01  # seconds, for what is watched to get on
NAMES = {"_SUCCESS", "assignments", "exemplars", "quality", "summary.json", "trace"}  # of a run that is polished


def look(output: Path) -> str:
    """What there is: "nothing", "partial", or the net similarity and size of a whole output."""
    try:
        directory = os.open(output, os.O_DIRECTORY)
    except FileNotFoundError:
        return "nothing"
    try:
        found = read(Path(f"/proc/self/fd/{directory}"))  # this very directory, also under another name
        if found == "partial" and not still_there(output, directory):
            return "replaced"  # this reader has been overtaken, as by any writer
        return found
    finally:
        os.close(directory)


def read(directory: Path) -> str:
    try:
        if {name for name in os.listdir(directory) if not name.startswith(".")} != NAMES:
            return "partial"
        summary = json.loads((directory / "summary.json").read_text())
        names = ("assignments", "exemplars", "trace", "quality")
        *rows, _ = (pq.read_table(f"{directory}/{name}").num_rows for name in names)
    except (OSError, ValueError):
        return "partial"
    whole = rows == [summary["n_points"], summary["n_clusters"], summary["n_iter"]]
    return f"{summary['netsim']} {rows}" if whole else "partial"


def still_there(output: Path, directory: int) -> bool:
    try:
        return os.path.samestat(output.stat(), os.fstat(directory))
    except FileNotFoundError:
        return False


def main() -> None:
    output, report = map(Path, sys.argv[1:])
    seen: Counter[str] = Counter()
    running = True

    def end(*_: object) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, end)
    while running:
        seen[look(output)] += 1
        time.sleep(PAUSE)
    report.write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
