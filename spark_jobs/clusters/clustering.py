"""k-means over weighted distinct profiles.

A profile of weight w stands for w users with the same vector, so the objective (wssse) and every mean are those over
the users, at the cost of the distinct profiles. Profiles stay sparse throughout; centers are dense.

scikit-learn's k-means is not used, for three reasons. It stops when the squared moves of all centers add up to little;
the contract asks for Spark's rule, that no center moves farther than a tolerance. It adds up centers in the order in
which threads end, so two runs differ in the last bits; the contract asks for the same bytes. And its clusterings cost
more: `local_search` finds better ones. Tests compare this module with it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp

from spark_jobs.clusters import local_search
from spark_jobs.clusters.local_search import THOROUGH, Tries
from spark_jobs.clusters.points import BLOCK, Points, coreset, membership
from spark_jobs.clusters.seeding import init_kmeans_plusplus, init_random
from spark_jobs.config import KMeansParams

_SEARCHES = ((1 << 8, 5), (1 << 12, 2))  # up to so many profiles, so many searches; with more, one
_CORESET = 1 << 14  # profiles on which inits are run, where there are many more


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
    searches: int | None = None,
    tries: Tries = THOROUGH,
) -> Model:
    """Cluster profiles: the best of several inits, improved by a local search; that with the lowest wssse.

    Args:
        profiles: (n, d), distinct rows.
        weight: (n,) users of each profile, at least 1.
        k: Clusters; cut to n. A cluster that ends up empty is left out.
        params: The init, the most iterations, and the tolerance. `kmeans||` is initialised by greedy k-means++, which
            Spark's k-means|| approximates in parallel; `random` draws distinct profiles with a chance that grows with
            their weight.
        n_init: How many inits. Of very many profiles, inits and search are run on a coreset, and all profiles go on
            from there, which takes a few iterations instead of many.
        seed: Of the random numbers; every init has its own stream.
        progress: Called with the number of each init and its model, in order.
        cores: How many inits run at a time; the result does not depend on it.
        searches: Around how many of the best inits to search; by default one, or more if there are few profiles.
        tries: How long each search goes on.
    """
    k = min(k, profiles.shape[0])
    if k == 0:
        nothing = np.zeros(0)
        return Model(np.zeros((0, profiles.shape[1])), nothing.astype(int), nothing, nothing.astype(int), 0.0, 0, True)
    points = Points(profiles, weight)
    sequence = np.random.SeedSequence(seed)
    large = profiles.shape[0] > 2 * _CORESET
    few = coreset(points, _CORESET, np.random.default_rng(sequence)) if large else points
    if searches is None:
        searches = next((times for most, times in _SEARCHES if profiles.shape[0] <= most), 1)
    # Of few profiles, threads wait for each other rather than save time: each holds the interpreter's lock.
    with ThreadPoolExecutor(cores if len(few.blocks) > 1 else 1) as threads:
        models = []
        for number, model in enumerate(threads.map(partial(_init, few, k, params), sequence.spawn(n_init)), 1):
            progress(number, model)
            models.append(model)
    best = sorted(models, key=lambda model: model.wssse)[: max(1, searches)]
    improved = map(partial(_improve, points, few, params, tries if searches else None), best, sequence.spawn(len(best)))
    return _in_order(min(improved, key=lambda model: model.wssse))


def _init(points: Points, k: int, params: KMeansParams, stream: np.random.SeedSequence) -> Model:
    random = np.random.RandomState(np.random.MT19937(stream))
    init = init_random if params.init == "random" else init_kmeans_plusplus
    return _lloyd(points, init(points, k, random), params.max_iter, params.tol)


def _improve(
    points: Points, few: Points, params: KMeansParams, tries: Tries | None, model: Model, stream: np.random.SeedSequence
) -> Model:
    """A better model of `points`, from a model of `few` of them; `few` may be `points` itself."""
    centers = model.centers
    if tries is not None and 1 < model.k < len(few.weight) and model.users.all():
        centers = local_search.improve(few, model.labels, np.random.RandomState(np.random.MT19937(stream)), tries)
    elif few is points:
        return model
    found = _lloyd(points, centers, params.max_iter, params.tol)
    return found if few is not points or found.wssse < model.wssse else model


def lloyd(profiles: sp.csr_matrix, weight: np.ndarray, centers: np.ndarray, max_iter: int, tol: float) -> Model:
    """Lloyd's iterations from given centers (k, d), stopping as Spark does.

    It is converged when in an iteration no center moves farther than `tol` (Spark 4.2, `KMeans.runAlgorithm`). A
    center that no profile is nearest to moves to the profile that is farthest from its own.
    """
    return _lloyd(Points(profiles, weight), centers, max_iter, tol)


def _lloyd(points: Points, centers: np.ndarray, max_iter: int, tol: float) -> Model:
    converged = False
    done = 0
    while done < max_iter and not converged:
        labels, sums = _assign(points, centers)
        moved = _means(points, labels, sums, centers)
        converged = bool(np.sqrt(((moved - centers) ** 2).sum(axis=1)).max() <= tol)
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
        labels[farthest] = empty[: farthest.size]
        users = np.bincount(labels, weights=points.weight, minlength=k)
        sums = (membership(labels, points.weight, k) @ points.profiles).toarray()
    # A cluster keeps its center if its only profile was just given to an empty one.
    return np.where(users[:, None] > 0, sums / np.maximum(users, 1)[:, None], centers)


def distances_to_own(profiles: sp.csr_matrix, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The distance (n,) of each profile to the center of its cluster, without the error of ‖x‖² - 2xc + ‖c‖²."""
    norm = (centers**2).sum(axis=1)
    distances = np.empty(profiles.shape[0])
    for start in range(0, profiles.shape[0], BLOCK):
        here = slice(start, start + BLOCK)
        block = profiles[here]
        row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        center = centers[labels[here][row], block.indices]
        on_support = np.bincount(row, weights=(block.data - center) ** 2, minlength=block.shape[0])
        own_norm = norm[labels[here]]
        off_support = own_norm - np.bincount(row, weights=center**2, minlength=block.shape[0])
        off_support[off_support < 1e-15 * own_norm] = 0  # what is left of a difference of equal sums
        np.sqrt(on_support + off_support, out=distances[here])
    return distances


