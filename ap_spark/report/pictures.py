"""The pictures of a result, as figures of Matplotlib.

Text comes from data: it is never read as a formula, and is cut where it is long.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram
from scipy.stats import rankdata
from sklearn.decomposition import PCA

from ap_spark.blocks.kernel import Floats
from ap_spark.report.colors import ACCENT, MUTED, PALETTE, color_clusters, mark_clusters
from ap_spark.report.content import NAMED, Content, prepare, similarities_of
from ap_spark.wording import printable

__all__ = ["PICTURES", "STYLE", "draw_clusters", "plain_style", "project", "short"]

# A page shows a picture 370 to 600 pixels wide: text of 10 points is legible there.
_WIDTH = 5.2  # inches
STYLE: Any = {
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
}
_AS_VECTORS = 2_000  # points; beyond, they are drawn as pixels, which do not grow with their number
_PIXELS_AN_INCH = 220
_LONGEST = 22  # characters of an id
_NAMES_IN_A_COLUMN = 20  # of the matrix
_MOST_LEAVES = 200
_EACH_SIZE = 30  # points in a cluster; beyond, sizes are taken together


def short(text: object, longest: int = _LONGEST) -> str:
    r"""Return what comes from data as a short line: cut, control characters escaped, blanks alone made visible.

    >>> short("customers/of/2026/number-17", 20), short("  "), short("a\nb")
    ('customers/of/…ber-17', '␣␣', 'a\\nb')
    """
    line = printable(str(text))
    if not line.strip():
        line = "␣" * len(line) or "''"
    tail = (longest - 1) // 3  # ids often differ at their end
    return line if len(line) <= longest else f"{line[: longest - 1 - tail]}…{line[-tail:]}"


class _Picture(Figure):
    """A figure that a notebook shows, also where nobody has imported pyplot."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, format="png")
        return data.getvalue()


@contextmanager
def plain_style(ink: str | None = None) -> Iterator[None]:
    """Draw as if the user had chosen no style of his own; text and axes in a colour, if one is given."""
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    colors = {} if ink is None else dict.fromkeys(names, ink) | {"axes.facecolor": "none", "figure.facecolor": "none"}
    defaults = {name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith("backend")}
    chosen: Any = {**defaults, **STYLE, **colors}
    with mpl.rc_context(chosen):
        yield


