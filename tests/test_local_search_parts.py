"""The moves of the local search, each against all that could be done instead."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.clusters import local_search
from spark_jobs.clusters.local_search import Clustering, Tries
from spark_jobs.clusters.points import Points

PROFILES = np.array([[0.0, 0], [1, 0], [0, 2], [9, 9], [8, 9], [4, 5], [9, 7]])
WEIGHT = np.array([1.0, 2, 1, 3, 1, 2, 4])
LABELS = np.array([0, 0, 1, 1, 1, 0, 2])


@pytest.fixture
def points() -> Points:
    return Points(sp.csr_matrix(PROFILES), WEIGHT)


def cost(labels: np.ndarray) -> float:
    """The sum of squared distances to the centers of clusters, over the users."""
    total = 0.0
    for cluster in np.unique(labels):
        here, weight = PROFILES[labels == cluster], WEIGHT[labels == cluster]
        total += float(weight @ ((here - np.average(here, axis=0, weights=weight)) ** 2).sum(axis=1))
    return total


def clustering(points: Points, labels: np.ndarray = LABELS) -> Clustering:
    return local_search._clustering(points, labels, int(labels.max()) + 1)


def test_a_clustering_has_centers_users_and_its_cost(points: Points) -> None:
    made = clustering(points)
    assert made.users.tolist() == [5, 5, 4]
    np.testing.assert_allclose(made.sums, [[10, 10], [35, 38], [36, 28]])
    np.testing.assert_allclose(made.centers, [[2, 2], [7, 7.6], [9, 7]])
    assert made.cost == pytest.approx(cost(LABELS))


def test_distances_are_squared_and_never_below_nothing(points: Points) -> None:
    centers = np.array([[1.0, 0], [9, 9], [1 + 1e-9, 0]])
    found = local_search._squared_distances(points, centers)
    np.testing.assert_allclose(found, ((PROFILES[:, None] - centers[None]) ** 2).sum(axis=2), atol=1e-6)
    assert found.min() >= 0


def test_the_best_move_of_a_profile_lowers_the_cost_most_both_centers_moving_along(points: Points) -> None:
    to, gain = local_search._best_moves(points, clustering(points))
    for profile in range(len(LABELS)):
        if (LABELS[profile] == LABELS).sum() == 1:
            assert gain[profile] == -np.inf, "who is alone leaves no empty cluster"
            continue
        saved = {}
        for other in {0, 1, 2} - {int(LABELS[profile])}:
            moved = LABELS.copy()
            moved[profile] = other
            saved[other] = cost(LABELS) - cost(moved)
        assert to[profile] == max(saved, key=lambda other: saved[other])
        assert gain[profile] == pytest.approx(max(saved.values()))


def test_profiles_move_together_if_that_costs_less_and_leaves_no_cluster_empty(points: Points) -> None:
    now = clustering(points)
    moved = local_search._move(points, now, np.array([2, 5]), np.array([0, 1]))
    assert moved is not None
    assert moved.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert moved.cost == pytest.approx(cost(moved.labels))
    assert now.labels.tolist() == LABELS.tolist(), "what was is kept"
    assert local_search._move(points, now, np.array([0]), np.array([1])) is None, "it costs more"
    assert local_search._move(points, now, np.array([6]), np.array([1])) is None, "nobody would be in 2"
    assert local_search._move(points, now, np.array([0]), np.array([0])) is None, "it costs no less"


def test_in_the_end_no_move_of_one_profile_pays(points: Points) -> None:
    end = local_search.move_profiles(points, clustering(points))
    assert end.cost == pytest.approx(cost(end.labels))
    assert end.cost < cost(LABELS)
    for profile in range(len(LABELS)):
        for other in range(3):
            moved = end.labels.copy()
            moved[profile] = other
            if len(np.unique(moved)) == 3:
                assert cost(moved) >= end.cost - 1e-9


class Moves:
    """In place of the moves: each round costs so much less, until nothing pays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *costs: float, profiles: int = 16):
        self.costs: Iterator[float] = iter(costs)
        self.tried: list[int] = []  # how many profiles at a time
        self.most = profiles  # that can move together
        monkeypatch.setattr(local_search, "_best_moves", self._best_moves)
        monkeypatch.setattr(local_search, "_move", self._move)
        self.start = Clustering(np.zeros(profiles, int), np.ones(1), np.ones((1, 1)), 100.0)

    def _best_moves(self, _: Any, now: Clustering) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(now.labels), int), np.linspace(1, 2, len(now.labels))

    def _move(self, _: Any, now: Clustering, rows: np.ndarray, to: np.ndarray) -> Clustering | None:
        assert len(rows) == len(to)
        self.tried.append(len(rows))
        assert rows.tolist() == list(range(len(now.labels)))[::-1][: len(rows)], "those that gain most first"
        if len(rows) > self.most or (cost := next(self.costs, None)) is None:
            return None
        return Clustering(now.labels, now.users, now.sums, cost)

    def run(self, give_up: float = float("inf")) -> float:
        points: Any = None
        return local_search.move_profiles(points, self.start, give_up).cost


