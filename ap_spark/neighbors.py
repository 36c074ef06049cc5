"""Points to their nearest neighbours: who is compared with whom, spread over Spark tasks.

Points travel in packs, a row for many of them. In a task the packs that came together are searched by `nearest.py`.

    exact        packs of points that ask meet all packs of points to be found
    approximate  points lie in cells around centroids; those that ask meet the packs of the cells nearest to their own
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as F
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, Window

from ap_spark import classic
from ap_spark.errors import SettingError
from ap_spark.metrics import Floats, Metric, PairFunction, metric_of, minus_squares
from ap_spark.nearest import nearest, nearest_by, without_copies
from ap_spark.settings import Similarity
from ap_spark.similarity import check_vectors

__all__ = ["Neighbors", "nearest_neighbors"]

logger = logging.getLogger(__name__)

EXACT_POINTS = 200_000  # auto: up to this many points, exact
EXACT_DIMENSIONS = 3  # and with so few dimensions, at any number: there a k-d tree looks at next to nothing
PACK = 20_000  # points that ask together
SHARD_BYTES = 64 * 2**20  # vectors to be found that lie in one pack
POINTS_A_CELL = 1000
MOST_CELLS = 50_000
CELLS_TOGETHER = 16  # cells whose points ask in one task: their nearest cells are mostly the same
TRAINING = 64  # points for each centroid
FEW = 4  # centroids among which the nearest is chosen in 64 bits
SAMPLE = 1000  # points on which the recall is measured
MOST_TASKS = 2000


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
    search: str
    recall: float


def nearest_neighbors(
    points: DataFrame,
    neighbors: int,
    *,
    metric: str | PairFunction = Similarity.metric,
    width: float | None = Similarity.width,
    search: str = Similarity.search,
    recall: float = Similarity.recall,
) -> Neighbors:
    """The nearest neighbours of each point, and how similar they are.

    Parameters
    ----------
    points : DataFrame
        (id, features array<double>), as `make_points` gives it: unique ids, finite values, one length. It is read
        several times: persist it if that is expensive.
    neighbors : int
        Neighbours of each point, at least 1; all others where there are not as many. Of equally near ones those with
        the smallest ids.
    metric : str or callable
        See `similarities`.
    width : float, optional
        Of the metric "gaussian".
    search : {"auto", "exact", "approximate"}
        "approximate" needs faiss-cpu (the extra ``approximate``). "auto" is exact up to 200,000 points and for up to 3
        dimensions, or where the approximate search cannot be had.
    recall : float
        Share of the true neighbours that the approximate search has to find, in (0, 1].

    Returns
    -------
    Neighbors
        With n N edges for n points and N neighbours. Whatever the search, s is exact, in float64.

    Raises
    ------
    InputError
        If a vector has no similarity under this metric: zero for cosine, constant for correlation.
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
    Similarity(neighbors=neighbors, search=search, recall=recall)
    by = metric_of(metric, width)
    count, dimensions = check_vectors(points, by)
    if choose_search(search, by, count, dimensions) == "exact":
        return Neighbors(exact(points, points, count, dimensions, neighbors, by), "exact", 1.0)
    assert isinstance(by, Metric)
    return approximate(points, count, dimensions, neighbors, by, recall)


