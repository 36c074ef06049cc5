"""When kernels are replaced by their compiled twins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from ap_spark.blocks import compiled_kernel, compiled_objective, compiling, kernel, objective
from ap_spark.blocks.compiling import twin_of


@pytest.mark.parametrize(
    ("plain", "compiled"),
    [(kernel.iterate, compiled_kernel.iterate)]
    + [(getattr(objective, name), getattr(compiled_objective, name)) for name in compiled_objective.__all__],
)
def test_many_edges_get_the_twin(plain: Callable[..., Any], compiled: Callable[..., Any]) -> None:
    assert twin_of(plain, 1_000_000) is twin_of(plain, 1, "numba") is compiled
    assert twin_of(plain, 299_999) is twin_of(plain, 1_000_000, "numpy") is plain


def test_a_kernel_without_a_twin_stays() -> None:
    assert twin_of(objective.entries_of, 1_000_000, "numba") is objective.entries_of


def test_without_numba_kernels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, compiled_objective.__name__)
    compiling._twins.cache_clear()
    assert twin_of(objective.gains, 1_000_000) is objective.gains
    with pytest.raises(ImportError, match="numba"):
        twin_of(objective.gains, 1_000_000, "numba")
    compiling._twins.cache_clear()


def test_functions_are_compiled_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    njit = numba.njit

    def without_cache(cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    def increase(number: int) -> int:
        return number + 1

    monkeypatch.setattr(numba, "njit", without_cache)
    compiled: Any = compiling.jit(increase)
    assert compiled.py_func is increase
    assert compiled.targetoptions["error_model"] == "numpy"
