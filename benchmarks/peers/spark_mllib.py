"""Apache Spark on all cores makes the tables, MLlib clusters them: one category at a time, each reading the users."""

import atexit
import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks.peers import (
    BAD_ACTION,
    BAD_COUNT,
    CATEGORY_FILE,
    COMPRESSION,
    NO_PAGE,
    NO_USER,
    OTHER_MONTH,
    Category,
    command_line,
    part,
)
from spark_jobs.config import ACTIONS
from spark_jobs.vectors.category_files import read_category

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

_SHARE_OF_MEMORY = 0.75  # the JVM's heap; the rest is for what it keeps beside it, and for Python
_SHUFFLE_PARTITIONS = 16  # adaptive execution joins those that are small


class Spark:
    """A local session; everything is DataFrames, so that no row passes through Python."""

    def __init__(self, scratch: Path, memory: int | None):
        from pyspark.sql import SparkSession

        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        os.environ.setdefault("SPARK_LOCAL_HOSTNAME", "localhost")
        builder = (
            SparkSession.builder.master("local[*]")
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.local.dir", str(scratch / "spark"))
            .config("spark.serializer", "org.apache.spark.serializer.KryoSerializer")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", _SHUFFLE_PARTITIONS)
            .config("spark.sql.parquet.compression.codec", COMPRESSION)
        )
        if memory is not None:
            builder = builder.config("spark.driver.memory", f"{int(_SHARE_OF_MEMORY * memory) >> 20}m")
        self._spark = builder.getOrCreate()
        self._spark.sparkContext.setLogLevel("ERROR")
        atexit.register(self._spark.stop)

    def group(self, raw: Path, out: Path, month: str) -> None:
        from pyspark.sql import functions as F

        start = F.to_timestamp(F.lit(f"{month}-01"))
        time = F.col("timestamp")
        rows = self._spark.read.parquet(str(raw)).select(
            "user_id",
            "page_id",
            "action",
            F.when(_is_missing("gender"), "0").otherwise(F.col("gender")).alias("gender"),
            F.coalesce("count", F.lit(1)).alias("count"),
            F.when(_is_missing("user_id"), NO_USER)
            .when(_is_missing("page_id"), NO_PAGE)
            .when(F.col("action").isNull() | ~F.col("action").isin(*ACTIONS), BAD_ACTION)
            .when(F.col("count") < 1, BAD_COUNT)
            .when((time < start) | (time >= F.add_months(start, 1)), OTHER_MONTH)
            .alias("reason"),
            F.col("_metadata.file_path").alias("file"),
            (F.col("_metadata.row_index") + 1).alias("line"),
        )
        # Shuffled once by user, which all that follows can use, and not once for each aggregation: half the time.
        accepted = (
            rows.where("reason IS NULL")
            .select("user_id", "page_id", "action", "gender", "count")
            .repartition(_SHUFFLE_PARTITIONS, "user_id")
        )
        nested = (
            accepted.groupBy("user_id", "page_id")
            .agg(*(F.sum(F.when(F.col("action") == a, F.col("count")).otherwise(0)).alias(a) for a in ACTIONS))
            .groupBy("user_id")
            .agg(F.sort_array(F.collect_list(F.struct("page_id", *ACTIONS))).alias("pages"))
        )
        gender = (
            accepted.where("gender <> '0'")
            .groupBy("user_id", "gender")
            .agg(F.sum("count").alias("actions"))
            .groupBy("user_id")
            .agg(F.min_by("gender", F.struct(-F.col("actions"), "gender")).alias("gender"))
        )
        nested.join(gender, "user_id", "left").select(
            "user_id", F.coalesce("gender", F.lit("0")).alias("gender"), "pages"
        ).write.parquet(str(out / "users"))
        rows.where("reason IS NOT NULL").select("file", "line", "reason").write.parquet(str(out / "rejects"))

    def inputs(self, users: Path, out: Path, categories: Sequence[Category]) -> None:
        for category in categories:
            self._inputs_of(users, out / category.name, category)

    def _inputs_of(self, users: Path, folder: Path, category: Category) -> None:
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        listed = self._spark.createDataFrame(
            [(dimension, page.id, page.name, page.network) for dimension, page in enumerate(category.pages)],
            "dimension int, page_id string, page_name string, network string",
        )
        value = functools.reduce(lambda one, other: one + other, (F.col(f"page.{action}") for action in ACTIONS))
        vectors = (
            self._spark.read.parquet(str(users / "users"))
            .select("user_id", "gender", F.explode("pages").alias("page"))
            .select("user_id", "gender", F.col("page.page_id").alias("page_id"), value.cast("double").alias("value"))
            .join(F.broadcast(listed), "page_id")
            .groupBy("user_id", "gender")
            .agg(F.sort_array(F.collect_list(F.struct("dimension", "value"))).alias("vector"))
            .cache()
        )
        profiles = (
            vectors.groupBy("vector")
            .agg(F.count("*").alias("weight"))
            .withColumn("profile_id", F.row_number().over(Window.orderBy(F.desc("weight"), "vector")).cast("long") - 1)
            .cache()
        )
        entries = profiles.select("weight", F.inline("vector"))
        used = entries.groupBy("dimension").agg(
            F.sum("weight").alias("users"), F.sum(F.col("weight") * F.col("value")).alias("total")
        )
        dimensions = listed.join(used, "dimension", "left").select(
            F.col("dimension").alias("dimension_index"),
            F.col("page_id").alias("dimension_id"),
            F.col("page_name").alias("dimension_name"),
            "network",
            F.coalesce("users", F.lit(0)).cast("long").alias("users"),
            F.coalesce("total", F.lit(0.0)).alias("total"),
        )
        _write_one(dimensions.orderBy("dimension_index"), folder / "dimensions.parquet")
        largest = entries.agg(F.max("value")).first()
        factor = 1 / (1 + ((largest[0] if largest else None) or 0))
        scaled = profiles.select(
            "profile_id",
            F.col("vector.dimension").alias("indices"),
            F.transform("vector", lambda entry: entry["value"] * factor).alias("values"),
            "weight",
        )
        _write_one(scaled.orderBy("profile_id"), folder / "profiles.parquet")
        members = vectors.join(profiles, "vector").select("user_id", "gender", "profile_id")
        _write_one(members.orderBy("user_id"), folder / "members.parquet")
        profiles.unpersist()
        vectors.unpersist()

    def kmeans(self, inputs: Path, out: Path, k: int, n_init: int, seed: int, one_row_a_user: bool) -> None:
        """As the predecessor did: over one row a user, though MLlib could weigh the distinct profiles."""
        if not one_row_a_user:
            raise click.UsageError("This peer clusters one row a user.")
        from pyspark.ml.clustering import KMeans
        from pyspark.ml.feature import VectorAssembler
        from pyspark.sql import functions as F

        with part("vectors"):
            pages = self._spark.read.parquet(str(inputs / "dimensions.parquet")).orderBy("dimension_index").collect()
            profiles = self._spark.read.parquet(str(inputs / "profiles.parquet"))
            members = self._spark.read.parquet(str(inputs / "members.parquet"))
            columns = [f"d{dimension}" for dimension in range(len(pages))]
            entries = F.map_from_arrays("indices", "values").alias("entries")
            wide = (
                members.repartition(_SHUFFLE_PARTITIONS)
                .join(F.broadcast(profiles), "profile_id")
                .select("user_id", "indices", "values", entries)
                .select(
                    "user_id",
                    "indices",
                    "values",
                    *(F.coalesce(F.element_at("entries", d), F.lit(0.0)).alias(c) for d, c in enumerate(columns)),
                )
            )
            users = (
                VectorAssembler(inputCols=columns, outputCol="features")
                .transform(wide)
                .select("user_id", "indices", "values", "features")
                .cache()
            )
            users.count()
        with part("fit"):
            kmeans = KMeans(k=k, initMode="k-means||", maxIter=100, tol=0.001)
            models = [kmeans.setSeed(seed + init).fit(users) for init in range(n_init)]
            model = min(models, key=lambda model: model.summary.trainingCost)
        with part("write"):
            # Numbered by users, the largest first, ties by the center.
            centers = [[float(value) for value in center] for center in model.clusterCenters()]
            order = sorted(range(len(centers)), key=lambda c: (-model.summary.clusterSizes[c], centers[c]))
            centers = [centers[c] for c in order]
            number = [order.index(c) for c in range(len(order))]
            self._write(out, inputs, model.transform(users), number, centers, pages)
        users.unpersist()

    def _write(
        self,
        out: Path,
        inputs: Path,
        predicted: "DataFrame",
        number: list[int],
        centers: list[list[float]],
        pages: "list[Row]",
    ) -> None:
        from pyspark.sql import functions as F

        of_cluster = F.broadcast(
            self._spark.createDataFrame(
                [(c, n, centers[n], sum(x * x for x in centers[n])) for c, n in enumerate(number)],
                "prediction int, cluster_id int, center array<double>, norm double",
            )
        )
        # ‖x - c‖² = ‖c‖² + Σ x (x - 2c), over the entries of x.
        terms = F.zip_with("values", "indices", lambda x, d: x * (x - 2 * F.col("center")[d]))
        squared = F.col("norm") + F.aggregate(terms, F.lit(0.0), lambda total, term: total + term)
        members = (
            predicted.join(of_cluster, "prediction")
            .select(
                "user_id", "cluster_id", F.sqrt(F.greatest(squared, F.lit(0.0))).alias("distance"), "indices", "values"
            )
            .cache()
        )
        assignments = members.select("user_id", "cluster_id", "distance").orderBy("user_id")
        _write_one(assignments, out / "assignments.parquet")
        listed = members.groupBy("cluster_id").agg(F.sort_array(F.collect_list("user_id")).alias("user_ids"))
        _write_one(listed.orderBy("cluster_id"), out / "data.json")
        clusters = (
            members.groupBy("cluster_id")
            .agg(
                F.count("*").alias("users"),
                F.max("distance").alias("radius"),
                F.sum(F.col("distance") * F.col("distance")).alias("cost"),
            )
            .orderBy("cluster_id")
            .collect()
        )
        entries = members.select("cluster_id", F.explode(F.arrays_zip("indices", "values")).alias("entry"))
        found = {
            (row["cluster_id"], row["indices"]): row
            for row in entries.groupBy("cluster_id", F.col("entry.indices").alias("indices"))
            .agg(
                F.count("*").alias("have"),
                F.sum("entry.values").alias("total"),
                F.min("entry.values").alias("lowest"),
                F.max("entry.values").alias("highest"),
            )
            .collect()
        }
        members.unpersist()
        private = read_category(str(inputs / CATEGORY_FILE)).private
        wssse = sum(row["cost"] for row in clusters)
        with (out / "meta-data.json").open("w") as file:
            for row in clusters:
                c, users = row["cluster_id"], row["users"]
                dimensions = []
                for d, page in enumerate(pages):
                    entry = found.get((c, d))
                    have = entry["have"] if entry else 0
                    dimensions.append(
                        {
                            "dimension_id": page["dimension_id"],
                            "dimension_name": page["dimension_name"],
                            "member_count": have,
                            "center": centers[c][d],
                            "min": entry["lowest"] if entry and have == users else 0.0,
                            "max": entry["highest"] if entry else 0.0,
                            "avg": entry["total"] / users if entry else 0.0,
                        }
                    )
                line = {
                    "cluster_id": c,
                    "cluster_member_count": users,
                    "private": private,
                    "cluster_diameter": 2 * row["radius"],
                    "cluster_wssse": wssse,
                    "dimensions": dimensions,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        table = self._spark.createDataFrame(
            [(row["cluster_id"], row["users"], centers[row["cluster_id"]]) for row in clusters],
            "cluster_id int, users bigint, center array<double>",
        )
        _write_one(table, out / "centers.parquet")


def _is_missing(name: str) -> "Column":
    from pyspark.sql import functions as F

    return F.col(name).isNull() | (F.col(name) == "")


def _write_one(frame: "DataFrame", file: Path) -> None:
    """Write a DataFrame as one file of this name: Spark names the files of a folder itself."""
    folder = file.with_name(f"{file.name}.parts")
    frame.coalesce(1).write.format(file.suffix[1:]).save(str(folder))
    next(folder.glob("part-*")).rename(file)
    shutil.rmtree(folder)


main = command_line(Spark, n_init=1, one_row_a_user=True)

if __name__ == "__main__":
    main()
