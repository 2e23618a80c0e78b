"""k-means over weighted distinct profiles, its scores, and what its clusters look like.

A profile of weight w stands for w users with the same vector, so the objective (wssse) and every mean are those over
the users, at the cost of the distinct profiles. Profiles stay sparse throughout; centers are dense.

scikit-learn's k-means would do most of it, and is not used for three reasons. It stops when the squared moves of all
centers add up to little, where the contract asks for Spark's rule, that no center moves farther than epsilon. It adds
up centers in the order in which threads end, so two runs differ in the last bits, where the contract asks for the same
bytes. And its seeding on sparse rows takes as long as all that follows. Tests hold what is here against it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from spark_jobs.config import KMeansParams

_BLOCK = 1 << 13  # profiles at a time, whose distances stay in a core's cache
_CORESET = 1 << 16  # profiles on which inits start, where there are many more


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
    """The name and version of the library that computes, such as `numpy 2.4.0`."""
    return f"numpy {np.__version__}"


def fit(
    profiles: sp.csr_matrix,
    weight: np.ndarray,
    k: int,
    params: KMeansParams,
    n_init: int,
    seed: int,
    progress: Callable[[int, Model], None] = lambda _init, _model: None,
    cores: int = 1,
) -> Model:
    """Cluster profiles, and keep the best of several inits: that with the lowest wssse.

    Args:
        profiles: (n, d), distinct rows.
        weight: (n,) users of each profile, at least 1.
        k: Clusters; cut to n. A cluster that ends up empty is left out.
        params: The init, the most iterations, and epsilon. `kmeans||` is seeded by greedy k-means++, which Spark's
            k-means|| approximates in parallel; `random` draws distinct profiles with a chance that grows with their
            weight.
        n_init: How many inits. Of very many profiles each starts on a coreset, and goes on with all of them from where
            that converged, which takes a few iterations instead of many.
        seed: Of the random numbers; every init has its own stream.
        progress: Called with the number of each init and its model, in order.
        cores: How many inits run at a time; the result does not depend on it.
    """
    k = min(k, profiles.shape[0])
    if k == 0:
        nothing = np.zeros(0)
        return Model(np.zeros((0, profiles.shape[1])), nothing.astype(int), nothing, nothing.astype(int), 0.0, 0, True)
    points = Points(profiles, weight)
    sequence = np.random.SeedSequence(seed)
    sample = coreset(points, _CORESET, np.random.default_rng(sequence)) if profiles.shape[0] > 2 * _CORESET else None

    def run(stream: np.random.SeedSequence) -> Model:
        random = np.random.RandomState(np.random.MT19937(stream))
        few = points if sample is None else sample
        centers = seed_randomly(few, k, random) if params.init == "random" else seed_far_apart(few, k, random)
        if sample is not None:
            centers = _lloyd(sample, centers, params.iterations, params.epsilon).centers
        return _lloyd(points, centers, params.iterations, params.epsilon)

    best: Model | None = None
    # Of few profiles, threads take each other the interpreter's lock rather than time off.
    with ThreadPoolExecutor(cores if len(points.blocks) > 1 else 1) as threads:
        for init, model in enumerate(threads.map(run, sequence.spawn(n_init)), 1):
            progress(init, model)
            if best is None or model.wssse < best.wssse:
                best = model
    assert best is not None
    return _in_order(best)


class Points:
    """Profiles, with what all inits need of them."""

    def __init__(self, profiles: sp.csr_matrix, weight: np.ndarray):
        self.profiles = profiles
        self.weight = weight.astype(float)
        self.squared_norm = np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel()
        self.blocks = [_Block(profiles, self.weight, start) for start in range(0, profiles.shape[0], _BLOCK)]

    def nearer(self, chosen: np.ndarray, nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, t): the squared distance of each profile to each of t chosen ones, or `nearest` (n,) where that is less;
        and (t,) its sum over the users."""
        columns, own_norm = self.profiles[chosen].toarray().T, self.squared_norm[chosen]
        distances, sums = np.empty((len(self.weight), len(chosen))), np.zeros(len(chosen))
        for block in self.blocks:
            squared = distances[block.here]
            np.multiply(block.profiles @ columns, -2, out=squared)
            squared += self.squared_norm[block.here, None]
            squared += own_norm
            np.maximum(squared, 0, out=squared)
            np.minimum(squared, nearest[block.here, None], out=squared)
            sums += block.weight @ squared
        distances[chosen, np.arange(len(chosen))] = 0
        return distances, sums


