"""The reports that are on record: that of each partition's current k-means output, and those of others."""

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, KMEANS
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.records.variants import find_named
from audience_explorer_dagster.store import Store
from spark_jobs import make_report, storage
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
