"""Outputs that nothing needs any more: superseded ones, those that no record points at, and unfinished ones."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
)
from audience_explorer_dagster.records.history import History, Record
from audience_explorer_dagster.records.variants import LABEL
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.outputs import MANIFEST

Why = Literal["superseded", "not on record", "unfinished"]

# What is made from others first, so that what a kept output was made from is known when its turn comes. Segments and
# reports need nothing once they are made: they come after their clusters, and are kept as long as those are.
ASSETS = (KMEANS, SEGMENTS, AUDIENCE_REPORT, K_SELECTION, CLUSTERING_INPUTS, GROUPED_USERS)
_OF_CLUSTERS = (SEGMENTS, AUDIENCE_REPORT)

# As `store.new_folder_name` and `attempts_of` name folders; what has another name is somebody else's.
_FILE = re.compile(
    r"month=(?P<month>\d{4}-\d\d)/(?:category=(?P<category>[^/]+)/)?"
    r"(?P<folder>\d{8}T\d{6}-[0-9a-f]{8}(?:-\d+)?)/(?P<file>.+)"
)


@dataclass(frozen=True)
class Unneeded:
    """An output folder that nothing needs."""

    asset: str
    partition: Partition
    folder: str
    bytes: int
    modified: datetime  # its newest file
    why: Why


@dataclass(frozen=True)
class _Folder:
    """An output folder, as a listing has it."""

    location: str
    bytes: int
    modified: datetime
    finished: bool


def find_unneeded(instance: dg.DagsterInstance, store: Store, before: datetime) -> list[Unneeded]:
    """The outputs below the root that nothing needs, in the order of assets, partitions and age.

    Kept are a partition's current output, the one of its newest record, those with a label, those that were made or
    reused after `before`, and what any of these was made from.

    Args:
        instance: Where the records are.
        store: Where the outputs are.
        before: Only what was last made or reused before this is listed.

    Raises:
        InputError: There are outputs, and no record of any: these are not the root's records.
    """
    found: list[Unneeded] = []
    needed: set[str] = set()  # fingerprints of what kept outputs were made from
    clusters: set[str] = set()  # fingerprints of the outputs of kmeans that are kept
    outputs = any_record = False
    for asset in ASSETS:
        folders = _list_folders(store, asset)
        history = History(instance, store, asset, list(folders))
        for partition in sorted(folders):
            records = list(history.all(partition))
            outputs, any_record = outputs or any(f.finished for f in folders[partition]), any_record or bool(records)
            if asset in _OF_CLUSTERS:
                kept = _made_from(history, partition, clusters)
            else:
                kept = _kept(store, asset, partition, records, needed)
            kept |= {record.folder for record in records if record.recorded_at >= before}
            kept |= {folder.location for folder in folders[partition] if folder.modified >= before}
            if asset == KMEANS:
                clusters |= {record.fingerprint for record in records if record.folder in kept}
            if asset not in _OF_CLUSTERS:
                needed |= {name for record in records if record.folder in kept for name in record.inputs}
            found += _others(asset, partition, folders[partition], kept, {record.folder for record in records})
    if outputs and not any_record:
        raise InputError(
            f"There are outputs below {store.root}, and no record of any in {instance.root_directory}: these are the"
            " records of another root. Set DAGSTER_HOME to that of who made them."
        )
    return sorted(found, key=lambda one: (ASSETS[::-1].index(one.asset), one.partition, one.modified))


def delete(output: Unneeded) -> None:
    """Delete an output. Its manifest goes first: what is half deleted is no output."""
    storage.at(storage.join(output.folder, MANIFEST)).unlink(missing_ok=True)
    storage.delete_folder(output.folder)


def _made_from(history: History, partition: Partition, clusters: set[str]) -> set[str]:
    """The folders of what was made last from each of the outputs of kmeans with these fingerprints."""
    names = {name for record in history.all(partition) for name in record.inputs} & clusters
    made = (history.made_from(partition, name) for name in names)
    return {record.folder for record in made if record is not None}


def _kept(store: Store, asset: str, partition: Partition, records: Sequence[Record], needed: set[str]) -> set[str]:
    """The folders of a partition that are needed whatever their age."""
    kept = {record.folder for record in records if LABEL in record.metadata or record.fingerprint in needed}
    kept |= {record.folder for record in records[:1]}
    current = store.current(asset, partition)
    return kept | ({current.folder} if current is not None else set())


def _others(
    asset: str, partition: Partition, folders: Sequence[_Folder], kept: set[str], on_record: set[str]
) -> Iterator[Unneeded]:
    for folder in folders:
        if folder.location not in kept:
            why: Why = "superseded" if folder.location in on_record else "not on record"
            yield Unneeded(
                asset,
                partition,
                folder.location,
                folder.bytes,
                folder.modified,
                why if folder.finished else "unfinished",
            )


def _list_folders(store: Store, asset: str) -> dict[Partition, list[_Folder]]:
    """The output folders of an asset, by partition; one listing."""
    files: dict[tuple[Partition, str], dict[str, storage.ListedFile]] = {}
    for path, file in storage.list_below(store.all_outputs(asset)).items():
        match = _FILE.fullmatch(path)
        if match:
            files.setdefault((Partition(match["month"], match["category"]), match["folder"]), {})[match["file"]] = file
    folders: dict[Partition, list[_Folder]] = {}
    for (partition, name), of_folder in files.items():
        folder = _Folder(
            storage.join(store.outputs(asset, partition), name),
            sum(file.size for file in of_folder.values()),
            datetime.fromtimestamp(max(file.modified for file in of_folder.values()), timezone.utc),
            MANIFEST in of_folder,
        )
        folders.setdefault(partition, []).append(folder)
    return folders
