"""How much likelier the people of a cluster are to like a page than all others, who are as active: the lift.

It is the Mantel-Haenszel ratio over strata of activity, with the interval of Greenland and Robins (1985), whose
variance holds also where strata have few people; by Student's t, as few people who like a page say little of it.

How sure it is that a page sets a cluster apart is the log-odds ratio with an informative Dirichlet prior, over its
standard error (Monroe, Colaresi and Quinn 2008, "Fightin' Words"): of each stratum, and then of all, weighted by how
well each is known. The prior is what the stratum's people of both sides like in all.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.special

from spark_jobs.clusters.likes import Likes

LEAST_LIFT = 1.25  # less sets nobody apart, however sure it is
FALSE_ALARMS = 0.02  # the share of clusters with a distinctive page where there is nothing, at most, by the z-score

_ABOUT_AS_MUCH = 0.8  # of a cluster's share of a page: another one with more likes it about as much
_CONFIDENCE = 0.95
_PRIOR_PEOPLE = 20.0  # of each stratum, who do as everybody does


@dataclass(frozen=True)
class Lifts:
    """k clusters on d pages; all (k, d). NaN where too few people are known to say it."""

    lift: np.ndarray
    low: np.ndarray  # of the 95 % interval; where too few others like the page, as if just enough did
    high: np.ndarray
    z: np.ndarray
    distinctive: np.ndarray  # bool

    def only_where(self, enough: np.ndarray) -> "Lifts":
        """These lifts, of which only some (k, d) are known."""
        lift, low, high, z = (np.where(enough, values, np.nan) for values in (self.lift, self.low, self.high, self.z))
        return Lifts(lift, low, high, z, self.distinctive & enough)


def unknown_lifts(shape: tuple[int, ...]) -> Lifts:
    """The lifts of so many clusters on so many pages, of which none is known."""
    unknown = np.full(shape, np.nan)
    return Lifts(unknown, unknown, unknown, unknown, np.zeros(shape, bool))


def lifts(likes: Likes, min_people: int) -> Lifts:
    """Compare each cluster with all other people; see `compare`."""
    fans, people = likes.held_out, likes.comparable  # (k, g, d)
    other_fans, others = fans.sum(axis=0) - fans, people.sum(axis=0) - people
    return compare(fans, people, other_fans, others, min_people)


def compare(fans: np.ndarray, people: np.ndarray, other_fans: np.ndarray, others: np.ndarray, min_people: int) -> Lifts:
    """Compare groups of people, each with a group of others.

    Where fewer than `min_people` of a group like a page, nothing is said; where fewer of the others do, see
    `as_if_enough`.

    Args:
        fans: (n, g, d) people of each group who like each page, by stratum.
        people: (n, g, d) of how many.
        other_fans: (n, g, d) others who like it.
        others: (n, g, d) of how many.
        min_people: How many people a figure must be of.
    """
    few_others = other_fans.sum(axis=1) < min_people
    compared = as_if_enough(other_fans, others, min_people)
    enough = (fans.sum(axis=1) >= min_people) & (compared.sum(axis=1) > 0)

    with np.errstate(divide="ignore", invalid="ignore"):
        lift, error = _ratio(fans, people, compared, others)
        z = _z(fans, people, compared, others)
    low, high = interval(lift, error, np.minimum(fans.sum(axis=1), compared.sum(axis=1)))
    known = enough & np.isfinite(lift) & np.isfinite(error)
    in_use = max(1, int((fans.sum(axis=(0, 1)) > 0).sum()))
    # As many pages as there are could be distinctive by chance.
    z_needed = float(scipy.special.ndtri(1 - FALSE_ALARMS / in_use))
    distinctive = known & (low > 1) & (lift >= LEAST_LIFT) & (z >= z_needed)

    exact_lift, exact_high = (np.where(few_others, np.nan, values) for values in (lift, high))
    return Lifts(exact_lift, low, exact_high, z, distinctive).only_where(known)


def as_if_enough(other_fans: np.ndarray, others: np.ndarray, min_people: int) -> np.ndarray:
    """(n, g, d): others who like a page; where fewer than `min_people` do, as if so many did, spread as people are.

    To compare with so many is cautious, and says nothing of those few.
    """
    few = other_fans.sum(axis=1, keepdims=True) < min_people
    spread = others / np.maximum(others.sum(axis=1, keepdims=True), 1)
    return np.where(few, np.minimum(min_people * spread, others), other_fans)


def interval(lift: np.ndarray, error: np.ndarray, fewest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a lift, by the standard error of its logarithm and how many people know the page."""
    errors = scipy.special.stdtrit(np.maximum(fewest - 1, 1), (1 + _CONFIDENCE) / 2)
    with np.errstate(over="ignore", invalid="ignore"):
        return lift * _exp(-errors * error), lift * _exp(errors * error)


def only_here(likes: Likes) -> np.ndarray:
    """(k, d): whether no other cluster likes the page about as much; k is at least 2."""
    share = likes.held_out.sum(axis=1) / np.maximum(likes.comparable.sum(axis=1), 1)
    second, highest = np.sort(share, axis=0)[-2:]
    return np.asarray(np.where(share == highest, second, highest) < _ABOUT_AS_MUCH * share)


def _ratio(
    fans: np.ndarray, people: np.ndarray, other_fans: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ratio over the strata (k, d), and the standard error of its logarithm; arguments are (k, g, d)."""
    both = np.maximum(people + others, 1)
    here, there = (fans * others / both).sum(axis=1), (other_fans * people / both).sum(axis=1)
    spread = ((people * others * (fans + other_fans) - fans * other_fans * both) / both**2).sum(axis=1)
    return here / there, np.sqrt(spread / (here * there))


def _z(fans: np.ndarray, people: np.ndarray, other_fans: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(k, d): the log-odds ratio with a Dirichlet prior, over its standard error; arguments are (k, g, d)."""
    # Of each two groups by themselves: what others like says nothing of them.
    popularity = (fans + other_fans) / np.maximum(people + others, 1)
    prior = _PRIOR_PEOPLE * np.clip(popularity, 1e-6, 1)
    difference = np.zeros(fans.shape)
    variance = np.zeros(fans.shape)
    for sign, liking, of in ((1, fans, people), (-1, other_fans, others)):
        like, not_like = liking + prior, of - liking + _PRIOR_PEOPLE - prior
        difference += sign * (_log(like) - _log(np.maximum(not_like, 1e-6)))
        variance += 1 / like + 1 / np.maximum(not_like, 1e-6)
    return np.asarray((difference / variance).sum(axis=1) / np.sqrt((1 / variance).sum(axis=1)))


def _log(values: np.ndarray) -> np.ndarray:
    """The natural logarithm; numpy's own rounds differently on processors with AVX-512."""
    return np.asarray(scipy.special.xlogy(1.0, values))


def _exp(values: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.special.exp2(values / math.log(2)))
