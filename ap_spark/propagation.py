"""The driver's loop: ask the engine for iterations until the exemplars stand still; now and then take a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ap_spark._spark import classic
from ap_spark.checkpoint import Checkpoint
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines import Engine
from ap_spark.errors import Interrupted
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.edge_graph import EdgeGraph

__all__ = ["EndedEarly", "Propagation", "Watch", "propagate", "without_iterating"]


class EndedEarly(Exception):
    """A run was ended, since ``Watch.ends_early`` said so; with the exemplars until then."""

    def __init__(self, exemplars: int) -> None:
        super().__init__()
        self.exemplars = exemplars


@dataclass(frozen=True)
class Watch:
    """Who looks on while a run iterates.

    Attributes
    ----------
    callback : callable
        Called with the record of each iteration; returns True to have the run stopped.
    stage : callable
        Of a name: a context that lasts as long as that stage of the run.
    checkpoint : Checkpoint, optional
    ends_early : callable
        Asked after iterations, with the records of all, whether more of them are of no interest.
    """

    callback: Callable[[Iteration], bool | None] = lambda done: None
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    checkpoint: Checkpoint | None = None
    ends_early: Callable[[Sequence[Iteration]], bool] = lambda trace: False


@dataclass(frozen=True)
class Propagation:
    """How a run ended.

    Attributes
    ----------
    exemplars : DataFrame, or bool of shape (n_points,)
        The exemplars, before refinement, in the form that the graph has; the engine has to live while it is read.
    converged : bool
    trace : list of Iteration
    """

    exemplars: Any
    converged: bool
    trace: list[Iteration]


def propagate(
    graph: EdgeGraph | BlockGraph,
    engine: Engine,
    *,
    max_iter: int,
    convergence_iter: int,
    watch: Watch,
    past: Sequence[Iteration] = (),
) -> Propagation:
    """Iterate until the exemplars stand still and serve all points, or to ``max_iter`` (docs/semantics.md, section 4).

    Parameters
    ----------
    graph : EdgeGraph
    engine : Engine
    watch : Watch
    past : sequence of Iteration
        The records of the iterations that the engine has started from; none if it is fresh.

    Raises
    ------
    Interrupted
        When asked to stop.
    EndedEarly
        When more iterations are of no interest.
    """
    stability = Stability(convergence_iter)
    trace = list(past)
    checkpoint = watch.checkpoint

    def has_converged(*, still: bool) -> bool:
        """Whether exemplars that stand still serve all points. As long as they stand still the answer is the same."""
        if still and not graph.is_complete and engine.unserved():
            stability.refuse()
            return False
        return still

    with classic.uncancellable(graph.spark):
        still = stop = False
        for done in past:
            still = stability.reached(done)
        converged = has_converged(still=still)
        while not converged and engine.iteration < max_iter:
            most = min(max_iter - engine.iteration, (checkpoint and checkpoint.iterations) or max_iter)
            for done in engine.run(most, replace(stability)):
                trace.append(done)
                stop = bool(watch.callback(done)) or stop
                converged = has_converged(still=stability.reached(done))
                if not converged and watch.ends_early(trace):
                    raise EndedEarly(done.exemplars)
                if done.iteration < engine.iteration:
                    continue  # the engine's job has come further
                if stop:
                    saved = checkpoint is not None and checkpoint.write(engine, graph, trace)
                    raise Interrupted(told(trace, checkpoint, saved))
                if checkpoint and checkpoint.is_due(done.iteration) and not converged:
                    checkpoint.write(engine, graph, trace)
        if checkpoint and not converged and checkpoint.last < engine.iteration and checkpoint.extensible:
            checkpoint.write(engine, graph, trace)  # for a run with a larger max_iter
    return Propagation(graph.with_forced(engine.exemplars()), converged, trace)


def told(trace: list[Iteration], checkpoint: Checkpoint | None, saved: bool) -> str:
    """Where the run was stopped, and how to go on."""
    words = f"stopped after iteration {trace[-1].iteration}"
    if checkpoint is None:
        return f"{words}; {Checkpoint.NONE_KEPT}"
    if not saved:
        return f"{words}, without a snapshot of it; {checkpoint.last_words}"
    command = "the same command" if checkpoint.resume else "the same command, but without --no-resume,"
    return f"{words}, with a snapshot in {checkpoint.store}: {command} goes on from there"


def without_iterating(graph: EdgeGraph | BlockGraph) -> Propagation | None:
    """The answer for degenerate input, as in scikit-learn; None when there is something to iterate on.

    No point is similar to another, or there is only one point: all are exemplars. All pairs are stored with one
    similarity, and all points have one preference: if that is larger, all are exemplars, else the smallest id alone.
    """
    if graph.n_forced == graph.n_points or (graph.uniform and graph.uniform_gap > 0):
        return Propagation(graph.every_point(), True, [])
    if graph.uniform:
        return Propagation(graph.first_point(), True, [])
    return None
