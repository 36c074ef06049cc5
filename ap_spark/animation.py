"""Moving pictures: how messages become exemplars, and what preference, damping and levels do.

points ──► runs in this process, watched ──► frames ──► drawn one after the other ──► GIF or MP4
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ap_spark.blocks.kernel import Flags, Floats, Integers
from ap_spark.convergence import Iteration, Stability
from ap_spark.engines.in_process import InProcessEngine
from ap_spark.errors import InputError, OutputError, SettingError
from ap_spark.foreign_names import explains_keywords
from ap_spark.graph.numbering import WrongInput
from ap_spark.in_process import source_of_points
from ap_spark.levels import cluster_in_levels
from ap_spark.pipeline import checked_settings, require_records
from ap_spark.propagation import Watch
from ap_spark.report import packages_of_report
from ap_spark.report.panel import Panel
from ap_spark.result import Clustering
from ap_spark.run import LocalSource, cluster
from ap_spark.settings import Execution, Levels, Quality, Settings, Similarity, Sparsification, What
from ap_spark.wording import format_count

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Points = pd.DataFrame | NDArray[np.floating[Any] | np.integer[Any]]

__all__ = ["animate", "check_number", "checked_path", "film_of"]

_MOST_POINTS = 5_000
_MOST_FRAMES = 90
_PREFERENCES = 18  # tried, beside that of the run
_DAMPINGS = (0.5, 0.7, 0.9)
_MOST_BYTES = 3_000_000
_SECONDS_AT_THE_END = 3.0
_SECONDS_A_FRAME: dict[What, float] = {"messages": 0.12, "damping": 0.12, "preference": 0.7, "levels": 1.5}

_WRONG = {  # what keeps points from being clustered in this process, and what to do
    "choices": "points of moving pictures are compared as they are, by an exact search: leave out scale and search",
    "ids": "ids must be there, and all integers or all strings, in the column 'id' or in the index of pandas",
    "ids given twice": "ids must be unique, but one is given more than once",
    "features": "points must be two or more rows of finite numbers, in a table of pandas or an array: leave other "
    "columns out, and rows where something is missing",
    "vectors without similarities": "vectors must have similarities by this metric, but one is zero or constant: leave "
    "it out, or take another metric",
    "similarities": "similarities must be finite, but the features are too large: divide them by a power of ten",
    "preferences in two ways": "give the preference in one way: the column 'preference' of the points, or preference",
}


@dataclass(frozen=True)
class Film:
    """What is to be drawn.

    Attributes
    ----------
    x : float64, shape (n, d)
        The points.
    frames : list of list of Panel
        The panels of each moment; those of the last are the results of the runs.
    """

    x: Floats
    frames: list[list[Panel]]


@explains_keywords
def animate(
    points: Points,
    path: str | PathLike[str],
    *,
    what: What = "messages",
    similarity: Similarity = Similarity(),
    preference: float | None = Settings.preference,
    preference_quantile: float | None = Settings.preference_quantile,
    clusters: int | None = Settings.clusters,
    damping: float | None = Settings.damping,
    max_iter: int = Settings.max_iter,
    convergence_iter: int | None = Settings.convergence_iter,
    seed: int | None = Settings.seed,
    levels: int | Literal["auto"] | Levels = Levels(),
    quality: Quality = Quality(),
    overwrite: bool = False,
) -> None:
    """Draw a moving picture of a run, on points in two dimensions or projected to two.

    Parameters
    ----------
    points : DataFrame of pandas, or array of shape (n_points, n_features)
        At most 5,000, as `cluster_points` takes them.
    path : str
        A file of this machine, .gif or, where the program ffmpeg is installed, .mp4. A GIF that would be larger than
        3 MB loses frames.
    what : {"messages", "preference", "damping", "levels"}
        "messages": after each iteration, which point each one would choose (the largest a + r), and the exemplars; at
        last the result. "preference": the result at ever smaller preferences, and at last at the one given. "damping":
        the messages at damping 0.5, 0.7 and 0.9, beside each other, and the results. "levels": the clusters of each
        level, and at last the result.
    similarity, preference, preference_quantile, damping, max_iter, convergence_iter, seed, quality
        See `cluster_points`. Features are not scaled.
    clusters, levels
        See `cluster_points`; for the moving picture of levels alone.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    InputError
        If the points break a rule of the input.
    OutputError
        If there is a file already, or it cannot be written.
    SettingError
        If there are too many points, a parameter is outside its range or of no use here, or the file is to be of
        another kind.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     animate(np.array([[1.0, 2.0], [1.5, 2.5], [8.0, 9.0]]), f"{directory}/film.gif", preference=-9.0)
    ...     os.listdir(directory)
    ['film.gif']
    """
    target = checked_path(path, overwrite=overwrite)
    settings, _ = checked_settings(
        *(Sparsification(), Execution(), quality, levels),
        preference=preference,
        preference_quantile=preference_quantile,
        clusters=clusters,
        damping=damping,
        max_iter=max_iter,
        convergence_iter=convergence_iter,
        seed=seed,
    )
    require_records(Similarity, similarity=similarity)
    film = film_of(points, what, similarity, settings)
    _write(target, _drawn(film, target.suffix.lower(), _SECONDS_A_FRAME[what]))


def check_number(n_points: int) -> None:
    """Raise SettingError if there are too many points for a moving picture."""
    if n_points > _MOST_POINTS:
        raise SettingError(
            f"moving pictures are of at most {_MOST_POINTS:,} points, got {n_points:,}: take a sample of them"
        )


def checked_path(path: str | PathLike[str], *, overwrite: bool) -> Path:
    """Return the path of a moving picture that can be written, once all is there that draws it."""
    target = Path(fspath(path)).absolute()
    if target.suffix.lower() not in (".gif", ".mp4"):
        raise SettingError(f"a moving picture is a file .gif or .mp4, got {fspath(path)!r}")
    if os.path.lexists(target) and (not overwrite or not target.is_file()):
        how = "give --overwrite (in Python overwrite=True) to replace it" if target.is_file() else "it is no file"
        raise OutputError(f"the output must not exist yet, but {target} does: {how}")
    with packages_of_report():
        from matplotlib.animation import FFMpegWriter
    if target.suffix.lower() == ".mp4" and not FFMpegWriter.isAvailable():
        raise SettingError("an .mp4 needs the program ffmpeg, which is not installed: install it, or write a .gif")
    return target


def _write(target: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    hidden = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            hidden.write_bytes(data)
            hidden.replace(target)
        finally:
            hidden.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the output must be in a directory that can be written, but {error}") from error


def film_of(points: Points, what: What, similarity: Similarity, settings: Settings) -> Film:
    """Run on the points as often as it takes, and return the frames; see `animate`."""
    if what not in get_args(What):
        raise SettingError(f"what must be one of {', '.join(get_args(What))}, got {what!r}")
    check_number(len(points))
    if settings.clusters is not None and what != "levels":
        raise SettingError(f"clusters belong to the moving picture of levels, not of {what}: give a preference")
    if settings.damping is not None and what == "damping":
        raise SettingError(
            f"the moving picture of damping shows {', '.join(map(str, _DAMPINGS))}, so leave out damping, got "
            f"{settings.damping:g}"
        )
    settings = settings.of_points(similarity).with_window()
    try:
        source = source_of_points(points, None, similarity, settings, _MOST_POINTS)
    except WrongInput as wrong:
        raise InputError(_WRONG.get(str(wrong), _WRONG["features"])) from wrong
    assert source.features is not None
    frames = {"messages": _messages, "preference": _preferences, "damping": _dampings, "levels": _levels}[what]
    return Film(source.features, frames(source, settings))


def _result(source: LocalSource, settings: Settings) -> Clustering:
    """Return the result of a run on one level, without warnings: the picture says what came out."""
    return cluster(source, settings, Watch(), warns=False).to_pandas()


def _panel_of(source: LocalSource, result: Clustering, title: str, column: str = "exemplar") -> Panel:
    """Return the clusters of a result as a panel."""
    table = result.assignments.sort_values("id")
    if table.empty:
        return Panel(title, np.arange(source.n_points), np.zeros(source.n_points, bool))
    chosen = pc.index_in(pa.array(table[column], source.ids.type), source.ids).to_numpy().astype(np.int64)
    is_exemplar = np.zeros(source.n_points, bool)
    is_exemplar[chosen] = True
    return Panel(title, chosen, is_exemplar)


def _iterations(source: LocalSource, settings: Settings, count: int) -> Iterator[tuple[Iteration, Integers, Flags]]:
    """Yield so many iterations, with what points choose after each, and the exemplars."""
    engine = InProcessEngine(source.build(settings), settings.damping)
    for done in engine.run(count, Stability((count,))):  # which never ends before
        yield done, engine.chosen(), engine.exemplars()


def _messages(source: LocalSource, settings: Settings) -> list[list[Panel]]:
    result = _result(source, settings)
    counts: list[int] = []
    panels = []
    for done, chosen, exemplars in _iterations(source, settings, result.summary.n_iter):
        counts.append(done.exemplars)
        title = f"iteration {done.iteration}: {format_count(done.exemplars, 'exemplar')}"
        panels.append(Panel(title, chosen, exemplars.copy(), list(counts)))
    state = "not converged " if result.summary.ending == "stopped" and counts else ""
    polished = ", polished" if settings.polish else ""
    number = format_count(result.summary.n_clusters, "cluster")
    title = f"{state}after {format_count(len(counts), 'iteration')}{polished}: {number}"
    last = _panel_of(source, result, title)
    return [[panel] for panel in _thinned(panels)] + [[replace(last, counts=counts)]]


def _dampings(source: LocalSource, settings: Settings) -> list[list[Panel]]:
    runs = []
    for damping in _DAMPINGS:
        chosen = replace(settings, damping=damping, convergence_iter=None).with_window()
        panels = [panel for (panel,) in _messages(source, chosen)]
        runs.append([replace(panel, title=_one_below_the_other(damping, panel.title)) for panel in panels])
    longest = max(map(len, runs))
    return [[run[min(place, len(run) - 1)] for run in runs] for place in range(longest)]


def _one_below_the_other(damping: float, title: str) -> str:
    """Return a title for a narrow panel.

    >>> _one_below_the_other(0.9, "iteration 3: 2 exemplars").splitlines()
    ['damping 0.9', 'iteration 3', '2 exemplars']
    """
    return f"damping {damping:g}\n{title}".replace(": ", "\n")


def _preferences(source: LocalSource, settings: Settings) -> list[list[Panel]]:
    """Results from preferences at which there are many clusters to those where there is one; then the run's own."""
    own = _result(source, settings)
    if source.n_points < 2:
        return [[_panel_of(source, own, "1 cluster")]]
    middle = float(np.median(source.s[source.i != source.k]))
    low = min(middle, 0.0 if own.summary.preference is None else own.summary.preference)
    size = max(abs(middle), 1e-12)
    tried = middle + size - size * np.geomspace(0.02, max(4.0, 2.0 * (middle + size - low) / size), _PREFERENCES)
    frames = []
    for preference in tried:
        result = _result(source, replace(settings, preference=float(preference), preference_quantile=None))
        number = format_count(result.summary.n_clusters, "cluster")
        frames.append([_panel_of(source, result, f"preference {preference:,.4g}: {number}")])
    number = format_count(own.summary.n_clusters, "cluster")
    words = "" if own.summary.preference is None else f"preference {own.summary.preference:,.4g}: "
    return [*frames, [_panel_of(source, own, f"{words}{number}")]]


