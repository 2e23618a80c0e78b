"""How well segments are followed: events found, false ones, and whether a segment keeps its id."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmarks.following.partitions import Partition, cluster
from benchmarks.following.series import Series, generate
from spark_jobs.config import FIT_MIN_ACTIONS
from spark_jobs.following import follow as following
from spark_jobs.following import state
from spark_jobs.following.tastes import People

_LATE = 1  # observed months that an event may be reported after it happened
_CHOSEN = 5  # of so many series one is clustered with the k that is chosen, which takes most of the time
_FEWEST = 100  # people to learn from; with fewer, everybody is learned from


Who = Literal["stay", "unknown", "nobody"]  # some stay, and it is known who; some stay, unknown who; nobody stays


@dataclass
class Score:
    """Counts, which add up over series. Events are counted by kind."""

    right: Counter[str] = field(default_factory=Counter)  # events that were planted and found, of the right kind
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    kept: int = 0  # stable segment-months in which a segment has the id that it had
    lost: int = 0
    stable: int = 0  # segment-months in which nothing happens to a segment
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Score") -> None:
        for name in ("right", "missed", "false", "kept", "lost", "stable", "errors"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def f1(self) -> float:
        """Of all events together."""
        right, wrong = self.right.total(), self.missed.total() + self.false.total()
        return 2 * right / max(1, 2 * right + wrong)

    @property
    def identity(self) -> float:
        return self.kept / max(1, self.kept + self.lost)

    @property
    def false_in_100(self) -> float:
        """False events in 100 stable segment-months."""
        return 100 * self.false.total() / max(1, self.stable)


@dataclass(frozen=True)
class Measured:
    """How well a series was followed in one way."""

    seed: int
    staying: float  # the share of the people who stay
    chosen: bool  # whether k was chosen, or near the truth by chance
    who: Who
    score: Score

    def as_row(self) -> dict[str, Any]:
        """As JSON has it. (`asdict` counts the pairs of a Counter.)"""
        return {**vars(self), "score": vars(self.score)}


def run(seed: int) -> list[Measured]:
    """Follow a series, with the people who stay and as if nobody were known; and its like in which nobody stays."""
    series, chosen = generate(seed), seed % _CHOSEN == 1
    alone = generate(seed, staying=0)
    ways: list[tuple[Series, list[Partition], bool, Who]] = []
    clustered = cluster(series, chosen)
    ways += [(series, clustered, chosen, "stay"), (series, clustered, chosen, "unknown")]
    ways += [(alone, cluster(alone, choose_k=False), False, "nobody")]
    return [
        Measured(seed, each.staying, by_choice, who, score(each, months, states(months, members=who != "unknown")))
        for each, months, by_choice, who in ways
    ]


def states(partitions: list[Partition], members: bool) -> list[state.State]:
    """The segments after each month; without `members`, as if nobody had ever been there before."""
    found: list[state.State] = []
    for place, each in enumerate(partitions):
        month, people, names = f"{each.month.number:02d}", _people(each), [f"cluster {c}" for c in range(each.k)]
        if not place:
            found.append(following.begin(month, people, each.k, names))
            continue
        returned = _returned(partitions[place - 1], found[-1], each) if members else None
        found.append(following.follow(found[-1], month, people, each.k, names, returned))
    return found


def _people(partition: Partition) -> People:
    month = partition.month
    busy = np.asarray(month.counts.sum(axis=1)).ravel() >= FIT_MIN_ACTIONS
    if busy.sum() < _FEWEST:
        busy[:] = True
    return People((month.counts[busy] > 0).astype(float), partition.cluster[busy], month.pages)


def _returned(before: Partition, known: state.State, now: Partition) -> following.Returned:
    _, here, there = np.intersect1d(before.month.people, now.month.people, return_indices=True)
    group = np.array(known.group_of_cluster)[before.cluster]
    people = np.zeros((len(known.groups), now.k))
    np.add.at(people, (group[here], now.cluster[there]), 1)
    return following.Returned(
        people, np.bincount(group, minlength=len(known.groups)), np.bincount(now.cluster, minlength=now.k)
    )


def score(series: Series, partitions: list[Partition], found: list[state.State]) -> Score:
    """Compare what was found with what was planted."""
    result = Score()
    _match_events(series, found, result)
    touched = {(segment, event.month) for event in series.events for segment in (*event.before, *event.after)}
    last: dict[int, int] = {}
    for each, after in zip(partitions, found, strict=True):
        month = each.month
        of_group = np.array(after.group_of_cluster)[each.cluster]
        busy = np.asarray(month.counts.sum(axis=1)).ravel() >= FIT_MIN_ACTIONS
        main = {
            segment: int(np.bincount(of_group[(month.segment == segment) & busy]).argmax())
            for segment in np.unique(month.segment[busy]).tolist()
        }
        for segment, group in main.items():
            carried = after.groups[group]
            if (segment, month.number) not in touched and segment in last:
                result.stable += 1
                if last[segment] in carried:
                    result.kept += 1
                else:
                    result.lost += 1
                    result.errors.append(f"month {month.number}: {segment} was {last[segment]}, is {carried}")
            # Where k is too small for a segment to have been seen by itself, it has no id yet.
            if len(carried) == 1 and list(main.values()).count(group) == 1:
                last[segment] = carried[0]
    return result


def _match_events(series: Series, found: list[state.State], result: Score) -> None:
    """Count the planted events that were found within `_LATE` observed months, and the others."""
    shown = [int(after.month) for after in found]
    open_ = [(int(after.month), event) for after in found for event in after.events]
    for planted in series.events:
        first = shown.index(planted.month)
        window = shown[first : first + 1 + _LATE]
        match = next((each for each in open_ if each[1].kind == planted.kind and each[0] in window), None)
        if match is None:
            result.missed[planted.kind] += 1
            result.errors.append(f"missed {planted}")
        else:
            open_.remove(match)
            result.right[planted.kind] += 1
    result.false.update(event.kind for _, event in open_)
    result.errors += [f"false {event} in {month}" for month, event in open_]
