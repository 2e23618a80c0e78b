"""Carrying a plan out: one launch for all that must be computed, and a record for each partition once it is done."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from audience_explorer_dagster.launchers import Launcher, LaunchFailed, Report
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Computation, Plan, Target
from audience_explorer_dagster.records import asset_checks, metadata, variants
from audience_explorer_dagster.records.history import History, Record
from audience_explorer_dagster.store import Store, Why


def carry_out(
    context: dg.OpExecutionContext, plan: Plan, launcher: Launcher, store: Store, records: Mapping[str, History]
) -> None:
    """Reuse and compute what the plan says, recording each partition as soon as it is done; then tell the checks.

    Raises:
        dagster.Failure: Some partitions failed. The others are done and recorded; the failure names each that is not.
    """
    recorder = _Recorder(context, store, plan, records, asset_checks.drift_limit())
    for target, why in plan.failed.items():
        context.log.error(f"{_name(target)}: {why}")
    if plan.reused:  # in one message: a message costs a write to the database
        context.log.info("\n".join(_told_of_reuse(target, record) for target, record in plan.reused.items()))
    for target, record in plan.reused.items():
        recorder.reuse(target, record)

    failed = dict(plan.failed)
    try:
        if plan.jobs:
            for computation in plan.computed.values():
                context.log.info(
                    f"{_name(computation.target)}: computed by {computation.job}, into {computation.folder}"
                )
            failed |= _launch(context, plan, launcher, recorder)
    finally:
        recorder.tell_checks()
    if failed:
        asked = len(plan.failed) + len(plan.reused) + len(plan.computed)
        others = "; the others are done" if len(failed) < asked else ""
        by_name = {_name(target): why for target, why in failed.items()}
        raise dg.Failure(
            description=f"{len(failed)} of {asked} partitions failed{others}. {_told(by_name)}",
            metadata=metadata.of_failures(by_name),
            allow_retries=False,
        )


def tell_checks_again(context: dg.AssetExecutionContext, store: Store) -> None:
    """Tell the checks that a run is for, and no asset, of what is on record of all partitions; nothing is computed."""
    for asset in sorted({key.asset_key.to_user_string() for key in context.selected_asset_check_keys}):
        keys = context.instance.get_materialized_partitions(dg.AssetKey(asset))
        partitions = [Partition.parse(key) for key in keys]
        history = History(context.instance, store, asset, partitions)
        newest = {partition: history.newest(partition) for partition in partitions}
        found: dict[Partition, asset_checks.Checks] = {
            partition: record.metadata[metadata.CHECKS].value
            for partition, record in newest.items()
            if record is not None and metadata.CHECKS in record.metadata
        }
        for evaluation in asset_checks.evaluations({asset: found}):
            if evaluation.asset_check_key in context.selected_asset_check_keys:
                context.log_event(evaluation)


def _launch(context: dg.OpExecutionContext, plan: Plan, launcher: Launcher, recorder: "_Recorder") -> dict[Target, str]:
    """Launch the plan's jobs; what failed, and why.

    Raises:
        dagster.Failure: The launch failed, though it made all that was asked for.
    """
    waiting = {computation.folder: computation for computation in plan.computed.values()}
    errors: dict[str, str] = {}
    failed: dict[Target, str] = {}
    ended_early = "its job ended without making it"
    try:
        # Closed whatever happens here, so that what was launched is ended at once.
        with closing(launcher.launch(context, plan.jobs)) as reports:
            for report in reports:
                if report.event == "output":
                    computation = waiting.pop(report.folder)
                    why = recorder.accept(computation, report)
                    if why:
                        failed[computation.target] = why
                    else:
                        done = len(plan.computed) - len(waiting) - len(failed)
                        context.log.info(f"{_name(computation.target)}: done, {done} of {len(plan.computed)}")
                elif report.event == "failed":
                    errors[report.job] = report.error
    except LaunchFailed as error:
        ended_early = str(error)
        if not waiting:
            # Nothing seems to be missing, and yet something is wrong: a message may be lost, or the machine.
            raise dg.Failure(
                f"All partitions are done and recorded, but their launch failed: {error}", allow_retries=False
            ) from error
    for computation in waiting.values():
        failed[computation.target] = errors.get(computation.job, ended_early)
    return failed


@dataclass
class _Recorder:
    """Records partitions, and keeps what was found of them."""

    context: dg.OpExecutionContext
    store: Store
    plan: Plan
    records: Mapping[str, History]
    drift_limit: float
    recorded: dict[str, dict[Partition, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))

    def reuse(self, target: Target, record: Record) -> None:
        """Record that an earlier output is what was asked for."""
        details = metadata.of_reused(record, self.plan.label if target.asset == KMEANS else None)
        why: Why = "reused" if record.on_record else "computed"
        self._record(target, details, record.folder, record.fingerprint, why)

    def accept(self, computation: Computation, report: Report) -> str | None:
        """Record an output that a job reports; or why it is not the one that was asked for."""
        assert report.manifest is not None
        if report.manifest["fingerprint"] != computation.fingerprint:
            return "its input changed between planning and reading. Run it again."
        target = computation.target
        details = metadata.of_computed(target.asset, report.folder, report.manifest, report.launch)
        self._record(target, details, report.folder, computation.fingerprint, "computed")
        return None

    def tell_checks(self) -> None:
        """Tell what was found of all that was recorded."""
        found = {
            asset: {partition: details[metadata.CHECKS].value for partition, details in by_partition.items()}
            for asset, by_partition in self.recorded.items()
        }
        for evaluation in asset_checks.evaluations(found):
            if not evaluation.passed:
                # The asset's page shows the newest run's evaluation only.
                name = f"{evaluation.asset_key.to_user_string()}: check {evaluation.check_name} failed"
                level = "warning" if evaluation.severity == dg.AssetCheckSeverity.WARN else "error"
                self.context.log.log(level.upper(), f"{name} for {evaluation.description}")
            self.context.log_event(evaluation)  # type: ignore[arg-type]  # it takes them, and does not say so

    def _record(self, target: Target, details: dict[str, Any], folder: str, fingerprint: str, why: Why) -> None:
        details = self._with_drift(target, details)
        current = self.store.point_current(target.asset, target.partition, folder, fingerprint, why)
        if target.asset == KMEANS:
            details |= variants.beside(self.records[KMEANS], target.partition, details, current)
        event = dg.AssetMaterialization(asset_key=target.asset, partition=target.partition.key, metadata=details)
        # Logged, not yielded: an event that is yielded would wait for the end of the step, and be lost if it fails.
        self.context.log_event(event)
        self.recorded[target.asset][target.partition] = dict(event.metadata)

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


def _values(details: Mapping[str, Any]) -> dict[str, Any]:
    """A record's metadata as plain values."""
    return {name: getattr(value, "value", value) for name, value in details.items()}


def _told(failed: dict[str, str]) -> str:
    """What failed and why, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for name, why in failed.items():
        names.setdefault(why, []).append(name)
    return " ".join(f"[{', '.join(of_why)}] {why}" for why, of_why in names.items())


def _told_of_reuse(target: Target, record: Record) -> str:
    return f"{_name(target)}: reused from {record.recorded_at:%Y-%m-%d %H:%M} UTC, {record.folder}"


def _name(target: Target) -> str:
    return f"{target.asset} {target.partition.key}"
