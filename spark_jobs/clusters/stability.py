"""How solid each cluster is: would it be found again among other people like these?

The cluster-wise bootstrap of Hennig (2007), R's `fpc::clusterboot` with its defaults: people are drawn with replacement
(somebody drawn twice counts once), the draw is clustered anew, and each cluster is compared with the most similar new
one by the Jaccard coefficient of those members that were drawn. The mean over all draws is the cluster's stability.
There are 10 to 20 draws: fewer where the words for all clusters are clear.
"""

from typing import Literal

import numpy as np
import scipy.sparse as sp

from spark_jobs.clusters import clustering
from spark_jobs.clusters.local_search import QUICK
from spark_jobs.config import KMeansParams

Solidity = Literal["solid", "fair", "doubtful", "unknown"]

SOLID, DOUBTFUL = 0.75, 0.6  # stability from which a cluster is solid, and below which it is doubtful (Hennig 2007)

_FEWEST_DRAWS, _MOST_DRAWS = 10, 20
_INITS = 2  # of each draw, around the best of which is searched
_PARAMS = KMeansParams("kmeans||", 50, 0.01)


def in_words(stability: float) -> Solidity:
    """A stability from 0 to 1 as a word; NaN is `unknown`."""
    if np.isnan(stability):
        return "unknown"
    if stability >= SOLID:
        return "solid"
    return "doubtful" if stability < DOUBTFUL else "fair"


def rounded(stability: float) -> float | None:
    """A stability as files have it: 6 decimals; None for NaN."""
    return None if np.isnan(stability) else round(float(stability), 6)


def stabilities(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray, seed: int) -> np.ndarray:
    """The stability of each cluster, from 0 to 1; NaN for a cluster that nobody is in.

    Args:
        profiles: (n, d) distinct vectors.
        weight: (n,) people with each, who were learned from; may be 0.
        centers: (k, d) of the clusters.
        seed: Of the draws and inits.

    Returns:
        (k,) the mean Jaccard coefficient of each cluster with its most similar one.
    """
    k, n = len(centers), int(weight.sum())
    if not n:
        return np.full(k, np.nan)
    labels = clustering.assign(profiles, centers)[0]
    profile_of = np.repeat(np.arange(len(weight)), weight)
    random = np.random.default_rng(seed)
    similar: list[np.ndarray] = []
    while len(similar) < _MOST_DRAWS and not _are_clear(similar):
        drawn = np.unique(random.integers(0, n, n))
        times = np.bincount(profile_of[drawn], minlength=len(weight))
        kept = np.flatnonzero(times)
        found = clustering.fit(
            profiles[kept], times[kept], k, _PARAMS, _INITS, seed + len(similar), searches=1, tries=QUICK
        ).labels
        shared = np.zeros((k, found.max() + 1))
        np.add.at(shared, (labels[kept], found), times[kept])
        before, after = shared.sum(axis=1, keepdims=True), shared.sum(axis=0)
        jaccard = (shared / np.maximum(before + after - shared, 1)).max(axis=1)
        similar.append(np.where(before[:, 0] > 0, jaccard, np.nan))
    compared = np.isfinite(similar).sum(axis=0)
    return np.asarray(np.divide(np.nansum(similar, axis=0), compared, out=np.full(k, np.nan), where=compared > 0))


def _are_clear(similar: list[np.ndarray]) -> bool:
    """Whether more draws would hardly change the word for any cluster: all means are two standard errors away."""
    if len(similar) < _FEWEST_DRAWS:
        return False
    seen = np.asarray(similar)[:, np.isfinite(similar).all(axis=0)]
    error = seen.std(axis=0) / np.sqrt(len(seen))
    away = np.abs(seen.mean(axis=0)[:, None] - [DOUBTFUL, SOLID]).min(axis=1)
    return bool((away >= 2 * error).all())
