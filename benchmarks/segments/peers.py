"""Other ways to choose k, each as its paper has it, and the multinomial mixture that bounds what can be recovered.

A way to choose k is a function `(points (n, d), k_max, seed) -> k`. All of them see a sample of at most
`vectors.SAMPLE` users, cluster it by scikit-learn's k-means, and try k up to `k_max`, or fewer where there are fewer
distinct users.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score

from benchmarks.segments import vectors

Points = sp.csr_matrix | np.ndarray


def predecessor(points: Points, k_max: int, seed: int) -> int:
    """The k after which the largest cluster's diameter no longer falls much: how the predecessor's analyst chose.

    She looked at a plot and chose by eye. Here it is the plot's elbow: the k from 2 whose largest diameter lies
    farthest below the line from one cluster to `k_max` (Satopää et al. 2011, "Finding a kneedle in a haystack"). The
    diameter is the contract's, twice the largest distance of a member to its center. Best of it so far, as a few more
    clusters can widen it by chance. Meant for `vectors.of_volume` of all users.
    """
    seen = vectors.sample(points, seed)
    diameters = [_largest_diameter(seen, _kmeans(seen, k, seed)) for k in _ks(seen, 1, k_max)]
    curve = np.minimum.accumulate(diameters)
    if len(curve) < 3:
        return len(curve)
    line = np.linspace(curve[0], curve[-1], len(curve))
    return 2 + int(np.argmax((line - curve)[1:]))


def silhouette(points: Points, k_max: int, seed: int) -> int:
    """The k from 2 with the highest mean silhouette (Rousseeuw 1987), exact."""
    seen = vectors.sample(points, seed)
    score = {}
    for k in _ks(seen, 2, min(k_max, len(seen) - 1)):
        labels = _kmeans(seen, k, seed).labels_
        score[k] = silhouette_score(seen, labels) if len(np.unique(labels)) > 1 else -1.0
    return max(score, key=lambda k: score[k], default=1)


def prediction_strength(points: Points, k_max: int, seed: int, splits: int = 5, threshold: float = 0.8) -> int:
    """The largest k with a prediction strength of at least 0.8 (Tibshirani and Walther 2005); 1 has 1.

    In halves, both ways, and the mean over `splits` random ones, as `fpc::prediction.strength` does.
    """
    seen = vectors.sample(points, seed)
    random = np.random.default_rng(seed)
    halves = [np.array_split(random.permutation(len(seen)), 2) for _ in range(splits)]
    chosen = 1
    for k in _ks(seen, 2, min(k_max, len(seen) // 2)):
        strength = []
        for rows in halves:
            first, second = (_kmeans(seen[half], k, seed) for half in rows)
            strength += [_predicted(second, first, seen[rows[1]]), _predicted(first, second, seen[rows[0]])]
        if np.mean(strength) >= threshold:
            chosen = k
    return chosen


def gap(points: Points, k_max: int, seed: int, references: int = 10) -> int:
    """The smallest k with gap(k) ≥ gap(k + 1) - s(k + 1) (Tibshirani, Walther and Hastie 2001); it can be 1.

    The references are uniform in the box of the data, the paper's simpler choice (a).
    """
    seen = vectors.sample(points, seed)
    random = np.random.default_rng(seed)
    low, high = seen.min(axis=0), seen.max(axis=0)
    ks = _ks(seen, 1, min(k_max + 1, max(len(seen) - 1, 1)))
    log_cost = np.array([_log_cost(seen, k, seed) for k in ks])
    drawn = []
    for _ in range(references):
        reference = random.uniform(low, high, seen.shape)
        drawn.append([_log_cost(reference, k, seed) for k in ks])
    gaps = np.mean(drawn, axis=0) - log_cost
    error = np.std(drawn, axis=0) * np.sqrt(1 + 1 / references)
    enough = np.flatnonzero(gaps[:-1] >= gaps[1:] - error[1:])
    return int(ks[enough[0]]) if len(enough) else min(k_max, max(len(ks), 1))


def nselectboot(points: Points, k_max: int, seed: int, pairs: int = 10) -> int:
    """The k from 2 with the lowest bootstrap instability (Fang and Wang 2012, `fpc::nselectboot`).

    Two bootstrap samples are clustered, all users are assigned to the centers of each, and the instability is the
    share of pairs of users that are together in one and apart in the other; its mean over `pairs` draws. On half as
    large a sample as the others, as it clusters 220 times.
    """
    seen = vectors.sample(points, seed, vectors.SAMPLE // 2)
    random = np.random.default_rng(seed)
    n = len(seen)
    draws = [(random.integers(0, n, n), random.integers(0, n, n)) for _ in range(pairs)]
    instability = {}
    for k in _ks(seen, 2, min(k_max, n // 2)):
        found = [[_kmeans(seen[rows], k, seed).predict(seen) for rows in draw] for draw in draws]
        instability[k] = np.mean([_disagreement(one, other) for one, other in found])
    return min(instability, key=lambda k: instability[k], default=1)


@dataclass(frozen=True)
class Peer:
    """A way to choose k, and whether it sees counts as the predecessor did or vectors of taste."""

    name: str
    choose: Callable[[Points, int, int], int]
    raw: bool = False

    def k(self, counts: sp.csr_matrix, k_max: int, seed: int) -> int:
        """Chosen for `counts` (n, d): of all users where raw, else of those with enough actions."""
        if counts.shape[0] == 0:
            return 1
        if self.raw:
            return self.choose(vectors.of_volume(counts), k_max, seed)
        points = vectors.of_taste(counts[vectors.busy(counts)])
        return self.choose(points, k_max, seed) if points.shape[0] else 1


PEERS = (
    Peer("predecessor", predecessor, raw=True),
    Peer("silhouette", silhouette),
    Peer("prediction strength", prediction_strength),
    Peer("gap", gap),
    Peer("nselectboot", nselectboot),
)


def _ks(seen: np.ndarray, first: int, last: int) -> list[int]:
    """`first` to `last`, but never more than there are distinct users."""
    distinct = len(np.unique(seen, axis=0)) if len(seen) else 0
    return list(range(first, min(last, distinct) + 1))


def _kmeans(points: np.ndarray, k: int, seed: int) -> KMeans:
    with warnings.catch_warnings():  # a bootstrap sample may have fewer distinct users than k
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, n_init=3, random_state=seed).fit(points)


def _largest_diameter(points: np.ndarray, model: KMeans) -> float:
    return float(2 * np.linalg.norm(points - model.cluster_centers_[model.labels_], axis=1).max())


def _log_cost(points: np.ndarray, k: int, seed: int) -> float:
    """log of the paper's W(k), which is the inertia when distances are squared Euclidean."""
    return float(np.log(max(_kmeans(points, k, seed).inertia_, 1e-12)))


