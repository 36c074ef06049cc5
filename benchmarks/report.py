"""How long a report takes, and how large it is.

    python -m benchmarks.report [--results DIR ...]

iris, as the command and in Python with tables of pandas: a run with the report and without it, in turns, the medians.
Then the report of each result that is named (one of `ap-spark cluster` or `save`, with --points where its points lie).

Prints lines of markdown for benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ap_spark import cluster_points
from benchmarks.quality import ROOT

_ROUNDS = 5
_IRIS = ROOT / "data" / "iris.csv"


def command(*arguments: str) -> float:
    """Run ap-spark; return the seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ap_spark", *arguments, "--quiet"], check=True)
    return time.perf_counter() - started


def size_of(directory: Path) -> str:
    return f"{(directory / 'report.html').stat().st_size / 1e6:.2f}"


def iris_by_command(directory: Path) -> None:
    run = ["cluster", str(_IRIS), "--feature-columns", "0-3", "--preference", "-50", "--overwrite", "--output"]
    out = directory / "iris"
    pairs = [(command(*run, str(out)), command(*run, str(out), "--report")) for _ in range(_ROUNDS)]
    without, with_report = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    print(f"| iris, the command | {without:.1f} | {with_report:.1f} | {with_report - without:.1f} | {size_of(out)} |")


def iris_in_python(directory: Path) -> None:
    flowers = pd.read_csv(_IRIS)
    result = cluster_points(flowers.drop(columns="species"), preference=-50.0)
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        result.report(directory / "flowers", rows=flowers, overwrite=True)
        seconds.append(time.perf_counter() - started)
    times = f"{seconds[0]:.1f} the first time, then {statistics.median(seconds[1:]):.1f}"
    print(f"| iris, `result.report()` | | {times} | | {size_of(directory / 'flowers')} |")


def report_of(result: str, points: Sequence[str], directory: Path) -> None:
    out = directory / "page"
    seconds = command("report", result, *points, "--output", str(out), "--overwrite")
    print(f"| {Path(result).name}, `ap-spark report` | | {seconds:.1f} | | {size_of(out)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", nargs="*", default=[])
    parser.add_argument("--points", nargs="*", default=[])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for result in given.results:
            report_of(result, given.points, Path(name))
        iris_in_python(Path(name))
        iris_by_command(Path(name))


if __name__ == "__main__":
    main()
