"""The records of a run: a materialization for each target that is done, and in the end its checks."""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData

from audience_explorer_dagster.launchers import Report
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, GROUPED_USERS, KMEANS, SEGMENTS, Target
from audience_explorer_dagster.planning.decisions import Compute, Impossible, Reuse
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records import asset_checks, data_versions, metadata, people, trends, variants
from audience_explorer_dagster.records.history import INPUTS, History, Record, storage_ids
from audience_explorer_dagster.records.standing import STANDING, foreign_parameters, standing, steps_to, with_pinned_k
from audience_explorer_dagster.reports.index import keep_index_current
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.store import Store
from spark_jobs.clusters import published


def record_intent(context: dg.OpExecutionContext, plan: Plan) -> None:
    """Record what a run of an op's job means to materialize; Dagster does that by itself for jobs of assets.

    From this Dagster knows which partitions materialize while the run lasts, and, if it fails, which ones it did not
    make. What is reused is recorded at once.
    """
    for target in [*plan.computed, *plan.impossible]:
        data = AssetMaterializationPlannedData(dg.AssetKey(target.asset), partition=target.partition.key)
        event = dg.DagsterEvent.build_asset_materialization_planned_event(
            context.job_name, context.get_step_execution_context().step.key, data
        )
        context.instance.report_dagster_event(event, context.run_id, logging.DEBUG)


