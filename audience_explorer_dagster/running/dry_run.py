"""What a pipeline would do, and why: its plans, which are made as runs make them, and not carried out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import dagster as dg

from audience_explorer_dagster.categories.known import check_categories, new_categories
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import Target
from audience_explorer_dagster.planning.decisions import Compute, Decision, Impossible, Reuse
from audience_explorer_dagster.planning.plan import Plan, plan_month
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.expectation import Expected, expect
from audience_explorer_dagster.running.following import find_following
from audience_explorer_dagster.running.inputs import (
    category_fingerprints,
    list_raw_files,
    needed_records,
    raw_fingerprints,
)
from audience_explorer_dagster.store import Store, new_folder_name

Action = Literal["launch", "reuse", "impossible"]


@dataclass(frozen=True)
class Planned:
    """What would become of a target, or of a category file that can't be a partition."""

    asset: str
    partition: str
    action: Action
    why: str
    job: str | None = None  # that would make it
    folder: str | None = None  # of the output that would be reused

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return asdict(self)


@dataclass(frozen=True)
class DryRun:
    """What a pipeline would do with each of its targets, and what that would take."""

    targets: list[Planned]
    expected: Expected

    def counts(self) -> dict[str, int]:
        """How many targets would be launched, reused, and neither."""
        return {action: sum(target.action == action for target in self.targets) for action in get_args(Action)}

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            **self.counts(),
            "expected": self.expected.as_json(),
            "partitions": [target.as_json() for target in self.targets],
        }


def dry_run(
    instance: dg.DagsterInstance,
    store: Store,
    wanted_months: Sequence[str],
    wanted_categories: Sequence[str],
    config: MonthRunConfig,
) -> DryRun:
    """What a pipeline would do, and why; nothing is launched or recorded.

    Args:
        instance: Where the records are.
        store: Where inputs and outputs are.
        wanted_months: Checked months.
        wanted_categories: Categories; all that have a file, if there is none.
        config: The config, but for the categories.

    Raises:
        InputError: There is no such category, or none at all.
    """
    new, refused = new_categories(instance, store)
    names = check_categories(instance, store, wanted_categories, new)
    plans = plan_pipeline(instance, store, wanted_months, names, config)
    # Only who asks for all categories asks for files that can't be one.
    unfit = {} if wanted_categories else refused
    targets = [
        *(target for plan in plans for target in planned(plan)),
        *(Planned("category", name, "impossible", why) for name, why in unfit.items()),
    ]
    return DryRun(targets, expect(instance, store, plans))


def plan_pipeline(
    instance: dg.DagsterInstance,
    store: Store,
    wanted_months: Sequence[str],
    wanted_categories: Sequence[str],
    config: MonthRunConfig,
) -> list[Plan]:
    """The plan of each month. Nothing is launched or recorded.

    Args:
        instance: Where the records are.
        store: Where inputs and outputs are.
        wanted_months: Checked months.
        wanted_categories: Checked categories.
        config: The config, but for the categories.
    """
    months = [Partition(month) for month in wanted_months]
    raw = raw_fingerprints(list_raw_files(store, months))
    categories = category_fingerprints(store, wanted_categories)
    partitions = [Partition(month, name) for month in wanted_months for name in wanted_categories]
    records = {
        asset: History(instance, store, asset, of_asset) for asset, of_asset in needed_records(partitions).items()
    }
    following = find_following(instance, store, partitions)
    return [
        plan_month(month, raw[month], categories, config, records, following, store, new_folder_name())
        for month in months
    ]


def planned(plan: Plan) -> list[Planned]:
    """What a plan would do with each of its targets."""
    jobs = {target: job.id for job in plan.jobs for target in job.targets}
    return [_planned(target, decision, jobs.get(target)) for target, decision in plan.decisions.items()]


def _planned(target: Target, decision: Decision, job: str | None) -> Planned:
    asset, partition = target.asset, target.partition.key
    match decision:
        case Reuse(record):
            why = f"as recorded {record.recorded_at:%Y-%m-%d %H:%M} UTC"
            return Planned(asset, partition, "reuse", why, folder=record.folder)
        case Compute():
            return Planned(asset, partition, "launch", decision.why, job=job)
        case Impossible(why):
            return Planned(asset, partition, "impossible", why)
