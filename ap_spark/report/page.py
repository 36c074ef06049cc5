"""One page of a result, which opens without a network; and each of its pictures as SVG and PNG.

content ──► figures ──► SVG in the page, in the colours of the reader's light or dark theme
                   └──► pictures/NAME.svg, pictures/NAME.png
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from ap_spark.blocks.kernel import Floats
from ap_spark.errors import InputError, OutputError
from ap_spark.io.stores import SUCCESS
from ap_spark.io.writer import FORMAT, PAGE, SUMMARY
from ap_spark.io.writer import PICTURES as FOLDER
from ap_spark.report.content import ENDS, LARGEST, Content, similarities_of
from ap_spark.report.pictures import PICTURES, plain_style, short
from ap_spark.version import __version__
from ap_spark.wording import format_rounded_up

__all__ = ["files_of", "write"]

_INK = "#010203"  # stands for the colour of the text, in pictures in the page
_THUMBNAIL = (256, 128)  # pixels of an image in the page, at most
_FEW_PIXELS = 32  # an image of so many is not compressed with losses
_CELL = 80  # characters
_MANY_DIGITS = re.compile(r"[+-]?\d*\.\d{7,}([eE][+-]?\d+)?")
_DARK = "<style>svg { color: #1a1a1a } @media (prefers-color-scheme: dark) { svg { color: #ececec } }</style>"


def files_of(
    content: Content, *, title: str = "Clusters", image_shape: tuple[int, int] | None = None
) -> dict[str, bytes]:
    """Return the page and its pictures, by the names of their files.

    Parameters
    ----------
    content : Content
    title : str
    image_shape : (int, int), optional
        Height and width: features are grey values of an image, row by row.

    Raises
    ------
    InputError
        If features are not so many.
    """
    files: dict[str, bytes] = {}
    drawn = []
    for name, (about, draw) in PICTURES.items():
        with plain_style(_INK):
            figure = draw(content)
            if figure is None:
                continue
            svg = _svg(figure, name)
        drawn.append({"name": name, "title": about, "about": _about(name, content), "svg": Markup(svg)})
        files[f"{FOLDER}/{name}.svg"] = svg.replace("<defs>", f"{_DARK}<defs>", 1).encode()
        files[f"{FOLDER}/{name}.png"] = _png(figure)
    environment = Environment(
        loader=PackageLoader("ap_spark", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("page.html").render(
        title=short(title, 120),
        said=str(content.summary).splitlines(),
        figures=_figures(content),
        pictures=drawn,
        clusters=_clusters(content, image_shape),
        about_clusters=_about_clusters(content),
        row_names=[short(name, _CELL) for name in content.rows.names],
        settings=[
            (name, short(_plain(value), 400)) for name, value in content.summary.settings.items() if value is not None
        ],
        others=[
            *((f"{name}, s", value) for name, value in content.summary.seconds.items()),
            *content.summary.versions.items(),
            ("fingerprint", content.summary.fingerprint),
        ],
    )
    return {PAGE: page.encode()} | files


def write(files: dict[str, bytes], path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write files to a directory of this machine, which appears whole or not at all.

    Raises
    ------
    OutputError
        If there is something already and it may not be replaced, or it is no report; if it cannot be written.
    """
    target = Path(path).absolute()
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        problem = None if _is_report(target) else "it is no report, or holds more: choose another directory"
        if problem or not overwrite:
            raise OutputError(
                f"the output must not exist yet, but {target} does; {problem or 'overwrite=True replaces it'}"
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
            made, old = Path(name, "report"), Path(name, "old")
            (made / FOLDER).mkdir(parents=True)
            about = {"format": FORMAT, "settings": {}, "seconds": {}}  # by which an output of ours is known
            for file, data in {**files, SUMMARY: json.dumps(about).encode()}.items():
                (made / file).write_bytes(data)
            if target.exists():
                target.rename(old)
            try:
                made.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
    except OSError as error:
        raise OutputError(f"the output must be in a directory that can be written, but {error}") from error


def _is_report(target: Path) -> bool:
    """Return whether a directory is a report, of Python or of the command, and nothing else."""
    try:
        summary = json.loads((target / SUMMARY).read_bytes())
        found = {str(path.relative_to(target)) for path in target.rglob("*")}
    except (OSError, ValueError):
        return False
    expected = re.compile(rf"{re.escape(PAGE)}|{FOLDER}(/[a-z]+\.(svg|png))?|{SUMMARY}|{SUCCESS}|(.*/)?\..*\.crc")
    return isinstance(summary, dict) and summary.get("format") == FORMAT and all(map(expected.fullmatch, found))


def _svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG whose text is text, and takes the colour of what is around it."""
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "savefig.transparent": True}), _any_script():
        figure.savefig(text, format="svg", dpi=220, metadata={"Date": None, "Creator": f"ap_spark {__version__}"})
    svg = text.getvalue()
    return re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], name), svg[svg.index("<svg") :])


def _tag(tag: str, name: str) -> str:
    """Return a tag of a picture for a page that has others: its text is left alone, which is data."""
    tag = tag.replace(_INK, "currentColor")
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    tag = re.sub(r'(href="#|url\(#)', rf"\1{name}-", tag)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", tag)


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG, on white."""
    data = io.BytesIO()
    with _any_script():
        figure.savefig(data, format="png", dpi=150, facecolor="white", metadata={"Software": f"ap_spark {__version__}"})
    return data.getvalue()


@contextmanager
def _any_script() -> Iterator[None]:
    """Let text of scripts pass that the font of pictures does not have: a browser has other fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font|Matplotlib currently does not support")
        yield


def _figures(content: Content) -> list[tuple[str, str]]:
    """Return the run in a few figures."""
    summary = content.summary
    sizes = content.sizes
    found = [
        ("points", f"{summary.n_points:,}"),
        ("features", "" if content.features is None or not len(content.features) else f"{content.features.shape[1]:,}"),
        ("clusters", f"{summary.n_clusters:,}"),
        ("points in a cluster, median", f"{np.median(sizes):,.0f}" if len(sizes) else ""),
        ("points in the largest", f"{sizes.max():,}" if len(sizes) else ""),
        ("clusters of one point", f"{np.count_nonzero(sizes == 1):,}"),
        ("net similarity", _number(summary.netsim)),
        ("below the best, at most", "" if not summary.gap else f"{format_rounded_up(100 * summary.gap, 2)} %"),
        ("of this graph", "proved best" if summary.gap == 0 else ""),
        ("iterations", f"{summary.n_iter:,}"),
        ("at the end", {"stopped": "not converged"}.get(summary.ending, summary.ending)),
    ]
    return [(name, value) for name, value in found if value]


def _about(name: str, content: Content) -> str:
    """Say what a picture is of, where that is not all."""
    if name == "scatter" and content.are_exemplars:
        return "exemplars alone, larger ones for larger clusters; give the points to see them"
    if name == "scatter" and content.summary.n_points > len(content.sample):
        return f"{len(content.sample):,} of {content.summary.n_points:,} points, drawn by chance"
    if name == "matrix" and (found := similarities_of(content)):
        return f"{len(found[1]):,} members of the largest clusters; colours go by rank"
    return ""


def _about_clusters(content: Content) -> str:
    some = min(LARGEST, len(content.sizes))
    which = "All of them" if some == len(content.sizes) else f"The largest {some} of {len(content.sizes):,}"
    return f"{which}, by their exemplar; the {ENDS} members most similar to it, and the {ENDS} least similar."


def _clusters(content: Content, image_shape: tuple[int, int] | None) -> list[dict[str, Any]]:
    """Return the largest clusters with their exemplars, the most and the least typical members."""
    pixels = _Pixels(content, image_shape)
    members = content.members
    found = []
    columns = [
        content.largest[name].head(LARGEST).tolist() for name in ("label", "exemplar", "size", "mean_similarity")
    ]
    for label, exemplar, size, mean in zip(*columns, strict=True):
        place = np.flatnonzero(members["label"].to_numpy() == label)
        first = place[np.argsort(members["first"].to_numpy()[place])]
        most = first[members["first"].to_numpy()[first] <= ENDS]
        least = first[(members["last"].to_numpy()[first] <= ENDS) & ~np.isin(first, most)]
        roles = [("exemplar", [_member(content, exemplar, None, pixels.of_head(label))])]
        for role, chosen in (("most similar", most), ("least similar", least)):
            made = [
                _member(content, members["id"].iloc[at], members["similarity"].iloc[at], pixels.of_member(at))
                for at in chosen
            ]
            roles += [(role, made)] if made else []
        images = [member["image"] for _, some in roles for member in some if member["image"]]
        found.append(
            {
                "exemplar": short(exemplar, _CELL),
                "size": f"{size:,}",
                "mean": "" if mean is None or mean != mean else _number(mean),
                "by_role": roles,
                "has_images": bool(images),
                "has_table": bool(content.rows.names) or not images,
            }
        )
    return found


def _member(content: Content, id: object, similarity: float | None, pixels: str) -> dict[str, Any]:
    key = str(id)
    cells = content.rows.cells.get(key, [None] * len(content.rows.names))
    return {
        "id": short(id, _CELL),
        "similarity": "" if similarity is None else _number(similarity),
        "cells": ["" if cell is None else _cell(cell) for cell in cells],
        "image": pixels or _image(content.rows.images.get(key)),
    }


def _cell(text: str) -> str:
    """Return a cell as it is shown: a number of many digits rounded.

    >>> _cell("-2.025277218280263"), _cell("1700000000.1234567"), _cell("0012")
    ('-2.02528', '1,700,000,000', '0012')
    """
    has_many = _MANY_DIGITS.fullmatch(text) and math.isfinite(float(text))
    return _number(float(text)) if has_many else short(text, _CELL)


class _Pixels:
    """Draws features as images, where they are the grey values of some."""

    def __init__(self, content: Content, shape: tuple[int, int] | None) -> None:
        self._shape, self._content = shape, content
        if shape is None or not len(content.heads):
            return
        if content.features is None:
            raise InputError("features are drawn as images where they are known: give the points")
        if content.features.shape[1] != shape[0] * shape[1]:
            raise InputError(
                f"images of {shape[0]} x {shape[1]} need {shape[0] * shape[1]:,} features, but points have "
                f"{content.features.shape[1]:,}"
            )
        self._low, self._high = float(content.features.min()), float(content.features.max())
        self._heads = {label: place for place, label in enumerate(content.heads["label"])}

    def of_head(self, label: int) -> str:
        if self._shape is None or self._content.head_features is None or label not in self._heads:
            return ""
        return self._drawn(self._content.head_features[self._heads[label]])

    def of_member(self, place: int) -> str:
        if self._shape is None or self._content.member_features is None:
            return ""
        return self._drawn(self._content.member_features[place])

    def _drawn(self, features: Floats) -> str:
        share = (features.reshape(self._shape or ()) - self._low) / max(self._high - self._low, 1e-300)
        return _address(Image.fromarray((255 * (1.0 - np.clip(share, 0.0, 1.0))).round().astype(np.uint8)))


def _image(data: bytes | None) -> str:
    """Return an image in a row of the input as an address, small; nothing if it is none."""
    if data is None:
        return ""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("error")  # an image of very many pixels is a warning
            image.thumbnail(_THUMBNAIL)
            return _address(image.convert("RGB"))
    except Exception:  # whatever is wrong with it: the page is of the clusters
        return ""


def _address(image: Image.Image) -> str:
    """Return an image as an address that holds it."""
    data = io.BytesIO()
    kind = "jpeg" if image.mode == "RGB" and max(image.size) > _FEW_PIXELS else "png"
    image.save(data, kind)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _number(value: float) -> str:
    """Return a number for a person.

    >>> _number(-1728048.7), _number(0.1234567)
    ('-1,728,049', '0.123457')
    """
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:,.6g}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
