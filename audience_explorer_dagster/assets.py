"""The assets: raw audience → grouped users → clustering inputs → k selection → k-means."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import dagster as dg

from audience_explorer_dagster import planning
from audience_explorer_dagster.config import GroupingRunConfig, SegmentsRunConfig
from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.materializing import carry_out
from audience_explorer_dagster.partitions import MONTH, Partition, month_by_category, months
from audience_explorer_dagster.records import History
from audience_explorer_dagster.schemas import column_schema
from audience_explorer_dagster.store import Store, new_folder_name
from spark_jobs import group_by_user, kmeans, make_clustering_inputs, profiles, raw_actions, select_k
from spark_jobs.categories import check_name, read_category
from spark_jobs.errors import InputError
from spark_jobs.fingerprints import files_fingerprint
from spark_jobs.grouping import GROUPED_USER
from spark_jobs.storage import StoredFile

Key = TypeVar("Key")
Value = TypeVar("Value")

# A launch at a time comes from a step, so the limit of this pool is that of launches, and so of instances, at once.
LAUNCHES_POOL = "launches"

_GROUP = "audience"
_OWNERS = ["team:audience"]

raw_audience = dg.AssetSpec(
    "raw_audience",
    description="The raw audience actions of a month: who liked or commented on which page or post. They land under"
    " `raw/month=YYYY-MM/` of the root, as Parquet, JSON lines or CSV; nothing here makes them.",
    partitions_def=months,
    group_name=_GROUP,
    owners=_OWNERS,
    kinds={"parquet", "json", "csv"},
    metadata={"dagster/column_schema": column_schema(raw_actions.RAW)},
)


def _spec(name: str, *, columns: dg.TableSchema, **facts: Any) -> dg.AssetSpec:
    """An asset that a job makes. It is skippable: its records are logged, and nothing is yielded."""
    metadata = {"dagster/column_schema": columns}
    return dg.AssetSpec(name, skippable=True, group_name=_GROUP, owners=_OWNERS, metadata=metadata, **facts)


@dg.multi_asset(
    name=planning.GROUPED_USERS_OP,
    specs=[
        _spec(
            planning.GROUPED_USERS,
            deps=[raw_audience],
            description="The month's audience, one row a user, with the user's actions by page. Raw rows that break a"
            " rule are in the output's `rejects/`, with file, line and reason.",
            kinds={"pyspark", "parquet"},
            code_version=group_by_user.CODE_VERSION,
            columns=column_schema(GROUPED_USER),
        )
    ],
    partitions_def=months,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=LAUNCHES_POOL,
)
def grouped_users(
    context: dg.AssetExecutionContext,
    config: GroupingRunConfig,
    store: Store,
    launcher: dg.ResourceParam[Launcher],
) -> Iterator[dg.MaterializeResult[None]]:
    partitions = _partitions_of_run(context)
    files = _ask_all(partitions, lambda partition: group_by_user.list_raw_files(store.raw(partition.month)))
    for partition, found in files.items():
        if not isinstance(found, Exception):
            _observe_raw_audience(context, store, partition, found)
    raw = {
        partition: found if isinstance(found, Exception) else files_fingerprint(found)
        for partition, found in files.items()
    }
    records = History(context.instance, store, planning.GROUPED_USERS, partitions)
    plan = planning.plan_grouping(raw, config, records, store, new_folder_name())
    carry_out(context, plan, launcher, store)
    yield from ()  # each partition is recorded already


@dg.multi_asset(
    name=planning.SEGMENTS_OP,
    specs=[
        _spec(
            planning.CLUSTERING_INPUTS,
            deps=[dg.AssetDep(grouped_users, partition_mapping=dg.MultiToSingleDimensionPartitionMapping(MONTH))],
            description="The category's users as vectors over its pages: `dimensions.parquet` (the pages),"
            " `profiles.parquet` (the distinct vectors, and how many users have each), `members.parquet` (who has"
            " which).",
            kinds={"pyspark", "parquet"},
            code_version=make_clustering_inputs.CODE_VERSION,
            columns=column_schema(profiles.PROFILE),
        ),
        _spec(
            planning.K_SELECTION,
            deps=[planning.CLUSTERING_INPUTS],
            description="The number of clusters, chosen from a range by a criterion; `k.json` has the scores of every"
            " k that was tried.",
            kinds={"python", "scikitlearn"},
            code_version=select_k.CODE_VERSION,
            columns=dg.TableSchema(
                [
                    dg.TableColumn("k", "int"),
                    dg.TableColumn("wssse", "double"),
                    dg.TableColumn("silhouette", "double"),
                    dg.TableColumn("calinski_harabasz", "double"),
                ]
            ),
        ),
        _spec(
            planning.KMEANS,
            deps=[planning.CLUSTERING_INPUTS, planning.K_SELECTION],
            description="The audience segments: `data.json` (the users of each cluster), `meta-data.json` (what each"
            " is like), `assignments.parquet`, `centers.parquet`, `summary.json`. k is from the config, or else from"
            " k_selection.",
            kinds={"python", "scikitlearn"},
            code_version=kmeans.CODE_VERSION,
            columns=column_schema(kmeans.ASSIGNMENT),
        ),
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
) -> Iterator[dg.MaterializeResult[None]]:
    partitions = _partitions_of_run(context)
    of_months = sorted({Partition(partition.month) for partition in partitions})
    names = sorted({str(partition.category) for partition in partitions})
    categories = _ask_all(names, lambda name: read_category(store.category_file(check_name(name))).fingerprint)
    records = {
        planning.GROUPED_USERS: History(context.instance, store, planning.GROUPED_USERS, of_months),
        **{
            asset: History(context.instance, store, asset, partitions)
            for asset in (planning.CLUSTERING_INPUTS, planning.K_SELECTION, planning.KMEANS)
        },
    }
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    plan = planning.plan_segments(partitions, selected, categories, config, records, store, new_folder_name())
    carry_out(context, plan, launcher, store)
    yield from ()  # each partition is recorded already


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


def _ask_all(keys: list[Key], ask: Callable[[Key], Value]) -> dict[Key, Value | Exception]:
    """Ask for each key, at the same time; an error that is the input's is an answer."""

    def answer(key: Key) -> Value | Exception:
        try:
            return ask(key)
        except InputError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(keys, pool.map(answer, keys), strict=True))


def _observe_raw_audience(
    context: dg.AssetExecutionContext, store: Store, partition: Partition, files: list[StoredFile]
) -> None:
    context.log_event(
        dg.AssetObservation(
            asset_key=raw_audience.key,
            partition=partition.key,
            metadata={
                "raw_files": len(files),
                "bytes": sum(file.size for file in files),
                "folder": dg.MetadataValue.path(store.raw(partition.month)),
                "fingerprint": files_fingerprint(files),
            },
        )
    )
