"""The current report of each partition, by the files below a root alone: no record of Dagster's is read."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, KMEANS
from audience_explorer_dagster.records.findings import SEGMENTS, VERDICTS
from audience_explorer_dagster.store import Store
from spark_jobs import make_report, storage
from spark_jobs.audience_report.page import Listed
from spark_jobs.errors import InputError
from spark_jobs.outputs import read_manifest
from spark_jobs.raw.months import list_months
from spark_jobs.vectors.category_files import BadCategory, read_category

_CATEGORY = "category="


def list_current(store: Store) -> list[Listed]:
    """The current reports, as an index lists them, by month and category; `link` is the page's place."""
    months = list_months(store.all_outputs(AUDIENCE_REPORT))
    with ThreadPoolExecutor(8) as pool:
        # Below a local root, threads would only wait for each other.
        each: Callable[..., Iterable[Any]] = pool.map if store.root.startswith("s3://") else map
        partitions = [one for found in each(lambda month: _partitions(store, month), months) for one in found]
        listed = [one for one in each(lambda partition: _find(store, partition), partitions) if one is not None]
        names = sorted({one.category for one in listed})
        private = dict(zip(names, each(lambda name: _is_private_now(store, name), names), strict=True))
    return [replace(one, private=one.private or private[one.category]) for one in listed]


def find_current(store: Store, partition: Partition) -> Listed | None:
    """The report of the current clusters of a partition; None if there is none, or its output is gone or damaged."""
    found = _find(store, partition)
    if found is None or found.private:
        return found
    return replace(found, private=_is_private_now(store, found.category))


def _find(store: Store, partition: Partition) -> Listed | None:
    """The same, private only if its category was so when the report was made."""
    current = store.current(AUDIENCE_REPORT, partition)
    if current is None:
        return None
    try:
        manifest = read_manifest(current.folder, AUDIENCE_REPORT)
        listed, made_from = as_listed(partition, current.folder, manifest["summary"]), manifest["inputs"]
    except (InputError, KeyError):
        return None
    # Clusters that were made or promoted by themselves have no report yet.
    clusters = store.current_fingerprint(KMEANS, partition)
    return listed if clusters is None or clusters in made_from else None


def _is_private_now(store: Store, category: str) -> bool:
    """Whether the category's file calls it private by now: a report that was made before does not know."""
    try:
        return read_category(store.category_file(category)).private
    except BadCategory:  # it is gone, or says nothing that can be understood
        return False


def as_listed(partition: Partition, folder: str, summary: Mapping[str, Any]) -> Listed:
    """A report as an index lists it.

    Args:
        partition: Its partition.
        folder: The output.
        summary: Of its manifest.
    """
    shown = summary.get("shown")  # segments, of which each may have several clusters; earlier reports have k alone
    return Listed(
        month=partition.month,
        category=str(partition.category),
        private=bool(summary.get("private")),
        link=storage.join(folder, make_report.REPORT),
        found=_found(int(summary["k"] if shown is None else shown), summary.get("verdict")),
        people=summary.get("users"),
    )


def _found(number: int, verdict: str | None) -> str:
    if verdict not in (None, SEGMENTS):
        return VERDICTS[verdict]
    return f"{number} {'group' if verdict is None else 'segment'}{'s' * (number != 1)}"


def _partitions(store: Store, month: str) -> list[Partition]:
    """The partitions of a month that have an output of the asset, current or not."""
    entries = storage.at(store.outputs(AUDIENCE_REPORT, Partition(month))).iterdir()
    names = sorted(entry.name.removeprefix(_CATEGORY) for entry in entries if entry.name.startswith(_CATEGORY))
    return [Partition(month, name) for name in names]
