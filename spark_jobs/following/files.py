"""The files of followed segments: for people `segments.json` and `flows.parquet`, for the next month all others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from spark_jobs import storage
from spark_jobs.clusters import published
from spark_jobs.following.follow import Returned
from spark_jobs.following.in_both import in_both, rising
from spark_jobs.following.state import Event, Seen, Segment, State
from spark_jobs.following.tastes import People
from spark_jobs.outputs import Output, broken, read_json
from spark_jobs.outputs.schemas import AT_LEAST_0, AT_LEAST_1, TableRules
from spark_jobs.outputs.tables import read_batches, read_table

MONTHS_TOLD = 36  # of the history, this one among them

_IDS = pa.list_(pa.int32())

FLOW = pa.schema([("from_segments", _IDS), ("to_segments", _IDS), ("people", pa.int64())])
FLOWS = TableRules(
    "flows.parquet",
    FLOW,
    ranges={"from_segments": AT_LEAST_1, "to_segments": AT_LEAST_1, "people": AT_LEAST_0},
    optional=("from_segments", "to_segments", "people"),  # came, left, fewer than may be said
)
MEMBER = pa.schema([("user_id", pa.string()), ("group", pa.int32())])
MEMBERS = TableRules("members.parquet", MEMBER, non_empty=("user_id",), ranges={"group": AT_LEAST_0}, key="user_id")
_PERSON = pa.schema([("month", pa.string()), ("group", pa.int32()), ("pages", pa.list_(pa.string()))])


# --- for the next month


def write_state(output: Output, state: State) -> None:
    """Write `state.json` and `people.parquet`, from which `read_state` makes the same state."""
    kept = asdict(replace(state, seen=()))
    kept["seen"] = [{"month": seen.month, "groups": seen.groups, "pages": seen.people.pages} for seen in state.seen]
    output.write_json("state.json", kept)
    tables = [_people_table(seen) for seen in state.seen]
    output.write_table("people.parquet", pa.concat_tables([pa.Table.from_pylist([], _PERSON), *tables]))


def _people_table(seen: Seen) -> pa.Table:
    visits = seen.people.visits
    pages = pa.array(seen.people.pages, pa.string()).take(pa.array(visits.indices))
    of_person = pa.ListArray.from_arrays(pa.array(visits.indptr, pa.int32()), pages)
    columns = [
        pa.array([seen.month] * visits.shape[0], pa.string()),
        pa.array(seen.people.group, pa.int32()),
        of_person,
    ]
    return pa.Table.from_arrays(columns, schema=_PERSON)


def read_state(folder: str) -> State:
    """The state that an output holds.

    Raises:
        InputError: It can't be read.
    """
    kept = read_json(folder, "state.json")
    people = read_table(folder, "people.parquet")
    return State(
        kept["month"],
        tuple(Segment(**segment) for segment in kept["segments"]),
        _tuples(kept["groups"]),
        tuple(kept["group_of_cluster"]),
        tuple(
            Event(event["kind"], event["month"], tuple(event["before"]), tuple(event["after"]))
            for event in kept["events"]
        ),
        {int(new): old for new, old in kept["told_apart"].items()},
        tuple(_seen(seen, people) for seen in kept["seen"]),
    )


def _seen(kept: dict[str, Any], people: pa.Table) -> Seen:
    rows = people.filter(pa.compute.equal(people["month"], kept["month"])).combine_chunks()
    place = {page: number for number, page in enumerate(kept["pages"])}
    lists = rows["pages"].to_pylist()
    indices = np.array([place[page] for pages in lists for page in pages], np.int32)
    indptr = np.concatenate([[0], np.cumsum([len(pages) for pages in lists], dtype=np.int64)])
    visits = sp.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(lists), len(place)))
    group = rows["group"].to_numpy().astype(np.int64)
    return Seen(kept["month"], People(visits, group, tuple(kept["pages"])), _tuples(kept["groups"]))


def _tuples(lists: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(each) for each in lists)


def write_members(output: Output, clusters: str, state: State) -> np.ndarray:
    """Write `members.parquet`, the group of every user; returns how many are in each group, (groups,).

    Args:
        output: Where to.
        clusters: The folder of the month's clusters.
        state: The state after the month.
    """
    group_of_cluster = np.array(state.group_of_cluster, np.int32)
    sizes = np.zeros(len(state.groups), np.int64)
    with output.open_file("members.parquet") as file, pq.ParquetWriter(file, MEMBER, compression="zstd") as writer:
        for batch in _assignments(clusters):
            group = group_of_cluster[batch.column("cluster_id").to_numpy()]
            sizes += np.bincount(group, minlength=len(sizes))
            writer.write_batch(pa.RecordBatch.from_arrays([batch.column("user_id"), pa.array(group)], schema=MEMBER))
    return sizes


def _assignments(clusters: str) -> Iterator[pa.RecordBatch]:
    return read_batches(clusters, "assignments.parquet", ["user_id", "cluster_id"])


def read_returned(previous: str, groups: int, clusters: str, k: int) -> Returned:
    """Who of an earlier month is here again.

    Args:
        previous: The folder of that month's followed segments.
        groups: How many groups it has.
        clusters: The folder of this month's clusters.
        k: How many there are.
    """
    people = np.zeros((groups, k), np.int64)
    before = _by_user(previous, "members.parquet", ["user_id", "group"])
    now = _by_user(clusters, "assignments.parquet", ["user_id", "cluster_id"])
    for were, are in in_both(before, now):
        np.add.at(people, (were.column("group").to_numpy(), are.column("cluster_id").to_numpy()), 1)
    return Returned(
        people,
        _counts(previous, "members.parquet", "group", groups),
        _counts(clusters, "assignments.parquet", "cluster_id", k),
    )


def _by_user(folder: str, name: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The batches of a table whose rows are in the order of their users.

    Raises:
        InputError: They are not, or can't be read.
    """
    try:
        yield from rising(read_batches(folder, name, columns))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise broken(folder, storage.join(folder, name), error) from error