def test_all_moves_that_pay_are_made_at_once_or_a_quarter_of_them_until_some_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moves = Moves(monkeypatch, 90, 80)
    moves.most = 4
    assert moves.run() == 80
    assert moves.tried == [16, 4, 8, 2, 4, 1], "after fewer moves twice as many are tried, then fewer again"
    moves = Moves(monkeypatch, 90, 80)
    assert moves.run() == 80
    assert moves.tried == [16, 16, 16, 4, 1], "and after all of them all"


@pytest.mark.parametrize(
    ("give_up", "end"),
    [
        (float("inf"), 70),
        (72, 70),  # 88 - 8 × 2
        (71.9, 88),
        (10, 88),  # 90 - 8 × 10
        (9.9, 90),
    ],
)
def test_rounds_end_where_eight_more_as_good_as_the_last_would_not_get_where_they_should(
    monkeypatch: pytest.MonkeyPatch, give_up: float, end: float
) -> None:
    assert Moves(monkeypatch, 90, 88, 70).run(give_up) == end


def test_a_hundred_rounds_are_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Moves(monkeypatch, *(100 - 0.1 * number for number in range(1, 200))).run() == pytest.approx(90)


# --- giving up a cluster


def test_what_it_costs_to_give_up_a_cluster_is_what_its_people_cost_at_the_next_one(points: Points) -> None:
    now = clustering(points)
    around = local_search._Around(points, now)
    squared = ((PROFILES[:, None] - now.centers[None]) ** 2).sum(axis=2)
    for profile, label in enumerate(LABELS):
        others = [cluster for cluster in range(3) if cluster != label]
        assert around.to_own[profile] == pytest.approx(squared[profile, label])
        assert around.to_next[profile] == pytest.approx(squared[profile, others].min())
    np.testing.assert_allclose(around.cost, np.bincount(LABELS, WEIGHT * around.to_own))
    np.testing.assert_allclose(around.loss, np.bincount(LABELS, WEIGHT * (around.to_next - around.to_own)))
    next_best = np.where(np.eye(3, dtype=bool)[LABELS], np.inf, squared).argmin(axis=1)
    for cluster in range(3):
        assert around.without(cluster).tolist() == np.where(cluster == LABELS, next_best, LABELS).tolist()


def test_every_cluster_in_two_costs_less_and_each_half_is_near_its_own_center(points: Points) -> None:
    far = np.array([[0.0, 0], [0, 1], [20, 0], [20, 1], [50, 50], [50, 52], [50, 90], [50, 92]])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    apart = Points(sp.csr_matrix(far), np.ones(8))
    halves = local_search._Halves(apart, local_search._clustering(apart, labels, 2), np.random.RandomState(0))
    assert halves.second[0] == halves.second[1] != halves.second[2] == halves.second[3]
    assert halves.second[4] == halves.second[5] != halves.second[6] == halves.second[7]
    np.testing.assert_allclose(halves.cost, [1.0, 4.0], atol=1e-6)
    assert local_search._Halves(points, clustering(points), np.random.RandomState(0)).cost[2] == pytest.approx(0)


