"""The driver's loop: ask the engine for iterations until the exemplars stand still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyspark.sql.functions as F
from pyspark.sql import DataFrame

from ap_spark.convergence import Iteration, Stability
from ap_spark.engines import Engine
from ap_spark.graph import Graph

__all__ = ["Propagation", "propagate", "without_iterating"]


@dataclass(frozen=True)
class Propagation:
    """How a run ended.

    Attributes
    ----------
    exemplars : DataFrame
        (index) of the exemplars, before refinement; the engine has to live while it is read.
    converged : bool
    trace : list of Iteration
    """

    exemplars: DataFrame
    converged: bool
    trace: list[Iteration]


def propagate(
    graph: Graph, engine: Engine, *, max_iter: int, convergence_iter: int, report: Callable[[Iteration], None]
) -> Propagation:
    """Iterate until the exemplars have stood still, or ``max_iter`` is reached (semantics.md, section 4).

    Parameters
    ----------
    graph : Graph
    engine : Engine
        Fresh: it has done no iteration yet.
    report : callable
        Called with the record of each iteration.
    """
    no_answer = 0 if lonely_serve_all(graph) else graph.n_lonely
    stability = Stability(convergence_iter, no_answer)
    trace: list[Iteration] = []
    converged = False
    for done in engine.run(max_iter, Stability(convergence_iter, no_answer)):
        trace.append(done)
        report(done)
        converged = stability.reached(done)
    lonely = graph.points.where("lonely").select("index")
    return Propagation(engine.exemplars().union(lonely), converged, trace)


def lonely_serve_all(graph: Graph) -> bool:
    """Whether every other point is similar to an exemplar by definition, as where records are matched to a catalogue.

    Then those alone are an answer, and no other exemplar need be found.
    """
    if not graph.n_lonely:
        return False
    lonely = graph.small(graph.points.where("lonely").select(F.col("index").alias("k")))
    served = graph.edges.join(lonely, "k").select("i").distinct().count()
    return served == graph.n_points - graph.n_lonely


def without_iterating(graph: Graph) -> Propagation | None:
    """The answer for degenerate input, as in scikit-learn; None when there is something to iterate on.

    No point is similar to another, or there is only one point: all are exemplars. All pairs are stored with one
    similarity, and all points have one preference: if that is larger, all are exemplars, else the smallest id alone.
    """
    if graph.n_lonely == graph.n_points or (graph.uniform and graph.uniform_gap > 0):
        return Propagation(graph.points.select("index"), True, [])
    if graph.uniform:
        return Propagation(graph.points.agg(F.min("index").alias("index")), True, [])
    return None
