"""How well segments are followed: events found, false ones, and whether a segment keeps its id."""

from dataclasses import dataclass, field

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


@dataclass
class Score:
    """Counts, which add up over series."""

    right: int = 0  # events that were planted and found, of the right kind
    missed: int = 0
    false: int = 0
    kept: int = 0  # stable segment-months in which a segment has the id that it had
    lost: int = 0
    stable: int = 0  # segment-months in which nothing happens to a segment
    errors: list[str] = field(default_factory=list)

    def add(self, other: "Score") -> None:
        for name in ("right", "missed", "false", "kept", "lost", "stable", "errors"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def f1(self) -> float:
        return 2 * self.right / max(1, 2 * self.right + self.missed + self.false)

    @property
    def identity(self) -> float:
        return self.kept / max(1, self.kept + self.lost)

    @property
    def false_in_100(self) -> float:
        """False events in 100 stable segment-months."""
        return 100 * self.false / max(1, self.stable)


def run(seed: int) -> dict[tuple[bool, bool], Score]:
    """The scores of a series, by whether k is chosen, and whether it is known who stayed."""
    series, chosen = generate(seed), seed % _CHOSEN == 1
    clustered = cluster(series, chosen)
    return {(chosen, members): score(series, clustered, states(clustered, members)) for members in (True, False)}


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
            result.missed += 1
            result.errors.append(f"missed {planted}")
        else:
            open_.remove(match)
            result.right += 1
    result.false += len(open_)
    result.errors += [f"false {event} in {month}" for month, event in open_]