def _levels(source: LocalSource, settings: Settings) -> list[list[Panel]]:
    result = cluster_in_levels(source, settings, Watch()).to_pandas()
    names = [name for name in result.assignments.columns if name.startswith("level_")]
    frames = [
        [_panel_of(source, result, f"level {number}: {format_count(level['n_clusters'], 'cluster')}", name)]
        for number, (name, level) in enumerate(zip(names, result.summary.levels, strict=True))
    ]
    if not frames:
        raise SettingError(
            "a moving picture of levels needs more than one: give neighbours, and fewer clusters than their graph "
            f"permits (docs/levels.md); here are {format_count(result.summary.n_clusters, 'cluster')} on one level"
        )
    number = format_count(result.summary.n_clusters, "cluster")
    return [*frames, [_panel_of(source, result, f"all points to the nearest exemplar: {number}")]]


def _thinned(panels: Sequence[Panel]) -> list[Panel]:
    """Return at most so many panels as a film has: all at the beginning, where most happens, and ever fewer."""
    count = len(panels)
    if count <= _MOST_FRAMES:
        return list(panels)
    even = np.linspace(0.0, 1.0, _MOST_FRAMES) ** 1.5 * (count - 1)
    return [panels[place] for place in dict.fromkeys(even.round().astype(int).tolist())]


def _drawn(film: Film, suffix: str, seconds: float) -> bytes:
    """Draw a film, and return the file."""
    with packages_of_report():
        from ap_spark.report.frames import Stage

    stage = Stage(film.x, film.frames)
    if suffix == ".mp4":
        return stage.mp4(film.frames, seconds, _SECONDS_AT_THE_END)
    every = 1
    while True:  # large ones lose frames, so that a page can show them
        kept = film.frames[:-1][::every] + film.frames[-1:]
        data = stage.gif(kept, seconds * math.sqrt(every), _SECONDS_AT_THE_END)
        if len(data) <= _MOST_BYTES or len(kept) <= 2:
            return data
        every *= 2