def _counts(folder: str, name: str, column: str, values: int) -> np.ndarray:
    """(values,) how many rows have each of the numbers from 0 in a column."""
    counts = np.zeros(values, np.int64)
    for batch in read_batches(folder, name, [column]):
        counts += np.bincount(batch.column(column).to_numpy(), minlength=values)
    return counts


# --- for people


def read_history(previous: str) -> list[dict[str, Any]]:
    """The months up to an earlier one, as its `segments.json` has them; none where an earlier version made it.

    Raises:
        InputError: It can't be read.
    """
    history: list[dict[str, Any]] = read_json(previous, "segments.json").get("history", [])
    return history


def describe(
    state: State,
    sizes: np.ndarray,
    since: str | None,
    min_people: int,
    history: Sequence[dict[str, Any]] = (),
    edited: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> dict[str, Any]:
    """What segments.json holds: nothing in it says something of fewer than `min_people`.

    Args:
        state: The state after the month.
        sizes: (groups,) people in each.
        since: The month that events and flows are since; None for the first.
        min_people: See `published`.
        history: The months before, as they were published: they are not computed again.
        edited: What people did to segments, by id.
    """
    of_segment = {number: group for group, ids in enumerate(state.groups) for number in ids}
    everybody = int(sizes.sum())
    rows = []
    for segment in state.segments:
        group = of_segment.get(segment.id)
        people = 0 if group is None else int(sizes[group])
        rows.append(
            {
                "segment_id": segment.id,
                "name": segment.name,
                "color": segment.color,
                "born": segment.born,
                "last_seen": segment.seen,
                "ended": segment.ended,
                "cluster_ids": [c for c, of in enumerate(state.group_of_cluster) if of == group],
                "shares_them_with": []
                if group is None
                else [other for other in state.groups[group] if other != segment.id],
                "people": published.count(people, min_people),
                "share": published.share(people, everybody, min_people),
                "new_by_sight": segment.id in state.told_apart,
                "edited": list(edited.get(segment.id, ())),
            }
        )
    names = {segment.id: segment.name for segment in state.segments}
    events = [{**asdict(event), "what": in_words(event, names)} for event in state.events]
    month = {
        "month": state.month,
        "users": published.count(everybody, min_people),
        "segments": [{column: row[column] for column in _IN_HISTORY} for row in rows if row["ended"] is None],
        "events": events,
    }
    return {
        "month": state.month,
        "since": since,
        "segments": rows,
        "events": events,
        "history": [*history[-(MONTHS_TOLD - 1) :], month],
    }


_IN_HISTORY = ("segment_id", "people", "share", "shares_them_with")


def in_words(event: Event, names: dict[int, str]) -> str:
    """What happened, in a sentence."""
    before, after = ([f"“{names[number]}”" for number in ids] for ids in (event.before, event.after))
    if event.by_hand:
        return f"{before[0]} was merged into {after[0]} by hand."
    if event.kind == "birth":
        return f"{after[0]} is new: hardly anybody was like that before."
    if event.kind == "return":
        return f"{after[0]} is back."
    if event.kind == "death":
        return f"{before[0]} is gone: hardly anybody is like that any more."
    if event.kind == "change":
        return f"The people of {before[0]} stayed, and like other things."
    if event.kind == "split":
        return f"{before[0]} is two groups now: {' and '.join(after)}."
    return f"{before[0]} is one group with {after[0]} now."


def flows(
    before: State | None, returned: Returned | None, state: State, sizes: np.ndarray, min_people: int
) -> pa.Table:
    """Rows of FLOW: people by the segments they were in and are in; null for those who came or left.

    Args:
        before: The state that they are since.
        returned: Who of then is here again.
        state: The state now.
        sizes: (groups,) people in each group now.
        min_people: See `published`.
    """
    rows: list[dict[str, Any]] = []
    if before is not None and returned is not None:
        moved = np.zeros((len(before.groups), len(state.groups)), np.int64)
        np.add.at(moved.T, list(state.group_of_cluster), returned.people.T)
        ways: list[tuple[Sequence[int] | None, Sequence[int] | None, int]]
        ways = [(f, t, moved[i, j]) for i, f in enumerate(before.groups) for j, t in enumerate(state.groups)]
        ways += [(f, None, returned.before[i] - moved[i].sum()) for i, f in enumerate(before.groups)]
        ways += [(None, t, sizes[j] - moved[:, j].sum()) for j, t in enumerate(state.groups)]
        rows = [
            {"from_segments": were, "to_segments": are, "people": published.count(int(people), min_people)}
            for were, are, people in ways
        ]
    return pa.Table.from_pylist(rows, FLOW)
