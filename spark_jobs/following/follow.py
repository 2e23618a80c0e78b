"""Which of a month's clusters is which known segment, and what happened to segments since the month before.

A segment is what its people like. Each person of this month is compared with what the known segments like (`tastes`),
so nobody needs to have stayed. A cluster and a segment that share most of their people are the same; what is left over
is an event only if the people say so, for k-means cuts one population into 4 clusters in one month and 3 in the next:

- A cluster more than expected is a *split* if its people are clearly another group than those of the cluster that goes
  on, and were one group with them before; a *birth* if no known segment explains what they like, and such people were
  not there before. If they were there before, it is told apart from now on, but nothing happened. If they are not
  clearly another group, it is a part of the segment.
- A segment without a cluster has *died* if such people are clearly fewer; it was *merged* if its people are in the
  cluster of another, and clearly one group with them. If they still are two groups, both live, and share the cluster.
  What never was clearly a group of its own ends without an event.

A month with one cluster or none, or in which no two are clearly two groups, says nothing of segments: all live on.

Who stayed decides where what people like does not: a cluster that likes what nobody liked, most of whose returning
people come from a segment that has no heir, is that segment, changed.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spark_jobs.following import tastes
from spark_jobs.following.state import Event, Seen, Segment, State
from spark_jobs.following.tastes import Apart, People

MONTHS_KEPT = 3  # to look back at
_WELL_EXPLAINED = 0.75  # where they explain less, a part of the people may be new
_PART = 0.15  # that counts
_OVERLAP = 0.25  # that a cluster and a segment have at least if they are the same
_LARGEST_LOG_ODDS = 2.0  # of a visit, so that a few new pages don't make a segment a new one
_EXPLAINED = 0.2  # of what sets a cluster apart; where the known segments explain less, it is something new
_GONE = 0.25  # a segment that has less of its former share is gone
_ERRORS = 3.0  # standard errors from which a number of people has changed
_DECAY = 0.5  # what earlier months count, each
_COMMON_VISITS = 0.5  # the share of visits that must be to pages that were listed before, to compare with before
_REFINED = 5  # times that it is asked anew who of a novel cluster's people is new
_ENOUGH_PEOPLE = 20  # that are expected, to say that they are not there
_ENOUGH_RETURNED = 10  # people, by whom something is decided


@dataclass(frozen=True)
class Returned:
    """Who of the month before is here again."""

    people: np.ndarray  # (groups of the month before, clusters of this one)
    before: np.ndarray  # (groups,) people that each had
    now: np.ndarray  # (clusters,) people that each has


def begin(month: str, people: People, clusters: int, names: Sequence[str], taken: Collection[str] = ()) -> State:
    """The segments of the first month: one a cluster.

    Args:
        month: Its name, such as `2024-01`; names of months sort by time.
        people: Those who are learned from; their groups are clusters.
        clusters: How many there are.
        names: (clusters,) what a new segment is called.
        taken: Names that none is given.
    """
    none = State("", (), (), (), ())
    if clusters < 2:
        return _untold(none, month, clusters)
    return _Month(none, month, people, clusters, names, None, 0, taken, ()).begin()


def follow(
    before: State,
    month: str,
    people: People,
    clusters: int,
    names: Sequence[str],
    returned: Returned | None,
    seed: int = 0,
    taken: Collection[str] = (),
    kept: Collection[int] = (),
) -> State:
    """The segments after a month, given those after the month before, or the last one that there is.

    Args:
        before: The segments before; see `begin`.
        month: This month.
        people: Those who are learned from; their groups are clusters.
        clusters: How many there are.
        names: (clusters,) what a new segment is called, if no living one has that name.
        returned: Who stayed; None if that is not known.
        seed: Of the halves that people are tried on.
        taken: Names that none is given.
        kept: The ids of segments that keep their names and colors even when they have ended.
    """
    if clusters < 2:
        return _untold(before, month, clusters)
    if not before.living:
        return _Month(before, month, people, clusters, names, None, seed, taken, kept).begin()
    return _Month(before, month, people, clusters, names, returned, seed, taken, kept).follow()


def _untold(before: State, month: str, clusters: int) -> State:
    """The state after a month in which no segments can be told apart: its people are in all that live."""
    living = tuple(segment.id for segment in before.living)
    groups, group_of_cluster = ((living,), (0,) * clusters) if clusters else ((), ())
    return replace(before, month=month, groups=groups, group_of_cluster=group_of_cluster, events=(), told_apart={})


class _Month:
    """The work on one month. Segments are known by their place among the living, clusters by number."""

    def __init__(
        self,
        before: State,
        month: str,
        people: People,
        clusters: int,
        names: Sequence[str],
        returned: Returned | None,
        seed: int,
        taken: Collection[str],
        kept: Collection[int],
    ):
        self.before, self.month, self.people, self.k = before, month, people, clusters
        self.names, self.returned, self.seed = names, returned, seed
        self.taken, self.kept = taken, kept
        self.known = before.living
        self.segments = {segment.id: segment for segment in before.segments}
        self.of_cluster: dict[int, list[int]] = defaultdict(list)  # the ids of the segments in each cluster
        self.events: list[Event] = []
        self.told_apart: dict[int, int] = {}
        self.unnamed: dict[int, int] = {}  # segments without name and color, and the cluster of each
        self.mixed: set[int] = set()  # clusters of known segments that have something new in them
        self.part_of: dict[int, int] = {}  # clusters that are no group of their own, and the one each belongs to

    def begin(self) -> State:
        for cluster in reversed(range(self.k)):
            nearest = self._nearest(cluster)
            if nearest is not None and tastes.apart_when_learned(self.people, nearest, cluster, self.seed).are_one:
                self.part_of[cluster] = nearest
        for cluster in range(self.k):
            if cluster not in self.part_of:
                self.of_cluster[cluster] = [self._new(cluster)]
        return self._state()

    def follow(self) -> State:
        self._compare()
        heir = self._pair()
        self._pair_by_members(heir)
        for cluster in range(self.k):
            if cluster not in heir.values():
                self._more(cluster, heir)
        for place, segment in enumerate(self.known):
            if place in heir:
                self.of_cluster[heir[place]].insert(0, segment.id)
        for place in range(len(self.known)):
            if place not in heir:
                self._without_heir(place, heir)
        return self._state()

    # --- comparing this month's people with what the known segments like

    def _compare(self) -> None:
        """Whom each cluster consists of, and which clusters the known segments do not explain."""
        listed = {page for segment in self.known for page in segment.everybody}
        self.pages = tuple(page for page in self.people.pages if page in listed)
        self.common = self.people.on(self.pages)
        self.likes = self.common.likes(self.k)
        self.known_tastes = np.array([_taste(segment, self.pages) for segment in self.known])
        of_known = tastes.log_likelihoods(self.common.visits, self.known_tastes)
        self.explained = self._explained()
        self.novel = {c for c in range(self.k) if self.explained[c] < _EXPLAINED}
        self._find(of_known)
        size = np.bincount(self.people.group, minlength=self.k)
        taken = {c for c in range(self.k) if self.found[:, c].sum() < size[c] / 2} - self.novel
        if taken:  # by the taste of another novel cluster: k-means cut something new in two
            self.novel |= taken
            self._find(of_known)
        # A cluster too few may have a new segment and a known one in it: then it is the known one's.
        self.mixed = {c for c in self.novel if self.found[:, c].sum() >= size[c] / 2}
        self.novel -= self.mixed
        for cluster in set(range(self.k)) - self.novel:
            if self.explained[cluster] < _WELL_EXPLAINED:
                new = self._unlike_any_known(cluster, of_known)[0].mean()
                if _PART <= new <= 1 - _PART:
                    self.mixed.add(cluster)

    def _find(self, of_known: np.ndarray) -> None:
        """Count the people like those of each known segment, by cluster: (known, k)."""
        self.new_tastes = self._new_tastes(of_known)
        new = np.array(list(self.new_tastes.values())).reshape(-1, len(self.pages))
        likely = tastes.memberships(np.hstack([of_known, tastes.log_likelihoods(self.common.visits, new)]))
        self.found = np.zeros((len(self.known), self.k))
        np.add.at(self.found.T, self.people.group, likely[:, : len(self.known)])

    def _new_tastes(self, of_known: np.ndarray) -> dict[int, np.ndarray]:
        """Of each novel cluster, what those of its people like whom the known segments don't explain."""
        return {cluster: self._unlike_any_known(cluster, of_known)[1] for cluster in sorted(self.novel)}

    def _unlike_any_known(self, cluster: int, of_known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of a cluster's people (n,) the known segments don't explain, and what those like (d,)."""
        here = self.common.group == cluster
        known = of_known[here].max(axis=1)
        new = tastes.left_out_log_likelihoods(self.common, self.likes)[here] > known
        for _ in range(_REFINED):
            likes = np.asarray(self.common.visits[here][new].sum(axis=0)).ravel()
            taste = tastes.tastes(likes, self.likes.sum(axis=0))
            new = tastes.log_likelihoods(self.common.visits[here], taste[None])[:, 0] > known
        return new, taste

    def _explained(self) -> np.ndarray:
        """(k,) how much of what sets each cluster apart from everybody the known segments explain."""
        everybody = People(self.common.visits, np.zeros_like(self.common.group), self.pages)
        popular = tastes.left_out(everybody, everybody.likes(1))
        own = tastes.left_out(self.common, self.likes)
        of = self.common.group[tastes.rows(self.common.visits)]  # the cluster of each visit
        visits = np.bincount(self.people.group, tastes.visits_of(self.people.visits), self.k)
        explained = np.ones(self.k)
        self.parts = np.zeros((len(self.known), self.k))  # of what each cluster likes, the part of each known taste
        for cluster in range(self.k):
            here = of == cluster
            self.parts[:, cluster] = tastes.mixture(self.likes[cluster], self.known_tastes)
            best = np.log((self.parts[:, cluster] @ self.known_tastes)[self.common.visits.indices[here]])
            apart = float(np.minimum(own[here] - popular[here], _LARGEST_LOG_ODDS).sum())
            if apart > 0:
                explained[cluster] = 1 - float(np.minimum(own[here] - best, _LARGEST_LOG_ODDS).sum()) / apart
            if self.likes[cluster].sum() < _COMMON_VISITS * visits[cluster]:
                explained[cluster] = 0
        return explained

    def _pair(self) -> dict[int, int]:
        """The heir, a cluster, of each segment that has one, by what people like."""
        # All that plans imports this module, and scipy.optimize takes half a second.
        from scipy.optimize import linear_sum_assignment

        size = np.sqrt(np.outer(self.found.sum(axis=1), np.bincount(self.people.group, minlength=self.k)))
        overlap = self.found / np.maximum(size, 1e-9)
        overlap[:, sorted(self.novel)] = 0
        rows, columns = linear_sum_assignment(-overlap)
        return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if overlap[r, c] >= _OVERLAP}

    def _pair_by_members(self, heir: dict[int, int]) -> None:
        """Add heirs that most of a segment's returning people are in, and who mostly come from it."""
        for place, segment in enumerate(self.known):
            if place in heir:
                continue
            stayed = self._stayed(segment.id)
            for cluster in sorted(self.novel - set(heir.values())):
                if (
                    stayed is not None
                    and stayed[cluster] >= _ENOUGH_RETURNED
                    and stayed[cluster] > stayed.sum() / 2
                    and stayed[cluster] > self._all_stayed()[cluster] / 2
                ):
                    heir[place] = cluster
                    self.events.append(Event("change", self.month, (segment.id,), (segment.id,)))
                    break

    # --- a cluster more

    def _more(self, cluster: int, heir: Mapping[int, int]) -> None:
        """Find out what a cluster is that is no segment's heir."""
        if cluster in self.novel:
            nearest = self._nearest(cluster)
        else:
            place = int(self.found[:, cluster].argmax())
            nearest = heir.get(place, self._nearest(cluster))
        if nearest is None:
            self.of_cluster[cluster] = [self._new(cluster)]
            return
        now = tastes.apart_when_learned(self.people, nearest, cluster, self.seed)
        parent = next((self.known[place].id for place, of in heir.items() if of == nearest), None)
        if not now.are_two:
            self.part_of[cluster] = nearest
        elif cluster in self.novel:
            self._novel(cluster, parent)
        else:
            self._part(cluster, nearest, parent)

    def _novel(self, cluster: int, parent: int | None) -> None:
        """A cluster that likes what no living segment likes."""
        if (returning := self._ended_like(cluster)) is not None:
            self.segments[returning] = replace(self.segments[returning], ended=None)
            self.unnamed[returning] = cluster
            self.of_cluster[cluster] = [returning]
            self.events.append(Event("return", self.month, (), (returning,)))
            return
        new = self._new(cluster)
        self.of_cluster[cluster] = [new]
        were_there = [self._were_there(cluster, seen) for seen in self.before.seen]
        if were_there and all(were_there):
            self.told_apart[new] = -1 if parent is None else parent
            return
        # Where they were there already the month before, unseen, it says nothing in whose cluster.
        source = None if were_there and were_there[0] else self._source(cluster)
        if source is None:
            self.events.append(Event("birth", self.month, (), (new,)))
        else:
            self.events.append(Event("split", self.month, (source,), (source, new)))

    def _part(self, cluster: int, nearest: int, parent: int | None) -> None:
        """A cluster that is a part of a known segment, and clearly another group than the rest of it."""
        new = self._new(cluster)
        self.of_cluster[cluster] = [new]
        if parent is None:
            self.told_apart[new] = -1
            return
        pair = tastes.tastes(self.likes[[nearest, cluster]], self.likes.sum(axis=0))
        if any(self._look_back(seen, parent, pair).are_one for seen in self.before.seen):
            self.events.append(Event("split", self.month, (parent,), (parent, new)))
        else:
            self.told_apart[new] = parent

    def _look_back(self, seen: Seen, parent: int, pair: np.ndarray) -> Apart:
        """Whether people with either of two tastes (2, d), once a segment's, were two groups in an earlier month.

        They are looked for among all: some may have been in another cluster, if there was one too few.
        """
        others = [place for place, segment in enumerate(self.known) if segment.id != parent]
        visits = seen.people.on(self.pages).visits
        likely = tastes.memberships(tastes.log_likelihoods(visits, np.vstack([self.known_tastes[others], pair])))
        return tastes.apart(visits[likely[:, -2:].sum(axis=1) > 0.5], *pair)

    def _were_there(self, cluster: int, seen: Seen) -> bool:
        """Whether people like those of a novel cluster were not clearly fewer in an earlier month."""
        visits = seen.people.on(self.pages).visits
        taste = self.new_tastes[cluster]
        likely = tastes.memberships(tastes.log_likelihoods(visits, np.vstack([self.known_tastes, taste])))[:, -1]
        return not _clearly_fewer(float(likely.sum()), float((self.people.group == cluster).mean()) * len(likely))

    def _source(self, cluster: int) -> int | None:
        """The segment that a novel cluster's people were in before, if they were there and mostly in one."""
        if self.returned is None or not self.before.groups:
            return None
        came = self.returned.people[:, cluster]
        usual = self.returned.people.sum() / max(1, self.returned.now.sum())
        group = int(came.argmax())
        ids = self.before.groups[group]
        if (
            came.sum() >= max(_ENOUGH_RETURNED, 0.75 * usual * self.returned.now[cluster])
            and came[group] > 0.6 * came.sum()
            and len(ids) == 1
            and self.segments[ids[0]].ended is None
        ):
            return ids[0]
        return None

    def _ended_like(self, cluster: int) -> int | None:
        """The ended segment that likes what a cluster likes, if there is one."""
        here = self.common.group == cluster
        own = tastes.left_out_log_likelihoods(self.common, self.likes)[here].sum()
        everybody = tastes.tastes(self.likes.sum(axis=0), self.likes.sum(axis=0))
        popular = float(tastes.log_likelihoods(self.common.visits[here], everybody[None]).sum())
        for segment in self.before.segments:
            if segment.ended is not None and own > popular:
                of = float(tastes.log_likelihoods(self.common.visits[here], _taste(segment, self.pages)[None]).sum())
                if 1 - (own - of) / (own - popular) >= _EXPLAINED:
                    return segment.id
        return None

    def _nearest(self, cluster: int) -> int | None:
        """The other cluster that is most like one, and not a part of it."""
        return _nearest(self.people, cluster, [c for c in range(self.k) if self._whole(c) != cluster])

    def _whole(self, cluster: int) -> int:
        """The cluster that one is a part of, or that one itself."""
        while cluster in self.part_of:
            cluster = self.part_of[cluster]
        return cluster

    # --- a segment without a cluster

    def _without_heir(self, place: int, heir: Mapping[int, int]) -> None:
        """Find out what became of a segment that no cluster continues."""
        segment = self.known[place]
        # People who like what two segments liked look like either: what their cluster likes shows both.
        found = np.maximum(self.found[place], self.parts[place] * np.bincount(self.people.group, minlength=self.k))
        if _clearly_fewer(float(found.max()), segment.share * len(self.people.group)):
            self._end(segment.id, self._taken_in_by(segment.id))
            return
        cluster = int(found.argmax())
        partner = next((other for other, of in heir.items() if of == cluster), None)
        if partner is None:
            self.of_cluster[cluster].append(segment.id)
            return
        here = np.flatnonzero(self.common.group == cluster)
        are = tastes.apart(self.common.visits[here], self.known_tastes[partner], self.known_tastes[place])
        if are.are_one:
            self._end(segment.id, self.known[partner].id)
        else:
            self.of_cluster[cluster].append(segment.id)

    def _end(self, segment: int, into: int | None) -> None:
        """A segment has ended; if it never was clearly a group of its own, nothing happened."""
        self.segments[segment] = replace(self.segments[segment], ended=self.month)
        if not self._was_a_group(segment):
            return
        if into is None:
            self.events.append(Event("death", self.month, (segment,), ()))
        else:
            self.events.append(Event("merge", self.month, (segment, into), (into,)))

    def _was_a_group(self, segment: int) -> bool:
        """Whether a segment was clearly another group than the one that it was most like, in an earlier month."""
        for seen in self.before.seen:
            if (segment,) not in seen.groups:
                continue
            own = seen.groups.index((segment,))
            nearest = _nearest(seen.people, own, [group for group in range(len(seen.groups)) if group != own])
            if nearest is None or tastes.apart_when_learned(seen.people, nearest, own, self.seed).are_two:
                return True
        return False

    def _taken_in_by(self, segment: int) -> int | None:
        """The segment that the people are in now who were in one whose taste is gone, if they stayed as others do."""
        stayed = self._stayed(segment)
        if stayed is None or self.returned is None:
            return None
        usual = self.returned.people.sum() / max(1, self.returned.before.sum())
        groups = [group for group, ids in enumerate(self.before.groups) if segment in ids]
        cluster = int(stayed.argmax())
        if (
            stayed.sum() >= max(_ENOUGH_RETURNED, 0.75 * usual * self.returned.before[groups].sum())
            and stayed[cluster] > 0.6 * stayed.sum()
            and self.of_cluster[cluster]
        ):
            return self.of_cluster[cluster][0]
        return None

    # --- what all of this needs

    def _stayed(self, segment: int) -> np.ndarray | None:
        """(k,) a segment's people of the month before, by cluster; None where it is not known who they were."""
        groups = [group for group, ids in enumerate(self.before.groups) if ids == (segment,)]
        return None if self.returned is None or not groups else np.asarray(self.returned.people[groups].sum(axis=0))

    def _all_stayed(self) -> np.ndarray:
        assert self.returned is not None
        return np.asarray(self.returned.people.sum(axis=0))

    def _all_likes(self) -> np.ndarray:
        return self.people.likes(self.k)

    def _new(self, cluster: int) -> int:
        """A new segment. Its name, color and taste are noted at the end, when it is known who else lives."""
        number = max(self.segments, default=0) + 1
        self.segments[number] = Segment(number, self.names[cluster], -1, self.month, self.month, None, 0, {}, {})
        self.unnamed[number] = cluster
        return number

    def _name(self) -> None:
        """Give those who are new, or are back, a name and a color that no other living segment has."""
        others = [
            s for s in self.segments.values() if (s.ended is None or s.id in self.kept) and s.id not in self.unnamed
        ]
        names, colors = {s.name for s in others} | {*self.taken}, {s.color for s in others}
        for number, cluster in sorted(self.unnamed.items()):
            segment = self.segments[number]
            numbered = (f"{self.names[cluster]} ({n})" for n in range(2, len(names) + 3))
            name = next(free for free in (segment.name, self.names[cluster], *numbered) if free not in names)
            color = next(free for free in (segment.color, *range(len(colors) + 1)) if free >= 0 and free not in colors)
            self.segments[number] = replace(segment, name=name, color=color)
            names.add(name)
            colors.add(color)

    # --- the state after it

    def _state(self) -> State:
        groups, group_of_cluster = self._groups()
        if len(groups) < 2:  # no two clusters are clearly two groups
            return _untold(self.before, self.month, self.k)
        self._name()
        people = People(self.people.visits, np.array(group_of_cluster, int)[self.people.group], self.people.pages)
        likes, sizes = people.likes(len(groups)), np.bincount(people.group, minlength=len(groups))
        everybody = dict(zip(people.pages, likes.sum(axis=0).tolist(), strict=True))
        mixed = {group_of_cluster[cluster] for cluster in self.mixed}
        for group, ids in enumerate(groups):
            for number in ids:
                segment = self.segments[number]
                if (ids == (number,) and group not in mixed) or not segment.everybody:
                    self.segments[number] = replace(
                        segment,
                        seen=self.month,
                        share=float(sizes[group] / max(1, sizes.sum())),
                        likes=_sum(segment.likes, dict(zip(people.pages, likes[group].tolist(), strict=True))),
                        everybody=_sum(segment.everybody, everybody),
                    )
        return State(
            self.month,
            tuple(segment for _, segment in sorted(self.segments.items())),
            groups,
            group_of_cluster,
            tuple(self.events),
            self.told_apart,
            (Seen(self.month, people, groups), *self.before.seen)[:MONTHS_KEPT],
        )

    def _groups(self) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
        """The segments of each group of clusters, and each cluster's group."""
        leader = [self._whole(cluster) for cluster in range(self.k)]
        groups = []
        for first in sorted(set(leader)):
            parts = [cluster for cluster in range(self.k) if leader[cluster] == first]
            groups.append(tuple(number for cluster in parts for number in self.of_cluster[cluster]))
        number = {first: place for place, first in enumerate(sorted(set(leader)))}
        return tuple(groups), tuple(number[each] for each in leader)


def _nearest(people: People, group: int, others: Sequence[int]) -> int | None:
    """That of some other groups whose taste explains a group's people best; None if there is no other."""
    likes = people.likes(max(group, *others, int(people.group.max(initial=0))) + 1)
    of = tastes.tastes(likes, likes.sum(axis=0))
    each = tastes.log_likelihoods(people.visits[people.group == group], of).sum(axis=0)
    return max(others, key=lambda other: each[other], default=None)


def _taste(segment: Segment, pages: Sequence[str]) -> np.ndarray:
    """(d,) what a known segment likes, on some pages."""
    likes, everybody = ([of.get(page, 0.0) for page in pages] for of in (segment.likes, segment.everybody))
    return tastes.tastes(np.array(likes), np.array(everybody))


def _sum(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {page: _DECAY * before.get(page, 0.0) + now.get(page, 0.0) for page in sorted({*before, *now})}


def _clearly_fewer(found: float, expected: float) -> bool:
    """Whether people are so few that it can't be chance; of a handful nobody can say."""
    return expected >= _ENOUGH_PEOPLE and found < _GONE * expected and expected - found > _ERRORS * np.sqrt(expected)
