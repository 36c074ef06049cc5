"""Exemplars polished on a sample of the points, with points as candidates that are nobody's exemplars yet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ap_spark.graph.local_graph import LocalGraph, local_graph
from ap_spark.quality.polish import exchange, polish
from ap_spark.quality.problem import problem_of
from ap_spark.quality.solution import evaluate
from ap_spark.similarity.knn_exact import Positions, nearest
from ap_spark.similarity.members import Heads, Members, Under
from ap_spark.similarity.metrics import Floats, Metric

__all__ = ["polished_on_sample"]

_MOST_EDGES, _MOST_NUMBERS = 10_000_000, 50_000_000  # of the sample, and in the features of its points
_POINTS_A_CLUSTER, _FEWEST_POINTS = 200, 10_000  # of the sample: with fewer, exemplars would suit the sample alone
# A point of the sample stores _STORED / K similarities, to the nearest of the candidates: many where clusters are few,
# since then a swap moves points far. Candidates are so many that about _EXEMPLARS_AMONG of those that a point stores
# are exemplars, or at least as many as a point stores.
_STORED, _FEWEST_STORED = 100_000, 50
_EXEMPLARS_AMONG = 10


def polished_on_sample(members: Members, under: Under, preference: float, *, keep_count: bool) -> Heads | None:
    """Open, close and swap exemplars while that is better for a sample of the points.

    Parameters
    ----------
    members : Members
    under : Under
        The exemplars to begin with, and their members.
    preference : float
        For the sample it counts by its share of the points.
    keep_count : bool
        Swap only, so that the number of exemplars stays.

    Returns
    -------
    Heads or None
        None where a sample that shows enough of each cluster would be too large, or the metric is a function.
    """
    heads, count = under.heads, len(under.heads)
    if not isinstance(members.metric, Metric):
        return None
    wanted = min(members.n_points, max(_POINTS_A_CLUSTER * count, _FEWEST_POINTS))
    stored = min(max(_STORED // count, _FEWEST_STORED), _MOST_EDGES // wanted)
    if stored < _FEWEST_STORED or wanted * heads.vectors.shape[1] > _MOST_NUMBERS:
        return None
    sample = members.sample(wanted)
    candidates = _candidates(sample, under, max(stored, stored * count // _EXEMPLARS_AMONG), members.metric)
    graph, x, head = _graph(sample, candidates, heads, stored, members.metric)
    is_exemplar = np.zeros(len(x), bool)
    is_exemplar[head] = True
    share = len(sample) / members.n_points
    with problem_of(graph.with_preference(preference * share)) as problem:
        found = polish(problem, evaluate(problem, is_exemplar, keep_count=True), keep_count=keep_count)
        if keep_count:
            found = exchange(problem, found)
    chosen = np.flatnonzero(found.is_exemplar)
    ids = graph.ids_at(chosen)
    order = pc.sort_indices(ids).to_numpy()
    return Heads(ids.take(pa.array(order)), x[chosen[order]])


def _candidates(sample: Heads, under: Under, wanted: int, metric: Metric) -> Positions:
    """Return the places of at most so many points that may become exemplars.

    Half of them are those nearest to the centers of the clusters, where the metric has any: of many members few are as
    good as the exemplar. The others are anywhere.
    """
    if wanted >= len(sample):
        return np.arange(len(sample))
    near = np.empty(0, np.int64)
    if under.items.has_centers:
        wanted //= 2
        centers, each = under.items.centers, max(1, wanted // len(under.heads))
        _, near, _ = nearest(centers, sample.vectors, np.full(len(centers), -1), each, metric)
    return np.union1d(near, np.arange(0, len(sample), -(-len(sample) // wanted)))


def _graph(
    sample: Heads, candidates: Positions, heads: Heads, stored: int, metric: Metric
) -> tuple[LocalGraph, Floats, Positions]:
    """Return the graph of a sample, and of exemplars that are not in it; its vectors; and the places of the exemplars.

    Every point stores its similarities to the nearest candidates and exemplars, and to its own exemplar. Exemplars that
    are not in the sample do not count: their similarities are 0.
    """
    extra = np.flatnonzero(pc.index_in(heads.ids, sample.ids).is_null().to_numpy(zero_copy_only=False))
    ids = pa.concat_arrays([sample.ids, heads.ids.take(pa.array(extra))])
    x = np.concatenate([sample.vectors, heads.vectors[extra]])
    head = pc.index_in(heads.ids, ids).to_numpy().astype(np.int64)
    columns = np.union1d(candidates, head)
    place = np.full(len(x), -1)
    place[columns] = np.arange(len(columns))
    i, k, closeness = nearest(x, x[columns], place, min(stored, len(columns) - 1), metric)
    exemplar, similarity = heads.nearest(ids, x, metric)
    (member,) = np.nonzero(~np.isnan(similarity))
    i, k = np.append(i, member), np.append(columns[k], head[exemplar[member]])
    s = np.append(metric.similarity(closeness), similarity[member])
    _, once = np.unique(i * len(x) + k, return_index=True)
    i, k, s = i[once], k[once], s[once]
    s[i >= len(sample)] = 0.0
    graph, _ = local_graph(i, k, s, ids, np.arange(len(x)))
    return graph, x, head
