"""Series of months in which segments live, are born, die, split and merge, at known times.

A segment has pages of its own, on which its people do most of what they do; the rest is on pages that everybody visits.
From month to month some people stay, others are replaced; pages become more or less popular; people change segments;
once in a series a month is missing, and in some the category's page list changes.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

MONTHS = 12
COMMON, OWN = 20, 8  # pages that everybody visits, and pages of each segment
PAGES = 160  # that the category lists; those of segments to come have no visitors yet
FOCUS = 0.6  # the share of what somebody does that is on the segment's pages
SWITCHES = 0.03  # the chance that somebody who stays is in another segment the month after

KINDS = ("birth", "death", "split", "merge")


@dataclass(frozen=True)
class Event:
    """What happened to which segments from one month to the next."""

    kind: str
    month: int  # the first that shows it
    before: tuple[int, ...]  # the segments that it happened to
    after: tuple[int, ...]  # those that there are since


@dataclass(frozen=True)
class Month:
    """One month: n people, d pages."""

    number: int
    counts: sp.csr_matrix  # (n, d) actions
    people: np.ndarray  # (n,) their numbers, in order
    pages: tuple[str, ...]  # (d,) their ids
    segment: np.ndarray  # (n,) the segment of each person


@dataclass(frozen=True)
class Series:
    """Months in order, without the missing one, and what happened."""

    seed: int
    staying: float
    months: list[Month]
    events: list[Event]


@dataclass
class _World:
    """What there is at a time: segments with their pages and shares, and people."""

    random: np.random.Generator
    tastes: dict[int, dict[int, float]] = field(default_factory=dict)  # segment → page → how much it is liked
    shares: dict[int, float] = field(default_factory=dict)
    pages: int = COMMON
    segments: int = 0

    def new_segment(self, share: float, taste: dict[int, float] | None = None) -> int:
        if taste is None:
            taste = dict(
                zip(range(self.pages, self.pages + OWN), self.random.dirichlet(np.full(OWN, 4.0)), strict=True)
            )
            self.pages += OWN
        number, self.segments = self.segments, self.segments + 1
        self.tastes[number], self.shares[number] = taste, share
        return number

    def end(self, segment: int) -> None:
        del self.tastes[segment], self.shares[segment]

    def share_of(self, segment: int) -> float:
        return self.shares[segment] / sum(self.shares.values())


def generate(seed: int, staying: float | None = None) -> Series:
    """A series. Its number of people, how many of them stay, its first segments and its events differ by seed.

    Args:
        seed: Of the random numbers.
        staying: The share of the people who stay from one month to the next, if not the seed's own of 0.2 to 0.8.
    """
    random = np.random.default_rng([seed, 14])
    world = _World(random)
    people = int(random.integers(600, 2001))
    staying = 0.2 + 0.6 * (seed % 7) / 6 if staying is None else staying
    for _ in range(int(random.integers(3, 6))):
        world.new_segment(float(random.uniform(0.7, 1.3)))
    missing = int(random.integers(2, MONTHS - 1))
    busy = seed % 5 != 0  # a fifth of the series have no event at all
    planned = _plan(random, seed) if busy else {}
    relisted = int(random.integers(3, MONTHS)) if seed % 3 == 0 else None
    popularity = 1 / np.arange(1, COMMON + 1)
    popularity = random.permutation(popularity / popularity.sum())
    pareto = seed % 2 == 0

    ids, of, next_id = np.zeros(0, int), np.zeros(0, int), 0
    gone: set[int] = set()
    months, events = [], []
    for number in range(MONTHS):
        if number in planned and (happened := _happen(planned[number], number, world, of)) is not None:
            event, of = happened
            events.append(event)
        popularity = popularity * np.exp(random.normal(0, 0.2, COMMON))
        popularity /= popularity.sum()
        _drift(world)
        kept = (random.random(len(ids)) < staying) & np.isin(of, list(world.tastes))
        ids, of = ids[kept], of[kept]
        segments = np.array(sorted(world.shares))
        switching = random.random(len(of)) < SWITCHES
        chances = np.array([world.share_of(segment) for segment in segments])
        of = np.where(switching, random.choice(segments, len(of), p=chances), of)
        wanted = random.multinomial(int(people * random.uniform(0.9, 1.1)), chances)
        new = [
            segment
            for segment, n in zip(segments, wanted, strict=True)
            for _ in range(max(0, n - (of == segment).sum()))
        ]
        ids, of = np.append(ids, next_id + np.arange(len(new))), np.append(of, np.array(new, int))
        next_id += len(new)
        if number == relisted:
            gone = set(random.choice(world.pages, world.pages // 10, replace=False).tolist())
        if number == missing:
            continue
        months.append(_month(number, world, ids, of, popularity, gone, pareto))
    # What happens while a month is missing shows in the month after.
    shown = [month.number for month in months]
    events = [Event(e.kind, min(m for m in shown if m >= e.month), e.before, e.after) for e in events]
    return Series(seed, staying, months, events)


def _plan(random: np.random.Generator, seed: int) -> dict[int, str]:
    """Two or three events, each two months or more from the others and not in the first two months."""
    months = [3, 6, 9] if seed % 2 else [4, 8]
    return {month + int(random.integers(0, 2)): KINDS[(seed + place) % 4] for place, month in enumerate(months)}


def _happen(kind: str, month: int, world: _World, of: np.ndarray) -> tuple[Event, np.ndarray] | None:
    """Let something happen; the event and the segments of people since. None if there are too many or few segments."""
    random, living = world.random, sorted(world.shares, key=lambda s: (-world.shares[s], s))
    if kind in ("death", "merge") and len(living) < 4:
        kind = "birth"
    if kind in ("birth", "split") and len(living) > 6:
        kind = "death"
    if kind == "birth":
        born = world.new_segment(sum(world.shares.values()) / len(living) * float(random.uniform(0.7, 1.2)))
        return Event("birth", month, (), (born,)), of
    if kind == "death":
        died = int(random.choice(living))
        world.end(died)
        return Event("death", month, (died,), ()), of
    if kind == "split":
        parent = living[0]
        taste, share = world.tastes[parent], world.shares[parent]
        pages = sorted(taste)
        half = random.permutation(len(pages)) % 2 == 0
        parts = [{p: taste[p] for p, h in zip(pages, half, strict=True) if h == which} for which in (True, False)]
        first = float(random.uniform(0.5, 0.65))
        # Each part finds pages of its own beside those it had.
        children = []
        for part, portion in zip(parts, (first, 1 - first), strict=True):
            added = {world.pages + i: float(random.uniform(0.02, 0.08)) for i in range(OWN // 2)}
            world.pages += OWN // 2
            children.append(world.new_segment(share * portion, _normal({**part, **added})))
        mine = of == parent
        of = np.where(mine, np.where(random.random(len(of)) < first, children[0], children[1]), of)
        world.end(parent)
        return Event("split", month, (parent,), tuple(children)), of
    first_, second = (int(s) for s in random.choice(living, 2, replace=False))
    a, b = world.tastes[first_], world.tastes[second]
    weight = world.shares[first_] / (world.shares[first_] + world.shares[second])
    union = {p: weight * a.get(p, 0) + (1 - weight) * b.get(p, 0) for p in {*a, *b}}
    merged = world.new_segment(world.shares[first_] + world.shares[second], _normal(union))
    of = np.where(np.isin(of, [first_, second]), merged, of)
    world.end(first_)
    world.end(second)
    return Event("merge", month, (first_, second), (merged,)), of


def _normal(taste: dict[int, float]) -> dict[int, float]:
    total = sum(taste.values())
    return {page: liked / total for page, liked in sorted(taste.items())}


def _drift(world: _World) -> None:
    for segment, taste in world.tastes.items():
        moved = {page: liked * float(np.exp(world.random.normal(0, 0.15))) for page, liked in taste.items()}
        world.tastes[segment] = _normal(moved)
        world.shares[segment] *= float(np.exp(world.random.normal(0, 0.08)))


def _month(
    number: int, world: _World, ids: np.ndarray, of: np.ndarray, popularity: np.ndarray, gone: set[int], pareto: bool
) -> Month:
    random = world.random
    likes = np.zeros((world.segments, PAGES))
    for segment, taste in world.tastes.items():
        likes[segment, :COMMON] = (1 - FOCUS) * popularity
        for page, liked in taste.items():
            likes[segment, page] += FOCUS * liked
    listed = [page for page in range(PAGES) if page not in gone]
    if pareto:
        actions = 1 + random.poisson(np.minimum(10 / 6 * (1 + random.pareto(1.2, len(ids))), 500.0))
    else:
        actions = 1 + random.poisson(9, len(ids))
    taste = random.gamma(likes[of] / 0.02)  # each person's own
    counts = random.multinomial(actions, taste / taste.sum(axis=1, keepdims=True))[:, listed]
    seen = counts.sum(axis=1) > 0
    order = np.argsort(ids[seen])
    return Month(
        number,
        sp.csr_matrix(counts[seen][order].astype(float)),
        ids[seen][order],
        tuple(f"page{page:03d}" for page in listed),
        of[seen][order],
    )
