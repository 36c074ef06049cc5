"""How large a run would be and how long it would take about, from what is known before it: no Spark.

The rates are those of docs/scaling.md and benchmarks/results.md, measured on 2 cores. Each stage has two figures: how
long it takes if all goes well, and at most. Another machine has others, so what comes out is an order of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ap_spark.graph.block_graph_builder import ONE_BLOCK_EDGES, SYMMETRIC_FRACTION
from ap_spark.graph.describe import bytes_needed
from ap_spark.quality.improve import most_passes
from ap_spark.quality.price import PRICE_PASSES
from ap_spark.settings import EngineName, Settings, Sparsification

__all__ = ["LOCAL_DISK", "Seconds", "Workload", "forecast_bytes", "forecast_seconds", "format_seconds", "n_stored"]

Seconds = tuple[float, float]  # if all goes well, and at most
Pairing = Literal["given", "all", "exact", "approximate"]

LOCAL_DISK = "disk in Spark's local directories"

_START, _A_STAGE, _A_GRAPH = 5.0, 2.0, 5.0  # Java, Spark, imports; what a stage takes, however little there is to do
_PRODUCTS = 4e9  # of two numbers, by a core in a second
_TREE_DIMENSIONS = 3  # up to so many, a tree finds neighbours
_A_TREE_QUERY, _A_PLANNED_POINT = 60e-6, 85e-6
_A_PROBING_POINT = (65e-6, 130e-6)  # in up to 16 dimensions
_A_PAIR_OF_POINTS, _A_GIVEN_PAIR = (0.5e-6, 1e-6), (1.2e-6, 2.4e-6)  # until it is in its block
_EDGES_A_SECOND = {"numba": 160e6, "numpy": 80e6, "several blocks": 70e6, "dataframe": 0.6e6}
_AN_EXCHANGE = {"several blocks": 0.1, "dataframe": 0.3}
_COMPILED_FROM = 1_000_000  # edges
_A_TOTAL = 1e-9 * 16
_A_PASS = 0.05
_FEWEST_PASSES = 10  # of polishing and of the bound
_A_CLUSTERED_POINT, _A_WRITTEN_POINT = 2.6e-6, 3e-6
_TRIALS = (1, 20)  # of a search for a number of clusters

_DRIVER_BYTES_A_POINT = 100
_SHUFFLE_BYTES_AN_EDGE = {"few points": 60, "many points": 120}  # of given similarities
_MANY_POINTS = 5_000_000
_SNAPSHOT_BYTES_AN_EDGE, _SNAPSHOTS = 21, 4


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a run works on.

    Attributes
    ----------
    n_points : int
    n_edges : int
        Stored similarities, both directions counted, about.
    dimensions : int
        Of the features; 0 for similarities that are given.
    pairing : {"given", "all", "exact", "approximate"}
        Whether similarities are given, or those of all pairs, or found by a search for neighbours.
    engine : str
    cores : int
    compiled : bool
        Whether there is a compiler for the iterations.
    """

    n_points: int
    n_edges: int
    dimensions: int
    pairing: Pairing
    engine: EngineName
    cores: int
    compiled: bool


def n_stored(pairs: int, n_points: int, rules: Sparsification, *, one_way: int | None = None) -> tuple[int, bool]:
    """Return how many similarities would be stored about, and whether it is certain.

    Parameters
    ----------
    pairs : int
        Similarities that are given or found, one direction each.
    n_points : int
    rules : Sparsification
    one_way : int, optional
        How many of them lack the other direction, if that is known; neighbours are mutual more often than not.

    Examples
    --------
    >>> n_stored(1000, 100, Sparsification()), n_stored(1000, 100, Sparsification(symmetrize="union"))
    ((1000, True), (1400, False))
    >>> n_stored(1000, 100, Sparsification(symmetrize="union"), one_way=1000)
    (2000, True)
    """
    certain, stored = rules.min_similarity is None, pairs
    if rules.top is not None and rules.top * n_points < pairs:
        stored, one_way, certain = rules.top * n_points, None, False
    if rules.symmetrize in (None, "none"):
        return stored, certain
    added = round(2 * SYMMETRIC_FRACTION * stored) - stored if one_way is None else one_way
    certain &= one_way is not None
    return (stored + added if rules.symmetrize == "union" else max(0, stored - added)), certain


