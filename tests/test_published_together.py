"""All that is published of six months, taken together, gives no number of fewer than ten people away.

The attacker knows how figures are rounded, and that people add up: a month's segments to its people, a segment's people
to those who stayed, went on and left, and a page's people in one segment and in the others to those in all. Each count
is then an integer unknown of a linear program, and it is given away if no two values of it are possible. Where segments
are compared with everybody, a page's people in all are published as well.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from spark_jobs.clusters import published
from spark_jobs.config import KMeansConfig

MIN_PEOPLE = KMeansConfig().min_people
MONTHS, SEGMENTS, PAGES = 6, 3, 2
MANY = 10**6


@dataclass
class Attack:
    """Unknown counts, what is published of each, and how they add up."""

    lowest: list[int] = field(default_factory=list)
    highest: list[int] = field(default_factory=list)
    sums: list[tuple[list[int], list[int]]] = field(default_factory=list)  # the parts add up to those of the other side
    hidden: list[int] = field(default_factory=list)

    def count(self, people: int) -> int:
        """A count that is published, as an unknown."""
        said = published.count(people, MIN_PEOPLE)
        possible = [n for n in range((said or 0) + 2 * MIN_PEOPLE) if published.count(n, MIN_PEOPLE) == said]
        assert people in possible
        if said is None:
            self.hidden.append(len(self.lowest))
        return self._add(possible[0], possible[-1])

    def unpublished(self) -> int:
        """A count of which nothing is said."""
        return self._add(0, MANY)

    def _add(self, lowest: int, highest: int) -> int:
        self.lowest.append(lowest)
        self.highest.append(highest)
        return len(self.lowest) - 1

    def adds_up(self, parts: Sequence[int], whole: Sequence[int]) -> None:
        self.sums.append((list(parts), list(whole)))

    def possible(self, unknown: int) -> tuple[int, int]:
        """The least and the greatest value that a count can have."""
        rows = [row for row, sides in enumerate(self.sums) for side in sides for _ in side]
        columns = [column for sides in self.sums for side in sides for column in side]
        signs = [sign for sides in self.sums for sign, side in zip((1, -1), sides, strict=True) for _ in side]
        system = csr_matrix((signs, (rows, columns)), shape=(len(self.sums), len(self.lowest)))
        wanted = np.zeros(len(self.lowest))
        ends = []
        for sign in (1, -1):
            wanted[unknown] = sign
            found = milp(
                wanted,
                constraints=LinearConstraint(system, 0, 0),
                bounds=Bounds(self.lowest, self.highest),
                integrality=np.ones(len(self.lowest)),
            )
            assert found.success, found.message
            ends.append(round(sign * found.fun))
        return ends[0], ends[1]


def attack(seed: int) -> Attack:
    """What is published of a category whose segments are about as small as can be spoken of."""
    random = np.random.default_rng(seed)
    attack = Attack()
    before: list[tuple[int, int]] = []  # of the month before: each segment's people, and their unknown
    for _ in range(MONTHS):
        rows = [_spread(random, people, SEGMENTS + 1) for people, _ in before]
        stayed = np.array(rows, np.int64).reshape(-1, SEGMENTS + 1)
        came = random.integers(0, 15 if before else 60, SEGMENTS)
        sizes = stayed[:, :SEGMENTS].sum(axis=0) + came
        segments = [attack.count(int(size)) for size in sizes]
        attack.adds_up(segments, [attack.count(int(sizes.sum()))])
        ways = [[attack.count(int(people)) for people in row] for row in stayed]
        for (_, whole), row in zip(before, ways, strict=True):
            attack.adds_up(row, [whole])
        for number, segment in enumerate(segments):
            attack.adds_up([attack.count(int(came[number])), *(row[number] for row in ways)], [segment])
        for _ in range(PAGES):
            _publish_page(attack, random, sizes, segments)
        before = list(zip(map(int, sizes), segments, strict=True))
    return attack


def _publish_page(attack: Attack, random: np.random.Generator, sizes: np.ndarray, segments: Sequence[int]) -> None:
    """A page of profiles.parquet and comparisons.parquet: its people in each segment, in all others, and in all."""
    likes = random.binomial(sizes, random.uniform(0, 1, len(sizes)))
    inside = [attack.count(int(people)) for people in likes]
    everybody = attack.count(int(likes.sum()))
    for number, people in enumerate(inside):
        attack.adds_up([people, attack.count(int(likes.sum() - likes[number]))], [everybody])
        attack.adds_up([people, attack.unpublished()], [segments[number]])
    attack.adds_up(inside, [everybody])


def _spread(random: np.random.Generator, people: int, ways: int) -> np.ndarray:
    return random.multinomial(people, random.dirichlet(np.ones(ways)))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_published_of_six_months_gives_no_small_count_away(seed: int) -> None:
    found = attack(seed)
    assert len(found.hidden) > 50
    for unknown in found.hidden:
        least, greatest = found.possible(unknown)
        assert least < greatest


@pytest.mark.parametrize(("segments", "most"), [(2, 45), (3, 25)])  # all that is rounded to so many, or fewer
def test_no_combination_of_a_pages_counts_gives_a_small_one_away(segments: int, most: int) -> None:
    """All there are: in each segment, in all others, and in all."""
    possible: defaultdict[tuple[int | None, ...], set[tuple[int, ...]]] = defaultdict(set)
    for likes in product(range(most), repeat=segments):
        total = sum(likes)
        figures = [*likes, *(total - people for people in likes), total]
        possible[tuple(published.count(people, MIN_PEOPLE) for people in figures)].add(likes)
    alone = [
        (said, number)
        for said, all_likes in possible.items()
        for number in range(segments)
        if said[number] is None and len({likes[number] for likes in all_likes}) == 1
    ]
    assert alone == []


def test_an_attack_does_find_what_exact_totals_give_away() -> None:
    found = Attack()
    parts = [found.count(30), found.count(7)]
    found.adds_up(parts, [found._add(37, 37)])
    found.adds_up(parts[:1], [found._add(30, 30)])
    assert found.possible(parts[1]) == (7, 7)
