"""k-means over weighted distinct profiles, its scores, and what its clusters look like.

A profile of weight w stands for w users with the same vector, so the objective (wssse) and every mean are those over
the users, at the cost of the distinct profiles. Profiles stay sparse throughout; centers are dense.

scikit-learn seeds the inits (`kmeans_plusplus`). Its Lloyd iterations are not used, for two reasons: they stop when
the squared moves of all centers add up to little, where the contract asks for Spark's rule, that no center moves
farther than epsilon; and they add up centers in the order in which threads end, so two runs differ in the last bits,
where the contract asks for the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import scipy.sparse as sp

from spark_jobs.config import KMeansParams


@dataclass(frozen=True)
class Model:
    """A fitted k-means. n profiles, d dimensions, k clusters, numbered by users, the largest first."""

    centers: np.ndarray  # (k, d)
    labels: np.ndarray  # (n,) the cluster of each profile
    distances: np.ndarray  # (n,) from each profile to its center
    users: np.ndarray  # (k,) users in each cluster
    wssse: float  # within-cluster sum of squared distances, over the users
    iterations: int
    converged: bool

    @property
    def k(self) -> int:
        return len(self.centers)


def engine_version() -> str:
    """The name and version of the library that seeds, such as `scikit-learn 1.7.0`."""
    return f"scikit-learn {metadata.version('scikit-learn')}"


def fit(
    profiles: sp.csr_matrix,
    weight: np.ndarray,
    k: int,
    params: KMeansParams,
    n_init: int,
    seed: int,
    progress: Callable[[int, Model], None] = lambda _init, _model: None,
) -> Model:
    """Cluster profiles, and keep the best of several inits: that with the lowest wssse.

    Args:
        profiles: (n, d), distinct rows.
        weight: (n,) users of each profile, at least 1.
        k: Clusters; cut to n. A cluster that ends up empty is left out.
        params: The init, the most iterations, and epsilon. `kmeans||` is seeded by k-means++ (Arthur and
            Vassilvitskii 2007), which Spark's k-means|| approximates in parallel; `random` draws distinct profiles
            with a chance that grows with their weight.
        n_init: How many inits.
        seed: Of the random numbers; every init has its own stream.
        progress: Called with the number of each init and its model.
    """
    k = min(k, profiles.shape[0])
    if k == 0:
        nothing = np.zeros(0)
        return Model(np.zeros((0, profiles.shape[1])), nothing.astype(int), nothing, nothing.astype(int), 0.0, 0, True)
    best: Model | None = None
    for init, stream in enumerate(np.random.SeedSequence(seed).spawn(n_init), 1):
        centers = _seed(profiles, weight, k, params.init, np.random.RandomState(np.random.MT19937(stream)))
        model = lloyd(profiles, weight, centers, params.iterations, params.epsilon)
        progress(init, model)
        if best is None or model.wssse < best.wssse:
            best = model
    assert best is not None
    return _in_order(best)


def lloyd(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray, iterations: int, epsilon: float) -> Model:
    """Lloyd's iterations from given centers (k, d), stopping as Spark does.

    It is converged when in an iteration no center moves farther than epsilon (Spark 4.2, `KMeans.runAlgorithm`). A
    center that no profile is nearest to moves to the profile that is farthest from its own.
    """
    converged = False
    done = 0
    while done < iterations and not converged:
        labels, _ = _nearest(profiles, centers)
        moved = _means(profiles, weight, labels, centers)
        converged = bool(np.sqrt(((moved - centers) ** 2).sum(axis=1)).max() <= epsilon)
        centers = moved
        done += 1
    labels, _ = _nearest(profiles, centers)
    users = np.bincount(labels, weights=weight, minlength=len(centers)).astype(np.int64)
    distances = distances_to_own(profiles, centers, labels)
    return Model(centers, labels, distances, users, float(weight @ distances**2), done, converged)


def distances_to_own(profiles: sp.csr_matrix, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The distance (n,) of each profile to the center of its cluster, without the error of ‖x‖² - 2xc + ‖c‖²."""
    row = np.repeat(np.arange(profiles.shape[0]), np.diff(profiles.indptr))
    center = centers[labels[row], profiles.indices]
    on_support = np.bincount(row, weights=(profiles.data - center) ** 2, minlength=profiles.shape[0])
    norm = (centers**2).sum(axis=1)[labels]
    off_support = norm - np.bincount(row, weights=center**2, minlength=profiles.shape[0])
    off_support[off_support < 1e-15 * norm] = 0  # what is left of a difference of equal sums
    return np.asarray(np.sqrt(on_support + off_support))


def _seed(profiles: sp.csr_matrix, weight: np.ndarray, k: int, init: str, random: np.random.RandomState) -> np.ndarray:
    if init == "random":
        chosen = random.choice(profiles.shape[0], k, replace=False, p=weight / weight.sum())
    else:
        from sklearn.cluster import kmeans_plusplus  # takes seconds to import, which planning has no use for

        _, chosen = kmeans_plusplus(profiles, k, sample_weight=weight.astype(float), random_state=random)
    return np.asarray(profiles[chosen].toarray())


