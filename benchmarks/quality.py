"""How good the clusters are: beside the best possible, beside programs of others, beside a longer search.

    python -m benchmarks.quality [--only known others moves graphs] [--data iris digits]

known: data whose answers are known, with the default settings, and the netsim without polishing.
others: FasterPAM, scikit-learn and R at the same preference; net similarities computed alike (`others.py`).
moves: single moves one after the other, from where 200 iterations end (`single_moves.py`), on 20,000 x 50.
graphs: 50 neighbours of many points at five preferences, beside plain iterations of damping 0.9.

Prints lines of markdown for benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from sklearn.datasets import load_iris

from ap_spark import (
    Clustering,
    Quality,
    Similarity,
    Sparsification,
    affinity_propagation,
    cluster_points,
    nearest_neighbors,
)
from ap_spark._spark.session import start_session
from ap_spark.blocks.kernel import make_block
from ap_spark.io.frames import to_spark
from ap_spark.quality.improve import Step
from ap_spark.quality.polish import polish
from ap_spark.quality.problem import local_problem
from ap_spark.quality.solution import evaluate
from ap_spark.settings import Execution, Symmetrize
from benchmarks.others import PROGRAMS, Task, net_similarity, run_limited
from benchmarks.workload import clustered_points

ROOT = Path(__file__).parent.parent
STAGES = ("similarities", "graph", "propagation", "clusters")
QUANTILES = (0.5, 0.375, 0.25, 0.125, 0.0)  # of the similarities, for the preference
DEFAULT, PLAIN = Quality(), Quality(polish=False, gap=None)


@dataclass(frozen=True)
class Case:
    """Data, and what is known of its best clustering."""

    data: str
    preference: float | None = None
    quantile: float | None = None
    neighbors: int | None = None
    symmetrize: Symmetrize | None = None
    best: str = ""

    @property
    def name(self) -> str:
        if self.neighbors is None:
            return self.data
        return f"{self.data}, {self.neighbors} neighbours, {'union' if self.symmetrize is None else 'one-sided'}"

    @property
    def at(self) -> str:
        if self.preference is not None:
            return f"{self.preference:,g}"
        return "minimum" if self.quantile == 0.0 else "median"

    def cluster(self, quality: Quality = DEFAULT, **options: Any) -> Clustering:
        return cluster_points(
            points_of(self.data),
            similarity=Similarity(neighbors=self.neighbors),
            sparsification=Sparsification(symmetrize=self.symmetrize),
            preference=self.preference,
            preference_quantile=self.quantile,
            quality=quality,
            **options,
        )


KNOWN = (
    Case("toy25", best="-118.484448, K 3"),
    Case("toy25", -5.0, best="-66.992879, K 6"),
    Case("toy25", -15.0, best="-115.006096, K 3"),
    Case("toy25", quantile=0.0),
    Case("iris", best="-77.40, K 6"),
    Case("iris", quantile=0.0, best="-234.51"),
    Case("iris", -20.0, best="-140.39, K 4"),
    Case("iris", -5.0, neighbors=30, symmetrize="none", best="-73.75, K 7"),
    Case("iris", -5.0, neighbors=30, best="-73.75, K 7"),
    Case("digits", neighbors=50, symmetrize="none"),
    Case("digits", neighbors=50, best="-723,403, K 300"),
    Case("digits", -2000.0, neighbors=50, symmetrize="none", best="at most -944,215.6"),
    Case("digits", -2000.0, neighbors=50, best="at most -944,215.6"),
)
BESIDE = (Case("iris"), Case("digits"), Case("digits", -25_000.0), Case("digits", -4000.0), Case("10,000 points"))


def points_of(data: str) -> NDArray[np.float64]:
    if data == "iris":
        return np.asarray(load_iris().data, dtype=np.float64)
    if data == "toy25":
        return np.array(json.loads((ROOT / "tests" / "fixtures" / "toy25.json").read_text())["points"])
    if data == "digits":
        return np.loadtxt(ROOT / "data" / "digits.csv.gz", delimiter=",", skiprows=1, usecols=range(64))
    return clustered_points(int(data.split()[0].replace(",", "")), 16, a_cluster=80, spread=2.0)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.6f}" if abs(value) < 1000 else f"{value:,.1f}"


def percent(gap: float | None) -> str:
    return "" if gap is None else f"{100.0 * gap:.4f}" if gap else "0: proved"


def iterations_of(found: Clustering) -> str:
    return f"{found.n_iter}{'' if found.converged else f' ({found.summary.ending})'}"


def report_known(cases: Iterable[Case]) -> None:
    print(
        f"| data | preference | iterations | without polishing | K | netsim | bound | gap, % | {' | '.join(STAGES)} ",
        end="",
    )
    print("| best known |")
    print("|" + "---|" * (9 + len(STAGES)))
    for case in cases:
        plain = case.cluster(PLAIN).summary
        found = case.cluster()
        about = found.summary
        seconds = " | ".join(f"{about.seconds.get(stage, 0.0):.1f}" for stage in STAGES)
        print(
            f"| {case.name} | {case.at} | {iterations_of(found)} | {number(plain.netsim)}, K {plain.n_clusters} "
            f"| {about.n_clusters} | {number(about.netsim)} | {number(about.upper_bound)} | {percent(about.gap)} "
            f"| {seconds} | {case.best} |",
            flush=True,
        )


def report_others(cases: Iterable[Case], seconds: float, gib: float) -> None:
    print("| data | preference | program | K | netsim | below ours, % | s | |\n|" + "---|" * 8)
    for case in cases:
        _report_beside(case, seconds, gib)


def _report_beside(case: Case, limit: float, gib: float) -> None:
    x = points_of(case.data)
    started = time.perf_counter()
    clustering = case.cluster()
    exemplars = np.sort(clustering.to_pandas().exemplars["exemplar"].to_numpy().astype(np.int64))
    took = time.perf_counter() - started
    about = clustering.summary
    assert about.preference is not None
    task = Task(x, about.preference, about.n_clusters)
    netsim = net_similarity(x, about.preference, exemplars)
    assert abs(netsim - about.netsim) <= 1e-9 * abs(netsim)
    at = case.at if case.preference is not None else f"median, {about.preference:,.6g}"

    def row(name: str, count: int, value: float, seconds: float, note: str) -> None:
        below = 100.0 * (netsim - value) / abs(netsim)
        print(
            f"| {case.name} | {at} | {name} | {count} | {number(value)} | {below:.4f} | {seconds:.1f} | {note} |",
            flush=True,
        )

    proved = "proved best" if about.gap == 0.0 else f"gap {percent(about.gap)} %"
    row("ours", len(exemplars), netsim, took, f"iterations: {iterations_of(clustering)}; {proved}")
    for name in PROGRAMS:
        answer = run_limited(name, task, limit, gib)
        if isinstance(answer, str):
            print(f"| {case.name} | {at} | {name} | | | | | {answer} |", flush=True)
            continue
        value = net_similarity(x, about.preference, answer.exemplars)
        row(name, len(answer.exemplars), value, answer.seconds, answer.note)


def report_moves(spark: SparkSession, n_points: int, iterations: int) -> None:
    """Start all from the same exemplars, in one process; then the whole run with the default settings."""
    from benchmarks.single_moves import search  # needs numba

    case = Case(f"{n_points:,} points", neighbors=50)
    steering: dict[str, Any] = {"damping": 0.9, "max_iter": iterations, "convergence_iter": iterations}
    start = case.cluster(PLAIN, **steering)
    preference = start.summary.preference
    assert preference is not None
    is_exemplar = np.zeros(n_points, bool)
    is_exemplar[start.to_pandas().exemplars["exemplar"].to_numpy()] = True
    i, k, s = neighbor_edges(spark, case)
    preferences = np.full(n_points, preference)
    everyone = np.arange(n_points)
    rows, columns = np.append(i, everyone), np.append(k, everyone)
    order = np.lexsort((columns, rows))
    block = make_block(rows[order], columns[order], np.append(s, np.zeros(n_points))[order])
    problem = local_problem([(block, block.s)], preferences)

    print(f"{len(s):,} similarities, preference {preference:,.6f}\n")
    print("| what | K | netsim | rounds | moves | s | |\n|" + "---|" * 7)

    def row(
        name: str, count: int, netsim: float, rounds: object, moves: object, seconds: float, note: str = ""
    ) -> None:
        print(f"| {name} | {count} | {number(netsim)} | {rounds} | {moves} | {seconds:.2f} | {note} |", flush=True)

    about = start.summary
    row(f"{iterations} iterations alone", about.n_clusters, about.netsim, "", "", sum(about.seconds.values()))
    search(i, k, s, preferences, is_exemplar)  # compiles
    started = time.perf_counter()
    found = search(i, k, s, preferences, is_exemplar)
    seconds = time.perf_counter() - started
    count = int(np.count_nonzero(found.is_exemplar))
    row("single moves, one after the other (numba)", count, found.netsim, found.rounds, found.moves, seconds)

    started = time.perf_counter()
    rounds = 0

    def told(solution: object) -> None:
        nonlocal rounds
        rounds += 1

    polished = polish(problem, evaluate(problem, is_exemplar, keep_count=True), told=told)
    seconds = time.perf_counter() - started
    row("polishing alone (numpy)", polished.n_clusters, polished.netsim * problem.unit, rounds, "", seconds)
    after = search(i, k, s, preferences, polished.is_exemplar)
    count = int(np.count_nonzero(after.is_exemplar))
    row("… and single moves after it", count, after.netsim, after.rounds, after.moves, 0.0)

    for name, options in ((f"{iterations} iterations, default quality", steering), ("all default", {})):
        steps = Steps()
        whole = case.cluster(callback=steps, **options)
        about = whole.summary
        note = f"bound {number(about.upper_bound)}, gap {percent(about.gap)} %, {steps.count['bound']} passes; "
        note += f"{iterations_of(whole)} iterations; whole run {sum(about.seconds.values()):.1f} s"
        row(name, about.n_clusters, about.netsim, steps.count["polish"], "", about.seconds["clusters"], note)


def report_graphs(spark: SparkSession, sizes: Iterable[int], longest: int, directory: Path) -> None:
    """Beside them 1,000 plain iterations up to ``longest`` points; of more points 200, at one preference."""
    print(
        "| points | quantile | what | iterations | K | netsim | gap, % | graph | propagation | clusters "
        "| / 200 plain iterations |\n|" + "---|" * 11
    )
    union = Sparsification(symmetrize="union")
    for n_points in sizes:
        path = str(directory / f"neighbors-{n_points}")
        if not Path(path, "_SUCCESS").exists():
            points = to_spark(points_of(f"{n_points} points"), "points")
            nearest_neighbors(points, 50).edges.write.mode("overwrite").parquet(path)
        cluster = partial(affinity_propagation, spark.read.parquet(path), sparsification=union)
        iteration = 0.0  # the seconds of a plain one
        for quantile in QUANTILES:
            runs: list[tuple[str, dict[str, Any]]] = [("default", {})]
            if n_points <= longest or quantile == QUANTILES[0]:
                most = 1000 if n_points <= longest else 200
                steering = {"damping": 0.9, "convergence_iter": most, "max_iter": most, "quality": PLAIN}
                runs.insert(0, (f"{most:,} plain iterations", steering))
            for name, options in runs:
                found = cluster(preference_quantile=quantile, **options)
                about = found.summary
                seconds = [about.seconds[stage] for stage in ("graph", "propagation", "clusters")]
                if options:
                    iteration = seconds[1] / about.n_iter
                stages = " | ".join(f"{part:.1f}" for part in seconds)
                print(
                    f"| {n_points:,} | {quantile:g} | {name} | {iterations_of(found)} | {about.n_clusters} "
                    f"| {number(about.netsim)} | {percent(about.gap)} | {stages} "
                    f"| {(seconds[1] + seconds[2]) / (200.0 * iteration):.2f} |",
                    flush=True,
                )


class Steps:
    """A callback that counts rounds of polishing and passes of the bound."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def __call__(self, done: object) -> None:
        pass

    def improving(self, step: Step) -> None:
        self.count[step.name] += 1


