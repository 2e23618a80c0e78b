"""Adoption: outputs that are below the root and on no record here are put on record, by what their manifests prove."""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
    Target,
)
from audience_explorer_dagster.records import data_versions, metadata, trends, variants
from audience_explorer_dagster.records.history import History, Record, as_record
from audience_explorer_dagster.records.standing import STANDING, standing
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.outputs import MANIFEST, read_manifest

ADOPTED = "adopted"
_WHY = "put on record by its manifest"

_ASSETS = (GROUPED_USERS, CLUSTERING_INPUTS, K_SELECTION, KMEANS, SEGMENTS, AUDIENCE_REPORT)
_PLACE = re.compile(rf"month=(\d{{4}}-\d\d)/(?:category=([^/]+)/)?[^/]+/{re.escape(MANIFEST)}")


@dataclass(frozen=True)
class Unrecorded:
    """A finished output that has no record."""

    target: Target
    folder: str
    made_at: datetime
    fingerprint: str
    metadata: dict[str, Any]  # of its record


@dataclass(frozen=True)
class Found:
    """What was found below a root."""

    missing: list[Unrecorded]  # the oldest first
    left_out: list[str]  # what is wrong with the others
    on_record: int


def what_is_not_on_record(records: Mapping[str, History], store: Store, home: str) -> str:
    """What to say if some partitions have an output below the root, and none on record; empty if that is not so.

    Args:
        records: The records of the partitions, by asset.
        store: The root.
        home: Where the records are.
    """
    # What k-means is made from has no record either, then.
    for asset, history in records.items():
        for partition in history.partitions if asset in (KMEANS, GROUPED_USERS) else ():
            if history.newest(partition) is None and store.current(asset, partition) is not None:
                return (
                    f"{storage.absolute(store.root)} has outputs that are not on record in {home}, such as"
                    f" {Target(asset, partition)}, and they are computed again. To put them on record instead:"
                    " audience-explorer adopt"
                )
    return ""


def find(instance: dg.DagsterInstance, store: Store) -> Found:
    """The outputs below the root that have no record."""
    missing: list[Unrecorded] = []
    left_out: list[str] = []
    on_record = 0
    for asset in _ASSETS:
        below = storage.join(storage.absolute(store.root), asset)
        files = storage.list_below(below)
        folders = {storage.join(below, path.removesuffix(f"/{MANIFEST}")): _target(asset, path) for path in files}
        targets = {folder: target for folder, target in folders.items() if target is not None}
        partitions = sorted({target.partition for target in targets.values()})
        history = History(instance, store, asset, partitions)
        known = {record.folder for partition in partitions for record in history.all(partition)}
        on_record += len(known & targets.keys())
        sizes = _by_folder(targets, {storage.join(below, path): file.size for path, file in files.items()})
        new = {folder: target for folder, target in targets.items() if folder not in known}
        for found in _read_all(new, store, sizes):
            if isinstance(found, Unrecorded):
                missing.append(found)
            else:
                left_out.append(found)
    return Found(sorted(missing, key=lambda found: found.made_at), left_out, on_record)


def put_on_record(instance: dg.DagsterInstance, store: Store, missing: Iterable[Unrecorded]) -> None:
    """Record outputs. The last record of each partition is that of its current output, as if that was made last."""
    by_target: dict[Target, list[Unrecorded]] = {}
    for found in missing:
        by_target.setdefault(found.target, []).append(found)
    current = {target: _put_on_record(instance, store, target, outputs) for target, outputs in by_target.items()}
    of_kmeans = {target.partition: folder for target, folder in current.items() if target.asset == KMEANS}
    trends.record_trends(instance, store, of_kmeans)


def _put_on_record(instance: dg.DagsterInstance, store: Store, target: Target, missing: Sequence[Unrecorded]) -> str:
    """Record outputs of a target; the folder of its current one."""
    asset, partition = target.asset, target.partition
    newest = missing[-1]
    # Where `current.json` names none, the newest is.
    current = store.point_current(asset, partition, newest.folder, newest.fingerprint, _WHY)
    known = list(History(instance, store, asset, [partition]).all(partition))
    events = [(found.folder, found.metadata) for found in missing]
    of_current = next((record for record in known if record.folder == current.folder), None)
    if of_current is not None:
        events.append((current.folder, metadata.of_reused(of_current, store, None)))
    events.sort(key=lambda event: event[0] == current.folder)
    for folder, of_output in events:
        details = dict(of_output)
        if asset == KMEANS:
            details[STANDING] = standing(folder, current, _WHY)
            known.insert(0, _as_record(target, details, store))
            details |= variants.as_metadata(variants.side_by_side(known, current), current)
        tags = data_versions.tags(instance, target, details, {})
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                asset_key=asset, partition=partition.key, metadata=metadata.in_reading_order(details), tags=tags
            )
        )
    return current.folder


def _as_record(target: Target, details: Mapping[str, Any], store: Store) -> Record:
    event = dg.AssetMaterialization(asset_key=target.asset, partition=target.partition.key, metadata=details)
    record = as_record(event, "", datetime.now(timezone.utc), store)
    assert record is not None
    return record


def _target(asset: str, path: str) -> Target | None:
    """The target whose output has its manifest at this path below the asset's folder; None if that is none."""
    place = _PLACE.fullmatch(path)
    # Of a month's asset, a folder for a category is no output, and the other way round.
    if place is None or (place[2] is None) != (asset == GROUPED_USERS):
        return None
    return Target(asset, Partition(place[1], place[2]))


def _by_folder(folders: Iterable[str], sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """The sizes of the files in each folder, by their names in it."""
    found: dict[str, dict[str, int]] = {folder: {} for folder in folders}
    for path, size in sizes.items():
        place = path
        while place := place.rpartition("/")[0]:
            if place in found:
                found[place][path.removeprefix(f"{place}/")] = size
    return found


def _read_all(
    folders: Mapping[str, Target], store: Store, sizes: Mapping[str, Mapping[str, int]]
) -> list[Unrecorded | str]:
    """The output in each folder, or what is wrong with it."""

    def read(folder: str) -> Unrecorded | str:
        try:
            return _read(folders[folder], folder, store, sizes[folder])
        except InputError as error:
            return str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"{storage.join(folder, MANIFEST)} is not a whole manifest: {type(error).__name__}: {error}"

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(read, folders))


def _read(target: Target, folder: str, store: Store, sizes: Mapping[str, int]) -> Unrecorded:
    manifest = read_manifest(folder, target.asset, sizes)
    made_at = datetime.fromisoformat(manifest["created_at"]).astimezone(timezone.utc)
    details = {
        **metadata.of_computed(target.asset, folder, store, manifest, {}),
        "computed_at": dg.MetadataValue.timestamp(made_at),
        metadata.REUSED: True,
        ADOPTED: True,
    }
    return Unrecorded(target, folder, made_at, str(manifest["fingerprint"]), details)
