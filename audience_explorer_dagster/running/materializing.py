"""Carrying a plan out: one launch for all that must be computed, and a record for each target once it is done."""

from collections.abc import Mapping, Sequence
from contextlib import closing

import dagster as dg

from audience_explorer_dagster.launchers import Job, Launcher, LaunchFailed
from audience_explorer_dagster.planning import Target
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records import adoption, asset_checks, metadata
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.running.recording import Recorder
from audience_explorer_dagster.store import Store


def carry_out(
    context: dg.OpExecutionContext, plan: Plan, launcher: Launcher, store: Store, records: Mapping[str, History]
) -> None:
    """Reuse and compute what the plan says, recording each target as soon as it is done, and in the end the checks.

    Raises:
        dagster.Failure: Some targets failed. The others are done and recorded; the failure names each that is not.
    """
    recorder = Recorder(context, store, plan, records, asset_checks.drift_limit())
    failed = {target: decision.why for target, decision in plan.impossible.items()}
    _log_plan(context, plan)
    if why := adoption.what_is_not_on_record(records, store, context.instance.root_directory):
        context.log.warning(why)
    for target, reuse in plan.reused.items():
        recorder.reuse(target, reuse.record)
    try:
        if plan.jobs:
            failed |= _launch(context, plan, launcher, recorder)
    finally:
        recorder.log_standings()
        recorder.record_checks()
        recorder.record_trends()
        recorder.write_index()
    if failed:
        others = "; the others are done" if len(failed) < len(plan.decisions) else ""
        raise dg.Failure(
            description=f"{len(failed)} of {len(plan.decisions)} partitions failed{others}. {_by_reason(failed)}",
            metadata=metadata.of_failures(failed),
            allow_retries=False,
        )


def _log_plan(context: dg.OpExecutionContext, plan: Plan) -> None:
    """Log what is planned for each target, and why; in few messages, for each is a write to Dagster's database."""
    impossible = {target: decision.why for target, decision in plan.impossible.items()}
    reused = [
        f"{target}: reused from {reuse.record.recorded_at:%Y-%m-%d %H:%M} UTC, {reuse.folder}"
        for target, reuse in plan.reused.items()
    ]
    computed = [
        f"{target}: to be computed by {job.id}: {plan.computed[target].why}; into {plan.computed[target].folder}"
        for job in plan.jobs
        for target in job.targets
    ]
    if impossible:
        context.log.error(_by_reason(impossible, "\n"))
    if reused or computed:
        context.log.info("\n".join([*reused, *computed]))


def _launch(context: dg.OpExecutionContext, plan: Plan, launcher: Launcher, recorder: Recorder) -> dict[Target, str]:
    """Launch the plan's jobs; what failed, and why.

    Raises:
        dagster.Failure: The launch failed, though it made all that was asked for.
    """
    waiting = {computation.folder: target for target, computation in plan.computed.items()}
    errors: dict[str, str] = {}  # by job
    failed: dict[Target, str] = {}
    ended_early = "its job ended without making it"
    try:
        # Closed whatever happens here, so that what was launched is ended at once.
        with closing(launcher.launch(context, plan.jobs)) as reports:
            for report in reports:
                if report.event == "output" and report.folder not in waiting:
                    # Whoever may write messages could name any folder.
                    context.log.error(f"{report.folder} is ignored: this launch was not asked for it, or has made it")
                elif report.event == "output":
                    target = waiting.pop(report.folder)
                    why = recorder.accept(target, plan.computed[target], report)
                    if why:
                        failed[target] = why
                    else:
                        done = len(plan.computed) - len(waiting) - len(failed)
                        context.log.info(f"{target}: done, {done} of {len(plan.computed)}")
                elif report.event == "failed":
                    errors[report.job] = report.error
    except LaunchFailed as error:
        ended_early = str(error)
        if not waiting:
            # Nothing seems to be missing, and yet something is wrong: a message may be lost, or the machine.
            raise dg.Failure(
                f"All partitions are done and recorded, but their launch failed: {error}", allow_retries=False
            ) from error
    missing = set(waiting.values())
    return failed | _errors_of(missing, plan.jobs, errors, ended_early)


def _errors_of(
    missing: set[Target], jobs: Sequence[Job], errors: Mapping[str, str], otherwise: str
) -> dict[Target, str]:
    """Why each target that is missing was not made: its job's error, if it has one."""
    return {target: errors.get(job.id, otherwise) for job in jobs for target in job.targets if target in missing}


def _by_reason(failed: Mapping[Target, str], separator: str = " ") -> str:
    """What failed and why, those with the same reason together."""
    names: dict[str, list[str]] = {}
    for target, why in failed.items():
        names.setdefault(why, []).append(str(target))
    return separator.join(f"[{', '.join(of_why)}] {why}" for why, of_why in names.items())
