"""Followed segments as people edited them, which is what is published.

The following itself knows nothing of edits, but for which names and colors are taken. It goes on with two segments that
are merged by hand as with any others, by what the people of each like, and only what is published of it has one. So a
merge lasts, whatever clusters the next month has, an edit never changes the id of another segment, and without the edit
all is as it was before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse.csgraph import connected_components

from spark_jobs.errors import InputError
from spark_jobs.following.edits import Edit, Merge, Rename, concerning
from spark_jobs.following.follow import Returned
from spark_jobs.following.state import Event, Segment, State


@dataclass(frozen=True)
class Edited:
    """The segments after a month, as they are published.

    Attributes:
        state: The segments, of which merged ones are one, with the names that people gave them.
        group: (groups that were followed,) the group of `state` that each is in.
        into: Of each followed segment the id of the one that it is published as.
        how: Of edited segments what was done: `renamed`, `merged`.
    """

    state: State
    group: np.ndarray
    into: Mapping[int, int]
    how: Mapping[int, Sequence[str]]

    def sizes(self, followed: np.ndarray) -> np.ndarray:
        """(groups of `state`,) people in each, of those in each group that was followed."""
        return self._summed(followed)

    def returned(self, followed: Returned) -> Returned:
        """Who of this month is in the next one, by the groups of `state`."""
        return replace(followed, people=self._summed(followed.people), before=self._summed(followed.before))

    def _summed(self, counts: np.ndarray) -> np.ndarray:
        summed = np.zeros((len(self.state.groups), *counts.shape[1:]), counts.dtype)
        np.add.at(summed, self.group, counts)
        return summed


def reserved(edits: Sequence[Edit], month: str) -> tuple[frozenset[str], frozenset[int]]:
    """The names that no new segment may get in a month, and the segments that keep theirs when they have ended.

    A merged segment lives while one of its parts does, so its name and color are not given to another one.
    """
    held = concerning(edits, month)
    names = frozenset(edit.name for edit in held if isinstance(edit, Rename))
    return names, frozenset(number for edit in held if isinstance(edit, Merge) for number in edit.segments)


def edit_segments(state: State, edits: Sequence[Edit], before: Edited | None) -> Edited:
    """Apply to a month's segments the edits that hold for it.

    What names a segment that there is not (yet) has no effect on it. A merge begins when its first segment is there.

    Args:
        state: The segments as they were followed.
        edits: All edits of the category, the oldest first.
        before: The segments of the month before, or of the last one there is; None for the first month.

    Raises:
        InputError: Two living segments have the same name by an edit.
    """
    held = concerning(edits, state.month)
    into, since = _merged(state, held)
    names = {edit.segment: edit.name for edit in held if isinstance(edit, Rename)}
    segments = tuple(_published(segment, state, into, since, names) for segment in state.segments)
    _check_names(segments, state.month)
    groups, group = _join([tuple(dict.fromkeys(into[number] for number in ids)) for ids in state.groups])
    published = replace(
        state,
        segments=segments,
        groups=groups,
        group_of_cluster=tuple(int(group[each]) for each in state.group_of_cluster),
        told_apart={new: into.get(old, old) for new, old in state.told_apart.items() if into[new] == new},
    )
    how: dict[int, list[str]] = {number: ["renamed"] for number in names if number in into}
    for number in sorted({number for pair in into.items() if pair[0] != pair[1] for number in pair}):
        how.setdefault(number, []).append("merged")
    events = _events(state, into, published, before)
    return Edited(replace(published, events=events), group, into, how)


def _merged(state: State, held: Sequence[Rename | Merge]) -> tuple[dict[int, int], dict[int, str]]:
    """The id that each segment is published as, and of those that are merged into others the month since when."""
    born = {segment.id: segment.born for segment in state.segments}
    into, since = {number: number for number in born}, {}
    for edit in held:
        if not isinstance(edit, Merge) or edit.segments[0] not in born:
            continue
        first = into[edit.segments[0]]
        for number in edit.segments[1:]:
            if number in born and (other := into[number]) != first:
                since[other] = max(edit.from_month or "", born[first], born[other])
                into = {each: first if to == other else to for each, to in into.items()}
    return into, since


def _published(
    segment: Segment, state: State, into: Mapping[int, int], since: Mapping[int, str], names: Mapping[int, str]
) -> Segment:
    parts = [part for part in state.segments if into[part.id] == segment.id] or [segment]
    ends = [part.ended for part in parts]
    ended = None if None in ends else max(end for end in ends if end is not None)
    if into[segment.id] != segment.id:
        ended = min(ended or since[segment.id], since[segment.id])
    return replace(
        segment,
        name=names.get(segment.id, segment.name),
        seen=max(part.seen for part in parts),
        ended=ended,
    )


def _check_names(segments: Sequence[Segment], month: str) -> None:
    having: dict[str, int] = {}
    for segment in segments:
        if segment.ended is None:
            other = having.setdefault(segment.name, segment.id)
            if other != segment.id:
                raise InputError(
                    f"By an edit, segments {other} and {segment.id} would both be called {segment.name!r} in {month}."
                    " Give one of them another name, or undo the edit: `audience-explorer segments rename`, or `undo`."
                )


def _join(groups: Sequence[tuple[int, ...]]) -> tuple[tuple[tuple[int, ...], ...], np.ndarray]:
    """Groups of which those with a segment in common are one, and the place of each in them, (groups,)."""
    if not groups:
        return (), np.zeros(0, int)
    common = [[bool({*one} & {*other}) for other in groups] for one in groups]
    count, place = connected_components(np.array(common))
    joined = (
        dict.fromkeys(n for ids, of in zip(groups, place, strict=True) if of == each for n in ids)
        for each in range(count)
    )
    return tuple(map(tuple, joined)), place


def _events(state: State, into: Mapping[int, int], published: State, before: Edited | None) -> tuple[Event, ...]:
    """What happened to published segments: what was followed, of them, and which were merged by hand this month."""
    living = {segment.id for segment in published.living}
    lived = set() if before is None else {segment.id for segment in before.state.living}
    parts = [into[segment.id] for segment in state.living]
    events: dict[Event, None] = {}
    for event in state.events:
        was, is_ = (tuple(dict.fromkeys(into[n] for n in ids)) for ids in (event.before, event.after))
        ends, begins = set(was) - set(is_), set(is_) - set(was)
        if event.kind == "change":
            is_said = parts.count(was[0]) == 1
        else:  # it did not happen where another part of the segment goes on, or was there before
            is_said = bool(ends or begins) and not ends & living and not begins & lived
        if is_said:
            events[replace(event, before=was, after=is_)] = None
    is_there = {segment.id for segment in state.living} | lived
    for number, first in into.items():
        was_merged = before is not None and before.into.get(number, number) != number
        if number != first and number in is_there and not was_merged:
            events[Event("merge", state.month, (number, first), (first,), by_hand=True)] = None
    return tuple(events)
