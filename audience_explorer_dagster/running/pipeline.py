"""The whole pipeline in this process: a run for each month."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

import dagster as dg

from audience_explorer_dagster.assets import MONTH_OP, WHOLE_MONTH_JOB
from audience_explorer_dagster.launchers import PIPELINE_TAG
from audience_explorer_dagster.partitions import Partition, months, of_run
from audience_explorer_dagster.planning import GROUPED_USERS, Target
from audience_explorer_dagster.planning.plan import assets_of_category
from audience_explorer_dagster.records import people
from audience_explorer_dagster.records.findings import VERDICT
from audience_explorer_dagster.records.history import FOLDER, ROOT
from audience_explorer_dagster.records.metadata import REUSED, failed_targets
from audience_explorer_dagster.records.standing import STANDING
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.in_this_process import Listener, Result, execute
from audience_explorer_dagster.store import new_folder_name
from spark_jobs import storage
from spark_jobs.errors import InputError

Status = Literal["launched", "reused", "failed"]

INTERRUPTED = "interrupted before it was done"

# By it the job's page in the UI finds the runs of its partitions.
_PARTITION_SET = {"dagster/partition_set": f"{WHOLE_MONTH_JOB}_partition_set"}


@dataclass(frozen=True)
class Outcome:
    """What became of a target, or of something else that failed: a launch as a whole, a category file, a job."""

    asset: str
    partition: Partition | str  # str: of what is not a target
    status: Status
    folder: str | None = None
    error: str | None = None
    users: int | None = None  # rounded; None where they are few
    k: int | None = None
    verdict: str | None = None  # of k_selection: segments, none or too_few
    standing: str | None = None  # of kmeans: current, promoted or beside, and why

    def as_json(self) -> dict[str, Any]:
        """The outcome for a program."""
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "partition": str(self.partition)}


def check_months(keys: Iterable[str]) -> list[str]:
    """The months, in order and once each; the last one that ended, if none is given.

    Raises:
        InputError: One is not a partition; the message says why.
    """
    known = list(months.get_partition_keys())
    if not known:
        raise InputError("No month has ended since AUDIENCE_EXPLORER_START_MONTH, so there is no partition yet.")
    wanted = sorted(set(keys)) or known[-1:]
    for key in wanted:
        try:
            datetime.strptime(key, "%Y-%m")
        except ValueError:
            raise InputError(f"{key!r} is no month; one is named YYYY-MM, such as 2024-01.") from None
        if key not in known:
            raise InputError(
                f"{key} is no partition: they go from {known[0]} (the first with data, or"
                f" AUDIENCE_EXPLORER_START_MONTH) to {known[-1]}, the last month that ended."
            )
    return wanted


def months_between(first: str, last: str | None) -> list[str]:
    """The months from one to another, both included; to the last one that ended, if only the first is given.

    Raises:
        InputError: One is not a partition, or they are in the wrong order.
    """
    (start,), end = check_months([first]), check_months([last] if last else [])[-1]
    if end < start:
        raise InputError(f"{start} comes after {end}, so there is no month from one to the other.")
    return [month for month in months.get_partition_keys() if start <= month <= end]


def run_pipeline(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    wanted_months: Sequence[str],
    wanted_categories: Sequence[str],
    config: MonthRunConfig,
    announce: Callable[[str], None],
    listen: Listener | None = None,
) -> list[Outcome]:
    """Materialize months × categories, each month in a run.

    Args:
        definitions: What Dagster loads.
        instance: Where the records are.
        wanted_months: Checked months.
        wanted_categories: Checked categories.
        config: The config, but for the categories.
        announce: Called with a line on each month that starts.
        listen: Called with each event of the runs, as it is recorded, by whichever thread records it.

    Returns:
        What became of each partition of each asset, also of those that had no chance. After an interrupt (SIGINT,
        SIGTERM) nothing more is started, and what is not done has the error INTERRUPTED.
    """
    values = {**config.model_dump(mode="json"), "categories": list(wanted_categories)}
    run_config = {"ops": {MONTH_OP: {"config": values}}}
    pipeline = new_folder_name()
    outcomes: list[Outcome] = []
    for month in wanted_months:
        targets = targets_of([month], wanted_categories, config)
        if any(outcome.error == INTERRUPTED for outcome in outcomes):
            outcomes += [_failed(target, INTERRUPTED) for target in targets]
            continue
        count = len(wanted_categories)
        announce(f"{month}: {count} {'category' if count == 1 else 'categories'}")
        outcomes += _run(definitions, instance, pipeline, month, targets, run_config, listen)
    return outcomes


def targets_of(wanted_months: Sequence[str], wanted_categories: Sequence[str], config: MonthRunConfig) -> list[Target]:
    """What a pipeline makes or reuses: a month's users, and the assets of its categories, month by month."""
    assets = assets_of_category(config)
    return [
        target
        for month in wanted_months
        for target in (
            Target(GROUPED_USERS, Partition(month)),
            *(Target(asset, Partition(month, name)) for name in wanted_categories for asset in assets),
        )
    ]