@dataclass
class Recorder:
    """Records targets, and keeps what was found of them."""

    context: dg.OpExecutionContext
    store: Store
    plan: Plan
    records: Mapping[str, History]
    drift_limit: float
    recorded: dict[str, dict[Partition, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    standings: dict[str, list[Target]] = field(default_factory=lambda: defaultdict(list))
    storage_ids: dict[Target, int] = field(default_factory=dict)  # of the records
    current: dict[Partition, str] = field(default_factory=dict)  # the folders of the current k-means outputs

    def reuse(self, target: Target, record: Record) -> None:
        """Record that an earlier output is what was asked for."""
        details = metadata.of_reused(record, self.store, self.plan.label if target.asset == KMEANS else None)
        self._record(target, details, record.folder, record.fingerprint)

    def accept(self, target: Target, computation: Compute, report: Report) -> str | None:
        """Record an output that a job reports; or why it is not the one that was asked for."""
        assert report.manifest is not None
        if report.manifest["fingerprint"] != computation.fingerprint:
            return "its input changed between planning and reading. Run it again."
        details = metadata.of_computed(target.asset, report.folder, self.store, report.manifest, report.launch)
        self._record(target, details, report.folder, computation.fingerprint)
        return None

    def record_checks(self) -> None:
        """Record the checks of all that was recorded; what failed is in the log as well."""
        for asset, by_partition in self.recorded.items():
            found = {partition: details[metadata.CHECKS].value for partition, details in by_partition.items()}
            for partition, checks in found.items():
                storage_id = self.storage_ids[Target(asset, partition)]
                record = asset_checks.CheckedRecord(
                    storage_id=storage_id, run_id=self.context.run_id, timestamp=time.time()
                )
                for evaluation in asset_checks.evaluations(asset, partition, checks, record):
                    self.context.log_event(evaluation)  # type: ignore[arg-type]  # it takes them, and does not say so
            for name, told in asset_checks.failures(asset, found):
                is_warning = asset_checks.severity(name) == dg.AssetCheckSeverity.WARN
                level = logging.WARNING if is_warning else logging.ERROR
                self.context.log.log(level, f"{asset}: check {name} failed for {told}")

    def record_trends(self) -> None:
        """Record how the months look now, category by category, where that has changed."""
        trends.record_trends(self.context.instance, self.store, self.current)

    def write_index(self) -> None:
        """Write the index of all reports, if this was for some, or for clusters that they are of."""
        if {AUDIENCE_REPORT, KMEANS} & set(self.recorded):
            keep_index_current(self.store, self.context.log.warning)

    def log_standings(self) -> None:
        """Log which k-means outputs are not simply current, and why; those for the same reason in a message."""
        for why, targets in self.standings.items():
            self.context.log.info(f"{', '.join(map(str, targets))}: {why}")

    def _record(self, target: Target, details: dict[str, Any], folder: str, fingerprint: str) -> None:
        if target.asset in (SEGMENTS, AUDIENCE_REPORT):
            details = self._with_standing_of_clusters(target, details, folder, fingerprint)
        else:
            details = self._with_standing(target, details, folder, fingerprint)
        tags = data_versions.tags(self.context.instance, target, details, self.storage_ids)
        event = dg.AssetMaterialization(
            asset_key=target.asset,
            partition=target.partition.key,
            metadata=metadata.in_reading_order(details),
            tags=tags,
        )
        # Logged, not yielded: an event that is yielded would wait for the end of the step, and be lost if it fails.
        self.context.log_event(event)
        self.recorded[target.asset][target.partition] = dict(event.metadata)
        ids = storage_ids(self.context.instance, target.asset, [target.partition])
        self.storage_ids[target] = ids[target.partition]

    def _with_standing(self, target: Target, details: dict[str, Any], folder: str, fingerprint: str) -> dict[str, Any]:
        """Settle whether an output is current; its metadata, and what changed since the month before."""
        details = self._with_drift(target, details)
        beside = self._foreign_parameters(target)
        promoted = f"by run {self.context.run_id}" if self.plan.promote and target.asset == KMEANS else ""
        current = self.store.point_current(target.asset, target.partition, folder, fingerprint, beside, promoted)
        if target.asset == KMEANS:
            self.current[target.partition] = current.folder
            details[STANDING] = standing(folder, current, beside, is_new=target in self.plan.computed)
            details |= {variants.PROMOTED: True} if promoted else {}
            details |= variants.beside(self.records[KMEANS], target.partition, details, current)
            details |= self._report_of(target.partition, is_current=folder == current.folder)
            if beside or current.promoted:
                self.standings[details[STANDING]].append(target)
        return details

    def _report_of(self, partition: Partition, is_current: bool) -> dict[str, Any]:
        """Where the report of the clusters of a partition is, or will be, if this run is for it as well."""
        match self.plan.decisions.get(Target(AUDIENCE_REPORT, partition)):
            case None | Impossible():
                return {}
            case Reuse() | Compute() as report:
                return metadata.link_to_report(report.folder, partition, self.plan.label, is_current)

    def _with_standing_of_clusters(
        self, target: Target, details: dict[str, Any], folder: str, fingerprint: str
    ) -> dict[str, Any]:
        """Make segments or a report the current ones if their clusters are; their metadata."""
        clusters, *_ = details[INPUTS].value
        is_current = self.store.point_along(target.asset, target.partition, folder, fingerprint, KMEANS, clusters)
        label, link = self.plan.label, {}
        if target.asset == AUDIENCE_REPORT:
            link = metadata.link_to_report(folder, target.partition, label, is_current)
        return {**details, **({variants.LABEL: label} if label else {}), **link}

    def _foreign_parameters(self, target: Target) -> str:
        """What keeps an output from being the deployment's own: its parameters, or those of what it is made from."""
        month = Partition(target.partition.month)
        steps = [Target(step, month if step == GROUPED_USERS else target.partition) for step in steps_to(target.asset)]
        configs = {step.asset: self._config_of(step) for step in steps}
        own = with_pinned_k(self._own, self.plan.pinned.get(target.partition))
        return foreign_parameters(configs, self.plan.label if target.asset == KMEANS else None, own)

    def _config_of(self, step: Target) -> Mapping[str, Any] | None:
        """The config that a step is made with: by this plan, or else as on record."""
        match self.plan.decisions.get(step):
            case Compute(config=job):
                return dict(job.model_dump(mode="json")["config"])
            case Reuse(record):
                return record.config
        newest = self.records[step.asset].newest(step.partition) if step.asset in self.records else None
        return None if newest is None else newest.config

    @cached_property
    def _own(self) -> MonthRunConfig:
        """The deployment's own config."""
        return MonthRunConfig()

    def _with_drift(self, target: Target, details: dict[str, Any]) -> dict[str, Any]:
        found = dict(details[metadata.CHECKS].value) if metadata.CHECKS in details else {}
        if asset_checks.has_drift(target.asset):
            before = self._month_before(target)
            found[asset_checks.DRIFT] = asset_checks.drift(
                target.asset, _values(details), None if before is None else _values(before), self.drift_limit
            )
        return {**details, metadata.CHECKS: dg.MetadataValue.json(found)}

    def _month_before(self, target: Target) -> Mapping[str, Any] | None:
        partition = target.partition.month_before
        in_this_run = self.recorded[target.asset].get(partition)
        if in_this_run is not None:
            return in_this_run
        record = self._months_before[target.asset].get(partition)
        return None if record is None else record.metadata

    @cached_property
    def _months_before(self) -> dict[str, dict[Partition, Record | None]]:
        """The newest records of the months before, by asset and partition."""
        targets = [*self.plan.reused, *self.plan.computed]
        newest: dict[str, dict[Partition, Record | None]] = {}
        for asset in {target.asset for target in targets if asset_checks.has_drift(target.asset)}:
            # Only of those that have one: in search of another's, all records would be read.
            materialized = self.context.instance.get_materialized_partitions(dg.AssetKey(asset))
            wanted = {target.partition.month_before for target in targets if target.asset == asset}
            partitions = [partition for partition in wanted if partition.key in materialized]
            history = History(self.context.instance, self.store, asset, partitions)
            newest[asset] = {partition: history.newest(partition) for partition in partitions}
        return newest


def record_checks_again(context: dg.AssetExecutionContext, store: Store) -> None:
    """Record the checks that a run is for, and no asset, from what is on record of its partitions; nothing is read.

    A run without partitions is for all of them.
    """
    wanted = set(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else None
    for asset in sorted({key.asset_key.to_user_string() for key in context.selected_asset_check_keys}):
        keys = context.instance.get_materialized_partitions(dg.AssetKey(asset))
        partitions = [Partition.parse(key) for key in sorted(keys) if wanted is None or key in wanted]
        for evaluation in evaluations_on_record(context.instance, store, asset, partitions):
            if evaluation.asset_check_key in context.selected_asset_check_keys:
                context.log_event(evaluation)


def evaluations_on_record(
    instance: dg.DagsterInstance, store: Store, asset: str, partitions: Sequence[Partition]
) -> Iterator[dg.AssetCheckEvaluation]:
    """An evaluation of each check of partitions' newest records, by what is on record with them."""
    history = History(instance, store, asset, partitions)
    ids = storage_ids(instance, asset, partitions)
    for partition in partitions:
        newest = history.newest(partition)
        if newest is None or metadata.CHECKS not in newest.metadata:
            continue
        record = asset_checks.CheckedRecord(
            storage_id=ids[partition], run_id=newest.run_id, timestamp=newest.recorded_at.timestamp()
        )
        checks: Any = newest.metadata[metadata.CHECKS].value
        if not people.is_published(newest.metadata):
            checks = people.checks(asset, checks, published.MIN_PEOPLE)
        yield from asset_checks.evaluations(asset, partition, checks, record)


def _values(details: Mapping[str, Any]) -> dict[str, Any]:
    """A record's metadata as plain values."""
    return {name: getattr(value, "value", value) for name, value in details.items()}