def test_a_pair_that_failed_is_not_tried_again_while_its_people_stay(
    points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = local_search._Search(points, np.random.RandomState(0), Tries(100, 0))
    tried: list[list[int]] = []
    monkeypatch.setattr(search, "_better", lambda _, labels: tried.append(labels.tolist()))
    now = clustering(points)
    assert search.swap_clusters(now) is None
    assert len(tried) == 6, "each pair"
    assert search.swap_clusters(now) is None
    assert len(tried) == 6
    few = local_search._Search(points, np.random.RandomState(0), Tries(2, 3))
    tried.clear()
    monkeypatch.setattr(few, "_better", lambda _, labels: tried.append(labels.tolist()))
    assert few.swap_clusters(now) is None
    assert len(tried) == 5, "two splits, and three new centers"
    lost = int(local_search._Around(points, now).loss.argmin())
    for labels in tried[2:]:
        assert lost in labels, "the new cluster has the number of the one that is given up"


def test_only_a_clustering_that_costs_less_is_better(points: Points) -> None:
    search = local_search._Search(points, np.random.RandomState(0), Tries(0, 0))
    best = local_search.move_profiles(points, clustering(points))
    assert search._better(best, best.labels) is None
    assert search._better(best, np.array([0, 0, 0, 1, 1, 1, 1])) is None, "nobody would be in 2"
    found = search._better(clustering(points), LABELS)
    assert found is not None
    assert found.cost == pytest.approx(best.cost)


def test_a_new_center_is_that_of_several_which_lowers_distances_most(points: Points) -> None:
    search = local_search._Search(points, np.random.RandomState(0), Tries(0, 1))
    distance = ((PROFILES - np.array([0.0, 0])) ** 2).sum(axis=1)
    near = search._near_new_center(distance)
    sums = [WEIGHT @ np.minimum(distance, ((PROFILES - center) ** 2).sum(axis=1)) for center in PROFILES]
    best = PROFILES[int(np.argmin(sums))]
    assert near.tolist() == (((PROFILES - best) ** 2).sum(axis=1) < distance).tolist()


def test_two_of_its_members_are_what_the_halves_of_a_cluster_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_search, "_SPLIT_ITERATIONS", 1)
    pairs = Points(sp.csr_matrix(np.array([[0.0, 1], [5, 7], [20, 30], [22, 39]])), np.array([1.0, 3, 2, 1]))
    now = local_search._clustering(pairs, np.array([0, 0, 1, 1]), 2)
    halves = local_search._Halves(pairs, now, np.random.RandomState(0))
    assert halves.cost.tolist() == [0, 0]
    assert halves.second[0] != halves.second[1]
    assert halves.second[2] != halves.second[3]


def test_a_split_gives_half_of_the_other_cluster_to_the_one_that_is_given_up(
    points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = clustering(points)
    search = local_search._Search(points, np.random.RandomState(0), Tries(100, 0))
    tried: list[np.ndarray] = []
    monkeypatch.setattr(search, "_better", lambda _, labels: tried.append(labels))
    assert search.swap_clusters(now) is None
    around = local_search._Around(points, now)
    halves = local_search._Halves(points, now, np.random.RandomState(0))
    gain = {
        (lost, split): around.cost[split] - halves.cost[split] - around.loss[lost]
        for lost in range(3)
        for split in range(3)
        if lost != split
    }
    best_first = sorted(gain, key=lambda pair: -gain[pair])
    for (lost, split), labels in zip(best_first, tried, strict=True):
        expected = np.where((now.labels == split) & halves.second, lost, around.without(lost))
        assert labels.tolist() == expected.tolist()
