"""What a job finds of its own output, when it reads back what it has written.

Values and record batches in, a `Check` out. One that fails is a result for people to see, and no error.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.sorting import run_starts

_MOST_TOLD = 5  # of the things that are wrong


@dataclass(frozen=True)
class Check:
    """Whether an output holds what it must, what was found of it (small JSON scalars), and what is wrong."""

    passed: bool
    found: dict[str, Any]
    why: str = ""


def _check(found: dict[str, Any], wrong: Sequence[str]) -> Check:
    told = list(wrong[:_MOST_TOLD]) + ([f"and {len(wrong) - _MOST_TOLD} more"] if len(wrong) > _MOST_TOLD else [])
    return Check(not wrong, found, "; ".join(told))


def schema(*inspections: Inspection) -> Check:
    """All tables of an output have their columns, and their rows break no rule; found are the rows of each."""
    return _check(
        {inspection.table.name: inspection.rows for inspection in inspections},
        [breach for inspection in inspections for breach in inspection.breaches],
    )


# --- grouped users ---------------------------------------------------------------------------------


def actions_of(users: Iterable[pa.RecordBatch]) -> Counter[str]:
    """How many of each action grouped users have."""
    actions: Counter[str] = Counter()
    for batch in users:
        pages = batch.column("pages").flatten()
        actions.update({action: exact_sum(pages.field(action).to_numpy()) for action in ACTIONS})
    return actions


def exact_sum(values: np.ndarray) -> int:
    """The sum of 64-bit integers, which may be more than 64 bits hold."""
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


def conservation_of_actions(accepted: Mapping[str, int], written: Mapping[str, int]) -> Check:
    """The counts of each action, summed over all grouped users, are those of the accepted raw actions."""
    wrong = [
        f"{action}: {accepted.get(action, 0):,} accepted, {written.get(action, 0):,} written"
        for action in ACTIONS
        if accepted.get(action, 0) != written.get(action, 0)
    ]
    return _check({"accepted": sum(accepted.values()), "written": sum(written.values())}, wrong)


def rejects(rows: int, rejected: int, kept: int, largest_share: float) -> Check:
    """All rejected rows are kept, and they are no more than half of the share that would fail the month.

    Args:
        rows: The raw rows.
        rejected: How many of them break a rule.
        kept: How many are in the output's rejects.
        largest_share: Of the raw rows; more rejects fail the month.
    """
    share = rejected / rows if rows else 0.0
    wrong = []
    if kept != rejected:
        wrong.append(f"{rejected:,} rows were rejected, and {kept:,} are in rejects/")
    if 2 * rejected > largest_share * rows:
        wrong.append(f"{share:.2%} of the rows were rejected; more than {largest_share:.2%} would fail the month")
    return _check({"rows": rows, "rejected": rejected, "share": share, "largest_share": largest_share}, wrong)


# --- clustering inputs -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """How many users have a vector, and how many entries these have together."""

    users: int
    entries: int


def conservation_of_users(
    made: Tally,
    dimensions: Iterable[pa.RecordBatch],
    profiles: Iterable[pa.RecordBatch],
    members: Iterable[pa.RecordBatch],
) -> Check:
    """Every user's vector that was made is a member's and weighs in its profile, with every entry of it.

    A profile's `fit_weight` is the number of its members with at least FIT_MIN_ACTIONS actions.

    Args:
        made: The vectors, counted where they were made.
        dimensions: Rows of DIMENSION.
        profiles: Rows of PROFILE.
        members: Rows of MEMBER.
    """
    users_of_dimension = _joined([batch.column("users").to_numpy() for batch in dimensions])
    weights, fit_weights, entries = [], [], np.zeros(len(users_of_dimension), np.int64)
    wrong: list[str] = []
    for batch in profiles:
        indices = batch.column("indices")
        weight = batch.column("weight").to_numpy()
        dimension = indices.flatten().to_numpy()
        lengths = pc.list_value_length(indices).to_numpy()
        if not np.array_equal(lengths, pc.list_value_length(batch.column("values")).to_numpy()):
            wrong.append("a profile has not as many values as indices")
        if dimension.max(initial=-1) >= len(entries):
            wrong.append(f"a profile has an entry in dimension {dimension.max()}; there are {len(entries)}")
            continue
        weights.append(weight)
        fit_weights.append(batch.column("fit_weight").to_numpy())
        entries += np.bincount(dimension, np.repeat(weight, lengths), minlength=len(entries)).astype(np.int64)
    weight, fit_weight = _joined(weights), _joined(fit_weights)
    users_of_profile, fit_users_of_profile = np.zeros(len(weight), np.int64), np.zeros(len(weight), np.int64)
    strangers = rows = 0
    for batch in members:
        profile = batch.column("profile_id").to_numpy()
        rows += len(profile)
        known = profile < len(weight)
        strangers += int((~known).sum())
        users_of_profile += np.bincount(profile[known], minlength=len(weight))
        known &= batch.column("actions").to_numpy() >= FIT_MIN_ACTIONS
        fit_users_of_profile += np.bincount(profile[known], minlength=len(weight))
    found = {
        "users": made.users,
        "members": rows,
        "weights": int(weight.sum()),
        "fit_weights": int(fit_weight.sum()),
        "entries": made.entries,
        "entries_written": int(entries.sum()),
    }
    if not found["users"] == found["members"] == found["weights"]:
        wrong.append(f"{made.users:,} users have a vector, {rows:,} are members, and profiles weigh {weight.sum():,}")
    if found["entries"] != found["entries_written"]:
        wrong.append(f"the vectors have {made.entries:,} entries, the profiles of all users {entries.sum():,}")
    if strangers:
        wrong.append(f"{strangers:,} members have a profile that is not there")
    if differ := int((users_of_profile != weight).sum()):
        wrong.append(f"{differ:,} profiles do not weigh what they have members")
    if differ := int((fit_weight > weight).sum()):
        wrong.append(f"{differ:,} profiles have a fit_weight above their weight")
    if differ := int((fit_users_of_profile != fit_weight).sum()):
        wrong.append(
            f"{differ:,} profiles have a fit_weight other than the number of their members with at least"
            f" {FIT_MIN_ACTIONS} actions"
        )
    if differ := int((entries != users_of_dimension).sum()):
        wrong.append(f"{differ:,} dimensions have other users than the profiles give them")
    return _check(found, wrong)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts])


# --- k selection -----------------------------------------------------------------------------------


def k_in_range(choices: Sequence[pa.RecordBatch], k_max: int) -> Check:
    """The k that was chosen is one of those tried, from 1 to at most `k_max`; without segments it is 1.

    Args:
        choices: The one row of what `k.json` holds.
        k_max: The largest k asked for.
    """
    rows = [row for batch in choices for row in batch.to_pylist()]
    if len(rows) != 1:
        return _check({"largest": k_max}, [f"k.json holds {len(rows)} choices"])
    k, verdict, tried = rows[0]["k"], rows[0]["verdict"], [row["k"] for row in rows[0]["tried"]]
    wrong = []
    if verdict not in ("segments", "none", "too_few"):
        wrong.append(f"the verdict is {verdict}; it must be segments, none or too_few")
    if verdict == "segments" and not (1 < k <= k_max and k in tried):
        wrong.append(f"k is {k}; with segments it must be one of those tried, from 2 to {k_max}")
    if verdict != "segments" and k != 1:
        wrong.append(f"k is {k}; without segments it must be 1")
    if tried != list(range(1, len(tried) + 1)) or len(tried) > k_max:
        wrong.append(f"tried were {', '.join(map(str, tried))}, and not all from 1 to at most {k_max}")
    return _check({"k": k, "largest": k_max, "tried": len(tried)}, wrong)


def has_segments(choices: Sequence[pa.RecordBatch]) -> Check:
    """There are segments, rather than none or too few people to tell.

    Args:
        choices: The one row of what `k.json` holds.
    """
    rows = [row for batch in choices for row in batch.to_pylist()]
    if len(rows) != 1:
        return _check({}, [f"k.json holds {len(rows)} choices"])
    row = rows[0]
    found = {name: row[name] for name in ("verdict", "k", "people") if name in row}
    return _check(found, [] if row["verdict"] == "segments" else [row["why"]])


# --- kmeans ----------------------------------------------------------------------------------------


class Roll:
    """A list of users in their order: how many they are, and a digest that tells it from any other."""

    def __init__(self) -> None:
        self.users = 0
        self._lengths, self._texts = hashlib.sha256(), hashlib.sha256()

    def add(self, users: pa.StringArray) -> None:
        """Go on with some users."""
        _, buffer, texts = users.buffers()
        offsets = np.frombuffer(buffer, np.int32)[users.offset : users.offset + len(users) + 1] if len(users) else [0]
        self.users += len(users)
        self._lengths.update(np.ascontiguousarray(np.diff(offsets)).data)
        self._texts.update(memoryview(texts or b"")[offsets[0] : offsets[-1]])

    @property
    def digest(self) -> bytes:
        """It depends on the users and their order, and not on the batches in which they came."""
        return self._lengths.digest() + self._texts.digest()


@dataclass
class Assigned:
    """The users of assignments: all in one roll, and those of each cluster in one of its own."""

    all: Roll
    of_cluster: dict[int, Roll]
    twice: int = 0  # users that are there more than once; their order makes them neighbours


def assigned_users(assignments: Iterable[pa.RecordBatch]) -> Assigned:
    """The users of assignments (rows of ASSIGNMENT)."""
    assigned = Assigned(Roll(), {})
    last = pa.array([], pa.string())  # user of the batch before
    for batch in assignments:
        users = batch.column("user_id")
        assigned.all.add(users)
        with_last = pa.concat_arrays([last, users])
        assigned.twice += pc.sum(pc.equal(with_last[1:], with_last[:-1])).as_py() or 0
        last = users[-1:]
        for number, members in users_of_clusters(batch):
            assigned.of_cluster.setdefault(number, Roll()).add(members)
    return assigned


def users_of_clusters(assignments: pa.RecordBatch) -> Iterator[tuple[int, pa.StringArray]]:
    """The clusters in some rows of ASSIGNMENT, by number, and the users of each in their order."""
    cluster = assignments.column("cluster_id").to_numpy()
    order = np.argsort(cluster, kind="stable")
    users, starts = assignments.column("user_id").take(pa.array(order)), run_starts(cluster[order])
    for start, end in itertools.pairwise([*starts.tolist(), len(cluster)]):
        yield int(cluster[order[start]]), users.slice(start, end - start)


def listed_users(lines: Iterable[tuple[int, pa.RecordBatch]]) -> list[tuple[int, Roll]]:
    """The users of each line of data.json, with the line's cluster; lines come with their numbers, in any parts."""
    listed: dict[int, tuple[int, Roll]] = {}
    for line, part in lines:
        _, roll = listed.setdefault(line, (part.column("cluster_id")[0].as_py(), Roll()))
        roll.add(part.column("user_ids").flatten())
    return list(listed.values())


