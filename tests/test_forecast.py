"""What is said before a run, beside what runs have taken: the tables of benchmarks/results.md and docs/scaling.md."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ap_spark import Sparsification
from ap_spark.forecast import Pairing, Workload, forecast_bytes, forecast_seconds, format_seconds, n_stored
from ap_spark.settings import Settings
from tests.conftest import ROOT

RESULTS = (ROOT / "benchmarks" / "results.md").read_text()
CLOSE = 1.6  # times: the machine that it was measured on wavers by 1.5

MILLION = Workload(
    n_points=1_000_000,
    n_edges=69_000_000,
    dimensions=16,
    pairing="approximate",
    engine="resident",
    cores=2,
    compiled=True,
)
ALL = Settings(max_iter=200, convergence_iter=200, polish=False, gap=None)  # as many iterations as were measured


def rows(pattern: str) -> list[tuple[str, ...]]:
    """The cells of the tables' rows that match."""
    return [match.groups() for match in re.finditer(pattern, RESULTS, re.M)]


def total(stages: dict[str, tuple[float, float]]) -> tuple[float, float]:
    return sum(low for low, _ in stages.values()), sum(high for _, high in stages.values())


def holds(seconds: tuple[float, float], measured: float) -> bool:
    return seconds[0] / CLOSE <= measured <= seconds[1] * CLOSE


MEASURED = rows(r"^\| ([\d,]+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \| [\d.]+")


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row[0])
def test_points_to_clusters_take_about_as_long_as_they_did(row: tuple[str, ...]) -> None:
    n_points = int(row[0].replace(",", ""))
    pairing: Pairing = "exact" if n_points <= 200_000 else "approximate"
    work = replace(MILLION, n_points=n_points, n_edges=69 * n_points, pairing=pairing)
    stages = forecast_seconds(work, ALL, reading=5.0)
    assert stages["iterations"][0] == stages["iterations"][1]
    for (low, high), measured in (
        (stages["iterations"], float(row[3])),
        (total({name: stages[name] for name in ("reading", "similarities", "graph")}), float(row[1]) + float(row[2])),
        (total(stages), float(row[4])),
    ):
        assert holds((low, high), measured)
        assert high <= 2 * low, "which says something"


def test_there_are_rows_to_compare_with() -> None:
    assert len(MEASURED) == 4


@pytest.mark.parametrize(("edges", "measured"), [(4_999_350, 10), (49_999_350, 44), (49_999_350, 61)])
def test_a_graph_of_given_similarities_takes_about_as_long_as_it_did(edges: int, measured: float) -> None:
    assert re.search(rf"\| {edges:,} \| [\w ]+ \| \d+ \| \d+ \| {measured} \|", RESULTS), "as results.md has it"
    work = replace(MILLION, n_points=edges // 50, n_edges=edges, dimensions=0, pairing="given")
    stages = forecast_seconds(work, ALL, reading=5.0)
    assert "similarities" not in stages
    assert holds(stages["graph"], measured)


def test_the_dataframe_engine_and_numpy_are_slower() -> None:
    work = replace(MILLION, n_points=100_000, n_edges=5_000_000)
    kinds = [work, replace(work, compiled=False), replace(work, engine="dataframe")]
    seconds = [forecast_seconds(kind, ALL, 5.0)["iterations"][0] / 200 for kind in kinds]
    assert seconds == pytest.approx([0.031, 0.062, 4.236], rel=0.15), "as results.md has them"


def test_whole_runs_take_about_as_long_as_they_did() -> None:
    """With polishing and bound, as few or as many as there may be."""
    twenty = replace(MILLION, n_points=20_000, n_edges=1_229_886, pairing="exact")
    for measured in rows(r"^\| all default \|.*whole run ([\d.]+) s \|"):
        assert holds(total(forecast_seconds(twenty, Settings(), 3.0)), float(measured[0]))
    digits = replace(MILLION, n_points=1797, n_edges=3_227_412, dimensions=64, pairing="all")
    for row in rows(r"^\| digits \| [^|]+ \| ours \| \d+ \| [-\d.,]+ \| [\d.]+ \| ([\d.]+) \|"):
        assert holds(total(forecast_seconds(digits, Settings(), 3.0)), float(row[0]))


def test_what_is_asked_for_takes_longer() -> None:
    plain = total(forecast_seconds(MILLION, Settings(polish=False, gap=None), 5.0))
    polished = total(forecast_seconds(MILLION, Settings(), 5.0))
    searched = total(forecast_seconds(MILLION, Settings(clusters=9), 5.0))
    fixed = total(forecast_seconds(MILLION, Settings(damping=0.9), 5.0))
    assert plain < polished < searched
    assert polished[0] < fixed[0] < polished[1] == fixed[1], "a window of 50 iterations"
    fewer = total(forecast_seconds(MILLION, Settings(max_iter=10), 5.0))
    assert fewer[0] < polished[0]
    assert fewer[1] < polished[1]


@pytest.mark.parametrize(
    ("pairs", "rules", "one_way", "stored"),
    [
        (90, {}, None, (90, True)),
        (90, {"top": 3}, None, (30, False)),
        (90, {"top": 9}, None, (90, True)),
        (90, {"min_similarity": 0.5}, None, (90, False)),
        (90, {"symmetrize": "union"}, 0, (90, True)),
        (90, {"symmetrize": "union"}, 90, (180, True)),
        (90, {"symmetrize": "union"}, 40, (130, True)),
        (90, {"symmetrize": "mutual"}, 40, (50, True)),
        (90, {"symmetrize": "mutual"}, 90, (0, True)),
        (50_000, {"symmetrize": "union"}, None, (70_000, False)),
    ],
)
def test_how_many_similarities_are_stored(
    pairs: int, rules: dict[str, object], one_way: int | None, stored: tuple[int, bool]
) -> None:
    assert n_stored(pairs, 10, Sparsification(**rules), one_way=one_way) == stored  # type: ignore[arg-type]


def test_bytes_are_those_of_the_pages() -> None:
    found = forecast_bytes(MILLION, snapshots=False)
    assert list(found.values()) == [100 * MILLION.n_points, 84 * MILLION.n_edges]
    given = forecast_bytes(replace(MILLION, pairing="given"), snapshots=True)
    assert list(given.values())[1:] == [144 * MILLION.n_edges, 84 * MILLION.n_edges]
    page = (ROOT / "docs" / "operating.md").read_text()
    for figure in ("60 bytes an edge up to 5 million points; 120 with more", "some 21 bytes an edge and snapshot"):
        assert figure in page


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "5 s"), (88, "90 s"), (91, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words
