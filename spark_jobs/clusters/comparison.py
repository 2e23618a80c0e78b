"""Two clusterings of users beside each other: how far they agree, and which cluster of one is which of the other."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from spark_jobs import outputs
from spark_jobs.outputs.tables import read_table


@dataclass(frozen=True)
class Side:
    """One of the two outputs of kmeans."""

    folder: str
    users: int
    sizes: tuple[int, ...]  # users of each cluster
    names: tuple[str, ...]  # of each cluster; before code version 5, the page that most of its users are on
    only_here: int  # users whom the other one does not have

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
    """

    first: Side
    second: Side
    common: int
    agreement: float | None
    shared: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """The comparison for a program."""
        return {
            "agreement": self.agreement,
            "common": self.common,
            "first": _facts(self.first),
            "second": _facts(self.second),
            "shared": self.shared.tolist(),
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
    summary = outputs.read_manifest(folder, "kmeans")["summary"]
    sizes = tuple(int(cluster["users"]) for cluster in summary["clusters"])
    if "segments" in summary:
        names = tuple(str(segment["name"]) for segment in summary["segments"])
    else:
        tops = [cluster["top_pages"] for cluster in summary["clusters"]]
        names = tuple(str(pages[0]["name"]) if pages else "" for pages in tops)
    return Side(folder, users, sizes, names, only_here)


def _facts(side: Side) -> dict[str, Any]:
    return {
        "folder": side.folder,
        "users": side.users,
        "only_here": side.only_here,
        "clusters": [{"users": size, "name": name} for size, name in zip(side.sizes, side.names, strict=True)],
    }
