"""Points to clusters by the real command, stage by stage, at several sizes.

    python -m benchmarks.stages [--points 100000 250000 500000 1000000]

Prints the seconds of each stage, of 200 iterations and of the whole command, and the largest resident sets of the JVM
and of all Python processes, as lines of markdown for benchmarks/results.md.
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
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workload import clustered_points

STAGES = ("start", "read", "graph", "propagation", "clusters")


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


def sizes(process: psutil.Process) -> tuple[float, float]:
    """Resident GiB of Java and of Python among a process and its children."""
    java = python = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            resident = one.memory_info().rss
            if one.name() == "java":
                java += resident
            else:
                python += resident
        except psutil.Error:
            continue
    return java / 2**30, python / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--directory", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("options", nargs="*", help="more options of the command, after --")
    given = parser.parse_args()
    print(f"| points | {' | '.join(STAGES)} | write and the rest | all | GiB JVM | GiB Python |")
    print("|" + "---|" * (len(STAGES) + 5))
    for n_points in given.points:
        output = given.directory / "out"
        shutil.rmtree(output, ignore_errors=True)
        command = [Path(sys.executable).parent / "ap-spark", "cluster", points_file(n_points, given.directory)]
        command += ["--id-column", "id", "--neighbors", "50", "--max-iter", "200", "--convergence-iter", "1000"]
        started = time.perf_counter()
        process = psutil.Popen([*map(str, command), "--output", str(output), *given.options], stdout=subprocess.DEVNULL)
        java = python = 0.0
        while process.poll() is None:
            now = sizes(process)
            java, python = max(java, now[0]), max(python, now[1])
            time.sleep(0.5)
        seconds = time.perf_counter() - started
        assert process.returncode == 0
        found = json.loads((output / "summary.json").read_text())["seconds"]
        stages = [found[name] for name in STAGES]
        rest = seconds - sum(stages)
        told = " | ".join(f"{value:.1f}" for value in (*stages, rest, seconds))
        print(f"| {n_points:,} | {told} | {java:.1f} | {python:.1f} |", flush=True)


if __name__ == "__main__":
    main()
