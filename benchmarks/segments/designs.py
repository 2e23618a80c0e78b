"""Audiences with known segments, or with none: designs, each drawn anew for every seed.

A design says how many people there are, what they like (a distribution over pages for each segment), and how much they
do. Everything a person does falls on a page of their taste; how often differs by design: Poisson, Pareto (a few people
do most of it), or with bursts (one comment thread gives dozens of comments on one page).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Design:
    """How an audience is drawn.

    Each segment has `own` pages, on which its people do `focus` of what they do; the rest is on pages that everybody
    visits, whose popularity falls off as 1/rank. With `overlap`, segments lie on a ring and share that share of their
    own pages with the next one.
    """

    name: str
    people: int
    shares: tuple[float, ...] = ()  # of the segments; none: no segments
    own: int = 8
    common: int = 20
    focus: float = 0.6
    activity: str = "poisson"  # or "pareto"
    mean_actions: float = 10.0
    bursts: float = 0.0  # the chance that a visit is a burst of many actions
    overlap: float = 0.0
    taste: float = 0.0  # how far each person's taste is from the segment's: 1 / the Dirichlet's concentration
    dominant: float = 0.0  # the share of all actions that is on one page
    second: float = 0.0  # the share of actions on a second segment's pages, which each person has
    loud: float = 0.0  # the share of people who do fifty times as much, whatever they like
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def k(self) -> int:
        return max(1, len(self.shares))

    @property
    def structured(self) -> bool:
        return len(self.shares) > 1


@dataclass(frozen=True)
class Audience:
    """One draw of a design: n people, d pages."""

    counts: sp.csr_matrix  # (n, d) actions
    segment: np.ndarray  # (n,) the segment of each person; 0 where there are none
    k: int

    @property
    def actions(self) -> np.ndarray:
        """(n,) of each person."""
        return np.asarray(self.counts.sum(axis=1)).ravel()


def draw(design: Design, seed: int) -> Audience:
    """An audience of that design; people who did nothing are left out."""
    random = np.random.default_rng([seed, *design.name.encode()])
    pages = page_distributions(design, random)
    k = len(pages)
    shares = np.array(design.shares or (1.0,))
    segment = random.choice(k, design.people, p=shares / shares.sum())
    actions = _actions(design, random)
    taste = pages[segment]
    if design.second and k > 1:
        other = (segment + random.integers(1, k, design.people)) % k
        taste = (1 - design.second) * taste + design.second * pages[other]
    if design.taste:
        taste = random.gamma(np.maximum(taste / design.taste, 1e-3))
        taste /= taste.sum(axis=1, keepdims=True)
    counts = random.multinomial(actions, taste).astype(np.int64)
    if design.bursts:
        visited = np.nonzero(counts)
        burst = random.random(len(visited[0])) < design.bursts
        counts[visited[0][burst], visited[1][burst]] += random.geometric(1 / 20, int(burst.sum()))
    kept = counts.sum(axis=1) > 0
    return Audience(sp.csr_matrix(counts[kept].astype(float)), segment[kept], design.k)


def page_distributions(design: Design, random: np.random.Generator) -> np.ndarray:
    """(k, d): what people of each segment like."""
    k = design.k
    common = 1 / np.arange(1, design.common + 1)
    common /= common.sum()
    if k == 1:
        popularity = random.permutation(1 / np.arange(1, design.common + design.own * 4 + 1) ** 0.8)[None]
        pages = popularity / popularity.sum()
    else:
        pages = np.zeros((k, design.common + k * design.own))
        pages[:, : design.common] = (1 - design.focus) * common
        shared = round(design.overlap * design.own)
        for segment in range(k):
            own = np.arange(design.own) + segment * design.own
            own = np.concatenate([own, (np.arange(shared) + (segment + 1) * design.own) % (k * design.own)])
            liked = random.dirichlet(np.full(len(own), 4.0))
            pages[segment, design.common + own] += design.focus * liked
    if design.dominant:
        pages = pages * (1 - design.dominant)
        pages[:, 0] += design.dominant
    return pages


def _actions(design: Design, random: np.random.Generator) -> np.ndarray:
    """(people,) how much each does, at least 1."""
    if design.activity == "pareto":
        rate = design.mean_actions / 6 * (1 + random.pareto(1.2, design.people))  # half do little, a few hundreds
        actions = 1 + random.poisson(np.minimum(rate, 2000.0))
    else:
        actions = 1 + random.poisson(design.mean_actions - 1, design.people)
    if design.loud:
        actions = np.where(random.random(design.people) < design.loud, actions * 50, actions)
    return actions


def _equal(k: int) -> tuple[float, ...]:
    return (1 / k,) * k


def _design(name: str, people: int, shares: Sequence[float] = (), **facts: Any) -> Design:
    return Design(name, people, tuple(shares), **facts)


DESIGNS: tuple[Design, ...] = (
    # Everybody does about as much.
    _design("2 segments", 600, _equal(2)),
    _design("3 segments, few people", 300, _equal(3)),
    _design("4 segments", 2000, _equal(4)),
    _design("5 segments, unequal", 3000, (5, 4, 3, 2, 1)),
    _design("8 segments", 3000, _equal(8)),
    _design("12 segments", 6000, _equal(12), own=6),
    _design("6 segments, own tastes", 3000, _equal(6), taste=0.1),
    _design("4 segments, a second interest", 2000, _equal(4), second=0.25),
    # Pareto activity: as real audiences are.
    _design("2 segments, Pareto", 1000, _equal(2), activity="pareto"),
    _design("3 segments, Pareto, few people", 400, _equal(3), activity="pareto"),
    _design("4 segments, Pareto", 2000, _equal(4), activity="pareto"),
    _design("6 segments, Pareto, unequal", 4000, (6, 5, 4, 3, 2, 1), activity="pareto"),
    _design("9 segments, Pareto", 6000, _equal(9), activity="pareto", own=6),
    _design("12 segments, Pareto", 12000, _equal(12), activity="pareto", own=6),
    _design("5 segments, Pareto, own tastes", 3000, _equal(5), activity="pareto", taste=0.1),
    _design("4 segments, Pareto, loud people", 2000, _equal(4), activity="pareto", loud=0.02),
    _design("5 segments, Pareto, 50,000 people", 50000, _equal(5), activity="pareto"),
    # Bursts of comments on one page.
    _design("4 segments, bursts", 2000, _equal(4), bursts=0.1),
    _design("4 segments, Pareto, bursts", 2000, _equal(4), activity="pareto", bursts=0.1),
    _design("7 segments, Pareto, bursts", 5000, _equal(7), activity="pareto", bursts=0.15),
    # What is hard.
    _design("tiny segment of 3 %", 3000, (0.40, 0.32, 0.25, 0.03)),
    _design("tiny segments, Pareto", 4000, (0.5, 0.42, 0.04, 0.04), activity="pareto"),
    _design("overlapping segments", 3000, _equal(4), overlap=0.5),
    _design("overlapping segments, Pareto", 3000, _equal(5), activity="pareto", overlap=0.4),
    _design("a dominant page", 2000, _equal(4), dominant=0.5),
    _design("a dominant page, Pareto", 3000, _equal(4), activity="pareto", dominant=0.4),
    # No segments at all.
    _design("none", 1000),
    _design("none, few people", 200),
    _design("none, Pareto", 3000, activity="pareto"),
    _design("none, Pareto, bursts", 3000, activity="pareto", bursts=0.15),
    _design("none, own tastes", 2000, taste=0.2),
    _design("none, Pareto, own tastes, loud people", 3000, activity="pareto", taste=0.2, loud=0.02),
    _design("none, a dominant page", 2000, dominant=0.5),
    _design("none, Pareto, 50,000 people", 50000, activity="pareto"),
)
