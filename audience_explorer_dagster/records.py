"""Materialization records: what was made of a partition, from what, and where it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import Store
from spark_jobs import outputs

FINGERPRINT = "fingerprint"
FOLDER = "folder"
INPUTS = "inputs"

_PAGE = 200  # records a look-up


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


class History:
    """The records of some partitions of an asset below one root, the newest first.

    Records of all the partitions are looked up together, page by page, and no further back than a question needs.
    """

    def __init__(self, instance: dg.DagsterInstance, store: Store, asset: str, partitions: Sequence[Partition]):
        self._store = store
        self._pages = _pages(instance, asset, partitions)
        self._known: dict[Partition, list[Record]] = {partition: [] for partition in partitions}

    def newest(self, partition: Partition) -> Record | None:
        """The newest record of a partition."""
        return next(self._of(partition), None)

    def reusable(self, partition: Partition, fingerprint: str) -> Record | None:
        """The newest record of a partition with this fingerprint whose output is still there."""
        matching = (record for record in self._of(partition) if record.fingerprint == fingerprint)
        return next((record for record in matching if outputs.is_finished(record.folder)), None)

    def _of(self, partition: Partition) -> Iterator[Record]:
        place = 0
        while True:
            yield from self._known[partition][place:]
            place = len(self._known[partition])
            page = next(self._pages, None)
            if page is None:
                return
            for record in page:
                if self._store.holds(record.folder):
                    self._known[record.partition].append(record)


def _pages(instance: dg.DagsterInstance, asset: str, partitions: Sequence[Partition]) -> Iterator[list[Record]]:
    keys = [partition.key for partition in partitions]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=keys)
    cursor: str | None = None
    more = bool(keys)
    while more:
        found = instance.fetch_materializations(wanted, limit=_PAGE, cursor=cursor)
        yield [record for record in map(_parse, found.records) if record is not None]
        cursor, more = found.cursor, found.has_more


def _parse(record: dg.EventLogRecord) -> Record | None:
    event = record.asset_materialization
    if event is None or event.partition is None or not {FINGERPRINT, FOLDER} <= event.metadata.keys():
        return None  # reported by hand in the UI, or by other code
    return Record(
        Partition.parse(event.partition),
        str(event.metadata[FINGERPRINT].value),
        str(event.metadata[FOLDER].value),
        tuple(event.metadata[INPUTS].value) if INPUTS in event.metadata else (),  # type: ignore[arg-type]
        record.run_id,
        datetime.fromtimestamp(record.timestamp, timezone.utc),
        dict(event.metadata),
    )
