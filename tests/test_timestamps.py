"""Timestamps at the edges of what a calendar has are refused, and end no job."""

from datetime import datetime, timezone

import pyarrow as pa
import pytest

from spark_jobs.raw.timestamps import parse_timestamp, parse_timestamps


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+01:00",  # in UTC, the year before the first one
        "9999-12-31T23:30:00-01:00",
        "0000-12-31T00:00:00Z",
        "2024-02-30T00:00:00+01:00",
        "2024-13-01",
    ],
)
def test_a_time_that_no_calendar_has_is_none_alone_and_beside_others(text: str) -> None:
    assert parse_timestamp(text) is None
    usual = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    column = pa.array(["2024-01-02T03:04:05Z", text, None, "2024-01-02T04:04:05+01:00"])
    assert parse_timestamps(column).to_pylist() == [usual, None, None, usual]


def test_the_first_and_the_last_second_are_times() -> None:
    first, last = datetime(1, 1, 1, tzinfo=timezone.utc), datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    assert parse_timestamp("0001-01-01T01:00:00+01:00") == first
    assert parse_timestamp("9999-12-31T22:59:59.9-01:00") == last
    assert parse_timestamps(pa.array(["0001-01-01T01:00:00+01:00"])).to_pylist() == [first]
