"""The ap-spark command, once it is parsed. `main` is what the scripts in jobs/ call."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from glob import glob
from itertools import chain, islice
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import pyspark.sql.functions as F
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from ap_spark._spark.session import start_session
from ap_spark._spark.shortages import format_shortage
from ap_spark._spark.signals import Interrupts
from ap_spark.animation import animate, check_number, checked_path
from ap_spark.checkpoint import WITHOUT_CHECKPOINT, Checkpoint, writable_store
from ap_spark.config_file import format_given, format_origin
from ap_spark.convergence import Iteration
from ap_spark.dry_run import DryRun, foresee_points, foresee_similarities
from ap_spark.errors import (
    ApSparkError,
    CheckpointError,
    InputError,
    Interrupted,
    NotConverged,
    SettingError,
    StorageError,
    errors_from_tasks,
)
from ap_spark.graph.describe import Description
from ap_spark.io.columns import Chosen
from ap_spark.io.formats import check_format
from ap_spark.io.paths import Place, conflict, places_read
from ap_spark.io.readers import (
    CELLS,
    IMAGE,
    read_points,
    read_points_by_id,
    read_points_of_command,
    read_similarities,
)
from ap_spark.io.tables import ROW
from ap_spark.io.writer import PAGE, PICTURES, OutputDirectory, OutputIsThere, claimed, foresee
from ap_spark.new_points import exemplars_of, publish_assigned
from ap_spark.options import check_new_points, check_together, record, with_options
from ap_spark.parser import parse
from ap_spark.pipeline import affinity_propagation, cluster_points, described
from ap_spark.progress import Progress
from ap_spark.report import packages_of_report
from ap_spark.report.content import gather
from ap_spark.result import OPTIONAL, Clustering, publish
from ap_spark.run import format_not_converged
from ap_spark.settings import (
    GROUPS,
    Animation,
    Execution,
    GraphOutput,
    Input,
    Levels,
    NewPoints,
    Output,
    Pictures,
    PointsInput,
    Quality,
    Report,
    ReportOutput,
    Run,
    Settings,
    Similarity,
    Snapshots,
    Sparsification,
    TablesOutput,
)
from ap_spark.similarity.scaling import scale
from ap_spark.stream import Batch, files_of, reader_of_files, start
from ap_spark.wording import call, called, format_reason, printable

__all__ = ["is_small", "main", "run_command"]

logger = logging.getLogger(__name__)

_SMALL_INPUT = 8_000_000  # bytes
_SMALL_NUMBER = 1000  # files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; see `run_command`."""
    return run_command(parse(arguments))


def run_command(given: argparse.Namespace) -> int:
    """Run a command line that has been parsed, and return its exit code.

    0 done; 1 a fault of ours; 2 bad input or arguments; 3 not converged, under --require-convergence; 4 no room or no
    permission in a local directory, or not enough memory; 129, 130 or 143 stopped by SIGHUP, Ctrl-C or SIGTERM.
    """
    others = logging.WARNING if given.verbose else logging.CRITICAL  # py4j logs the stack of what it raises as well
    logging.basicConfig(format="%(asctime)s ap-spark: %(message)s", datefmt="%H:%M:%S", level=others)
    logging.getLogger("ap_spark").setLevel(logging.DEBUG if given.verbose else logging.WARNING)
    for module in ("progress", "checkpoint", "stream"):
        logging.getLogger(f"ap_spark.{module}").setLevel(logging.WARNING if given.quiet else logging.INFO)
    command = {"cluster": _cluster, "graph": _graph, "assign": _assign, "report": _report, "animate": _animate}[
        given.command
    ]
    if vars(given).get("dry_run"):
        command = _say_what_would_run
    with Interrupts(lambda: "the same command starts again") as interrupts:
        try:
            command(given, interrupts)
        except OutputIsThere as there:
            if not given.quiet:
                print(there, file=sys.stderr if given.json else sys.stdout)
            if given.json:
                print(there.summary, end="")
        except KeyboardInterrupt:  # a second signal
            return interrupts.exit_code
        except Exception as error:
            message, code = _format_error(error, interrupts)
            if given.verbose and code == ApSparkError.exit_code:
                traceback.print_exc()
            message += format_origin(message, given) if isinstance(error, SettingError) else ""
            # Java may be waiting for this line, and end after it.
            print(f"ap-spark: {printable(message)}", file=sys.stderr, flush=True)
            return code
    return 0


