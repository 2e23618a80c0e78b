"""What decides of a month's segments, part by part."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from spark_jobs.following import follow
from spark_jobs.following.follow import Returned, _Month
from spark_jobs.following.state import Event, Segment, State
from spark_jobs.following.tastes import People
from tests.test_following import PAGES, A, B, C, after, kinds, liking, month


def test_a_segment_that_is_gone_is_not_taken_for_one_that_likes_only_pages_of_which_nothing_was_known() -> None:
    known, new = month(2, [[A], [B]]), 120
    fresh = sp.csr_matrix((np.random.default_rng(0).random((new, 6)) < 0.6).astype(float))
    visits = sp.csr_matrix(sp.block_diag([known.visits, fresh]))
    people = People(visits, np.repeat([0, 1, 2], new), (*PAGES, *(f"new{page}" for page in range(6))))
    _, second = after(month(1, [[A], [B], [C]]), people)
    assert not any(3 in group for group in second.groups)
    assert ("death", (3,), ()) in kinds(second)


# --- numbers


@pytest.mark.parametrize(
    ("found", "expected", "fewer"),
    [
        (4.9, 20.0, True),
        (4.9, 19.9, False),  # of a handful nobody can say
        (5.0, 20.0, False),  # a quarter is there
        (24.9, 100.0, True),
        (25.0, 100.0, False),
        (0.0, 0.0, False),
    ],
)
def test_people_are_clearly_fewer_if_less_than_a_quarter_is_there_of_at_least_twenty(
    found: float, expected: float, fewer: bool
) -> None:
    assert bool(follow._clearly_fewer(found, expected)) is fewer


def test_earlier_months_count_half_as_much_each() -> None:
    assert follow._sum({"a": 4.0, "b": 2.0}, {"b": 3.0, "c": 1.0}) == {"a": 2.0, "b": 4.0, "c": 1.0}
    assert list(follow._sum({"c": 1.0}, {"a": 1.0})) == ["a", "c"], "the same bytes whatever the order"


def test_a_known_segment_likes_nothing_of_a_page_that_it_never_saw() -> None:
    known = replace(segment(1), likes={"a": 30.0}, everybody={"a": 40.0, "b": 40.0})
    added = np.array([5.1, 5.1, 0.1])
    np.testing.assert_allclose(follow._taste(known, ("a", "b", "new")), (np.array([30, 0, 0]) + added) / 40.3)


def test_the_nearest_group_is_the_one_whose_taste_explains_the_people_best() -> None:
    people = month(1, [[A], [B], [liking(0, 1)], [C]])
    assert follow._nearest(people, 0, [1, 2, 3]) == 2
    assert follow._nearest(people, 0, [1, 3]) in (1, 3)
    assert follow._nearest(people, 2, [0, 3]) == 0
    assert follow._nearest(people, 0, []) is None
    assert follow._nearest(people, 7, [1, 2]) == 1, "a group that nobody is in is as near to all"


# --- a month's work


def segment(number: int, ended: str | None = None, name: str = "", color: int | None = None) -> Segment:
    """A known segment."""
    shown = number if color is None else color
    return Segment(number, name or f"segment {number}", shown, "2023-12", "2024-01", ended, 0.5, {}, {})


def working(
    groups: Sequence[tuple[int, ...]] = ((1,), (2,)),
    stayed: Sequence[Sequence[int]] | None = None,
    before: Sequence[int] = (100, 100),
    now: Sequence[int] = (100, 100),
    segments: Sequence[Segment] | None = None,
    **given: Any,
) -> _Month:
    """The work on a month of two clusters after one with these groups of segments, of whom some stayed."""
    returned = None if stayed is None else Returned(np.array(stayed), np.array(before), np.array(now))
    known = tuple(segments or (segment(1), segment(2)))
    state = State("2024-01", known, tuple(groups), (0, 1), ())
    people = People(sp.csr_matrix((4, 1)), np.array([0, 0, 1, 1]), ("page",))
    names = given.pop("names", ["new", "newer"])
    return _Month(state, "2024-02", people, 2, names, returned, 0, given.pop("taken", ()), given.pop("kept", ()))


def test_who_stayed_of_a_segment_is_known_where_it_was_a_group_of_its_own() -> None:
    work = working(((1,), (2, 3)), [[5, 6], [7, 8]])
    stayed = work._stayed(1)
    assert stayed is not None
    assert stayed.tolist() == [5, 6]
    assert (work._stayed(2), work._stayed(9), working()._stayed(1)) == (None, None, None)
    assert work._all_stayed().tolist() == [12, 14]


@pytest.mark.parametrize(
    ("stayed", "now", "source"),
    [
        ([[20, 1], [0, 20]], (40, 40), 1),
        ([[10, 0], [0, 10]], (20, 20), 1),
        ([[9, 0], [0, 9]], (18, 18), None),  # too few
        ([[12, 0], [8, 20]], (40, 40), None),  # no more than three fifths of them
        ([[13, 0], [7, 20]], (40, 40), 1),
        ([[15, 0], [0, 25]], (40, 40), 1),  # three quarters of as many as usual
        ([[14, 0], [0, 26]], (40, 40), None),
        ([[20, 1], [0, 20]], (400, 40), None),  # usually more of a cluster were there before
    ],
)
def test_a_new_groups_people_come_from_the_segment_that_most_of_them_were_in(
    stayed: list[list[int]], now: tuple[int, int], source: int | None
) -> None:
    assert working(stayed=stayed, now=now)._source(0) == source


def test_nothing_is_said_of_where_people_come_from_that_is_not_known_or_not_one_living_segment() -> None:
    many = [[20, 0], [0, 20]]
    assert working()._source(0) is None
    assert working((), many)._source(0) is None
    assert working(((1, 2), (3,)), many)._source(0) is None
    gone = (segment(1, ended="2024-02"), segment(2))
    assert working(stayed=many, segments=gone)._source(0) is None
    assert working(stayed=many, segments=gone)._source(1) == 2


@pytest.mark.parametrize(
    ("stayed", "before", "into"),
    [
        ([[1, 20], [0, 20]], (40, 40), 7),
        ([[0, 10], [0, 10]], (20, 20), 7),
        ([[0, 9], [0, 9]], (18, 18), None),  # too few
        ([[8, 12], [0, 20]], (40, 40), None),  # no more than three fifths of them
        ([[7, 13], [0, 20]], (40, 40), 7),
        ([[0, 15], [0, 25]], (40, 40), 7),  # three quarters of as many as usual
        ([[0, 14], [0, 26]], (40, 40), None),
        ([[1, 20], [0, 20]], (400, 40), None),
        ([[20, 1], [0, 20]], (40, 40), None),  # no segment is in that cluster
    ],
)
def test_a_segment_was_taken_in_by_the_one_that_most_who_stayed_are_in(
    stayed: list[list[int]], before: tuple[int, int], into: int | None
) -> None:
    work = working(stayed=stayed, before=before)
    work.of_cluster[1] = [7, 8]
    assert work._taken_in_by(1) == into
    assert working()._taken_in_by(1) is None


@pytest.mark.parametrize(
    ("stayed", "changed"),
    [
        ([[11, 10], [5, 0]], True),
        ([[10, 9], [5, 0]], True),
        ([[9, 8], [5, 0]], False),  # too few
        ([[10, 10], [5, 0]], False),  # half of them, and no more
        ([[11, 10], [11, 0]], False),  # the cluster is as much another's
        ([[11, 10], [10, 0]], True),
    ],
)
def test_a_cluster_of_a_segments_people_is_that_segment_whatever_they_like_now(
    stayed: list[list[int]], changed: bool
) -> None:
    work = working(stayed=stayed)
    work.novel = {0, 1}
    heir: dict[int, int] = {}
    work._pair_by_members(heir)
    assert (heir, work.events) == (({0: 0}, [Event("change", "2024-02", (1,), (1,))]) if changed else ({}, []))


def test_only_a_cluster_that_is_new_and_nobodys_is_taken_by_its_members_and_only_by_who_has_none() -> None:
    stayed = [[50, 0], [0, 50]]
    for novel, heir in (({1}, {1: 1}), ({0}, {1: 0}), ({0}, {0: 1})):
        work = working(stayed=stayed)
        work.novel = set(novel)
        given = dict(heir)
        work._pair_by_members(given)
        assert (given, work.events) == (heir, [])
    unknown = working()
    unknown.novel = {0, 1}
    unknown._pair_by_members(given := {})
    assert given == {}


def test_a_cluster_is_a_part_of_what_that_one_is_a_part_of() -> None:
    work = working()
    work.part_of = {0: 1, 1: 4}
    assert [work._whole(cluster) for cluster in (0, 1, 4, 5)] == [4, 4, 4, 5]


def test_parts_of_one_are_one_group_with_the_segments_of_all() -> None:
    work = working()
    work.k, work.part_of = 4, {2: 1}
    work.of_cluster |= {0: [5], 1: [3, 4], 2: [], 3: [6]}
    assert work._groups() == (((5,), (3, 4), (6,)), (0, 1, 1, 2))


def test_a_new_segment_has_a_number_that_none_ever_had_and_no_name_or_color_yet() -> None:
    work = working(segments=(segment(1), segment(7, ended="2023-12")))
    assert work._new(1) == 8
    assert work.segments[8] == Segment(8, "newer", -1, "2024-02", "2024-02", None, 0, {}, {})
    assert work.unnamed == {8: 1}
    assert working(segments=[segment(3)])._new(0) == 4


def test_names_and_colors_are_those_that_no_living_or_kept_segment_has() -> None:
    known = (segment(1, name="tea", color=0), segment(2, "2024-01", "new", 1), segment(3, "2024-01", "newer", 2))
    work = working(segments=known, kept=(3,), taken=("new (2)",), names=["tea", "newer"])
    numbers = work._new(0), work._new(1)
    work._name()
    made = [work.segments[number] for number in numbers]
    assert [(each.name, each.color) for each in made] == [("tea (2)", 1), ("newer (2)", 3)]


def test_a_segment_that_is_back_has_its_name_and_color_again_unless_another_has_them_now() -> None:
    known = (segment(1, name="tea", color=0), segment(2, "2024-01", "milk", 5), segment(3, "2024-01", "tea", 0))
    work = working(segments=known, names=["x", "y"])
    work.segments |= {number: replace(work.segments[number], ended=None) for number in (2, 3)}
    work.unnamed = {2: 0, 3: 1}
    work._name()
    assert [(work.segments[number].name, work.segments[number].color) for number in (2, 3)] == [("milk", 5), ("y", 1)]


def test_what_never_was_a_group_of_its_own_ends_without_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    for was_a_group, into, kinds_ in ((False, None, []), (True, None, ["death"]), (True, 2, ["merge"])):
        work = working()
        monkeypatch.setattr(work, "_was_a_group", lambda _, was=was_a_group: was)
        work._end(1, into)
        assert work.segments[1].ended == "2024-02"
        assert work.segments[2].ended is None
        assert [event.kind for event in work.events] == kinds_
        if into:
            assert (work.events[0].before, work.events[0].after) == ((1, 2), (2,))


# --- what is compared, and kept


def test_only_pages_are_compared_that_were_listed_when_segments_were_last_seen() -> None:
    (state,) = after(month(1, [[A], [B]]))
    people = month(2, [[A], [B]])
    fresh = sp.csr_matrix(np.ones((len(people.group), 1)))
    more = People(sp.csr_matrix(sp.hstack([fresh, people.visits])), people.group, ("fresh", *PAGES))
    work = _Month(state, "2024-02", more, 2, ["x", "y"], None, 0, (), ())
    work._compare()
    assert work.pages == PAGES
    assert work.common.visits.shape[1] == len(PAGES)


def test_a_segment_learns_from_a_cluster_of_its_own_and_not_from_one_that_it_shares() -> None:
    people = month(2, [[A, B], [C]])
    first, second = after(month(1, [[A], [B], [C]]), people)
    of_a, of_b, of_c = first.segments
    assert second.segments[:2] == (of_a, of_b), "in a cluster of both, it says nothing of either"
    likes = people.likes(2)
    assert second.segments[2] == replace(
        of_c,
        seen="2024-02",
        share=1 / 3,
        likes=follow._sum(of_c.likes, dict(zip(PAGES, likes[1].tolist(), strict=True))),
        everybody=follow._sum(of_c.everybody, dict(zip(PAGES, likes.sum(axis=0).tolist(), strict=True))),
    )
