"""What groups of people like, and whether people with two tastes are two groups or one.

People are what they visited in a month: a row of 0 and 1 by page. A taste is a distribution of visits over pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_PRIOR_PEOPLE = 10.0  # who do as everybody does, added to each taste
_PRIOR_VISITS = 0.1  # added to each page, so that none is impossible
_LARGEST_LOG_ODDS = 3.0  # of a page between two tastes, so that no single page decides
_WEIGHT_ITERATIONS = 60
_STRATA, _PEOPLE_A_STRATUM = 4, 50  # of activity
_MOST_PAIRS = 10  # of visits by which somebody's say is weighted


@dataclass(frozen=True)
class People:
    """Some people of a month: n people, d pages."""

    visits: sp.csr_matrix  # (n, d) of 0 and 1
    group: np.ndarray  # (n,) the number of the group each is in
    pages: tuple[str, ...]  # (d,) their ids

    def likes(self, groups: int) -> np.ndarray:
        """(groups, d) how many people of each group visited each page."""
        n = len(self.group)
        of_group = sp.csr_matrix((np.ones(n), (self.group, np.arange(n))), shape=(groups, n))
        return np.asarray((of_group @ self.visits).toarray())

    def only(self, kept: np.ndarray) -> "People":
        """Some of them, by a mask (n,) or places."""
        return People(self.visits[kept], self.group[kept], self.pages)

    def on(self, pages: Sequence[str]) -> "People":
        """Their visits to some pages, of which they may lack some."""
        place = {page: number for number, page in enumerate(self.pages)}
        listed = [number for number, page in enumerate(pages) if page in place]
        of = [place[pages[number]] for number in listed]
        put = sp.csr_matrix((np.ones(len(of)), (of, listed)), shape=(len(self.pages), len(pages)))
        return People(sp.csr_matrix(self.visits @ put), self.group, tuple(pages))


def tastes(likes: np.ndarray, everybody: np.ndarray) -> np.ndarray:
    """(s, d) the distribution over pages of each of s groups.

    Args:
        likes: (s, d) visits of each group to each page.
        everybody: (d,) visits of all people of that time.
    """
    smoothed = likes + _prior(everybody)
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))


def _prior(everybody: np.ndarray) -> np.ndarray:
    """(d,) visits that are added to each taste."""
    popularity = everybody / max(1.0, float(everybody.sum()))
    return np.asarray(_PRIOR_PEOPLE * popularity + _PRIOR_VISITS)


def log_likelihoods(visits: sp.csr_matrix, of: np.ndarray) -> np.ndarray:
    """(n, s) of each person's visits (n, d), under each taste (s, d)."""
    return np.asarray(visits @ np.log(of).T)


def left_out(people: People, likes: np.ndarray) -> np.ndarray:
    """(entries of `people.visits`,) the log-likelihood of each visit, under the taste of the others in the group.

    Args:
        people: The people.
        likes: (groups, d) theirs.
    """
    prior = _prior(likes.sum(axis=0))
    row, page = rows(people.visits), people.visits.indices
    others = likes[people.group[row], page] - 1 + prior[page]
    total = likes.sum(axis=1)[people.group] - visits_of(people.visits) + prior.sum()
    return np.asarray(np.log(others) - np.log(total)[row])


def left_out_log_likelihoods(people: People, likes: np.ndarray) -> np.ndarray:
    """(n,) of each person's visits, under the taste of the others in their group; see `left_out`."""
    return np.bincount(rows(people.visits), left_out(people, likes), minlength=len(people.group))


def rows(visits: sp.csr_matrix) -> np.ndarray:
    """(entries,) the person of each visit."""
    return np.repeat(np.arange(visits.shape[0]), np.diff(visits.indptr))


def visits_of(visits: sp.csr_matrix) -> np.ndarray:
    """(n,) how many pages each person visited."""
    return np.asarray(visits.sum(axis=1)).ravel()


def memberships(log_likelihood: np.ndarray) -> np.ndarray:
    """(n, s) how likely each person is of each taste, whose shares are estimated from the same people by EM.

    Args:
        log_likelihood: (n, s) of each person under each taste.
    """
    scaled = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    share = np.full(scaled.shape[1], 1 / scaled.shape[1])
    for _ in range(_WEIGHT_ITERATIONS):
        likely = scaled * share
        likely /= likely.sum(axis=1, keepdims=True)
        share = likely.mean(axis=0)
    return np.asarray(likely)