def run_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance, run: dg.DagsterRun, pipeline: str
) -> list[Outcome]:
    """Run a run's job again, over the same partitions and assets with the same config, so that what is there already
    is reused.

    Args:
        definitions: What Dagster loads.
        instance: Where the records are.
        run: The run to repeat.
        pipeline: The id of the pipeline that the new run belongs to.

    Returns:
        What became of each partition of each asset that was recorded or that failed.

    Raises:
        InputError: The project has no such job.
    """
    tags = {name: value for name, value in run.tags.items() if _is_repeated(name)} | {
        PIPELINE_TAG: pipeline,
        "dagster/parent_run_id": run.run_id,
        "dagster/root_run_id": run.root_run_id or run.tags.get("dagster/root_run_id") or run.run_id,
    }
    assets = None if run.asset_selection is None else sorted(run.asset_selection, key=dg.AssetKey.to_user_string)
    try:
        job = definitions.resolve_job_def(run.job_name)
    except dg.DagsterInvariantViolationError as error:
        raise InputError(f"Run {run.run_id} can't be repeated: the project has no job {run.job_name} now.") from error
    result = execute(job, instance, assets, tags, run.run_config)
    ended = _ended(instance, result)
    outcomes = [*ended.recorded.values(), *(_failed(target, why) for target, why in ended.failed.items())]
    if not result.success and not ended.failed:
        outcomes.append(Outcome(run.job_name, of_run(run.tags), "failed", error=ended.otherwise))
    return outcomes


def _is_repeated(tag: str) -> bool:
    """Whether a run that repeats another has this tag of it, too: its partitions, and all that is not Dagster's own."""
    if tag.startswith(("dagster/partition", "dagster/asset_partition_range_")):
        return tag != "dagster/partition_set"
    return not tag.startswith(("dagster/", ".dagster/"))


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    pipeline: str,
    month: str,
    targets: Sequence[Target],
    run_config: Mapping[str, Any],
    listen: Listener | None,
) -> list[Outcome]:
    """Run a month; what became of its targets."""
    tags = {"dagster/partition": month, PIPELINE_TAG: pipeline, **_PARTITION_SET}
    result = execute(definitions.resolve_job_def(WHOLE_MONTH_JOB), instance, None, tags, run_config, listen)
    ended = _ended(instance, result)
    outcomes = [
        ended.recorded.get(target) or _failed(target, ended.failed.get(target, ended.otherwise)) for target in targets
    ]
    # Later months whose segments follow from these.
    outcomes += [outcome for target, outcome in ended.recorded.items() if target not in targets]
    if not result.success and all(outcome.status != "failed" for outcome in outcomes):
        outcomes.append(Outcome("launch", Partition(month), "failed", error=ended.otherwise))
    return outcomes


@dataclass(frozen=True)
class _Ended:
    """How a run ended."""

    recorded: Mapping[Target, Outcome]
    failed: Mapping[Target, str]
    otherwise: str  # why any other target is not done


def _ended(instance: dg.DagsterInstance, result: Result) -> _Ended:
    # From the instance, for a step that fails hands over none of what it recorded.
    entries = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    recorded = dict(_recorded(entry.asset_materialization) for entry in entries if entry.asset_materialization)
    failed: dict[Target, str] = {}
    otherwise = "its run failed" if not result.success else "it was not recorded"
    for failure in result.step_failures:
        targets, error = failed_targets(failure), failure.step_failure_data.error
        if targets is not None:
            failed |= targets
        elif error:
            cause = error.cause or error
            is_interrupt = "DagsterExecutionInterruptedError" in (error.cls_name, cause.cls_name)
            otherwise = INTERRUPTED if is_interrupt else cause.message.strip()
    return _Ended(recorded, failed, otherwise)


def _recorded(event: dg.AssetMaterialization) -> tuple[Target, Outcome]:
    target = Target(event.asset_key.to_user_string(), Partition.parse(str(event.partition)))

    def value(name: str) -> Any:
        return event.metadata[name].value if name in event.metadata else None

    return target, Outcome(
        target.asset,
        target.partition,
        "reused" if value(REUSED) else "launched",
        storage.join(value(ROOT), value(FOLDER)),
        users=people.read(event.metadata, "users"),
        k=value("k"),
        verdict=value(VERDICT),
        standing=value(STANDING),
    )


def _failed(target: Target, why: str) -> Outcome:
    return Outcome(target.asset, target.partition, "failed", error=why)
