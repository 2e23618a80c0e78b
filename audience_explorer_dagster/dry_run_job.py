"""The job `dry_run`: what `whole_month` would do with a month, asked in the UI. Its output is a table."""

import dagster as dg

from audience_explorer_dagster.partitions import months
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.dry_run import DryRun
from audience_explorer_dagster.running.dry_run import dry_run as plan_month
from audience_explorer_dagster.store import Store

DRY_RUN_JOB = "dry_run"
DRY_RUN_OP = "plan"


@dg.op(
    name=DRY_RUN_OP,
    out=dg.Out(dg.Nothing),
    description="Plans a month as `whole_month` does, with the same config, and launches and records nothing. The plan"
    " is the metadata of this step's output: a row a partition, with what would be launched or reused, and why.",
)
def plan(context: dg.OpExecutionContext, config: MonthRunConfig, store: Store) -> None:
    found = plan_month(context.instance, store, [context.partition_key], config.categories, config)
    context.log.info(_as_text(found))
    context.add_output_metadata(_as_metadata(found))


@dg.job(
    name=DRY_RUN_JOB,
    description="What `whole_month` would do with a month, and why: what it would launch, what reuse, and how long that"
    " would take. Run it with the config that you mean to give `whole_month`; nothing is launched.",
    partitions_def=months,
    executor_def=dg.in_process_executor,
)
def dry_run() -> None:
    plan()


def _as_text(found: DryRun) -> str:
    counts = found.counts()
    told = f"{counts['launch']} to launch, {counts['reuse']} to reuse, {counts['impossible']} impossible"
    return f"{told}; {found.expected}"


def _as_metadata(found: DryRun) -> dict[str, dg.MetadataValue]:
    columns = ("partition", "asset", "action", "why")
    # The UI cuts long events off, so what is launched or impossible comes first.
    in_order = sorted(found.targets, key=lambda target: target.action == "reuse")
    rows = [
        dg.TableRecord({name: " ".join(str(getattr(target, name)).split()) for name in columns}) for target in in_order
    ]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    expected = found.expected
    figures = {"expected_seconds": expected.seconds, "expected_dollars": expected.dollars}
    return {
        **{action: dg.MetadataValue.int(count) for action, count in found.counts().items()},
        "launches": dg.MetadataValue.int(expected.launches),
        **{name: dg.MetadataValue.float(value) for name, value in figures.items() if value is not None},
        "plan": dg.MetadataValue.table(rows, schema),
    }
