"""Two clusterings of users beside each other: how far they agree, and which cluster of one is which of the other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs import outputs
from spark_jobs.clusters import published
from spark_jobs.outputs.tables import read_table


@dataclass(frozen=True)
class Side:
    """One of the two outputs of kmeans."""

    folder: str
    users: int
    sizes: tuple[int, ...]  # users of each cluster
    names: tuple[str, ...]  # of each cluster; before code version 5, the page that most of its users are on
    only_here: int  # users whom the other one does not have
    min_people: int  # that it was made with

    @property
    def k(self) -> int:
        """How many clusters it has."""
        return len(self.sizes)


@dataclass(frozen=True)
class Comparison:
    """How two clusterings relate.

    Attributes:
        first: The one whose clusters are the rows.
        second: The one whose clusters are the columns.
        common: Users whom both have; all that follows is about them.
        agreement: The adjusted Rand index (Hubert and Arabie 1985): 1 is the same, about 0 is chance; None where no
            user is common.
        shared: (first.k, second.k) users by their cluster in each.

    All of these are exact; what is shown of them is published (`counted`, `as_json`).
    """

    first: Side
    second: Side
    common: int
    agreement: float | None
    shared: np.ndarray

    @property
    def min_people(self) -> int:
        """Of fewer people nothing is shown."""
        return max(self.first.min_people, self.second.min_people)

    def counted(self, people: int) -> int | None:
        """So many people as they are shown: rounded, None for few."""
        return published.count(int(people), self.min_people)

    @property
    def shown_agreement(self) -> float | None:
        """The agreement as it is shown; None as well where the common users are few."""
        known = self.agreement is not None and self.counted(self.common) is not None
        return round(self.agreement or 0.0, 3) if known else None

    def as_json(self) -> dict[str, Any]:
        """The comparison for a program; numbers of people are rounded, and null for few."""
        return {
            "agreement": self.shown_agreement,
            "common": self.counted(self.common),
            "first": self._facts(self.first),
            "second": self._facts(self.second),
            "shared": [[self.counted(cell) for cell in row] for row in self.shared.tolist()],
        }

    def _facts(self, side: Side) -> dict[str, Any]:
        return {
            "folder": side.folder,
            "users": self.counted(side.users),
            "only_here": self.counted(side.only_here),
            "clusters": [
                {"users": self.counted(size), "name": name} for size, name in zip(side.sizes, side.names, strict=True)
            ],
        }


def compare(first: str, second: str) -> Comparison:
    """Compare two outputs of kmeans.

    Args:
        first: The folder of one.
        second: The folder of the other.

    Raises:
        InputError: One is not an output of kmeans, or can't be read.
    """
    tables = [_assignments(folder, f"cluster_{number}") for number, folder in enumerate((first, second))]
    both = tables[0].join(tables[1], "user_id", join_type="inner")
    columns = [both[f"cluster_{number}"].to_numpy() for number in range(2)]
    sides = [
        _side(folder, table.num_rows, table.num_rows - both.num_rows)
        for folder, table in zip((first, second), tables, strict=True)
    ]
    shared = np.zeros((sides[0].k, sides[1].k), np.int64)
    np.add.at(shared, tuple(columns), 1)
    return Comparison(sides[0], sides[1], both.num_rows, _agreement(*columns), shared)


def _assignments(folder: str, name: str) -> pa.Table:
    outputs.read_manifest(folder, "kmeans")
    table = read_table(folder, "assignments.parquet", ["user_id", "cluster_id"])
    return table.rename_columns(["user_id", name])


def _agreement(first: np.ndarray, second: np.ndarray) -> float | None:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(first, second)) if len(first) else None


def _side(folder: str, users: int, only_here: int) -> Side:
    manifest = outputs.read_manifest(folder, "kmeans")
    summary = manifest["summary"]
    sizes = tuple(int(cluster["users"]) for cluster in summary["clusters"])
    if "segments" in summary:
        names = tuple(str(segment["name"]) for segment in summary["segments"])
    else:
        tops = [cluster["top_pages"] for cluster in summary["clusters"]]
        names = tuple(str(pages[0]["name"]) if pages else "" for pages in tops)
    min_people = int(manifest["config"].get("min_people", published.MIN_PEOPLE))  # before code version 5, it had none
    return Side(folder, users, sizes, names, only_here, min_people)
