"""What each segment is compared with, beside all other people: everybody, and each other segment.

**Everybody** are all people, the segment's own among them. The lift is how many of the segment's people like a page,
over how many would if they did as everybody of their stratum does. A page that does not set a segment apart from all
others does not from everybody either. People of the month who like no page of the category are in no stratum of people
who do: they have no weight in it.

**Another segment** is compared like all others (`lifts`), each two segments by themselves. What is said of all others
and of each other segment must not give away, by subtraction, those of whom nothing is said: see `withheld`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from spark_jobs.clusters import published
from spark_jobs.clusters.lifts import LEAST_LIFT, Lifts, as_if_enough, compare, interval
from spark_jobs.clusters.likes import Likes
from spark_jobs.clusters.published import EVERYBODY, SEGMENT, SEGMENT_COMPARISON

_CELLS = 1 << 15  # of strata and pages, that are compared at a time: they stay in the processor's cache


@dataclass(frozen=True)
class Counted:
    """Exact counts of the people of k segments on d pages."""

    fans: np.ndarray  # (k, d) those of each segment who like each page
    people: np.ndarray  # (k,)
    page_ids: list[str]  # d
    page_names: list[str]  # d


def against_everybody(likes: Likes, rest: Lifts, min_people: int) -> Lifts:
    """Compare each cluster with everybody.

    Args:
        likes: Of k clusters on d pages.
        rest: How each differs from all other people, of the same likes.
        min_people: How many people a figure must be of.
    """
    fans, people = likes.held_out, likes.comparable
    others, other_fans = people.sum(axis=0) - people, fans.sum(axis=0) - fans
    compared = as_if_enough(other_fans, others, min_people)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift, error = _over_expected(fans, people, compared, others)
        low, high = interval(lift, error, np.minimum(fans.sum(axis=1), compared.sum(axis=1)))
        distinctive = rest.distinctive & (low > 1) & (lift >= LEAST_LIFT)
    few_others = other_fans.sum(axis=1) < min_people
    exact_lift, exact_high = (np.where(few_others, np.nan, values) for values in (lift, high))
    return Lifts(exact_lift, low, exact_high, rest.z, distinctive).only_where(
        np.isfinite(rest.low) & np.isfinite(error)
    )


def _over_expected(
    fans: np.ndarray, people: np.ndarray, other_fans: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many like a page over how many would (k, d), and the standard error of its logarithm; arguments (k, g, d).

    The error is by the delta method, of the four kinds of people in each stratum: how many of them are the cluster's
    own is by chance as well.
    """
    everybody, all_fans = np.maximum(people + others, 1), fans + other_fans
    own, liking = people / everybody, all_fans / everybody  # parts of each stratum
    observed, expected = fans.sum(axis=1), (own * all_fans).sum(axis=1)
    less = own * liking
    variance = (
        fans * (1 / observed[:, None] - (liking + own - less) / expected[:, None]) ** 2
        + (other_fans * (own - less) ** 2 + (people - fans) * (liking - less) ** 2 + (others - other_fans) * less**2)
        / expected[:, None] ** 2
    ).sum(axis=1)
    return observed / expected, np.sqrt(variance)