class _Block:
    """Some neighbours among the profiles."""

    def __init__(self, profiles: sp.csr_matrix, weight: np.ndarray, start: int):
        self.profiles = profiles[start : start + _BLOCK]
        self.here = slice(start, start + self.profiles.shape[0])
        self.weight = weight[self.here]
        self.row = np.repeat(np.arange(self.profiles.shape[0]), np.diff(self.profiles.indptr))  # of each entry
        self.weighted = self.profiles.data * self.weight[self.row]


def coreset(points: Points, size: int, random: np.random.Generator) -> Points:
    """At most so many of the profiles, weighted so that for any centers they cost about what all of them do.

    A lightweight coreset (Bachem, Lucic and Krause 2018): half of the draws by users, half by what these add to the
    variance.
    """
    weight, profiles = points.weight, points.profiles
    mean = weight @ profiles / weight.sum()
    variance = weight * np.maximum(points.squared_norm - 2 * (profiles @ mean) + mean @ mean, 0)
    chance = weight / weight.sum() / 2 + variance / max(variance.sum(), np.finfo(float).tiny) / 2
    chance /= chance.sum()
    drawn, times = np.unique(random.choice(len(chance), size, p=chance), return_counts=True)
    return Points(profiles[drawn], weight[drawn] * times / (size * chance[drawn]))


def seed_far_apart(points: Points, k: int, random: np.random.RandomState) -> np.ndarray:
    """k of the profiles as centers (k, d), by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each is drawn with a chance that grows with its users' squared distance to the nearest center so far; of 2 + ln k
    that are drawn, the one stays that leaves the least of it. scikit-learn does the same, with the same random numbers.
    """
    chosen = [random.choice(len(points.weight), p=points.weight / points.weight.sum())]
    nearest = points.nearer(np.array(chosen), np.full(len(points.weight), np.inf))[0][:, 0]
    trials = 2 + int(np.log(k))
    for _ in range(1, k):
        cumulative = np.cumsum(points.weight * nearest)
        drawn = np.searchsorted(cumulative, random.uniform(size=trials) * cumulative[-1])
        drawn = np.minimum(drawn, len(nearest) - 1)
        distances, sums = points.nearer(drawn, nearest)
        best = int(np.argmin(sums))
        chosen.append(drawn[best])
        nearest = distances[:, best].copy()
    return np.asarray(points.profiles[chosen].toarray())


def seed_randomly(points: Points, k: int, random: np.random.RandomState) -> np.ndarray:
    """k distinct profiles as centers (k, d), drawn with a chance that grows with their users."""
    chosen = random.choice(len(points.weight), k, replace=False, p=points.weight / points.weight.sum())
    return np.asarray(points.profiles[chosen].toarray())


def lloyd(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray, iterations: int, epsilon: float) -> Model:
    """Lloyd's iterations from given centers (k, d), stopping as Spark does.

    It is converged when in an iteration no center moves farther than epsilon (Spark 4.2, `KMeans.runAlgorithm`). A
    center that no profile is nearest to moves to the profile that is farthest from its own.
    """
    return _lloyd(Points(profiles, weight), centers, iterations, epsilon)


def _lloyd(points: Points, centers: np.ndarray, iterations: int, epsilon: float) -> Model:
    converged = False
    done = 0
    while done < iterations and not converged:
        labels, sums = _assign(points, centers)
        moved = _means(points, labels, sums, centers)
        converged = bool(np.sqrt(((moved - centers) ** 2).sum(axis=1)).max() <= epsilon)
        centers = moved
        done += 1
    labels, _ = _assign(points, centers)
    users = np.bincount(labels, weights=points.weight, minlength=len(centers)).astype(np.int64)
    distances = distances_to_own(points.profiles, centers, labels)
    return Model(centers, labels, distances, users, float(points.weight @ distances**2), done, converged)


