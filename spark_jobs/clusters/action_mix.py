"""The mix of actions: how much of what people do are page likes, page comments, post likes and post comments.

Each person counts the same, however much they do: the mix of some people is the mean of what each of them does. So it
says what is usual among them, and no single busy account decides it, or can be seen in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spark_jobs.clusters import published
from spark_jobs.config import ACTIONS

UNIT = 1_000_000  # a person's whole: parts are whole numbers, whose sum does not depend on their order

IN_WORDS = {
    "page_like": "page likes",
    "page_comment": "page comments",
    "post_like": "post likes",
    "post_comment": "post comments",
}


@dataclass(frozen=True)
class Mix:
    """What some people do."""

    people: int  # who do anything
    doing: Mapping[str, int]  # of each action, how many of them do it
    parts: Mapping[str, int]  # of each action, their shares of it added up, in UNITs


class ActionMix:
    """The mix of actions of the people of k clusters."""

    def __init__(self, k: int):
        self._people = np.zeros(k, np.int64)
        self._doing = np.zeros((len(ACTIONS), k), np.int64)
        self._parts = np.zeros((len(ACTIONS), k), np.int64)
        self._k = k

    def add(self, cluster: np.ndarray, counts: Sequence[np.ndarray]) -> None:
        """Count some people, given the cluster of each (n,), and how often each did each of ACTIONS (4, n)."""
        total = np.sum([count.astype(np.float64) for count in counts], axis=0)
        self._people += np.bincount(cluster[total > 0], minlength=self._k)
        for action, count in enumerate(counts):
            does = np.flatnonzero(count)
            where = cluster[does]
            parts = np.rint(count[does] * float(UNIT) / total[does])
            self._doing[action] += np.bincount(where, minlength=self._k)
            self._parts[action] += np.bincount(where, parts, self._k).astype(np.int64)  # exact, far below 2^53

    def of(self, cluster: int) -> Mix:
        """The mix of a cluster."""
        return _mix(int(self._people[cluster]), self._doing[:, cluster], self._parts[:, cluster])

    def of_all(self) -> Mix:
        """The mix of everybody."""
        return _mix(int(self._people.sum()), self._doing.sum(axis=1), self._parts.sum(axis=1))


def _mix(people: int, doing: np.ndarray, parts: np.ndarray) -> Mix:
    of = (dict(zip(ACTIONS, numbers.tolist(), strict=True)) for numbers in (doing, parts))
    return Mix(people, *of)


def publish(mix: Mix, min_people: int) -> dict[str, dict[str, Any]]:
    """What may be said of a mix: of each action the `people` who do it, and its `share` of what a person does.

    The shares of all people add up to their number, as if some did one thing only. So they are published as numbers of
    people are: rounded to multiples of `min_people`, which hides what fewer than that do, also from those who subtract.
    An action that fewer people do has no share.
    """
    whole = published.count(mix.people, min_people)
    return {
        action: {
            "people": published.count(mix.doing[action], min_people),
            "share": _share(mix.doing[action], mix.parts[action], whole, min_people),
        }
        for action in ACTIONS
    }


def _share(doing: int, parts: int, whole: int | None, min_people: int) -> float | None:
    if whole is None or doing < min_people:
        return None
    step = min_people * UNIT
    rounded = (2 * parts + step) // (2 * step) * min_people
    return min(1.0, round(rounded / whole, 2))


def in_short(actions: Mapping[str, Mapping[str, Any]] | None) -> str:
    """A published mix in a line, such as `page likes 72%, post likes 20%`; what has no share is left out."""
    if actions is None:
        return "not known"
    shares = sorted((-(actions[action]["share"] or 0), IN_WORDS[action]) for action in ACTIONS)
    return ", ".join(f"{name} {-share:.0%}" for share, name in shares if share) or "not known"
