"""What each segment is compared with, beside all other people: everybody, and each other segment.

**Everybody** are all people, the segment's own among them. The lift is how many of the segment's people like a page,
over how many would if its people did as everybody of their stratum does. It follows from the lift against all others:
with w, the part of that expectation that is the segment's own doing, it is 1 / (w + (1 - w) / lift), as are the ends
of its interval. So it says of the same pages that they differ, and is as sure of it. People of the month who like no
page of the category are in no stratum of people who do: they have no weight in it.

**Another segment** is compared like all others (`lifts`), each two segments by themselves. What is said of all others
and of each other segment must not give away, by subtraction, those of whom nothing is said: see `withheld`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from spark_jobs.clusters import published
from spark_jobs.clusters.lifts import LEAST_LIFT, Lifts, compare
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


def against_everybody(likes: Likes, rest: Lifts) -> Lifts:
    """Compare each cluster with everybody.

    Args:
        likes: Of k clusters on d pages.
        rest: How each differs from all other people, of the same likes.
    """
    fans, people = likes.held_out, likes.comparable
    part = people / np.maximum(people.sum(axis=0), 1)  # of each stratum, who are the cluster's own
    own = (fans * part).sum(axis=1) / np.maximum(fans.sum(axis=1), 1)

    def of(ratio: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(1 / (own + (1 - own) / ratio))

    lift, low, high = of(rest.lift), of(rest.low), of(rest.high)
    # Where few others like the page, only the lower end is known.
    distinctive = rest.distinctive & (np.where(np.isnan(lift), low, lift) >= LEAST_LIFT)
    return Lifts(lift, low, high, rest.z, distinctive)


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
            found = compare(fans_here, people_here, counted[some], people[some], few[some], min_people)
            found = found.only_where(~few[one] & said[one] & said[some])
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
    of_all, everybody = against_everybody(likes, rest), len(counted.people)
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