def _predicted(test: KMeans, training: KMeans, points: np.ndarray) -> float:
    """The lowest share, of any test cluster, of pairs that the training centers keep together; 1 for a single one."""
    table = _contingency(test.labels_, training.predict(points))
    size = table.sum(axis=1)
    together = (table * (table - 1)).sum(axis=1)
    return float(np.where(size > 1, together / np.maximum(size * (size - 1), 1), 1.0).min())


def _disagreement(one: np.ndarray, other: np.ndarray) -> float:
    """The share of ordered pairs that are together in one labelling and apart in the other."""
    table = _contingency(one, other)
    together = (table.sum(axis=0) ** 2).sum() + (table.sum(axis=1) ** 2).sum()
    return float((together - 2 * (table**2).sum()) / len(one) ** 2)


def _contingency(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    return table


@dataclass(frozen=True)
class Mixture:
    """A mixture of k multinomials over d pages, fitted to n users."""

    shares: np.ndarray  # (k,)
    pages: np.ndarray  # (k, d) each row a distribution
    posteriors: np.ndarray  # (n, k)
    log_likelihood: float  # of the data and the prior, less the multinomial coefficients
    iterations: int
    start: str  # what the best fit started from

    @property
    def labels(self) -> np.ndarray:
        """(n,) the component that each user most likely comes from."""
        return np.asarray(self.posteriors.argmax(axis=1))


def multinomial_mixture(
    counts: sp.csr_matrix, k: int, seed: int, n_init: int = 10, swaps: int = 20, smoothing: float = 1.0
) -> Mixture:
    """Fit a mixture of `k` multinomials to `counts` (n, d) by EM, the best of `n_init` starts.

    Half of the starts are k-means' clusters of the users with enough actions, as vectors of taste; the others are users
    far apart (k-means++). Each gets a short run, and the best three go on until they converge (Biernacki, Celeux and
    Govaert 2003). Then a random component is moved to a random user, `swaps` times, and stays where that is better
    (random swap EM: Zhao, Hautamäki, Kärkkäinen and Fränti 2012). Each component has a Dirichlet prior of `smoothing`
    pseudo-actions in all, spread as the audience's are.
    """
    counts = sp.csr_matrix(counts, dtype=float)
    fit = _EM(counts, smoothing)
    short = [fit.run(posteriors, 50, 1e-5, name) for name, posteriors in _starts(counts, k, seed, n_init)]
    short.sort(key=lambda mixture: -mixture.log_likelihood)
    long = [fit.run(mixture.posteriors, start=mixture.start) for mixture in short[:3]]
    best = max(long, key=lambda mixture: mixture.log_likelihood)
    random = np.random.default_rng(seed)
    for _ in range(swaps if k > 1 else 0):
        moved = fit.run(fit.swap(best, random), 10, 1e-6, "a swap")
        if moved.log_likelihood > best.log_likelihood:
            best = fit.run(moved.posteriors, start=moved.start)
    return best


def _starts(counts: sp.csr_matrix, k: int, seed: int, n_init: int) -> list[tuple[str, np.ndarray]]:
    """`n_init` first posteriors (n, k), by what they come from."""
    points, busy = vectors.of_taste(counts), vectors.busy(counts)
    seen = points[busy] if busy.sum() >= k else points
    if seen.shape[0] > 20_000:
        seen = seen[np.random.default_rng(seed).choice(seen.shape[0], 20_000, replace=False)]
    starts = []
    for init in range(n_init):
        if init < (n_init + 1) // 2:
            name, centers = "k-means", KMeans(k, n_init=1, random_state=seed * 1000 + init).fit(seen).cluster_centers_
        else:
            name, centers = "k-means++", kmeans_plusplus(seen, k, random_state=seed * 1000 + init)[0]
        centers = centers.toarray() if sp.issparse(centers) else np.asarray(centers)
        nearest = np.argmin((centers**2).sum(axis=1) - 2 * np.asarray(points @ centers.T), axis=1)
        starts.append((name, 0.9 * np.eye(k)[nearest] + 0.1 / k))
    return starts


class _EM:
    """Expectation and maximization, from posteriors to posteriors."""

    def __init__(self, counts: sp.csr_matrix, smoothing: float):
        self.counts, self.columns = counts, sp.csr_matrix(counts.T)
        total = np.asarray(counts.sum(axis=0)).ravel()
        self.prior = smoothing * (total + 1e-9) / (total + 1e-9).sum()

    def run(self, posteriors: np.ndarray, max_iter: int = 2000, tol: float = 1e-9, start: str = "") -> Mixture:
        """Until the log likelihood rises by less than `tol` of itself."""
        before, iterations = -np.inf, 0
        while iterations < max_iter:
            iterations += 1
            shares, pages = self._maximize(posteriors)
            posteriors, log_likelihood = self._expect(shares, pages)
            if log_likelihood - before <= tol * abs(log_likelihood):
                break
            before = log_likelihood
        return Mixture(shares, pages, posteriors, log_likelihood, iterations, start)

    def swap(self, mixture: Mixture, random: np.random.Generator) -> np.ndarray:
        """Posteriors (n, k) after a random component has become what one random user does."""
        shares, pages = self._maximize(mixture.posteriors)
        k, user = len(shares), self.counts[[random.integers(self.counts.shape[0])]].toarray()[0]
        moved = random.integers(k)
        taste = np.log1p(user) / np.log1p(user).sum()
        pages[moved] = 0.5 * taste + 0.5 * self.prior / self.prior.sum()
        shares[moved] = 1 / k
        return self._expect(shares / shares.sum(), pages)[0]

    def _maximize(self, posteriors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = posteriors.mean(axis=0) + 1e-9
        pages = np.asarray(self.columns @ posteriors).T + self.prior
        return shares / shares.sum(), pages / pages.sum(axis=1, keepdims=True)

    def _expect(self, shares: np.ndarray, pages: np.ndarray) -> tuple[np.ndarray, float]:
        joint = np.asarray(self.counts @ np.log(pages).T) + np.log(shares)
        of_user = logsumexp(joint, axis=1, keepdims=True)
        prior = float((self.prior * np.log(pages)).sum())
        return np.exp(joint - of_user), float(of_user.sum()) + prior