def _figure(height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    figure = _Picture(figsize=(_WIDTH, height))
    return figure, figure.subplots(rows, 1, **options)


def _with_thousands(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _whole_numbers(axis: Any) -> None:
    axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _with_thousands(axis)


def project(x: Floats) -> tuple[Callable[[Floats], Floats], list[str], bool]:
    """Return how vectors are put into two dimensions, the names of these, and whether both have one unit.

    One or two features are taken as they are; of more, the two directions in which they vary most (principal
    components).
    """
    dimensions = x.shape[1]
    if dimensions == 1:
        return lambda y: np.column_stack([y[:, 0], np.zeros(len(y))]), ["feature 0", ""], False
    size = float(np.abs(x).max(initial=0.0))
    if dimensions == 2 or not np.ptp(x / (size or 1.0), axis=0).any():  # without variance, the first two will do
        return lambda y: y[:, :2], ["feature 0", "feature 1"], False
    components = PCA(2, random_state=0).fit(x / size)
    shares = components.explained_variance_ratio_
    names = [f"component {n + 1} ({100 * shares[n]:.0f} % of the variance)" for n in range(2)]
    return lambda y: np.asarray(components.transform(y / size) * size), names, True


def scatter(content: Content) -> Figure | None:
    """Draw points in two dimensions, each joined to its exemplar; None without features.

    Two features are drawn as they are, more by their first two principal components. Large tables are drawn by 20,000
    points. Without the points, exemplars are drawn alone, larger ones for larger clusters.
    """
    if content.features is None or content.head_features is None or not len(content.sample):
        return None
    dimensions = content.features.shape[1]
    x, exemplars = content.features, content.head_features
    if dimensions > 2:
        x, exemplars = prepare(content, x), prepare(content, exemplars)
    to_plane, names, has_one_unit = project(x)
    if dimensions <= 2 and content.feature_names:
        names = content.feature_names
    points, heads = to_plane(x), to_plane(exemplars)
    figure, axes = _figure(4.4)
    if dimensions == 1:  # one above the other, by cluster
        points[:, 1], heads[:, 1] = content.place, np.arange(len(heads))
        names = [names[0], "cluster"]
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    colors = color_clusters(heads)
    if content.are_exemplars:
        size = content.sizes[content.heads["label"]]
        area = 8 + 300 * size / size.max()
        axes.scatter(*heads.T, s=area, c=[PALETTE[color] for color in colors], alpha=0.7, linewidths=0)
    else:
        draw_clusters(axes, points, heads, content.place, colors)
    axes.set_xlabel(short(names[0], 50))
    axes.set_ylabel(short(names[1], 50))
    if has_one_unit:
        axes.set_aspect("equal", adjustable="datalim")
    if len(heads) <= len(PALETTE) and not content.are_exemplars:
        _name_clusters(figure, content, colors)
    return figure


def draw_clusters(
    axes: Axes,
    points: Floats,
    heads: Floats,
    place: NDArray[np.int64],
    colors: NDArray[np.int64],
    is_exemplar: NDArray[np.bool_] | None = None,
    marks: list[str] | None = None,
) -> None:
    """Draw points, each joined to its exemplar; clusters have markers of their own where they are few.

    Heads that are not exemplars yet are drawn as other points. ``marks`` are the markers of the clusters.
    """
    many = len(points) > _AS_VECTORS
    opacity = min(1.0, max(0.25, 40.0 / np.sqrt(len(points))))
    rgba = np.array([to_rgba(PALETTE[color]) for color in colors])
    spokes = LineCollection(
        np.stack([points, heads[place]], axis=1).tolist(),
        colors=rgba[place] * [1, 1, 1, 0.5 * opacity],
        linewidths=0.5 if many else 0.7,
        rasterized=many,
        zorder=1,
    )
    axes.add_collection(spokes)
    markers = np.array(mark_clusters(colors) if marks is None else marks)
    for marker in dict.fromkeys(markers):
        chosen = markers[place] == marker
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=4 if many else 14,
            c=rgba[place[chosen]],
            alpha=opacity,
            marker=marker,
            linewidths=0,
            rasterized=many,
            zorder=2,
        )
    if is_exemplar is not None:
        heads, rgba = heads[is_exemplar], rgba[is_exemplar]
    large = max(4.0, min(170.0, 4_000.0 / max(len(heads), 1)))
    edge = mpl.rcParams["text.color"]
    axes.scatter(
        heads[:, 0],
        heads[:, 1],
        s=large,
        c=rgba,
        marker="*" if large > 20 else "o",
        edgecolors=edge,
        linewidths=0.8 if large > 20 else 0.2,
        rasterized=len(heads) > _AS_VECTORS,
        zorder=3,
    )
    axes.autoscale_view()


def _name_clusters(figure: Figure, content: Content, colors: NDArray[np.int64]) -> None:
    """Add a legend below: the exemplar and the size of each cluster."""
    handles = [
        mpl.lines.Line2D([], [], linestyle="", color=PALETTE[color], marker=marker, markersize=6)
        for color, marker in zip(colors, mark_clusters(colors), strict=True)
    ]
    size = content.sizes[content.heads["label"]]
    names = [f"{short(name)}: {count:,}" for name, count in zip(content.heads["exemplar"], size, strict=True)]
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, title="exemplars: points")


def sizes(content: Content) -> Figure | None:
    """Draw the size of each cluster; with many clusters, how many there are of each size. None without clusters."""
    found = np.sort(content.sizes)[::-1]
    if not len(found):
        return None
    if len(found) <= NAMED:
        figure, axes = _figure(0.9 + 0.24 * len(found))
        table = content.largest
        names = [short(name) for name in table["exemplar"]] if len(table) == len(found) else None
        place = np.arange(len(found))
        bars = axes.barh(place, found, color=ACCENT)
        axes.bar_label(bars, labels=[f"{size:,}" for size in found], padding=3)
        axes.set_yticks(place, names or [f"{n + 1}." for n in place])
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_xlabel("points")
        axes.set_ylabel("exemplar" if names else "cluster")
        _whole_numbers(axes.xaxis)
        return figure
    figure, axes = _figure(2.8)
    most = int(found[0])
    if most <= _EACH_SIZE:
        axes.hist(found, bins=np.arange(0.5, most + 1), color=ACCENT, rwidth=0.9)
        _whole_numbers(axes.xaxis)
    else:
        edges = np.unique(np.round(np.geomspace(found[-1], most + 1, _EACH_SIZE)))
        axes.hist(found, bins=edges - 0.5, color=ACCENT, rwidth=0.9)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        _with_thousands(axes.xaxis)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    _with_thousands(axes.yaxis)
    axes.set_xlabel("points in a cluster")
    axes.set_ylabel("clusters")
    return figure


