"""The whole pipeline in this process: a run for each month."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import dagster as dg

from audience_explorer_dagster import planning
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB
from audience_explorer_dagster.launchers import PIPELINE_TAG
from audience_explorer_dagster.partitions import Partition, months, of_run
from audience_explorer_dagster.records.findings import VERDICT
from audience_explorer_dagster.records.history import FOLDER
from audience_explorer_dagster.records.metadata import REUSED
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.store import new_folder_name
from spark_jobs.errors import InputError

Status = Literal["launched", "reused", "failed"]

INTERRUPTED = "interrupted before it was done"

# By these the job's page in the UI finds a run; the code location's name is that of workspace.yaml.
_AS_IN_THE_UI = {
    "dagster/partition_set": f"{WHOLE_MONTH_JOB}_partition_set",
    ".dagster/repository": "__repository__@audience_explorer",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one partition of one asset."""

    asset: str
    partition: str
    status: Status
    folder: str | None = None
    error: str | None = None
    users: int | None = None
    k: int | None = None
    verdict: str | None = None  # of k_selection: segments, none or too_few


def check_months(keys: Iterable[str]) -> list[str]:
    """The months, in order and once each; the last one that ended, if none is given.

    Raises:
        InputError: One is no partition; the message says why.
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
                f"{key} is no partition: they go from {known[0]} (AUDIENCE_EXPLORER_START_MONTH) to {known[-1]},"
                " the last month that ended."
            )
    return wanted


def run_pipeline(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    wanted_months: Sequence[str],
    wanted_categories: Sequence[str],
    config: MonthRunConfig,
    tell: Callable[[str], None],
) -> list[Outcome]:
    """Materialize months × categories, each month in a run.

    Args:
        definitions: What Dagster loads.
        instance: Where the records are.
        wanted_months: Checked months.
        wanted_categories: Checked categories.
        config: The config, but for the categories.
        tell: Told what starts.

    Returns:
        What became of each partition of each asset, also of those that had no chance. After an interrupt (SIGINT,
        SIGTERM) nothing more is started, and what is not done has the error INTERRUPTED.
    """
    # With a given k, k_selection is no input of kmeans, and nothing that was asked for.
    assets = [planning.CLUSTERING_INPUTS, planning.KMEANS]
    if config.kmeans.k is None:
        assets.insert(1, planning.K_SELECTION)
    values = {**config.model_dump(mode="json", exclude_none=True), "categories": list(wanted_categories)}
    run_config = {"ops": {planning.MONTH_OP: {"config": values}}}
    pipeline = new_folder_name()
    outcomes: list[Outcome] = []
    for month in wanted_months:
        targets = [(planning.GROUPED_USERS, month)]
        targets += [(asset, Partition(month, name).key) for name in wanted_categories for asset in assets]
        if any(outcome.error == INTERRUPTED for outcome in outcomes):
            outcomes += [Outcome(*target, "failed", error=INTERRUPTED) for target in targets]
            continue
        tell(f"{month}: {len(wanted_categories)} categories")
        outcomes += _run(definitions, instance, pipeline, month, targets, run_config)
    return outcomes


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
    result = _execute(job, instance, assets, tags, run.run_config)
    recorded, errors, run_error = _ended(instance, result)
    failed = [Outcome(*_asset_and_partition(name), "failed", error=why) for name, why in errors.items()]
    if not result.success and not failed:
        failed = [Outcome(run.job_name, of_run(run.tags), "failed", error=run_error)]
    return [*recorded.values(), *failed]


def _is_repeated(tag: str) -> bool:
    """Whether a run that repeats another has this tag of it, too: its partitions, and all that is not Dagster's own."""
    if tag.startswith(("dagster/partition", "dagster/asset_partition_range_")):
        return tag != "dagster/partition_set"
    return not tag.startswith(("dagster/", ".dagster/"))


def _asset_and_partition(name: str) -> tuple[str, str]:
    asset, _, partition = name.partition(" ")
    return asset, partition


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    pipeline: str,
    month: str,
    targets: Sequence[tuple[str, str]],
    run_config: Mapping[str, Any],
) -> list[Outcome]:
    """Run a month, and tell what became of its targets, each an asset and a partition."""
    tags = {"dagster/partition": month, PIPELINE_TAG: pipeline, **_AS_IN_THE_UI}
    result = _execute(definitions.resolve_job_def(WHOLE_MONTH_JOB), instance, None, tags, run_config)
    recorded, errors, run_error = _ended(instance, result)
    outcomes = [
        recorded.get(target) or Outcome(*target, "failed", error=errors.get(" ".join(target), run_error))
        for target in targets
    ]
    if not result.success and all(outcome.status != "failed" for outcome in outcomes):
        outcomes.append(Outcome("launch", month, "failed", error=run_error))
    return outcomes


def _execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey] | None,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
) -> dg.ExecuteInProcessResult:
    return job.execute_in_process(
        instance=instance,
        asset_selection=assets,
        tags=dict(tags),
        # What goes wrong is told once, by the caller; the run's log has it all.
        run_config={**run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def _ended(
    instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult
) -> tuple[dict[tuple[str, str], Outcome], dict[str, str], str]:
    """How a run ended: what it recorded by asset and partition; what failed, and why, by both with a space between; and
    why anything else was not recorded."""
    recorded: dict[tuple[str, str], Outcome] = {}
    # From the instance, for a step that fails hands over none of what it recorded.
    for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        if entry.asset_materialization is not None:
            recorded |= _recorded(entry.asset_materialization)
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    errors: dict[str, str] = {}
    run_error = "its run failed" if not result.success else "it was not recorded"
    for failure in failures:
        if failure.user_failure_data and "failed" in failure.user_failure_data.metadata:
            errors |= failure.user_failure_data.metadata["failed"].value  # type: ignore[arg-type]
        elif failure.error:
            cause = failure.error.cause or failure.error
            is_interrupt = "DagsterExecutionInterruptedError" in (failure.error.cls_name, cause.cls_name)
            run_error = INTERRUPTED if is_interrupt else cause.message.strip()
    return recorded, errors, run_error


def _recorded(event: dg.AssetMaterialization) -> dict[tuple[str, str], Outcome]:
    asset, partition = event.asset_key.to_user_string(), Partition.parse(str(event.partition)).key

    def value(name: str) -> Any:
        return event.metadata[name].value if name in event.metadata else None

    status: Status = "reused" if value(REUSED) else "launched"
    outcome = Outcome(
        asset, partition, status, value(FOLDER), users=value("users"), k=value("k"), verdict=value(VERDICT)
    )
    return {(asset, partition): outcome}
