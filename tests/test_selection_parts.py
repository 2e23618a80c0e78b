"""How segments are judged, part by part: against sums that are made one by one, and rules that are tried one by one."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.clusters import selection
from spark_jobs.config import KMeansConfig, KSelectionConfig, parse_params

CONFIG = KSelectionConfig(k_max=3, n_init=1)


def on_pages(*counts: int, pages: int) -> sp.csr_matrix:
    """People who are on so many pages each, on every page as often as on any other."""
    rows = np.zeros((len(counts), pages))
    for number, row in enumerate(rows):
        row[(np.arange(counts[number]) + number) % pages] = 1
    return sp.csr_matrix(rows)


# --- splits


@pytest.mark.parametrize("pages", [6, 7])
def test_of_two_pages_that_are_about_as_popular_one_is_in_each_half(pages: int) -> None:
    people = sp.csr_matrix(np.tri(pages))  # page 0 is the most popular one
    firsts = [selection._half_of_pages(people, np.random.default_rng(seed)) for seed in range(20)]
    for first in firsts:
        assert first.shape == (pages,)
        assert all(first[page] != first[page + 1] for page in range(0, pages - 1, 2))
    assert {bool(first[0]) for first in firsts} == {bool(first[2]) for first in firsts} == {True, False}


def test_a_page_that_few_are_on_is_paired_with_its_like_and_not_with_its_neighbor() -> None:
    people = sp.csr_matrix(np.array([[1.0, 0, 1, 0]] * 9 + [[0, 1, 0, 1]]))
    for seed in range(8):
        first = selection._half_of_pages(people, np.random.default_rng(seed))
        assert first[0] != first[2]
        assert first[1] != first[3]


@pytest.mark.parametrize(("people", "splits"), [(1999, 8), (2000, 4)])
def test_few_people_are_split_more_often(people: int, splits: int) -> None:
    made = selection.splits(on_pages(*[2] * people, pages=4), 0)
    assert len(made) == 2 * splits
    for one, other in zip(made[::2], made[1::2], strict=True):
        assert sorted([*one.held_out, *other.held_out]) == list(range(people)), "two folds, both ways"
        assert one.learned.shape[0] == len(other.held_out)
        assert [half.mix.shape[0] for half in one.halves] == [len(one.held_out)] * 2


# --- half of the pages


def half(people: sp.csr_matrix | np.ndarray, *pages: int) -> Any:
    matrix = sp.csr_matrix(people)
    return selection._Half(matrix, np.isin(np.arange(matrix.shape[1]), pages))


def test_the_mix_of_a_person_is_the_share_of_each_page_of_that_half() -> None:
    people = sp.csr_matrix(np.array([[1.0, 3, 9], [0, 0, 5], [2, 2, 0]]))
    people.data[people.indices == 2] = [9, 5]
    made = half(people, 0, 1)
    assert made.mix.toarray().tolist() == [[0.25, 0.75], [0, 0], [0.5, 0.5]]
    np.testing.assert_allclose(made.pages, [1 / (0.25**2 + 0.75**2), 0, 2])


def test_a_value_that_is_there_and_is_nothing_is_no_page_in_use() -> None:
    people = sp.csr_matrix((np.array([0.0, 1.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 3))
    assert half(people, 0, 1).mix.nnz == 1


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        # 400 people, of whom four strata of 50 in each fold can be made.
        (on_pages(*[1 + number % 8 for number in range(400)], pages=10), [0, 0, 1, 1, 2, 2, 3, 3]),
        (on_pages(*[1 + number % 8 for number in range(399)], pages=10), [0, 0, 0, 1, 1, 1, 2, 2]),
        # 2,000 people, of whom 20 could be made: eight is the most.
        (on_pages(*[1 + number % 8 for number in range(2000)], pages=10), [0, 1, 2, 3, 4, 5, 6, 7]),
        # 1,800 visits, of which each page has but 2 × 10 in three strata.
        (on_pages(*[1 + number % 8 for number in range(400)], pages=30), [0, 0, 0, 1, 1, 1, 2, 2]),
        (on_pages(*[1 + number % 8 for number in range(100)], pages=10), [0] * 8),
        (sp.csr_matrix((8, 4)), [0] * 8),  # nobody is on these
    ],
)
def test_a_stratum_has_enough_people_and_visits_to_know_what_is_usual_in_it(
    people: sp.csr_matrix, expected: list[int]
) -> None:
    assert half(people, *range(people.shape[1])).stratum[:8].tolist() == expected


def test_people_of_groups_are_added_up() -> None:
    rows = sp.csr_matrix(np.array([[1.0, 2], [3, 4], [5, 6]]))
    assert selection._sums(rows, np.array([2, 0, 2]), 4).tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]]


# --- predictions


def by_hand(
    of: selection._HalfOfSplit, learned: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one half of the pages: what is usual of each stratum, and what each cluster is like, one by one."""
    pages = learned.shape[1]
    popularity = [sum(row[page] for row in learned) + 0.5 for page in range(pages)]
    popularity = np.array(popularity) / sum(popularity)
    usual = []
    for stratum in range(of.strata):
        mine = [row for row, its in zip(learned, of.learned_stratum, strict=True) if its == stratum]
        total = sum(mine, np.zeros(pages)) + 10 * popularity
        usual.append(total / total.sum())
    lift = []
    for cluster in range(max(labels) + 1):
        observed, expected = 10 * popularity, 10 * popularity
        for row, its, label in zip(learned, of.learned_stratum, labels, strict=True):
            if label == cluster:
                observed = observed + row
                expected = expected + (usual[its] if row.any() else 0)
        lift.append(observed / expected)
    return popularity, np.array(usual), np.array(lift)


