"""The assets: raw audience → grouped users → clustering inputs → k selection → k-means → segments → report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from audience_explorer_dagster import planning
from audience_explorer_dagster.categories.known import list_categories, sync_categories
from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.partitions import MONTH, Partition, month_by_category, months
from audience_explorer_dagster.planning.plan import plan_grouping, plan_month, plan_segments
from audience_explorer_dagster.records import asset_checks, column_schemas
from audience_explorer_dagster.records.attempts import Attempt, HistoryWithAttempts, attempts_of
from audience_explorer_dagster.records.column_schemas import column_schema
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.records.raw_data import KNOWN_FILE_TYPES, RAW_AUDIENCE, check_file_types, record_raw_data
from audience_explorer_dagster.records.trends import CATEGORY_TRENDS
from audience_explorer_dagster.records.trends import SCHEMA as TRENDS
from audience_explorer_dagster.run_config import GroupingRunConfig, MonthRunConfig, SegmentsRunConfig
from audience_explorer_dagster.running.following import find_following, follow_on
from audience_explorer_dagster.running.in_this_process import CODE_LOCATION
from audience_explorer_dagster.running.inputs import (
    category_fingerprints,
    list_raw_files,
    needed_records,
    raw_fingerprints,
)
from audience_explorer_dagster.running.materializing import carry_out
from audience_explorer_dagster.running.recording import record_checks_again, record_intent
from audience_explorer_dagster.running.turns import turn
from audience_explorer_dagster.store import Store
from spark_jobs import follow_segments, group_by_user, kmeans, make_clustering_inputs, make_report, select_k
from spark_jobs.clusters import learned
from spark_jobs.raw import rules
from spark_jobs.users.grouping import GROUPED_USER
from spark_jobs.vectors import profiles

# A launch at a time comes from a step, so the limit of this pool is that of launches, and so of instances, at once.
LAUNCHES_POOL = "launches"

WHOLE_MONTH_JOB = "whole_month"

# The ops: that of grouped_users has its name, the five assets of month × category share one, and one does all of it.
SEGMENTS_OP = "segments"
MONTH_OP = "month"

# What a person copies into the launchpad: where partitions of assets are chosen, Dagster always opens it blank.
_EXAMPLES = {
    planning.GROUPED_USERS: "grouped_users: {max_reject_ratio: 0.05}",
    planning.CLUSTERING_INPUTS: 'clustering_inputs: {scaling: "log1p,l2", min_actions: 3}',
    planning.K_SELECTION: "k_selection: {k_max: 20, min_segment: 50}",
    planning.KMEANS: 'kmeans: {k: 12, params: "kmeans||,100,0.001", n_init: 10, seed: 0, label: twelve}',
}
_EXAMPLE_OF_ANY_RUN = (
    "engine: local     # the processes of one machine; or spark",
    "resources: {memory: 6GB, cores: 2}",
    "force: false      # true computes even what is there already",
)


def _with_example(description: str, op: str, *config: str) -> str:
    """A description, with an example of what the launchpad takes."""
    lines = "".join(f"      {line}\n" for line in (*config, *_EXAMPLE_OF_ANY_RUN))
    example = f"```yaml\nops:\n  {op}:\n    config:\n{lines}```"
    return f"{description}\n\nThe launchpad takes, for example (all of it may be left out):\n\n{example}"


# Dagster lists on an asset's page what runs a job of assets, and `whole_month` is a job of an op.
_WHAT_RUNS_IT = (
    "What runs it: the sensor `complete_months`, as soon as a month's raw data is complete, and the schedule `monthly`,"
    " each while it is switched on (Automation in the menu; the sensor also by AUDIENCE_EXPLORER_AUTOMATIC=1). Both run"
    " the job `whole_month`, so Dagster lists them on its page, and not on this one."
)
_AUTOMATED_BY = {"automated_by": dg.MetadataValue.job(WHOLE_MONTH_JOB, location_name=CODE_LOCATION)}

_GROUP = "audience"
_OWNERS = ["team:audience"]

raw_audience = dg.AssetSpec(
    RAW_AUDIENCE,
    description="The raw audience actions of a month: who liked or commented on which page or post. They land under"
    " `raw/month=YYYY-MM/` of the root, as Parquet, JSON lines or CSV; nothing here makes them.\n\nWhat"
    " arrives is recorded by the sensor `raw_arrivals`, which is on unless somebody switches it off, and by every run.",
    partitions_def=months,
    group_name=_GROUP,
    owners=_OWNERS,
    kinds={"parquet", "json", "csv"},
    metadata={"dagster/column_schema": column_schema(rules.RAW, column_schemas.RAW)},
)


def _spec(name: str, *, description: str, columns: dg.TableSchema | None = None, **facts: Any) -> dg.AssetSpec:
    """An asset that a job makes. It is skippable: its records are logged, and nothing is yielded."""
    op = planning.GROUPED_USERS if name == planning.GROUPED_USERS else SEGMENTS_OP
    return dg.AssetSpec(
        name,
        description=_with_example(
            f"{description}\n\n{_WHAT_RUNS_IT}", op, *([_EXAMPLES[name]] if name in _EXAMPLES else [])
        ),
        skippable=True,
        group_name=_GROUP,
        owners=_OWNERS,
        metadata=_AUTOMATED_BY if columns is None else {"dagster/column_schema": columns, **_AUTOMATED_BY},
        **facts,
    )


@dg.multi_asset(
    name=planning.GROUPED_USERS,
    specs=[
        _spec(
            planning.GROUPED_USERS,
            deps=[raw_audience],
            description="The month's audience, one row a user, with the user's actions by page. Raw rows that break a"
            " rule are in the output's `rejects/`, with file, line and reason.",
            kinds={"pyspark", "parquet"},
            code_version=group_by_user.CODE_VERSION,
            columns=column_schema(GROUPED_USER, column_schemas.GROUPED_USER),
        )
    ],
    partitions_def=months,
    check_specs=asset_checks.specs(planning.GROUPED_USERS),
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,  # so that checks need not be yielded: they are logged, also when the step fails
    pool=LAUNCHES_POOL,
)
def grouped_users(
    context: dg.AssetExecutionContext,
    config: GroupingRunConfig,
    store: Store,
    launcher: dg.ResourceParam[Launcher],
) -> Iterator[dg.Output[None]]:
    if not context.selected_asset_keys:
        record_checks_again(context, store)
        yield from _results_of_checks(context)
        return
    partitions = _partitions_of_run(context)
    with turn(context.op_execution_context, partitions):
        raw = _fingerprint_raw_data(context.instance, store, partitions)
        attempt, records = _records(context.op_execution_context, store, {planning.GROUPED_USERS: partitions})
        plan = plan_grouping(raw, config, records[planning.GROUPED_USERS], store, attempt.folder_name)
        carry_out(context.op_execution_context, plan, launcher, store, records)
    yield from _results_of_checks(context)


@dg.multi_asset(
    name=SEGMENTS_OP,
    specs=[
        _spec(
            planning.CLUSTERING_INPUTS,
            deps=[dg.AssetDep(grouped_users, partition_mapping=dg.MultiToSingleDimensionPartitionMapping(MONTH))],
            description="The category's users as vectors over its pages: `dimensions.parquet` (the pages),"
            " `profiles.parquet` (the distinct vectors, and how many users have each), `members.parquet` (who has"
            " which).",
            kinds={"pyspark", "parquet"},
            code_version=make_clustering_inputs.CODE_VERSION,
            columns=column_schema(profiles.PROFILE, column_schemas.PROFILE),
        ),
        _spec(
            planning.K_SELECTION,
            deps=[planning.CLUSTERING_INPUTS],
            description="Whether the category's users fall into segments, and into how many. The verdict is"
            " `segments`, `none`, or `too_few` (people to tell). `k.json` has it, the k, why, and a row with the scores"
            " of every k that was tried.",
            kinds={"python", "numpy"},
            code_version=select_k.CODE_VERSION,
            columns=column_schema(
                pa.schema(select_k.CHOICE.schema.field("tried").type.value_type), column_schemas.TRIED
            ),
        ),
        _spec(
            planning.KMEANS,
            deps=[planning.CLUSTERING_INPUTS, planning.K_SELECTION],
            description="The audience's clusters, learned from users with at least `fit_min_actions` actions; everybody"
            " is then placed in the nearest. `data.json` (the users of each cluster), `meta-data.json` (what each is"
            " like, and how solid), `profiles.parquet` (what sets it apart), `comparisons.parquet` (and from everybody,"
            " and from each other one), `assignments.parquet` (who is where, and with what confidence),"
            " `centers.parquet`, `summary.json`. k is from the config, or else from k_selection.",
            kinds={"python", "numpy"},
            code_version=kmeans.CODE_VERSION,
            columns=column_schema(learned.ASSIGNMENT, column_schemas.ASSIGNMENT),
        ),
        _spec(
            planning.SEGMENTS,
            deps=[planning.KMEANS],
            description="Which of the clusters is which segment of the months before, by what its people like, and what"
            " happened: `segments.json` (segments keep their id, name and color while they live; births, deaths, splits"
            " and merges), `flows.parquet` (how many people went from which to which). Followed from the current"
            " segments of the last month before that has some; if that one changes, it is made again.",
            kinds={"python", "numpy"},
            code_version=follow_segments.CODE_VERSION,
        ),
        _spec(
            planning.AUDIENCE_REPORT,
            deps=[planning.KMEANS, planning.SEGMENTS],
            description="The report of the category's clusters, for people: `report.html`, one file that needs nothing"
            " else. How many people, in which segments, what each is into, how sure that is, and how it was made; with"
            " rounded figures, and nothing of fewer than 10 people. `audience-explorer report --open` opens it.",
            kinds={"python", "html"},
            code_version=make_report.CODE_VERSION,
        ),
    ],
    check_specs=[
        spec
        for asset in (
            planning.CLUSTERING_INPUTS,
            planning.K_SELECTION,
            planning.KMEANS,
            planning.SEGMENTS,
            planning.AUDIENCE_REPORT,
        )
        for spec in asset_checks.specs(asset)
    ],
    partitions_def=month_by_category,
    backfill_policy=dg.BackfillPolicy.single_run(),
    can_subset=True,
    pool=LAUNCHES_POOL,
)
def segments(
    context: dg.AssetExecutionContext,
    config: SegmentsRunConfig,
    store: Store,
    launcher: dg.ResourceParam[Launcher],
) -> Iterator[dg.Output[None]]:
    if not context.selected_asset_keys:
        record_checks_again(context, store)
        yield from _results_of_checks(context)
        return
    partitions = _partitions_of_run(context)
    names = sorted({str(partition.category) for partition in partitions})
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    with turn(context.op_execution_context, partitions):
        attempt, records = _records(context.op_execution_context, store, needed_records(partitions))
        categories = category_fingerprints(store, names)
        following = find_following(context.instance, store, partitions)
        plan = plan_segments(partitions, selected, categories, config, records, following, store, attempt.folder_name)
        carry_out(context.op_execution_context, plan, launcher, store, records)
        follow_on(context.op_execution_context, plan.followed, following, config, launcher, store)
    yield from _results_of_checks(context)


category_trends = dg.AssetSpec(
    CATEGORY_TRENDS,
    deps=[dg.AssetDep(planning.KMEANS, partition_mapping=dg.MultiToSingleDimensionPartitionMapping(MONTH))],
    description="How each category goes over the months: users, k and solid clusters of its current k-means output, in"
    " the plots of Overview → Metadata. Recorded by whatever makes another output current; nobody materializes it."
    f"\n\n{_WHAT_RUNS_IT}",
    partitions_def=months,
    group_name=_GROUP,
    owners=_OWNERS,
    kinds={"table"},
    metadata={"dagster/column_schema": TRENDS, **_AUTOMATED_BY},
)


@dg.op(
    name=MONTH_OP,
    description="Groups a month's raw actions by user, and clusters the users of its categories, in one launch; what"
    " is there already is reused.",
    pool=LAUNCHES_POOL,
)
def month(
    context: dg.OpExecutionContext, config: MonthRunConfig, store: Store, launcher: dg.ResourceParam[Launcher]
) -> None:
    of_month = Partition(context.partition_key)
    _, refused = sync_categories(context.instance, store)
    if not config.categories:
        for why in refused.values():
            context.log.warning(why)
    names = config.categories or list_categories(context.instance, store)
    if not names:
        raise dg.Failure(f"There is no category file in {store.categories}. Put one there, NAME.json.")
    partitions = [Partition(of_month.month, name) for name in names]
    with turn(context, partitions):
        raw = _fingerprint_raw_data(context.instance, store, [of_month])[of_month]
        attempt, records = _records(context, store, needed_records(partitions))
        categories = category_fingerprints(store, names)
        following = find_following(context.instance, store, partitions)
        plan = plan_month(of_month, raw, categories, config, records, following, store, attempt.folder_name)
        record_intent(context, plan)
        carry_out(context, plan, launcher, store, records)
        follow_on(context, plan.followed, following, config, launcher, store)


@dg.job(
    name=WHOLE_MONTH_JOB,
    description=_with_example(
        "A whole month, from raw actions to the segments of every category. A run reads its month once and launches"
        " once, so this is what to backfill, however many months and categories there are.",
        MONTH_OP,
        "categories: [coffee, tea]    # all that have a file, if left out",
        *_EXAMPLES.values(),
    ),
    partitions_def=months,
    # A run is one step, which waits for a launch: a process of its own for it would only cost time.
    executor_def=dg.in_process_executor,
)
def whole_month() -> None:
    month()


def _records(
    context: dg.OpExecutionContext, store: Store, partitions: Mapping[str, Sequence[Partition]]
) -> tuple[Attempt, dict[str, History]]:
    """The run as an attempt, and what is there of the partitions of each asset."""
    attempt, earlier = attempts_of(context.instance, context.run)
    return attempt, {
        asset: HistoryWithAttempts(context.instance, store, asset, of_asset, earlier)
        for asset, of_asset in partitions.items()
    }


def _results_of_checks(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """A result of each check, for which Dagster waits; the evaluations are logged already, partition by partition."""
    for key in sorted(context.selected_asset_check_keys):
        yield dg.Output(None, output_name=context.assets_def.get_output_name_for_asset_check_key(key))


def _partitions_of_run(context: dg.AssetExecutionContext) -> list[Partition]:
    partitions = [Partition.parse(key) for key in context.partition_keys]
    if not partitions:
        # Dagster makes a reversed range an empty one, and a run of it would succeed.
        raise dg.Failure(
            f"The partition range {context.partition_key_range.start}...{context.partition_key_range.end} holds no"
            " partition: its start must not come after its end (months by time, categories in the order in which they"
            " were added).",
            allow_retries=False,
        )
    return partitions


def _fingerprint_raw_data(
    instance: dg.DagsterInstance, store: Store, partitions: Sequence[Partition]
) -> dict[Partition, str | Exception]:
    """The fingerprint of each month's raw files, or why there is none; what is there is on record then."""
    listed = list_raw_files(store, partitions)
    record_raw_data(instance, store, listed)
    return raw_fingerprints(listed)


@dg.asset_check(
    asset=raw_audience.key,
    name=KNOWN_FILE_TYPES,
    description="Every month's folder that is there holds raw files, and only of the types that are read.",
)
def raw_files(store: Store) -> dg.AssetCheckResult:
    return check_file_types(store)