def _assign(points: Points, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest center of each profile (n,), ties to the lowest, and the sum of each cluster's users (k, d)."""
    k, d = centers.shape
    half_norm, columns = (centers**2).sum(axis=1) / 2, np.ascontiguousarray(centers.T)
    labels, sums = np.empty(len(points.weight), np.int64), np.zeros(k * d)
    for block in points.blocks:
        score = block.profiles @ columns
        np.subtract(half_norm, score, out=score)  # half of ‖x - c‖² - ‖x‖²
        nearest = labels[block.here] = score.argmin(axis=1)
        sums += np.bincount(nearest[block.row] * d + block.profiles.indices, block.weighted, k * d)
    return labels, sums.reshape(k, d)


def _means(points: Points, labels: np.ndarray, sums: np.ndarray, centers: np.ndarray) -> np.ndarray:
    k = len(centers)
    users = np.bincount(labels, weights=points.weight, minlength=k)
    empty = np.flatnonzero(users == 0)
    if empty.size:
        farthest = np.argsort(-distances_to_own(points.profiles, centers, labels), kind="stable")[: empty.size]
        labels = labels.copy()
        labels[farthest] = empty
        users = np.bincount(labels, weights=points.weight, minlength=k)
        sums = (_membership(labels, points.weight, k) @ points.profiles).toarray()
    # A cluster whose only profile was just taken for an empty one keeps its center.
    return np.where(users[:, None] > 0, sums / np.maximum(users, 1)[:, None], centers)


def distances_to_own(profiles: sp.csr_matrix, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The distance (n,) of each profile to the center of its cluster, without the error of ‖x‖² - 2xc + ‖c‖²."""
    norm = (centers**2).sum(axis=1)
    distances = np.empty(profiles.shape[0])
    for start in range(0, profiles.shape[0], _BLOCK):
        here = slice(start, start + _BLOCK)
        block = profiles[here]
        row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        center = centers[labels[here][row], block.indices]
        on_support = np.bincount(row, weights=(block.data - center) ** 2, minlength=block.shape[0])
        own_norm = norm[labels[here]]
        off_support = own_norm - np.bincount(row, weights=center**2, minlength=block.shape[0])
        off_support[off_support < 1e-15 * own_norm] = 0  # what is left of a difference of equal sums
        np.sqrt(on_support + off_support, out=distances[here])
    return distances


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
        "calinski_harabasz": calinski_harabasz(model.users, model.centers, model.wssse),
    }


def _simplified_silhouette(profiles: sp.csr_matrix, weight: np.ndarray, model: Model) -> float | None:
    if model.k < 2:
        return None
    score = (model.centers**2).sum(axis=1) - 2 * (profiles @ model.centers.T)
    score[np.arange(len(score)), model.labels] = np.inf
    squared_norm = np.asarray(profiles.multiply(profiles).sum(axis=1)).ravel()
    to_next = np.sqrt(np.maximum(score.min(axis=1) + squared_norm, 0))
    larger = np.maximum(to_next, model.distances)
    silhouette = np.divide(to_next - model.distances, larger, out=np.zeros_like(larger), where=larger > 0)
    silhouette[model.users[model.labels] == 1] = 0
    return float(silhouette @ weight / weight.sum())


def calinski_harabasz(users: np.ndarray, centers: np.ndarray, wssse: float) -> float | None:
    """That score of k clusters of so many users (k,), with these centers (k, d)."""
    k, total = len(centers), int(users.sum())
    if k < 2 or total <= k or wssse == 0:
        return None
    mean = users @ centers / total
    between = float(users @ ((centers - mean) ** 2).sum(axis=1))
    return between / (k - 1) / (wssse / (total - k))


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
