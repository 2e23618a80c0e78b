"""DuckDB makes the tables, scikit-learn clusters them."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

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

_SHARE_OF_MEMORY = 0.8  # DuckDB's own default; the rest is for what its memory_limit does not count


class DuckDB:
    """All of a step is a few queries of one connection, which go to disk where memory does not do."""

    def __init__(self, scratch: Path, memory: int | None):
        self._connection = duckdb.connect()
        self._connection.execute("SET preserve_insertion_order = false")
        self._connection.execute(f"SET temp_directory = '{scratch / 'duckdb'}'")
        if memory is not None:
            self._connection.execute(f"SET memory_limit = '{int(_SHARE_OF_MEMORY * memory)}B'")

    def group(self, raw: Path, out: Path, month: str) -> None:
        self._connection.execute(
            f"""
            CREATE TEMP VIEW raw AS SELECT
              user_id, page_id, action,
              coalesce(nullif(gender, ''), '0') AS gender,
              coalesce(count, 1) AS count,
              CASE
                WHEN coalesce(user_id, '') = '' THEN '{NO_USER}'
                WHEN coalesce(page_id, '') = '' THEN '{NO_PAGE}'
                WHEN action IS NULL OR action NOT IN {ACTIONS} THEN '{BAD_ACTION}'
                WHEN count < 1 THEN '{BAD_COUNT}'
                WHEN timestamp < TIMESTAMPTZ '{month}-01 00:00:00+00'
                  OR timestamp >= TIMESTAMPTZ '{month}-01 00:00:00+00' + INTERVAL 1 MONTH THEN '{OTHER_MONTH}'
              END AS reason,
              filename, file_row_number
            FROM read_parquet('{raw}/*.parquet', filename = true, file_row_number = true);
            CREATE TEMP VIEW accepted AS SELECT * FROM raw WHERE reason IS NULL
            """
        )
        sums = ", ".join(
            f"coalesce(sum(count) FILTER (action = '{action}'), 0)::BIGINT AS {action}" for action in ACTIONS
        )
        self._copy(
            f"""
            WITH entries AS (SELECT user_id, page_id, {sums} FROM accepted GROUP BY ALL),
            nested AS (
              SELECT user_id, list_sort(list(struct_pack(page_id, {", ".join(ACTIONS)}))) AS pages
              FROM entries GROUP BY user_id
            ),
            genders AS (
              SELECT user_id, gender, sum(count) AS actions FROM accepted WHERE gender <> '0' GROUP BY ALL
            ),
            gender AS (SELECT user_id, min_by(gender, (-actions, gender)) AS gender FROM genders GROUP BY user_id)
            SELECT user_id, coalesce(gender, '0') AS gender, pages FROM nested LEFT JOIN gender USING (user_id)
            """,
            out / "users",
            "PER_THREAD_OUTPUT",
        )
        self._copy(
            "SELECT filename AS file, file_row_number + 1 AS line, reason FROM raw WHERE reason IS NOT NULL",
            out / "rejects",
            "PER_THREAD_OUTPUT",
        )

    def inputs(self, users: Path, out: Path, categories: Sequence[Category]) -> None:
        listed = [
            (number, dimension, page.id, page.name, page.network)
            for number, category in enumerate(categories)
            for dimension, page in enumerate(category.pages)
        ]
        names = ["category", "dimension", "page_id", "page_name", "network"]
        dimensions = pa.table(dict(zip(names, zip(*listed, strict=True), strict=True)))
        self._connection.register("dimensions", dimensions)
        total = " + ".join(f"page.{action}" for action in ACTIONS)
        # All categories in one go: the users are read once.
        self._connection.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE vectors AS
            WITH entries AS (
              SELECT user_id, gender, page.page_id AS page_id, ({total})::DOUBLE AS value
              FROM (SELECT user_id, gender, unnest(pages) AS page FROM read_parquet('{users}/users/*.parquet'))
            )
            SELECT
              category, user_id, gender, list_sort(list(struct_pack(dimension := dimension::INT, value))) AS vector
            FROM entries JOIN dimensions USING (page_id) GROUP BY category, user_id, gender;

            CREATE OR REPLACE TEMP TABLE profiles AS
            SELECT *, row_number() OVER (PARTITION BY category ORDER BY weight DESC, vector) - 1 AS profile_id
            FROM (SELECT category, vector, count(*) AS weight FROM vectors GROUP BY ALL);

            CREATE OR REPLACE TEMP TABLE entries AS
            SELECT category, weight, unnest(vector, recursive := true) FROM profiles;

            CREATE OR REPLACE TEMP TABLE members AS
            SELECT category, user_id, gender, profile_id FROM vectors JOIN profiles USING (category, vector)
            """
        )
        for number, category in enumerate(categories):
            folder = out / category.name
            self._copy(
                f"""
                SELECT
                  dimension::INT AS dimension_index, page_id AS dimension_id, page_name AS dimension_name, network,
                  coalesce(sum(weight), 0)::BIGINT AS users, coalesce(sum(weight * value), 0)::DOUBLE AS total
                FROM dimensions LEFT JOIN entries USING (category, dimension)
                WHERE category = {number} GROUP BY ALL ORDER BY dimension_index
                """,
                folder / "dimensions.parquet",
            )
            self._copy(
                f"""
                WITH scaling AS (SELECT 1 / (1 + max(value)) AS factor FROM entries WHERE category = {number})
                SELECT
                  profile_id, list_transform(vector, lambda e: e.dimension) AS indices,
                  list_transform(vector, lambda e: e.value * factor) AS values, weight
                FROM profiles, scaling WHERE category = {number} ORDER BY profile_id
                """,
                folder / "profiles.parquet",
            )
            self._copy(
                f"SELECT user_id, gender, profile_id FROM members WHERE category = {number} ORDER BY user_id",
                folder / "members.parquet",
            )

    def kmeans(self, inputs: Path, out: Path, k: int, n_init: int, seed: int, one_row_a_user: bool) -> None:
        from benchmarks.peers import sklearn_kmeans  # a second to import, which the other steps do without

        sklearn_kmeans.cluster(inputs, out, k, n_init, seed, one_row_a_user)

    def _copy(self, query: str, place: Path, *options: str) -> None:
        form = ", ".join(["FORMAT parquet", f"COMPRESSION {COMPRESSION}", *options])
        self._connection.execute(f"COPY ({query}) TO '{place}' ({form})")


main = command_line(DuckDB, n_init=10)

if __name__ == "__main__":
    main()
