"""What happens at the limits: hubs, isolated points, many components, long ids, many columns, many edges.

    python -m benchmarks.load [--only "hub in" ...] [--edges 50000000] [--conf spark.driver.memory=8g] [--work DIR]

Each case's input is made, seeded and in pieces, and `ap-spark cluster` run on it, as a process of its own with its own
defaults. Prints a line of markdown for each: what came out or the message, the seconds, and the most memory and disk
that it took (`peaks.py`); what the command said goes to stderr. The case "edges" has as many as are asked for, 50 a
point, and 20 iterations, with so little damping that there are exemplars by then; a snapshot every five;
"first iteration" ends there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.peaks import Peaks

PIECE = 1_000_000  # edges, or numbers of points, made and written at once
STAGES = ("read", "graph", "propagation", "clusters", "write")
HEADER = "| case | points | edges | result | s | CPU s | s by stage | GiB JVM | GiB Python | GiB mapped | GiB disk |"

Integers = NDArray[np.int64]
Edges = tuple[Integers, Integers, NDArray[np.float64]]


@dataclass(frozen=True)
class Input:
    """What a case has written: how much, and what `ap-spark cluster` is to be told."""

    points: int
    edges: int | None
    arguments: list[str]


def on_a_line(n: int, neighbors: int) -> Iterator[Edges]:
    """Points at random places on a line, each similar to so many next to it, half of them on either side."""
    x = np.cumsum(np.random.default_rng(0).exponential(size=n))
    away = np.delete(np.arange(-(neighbors // 2), neighbors // 2 + 1), neighbors // 2)
    for start in range(0, n, PIECE // neighbors):
        i = np.arange(start, min(n, start + PIECE // neighbors)).repeat(neighbors)
        k = i + np.resize(away, len(i))
        i, k = (ends[(k >= 0) & (k < n)] for ends in (i, k))
        yield i, k, -np.square(x[i] - x[k])


def around_hub(n: int) -> Iterator[Edges]:
    """Point n and all others."""
    others = np.arange(n)
    yield others, np.full(n, n), -np.random.default_rng(1).exponential(size=n)


def in_components(n: int, size: int) -> Iterator[Edges]:
    """All pairs within components of a few points on a line."""
    x = np.random.default_rng(0).random(n)
    i, k = np.nonzero(~np.eye(size, dtype=bool))
    a_piece = PIECE // size**2
    for start in range(0, n, a_piece * size):
        first = np.arange(start, min(n, start + a_piece * size), size)[:, None]
        yield (first + i).ravel(), (first + k).ravel(), -np.square(x[first + i] - x[first + k]).ravel()


def write_edges(path: Path, pieces: Iterator[Edges], ids: pa.Array | None = None) -> int:
    """Write edges to a Parquet file, by other ids where some are given; returns how many."""
    kind = pa.int64() if ids is None else ids.type
    count = 0
    with pq.ParquetWriter(path, pa.schema({"i": kind, "k": kind, "s": pa.float64()})) as writer:
        for i, k, s in pieces:
            ends = [pa.array(end) if ids is None else ids.take(pa.array(end)) for end in (i, k)]
            writer.write_table(pa.table([*ends, s], schema=writer.schema))
            count += len(s)
    return count


def hub(work: Path, *, out: bool, n: int = 1_000_000) -> Input:
    def turned() -> Iterator[Edges]:
        yield from on_a_line(n, 4)
        for i, k, s in around_hub(n):
            yield (k, i, s) if out else (i, k, s)

    edges = write_edges(work / "edges.parquet", turned())
    return Input(n + 1, edges, [str(work / "edges.parquet"), "--edges"])


def isolated(work: Path, n: int = 1_000_000, linked: int = 100_000) -> Input:
    edges = write_edges(work / "edges.parquet", on_a_line(linked, 10))
    pq.write_table(pa.table({"id": np.arange(n + linked)}), work / "points.parquet")
    return Input(n + linked, edges, [str(work / "edges.parquet"), "--edges", "--points", str(work / "points.parquet")])


def components(work: Path, n: int = 1_000_000, size: int = 10) -> Input:
    edges = write_edges(work / "edges.parquet", in_components(n, size))
    return Input(n, edges, [str(work / "edges.parquet"), "--edges"])


def long_ids(work: Path, n: int = 200_000, characters: int = 200) -> Input:
    start = "https://example.org/records/"
    rest = characters - len(start)
    random = np.random.default_rng(1).bytes(n * rest // 2).hex()
    ids = pa.array([start + random[place * rest : (place + 1) * rest] for place in range(n)])
    edges = write_edges(work / "edges.parquet", on_a_line(n, 10), ids)
    return Input(n, edges, [str(work / "edges.parquet"), "--edges"])


def columns(work: Path, kind: str, n: int, width: int = 300) -> Input:
    """Points of many columns in clusters of about a hundred."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), *((f"x{number}", pa.float64()) for number in range(width))])
    centers = 3.0 * rng.normal(size=(n // 100, width))
    path = work / f"points.{kind}"
    with (pq.ParquetWriter if kind == "parquet" else pa.csv.CSVWriter)(path, schema) as writer:
        for start in range(0, n, PIECE // width):
            ids = np.arange(start, min(n, start + PIECE // width))
            x = centers[rng.integers(0, len(centers), len(ids))] + rng.normal(size=(len(ids), width))
            writer.write_table(pa.table([ids, *x.T], schema=schema))
    return Input(n, None, [str(path), "--id-column", "id", "--neighbors", "30"])


def many_edges(work: Path, edges: int, neighbors: int = 50) -> Input:
    """Points on a line whose ids are in random order."""
    n = edges // neighbors
    ids = pa.array(np.random.default_rng(1).permutation(n))
    edges = write_edges(work / "edges.parquet", on_a_line(n, neighbors), ids)
    options = ["--edges", "--max-iter", "20", "--damping", "0.5", "--checkpoint-every", "5"]
    return Input(n, edges, [str(work / "edges.parquet"), *options, "--checkpoint", str(work / "checkpoint")])


def first_iteration(work: Path, edges: int, *, text: bool, neighbors: int = 50) -> Input:
    """The same, up to the first iteration, by numbers or by ids of 20 characters."""
    n = edges // neighbors
    order = np.random.default_rng(1).permutation(n)
    ids = pa.array([f"record-{number:013}" for number in order.tolist()] if text else order)
    edges = write_edges(work / "edges.parquet", on_a_line(n, neighbors), ids)
    return Input(n, edges, [str(work / "edges.parquet"), "--edges", "--max-iter", "1"])


def cases(edges: int) -> dict[str, Callable[[Path], Input]]:
    return {
        "hub in": lambda work: hub(work, out=False),
        "hub out": lambda work: hub(work, out=True),
        "isolated": isolated,
        "components": components,
        "long ids": long_ids,
        "300 columns": lambda work: columns(work, "parquet", 200_000),
        "300 columns, csv": lambda work: columns(work, "csv", 20_000),
        "edges": lambda work: many_edges(work, edges),
        "first iteration": lambda work: first_iteration(work, edges, text=False),
        "first iteration, strings": lambda work: first_iteration(work, edges, text=True),
    }


def measure(name: str, make: Callable[[Path], Input], work: Path, options: list[str], timeout: float) -> None:
    """Make the input, run the command, print the line."""
    made = make(work)
    output, local = work / "out", work / "local"
    command = [str(Path(sys.executable).with_name("ap-spark")), "cluster", *made.arguments, "--output", str(output)]
    with Peaks(local) as peaks, (work / "log").open("w+") as log:
        started = time.perf_counter()
        try:
            code = subprocess.run(
                [*command, "--conf", f"spark.local.dir={local}", *options],
                stdout=log,
                stderr=log,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
        seconds = time.perf_counter() - started
        log.seek(0)
        told = log.read()
    stages, edges = "", made.edges
    if (output / "_SUCCESS").exists():
        summary = json.loads((output / "summary.json").read_text())
        edges = summary["n_edges"]
        state = "converged" if summary["converged"] else "not converged"
        result = f"{summary['n_clusters']:,} clusters, {state} after {summary['n_iter']:,}"
        stages = ", ".join(f"{stage} {summary['seconds'][stage]:.0f}" for stage in STAGES)
    else:
        last = told.strip().splitlines()[-1:] or [""]
        result = f"stopped after {timeout:.0f} s" if code == -1 else f"exit code {code}: `{last[0]}`"
    sizes = (f"{size / 2**30:.1f}" for size in (peaks.jvm, peaks.workers, peaks.mapped, peaks.disk))
    count = "" if edges is None else f"{edges:,}"
    cells = [name, f"{made.points:,}", count, result, f"{seconds:.0f}", f"{peaks.cpu:.0f}", stages, *sizes]
    print(f"| {' | '.join(cells)} |", flush=True)
    print(told, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=cases(0), default=list(cases(0)), metavar="CASE")
    parser.add_argument("--edges", type=int, default=5_000_000)
    parser.add_argument("--conf", action="append", default=[], help="a Spark setting, as for ap-spark")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for a case")
    parser.add_argument("--work", help="where inputs, outputs and Spark's files go, for as long as a case takes")
    given = parser.parse_args()
    options = [word for setting in given.conf for word in ("--conf", setting)]
    print(f"{HEADER}\n|{'---|' * HEADER.count(' | ')}---|")
    for name in given.only:
        work = Path(tempfile.mkdtemp(prefix="load-", dir=given.work))
        try:
            measure(name, cases(given.edges)[name], work, options, given.timeout)
        finally:
            shutil.rmtree(work, ignore_errors=True)  # what a stopped run is still clearing


if __name__ == "__main__":
    main()
