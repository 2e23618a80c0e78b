"""k-means by Spark's MLlib, where one machine's memory does not hold a category's profiles.

Spark reads profiles and members, and neither comes together in one process.
"""

import pickle
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from spark_jobs import storage
from spark_jobs.clusters import clustering
from spark_jobs.clusters.description import ClusterDimensions
from spark_jobs.clusters.learned import COUNTED, PLACED, Clusters, Learned, stabilities_on_sample
from spark_jobs.clusters.published import in_words
from spark_jobs.clusters.scores import calinski_harabasz
from spark_jobs.config import KMeansConfig, KMeansParams, parse_params
from spark_jobs.engines.spark import SparkEngine, collect, errors_of_tasks, location_for
from spark_jobs.outputs.schemas import strictness
from spark_jobs.outputs.tables import of_equal_size, read_table
from spark_jobs.reporting import Reporter
from spark_jobs.vectors.clustering_inputs import InputsMetadata, enough_to_learn
from spark_jobs.vectors.profiles import PROFILES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# How profiles are spread over tasks. It must not depend on the size of the cluster of machines: sums are rounded by it.
_PROFILES_A_TASK = 1 << 16
_MOST_TASKS = 1 << 12
_TOTALS_A_TASK = 1 << 6


def fit(
    engine: SparkEngine,
    metadata: InputsMetadata,
    k: int,
    config: KMeansConfig,
    strict: bool,
    working: str,
    report: Reporter,
) -> Clusters:
    """Cluster on Spark: MLlib's inits and iterations, and the last iteration here, which adds up in a fixed order.

    MLlib adds up as its tasks end, so that its centers differ in the last bits from run to run. Those of the last
    iteration depend only on which profile is nearest to which center, and so do the bytes that are written.

    Args:
        engine: Spark.
        metadata: The inputs.
        k: Clusters, at most one a profile. One that ends up empty is left out.
        config: Of k-means. MLlib draws the profiles of both inits without regard to their weights.
        strict: Whether every profile is checked.
        working: A folder that Spark writes to; deleted with the last of the assignments.
        report: Where each init is reported.
    """
    library, spark = f"{engine.version} mllib", engine.session
    if k == 0:
        return _no_clusters(len(metadata.dimensions), library)
    spark.catalog.clearCache()  # an earlier job that failed may have left data there
    with errors_of_tasks():
        points = _read_points(spark, metadata, config.fit_min_actions, strict).persist()
        fitted = _learn(points, metadata, k, config, report)
        totals = _totals(points, fitted.centers)
    # Numbered by users, the largest first, ties by the center.
    order = np.array(sorted(range(len(fitted.centers)), key=lambda c: (-totals.users[c], tuple(fitted.centers[c]))))
    centers, means = fitted.centers[order], totals.means(fitted.centers)[order]
    return Clusters(
        centers,
        totals.users[order],
        2 * totals.farthest[order],
        ClusterDimensions(totals.member_count[order], totals.minimum[order], totals.maximum[order], means),
        (totals.minimum.min(axis=0), totals.maximum.max(axis=0)),
        fitted.iterations,
        fitted.converged,
        _scores(totals, order, centers),
        library,
        Learned(
            int(fitted.totals.users.sum()),
            fitted.min_actions,
            float(fitted.totals.squared.sum()),
            stabilities_on_sample(metadata, fitted.min_actions, centers, config.seed, strict),
        ),
        _assign(spark, points, fitted.centers, np.argsort(order).astype(np.int32), metadata, working),
    )


def _scores(totals: "ClusterTotals", order: np.ndarray, centers: np.ndarray) -> dict[str, float | None]:
    """As `scores.score` defines them; `order` (k,) are the places in `totals` of the centers (k, d)."""
    wssse = float(totals.squared.sum())
    return {
        "wssse": wssse,
        "silhouette": totals.mean_silhouette(),
        "calinski_harabasz": calinski_harabasz(totals.users[order], centers, wssse),
    }


