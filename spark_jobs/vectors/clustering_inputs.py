"""Reading clustering inputs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from spark_jobs import outputs
from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError
from spark_jobs.outputs.schemas import strictness
from spark_jobs.outputs.tables import read_batches, read_table
from spark_jobs.resources import Resources
from spark_jobs.vectors.profiles import DIMENSIONS, PROFILE, PROFILES, from_table

_STEP = "clustering_inputs"
_PEOPLE_A_CLUSTER = 10  # to learn it from


@dataclass(frozen=True)
class InputsMetadata:
    """A category's clustering inputs without their profiles and members, which may be large."""

    folder: str
    fingerprint: str
    config: dict[str, Any]  # of make_clustering_inputs
    category: dict[str, Any]  # id, name, private
    dimensions: pa.Table
    users: int
    profiles: int  # how many there are
    entries: int  # of all profiles
    bytes: int  # of its files
    fit_min_actions: int | None = None  # of the users whom `fit_weight` counts; None in outputs of code version 1
    fit_users: int = 0  # how many such users there are
    # Of all pages in the month, with any action; None where that is not known, or not the people that dimensions count.
    month_users: int | None = None
    counts_each_action: bool = False  # members have how often they did each; not in outputs before code version 3

    @property
    def counted(self) -> tuple[str, ...]:
        """The columns of members with numbers of actions: older code versions have fewer."""
        return (
            *(("actions",) if self.fit_min_actions is not None else ()),
            *(ACTIONS if self.counts_each_action else ()),
        )


@dataclass(frozen=True)
class Inputs:
    """A category's clustering inputs without members, which are read batch by batch."""

    metadata: InputsMetadata
    profiles: sp.csr_matrix  # (n, d)
    weight: np.ndarray  # (n,) users of each profile
    fit_weight: np.ndarray  # (n,) those of them with at least `metadata.fit_min_actions` actions


def read_metadata(folder: str, strict: bool) -> InputsMetadata:
    """Read the metadata of an output of make_clustering_inputs.

    Raises:
        InputError: The folder holds no such output.
        SchemaViolation: `strict`, and a row breaks a rule.
    """
    manifest = outputs.read_manifest(folder, _STEP)
    summary = manifest["summary"]
    return InputsMetadata(
        folder,
        manifest["fingerprint"],
        manifest["config"],
        summary["category"],
        strictness(strict)(DIMENSIONS, read_table(folder, "dimensions.parquet")),
        summary["users"],
        summary["profiles"],
        summary["entries"],
        summary["bytes_out"],
        summary.get("fit_min_actions"),
        summary.get("fit_users", 0),
        summary.get("month_users") if manifest["config"].get("min_actions") == 1 else None,
        "actions" in summary,
    )


def read(metadata: InputsMetadata, strict: bool) -> Inputs:
    """Read the profiles as well; a fit needs all of them.

    Raises:
        InputError: They can't be read.
        SchemaViolation: A row breaks a rule.
    """
    table = read_table(metadata.folder, "profiles.parquet")
    return Inputs(metadata, *_profiles(metadata, table, strict))


