"""Ours, by default settings.

STUB: log1p, l2, and the k with the highest silhouette. To be replaced by the jobs' own functions.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans

from benchmarks.segments import peers, vectors


@dataclass(frozen=True)
class Result:
    """What was found among n users."""

    verdict: str  # "segments", "none" or "too_few"
    k: int
    labels: np.ndarray  # (n,) of everybody, 0 to k - 1


def segment(counts: sp.csr_matrix, seed: int, k: int | None = None) -> Result:
    """The segments of `counts` (n, d); with `k`, that many whether or not they are there."""
    points, busy = vectors.of_taste(counts), vectors.busy(counts)
    chosen = k or peers.PEERS[1].k(counts, 12, seed)
    if not k and (busy.sum() < 50 or chosen == 1):
        return Result("too_few" if busy.sum() < 50 else "none", 1, np.zeros(counts.shape[0], int))
    model = KMeans(chosen, n_init=5, random_state=seed).fit(points[busy])
    return Result("segments", chosen, model.predict(points))
