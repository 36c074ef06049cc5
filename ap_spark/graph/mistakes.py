"""What looks like a mistake in a graph that breaks no rule: the warnings of it."""

from __future__ import annotations

import numpy as np

from ap_spark.graph.array_graph import ArrayGraph
from ap_spark.graph.edge_graph import EdgeGraph

__all__ = ["find_mistakes"]

_SAMPLE = 2000  # pairs, about
_FEWEST = 10  # pairs of which one at least should be stored in both directions


def find_mistakes(graph: EdgeGraph | ArrayGraph, *, given_as_pairs: bool) -> list[str]:
    """Return a warning for each thing that looks like a mistake.

    Parameters
    ----------
    graph : EdgeGraph or ArrayGraph
    given_as_pairs : bool
        Whether the user gave the similarities, and did not say in which directions they are to be stored.
    """
    found = []
    if graph.n_one_way > graph.n_edges:
        given = graph.n_one_way + graph.n_edges
        left = f"{graph.n_edges:,} of {given:,}" if graph.n_edges else f"none of {given:,}"
        found.append(
            f"symmetrize mutual leaves out similarities that are given in one direction alone: {left} are left. If "
            "each pair is given once, --symmetrize union stores it in both directions; in Python "
            "sparsification=Sparsification(symmetrize='union')"
        )
    if given_as_pairs and not graph.symmetric and _is_one_way(graph):
        found.append(
            "no pair is stored in both directions, as if each were given once: a pair that is not stored counts as "
            "impossible. For symmetric similarities give --symmetrize union; in Python "
            "sparsification=Sparsification(symmetrize='union')"
        )
    if graph.preference is None or graph.low is None or graph.high is None:
        return found
    if graph.preference > graph.high:
        found.append(
            f"the preference {graph.preference:g} is above all similarities, which reach {graph.high:g}: every point "
            "will be an exemplar. A preference below the largest similarity gives fewer clusters"
        )
    lowest = graph.low - (graph.n_points - 1) * (graph.high - graph.low)
    if graph.low < graph.high and graph.preference < lowest:
        found.append(
            f"the preference {graph.preference:g} is far below all similarities, which lie in {graph.low:g} … "
            f"{graph.high:g}: there will be as few clusters as the graph permits. `ap-spark graph` shows the range of "
            "preferences in which the number of clusters changes"
        )
    return found


def _is_one_way(graph: EdgeGraph | ArrayGraph) -> bool:
    """Return whether of a sample of stored pairs none is stored in both directions."""
    pairs = graph.sample_pairs(max(1, graph.n_edges // _SAMPLE))
    if len(pairs) < _FEWEST:
        return False
    i, k = pairs[:, 0], pairs[:, 1]
    return not np.isin(i * graph.n_points + k, k * graph.n_points + i).any()
