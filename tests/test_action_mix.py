"""The mix of actions: each person counts the same, and nothing is said of what a few of them do."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import linprog

from spark_jobs.clusters.action_mix import UNIT, ActionMix, Mix, in_short, publish
from spark_jobs.config import ACTIONS
from tests import reference

MIN_PEOPLE = 10
Did = Sequence[int]  # how often a person did each of ACTIONS

LIKES, COMMENTS = (1, 0, 0, 0), (0, 1, 0, 0)


def counted(*clusters: Sequence[Did]) -> ActionMix:
    """The mix of clusters of some people each."""
    mix = ActionMix(len(clusters))
    for number, people in enumerate(clusters):
        columns = np.array(people, np.int64).reshape(-1, len(ACTIONS)).T
        mix.add(np.full(columns.shape[1], number), list(columns))
    return mix


def shares(mix: Mix) -> list[float | None]:
    return [of["share"] for of in publish(mix, MIN_PEOPLE).values()]


def test_each_person_counts_the_same_however_much_they_do() -> None:
    busy = (0, 1_000_000, 0, 0)
    found = counted([LIKES] * 99 + [busy]).of(0)
    assert found.doing == {"page_like": 99, "page_comment": 1, "post_like": 0, "post_comment": 0}
    assert found.parts["page_comment"] == UNIT
    assert shares(counted([(3, 1, 0, 0)] * 60 + [(0, 0, 7, 0)] * 40).of(0)) == [0.5, 0.2, 0.4, None]


def test_people_who_do_nothing_are_not_among_those_whose_actions_are_shared_out() -> None:
    found = counted([LIKES] * 20 + [(0, 0, 0, 0)] * 100).of(0)
    assert found.people == 20
    assert shares(found) == [1.0, None, None, None]


def test_the_mix_of_everybody_is_of_all_clusters_together() -> None:
    mix = counted([LIKES] * 30, [COMMENTS] * 10)
    assert shares(mix.of_all()) == [0.75, 0.25, None, None]
    assert publish(mix.of_all(), MIN_PEOPLE)["page_like"] == {"people": 30, "share": 0.75}


def test_the_order_and_the_batches_of_people_change_nothing() -> None:
    random = np.random.default_rng(0)
    people, cluster = random.poisson(0.8, (4, 5_000)), random.integers(0, 3, 5_000)
    whole, parts = ActionMix(3), ActionMix(3)
    whole.add(cluster, list(people))
    for some in np.array_split(random.permutation(5_000), 17):
        parts.add(cluster[some], list(people[:, some]))
    assert [whole.of(number) for number in range(3)] == [parts.of(number) for number in range(3)]


def test_counts_as_large_as_64_bits_hold_are_shared_out() -> None:
    largest = 2**63 - 1
    assert shares(counted([(largest, largest, largest, largest)] * 40).of(0)) == [0.25] * 4


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_reference_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    people = random.poisson(random.uniform(0, 2, 4), (int(random.integers(5, 200)), 4)).tolist()
    expected = reference.action_mix([dict(zip(ACTIONS, did, strict=True)) for did in people], MIN_PEOPLE)
    assert publish(counted(people).of(0), MIN_PEOPLE) == expected


@pytest.mark.parametrize("doing", [0, 1, 9])
def test_of_an_action_that_fewer_than_ten_people_do_nothing_is_said(doing: int) -> None:
    found = publish(counted([LIKES] * 500 + [COMMENTS] * doing).of(0), MIN_PEOPLE)
    assert found["page_comment"] == {"people": None, "share": None}


def test_of_fewer_than_ten_people_nothing_is_said() -> None:
    assert set(map(str, publish(counted([LIKES] * 9).of(0), MIN_PEOPLE).values())) == {
        str({"people": None, "share": None})
    }


def test_what_many_do_a_little_is_said_as_nothing_rather_than_left_out() -> None:
    found = publish(counted([(99, 1, 0, 0)] * 300).of(0), MIN_PEOPLE)
    assert found["page_comment"] == {"people": 300, "share": 0.0}


@pytest.mark.parametrize("seed", range(20))
def test_what_a_few_do_does_not_follow_from_what_is_said_of_the_others(seed: int) -> None:
    """The attacker solves for the hidden parts, by all shares of two segments and of everybody, each rounded."""
    random = np.random.default_rng(seed)
    segments = [
        [LIKES] * int(random.integers(12, 40)) + [(0, 0, 1, 0)] * int(random.integers(0, 40)) + [COMMENTS] * few
        for few in (int(random.integers(1, 9)), int(random.integers(0, 30)))
    ]
    mix = counted(*segments)
    least, greatest = _possible(mix, hidden=1)
    assert least <= Fraction(mix.of(0).parts["page_comment"], UNIT) <= greatest
    assert greatest - least >= 3  # people


def _possible(mix: ActionMix, hidden: int) -> tuple[float, float]:
    """The least and the greatest part that an action can have in the first of two segments, in people."""
    groups = [mix.of(0), mix.of(1), mix.of_all()]
    number = {(group, action): 5 * group + action for group in range(3) for action in range(5)}  # 4: all people
    bounds: list[tuple[float, float]] = []
    for group in groups:
        whole = reference.rounded(group.people, MIN_PEOPLE)
        for of in publish(group, MIN_PEOPLE).values():
            part = of["share"] and round(of["share"] * whole, -1)  # the shares of so few people give the tens away
            bounds.append((0, MIN_PEOPLE - 1) if part is None else (max(0, part - 5), part + 5))
        bounds.append((whole - 5, whole + 5))
    equal = [[0] * len(bounds) for _ in range(8)]
    for group in range(3):  # the parts of a group add up to its people
        for action in range(5):
            equal[group][number[group, action]] = -1 if action == 4 else 1
    for action in range(5):  # and the segments to everybody
        for group in range(3):
            equal[3 + action][number[group, action]] = -1 if group == 2 else 1
    ends = []
    for sign in (1, -1):
        wanted = [0.0] * len(bounds)
        wanted[number[0, hidden]] = sign
        found = linprog(wanted, A_eq=equal, b_eq=[0] * 8, bounds=bounds)
        assert found.success, found.message
        ends.append(sign * found.fun)
    return ends[0], ends[1]


def test_a_mix_in_a_line_begins_with_what_is_done_most() -> None:
    mix = counted([(6, 0, 3, 1)] * 200 + [COMMENTS] * 4).of(0)
    assert in_short(publish(mix, MIN_PEOPLE)) == "page likes 60%, post likes 30%, post comments 10%"
    assert in_short(publish(counted([LIKES] * 3).of(0), MIN_PEOPLE)) == "not known"
