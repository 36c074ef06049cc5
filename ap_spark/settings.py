"""Every parameter, declared once: name, type, default, rule, help.

The command line (`cli.py`), the checks behind the Python functions and `docs/settings.md` are all made from the
dataclasses below. A boolean whose default is True is offered on the command line as ``--no-NAME``.
"""

from __future__ import annotations

import inspect
import math
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ap_spark.damping import DAMPINGS, window_of
from ap_spark.errors import SettingError
from ap_spark.wording import did_you_mean

__all__ = [
    "GROUPS",
    "MIN_INTERVAL_FACTOR",
    "Animation",
    "Checked",
    "EngineName",
    "Execution",
    "GraphOutput",
    "Input",
    "Levels",
    "MetricName",
    "NewPoints",
    "OnDuplicate",
    "Output",
    "OutputFormat",
    "PairFunction",
    "Pictures",
    "PointsInput",
    "Report",
    "ReportOutput",
    "Run",
    "Scale",
    "Search",
    "Settings",
    "Similarity",
    "Snapshots",
    "Sparsification",
    "Symmetrize",
    "TablesOutput",
    "What",
    "as_float",
    "check_values",
    "choice_meant",
    "is_required",
    "markdown",
    "option",
    "parameters",
]

OnDuplicate = Literal["error", "max", "min", "mean"]
Symmetrize = Literal["none", "union", "mutual"]
EngineName = Literal["auto", "resident", "dataframe"]
Scale = Literal["none", "standard", "minmax"]
MetricName = Literal["sqeuclidean", "euclidean", "manhattan", "cosine", "correlation", "gaussian", "dot"]
Search = Literal["auto", "exact", "approximate"]
What = Literal["messages", "preference", "damping", "levels"]
OutputFormat = Literal["parquet", "csv", "tsv", "json"]
_Record = TypeVar("_Record", bound="Checked")
PairFunction = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def _parameter(
    default: Any,
    help: str,
    *,
    rule: str = "",
    holds: Callable[[Any], bool] = lambda value: True,
    choices: tuple[str, ...] = (),
    short: str = "",
    metavar: str = "",
    none: str = "",
    most: int = 2**31 - 1,
    or_function: bool = False,
    elsewhere: dict[str, str] | None = None,
) -> Any:
    """Declare one parameter: its default, its help, the rule its value has to keep, and a word for None.

    Whole numbers are at most ``most``. With ``or_function`` Python may give a function instead. ``elsewhere`` has what
    other programs call some of the choices.
    """
    if choices:
        rule = "one of " + ", ".join(choices) + (", or a function of two arrays" if or_function else "")
    about = {"help": help, "rule": rule, "holds": holds, "choices": choices}
    about |= {"short": short, "metavar": metavar, "none": none, "most": most, "or_function": or_function}
    about["elsewhere"] = elsewhere or {}
    if isinstance(default, list):
        return field(default_factory=list, metadata=about)
    return field(default=default, metadata=about)


def _is_directory_path(path: str) -> bool:
    """Return whether a path can name a new directory. Hadoop takes a colon in the last part for a scheme."""
    name = path.rstrip("/").rpartition("/")[2]
    return bool(path.strip()) and ":" not in name and not path.startswith("//")


_PREFERENCES = ("preference", "preference_quantile", "clusters", "cluster_size")  # one of them says it
_DIRECTORY = "the path of a directory, without ':' in its last part or a second '/' at its beginning"
_SHAPE = re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}")
_INTERVAL = re.compile(r"\d+|\d+(\.\d+)?min")
MIN_INTERVAL_FACTOR = 12  # by the clock, a snapshot waits at least so many times what the last one took


def _directory(default: Any, help: str) -> Any:
    """Declare a parameter that is the path of a directory."""
    return _parameter(default, help, metavar="DIR", rule=_DIRECTORY, holds=_is_directory_path)


def _positive(value: int) -> bool:
    return value >= 1


