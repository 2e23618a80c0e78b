"""What segments are made from, beside their clusters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning.decisions import Impossible, Source
from spark_jobs.following.edits import Edit, pinned_k

Edits = tuple[Edit, ...]


@dataclass(frozen=True)
class Following:
    """What segments are made from, beside their clusters.

    Attributes:
        before: What those of a partition are followed from: the current ones of its category's last month before it
            that has some.
        edits: What people say of each category's segments, or what is wrong with that file.
    """

    before: Mapping[Partition, Source] = field(default_factory=dict)
    edits: Mapping[str, Edits | Exception] = field(default_factory=dict)

    def edits_of(self, partition: Partition) -> Edits | Impossible:
        """What people say of a partition's segments."""
        found = self.edits.get(str(partition.category), ())
        return Impossible(str(found)) if isinstance(found, Exception) else found

    def pinned_k(self, partition: Partition) -> int | None:
        """The k that people say a partition has; None if they say none."""
        edits = self.edits_of(partition)
        return None if isinstance(edits, Impossible) else pinned_k(edits, partition.month)
