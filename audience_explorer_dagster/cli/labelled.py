"""What the commands read of a variant: the k-means output with a label, beside the current one, and its segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audience_explorer_dagster.cli.project import Project
from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from audience_explorer_dagster.partitions import Partition


@dataclass(frozen=True)
class Variant:
    """The k-means output of a month that is read.

    Attributes:
        month: Such as `2024-01`.
        folder: Where it is; None for the current one.
        followed: Where its followed segments are, if it is not the current one and has some.
    """

    month: str
    folder: str | None = None
    followed: str | None = None


def find_labelled(project: Project, category: str, label: str, months: Sequence[str]) -> list[Variant]:
    """The newest output with a label in each month.

    Args:
        project: Where the records are.
        category: The category.
        label: The label, or the name of an output's folder.
        months: The months; without any, it is the newest that has the label.

    Raises:
        InputError: A month has no such output; the message names the labels that it has.
    """
    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.running.pipeline import check_months

    if months:
        return [_find(project, Partition(month, category), label) for month in check_months(months)]
    return [_newest(project, category, label)]


def _newest(project: Project, category: str, label: str) -> Variant:
    import dagster as dg

    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.planning import KMEANS

    on_record = map(Partition.parse, project.instance.get_materialized_partitions(dg.AssetKey(KMEANS)))
    of_category = sorted((p for p in on_record if p.category == category), key=lambda p: p.month, reverse=True)
    reasons = []
    for partition in of_category:
        try:
            return _find(project, partition, label)
        except InputError as error:
            reasons.append(f"{partition.month}: {error}")
    listed = "".join(f"\n  {reason}" for reason in reasons)
    raise InputError(f"No month of {category} has clusters with the label {label!r}.{listed}")


def _find(project: Project, partition: "Partition", label: str) -> Variant:
    from audience_explorer_dagster.planning import KMEANS, SEGMENTS
    from audience_explorer_dagster.records.history import History
    from audience_explorer_dagster.records.variants import find_named

    found = find_named(list(History(project.instance, project.store, KMEANS, [partition]).all(partition)), label)
    segments = History(project.instance, project.store, SEGMENTS, [partition])
    followed = segments.made_from(partition, found.fingerprint)
    return Variant(partition.month, found.folder, None if followed is None else followed.folder)
