"""The sensor that keeps the category partitions in step with the category files."""

import json

import dagster as dg

from audience_explorer_dagster.categories.known import new_categories
from audience_explorer_dagster.partitions import categories
from audience_explorer_dagster.store import Store


@dg.sensor(
    description="Adds a partition for every new category file. A partition whose file is gone is reported, and stays.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def category_files(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
    added, refused = new_categories(context.instance, store)
    problems = [*refused.values(), *_removed(context.instance, store)]
    reported: list[str] = json.loads(context.cursor or "[]")
    for problem in problems:
        if problem not in reported:
            context.log.warning(problem)
    cursor = json.dumps(problems)
    if added:
        return dg.SensorResult(dynamic_partitions_requests=[categories.build_add_request(added)], cursor=cursor)
    context.update_cursor(cursor)
    return dg.SkipReason(" ".join(["No new category file.", *problems]))


def _removed(instance: dg.DagsterInstance, store: Store) -> list[str]:
    """What is to be said of partitions whose file is gone."""
    with_file = set(store.category_names())
    return [
        f"{name} is a partition, and its file {store.category_file(name)} is gone. Put it back, or remove the"
        " partition: audience-explorer categories sync --remove-missing"
        for name in instance.get_dynamic_partitions(str(categories.name))
        if name not in with_file
    ]
