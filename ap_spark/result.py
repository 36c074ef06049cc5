"""What comes out of a run: tables, and the run in numbers."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark import classic
from ap_spark._spark.session import current_session
from ap_spark.convergence import Ending
from ap_spark.errors import InputError, SettingError
from ap_spark.graph.describe import format_neighbors
from ap_spark.io.frames import in_order_of, in_pandas, to_spark
from ap_spark.io.paths import places_read
from ap_spark.io.stores import SUCCESS, Store
from ap_spark.io.writer import SUMMARY, OutputDirectory, claimed, read_written
from ap_spark.report import packages_of_report
from ap_spark.settings import MetricName, Output, OutputFormat, Pictures, Similarity
from ap_spark.wording import format_count, format_rounded_up, printable

if TYPE_CHECKING:
    from ap_spark.report.plot import Plot

__all__ = ["OPTIONAL", "Clustering", "Summary", "publish"]

_LARGE_GAP = 0.01
_LARGEST = 5  # clusters that are shown
_ENGINES = {"none": "no iterations needed", "in-process": "in this process"}
_FEATURES = "exemplar_features"  # a table of the output where points were clustered
OPTIONAL = ("quality", "levels", "tree")  # tables of the output where clusters were improved, and clustered again


@dataclass(frozen=True)
class Summary:
    """A run in numbers; `summary.json` holds the same fields.

    Attributes
    ----------
    settings, versions : dict
        The parameters of the run; the versions of what it ran on.
    fingerprint : str
        The same for the same similarities and preferences, in whatever order they come.
    engine : str
        The engine that ran: resident, dataframe, or in-process, where small data did not need Spark. "none" for
        degenerate input, which is answered without iterating.
    n_points, n_edges, n_clusters : int
        Points, stored pairs of different points, clusters.
    converged : bool
    ending : {"converged", "settled", "stopped"}
        Settled is a run whose exemplars stand still but for a few; a stopped one has done all its iterations.
    n_iter : int
        Iterations done.
    unsettled : int
        Points that had become or ceased to be exemplars within their window when the run ended; 0 where it converged.
    dpsim, expref, netsim : float
        Sum of the similarities of points to their exemplars, of the exemplars' preferences, and of both.
    preference : float or None
        The preference of all points; None if they differ.
    upper_bound : float or None
        No clustering of this graph at this preference has a larger net similarity; with a number of clusters asked for,
        none with so many. None where it was not computed.
    gap : float or None
        ``(upper_bound - netsim) / |netsim|``: how far this clustering can be from the best, at most. 0 is proved best.
        None where there is no bound, or netsim is 0.
    promoted : int
        Points made exemplars because they store no edge to one, before polishing; 0 where the run converged.
    seconds : dict
        By stage.
    tried : list of dict
        With a number of clusters asked for, each preference that was tried, the number of clusters it gave (see
        `preference_search.Trial`), and whether that run converged, was at rest, or was ended early. The best is run
        once more where its result is not at hand.
    neighbors : dict or None
        Where nearest neighbours were searched: how many a point, by which search, and its recall on a sample.
    scaling : dict or None
        Where features were scaled: for each of them what was subtracted (``shift``), and by what the rest was divided
        (``width``).
    levels : list of dict
        Where clusters were clustered again, each level (see `levels.Climb`). Then n_edges, n_iter and unsettled are
        those of the first level, and no bound is known.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    fingerprint: str
    engine: str
    n_points: int
    n_edges: int
    n_clusters: int
    converged: bool
    ending: Ending
    n_iter: int
    unsettled: int
    dpsim: float
    expref: float
    netsim: float
    preference: float | None
    promoted: int
    seconds: dict[str, float]
    upper_bound: float | None = None
    gap: float | None = None
    tried: list[dict[str, Any]] = field(default_factory=list)
    neighbors: dict[str, Any] | None = None
    scaling: dict[str, list[float]] | None = None
    levels: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the run in a few lines, for a person."""
        after = f"after {self.n_iter:,} iterations"
        if self.ending == "settled":
            state = f"settled {after} but for {self.unsettled + self.promoted:,} of {self.n_points:,} points"
        else:
            state = f"{'converged' if self.converged else 'NOT converged'} {after}"
        engine = _ENGINES.get(self.engine, f"{self.engine} engine")
        lines = [
            f"{self.n_points:,} points, {self.n_edges:,} similarities: {self.n_clusters:,} clusters",
            f"{state} ({engine})",
            f"net similarity {self.netsim:.6g} = similarities to exemplars {self.dpsim:.6g} "
            f"+ preferences {self.expref:.6g}",
        ]
        if self.upper_bound is not None:
            lines.append(self._format_bound())
        preference = (
            "preference: each point its own" if self.preference is None else f"preference {self.preference:.6g}"
        )
        lines.insert(1, preference + (f", the best of {len(self.tried)} tried" if len(self.tried) > 1 else ""))
        if self.levels:
            numbers = [self.n_points, *(level["n_clusters"] for level in self.levels)]
            ending = f": at last {self.n_clusters:,}" if numbers[-1] != self.n_clusters else ""
            lines.insert(1, f"levels: {' → '.join(f'{number:,}' for number in numbers)}{ending}")
            lines.append("no bound is known across levels: the best possible may use pairs that no level stores")
        if self.neighbors:
            lines.insert(1, format_neighbors(self.neighbors))
        if self.promoted:
            polished = ", before polishing" if self.settings.get("polish") else ""
            lines.append(
                f"{self.promoted:,} points were made exemplars{polished}, since they are similar to no exemplar"
            )
        return "\n".join(lines)

    def _format_bound(self) -> str:
        """Say how good the clustering is."""
        assert self.upper_bound is not None
        with_so_many = " with so many clusters" if self.settings.get("clusters") is not None else ""
        if self.upper_bound == self.netsim:
            return f"proved best: no clustering of this graph{with_so_many} has a larger net similarity"
        if self.gap is None or self.gap >= 1.0:
            return f"the best possible{with_so_many} is at most {format_rounded_up(self.upper_bound, 6)}"
        gap, best = format_rounded_up(100.0 * self.gap, 2), format_rounded_up(self.upper_bound, 6)
        share = f"within {gap} % of the best possible{with_so_many} (at most {best})"
        return (
            share if self.gap <= _LARGE_GAP else f"{share}; a gap like this often is the graph's, not the clustering's"
        )


@dataclass(frozen=True, repr=False, eq=False)
class Clustering:
    """The result of a run.

    Its tables are of Spark or of pandas, as the points were; inside the package, those of a run in this process are of
    Arrow. Those of Spark live as long as the session: `save` keeps them.

    Attributes
    ----------
    assignments : DataFrame
        (id, exemplar, label, similarity), a row for each point. Labels 0..K-1 follow the exemplars' ids in order; the
        similarity of an exemplar to itself is null. No rows when there is no exemplar.
    exemplars : DataFrame
        (label, exemplar, size, preference, mean_similarity), a row for each cluster.
    trace : DataFrame
        (iteration, exemplars, changed, unsettled, seconds), a row for each iteration.
    summary : Summary
    discard_snapshots : callable
        With a checkpoint: deletes the run's snapshots, once the result is in a safe place.
    loaded_from : str, optional
        The directory that the tables are read from, for a result that was loaded.
    exemplar_features : DataFrame, optional
        Of points: (label, exemplar, features), a row for each cluster, with the features as they were given. They are
        read from the points when they are used; `save` keeps them too.
    similarity : Similarity, optional
        Of points: how they were compared. None for a result that was loaded, if its metric was a function.
    quality : DataFrame, optional
        (step, kind, netsim, upper_bound), a row for the exemplars to begin with ("start"), and for each round of
        polishing ("polish"), pass of the bound ("bound") and proof ("proof") after it.
    levels : DataFrame, optional
        Where clusters were clustered again: (level, id, exemplar), of all points at level 0, and above it of the
        exemplars of the level below.
    tree : DataFrame, optional
        Where clusters were clustered again and there are at most 1,000: (join, left, right, height, size), a row for
        each join of two clusters. See `linkage`.
    points : DataFrame of Spark or pandas, or array, optional
        The points as they were given, for pictures; `save` does not keep them.
    """

    assignments: Any
    exemplars: Any
    trace: Any
    summary: Summary
    discard_snapshots: Callable[[], None] = lambda: None
    loaded_from: str | None = None
    exemplar_features: Any = None
    similarity: Similarity | None = None
    quality: Any = None
    levels: Any = None
    tree: Any = None
    points: Any = None

    @property
    def converged(self) -> bool:
        """Whether the exemplars stood still for ``convergence_iter`` iterations, and every point had one."""
        return self.summary.converged

    @property
    def n_iter(self) -> int:
        """The number of iterations done."""
        return self.summary.n_iter

    def __repr__(self) -> str:
        tables = [f"  .{name}: {', '.join(table.columns)}" for name, table in self.tables.items()]
        numbers = "  .summary: n_points, n_clusters, n_iter, netsim, preference, seconds and more"
        return "\n".join(["Clustering", *(f"  {line}" for line in str(self.summary).splitlines()), *tables, numbers])

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the run in a few lines, and the largest clusters."""
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in str(self.summary).splitlines())
        head = "<tr><th>exemplar</th><th>size</th><th>mean similarity</th></tr>"
        rows = "".join(
            f"<tr><td>{html.escape(printable(str(exemplar)))}</td><td>{size:,}</td>"
            f"<td>{'' if mean is None or mean != mean else format(mean, '.6g')}</td></tr>"
            for exemplar, size, mean in self.largest(_LARGEST)
        )
        shown = min(_LARGEST, self.summary.n_clusters)
        caption = f"<caption>the largest {shown:,} of {self.summary.n_clusters:,} clusters</caption>"
        table = f"<table>{caption}{head}{rows}</table>"
        return f"<div>{lines}{table if shown else ''}</div>"

    def largest(self, count: int = _LARGEST) -> list[tuple[Any, int, float | None]]:
        """Return the exemplar, the size and the mean similarity of the largest clusters.

        Examples
        --------
        >>> from ap_spark import cluster_points
        >>> cluster_points(np.array([[1.0], [2.0], [3.0], [8.0]]), preference=-9.0).largest()
        [(1, 3, -1.0), (3, 1, None)]
        """
        table = self.exemplars
        if isinstance(table, DataFrame):
            rows = table.orderBy(F.desc("size"), "label").limit(count).toArrow().to_pylist()
        else:
            rows = pa.Table.from_pandas(
                table.sort_values(["size", "label"], ascending=[False, True]).head(count)
            ).to_pylist()
        return [(row["exemplar"], row["size"], row["mean_similarity"]) for row in rows]

    def to_pandas(self) -> Clustering:
        """Return the same result with its tables as those of pandas."""
        if isinstance(self.assignments, pa.Table):
            of_arrow = self.tables | ({} if self.quality is None else {"quality": self.quality})
            made: dict[str, Any] = {name: in_pandas(table) for name, table in of_arrow.items()}
            return replace(self, **made)
        if not isinstance(self.assignments, DataFrame):
            return self
        assignments, exemplars, trace = (
            table.orderBy(table.columns[0]).toArrow().to_pandas() for table in self.tables.values()
        )
        others: dict[str, Any] = {
            name: table if table is None else table.orderBy(*order).toArrow().to_pandas()
            for name, table, order in (
                (_FEATURES, self.exemplar_features, ["label"]),
                ("quality", self.quality, ["step"]),
                ("levels", self.levels, ["level", "id"]),
                ("tree", self.tree, ["join"]),
            )
        }
        return replace(self, assignments=assignments, exemplars=exemplars, trace=trace, **others)

    def linkage(self) -> NDArray[np.float64]:
        """Return the joins of clusters, for ``scipy.cluster.hierarchy.dendrogram``.

        Clusters are joined two by two, those first that lose the least similarity by sharing one exemplar, as
        R's aggExCluster does with exemplars (Bodenhofer, Kothmeier & Hochreiter, Bioinformatics 27, 2011).

        Returns
        -------
        float64, shape (K - 1, 4)
            As SciPy has it: the numbers of two clusters, the height of their join, and the number of exemplars under
            it. Clusters 0..K-1 are the labels. The height is the similarity lost by the join or by one below it, the
            largest of these.

        Raises
        ------
        InputError
            If the result has no tree: it has one level, more than 1,000 clusters, or is one of given similarities.
        """
        if self.tree is None:
            raise InputError(
                "there is a tree where clusters of points were clustered again (levels) and are at most 1,000; this "
                f"result has {format_count(len(self.summary.levels) or 1, 'level')} and "
                f"{format_count(self.summary.n_clusters, 'cluster')}, of "
                f"{'points' if self.exemplar_features is not None else 'given similarities'}"
            )
        tree = self.to_pandas().tree
        return np.asarray(tree[["left", "right", "height", "size"]], np.float64)

    def in_order_of(self, points: Any) -> Clustering:
        """Return the same result, in tables of pandas, with the assignments in the order of the points.

        Parameters
        ----------
        points : DataFrame of pandas, or array of shape (n_points, n_features)
        """
        return replace(self, assignments=in_order_of(points, self.assignments))

    def __reduce__(self) -> Any:
        if not isinstance(self.assignments, DataFrame):
            names = [declared.name for declared in fields(self) if declared.name not in ("discard_snapshots", "points")]
            kept = {name: getattr(self, name) for name in names}
            if self.similarity is not None and not isinstance(self.similarity.metric, str):
                kept["similarity"] = None  # a function, as in `load`
            return _unpickled, (kept,)
        raise TypeError(
            "a Clustering holds tables of a Spark session and cannot be pickled: clustering.save(DIR) keeps it, and "
            "Clustering.load(DIR) reads it again; to pandas, clustering.assignments.toPandas()"
        )

    @cached_property
    def plot(self) -> Plot:
        """Pictures of the result; see `ap_spark.report.plot.Plot`. They need Matplotlib (the extra ``[report]``)."""
        with packages_of_report():
            from ap_spark.report.plot import Plot

        return Plot(self)

    def report(
        self,
        path: str | PathLike[str],
        points: Any = None,
        *,
        rows: Any = None,
        title: str = "Clusters",
        image_shape: tuple[int, int] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a page of the result, report.html, which opens without a network, and its pictures as SVG and PNG.

        Parameters
        ----------
        path : str
            A directory of this machine; it appears whole or not at all.
        points : DataFrame of Spark or pandas, or array, optional
            Those of the run; by default the ones that the result was made of, if it was not loaded.
        rows : DataFrame of Spark or pandas, optional
            What is shown beside the members of the largest clusters: whatever columns, by the column ``id`` or the
            index of pandas. A column of bytes holds an image (PNG, JPEG or GIF).
        title : str
        image_shape : (int, int), optional
            Height and width: the features, as they were given, are grey values of an image, row by row, and are shown
            as such.
        overwrite : bool
            Replace a report that is there.

        Raises
        ------
        InputError
            If points or rows are not those of the result, or the features do not make such an image.
        OutputError
            If there is something already, or the directory cannot be written.
        SettingError
            If the shape is no two whole numbers, or a package is missing (the extra ``[report]``).

        Examples
        --------
        >>> import os, tempfile
        >>> from ap_spark import cluster_points
        >>> clustering = cluster_points(np.array([[1.0, 2.0], [1.5, 2.5], [8.0, 9.0]]), preference=-9.0)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     clustering.report(f"{directory}/report")
        ...     "report.html" in os.listdir(f"{directory}/report")
        True
        """
        with packages_of_report():
            from ap_spark.report.page import files_of, write
        from ap_spark.report.content import gather

        images = None if image_shape is None else "x".join(map(str, np.atleast_1d(image_shape).tolist()))
        shape = Pictures(images=images).image_shape
        write(files_of(gather(self, points, rows), title=title, image_shape=shape), path, overwrite=overwrite)

    @property
    def tables(self) -> dict[str, Any]:
        """The three tables by name."""
        return {"assignments": self.assignments, "exemplars": self.exemplars, "trace": self.trace}

    def save(
        self, path: str | PathLike[str], *, format: OutputFormat = Output.output_format, overwrite: bool = False
    ) -> None:
        """Write the result to a directory, as ``ap-spark cluster --output`` does.

        Parameters
        ----------
        path : str
            A directory anywhere Spark can write; it appears whole or not at all.
        format : {"parquet", "csv", "tsv", "json"}
        overwrite : bool
            Replace an output that is there.

        Raises
        ------
        OutputError
            If there is one and it may not be replaced, or the directory cannot be written.
        SettingError
            If the format is none of the four, or the session is one of Spark Connect.

        Examples
        --------
        >>> import tempfile
        >>> from ap_spark import affinity_propagation
        >>> similarities = spark.createDataFrame([(0, 1, -1.0), (1, 0, -1.0)], "i int, k int, s double")
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     affinity_propagation(similarities, preference=-3.0).save(f"{directory}/pair", format="csv")
        ...     Clustering.load(f"{directory}/pair").summary.n_clusters
        1
        """
        output = Output(output=fspath(path), output_format=format, overwrite=overwrite)
        spark = current_session()
        _refuse_connect(spark)
        read = places_read(spark, {"the directory that the result was loaded from": self.loaded_from})
        with claimed(spark, output.output, output.if_exists, read) as directory:
            assignments, exemplars, trace = (to_spark(table, name) for name, table in self.tables.items())
            whole = replace(self, assignments=assignments, exemplars=exemplars, trace=trace)
            others: dict[str, Any] = {name: getattr(self, name) for name in (_FEATURES, *OPTIONAL)}
            others = {name: to_spark(table, name) for name, table in others.items() if table is not None}
            whole = replace(whole, **others)
            publish(whole, directory, output.output_format)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Clustering:
        """Read a result that `save` or the command has written.

        Parameters
        ----------
        path : str
            The directory.

        Returns
        -------
        Clustering

        Raises
        ------
        InputError
            If that is no whole output of ``ap-spark cluster`` or `save`, or was written before there was `load`.
        SettingError
            If the session is one of Spark Connect.
        """
        spark = current_session()
        _refuse_connect(spark)
        path = fspath(path)
        summary = _read_summary(spark, path)
        if summary is None:
            raise InputError(
                f"{path} must be a whole output of `ap-spark cluster` or of Clustering.save, but it is none, or one "
                "from before results could be loaded"
            )
        names = [declared.name for declared in fields(Summary)]
        assignments, exemplars, trace = (
            read_written(spark, path, name, summary) for name in ("assignments", "exemplars", "trace")
        )
        is_of_points = _FEATURES in summary["tables"]
        others: dict[str, Any] = {
            name: read_written(spark, path, name, summary)
            for name in (_FEATURES, *OPTIONAL)
            if name in summary["tables"]
        }
        summary = {"ending": "converged" if summary["converged"] else "stopped", "unsettled": 0} | summary
        known = {name: summary[name] for name in names if name in summary}
        similarity = _similarity_of(summary["settings"]) if is_of_points else None
        return cls(
            assignments,
            exemplars,
            trace,
            Summary(**known),
            loaded_from=path,
            similarity=similarity,
            **others,
        )


def _similarity_of(settings: dict[str, Any]) -> Similarity | None:
    """Return how the points of a run were compared, by its settings; None if that was by a function."""
    if settings["metric"] not in get_args(MetricName):
        return None
    return Similarity(**{declared.name: settings[declared.name] for declared in fields(Similarity)})


def _unpickled(kept: dict[str, Any]) -> Clustering:
    """Return the result with these attributes."""
    return Clustering(**kept)


def _read_summary(spark: SparkSession, path: str) -> dict[str, Any] | None:
    """Return the summary of a whole output that has all that is needed to load it; None if there is no such output."""
    try:
        store = Store(spark, path)
        summary = json.loads(store.read_text(SUMMARY) or "null")
    except (OSError, ValueError):  # a path that leads nowhere, or a file that is no JSON
        return None
    if not isinstance(summary, dict) or not {"fingerprint", "tables", "single_file"} <= summary.keys():
        return None
    return summary if store.exists(SUCCESS) else None


def publish(
    clustering: Clustering,
    directory: OutputDirectory,
    output_format: OutputFormat,
    *,
    single_file: bool = False,
    rows: DataFrame | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Publish a result in a directory that has been claimed for it.

    ``rows`` has (id, row), the order of the input, for the outputs that have a line for each point and no ids;
    ``files`` are those of a report.
    """
    summary = clustering.summary
    counts = {"assignments": summary.n_points, "exemplars": summary.n_clusters, "trace": summary.n_iter}
    tables = {name: (table, counts[name]) for name, table in clustering.tables.items()}
    if clustering.exemplar_features is not None:
        tables[_FEATURES] = (clustering.exemplar_features, summary.n_clusters)
    if clustering.quality is not None:
        tables["quality"] = (clustering.quality, 1)  # some hundred rows: one file
    if clustering.levels is not None:
        tables["levels"] = (clustering.levels, summary.n_points + sum(level["n_items"] for level in summary.levels[1:]))
    if clustering.tree is not None:
        tables["tree"] = (clustering.tree, summary.n_clusters)
    directory.publish(
        tables,
        output_format,
        asdict(summary) | {"seconds": summary.seconds},  # to which the writer adds its own
        single_file=single_file,
        numbers=_numbers(clustering, rows),
        files=files,
    )


def _numbers(clustering: Clustering, rows: DataFrame | None) -> DataFrame:
    """Return (label, is_exemplar) of all points in the order of the rows, else of the ids; -1 without exemplars."""
    assignments: DataFrame = clustering.assignments
    if not clustering.summary.n_clusters:
        none = F.lit(-1).cast("bigint").alias("label"), F.lit(False).alias("is_exemplar")
        return assignments.sparkSession.range(clustering.summary.n_points).select(*none)
    ordered = assignments.orderBy("id") if rows is None else assignments.join(rows, "id").orderBy("row")
    return ordered.select("label", (F.col("id") == F.col("exemplar")).alias("is_exemplar"))


def _refuse_connect(spark: SparkSession) -> None:
    """Raise SettingError on Spark Connect, which has no access to Hadoop's file systems."""
    if classic.is_connect(spark):
        raise SettingError(
            "results are saved and loaded on classic Spark: on Spark Connect write the tables themselves, such as "
            "clustering.assignments.write.parquet(DIR)"
        )
