"""Whether a month's raw data is late: a check of raw_audience, evaluated by the sensor `raw_arrivals`.

Dagster's own freshness asks when anything of an asset was last recorded, whatever the partition: a late file of an old
month would count as the new month's. And it takes records without a run for one run, which can evaluate a check once
a partition. So this check is one of all months together, and judges the newest.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import dagster as dg

from audience_explorer_dagster import settings
from audience_explorer_dagster.assets import raw_audience
from audience_explorer_dagster.automation.new_data import list_months
from audience_explorer_dagster.partitions import months
from audience_explorer_dagster.store import Store
from spark_jobs.raw.rules import Month

ARRIVED_IN_TIME = "arrived_in_time"


class MonthDue(NamedTuple):
    """The month that is judged, and whether its raw data is there."""

    month: str
    arrived: bool


def newest_due(arrived: Collection[str], now: datetime) -> MonthDue | None:
    """The newest month that has arrived, or whose deadline is over; None while nothing has arrived at all.

    Args:
        arrived: The months that have raw files.
        now: The time, with its zone.
    """
    if not arrived:
        return None  # nobody waits for the months of a root that has no data yet
    overdue = (month for month in reversed(months.get_partition_keys(current_time=now)) if _deadline(month) <= now)
    newest = max(*arrived, next(overdue, ""))
    return MonthDue(newest, newest in arrived)


def has_data(files: Iterable[str]) -> bool:
    """Whether a month's folder with files of these names holds raw data."""
    return any(name[0] not in "._" for name in files)


def evaluate(due: MonthDue | None) -> dg.AssetCheckResult:
    """What the check finds."""
    if due is None:
        return dg.AssetCheckResult(passed=True, description="No raw data has arrived at all yet, so none is late.")
    deadline = _deadline(due.month)
    if due.arrived:
        description = f"{due.month} has arrived. Its deadline: {deadline:%Y-%m-%d %H:%M} UTC."
    else:
        description = (
            f"{due.month} is late: raw/month={due.month}/ has no raw file, and its deadline was"
            f" {deadline:%Y-%m-%d %H:%M} UTC, {settings.read().arrival_days:g} days after the month's end"
            " (AUDIENCE_EXPLORER_ARRIVAL_DAYS). If no more data is to come, set AUDIENCE_EXPLORER_END_MONTH."
        )
    metadata: dict[str, Any] = {"month": due.month, "deadline": dg.MetadataValue.timestamp(deadline)}
    return dg.AssetCheckResult(passed=due.arrived, description=description, metadata=metadata)


def record(instance: dg.DagsterInstance, due: MonthDue) -> None:
    """Record what the check finds, which belongs to no run."""
    found = evaluate(due)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            raw_audience.key, ARRIVED_IN_TIME, bool(found.passed), found.metadata, description=found.description
        )
    )


@dg.asset_check(
    asset=raw_audience.key,
    name=ARRIVED_IN_TIME,
    description="The newest month that ended has arrived, or still has time: AUDIENCE_EXPLORER_ARRIVAL_DAYS days after"
    " its end. The sensor `raw_arrivals` evaluates it, whenever the answer changes.",
)
def arrived_in_time(store: Store) -> dg.AssetCheckResult:
    arrived = [month for month, files in list_months(store).items() if has_data(files)]
    return evaluate(newest_due(arrived, datetime.now(timezone.utc)))


def _deadline(month: str) -> datetime:
    return Month.parse(month).end + timedelta(days=settings.read().arrival_days)
