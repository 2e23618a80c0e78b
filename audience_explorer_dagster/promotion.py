"""The job that makes another k-means output the current one of its partition, from the UI or by a command."""

import dagster as dg
from pydantic import Field

from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS
from audience_explorer_dagster.records import variants
from audience_explorer_dagster.records.standing import with_pinned_k
from audience_explorer_dagster.reports.index import keep_index_current
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.following import follow_on
from audience_explorer_dagster.running.pipeline import check_months
from audience_explorer_dagster.running.recording import evaluations_on_record
from audience_explorer_dagster.store import Store
from spark_jobs.errors import InputError
from spark_jobs.following.edits import pinned_k, read_edits

PROMOTE_JOB = "promote"
PROMOTE_OP = "promotion"  # a name that no job has, or Dagster loads nothing


class PromoteConfig(dg.Config):
    """Which output becomes current: that of a label or a folder; or automatic, which ends a promotion."""

    month: str = Field(description="The month, such as 2024-01.")
    category: str = Field(description="The category, such as coffee.")
    label: str | None = Field(default=None, description="The output that was given this label last.")
    folder: str | None = Field(default=None, description="The output in this folder, as the table `tweaks` names it.")
    automatic: bool = Field(
        default=False, description="End a promotion: the newest with the deployment's own parameters is current."
    )


@dg.op(name=PROMOTE_OP)
def promote_output(
    context: dg.OpExecutionContext, config: PromoteConfig, store: Store, launcher: dg.ResourceParam[Launcher]
) -> None:
    try:
        (month,) = check_months([config.month])
        partition = Partition(month, config.category)
        histories = variants.histories_of(context.instance, store, partition)
        choice = variants.Choice(config.label, config.folder, config.automatic)
        own = with_pinned_k(MonthRunConfig(), pinned_k(read_edits(store.edits_file(config.category)), month))
        now = variants.promote(context.instance, store, partition, histories, choice, own, context.log_event)
    except InputError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    # Dagster shows no evaluation of the record before the one that was made just now.
    for evaluation in evaluations_on_record(context.instance, store, KMEANS, [partition]):
        context.log_event(evaluation)  # type: ignore[arg-type]  # it takes them, and does not say so
    context.log.info(variants.told(partition, now))
    try:
        follow_on(context, [partition], None, MonthRunConfig(), launcher, store)
    finally:
        keep_index_current(store, context.log.warning)


@dg.job(
    name=PROMOTE_JOB,
    description="Makes another k-means output the current one of its partition, until a person ends that, and launches"
    " what follows from it: the segments of this month and of later ones, if they are others now. An example of"
    " its config: `ops: {promotion: {config: {month: 2024-01, category: coffee, label: six}}}`; instead of the label,"
    " `folder: NAME`, or `automatic: true`, which ends a promotion.",
    executor_def=dg.in_process_executor,
)
def promote() -> None:
    promote_output()
