"""The partitions of the assets: months that grow by themselves, and categories that come from the category files."""

import os
from dataclasses import dataclass

import dagster as dg

MONTH_FORMAT = "%Y-%m"
CATEGORY = "category"
MONTH = "month"

# The running month is no partition until it ends.
months = dg.TimeWindowPartitionsDefinition(
    cron_schedule="0 0 1 * *",
    start=os.environ.get("AUDIENCE_EXPLORER_START_MONTH", "2018-01"),
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

    @property
    def key(self) -> str:
        """The partition key, such as `2024-01` or `coffee|2024-01`: Dagster joins the dimensions by their names."""
        return self.month if self.category is None else f"{self.category}|{self.month}"

    @classmethod
    def parse(cls, key: str) -> "Partition":
        """The partition of a key."""
        if isinstance(key, dg.MultiPartitionKey):
            dimensions = key.keys_by_dimension
            return cls(dimensions[MONTH], dimensions[CATEGORY])
        category, separator, month = key.rpartition("|")
        return cls(month, category if separator else None)
