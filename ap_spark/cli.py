"""The ap-spark command. `main` is also what the scripts in jobs/ call."""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from glob import glob
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn
from warnings import catch_warnings

import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.session import start_session
from ap_spark._spark.shortages import shortage
from ap_spark._spark.signals import Interrupts
from ap_spark.checkpoint import Checkpoint, store_of
from ap_spark.clustering import Clustering, check_target, cluster_similarities, what_is_missing
from ap_spark.errors import (
    ApSparkError,
    CheckpointError,
    InputError,
    Interrupted,
    NotConverged,
    SettingError,
    StorageError,
    printable,
    reason,
)
from ap_spark.graph.block_graph import Numbering, number_points
from ap_spark.graph.build import build, engine_of
from ap_spark.graph.describe import describe_graph
from ap_spark.graph.preferences import PreferenceRange
from ap_spark.io.paths import Place, conflict, places_read
from ap_spark.io.readers import points_in, read_points, read_similarities
from ap_spark.io.writer import OutputDirectory, OutputIsThere, claimed
from ap_spark.progress import Progress
from ap_spark.propagation import Watch
from ap_spark.settings import (
    Checked,
    GraphOutput,
    Input,
    Output,
    Run,
    Settings,
    Similarity,
    Snapshots,
    is_required,
    option,
    parameters,
)
from ap_spark.similarity.all_pairs import all_pairs
from ap_spark.similarity.metrics import metric_of
from ap_spark.similarity.neighbors import find_neighbors
from ap_spark.similarity.pairs import Pairs
from ap_spark.similarity.scaling import scale
from ap_spark.version import __version__

__all__ = ["main"]

logger = logging.getLogger(__name__)

SMALL_INPUT = 8_000_000  # bytes
SMALL_NUMBER = 1000  # files

