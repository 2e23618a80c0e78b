"""What groups of people like, and whether they are two groups: against sums that are made one by one."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.following import tastes
from spark_jobs.following.tastes import UNKNOWN, Apart, People, apart

PAGES = ("a", "b", "c")
VISITS = sp.csr_matrix(np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]]))
SOME = People(VISITS, np.array([0, 1, 0, 1]), PAGES)


def drawn(seed: int, people: int, pages: int, visits: Sequence[int] = (1, 2, 3, 5, 14)) -> sp.csr_matrix:
    """People with so many visits each, in turn, to pages by chance."""
    random = np.random.default_rng(seed)
    rows = np.zeros((people, pages))
    for number, row in enumerate(rows):
        row[random.choice(pages, visits[number % len(visits)], replace=False)] = 1
    return sp.csr_matrix(rows)


# --- people


def test_the_likes_of_a_group_are_how_many_of_its_people_visited_each_page() -> None:
    assert SOME.likes(3).tolist() == [[2, 1, 0], [1, 2, 2], [0, 0, 0]]


def test_some_of_the_people_keep_their_visits_and_groups() -> None:
    for chosen in (np.array([False, True, False, True]), np.array([1, 3])):
        only = SOME.only(chosen)
        assert (only.visits.toarray().tolist(), only.group.tolist(), only.pages) == (
            [[0, 1, 1], [1, 1, 1]],
            [1, 1],
            PAGES,
        )


def test_visits_to_other_pages_are_left_out_and_pages_that_nobody_visited_stay_empty() -> None:
    on = SOME.on(("c", "other", "a"))
    assert on.visits.toarray().tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert (on.pages, on.group.tolist()) == (("c", "other", "a"), [0, 1, 0, 1])


def test_each_visit_knows_its_person_and_each_person_how_many_they_made() -> None:
    assert tastes.rows(VISITS).tolist() == [0, 0, 1, 1, 2, 3, 3, 3]
    assert tastes.visits_of(VISITS).tolist() == [2, 2, 1, 3]


# --- tastes


def test_a_taste_is_what_a_group_likes_and_what_ten_people_would_who_do_as_everybody() -> None:
    found = tastes.tastes(np.array([[2.0, 0], [0, 0]]), np.array([3.0, 1]))
    added = np.array([7.5 + 0.1, 2.5 + 0.1])
    np.testing.assert_allclose(found, [(np.array([2, 0]) + added) / 12.2, added / 10.2])
    np.testing.assert_allclose(tastes.tastes(np.zeros(2), np.zeros(2)), [0.5, 0.5])
    np.testing.assert_allclose(tastes.tastes(np.zeros(2), np.array([0.5, 0])), np.array([5.1, 0.1]) / 5.2)


def test_a_persons_likelihood_is_that_of_all_their_visits() -> None:
    of = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    found = tastes.log_likelihoods(VISITS, of)
    for person, taste in itertools.product(range(4), range(2)):
        visited = VISITS[[person]].indices
        assert found[person, taste] == pytest.approx(sum(math.log(of[taste, page]) for page in visited))


def test_nobody_counts_for_their_own_taste() -> None:
    likes = SOME.likes(2)
    found = tastes.left_out(SOME, likes)
    added = 10 * np.array([3, 3, 2]) / 8 + 0.1
    place = 0
    for person in range(4):
        visits = VISITS[[person]].toarray()[0]
        others = likes[SOME.group[person]] - visits + added
        for page in np.flatnonzero(visits):
            assert found[place] == pytest.approx(math.log(others[page] / others.sum()))
            place += 1
    assert place == len(found)
    of_each = tastes.left_out_log_likelihoods(SOME, likes)
    np.testing.assert_allclose(of_each, [found[:2].sum(), found[2:4].sum(), found[4], found[5:].sum()])


def test_somebody_without_visits_has_no_likelihood_to_count() -> None:
    people = People(sp.csr_matrix(np.array([[0.0, 0], [1, 0], [0, 0]])), np.zeros(3, int), ("a", "b"))
    assert tastes.left_out_log_likelihoods(people, people.likes(1)).tolist()[::2] == [0, 0]


def test_memberships_weigh_each_taste_by_how_many_have_it() -> None:
    likelihood = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]) - 700  # which alone is 0
    share = np.array([0.5, 0.5])
    for _ in range(60):
        likely = np.exp(likelihood + 700) * share
        likely /= likely.sum(axis=1, keepdims=True)
        share = likely.mean(axis=0)
    found = tastes.memberships(likelihood)
    np.testing.assert_allclose(found, likely)
    assert found[4, 0] == pytest.approx(0.75, abs=0.1), "most are of the first taste"
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_mixture_has_the_parts_that_explain_what_is_liked() -> None:
    of = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]) + 1e-9
    np.testing.assert_allclose(tastes.mixture(np.array([3.0, 3, 7, 7]), of), [0.3, 0.7], atol=1e-6)
    near, share = np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([0.5, 0.5])
    for _ in range(60):
        share = share * (near @ (np.array([60, 40]) / (share @ near))) / 100
    np.testing.assert_allclose(tastes.mixture(np.array([60.0, 40]), near), share)
    assert tastes.mixture(np.zeros(4), of).tolist() == [0, 0]
    assert tastes.mixture(np.array([0.25, 0.25, 0, 0]), of).sum() < 1, "half a visit is no whole one"


# --- one group or two


@pytest.mark.parametrize(
    ("share", "error", "two", "one"),
    [
        (1.0, 0.1, True, False),
        (0.35, 0.1, True, False),
        (0.34, 0.0, False, True),
        (0.75, 0.25, False, False),  # no further from 0 than chance goes
        (0.75, 0.2499, True, False),
        (0.25, 0.05, False, False),
        (0.25, 0.0499, False, True),
        (-1.0, 0.0, False, True),
    ],
)
def test_it_is_clear_beyond_three_errors_that_they_are_two_and_beyond_two_that_they_are_one(
    share: float, error: float, two: bool, one: bool
) -> None:
    assert (Apart(share, error).are_two, Apart(share, error).are_one) == (two, one)


def test_of_what_is_unknown_nothing_is_clear() -> None:
    assert not UNKNOWN.are_two
    assert not UNKNOWN.are_one


def one_by_one(visits: sp.csr_matrix, first: np.ndarray, second: np.ndarray) -> Apart:
    """How far people are two groups: every pair of visits of every person."""
    score = [max(-3.0, min(3.0, math.log(a / b))) for a, b in zip(first, second, strict=True)]
    people = [row.indices for row in visits if row.nnz >= 2]
    of_person = [[score[page] for page in row] for row in people]
    times = np.array([len(row) for row in people])
    strata = max(1, min(4, len(people) // 50))
    edges = [float(np.quantile(times, place / strata)) for place in range(1, strata)]
    stratum = [sum(count >= edge for edge in edges) for count in times]
    usual = {}
    for of in set(stratum):
        here = [value for row, its in zip(of_person, stratum, strict=True) if its == of for value in row]
        usual[of] = sum(here) / len(here)
    together = []
    for row, of in zip(of_person, stratum, strict=True):
        pairs = [(a - usual[of]) * (b - usual[of]) for a, b in itertools.permutations(row, 2)]
        together.append(sum(pairs) / len(pairs))
    say = [min(10, count - 1) for count in times]
    of_first = sum(p * s for p, s in zip(first, score, strict=True))
    of_second = sum(p * s for p, s in zip(second, score, strict=True))
    everybody = sum(sum(row) for row in of_person) / sum(times)
    portion = max(0.15, min(0.85, (everybody - of_second) / (of_first - of_second)))
    of_two = portion * (1 - portion) * (of_first - of_second) ** 2
    mean = sum(s * t for s, t in zip(say, together, strict=True)) / sum(say)
    error = math.sqrt(sum((s * (t - mean)) ** 2 for s, t in zip(say, together, strict=True))) / sum(say)
    return Apart(mean / of_two, error / of_two)


@pytest.mark.parametrize("people", [40, 150, 320])
@pytest.mark.parametrize("tastes_", [(0.5, 0.5), (0.9, 0.3), (0.1, 0.02), (0.999, 0.001)])
def test_people_are_two_groups_as_far_as_two_visits_of_a_person_go_together(
    people: int, tastes_: tuple[float, float]
) -> None:
    visits = drawn(people, people, 20)
    liked = np.linspace(1, 3, 20)
    first, second = (np.where(np.arange(20) < 8, part / 8, (1 - part) / 12) * liked for part in tastes_)
    second = second[::-1] if tastes_ == (0.5, 0.5) else second
    first, second = first / first.sum(), second / second.sum()
    found, expected = apart(visits, first, second), one_by_one(visits, first, second)
    assert found.share == pytest.approx(expected.share)
    assert found.error == pytest.approx(expected.error)


def test_it_takes_twenty_five_people_who_visited_several_pages_to_say_anything() -> None:
    first, second = np.linspace(1, 2, 20) / 30, np.linspace(2, 1, 20) / 30
    enough = drawn(0, 25, 20, (2, 3))
    alone = drawn(1, 30, 20, (1, 0))
    assert apart(enough, first, second) != UNKNOWN
    assert apart(enough[:24], first, second) == UNKNOWN
    assert apart(sp.csr_matrix(sp.vstack([enough[:24], alone])), first, second) == UNKNOWN
    assert apart(sp.csr_matrix(sp.vstack([enough, alone])), first, second) == apart(enough, first, second)


def test_two_tastes_that_are_the_same_tell_nobody_apart() -> None:
    same = np.full(20, 0.05)
    assert apart(drawn(0, 60, 20), same, same) == UNKNOWN


# --- what is learned from half of them


def two_groups(people: int = 120) -> People:
    """Two groups that visit pages of their own, two to four of ten; and a third, which is not asked about."""
    own = [drawn(seed, people, 10, (2, 3, 4)) for seed in range(3)]
    visits = sp.csr_matrix(sp.block_diag(own))
    return People(visits, np.repeat([0, 1, 2], people), tuple(f"p{page}" for page in range(30)))


def test_tastes_are_learned_from_half_of_the_people_and_tried_on_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    people, tried = two_groups(), list[tuple[Any, ...]]()
    errors = [Apart(0.2, 3.0), Apart(0.6, 4.0)]

    def noted(*of: Any) -> Apart:
        tried.append(of)
        return errors[len(tried) - 1]

    monkeypatch.setattr(tastes, "apart", noted)
    found = tastes.apart_when_learned(people, 2, 0, seed=5)
    assert (found.share, found.error) == (pytest.approx(0.4), pytest.approx(2.5)), "of the mean of two"
    chosen = people.only(np.isin(people.group, [0, 2]))
    half = np.random.default_rng(5).random(240) < 0.5
    for learn, (visits, first, second) in zip((half, ~half), tried, strict=True):
        assert (visits != chosen.visits[~learn]).nnz == 0
        of = People(chosen.visits[learn], (chosen.group[learn] == 0).astype(int), people.pages)
        learned = tastes.tastes(of.likes(2), of.likes(2).sum(axis=0))
        np.testing.assert_allclose([first, second], learned)


def test_groups_of_other_pages_are_two_and_one_group_that_was_cut_is_one() -> None:
    people = two_groups()
    assert tastes.apart_when_learned(people, 0, 1, 0).are_two
    cut = People(people.visits[:120], np.arange(120) % 2, people.pages)
    assert not tastes.apart_when_learned(cut, 0, 1, 0).are_two


def test_a_group_that_draws_nobody_is_none() -> None:
    assert tastes.apart_when_learned(two_groups(), 0, 7, 0) == Apart(0.0, 0.0)


def test_people_who_were_put_in_the_wrong_group_do_not_hide_that_there_are_two() -> None:
    people = two_groups(200)
    wrong = np.where(np.arange(600) % 4 == 0, 1 - people.group, people.group)
    mixed = People(people.visits, np.where(people.group == 2, 2, wrong), people.pages)
    assert tastes.apart_when_learned(mixed, 0, 1, 0).share > 0.8
