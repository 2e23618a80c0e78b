"""Segments are followed from month to month: which from which, and what is made again when a month before changed.

Runs of several months may be under way at the same time, and months may come in any order. So each run looks, at its
end, whether what it made and what follows from it is followed from the month before as that is by then; whichever run
ends last sees all.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from audience_explorer_dagster.launchers import Launcher
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, SEGMENTS, Target
from audience_explorer_dagster.planning.decisions import Source
from audience_explorer_dagster.planning.following import Following
from audience_explorer_dagster.planning.plan import Plan, plan_following
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.run_config import RunConfig
from audience_explorer_dagster.running.inputs import edits_of_segments, needed_records
from audience_explorer_dagster.running.materializing import carry_out
from audience_explorer_dagster.store import Store, new_folder_name
from spark_jobs.outputs import is_whole

_MOST_ROUNDS = 5  # runs that end meanwhile may change what was just followed


def find_following(instance: dg.DagsterInstance, store: Store, partitions: Collection[Partition]) -> Following:
    """What the segments of partitions are made from, beside clusters."""
    names = sorted({str(partition.category) for partition in partitions})
    return Following(_segments_before(instance, store, partitions), edits_of_segments(store, names))


def _segments_before(
    instance: dg.DagsterInstance, store: Store, partitions: Iterable[Partition]
) -> dict[Partition, Source]:
    """What the segments of each partition are followed from: the current ones of its category's last month before it.

    Months that have none are passed over, and so are those whose output is gone.
    """
    months = _followed_months(instance)

    def last(partition: Partition) -> Source | None:
        earlier = [month for month in months[partition.category] if month < partition.month]
        current = (_current(store, Target(SEGMENTS, Partition(month, partition.category))) for month in earlier[::-1])
        return next((source for source in current if source is not None), None)

    return _ask_all(last, partitions)


def follow_on(
    context: dg.OpExecutionContext,
    made: Collection[Partition],
    followed: Following | None,
    config: RunConfig,
    launcher: Launcher,
    store: Store,
) -> None:
    """Make segments and reports again that are not followed from the month before as it is now.

    Args:
        context: The run's.
        made: The partitions whose segments were made, reused or made current just now.
        followed: What they are followed from; None if that is not known.
        config: The run's config.
        launcher: What launches jobs.
        store: Where outputs are.

    Raises:
        dagster.Failure: See `carry_out`.
    """
    for _ in range(_MOST_ROUNDS):
        now, before = _segments_before(context.instance, store, made), {} if followed is None else followed.before
        partitions = {
            partition for partition in made if followed is None or now.get(partition) != before.get(partition)
        }
        partitions |= _later(context.instance, made)
        again, followed = _plan(context.instance, store, partitions, config)
        if not again.decisions:
            return
        context.log.info(f"{len(again.decisions)} partitions follow from what changed")
        carry_out(context, again, launcher, store, _records(context.instance, store, partitions))
        made = partitions


def _later(instance: dg.DagsterInstance, made: Iterable[Partition]) -> set[Partition]:
    """The later partitions of the same categories that have segments on record."""
    months = _followed_months(instance)
    return {Partition(month, p.category) for p in made for month in months[p.category] if month > p.month}


def _plan(
    instance: dg.DagsterInstance, store: Store, partitions: set[Partition], config: RunConfig
) -> tuple[Plan, Following]:
    """The plan that follows partitions again, and what it follows them from."""
    if not partitions:
        return Plan({}), Following()
    following = find_following(instance, store, partitions)
    clusters = _ask_all(lambda partition: _current(store, Target(KMEANS, partition)), partitions)
    segments = _ask_all(lambda partition: _current(store, Target(SEGMENTS, partition)), partitions)
    known = {partition: source.fingerprint for partition, source in segments.items()}
    records = _records(instance, store, partitions)
    return plan_following(clusters, following, known, config, records, store, new_folder_name()), following


def _current(store: Store, target: Target) -> Source | None:
    """The current output of a target; None if there is none, or it is gone."""
    current = store.current(target.asset, target.partition)
    if current is None or current.fingerprint is None or not is_whole(current.folder, target.asset):
        return None
    return Source(target, current.fingerprint, current.folder)


def _ask_all(ask: Callable[[Partition], Source | None], partitions: Iterable[Partition]) -> dict[Partition, Source]:
    """The answers for partitions, asked for at the same time; without those that have none."""
    asked = list(partitions)
    with ThreadPoolExecutor(8) as pool:
        answers = zip(asked, pool.map(ask, asked), strict=True)
        return {partition: source for partition, source in answers if source is not None}


def _records(instance: dg.DagsterInstance, store: Store, partitions: set[Partition]) -> dict[str, History]:
    needed = needed_records(sorted(partitions))
    return {asset: History(instance, store, asset, of_asset) for asset, of_asset in needed.items()}


def _followed_months(instance: dg.DagsterInstance) -> dict[str | None, list[str]]:
    """The months of each category that have segments on record, in order."""
    found: dict[str | None, list[str]] = defaultdict(list)
    for partition in sorted(map(Partition.parse, instance.get_materialized_partitions(dg.AssetKey(SEGMENTS)))):
        found[partition.category].append(partition.month)
    return found