def _is_encoding(name: str) -> bool:
    """Return whether there is a text encoding of this name."""
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A record of parameters that are checked when it is made."""

    def __post_init__(self) -> None:
        for declared, kind in parameters(type(self)):
            object.__setattr__(self, declared.name, _check(declared, kind, getattr(self, declared.name)))


_type_hints: Callable[[type], dict[str, Any]] = cache(typing.get_type_hints)


def parameters(of: type[Checked]) -> Iterator[tuple[Field[Any], type]]:
    """Yield the parameters of one record, in order, each with its plain type: no ``None``, str for a choice."""
    hints = _type_hints(of)
    for declared in fields(of):
        kind = hints[declared.name]
        if typing.get_origin(kind) in (typing.Union, UnionType):
            kind = next(one for one in typing.get_args(kind) if one is not type(None))
        yield declared, str if typing.get_origin(kind) is Literal else kind


def _documented(record: type[_Record]) -> type[_Record]:
    """Add the parameters of a public record to its docstring, in the words of the command's help.

    The help of ``--no-NAME`` says what the option does, which in Python is what False does.
    """
    summary, _, rest = inspect.cleandoc(record.__doc__ or "").partition("\n\n")
    lines = ["Attributes", "----------"]
    for declared, kind in parameters(record):
        about = declared.metadata
        rule = f" ({about['rule']})" if about["rule"] else ""
        meaning = f"False: {about['help']}" if declared.default is True else about["help"]
        text = textwrap.fill(meaning + rule, 112, initial_indent="    ", subsequent_indent="    ")
        lines += [f"{declared.name} : {kind.__name__}", text]
    record.__doc__ = "\n\n".join(filter(None, (summary, "\n".join(lines), rest)))
    return record


@dataclass(frozen=True, kw_only=True)
class _MessagePassing(Checked):
    """The parameters that decide the numbers, given the similarities."""

    preference: float | None = _parameter(
        None,
        "preference of every point: the larger, the more clusters (default: the median similarity)",
        short="p",
        rule="a finite number",
        holds=math.isfinite,
    )
    preference_quantile: float | None = _parameter(
        None,
        "take this quantile of the similarities as the preference; 0 is their minimum and gives few clusters",
        rule="in [0, 1]",
        holds=lambda q: 0 <= q <= 1,
    )
    clusters: int | None = _parameter(
        None,
        "search for the preference that gives K clusters, by clustering up to 20 times",
        metavar="K",
        rule="at least 1",
        holds=_positive,
    )
    cluster_size: float | None = _parameter(
        None,
        "search as for K clusters, with the K that gives clusters this many points on average",
        metavar="N",
        rule="a finite number of at least 1",
        holds=lambda size: 1 <= size < math.inf,
    )
    damping: float | None = _parameter(
        None,
        "a fixed damping, the share of the old message kept in an iteration (default: a damping of its own for each "
        "point, from 0.5, raised where exemplars keep changing)",
        short="d",
        rule="in [0.5, 1)",
        holds=lambda damping: 0.5 <= damping < 1,
    )
    max_iter: int = _parameter(500, "iterations at most", short="i", rule="at least 1", holds=_positive)
    convergence_iter: int | None = _parameter(
        None,
        "iterations for which a point must not become or cease to be an exemplar (default: the larger of 15 and "
        "5 / (1 - damping), which outlasts the damping: 15 at 0.5, 100 at 0.95)",
        short="c",
        rule="at least 1",
        holds=_positive,
    )
    jitter: bool = _parameter(
        True, "leave exact ties as they are, instead of changing each similarity by a seeded 1e-10 of itself"
    )
    seed: int = _parameter(
        0,
        "seed of the jitter",
        rule="a 64-bit integer",
        holds=lambda seed: -(2**63) <= seed < 2**63,
        most=2**63 - 1,
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Quality(Checked):
    """What is done about the exemplars after the iterations, and how far.

    Raises
    ------
    SettingError
        If a value breaks its rule.

    Examples
    --------
    >>> Quality(gap=0.01).polish
    True
    """

    polish: bool = _parameter(
        True, "take the exemplars as the messages name them, without opening, closing and swapping some for better ones"
    )
    gap: float | None = _parameter(
        0.001,
        "bound what any clustering could reach, until this one is known to be within this share of the best; none: no "
        "bound",
        rule="at least 0",
        holds=lambda gap: 0 <= gap < math.inf,
        none="none",
    )
    exact: bool = _parameter(
        False,
        "give what the bound leaves open to a solver that finds and proves the best clustering, for up to five minutes "
        "(small problems are solved by themselves)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exact and (not self.polish or self.gap is None):
            raise SettingError("exact needs polishing and a bound: give a gap, and leave polish as it is")


@_documented
@dataclass(frozen=True, kw_only=True)
class Levels(Checked):
    """Whether clusters are clustered again, where they are to be larger than a graph of near neighbours permits.

    Raises
    ------
    SettingError
        If a value breaks its rule.

    Examples
    --------
    >>> Levels(levels="auto").levels is None, Levels(levels=2).levels
    (True, 2)
    """

    levels: int | None = _parameter(
        None,
        "cluster the exemplars again, with the sums of their clusters, on so many levels at most; 1: never; auto: "
        "where the K or the preference asked for wants larger clusters than the stored similarities permit",
        metavar="N|auto",
        rule="at least 1, or auto",
        holds=_positive,
        none="auto",
    )
    missing_similarity: float | None = _parameter(
        None,
        "with similarities that are given: what a pair counts that is not among them, once clusters are clustered; "
        "without it they are not",
        rule="a finite number",
        holds=math.isfinite,
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Sparsification(Checked):
    """Which of the given similarities are stored: pairs given more than once, two cuts, both directions.

    Raises
    ------
    SettingError
        If a value breaks its rule.

    Examples
    --------
    >>> Sparsification(top=50, symmetrize="union").min_similarity is None
    True
    """

    on_duplicate: OnDuplicate = _parameter(
        "error", "what to do with a pair given more than once", choices=typing.get_args(OnDuplicate)
    )
    min_similarity: float | None = _parameter(
        None, "leave out smaller similarities", rule="a finite number", holds=math.isfinite
    )
    top: int | None = _parameter(
        None, "keep only the N largest similarities of each point", metavar="N", rule="at least 1", holds=_positive
    )
    symmetrize: Symmetrize | None = _parameter(
        None,
        "where a similarity is stored in one direction alone: union adds the other one, mutual takes it away, after "
        "--min-similarity and --top (default: union with --neighbors N, else none)",
        choices=typing.get_args(Symmetrize),
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Execution(Checked):
    """How a run is computed. Results are bitwise identical, whatever is chosen here.

    Raises
    ------
    SettingError
        If a value breaks its rule.

    Examples
    --------
    >>> Execution(partitions=0)
    Traceback (most recent call last):
    ap_spark.errors.SettingError: partitions must be at least 1, got 0
    """

    engine: EngineName = _parameter(
        "auto",
        "resident: blocks of rows stay beside the executors; dataframe: joins over the cluster, for Spark Connect; "
        "auto: resident where it can be",
        choices=typing.get_args(EngineName),
    )
    partitions: int | None = _parameter(
        None,
        "blocks of rows (default: resident one up to 10 million edges, else one a core; dataframe one for each million "
        "edges, and for each core)",
        rule="at least 1",
        holds=_positive,
        most=1_000_000,
    )


@dataclass(frozen=True, kw_only=True)
class Settings(Execution, Sparsification, Levels, Quality, _MessagePassing):
    """All parameters of a run on similarities.

    Raises
    ------
    SettingError
        If a value breaks its rule, or more than one of preference, preference quantile and clusters is given.

    Examples
    --------
    >>> Settings(damping=0.8).max_iter
    500
    >>> Settings(damping=1.0)
    Traceback (most recent call last):
    ap_spark.errors.SettingError: damping must be in [0.5, 1), got 1.0
    """

    @property
    def windows(self) -> tuple[int, ...]:
        """Iterations for which exemplars have to stand still, given or by default (docs/semantics.md, section 4).

        One number, or one for each level of damping.

        >>> Settings().windows, Settings(damping=0.9).windows, Settings(convergence_iter=30).windows
        ((15, 15, 25, 100), (50,), (30,))
        """
        if self.convergence_iter is not None:
            return (self.convergence_iter,)
        return tuple(map(window_of, DAMPINGS if self.damping is None else (self.damping,)))

    def with_window(self) -> Self:
        """Return these settings with the window of a fixed damping in ``convergence_iter``."""
        is_known = self.damping is None or self.convergence_iter is not None
        return self if is_known else replace(self, convergence_iter=self.windows[0])

    def of_points(self, similarity: Similarity) -> Self:
        """Return these settings for similarities of points: those to neighbours count both ways, unless it is said."""
        both_ways = similarity.neighbors is not None and self.symmetrize is None
        return replace(self, symmetrize="union") if both_ways else self

    @property
    def has_preference(self) -> bool:
        """Whether a preference, a quantile of the similarities, a number of clusters or their size is given."""
        return any(getattr(self, name) is not None for name in _PREFERENCES)

    def with_clusters(self, n_points: int) -> Self:
        """Return these settings with a number of clusters in place of their size."""
        assert self.cluster_size is not None
        return replace(self, cluster_size=None, clusters=max(1, round(n_points / self.cluster_size)))

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = [name for name in _PREFERENCES if getattr(self, name) is not None]
        if len(ways) > 1:
            raise SettingError(f"give either {' or '.join(ways)}, not both")


@dataclass(frozen=True, kw_only=True)
class PointsInput(Checked):
    """The parameters that say how a file of points is read."""

    format: str = _parameter(
        "auto",
        "format of INPUT; auto goes by the names of the files (.txt: tsv if its first line has a tab, else csv)",
        choices=("auto", "csv", "tsv", "parquet", "json", "orc"),
        elsewhere={"jsonl": "json", "ndjson": "json", "tab": "tsv", "txt": "tsv"},
    )
    encoding: str = _parameter(
        "utf-8",
        "of csv and tsv files, such as windows-1252 or utf-16; others than UTF-8 are read whole, each file in one task",
        rule="an encoding that Python knows",
        holds=_is_encoding,
        metavar="NAME",
    )
    header: bool | None = _parameter(
        None,
        "whether the first line of csv and tsv files names the columns; with --no-header they are named by their "
        "positions, from 0 (default: it does, and one that looks like a row of numbers is refused)",
    )
    id_column: str | None = _parameter(
        None,
        "column with the points' ids, by name or position; '' numbers the rows, from 0 (default: the column called id; "
        "without one, rows are numbered)",
        metavar="COLUMN",
    )
    feature_columns: str | None = _parameter(
        None,
        "columns with the features: names or positions counted from 0, such as 'x,y' or '0-3,7', or one array or "
        "vector column (default: the only array or vector column, else all but the id and the preference)",
        metavar="COLUMNS",
    )
    drop_missing: bool = _parameter(False, "leave out points with missing features, which are an error otherwise")


@dataclass(frozen=True, kw_only=True)
class _Edges(Checked):
    """The parameters that say whether a file holds similarities."""

    edges: bool = _parameter(False, "INPUT holds similarities (columns i, k, s), not points")
    points: str | None = _parameter(
        None,
        "with --edges: a table of all points (its id column, and the preference column if one is named)",
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class Input(PointsInput, _Edges):
    """The parameters that say how a file of points or of similarities is read."""

    preference_column: str | None = _parameter(
        None, "column with each point's own preference, by name or position", metavar="COLUMN"
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Similarity(Checked):
    """The parameters that turn points into similarities."""

    scale: Scale = _parameter(
        "none",
        "standard: features get mean 0 and standard deviation 1; minmax: they reach from 0 to 1",
        choices=typing.get_args(Scale),
        elsewhere={"zscore": "standard", "z-score": "standard", "std": "standard", "range": "minmax"},
    )
    metric: MetricName | PairFunction = _parameter(
        "sqeuclidean",
        "similarity of two points: minus a distance (sqeuclidean is its square), or how much they agree",
        choices=typing.get_args(MetricName),
        or_function=True,
        elsewhere={
            "l2": "euclidean",
            "squared": "sqeuclidean",
            "l1": "manhattan",
            "cityblock": "manhattan",
            "rbf": "gaussian",
            "pearson": "correlation",
            "angular": "cosine",
            "ip": "dot",
            "inner_product": "dot",
        },
    )
    width: float | None = _parameter(
        None,
        "of the metric gaussian: similarity is exp(-d² / (2 width²)) at distance d",
        rule="a finite number of at least 1e-145",
        holds=lambda width: 1e-145 <= width < math.inf,  # below, squares of distances that matter vanish
    )
    neighbors: int | None = _parameter(
        None,
        "take each point's similarities to its N nearest neighbours alone, or to all points [all]",
        metavar="N|all",
        rule="at least 1, or all",
        holds=_positive,
        none="all",
    )
    search: Search = _parameter(
        "auto",
        "how neighbours are found; auto is exact while that is cheap: up to 200,000 points in 16 dimensions",
        choices=typing.get_args(Search),
        elsewhere={"ann": "approximate", "ivf": "approximate", "faiss": "approximate", "brute": "exact"},
    )
    recall: float = _parameter(
        0.98,
        "share of the true neighbours that an approximate search has to find",
        rule="in (0, 1]",
        holds=lambda recall: 0 < recall <= 1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.metric == "gaussian") != (self.width is not None):
            needed = self.width is None
            rule = (
                "metric gaussian needs a width"
                if needed
                else f"width belongs to metric gaussian, not to {self.metric!r}"
            )
            raise SettingError(f"{rule}: s = exp(-d² / (2 width²)) for points at distance d")


@dataclass(frozen=True, kw_only=True)
class GraphOutput(Checked):
    """The parameters that say whether the graph is written."""

    output: str | None = _directory(
        None,
        "directory to write the similarities to; it appears whole or not at all",
    )
    output_format: OutputFormat = _parameter(
        "parquet",
        "format of the tables",
        choices=typing.get_args(OutputFormat),
        elsewhere={"jsonl": "json", "ndjson": "json", "tab": "tsv", "txt": "tsv"},
    )
    single_file: bool = _parameter(
        False, "write each table as one file, such as assignments.csv, instead of a directory of files"
    )
    if_exists: str = _parameter(
        "refuse",
        "what to do with an existing output: refuse to run, replace it once the new one is complete, or skip: leave it "
        "so and exit with 0, for schedulers that try again",
        choices=("refuse", "replace", "skip"),
        elsewhere={"error": "refuse", "fail": "refuse", "overwrite": "replace", "ignore": "skip"},
    )
    overwrite: bool = _parameter(False, "the same as --if-exists replace; only an output of ap-spark is replaced")
    dry_run: bool = _parameter(
        False,
        "read and check the input, and say what would run, how large it would be and how long it would take about; "
        "nothing is computed and nothing written",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overwrite and self.if_exists == "skip":
            raise SettingError("give either --overwrite or --if-exists skip, not both")
        if self.overwrite:
            object.__setattr__(self, "if_exists", "replace")


@dataclass(frozen=True, kw_only=True)
class TablesOutput(GraphOutput):
    """The parameters that say how tables are written."""

    output: str = _directory(
        MISSING,
        "directory to write; it appears whole or not at all",
    )


@dataclass(frozen=True, kw_only=True)
class Output(TablesOutput):
    """The parameters that say what is written of a clustering."""

    require_convergence: bool = _parameter(
        False, "write nothing and exit with 3 when the run has not converged; one that has only settled has not"
    )


@_documented
@dataclass(frozen=True, kw_only=True)
class Snapshots(Checked):
    """Where and how often snapshots are taken, so that a run can be resumed after a crash.

    Examples
    --------
    >>> Snapshots(checkpoint_every="50").interval, Snapshots(checkpoint_every="0.5min").interval
    ((50, inf), (None, 30.0))
    """

    checkpoint: str | None = _directory(
        None,
        "directory for snapshots, anywhere Spark can write: the same command resumes from the newest; once the output "
        "is published they are deleted, and the directory stays",
    )
    checkpoint_every: str = _parameter(
        "10min",
        f"time between two snapshots (at least {MIN_INTERVAL_FACTOR} times what one takes), or how many iterations",
        rule="a number of iterations such as 50, or of minutes such as 10min",
        holds=lambda every: _INTERVAL.fullmatch(every) is not None and float(every.removesuffix("min")) > 0,
        metavar="N|Nmin",
    )
    resume: bool = _parameter(True, "start again from the beginning, and delete the snapshots of before")

    @property
    def interval(self) -> tuple[int | None, float]:
        """Iterations between two snapshots, if any, and seconds."""
        if self.checkpoint_every.endswith("min"):
            return None, 60.0 * float(self.checkpoint_every.removesuffix("min"))
        return int(self.checkpoint_every), math.inf


@dataclass(frozen=True, kw_only=True)
class NewPoints(Checked):
    """The parameters that say how new points are assigned to the exemplars of a result."""

    min_similarity: float | None = _parameter(
        None,
        "leave points unassigned that are less similar to their nearest exemplar",
        rule="a finite number",
        holds=math.isfinite,
    )
    stream: bool = _parameter(
        False, "INPUT is a directory: assign the points of each file that arrives there, until the command is stopped"
    )
    checkpoint: str | None = _directory(
        None,
        "with --stream: directory for what is done; the same command goes on from there",
    )
    every: float = _parameter(
        10.0,
        "with --stream: seconds from one look for new files to the next",
        rule="a finite number of at least 0",
        holds=lambda seconds: 0 <= seconds < math.inf,
        metavar="SECONDS",
    )
    once: bool = _parameter(False, "with --stream: assign what is there, and end")


@dataclass(frozen=True, kw_only=True)
class ReportOutput(Checked):
    """The parameters that say where a report is written."""

    output: str = _directory(
        MISSING,
        "directory to write; it appears whole or not at all",
    )
    overwrite: bool = _parameter(False, "replace an output that is there; only one of ap-spark is replaced")


@dataclass(frozen=True, kw_only=True)
class Pictures(Checked):
    """The parameters that say what a report shows."""

    title: str | None = _parameter(None, "the title of the report (default: the name of the input)", metavar="TEXT")
    images: str | None = _parameter(
        None,
        "features are grey values of an image of so many rows and columns, and are shown as such",
        rule="two whole numbers, such as 28x28",
        holds=lambda shape: _SHAPE.fullmatch(shape) is not None,
        metavar="HxW",
    )

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the images.

        >>> Pictures(images="8x16").image_shape
        (8, 16)
        """
        if self.images is None:
            return None
        height, width = map(int, self.images.split("x"))
        return height, width


