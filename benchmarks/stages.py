"""Points to clusters by the real command, stage by stage, at several sizes.

    python -m benchmarks.stages [--points 100000 250000 500000 1000000]

Prints the seconds of each stage, of 200 iterations and of the whole command, and the most memory of the JVM and
of all Python processes, mapped files for themselves (`peaks.py`), as lines of markdown for benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peaks import Peaks
from benchmarks.workload import clustered_points

STAGES = ("start", "read", "similarities", "graph", "propagation", "clusters")


def points_file(n_points: int, directory: Path) -> Path:
    """Points in 16 dimensions, in clusters of about 1,000, in four files."""
    path = directory / f"points-{n_points}.parquet"
    if not path.exists():
        x = clustered_points(n_points, 16, a_cluster=1000)
        unfinished = path.with_suffix(".part")
        unfinished.mkdir(parents=True, exist_ok=True)
        for number, rows in enumerate(np.array_split(np.arange(n_points), 4)):
            columns = {"id": rows} | {f"x{d}": x[rows, d] for d in range(16)}
            pq.write_table(pa.table(columns), unfinished / f"{number}.parquet")
        unfinished.rename(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--directory", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("options", nargs="*", help="more options of the command, after --")
    given = parser.parse_args()
    print(f"| points | {' | '.join(STAGES)} | write and the rest | all | GiB JVM | GiB Python | GiB mapped |")
    print("|" + "---|" * (len(STAGES) + 6))
    for n_points in given.points:
        output = given.directory / "out"
        shutil.rmtree(output, ignore_errors=True)
        command = [Path(sys.executable).parent / "ap-spark", "cluster", points_file(n_points, given.directory)]
        command += ["--id-column", "id", "--neighbors", "50", "--max-iter", "200", "--convergence-iter", "1000"]
        started = time.perf_counter()
        with Peaks() as peaks:
            command += ["--output", output, *given.options]
            subprocess.run([*map(str, command)], stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - started
        found = json.loads((output / "summary.json").read_text())["seconds"]
        stages = [found[name] for name in STAGES]
        rest = seconds - sum(stages)
        told = " | ".join(f"{value:.1f}" for value in (*stages, rest, seconds))
        gib = " | ".join(f"{size / 2**30:.1f}" for size in (peaks.jvm, peaks.workers, peaks.mapped))
        print(f"| {n_points:,} | {told} | {gib} |", flush=True)


if __name__ == "__main__":
    main()
