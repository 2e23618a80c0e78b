"""The sensor that records what arrives of raw data, and what is late. It runs nothing."""

from datetime import datetime, timezone

import dagster as dg
from pydantic import BaseModel

from audience_explorer_dagster.assets import raw_audience
from audience_explorer_dagster.automation import arrival
from audience_explorer_dagster.automation.new_data import list_months, listing_digest
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records.raw_data import record_raw_data
from audience_explorer_dagster.running.inputs import list_raw_files
from audience_explorer_dagster.store import Store

_MONTHS_A_TICK = 2  # local files are read to be recorded; the other months wait for the next tick


class Arrivals(BaseModel):
    """What the sensor has seen, which is its cursor: digests of months' listings."""

    seen: dict[str, str] = {}
    recorded: dict[str, str] = {}
    due: arrival.MonthDue | None = None  # what the check `arrived_in_time` was evaluated for last

    def look(self, listed: dict[str, str]) -> list[str]:
        """The months to record now: they changed, and are not just changing."""
        settled = [month for month in sorted(listed) if self.seen.get(month) == listed[month]]
        self.seen = listed
        return [month for month in settled if self.recorded.get(month) != listed[month]][:_MONTHS_A_TICK]


@dg.sensor(
    description="Records what arrived of each month's raw data, so that the page of raw_audience shows which months can"
    " be run, and whether the newest month is late. It runs nothing.",
    asset_selection=[raw_audience.key],  # its page names this sensor then
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def raw_arrivals(context: dg.SensorEvaluationContext, store: Store) -> dg.SkipReason:
    arrivals = Arrivals.model_validate_json(context.cursor or "{}")
    listed = list_months(store)
    changed = arrivals.look({month: listing_digest(files.items()) for month, files in listed.items()})
    record_raw_data(context.instance, store, list_raw_files(store, [Partition(month) for month in changed]))
    arrivals.recorded |= {month: arrivals.seen[month] for month in changed}
    arrived = [month for month, files in listed.items() if arrival.has_data(files)]
    due = arrival.newest_due(arrived, datetime.now(timezone.utc))
    if due is not None and due != arrivals.due:
        arrival.record(context.instance, due)
        arrivals.due = due
    context.update_cursor(arrivals.model_dump_json())
    return dg.SkipReason(f"Recorded: {', '.join(changed)}." if changed else "Nothing new.")
