"""The local search of k-means: never worse, each cluster kept, and out of where Lloyd's iterations are stuck."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spark_jobs.clusters import clustering, local_search
from spark_jobs.clusters.points import Points
from spark_jobs.config import KMeansParams

PARAMS = KMeansParams("kmeans||", 100, 0.001)

profiles = hnp.arrays(float, st.tuples(st.integers(3, 15), st.integers(1, 4)), elements=st.integers(0, 5).map(float))


def cost(points: np.ndarray, weight: np.ndarray, centers: np.ndarray) -> float:
    """The sum of squared distances to the nearest center, over the users."""
    return float(weight @ (np.linalg.norm(points[:, None] - centers[None], axis=2) ** 2).min(axis=1))


@given(profiles, st.integers(2, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=150)
def test_a_clustering_is_never_made_worse(drawn: np.ndarray, k: int, seed: int) -> None:
    distinct, weight = np.unique(drawn, axis=0, return_counts=True)
    k = min(k, len(distinct))
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(len(distinct)) % k)
    points = Points(sp.csr_matrix(distinct), weight)
    before = sum(
        float(weight[here] @ ((distinct[here] - np.average(distinct[here], axis=0, weights=weight[here])) ** 2).sum(1))
        for here in (labels == cluster for cluster in range(k))
    )
    centers = local_search.improve(points, labels, np.random.RandomState(seed))
    again = local_search.improve(points, labels, np.random.RandomState(seed))
    assert centers.shape == (k, distinct.shape[1])
    assert np.isfinite(centers).all()
    assert cost(distinct, weight, centers) <= before * (1 + 1e-9) + 1e-9
    np.testing.assert_array_equal(centers, again)


def test_it_leaves_where_lloyds_iterations_are_stuck() -> None:
    """Four groups, of which two share a center and one has two."""
    random = np.random.default_rng(0)
    middles = np.array([[0.0, 0], [0, 9], [60, 0], [60, 60]])
    people = np.repeat(middles, 40, axis=0) + random.normal(size=(160, 2))
    start = np.array([[0.0, 4.5], [60, 0], [60, 59], [60, 61]])
    stuck = clustering.lloyd(sp.csr_matrix(people), np.ones(160), start, 100, 0)
    centers = local_search.improve(Points(sp.csr_matrix(people), np.ones(160)), stuck.labels, np.random.RandomState(0))
    assert cost(people, np.ones(160), centers) < 0.3 * stuck.wssse
    np.testing.assert_allclose(centers[np.lexsort((centers[:, 1], centers[:, 0].round(-1)))], middles, atol=0.6)


@pytest.mark.parametrize("k", [2, 5, 9])
def test_a_fit_with_it_costs_no_more_than_without(k: int) -> None:
    random = np.random.default_rng(0)
    people = sp.csr_matrix(np.unique(random.poisson(1, (400, 8)), axis=0).astype(float))
    weight = random.integers(1, 9, people.shape[0])
    for seed in range(3):
        searched, plain = (clustering.fit(people, weight, k, PARAMS, 2, seed, searches=searches) for searches in (2, 0))
        assert searched.wssse <= plain.wssse * (1 + 1e-9)
        assert searched.k == k
        assert searched.users.sum() == weight.sum()
