"""One iteration on the whole graph, in two ways that give the same bits.

`dataframe.DataFrameEngine` is the plain statement of the algorithm, a pair of groupBy/join transformations over the
cluster; `resident.ResidentEngine` keeps blocks of rows beside the executors and is the fast one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from ap_spark.convergence import Iteration, Stability
from ap_spark.engines.dataframe import DataFrameEngine
from ap_spark.engines.resident import ResidentEngine
from ap_spark.engines.state import State
from ap_spark.errors import SettingError
from ap_spark.graph.block_graph import BlockGraph
from ap_spark.graph.edge_graph import EdgeGraph
from ap_spark.settings import Settings

__all__ = ["Engine", "State", "make_engine"]


class Engine(Protocol):
    """What `propagation.py` asks of an engine. Points are named by their index."""

    @property
    def name(self) -> str:
        """The name under which the settings and the summary know it."""

    @property
    def iteration(self) -> int:
        """The last iteration that is done; records of a job over several come after all of it."""

    @property
    def recovery_state(self) -> State | None:
        """The state that Spark may read again where something is lost; it has to stay readable."""

    def run(self, most: int, stability: Stability) -> Iterator[Iteration]:
        """Up to ``most`` further iterations, one record each; none after the one in which stability is reached."""

    def unserved(self) -> int:
        """How many points are no exemplars and store no edge to one."""

    def exemplars(self) -> Any:
        """The points with a(k,k) + r(k,k) > 0, forced exemplars left out, in the form that its graph has."""

    def state(self) -> State:
        """Where it has come to; the tables can be read until the next iteration."""

    def set_recovery_point(self, state: State) -> None:
        """From now on make what is lost out of the state it is in, of which this is a copy that stays readable."""

    def release(self) -> None:
        """Give back everything the engine holds in the cluster."""


def make_engine(graph: EdgeGraph | BlockGraph, settings: Settings, start: State | None = None) -> Engine:
    """Make the engine that computes on a graph, at the beginning or at a state of a run on the same graph.

    Raises
    ------
    SettingError
        If the settings name another engine than the one that the graph is made for.
    """
    suitable = ResidentEngine.name if isinstance(graph, BlockGraph) else DataFrameEngine.name
    if settings.engine not in ("auto", suitable):
        raise SettingError(f"engine must be auto or {suitable} for a {type(graph).__name__}, got {settings.engine!r}")
    if isinstance(graph, BlockGraph):
        return ResidentEngine(graph, settings.damping, start=start)
    return DataFrameEngine(graph, settings.damping, settings.partitions, start=start)
