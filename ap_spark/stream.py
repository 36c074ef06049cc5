"""New points on a stream: every point is assigned once, and each batch leaves a record by which drift shows.

files, Kafka, ... ──► batches ──► DIR/assigned/batch=N ──► DIR/batches/N.json

Spark's checkpoint says which points a batch has. A batch that was not finished has the same points and the same number
when the stream is started again, and is written anew in the same place.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from os import PathLike, fspath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from ap_spark._spark import classic
from ap_spark.errors import InputError, OutputError, SettingError, errors_from_tasks
from ap_spark.foreign_names import explains_keywords
from ap_spark.io.formats import format_paths
from ap_spark.io.frames import as_points
from ap_spark.io.paths import Place, conflict
from ap_spark.io.readers import read_points
from ap_spark.io.stores import Store
from ap_spark.io.tables import reading
from ap_spark.io.writer import FORMAT, SUMMARY, write_batch
from ap_spark.new_points import assigned, exemplars_of, totals_of
from ap_spark.result import Clustering
from ap_spark.settings import NewPoints, OutputFormat, PointsInput, Similarity, TablesOutput
from ap_spark.similarity.assignment import Exemplars
from ap_spark.version import __version__

if TYPE_CHECKING:
    from ap_spark.new_points import Points

__all__ = ["Batch", "assign_stream", "files_of", "reader_of_files", "start"]

logger = logging.getLogger(__name__)

_MARK = "ap_spark.json"  # in the checkpoint: of which output it is
_FILE = "path string, modificationTime timestamp, length bigint, content binary"  # what Spark knows of any file
_FILES_A_BATCH = 1000
_MAX_AGE = "36500d"  # Spark would otherwise pass over files that are a week older than others

Read = Callable[[DataFrame], tuple[DataFrame, str] | None]


@dataclass(frozen=True)
class Batch:
    """What is recorded of a batch.

    Attributes
    ----------
    batch : int
        Its number, from 0.
    at : str
        When it was assigned: date and time, UTC.
    n_points, n_unassigned, unassigned, mean_similarity
        See `Totals`.
    seconds : float
    """

    batch: int
    at: str
    n_points: int
    n_unassigned: int
    unassigned: float
    mean_similarity: float | None
    seconds: float


@explains_keywords
def assign_stream(
    points: DataFrame,
    exemplars: Clustering | str | PathLike[str] | Points,
    output: str | PathLike[str],
    checkpoint: str | PathLike[str],
    *,
    min_similarity: float | None = NewPoints.min_similarity,
    similarity: Similarity | None = None,
    output_format: OutputFormat = TablesOutput.output_format,
    every: float = NewPoints.every,
    once: bool = NewPoints.once,
) -> StreamingQuery:
    """Assign the points of a stream to exemplars, from now on.

    Parameters
    ----------
    points : DataFrame
        A stream (id, features array, other columns are left out) of any source of Spark's: files, Kafka, ...
    exemplars, min_similarity, similarity
        See `assign`.
    output : str
        A directory anywhere Spark can write: ``assigned/batch=N`` has the points of a batch (id, exemplar, label,
        similarity), ``batches/N.json`` its `Batch`, once it is whole.
    checkpoint : str
        Directory for Spark's checkpoint of the stream. With the same two directories the stream goes on where it
        was.
    output_format : {"parquet", "csv", "tsv", "json"}
    every : float
        Seconds from one batch to the next, at least 0.
    once : bool
        Assign what there is now, and end.

    Returns
    -------
    StreamingQuery
        A query that runs: ``query.awaitTermination()`` waits for its end, ``query.stop()`` ends it. A batch with points
        that break a rule ends it too, with an InputError in the text of its exception; the batch is tried again when
        the stream is started again.

    Raises
    ------
    InputError, SettingError
        See `assign`; or if the points are no stream, or the session is one of Spark Connect.
    OutputError
        If the output is of another stream or of another result, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> directory = tempfile.mkdtemp()
    >>> table = spark.createDataFrame([(0, [1.0]), (1, [8.0])], "id int, features array<double>")
    >>> table.write.parquet(f"{directory}/in")
    >>> points = spark.readStream.schema(table.schema).parquet(f"{directory}/in")
    >>> exemplars = spark.createDataFrame([("low", [2.0]), ("high", [9.0])], "id string, features array<double>")
    >>> query = assign_stream(points, exemplars, f"{directory}/out", f"{directory}/checkpoint", once=True)
    >>> query.awaitTermination()
    >>> spark.read.parquet(f"{directory}/out/assigned").orderBy("id").collect()
    [Row(id=0, exemplar='low', label=1, similarity=-1.0, batch=0),
     Row(id=1, exemplar='high', label=0, similarity=-1.0, batch=0)]
    """
    if not (isinstance(points, DataFrame) and points.isStreaming):
        raise SettingError("points must be a stream of Spark's, as spark.readStream makes: `assign` takes a table")
    if classic.is_connect(points.sparkSession):
        raise SettingError("streams are assigned on classic Spark, not on Spark Connect")
    chosen = NewPoints(
        min_similarity=min_similarity, stream=True, checkpoint=fspath(checkpoint), every=every, once=once
    )
    path = TablesOutput(output=fspath(output), output_format=output_format).output
    return start(
        points, lambda batch: (as_points(batch), ""), exemplars_of(exemplars, similarity), path, output_format, chosen
    )


def files_of(spark: SparkSession, directory: str) -> DataFrame:
    """Return the names of files as they arrive in a directory, as a stream (path)."""
    files = spark.readStream.format("binaryFile").schema(_FILE)
    with reading(repr(directory)):
        found = files.option("maxFilesPerTrigger", _FILES_A_BATCH).option("maxFileAge", _MAX_AGE).load(directory)
    return found.select("path")


def reader_of_files(source: PointsInput) -> Read:
    """Return a function that reads the points of the files that a batch names, as the command reads its INPUT."""
    how = asdict(source) | {"id_column": source.id_column or "id"}

    def read(batch: DataFrame) -> tuple[DataFrame, str] | None:
        paths = sorted({row.path for row in batch.collect()})
        as_they_are = [re.sub(r"([][{}*?\\])", r"\\\1", path) for path in paths]
        return (read_points(batch.sparkSession, as_they_are, **how), format_paths(paths)) if paths else None

    return read


def start(
    stream: DataFrame,
    read: Read,
    exemplars: Exemplars,
    output: str,
    output_format: str,
    chosen: NewPoints,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    apart: Sequence[Place] = (),
    tell: Callable[[Batch], None] = lambda batch: None,
) -> StreamingQuery:
    """Start to assign a stream.

    Parameters
    ----------
    stream : DataFrame
    read : callable
        Takes a batch of the stream, and returns its points (id, features), and where they are from, for a message;
        None if it has none.
    exemplars, output, output_format
        See `assign_stream`.
    chosen : NewPoints
    settings : mapping
        For the summary.
    apart : sequence of Place
        What the output and the checkpoint may not be, contain or lie in.
    tell : callable
        Called with the record of each batch.
    """
    assert chosen.checkpoint is not None
    about = {"output_format": output_format, "settings": {**settings, **asdict(chosen)}}
    store = _opened(stream.sparkSession, output, chosen.checkpoint, apart, exemplars, about)

    def assign_batch(batch: DataFrame, number: int) -> None:
        began = time.perf_counter()
        found = read(batch)
        if found is None or found[0].isEmpty():
            return
        points, source = found
        with _naming(f"batch {number}" + (f": {source}" if source else "")):
            table = assigned(points, exemplars, chosen.min_similarity)[0].persist()
            try:
                totals = totals_of(table)
                write_batch(table, f"{store}/assigned/batch={number}", output_format, totals.n_points)
            finally:
                table.unpersist()
        at, seconds = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter() - began
        record = Batch(number, at, **asdict(totals), seconds=round(seconds, 3))
        store.write_text(f"batches/{number}.json", json.dumps(asdict(record), allow_nan=False) + "\n")
        logger.info("batch %d: %s", number, totals)
        tell(record)

    writer = stream.writeStream.foreachBatch(assign_batch).option("checkpointLocation", chosen.checkpoint)
    if chosen.once:
        return writer.trigger(availableNow=True).start()
    return writer.trigger(processingTime=f"{chosen.every} seconds").start()


@contextmanager
def _naming(batch: str) -> Iterator[None]:
    """Add to an InputError which batch it is of, and which files."""
    try:
        with errors_from_tasks():
            yield
    except InputError as error:
        raise InputError(f"{error} ({batch})") from None


def _opened(
    spark: SparkSession,
    output: str,
    checkpoint: str,
    apart: Sequence[Place],
    exemplars: Exemplars,
    about: dict[str, Any],
) -> Store:
    """Return the directory of the output, once it is known that it and the checkpoint are of one stream, or new.

    Raises
    ------
    OutputError
        If they are not, or are of another result; if they don't lie apart, or cannot be written.
    """
    try:
        store, state = Store(spark, output), Store(spark, checkpoint)
        for directory in (store, state):
            directory.check_writable(f".ap-spark.probing.{secrets.token_hex(8)}")
    except OSError as error:
        raise OutputError(
            f"the output and the checkpoint must be directories that can be written, but {error}"
        ) from error
    places = Place.of("the output", store), Place.of("the checkpoint", state)
    if found := conflict(places[0], [places[1], *apart]) or conflict(places[1], apart):
        raise OutputError(f"the output and the checkpoint must lie apart from all else, but {found}: choose others")
    known, there = _json(store, SUMMARY), store.names()
    if known.get("stream") and known["stream"] == _json(state, _MARK).get("stream"):
        if known["exemplars"] != exemplars.fingerprint:
            raise OutputError(
                f"a stream has one result from its beginning to its end, but {store} has labels of another one: choose "
                "another output and another checkpoint"
            )
        return store
    if there and not (there == [SUMMARY] and known.get("stream")):  # one that was killed when it had just begun
        raise OutputError(
            f"the output must not exist yet, or be of the stream that {state} is the checkpoint of, but {store} is "
            "neither: give the checkpoint it was begun with, or choose another directory for each"
        )
    if state.names():
        of = _json(state, _MARK).get("output", "another query")
        raise OutputError(
            f"the checkpoint must not exist yet, or be of this output, but {state} is of {of}: choose another "
            "directory for each"
        )
    stream = secrets.token_hex(8)
    summary = {"format": FORMAT, "stream": stream, "exemplars": exemplars.fingerprint, "n_exemplars": len(exemplars)}
    summary |= about | {"versions": {"ap_spark": __version__, "spark": spark.version}}
    store.write_text(SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    state.write_text(_MARK, json.dumps({"stream": stream, "output": str(store)}) + "\n")
    return store


def _json(store: Store, name: str) -> dict[str, Any]:
    """Return a small file that holds a JSON object; an empty one for anything else."""
    try:
        found = json.loads(store.read_text(name) or "null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