@dataclass(frozen=True, kw_only=True)
class Animation(Checked):
    """The parameters that say what a moving picture shows, and where it is written."""

    what: What = _parameter(
        "messages",
        "messages: iteration by iteration, what points choose; preference: clusters at ever smaller ones; damping: "
        "messages at 0.5, 0.7 and 0.9; levels: clusters of clusters. The last frame is the result of the run",
        choices=typing.get_args(What),
    )
    output: str = _parameter(
        MISSING,
        "file to write, .gif or, where ffmpeg is installed, .mp4",
        metavar="FILE",
        rule="the path of a file .gif or .mp4",
        holds=lambda path: path.endswith((".gif", ".mp4")),
    )
    overwrite: bool = _parameter(False, "replace a file that is there")


@dataclass(frozen=True, kw_only=True)
class Report(Pictures):
    """The parameters that say whether a clustering gets a report, and what it shows."""

    report: bool = _parameter(
        False, "also write report.html, a page of the result with pictures that opens without a network"
    )


@dataclass(frozen=True, kw_only=True)
class Run(Checked):
    """The parameters of the command itself, and of the Spark session that it starts."""

    config: str | None = _parameter(
        None,
        "a TOML file with options: their names without dashes in front, such as max-iter = 200, for all commands or in "
        "a table such as [cluster] for one; the command line wins",
        metavar="FILE",
    )
    quiet: bool = _parameter(False, "print nothing but errors and warnings", short="q")
    json: bool = _parameter(False, "print the summary as JSON instead of some lines, to be read by programs")
    verbose: bool = _parameter(False, "log each stage, and the stack of a fault of ours", short="v")
    master: str | None = _parameter(
        None, "Spark master (default: local[*,4], or what spark-submit says)", metavar="URL"
    )
    conf: list[str] = _parameter([], "a Spark setting; can be given again", metavar="KEY=VALUE")
    grace: float = _parameter(
        30.0,
        "from SIGTERM or Ctrl-C to the end at most, whatever hangs; a snapshot that takes longer is given up",
        rule="a finite number above 0",
        holds=lambda seconds: 0 < seconds < math.inf,
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for place, setting in enumerate(self.conf, start=1):
            if "=" not in setting:  # which may be a secret, so it is not repeated
                raise SettingError(f"conf must have the form key=value, got something without '=', as number {place}")


def _check(declared: Field[Any], kind: type, given: Any) -> Any:
    """Return the value as it is used.

    Raises
    ------
    SettingError
        If it does not have the declared type, or breaks the declared rule.
    """
    about = declared.metadata
    if about["none"] and given in (None, about["none"]):  # the word that the command has for None
        return None
    if (given is None and declared.default is None) or (about["or_function"] and callable(given)):
        return given
    value = given
    if kind is float and isinstance(given, Real) and not isinstance(given, bool):
        value = as_float(given)  # a fraction may be rounded to the end of its range; a number of NumPy's is no JSON
    expected = {float: (Real,), int: (Integral,), bool: (bool,), str: (str,)}.get(kind, (list,))
    right_type = isinstance(value, expected) and (kind is bool or not isinstance(value, bool))
    if not right_type or (about["choices"] and value not in about["choices"]) or not about["holds"](value):
        rule = about["rule"] or {bool: "True or False", str: "a string"}.get(kind, "a list")
        kind_given = f", of type {type(given).__name__}" if kind in (int, float) and not right_type else ""
        if kind is int and isinstance(given, float):
            rule = f"a whole number, {rule}"
        meant = choice_meant(declared, given) if isinstance(given, str) else ""
        raise SettingError(f"{declared.name} must be {rule}, got {given!r}{kind_given}{meant}")
    if kind is int and value > about["most"]:
        raise SettingError(f"{declared.name} must be at most {about['most']:,}, got {given!r}")
    return int(value) if kind is int else value


def check_values(of: type[Checked], **given: Any) -> None:
    """Raise SettingError unless these parameters of a record have values that it would take."""
    for declared, kind in parameters(of):
        if declared.name in given:
            _check(declared, kind, given[declared.name])


def choice_meant(declared: Field[Any], given: str) -> str:
    """Return a question that suggests the choice of a parameter that may have been meant; nothing if none is near.

    >>> [choice_meant(declared, "l2") for declared, _ in parameters(Similarity) if declared.name == "metric"]
    [" (did you mean 'euclidean'?)"]
    """
    elsewhere = declared.metadata["elsewhere"]
    return did_you_mean(elsewhere.get(given.strip().lower(), given), declared.metadata["choices"])


def as_float(value: Any) -> float:
    """Return a number as a float; infinity where it is beyond the largest one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def is_required(declared: Field[Any]) -> bool:
    """Return whether a parameter has no default."""
    return declared.default is MISSING and declared.default_factory is MISSING


def option(declared: Field[Any]) -> str:
    """Return the long command-line option of a parameter.

    >>> [option(declared) for declared, _ in parameters(Settings) if declared.name in ("jitter", "seed")]
    ['--no-jitter', '--seed']
    """
    return ("--no-" if declared.default is True else "--") + declared.name.replace("_", "-")


# All parameters in the groups of the command's help and of docs/settings.md, in their order.
GROUPS: dict[str, type[Checked]] = {
    "Input": Input,
    "Similarities of points": Similarity,
    "Clusters": _MessagePassing,
    "Levels": Levels,
    "Quality": Quality,
    "Stored similarities": Sparsification,
    "Output": Output,
    "Report": Report,
    "Snapshots": Snapshots,
    "Run": Run,
    "Engine": Execution,
}


def markdown() -> str:
    """Return the text of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made from `ap_spark/settings.py` by `make docs`. In Python names have no dashes in front, and `_` for `-`.",
        "They are arguments of `cluster_points` and `affinity_propagation`, or fields of the records that these take:",
        "`Similarity`, `Levels`, `Quality`, `Sparsification`, `Snapshots` and `Execution`.",
        "`--no-jitter` is `seed=None`.",
        "",
        "An option is taken from the command line; else from the file of `--config`, from the table of the command",
        "before the top; else the default counts. [operating.md](operating.md) has more on such files.",
    ]
    others = {"New points (`ap-spark assign`)": NewPoints, "Moving pictures (`ap-spark animate`)": Animation}
    for title, group in (GROUPS | others).items():
        lines += ["", f"## {title}", "", "| option | default | rule | meaning |", "|---|---|---|---|"]
        for declared, _ in parameters(group):
            about = declared.metadata
            name = f"`{option(declared)}`" + (f", `-{about['short']}`" if about["short"] else "")
            plain = isinstance(declared.default, (int, float, str)) and not isinstance(declared.default, bool)
            default = f"`{declared.default}`" if plain else "required" if is_required(declared) else ""
            lines.append(f"| {name} | {default} | {about['rule']} | {about['help']} |")
    return "\n".join(lines) + "\n"