@pytest.fixture
def split() -> tuple[sp.csr_matrix, np.ndarray, selection.Split]:
    """Some people, the clusters of those that are learned from, and a split; some are on no page of a half."""
    random = np.random.default_rng(3)
    people = sp.csr_matrix(random.poisson(0.5, (240, 8)) * random.integers(1, 4, (240, 1)).astype(float))
    made = selection.splits(people, 0)[0]
    labels = np.arange(made.learned.shape[0]) % 3
    return people, np.where(labels == 1, 0, labels), made


def test_what_is_usual_is_that_of_people_who_are_as_active_and_clusters_differ_from_it(split: Any) -> None:
    _, labels, made = split
    for of in made.halves:
        popularity, usual, lift = by_hand(of, of.learned.toarray(), labels)
        np.testing.assert_allclose(of.popularity, popularity)
        np.testing.assert_allclose(of.usual, usual)
        predictor = selection._Predictor(of, labels)
        np.testing.assert_allclose(predictor._lift, lift)
        np.testing.assert_allclose(predictor._norm, usual @ lift.T)
        users = np.bincount(labels) + 0.5
        np.testing.assert_allclose(predictor._log_share, np.log(users / users.sum()))


def test_how_likely_a_cluster_is_and_how_well_it_predicts_are_those_of_each_person(split: Any) -> None:
    _, labels, made = split
    seen, other = made.halves
    _, usual, lift = by_hand(seen, seen.learned.toarray(), labels)
    _, usual_there, lift_there = by_hand(other, other.learned.toarray(), labels)
    users = np.bincount(labels) + 0.5
    chances = selection._Predictor(seen, labels).chances()
    predicted = selection._Predictor(other, labels).predict(chances)
    assert len(chances) == len(made.held_out)
    assert (seen.pages == 0).any()
    for person in range(len(chances)):
        mix, its = seen.mix[[person]].toarray()[0], seen.stratum[person]
        like = [sum(mix * np.log(lift[c] / (usual[its] @ lift[c]))) for c in range(len(users))]
        weight = users / users.sum() * np.exp(seen.pages[person] * np.array(like))
        np.testing.assert_allclose(chances[person], weight / weight.sum())
        mix, its = other.mix[[person]].toarray()[0], other.stratum[person]
        ratio = sum(chances[person, c] * lift_there[c] / (usual_there[its] @ lift_there[c]) for c in range(len(users)))
        assert predicted[person] == pytest.approx(sum(mix * np.log(ratio)))


def blind_labels(rows: Any) -> np.ndarray:
    """A clustering that knows nothing."""
    return np.arange(rows.shape[0]) % 2


def test_each_person_is_predicted_in_every_split_in_both_directions(split: Any) -> None:
    people, _, _ = split
    made = selection.splits(people, 0)
    expected = np.zeros(people.shape[0])
    for each in made:
        first, second = (selection._Predictor(of, blind_labels(each.learned)) for of in each.halves)
        expected[each.held_out] += second.predict(first.chances()) + first.predict(second.chances())
    found = selection.prediction_scores(people, made, blind_labels)
    np.testing.assert_allclose(found, expected / len(made))