def forecast_seconds(
    work: Workload, settings: Settings, reading: float, *, clustering: bool = True
) -> dict[str, Seconds]:
    """Return the seconds of each stage.

    Parameters
    ----------
    work : Workload
    settings : Settings
    reading : float
        Seconds that reading has taken on this machine.
    clustering : bool
        Whether the graph is clustered, and not only described.
    """
    n, m, cores = work.n_points, work.n_edges, work.cores
    iteration = _an_iteration(work, settings)
    trials = (1, 1) if settings.clusters is None else _TRIALS
    improves = settings.polish or settings.gap is not None
    fewest = min(settings.max_iter, 2 * settings.windows[0])
    stages: dict[str, Seconds] = {"start": (_START, _START), "reading": (reading, reading)}
    if work.pairing != "given":
        stages["similarities"] = _plus(_A_STAGE, _search(work))
    a_pair = _A_GIVEN_PAIR if work.pairing == "given" else _A_PAIR_OF_POINTS
    stages["graph"] = _plus(_A_GRAPH, (a_pair[0] * m / cores, a_pair[1] * m / cores))
    if not clustering:
        return stages
    if settings.clusters is not None and (improves or work.engine != "dataframe"):
        a_pass = _A_PASS + iteration
        stages["price"] = PRICE_PASSES[0] * a_pass, PRICE_PASSES[1] * a_pass
    stages["iterations"] = (trials[0] * fewest * iteration, trials[1] * settings.max_iter * iteration)
    stages["clusters"] = _plus(_A_STAGE / 2 + _A_CLUSTERED_POINT * n, (0.0, 0.0))
    if improves:
        stages["polish and bound"] = (
            _FEWEST_PASSES * _A_PASS,
            most_passes(m) * (_A_PASS + iteration),
        )
    stages["writing"] = _plus(_A_STAGE + _A_WRITTEN_POINT * n, (0.0, 0.0))
    return stages


def _search(work: Workload) -> Seconds:
    """Return the seconds until the pairs of points are found."""
    n, cores = work.n_points, work.cores
    if work.pairing == "approximate":
        size = max(1.0, work.dimensions / 16)
        fast, slow = (size * a_point * n / cores for a_point in _A_PROBING_POINT)
        return _plus(_A_PLANNED_POINT * n / cores, (fast, slow))
    by_products = n * n * work.dimensions / _PRODUCTS / cores
    if work.pairing == "exact" and work.dimensions <= _TREE_DIMENSIONS:
        by_products = min(by_products, _A_TREE_QUERY * n / cores)
    return by_products, 2 * by_products


def _an_iteration(work: Workload, settings: Settings) -> float:
    """Return the seconds of an iteration."""
    if work.engine == "dataframe":
        return _AN_EXCHANGE["dataframe"] + work.n_edges / (work.cores * _EDGES_A_SECOND["dataframe"])
    if (settings.partitions or 1) == 1 and work.n_edges <= ONE_BLOCK_EDGES:
        kernel = "numba" if work.compiled and work.n_edges >= _COMPILED_FROM else "numpy"
        return work.n_edges / _EDGES_A_SECOND[kernel]
    edges = work.n_edges / (work.cores * _EDGES_A_SECOND["several blocks"])
    return _AN_EXCHANGE["several blocks"] + edges + _A_TOTAL * work.n_points


def _plus(fixed: float, seconds: Seconds) -> Seconds:
    return fixed + seconds[0], fixed + seconds[1]


def forecast_bytes(work: Workload, *, snapshots: bool) -> dict[str, int]:
    """Return about how many bytes a run needs, by the place where it needs them."""
    from_file = "many points" if work.n_points > _MANY_POINTS else "few points"
    shuffled = _SHUFFLE_BYTES_AN_EDGE[from_file] * work.n_edges if work.pairing == "given" else 0
    found = {
        "memory in the driver": _DRIVER_BYTES_A_POINT * work.n_points,
        LOCAL_DISK: bytes_needed(work.n_edges, work.engine) + shuffled,
    }
    if snapshots:
        found["disk in the checkpoint"] = _SNAPSHOTS * _SNAPSHOT_BYTES_AN_EDGE * work.n_edges
    return found


def format_seconds(seconds: float) -> str:
    """Return a duration in the unit that fits, not more exactly than it is known.

    >>> format_seconds(23), format_seconds(312), format_seconds(9000)
    ('25 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.2g} h"