Command = Callable[[argparse.Namespace, Interrupts], None]
Groups = dict[str, type[Checked]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 a fault of ours; 2 bad input or arguments; 3 not converged, under --require-convergence; 4 no room or no
    permission in a local directory, or not enough memory; 129, 130 or 143 stopped by SIGHUP, Ctrl-C or SIGTERM.
    """
    given = make_parser().parse_args(arguments)
    others = logging.WARNING if given.verbose else logging.CRITICAL  # py4j logs the stack of what it raises as well
    logging.basicConfig(format="%(asctime)s ap-spark: %(message)s", datefmt="%H:%M:%S", level=others)
    logging.getLogger("ap_spark").setLevel(logging.DEBUG if given.verbose else logging.WARNING)
    for module in ("progress", "checkpoint"):
        logging.getLogger(f"ap_spark.{module}").setLevel(logging.INFO)
    with Interrupts(lambda: Checkpoint.NONE_KEPT) as interrupts:
        try:
            given.run(given, interrupts)
        except OutputIsThere as there:
            print(there)
        except KeyboardInterrupt:  # a second signal
            return interrupts.exit_code
        except Exception as error:
            message, code = explain(error, interrupts)
            if given.verbose and code == ApSparkError.exit_code:
                traceback.print_exc()
            # Java may be waiting for this line, and end after it.
            print(f"ap-spark: {printable(message)}", file=sys.stderr, flush=True)
            return code
    return 0


def explain(error: Exception, interrupts: Interrupts) -> tuple[str, int]:
    """What to tell of an error, and the exit code."""
    if isinstance(error, Interrupted):
        return str(error), interrupts.exit_code
    if told := shortage(error):
        return told, StorageError.exit_code
    if interrupts.received:  # which has cancelled what was going on
        by = interrupts.received.name
        return f"stopped by {by} outside of the iterations; {interrupts.saved()}", interrupts.exit_code
    if isinstance(error, ApSparkError):
        return str(error), error.exit_code
    who = "Spark failed" if isinstance(error, (PySparkException, Py4JJavaError)) else type(error).__name__
    return f"{who}: {reason(error)} (--verbose shows the stack)", 1


class Parser(argparse.ArgumentParser):
    """Tells of a mistake in a line, as of all others, and not with the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ap-spark: {message} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """The parser, made from the declared parameters."""
    parser = Parser(prog="ap-spark", description="Affinity propagation clustering on Apache Spark.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ap-spark {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about: list[tuple[Command, str, type[GraphOutput]]] = [
        (cluster, "cluster a table of points, or of similarities: exemplars and assignments out", Output),
        (
            graph,
            "describe the similarity graph of a table of points, or of similarities, without clustering",
            GraphOutput,
        ),
    ]
    for run, text, output in about:
        command = commands.add_parser(
            run.__name__, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
        )
        # argparse takes -1e3 for an option, where it takes -1000 for a number; preferences are often negative.
        command._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        command.add_argument("input", metavar="INPUT", help="file or directory, anywhere Spark can read")
        command.set_defaults(run=run)
        groups: Groups = {"algorithm": Settings, "input": Input, "similarities of points": Similarity}
        groups["output"] = output
        if output is Output:
            groups["snapshots"] = Snapshots
        for title, group in (groups | {"run": Run}).items():
            add_options(command.add_argument_group(title), group)
    return parser


def add_options(to: argparse._ArgumentGroup, group: type[Checked]) -> None:
    for declared, kind in parameters(group):
        about = declared.metadata
        names = [option(declared)] + ([f"-{about['short']}"] if about["short"] else [])
        text = about["help"].replace("%", "%%")
        if about["rule"] and not about["choices"]:
            text += f" ({about['rule']})"
        keywords: dict[str, Any] = {"dest": declared.name, "help": text, "default": declared.default}
        if kind is bool:
            keywords["action"] = "store_true"
            if declared.default is True:  # --X is what happens anyhow
                keywords |= {"action": argparse.BooleanOptionalAction, "help": f"{names[0]}: {text}"}
                names[0] = names[0].replace("--no-", "--")
            elif declared.default is None:
                keywords["action"] = argparse.BooleanOptionalAction
        elif kind in (int, float, str):
            keywords |= {
                "type": number_or(about["none"]) if about["none"] else kind,
                "choices": about["choices"] or None,
                "metavar": about["metavar"] or None,
            }
            if isinstance(declared.default, kind):
                keywords["help"] += f" [{declared.default}]"
        else:
            keywords |= {"action": "append", "metavar": about["metavar"], "default": []}
        if is_required(declared):
            keywords |= {"required": True, "default": None}
        to.add_argument(*names, **keywords)


def number_or(none: str) -> Callable[[str], int | None]:
    """A whole number, or None under its own word."""

    def number(text: str) -> int | None:
        return None if text == none else int(text)

    number.__name__ = f"number or {none!r}"  # argparse shows it
    return number


def record(group: type[Checked], given: argparse.Namespace) -> Any:
    """The checked record of one group of options."""
    return group(**{declared.name: getattr(given, declared.name) for declared, _ in parameters(group)})


def cluster(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """The main job: read, cluster, publish, tell."""
    output, snapshots = record(Output, given), record(Snapshots, given)
    with job(given, output, interrupts, snapshots.checkpoint) as (directory, source, seconds):
        settings = source.settings
        progress = Progress(settings.max_iter)
        spark = source.edges.sparkSession
        watch = Watch(progress, interrupts.requested, lambda name: progress.stage(name, spark))
        try:
            if snapshots.checkpoint is not None:
                checkpoint = Checkpoint(spark, settings, snapshots)
                interrupts.saved = lambda: checkpoint.last_words
                watch = replace(watch, checkpoint=checkpoint)
            clustering = cluster_similarities(
                source.edges,
                settings,
                points=source.points,
                preferences=source.preferences,
                watch=watch,
                numbering=source.numbering,
            )
        finally:
            progress.close()
        can_go_on = snapshots.checkpoint and settings.clusters is None
        if output.require_convergence and not clustering.converged:
            raise NotConverged(
                f"the run must converge, but had not {what_is_missing(clustering.summary)}: "
                "try more of them (--max-iter"
                + (f", which goes on from the last snapshot in {snapshots.checkpoint}" if can_go_on else "")
                + "), or more damping; nothing was written"
            )
        summary = asdict(clustering.summary)
        summary["settings"] |= source.options | {"output_format": output.output_format}
        summary["neighbors"] = source.neighbors
        summary["seconds"] = seconds | summary["seconds"]
        found = clustering.summary
        tables = {
            "assignments": (clustering.assignments, found.n_points),
            "exemplars": (clustering.exemplars, found.n_clusters),
            "trace": (clustering.trace, found.n_iter),
        }
        assert directory is not None
        with progress.stage("writing", spark):
            directory.publish(tables, output.output_format, summary, numbers=clustering)
        interrupts.detach()  # what is left is to tell of it
        interrupts.saved = lambda: f"the output is written to {output.output}"
        clustering.discard_snapshots()
        summary["seconds"]["all"] = round(time.perf_counter() - source.started, 3)
        print(in_words(clustering, source.neighbors, output.output, summary["seconds"]["all"]))


def graph(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """A look before the run: read, describe, and publish the similarities if asked to."""
    output = record(GraphOutput, given)
    with job(given, output, interrupts) as (directory, source, seconds):
        started = time.perf_counter()
        found = build(source.edges, source.settings, source.points, source.preferences, source.numbering)
        try:
            if source.settings.clusters is not None:
                check_target(source.settings.clusters, found)
            description = describe_graph(found, source.settings)
            seconds["graph"] = round(time.perf_counter() - started, 3)
            if directory is not None:
                summary = {
                    "settings": asdict(source.settings) | source.options | {"output_format": output.output_format},
                    "neighbors": source.neighbors,
                    "graph": asdict(description) | {"preference_range": finite_or_null(description.preference_range)},
                    "seconds": seconds,
                }
                tables = {"similarities": (found.similarities(), found.n_edges)}
                directory.publish(tables, output.output_format, summary)
        finally:
            found.release()
        print(description)
        if source.neighbors:
            print(neighbors_in_words(source.neighbors))
        if directory is not None:
            print(f"written to {output.output}: similarities, summary.json")


def finite_or_null(bounds: PreferenceRange) -> dict[str, float | None]:
    """For JSON, which has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(bounds).items()}


@dataclass(frozen=True)
class Source:
    """What a command works on: similarities, the points and their preferences if known, and how it came about."""

    edges: DataFrame | Pairs
    points: DataFrame | None
    preferences: DataFrame | None
    settings: Settings
    neighbors: dict[str, Any] | None
    options: dict[str, Any]
    started: float
    numbering: Numbering | None


@contextmanager
def job(
    given: argparse.Namespace, output: GraphOutput, interrupts: Interrupts, checkpoint: str | None = None
) -> Iterator[tuple[OutputDirectory | None, Source, dict[str, float]]]:
    """What all commands begin and end with: the checks, the session, the output's place, the input."""
    settings, source, similarity = record(Settings, given), record(Input, given), record(Similarity, given)
    session = record(Run, given)
    interrupts.grace = session.grace
    if checkpoint is not None:
        interrupts.saved = lambda: f"the same command goes on from the last snapshot in {checkpoint}, if there is one"
    check_together(settings, source, similarity)
    if similarity.neighbors is not None and settings.symmetrize is None:
        settings = replace(settings, symmetrize="union")
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    ours = SparkSession.getActiveSession() is None
    spark = start_session(session.master, session.conf, short=is_small(given.input))
    seconds["start"] = round(time.perf_counter() - started, 3)
    try:
        interrupts.attach(spark)
        with ExitStack() as held:
            held.callback(interrupts.detach)
            apart = places_read(spark, {"INPUT": given.input, "--points": source.points})
            if checkpoint is not None:
                place = Place.of("--checkpoint", store_of(spark, checkpoint))
                if found := conflict(place, apart):
                    raise CheckpointError(
                        f"the checkpoint must lie apart from the input, but {found}: choose another directory"
                    )
                apart.append(place)
            directory = None
            if output.output is not None:
                table = "assignments" if given.run is cluster else "similarities"
                directory = held.enter_context(claimed(spark, output.output, output.if_exists, apart, table))
            by_number = engine_of(spark, settings) == "resident"
            with Progress(settings.max_iter).stage("reading", spark):
                edges, points, preferences, neighbors, numbering = read(
                    spark, given.input, source, similarity, held, settings.symmetrize, by_number=by_number
                )
            options = {"input": given.input} | asdict(source) | asdict(similarity)
            seconds["read"] = round(time.perf_counter() - started - seconds["start"], 3)
            yield (
                directory,
                Source(edges, points, preferences, settings, neighbors, options, started, numbering),
                seconds,
            )
    finally:
        if ours:
            with catch_warnings(action="ignore", category=RuntimeWarning):  # Spark ended itself: the error says why
                spark.stop()
            interrupts.end_java()


def is_small(path: str) -> bool:
    """Whether the input is some MB on this machine: the job will be over before Java has compiled it well."""
    found = [Path(name) for name in glob(path.removeprefix("file://"))]
    try:
        files = list(islice(chain(found, *(one.rglob("*") for one in found)), SMALL_NUMBER))
        size = sum(file.stat().st_size for file in files if file.is_file())
    except OSError:  # it is told of when it is read
        return True
    return 0 < size < SMALL_INPUT and len(files) < SMALL_NUMBER


def check_together(settings: Settings, source: Input, similarity: Similarity) -> None:
    """Refuse options that exclude each other."""
    if source.edges:
        given = [name for name in ("feature_columns", "drop_missing") if getattr(source, name) != getattr(Input, name)]
        usual = asdict(Similarity())
        given += [name for name, value in asdict(similarity).items() if value != usual[name]]
        if given:
            raise SettingError(f"with --edges there are no features, so leave out --{given[0].replace('_', '-')}")
        if not source.points and (source.id_column or source.preference_column):
            raise SettingError(
                "with --edges, --id-column and --preference-column name columns of --points: give it too"
            )
    elif source.points:
        raise SettingError("--points goes with --edges: without it, INPUT itself holds the points")
    metric_of(similarity.metric, similarity.width)
    if similarity.neighbors is None and similarity.search != Similarity.search:
        raise SettingError("--search says how the neighbours of --neighbors N are found: give it too")
    if similarity.recall != Similarity.recall and (similarity.neighbors is None or similarity.search == "exact"):
        raise SettingError("--recall is for the approximate search of --neighbors N: the exact one finds all")
    if (
        source.preference_column
        and (settings.preference, settings.preference_quantile, settings.clusters) != (None,) * 3
    ):
        raise SettingError(
            "give the preference in one way: --preference, --preference-quantile, --clusters or --preference-column"
        )


def read(
    spark: SparkSession,
    path: str,
    source: Input,
    similarity: Similarity,
    held: ExitStack,
    symmetrize: str | None,
    *,
    by_number: bool,
) -> tuple[DataFrame | Pairs, DataFrame | None, DataFrame | None, dict[str, Any] | None, Numbering | None]:
    """The similarities; the points if known; their own preferences if they have them; how neighbours were found.

    Points with features are numbered, if ``by_number``, and their similarities are by number.
    """
    if source.edges:
        edges = read_similarities(spark, path, format=source.format, header=source.header, encoding=source.encoding)
        if source.points is None:
            return edges, None, None, None, None
        points = points_in(
            spark,
            source.points,
            header=source.header,
            encoding=source.encoding,
            id_column=source.id_column,
            preference_column=source.preference_column,
        )
        if dict(points.dtypes)["id"] != dict(edges.dtypes)["i"]:
            text = [F.col(name).cast("string").alias(name) for name in "ik"]
            edges, points = edges.select(*text, "s"), points.withColumn("id", F.col("id").cast("string"))
        return edges, points.select("id"), preferences_of(points, source), None, None
    points = read_points(
        spark,
        path,
        format=source.format,
        header=source.header,
        encoding=source.encoding,
        id_column=source.id_column,
        feature_columns=source.feature_columns,
        preference_column=source.preference_column,
        drop_missing=source.drop_missing,
    )
    if similarity.scale != "none":
        points = scale(hold(points, held), similarity.scale)
    neighbors, numbering, named = similarity.neighbors, None, points
    if by_number:
        both = 1 if symmetrize in (None, "none") else 2
        numbering, named = number_points(points, both * neighbors if neighbors else None)
    if neighbors is not None:
        named = hold(named, held)  # it is read more than once
    try:
        pairs, about = compare(named, similarity)
    except InputError:
        if by_number:
            compare(points, similarity)  # tells of the points by their ids
        raise
    return pairs, points.select("id"), preferences_of(points, source), about, numbering


def compare(points: DataFrame, similarity: Similarity) -> tuple[Pairs, dict[str, Any] | None]:
    """The similarities of points, and how neighbours were found."""
    asked = similarity
    if asked.neighbors is None:
        return all_pairs(points, asked.metric, asked.width), None
    pairs, search, recall = find_neighbors(
        points, asked.neighbors, asked.metric, asked.width, asked.search, asked.recall
    )
    return pairs, {"neighbors": asked.neighbors, "search": search, "recall": round(recall, 4)}


def hold(table: DataFrame, held: ExitStack) -> DataFrame:
    """Keep a table until the end of the job."""
    held.callback(table.persist().unpersist)
    return table


def preferences_of(points: DataFrame, source: Input) -> DataFrame | None:
    return points.select("id", "preference") if source.preference_column else None


def neighbors_in_words(neighbors: dict[str, Any]) -> str:
    words = f"neighbours: {neighbors['neighbors']:,} a point, {neighbors['search']} search"
    return words + (f", recall {neighbors['recall']:.3f} on a sample" if neighbors["search"] != "exact" else "")


def in_words(clustering: Clustering, neighbors: dict[str, Any] | None, output: str, seconds: float) -> str:
    """What came out, for a person."""
    summary = clustering.summary
    state = "converged" if summary.converged else "NOT converged"
    engine = "no iterations needed" if summary.engine == "none" else f"{summary.engine} engine"
    words = [
        f"{summary.n_points:,} points, {summary.n_edges:,} similarities: {summary.n_clusters:,} clusters",
        f"{state} after {summary.n_iter:,} iterations ({engine}), {seconds:.1f} s in all",
        f"net similarity {summary.netsim:.6g} = similarities to exemplars {summary.dpsim:.6g} "
        f"+ preferences {summary.expref:.6g}",
    ]
    if summary.tried:
        words.insert(1, f"preference {summary.preference:.6g}, the best of {len(summary.tried)} tried")
    if neighbors:
        words.insert(1, neighbors_in_words(neighbors))
    if summary.promoted:
        words.append(f"{summary.promoted:,} points were made exemplars, since they store no edge to one")
    largest = clustering.exemplars.orderBy(F.desc("size"), "label").limit(5).collect()
    if largest:
        words.append("largest clusters: " + ", ".join(f"{row.size:,} around {row.exemplar}" for row in largest))
    words.append(f"written to {output}: assignments, exemplars, trace, summary.json")
    return "\n".join(map(printable, words))


if __name__ == "__main__":
    sys.exit(main())
