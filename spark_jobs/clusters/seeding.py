"""First centers of k-means."""

import numpy as np

from spark_jobs.clusters.points import Points


def init_kmeans_plusplus(points: Points, k: int, random: np.random.RandomState) -> np.ndarray:
    """k of the profiles as centers (k, d), by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each is drawn with a chance that grows with its users' squared distance to the nearest center so far; of 2 + ln k
    that are drawn, the one stays that leaves the least of it. scikit-learn does the same, with the same random numbers.
    """
    chosen = [random.choice(len(points.weight), p=points.weight / points.weight.sum())]
    nearest = points.closest_distances(np.array(chosen), np.full(len(points.weight), np.inf))[0][:, 0]
    trials = 2 + int(np.log(k))
    for _ in range(1, k):
        cumulative = np.cumsum(points.weight * nearest)
        drawn = np.searchsorted(cumulative, random.uniform(size=trials) * cumulative[-1])
        drawn = np.minimum(drawn, len(nearest) - 1)
        distances, sums = points.closest_distances(drawn, nearest)
        best = int(np.argmin(sums))
        chosen.append(drawn[best])
        nearest = distances[:, best].copy()
    return np.asarray(points.profiles[chosen].toarray())


def init_random(points: Points, k: int, random: np.random.RandomState) -> np.ndarray:
    """k distinct profiles as centers (k, d), drawn with a chance that grows with their users."""
    chosen = random.choice(len(points.weight), k, replace=False, p=points.weight / points.weight.sum())
    return np.asarray(points.profiles[chosen].toarray())
