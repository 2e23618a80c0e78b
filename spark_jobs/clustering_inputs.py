"""Reading clustering inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs import outputs
from spark_jobs.errors import InputError
from spark_jobs.profiles import DIMENSIONS, PROFILE, PROFILES, from_table
from spark_jobs.resources import Resources
from spark_jobs.schemas import strictness

_STEP = "clustering_inputs"


@dataclass(frozen=True)
class Head:
    """What is small of a category's clustering inputs: all but its profiles and members."""

    folder: str
    fingerprint: str
    config: dict[str, Any]  # of make_clustering_inputs
    category: dict[str, Any]  # id, name, private
    dimensions: pa.Table
    users: int
    profiles: int  # how many there are
    entries: int  # of all profiles
    bytes: int  # of its files
    fit_min_actions: int | None = None  # of whom `fit_weight` counts; None: made by code version 1, which had none


@dataclass(frozen=True)
class Inputs:
    """A category's clustering inputs without its members, who are read as they are needed."""

    head: Head
    profiles: sp.csr_matrix  # (n, d)
    weight: np.ndarray  # (n,) users of each profile
    fit_weight: np.ndarray  # (n,) those of them with at least `head.fit_min_actions` actions


def read_head(folder: str, strict: bool) -> Head:
    """Read what is small of an output of make_clustering_inputs, and look at every row if it is to be strict.

    Raises:
        InputError: The folder holds none.
        SchemaBreach: A row breaks a rule.
    """
    manifest = outputs.read_manifest(folder, _STEP)
    summary = manifest["summary"]
    return Head(
        folder,
        manifest["fingerprint"],
        manifest["config"],
        summary["category"],
        strictness(strict)(DIMENSIONS, outputs.read_table(folder, "dimensions.parquet")),
        summary["users"],
        summary["profiles"],
        summary["entries"],
        summary["bytes_out"],
        summary.get("fit_min_actions"),
    )


def read(head: Head, strict: bool) -> Inputs:
    """Read the profiles as well, of which a fit needs all.

    Raises:
        InputError: They can't be read.
        SchemaBreach: A row breaks a rule.
    """
    table = outputs.read_table(head.folder, "profiles.parquet")
    if head.fit_min_actions is None:
        table = table.append_column(PROFILE.field("fit_weight"), table["weight"])
    return Inputs(head, *from_table(strictness(strict)(PROFILES, table), head.dimensions.num_rows))


def fit_weight(inputs: Inputs, at_least: int) -> np.ndarray:
    """How many users of each profile have at least so many actions on the category's pages; (n,) int64.

    Inputs of code version 1 don't say who did how much. There it is all users.
    """
    if inputs.head.fit_min_actions in (at_least, None):
        return inputs.fit_weight
    counted = np.zeros(len(inputs.weight), np.int64)
    for members in outputs.read_batches(inputs.head.folder, "members.parquet", ["profile_id", "actions"]):
        enough = members.column("actions").to_numpy() >= at_least
        counted += np.bincount(members.column("profile_id").to_numpy()[enough], minlength=len(counted))
    return counted


def check_memory(head: Head, k: int, resources: Resources) -> None:
    """Check that a fit of k clusters has room for the profiles of some inputs.

    Raises:
        InputError: It has not; the message says what it would need.
    """
    of_profile = _PROFILE_BYTES + k * _CENTER_BYTES + resources.cores * _INIT_BYTES
    needed = _BASE_BYTES + head.entries * _ENTRY_BYTES + head.profiles * of_profile
    if needed > resources.memory:
        raise InputError(
            f"k-means of {head.profiles:,} distinct profiles with {head.entries:,} entries would need about"
            f" {needed / 1e9:,.1f} GB of memory, and {resources.memory / 1e9:,.1f} GB may be used. Give it more"
            " (--memory, or memory in the config's resources), or let a Spark cluster do it: engine: cluster with its"
            " spark_master, and k given (on the command line, --engine cluster --spark-master spark://… --k …)."
        )


# Bytes of memory that a fit needs at most, measured (benchmarks/profiles): of the process, an entry, a profile, a
# profile's distance to a center, and a profile in each init that runs at a time.
_BASE_BYTES, _ENTRY_BYTES, _PROFILE_BYTES, _CENTER_BYTES, _INIT_BYTES = 350 << 20, 60, 100, 16, 100
