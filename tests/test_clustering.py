"""k-means: the same as over the users, Spark's stopping rule, the contract's numbering."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.metrics import calinski_harabasz_score

from spark_jobs.clusters import clustering, description, scores
from spark_jobs.clusters.points import Points, coreset
from spark_jobs.clusters.seeding import init_kmeans_plusplus
from spark_jobs.config import KMeansParams

PARAMS = KMeansParams("kmeans||", 100, 0.001)


def blobs(seed: int = 0, n: int = 300) -> sp.csr_matrix:
    random = np.random.default_rng(seed)
    centers = np.array([[0, 0, 9], [9, 0, 0], [0, 9, 0]])
    points = np.round(centers[random.integers(0, 3, n)] + random.poisson(1, (n, 3)))
    return sp.csr_matrix(np.unique(points, axis=0).astype(float))


def test_weighted_profiles_give_the_model_of_the_users() -> None:
    profiles = blobs()
    weight = np.random.default_rng(1).integers(1, 9, profiles.shape[0])
    users = profiles[np.repeat(np.arange(profiles.shape[0]), weight)]
    start = profiles[[0, 5, 9]].toarray()
    weighted = clustering.lloyd(profiles, weight, start, 100, 0)
    plain = clustering.lloyd(users, np.ones(users.shape[0]), start, 100, 0)
    np.testing.assert_allclose(weighted.centers, plain.centers)
    assert weighted.wssse == pytest.approx(plain.wssse)
    assert weighted.iterations == plain.iterations


def test_from_the_same_centers_it_ends_where_scikit_learn_does() -> None:
    profiles = blobs()
    weight = np.random.default_rng(1).integers(1, 9, profiles.shape[0])
    start = profiles[[0, 5, 9]].toarray()
    ours = clustering.lloyd(profiles, weight, start, 300, 0)
    theirs = KMeans(3, init=start, n_init=1, max_iter=300, tol=0).fit(profiles, sample_weight=weight)
    assert ours.wssse == pytest.approx(theirs.inertia_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_)


def test_it_is_converged_when_no_center_moves_farther_than_epsilon() -> None:
    profiles, weight = blobs(), np.ones(blobs().shape[0])
    start = profiles[[0, 1, 2]].toarray()
    moves = []
    centers = start
    for _ in range(20):
        after = clustering.lloyd(profiles, weight, centers, 1, 0).centers
        moves.append(np.sqrt(((after - centers) ** 2).sum(axis=1)).max())
        centers = after
    for step, move in enumerate(moves[:3], 1):
        assert move > 0
        stopped = clustering.lloyd(profiles, weight, start, 100, move)
        assert stopped.converged
        assert stopped.iterations == next(i for i, m in enumerate(moves, 1) if m <= move) <= step


def test_seeds_are_those_of_scikit_learn() -> None:
    profiles = blobs(n=400)
    weight = np.random.default_rng(1).integers(1, 9, profiles.shape[0])
    points = Points(profiles, weight)
    for seed in range(5):
        ours = init_kmeans_plusplus(points, 6, np.random.RandomState(seed))
        theirs, _ = kmeans_plusplus(
            profiles.toarray(), 6, sample_weight=weight.astype(float), random_state=np.random.RandomState(seed)
        )
        np.testing.assert_array_equal(ours, theirs)


def test_the_model_does_not_depend_on_how_many_inits_run_at_a_time() -> None:
    profiles, weight = blobs(), np.ones(blobs().shape[0])
    one, three = (clustering.fit(profiles, weight, 5, PARAMS, 7, 0, cores=cores) for cores in (1, 3))
    np.testing.assert_array_equal(one.centers, three.centers)
    np.testing.assert_array_equal(one.labels, three.labels)


def test_iterations_are_bounded_and_an_unfinished_model_says_so() -> None:
    profiles = blobs()
    model = clustering.lloyd(profiles, np.ones(profiles.shape[0]), profiles[[0, 1, 2]].toarray(), 1, 0)
    assert model.iterations == 1
    assert not model.converged


def test_more_inits_never_make_it_worse_and_a_seed_decides_all() -> None:
    profiles, weight = blobs(n=60), np.ones(blobs(n=60).shape[0])
    one, ten = (clustering.fit(profiles, weight, 5, PARAMS, n, seed=3) for n in (1, 10))
    again = clustering.fit(profiles, weight, 5, PARAMS, 10, seed=3)
    assert ten.wssse <= one.wssse
    np.testing.assert_array_equal(ten.centers, again.centers)
    np.testing.assert_array_equal(ten.labels, again.labels)


@pytest.mark.parametrize("init", ["kmeans||", "random"])
def test_k_is_cut_to_the_profiles_and_each_is_then_a_cluster(init: str) -> None:
    profiles = sp.csr_matrix(np.array([[0.0, 0], [1, 0], [0, 5]]))
    model = clustering.fit(profiles, np.array([1, 5, 2]), 7, KMeansParams(init, 100, 0.001), 10, 0)
    assert model.k == 3
    assert model.wssse == 0
    assert model.users.tolist() == [5, 2, 1]
    np.testing.assert_array_equal(model.distances, 0)


def test_nobody_gives_no_cluster() -> None:
    model = clustering.fit(sp.csr_matrix((0, 4)), np.zeros(0, int), 3, PARAMS, 10, 0)
    assert model.k == 0
    assert model.wssse == 0
    assert description.describe(sp.csr_matrix((0, 4)), np.zeros(0, int), model).average.shape == (0, 4)


def test_a_center_that_loses_its_members_moves_to_the_farthest_profile() -> None:
    profiles = sp.csr_matrix(np.array([[0.0], [1], [2], [50]]))
    start = np.array([[1.0], [1000], [2000]])
    model = clustering.lloyd(profiles, np.ones(4), start, 100, 0)
    assert (model.users > 0).all()
    assert model.wssse <= 0.5


vectors = hnp.arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 4)), elements=st.integers(0, 5).map(float))


@given(vectors, st.integers(1, 6), st.integers(0, 100))
@settings(deadline=None, max_examples=150)
def test_every_model_is_consistent(points: np.ndarray, k: int, seed: int) -> None:
    distinct, weight = np.unique(points, axis=0, return_counts=True)
    profiles = sp.csr_matrix(distinct)
    model = clustering.fit(profiles, weight, k, PARAMS, 2, seed)
    distances = np.linalg.norm(distinct[:, None] - model.centers[None], axis=2)
    own = distances[np.arange(len(distinct)), model.labels]
    np.testing.assert_allclose(model.distances, own, atol=1e-9)
    np.testing.assert_allclose(own, distances.min(axis=1), atol=1e-7)
    assert model.wssse == pytest.approx(weight @ own**2, abs=1e-9)
    assert model.users.sum() == weight.sum()
    assert (model.users > 0).all()
    order = [(-int(model.users[c]), tuple(model.centers[c])) for c in range(model.k)]
    assert order == sorted(order)
    found = description.describe(profiles, weight, model)
    for cluster in range(model.k):
        members = np.repeat(distinct, weight, axis=0)[np.repeat(model.labels, weight) == cluster]
        np.testing.assert_allclose(found.minimum[cluster], members.min(axis=0))
        np.testing.assert_allclose(found.maximum[cluster], members.max(axis=0))
        np.testing.assert_allclose(found.average[cluster], members.mean(axis=0))
        np.testing.assert_array_equal(found.member_count[cluster], (members > 0).sum(axis=0))


def test_scores_are_those_over_the_users() -> None:
    profiles = blobs()
    weight = np.random.default_rng(1).integers(1, 9, profiles.shape[0])
    model = clustering.fit(profiles, weight, 3, PARAMS, 5, 0)
    got = scores.score(profiles, weight, model)
    users = np.repeat(profiles.toarray(), weight, axis=0)
    labels = np.repeat(model.labels, weight)
    assert got["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(users, labels), rel=1e-3)
    to_all = np.linalg.norm(users[:, None] - model.centers[None], axis=2)
    a = to_all[np.arange(len(users)), labels]
    to_all[np.arange(len(users)), labels] = np.inf
    b = to_all.min(axis=1)
    assert got["silhouette"] == pytest.approx(((b - a) / np.maximum(a, b)).mean())


@pytest.mark.parametrize("k", [2, 3])
def test_calinski_harabasz_is_scikit_learns_from_two_clusters_on(k: int) -> None:
    profiles = blobs()
    weight = np.random.default_rng(1).integers(1, 9, profiles.shape[0])
    model = clustering.lloyd(profiles, weight, profiles[[0, 5, 9][:k]].toarray(), 300, 0)
    expected = calinski_harabasz_score(
        np.repeat(profiles.toarray(), weight, axis=0), np.repeat(model.labels, weight, axis=0)
    )
    assert scores.calinski_harabasz(model.users, model.centers, model.wssse) == pytest.approx(expected, rel=1e-9)


def test_calinski_harabasz_is_not_defined_for_one_cluster_for_single_people_and_without_any_distance() -> None:
    two = np.array([[0.0], [2.0]])
    assert scores.calinski_harabasz(np.array([4]), np.array([[1.0]]), 4.0) is None
    assert scores.calinski_harabasz(np.array([1, 1]), two, 1.0) is None
    assert scores.calinski_harabasz(np.array([2, 2]), two, 0.0) is None
    assert scores.calinski_harabasz(np.array([2, 1]), two, 1.0) == pytest.approx(8 / 3)


@pytest.mark.parametrize("criterion", ["silhouette", "calinski_harabasz", "elbow"])
def test_the_planted_number_of_clusters_is_chosen(criterion: str) -> None:
    profiles = blobs()
    weight = np.ones(profiles.shape[0])
    tried = []
    for k in range(2, 8):
        model = clustering.fit(profiles, weight, k, PARAMS, 5, 0)
        tried.append({"k": k, **scores.score(profiles, weight, model)})
    assert scores.choose_k(tried, criterion) == 3


def test_where_no_score_is_defined_the_smallest_k_is_chosen() -> None:
    assert scores.choose_k([{"k": 1, "wssse": 0.0, "silhouette": None}], "silhouette") == 1
    assert scores.choose_k([{"k": 1, "wssse": 0.0, "silhouette": None}], "elbow") == 1


def test_a_coreset_costs_about_what_all_profiles_do() -> None:
    random = np.random.default_rng(0)
    profiles = sp.csr_matrix(
        np.unique(np.round(random.poisson(2, (60_000, 6)) * random.integers(1, 9, (60_000, 1))), axis=0)
    )
    weight = random.integers(1, 50, profiles.shape[0])
    few = coreset(Points(profiles.astype(float), weight), 5000, random)
    assert few.profiles.shape[0] <= 5000
    assert few.weight.sum() == pytest.approx(weight.sum(), rel=0.05)
    for centers in (profiles[:4].toarray(), profiles[-9:].toarray()):
        cost = [
            clustering.lloyd(some, of, centers.astype(float), 1, np.inf).wssse
            for some, of in ((profiles.astype(float), weight), (few.profiles, few.weight))
        ]
        assert cost[1] == pytest.approx(cost[0], rel=0.05)


def test_a_coreset_has_whoever_adds_most_to_the_variance_and_whoever_stands_for_most_people() -> None:
    """Far from zero: many near each other, one amid them that most people have; and far from these, to one side one
    that 400 people have, to the other as many people, each with one of their own."""
    random = np.random.default_rng(0)
    near = 1000 + random.normal(0, 0.01, (20_000, 2))
    singles = np.array([1000, 100]) + random.normal(0, 1, (400, 2))
    profiles = sp.csr_matrix(np.vstack([near, singles, [[1000, 1000], [1000, 1900]]]))
    weight = np.ones(20_402)
    weight[-2:] = 20_000, 400
    few = coreset(Points(profiles, weight), 60, random)
    found = {tuple(row): float(people) for row, people in zip(few.profiles.toarray(), few.weight, strict=True)}
    assert found[1000, 1000] == pytest.approx(20_000, rel=0.7)
    assert found[1000, 1900] == pytest.approx(400, rel=0.7)
    assert sum(people for (_, y), people in found.items() if y < 500) == pytest.approx(400, rel=0.7)


def test_many_profiles_end_no_worse_than_without_a_coreset(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    profiles = sp.csr_matrix(np.unique(random.poisson(3, (20_000, 5)), axis=0).astype(float))
    weight = random.integers(1, 9, profiles.shape[0])
    best = clustering.fit(profiles, weight, 8, PARAMS, 5, 0)
    plain = clustering.fit(profiles, weight, 8, PARAMS, 5, 0, searches=0)
    monkeypatch.setattr(clustering, "_CORESET", 2000)
    started = clustering.fit(profiles, weight, 8, PARAMS, 5, 0)
    assert started.converged
    assert started.iterations < plain.iterations
    assert started.wssse <= 1.01 * best.wssse
    again = clustering.fit(profiles, weight, 8, PARAMS, 5, 0, cores=2)
    np.testing.assert_array_equal(started.centers, again.centers)


# --- placing everybody


def test_confidence_is_0_halfway_between_two_centers_and_1_on_its_own() -> None:
    profiles = sp.csr_matrix(np.array([[1.0], [0], [4], [0.5], [100]]))
    labels, distances, to_next = clustering.assign(profiles, np.array([[0.0], [2]]))
    assert labels.tolist() == [0, 0, 1, 0, 1]  # of two that are as near, the first
    assert distances.tolist() == [1, 0, 2, 0.5, 98]
    assert to_next.tolist() == [1, 2, 4, 1.5, 100]
    assert clustering.confidence(distances, to_next).tolist() == pytest.approx([0, 1, 0.5, 2 / 3, 0.02])


def test_with_one_cluster_everybody_is_sure_to_be_in_it() -> None:
    profiles = blobs(n=50)
    labels, distances, to_next = clustering.assign(profiles, profiles[[0]].toarray())
    assert not labels.any()
    assert np.isinf(to_next).all()
    assert (clustering.confidence(distances, to_next) == 1).all()


def test_of_nobody_nothing_is_assigned() -> None:
    found = clustering.assign(sp.csr_matrix((0, 2)), np.zeros((3, 2)))
    assert [len(part) for part in found] == [0, 0, 0]
    assert clustering.confidence(*found[1:]).shape == (0,)


@given(vectors, st.integers(1, 6), st.integers(0, 100))
@settings(deadline=None, max_examples=150)
def test_assigned_is_the_nearest_and_the_next_is_the_second_nearest(points: np.ndarray, k: int, seed: int) -> None:
    centers = np.random.default_rng(seed).uniform(0, 5, (k, points.shape[1]))
    labels, distances, to_next = clustering.assign(sp.csr_matrix(points), centers)
    far = np.linalg.norm(points[:, None] - centers[None], axis=2)
    np.testing.assert_allclose(far[np.arange(len(points)), labels], far.min(axis=1), atol=1e-7)
    two = np.sort(np.column_stack([far, np.full(len(points), np.inf)]), axis=1)[:, :2]
    np.testing.assert_allclose(distances, two[:, 0], atol=1e-7)
    np.testing.assert_allclose(to_next, two[:, 1], atol=1e-7)
    assert (distances <= to_next).all()
    sure = clustering.confidence(distances, to_next)
    assert ((sure >= 0) & (sure <= 1)).all()


def test_everybody_is_placed_in_one_cluster_and_clusters_are_numbered_by_everybody() -> None:
    profiles = blobs(n=400)
    random = np.random.default_rng(0)
    weight = random.integers(1, 9, profiles.shape[0])
    learned = random.random(profiles.shape[0]) < 0.4
    fitted = clustering.fit(profiles[learned], weight[learned], 5, PARAMS, 5, 0)
    placed = clustering.place(fitted, profiles, weight)
    assert placed.users.sum() == weight.sum()
    np.testing.assert_array_equal(np.bincount(placed.labels, weight, minlength=5), placed.users)
    assert sorted(placed.users, reverse=True) == placed.users.tolist()
    assert sorted(map(tuple, placed.centers)) == sorted(map(tuple, fitted.centers))
    assert (placed.iterations, placed.converged) == (fitted.iterations, fitted.converged)
    far = np.linalg.norm(profiles.toarray()[:, None] - placed.centers[None], axis=2)
    np.testing.assert_allclose(placed.distances, far.min(axis=1), atol=1e-9)
    np.testing.assert_allclose(far[np.arange(len(far)), placed.labels], far.min(axis=1), atol=1e-9)
    assert placed.wssse == pytest.approx(weight @ far.min(axis=1) ** 2)


def test_placing_those_who_were_learned_from_changes_nothing() -> None:
    profiles = blobs(n=400)
    weight = np.random.default_rng(1).integers(1, 9, profiles.shape[0])
    fitted = clustering.fit(profiles, weight, 4, PARAMS, 5, 0)
    placed = clustering.place(fitted, profiles, weight)
    for name, value in vars(fitted).items():
        np.testing.assert_array_equal(getattr(placed, name), value, err_msg=name)


def test_a_model_of_nothing_places_nobody() -> None:
    model = clustering.fit(sp.csr_matrix((0, 4)), np.zeros(0, int), 3, PARAMS, 10, 0)
    assert clustering.place(model, sp.csr_matrix((0, 4)), np.zeros(0, int)) is model


@pytest.mark.parametrize("profiles", [1, 2, 3])
def test_more_centers_than_profiles_leave_some_of_them_empty(profiles: int) -> None:
    points = sp.csr_matrix(np.eye(5)[:profiles])
    model = clustering.lloyd(points, np.ones(profiles), np.eye(5), 10, 0)
    assert model.wssse == 0
    assert np.count_nonzero(model.users) == profiles
