"""Frames of a moving picture: clusters at one moment after the other, on the same axes."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ap_spark.blocks.kernel import Floats
from ap_spark.report.colors import ACCENT, MUTED, color_clusters, mark_clusters
from ap_spark.report.panel import Panel
from ap_spark.report.pictures import draw_clusters, plain_style, project

__all__ = ["Stage"]

_DPI = 100
_COLORS = 96  # of a GIF


class Stage:
    """Where frames are drawn: each cluster in the colour that the last one of its exemplar has at the end.

    Parameters
    ----------
    x : float64, shape (n, d)
        The points; more than two dimensions are projected.
    frames : list of list of panels
        All panels of each moment.
    """

    def __init__(self, x: Floats, frames: Sequence[Sequence[Panel]]) -> None:
        to_plane, _, self._one_unit = project(x)
        self._points = to_plane(x)
        if x.shape[1] == 1:  # one above the other
            self._points[:, 1] = np.random.default_rng(0).uniform(size=len(x))
        low, high = self._points.min(axis=0), self._points.max(axis=0)
        room = np.where(high > low, 0.05 * (high - low), 0.5)
        self._corners = low - room, high + room
        spread = high - low + 2 * room
        self._height = spread[1] / spread[0] if self._one_unit else 0.8
        self._looks = [self._looks_of(last) for last in frames[-1]]
        self._longest = max(len(panel.counts) for frame in frames for panel in frame)
        self._most = max((max(panel.counts, default=0) for frame in frames for panel in frame), default=0)

    def _looks_of(self, last: Panel) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
        """Return colour and marker of each point as an exemplar: those of the cluster that it is in at the end."""
        (heads,) = np.nonzero(last.is_exemplar)
        if not len(heads):
            return np.zeros(len(last.chosen), np.int64), np.full(len(last.chosen), "o")
        place = np.searchsorted(heads, last.chosen).clip(0, len(heads) - 1)
        colors = color_clusters(self._points[heads])
        return colors[place], np.array(mark_clusters(colors))[place]

    def draw(self, frame: Sequence[Panel]) -> Figure:
        """Draw the panels of one moment."""
        with plain_style():
            has_counts = self._longest > 0
            width = 5.6 if len(frame) == 1 else 3.2
            height = width * min(max(self._height, 0.4), 1.0) + 0.6 + (0.8 if has_counts else 0.0)
            figure = Figure(figsize=(width * len(frame), height))
            FigureCanvasAgg(figure)
            axes = figure.subplots(
                *(2 if has_counts else 1, len(frame)),
                squeeze=False,
                height_ratios=[5, 1] if has_counts else None,
            )
            for column, (panel, looks) in enumerate(zip(frame, self._looks, strict=True)):
                self._draw_clusters(axes[0, column], panel, *looks)
                if has_counts:
                    self._draw_counts(axes[1, column], panel)
            if has_counts:
                axes[1, 0].set_ylabel("exemplars")
        return figure

    def _draw_clusters(self, axes: Any, panel: Panel, colors: NDArray[np.int64], markers: NDArray[np.str_]) -> None:
        heads, place = np.unique(panel.chosen, return_inverse=True)
        looks = (colors[heads], panel.is_exemplar[heads], markers[heads].tolist())
        draw_clusters(axes, self._points, self._points[heads], place, *looks)
        (left, below), (right, above) = self._corners
        axes.set_xlim(left, right)
        axes.set_ylim(below, above)
        if self._one_unit:
            axes.set_aspect("equal", adjustable="box")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(panel.title)

    def _draw_counts(self, axes: Any, panel: Panel) -> None:
        axes.plot(range(1, len(panel.counts) + 1), panel.counts, color=ACCENT)
        axes.plot(len(panel.counts), panel.counts[-1], "o", color=ACCENT)
        axes.set_xlim(0, self._longest + 1)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, 1.5 * self._most + 1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel("iteration")
        axes.grid(color=MUTED, alpha=0.3)

    def pixels(self, frame: Sequence[Panel]) -> NDArray[np.uint8]:
        """Return a frame as red, green and blue, shape (height, width, 3)."""
        figure = self.draw(frame)
        figure.set_dpi(_DPI)
        canvas: Any = figure.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def gif(self, frames: Sequence[Sequence[Panel]], seconds: float, at_the_end: float) -> bytes:
        """Return some of the frames as a GIF that repeats; so many seconds for each, and for the last one."""
        images = [Image.fromarray(self.pixels(frame)) for frame in frames]
        palette = images[-1].quantize(_COLORS, dither=Image.Dither.NONE)
        flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        data = io.BytesIO()
        lasts = [round(1_000 * seconds)] * (len(flat) - 1) + [round(1_000 * at_the_end)]
        flat[0].save(data, "GIF", save_all=True, append_images=flat[1:], duration=lasts, loop=0, optimize=True)
        return data.getvalue()

    def mp4(self, frames: Sequence[Sequence[Panel]], seconds: float, at_the_end: float) -> bytes:
        """Return some of the frames as an MP4, by ffmpeg; see `gif`."""
        even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]  # as the codec needs width and height
        writer = FFMpegWriter(fps=1.0 / seconds, extra_args=["-pix_fmt", "yuv420p", *even])  # type: ignore[arg-type]
        pixels = [self.pixels(frame) for frame in frames]
        height, width, _ = pixels[0].shape
        canvas = Figure(figsize=(width / _DPI, height / _DPI))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "film.mp4")
            with writer.saving(canvas, str(path), dpi=_DPI):
                for image in [*pixels, *[pixels[-1]] * round(at_the_end / seconds)]:
                    canvas.clear()
                    canvas.figimage(image)
                    writer.grab_frame()
            return path.read_bytes()
