"""The comparison with other algorithms: its sets are what its page says, and path lengths find circles."""

from __future__ import annotations

import re

import numpy as np
import pytest

from examples import compare
from tests.conftest import LONG


@pytest.mark.parametrize(
    ("make", "shape", "sizes"),
    [
        (compare.gaussians, (4000, 2), {0: 1000, 1: 1000, 2: 1000, 3: 1000}),
        (compare.circles, (1000, 2), {0: 500, 1: 500}),
        (compare.digits, (1797, 64), {0: 178, 1: 182, 2: 177, 3: 183, 4: 181, 5: 182, 6: 181, 7: 179, 8: 174, 9: 180}),
        (compare.stretched, (900, 2), {0: 300, 1: 300, 2: 300}),
        (compare.densities, (1700, 2), {0: 1000, 1: 300, 2: 300, compare.NOISE: 100}),
    ],
)
def test_sets_are_those_of_the_page(make: compare.Make, shape: tuple[int, int], sizes: dict[int, int]) -> None:
    data = make()
    assert data.x.shape == shape
    names, counts = np.unique(data.truth, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == sizes
    assert data.clusters == len(sizes) - (compare.NOISE in sizes)
    assert np.array_equal(data.x, make().x), "a set is the same each time"


def test_circles_are_found_by_path_lengths_and_not_by_distances() -> None:
    data = compare.circles(400)
    for run, preference, agrees in ((compare.by_paths, -160.0, True), (compare.by_distances, -100.0, False)):
        found = run(data, preference=preference, damping=0.9)
        assert compare.count_clusters(found.labels) == 2
        ari, _ = compare.agreement(data, found.labels)
        assert (ari == 1.0) if agrees else (ari < 0.05)


def test_clusters_that_are_alike_have_the_same_number() -> None:
    truth = np.array([0, 0, 0, 1, 1, compare.NOISE])
    labels = np.array([7, 7, 9, 3, 3, compare.NOISE])
    assert compare.alike(truth, labels).tolist() == [0, 0, 2, 1, 1, compare.NOISE]
    assert compare.alike(truth, np.full(6, compare.NOISE)).tolist() == [compare.NOISE] * 6


def test_the_page_has_a_picture_and_a_table_of_each_set() -> None:
    page = compare.PAGE.read_text()
    for make in compare.SETS:
        name = make.__name__
        assert f"(images/compare-{name}.png)" in page
        table = re.search(rf"<!-- {name} -->(.*?)<!-- end -->", page, re.DOTALL)
        assert table
        assert all(f"| {algorithm.name} |" in table[1] for algorithm in compare.ALGORITHMS)


@LONG
@pytest.mark.usefixtures("spark", "compiled")
def test_four_gaussians_are_four_clusters() -> None:
    data = compare.gaussians()
    found = compare.by_distances(data, preference=-10_000.0, damping=0.9)
    assert compare.count_clusters(found.labels) == 4
    ari, _ = compare.agreement(data, found.labels)
    assert ari > 0.95
