"""Profiles in blocks, coresets and scores against what is worked out by hand, person by person."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.clusters import points as points_module
from spark_jobs.clusters import scores
from spark_jobs.clusters.clustering import Model
from spark_jobs.clusters.points import Points, coreset, membership

ROWS = np.array([[0.0, 3, 0], [1, 0, 2], [0, 0, 0], [4, 1, 0], [0, 3, 5]])
WEIGHT = np.array([2, 1, 3, 1, 5])


@pytest.fixture(params=[1, 2, 3, 5, 8])
def points(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Points:
    """Some profiles in blocks of each size: one by one, with a last block that is shorter, and in one."""
    monkeypatch.setattr(points_module, "BLOCK", request.param)
    return Points(sp.csr_matrix(ROWS), WEIGHT)


def test_blocks_are_all_profiles_in_order_each_once(points: Points) -> None:
    assert len(points.blocks) == -(-len(ROWS) // points_module.BLOCK)
    found = np.vstack([block.profiles.toarray() for block in points.blocks])
    np.testing.assert_array_equal(found, ROWS)
    np.testing.assert_array_equal(np.concatenate([block.weight for block in points.blocks]), WEIGHT)
    for block in points.blocks:
        np.testing.assert_array_equal(block.profiles.toarray(), ROWS[block.here])
        np.testing.assert_array_equal(block.weighted, block.profiles.data * WEIGHT[block.here][block.row])


def test_norms_are_of_profiles_and_their_sum_is_over_people(points: Points) -> None:
    assert points.squared_norm.tolist() == [9, 5, 0, 17, 34]
    assert points.total_square == 2 * 9 + 5 + 17 + 5 * 34
    assert points.weight.dtype == float


def test_sums_are_over_the_people_of_each_cluster(points: Points) -> None:
    labels = np.array([1, 0, 3, 1, 3])
    expected = np.zeros((4, 3))
    for row, weight, label in zip(ROWS, WEIGHT, labels, strict=True):
        expected[label] += weight * row
    np.testing.assert_array_equal(points.sums(labels, 4), expected)


def test_closest_distances_are_to_chosen_profiles_unless_another_is_nearer(points: Points) -> None:
    nearest, chosen = np.array([100.0, 1, 100, 20, 100]), np.array([4, 2])
    distances, sums = points.closest_distances(chosen, nearest)
    expected = np.minimum(((ROWS[:, None] - ROWS[chosen][None]) ** 2).sum(axis=2), nearest[:, None])
    np.testing.assert_allclose(distances, expected)
    np.testing.assert_allclose(sums, WEIGHT @ expected)
    assert (distances[4, 0], distances[2, 1]) == (0, 0)


def test_no_distance_is_negative_and_a_profile_is_at_none_from_itself_however_far_out_it_is() -> None:
    """The square of a difference, worked out as a difference of squares, is a little off."""
    far = sp.csr_matrix(1e8 + np.random.default_rng(0).random((60, 3)))
    chosen = np.arange(60)
    distances, sums = Points(far, np.ones(60)).closest_distances(chosen, np.full(60, np.inf))
    assert distances.min() == 0
    assert (sums >= 0).all()
    np.testing.assert_array_equal(np.diag(distances), np.zeros(60))


def test_membership_has_each_profiles_weight_in_the_row_of_its_cluster() -> None:
    found = membership(np.array([1, 0, 1]), np.array([2, 3, 4]), 3)
    assert found.toarray().tolist() == [[0, 3, 0], [2, 0, 4], [0, 0, 0]]
    assert found.dtype == float


# --- coresets


class Draws:
    """In place of chance: notes the chances, and draws what it is told to."""

    def __init__(self, *drawn: int):
        self.drawn = np.array(drawn)
        self.chance = np.zeros(0)

    def choice(self, count: int, size: int, p: np.ndarray) -> np.ndarray:
        assert (count, size) == (len(p), len(self.drawn))
        self.chance = p
        return self.drawn


def test_half_of_the_draws_are_by_people_and_half_by_what_they_add_to_the_variance() -> None:
    draws: Any = Draws(4, 1, 4)
    few = coreset(Points(sp.csr_matrix(ROWS), WEIGHT), 3, draws)
    mean = WEIGHT @ ROWS / WEIGHT.sum()
    adds = WEIGHT * ((ROWS - mean) ** 2).sum(axis=1)
    chance = WEIGHT / WEIGHT.sum() / 2 + adds / adds.sum() / 2
    np.testing.assert_allclose(draws.chance, chance)
    np.testing.assert_array_equal(few.profiles.toarray(), ROWS[[1, 4]])
    np.testing.assert_allclose(few.weight, [1 / (3 * chance[1]), 5 * 2 / (3 * chance[4])])


def test_people_who_are_all_alike_are_drawn_by_their_number() -> None:
    draws: Any = Draws(0, 0)
    few = coreset(Points(sp.csr_matrix([[1.0, 2.0]]), np.array([8])), 2, draws)
    np.testing.assert_allclose(draws.chance, [1])
    np.testing.assert_allclose(few.weight, [8])


# --- scores


def model(profiles: np.ndarray, weight: np.ndarray, labels: list[int], centers: list[list[float]]) -> Model:
    own = np.array(centers)[labels]
    distances = np.linalg.norm(profiles - own, axis=1)
    return Model(
        centers=np.array(centers),
        labels=np.array(labels),
        distances=distances,
        users=np.bincount(labels, weight, minlength=len(centers)).astype(int),
        wssse=float(weight @ distances**2),
        iterations=1,
        converged=True,
    )


def silhouette(profiles: np.ndarray, weight: np.ndarray, of: Model) -> float | None:
    value = scores.score(sp.csr_matrix(profiles), weight, of)["silhouette"]
    return None if value is None else round(value, 12)


def test_the_silhouette_is_the_mean_over_people_and_0_for_one_who_is_alone() -> None:
    profiles, weight = np.array([[0.0], [1], [4], [10]]), np.array([3, 1, 1, 1])
    two = model(profiles, weight, [0, 0, 1, 1], [[0.0], [7.0]])
    by_person = [*[1.0] * 3, 5 / 6, -(3 - 4) / 4 * 1, 7 / 10]
    assert silhouette(profiles, weight, two) == pytest.approx(sum(by_person) / 6)
    alone = model(profiles, weight, [0, 0, 0, 1], [[0.0], [10.0]])
    assert alone.users.tolist() == [5, 1]
    assert silhouette(profiles, weight, alone) == pytest.approx((3 + 8 / 9 + 2 / 6 + 0) / 6)


def test_a_silhouette_is_negative_where_another_center_is_nearer_and_0_between_equal_ones() -> None:
    profiles, weight = np.array([[0.0], [3.0]]), np.array([2, 2])
    assert silhouette(profiles, weight, model(profiles, weight, [0, 0], [[0.0], [4.0]])) == pytest.approx(
        (2 * 1 + 2 * (1 - 3) / 3) / 4
    )
    same = model(profiles, weight, [0, 1], [[0.0], [0.0]])
    assert silhouette(profiles, weight, same) == 0


def test_of_one_cluster_only_the_wssse_is_defined_and_of_two_all_are() -> None:
    profiles, weight = np.array([[0.0], [2.0], [5.0]]), np.array([1, 2, 2])
    one = scores.score(sp.csr_matrix(profiles), weight, model(profiles, weight, [0, 0, 0], [[2.8]]))
    assert one == {"wssse": pytest.approx(18.8), "silhouette": None, "calinski_harabasz": None}
    two = scores.score(sp.csr_matrix(profiles), weight, model(profiles, weight, [0, 0, 1], [[4 / 3], [5.0]]))
    assert two["wssse"] == pytest.approx(8 / 3)
    assert two["calinski_harabasz"] == pytest.approx((18.8 - 8 / 3) / (8 / 3 / 3))
    assert two["silhouette"] is not None


def test_calinski_harabasz_is_defined_from_one_more_person_than_clusters_on() -> None:
    centers = np.array([[0.0], [2.0], [6.0]])
    assert scores.calinski_harabasz(np.array([1, 1, 1]), centers, 1.0) is None
    assert scores.calinski_harabasz(np.array([2, 1, 1]), centers, 1.0) == pytest.approx((4 + 4 + 0 + 16) / 2 / 1)
    assert scores.calinski_harabasz(np.array([2, 1, 1]), centers, 0.5) == pytest.approx(24.0)
    assert scores.calinski_harabasz(np.array([3, 1, 1]), centers, 1.0) == pytest.approx(
        (3 * 2.56 + 0.16 + 19.36) / 2 / (1 / 2)
    )


def tried(**columns: list[float | None]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("criterion", ["silhouette", "calinski_harabasz"])
def test_the_best_score_is_chosen_the_first_of_equals_and_one_that_is_not_defined_last(criterion: str) -> None:
    def chosen(*values: float | None) -> int:
        rows = tried(k=list(range(2, 2 + len(values))), **{criterion: list(values)})
        return scores.choose_k(rows, criterion)

    assert chosen(0.1, 0.3, 0.2) == 3
    assert chosen(0.1, 0.3, 0.3) == 3
    assert chosen(None, -0.5, -0.7) == 3
    assert chosen(None, None) == 2


def test_the_elbow_lies_farthest_below_the_line_from_the_first_to_the_last() -> None:
    def elbow(*wssse: float, first: int = 2) -> int:
        ks: list[float | None] = [float(k) for k in range(first, first + len(wssse))]
        return scores.choose_k(tried(k=ks, wssse=list(wssse)), "elbow")

    assert elbow(100, 40, 30, 20, 10) == 3
    assert elbow(100, 90, 80, 30, 10, first=1) == 4
    assert elbow(100, 60, 20, 10, 0) == 4
    assert elbow(100, 10) == 2, "there is no line between two"
    assert elbow(5, 5, 5) == 2
    assert elbow(5, 1, 5) == 2, "a line that does not fall has no elbow"
    assert scores.choose_k(tried(k=[2, 4, 12], wssse=[100.0, 70.0, 0.0]), "elbow") == 4
    assert scores.choose_k(tried(k=[2, 10, 12], wssse=[100.0, 30.0, 0.0]), "elbow") == 2
