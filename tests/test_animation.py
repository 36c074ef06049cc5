"""Moving pictures: the frames are the run's own, and the last one is its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.animation import FFMpegWriter
from PIL import Image
from pyspark.sql import SparkSession

from ap_spark import InputError, OutputError, Quality, SettingError, Similarity, animate, cluster_points
from ap_spark.animation import film_of
from ap_spark.cli import main
from ap_spark.convergence import Stability
from ap_spark.engines.in_process import InProcessEngine
from ap_spark.in_process import source_of_points
from ap_spark.report.frames import Stage
from ap_spark.report.panel import Panel
from ap_spark.settings import Settings
from tests.conftest import ROOT

RNG = np.random.default_rng(11)
X = np.concatenate([RNG.normal(center, 1.0, (25, 2)) for center in ((0, 0), (7, 1), (3, 8))])


def labels_of(panel: Panel) -> list[int]:
    return [int(label) for label in np.unique(panel.chosen, return_inverse=True)[1]]


def opened(path: Path) -> Any:
    return Image.open(path)


@pytest.mark.parametrize(
    ("what", "settings"),
    [
        ("messages", {"preference": -40.0}),
        ("messages", {"preference": -40.0, "damping": 0.9, "polish": False, "gap": None}),
        ("preference", {"preference": -40.0}),
        ("levels", {"clusters": 3}),
    ],
)
def test_the_last_frame_is_the_result(what: Any, settings: dict[str, Any]) -> None:
    similarity = Similarity(neighbors=8 if what == "levels" else None)
    film = film_of(X, what, similarity, Settings(**settings))
    (last,) = film.frames[-1]
    records = {name: settings[name] for name in ("preference", "damping", "clusters") if name in settings}
    quality: dict[str, Any] = {name: settings[name] for name in ("polish", "gap") if name in settings}
    result = cluster_points(X, similarity=similarity, quality=Quality(**quality), **records)
    assert last.chosen.tolist() == result.assignments["exemplar"].tolist()
    assert np.flatnonzero(last.is_exemplar).tolist() == result.exemplars["exemplar"].tolist()
    if what == "messages":
        assert last.counts == result.trace["exemplars"].tolist()
        assert [frame[0].counts for frame in film.frames[:-1]] == [
            last.counts[: n + 1] for n in range(len(last.counts))
        ]
    if what == "levels":
        assert len(film.frames) == len(result.summary.levels) + 1
        assert [len(np.unique(frame[0].chosen)) for frame in film.frames[:-1]] == [
            level["n_clusters"] for level in result.summary.levels
        ]


def test_preferences_go_from_many_clusters_to_few() -> None:
    film = film_of(X, "preference", Similarity(), Settings(preference=-40.0))
    numbers = [int(panel.is_exemplar.sum()) for (panel,) in film.frames[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 10
    assert numbers[-1] <= 3


def test_dampings_side_by_side() -> None:
    film = film_of(X, "damping", Similarity(), Settings(preference=-40.0))
    for panel, damping in zip(film.frames[-1], (0.5, 0.7, 0.9), strict=True):
        result = cluster_points(X, preference=-40.0, damping=damping)
        assert panel.chosen.tolist() == result.assignments["exemplar"].tolist()
        assert panel.title.startswith(f"damping {damping}\n")
        assert panel.counts == result.trace["exemplars"].tolist()


def test_points_choose_the_largest_sum_of_messages() -> None:
    """Against a loop over the rows, with forced exemplars and rows of different lengths."""
    rng = np.random.default_rng(2)
    settings = Settings(preference=-3.0).with_window()
    source = source_of_points(rng.normal(size=(70, 3)), None, Similarity(neighbors=4), settings)
    engine = InProcessEngine(source.build(settings), None)
    for _ in engine.run(12, Stability(settings.windows)):
        block = engine._block
        for row, (start, stop) in enumerate(zip(block.starts[:-1], block.starts[1:], strict=True)):
            best = int(block.columns[start:stop][np.argmax(block.a[start:stop] + block.r[start:stop])])
            assert engine.chosen()[block.rows[row]] == best


def test_a_gif_has_every_frame_and_ends_slowly(tmp_path: Path) -> None:
    film = film_of(X, "messages", Similarity(), Settings(preference=-40.0))
    path = tmp_path / "film.gif"
    animate(X, path, preference=-40.0)
    with opened(path) as image:
        # A frame that looks like the one before lengthens it: their times add up.
        assert 2 < image.n_frames <= len(film.frames)
        lasts = []
        for frame in range(image.n_frames):
            image.seek(frame)
            lasts.append(image.info["duration"])
        assert sum(lasts) == 120 * (len(film.frames) - 1) + 3_000
        assert lasts[-1] >= 3_000
        pixels = np.asarray(image.convert("RGB")).astype(int)
    drawn = Stage(film.x, film.frames).pixels(film.frames[-1]).astype(int)
    assert np.abs(pixels - drawn).mean() < 6.0
    assert path.stat().st_size < 3_000_000


@pytest.mark.long
def test_films_of_more_features_are_projected(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Without a word of Matplotlib's, in one shape for all frames."""
    x = np.column_stack([X, X[:, 0] - X[:, 1], np.ones(75)])
    animate(x, tmp_path / "film.gif", preference=-60.0, what="preference")
    assert caplog.text == ""
    film = film_of(x, "messages", Similarity(), Settings(preference=-60.0, max_iter=5))
    stage = Stage(film.x, film.frames)
    assert {stage.pixels(frame).shape for frame in film.frames} == {stage.pixels(film.frames[0]).shape}
    assert film.frames[-1][0].title.startswith("not converged after 5 iterations")
    for points in (X[:1], X[:, :1], np.zeros((4, 3))):
        animate(points, tmp_path / "film.gif", preference=-9.0, overwrite=True)


