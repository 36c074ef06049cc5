"""Points to their nearest neighbours: who is compared with whom, spread over Spark tasks.

Points travel in packs, a row for many of them, which come together in groups; a task searches a group at a time.

    exact        every part of those that ask meets every shard of those that are asked
    approximate  points lie in cells; those that ask, a region of cells at a time, meet all cells they look into
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from pyspark.sql import Column, DataFrame, SparkSession, Window

from ap_spark._spark import classic
from ap_spark.errors import SettingError
from ap_spark.settings import Search, Similarity
from ap_spark.similarity.all_pairs import check_vectors
from ap_spark.similarity.knn_exact import Found, Positions, nearest, nearest_by, without_copies
from ap_spark.similarity.knn_ivf import (
    TRAINING,
    Cells,
    cells_that_hold,
    cells_to_probe,
    flat_index,
    k_means,
    nearest_in_cells,
    train,
)
from ap_spark.similarity.metrics import Floats, Metric, PairFunction, metric_of
from ap_spark.similarity.pairs import Pairs, Transform

__all__ = ["Neighbors", "find_neighbors", "nearest_neighbors"]

logger = logging.getLogger(__name__)

# auto is exact for 200,000 points in 16 dimensions, and as much work otherwise; and where a k-d tree finds at once
EXACT_WORK = 200_000**2 * 16
FLAT_DIMENSIONS, FLAT_POINTS = 3, 5_000_000
PACK_BYTES = 4 * 2**20  # vectors in one row
SHARD_BYTES = 128 * 2**20  # vectors that are asked in one task
POINTS_ASKING = 50_000  # points that ask in one task, about, at most
FOUND = 5_000_000  # neighbours that one task finds, about, at most
A_BATCH = 500_000  # pairs found that are worked on together
TRAINING_BYTES = 2**29  # vectors on which the driver trains the cells, at most
SAMPLE = 1000  # points on which the recall is measured


@dataclass(frozen=True)
class Neighbors:
    """The nearest neighbours of each point.

    Attributes
    ----------
    edges : DataFrame
        (i, k, s): k is one of the nearest neighbours of i.
    search : {"exact", "approximate"}
        The search that was used.
    recall : float
        The share of the true neighbours that are found, on a sample of points; 1.0 for the exact search.
    """

    edges: DataFrame
    search: Search
    recall: float


def nearest_neighbors(
    points: DataFrame,
    neighbors: int,
    *,
    metric: str | PairFunction = Similarity.metric,
    width: float | None = Similarity.width,
    search: Search = Similarity.search,
    recall: float = Similarity.recall,
) -> Neighbors:
    """The nearest neighbours of each point, and how similar they are.

    Parameters
    ----------
    points : DataFrame
        (id, features), as `make_points` gives it: unique ids, arrays of numbers, finite, of one length. It is read
        several times: persist it if that is expensive, or not the same each time.
    neighbors : int
        Neighbours of each point, at least 1; all others where there are not as many. Of equally near ones those with
        the smallest ids.
    metric : str or callable
        See `similarities`.
    width : float, optional
        Of the metric "gaussian".
    search : {"auto", "exact", "approximate"}
        "approximate" needs faiss-cpu (the extra ``approximate``). "auto" is exact while that is cheap: for 200,000
        points in 16 dimensions and as much work otherwise, for 5 million in up to 3 dimensions, and where the
        approximate search cannot be had.
    recall : float
        Share of the true neighbours that the approximate search has to find, in (0, 1].

    Returns
    -------
    Neighbors
        With n min(N, n - 1) edges for n points and N neighbours. Whatever the search, s is exact, in float64.

    Raises
    ------
    InputError
        If a vector has no similarity under this metric: zero for cosine, constant for correlation; or if features are
        so large, or all so small, that 64-bit floats don't hold their similarities.
    SettingError
        If a parameter is outside its range, or the approximate search is asked for where it cannot be had.

    Notes
    -----
    The approximate search is an inverted file (Jégou, Douze & Schmid, Product quantization for nearest neighbor
    search, 2011, section IV) whose cells are spread over Spark tasks, searched exactly. How many cells a point looks
    into follows from a sample of points, whose true neighbours are found first.

    Examples
    --------
    >>> points = spark.createDataFrame([(0, [0.0]), (1, [1.0]), (2, [3.0])], "id int, features array<double>")
    >>> nearest_neighbors(points, 1).edges.orderBy("i").collect()
    [Row(i=0, k=1, s=-1.0), Row(i=1, k=0, s=-1.0), Row(i=2, k=1, s=-4.0)]
    """
    pairs, used, reached = find_neighbors(points, neighbors, metric, width, search, recall)
    return Neighbors(pairs.frame, used, reached)


def find_neighbors(
    points: DataFrame,
    neighbors: int,
    metric: str | PairFunction,
    width: float | None,
    search: Search,
    recall: float,
) -> tuple[Pairs, Search, float]:
    """`nearest_neighbors`, for tasks to go on with: the pairs, the search that was used, and the recall."""
    Similarity(neighbors=neighbors, search=search, recall=recall)
    by = metric_of(metric, width)
    if neighbors is None:
        raise SettingError("neighbors must be at least 1, got None: `similarities` computes all pairs")
    points, count, dimensions = check_vectors(points, by)
    neighbors = max(1, min(neighbors, count - 1))
    if choose_search(search, by, count, dimensions) == "exact":
        parts = parts_of(points, count, dimensions, neighbors)
        shards = -(-count * dimensions * 8 // SHARD_BYTES)
        return exact(points, points, parts, shards, neighbors, by), "exact", 1.0
    assert isinstance(by, Metric)
    pairs, reached = approximate(points, count, dimensions, neighbors, by, recall)
    return pairs, "approximate", reached


def choose_search(search: Search, metric: Metric | PairFunction, count: int, dimensions: int) -> Search:
    """Exact or approximate."""
    wanted: Search = search
    if search == "auto":
        flat = dimensions <= FLAT_DIMENSIONS and count <= FLAT_POINTS
        wanted = "exact" if flat or count * count * dimensions <= EXACT_WORK else "approximate"
    if wanted == "exact":
        return "exact"
    if not isinstance(metric, Metric) or metric.space == "dot":
        name = "dot" if isinstance(metric, Metric) else "a function"
        obstacle = f"it needs a metric that is a distance, not {name}: use search exact"
    elif find_spec("faiss") is None:
        obstacle = "it needs faiss: pip install 'ap-spark[approximate]'"
    else:
        return "approximate"
    if search == "approximate":
        raise SettingError(f"search approximate is not possible here: {obstacle}")
    logger.warning("searching %s points exactly, which takes long: for an approximate search %s", count, obstacle)
    return "exact"


def exact(
    queries: DataFrame, points: DataFrame, parts: int, shards: int, n: int, metric: Metric | PairFunction
) -> Pairs:
    """The neighbours of the queries among the points."""
    group = (F.col("part") * F.lit(shards) + F.col("shard")).alias("group")
    asking = pack(queries, bucket(parts), metric).select(
        F.col("cell").alias("part"), each_of(shards).alias("shard"), "cell", "ids", "vectors"
    )
    asked = pack(points, bucket(shards), metric, copies=n + 1).select(
        each_of(parts).alias("part"), F.col("cell").alias("shard"), "cell", "ids", "vectors"
    )
    packs = [table.select(group, "cell", "ids", "vectors") for table in (asking, asked)]

    def search(x: Floats, y: Floats, own: Positions, cell: Positions) -> Found:
        return nearest(x, y, own, n, metric) if isinstance(metric, Metric) else nearest_by(metric, x, y, own, n)

    return meet(packs[0], packs[1], parts * shards, metric, search, best_of=n if shards > 1 else None)


def approximate(
    points: DataFrame, count: int, dimensions: int, n: int, metric: Metric, recall: float
) -> tuple[Pairs, float]:
    """The neighbours of each point in the cells nearest to it, as many as the recall asks for; and the recall."""
    spark = points.sparkSession
    number = max(1, 4 * math.isqrt(count))
    training = sample(points, count, min(TRAINING * number, TRAINING_BYTES // (8 * dimensions)))
    cells = train(metric.prepare(matrix(training.toArrow().sort_by("id"))), number)
    kind = points.schema["id"].dataType.simpleString()

    def placed(some: DataFrame) -> DataFrame:
        return some.select("id", "features").mapInArrow(
            partial(place, cells=cells, metric=metric), f"id {kind}, features array<double>, cell int"
        )

    some = sample(points, count, SAMPLE)
    shards = max(2 * classic.cores(spark), -(-count * dimensions * 8 // SHARD_BYTES))
    truth = exact(some, points, 1, shards, n, metric).frame.select("i", F.col("k").alias("id")).toArrow()
    true = spark.createDataFrame(pa.table({"id": truth["id"].unique()}))
    cell_of = placed(points.join(F.broadcast(true), "id")).select("id", "cell").toArrow()
    rows = some.toArrow().sort_by("id")
    row = pc.index_in(truth["i"], rows["id"]).to_numpy()
    cell = cell_of["cell"].to_numpy()[pc.index_in(truth["id"], cell_of["id"]).to_numpy()]
    probes, reached = cells_to_probe(cells, metric.prepare(matrix(rows)), row, cell, recall)
    logger.info("%s cells, %d of them searched for each point: recall %.4f", f"{len(cells):,}", probes, reached)

    parts = parts_of(points, count, dimensions, n)
    region = regions_of(cells, parts)
    seen = placed(points).mapInArrow(
        partial(look_around, cells=cells, metric=metric, region=region, probes=probes),
        "region int, cell int, count bigint",
    )
    counts = seen.groupBy("region", "cell").agg(F.sum("count").alias("count")).toArrow().to_pandas()
    sizes = counts.loc[counts["count"] > 0, ["cell", "count"]]
    cell, near = cells_that_hold(cells, sizes["cell"].to_numpy(), sizes["count"].to_numpy(), n + 1)
    enough = pd.DataFrame({"region": region[cell], "cell": near})
    looked_into = pd.concat([counts[["region", "cell"]], enough]).drop_duplicates()
    asks, answers = group_packs(region, sizes, looked_into, dimensions, -(-count // parts))
    asking = pack(placed(points), F.col("cell"), metric).join(from_driver(spark, asks), ["cell", "piece"])
    asked = pack(placed(points), F.col("cell"), metric, copies=n + 1).join(from_driver(spark, answers), "cell")
    packs = [table.select("group", "cell", "ids", "vectors") for table in (asking, asked)]

    def search(x: Floats, y: Floats, own: Positions, cell: Positions) -> Found:
        return nearest_in_cells(x, y, own, n, metric, cells, cell, probes)

    shards = int(answers["shard"].max()) + 1
    groups = int(asks["group"].max()) + 1
    return meet(packs[0], packs[1], groups, metric, search, best_of=n if shards > 1 else None), reached


def from_driver(spark: SparkSession, table: pd.DataFrame) -> DataFrame:
    """A small table, sent to every executor."""
    return F.broadcast(spark.createDataFrame(pa.Table.from_pandas(table, preserve_index=False)))


def parts_of(points: DataFrame, count: int, dimensions: int, n: int) -> int:
    """In how many parts so many points ask: enough for all cores, and not too much for a task."""
    a_task = max(1, min(POINTS_ASKING, SHARD_BYTES // (8 * dimensions), FOUND // n))
    return max(-(-count // a_task), min(4 * classic.cores(points.sparkSession), -(-count // 1000)))


def bucket(number: int) -> Column:
    """One of so many buckets, by the id: the same on every machine."""
    return F.pmod(F.xxhash64("id"), F.lit(number)).cast("int")


def sample(points: DataFrame, count: int, wanted: int) -> DataFrame:
    """About so many of the points, chosen by their ids."""
    return points.where(bucket(count) < wanted).select("id", "features")


def each_of(number: int) -> Column:
    """A row for each number from 0."""
    return F.explode(F.sequence(F.lit(0), F.lit(number - 1)))


def place(batches: Iterable[pa.RecordBatch], *, cells: Cells, metric: Metric) -> Iterator[pa.RecordBatch]:
    """Add the cell of each point."""
    for batch in batches:
        cell = cells.place(metric.prepare(matrix(batch)))
        yield batch.append_column("cell", pa.array(cell, pa.int32()))


def look_around(
    batches: Iterable[pa.RecordBatch], *, cells: Cells, metric: Metric, region: Positions, probes: int
) -> Iterator[pa.RecordBatch]:
    """The cells that points look into, and lie in: (region of the point, cell, points of the region in it)."""
    seen = np.zeros((region.max() + 1, len(cells)), dtype=bool)
    counts = np.zeros(len(cells), dtype=np.int64)
    for batch in batches:
        own = batch["cell"].to_numpy()
        near = cells.nearest(metric.prepare(matrix(batch)), probes)
        seen[region[own, None], near] = seen[region[own], own] = True
        counts += np.bincount(own, minlength=len(cells))
    some_region, cell = np.nonzero(seen)
    count = np.where(region[cell] == some_region, counts[cell], 0)
    columns = [pa.array(some_region, pa.int32()), pa.array(cell, pa.int32()), pa.array(count)]
    yield pa.RecordBatch.from_arrays(columns, names=["region", "cell", "count"])


def regions_of(cells: Cells, number: int) -> Positions:
    """The region of each cell: so many groups of cells that lie together."""
    index = flat_index(k_means(cells.centroids, number))
    return np.asarray(index.search(cells.centroids, 1)[1][:, 0])


def group_packs(
    region: Positions, sizes: pd.DataFrame, seen: pd.DataFrame, dimensions: int, points_asking: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Which packs come together.

    A region is one group, unless its points or the points they ask are too many: then parts of it meet shards.

    Parameters
    ----------
    region : array of int64
        The region of each cell.
    sizes : (cell, count)
    seen : (region, cell)
        The cells that points of a region look into.
    dimensions, points_asking : int
        Of the vectors; about how many points ask together.

    Returns
    -------
    asks : (cell, piece, group)
    answers : (cell, shard, group)
    """
    a_pack = max(1, PACK_BYTES // (8 * dimensions))
    pieces = -(-sizes["count"] // a_pack)
    asks = sizes.loc[sizes.index.repeat(pieces), ["cell"]].sort_values("cell", ignore_index=True)
    asks["piece"] = asks.groupby("cell").cumcount()
    asks["region"] = region[asks["cell"]]
    counts = sizes.set_index("cell")["count"]
    points = (asks["cell"].map(counts) - asks["piece"] * a_pack).clip(upper=a_pack)
    asks["part"] = (points.groupby(asks["region"]).cumsum() - points) // points_asking
    answers = seen[seen["cell"].isin(counts.index)].sort_values(["region", "cell"], ignore_index=True)  # not empty ones
    weight = answers["cell"].map(counts) * dimensions * 8
    answers["shard"] = (weight.groupby(answers["region"]).cumsum() - weight) // SHARD_BYTES
    groups = asks[["region", "part"]].drop_duplicates().merge(answers[["region", "shard"]].drop_duplicates())
    groups["group"] = np.arange(len(groups))
    asks = asks.merge(groups)[["cell", "piece", "group"]].astype("int32")
    return asks, answers.merge(groups)[["cell", "shard", "group"]].astype("int32")


def pack(points: DataFrame, cell: Column, metric: Metric | PairFunction, *, copies: int | None = None) -> DataFrame:
    """The points of a cell in a few rows: (cell, piece, ids array, vectors binary), by id.

    Vectors are prepared by the metric; of equal ones in a cell only the first ``copies`` are kept.
    """
    kind = points.schema["id"].dataType.simpleString()
    most_bytes = PACK_BYTES

    def packed(table: pa.Table) -> pa.Table:  # Spark reads the types
        return pack_cell(table, metric, copies, most_bytes)

    cells = points.select(cell.alias("cell"), "id", "features").groupBy("cell")
    return cells.applyInArrow(packed, f"cell int, piece int, ids array<{kind}>, vectors binary")


def pack_cell(table: pa.Table, metric: Metric | PairFunction, copies: int | None, most_bytes: int) -> pa.Table:
    table = table.sort_by("id")
    ids, vectors = table["id"].combine_chunks(), matrix(table)
    if isinstance(metric, Metric):
        vectors = metric.prepare(vectors)
    if copies is not None:
        kept = without_copies(vectors, copies)
        ids, vectors = ids.take(pa.array(kept)), vectors[kept]
    starts = range(0, len(ids), max(1, most_bytes // (8 * vectors.shape[1])))
    ends = [*starts[1:], len(ids)]
    return pa.table(
        {
            "cell": pa.array([table["cell"][0].as_py()] * len(starts), pa.int32()),
            "piece": pa.array(range(len(starts)), pa.int32()),
            "ids": pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), ids),
            "vectors": pa.array(
                [vectors[start:end].tobytes() for start, end in zip(starts, ends, strict=True)], pa.binary()
            ),
        }
    )


def meet(
    asking: DataFrame,
    asked: DataFrame,
    groups: int,
    metric: Metric | PairFunction,
    search: Callable[[Floats, Floats, Positions, Positions], Found],
    best_of: int | None,
) -> Pairs:
    """Search in each group.

    Parameters
    ----------
    asking, asked : DataFrame
        (group, cell, ids, vectors).
    search : callable
        Of the vectors asking, the vectors asked, which of these are the former, and the cell of each of these.
    best_of : int, optional
        Points ask in several groups: take so many in all.
    """
    kind = dict(asking.dtypes)["ids"].removeprefix("array<").removesuffix(">")

    def in_group(some: pa.Table, others: pa.Table) -> pa.Table:
        if not len(some) or not len(others):
            nobody, none = pa.array([], some["ids"].type.value_type), pa.array([], pa.float64())
            return pa.table({"i": nobody, "k": nobody, "s": none, "closeness": none})
        (i, x, _), (k, y, cell) = unpack(some), unpack(others)
        own = pc.fill_null(pc.index_in(i, k), -1).to_numpy().astype(np.int64)
        row, neighbor, closeness = search(x, y, own, cell)
        s = metric.similarity(closeness) if isinstance(metric, Metric) else closeness
        return pa.table({"i": i.take(pa.array(row)), "k": k.take(pa.array(neighbor)), "s": s, "closeness": closeness})

    left, right = (packs.repartition(groups, "group").groupBy("group") for packs in (asking, asked))
    groups_that_meet = left.cogroup(right)
    if best_of is not None:
        rank = F.row_number().over(Window.partitionBy("i").orderBy(F.desc("closeness"), "k"))
        found = groups_that_meet.applyInArrow(in_group, f"i {kind}, k {kind}, s double, closeness double")
        best = found.withColumn("rank", rank).where(F.col("rank") <= best_of).select("i", "k", "s")
        return Pairs(best.mapInArrow, kind, best.sparkSession)

    def then(transform: Transform, columns: str) -> DataFrame:
        def task(some: pa.Table, others: pa.Table) -> pa.Table:
            pairs = in_group(some, others).select(["i", "k", "s"]).combine_chunks()
            batches = pairs.to_batches(max_chunksize=A_BATCH) or [pa.RecordBatch.from_pylist([], pairs.schema)]
            return pa.Table.from_batches(transform(batches))

        return groups_that_meet.applyInArrow(task, columns)

    return Pairs(then, kind, asking.sparkSession)


def unpack(packs: pa.Table) -> tuple[pa.Array, Floats, Positions]:
    """Ids, vectors and cells of packs, by id."""
    ids = pc.list_flatten(packs["ids"]).combine_chunks()
    vectors = np.frombuffer(b"".join(packs["vectors"].to_pylist())).reshape(len(ids), -1)
    cell = packs["cell"].to_numpy().astype(np.int64).repeat(pc.list_value_length(packs["ids"]).to_numpy())
    order = pc.sort_indices(ids)
    return ids.take(order), vectors[order.to_numpy()], cell[order.to_numpy()]


def matrix(points: pa.Table | pa.RecordBatch) -> Floats:
    """The features as an array of shape (n, d)."""
    return np.asarray(pc.list_flatten(points["features"])).reshape(len(points), -1)
