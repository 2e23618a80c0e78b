"""The assets that jobs make, and their partitions: what a run is asked for."""

from dataclasses import dataclass

from audience_explorer_dagster.partitions import Partition

# The names are those of the jobs' steps; importing the jobs themselves takes much longer.
GROUPED_USERS = "grouped_users"
CLUSTERING_INPUTS = "clustering_inputs"
K_SELECTION = "k_selection"
KMEANS = "kmeans"
SEGMENTS = "segments"
AUDIENCE_REPORT = "audience_report"


@dataclass(frozen=True)
class Target:
    """A partition of an asset."""

    asset: str
    partition: Partition

    def __str__(self) -> str:
        """Its name, such as `kmeans coffee|2024-01`."""
        return f"{self.asset} {self.partition}"

    @classmethod
    def parse(cls, name: str) -> "Target":
        """The target of a name."""
        asset, _, key = name.partition(" ")
        return cls(asset, Partition.parse(key))
