"""Sensors."""

import dagster as dg

from audience_explorer_dagster.partitions import categories
from audience_explorer_dagster.store import Store
from spark_jobs.categories import BadCategory, check_name


def new_categories(instance: dg.DagsterInstance, store: Store) -> tuple[list[str], dict[str, str]]:
    """The category files that are no partition yet, and what is wrong with those that can't be one, by name."""
    added: list[str] = []
    refused: dict[str, str] = {}
    known = set(instance.get_dynamic_partitions(str(categories.name)))
    for name in store.category_names():
        try:
            if check_name(name) not in known:
                added.append(name)
        except BadCategory as error:
            refused[name] = str(error)
    return added, refused


@dg.sensor(
    description="Adds a partition for every new category file. It removes none.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def category_files(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
    added, refused = new_categories(context.instance, store)
    for why in refused.values():
        context.log.warning(why)
    if not added:
        return dg.SkipReason(" ".join(["No new category file.", *refused.values()]))
    return dg.SensorResult(dynamic_partitions_requests=[categories.build_add_request(added)])
