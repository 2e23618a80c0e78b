"""Checks of clustering inputs: no user and no entry of a vector was lost."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.outputs import checks, read_back
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.vectors.profiles import DIMENSIONS, MEMBERS, PROFILES, add_up


@dataclass(frozen=True)
class VectorCounts:
    """How many users have a vector, and how many entries these have together."""

    users: int
    entries: int


def check_clustering_inputs(folder: str, made: VectorCounts) -> dict[str, CheckResult]:
    """Read back the clustering inputs of a category, and compare them with the vectors that were made."""
    dimensions, profiles, members = Inspection(DIMENSIONS), Inspection(PROFILES), Inspection(MEMBERS)
    conservation = conservation_of_users(
        made,
        read_back.parquet(folder, "dimensions.parquet", dimensions),
        read_back.parquet(folder, "profiles.parquet", profiles),
        read_back.parquet(folder, "members.parquet", members),
    )
    return {"schema": checks.schema(dimensions, profiles, members), "conservation": conservation}


def conservation_of_users(
    made: VectorCounts,
    dimensions: Iterable[pa.RecordBatch],
    profiles: Iterable[pa.RecordBatch],
    members: Iterable[pa.RecordBatch],
) -> CheckResult:
    """Every user's vector that was made is a member's and weighs in its profile, with all its entries.

    A profile's `fit_weight` is the number of its members with at least FIT_MIN_ACTIONS actions. A member's actions are
    those of each kind together.

    Args:
        made: The vectors, counted where they were made.
        dimensions: Rows of DIMENSION.
        profiles: Rows of PROFILE.
        members: Rows of MEMBER.
    """
    users_of_dimension = _joined([batch.column("users").to_numpy() for batch in dimensions])
    profile = _add_up_profiles(profiles, len(users_of_dimension))
    member = _add_up_members(members, len(profile.weight))
    users, entries = int(profile.weight.sum()), int(profile.entries.sum())
    off_weight = int((member.of_profile != profile.weight).sum())
    above_weight = int((profile.fit_weight > profile.weight).sum())
    off_fit_weight = int((member.fit_of_profile != profile.fit_weight).sum())
    off_dimension = int((profile.entries != users_of_dimension).sum())
    wrong = [
        (
            not made.users == member.rows == users,
            f"{made.users:,} users have a vector, {member.rows:,} are members, and profiles weigh {users:,}",
        ),
        (
            made.entries != entries,
            f"the vectors have {made.entries:,} entries, the profiles of all users {entries:,}",
        ),
        (member.strangers, f"{member.strangers:,} members have a profile that is not there"),
        (off_weight, f"{off_weight:,} profiles have a weight other than the number of their members"),
        (above_weight, f"{above_weight:,} profiles have a fit_weight above their weight"),
        (
            off_fit_weight,
            f"{off_fit_weight:,} profiles have a fit_weight other than the number of their members with at least"
            f" {FIT_MIN_ACTIONS} actions",
        ),
        (
            member.off_actions,
            f"{member.off_actions:,} members have another number of actions than of all kinds together",
        ),
        (off_dimension, f"{off_dimension:,} dimensions have other users than the profiles give them"),
    ]
    found = {
        "users": made.users,
        "members": member.rows,
        "weights": users,
        "fit_weights": int(profile.fit_weight.sum()),
        "entries": made.entries,
        "entries_written": entries,
    }
    return checks.result(found, profile.wrong + [what for is_wrong, what in wrong if is_wrong])


@dataclass(frozen=True)
class _Profiles:
    """What p profiles in d dimensions add up to."""

    weight: np.ndarray  # (p,)
    fit_weight: np.ndarray  # (p,)
    entries: np.ndarray  # (d,) users with an entry in each dimension
    wrong: list[str]  # about profiles that could not be added


def _add_up_profiles(profiles: Iterable[pa.RecordBatch], dimensions: int) -> _Profiles:
    weights, fit_weights, entries = [], [], np.zeros(dimensions, np.int64)
    wrong: list[str] = []
    for batch in profiles:
        indices = batch.column("indices")
        weight = batch.column("weight").to_numpy()
        dimension = indices.flatten().to_numpy()
        lengths = pc.list_value_length(indices).to_numpy()
        if not np.array_equal(lengths, pc.list_value_length(batch.column("values")).to_numpy()):
            wrong.append("a profile has other numbers of values and indices")
        if dimension.max(initial=-1) >= dimensions:
            wrong.append(f"a profile has an entry in dimension {dimension.max()}; there are {dimensions}")
            continue
        weights.append(weight)
        fit_weights.append(batch.column("fit_weight").to_numpy())
        entries += np.bincount(dimension, np.repeat(weight, lengths), minlength=dimensions).astype(np.int64)
    return _Profiles(_joined(weights), _joined(fit_weights), entries, wrong)


@dataclass(frozen=True)
class _Members:
    """What the members of p profiles add up to."""

    rows: int
    strangers: int  # whose profile does not exist
    off_actions: int  # whose actions are not the sum of those of each kind
    of_profile: np.ndarray  # (p,)
    fit_of_profile: np.ndarray  # (p,) those with at least FIT_MIN_ACTIONS actions


def _add_up_members(members: Iterable[pa.RecordBatch], profiles: int) -> _Members:
    of_profile, fit_of_profile = np.zeros(profiles, np.int64), np.zeros(profiles, np.int64)
    rows = strangers = off_actions = 0
    for batch in members:
        profile = batch.column("profile_id").to_numpy()
        known = profile < profiles
        rows += len(profile)
        strangers += int((~known).sum())
        of_profile += np.bincount(profile[known], minlength=profiles)
        actions = batch.column("actions").to_numpy()
        off_actions += int((add_up([batch.column(action).to_numpy() for action in ACTIONS]) != actions).sum())
        known &= actions >= FIT_MIN_ACTIONS
        fit_of_profile += np.bincount(profile[known], minlength=profiles)
    return _Members(rows, strangers, off_actions, of_profile, fit_of_profile)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])
