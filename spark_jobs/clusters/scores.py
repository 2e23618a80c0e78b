"""Scores of a clustering, and the k that has the best ones."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from spark_jobs.clusters.clustering import Model


def score(profiles: sp.csr_matrix, weight: np.ndarray, model: Model) -> dict[str, float | None]:
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