def assign(profiles: sp.csr_matrix, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest center of each profile, and the distances to it and to the next.

    Args:
        profiles: (n, d).
        centers: (k, d), at least one.

    Returns:
        (n,) the nearest center, ties to the lowest; (n,) the distance to it; (n,) the distance to the second nearest,
        infinite if there is one center only.
    """
    n = profiles.shape[0]
    labels, to_next = np.empty(n, np.int64), np.full(n, np.inf)
    half_norm, columns = (centers**2).sum(axis=1) / 2, np.ascontiguousarray(centers.T)
    for start in range(0, n, BLOCK):
        here = slice(start, start + BLOCK)
        block = profiles[here]
        score = half_norm - block @ columns  # half of ‖x - c‖² - ‖x‖²
        nearest = labels[here] = score.argmin(axis=1)
        if len(centers) > 1:
            score[np.arange(len(score)), nearest] = np.inf
            squared_norm = np.asarray(block.multiply(block).sum(axis=1)).ravel()
            to_next[here] = np.sqrt(np.maximum(2 * score.min(axis=1) + squared_norm, 0))
    distances = distances_to_own(profiles, centers, labels)
    # They are computed and rounded differently; the nearest must stay the nearest.
    return labels, distances, np.maximum(to_next, distances)


def confidence(distances: np.ndarray, to_next: np.ndarray) -> np.ndarray:
    """(n,) how sure it is that a profile belongs to its cluster: 0 halfway between two centers, 1 on its own.

    It is 1 - a / b, where a is the distance (n,) to the nearest center and b that to the next; with one center 1.
    """
    share = np.divide(distances, to_next, out=np.zeros_like(distances), where=to_next > 0)
    return np.asarray(1 - share)


def place(model: Model, profiles: sp.csr_matrix, weight: np.ndarray) -> Model:
    """The same centers with all profiles (n, d) assigned to them, whose users are `weight` (n,).

    A model is fitted to those who have enough actions to be learned from; everybody is placed. Clusters are numbered
    again.
    """
    if not model.k:
        return model
    labels, distances, _ = assign(profiles, model.centers)
    users = np.bincount(labels, weights=weight, minlength=model.k).astype(np.int64)
    wssse = float(weight @ distances**2)
    return _in_order(replace(model, labels=labels, distances=distances, users=users, wssse=wssse))


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
