"""Materialization records: what was made of a partition, from what, and where it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import Store
from spark_jobs import outputs, storage

FINGERPRINT = "fingerprint"
FOLDER = "folder"  # relative to the root
ROOT = "root"  # as it was at that time
INPUTS = "inputs"

_PAGE = 200  # records a look-up, at most


@dataclass(frozen=True)
class Record:
    """One materialization of a partition of an asset."""

    partition: Partition
    fingerprint: str
    folder: str
    inputs: tuple[str, ...]  # the fingerprints of what it was made from, where they are on record
    run_id: str
    recorded_at: datetime
    metadata: dict[str, Any]

    @property
    def code_version(self) -> str | None:
        """The version of the job that made the output; None if the record does not say."""
        version = self._value("code_version")
        return None if version is None else str(version)

    @property
    def config(self) -> dict[str, Any] | None:
        """The config that the output was made with; None if the record does not say."""
        config = self._value("config")
        return None if config is None else dict(config)

    def _value(self, name: str) -> Any:
        found = self.metadata.get(name)
        return getattr(found, "value", found)


class History:
    """The records of some partitions of an asset below one root, the newest first.

    Records of all the partitions are looked up together, page by page, and no further back than a question needs.
    """

    def __init__(self, instance: dg.DagsterInstance, store: Store, asset: str, partitions: Sequence[Partition]):
        self.store = store
        self.asset = asset
        self._pages = _pages(instance, store, asset, partitions)
        self._known: dict[Partition, list[Record]] = {partition: [] for partition in partitions}

    @property
    def partitions(self) -> list[Partition]:
        """The partitions whose records these are."""
        return list(self._known)

    def newest(self, partition: Partition) -> Record | None:
        """The newest record of a partition."""
        return next(self.all(partition), None)

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None:
        """The newest record of a partition with this fingerprint whose output is still there."""
        matching = (record for record in self.all(partition) if record.fingerprint == fingerprint)
        return next((record for record in matching if outputs.is_whole(record.folder, self.asset)), None)

    def damage_of(self, record: Record) -> str:
        """What is wrong with a record's output; empty if nothing is, or if it is gone."""
        return outputs.damage_of(record.folder, self.asset)

    def made_from(self, partition: Partition, fingerprint: str | None) -> Record | None:
        """The newest record of a partition whose output is still there, and was made from one of this fingerprint."""
        made = (record for record in self.all(partition) if fingerprint in record.inputs)
        return next((record for record in made if outputs.is_whole(record.folder, self.asset)), None)

    def all(self, partition: Partition) -> Iterator[Record]:
        """All records of a partition, looked up as they are asked for."""
        known = self._known[partition]
        place = 0
        while True:
            while place < len(known):
                yield known[place]
                place += 1
            page = next(self._pages, None)
            if page is None:
                return
            for record in page:
                self._known[record.partition].append(record)


def storage_ids(instance: dg.DagsterInstance, asset: str, partitions: Sequence[Partition]) -> dict[Partition, int]:
    """The ids in Dagster's storage of the newest records of some partitions; of those that have one."""
    if not partitions:
        return {}
    keys = {partition.key for partition in partitions}
    found = instance.get_latest_storage_id_by_partition(
        dg.AssetKey(asset), dg.DagsterEventType.ASSET_MATERIALIZATION, keys
    )
    return {Partition.parse(key): storage_id for key, storage_id in found.items()}


def _pages(
    instance: dg.DagsterInstance, store: Store, asset: str, partitions: Sequence[Partition]
) -> Iterator[list[Record]]:
    keys = [partition.key for partition in partitions]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=keys)
    cursor: str | None = None
    more = bool(keys)
    # The newest of each partition are most often the newest of all: a run records them together.
    page = len(keys)
    while more:
        page = min(page, _PAGE)
        found = instance.fetch_materializations(wanted, limit=page, cursor=cursor)
        page *= 4
        yield [record for record in (_parse(record, store) for record in found.records) if record is not None]
        cursor, more = found.cursor, found.has_more


def _parse(record: dg.EventLogRecord, store: Store) -> Record | None:
    event = record.asset_materialization
    recorded_at = datetime.fromtimestamp(record.timestamp, timezone.utc)
    return None if event is None else as_record(event, record.run_id, recorded_at, store)


def as_record(event: dg.AssetMaterialization, run_id: str, recorded_at: datetime, store: Store) -> Record | None:
    """The record that a materialization is, or will be.

    None if it is of another root, or was reported by hand in the UI or by other code.
    """
    if event.partition is None or not {FINGERPRINT, FOLDER} <= event.metadata.keys():
        return None
    partition = Partition.parse(event.partition)
    root = str(event.metadata[ROOT].value) if ROOT in event.metadata else None
    folder = store.locate(event.asset_key.to_user_string(), partition, str(event.metadata[FOLDER].value), root)
    if folder is None:
        return None
    return Record(
        partition,
        str(event.metadata[FINGERPRINT].value),
        folder,
        tuple(event.metadata[INPUTS].value) if INPUTS in event.metadata else (),  # type: ignore[arg-type]
        run_id,
        recorded_at,
        dict(event.metadata),
    )


def newest_of_asset(instance: dg.DagsterInstance, store: Store, asset: str, limit: int) -> list[Record]:
    """Some of the newest records of an asset below one root, whatever their partition, the newest first."""
    found = instance.fetch_materializations(dg.AssetKey(asset), limit=limit).records
    return [record for record in (_parse(record, store) for record in found) if record is not None]


def located(folder: str, store: Store) -> dict[str, dg.MetadataValue]:
    """Where an output is, as a record says it: it still holds when the root was moved."""
    return {
        FOLDER: dg.MetadataValue.path(store.place(folder)),
        ROOT: dg.MetadataValue.path(storage.absolute(store.root)),
    }