def _no_clusters(dimensions: int, library: str) -> Clusters:
    ids, values, on_dimensions = np.zeros(0, np.int64), np.zeros(0), np.zeros((0, dimensions))
    return Clusters(
        on_dimensions,
        ids,
        values,
        ClusterDimensions(on_dimensions.astype(np.int64), on_dimensions, on_dimensions, on_dimensions),
        (np.zeros(dimensions), np.zeros(dimensions)),
        0,
        True,
        {"wssse": 0.0, "silhouette": None, "calinski_harabasz": None},
        library,
        Learned(0, 0, 0.0, values),
        iter(()),
    )


def _read_points(spark: "SparkSession", metadata: InputsMetadata, at_least: int, strict: bool) -> "DataFrame":
    """The profiles as MLlib takes them, spread over tasks in an order that depends on the profiles only.

    `weight` has the users of each, `fit_weight` those of them with at least so many actions.
    """
    from pyspark.ml.linalg import VectorUDT
    from pyspark.sql import functions as F
    from pyspark.sql.types import DoubleType, LongType, StructField, StructType

    dimensions, checked = len(metadata.dimensions), strictness(strict)

    def to_points(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            profiles = checked(PROFILES, batch)
            parts = {
                "type": pa.array(np.zeros(len(batch), np.int8)),  # sparse
                "size": pa.array(np.full(len(batch), dimensions, np.int32)),
                "indices": profiles.column("indices"),
                "values": profiles.column("values"),
            }
            weights = [profiles.column(name).cast(pa.float64()) for name in ("weight", "fit_weight")]
            vector = pa.StructArray.from_arrays(list(parts.values()), names=list(parts))
            yield pa.RecordBatch.from_arrays([profiles.column("profile_id"), vector, *weights], names=schema.names)

    tasks = min(_MOST_TASKS, -(-metadata.profiles // _PROFILES_A_TASK))
    schema = StructType(
        [
            StructField("profile_id", LongType()),
            StructField("features", VectorUDT()),
            StructField("weight", DoubleType()),
            StructField("fit_weight", DoubleType()),
        ]
    )
    profiles = _read(spark, metadata.folder, "profiles.parquet")
    if metadata.fit_min_actions is None:  # made by code version 1
        profiles = profiles.withColumn("fit_weight", profiles["weight"])
    elif metadata.fit_min_actions != at_least:
        members = _read(spark, metadata.folder, "members.parquet").where(F.col("actions") >= at_least)
        counted = members.groupBy("profile_id").agg(F.count("*").alias("fit_weight"))
        profiles = profiles.drop("fit_weight").join(counted, "profile_id", "left").fillna(0, ["fit_weight"])
    profiles = profiles.select(*PROFILES.schema.names)
    return profiles.repartition(tasks, "profile_id").sortWithinPartitions("profile_id").mapInArrow(to_points, schema)


def _read(spark: "SparkSession", folder: str, name: str) -> "DataFrame":
    """A Parquet table of an output, for Spark.

    Raises:
        InputError: It is gone, or is not a Parquet file.
    """
    read_table(folder, name, columns=[])
    location = location_for(spark, storage.join(folder, name))
    return spark.read.parquet(re.sub(r"([\\\[\]{}*?])", r"\\\1", location))  # Spark takes a path as a pattern


def _matrix(points: pa.RecordBatch, dimensions: int) -> tuple[sp.csr_matrix, np.ndarray]:
    """Some profiles (n, d), and the weight of each (n,)."""
    features = points.column("features")
    indices, values = features.field("indices"), features.field("values")
    parts = (values.flatten().to_numpy(), indices.flatten().to_numpy(), indices.offsets.to_numpy())
    return sp.csr_matrix(parts, shape=(len(points), dimensions)), points.column("weight").to_numpy()


@dataclass(frozen=True)
class _Start:
    """Centers (k, d) after some iterations, and the totals of their clusters."""

    centers: np.ndarray
    iterations: int
    totals: "ClusterTotals"


@dataclass(frozen=True)
class _Fitted:
    """Centers (k, d) after the last iteration."""

    centers: np.ndarray
    iterations: int
    converged: bool
    totals: "ClusterTotals"  # of those who were learned from
    min_actions: int  # of each of them


def _learn(points: "DataFrame", metadata: InputsMetadata, k: int, config: KMeansConfig, report: Reporter) -> _Fitted:
    params = parse_params(config.params)
    learned, profiles, min_actions = _learned_from(points, metadata, k, config, report)
    start = _best_start(learned, len(metadata.dimensions), profiles, k, params, config, report)
    centers, iterations, converged = _iterate(learned, start, params)
    totals = _totals(learned, centers)
    if not totals.users.all():
        centers = centers[totals.users > 0]
        totals = _totals(learned, centers)
    return _Fitted(centers, iterations, converged, totals, min_actions)


def _learned_from(
    points: "DataFrame", metadata: InputsMetadata, k: int, config: KMeansConfig, report: Reporter
) -> tuple["DataFrame", int, int]:
    """The points that are learned from, with `weight` the users of each; how many they are; and the actions of a user.

    With fewer than ten such users a cluster, everybody is learned from, as in `in_memory`.
    """
    from pyspark.sql import functions as F

    if metadata.fit_min_actions is None:
        return points, metadata.profiles, 0
    learned = points.where(F.col("fit_weight") > 0).withColumn("weight", F.col("fit_weight"))
    counted = learned.agg(F.count("*").alias("profiles"), F.sum("weight").alias("users")).first()
    users = int(counted["users"] or 0)
    if enough_to_learn(users, counted["profiles"], k):
        return learned, counted["profiles"], config.fit_min_actions
    have = in_words(users, config.min_people)
    report.progress(f"learned from all users: {have} have {config.fit_min_actions} actions or more, too few")
    return points, points.count(), 0


def _best_start(
    points: "DataFrame",
    dimensions: int,
    profiles_in_all: int,
    k: int,
    params: KMeansParams,
    config: KMeansConfig,
    report: Reporter,
) -> _Start:
    """The best of MLlib's inits, each with its iterations but for the last. Trivial cases need no MLlib."""
    if k == profiles_in_all:
        profiles, _ = _matrix(points.toArrow().combine_chunks().to_batches()[0], dimensions)
        return _Start(profiles.toarray(), 0, _totals(points, profiles.toarray()))
    if k == 1:
        centers = np.zeros((1, dimensions))
        return _Start(centers, 0, _totals(points, centers))
    best: _Start | None = None
    seeds = np.random.SeedSequence(config.seed).generate_state(config.n_init)
    for init, seed in enumerate(seeds.tolist(), 1):
        centers, iterations = _fit_by_mllib(points, k, params, seed)
        start = _Start(centers, iterations, _totals(points, centers))
        wssse = start.totals.squared.sum()
        fewer = f", but {len(centers)} centers only" if len(centers) < k else ""
        report.detail(f"init {init} of {config.n_init}: wssse {wssse:.6g} after {iterations} iterations{fewer}")
        # A model that is better in its last bits only is the same.
        if best is None or wssse < best.totals.squared.sum() * (1 - 1e-9):
            best = start
    assert best is not None
    return best


def _fit_by_mllib(points: "DataFrame", k: int, params: KMeansParams, seed: int) -> tuple[np.ndarray, int]:
    from pyspark.ml.clustering import KMeans

    model = KMeans(
        k=k,
        weightCol="weight",
        initMode={"kmeans||": "k-means||"}.get(params.init, params.init),
        maxIter=params.max_iter - 1,
        tol=params.tol,
        seed=seed,
        solver="block",  # on profiles in memory it takes half the time of "row", and they stay sparse
    ).fit(points)
    return np.array(model.clusterCenters()), int(model.summary.numIter)


def _iterate(points: "DataFrame", start: _Start, params: KMeansParams) -> tuple[np.ndarray, int, bool]:
    """Lloyd's iterations from a start on; the centers, how many iterations it took in all, and whether it converged."""
    centers, done, totals = start.centers, start.iterations, start.totals
    while True:
        moved = totals.means(centers)
        done += 1
        converged = bool(np.sqrt(((moved - centers) ** 2).sum(axis=1)).max() <= params.tol)
        centers = moved
        if converged or done >= params.max_iter:
            return centers, done, converged
        totals = _totals(points, centers)


@dataclass(frozen=True)
class ClusterTotals:
    """What some profiles add up to in each cluster; a profile is in that of its nearest center, ties to the lowest."""

    users: np.ndarray  # (k,) int64
    squared: np.ndarray  # (k,) the sum of squared distances, over the users
    silhouette: np.ndarray  # (k,) the sum of simplified silhouettes, over the users
    farthest: np.ndarray  # (k,) the largest distance
    member_count: np.ndarray  # (k, d) int64: users with a value above 0
    sums: np.ndarray  # (k, d) of the values, over the users
    minimum: np.ndarray  # (k, d); of no profile, infinity
    maximum: np.ndarray  # (k, d); of no profile, -infinity

    @staticmethod
    def of(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray) -> "ClusterTotals":
        """The totals of profiles (n, d) of some weight (n,)."""
        k, shape = len(centers), centers.shape
        label, distance, to_next = _nearest(profiles, centers)
        larger = np.maximum(to_next, distance)
        silhouette = np.divide(to_next - distance, larger, out=np.zeros_like(larger), where=larger > 0)

        entries = np.diff(profiles.indptr)
        cell = np.repeat(label, entries) * shape[1] + profiles.indices
        users_of_entry = np.repeat(weight, entries)
        minimum, maximum = np.full(shape, np.inf), np.full(shape, -np.inf)
        np.minimum.at(minimum.reshape(-1), cell, profiles.data)
        np.maximum.at(maximum.reshape(-1), cell, profiles.data)
        without = np.bincount(cell, minlength=minimum.size).reshape(shape) < np.bincount(label, minlength=k)[:, None]
        farthest = np.zeros(k)
        np.maximum.at(farthest, label, distance)

        def over_users(of_cell: np.ndarray) -> np.ndarray:
            return np.bincount(cell, users_of_entry * of_cell, minlength=minimum.size).reshape(shape)

        return ClusterTotals(
            np.bincount(label, weight, minlength=k).astype(np.int64),
            np.bincount(label, weight * distance**2, minlength=k),
            np.bincount(label, weight * silhouette, minlength=k),
            farthest,
            over_users(profiles.data > 0).astype(np.int64),
            over_users(profiles.data),
            np.where(without, np.minimum(minimum, 0), minimum),
            np.where(without, np.maximum(maximum, 0), maximum),
        )

    def __add__(self, other: "ClusterTotals") -> "ClusterTotals":
        return ClusterTotals(
            self.users + other.users,
            self.squared + other.squared,
            self.silhouette + other.silhouette,
            np.maximum(self.farthest, other.farthest),
            self.member_count + other.member_count,
            self.sums + other.sums,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    def means(self, centers: np.ndarray) -> np.ndarray:
        """The mean of each cluster (k, d); its center where it is empty."""
        return np.where(self.users[:, None] > 0, self.sums / np.maximum(self.users, 1)[:, None], centers)

    def mean_silhouette(self) -> float | None:
        """As `scores.score` defines it: 0 for a user alone in a cluster, not defined for one cluster."""
        if np.count_nonzero(self.users) < 2:
            return None
        return float(self.silhouette[self.users > 1].sum() / self.users.sum())


def _nearest(profiles: sp.csr_matrix, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest center of each profile (n,), the distance to it, and that to the next (0, if there is none)."""
    score = (centers**2).sum(axis=1) - 2 * (profiles @ centers.T)
    label = score.argmin(axis=1)
    distance = clustering.distances_to_own(profiles, centers, label)
    if len(centers) == 1:
        return label, distance, np.zeros(len(label))
    score[np.arange(len(score)), label] = np.inf
    squared_norm = np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel()
    return label, distance, np.sqrt(np.maximum(score.min(axis=1) + squared_norm, 0))


def _totals(points: "DataFrame", centers: np.ndarray) -> ClusterTotals:
    """The totals of all profiles: task by task, and then in the order of the tasks."""
    from pyspark.sql import functions as F

    def add_up(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        parts = (ClusterTotals.of(*_matrix(batch, centers.shape[1]), centers) for batch in batches)
        yield _packed(context.partitionId(), parts)

    def add(parts: pa.Table) -> pa.Table:
        parts = parts.sort_by("task")
        task = parts["task"][0].as_py()
        return pa.Table.from_batches([_packed(task, (_unpacked(one.as_py()) for one in parts["totals"]))])

    schema = "task int, totals binary"
    of_tasks = points.mapInArrow(add_up, schema)
    added = of_tasks.groupBy((F.col("task") / _TOTALS_A_TASK).cast("int")).applyInArrow(add, schema)
    rows = sorted(collect(added), key=lambda row: row["task"])
    return reduce(ClusterTotals.__add__, (_unpacked(row["totals"]) for row in rows))


def _packed(task: int, parts: Iterable[ClusterTotals]) -> pa.RecordBatch:
    """The sum of some totals as a row."""
    rows = [pickle.dumps(vars(reduce(ClusterTotals.__add__, parts)))]
    return pa.RecordBatch.from_arrays([pa.array([task], pa.int32()), pa.array(rows, pa.binary())], ["task", "totals"])


def _unpacked(totals: bytes) -> ClusterTotals:
    return ClusterTotals(**pickle.loads(totals))  # noqa: S301  # from tasks of this job


def _assign(
    spark: "SparkSession",
    points: "DataFrame",
    centers: np.ndarray,
    number: np.ndarray,
    metadata: InputsMetadata,
    folder: str,
) -> Iterator[pa.RecordBatch]:
    """The rows of PLACED, by user_id, a batch at a time.

    Args:
        spark: Spark.
        points: All profiles, which are not needed any longer then.
        centers: (k, d).
        number: (k,) the id of each center's cluster.
        metadata: The inputs.
        folder: Where Spark writes them; deleted at the end.
    """

    def assign(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            label, distance, to_next = clustering.assign(_matrix(batch, centers.shape[1])[0], centers)
            values = [number[label], distance, clustering.confidence(distance, to_next)]
            names = ["profile_id", "cluster_id", "distance", "confidence"]
            yield pa.RecordBatch.from_arrays([batch.column("profile_id"), *map(pa.array, values)], names=names)

    from pyspark.sql import functions as F

    with errors_of_tasks():
        members = _read(spark, metadata.folder, "members.parquet")
        for name in COUNTED:
            if name not in metadata.counted:  # made by an older code version
                members = members.withColumn(name, F.lit(None).cast("long"))
        members = members.select("user_id", "profile_id", "gender", *COUNTED)
        clusters = points.mapInArrow(assign, "profile_id bigint, cluster_id int, distance double, confidence double")
        rows = members.join(clusters, "profile_id").select(*PLACED.names).orderBy("user_id")
        rows.write.parquet(location_for(spark, folder))
    points.unpersist()
    yield from of_equal_size(_read_parts(folder))
    storage.delete_folder(folder)


def _read_parts(folder: str) -> Iterator[pa.RecordBatch]:
    for part in storage.visible_files(folder):
        if part.name.startswith("part-"):
            with part.open("rb") as file:
                yield from (batch.cast(PLACED) for batch in pq.ParquetFile(file).iter_batches())