def every_user_once(
    inputs: Roll, assigned: Assigned, listed: Sequence[tuple[int, Roll]], sizes: Mapping[str, Sequence[int]]
) -> Check:
    """Every user of the inputs is in one cluster, and everything that is written says so of the same ones.

    Args:
        inputs: The users of the inputs.
        assigned: Those of assignments.parquet.
        listed: Those of each line of data.json.
        sizes: The users of the clusters, by number, as the other files have them, by file.
    """
    clusters = [roll for _, roll in sorted(assigned.of_cluster.items())]
    found = {
        "users": inputs.users,
        "assigned": assigned.all.users,
        "listed": sum(roll.users for _, roll in listed),
        "clusters": len(clusters),
    }
    wrong = []
    if assigned.twice:
        wrong.append(f"assignments.parquet has {assigned.twice:,} users more than once")
    if assigned.all.digest != inputs.digest:
        wrong.append(f"assignments.parquet has {assigned.all.users:,} users, the inputs {_others(inputs)}")
    if list(assigned.of_cluster) and sorted(assigned.of_cluster) != list(range(len(clusters))):
        wrong.append(f"the clusters are numbered {', '.join(map(str, sorted(assigned.of_cluster)[:20]))}")
    if [number for number, _ in listed] != list(range(len(clusters))):
        wrong.append(f"data.json has {len(listed):,} clusters, assignments.parquet has {len(clusters):,}, from 0 on")
    for number, roll in listed:
        of_cluster = assigned.of_cluster.get(number, Roll())
        if roll.digest != of_cluster.digest:
            wrong.append(
                f"data.json has {roll.users:,} users in cluster {number}, assignments.parquet {_others(of_cluster)}"
            )
    for file, of_file in sizes.items():
        if list(of_file) != [roll.users for roll in clusters]:
            wrong.append(f"{file} has other sizes of clusters than assignments.parquet")
    return _check(found, wrong)


