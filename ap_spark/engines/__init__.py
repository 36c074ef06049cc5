"""Iterations on the whole graph, computed in three ways whose results are bitwise identical.

`dataframe.DataFrameEngine` states the algorithm plainly, as groupBy and join over the cluster, and runs on Spark
Connect too. `resident.ResidentEngine` keeps the edges in files beside the executors, and is the fast one.
`in_process.InProcessEngine` is for small graphs, which this process holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

from ap_spark.convergence import Iteration, Stability
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.engines.in_process import InProcessEngine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.engines.state import State
from ap_spark.errors import SettingError
from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.graph.local_graph import LocalGraph
from ap_spark.settings import Settings

__all__ = ["Engine", "State", "make_engine"]


class Engine(Protocol):
    """What the loop in `propagation.py` asks of an engine. Points are named by their index, 0 to n - 1."""

    @property
    def name(self) -> str:
        """The name of the engine in the settings and in the summary."""

    @property
    def iteration(self) -> int:
        """The last iteration that is done. One job may do several, ahead of the records that `run` yields."""

    @property
    def recovery_state(self) -> State | None:
        """The state from which lost parts would be rebuilt now, which has to stay readable; None if there is none."""

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        """Do up to ``most`` further iterations, and yield one record for each; end where stability is reached."""

    def unserved(self) -> int:
        """Count the points that are no exemplars and store no edge to one."""

    def exemplars(self) -> Any:
        """Return the points with a(k,k) + r(k,k) > 0 without the forced exemplars, in the form that its graph has."""

    def state(self) -> State:
        """Return the present messages and columns. The tables can be read until the next iteration."""

    def set_recovery_point(self, state: State) -> None:
        """Rebuild lost parts, from now on, from ``state``: a copy of the present state that stays readable."""

    def release(self) -> None:
        """Free everything that the engine holds in the cluster."""


def make_engine(graph: EdgeGraph | ArrayGraph, settings: Settings, start: State | None = None) -> Engine:
    """Make the engine for a graph.

    Parameters
    ----------
    graph : EdgeGraph or ArrayGraph
        The first is for the dataframe engine, a `BlockGraph` for the resident one; a `LocalGraph` is in this process.
    settings : Settings
    start : State, optional
        Where to resume from: a state of a run on the same graph. By default all messages are 0.

    Raises
    ------
    SettingError
        If the settings name another engine than the one that the graph is made for.
    """
    if isinstance(graph, LocalGraph):
        return cast("Engine", InProcessEngine(graph, settings.damping))  # it has no snapshots, so no state
    suitable = ResidentEngine.name if isinstance(graph, BlockGraph) else DataFrameEngine.name
    if settings.engine not in ("auto", suitable):
        raise SettingError(f"engine must be auto or {suitable} for a {type(graph).__name__}, got {settings.engine!r}")
    if isinstance(graph, BlockGraph):
        return ResidentEngine(graph, settings.damping, start=start)
    assert isinstance(graph, EdgeGraph)
    return DataFrameEngine(graph, settings.damping, settings.partitions, start=start)
