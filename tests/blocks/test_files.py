"""The file of a block."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ap_spark.blocks.files import UnusableFile, opened, shape_of
from tests.blocks.conftest import OneBlock


def test_a_block_file_tells_what_it_holds(block: OneBlock) -> None:
    assert shape_of(block.path, block.n) == block.shape
    with opened(block.path, block.shape) as file:
        mine = {
            (int(i), int(k)): s
            for part, similarity in file.parts()
            for i, k, s in zip(np.repeat(part.rows, np.diff(part.starts)), part.columns, similarity, strict=True)
            if i != k
        }
    assert mine == {(i, k): s for i, k, s in block.edges}
    os.truncate(block.path, 20)
    with pytest.raises(UnusableFile):
        shape_of(block.path, block.n)
