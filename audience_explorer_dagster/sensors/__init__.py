"""Sensors: what Dagster's daemon looks after, each in a module."""

from audience_explorer_dagster.categories import new_categories
from audience_explorer_dagster.sensors.abandoned import abandoned_instances
from audience_explorer_dagster.sensors.category_partitions import category_files
from audience_explorer_dagster.sensors.failures import run_failures
from audience_explorer_dagster.sensors.new_data import complete_months

__all__ = ["abandoned_instances", "category_files", "complete_months", "new_categories", "run_failures"]
