"""The ap-spark command. `main` is also what the scripts in jobs/ call."""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from ap_spark.clustering import Clustering, affinity_propagation
from ap_spark.errors import ApSparkError, NotConverged, SettingError
from ap_spark.progress import Progress
from ap_spark.publish import OutputDirectory
from ap_spark.readers import make_points, read_points, read_similarities, read_table
from ap_spark.session import start_session
from ap_spark.settings import Checked, Input, Output, Run, Settings, is_required, option, parameters
from ap_spark.similarity import similarities
from ap_spark.version import __version__

__all__ = ["main"]

logger = logging.getLogger(__name__)

GROUPS: dict[str, type[Checked]] = {"algorithm": Settings, "input": Input, "output": Output, "run": Run}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 a fault of ours; 2 bad input or arguments; 3 not converged, under --require-convergence.
    """
    given = make_parser().parse_args(arguments)
    logging.basicConfig(format="%(asctime)s ap-spark: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("ap_spark").setLevel(logging.DEBUG if given.verbose else logging.WARNING)
    logging.getLogger("ap_spark.progress").setLevel(logging.INFO)
    try:
        cluster(given)
    except ApSparkError as error:
        return fail(str(error), error.exit_code, given.verbose)
    except (PySparkException, Py4JJavaError) as error:
        return fail(f"Spark failed: {first_line(error)} (--verbose shows the stack)", 1, given.verbose)
    except Exception as error:
        return fail(f"{type(error).__name__}: {error} (--verbose shows the stack)", 1, given.verbose)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser, made from the declared parameters."""
    parser = argparse.ArgumentParser(
        prog="ap-spark", description="Affinity propagation clustering on Apache Spark.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"ap-spark {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "cluster",
        help="cluster a table of points, or of similarities",
        description="Cluster a table of points, or of similarities: exemplars and assignments out.",
        allow_abbrev=False,
    )
    # argparse takes -1e3 for an option, where it takes -1000 for a number; preferences are often negative.
    command._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    command.add_argument("input", metavar="INPUT", help="file or directory, anywhere Spark can read")
    for title, group in GROUPS.items():
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
            keywords["action"] = "store_false" if declared.default is True else "store_true"
        elif kind in (int, float, str):
            keywords |= {"type": kind, "choices": about["choices"] or None, "metavar": about["metavar"] or None}
            if isinstance(declared.default, kind):
                keywords["help"] += f" [{declared.default}]"
        else:
            keywords |= {"action": "append", "metavar": about["metavar"], "default": []}
        if is_required(declared):
            keywords |= {"required": True, "default": None}
        to.add_argument(*names, **keywords)


def record(group: type[Checked], given: argparse.Namespace) -> Any:
    """The checked record of one group of options."""
    return group(**{declared.name: getattr(given, declared.name) for declared, _ in parameters(group)})


def cluster(given: argparse.Namespace) -> None:
    """The main job: read, cluster, publish, tell."""
    settings, source = record(Settings, given), record(Input, given)
    output, session = record(Output, given), record(Run, given)
    check_together(settings, source)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    ours = SparkSession.getActiveSession() is None
    spark = start_session(session.master, session.conf)
    seconds["start"] = round(time.perf_counter() - started, 3)
    try:
        directory = OutputDirectory(spark, output.output, overwrite=output.overwrite)
        edges, points, preferences = read(spark, given.input, source)
        seconds["read"] = round(time.perf_counter() - started - seconds["start"], 3)
        progress = Progress(settings.max_iter)
        options = asdict(settings)
        if preferences is not None:
            options["preference"] = preferences
        try:
            clustering = affinity_propagation(edges, points=points, report=progress, **options)
        finally:
            progress.close()
        if output.require_convergence and not clustering.converged:
            raise NotConverged(
                f"the run must converge, but after {clustering.n_iter} iterations it had not: "
                "try more of them (--max-iter), or more damping; nothing was written"
            )
        summary = asdict(clustering.summary)
        summary["settings"] |= {"input": given.input} | asdict(source) | {"output_format": output.output_format}
        summary["seconds"] = seconds | summary["seconds"]
        directory.publish(clustering, output.output_format, summary)
        summary["seconds"]["all"] = round(time.perf_counter() - started, 3)
        print(in_words(clustering, output.output, summary["seconds"]["all"]))
    finally:
        if ours:
            spark.stop()


def check_together(settings: Settings, source: Input) -> None:
    """Refuse options that exclude each other."""
    only_points = ("metric", "top", "feature_columns")
    if source.edges:
        given = [name for name in only_points if getattr(source, name) != getattr(Input, name)]
        if given:
            raise SettingError(f"with --edges there are no features, so leave out --{given[0].replace('_', '-')}")
        if not source.points and (source.id_column or source.preference_column):
            raise SettingError(
                "with --edges, --id-column and --preference-column name columns of --points: give it too"
            )
    elif source.points:
        raise SettingError("--points goes with --edges: without it, INPUT itself holds the points")
    if source.preference_column and (settings.preference, settings.preference_quantile) != (None, None):
        raise SettingError("give the preference in one way: --preference, --preference-quantile or --preference-column")


def read(spark: SparkSession, path: str, source: Input) -> tuple[DataFrame, DataFrame | None, DataFrame | None]:
    """The similarities, the points if they are known, and their own preferences if they have them."""
    if source.edges:
        edges = read_similarities(spark, path, format=source.format, header=source.header)
        if source.points is None:
            return edges, None, None
        table = read_table(spark, source.points, header=source.header)
        points = make_points(
            table,
            id_column=source.id_column or ("id" if "id" in table.columns else "0"),
            feature_columns="",
            preference_column=source.preference_column,
        )
        if dict(points.dtypes)["id"] != dict(edges.dtypes)["i"]:
            text = [F.col(name).cast("string").alias(name) for name in "ik"]
            edges, points = edges.select(*text, "s"), points.withColumn("id", F.col("id").cast("string"))
    else:
        points = read_points(
            spark,
            path,
            format=source.format,
            header=source.header,
            id_column=source.id_column,
            feature_columns=source.feature_columns,
            preference_column=source.preference_column,
        )
        edges = similarities(points, metric=source.metric, top=source.top)
    preferences = points.select("id", "preference") if source.preference_column else None
    return edges, points.select("id"), preferences


def in_words(clustering: Clustering, output: str, seconds: float) -> str:
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
    if summary.promoted:
        words.append(f"{summary.promoted:,} points became exemplars because they are similar to none")
    largest = clustering.exemplars.orderBy(F.desc("size"), "label").limit(5).collect()
    if largest:
        words.append("largest clusters: " + ", ".join(f"{row.size:,} around {row.exemplar}" for row in largest))
    words.append(f"written to {output}: assignments, exemplars, trace, summary.json")
    return "\n".join(words)


def first_line(error: Exception) -> str:
    if isinstance(error, Py4JJavaError):
        return str(error.java_exception.toString()).splitlines()[0]
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"ap-spark: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
