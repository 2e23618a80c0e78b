"""How each category goes over the months, in a form that Dagster plots.

The plots of a month × category asset hold its last 120 partitions by key, which are those of one category. So an asset
of months, `category_trends`, has a record a month, with a figure for each category: that of its current output.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS
from audience_explorer_dagster.records import people
from audience_explorer_dagster.records.findings import VERDICT, with_verdict
from audience_explorer_dagster.records.history import ROOT, History, Record
from audience_explorer_dagster.store import Store
from spark_jobs import storage

CATEGORY_TRENDS = "category_trends"
CATEGORIES = "categories"

_COLUMNS = {
    "category": "The category.",
    "users": "Its users, rounded; few are fewer than min_people, and no point in a plot.",
    "k": "The number of clusters; in brackets what k_selection says where there are no segments.",
    "solidity": "How many clusters are solid, fair or doubtful; empty where that is not known.",
    "output": "The folder of the current k-means output.",
}
SCHEMA = dg.TableSchema([dg.TableColumn(name, description=what) for name, what in _COLUMNS.items()])


def record_trends(instance: dg.DagsterInstance, store: Store, current: Mapping[Partition, str]) -> None:
    """Record the months of some partitions of kmeans anew, where another output is current than is on record.

    A month's record is made of all its categories that are on record, also those of earlier runs. What no output is on
    record of has no figure, and so no point in a plot. The records are of months as they are, and belong to no run.

    Args:
        instance: Where the records are.
        store: Where the outputs are.
        current: The folders of the current outputs of partitions that were recorded or promoted just now.
    """
    by_month: dict[str, dict[str, str]] = {}
    for partition, folder in current.items():
        by_month.setdefault(partition.month, {})[str(partition.category)] = _name(folder)
    for month, outputs in by_month.items():
        on_record = _rows_on_record(instance, store, month)
        if outputs.items() <= {str(row["category"]): row["output"] for row in on_record}.items():
            continue
        details = as_metadata(_current_records(instance, store, month))
        if _rows(details) != on_record:
            details[ROOT] = dg.MetadataValue.path(storage.absolute(store.root))
            event = dg.AssetMaterialization(asset_key=CATEGORY_TRENDS, partition=month, metadata=details)
            instance.report_runless_asset_event(event)


def _rows_on_record(instance: dg.DagsterInstance, store: Store, month: str) -> list[Mapping[str, Any]]:
    """The table of a month's newest record; empty if it has none, or one of another root."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(CATEGORY_TRENDS), asset_partitions=[month])
    newest = instance.fetch_materializations(wanted, limit=1).records
    event = newest[0].asset_materialization if newest else None
    of_this_root = event is not None and event.metadata[ROOT].value == storage.absolute(store.root)
    return _rows(event.metadata) if event is not None and of_this_root else []


def _rows(details: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row.data for row in details[CATEGORIES].records]


def _current_records(instance: dg.DagsterInstance, store: Store, month: str) -> list[Record]:
    """The newest record of the current output of each category, of those that have one."""
    keys = instance.get_materialized_partitions(dg.AssetKey(KMEANS))
    partitions = sorted(found for found in map(Partition.parse, keys) if found.month == month)
    with ThreadPoolExecutor(8) as pool:
        current = list(pool.map(lambda partition: store.current(KMEANS, partition), partitions))
    history = History(instance, store, KMEANS, partitions)
    found = [
        next((record for record in history.all(partition) if record.folder == now.folder), None)
        for partition, now in zip(partitions, current, strict=True)
        if now is not None
    ]
    return [record for record in found if record is not None]


def as_metadata(records: Iterable[Record]) -> dict[str, Any]:
    """A month's metadata: a table of its categories, and their figures, `users/coffee`, `k/coffee` and so on.

    All categories' users come first, for Dagster plots a hundred figures at most.

    Args:
        records: The records of kmeans of the current outputs, one a category.
    """
    figures: dict[str, dict[str, int]] = {"users": {}, "k": {}, "solid_clusters": {}}
    rows = []
    for record in records:
        category = str(record.partition.category)
        k, verdict, solidity = (_value(record, name) for name in ("k", VERDICT, "solidity"))
        users = people.read(record.metadata, "users")
        if users is not None:
            figures["users"][category] = users
        figures["k"][category] = k
        if solidity:
            # Before segments had names, the table was that of clusters.
            table = record.metadata["segments" if "segments" in record.metadata else "clusters"]
            figures["solid_clusters"][category] = sum(row.data["solidity"] == "solid" for row in table.records)
        values = [category, people.shown(users), with_verdict(k, verdict), solidity or "", _name(record.folder)]
        rows.append(dg.TableRecord(dict(zip(_COLUMNS, values, strict=True))))
    return {
        CATEGORIES: dg.MetadataValue.table(rows, SCHEMA),
        **{
            f"{figure}/{category}": value
            for figure, by_category in figures.items()
            for category, value in by_category.items()
        },
    }


def _value(record: Record, name: str) -> Any:
    return record.metadata[name].value if name in record.metadata else None


def _name(folder: str) -> str:
    return folder.rpartition("/")[2]
