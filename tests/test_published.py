"""What may be said of people: no count of a few, no share of a few or among a few, and figures that hide the rest."""

import math

import numpy as np
import pytest

from spark_jobs.clusters import published

VALUES = [1e-19, 0.00123, 0.0995, 0.0994, 0.5, 0.96, 0.994, 0.996, 1.0, 1.04, 1.06, 9.94, 9.96, 12.34, 99.4, 99.6, 1e19]


@pytest.mark.parametrize(
    ("people", "said"),
    [(0, None), (9, None), (10, 10), (14, 10), (15, 20), (24, 20), (25, 30), (1004, 1000), (1005, 1010)],
)
def test_a_count_is_to_the_nearest_ten_and_none_of_fewer_than_ten(people: int, said: int | None) -> None:
    assert published.MIN_PEOPLE == 10
    assert published.count(people, published.MIN_PEOPLE) == said


def test_a_count_follows_the_limit_that_is_asked_for() -> None:
    assert [published.count(people, 1) for people in (0, 1, 7)] == [None, 1, 7]
    assert [published.count(people, 3) for people in (2, 3, 4, 5, 6, 7, 8)] == [None, 3, 3, 6, 6, 6, 9]
    assert [published.count(people, 25) for people in (24, 25, 37, 38)] == [None, 25, 25, 50]


def test_in_words_a_count_is_as_rounded_as_in_figures() -> None:
    assert [published.in_words(people) for people in (9, 10, 1234)] == ["fewer than 10", "10", "1,230"]
    assert published.in_words(24, 25) == "fewer than 25"


def test_a_share_is_of_rounded_counts_in_whole_percents_and_never_above_all() -> None:
    assert published.share(100, 300, 10) == 0.33
    assert published.share(96, 304, 10) == 0.33, "of 100 and 300, whatever the people are"
    assert published.share(15, 14, 10) == 1.0, "of 20 and 10"
    assert published.share(9, 300, 10) is None
    assert published.share(9, 9, 10) is None
    assert published.share(300, 9, 10) is None


def test_a_lift_has_two_digits_one_by_one_and_many_at_once() -> None:
    assert published.ratio(12.34) == 12
    assert published.ratio(0.00123) == 0.0012
    assert published.ratios(np.array(VALUES)).tolist() == [published.ratio(value) for value in VALUES]


def test_what_is_not_known_is_not_said() -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert published.ratio(value) is None
        assert published.z_score(value) is None
    unknown = np.array([math.nan, math.inf, -math.inf, 0.0, -1.0])
    np.testing.assert_array_equal(published.ratios(unknown), [math.nan, math.nan, math.nan, 0.0, math.nan])
    np.testing.assert_array_equal(published.z_scores(unknown), [math.nan, math.nan, math.nan, 0.0, -1.0])


def test_a_z_score_has_one_decimal_and_zero_has_no_sign() -> None:
    values = [1.26, -1.24, 0.04, -0.04]
    assert [published.z_score(value) for value in values] == [1.3, -1.2, 0.0, 0.0]
    assert published.z_scores(np.array(values)).tolist() == [1.3, -1.2, 0.0, 0.0]
    alone = published.z_score(-0.04)
    assert alone is not None
    assert math.copysign(1, alone) == 1
    assert math.copysign(1, published.z_scores(np.array([-0.04]))[0]) == 1