def test_evidence_is_how_much_better_ones_own_half_predicts_than_those_of_eight_others(split: Any) -> None:
    people, _, _ = split
    made = selection.splits(people, 0)
    random, gain = np.random.default_rng(9), np.zeros(people.shape[0])
    for each in made:
        first, second = (selection._Predictor(of, blind_labels(each.learned)) for of in each.halves)
        for seen, other in ((first, second), (second, first)):
            chances = seen.chances()
            strangers = [selection._stranger_in(other.half.stratum, random) for _ in range(8)]
            others = np.mean([other.predict(chances[stranger]) for stranger in strangers], axis=0)
            gain[each.held_out] += other.predict(chances) - others
    expected = gain.mean() / gain.std() * math.sqrt(len(gain))
    assert selection.evidence(people, made, blind_labels, 9) == pytest.approx(expected)


# --- the number of segments


def row(k: int, smallest: int, **scores: float) -> dict[str, Any]:
    return {"k": k, "smallest_segment": smallest, **scores}


class Fits:
    """In place of k-means: notes what is fitted. And an audience, whose smallest segments are given by k."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sizes: dict[int, int]):
        self.made: list[Any] = []
        monkeypatch.setattr(selection.clustering, "fit", lambda *of, **more: self.made.append((of, more)) or of[2])
        self.audience: Any = SimpleNamespace(
            points="points", times="times", smallest_segment=lambda model, k: sizes[k] if model == k else -1
        )

    def choose(
        self, rows: list[dict[str, Any]], predicted: list[float], criterion: str = "prediction"
    ) -> tuple[int | None, int]:
        scores = [value * np.linspace(1, 1 + 1e-9, 4) for value in predicted]  # beyond chance
        return selection._choose(self.audience, rows, scores, 10, criterion, 3)


def test_the_k_that_is_chosen_is_clustered_as_k_means_does_by_default_and_measured_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = Fits(monkeypatch, {2: 50, 3: 12})
    rows = [row(2, 40), row(3, 30)]
    assert fits.choose(rows, [0, 1, 2]) == (3, 3)
    config = KMeansConfig()
    ((of, more),) = fits.made
    assert of == ("points", "times", 3, parse_params(config.params), config.n_init, config.seed)
    assert more == {"cores": 3}
    assert [each["smallest_segment"] for each in rows] == [40, 12], "as it will be"


def test_a_k_whose_segments_turn_out_too_small_is_passed_over_until_none_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Fits(monkeypatch, {2: 10, 3: 9}).choose([row(2, 40), row(3, 30)], [0, 1, 2]) == (2, 2)
    assert Fits(monkeypatch, {2: 9, 3: 9}).choose([row(2, 40), row(3, 30)], [0, 1, 2]) == (None, 1)
    assert Fits(monkeypatch, {}).choose([], [0]) == (None, 1)


def test_another_criterion_chooses_k_and_what_predicts_best_is_known_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row(2, 40, silhouette=0.9), row(3, 30, silhouette=0.1)]
    assert Fits(monkeypatch, {2: 50, 3: 50}).choose(rows, [0, 1, 2], "silhouette") == (2, 3)


@pytest.mark.parametrize(
    ("second", "taken"),
    [
        (np.full(100, 0.995), 2),  # within one in a hundred
        (np.linspace(0.98, 0.981, 100), 3),
        (0.9 + np.array([-1.0, 1.0] * 50), 2),  # by chance
        (0.7 + np.array([-1.0, 1.0] * 50), 3),
    ],
)
def test_a_smaller_k_is_as_good_within_a_hundredth_or_within_two_errors(second: np.ndarray, taken: int) -> None:
    assert selection._smallest_as_good([2, 3], [np.zeros(100), second, np.ones(100)]) == taken


# --- the verdict


class Judged:
    """What is said of an audience on some pages, whose choice and evidence are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.chosen: tuple[int | None, int] = (3, 2)
        self.evidence, self.predicted, self.pages = 3.6, [0.0, 0.5, 0.6], 4
        self.rows = [row(1, 99), row(2, 10), row(3, 10), row(4, 9)]
        self.asked: list[Any] = []
        monkeypatch.setattr(selection, "_choose", lambda *of: self.asked.append(of) or self.chosen)
        monkeypatch.setattr(selection, "evidence", lambda *of: self.asked.append(of) or self.evidence)
        monkeypatch.setattr(selection, "_refit_anew", lambda k, seed: ("anew", k, seed))

    def judge(self, **config: Any) -> tuple[int, float | None, str]:
        points = sp.csr_matrix(np.eye(self.pages))
        audience: Any = SimpleNamespace(points=points, people="people")
        predicted = [np.full(5, value) for value in self.predicted]
        return selection._judge(audience, [], self.rows, predicted, 10, CONFIG.model_copy(update=config), 2)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    return Judged(monkeypatch)