def trace(content: Content) -> Figure | None:
    """Draw exemplars, and points that became or ceased to be one, over the iterations; None without iterations."""
    table = content.trace
    if table.empty:
        return None
    figure, (above, below) = _figure(3.6, 2, sharex=True)
    above.plot(table["iteration"], table["exemplars"], color=ACCENT)
    above.set_ylabel("exemplars")
    below.plot(table["iteration"], table["changed"], color=PALETTE[4], label="changed in this iteration")
    below.plot(table["iteration"], table["unsettled"], color=MUTED, linestyle="--", label="changed lately: unsettled")
    below.set_ylabel("points")
    for axes in (above, below):
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        _with_thousands(axes.yaxis)
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    _whole_numbers(below.xaxis)
    below.set_xlabel("iteration")
    figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def quality(content: Content) -> Figure | None:
    """Draw net similarity and its upper bound over the steps of polishing and bounding; None where there are none."""
    table = content.quality
    if table is None or table.empty:
        return None
    figure, axes = _figure(2.9)
    step, netsim, bound = (table[name].to_numpy(float) for name in ("step", "netsim", "upper_bound"))
    polishing = (table["kind"] == "polish").to_numpy()
    axes.plot(step, netsim, color=ACCENT, drawstyle="steps-post", label="net similarity")
    if polishing.any():
        axes.plot(
            *(step[polishing], netsim[polishing]),
            color=ACCENT,
            linestyle="",
            marker="o",
            markersize=4,
            label="after a round of polishing",
        )
    known = np.isfinite(bound)
    if known.any():
        axes.plot(
            *(step[known], bound[known]),
            color=PALETTE[4],
            linestyle="--",
            marker="s" if np.count_nonzero(known) < 10 else "",
            markersize=4,
            label="upper bound: no clustering is better",
        )
        # The first bounds are far away: the picture is of where they end.
        last = bound[known][-1]
        room = max(3 * (last - netsim[-1]), netsim[-1] - netsim[0], 1e-3 * abs(netsim[-1]))
        low, high = min(netsim[0], netsim[-1] - room / 3), min(bound[known].max(), last + room)
        axes.set_ylim(low - 0.1 * room, high + 0.1 * room)
    _whole_numbers(axes.xaxis)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    _with_thousands(axes.yaxis)
    axes.set_xlabel("steps: rounds of polishing, passes of the bound")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    return figure


def matrix(content: Content) -> Figure | None:
    """Draw the similarities of members of the largest clusters, in the order of the clusters; None without features."""
    found = similarities_of(content)
    if found is None:
        return None
    similarity, labels = found
    figure, axes = _figure(4.4)
    ranked = (rankdata(similarity, axis=None).reshape(similarity.shape) - 1) / max(similarity.size - 1, 1)
    image = axes.imshow(ranked, cmap="cividis", interpolation="nearest", vmin=0.0, vmax=1.0)
    starts = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.6)
        axes.axvline(start - 0.5, color="white", linewidth=0.6)
    names = dict(zip(content.largest["label"], content.largest["exemplar"], strict=True))
    ends = np.append(starts[1:], len(labels))
    high = ends - starts >= len(labels) / _NAMES_IN_A_COLUMN
    axes.set_yticks((starts + ends - 1)[high] / 2, [short(names[labels[start]], 14) for start in starts[high]])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("cluster of")
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.8, aspect=40)
    values = np.quantile(similarity, [0.0, 0.5, 1.0])
    bar.set_ticks([0.0, 0.5, 1.0], labels=[f"{value:,.4g}" for value in values])
    bar.set_label("similarity: least, median, most")
    bar.outline.set_visible(False)
    return figure


def tree(content: Content) -> Figure | None:
    """Draw how the last clusters join, those first that lose least by one exemplar; None where there is no tree.

    Of more than 200 clusters, those that join first are drawn as one leaf.
    """
    table = content.tree
    if table is None or table.empty:
        return None
    leaves = len(table) + 1
    named = leaves <= NAMED
    figure, axes = _figure(0.9 + 0.2 * leaves if named else 3.4)
    joins = table[["left", "right", "height", "size"]].to_numpy(float)
    names = None
    if named and len(content.largest) == leaves:
        names = [short(name) for name in content.largest.sort_values("label")["exemplar"]]
    dendrogram(
        joins,
        ax=axes,
        orientation="right" if named else "top",
        labels=names,
        no_labels=not named,
        truncate_mode="lastp" if leaves > _MOST_LEAVES else None,  # a long chain of joins would be too deep
        p=_MOST_LEAVES,
        link_color_func=lambda _: ACCENT,
        leaf_font_size=10,
    )
    lost = axes.xaxis if named else axes.yaxis
    lost.set_major_locator(MaxNLocator(nbins=4))
    _with_thousands(lost)
    (axes.set_xlabel if named else axes.set_ylabel)("similarity lost by the join")
    (axes.set_ylabel if named else axes.set_xlabel)(
        "exemplar" if names else "cluster" if named else f"{leaves:,} clusters"
    )
    return figure


PICTURES: dict[str, tuple[str, Callable[[Content], Figure | None]]] = {
    "scatter": ("Points and their exemplars", scatter),
    "sizes": ("Sizes of clusters", sizes),
    "matrix": ("Similarities within and between clusters", matrix),
    "tree": ("How the last clusters join", tree),
    "trace": ("Iterations", trace),
    "quality": ("Net similarity and its bound", quality),
}
