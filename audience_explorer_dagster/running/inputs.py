"""What plans are made from: the fingerprints of raw data and category files, and the partitions whose records count."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
)
from audience_explorer_dagster.store import Store
from spark_jobs.errors import InputError
from spark_jobs.following.edits import Edit, read_edits
from spark_jobs.outputs.fingerprints import files_fingerprint
from spark_jobs.raw import folder
from spark_jobs.storage import StoredFile
from spark_jobs.vectors.category_files import check_name, read_category

Key = TypeVar("Key")
Value = TypeVar("Value")


def list_raw_files(store: Store, months: Sequence[Partition]) -> dict[Partition, list[StoredFile] | Exception]:
    """Each month's raw files, or why there are none."""
    return _ask_all(months, lambda month: folder.list_raw_files(store.raw(month.month)))


def raw_fingerprints(files: Mapping[Partition, list[StoredFile] | Exception]) -> dict[Partition, str | Exception]:
    """The fingerprint of each month's raw files, or why there is none."""
    return {
        month: of_month if isinstance(of_month, Exception) else files_fingerprint(of_month)
        for month, of_month in files.items()
    }


def category_fingerprints(store: Store, names: Sequence[str]) -> dict[str, str | Exception]:
    """The fingerprint of each category's file, or what is wrong with it."""
    return _ask_all(names, lambda name: read_category(store.category_file(check_name(name))).fingerprint)


def edits_of_segments(store: Store, names: Sequence[str]) -> dict[str, tuple[Edit, ...] | Exception]:
    """What people say of each category's segments, or what is wrong with that file."""
    return _ask_all(names, lambda name: read_edits(store.edits_file(name)))


def needed_records(partitions: Sequence[Partition]) -> dict[str, Sequence[Partition]]:
    """What months × categories are planned from, by asset: their records, and those of their months' grouped users."""
    return {
        GROUPED_USERS: sorted({Partition(partition.month) for partition in partitions}),
        **dict.fromkeys((CLUSTERING_INPUTS, K_SELECTION, KMEANS, SEGMENTS, AUDIENCE_REPORT), partitions),
    }


def _ask_all(keys: Sequence[Key], ask: Callable[[Key], Value]) -> dict[Key, Value | Exception]:
    """Ask for each key, at the same time; an error that is the input's is an answer."""

    def answer(key: Key) -> Value | Exception:
        try:
            return ask(key)
        except InputError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(keys, pool.map(answer, keys), strict=True))