def _nearest(profiles: sp.csr_matrix, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest center of each profile (n,), ties to the lowest, and ‖c‖² - 2xc for all centers (n, k)."""
    score = (centers**2).sum(axis=1) - 2 * (profiles @ centers.T)
    return score.argmin(axis=1), score


def _means(profiles: sp.csr_matrix, weight: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    k = len(centers)
    users = np.bincount(labels, weights=weight, minlength=k)
    empty = np.flatnonzero(users == 0)
    if empty.size:
        farthest = np.argsort(-distances_to_own(profiles, centers, labels), kind="stable")[: empty.size]
        labels = labels.copy()
        labels[farthest] = empty
        users = np.bincount(labels, weights=weight, minlength=k)
    sums = (_membership(labels, weight, k) @ profiles).toarray()
    # A cluster whose only profile was just taken for an empty one keeps its center.
    return np.where(users[:, None] > 0, sums / np.maximum(users, 1)[:, None], centers)


def _membership(labels: np.ndarray, weight: np.ndarray, k: int) -> sp.csr_matrix:
    """(k, n): the weight of each profile in the row of its cluster."""
    return sp.csr_matrix((weight.astype(float), (labels, np.arange(len(labels)))), shape=(k, len(labels)))


def _in_order(model: Model) -> Model:
    """The model with its clusters numbered by users, the largest first, ties by the center; empty ones left out."""
    order = sorted(np.flatnonzero(model.users), key=lambda c: (-model.users[c], tuple(model.centers[c])))
    number = np.full(model.k, -1)
    number[order] = np.arange(len(order))
    return Model(
        model.centers[order],
        number[model.labels],
        model.distances,
        model.users[order],
        model.wssse,
        model.iterations,
        model.converged,
    )


# --- scores ----------------------------------------------------------------------------------------


def scores(profiles: sp.csr_matrix, weight: np.ndarray, model: Model) -> dict[str, float | None]:
    """Scores of a model over the users; None where one is not defined.

    `wssse`: the objective. `silhouette`: the mean simplified silhouette (Hruschka et al. 2004), from distances to
    centers; 0 for a user alone in a cluster, not defined for one cluster. `calinski_harabasz`: variance between
    clusters to that within (Caliński and Harabasz 1974); not defined for one cluster or where nothing is within.
    """
    return {
        "wssse": model.wssse,
        "silhouette": _simplified_silhouette(profiles, weight, model),
        "calinski_harabasz": _calinski_harabasz(weight, model),
    }


def _simplified_silhouette(profiles: sp.csr_matrix, weight: np.ndarray, model: Model) -> float | None:
    if model.k < 2:
        return None
    _, score = _nearest(profiles, model.centers)
    score[np.arange(len(score)), model.labels] = np.inf
    squared_norm = np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel()
    to_next = np.sqrt(np.maximum(score.min(axis=1) + squared_norm, 0))
    larger = np.maximum(to_next, model.distances)
    silhouette = np.divide(to_next - model.distances, larger, out=np.zeros_like(larger), where=larger > 0)
    silhouette[model.users[model.labels] == 1] = 0
    return float(silhouette @ weight / weight.sum())


def _calinski_harabasz(weight: np.ndarray, model: Model) -> float | None:
    users = int(weight.sum())
    if model.k < 2 or users <= model.k or model.wssse == 0:
        return None
    mean = model.users @ model.centers / users
    between = float(model.users @ ((model.centers - mean) ** 2).sum(axis=1))
    return between / (model.k - 1) / (model.wssse / (users - model.k))


# --- what the clusters look like -------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterDimensions:
    """The members of each cluster on each dimension; all (k, d)."""

    member_count: np.ndarray  # int64: users with a value above 0
    minimum: np.ndarray
    maximum: np.ndarray
    average: np.ndarray


def describe(profiles: sp.csr_matrix, weight: np.ndarray, model: Model) -> ClusterDimensions:
    """What the members of each cluster are like on each dimension."""
    membership = _membership(model.labels, weight, model.k)
    shape = model.centers.shape
    minimum, maximum = np.zeros(shape), np.zeros(shape)
    for cluster in range(model.k):
        members = profiles[model.labels == cluster]
        minimum[cluster] = members.min(axis=0).toarray().ravel()
        maximum[cluster] = members.max(axis=0).toarray().ravel()
    return ClusterDimensions(
        (membership @ (profiles > 0)).toarray().astype(np.int64).reshape(shape),
        minimum,
        maximum,
        (membership @ profiles).toarray() / np.maximum(model.users, 1)[:, None],
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


# --- choosing k ------------------------------------------------------------------------------------


def choose_k(tried: list[dict[str, Any]], criterion: str) -> int:
    """The k of the best row of `tried`, which has `k` and `scores` for each; the smallest k among equals.

    `silhouette` and `calinski_harabasz`: the highest score. `elbow`: the k whose wssse lies farthest below the line
    from the first to the last (Satopää et al. 2011). Where the criterion is not defined for any k, the first one.
    """
    ks = np.array([row["k"] for row in tried], float)
    if criterion == "elbow":
        wssse = np.array([row["wssse"] for row in tried])
        if len(ks) < 3 or wssse[0] == wssse[-1]:
            return int(ks[0])
        line = wssse[0] + (wssse[-1] - wssse[0]) * (ks - ks[0]) / (ks[-1] - ks[0])
        return int(ks[np.argmax(line - wssse)])
    values = np.array([-np.inf if row[criterion] is None else row[criterion] for row in tried])
    return int(ks[np.argmax(values)])