def against_each_other(likes: Likes, fans: np.ndarray, min_people: int) -> Iterator[tuple[int, int, Lifts]]:
    """Compare each cluster with each other one: two clusters, and how the first differs from the second, each (d,).

    Args:
        likes: Of k clusters on d pages.
        fans: (k, d) how many of each cluster's people like each page.
        min_people: How many people a figure must be of.
    """
    counted, people = likes.held_out, likes.comparable
    few = (counted.sum(axis=1) < min_people) | (fans < min_people)
    said = ~withheld(counted.sum(axis=1), few, min_people)
    at_once = max(1, _CELLS // counted[0].size)
    for one in range(len(fans)):
        others = [other for other in range(len(fans)) if other != one]
        for start in range(0, len(others), at_once):
            some = others[start : start + at_once]
            fans_here, people_here = (np.repeat(of[one : one + 1], len(some), axis=0) for of in (counted, people))
            found = compare(fans_here, people_here, counted[some], people[some], min_people)
            # By their other pages, there may be enough fans in a segment that has few: only the lower end is said.
            lift, high = (np.where(few[some], np.nan, values) for values in (found.lift, found.high))
            found = replace(found, lift=lift, high=high).only_where(~few[one] & said[one] & said[some])
            for number, other in enumerate(some):
                yield one, other, Lifts(*(values[number] for values in vars(found).values()))


def withheld(fans: np.ndarray, few: np.ndarray, min_people: int) -> np.ndarray:
    """(k, d) bool: what may not be said in comparisons of two segments, though enough people like the page.

    What all others do, less what is said of each other segment, is what the segments do that have too few people. If
    these are fewer than `min_people` together, nothing is said of the next smallest segment either.

    Args:
        fans: (k, d) who like each page.
        few: (k, d) bool, of whom nothing is said anyway.
        min_people: How many people a figure must be of.
    """
    together = np.where(few, fans, 0).sum(axis=0)
    given_away = few.any(axis=0) & (together < min_people) & ~few.all(axis=0)
    smallest = np.where(few, np.iinfo(np.int64).max, fans).argmin(axis=0)
    return np.asarray((np.arange(len(fans))[:, None] == smallest) & given_away)


def comparisons(counted: Counted, likes: Likes, rest: Lifts, min_people: int) -> pa.Table:
    """Rows of SEGMENT_COMPARISON, by segment, baseline (everybody, then the others), and the order of the pages.

    Args:
        counted: Everybody.
        likes: Of those on whom segments are compared.
        rest: How each segment differs from all other people.
        min_people: How many people a figure must be of.
    """
    of_all, everybody = against_everybody(likes, rest, min_people), len(counted.people)
    tables = _Tables(counted, min_people)
    in_order = [
        [tables.rows(cluster, everybody, Lifts(*(values[cluster] for values in vars(of_all).values())))]
        for cluster in range(everybody)
    ]
    for one, other, lifts in against_each_other(likes, counted.fans, min_people):
        in_order[one].append(tables.rows(one, other, lifts))
    batches = [batch for of_cluster in in_order for batch in of_cluster]
    return pa.Table.from_batches(batches, SEGMENT_COMPARISON).combine_chunks()


class _Tables:
    """Makes the rows of a segment and a baseline. Published counts are made once; everybody are number k."""

    def __init__(self, counted: Counted, min_people: int):
        self._everybody = len(counted.people)
        fans = np.vstack([counted.fans, counted.fans.sum(axis=0)])
        people = [*counted.people.tolist(), int(counted.people.sum())]
        self._enough = fans >= min_people
        self._ids, self._names = pa.array(counted.page_ids, pa.string()), pa.array(counted.page_names, pa.string())
        self._people = [pa.array([published.count(n, min_people) for n in row], pa.int64()) for row in fans.tolist()]
        self._shares = [
            pa.array([published.share(n, of, min_people) for n in row], pa.float64())
            for row, of in zip(fans.tolist(), people, strict=True)
        ]

    def rows(self, cluster: int, other: int, lifts: Lifts) -> pa.RecordBatch:
        """Of the pages that enough of the segment's people like."""
        pages = np.flatnonzero(self._enough[cluster])
        taken, n = pa.array(pages), len(pages)
        everybody = other == self._everybody
        columns = [
            pa.array(np.full(n, cluster, np.int32)),
            pa.array([EVERYBODY if everybody else SEGMENT] * n, pa.string()),
            pa.array([None if everybody else other] * n, pa.int32()),
            *(column.take(taken) for column in (self._ids, self._names)),
            *(of[each].take(taken) for each in (cluster, other) for of in (self._people, self._shares)),
            *(_known(published.ratios(of[pages])) for of in (lifts.lift, lifts.low, lifts.high)),
            _known(published.z_scores(lifts.z[pages])),
            pa.array(lifts.distinctive[pages]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SEGMENT_COMPARISON)


def _known(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def nothing_compared() -> pa.Table:
    """No row, where there are no two segments."""
    return SEGMENT_COMPARISON.empty_table()
