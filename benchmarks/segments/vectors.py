"""What the peers see of an audience: users as vectors."""

import numpy as np
import scipy.sparse as sp

MIN_ACTIONS = 5  # who is fitted on, and for whom recovery is measured
SAMPLE = 2000  # users that a peer sees at most


def actions(counts: sp.csr_matrix) -> np.ndarray:
    """(n,) of each user."""
    return np.asarray(counts.sum(axis=1)).ravel()


def busy(counts: sp.csr_matrix) -> np.ndarray:
    """(n,) bool: the users with at least `MIN_ACTIONS` actions."""
    return np.asarray(actions(counts) >= MIN_ACTIONS)


def of_taste(counts: sp.csr_matrix) -> sp.csr_matrix:
    """(n, d) of unit length: log(1 + count), then l2. Rows without an action stay 0."""
    logs = counts.log1p().tocsr()
    length = np.sqrt(np.asarray(logs.multiply(logs).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags(1 / np.maximum(length, 1e-12)) @ logs)


def of_volume(counts: sp.csr_matrix) -> sp.csr_matrix:
    """(n, d): the predecessor's vectors, all counts times one factor 1 / (1 + the largest)."""
    return sp.csr_matrix(counts / (1 + counts.max()))


def sample(points: sp.csr_matrix | np.ndarray, seed: int, size: int = SAMPLE) -> np.ndarray:
    """At most `size` rows at random, dense, without the columns that are 0 in all of them."""
    n = points.shape[0]
    if n > size:
        points = points[np.sort(np.random.default_rng(seed).choice(n, size, replace=False))]
    dense = points.toarray() if sp.issparse(points) else np.asarray(points, float)
    return np.asarray(dense[:, (dense != 0).any(axis=0)])
