"""Kernels compiled by numba: how, and when they are taken instead of those in numpy.

Numpy states every kernel. Those that run hundreds of times have a *twin* beside it: the kernel ``blocks/kernel.py`` and
``iterate`` in it has ``blocks/compiled_kernel.py`` and ``iterate`` in it, with the same arguments and bitwise identical
results. A module of twins can be imported only where numba is installed (``pip install 'ap-spark[fast]'``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["jit", "twin_of"]

# By the module of a kernel: with fewer edges, importing numba takes longer than it saves. A run has more passes of
# `objective` than iterations, and compiling saves more of each.
_MIN_EDGES = {"kernel": 1_000_000, "objective": 300_000}

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function, and cache it on disk for other processes where that is possible."""
    from numba import njit

    try:
        compiled: Callable[..., Any] = njit(error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the package nor the user's cache can be written
        compiled = njit(error_model="numpy")(function)
    return compiled


def twin_of(kernel: _Kernel, n_edges: int, choice: str = "auto") -> _Kernel:
    """Return the compiled twin of a kernel, or the kernel itself.

    Parameters
    ----------
    kernel : callable
        A function of a module that has twins: `kernel` or `objective`.
    n_edges : int
        Of the graph.
    choice : {"auto", "numpy", "numba"}
        "auto" is the twin if there is one, numba is installed, and the graph has enough edges for importing it to pay.

    Raises
    ------
    ImportError
        If numba is asked for and not installed.

    Examples
    --------
    >>> from ap_spark.blocks.kernel import iterate
    >>> twin_of(iterate, n_edges=1000).__module__, twin_of(iterate, n_edges=1_000_000).__module__
    ('ap_spark.blocks.kernel', 'ap_spark.blocks.compiled_kernel')
    """
    room, _, module = kernel.__module__.rpartition(".")
    if choice == "numpy" or (choice == "auto" and n_edges < _MIN_EDGES[module]):
        return kernel
    twins = _twins(f"{room}.compiled_{module}")
    if isinstance(twins, ImportError):
        if choice == "numba":
            raise twins
        return kernel
    return getattr(twins, kernel.__name__, kernel)


@cache
def _twins(name: str) -> ModuleType | ImportError:
    """Return a module of twins, or why it cannot be imported: to try takes milliseconds."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        return error
