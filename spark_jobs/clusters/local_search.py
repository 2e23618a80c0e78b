"""Local search: from a clustering to a better one with as many clusters, where Lloyd's iterations get stuck.

Three moves, repeated until none helps:

- A profile changes its cluster where that lowers the cost, both centers moving along (Hartigan and Wong 1979). Lloyd's
  iterations compare distances to centers that stay, and so miss moves that pay, most of all with small clusters.
- A cluster is given up, and another one is split in two (Ismkhan 2018, "I-k-means-+"). The pairs for which the split
  gains most over what the loss costs come first.
- The cluster that costs least to give up is, and a new one starts at a profile far from all centers, drawn as k-means++
  draws (Lattanzi and Sohler 2019). It finds small clusters whose members are spread over several others.
"""

from dataclasses import dataclass

import numpy as np

from spark_jobs.clusters.points import Points

_SPLIT_ITERATIONS = 5
_CANDIDATES = 8  # profiles of which a new center is the best
_MOST_ROUNDS = 100  # of moves of profiles
_SMALLEST_GAIN = 1e-9  # of the cost, that counts
_PATIENCE = 8  # a try is dropped if its cost would not get below the best in as many rounds as good as the last


@dataclass(frozen=True)
class Tries:
    """How many swaps are tried before a clustering counts as good."""

    splits: int  # pairs of a cluster to give up and one to split
    new_centers: int


THOROUGH = Tries(8, 10)
QUICK = Tries(3, 3)  # two thirds of the time, and as good for comparing clusterings of many draws of the same people


@dataclass(frozen=True)
class Clustering:
    """n profiles in k clusters, each with at least one profile."""

    labels: np.ndarray  # (n,)
    users: np.ndarray  # (k,)
    sums: np.ndarray  # (k, d) over the users of each cluster
    cost: float  # the sum of squared distances to the centers, over the users

    @property
    def centers(self) -> np.ndarray:
        """(k, d)."""
        return np.asarray(self.sums / self.users[:, None])


def improve(points: Points, labels: np.ndarray, random: np.random.RandomState, tries: Tries = THOROUGH) -> np.ndarray:
    """The centers (k, d) of a clustering that is at least as good as the one given.

    Args:
        points: n profiles.
        labels: (n,) their clusters, 0 to k - 1, none of them empty.
        random: Draws the first centers of splits.
        tries: When to stop.
    """
    search = _Search(points, random, tries)
    best = move_profiles(points, _clustering(points, labels, int(labels.max()) + 1))
    while (better := search.swap_clusters(best)) is not None:
        best = better
    return best.centers


def move_profiles(points: Points, start: Clustering, give_up: float = np.inf) -> Clustering:
    """Move profiles between clusters as long as that lowers the cost, in rounds.

    All moves that pay by themselves are made at once; if together they do not, fewer of them, the best first.

    Args:
        points: n profiles.
        start: A clustering of them.
        give_up: Stop early where the cost will not get below this.
    """
    now, most = start, len(start.labels)
    for _ in range(_MOST_ROUNDS):
        to, gain = _best_moves(points, now)
        worth = np.flatnonzero(gain > _SMALLEST_GAIN * now.cost)
        worth = worth[np.argsort(-gain[worth], kind="stable")]
        moved, count = None, min(most, len(worth))
        while count and moved is None:
            moved = _move(points, now, worth[:count], to[worth[:count]])
            count = count if moved is not None else count // 4
        if moved is None:
            break
        step, now = now.cost - moved.cost, moved
        most = len(now.labels) if count == len(worth) else 2 * count
        if now.cost - _PATIENCE * step > give_up:
            break
    return now


def _clustering(points: Points, labels: np.ndarray, k: int) -> Clustering:
    users, sums = np.bincount(labels, points.weight, k), points.sums(labels, k)
    cost = points.total_square - ((sums**2).sum(axis=1) / users).sum()
    return Clustering(labels, users, sums, float(cost))


def _squared_distances(points: Points, centers: np.ndarray) -> np.ndarray:
    """(n, k)."""
    squared = points.profiles @ np.ascontiguousarray(centers.T)
    squared *= -2
    squared += points.squared_norm[:, None]
    squared += (centers**2).sum(axis=1)
    return np.asarray(np.maximum(squared, 0, out=squared))


