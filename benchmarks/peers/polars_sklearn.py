"""Polars, lazy and streaming, makes the tables, scikit-learn clusters them."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
from polars import col

from benchmarks.peers import (
    BAD_ACTION,
    BAD_COUNT,
    COMPRESSION,
    NO_PAGE,
    NO_USER,
    OTHER_MONTH,
    Category,
    command_line,
)
from spark_jobs.config import ACTIONS


class Polars:
    """All of a step is one lazy query, run by the streaming engine; Polars takes no bound on its memory."""

    def __init__(self, scratch: Path, memory: int | None):
        pass

    def group(self, raw: Path, out: Path, month: str) -> None:
        start = datetime.strptime(month, "%Y-%m").replace(tzinfo=timezone.utc)
        end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        rows = pl.concat(
            pl.scan_parquet(file, row_index_name="line", row_index_offset=1, include_file_paths="file")
            for file in sorted(raw.glob("*.parquet"))
        ).with_columns(
            reason=pl.when(_is_missing("user_id"))
            .then(pl.lit(NO_USER))
            .when(_is_missing("page_id"))
            .then(pl.lit(NO_PAGE))
            .when(~col("action").is_in(ACTIONS).fill_null(False))
            .then(pl.lit(BAD_ACTION))
            .when(col("count") < 1)
            .then(pl.lit(BAD_COUNT))
            .when((col("timestamp") < start) | (col("timestamp") >= end))
            .then(pl.lit(OTHER_MONTH))
        )
        accepted = rows.filter(col("reason").is_null()).select(
            "user_id",
            "page_id",
            "action",
            gender=pl.when(_is_missing("gender")).then(pl.lit("0")).otherwise("gender"),
            count=col("count").fill_null(1),
        )
        nested = (
            accepted.group_by("user_id", "page_id")
            .agg(col("count").filter(col("action") == action).sum().alias(action) for action in ACTIONS)
            .group_by("user_id")
            .agg(pl.struct("page_id", *ACTIONS).sort_by("page_id").alias("pages"))
        )
        gender = (
            accepted.filter(col("gender") != "0")
            .group_by("user_id", "gender")
            .agg(actions=col("count").sum())
            .group_by("user_id")
            .agg(col("gender").sort_by("actions", "gender", descending=[True, False]).first())
        )
        users = nested.join(gender, on="user_id", how="left")
        _sink(users.select("user_id", col("gender").fill_null("0"), "pages"), out / "users" / "part-0.parquet")
        rejects = rows.filter(col("reason").is_not_null())
        _sink(rejects.select("file", col("line").cast(pl.Int64), "reason"), out / "rejects" / "part-0.parquet")

    def inputs(self, users: Path, out: Path, categories: Sequence[Category]) -> None:
        dimensions = pl.LazyFrame(
            [
                (number, dimension, page.id, page.name, page.network)
                for number, category in enumerate(categories)
                for dimension, page in enumerate(category.pages)
            ],
            {
                "category": pl.Int32,
                "dimension": pl.Int32,
                "page_id": pl.String,
                "page_name": pl.String,
                "network": pl.String,
            },
            orient="row",
        )
        # All categories in one go: the users are read once.
        vectors = (
            pl.scan_parquet(users / "users" / "*.parquet")
            .explode("pages")
            .unnest("pages")
            .select("user_id", "gender", "page_id", value=pl.sum_horizontal(ACTIONS).cast(pl.Float64))
            .join(dimensions.select("category", "dimension", "page_id"), on="page_id")
            .group_by("category", "user_id", "gender")
            .agg(indices=col("dimension").sort(), values=col("value").sort_by("dimension"))
            .collect(engine="streaming")
        )
        profiles = (
            vectors.lazy()
            .group_by("category", "indices", "values")
            .agg(weight=pl.len().cast(pl.Int64))
            .sort("category", "weight", "indices", "values", descending=[False, True, False, False])
            .with_columns(profile_id=pl.int_range(pl.len()).over("category"))
            .collect(engine="streaming")
        )
        members = (
            vectors.lazy()
            .join(profiles.lazy(), on=["category", "indices", "values"])
            .select("category", "user_id", "gender", "profile_id")
            .sort("category", "user_id")
            .collect(engine="streaming")
        )
        entries = profiles.lazy().select("category", "weight", dimension="indices", value="values")
        used = (
            entries.explode("dimension", "value")
            .group_by("category", "dimension")
            .agg(users=col("weight").sum(), total=(col("weight") * col("value")).sum())
        )
        listed = (
            dimensions.join(used, on=["category", "dimension"], how="left")
            .sort("category", "dimension")
            .select(
                "category",
                dimension_index="dimension",
                dimension_id="page_id",
                dimension_name="page_name",
                network="network",
                users=col("users").fill_null(0),
                total=col("total").fill_null(0.0),
            )
        ).collect()
        factor = 1 / (1 + col("values").list.max().max().over("category"))
        scaled = profiles.select("category", "profile_id", "indices", col("values") * factor, "weight")
        for name, table in (("dimensions", listed), ("profiles", scaled), ("members", members)):
            parts = table.partition_by("category", as_dict=True, include_key=False)
            for number, category in enumerate(categories):
                part = parts.get((number,), table.clear().drop("category"))
                part.write_parquet(out / category.name / f"{name}.parquet", compression=COMPRESSION)

    def kmeans(self, inputs: Path, out: Path, k: int, n_init: int, seed: int, one_row_a_user: bool) -> None:
        from benchmarks.peers import sklearn_kmeans  # a second to import, which the other steps do without

        sklearn_kmeans.cluster(inputs, out, k, n_init, seed, one_row_a_user)


def _is_missing(name: str) -> pl.Expr:
    return col(name).is_null() | (col(name) == "")


def _sink(query: pl.LazyFrame, file: Path) -> None:
    query.sink_parquet(file, compression=COMPRESSION, mkdir=True, engine="streaming")


main = command_line(Polars, n_init=10)

if __name__ == "__main__":
    main()
