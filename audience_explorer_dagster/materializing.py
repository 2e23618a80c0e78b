"""Carrying a plan out: one launch for all that must be computed, and a record for each partition once it is done."""

from contextlib import closing

import dagster as dg

from audience_explorer_dagster import metadata
from audience_explorer_dagster.launchers import Launcher, LaunchFailed, Report
from audience_explorer_dagster.planning import KMEANS, Computation, Plan, Target
from audience_explorer_dagster.store import Store


def carry_out(context: dg.AssetExecutionContext, plan: Plan, launcher: Launcher, store: Store) -> None:
    """Reuse and compute what the plan says, recording each partition as soon as it is done.

    Raises:
        dagster.Failure: Some partitions failed. The others are done and recorded; the failure names each that is not.
    """
    for target, why in plan.failed.items():
        context.log.error(f"{_name(target)}: {why}")
    for target, record in plan.reused.items():
        label = plan.label if target.asset == KMEANS else None
        context.log.info(f"{_name(target)}: reused from {record.recorded_at:%Y-%m-%d %H:%M} UTC, {record.folder}")
        _record(context, store, target, metadata.of_reused(record, label), record.folder, record.fingerprint)

    failed = dict(plan.failed)
    if plan.jobs:
        for computation in plan.computed.values():
            context.log.info(f"{_name(computation.target)}: computed by {computation.job}, into {computation.folder}")
        failed |= _launch(context, plan, launcher, store)
    if failed:
        by_name = {_name(target): why for target, why in failed.items()}
        raise dg.Failure(
            description=f"{len(failed)} of {len(plan.failed) + len(plan.reused) + len(plan.computed)}"
            f" partitions failed; the others are done. {_told(by_name)}",
            metadata=metadata.of_failures(by_name),
            allow_retries=False,
        )


def _launch(context: dg.AssetExecutionContext, plan: Plan, launcher: Launcher, store: Store) -> dict[Target, str]:
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
                    why = _accept(context, store, computation, report)
                    if why:
                        failed[computation.target] = why
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


def _accept(context: dg.AssetExecutionContext, store: Store, computation: Computation, report: Report) -> str | None:
    """Record an output that a job reports; or why it is not the one that was asked for."""
    assert report.manifest is not None
    if report.manifest["fingerprint"] != computation.fingerprint:
        return "its input changed between planning and reading. Run it again."
    target = computation.target
    details = metadata.of_computed(target.asset, report.folder, report.manifest, report.launch)
    _record(context, store, target, details, report.folder, computation.fingerprint)
    return None


def _record(
    context: dg.AssetExecutionContext,
    store: Store,
    target: Target,
    details: dict[str, dg.MetadataValue],
    folder: str,
    fingerprint: str,
) -> None:
    # Logged, not yielded: an event that is yielded would wait for the end of the step, and be lost if it fails.
    context.log_event(dg.AssetMaterialization(asset_key=target.asset, partition=target.partition.key, metadata=details))
    store.point_current(target.asset, target.partition, folder, fingerprint)


def _told(failed: dict[str, str]) -> str:
    """What failed and why, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for name, why in failed.items():
        names.setdefault(why, []).append(name)
    return " ".join(f"[{', '.join(of_why)}] {why}" for why, of_why in names.items())


def _name(target: Target) -> str:
    return f"{target.asset} {target.partition.key}"
