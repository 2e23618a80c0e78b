"""Tweaks side by side: the outputs of kmeans that a partition has on record, and which of them is current."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, GROUPED_USERS, KMEANS, Target
from audience_explorer_dagster.planning import SEGMENTS as FOLLOWED
from audience_explorer_dagster.records import data_versions, metadata, people, trends
from audience_explorer_dagster.records.column_schemas import table_schema
from audience_explorer_dagster.records.findings import SEGMENTS, VERDICT, with_verdict
from audience_explorer_dagster.records.history import History, Record, as_record
from audience_explorer_dagster.records.standing import STANDING, is_own, standing, steps_to
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.store import Current, Store
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig
from spark_jobs.errors import InputError
from spark_jobs.outputs import is_whole

CURRENT = "current"
LABEL = "label"
PROMOTED = "promoted"
TWEAKS = "tweaks"

_MOST_SHOWN = 20  # tweaks with a record, so that it stays small
_MOST_SIZES = 5  # of clusters in a table
_BEFORE_CODE_VERSION_3 = {"fit_min_actions": 1}  # of kmeans: it learned from everybody


@dataclass(frozen=True)
class Tweak:
    """An output of kmeans, with what it was made by and how well that went."""

    folder: str
    labels: tuple[str, ...]  # that it was given, the last one first
    config: dict[str, Any]  # of kmeans
    clustering_inputs: dict[str, Any]  # the config of what it was made from
    k: int
    requested_k: int
    users: int | None  # rounded, as are all figures of people; None for few
    sizes: tuple[int | None, ...]  # users of each cluster
    wssse: float | None  # None where users are few
    silhouette: float | None
    verdict: str | None  # of the k_selection that chose k
    solidity: str  # of its clusters, such as `3 solid, 1 doubtful`; empty if not known
    computed_at: datetime
    current: bool
    promoted: bool  # it is current because a person promoted it

    @property
    def name(self) -> str:
        """The name of its folder."""
        return _name(self.folder)

    @property
    def parameters(self) -> str:
        """`params`, and whatever else is not as it is by default."""
        config = {**_BEFORE_CODE_VERSION_3, **self.config}
        kmeans = {name: value for name, value in config.items() if name not in ("k", "params", LABEL)}
        parts = [
            config["params"],
            *_changed(kmeans, KMeansConfig().model_dump()),
            *_changed(self.clustering_inputs, ClusteringInputsConfig().model_dump()),
        ]
        return "; ".join(parts)


def side_by_side(records: Iterable[Record], current: Current | None) -> list[Tweak]:
    """The tweaks of a partition, each once, the last computed first.

    Args:
        records: All records of kmeans of the partition, the newest first.
        current: The partition's current output.
    """
    by_folder: dict[str, list[Record]] = {}
    for record in records:
        by_folder.setdefault(record.folder, []).append(record)
    tweaks = [_tweak(of_folder, current) for of_folder in by_folder.values()]
    return sorted(tweaks, key=lambda tweak: tweak.computed_at, reverse=True)


def beside(history: History, partition: Partition, details: Mapping[str, Any], current: Current) -> dict[str, Any]:
    """What a new record of kmeans shows beside its own output: which one is current, and all tweaks.

    Where the newest record shows this output already, no older one is looked up.

    Args:
        history: The earlier records of kmeans.
        partition: The partition that is recorded.
        details: The new record's metadata.
        current: The partition's current output, now.
    """
    event = dg.AssetMaterialization(asset_key=KMEANS, partition=partition.key, metadata=details)
    record = as_record(event, run_id="", recorded_at=datetime.now(timezone.utc), store=history.store)
    assert record is not None
    newest = history.newest(partition)
    shown = None if newest is None else _as_shown(newest, record, current)
    return shown or as_metadata(side_by_side([record, *history.all(partition)], current), current)


def as_metadata(tweaks: Sequence[Tweak], current: Current) -> dict[str, Any]:
    """The tweaks of a partition, and its current output, as a record shows them."""
    shown = [tweak for place, tweak in enumerate(tweaks) if place < _MOST_SHOWN or tweak.current]
    return _as_table(current, [{name: show(tweak) for name, show in COLUMNS.items()} for tweak in shown])


def _as_table(current: Current, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    table = dg.MetadataValue.table([dg.TableRecord(row) for row in rows], table_schema(COLUMNS))
    return {CURRENT: _name(current.folder), TWEAKS: table}


@dataclass(frozen=True)
class Choice:
    """Which output of kmeans a person wants to be current: that of a label or folder, or what is so by itself."""

    label: str | None = None
    folder: str | None = None  # its name, or all of it
    automatic: bool = False

    def check(self) -> None:
        """Check that it is one of the three.

        Raises:
            InputError: It is not.
        """
        if [self.label is not None, self.folder is not None, self.automatic].count(True) != 1:
            raise InputError("Name the output, by a label or by a folder; or end a promotion, by automatic.")


def promote(
    instance: dg.DagsterInstance,
    store: Store,
    partition: Partition,
    histories: Mapping[str, History],
    choice: Choice,
    own: MonthRunConfig,
    report: Callable[[dg.AssetMaterialization], object],
) -> Tweak | None:
    """Make an output the current one of its partition for good, or end that, and record it.

    Args:
        instance: Where the records are.
        store: Where the outputs are.
        partition: The partition.
        histories: The records of all assets, of that partition.
        choice: The output that is wanted.
        own: The deployment's own config.
        report: Puts a materialization on record.

    Returns:
        The output that is current now; None if there is none.

    Raises:
        InputError: There is no such output on record, or it is gone.
    """
    choice.check()
    records = list(histories[KMEANS].all(partition))
    if choice.automatic:
        current = store.end_promotion(KMEANS, partition)
        found = next((r for r in records if is_whole(r.folder, KMEANS) and is_own(r, histories, own)), None)
        if found is not None:
            current = store.point_current(KMEANS, partition, found.folder, found.fingerprint)
    else:
        found = choose(records, choice)
        by_whom = f"by a person, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        current = store.point_current(KMEANS, partition, found.folder, found.fingerprint, promoted=by_whom)
    if current is None:
        return None
    of_clusters = {} if found is None else _point_along(store, partition, histories, found)
    tweaks = side_by_side(records, current)
    now = next((tweak for tweak in tweaks if tweak.current), None)
    if now is not None:
        of_now = found or next(record for record in records if record.folder == current.folder)
        label = choice.label or (None if choice.automatic else next(iter(now.labels), None))
        details = metadata.of_reused(of_now, store, label)
        details |= as_metadata(tweaks, current) | {STANDING: standing(current.folder, current, "")}
        details |= {PROMOTED: True} if current.promoted else {}
        if AUDIENCE_REPORT in of_clusters:
            details |= metadata.link_to_report(of_clusters[AUDIENCE_REPORT].folder, partition, None, is_current=True)
        tags = data_versions.tags(instance, Target(KMEANS, partition), details, {})
        shown = metadata.in_reading_order(details)
        report(dg.AssetMaterialization(asset_key=KMEANS, partition=partition.key, metadata=shown, tags=tags))
        for asset, record in of_clusters.items():
            report(_again(instance, store, Target(asset, partition), record, label))
        trends.record_trends(instance, store, {partition: current.folder})
    return now


def _again(
    instance: dg.DagsterInstance, store: Store, target: Target, record: Record, label: str | None
) -> dg.AssetMaterialization:
    """A new record of what is made from clusters, so that the newest is that of the current ones, and not stale."""
    details = metadata.of_reused(record, store, label)
    if target.asset == AUDIENCE_REPORT:
        details |= metadata.link_to_report(record.folder, record.partition, None, is_current=True)
    tags = data_versions.tags(instance, target, details, {})
    return dg.AssetMaterialization(
        asset_key=target.asset,
        partition=target.partition.key,
        metadata=metadata.in_reading_order(details),
        tags=tags,
    )


def _point_along(
    store: Store, partition: Partition, histories: Mapping[str, History], clusters: Record
) -> dict[str, Record]:
    """Make the segments and the report of the clusters that are current now the current ones; those there are."""
    found = {}
    for asset in (FOLLOWED, AUDIENCE_REPORT):
        made = histories[asset].made_from(partition, clusters.fingerprint)
        if made is None:
            store.point_nowhere(asset, partition)
        else:
            store.point_along(asset, partition, made.folder, made.fingerprint, KMEANS, clusters.fingerprint)
            found[asset] = made
    return found


def histories_of(instance: dg.DagsterInstance, store: Store, partition: Partition) -> dict[str, History]:
    """The records of all assets that a partition of kmeans is made from, its own, and those of what follows."""
    month = Partition(partition.month)
    return {
        step: History(instance, store, step, [month if step == GROUPED_USERS else partition])
        for step in steps_to(AUDIENCE_REPORT)
    }


def told(partition: Partition, now: Tweak | None) -> str:
    """Which output of a partition is current, for a person."""
    if now is None:
        return f"kmeans {partition} has no current output"
    promoted = ", promoted" if now.promoted else ""
    return f"current output of kmeans {partition}: {now.name}{promoted}, k {now.k}, {now.parameters}"


def choose(records: Sequence[Record], choice: Choice) -> Record:
    """The newest record that was given the label of a choice, or whose output is in its folder.

    Raises:
        InputError: There is no such output on record, or it is gone.
    """
    label, folder = choice.label, choice.folder
    if label is not None:
        found = [record for record in records if _label(record) == label]
        wanted, known = f"label {label!r}", [_label(record) for record in records]
    else:
        found = [record for record in records if folder in (record.folder, _name(record.folder))]
        wanted, known = f"folder {folder!r}", [_name(record.folder) for record in records]
    if not found:
        listed = ", ".join(filter(None, dict.fromkeys(known))) or "none"
        raise InputError(f"No output on record has the {wanted}. There are: {listed}.")
    newest = found[0]
    if not is_whole(newest.folder, KMEANS):
        gone = _tweak([newest], None)
        raise InputError(
            f"The output {newest.folder} is gone. Make it again, by a pipeline with its parameters:"
            f" k {_told_k(gone)}; {gone.parameters}."
        )
    return newest


def find_named(records: Sequence[Record], name: str) -> Record:
    """The newest record that was given a label of this name, or else whose output's folder has it.

    Raises:
        InputError: There is none; the message lists what there is.
    """
    by_label = [record for record in records if _label(record) == name]
    found = by_label or [record for record in records if _name(record.folder) == name]
    if not found:
        known = dict.fromkeys(_label(record) or _name(record.folder) for record in records)
        listed = ", ".join(known) or "none"
        raise InputError(f"No output on record has the label or folder {name!r}. There are: {listed}.")
    return found[0]


def _as_shown(newest: Record, record: Record, current: Current) -> dict[str, Any] | None:
    """What the newest record shows, if that needs no more than a change of which one is current."""
    if TWEAKS not in newest.metadata or not people.is_published(newest.metadata):
        return None
    rows = {str(row.data["folder"]): row.data for row in newest.metadata[TWEAKS].records}
    own = rows.get(_name(record.folder))
    if own is None or _name(current.folder) not in rows:
        return None
    if _label(record) not in (None, *str(own["label"]).split(", ")):
        return None
    told = {_name(current.folder): "promoted" if current.promoted else "yes"}
    empty = dict.fromkeys(COLUMNS, "")  # a record of an earlier version has fewer columns
    return _as_table(current, [{**empty, **row, "current": told.get(name, "")} for name, row in rows.items()])


def _tweak(records: Sequence[Record], current: Current | None) -> Tweak:
    """The tweak of the records of an output, the newest first."""
    newest, oldest = records[0], records[-1]
    # The first record is the output's own, unless that was wiped: each that reuses it says when it was computed.
    computed = _value(oldest, "computed_at")
    is_current = current is not None and current.folder == newest.folder
    users = people.read(newest.metadata, "users")
    return Tweak(
        folder=newest.folder,
        labels=tuple(dict.fromkeys(filter(None, map(_label, records)))),
        config=_value(newest, "config"),
        clustering_inputs=_value(newest, "clustering_inputs") or {},
        k=_value(newest, "k"),
        requested_k=_value(newest, "requested_k"),
        users=users,
        sizes=people.read_sizes(newest.metadata),
        wssse=None if users is None else _value(newest, "wssse"),
        silhouette=None if users is None else _value(newest, "silhouette"),
        verdict=_value(newest, VERDICT),
        solidity=_value(newest, "solidity") or "",
        computed_at=datetime.fromtimestamp(computed, timezone.utc) if computed else oldest.recorded_at,
        current=is_current,
        promoted=is_current and current is not None and current.promoted,
    )


def _name(folder: str) -> str:
    return folder.rpartition("/")[2]


def _label(record: Record) -> str | None:
    label: str | None = _value(record, LABEL)
    return label


def _value(record: Record, name: str) -> Any:
    return record.metadata[name].value if name in record.metadata else None


def _told_k(tweak: Tweak) -> str:
    if tweak.config["k"] is None:
        return f"{tweak.k} chosen" if tweak.verdict in (None, SEGMENTS) else with_verdict(tweak.k, tweak.verdict)
    return str(tweak.k) if tweak.k == tweak.requested_k else f"{tweak.k} of {tweak.requested_k}"


def _told_sizes(tweak: Tweak) -> str:
    told = [people.shown(size) for size in tweak.sizes[:_MOST_SIZES]]
    return ", ".join(told if len(told) == len(tweak.sizes) else [*told, "…"])


def _changed(config: Mapping[str, Any], default: Mapping[str, Any]) -> Iterator[str]:
    """The values that are not as they are by default, such as `seed 7` and `page_like 2.0`."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _changed(value, default.get(name, {}))
        elif value != default.get(name):
            yield f"{name} {value}"


COLUMNS: dict[str, Callable[[Tweak], str]] = {
    "current": lambda t: "promoted" if t.promoted else "yes" if t.current else "",
    "label": lambda t: ", ".join(t.labels),
    "k": _told_k,
    "parameters": lambda t: t.parameters,
    "users": lambda t: people.shown(t.users),
    "sizes": _told_sizes,
    "solidity": lambda t: t.solidity,
    "wssse": lambda t: "" if t.wssse is None else f"{t.wssse:.6g}",
    "silhouette": lambda t: "" if t.silhouette is None else f"{t.silhouette:.3f}",
    "computed (UTC)": lambda t: f"{t.computed_at:%Y-%m-%d %H:%M}",
    "folder": lambda t: t.name,
}
