"""A random graph of one block, for the tests of files and passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ap_spark.blocks.build import with_diagonal
from ap_spark.blocks.entries import Rules, make_entries
from ap_spark.blocks.files import OPEN_FILES, opened, write_block
from tests.conftest import random_edges


class OneBlock:
    """A random graph of one block in a file, and the same as plain arrays without its diagonal."""

    def __init__(self, directory: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.n = 30
        self.edges = random_edges(rng, self.n, 0.15, symmetric=False)
        self.i, self.k = np.array([edge[:2] for edge in self.edges]).T
        self.s = np.array([edge[2] for edge in self.edges])
        found = make_entries(self.i, self.k, self.s, Rules())
        self.path = directory / f"block-{seed}"
        self.shape = write_block(self.path, 5, 0, self.n, 0, [with_diagonal(found)])

    def run(self, kernel: Callable[..., Any], *values: Any) -> Any:
        with opened(self.path, self.shape) as file:
            return kernel(file.parts(), *values)


@pytest.fixture(params=range(3))
def block(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneBlock]:
    monkeypatch.setattr("ap_spark.blocks.kernel._PART_ENTRIES", 20)  # several parts
    yield OneBlock(tmp_path, request.param)
    OPEN_FILES.pop(tmp_path / f"block-{request.param}").file.close()