def test_segments_are_said_with_how_they_were_chosen_and_how_sure_it_is(judged: Judged) -> None:
    judged.evidence = 3.5  # exactly what is needed
    assert judged.judge(seed=7) == (
        3,
        3.5,
        "3 segments: they predict best what people do on half of the pages from what they do on the other half"
        " (evidence that there are any 3.5 standard errors; 3.5 are needed, which fewer than 1% of audiences without"
        " segments reach).",
    )
    choose, evidence = judged.asked
    assert choose[1] == judged.rows[1:3], "one segment is none, and smaller ones are left out"
    assert choose[3:] == (10, "prediction", 2)
    assert evidence == ("people", [], ("anew", 2, 7), 7), "of the clusters that predict best"
    assert judged.judge(criterion="elbow")[2].startswith("3 segments: by elbow (evidence")


def test_evidence_is_kept_to_six_digits_so_that_the_last_ones_decide_nothing(judged: Judged) -> None:
    judged.evidence = 3.4999999
    assert judged.judge()[:2] == (3, 3.5)
    judged.evidence = 3.499999
    assert judged.judge() == (
        1,
        3.499999,
        "No segments: what people do on half of the pages says nothing about what they do on the other half, beyond"
        " what is popular (evidence 3.5 standard errors; 3.5 are needed).",
    )


def test_without_enough_pages_or_large_enough_segments_the_evidence_is_not_asked_for(judged: Judged) -> None:
    judged.pages = 3
    why = "No segments: people are on 3 pages, and it takes 4 to see what is liked together."
    assert judged.judge() == (1, None, why)
    assert judged.asked == []
    judged.pages, judged.chosen = 4, (None, 1)
    why = "No segments: with any number of them, one has fewer than 10 people."
    assert judged.judge() == (1, None, why)
    assert len(judged.asked) == 1


def test_clusters_that_predict_no_more_than_popularity_are_no_segments(judged: Judged) -> None:
    judged.predicted = [0.5, 0.5, 0.9]
    k, sure, why = judged.judge()
    assert (k, sure) == (1, 3.6)
    assert why.startswith("No segments: popularity alone predicts")
    judged.predicted = [0.5, 0.51, 0.2]
    assert judged.judge()[0] == 3, "what is compared is the k that predicts best"


@pytest.mark.parametrize(("users", "smallest"), [(100, 10), (500, 10), (501, 11), (1000, 20)])
def test_the_smallest_segment_is_a_number_or_a_share_of_all_whichever_is_more(
    monkeypatch: pytest.MonkeyPatch, users: int, smallest: int
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(selection, "_try", lambda *_: ([], []))
    monkeypatch.setattr(selection, "_judge", lambda *of: asked.append(of) or (1, None, "why"))
    weight = np.full(4, 25)
    config = CONFIG.model_copy(update={"min_segment": 10, "min_segment_share": 0.02})
    found = selection.select(on_pages(1, 2, 3, 4, pages=4), weight, weight, users, config)
    assert (found.verdict, found.k, found.evidence) == ("none", 1, None)
    assert asked[0][4] == smallest


def test_the_smallest_segment_is_one_of_everybody_and_nobody_where_clusters_are_fewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = np.array([30, 20, 10, 40])
    audience = selection._Audience(on_pages(1, 2, 3, 4, pages=4), np.array([3, 0, 1, 0]), weight, 1000)
    assert audience.times.tolist() == [3, 1], "only those who are learned from"
    assert audience.points.toarray().sum(axis=1).tolist() == [1, 3]
    assert audience.people.toarray().sum(axis=1).tolist() == [1, 1, 1, 3], "a row a person"
    placed = SimpleNamespace(k=2, users=np.array([93, 7]))
    asked: list[Any] = []
    monkeypatch.setattr(selection.clustering, "place", lambda *of: asked.append(of) or placed)
    model: Any = "model"
    assert audience.smallest_segment(model, 2) == 70
    assert audience.smallest_segment(model, 3) == 0
    assert asked[0] == ("model", audience.profiles, audience.weight)