def _format_error(error: Exception, interrupts: Interrupts) -> tuple[str, int]:
    """Return the message of an error, and the exit code."""
    if isinstance(error, Interrupted):
        return str(error), interrupts.exit_code
    if short := format_shortage(error):
        return short, StorageError.exit_code
    if interrupts.received:  # the signal has cancelled Spark's jobs
        by = interrupts.received.name
        return f"stopped by {by} outside of the iterations; {interrupts.saved()}", interrupts.exit_code
    if isinstance(error, SettingError):
        return with_options(str(error)), error.exit_code
    if isinstance(error, ApSparkError):
        return str(error), error.exit_code
    who = "Spark failed" if isinstance(error, (PySparkException, Py4JJavaError)) else type(error).__name__
    return f"{who}: {format_reason(error)} (--verbose shows the stack)", 1


class _Watcher(Progress):
    """The callback of the command: it shows progress, and stops the run after a signal."""

    def __init__(self, max_iter: int, interrupts: Interrupts, *, quiet: bool) -> None:
        super().__init__(max_iter, quiet=quiet)
        self.interrupts = interrupts

    def __call__(self, done: Iteration) -> bool:
        super().__call__(done)
        return self.interrupts.requested()

    def resumes_from(self, checkpoint: Checkpoint) -> None:
        self.interrupts.saved = checkpoint.format_saved


@dataclass(frozen=True)
class _Job:
    """What both commands have once Spark runs and the input is read.

    Attributes
    ----------
    source : Input
    rows : DataFrame
        The points, or with --edges the similarities.
    points : DataFrame, optional
        With --edges, those of --points, and their preferences if they have some.
    order : DataFrame, optional
        (id, row) of the points, where an output follows the order of the input.
    shown : DataFrame, optional
        (id, cells[, image]) of the points, where there is to be a report.
    chosen : Chosen, optional
        Which columns the points are.
    choices : dict
        The keywords that the functions of `pipeline` share.
    directory : OutputDirectory, optional
        Where to publish.
    replaces : bool
        In a dry run: whether an output that is there would be replaced.
    watcher : _Watcher
    seconds : dict
        By stage, until now.
    started : float
    """

    source: Input
    rows: DataFrame
    points: DataFrame | None
    order: DataFrame | None
    shown: DataFrame | None
    chosen: Chosen | None
    choices: dict[str, Any]
    directory: OutputDirectory | None
    replaces: bool
    watcher: _Watcher
    seconds: dict[str, float]
    started: float