def mixture(likes: np.ndarray, of: np.ndarray) -> np.ndarray:
    """(s,) the parts of some tastes (s, d) in the mixture of them that is nearest to what a group likes (d,), by EM.

    All parts are 0 if it likes none of these pages.
    """
    if not likes.any():
        return np.zeros(len(of))
    share = np.full(len(of), 1 / max(1, len(of)))
    for _ in range(_WEIGHT_ITERATIONS):
        share = share * (of @ (likes / (share @ of))) / max(1.0, float(likes.sum()))
    return share


@dataclass(frozen=True)
class Apart:
    """How far people are two groups: 0, they all have the same taste; 1, they are as different as the two tastes."""

    share: float
    error: float  # its standard error

    @property
    def are_two(self) -> bool:
        """Whether it is clear that they are two groups."""
        return self.share >= _TWO and self.share - 3 * self.error > 0

    @property
    def are_one(self) -> bool:
        """Whether it is clear that they are one."""
        return self.share + 2 * self.error < _TWO


_TWO = 0.35
UNKNOWN = Apart(0.0, np.inf)


def apart(visits: sp.csr_matrix, first: np.ndarray, second: np.ndarray) -> Apart:
    """How far people are two groups with two given tastes, which must not be learned from these people.

    Somebody of the first group visits *several* pages that the first likes better. So two visits of the same person go
    together. Where all have the same taste, they do not, whatever this taste is. Each page is scored by its log-odds
    between the tastes, and the covariance of two visits of a person is compared with that of two such groups. What is
    expected of a visit is taken from people who are about as active.

    Args:
        visits: (n, d) of 0 and 1.
        first: (d,) a taste.
        second: (d,) another one.
    """
    score = np.clip(np.log(first) - np.log(second), -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)
    times = visits_of(visits)
    visits, times = visits[times >= 2], times[times >= 2]
    if len(times) < _PEOPLE_A_STRATUM // 2:
        return UNKNOWN
    total = visits @ score
    expected = _by_activity(total, times)
    squares = visits @ score**2 - 2 * expected * total + times * expected**2
    together = ((total - times * expected) ** 2 - squares) / (times * (times - 1))
    say = np.minimum(times - 1, _MOST_PAIRS)
    between = float(first @ score - second @ score)
    portion = float(np.clip((total.sum() / times.sum() - second @ score) / max(between, 1e-9), 0.15, 0.85))
    of_two = portion * (1 - portion) * between**2
    if of_two < 1e-6:
        return UNKNOWN
    mean = float(say @ together / say.sum())
    error = float(np.sqrt((say**2) @ (together - mean) ** 2) / say.sum())
    return Apart(mean / of_two, error / of_two)


def _by_activity(total: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(n,) the mean score of a visit, of people who are about as active as each."""
    strata = int(np.clip(len(times) // _PEOPLE_A_STRATUM, 1, _STRATA))
    stratum = np.searchsorted(np.quantile(times, np.arange(1, strata) / strata), times, side="right")
    mean = np.bincount(stratum, total, strata) / np.maximum(np.bincount(stratum, times, strata), 1)
    return np.asarray(mean[stratum])


def apart_when_learned(people: People, first: int, second: int, seed: int) -> Apart:
    """How far two groups of people are two, with tastes that are learned from half of them and tried on the others.

    Args:
        people: All of the month.
        first: A group.
        second: Another one.
        seed: Of the halves.
    """
    chosen = people.only(np.flatnonzero(np.isin(people.group, [first, second])))
    random = np.random.default_rng(seed)
    half = random.random(len(chosen.group)) < 0.5
    found = []
    for learn in (half, ~half):
        visits, of = chosen.visits[learn], (chosen.group[learn] == second).astype(int)
        for _ in range(10):  # from the groups of all to those that these people show by themselves
            if len(np.unique(of)) < 2:
                return Apart(0.0, 0.0)
            learned = tastes(People(visits, of, people.pages).likes(2), np.asarray(visits.sum(axis=0)).ravel())
            of = log_likelihoods(visits, learned).argmax(axis=1)
        found.append(apart(chosen.visits[~learn], *learned))
    share = float(np.mean([each.share for each in found]))
    return Apart(share, float(np.sqrt(np.mean([each.error**2 for each in found]) / 2)))