def _others(roll: Roll) -> str:
    return f"{roll.users:,}, and they are not the same in the same order"


def centers_in_range(
    centers: Iterable[pa.RecordBatch], low: np.ndarray, high: np.ndarray, told: Sequence[Sequence[float]]
) -> Check:
    """Every center lies in the range of the data, dimension by dimension, and is told as it is.

    Args:
        centers: Rows of CENTER.
        low: (d,) the smallest value of any profile.
        high: (d,) the largest.
        told: The centers in meta-data.json.
    """
    slack = 1e-9 * np.maximum(np.abs(low), np.abs(high))  # a mean of equal values may differ in the last bits
    rows = [center for batch in centers for center in batch.column("center").to_pylist()]
    wrong = []
    outside = 0
    for number, center in enumerate(rows):
        if len(center) != len(low):
            wrong.append(f"center {number} has {len(center):,} dimensions, the data {len(low):,}")
            continue
        beyond = (center < low - slack) | (center > high + slack)
        outside += int(beyond.sum())
        if beyond.any():
            first = int(beyond.argmax())
            wrong.append(
                f"center {number} is {center[first]:.6g} in dimension {first},"
                f" where the data lie from {low[first]:.6g} to {high[first]:.6g}"
            )
    if rows != [list(center) for center in told]:
        wrong.append("meta-data.json has other centers than centers.parquet")
    return _check({"centers": len(rows), "dimensions": len(low), "outside": outside}, wrong)
