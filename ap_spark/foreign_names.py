"""Names that parameters have elsewhere, such as in scikit-learn, and arguments that a function does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from ap_spark.settings import Execution, Quality, Settings, Similarity, Snapshots, Sparsification, parameters
from ap_spark.wording import did_you_mean

__all__ = ["OURS", "explains_keywords"]

# What a parameter of ours is called elsewhere.
OURS = {
    "affinity": "metric",
    "convergence": "convergence_iter",
    "distance": "metric",
    "iterations": "max_iter",
    "k": "clusters",
    "k_neighbors": "neighbors",
    "knn": "neighbors",
    "max_iterations": "max_iter",
    "metric_name": "metric",
    "n_clusters": "clusters",
    "n_iter": "max_iter",
    "n_neighbors": "neighbors",
    "quantile": "preference_quantile",
    "random_seed": "seed",
    "random_state": "seed",
    "threshold": "min_similarity",
}

_RECORDS = {
    "similarity": Similarity,
    "sparsification": Sparsification,
    "execution": Execution,
    "quality": Quality,
    "checkpoint": Snapshots,
}
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def explains_keywords(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Make the TypeError for an unknown keyword say what to write instead; the signature stays."""
    own = signature(function).parameters

    @wraps(function)
    def explained(*args: _Parameters.args, **given: _Parameters.kwargs) -> _Result:
        if unknown := [name for name in given if name not in own]:
            words = ", and ".join(f"{name!r}{_what_to_write(name, given, own)}" for name in unknown)
            raise TypeError(f"{function.__name__}() has no argument {words}")
        return function(*args, **given)

    return explained


def _what_to_write(name: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return what to write for an unknown keyword, as far as that is known.

    >>> _what_to_write("n_neighbors", {"n_neighbors": 50}, ["similarity"])
    ': write similarity=Similarity(neighbors=50)'
    >>> _what_to_write("dampin", {}, ["damping"])
    " (did you mean 'damping'?)"
    """
    value = given.get(name)
    if isinstance(value, str) and value == "precomputed":
        return ": affinity_propagation takes similarities, as a table with columns i, k, s"
    if name == "jitter":
        return ": seed=None leaves ties as they are"
    ours = OURS.get(name, name)
    if ours in own:
        return f": write {ours}={_shown(given[name])}"
    for argument, record in _RECORDS.items():
        if ours in (declared.name for declared, _ in parameters(record)):
            if argument in own:
                return f": write {argument}={record.__name__}({ours}={_shown(given[name])})"
            if argument == "similarity":
                return ": it is of points, which cluster_points and describe_points take"
            if argument == "quality":
                return ": it is of cluster_points and affinity_propagation"
    if ours in (declared.name for declared, _ in parameters(Settings)):
        return ": it is of cluster_points and affinity_propagation"
    return did_you_mean(name, own)


def _shown(value: object) -> str:
    """Return a value as it is written, if that is short."""
    text = repr(value)
    return text if isinstance(value, (str, int, float, type(None))) and len(text) < 40 else "..."
