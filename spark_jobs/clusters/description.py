"""What clusters look like: their members on each dimension, and how wide they are."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from spark_jobs.clusters.clustering import Model
from spark_jobs.clusters.points import membership


@dataclass(frozen=True)
class ClusterDimensions:
    """The members of each cluster on each dimension; all (k, d)."""

    member_count: np.ndarray  # int64: users with a value above 0
    minimum: np.ndarray
    maximum: np.ndarray
    average: np.ndarray


def describe(profiles: sp.csr_matrix, weight: np.ndarray, model: Model) -> ClusterDimensions:
    """What the members of each cluster are like on each dimension."""
    of_cluster = membership(model.labels, weight, model.k)
    shape = model.centers.shape
    minimum, maximum = np.zeros(shape), np.zeros(shape)
    for cluster in range(model.k):
        members = profiles[model.labels == cluster]
        minimum[cluster] = members.min(axis=0).toarray().ravel()
        maximum[cluster] = members.max(axis=0).toarray().ravel()
    return ClusterDimensions(
        (of_cluster @ (profiles > 0)).toarray().astype(np.int64).reshape(shape),
        minimum,
        maximum,
        (of_cluster @ profiles).toarray() / np.maximum(model.users, 1)[:, None],
    )


def value_range(profiles: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of any profile on each dimension, both (d,)."""
    if profiles.shape[0] == 0:
        return np.zeros(profiles.shape[1]), np.zeros(profiles.shape[1])
    columns = profiles.tocsc()
    return columns.min(axis=0).toarray().ravel(), columns.max(axis=0).toarray().ravel()


def diameters(model: Model) -> np.ndarray:
    """Twice the largest distance of a member to its center, (k,)."""
    largest = np.zeros(model.k)
    np.maximum.at(largest, model.labels, model.distances)
    return 2 * largest
