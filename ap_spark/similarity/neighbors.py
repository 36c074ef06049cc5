"""The nearest neighbours of points, exact or approximate."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec

from pyspark.sql import DataFrame

from ap_spark.errors import SettingError
from ap_spark.settings import MetricName, PairFunction, Search, Similarity
from ap_spark.similarity.distributed_search import search_approximately, search_exactly
from ap_spark.similarity.metrics import Metric, metric_of
from ap_spark.similarity.pairs import Pairs
from ap_spark.similarity.vectors import check_vectors

__all__ = ["Neighbors", "choose_search", "find_neighbors", "nearest_neighbors"]

logger = logging.getLogger(__name__)

# The work of the exact search up to which auto chooses it: that for 200,000 points in 16 dimensions.
_EXACT_WORK = 200_000**2 * 16
_FLAT_DIMENSIONS, _FLAT_POINTS = 3, 5_000_000  # auto also chooses it where a k-d tree is fast: up to these


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbours of each point.

    Attributes
    ----------
    edges : DataFrame
        (i, k, s): k is one of the nearest neighbours of i.
    search : {"exact", "approximate"}
        The search that was used.
    recall : float
        The share of the true neighbours that are found, on a sample of points; 1.0 for the exact search.
    """

    edges: DataFrame
    search: Search
    recall: float


def nearest_neighbors(
    points: DataFrame,
    neighbors: int,
    *,
    metric: MetricName | PairFunction = Similarity.metric,
    width: float | None = Similarity.width,
    search: Search = Similarity.search,
    recall: float = Similarity.recall,
) -> Neighbors:
    """Find the nearest neighbours of each point, and how similar they are.

    Parameters
    ----------
    points : DataFrame
        (id, features), as `make_points` gives it: unique ids, arrays of numbers, finite, of one length. It is read
        several times: persist it if reading is expensive, or does not give the same each time.
    neighbors : int
        Neighbours of each point, at least 1. A point has fewer where there are not as many others. Of equally near
        ones those with the smallest ids are taken.
    metric : str or callable
        See `similarities`.
    width : float, optional
        Of the metric "gaussian".
    search : {"auto", "exact", "approximate"}
        "approximate" needs faiss-cpu (the extra ``approximate``). "auto" is exact up to 200,000 points in 16
        dimensions, or as much work in others, and up to 5 million points in 3 dimensions or fewer. Beyond, it is
        approximate where that is possible.
    recall : float
        Share of the true neighbours that the approximate search has to find, in (0, 1].

    Returns
    -------
    Neighbors
        With n min(N, n - 1) edges for n points and N neighbours. Whatever the search, each s is computed in float64.

    Raises
    ------
    InputError
        If a vector has no similarity under this metric (zero for cosine, constant for correlation). If features are
        so large, or all so small, that 64-bit floats don't hold their similarities.
    SettingError
        If a parameter is outside its range, or the approximate search is asked for where it is not possible.

    Notes
    -----
    The approximate search is an inverted file (Jégou, Douze & Schmid, Product quantization for nearest neighbor
    search, 2011, section IV) whose cells are spread over Spark tasks. In how many cells a point looks for its
    neighbours is measured on a sample of points, whose true neighbours are found first.

    Examples
    --------
    >>> points = spark.createDataFrame([(0, [0.0]), (1, [1.0]), (2, [3.0])], "id int, features array<double>")
    >>> nearest_neighbors(points, 1).edges.orderBy("i").collect()
    [Row(i=0, k=1, s=-1.0), Row(i=1, k=0, s=-1.0), Row(i=2, k=1, s=-4.0)]
    """
    pairs, used, reached = find_neighbors(points, neighbors, metric, width, search, recall)
    return Neighbors(pairs.frame, used, reached)


def find_neighbors(
    points: DataFrame,
    neighbors: int,
    metric: MetricName | Metric | PairFunction,
    width: float | None,
    search: Search,
    recall: float,
) -> tuple[Pairs, Search, float]:
    """Find neighbours, as `Pairs`, which stay in the tasks; see `nearest_neighbors`.

    Returns
    -------
    pairs : Pairs
    search : {"exact", "approximate"}
        The search that was used.
    recall : float
        See `Neighbors`.
    """
    checked = Similarity(neighbors=neighbors, search=search, recall=recall)
    measure = metric_of(metric, width)
    if checked.neighbors is None:
        raise SettingError("neighbors must be at least 1, got None: `similarities` computes all pairs")
    points, count, dimensions = check_vectors(points, measure)
    n = max(1, min(checked.neighbors, count - 1))
    if choose_search(checked.search, measure, count, dimensions) == "exact":
        return search_exactly(points, count, dimensions, n, measure), "exact", 1.0
    assert isinstance(measure, Metric)
    pairs, reached = search_approximately(points, count, dimensions, n, measure, checked.recall)
    return pairs, "approximate", reached


def choose_search(search: Search, metric: Metric | PairFunction, count: int, dimensions: int) -> Search:
    """Choose the exact or the approximate search.

    Raises
    ------
    SettingError
        If the approximate search is asked for where it is not possible.
    """
    wanted: Search = search
    if search == "auto":
        flat = dimensions <= _FLAT_DIMENSIONS and count <= _FLAT_POINTS
        wanted = "exact" if flat or count * count * dimensions <= _EXACT_WORK else "approximate"
    if wanted == "exact":
        return "exact"
    if not isinstance(metric, Metric) or metric.space == "dot":
        name = "dot" if isinstance(metric, Metric) else "a function"
        obstacle = f"it needs a metric that is a distance, not {name}: use search exact"
    elif find_spec("faiss") is None:
        obstacle = "it needs faiss: pip install 'ap-spark[approximate]'"
    else:
        return "approximate"
    if search == "approximate":
        raise SettingError(f"search approximate is not possible here: {obstacle}")
    logger.warning("searching %s points exactly, which takes long: for an approximate search %s", count, obstacle)
    return "exact"
