"""How clearly the people of a segment belong to it, by the `confidence` of each: 0 is halfway to another segment."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from spark_jobs.clusters import published

CLEARLY = 0.05  # the confidence above which somebody clearly belongs: the next center is at least that much farther

_IN_WORDS = (  # the share from which it is said
    (0.9, "Nearly everybody here clearly belongs"),
    (0.6, "Most people here clearly belong"),
    (0.4, "About half of the people here clearly belong"),
    (0.0, "Most people here could as well be in another segment"),
)


@dataclass(frozen=True)
class Clearness:
    """The share of a segment's people who clearly belong to it, as published, from 0 to 1; and what that means."""

    share: float
    in_words: str


def count_clear(assigned: Iterable[tuple[np.ndarray, np.ndarray]], k: int) -> np.ndarray:
    """(k,) int64 how many people of each cluster clearly belong to it.

    Args:
        assigned: Some people at a time: the cluster (n,) and the confidence (n,) of each.
        k: How many clusters there are.
    """
    clear = np.zeros(k, np.int64)
    for cluster, confidence in assigned:
        clear += np.bincount(cluster[confidence > CLEARLY], minlength=k)
    return clear


def clearness_of(clear: int, people: int, min_people: int) -> Clearness | None:
    """How clearly the people of a segment belong to it; None where either count is too small to be said.

    Args:
        clear: How many people clearly belong.
        people: How many there are.
        min_people: See `published`.
    """
    share = published.share(clear, people, min_people)
    if share is None:
        return None
    return Clearness(share, next(words for least, words in _IN_WORDS if share >= least))
