"""The partitions of the assets: months that grow by themselves, and categories that come from the category files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from audience_explorer_dagster import settings
from audience_explorer_dagster.start_month import start_month
from spark_jobs.raw.rules import Month

MONTH_FORMAT = "%Y-%m"
CATEGORY = "category"
MONTH = "month"


def end_of_months() -> datetime | None:
    """When the last month that is a partition ends; None where months go on to be added."""
    last = settings.read().end_month
    return None if last is None else Month.parse(last).end


# The running month is not a partition until it ends.
months = dg.TimeWindowPartitionsDefinition(
    cron_schedule="0 0 1 * *",
    start=start_month(),
    end=end_of_months(),
    fmt=MONTH_FORMAT,
    timezone="UTC",
)
categories = dg.DynamicPartitionsDefinition(name=CATEGORY)
month_by_category = dg.MultiPartitionsDefinition({MONTH: months, CATEGORY: categories})


@dataclass(frozen=True, order=True)
class Partition:
    """A month, or a category of a month."""

    month: str
    category: str | None = None

    def __str__(self) -> str:
        return self.key

    @property
    def key(self) -> str:
        """The partition key, such as `2024-01` or `coffee|2024-01`: Dagster joins the dimensions by their names."""
        return self.month if self.category is None else f"{self.category}|{self.month}"

    @property
    def month_before(self) -> "Partition":
        """The same of the month before."""
        year, month = map(int, self.month.split("-"))
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
        return Partition(f"{year:04}-{month:02}", self.category)

    @classmethod
    def parse(cls, key: str) -> "Partition":
        """The partition of a key."""
        if isinstance(key, dg.MultiPartitionKey):
            dimensions = key.keys_by_dimension
            return cls(dimensions[MONTH], dimensions[CATEGORY])
        category, separator, month = key.rpartition("|")
        return cls(month, category if separator else None)


def of_run(tags: Mapping[str, str]) -> str:
    """The partition of a run, or the first and last of several; empty if it has none."""
    ends = [tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")]
    return tags.get("dagster/partition") or "...".join(dict.fromkeys(end for end in ends if end))


def short_name(partitions: Sequence[Partition]) -> str:
    """A short name of some partitions, such as `2024-01`, `coffee-2024-01` or `13-categories-2024-01-to-2024-06`."""
    of_months = sorted({partition.month for partition in partitions})
    names = sorted({partition.category for partition in partitions if partition.category is not None})
    span = of_months[0] if len(of_months) == 1 else f"{of_months[0]}-to-{of_months[-1]}"
    if not names:
        return span
    return f"{names[0] if len(names) == 1 else f'{len(names)}-categories'}-{span}"
