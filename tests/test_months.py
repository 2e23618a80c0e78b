"""Months: from when to when one is, and which have a folder."""

from datetime import datetime, timezone
from pathlib import Path

import pytest

from spark_jobs.errors import InputError
from spark_jobs.raw.months import list_months
from spark_jobs.raw.rules import Month


@pytest.mark.parametrize(
    ("key", "end"), [("2024-01", (2024, 2)), ("2024-02", (2024, 3)), ("2024-11", (2024, 12)), ("2024-12", (2025, 1))]
)
def test_a_month_ends_where_the_next_one_starts(key: str, end: tuple[int, int]) -> None:
    month = Month.parse(key)
    assert month.start == datetime(2024, int(key[5:]), 1, tzinfo=timezone.utc)
    assert month.end == datetime(*end, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "key", ["2024-13", "2024-00", "2024", "January", "2024-01-01", "", "0000-01", "9999-12", "２０２４-01"]
)
def test_what_is_not_a_month_is_refused_by_name(key: str) -> None:
    with pytest.raises(InputError, match=f"^{key!r} is not a month"):
        Month.parse(key)


def test_the_months_with_a_folder_are_listed_in_order_and_nothing_else_is(tmp_path: Path) -> None:
    others = (
        "month=2024-13",
        "month=2024-1",
        "month=2024-011",
        "x",
        "month=",
        "month=２０２４-01",
        "month=0000-01",
        "month=1969-12",
    )
    for name in ("month=2024-12", "month=2023-01", "month=9999-12", *others):
        (tmp_path / name).mkdir()
    assert list_months(str(tmp_path)) == ["2023-01", "2024-12"]
    assert list_months(str(tmp_path / "nowhere")) == []