def neighbor_edges(spark: SparkSession, case: Case) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The similarities that a case's run stores."""
    from ap_spark.pipeline import described

    with described(
        points_of(case.data),
        points=None,
        similarity=Similarity(neighbors=case.neighbors),
        sparsification=Sparsification(symmetrize=case.symmetrize),
        execution=Execution(),
        preference=None,
        preference_quantile=None,
        clusters=None,
    ) as (_, similarities, _):
        table = similarities.toArrow()
    return tuple(table[name].to_numpy() for name in ("i", "k", "s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["known", "others", "moves", "graphs"]
    parser.add_argument("--only", nargs="+", default=parts[:3], choices=parts)
    parser.add_argument("--data", nargs="+", help="of known and others: these alone, such as iris")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each program of others")
    parser.add_argument("--gib", type=float, default=8.0, help="of memory for each program of others")
    parser.add_argument("--points", type=int, default=20_000, help="of moves")
    parser.add_argument("--iterations", type=int, default=200, help="of moves")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000, 1_000_000], help="of graphs")
    parser.add_argument("--longest", type=int, default=100_000, help="of graphs: 1,000 iterations up to so many points")
    parser.add_argument("--directory", type=Path, default=Path("out"), help="of graphs: where similarities are kept")
    given = parser.parse_args()
    spark = start_session(short=False)
    spark.sparkContext.setLogLevel("ERROR")
    Case("toy25").cluster()  # warm-up

    def chosen(cases: Iterable[Case]) -> list[Case]:
        return [case for case in cases if not given.data or case.data in given.data]

    if "known" in given.only:
        report_known(chosen(KNOWN))
    if "others" in given.only:
        report_others(chosen(BESIDE), given.seconds, given.gib)
    if "moves" in given.only:
        report_moves(spark, given.points, given.iterations)
    if "graphs" in given.only:
        report_graphs(spark, given.sizes, given.longest, given.directory)
    spark.stop()


if __name__ == "__main__":
    main()