def _profiles(metadata: InputsMetadata, table: pa.Table, strict: bool) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Profiles (n, d), their users (n,), and those of them who are learned from (n,)."""
    if metadata.fit_min_actions is None:
        table = table.append_column(PROFILE.field("fit_weight"), table["weight"])
    return from_table(strictness(strict)(PROFILES, table), metadata.dimensions.num_rows)


def fit_weight(inputs: Inputs, at_least: int) -> np.ndarray:
    """How many users of each profile have at least so many actions on the category's pages; (n,) int64.

    Inputs of code version 1 don't say; then it is all users.
    """
    if inputs.metadata.fit_min_actions in (at_least, None):
        return inputs.fit_weight
    return _count_members(inputs.metadata, at_least)


def _count_members(metadata: InputsMetadata, at_least: int) -> np.ndarray:
    counted = np.zeros(metadata.profiles, np.int64)
    for members in read_batches(metadata.folder, "members.parquet", ["profile_id", "actions"]):
        enough = members.column("actions").to_numpy() >= at_least
        counted += np.bincount(members.column("profile_id").to_numpy()[enough], minlength=len(counted))
    return counted


@dataclass(frozen=True)
class Sample:
    """Some people of a category as weighted profiles: all of them, if they are few enough. n profiles, d dimensions."""

    profiles: sp.csr_matrix  # (n, d)
    fit_weight: np.ndarray  # (n,) people to learn from
    weight: np.ndarray  # (n,) people of all kinds, by a draw of their own: it may be less than fit_weight
    fit_people: int  # how many there are to learn from in all
    whole: bool  # everybody is in it


def sample(metadata: InputsMetadata, at_least: int, learn: int, place: int, seed: int, strict: bool) -> Sample:
    """Draw people, each with the same chance, in memory that does not grow with how many there are.

    Args:
        metadata: The inputs.
        at_least: Actions of those to learn from; 0 for everybody.
        learn: How many of those are drawn at most.
        place: How many of all people are drawn at most.
        seed: Of the random numbers.
        strict: Whether every profile is checked.
    """
    everybody = at_least == 0 or metadata.fit_min_actions is None
    counted = None if everybody or metadata.fit_min_actions == at_least else _count_members(metadata, at_least)
    fit_people = metadata.users if everybody else metadata.fit_users if counted is None else int(counted.sum())

    def batches() -> Iterator[tuple[sp.csr_matrix, np.ndarray, np.ndarray]]:
        rows = 0
        for batch in read_batches(metadata.folder, "profiles.parquet"):
            profiles, weight, fit_weight = _profiles(metadata, pa.Table.from_batches([batch]), strict)
            if everybody:
                fit_weight = weight
            elif counted is not None:
                fit_weight = counted[rows : rows + len(weight)]
            rows += len(weight)
            yield profiles, weight, fit_weight

    return draw(batches(), metadata.dimensions.num_rows, metadata.users, fit_people, learn, place, seed)


def draw(
    batches: Iterable[tuple[sp.csr_matrix, np.ndarray, np.ndarray]],
    dimensions: int,
    people: int,
    fit_people: int,
    learn: int,
    place: int,
    seed: int,
) -> Sample:
    """Draw people from profiles that come in batches: (n, d), their users (n,), and those to learn from (n,).

    Args:
        batches: All profiles.
        dimensions: d.
        people: How many users there are in all.
        fit_people: How many of those to learn from.
        learn: How many to learn from are drawn at most.
        place: How many of all people are drawn at most.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    learned, placed = _places(fit_people, learn, random), _places(people, place, random)
    parts, fit_before, before = [(sp.csr_matrix((0, dimensions)), np.zeros((0, 2), np.int64))], 0, 0
    for profiles, weight, fit_weight in batches:
        drawn = np.column_stack([_drawn_of(learned, fit_weight, fit_before), _drawn_of(placed, weight, before)])
        kept = np.flatnonzero(drawn.any(axis=1))
        parts.append((profiles[kept], drawn[kept]))
        fit_before, before = fit_before + int(fit_weight.sum()), before + int(weight.sum())
    drawn = np.concatenate([drawn for _, drawn in parts])
    profiles = sp.vstack([profiles for profiles, _ in parts], format="csr")
    return Sample(profiles, drawn[:, 0], drawn[:, 1], fit_people, learned is None and placed is None)


def enough_to_learn(people: int, profiles: int, k: int) -> bool:
    """Whether k clusters can be learned from so many people with so many distinct profiles."""
    return people >= _PEOPLE_A_CLUSTER * k and profiles >= k


def _places(people: int, size: int, random: np.random.Generator) -> np.ndarray | None:
    """The places of so many of the people, in order; None for all of them."""
    return None if people <= size else np.sort(random.choice(people, size, replace=False, shuffle=False))


def _drawn_of(places: np.ndarray | None, weight: np.ndarray, before: int) -> np.ndarray:
    """(n,) how many of each profile's people are drawn, of whom `before` come before the first profile."""
    if places is None:
        return weight
    ends = before + np.concatenate([[0], np.cumsum(weight)])
    return np.diff(np.searchsorted(places, ends))


def check_memory(metadata: InputsMetadata, k: int, resources: Resources) -> None:
    """Check that a fit of k clusters has room for the profiles of some inputs.

    Raises:
        InputError: There is too little; the message says how much it needs.
    """
    of_profile = _PROFILE_BYTES + k * _CENTER_BYTES + resources.cores * _INIT_BYTES
    needed = _BASE_BYTES + metadata.entries * _ENTRY_BYTES + metadata.profiles * of_profile
    if needed > resources.memory:
        raise InputError(
            f"k-means of {metadata.profiles:,} distinct profiles with {metadata.entries:,} entries would need about"
            f" {needed / 1e9:,.1f} GB of memory, and {resources.memory / 1e9:,.1f} GB may be used. Give it more"
            " (--memory, or memory in the config's resources), or let Spark do it: kmeans' library: mllib with the"
            " engine spark and its spark_master (on the command line, --library mllib --engine spark --spark-master"
            " spark://…)."
        )


# Bytes of memory that a fit needs at most, measured (benchmarks/profiles): of the process, an entry, a profile, a
# profile's distance to a center, and a profile in each init that runs at a time.
_BASE_BYTES, _ENTRY_BYTES, _PROFILE_BYTES, _CENTER_BYTES, _INIT_BYTES = 350 << 20, 60, 100, 16, 100
