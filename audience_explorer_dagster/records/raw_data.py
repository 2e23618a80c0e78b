"""What has arrived of raw data: a record a month and change, so that the asset's page shows which months can be run."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records.history import FINGERPRINT, FOLDER
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.errors import UnreadableFile
from spark_jobs.outputs.fingerprints import files_fingerprint
from spark_jobs.raw.folder import find_problems

RAW_AUDIENCE = "raw_audience"
KNOWN_FILE_TYPES = "known_file_types"

_CHECK = dg.AssetCheckKey(dg.AssetKey(RAW_AUDIENCE), KNOWN_FILE_TYPES)

Files = Sequence[storage.StoredFile] | Exception  # a month's, or why it can't be run


def record_raw_data(instance: dg.DagsterInstance, store: Store, listed: Mapping[Partition, Files]) -> None:
    """Record what is there of some months, where that is not on record yet, and whether all of it can be read.

    No run made it, so the records belong to none.
    """
    changed = [
        _record_change(instance, store, month, files)
        for month, files in listed.items()
        if not isinstance(files, Exception)
    ]
    unreadable = [files for files in listed.values() if isinstance(files, UnreadableFile)]
    if any(changed) or unreadable or _is_failed(instance):
        result = check_file_types(store)
        # For all months together: without a run, Dagster takes one evaluation of a partition, and no second one.
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(_CHECK.asset_key, _CHECK.name, bool(result.passed), result.metadata)
        )


def check_file_types(store: Store) -> dg.AssetCheckResult:
    """Whether every month's folder that is there holds raw files, and only of the types that are read."""
    folders = [entry for entry in storage.list_entries(store.all_raw) if entry.kind != "file"]
    with ThreadPoolExecutor(8) as pool:
        problems = dict(zip((entry.name for entry in folders), pool.map(_problems_in, folders), strict=True))
    rows = [{"folder": folder, "problems": " ".join(of_month)} for folder, of_month in sorted(problems.items())]
    return dg.AssetCheckResult(
        passed=not any(problems.values()),
        metadata={"folders": len(rows), "found": dg.MetadataValue.table([dg.TableRecord(row) for row in rows])},
    )


def _problems_in(folder: storage.Entry) -> list[str]:
    """What lies in a folder of raw data and can't be read, each with the way out."""
    if folder.kind != "folder":
        return [f"{folder.location} is a {folder.kind}, not a folder."]
    try:
        return find_problems(folder.location)
    except OSError as error:
        return [f"{folder.location} can't be read: {error.strerror or error}."]


def _record_change(
    instance: dg.DagsterInstance, store: Store, month: Partition, files: Sequence[storage.StoredFile]
) -> bool:
    """Record a month's files, if they are not on record yet; whether they were not."""
    fingerprint = files_fingerprint(files)
    if _recorded_version(instance, month) == fingerprint:
        return False
    names = {file.name for file in files}
    listed = storage.list_below(store.raw(month.month))
    last_changed = max((file.modified for name, file in listed.items() if name in names), default=time.time())
    metadata: dict[str, Any] = {
        "raw_files": len(files),
        "bytes": sum(file.size for file in files),
        "last_changed": dg.MetadataValue.timestamp(last_changed),
        FOLDER: dg.MetadataValue.path(store.raw(month.month)),
        FINGERPRINT: fingerprint,
    }
    tags = {DATA_VERSION_TAG: fingerprint}
    # The asset's page shows materializations; for whether a partition is stale, Dagster looks at observations.
    for event in (dg.AssetMaterialization, dg.AssetObservation):
        instance.report_runless_asset_event(
            event(asset_key=dg.AssetKey(RAW_AUDIENCE), partition=month.key, metadata=metadata, tags=tags)
        )
    return True


def _recorded_version(instance: dg.DagsterInstance, month: Partition) -> str | None:
    """The data version of what is on record of a month."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(RAW_AUDIENCE), asset_partitions=[month.key])
    newest = instance.fetch_observations(wanted, limit=1).records
    return (newest[0].event_log_entry.tags or {}).get(DATA_VERSION_TAG) if newest else None


def _is_failed(instance: dg.DagsterInstance) -> bool:
    """Whether the files' types were wrong when they were looked at last."""
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key([_CHECK]).get(_CHECK)
    return newest is not None and newest.evaluation is not None and not newest.evaluation.passed
