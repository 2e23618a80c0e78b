"""k-means on a few points, each step of which can be worked out by hand."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.clusters import clustering
from spark_jobs.clusters import points as points_module
from spark_jobs.clusters.clustering import Model
from spark_jobs.config import KMeansParams


def rows(*values: list[float]) -> sp.csr_matrix:
    return sp.csr_matrix(np.array(values))


LINE = rows([0.0], [2.0], [10.0], [13.0])
PEOPLE = np.array([3, 1, 1, 2])


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_an_iteration_moves_each_center_to_the_mean_of_its_people(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(points_module, "BLOCK", block)
    monkeypatch.setattr(clustering, "BLOCK", block)
    model = clustering.lloyd(LINE, PEOPLE, np.array([[1.0], [9.0]]), 1, 0)
    assert model.centers.tolist() == [[0.5], [12.0]]
    assert model.labels.tolist() == [0, 0, 1, 1]
    assert model.distances.tolist() == [0.5, 1.5, 2, 1]
    assert (model.users.tolist(), model.wssse) == ([4, 3], 3 * 0.25 + 2.25 + 4 + 2 * 1)
    assert (model.iterations, model.converged) == (1, False)
    labels, distances, to_next = clustering.assign(LINE, model.centers)
    assert (labels.tolist(), distances.tolist()) == ([0, 0, 1, 1], [0.5, 1.5, 2, 1])
    assert to_next.tolist() == [12, 10, 9.5, 12.5]


@pytest.mark.parametrize(
    ("max_iter", "tol", "iterations", "converged"),
    [
        (0, 0.0, 0, False),
        (1, 2.9, 1, False),
        (1, 3.0, 1, True),
        (9, 3.0, 1, True),
        (9, 2.9, 2, True),
        (9, 0.0, 2, True),
    ],
)
def test_it_stops_when_no_center_moved_farther_than_the_tolerance_or_after_the_most_iterations(
    max_iter: int, tol: float, iterations: int, converged: bool
) -> None:
    """The centers move by 0.5 and 3, and then not at all."""
    model = clustering.lloyd(LINE, PEOPLE, np.array([[1.0], [9.0]]), max_iter, tol)
    assert (model.iterations, model.converged) == (iterations, converged)


def test_centers_that_nobody_is_near_go_to_the_profiles_that_are_farthest_from_their_own() -> None:
    far = rows([0.0], [1.0], [7.0], [9.0])
    model = clustering.lloyd(far, np.array([4, 1, 1, 1]), np.array([[0.0], [100.0], [200.0]]), 1, 0)
    assert model.centers.tolist() == [[0.2], [9.0], [7.0]]
    assert model.labels.tolist() == [0, 0, 2, 1]


def test_a_cluster_keeps_its_center_if_its_only_profile_went_to_an_empty_one() -> None:
    model = clustering.lloyd(rows([4.0]), np.array([2]), np.array([[1.0], [50.0]]), 1, 0)
    assert model.centers.tolist() == [[1.0], [4.0]]
    assert (model.labels.tolist(), model.users.tolist()) == ([1], [0, 2])


def test_distances_keep_their_digits_where_a_profile_has_few_entries_and_its_center_all() -> None:
    center = np.array([[3.0, 4.0, 0.0], [1e9, 0.0, 0.0]])
    profiles = rows([3.0, 4.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 12.0], [1e9, 1e-3, 0.0])
    labels = np.array([0, 0, 0, 1])
    assert clustering.distances_to_own(profiles, center, labels).tolist() == pytest.approx([0, 3, 13, 1e-3], abs=1e-12)


def model(centers: list[list[float]], labels: list[int], users: list[int]) -> Model:
    return Model(np.array(centers), np.array(labels), np.zeros(len(labels)), np.array(users), 1.5, 7, True)


def test_clusters_are_numbered_by_people_then_by_center_and_empty_ones_are_left_out() -> None:
    found = clustering._in_order(model([[5.0, 1], [9, 9], [5, 0], [0, 0], [1, 1]], [0, 2, 3, 4, 3], [2, 0, 2, 6, 1]))
    assert found.centers.tolist() == [[0, 0], [5, 0], [5, 1], [1, 1]]
    assert found.users.tolist() == [6, 2, 2, 1]
    assert found.labels.tolist() == [2, 1, 0, 3, 0]
    assert (found.wssse, found.iterations, found.converged) == (1.5, 7, True)


def test_placing_everybody_numbers_clusters_by_everybody_and_keeps_how_they_were_found() -> None:
    fitted = model([[0.0], [10.0]], [0, 1], [3, 1])
    placed = clustering.place(fitted, LINE, np.array([1, 1, 5, 1]))
    assert (placed.centers.tolist(), placed.users.tolist()) == ([[10], [0]], [6, 2])
    assert placed.labels.tolist() == [1, 1, 0, 0]
    assert placed.distances.tolist() == [0, 2, 0, 3]
    assert (placed.wssse, placed.iterations, placed.converged) == (4 + 9, 7, True)
    nobody = model([], [], [])
    assert clustering.place(nobody, LINE, PEOPLE) is nobody


def test_confidence_is_one_less_the_share_of_the_two_distances_and_1_where_both_are_0() -> None:
    found = clustering.confidence(np.array([0.0, 1, 2, 0, 5]), np.array([3.0, 4, 2, 0, np.inf]))
    assert found.tolist() == [1, 0.75, 0, 1, 1]


# --- several inits


PARAMS = KMeansParams("random", 100, 0.0)


def points(seed: int, n: int) -> sp.csr_matrix:
    return sp.csr_matrix(np.unique(np.random.default_rng(seed).poisson(2, (n, 4)), axis=0).astype(float))


def test_each_init_is_reported_in_order_and_the_best_is_never_worse_than_any() -> None:
    profiles = points(0, 80)
    seen: list[tuple[int, float]] = []

    def note(number: int, found: Model) -> None:
        seen.append((number, found.wssse))

    plain = clustering.fit(profiles, np.ones(profiles.shape[0]), 5, PARAMS, 6, 3, note, searches=0)
    assert [number for number, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert len({wssse for _, wssse in seen}) > 1, "each has random numbers of its own"
    assert plain.wssse == min(wssse for _, wssse in seen), "without a search the best of them is the result"
    searched = clustering.fit(profiles, np.ones(profiles.shape[0]), 5, PARAMS, 6, 3)
    assert searched.wssse <= plain.wssse
    assert clustering.fit(profiles, np.ones(profiles.shape[0]), 5, PARAMS, 6, 4, searches=0).wssse != plain.wssse


@pytest.mark.parametrize(("n", "inits", "searches"), [(30, 9, 5), (256, 9, 5), (257, 9, 2), (30, 3, 3)])
def test_of_few_profiles_more_of_the_best_inits_are_searched_around(
    monkeypatch: pytest.MonkeyPatch, n: int, inits: int, searches: int
) -> None:
    searched: list[int] = []

    def improve(_few: Any, labels: np.ndarray, *_: Any) -> np.ndarray:
        searched.append(len(labels))
        return np.array([[0.0], [1.0]])

    monkeypatch.setattr(clustering.local_search, "improve", improve)
    line = sp.csr_matrix(np.arange(1.0, n + 1)[:, None])
    clustering.fit(line, np.ones(n), 2, PARAMS, inits, 0)
    assert searched == [n] * searches


def test_k_is_cut_to_the_profiles_and_of_none_there_is_no_cluster() -> None:
    three = clustering.fit(rows([1.0], [2.0], [3.0]), np.array([1, 3, 2]), 9, PARAMS, 2, 0)
    assert (three.k, three.users.tolist(), three.wssse) == (3, [3, 2, 1], 0)
    for nothing in (clustering.fit(sp.csr_matrix((0, 2)), np.zeros(0), 3, PARAMS, 2, 0),):
        assert (nothing.centers.shape, nothing.users.tolist(), nothing.labels.tolist()) == ((0, 2), [], [])
        assert (nothing.wssse, nothing.iterations, nothing.converged) == (0.0, 0, True)


@pytest.mark.parametrize(("n", "sizes"), [(2**15, []), (2**15 + 1, [2**14])])
def test_of_very_many_profiles_inits_start_from_a_coreset_of_a_size_that_never_changes(
    monkeypatch: pytest.MonkeyPatch, n: int, sizes: list[int]
) -> None:
    """Another size would give other clusters for the same input."""
    drawn: list[int] = []

    def coreset(all_of_them: points_module.Points, size: int, _: Any) -> points_module.Points:
        drawn.append(size)
        return points_module.Points(all_of_them.profiles[:50], np.ones(50))

    monkeypatch.setattr(clustering, "coreset", coreset)
    found = clustering.fit(
        sp.csr_matrix(np.arange(1.0, n + 1)[:, None]), np.ones(n), 2, KMeansParams("random", 3, 1e9), 1, 0, searches=0
    )
    assert (drawn, int(found.users.sum())) == (sizes, n)


def test_the_library_is_named_with_its_version() -> None:
    assert clustering.engine_version() == f"numpy {np.__version__}"