def choose_search(search: str, metric: Metric | PairFunction, count: int, dimensions: int) -> str:
    """Exact or approximate."""
    wanted = search
    if search == "auto":
        wanted = "exact" if count <= EXACT_POINTS or dimensions <= EXACT_DIMENSIONS else "approximate"
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
    queries: DataFrame,
    points: DataFrame,
    count: int,
    dimensions: int,
    n: int,
    metric: Metric | PairFunction,
    shards: int = 1,
) -> DataFrame:
    """The neighbours of the queries among ``count`` points: every pack of the ones meets every pack of the others."""
    shards = max(shards, -(-count * dimensions * 8 // SHARD_BYTES))
    parts = max(-(-count // PACK), min(4 * classic.cores(points.sparkSession), -(-count // 1000)))
    group = (F.col("part") * F.lit(shards) + F.col("cell")).alias("group")
    asking = (
        pack(queries, bucket(parts), metric)
        .withColumn("part", F.col("cell"))
        .withColumn("cell", each_of(shards))
        .select(group, F.array("cell").alias("near"), "ids", "vectors")
    )
    asked = (
        pack(points, bucket(shards), metric, copies=n + 1)
        .withColumn("part", each_of(parts))
        .select(group, "cell", "ids", "vectors")
    )
    found = meet(asking, asked, parts * shards, n, metric)
    if shards > 1:
        rank = F.row_number().over(Window.partitionBy("i").orderBy(F.desc("closeness"), "k"))
        found = found.withColumn("rank", rank).where(F.col("rank") <= n)
    return found.select("i", "k", "s")


def bucket(number: int) -> Column:
    """One of so many buckets, by the id: the same on every machine."""
    return F.pmod(F.xxhash64("id"), F.lit(number)).cast("int")


def each_of(number: int) -> Column:
    """A row for each number from 0."""
    return F.explode(F.sequence(F.lit(0), F.lit(number - 1)))


def approximate(points: DataFrame, count: int, dimensions: int, n: int, metric: Metric, recall: float) -> Neighbors:
    """The neighbours of each point in the cells nearest to its own, as many of them as the recall asks for."""
    spark = points.sparkSession
    number = min(max(1, count // POINTS_A_CELL), MOST_CELLS)
    cells = train(metric.prepare(matrix(sample(points, count, TRAINING * number).toArrow().sort_by("id"))), number)
    kind = points.schema["id"].dataType.simpleString()
    placed = points.select("id", "features").mapInArrow(
        partial(place, cells=cells, metric=metric), f"id {kind}, features array<double>, cell int"
    )
    queries = sample(points, count, SAMPLE)
    truth = exact(queries, points, count, dimensions, n, metric, shards=2 * classic.cores(spark))
    near, reached = cells_to_search(cells, cells_of_pairs(truth, placed), recall)
    logger.info("%s cells, %d searched for each point: recall %.4f", f"{number:,}", near.shape[1], reached)

    sizes = placed.groupBy("cell").count().toArrow()
    asks, answers = group_cells(cells, near, sizes["cell"].to_numpy(), sizes["count"].to_numpy())
    asking = (
        pack(placed, F.col("cell"), metric, size=PACK)
        .join(F.broadcast(spark.createDataFrame(asks)), ["cell", "piece"])
        .select("group", "near", "ids", "vectors")
    )
    asked = (
        pack(placed, F.col("cell"), metric, copies=n + 1)
        .join(F.broadcast(spark.createDataFrame(answers)), "cell")
        .select("group", "cell", "ids", "vectors")
    )
    groups = pc.max(asks["group"]).as_py() + 1
    return Neighbors(meet(asking, asked, groups, n, metric).select("i", "k", "s"), "approximate", reached)


def sample(points: DataFrame, count: int, wanted: int) -> DataFrame:
    """About so many of the points, chosen by their ids."""
    return points.where(bucket(count) < wanted).select("id", "features")


# Cells


@dataclass(frozen=True)
class Cells:
    """Centroids; a point lies in the cell of the nearest.

    Attributes
    ----------
    center : array of float64, shape (d,)
    spread : float
        What is taken from, and what then divides, the vectors before they are compared, since faiss has 32 bits.
    centroids : array of float32, shape (cells, d)
        Of vectors so treated.
    """

    center: Floats
    spread: float
    centroids: NDArray[np.float32]

    def reduced(self, vectors: Floats) -> NDArray[np.float32]:
        return np.ascontiguousarray((vectors - self.center) / self.spread, dtype=np.float32)


def train(vectors: Floats, number: int) -> Cells:
    """Centroids of k-means on some of the vectors."""
    center = np.median(vectors, axis=0)
    cells = Cells(center, float(np.abs(vectors - center).max()) or 1.0, np.empty((0, vectors.shape[1]), np.float32))
    return replace(cells, centroids=k_means(cells.reduced(vectors), number))


def k_means(vectors: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """So many centroids, or as many as there are vectors."""
    import faiss  # an extra

    trained = faiss.Kmeans(
        vectors.shape[1],
        min(number, len(vectors)),
        niter=10,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING,
    )
    trained.train(vectors)
    return np.asarray(trained.centroids)


def index_of(vectors: NDArray[np.float32]) -> Any:
    """A faiss index of all vectors, to be searched by brute force."""
    import faiss

    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def place(batches: Iterable[pa.RecordBatch], *, cells: Cells, metric: Metric) -> Iterator[pa.RecordBatch]:
    """Add the cell of each point."""
    index = index_of(cells.centroids)
    columns = np.ascontiguousarray(cells.centroids.T, dtype=np.float64)
    for batch in batches:
        if not len(batch):
            continue
        x = cells.reduced(metric.prepare(matrix(batch)))
        # The search adds in an order of its own: of the first few the nearest is found anew, in a fixed one.
        few = np.sort(index.search(x, min(FEW, len(cells.centroids)))[1], axis=1)
        closeness = minus_squares(x.astype(np.float64).T[:, :, None], columns[:, few])
        cell = np.take_along_axis(few, closeness.argmax(axis=1)[:, None], axis=1)[:, 0]
        yield pa.RecordBatch.from_arrays(
            [batch["id"], batch["features"], pa.array(cell, pa.int32())], names=["id", "features", "cell"]
        )


def cells_of_pairs(pairs: DataFrame, placed: DataFrame) -> pa.Table:
    """For each point i of the pairs and each of its k: (i, cell of i, cell of k)."""
    of_i = placed.select(F.col("id").alias("i"), F.col("cell").alias("from"))
    of_k = placed.select(F.col("id").alias("k"), F.col("cell").alias("to"))
    # The pairs are few.
    return of_i.join(of_k.join(F.broadcast(pairs), "k"), "i").select("i", "from", "to").toArrow()


def cells_to_search(cells: Cells, truth: pa.Table, recall: float) -> tuple[NDArray[np.int32], float]:
    """For each cell the nearest cells, itself first, as many as reach the recall on the sample; and that recall.

    The mean recall has to lie two standard errors above what is asked for, or all cells are searched.
    """
    start, end = truth["from"].to_numpy(), truth["to"].to_numpy()
    rank = np.empty(len(truth), dtype=np.int64)
    for cell in np.unique(start):
        here = start == cell
        rank[here] = np.argsort(nearest_cells(cells, np.array([cell]), len(cells.centroids))[0])[end[here]]
    row = truth["i"].combine_chunks().dictionary_encode().indices.to_numpy()
    for number in range(1, len(cells.centroids) + 1):
        shares = np.bincount(row, weights=rank < number) / np.bincount(row)
        if shares.mean() - 2.0 * shares.std() / np.sqrt(len(shares)) >= recall:
            break
    return nearest_cells(cells, np.arange(len(cells.centroids)), number), float(shares.mean())


def nearest_cells(cells: Cells, which: NDArray[Any], number: int) -> NDArray[np.int32]:
    """For some cells so many of the cells nearest to them, each itself first: shape (len(which), number)."""
    found = index_of(cells.centroids).search(cells.centroids[which], number)[1]
    others = np.argsort(found == which[:, None], axis=1, kind="stable")  # itself last, if found
    return np.column_stack([which, np.take_along_axis(found, others, axis=1)[:, : number - 1]]).astype(np.int32)


def group_cells(
    cells: Cells, near: NDArray[np.int32], cell: NDArray[np.int32], size: NDArray[np.int64]
) -> tuple[pa.Table, pa.Table]:
    """Which packs come together in one task.

    Returns
    -------
    asks : (cell, piece, group, near)
        The group of each pack of points that ask, PACK of a cell at most, and the cells they look into.
    answers : (cell, group)
        The groups that a cell's points are sent to.
    """
    regions = k_means(cells.centroids, max(1, len(cells.centroids) // CELLS_TOGETHER))
    region = index_of(regions).search(cells.centroids, 1)[1][:, 0]
    pieces = -(-size // PACK)
    cell, piece = np.repeat(cell, pieces), np.concatenate([np.arange(number) for number in pieces])
    _, group = np.unique(np.stack([region[cell], piece]), axis=1, return_inverse=True)
    asks = pa.table(
        {
            "cell": cell,
            "piece": piece.astype(np.int32),
            "group": group.astype(np.int32),
            "near": pa.array(list(near[cell])),
        }
    )
    pairs = np.unique(np.stack([near[cell].ravel(), np.repeat(group, near.shape[1]).astype(np.int32)]), axis=1)
    return asks, pa.table({"cell": pairs[0], "group": pairs[1]})


# Packs


def pack(
    points: DataFrame,
    cell: Column,
    metric: Metric | PairFunction,
    *,
    size: int | None = None,
    copies: int | None = None,
) -> DataFrame:
    """The points of a cell in one row, or ``size`` a row: (cell, piece, ids array, vectors binary), by id.

    Vectors are prepared by the metric; of equal ones only the first ``copies`` are kept.
    """
    kind = points.schema["id"].dataType.simpleString()

    def packed(table: pa.Table) -> pa.Table:  # Spark reads the types
        return pack_cell(table, metric, size, copies)

    cells = points.select(cell.alias("cell"), "id", "features").groupBy("cell")
    return cells.applyInArrow(packed, f"cell int, piece int, ids array<{kind}>, vectors binary")


def pack_cell(table: pa.Table, metric: Metric | PairFunction, size: int | None, copies: int | None) -> pa.Table:
    table = table.sort_by("id")
    ids, vectors = table["id"].combine_chunks(), matrix(table)
    if isinstance(metric, Metric):
        vectors = metric.prepare(vectors)
    if copies is not None:
        kept = without_copies(vectors, copies)
        ids, vectors = ids.take(pa.array(kept)), vectors[kept]
    starts = range(0, len(ids), size or len(ids))
    ends = [*starts[1:], len(ids)]
    return pa.table(
        {
            "cell": table["cell"].slice(0, 1).combine_chunks().take(pa.array([0] * len(starts))),
            "piece": pa.array(range(len(starts)), pa.int32()),
            "ids": pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), ids),
            "vectors": pa.array(
                [vectors[start:end].tobytes() for start, end in zip(starts, ends, strict=True)], pa.binary()
            ),
        }
    )


def matrix(points: pa.Table | pa.RecordBatch) -> Floats:
    """The features as an array of shape (n, d)."""
    return np.asarray(pc.list_flatten(points["features"])).reshape(len(points), -1)


def meet(asking: DataFrame, asked: DataFrame, groups: int, n: int, metric: Metric | PairFunction) -> DataFrame:
    """The neighbours of those who ask, (group, near, ids, vectors), among the asked, (group, cell, ids, vectors).

    Returns (i, k, s, closeness).
    """
    kind = dict(asking.dtypes)["ids"].removeprefix("array<").removesuffix(">")
    tasks = min(groups, MOST_TASKS)
    left, right = (packs.repartition(tasks, "group").groupBy("group") for packs in (asking, asked))
    return left.cogroup(right).applyInArrow(
        partial(search_group, n=n, metric=metric), f"i {kind}, k {kind}, s double, closeness double"
    )


def search_group(asking: pa.Table, asked: pa.Table, *, n: int, metric: Metric | PairFunction) -> pa.Table:
    packs = {cell: number for number, cell in enumerate(asked["cell"].to_pylist())}
    found = []
    for number in range(len(asking)):
        ids, x = unpack(asking, [number])
        others, y = unpack(asked, [packs[cell] for cell in asking["near"][number].as_py() if cell in packs])
        own = pc.fill_null(pc.index_in(ids, others), -1).to_numpy().astype(np.int64)
        if isinstance(metric, Metric):
            row, neighbor, closeness = nearest(x, y, own, n, metric)
            s = metric.similarity(closeness)
        else:
            row, neighbor, closeness = nearest_by(metric, x, y, own, n)
            s = closeness
        i, k = ids.take(pa.array(row)), others.take(pa.array(neighbor))
        found.append(pa.table({"i": i, "k": k, "s": s, "closeness": closeness}))
    return pa.concat_tables(found)


def unpack(packs: pa.Table, rows: list[int]) -> tuple[pa.Array, Floats]:
    """Ids and vectors of some packs, by id."""
    ids = pa.concat_arrays([packs["ids"][row].values for row in rows])
    vectors = np.concatenate([np.frombuffer(packs["vectors"][row].as_buffer()) for row in rows]).reshape(len(ids), -1)
    if len(rows) == 1:
        return ids, vectors
    order = pc.sort_indices(ids)
    return ids.take(order), vectors[order.to_numpy()]
