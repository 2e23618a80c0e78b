"""The reports that are on record: that of each partition's current k-means output, and those of others."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, KMEANS
from audience_explorer_dagster.records import people
from audience_explorer_dagster.records.findings import SEGMENTS, VERDICT, VERDICTS
from audience_explorer_dagster.records.history import History, Record
from audience_explorer_dagster.records.variants import find_named
from audience_explorer_dagster.store import Store
from spark_jobs import make_report, storage
from spark_jobs.audience_report.page import Listed
from spark_jobs.errors import InputError


def partitions_with_one(instance: dg.DagsterInstance) -> list[Partition]:
    """The partitions that have a report on record, by month and category."""
    return sorted(map(Partition.parse, instance.get_materialized_partitions(dg.AssetKey(AUDIENCE_REPORT))))


def page_of(instance: dg.DagsterInstance, store: Store, partition: Partition, name: str | None) -> str:
    """Where the page of a partition is.

    Args:
        instance: Where the records are.
        store: Where the outputs are.
        partition: The partition.
        name: The label or the folder of a k-means output; None for the current one.

    Raises:
        InputError: There is no such output, or it has no report.
    """
    if name is None:
        clusters = store.current_fingerprint(KMEANS, partition)
    else:
        clusters = find_named(list(History(instance, store, KMEANS, [partition]).all(partition)), name).fingerprint
    record = History(instance, store, AUDIENCE_REPORT, [partition]).made_from(partition, clusters)
    if record is None:
        of_which = "current clusters" if name is None else f"clusters {name}"
        raise InputError(
            f"There is no report of the {of_which} of {partition}. Make it, with the parameters of those clusters:"
            f" audience-explorer pipeline --month {partition.month} --category {partition.category}"
        )
    return storage.join(record.folder, make_report.REPORT)


def list_current(instance: dg.DagsterInstance, store: Store, partitions: Sequence[Partition]) -> list[Listed]:
    """The reports of the current k-means outputs of partitions, as an index lists them; `link` is the page's place."""
    history = History(instance, store, AUDIENCE_REPORT, partitions)
    with ThreadPoolExecutor(8) as pool:
        current = pool.map(lambda partition: store.current_fingerprint(KMEANS, partition), partitions)
        found = [
            (partition, history.made_from(partition, clusters))
            for partition, clusters in zip(partitions, current, strict=True)
        ]
    return [_listed(partition, record) for partition, record in found if record is not None]


def _listed(partition: Partition, record: Record) -> Listed:
    def value(name: str) -> Any:
        return record.metadata[name].value if name in record.metadata else None

    shown = value("shown")  # segments, of which each may have several clusters; earlier reports have k alone
    number, verdict = int(value("k") if shown is None else shown), value(VERDICT)
    return Listed(
        month=partition.month,
        category=str(partition.category),
        private=bool(value("private")),
        link=storage.join(record.folder, make_report.REPORT),
        found=_found(number, verdict),
        people=people.read(record.metadata, "users") or None,
    )


def _found(number: int, verdict: str | None) -> str:
    if verdict not in (None, SEGMENTS):
        return VERDICTS[verdict]
    return f"{number} {'group' if verdict is None else 'segment'}{'s' * (number != 1)}"
