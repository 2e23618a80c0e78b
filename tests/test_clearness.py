"""How clearly the people of a segment belong to it."""

import re
from pathlib import Path

import numpy as np
import pytest

from spark_jobs.clusters.clearness import CLEARLY, clearness_of, count_clear
from tests.test_report import make


def test_those_above_the_limit_are_counted_by_cluster_whatever_the_batches() -> None:
    cluster = np.array([0, 2, 0, 2, 2], np.int32)
    confidence = np.array([CLEARLY, 0.9, CLEARLY + 1e-9, 0.0, 1.0])
    assert count_clear([(cluster, confidence)], 3).tolist() == [1, 0, 2]
    assert count_clear([(cluster[:2], confidence[:2]), (cluster[2:], confidence[2:])], 3).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("clear", "says"),
    [
        (950, "Nearly everybody here clearly belongs"),
        (700, "Most people here clearly belong"),
        (500, "About half of the people here clearly belong"),
        (100, "Most people here could as well be in another segment"),
    ],
)
def test_the_share_is_said_in_words(clear: int, says: str) -> None:
    found = clearness_of(clear, 1_000, 10)
    assert found is not None
    assert (found.in_words, found.share) == (says, clear / 1_000)


def test_fewer_than_ten_who_belong_or_do_not_are_not_counted_out() -> None:
    assert clearness_of(9, 1_000, 10) is None
    assert clearness_of(7, 8, 10) is None
    almost = clearness_of(997, 1_000, 10)
    assert almost is not None
    assert almost.share == 1, "of rounded counts: three others are not told"


def test_each_card_says_how_clearly_its_people_belong(tmp_path: Path) -> None:
    html = make(tmp_path)
    said = re.findall(r'<p class="facts clear">(.*?)</p>', html)
    assert said == [
        "About half of the people here clearly belong: 50% are at least 5% nearer to it than to any other segment.",
        "Most people here clearly belong: 67% are at least 5% nearer to it than to any other segment.",
        "Most people here clearly belong: 75% are at least 5% nearer to it than to any other segment.",
        "Most people here clearly belong: 80% are at least 5% nearer to it than to any other segment.",
    ]