def _best_moves(points: Points, now: Clustering) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the best other cluster of each profile, and (n,) how much the move lowers the cost; both centers move."""
    weight, users, row = points.weight, now.users, np.arange(len(now.labels))
    squared = _squared_distances(points, now.centers)
    others = users[now.labels] - weight  # who would be left
    left = np.divide(
        squared[row, now.labels] * users[now.labels], others, out=np.full(len(row), -np.inf), where=others > 0
    )
    squared *= users / (users + weight[:, None])
    squared[row, now.labels] = np.inf
    to = squared.argmin(axis=1)
    return to, weight * (left - squared[row, to])


def _move(points: Points, now: Clustering, rows: np.ndarray, to: np.ndarray) -> Clustering | None:
    """The clustering with some profiles in other clusters; None if it costs more, or leaves a cluster empty."""
    labels = now.labels.copy()
    labels[rows] = to
    k = len(now.users)
    if not np.bincount(labels, minlength=k).all():
        return None
    moved = _clustering(points, labels, k)
    return moved if moved.cost < now.cost else None


class _Search:
    """Swaps of clusters. Pairs that failed are not tried again as long as their members stay."""

    def __init__(self, points: Points, random: np.random.RandomState, tries: Tries):
        self.points, self.random, self.tries = points, random, tries
        self._failed: set[tuple[bytes, bytes]] = set()  # pairs of clusters, by their members

    def swap_clusters(self, best: Clustering) -> Clustering | None:
        """The first better clustering with one cluster given up and a new one; None if no try gives one."""
        around = _Around(self.points, best)
        return self._split_another(best, around) or self._start_anew(best, around)

    def _split_another(self, best: Clustering, around: "_Around") -> Clustering | None:
        clusters = range(len(best.users))
        halves = _Halves(self.points, best, self.random)
        gain = around.cost - halves.cost
        pairs = [(gain[one] - around.loss[other], other, one) for one in clusters for other in clusters if one != other]
        names = [np.flatnonzero(best.labels == cluster).tobytes() for cluster in clusters]
        for _, lost, split in sorted(pairs, key=lambda pair: -pair[0])[: self.tries.splits]:
            if (names[lost], names[split]) in self._failed:
                continue
            labels = around.without(lost)
            labels[(best.labels == split) & halves.second] = lost
            if (found := self._better(best, labels)) is not None:
                return found
            self._failed.add((names[lost], names[split]))
        return None

    def _start_anew(self, best: Clustering, around: "_Around") -> Clustering | None:
        lost = int(around.loss.argmin())
        distance = np.where(best.labels == lost, around.to_next, around.to_own)
        for _ in range(self.tries.new_centers):
            labels = around.without(lost)
            labels[self._near_new_center(distance)] = lost
            if (found := self._better(best, labels)) is not None:
                return found
        return None

    def _better(self, best: Clustering, labels: np.ndarray) -> Clustering | None:
        k = len(best.users)
        if not np.bincount(labels, minlength=k).all():
            return None
        found = move_profiles(self.points, _clustering(self.points, labels, k), give_up=best.cost)
        return found if found.cost < best.cost * (1 - _SMALLEST_GAIN) else None

    def _near_new_center(self, distance: np.ndarray) -> np.ndarray:
        """(n,) bool: which profiles are nearer to a new center than `distance` (n,), squared, to the others.

        It is the best of a few profiles that are drawn as k-means++ draws them.
        """
        cumulative = np.cumsum(self.points.weight * distance)
        drawn = np.searchsorted(cumulative, self.random.uniform(size=_CANDIDATES) * cumulative[-1])
        closest, sums = self.points.closest_distances(np.minimum(drawn, len(distance) - 1), distance)
        return np.asarray(closest[:, int(sums.argmin())] < distance)


class _Around:
    """What the profiles of a clustering would cost elsewhere. n profiles, k clusters."""

    def __init__(self, points: Points, clustering: Clustering):
        k, row = len(clustering.users), np.arange(len(clustering.labels))
        squared = _squared_distances(points, clustering.centers)
        self._labels = clustering.labels
        self.to_own = squared[row, clustering.labels]  # (n,) squared
        squared[row, clustering.labels] = np.inf
        self._next = squared.argmin(axis=1)
        self.to_next = squared[row, self._next]  # (n,) squared
        self.cost = np.bincount(clustering.labels, points.weight * self.to_own, k)  # (k,)
        # (k,) what it costs about to give up a cluster
        self.loss = np.bincount(clustering.labels, points.weight * (self.to_next - self.to_own), k)

    def without(self, cluster: int) -> np.ndarray:
        """(n,) the labels if a cluster is given up, and its members go to the next best one."""
        return np.where(self._labels == cluster, self._next, self._labels)


class _Halves:
    """Every cluster in two, by k-means of its own. n profiles, k clusters."""

    def __init__(self, points: Points, clustering: Clustering, random: np.random.RandomState):
        k, labels, row = len(clustering.users), clustering.labels, np.arange(len(clustering.labels))

        def draw(chance: np.ndarray) -> np.ndarray:
            """(k, d): a member of each cluster, drawn with a chance that grows with `chance` (n,)."""
            keys = random.exponential(size=len(labels)) / np.maximum(chance, 1e-300)
            order = np.lexsort((keys, labels))
            first = np.flatnonzero(np.diff(labels[order], prepend=-1))
            return np.asarray(points.profiles[order[first]].toarray())

        one = draw(points.weight)
        other = draw(points.weight * _squared_distances(points, one)[row, labels])
        centers = np.stack([one, other], axis=1).reshape(2 * k, -1)
        for _ in range(_SPLIT_ITERATIONS):
            squared = _squared_distances(points, centers)
            pair = squared[row[:, None], 2 * labels[:, None] + [0, 1]]
            self.second = pair[:, 1] < pair[:, 0]  # (n,) which half a profile is in
            half = 2 * labels + self.second
            users = np.bincount(half, points.weight, 2 * k)[:, None]
            centers = np.where(users > 0, points.sums(half, 2 * k) / np.maximum(users, 1), centers)
        # (k,) what the two cost
        self.cost = np.bincount(labels, points.weight * pair.min(axis=1), k)
