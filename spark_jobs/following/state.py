"""What is known of a category's segments at the end of a month, and what happened in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from spark_jobs.following.tastes import People

Kind = Literal["birth", "death", "split", "merge", "return", "change"]


@dataclass(frozen=True)
class Segment:
    """A segment, living or ended.

    Attributes:
        id: Its number, which no other segment of the category ever has.
        name: In words, unique among the living.
        color: A number, from 0: unique among the living.
        born: The month in which it was first seen.
        seen: The last month in which it had a cluster of its own.
        ended: The month in which it was gone; None while it lives.
        share: Of the people, when last seen.
        likes: By page, how many people who are learned from visited it; earlier months count half as much each.
        everybody: The same of all people at these times.
    """

    id: int
    name: str
    color: int
    born: str
    seen: str
    ended: str | None
    share: float
    likes: Mapping[str, float]
    everybody: Mapping[str, float]


@dataclass(frozen=True)
class Event:
    """Something that happened to segments, by their ids.

    Attributes:
        kind: What. In a `change` a segment's people stayed, and like other things; in a `return` it was gone before.
        month: The first month that shows it.
        before: The segments that it happened to.
        after: Those that there are since.
        by_hand: Whether a person did that.
    """

    kind: Kind
    month: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    by_hand: bool = False


@dataclass(frozen=True)
class Seen:
    """What people of a month did, to look back at. A group is a cluster, or several that are one segment."""

    month: str
    people: People
    groups: tuple[tuple[int, ...], ...]  # of each group the ids of its segments, several where they can't be told apart


@dataclass(frozen=True)
class State:
    """The segments after a month.

    Attributes:
        month: The month.
        segments: All there ever were, by id.
        groups: Of each group of people the segments in it; see `Seen`.
        group_of_cluster: Of each cluster its group.
        events: What happened in this month.
        told_apart: Segments that are new only because they could not be told apart before: with the one they were in.
        seen: The last months, the newest first, this one among them.
    """

    month: str
    segments: tuple[Segment, ...]
    groups: tuple[tuple[int, ...], ...]
    group_of_cluster: tuple[int, ...]
    events: tuple[Event, ...]
    told_apart: Mapping[int, int] = field(default_factory=dict)
    seen: tuple[Seen, ...] = ()

    @property
    def living(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.ended is None]