def _cluster(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """Read, cluster, publish, print the result."""
    output, run, settings = record(Output, given), record(Run, given), record(Settings, given)
    report = record(Report, given)
    if not report.report and (report.title is not None or report.images is not None):
        raise SettingError("--title and --images say what a report shows: give --report too")
    if report.report:
        with packages_of_report():  # now, not after hours
            import ap_spark.report.page  # noqa: F401
    passing = {name: getattr(settings, name) for name in ("damping", "max_iter", "convergence_iter")}
    passing["seed"] = settings.seed if settings.jitter else None
    passing |= {"quality": record(Quality, given), "levels": record(Levels, given)}
    snapshots = record(Snapshots, given)
    with _job(given, output, interrupts, snapshots.checkpoint) as work:
        choices = work.choices | passing | {"checkpoint": snapshots, "callback": work.watcher}
        if work.source.edges:
            clustering = affinity_propagation(work.rows, points=work.points, **choices)
        else:
            clustering = cluster_points(work.rows, similarity=record(Similarity, given), **choices)
        if output.require_convergence and not clustering.converged:
            if run.json:
                print(json.dumps(asdict(clustering.summary), indent=2, allow_nan=False))
            raise NotConverged(
                f"not converged {format_not_converged(clustering.summary)}: {_what_to_try(clustering, snapshots)}; "
                "nothing was written (--require-convergence)"
            )
        summary = replace(
            clustering.summary,
            settings=clustering.summary.settings | _describe_input(given),
            seconds=work.seconds | clustering.summary.seconds,
        )
        clustering = replace(clustering, summary=summary)
        assert work.directory is not None
        files: dict[str, bytes] = {}
        if report.report:
            with work.watcher.stage("drawing", work.rows.sparkSession):
                files = _drawn_if_possible(clustering, work, report, given)
        with work.watcher.stage("writing", work.rows.sparkSession):
            publish(
                *(clustering, work.directory, output.output_format),
                single_file=output.single_file,
                rows=work.order,
                files=files,
            )
        interrupts.detach()  # from here on a signal is too late to stop anything
        interrupts.saved = lambda: f"the output is written to {output.output}"
        clustering.discard_snapshots()
        summary.seconds["all"] = round(time.perf_counter() - work.started, 3)
        if run.json:
            print(json.dumps(asdict(summary), indent=2, allow_nan=False))
        elif not run.quiet:
            print(_format_result(clustering, output, has_page=bool(files)))


def _what_to_try(clustering: Clustering, snapshots: Snapshots) -> str:
    """Say what may make a run converge that has not."""
    settings = clustering.summary.settings
    if clustering.summary.ending == "settled":
        return "try another preference, or take what has settled, without --require-convergence"
    can_resume = snapshots.checkpoint and settings["clusters"] is None
    resumes = f", which resumes from the last snapshot in {snapshots.checkpoint}" if can_resume else ""
    more_damping = "" if settings["damping"] is None else ", more damping"
    return f"try more iterations (--max-iter{resumes}){more_damping}, or another preference"


def _graph(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """Read, describe the graph, and publish the similarities if asked to."""
    output, run = record(GraphOutput, given), record(Run, given)
    with _job(given, output, interrupts) as work:
        similarity = None if work.source.edges else record(Similarity, given)
        found = described(work.rows, points=work.points, similarity=similarity, callback=work.watcher, **work.choices)
        with found as (description, pairs, about):
            summary = {
                "settings": about["settings"] | _describe_input(given),
                "neighbors": description.neighbors,
                "graph": _without_infinity(description),
                "seconds": work.seconds | about["seconds"],
            }
            if work.directory is not None:
                tables = {"similarities": (pairs, description.n_edges)}
                work.directory.publish(tables, output.output_format, summary, single_file=output.single_file)
        if run.json:
            print(json.dumps(summary, indent=2, allow_nan=False))
            return
        if run.quiet:
            return
        print(description)
        if work.directory is not None:
            print(f"written to {output.output}: similarities, summary.json")


def _assign(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """Read new points and a result, assign them, publish, print how."""
    output, run, source = record(TablesOutput, given), record(Run, given), record(PointsInput, given)
    chosen = record(NewPoints, given)
    check_new_points(chosen, output, source, given.input)
    interrupts.grace = run.grace
    if chosen.stream:
        _follow(given, chosen, output, interrupts)
        return
    _check_format_of(given.input, source)
    started = time.perf_counter()
    with _session(run, interrupts, short=is_small(given.input)) as spark, ExitStack() as held:
        seconds = {"start": round(time.perf_counter() - started, 3)}
        apart = places_read(spark, {"INPUT": given.input, "RESULT": given.result})
        directory = held.enter_context(claimed(spark, output.output, output.if_exists, apart, "assigned"))
        watcher = _Watcher(Settings.max_iter, interrupts, quiet=run.quiet)
        with watcher.stage("reading", spark):
            exemplars = exemplars_of(given.result)
            points = read_points(spark, given.input, **asdict(source))
        seconds["read"] = round(time.perf_counter() - started - seconds["start"], 3)
        about: dict[str, Any] = {"result": given.result, "input": _one_or_all(given.input)} | asdict(source)
        summary = {"settings": about | asdict(chosen), "seconds": seconds}
        with watcher.stage("assigning", spark):
            totals = publish_assigned(points, exemplars, chosen.min_similarity, directory, output, summary)
        interrupts.detach()  # from here on a signal is too late to stop anything
        seconds["all"] = round(time.perf_counter() - started, 3)
        if run.json:
            print(json.dumps(asdict(totals) | summary, indent=2, allow_nan=False))
        elif not run.quiet:
            print(f"{totals}\n{seconds['all']:.1f} s in all\nwritten to {output.output}: assigned, summary.json")


def _report(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """Read a result and its points, and publish a page with pictures."""
    output, run, source = record(ReportOutput, given), record(Run, given), record(PointsInput, given)
    pictures = record(Pictures, given)
    interrupts.grace = run.grace
    if given.input:
        _check_format_of(given.input, source)
    started = time.perf_counter()
    with _session(run, interrupts, short=is_small([given.result, *given.input])) as spark, ExitStack() as held:
        seconds = {"start": round(time.perf_counter() - started, 3)}
        apart = places_read(spark, {"RESULT": given.result} | ({"INPUT": given.input} if given.input else {}))
        if_exists = "replace" if output.overwrite else "refuse"
        directory = held.enter_context(claimed(spark, output.output, if_exists, apart, PAGE))
        watcher = _Watcher(Settings.max_iter, interrupts, quiet=run.quiet)
        with watcher.stage("reading", spark), errors_from_tasks():
            clustering = Clustering.load(given.result)
            points, names = _points_of_result(spark, clustering, given.input, source)
        with watcher.stage("drawing", spark), errors_from_tasks():
            try:
                files = _drawn(clustering, points, names, pictures, given.input)
            except InputError as error:
                if given.input or points is None:
                    raise
                logger.warning("exemplars are drawn alone, since the points have changed: %s", error)
                files = _drawn(clustering, None, None, pictures, given.input)
        summary = {"settings": {"result": given.result, "input": given.input} | asdict(pictures), "seconds": seconds}
        directory.publish({}, "none", summary, files=files)
        interrupts.detach()  # from here on a signal is too late to stop anything
        seconds["all"] = round(time.perf_counter() - started, 3)
        if run.json:
            print(json.dumps(summary, indent=2, allow_nan=False))
        elif not run.quiet:
            print(f"{seconds['all']:.1f} s in all\nwritten to {output.output}: {PAGE}, {PICTURES}")


def _points_of_result(
    spark: SparkSession, clustering: Clustering, paths: Sequence[str], source: PointsInput
) -> tuple[DataFrame | None, list[str] | None]:
    """Return the points of a result, and the names of their features: of the paths, else what the run has read.

    None for a result of similarities, and where what the run has read is not there any more.
    """
    settings = clustering.summary.settings
    as_read: dict[str, Any] = asdict(source) | {"preference_column": None}
    if not paths:
        if "input" not in settings or settings["edges"]:
            return None, None
        as_read = {name: settings[name] for name in as_read}
    try:
        points, chosen = read_points_of_command(spark, paths or settings["input"], with_cells=True, **as_read)
        return points, _names_of(chosen)
    except ApSparkError as error:
        if paths:
            raise
        logger.warning("exemplars are drawn alone, since the points cannot be read: %s", error)
        return None, None


def _names_of(chosen: Chosen | None) -> list[str] | None:
    """Return the names of features that are columns of their own."""
    return None if chosen is None or chosen.is_vector else chosen.features


def _drawn_if_possible(
    clustering: Clustering, work: _Job, report: Report, given: argparse.Namespace
) -> dict[str, bytes]:
    """Return the files of a report; none if it cannot be made: a clustering is not lost for want of a picture."""
    try:
        return _drawn(clustering, work.shown, _names_of(work.chosen), report, given.input)
    except Exception as error:
        logger.warning("there is no %s: %s (`ap-spark report` makes it of the output)", PAGE, format_reason(error))
        return {}


def _drawn(
    clustering: Clustering,
    points: DataFrame | None,
    names: list[str] | None,
    pictures: Pictures,
    paths: Sequence[str],
) -> dict[str, bytes]:
    """Return the files of a report."""
    with packages_of_report():
        from ap_spark.report.page import files_of
    title = pictures.title
    if title is None:
        paths = paths or [str(clustering.summary.settings.get("input", "Clusters"))]
        title = ", ".join(os.path.basename(path.rstrip("/")) or path for path in paths)
    features = None if points is None else points.select("id", "features")
    content = gather(clustering, features, points, names=names)
    return files_of(content, title=title, image_shape=pictures.image_shape)


def _animate(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """Read points, and write a moving picture of a run on them."""
    about, run, source = record(Animation, given), record(Run, given), record(PointsInput, given)
    similarity: Similarity = record(Similarity, given)
    messages = asdict(record(GROUPS["Clusters"], given))
    if messages.pop("cluster_size") is not None:
        raise SettingError("a moving picture has no cluster_size: give a preference, or clusters with --what levels")
    jitter = messages.pop("jitter")
    messages["seed"] = messages["seed"] if jitter else None
    _check_format_of(given.input, source)
    checked_path(about.output, overwrite=about.overwrite)
    with _session(run, interrupts, short=is_small(given.input)) as spark, errors_from_tasks():
        watcher = _Watcher(Settings.max_iter, interrupts, quiet=run.quiet)
        with watcher.stage("reading", spark):
            points = read_points(spark, given.input, **asdict(source))
            check_number(points.count())
            table = scale(points, similarity.scale).orderBy("id").toArrow().to_pandas()
    with watcher.stage("drawing", None):
        animate(
            *(table, about.output),
            what=about.what,
            similarity=replace(similarity, scale="none"),
            levels=record(Levels, given),
            quality=record(Quality, given),
            overwrite=about.overwrite,
            **messages,
        )
    if not run.quiet:
        print(f"written to {about.output}")


def _follow(given: argparse.Namespace, chosen: NewPoints, output: TablesOutput, interrupts: Interrupts) -> None:
    """Assign the points of files as they arrive, until there is a signal; print a record of each batch with --json."""
    run, source = record(Run, given), record(PointsInput, given)
    interrupts.saved = lambda: "the same command goes on with what is not done"

    def tell(batch: Batch) -> None:
        if run.json:
            print(json.dumps(asdict(batch), allow_nan=False), flush=True)

    with _session(run, interrupts, short=False) as spark, errors_from_tasks():
        (directory,) = given.input
        query = start(
            files_of(spark, directory),
            reader_of_files(source),
            exemplars_of(given.result),
            output.output,
            output.output_format,
            chosen,
            settings={"result": given.result, "input": directory} | asdict(source),
            apart=places_read(spark, {"INPUT": given.input, "RESULT": given.result}),
            tell=tell,
        )
        try:
            while not query.awaitTermination(1):
                if interrupts.requested():
                    raise Interrupted(f"stopped: {interrupts.saved()}")
        finally:
            query.stop()
    if not run.quiet and not run.json:
        print(f"written to {output.output}: assigned, batches, summary.json")


def _say_what_would_run(given: argparse.Namespace, interrupts: Interrupts) -> None:
    """Read and check the input, and print what the command would do, and how long it would take."""
    clustering = given.command == "cluster"
    output, settings, run = (
        record(Output if clustering else GraphOutput, given),
        record(Settings, given),
        record(Run, given),
    )
    checkpoint = record(Snapshots, given).checkpoint if clustering else None
    with _job(given, output, interrupts, checkpoint) as work:
        if work.source.edges:
            by_point = isinstance(work.choices["preference"], DataFrame)
            found = foresee_similarities(work.rows, work.points, settings, by_point=by_point)
        else:
            found = foresee_points(work.rows, record(Similarity, given), settings)
        found = replace(found, reading=work.seconds["read"], snapshots=bool(checkpoint), clustering=clustering)
        if run.json:
            about = {"columns": work.chosen and asdict(work.chosen), "input": _describe_input(given)}
            print(json.dumps({"dry_run": True} | found.summary() | about, indent=2, allow_nan=False))
        elif not run.quiet:
            print(_format_dry_run(given, output, work, found))


def _format_dry_run(given: argparse.Namespace, output: GraphOutput, work: _Job, found: DryRun) -> str:
    """Say what would run, for a person."""
    groups = [group for group in GROUPS.values() if group not in (Output, Run)]
    lines = [f"input: {', '.join(given.input)}"]
    if work.chosen is not None:
        lines += str(work.chosen).splitlines()
    lines += [*str(found).splitlines(), f"settings: {format_given(given, groups)}"]
    if output.output is not None:
        fate = "would be replaced" if work.replaces else "would be written"
        lines.append(f"output: {output.output} {fate}, {output.output_format}")
    return "\n".join(map(printable, [*lines, "dry run: nothing was computed, and nothing written"]))


def _without_infinity(description: Description) -> dict[str, Any]:
    """Return a description for JSON, which has no infinity."""
    bounds = asdict(description.preference_range)
    finite = {name: value if math.isfinite(value) else None for name, value in bounds.items()}
    return asdict(description) | {"preference_range": finite}


def _describe_input(given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the input for the summary."""
    source: dict[str, Any] = asdict(record(Input, given))
    return {"input": _one_or_all(given.input)} | source


def _one_or_all(paths: Sequence[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else list(paths)


@contextmanager
def _job(
    given: argparse.Namespace, output: GraphOutput, interrupts: Interrupts, checkpoint: str | None = None
) -> Iterator[_Job]:
    """Check the options, start the session, claim the output and read the input; at the end, stop the session."""
    settings, source, run = record(Settings, given), record(Input, given), record(Run, given)
    interrupts.grace = run.grace
    if checkpoint is not None and not output.dry_run:
        interrupts.saved = lambda: f"the same command resumes from the last snapshot in {checkpoint}, if there is one"
    elif given.command == "cluster" and not output.dry_run:
        interrupts.saved = lambda: WITHOUT_CHECKPOINT
    _check_options(given, settings, source)
    started = time.perf_counter()
    with _session(run, interrupts, short=is_small(given.input)) as spark, ExitStack() as held:
        seconds = {"start": round(time.perf_counter() - started, 3)}
        apart = _places_apart(spark, given, source, checkpoint, probe=not output.dry_run)
        directory, replaces = None, False
        if output.output is not None:
            table = "assignments" if given.command == "cluster" else "similarities"
            claim = (spark, output.output, output.if_exists, apart, table)
            if output.dry_run:
                replaces = foresee(*claim)
            else:
                directory = held.enter_context(claimed(*claim))
        watcher = _Watcher(settings.max_iter, interrupts, quiet=run.quiet)
        with watcher.stage("reading", spark):
            with_rows = given.command == "cluster" and output.output_format == "tsv" and not output.dry_run
            with_cells = vars(given).get("report", False) and not output.dry_run
            rows, points, chosen = _read(spark, given.input, source, with_rows=with_rows, with_cells=with_cells)
        order = shown = None
        if CELLS in rows.columns:
            rows, shown = rows.drop(CELLS, IMAGE), rows
        if ROW in rows.columns:
            rows, order = rows.drop(ROW), rows.select("id", ROW)
        seconds["read"] = round(time.perf_counter() - started - seconds["start"], 3)
        preference = settings.preference
        if points is not None and "preference" in points.columns:
            preference, points = points.select("id", "preference"), points.select("id")
        choices = {
            "preference": preference,
            "preference_quantile": settings.preference_quantile,
            "clusters": settings.clusters,
            "cluster_size": settings.cluster_size,
            "sparsification": record(Sparsification, given),
            "execution": record(Execution, given),
        }
        yield _Job(
            *(source, rows, points, order, shown, chosen, choices),
            *(directory, replaces, watcher, seconds, started),
        )


def _check_options(given: argparse.Namespace, settings: Settings, source: Input) -> None:
    """Check all that can be checked before a session is started."""
    check_together(settings, source, record(Similarity, given))
    _check_format_of(given.input, source)
    if source.points is not None:
        check_format(source.points, is_local=_paths_are_local())


def _check_format_of(paths: Sequence[str], source: PointsInput) -> None:
    check_format(paths, source.format, source.encoding, is_local=_paths_are_local())


def _paths_are_local() -> bool:
    """Return whether a path is one of this machine. A cluster's configuration may say that it is one of HDFS."""
    return not {"PYSPARK_GATEWAY_PORT", "HADOOP_CONF_DIR"} & os.environ.keys()


def _places_apart(
    spark: SparkSession, given: argparse.Namespace, source: Input, checkpoint: str | None, *, probe: bool
) -> list[Place]:
    """Return the places that the output has to lie apart from: all that is read, and the snapshots.

    With ``probe``, a file is written where the snapshots are to be, and deleted.

    Raises
    ------
    CheckpointError
        If the snapshots do not lie apart from the input, or their directory cannot be written.
    """
    apart = places_read(spark, {"INPUT": given.input, "--points": source.points})
    if checkpoint is not None:
        place = Place.of("--checkpoint", writable_store(spark, checkpoint, probe=probe))
        if found := conflict(place, apart):
            raise CheckpointError(
                f"the checkpoint must lie apart from the input, but {found}: choose another directory"
            )
        apart.append(place)
    return apart


@contextmanager
def _session(run: Run, interrupts: Interrupts, *, short: bool) -> Iterator[SparkSession]:
    """Start the session, or join one that is there; a signal cancels its jobs. Stop it at the end if it is ours."""
    ours = SparkSession.getActiveSession() is None
    spark = start_session(run.master, run.conf, short=short)
    try:
        with ExitStack() as held:
            interrupts.attach(spark)
            held.callback(interrupts.detach)
            yield spark
    finally:
        if ours:
            with catch_warnings(action="ignore", category=RuntimeWarning):  # PySpark warns if Java has ended already
                spark.stop()
            interrupts.end_java()


def is_small(paths: Sequence[str]) -> bool:
    """Return whether the input is some MB on this machine: the job will be over before Java has compiled it well."""
    found = [Path(name) for path in paths for name in glob(path.removeprefix("file://"))]
    try:
        files = list(islice(chain(found, *(one.rglob("*") for one in found)), _SMALL_NUMBER))
        size = sum(file.stat().st_size for file in files if file.is_file())
    except OSError:  # reading it raises the error
        return True
    return 0 < size < _SMALL_INPUT and len(files) < _SMALL_NUMBER


def _read(
    spark: SparkSession, paths: Sequence[str], source: Input, *, with_rows: bool = False, with_cells: bool = False
) -> tuple[DataFrame, DataFrame | None, Chosen | None]:
    """Return the points, if asked for ``with_rows``, and which columns they are.

    With --edges, return the similarities, and the points of --points.
    """
    form: dict[str, Any] = {"header": source.header, "encoding": source.encoding}
    columns: dict[str, Any] = {"id_column": source.id_column, "preference_column": source.preference_column}
    if not source.edges:
        given: dict[str, Any] = {"feature_columns": source.feature_columns, "drop_missing": source.drop_missing}
        read, chosen = read_points_of_command(
            *(spark, paths),
            format=source.format,
            with_rows=with_rows,
            with_cells=with_cells,
            **(form | columns | given),
        )
        logger.info("%s", "; ".join(str(chosen).splitlines()))
        return read, None, chosen
    edges = read_similarities(spark, paths, format=source.format, **form)
    if source.points is None:
        return edges, None, None
    points = read_points_by_id(spark, source.points, **form, **columns)
    if dict(points.dtypes)["id"] != dict(edges.dtypes)["i"]:
        text = [call(F.col(name).cast("string"), name, called(edges, name)) for name in "ik"]
        edges, points = edges.select(*text, "s"), points.withColumn("id", F.col("id").cast("string"))
    return edges, points, None


def _format_result(clustering: Clustering, output: Output, *, has_page: bool) -> str:
    """Say what came out, for a person."""
    summary = clustering.summary
    lines = [*str(summary).splitlines(), f"{summary.seconds['all']:.1f} s in all"]
    if largest := clustering.largest():
        lines.append("largest clusters: " + ", ".join(f"{size:,} around {exemplar}" for exemplar, size, _ in largest))
    others = "".join(f"{name}, " for name in OPTIONAL if getattr(clustering, name) is not None)
    page = f"{PAGE}, " if has_page else ""
    lines.append(f"written to {output.output}: assignments, exemplars, trace, {others}{page}summary.json")
    return "\n".join(map(printable, lines))


if __name__ == "__main__":
    sys.exit(main())
