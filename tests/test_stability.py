"""How solid clusters are: those that are there are found again among other people, arbitrary cuts are not."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.clusters import clustering, stability
from spark_jobs.clusters.stability import DOUBTFUL, SOLID, in_words, stabilities
from spark_jobs.config import KMeansParams


def blobs(*middles: tuple[float, ...], people: int = 60, seed: int = 0) -> sp.csr_matrix:
    """Round groups of so many people each."""
    random = np.random.default_rng(seed)
    return sp.csr_matrix(
        np.vstack([np.array(middle) + random.normal(size=(people, len(middle))) for middle in middles])
    )


THREE = ((0.0, 0.0, 30.0), (30.0, 0.0, 0.0), (0.0, 30.0, 0.0))


def centers_of(profiles: sp.csr_matrix, weight: np.ndarray, k: int) -> np.ndarray:
    return clustering.fit(profiles, weight, k, KMeansParams("kmeans||", 100, 0.001), 10, 0).centers


def ones(profiles: sp.csr_matrix) -> np.ndarray:
    return np.ones(profiles.shape[0], np.int64)


# --- what it says


def test_separate_groups_are_solid() -> None:
    people = blobs(*THREE)
    found = stabilities(people, ones(people), centers_of(people, ones(people), 3), 0)
    assert found.tolist() == [1, 1, 1]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_an_arbitrary_cut_of_one_group_is_not_solid(k: int) -> None:
    people = blobs((0.0,) * 12, people=200)
    found = stabilities(people, ones(people), centers_of(people, ones(people), k), 0)
    assert found.max() < SOLID


def test_of_two_groups_cut_in_two_each_no_piece_is_solid() -> None:
    people = sp.vstack([blobs((0.0,) * 10, people=150), blobs((40.0,) * 10, people=150, seed=1)], format="csr")
    found = {k: stabilities(people, ones(people), centers_of(people, ones(people), k), 0) for k in (2, 4)}
    assert found[2].min() > 0.99
    assert found[4].max() < SOLID


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (1.0, "solid"),
        (SOLID, "solid"),
        (0.7499, "fair"),
        (DOUBTFUL, "fair"),
        (0.5999, "doubtful"),
        (0.0, "doubtful"),
        (float("nan"), "unknown"),
    ],
)
def test_stability_in_words(value: float, word: str) -> None:
    assert (SOLID, DOUBTFUL) == (0.75, 0.6)
    assert in_words(value) == word


# --- of whom nothing is known


def test_where_nobody_was_learned_from_it_is_unknown() -> None:
    people = blobs(*THREE)
    found = stabilities(people, 0 * ones(people), centers_of(people, ones(people), 3), 0)
    assert np.isnan(found).tolist() == [True] * 3
    assert [in_words(value) for value in found] == ["unknown"] * 3


def test_without_profiles_or_clusters_there_is_nothing_to_say() -> None:
    assert stabilities(sp.csr_matrix((0, 2)), np.zeros(0, np.int64), np.zeros((0, 2)), 0).shape == (0,)
    assert np.isnan(stabilities(sp.csr_matrix((0, 2)), np.zeros(0, np.int64), np.ones((2, 2)), 0)).all()


def test_a_cluster_that_nobody_is_in_is_unknown_and_the_others_are_not() -> None:
    people = blobs(*THREE)
    centers = np.vstack([centers_of(people, ones(people), 3), np.full((1, 3), 1e6)])
    found = stabilities(people, ones(people), centers, 0)
    assert np.isnan(found).tolist() == [False, False, False, True]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_as_many_clusters_as_people_have_a_stability(k: int) -> None:
    """A draw of them has fewer distinct profiles than there are clusters."""
    for seed in range(2):
        found = stabilities(sp.csr_matrix(np.eye(k)), np.ones(k, np.int64), np.eye(k), seed)
        assert ((found >= 0) & (found <= 1)).all()


# --- weights


def test_profiles_of_several_people_count_as_one_row_a_person() -> None:
    random = np.random.default_rng(0)
    profiles = sp.csr_matrix(np.unique(random.poisson(2, (60, 4)), axis=0).astype(float))
    weight = random.integers(1, 9, profiles.shape[0])
    people = profiles[np.repeat(np.arange(profiles.shape[0]), weight)]
    centers = centers_of(profiles, weight, 3)
    of_profiles, of_people = stabilities(profiles, weight, centers, 0), stabilities(people, ones(people), centers, 0)
    np.testing.assert_allclose(of_profiles, of_people, atol=0.05)


def test_profiles_of_nobody_who_is_learned_from_change_nothing() -> None:
    people = blobs((0.0,) * 6, people=100)
    centers = centers_of(people, ones(people), 3)
    more = sp.vstack([people, blobs((9.0,) * 6, people=50)], format="csr")
    weight = np.concatenate([ones(people), np.zeros(50, np.int64)])
    np.testing.assert_array_equal(stabilities(more, weight, centers, 0), stabilities(people, ones(people), centers, 0))


# --- the definition


def replace_clustering(
    monkeypatch: pytest.MonkeyPatch, labels_of: Callable[[sp.csr_matrix, np.ndarray], np.ndarray]
) -> None:
    """Let `labels_of` cluster the draws, given their profiles and the people of each."""

    def fit(profiles: sp.csr_matrix, weight: np.ndarray, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(labels=labels_of(profiles, weight))

    monkeypatch.setattr(stability.clustering, "fit", fit)


def test_each_draw_is_of_as_many_people_and_somebody_drawn_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[np.ndarray] = []
    people = blobs(*THREE)
    centers = centers_of(people, ones(people), 3)

    def the_same(profiles: sp.csr_matrix, weight: np.ndarray) -> np.ndarray:
        weights.append(weight)
        return clustering.assign(profiles, centers)[0]

    replace_clustering(monkeypatch, the_same)
    found = stabilities(people, 10 * ones(people), centers, 0)
    assert found.tolist() == [1, 1, 1]
    assert max(weight.max() for weight in weights) <= 10
    drawn = np.mean([weight.sum() for weight in weights])
    assert drawn / (10 * people.shape[0]) == pytest.approx(1 - 1 / np.e, abs=0.01)


def test_it_is_the_jaccard_coefficient_with_the_most_similar_new_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    people = blobs(*THREE, people=200)
    centers = centers_of(people, ones(people), 3)

    def merged(profiles: sp.csr_matrix, _weight: np.ndarray) -> np.ndarray:
        """The first two clusters as one, and the third in two, at a ratio of about one to three."""
        labels = clustering.assign(profiles, centers)[0]
        third = np.flatnonzero(labels == 2)
        labels[labels == 1] = 0
        labels[third[: len(third) // 4]] = 1
        return labels

    replace_clustering(monkeypatch, merged)
    np.testing.assert_allclose(stabilities(people, ones(people), centers, 0), [1 / 2, 1 / 2, 3 / 4], atol=0.02)


def test_clear_cases_take_fewer_draws_than_close_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    people = blobs(*THREE, people=200)
    centers = centers_of(people, ones(people), 3)
    draws: list[int] = []
    random = np.random.default_rng(0)

    def same(profiles: sp.csr_matrix, _weight: np.ndarray) -> np.ndarray:
        draws.append(0)
        return clustering.assign(profiles, centers)[0]

    def close(profiles: sp.csr_matrix, weight: np.ndarray) -> np.ndarray:
        """Somewhat more or somewhat less than a quarter of each cluster goes elsewhere."""
        labels = same(profiles, weight)
        return np.where(random.random(len(labels)) < random.choice([0.1, 0.4]), labels + 3, labels)

    for labels_of, expected in ((same, 10), (close, 20)):
        draws.clear()
        replace_clustering(monkeypatch, labels_of)
        stabilities(people, ones(people), centers, 0)
        assert len(draws) == expected


def test_the_seed_decides_all() -> None:
    people = blobs((0.0,) * 6, people=100)
    centers = centers_of(people, ones(people), 3)
    one, again, other = (stabilities(people, ones(people), centers, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    np.testing.assert_allclose(one, other, atol=0.15)