@pytest.mark.long
def test_large_films_lose_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    animate(X, tmp_path / "whole.gif", preference=-40.0)
    limit = (tmp_path / "whole.gif").stat().st_size // 2
    monkeypatch.setattr("ap_spark.animation._MOST_BYTES", limit)
    animate(X, tmp_path / "less.gif", preference=-40.0)
    assert (tmp_path / "less.gif").stat().st_size <= limit
    with opened(tmp_path / "whole.gif") as whole, opened(tmp_path / "less.gif") as less:
        assert less.n_frames < whole.n_frames


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.gif"
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (X, {"what": "noise"}, SettingError, "what must be one of messages, preference"),
        (np.zeros((5_001, 2)), {}, SettingError, "at most 5,000 points, got 5,001"),
        (X, {"clusters": 3}, SettingError, "clusters belong to the moving picture of levels"),
        (X, {"what": "levels", "preference": -40.0, "max_iter": 30}, SettingError, "needs more than one"),
        (X, {"damping": 2.0}, SettingError, "damping must be in"),
        (X, {"similarity": Similarity(scale="standard")}, InputError, "leave out scale and search"),
        (X, {"what": "damping", "damping": 0.8}, SettingError, "so leave out damping, got 0.8"),
        (pd.DataFrame(X, index=np.arange(75) / 2), {}, InputError, "all integers or all strings"),
        (np.where(X > 8, np.nan, X), {}, InputError, "finite numbers"),
        (X, {"similarity": {}}, SettingError, "similarity must be a `Similarity`"),
        (pd.DataFrame({"x": ["a", "b"]}), {}, InputError, "column 'x' holds text"),
    ]
    for points, options, kind, words in cases:  # most before anything is computed
        with pytest.raises(kind, match=words):
            animate(points, path, **options)
    with pytest.raises(TypeError, match=r"no argument 'prefrence' \(did you mean 'preference'\?\)"):
        animate(X, path, prefrence=-1.0)  # type: ignore[call-arg]
    with pytest.raises(SettingError, match=r"a file .gif or .mp4, got"):
        animate(X, tmp_path / "film.png")
    monkeypatch.setattr(FFMpegWriter, "isAvailable", lambda: False)
    with pytest.raises(SettingError, match="needs the program ffmpeg"):
        animate(X, tmp_path / "film.mp4")
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        animate(X, path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(OutputError, match="in a directory that can be written"):
        animate(X[:3], path / "film.gif")
    animate(X[:3], path, overwrite=True)
    assert path.read_bytes().startswith(b"GIF8")
    animate(X[:3], tmp_path / "new" / "film.gif")
    assert sorted(str(found.relative_to(tmp_path)) for found in tmp_path.rglob("*.*")) == ["film.gif", "new/film.gif"]


@pytest.mark.long
def test_the_command(tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    """Scaled features of a file."""
    path = tmp_path / "film.gif"
    command = ["animate", str(ROOT / "data" / "iris.csv"), "--feature-columns", "0-3", "--output", str(path)]
    assert main([*command, "--scale", "standard", "--preference", "-50", "--max-iter", "20"]) == 0
    assert capsys.readouterr().out == f"written to {path}\n"
    with opened(path) as image:
        assert image.n_frames > 5
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.long
def test_four_gaussians_become_four_clusters() -> None:
    """The first data set of a well-known tutorial, at its preference and damping."""
    rng = np.random.default_rng(0)
    wide = [rng.normal(center, spread, (1_000, 2)) for center, spread in ((5, 2), (15, 3))]
    round_ones = [rng.multivariate_normal(center, np.eye(2), 1_000) for center in ((17, 3), (2, 16))]
    film = film_of(
        np.concatenate([*wide, *round_ones]), "messages", Similarity(), Settings(preference=-10_000.0, damping=0.9)
    )
    (last,) = film.frames[-1]
    assert last.is_exemplar.sum() == 4
    sizes = [np.bincount(np.array(labels_of(last))[part], minlength=4).max() for part in np.split(np.arange(4_000), 4)]
    assert min(sizes) > 950
