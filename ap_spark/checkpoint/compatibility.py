"""Which settings a run must share with the snapshot that it resumes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ap_spark.settings import Settings

__all__ = ["Mismatch", "check_settings", "decisive", "is_extensible"]

# The settings that change the numbers of an iteration. All others act through the graph, whose fingerprint is compared.
_DECISIVE = ("damping", "convergence_iter", "jitter", "seed", "clusters")


class Mismatch(Exception):
    """A snapshot is of another run: what it has there, and what this run has here."""

    def __init__(self, there: str, here: object) -> None:
        super().__init__(f"{there} there, {here} here")


def is_extensible(settings: Settings) -> bool:
    """Return whether the same run may be given more iterations.

    Where a number of clusters is searched for, ``max_iter`` decides which trials count: there it may not change.
    """
    return settings.clusters is None


def decisive(settings: Settings) -> dict[str, Any]:
    """Return the settings that a snapshot has to share with the run that resumes from it.

    >>> decisive(Settings(damping=0.5))
    {'clusters': None, 'damping': 0.5, 'convergence_iter': 15, 'jitter': True, 'seed': 0}
    """
    names = _DECISIVE if is_extensible(settings) else (*_DECISIVE, "max_iter")
    given = asdict(settings.with_window())
    return {name: value for name, value in given.items() if name in names}


def check_settings(theirs: Mapping[str, Any], iteration: int, settings: Settings) -> None:
    """Check that a run with these settings may resume from a snapshot.

    Parameters
    ----------
    theirs : mapping
        The decisive settings of the snapshot's run.
    iteration : int
        The last iteration in the snapshot.
    settings : Settings
        Of this run.

    Raises
    ------
    Mismatch
        If a decisive setting differs, or the snapshot has more iterations than this run may do.
    """
    ours = decisive(settings)
    for name in dict.fromkeys([*ours, *theirs]):
        if theirs.get(name) != ours.get(name):
            raise Mismatch(f"{name} {theirs.get(name)}", ours.get(name))
    if iteration > settings.max_iter:
        raise Mismatch(f"{iteration} iterations done", f"max_iter {settings.max_iter}")
