"""Programs of others that choose exemplars, each in a process of its own with limits of time and memory.

FasterPAM is of the package kmedoids (``pip install kmedoids``), R's apcluster of Debian's r-cran-apcluster. All get
points, similarities being minus squared distances; all but FasterPAM get a preference.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import resource
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

__all__ = ["PROGRAMS", "Task", "missing", "net_similarity", "run_limited"]

Floats = NDArray[np.float64]
Exemplars = NDArray[np.int64]

_SEEDS = 3
_AROUND = (-0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05)  # of the number of clusters, besides one more and one fewer


class Task(NamedTuple):
    """Points and their preference; around how many clusters a program that needs to be told looks."""

    x: Floats
    preference: float
    clusters: int


class Answer(NamedTuple):
    """Exemplars, the seconds until they were found, and what to say about it."""

    exemplars: Exemplars
    seconds: float
    note: str


def net_similarity(x: Floats, preference: float, exemplars: Exemplars) -> float:
    """Return the sum of similarities to the most similar exemplar, and of the exemplars' preferences."""
    others = np.setdiff1d(np.arange(len(x)), exemplars)
    nearest = [cdist(x[rows], x[exemplars], "sqeuclidean").min(axis=1) for rows in np.array_split(others, 20)]
    return float(len(exemplars) * preference - np.concatenate(nearest).sum())


def faster_pam(task: Task) -> Answer:
    """The best of three seeds and of several numbers of clusters."""
    import kmedoids

    started = time.perf_counter()
    distance = cdist(task.x, task.x, "sqeuclidean").astype(np.float32 if len(task.x) > 5000 else np.float64)
    counts = {task.clusters + round(share * task.clusters) for share in _AROUND}
    counts |= {task.clusters - 1, task.clusters, task.clusters + 1}
    runs: list[tuple[float, float, Exemplars]] = []
    for count in sorted(counts - {0}):
        for seed in range(_SEEDS):
            before = time.perf_counter()
            found = kmedoids.fasterpam(distance, count, random_state=seed, n_cpu=1)
            took = time.perf_counter() - before
            exemplars = found.medoids.astype(np.int64)
            runs.append((net_similarity(task.x, task.preference, exemplars), took, exemplars))
    _, took, exemplars = max(runs, key=lambda run: run[0])
    return Answer(exemplars, time.perf_counter() - started, f"best of {len(runs)} runs; that one alone {took:.1f} s")


def scikit_learn(task: Task, damping: float, iterations: int | None = None) -> Answer:
    from sklearn.cluster import AffinityPropagation

    options: dict[str, Any] = {} if iterations is None else {"max_iter": iterations}
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = AffinityPropagation(damping=damping, preference=task.preference, random_state=0, **options).fit(task.x)
    seconds = time.perf_counter() - started
    note = f"{found.n_iter_} iterations" + (", not converged" if warned else "")
    return Answer(np.asarray(found.cluster_centers_indices_, dtype=np.int64), seconds, note)


def r_apcluster(task: Task) -> Answer:
    script = """
        suppressMessages(library(apcluster))
        x <- as.matrix(read.csv("points.csv", header = FALSE))
        seconds <- system.time({
            s <- negDistMat(x, r = 2)
            found <- apcluster(s, p = scan("preference.csv", quiet = TRUE), seed = 1)
        })["elapsed"]
        write(found@exemplars - 1, "exemplars.csv", ncolumns = 1)
        write(c(seconds, found@it), "about.csv", ncolumns = 1)
    """
    with tempfile.TemporaryDirectory() as directory:
        np.savetxt(f"{directory}/points.csv", task.x, delimiter=",", fmt="%.17g")
        np.savetxt(f"{directory}/preference.csv", [task.preference], fmt="%.17g")
        Path(f"{directory}/script.R").write_text(script)
        subprocess.run(["Rscript", "script.R"], cwd=directory, check=True, capture_output=True)
        seconds, iterations = np.loadtxt(f"{directory}/about.csv")
        exemplars = np.loadtxt(f"{directory}/exemplars.csv", dtype=np.int64, ndmin=1)
    return Answer(exemplars, float(seconds), f"{iterations:.0f} iterations")


def scikit_learn_default(task: Task) -> Answer:
    return scikit_learn(task, 0.5)


def scikit_learn_damped(task: Task) -> Answer:
    return scikit_learn(task, 0.9, 1000)


PROGRAMS: dict[str, Callable[[Task], Answer]] = {
    "FasterPAM": faster_pam,
    "scikit-learn, damping 0.5": scikit_learn_default,
    "scikit-learn, damping 0.9, 1,000 iterations": scikit_learn_damped,
    "R apcluster": r_apcluster,
}


def missing(name: str) -> str | None:
    """Say what has to be installed for a program, if it is not there."""
    if name == "FasterPAM" and importlib.util.find_spec("kmedoids") is None:
        return "needs `pip install kmedoids`"
    if name == "R apcluster" and shutil.which("Rscript") is None:
        return "needs Rscript and `apt-get install r-cran-apcluster`"
    return None


def run_limited(name: str, task: Task, seconds: float, gib: float) -> Answer | str:
    """Run a program; return its answer, or say why there is none."""
    if reason := missing(name):
        return reason
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(name, task, gib, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            return f"no answer in {seconds:.0f} s"
        answer: Answer | str = receiver.recv()
        return answer
    except EOFError:
        return "ended without an answer"
    finally:
        _end(process.pid)
        process.join()


def _answer(name: str, task: Task, gib: float, sender: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30),) * 2)
    try:
        sender.send(PROGRAMS[name](task))
    except MemoryError:
        sender.send(f"more than {gib:g} GiB of memory")
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode().strip().splitlines()
        sender.send(f"failed: {words[-1] if words else error}")


def _end(process: int | None) -> None:
    """End a process and those that it has started."""
    import psutil

    try:
        parent = psutil.Process(process)
        for child in (*parent.children(recursive=True), parent):
            child.kill()
    except psutil.NoSuchProcess:
        pass
