"""Whether an output is the current one of its partition or stands beside it, and why."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import (
    AUDIENCE_REPORT,
    CLUSTERING_INPUTS,
    GROUPED_USERS,
    K_SELECTION,
    KMEANS,
    SEGMENTS,
)
from audience_explorer_dagster.planning.explain import differing_values, shown
from audience_explorer_dagster.records.history import History, Record
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.store import OWN, Current

STANDING = "standing"

_MADE_FROM: dict[str, tuple[str, ...]] = {
    GROUPED_USERS: (),
    CLUSTERING_INPUTS: (GROUPED_USERS,),
    K_SELECTION: (CLUSTERING_INPUTS,),
    KMEANS: (CLUSTERING_INPUTS, K_SELECTION),
    SEGMENTS: (KMEANS,),
    AUDIENCE_REPORT: (KMEANS, SEGMENTS),
}


def foreign_parameters(configs: Mapping[str, Mapping[str, Any] | None], label: str | None, own: MonthRunConfig) -> str:
    """What keeps an output from being the deployment's own, such as `k 6 (the deployment's own: 4)`; empty if it is.

    Args:
        configs: The configs of the steps that it was made by, by asset, as recorded.
        label: Its label.
        own: The deployment's own config.
    """
    found = [f"label {label}"] if label not in (None, own.kmeans.label) else []
    # With a k given, nothing depends on how it would have been chosen.
    given = (configs.get(KMEANS) or {}).get("k") is not None
    for asset, config in configs.items():
        if config is not None and not (asset == K_SELECTION and given):
            found += [
                f"{name} {shown(value)} (the deployment's own: {shown(owns)})"
                for name, value, owns in differing_values(config, getattr(own, asset))
            ]
    return "; ".join(found)


def with_pinned_k(own: MonthRunConfig, k: int | None) -> MonthRunConfig:
    """The deployment's own config for a partition, of which people may have said a k."""
    if k is None:
        return own
    return own.model_copy(update={"kmeans": own.kmeans.model_copy(update={"k": k})})


def steps_to(asset: str) -> tuple[str, ...]:
    """The assets that an asset is made from, and itself."""
    before = [step for source in _MADE_FROM[asset] for step in steps_to(source)]
    return tuple(dict.fromkeys([*before, asset]))


def is_own(record: Record, histories: Mapping[str, History], own: MonthRunConfig) -> bool:
    """Whether a record is of an output with the deployment's own parameters, and not of a variant's label.

    Args:
        record: A record of kmeans.
        histories: The records of all assets of its partition.
        own: The deployment's own config.
    """
    label = record.metadata["label"].value if "label" in record.metadata else None
    configs = dict(_configs_of(KMEANS, record, histories))
    return foreign_parameters(configs, label, own) == ""


def _configs_of(
    asset: str, record: Record, histories: Mapping[str, History]
) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """The config of a record and of all that it was made from, found by their fingerprints."""
    for source in _MADE_FROM[asset]:
        partition = Partition(record.partition.month) if source == GROUPED_USERS else record.partition
        made_from = _with_fingerprint(histories[source].all(partition), record.inputs)
        if made_from is not None:
            yield from _configs_of(source, made_from, histories)
    yield asset, record.config


def _with_fingerprint(records: Iterable[Record], wanted: tuple[str, ...]) -> Record | None:
    return next((record for record in records if record.fingerprint in wanted), None)


def standing(folder: str, current: Current, beside: str, *, is_new: bool = False) -> str:
    """How an output stands to its partition's current one, as its record says it.

    Args:
        folder: The output's.
        current: The current output, now.
        beside: Why the output is not the deployment's own; empty if it is.
        is_new: It was computed just now.
    """
    if folder == current.folder:
        why = f": {current.why}" if current.why else ""
        return f"{'promoted' if current.promoted else 'current'}{why}"
    name = current.folder.rpartition("/")[2]
    if current.promoted and not beside:
        newer = "newer, and " if is_new else ""
        return f"beside {name}, which is promoted: {newer}{OWN}. To make it current: promote --automatic"
    return f"beside {name}{', which is promoted' if current.promoted else ''}: {beside or OWN}"
