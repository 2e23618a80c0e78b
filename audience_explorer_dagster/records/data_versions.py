"""Data versions, by which Dagster says whether a partition is stale.

A record's data version is its output's fingerprint. It also says which record of each asset before it was read:
Dagster calls it stale as soon as one of these has a newer record with another fingerprint, or the code version is
raised. A change of a category file or of a run's config is not seen: Dagster knows neither.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    NULL_DATA_VERSION,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from audience_explorer_dagster import planning
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import Target
from audience_explorer_dagster.records.history import FINGERPRINT, INPUTS
from audience_explorer_dagster.records.raw_data import RAW_AUDIENCE

# The assets that each is made from, in the order of the fingerprints in a record.
_INPUTS = {
    planning.GROUPED_USERS: (RAW_AUDIENCE,),
    planning.CLUSTERING_INPUTS: (planning.GROUPED_USERS,),
    planning.K_SELECTION: (planning.CLUSTERING_INPUTS,),
    planning.KMEANS: (planning.CLUSTERING_INPUTS, planning.K_SELECTION),
    planning.SEGMENTS: (planning.KMEANS,),  # and those of the month before, which Dagster sees as the same asset
    planning.AUDIENCE_REPORT: (planning.KMEANS, planning.SEGMENTS),
}
_LOOKED_AT = 10  # records of an asset before it that are searched for the one that was read


def tags(
    instance: dg.DagsterInstance, target: Target, details: Mapping[str, Any], known: Mapping[Target, int]
) -> dict[str, str]:
    """The tags of a record, from its metadata.

    Args:
        instance: Where the records are.
        target: What is recorded.
        details: The metadata.
        known: The storage ids of records that were made just now, by target.
    """
    read = list(_value(details, INPUTS) or ())
    versions = {DATA_VERSION_TAG: str(_value(details, FINGERPRINT))}
    if "code_version" in details:
        versions[CODE_VERSION_TAG] = str(_value(details, "code_version"))
    for place, asset in enumerate(_INPUTS[target.asset]):
        version, pointer = NULL_DATA_VERSION.value, None
        # With a given k, k_selection is not read: whatever becomes of it makes nothing stale.
        if place < len(read):
            of_month = asset in (RAW_AUDIENCE, planning.GROUPED_USERS)
            source = Target(asset, Partition(target.partition.month) if of_month else target.partition)
            version = read[place]
            pointer = known.get(source) or _find(instance, source, version)
        versions[get_input_data_version_tag(dg.AssetKey(asset))] = version
        versions[get_input_event_pointer_tag(dg.AssetKey(asset))] = str(pointer or NULL_EVENT_POINTER)
    return versions


def _find(instance: dg.DagsterInstance, source: Target, version: str) -> int | None:
    """The storage id of the newest record of a source with a data version; None if there is none."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(source.asset), asset_partitions=[source.partition.key])
    # Dagster asks an asset that nothing makes for its observations.
    fetch = instance.fetch_observations if source.asset == RAW_AUDIENCE else instance.fetch_materializations
    records = fetch(wanted, limit=_LOOKED_AT).records
    matching = (record for record in records if (record.event_log_entry.tags or {}).get(DATA_VERSION_TAG) == version)
    return next((record.storage_id for record in matching), None)


def _value(details: Mapping[str, Any], name: str) -> Any:
    found = details.get(name)
    return getattr(found, "value", found)
