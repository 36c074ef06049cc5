"""The loop of the driver: ask the engine for iterations until the exemplars stand still, and take snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ap_spark.checkpoint import WITHOUT_CHECKPOINT, Checkpoint
from ap_spark.convergence import Ending, Iteration, Stability
from ap_spark.damping import MIN_WINDOW
from ap_spark.engines import Engine
from ap_spark.errors import Interrupted
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.edge_graph import EdgeGraph

__all__ = ["EndedEarly", "Propagation", "Watch", "propagate", "without_iterating"]


class EndedEarly(Exception):
    """More iterations of a run were of no interest (``Watch.ends_early``).

    Attributes
    ----------
    exemplars : int
        How many there were after the last iteration.
    """

    def __init__(self, exemplars: int) -> None:
        super().__init__()
        self.exemplars = exemplars


@dataclass(frozen=True)
class Watch:
    """What is called while a run iterates.

    Attributes
    ----------
    callback : callable
        Called with the record of each iteration. If it returns True the run stops, after a last snapshot.
    stage : callable
        Called with the name of a stage of the run; returns a context that is left when the stage is over.
    checkpoint : Checkpoint, optional
        Where snapshots are taken.
    improving : callable, optional
        Called with a `Step` after each round of polishing, each pass of the bound, and a proof.
    ends_early : callable
        Called after each iteration with the records of all. If it returns True the run ends with `EndedEarly`.
    """

    callback: Callable[[Iteration], bool | None] = lambda done: None
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()
    checkpoint: Checkpoint | None = None
    improving: Callable[[Any], None] | None = None
    ends_early: Callable[[Sequence[Iteration]], bool] = lambda trace: False


@dataclass(frozen=True)
class Propagation:
    """How a run ended.

    Attributes
    ----------
    exemplars : DataFrame, or bool of shape (n_points,)
        The exemplars before refinement: a table of the column index, or a flag for each point, as the graph has
        them. The engine may be released only after it is read.
    ending : {"converged", "settled", "stopped"}
        Settled is a run whose exemplars stand still but for a few.
    trace : list of Iteration
        The records of all iterations, those of before the run was resumed included.
    """

    exemplars: Any
    ending: Ending
    trace: list[Iteration]


def propagate(
    graph: EdgeGraph | ArrayGraph,
    engine: Engine,
    *,
    max_iter: int,
    stability: Stability,
    watch: Watch,
    past: Sequence[Iteration] = (),
) -> Propagation:
    """Iterate until the exemplars stand still and serve all points, or to ``max_iter`` (docs/semantics.md, section 4).

    Parameters
    ----------
    graph : EdgeGraph or ArrayGraph
    engine : Engine
        At the beginning, or at the state of a snapshot.
    max_iter : int
        The last iteration there may be, those of ``past`` counted.
    stability : Stability
        Decides when exemplars have stood still; as at the beginning of the run.
    watch : Watch
    past : sequence of Iteration
        The records of the iterations that the engine has resumed after; none at the beginning.

    Returns
    -------
    Propagation

    Raises
    ------
    Interrupted
        If the callback asks to stop.
    EndedEarly
        If more iterations are of no interest (``watch.ends_early``).
    """
    # Loop summary:
    # 1. Ask the engine for iterations: as many as may pass before a snapshot is due, or before max_iter. It answers
    #    with one record for each. One job of the engine may do several iterations, so it may be ahead of the records.
    # 2. For each record: append it to the trace, call the callback, and ask whether the run is over.
    # 3. Where the engine is at the iteration of the record: stop if the callback has asked to, after a snapshot;
    #    otherwise take a snapshot if one is due.
    # 4. Repeat until the run has converged, has settled, or has done max_iter iterations. In the last case it ends with
    #    a snapshot, for a run with a larger max_iter to resume from.
    trace = list(past)
    checkpoint = watch.checkpoint

    def ending(done: Iteration, *, reached: bool) -> Ending:
        """Return whether exemplars that stand still serve nearly all points. If not, nobody asks until they change."""
        if not reached:
            return "stopped"
        unserved = 0 if graph.is_complete else engine.unserved()
        if unserved and (done.unsettled + unserved > stability.tolerated or done.iteration <= MIN_WINDOW):
            stability.refuse(done)
            return "stopped"
        return "settled" if done.unsettled or unserved else "converged"

    stop = False
    end: Ending = "stopped"
    for done in past:
        reached = stability.reached(done)
        if done.iteration < engine.iteration:
            if reached:  # and yet the run went on
                stability.refuse(done)
        else:
            end = ending(done, reached=reached)
    while end == "stopped" and engine.iteration < max_iter:
        most = min(max_iter - engine.iteration, (checkpoint and checkpoint.cadence.iterations) or max_iter)
        for done in engine.run(most, replace(stability)):
            trace.append(done)
            stop = bool(watch.callback(done)) or stop
            end = ending(done, reached=stability.reached(done))
            if end == "stopped" and not stop and watch.ends_early(trace):
                raise EndedEarly(done.exemplars)
            if done.iteration < engine.iteration:
                continue
            if stop:
                saved = checkpoint is not None and checkpoint.write(engine, graph, trace)
                raise Interrupted(_format_stop(done.iteration, checkpoint, saved=saved))
            if checkpoint and checkpoint.is_due(done.iteration) and end == "stopped":
                checkpoint.write(engine, graph, trace)
    if checkpoint and end == "stopped" and checkpoint.wants_last(engine.iteration):
        checkpoint.write(engine, graph, trace)
    return Propagation(graph.with_forced(engine.exemplars()), end, trace)


def _format_stop(iteration: int, checkpoint: Checkpoint | None, *, saved: bool) -> str:
    """Say after which iteration a run was stopped, and what the next one can resume from."""
    stopped = f"stopped after iteration {iteration}"
    if checkpoint is None:
        return f"{stopped}; {WITHOUT_CHECKPOINT}"
    return f"{stopped}, {checkpoint.format_stop(saved=saved)}"


def without_iterating(graph: EdgeGraph | ArrayGraph) -> Propagation | None:
    """Return the answer for degenerate input, as in scikit-learn; None where there is something to iterate on.

    Where no point stores an edge, or there is only one point, all points are exemplars. Where all pairs are stored with
    one similarity and all points have one preference, all are exemplars if the preference is larger than the
    similarity, and otherwise the point with the smallest id alone.
    """
    if graph.n_forced == graph.n_points or (graph.uniform and graph.uniform_gap > 0):
        return Propagation(graph.every_point(), "converged", [])
    if graph.uniform:
        return Propagation(graph.first_point(), "converged", [])
    return None
