"""The current report of each partition, by the files below a root alone: no record of Dagster's is read."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
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

_CATEGORY = "category="


def list_current(store: Store) -> list[Listed]:
    """The current reports, as an index lists them, by month and category; `link` is the page's place."""
    months = list_months(store.all_outputs(AUDIENCE_REPORT))
    if not store.root.startswith("s3://"):  # threads would only wait for each other
        return [one for month in months for one in _of_month(store, month)]
    with ThreadPoolExecutor(8) as pool:
        partitions = [
            partition for found in pool.map(lambda month: _partitions(store, month), months) for partition in found
        ]
        return [
            one for one in pool.map(lambda partition: find_current(store, partition), partitions) if one is not None
        ]


def find_current(store: Store, partition: Partition) -> Listed | None:
    """The report of the current clusters of a partition; None if there is none, or its output is gone or damaged."""
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


def _of_month(store: Store, month: str) -> list[Listed]:
    found = (find_current(store, partition) for partition in _partitions(store, month))
    return [one for one in found if one is not None]


def _partitions(store: Store, month: str) -> list[Partition]:
    """The partitions of a month that have an output of the asset, current or not."""
    entries = storage.at(store.outputs(AUDIENCE_REPORT, Partition(month))).iterdir()
    names = sorted(entry.name.removeprefix(_CATEGORY) for entry in entries if entry.name.startswith(_CATEGORY))
    return [Partition(month, name) for name in names]
