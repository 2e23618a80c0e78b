"""Reading grouped users: our own output, any Parquet of its layout, or the predecessor's JSON lines."""

import gzip
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from spark_jobs import engines, outputs, storage
from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError, UnreadableFile
from spark_jobs.fingerprints import files_fingerprint
from spark_jobs.grouping import GROUPED_USER, UNKNOWN_GENDER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_STEP = "grouped_users"
_SPARK_SCHEMA = (
    "user_id string, gender string, pages array<struct<page_id: string, page_like: bigint, page_comment: bigint,"
    " post_like: bigint, post_comment: bigint>>"
)
_USERS_A_BATCH = 1 << 13


def fingerprint_of(location: str) -> str:
    """The fingerprint of grouped users: their manifest's, or that of the files' content where they have none.

    Raises:
        InputError: There are none.
    """
    if outputs.is_finished(location):
        fingerprint: str = outputs.read_manifest(location, _STEP)["fingerprint"]
        return fingerprint
    return files_fingerprint(_files(location))


def read(spark: "SparkSession", location: str) -> "DataFrame":
    """Grouped users (GROUPED_USER) of an output folder, of a file, or of a folder of files.

    Raises:
        InputError: There are none, or the files are of no known type.
    """
    if outputs.is_finished(location):
        outputs.read_manifest(location, _STEP)
        return spark.read.parquet(engines.native_url(spark, storage.join(location, "users")))
    files = [file.location for file in _files(location)]
    if all(file.endswith(".parquet") for file in files):
        return spark.read.parquet(*(engines.native_url(spark, file) for file in files)).select(GROUPED_USER.names)
    return engines.map_items(spark, files, read_json_lines, _SPARK_SCHEMA)


def read_json_lines(location: str) -> Iterator[pa.RecordBatch]:
    """The predecessor's layout: a line a user, with a map page → count for every action.

    Yields:
        Rows of GROUPED_USER, a user's pages by `page_id`.

    Raises:
        UnreadableFile: A line is not of that layout; the message names it.
    """
    number = 0
    try:
        with storage.at(location).open("rb") as raw:
            lines = gzip.GzipFile(fileobj=raw) if location.endswith(".gz") else raw
            users: list[dict[str, Any]] = []
            for number, line in enumerate(lines, 1):  # noqa: B007 - the error names it
                users.append(_parse_user(line))
                if len(users) == _USERS_A_BATCH:
                    yield pa.RecordBatch.from_pylist(users, schema=GROUPED_USER)
                    users = []
            yield pa.RecordBatch.from_pylist(users, schema=GROUPED_USER)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableFile(f"{location}, line {number or 1}", repr(error)) from error


def _parse_user(line: bytes) -> dict[str, Any]:
    user = json.loads(line)
    pages: dict[str, dict[str, Any]] = {}
    for action in ACTIONS:
        for page, count in user.get(action, {}).items():
            entry = pages.setdefault(page, {"page_id": page, **dict.fromkeys(ACTIONS, 0)})
            entry[action] = count
    return {
        "user_id": user["user_id"],
        "gender": user.get("gender") or UNKNOWN_GENDER,
        "pages": [pages[page] for page in sorted(pages)],
    }


def _files(location: str) -> list[storage.StoredFile]:
    path = storage.at(location)
    files = [storage.describe(path)] if path.is_file() else storage.list_files(location)
    if not files:
        raise InputError(f"There are no grouped users in {location}. Make them with group_by_user.")
    kinds = {".jsonl" if file.name.endswith((".jsonl", ".jsonl.gz")) else ".parquet" for file in files}
    if len(kinds) > 1 or not all(file.name.endswith((".parquet", ".jsonl", ".jsonl.gz")) for file in files):
        raise InputError(
            f"{location} must hold grouped users as .parquet, or as .jsonl or .jsonl.gz, and nothing else."
        )
    return files
