"""The months of a series, clustered by this project's own k-means: honest noise, not perfect labels."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from benchmarks.following.series import Month, Series
from benchmarks.segments import ours
from spark_jobs.clusters import clustering, selection
from spark_jobs.config import KMeansConfig, KSelectionConfig, parse_params
from spark_jobs.vectors import clustering_inputs

K_MAX = 8
MISCHOSEN = (0.2, 0.6, 0.2)  # chances of one segment too few, the true number, one too many


@dataclass(frozen=True)
class Partition:
    """A month and its clusters."""

    month: Month
    cluster: np.ndarray  # (n,) of each person, 0 to k - 1, the largest first
    k: int


def cluster(series: Series, choose_k: bool) -> list[Partition]:
    """The clusters of each month; k is chosen by this project, or else near the truth, by chance."""
    random = np.random.default_rng([series.seed, 2])
    found = []
    for month in series.months:
        profiles, weight, fit_weight, profile_of = ours.inputs(month.counts)
        true = len(np.unique(month.segment))
        k = _chosen(profiles, weight, fit_weight) if choose_k else true + int(random.choice([-1, 0, 1], p=MISCHOSEN))
        if not clustering_inputs.enough_to_learn(int(fit_weight.sum()), int(np.count_nonzero(fit_weight)), k):
            fit_weight = weight
        learned, config = np.flatnonzero(fit_weight), KMeansConfig()
        params = parse_params(config.params)
        fitted = clustering.fit(profiles[learned], fit_weight[learned], k, params, config.n_init, config.seed)
        placed = clustering.place(fitted, profiles, weight)
        found.append(Partition(month, placed.labels[profile_of], placed.k))
    return found


def _chosen(profiles: sp.csr_matrix, weight: np.ndarray, fit_weight: np.ndarray) -> int:
    config = KSelectionConfig(k_max=K_MAX)
    return selection.select(profiles, fit_weight, weight, int(weight.sum()), config).k
