"""Pictures of a result, from Python: ``clustering.plot.scatter()``."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ap_spark.errors import InputError
from ap_spark.report.content import Content, Result, gather
from ap_spark.report.pictures import PICTURES, STYLE

__all__ = ["Plot"]


class Plot:
    """The pictures of a result. Each is a figure of Matplotlib, to be changed or saved.

    Parameters
    ----------
    result : Clustering

    Examples
    --------
    >>> from ap_spark import cluster_points
    >>> clustering = cluster_points(np.array([[1.0, 2.0], [1.5, 2.5], [8.0, 9.0]]), preference=-9.0)
    >>> figure = clustering.plot.scatter()
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['feature 0']
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self._gathered: dict[bool, Content] = {}

    def scatter(self, points: Any = None) -> Figure:
        """Draw points in two dimensions, each joined to its exemplar.

        Two features are drawn as they are; of more, the two directions in which points vary most (principal
        components). Of more than 20,000 points, so many are drawn by chance, the same ones every time.

        Parameters
        ----------
        points : DataFrame of Spark or pandas, or array, optional
            Those of the run; by default the ones that the result was made of. Without them, as in a result that was
            loaded, exemplars are drawn alone.

        Raises
        ------
        InputError
            If there are no features, or the points are not those of the result.
        """
        return self._draw("scatter", points)

    def sizes(self) -> Figure:
        """Draw the size of each cluster; of more than 30, how many clusters there are of each size."""
        return self._draw("sizes")

    def trace(self) -> Figure:
        """Draw the number of exemplars, and of points that changed, over the iterations."""
        return self._draw("trace")

    def quality(self) -> Figure:
        """Draw net similarity and its upper bound over the steps of polishing and bounding (docs/quality.md)."""
        return self._draw("quality")

    def matrix(self, points: Any = None) -> Figure:
        """Draw the similarities of members of the 12 largest clusters, in the order of the clusters.

        Parameters
        ----------
        points : DataFrame of Spark or pandas, or array, optional
            As in `scatter`.
        """
        return self._draw("matrix", points)

    def tree(self) -> Figure:
        """Draw how the last clusters join, where clusters were clustered again (docs/levels.md)."""
        return self._draw("tree")

    def _draw(self, name: str, points: Any = None) -> Figure:
        content = self._content(points, needs_points=name in ("scatter", "matrix"))
        about, draw = PICTURES[name]
        with mpl.rc_context(STYLE):
            figure = draw(content)
        if figure is None:
            raise InputError(f"there is nothing to draw for the picture {name!r} ({about.lower()}): {_MISSING[name]}")
        return figure

    def _content(self, points: Any, *, needs_points: bool) -> Content:
        if points is not None:
            return gather(self._result, points)
        if needs_points not in self._gathered:
            self._gathered[needs_points] = gather(self._result, without_points=not needs_points)
        return self._gathered[needs_points]


_MISSING = {
    "scatter": "the result has no features of points",
    "sizes": "the result has no clusters",
    "matrix": "it needs the points of the result, its metric, and at least one member that is no exemplar",
    "tree": "the result has one level, or more than 1,000 clusters (docs/levels.md)",
    "trace": "no iterations were needed",
    "quality": "the result was neither polished nor bounded, or was made in levels",
}
