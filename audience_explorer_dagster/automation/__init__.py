"""Sensors, and a check: what Dagster's daemon looks after, each in a module."""

from audience_explorer_dagster.automation.abandoned_instances import abandoned_instances
from audience_explorer_dagster.automation.arrival import arrived_in_time
from audience_explorer_dagster.automation.category_partitions import category_files
from audience_explorer_dagster.automation.failures import run_failures
from audience_explorer_dagster.automation.lost_runs import lost_runs
from audience_explorer_dagster.automation.new_data import complete_months
from audience_explorer_dagster.automation.raw_data import raw_arrivals
from audience_explorer_dagster.categories.known import new_categories

__all__ = [
    "abandoned_instances",
    "arrived_in_time",
    "category_files",
    "complete_months",
    "lost_runs",
    "new_categories",
    "raw_arrivals",
    "run_failures",
]
