"""What kind of people are in each cluster: their genders, and what they do; counted as they are written."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from spark_jobs.clusters.action_mix import ActionMix

_MOST_ACTIONS = 1 << 40  # more are counted as so many


@dataclass(frozen=True)
class Quartiles:
    """Of the actions of some people: a quarter has at most `first`, half at most `median`, three quarters `third`."""

    first: int
    median: int
    third: int


class Traits:
    """The genders and actions of the people of k clusters."""

    def __init__(self, k: int):
        self._genders: list[Counter[str]] = [Counter() for _ in range(k)]
        self._actions: list[tuple[np.ndarray, np.ndarray]] = []  # cluster and actions as one number; people
        self._mix: ActionMix | None = None
        self._k = k

    def add(
        self,
        cluster: np.ndarray,
        genders: pa.StringArray,
        actions: pa.Int64Array,
        of_each: Sequence[pa.Int64Array] = (),
    ) -> None:
        """Count some people.

        Args:
            cluster: The cluster of each (n,).
            genders: Their genders.
            actions: How many actions they have; null if not known.
            of_each: How many of each of ACTIONS they have; null if not known.
        """
        encoded = genders.dictionary_encode()
        values = encoded.dictionary.to_pylist()
        cell = cluster.astype(np.int64) * len(values) + encoded.indices.to_numpy()
        counted = np.bincount(cell, minlength=self._k * len(values)).reshape(self._k, len(values))
        for of_cluster, people in zip(self._genders, counted.tolist(), strict=True):
            of_cluster.update({value: n for value, n in zip(values, people, strict=True) if n})
        if not actions.null_count:
            key = cluster.astype(np.int64) * _MOST_ACTIONS + np.minimum(actions.to_numpy(), _MOST_ACTIONS - 1)
            self._actions.append(np.unique(key, return_counts=True))

        if of_each and not any(counts.null_count for counts in of_each):
            if self._mix is None:
                self._mix = ActionMix(self._k)
            self._mix.add(cluster, [counts.to_numpy() for counts in of_each])

    @property
    def mix(self) -> ActionMix | None:
        """Their mix of actions; None where that is not known."""
        return self._mix

    def genders(self, cluster: int) -> dict[str, int]:
        """People of a cluster by gender, by its name."""
        return dict(sorted(self._genders[cluster].items()))

    def activity(self) -> list[Quartiles | None]:
        """Of each cluster; None where its people's actions are not known."""
        if not self._actions:
            return [None] * self._k
        keys, people = (np.concatenate(column) for column in zip(*self._actions, strict=True))
        order = np.argsort(keys, kind="stable")
        cluster, actions = np.divmod(keys[order], _MOST_ACTIONS)
        ends = np.searchsorted(cluster, np.arange(self._k + 1))
        return [
            _quartiles(actions[start:end], people[order][start:end].cumsum())
            for start, end in itertools.pairwise(ends.tolist())
        ]


def _quartiles(actions: np.ndarray, up_to: np.ndarray) -> Quartiles | None:
    """Of people with so many actions (n,), rising, and how many people have at most so many (n,)."""
    if not len(actions):
        return None
    return Quartiles(*(int(actions[np.searchsorted(up_to, part * up_to[-1])]) for part in (0.25, 0.5, 0.75)))
