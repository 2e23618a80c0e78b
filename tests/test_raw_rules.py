"""The rules of raw actions, one by one and against each other: which rows are taken, and what is said of the others."""

import io
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from spark_jobs.config import ACTIONS
from spark_jobs.errors import InputError, UnreadableFile
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.raw import files, rules, timestamps
from spark_jobs.raw.rules import CheckedRows, Month, RawRows, check_rows
from spark_jobs.raw.timestamps import parse_timestamp, parse_timestamps

JANUARY = Month.parse("2024-01")
GOOD: dict[str, Any] = {
    "user_id": "u",
    "page_id": "p",
    "action": "post_like",
    "gender": "f",
    "count": 2,
    "timestamp": "2024-01-15T00:00:00Z",
}


def check(*changes: dict[str, Any], broken: list[tuple[int, str]] | None = None, coded: bool = False) -> CheckedRows:
    """Rows that differ from a good one, on lines 11, 12, …"""
    table = pa.Table.from_pylist([{**GOOD, **change} for change in changes], schema=rules.RAW)
    if coded:
        for place, name in enumerate(table.column_names):
            if name in rules.REPETITIVE:
                table = table.set_column(place, name, table[name].dictionary_encode())
    rows = RawRows(table, np.arange(11, 11 + len(changes)), broken or [])
    return check_rows(rows, "a.csv", JANUARY)


def rejected(found: CheckedRows) -> list[tuple[int, str]]:
    assert {row["file"] for row in found.rejected.to_pylist()} <= {"a.csv"}
    return [(row["line"], row["reason"]) for row in found.rejected.to_pylist()]


# --- months


@pytest.mark.parametrize(
    ("key", "end"), [("2024-01", (2024, 2)), ("2024-11", (2024, 12)), ("2024-12", (2025, 1)), ("0001-02", (1, 3))]
)
def test_a_month_ends_where_the_next_one_begins(key: str, end: tuple[int, int]) -> None:
    month = Month.parse(key)
    year, number = map(int, key.split("-"))
    assert month.start == datetime(year, number, 1, tzinfo=timezone.utc)
    assert month.end == datetime(*end, 1, tzinfo=timezone.utc)
    assert month.key == key


@pytest.mark.parametrize(
    "key", ["", "2024", "2024-1", "2024-13", "2024-00", "24-01", "2024-01-01", "2024_01", " 2024-01", "9999-12"]
)
def test_what_is_not_a_month_is_refused_with_how_one_is_named(key: str) -> None:
    """Python reads `2024-1` as well; but months are compared as texts, and are names of folders."""
    with pytest.raises(InputError, match=f"^'{key}' is not a month; one is named YYYY-MM, such as 2024-01"):
        Month.parse(key)


# --- rows


@pytest.mark.parametrize("coded", [False, True], ids=["texts", "codes"])
def test_a_good_row_is_taken_as_it_is_and_what_is_missing_has_its_default(coded: bool) -> None:
    missing: dict[str, Any] = {"gender": None, "count": None, "timestamp": None}
    found = check({}, missing, {"gender": ""}, {"action": ACTIONS[0]}, {"action": ACTIONS[-1]}, coded=coded)
    assert rejected(found) == []
    assert found.accepted.schema == rules.ACTION
    assert [(row["gender"], row["count"], row["action"]) for row in found.accepted.to_pylist()] == [
        ("f", 2, ACTIONS.index("post_like")),
        ("0", 1, ACTIONS.index("post_like")),
        ("0", 2, ACTIONS.index("post_like")),
        ("f", 2, 0),
        ("f", 2, len(ACTIONS) - 1),
    ]
    assert {(row["user_id"], row["page_id"]) for row in found.accepted.to_pylist()} == {("u", "p")}


BREAKING = [
    ("user_id", ["", None], rules.NO_USER),
    ("page_id", ["", None], rules.NO_PAGE),
    ("action", ["poke", "", None, "PAGE_LIKE"], rules.BAD_ACTION),
    ("count", [0, -1, -(2**63)], rules.BAD_COUNT),
    ("timestamp", ["soon", ""], rules.BAD_TIMESTAMP),
    ("timestamp", ["2023-12-31T23:59:59Z", "2024-02-01T00:00:00Z"], rules.OTHER_MONTH),
]


@pytest.mark.parametrize("coded", [False, True], ids=["texts", "codes"])
@pytest.mark.parametrize(("field", "values", "reason"), BREAKING)
def test_a_row_that_breaks_one_rule_is_rejected_for_it_and_its_neighbours_are_taken(
    field: str, values: list[Any], reason: str, coded: bool
) -> None:
    found = check({}, *({field: value} for value in values), {"user_id": "last"}, coded=coded)
    assert rejected(found) == [(12 + place, reason) for place in range(len(values))]
    assert [row["user_id"] for row in found.accepted.to_pylist()] == ["u", "last"]


@pytest.mark.parametrize("first", range(len(BREAKING)))
@pytest.mark.parametrize("second", range(len(BREAKING)))
def test_of_two_rules_that_a_row_breaks_the_first_is_the_reason(first: int, second: int) -> None:
    if first < second and BREAKING[first][0] != BREAKING[second][0]:
        change = {BREAKING[first][0]: BREAKING[first][1][0], BREAKING[second][0]: BREAKING[second][1][0]}
        assert rejected(check(change)) == [(11, BREAKING[first][2])]


def test_rows_and_broken_lines_are_rejected_in_the_order_of_the_file() -> None:
    found = check({}, {"count": 0}, {}, {"user_id": ""}, broken=[(15, rules.NOT_CSV), (3, rules.NOT_UTF8)])
    assert rejected(found) == [
        (3, rules.NOT_UTF8),
        (12, rules.BAD_COUNT),
        (14, rules.NO_USER),
        (15, rules.NOT_CSV),
    ]
    assert found.accepted.num_rows == 2


def test_of_no_rows_nothing_is_taken_and_the_lines_that_hold_none_are_rejected() -> None:
    found = check(broken=[(1, rules.NOT_CSV)])
    assert (found.accepted.num_rows, rejected(found)) == (0, [(1, rules.NOT_CSV)])


@pytest.mark.parametrize(
    ("time", "inside"),
    [
        ("2024-01-01T00:00:00Z", True),
        ("2024-01-31T23:59:59.999Z", True),
        ("2023-12-31T23:59:59.999Z", False),
        ("2024-02-01", False),
        ("2024-01-31T23:59:59-00:01", False),
        ("2024-01-01T00:00:00+00:01", False),
    ],
)
def test_a_month_has_its_first_second_and_not_the_next_ones(time: str, inside: bool) -> None:
    assert rejected(check({"timestamp": time})) == ([] if inside else [(11, rules.OTHER_MONTH)])


def test_times_that_a_file_holds_as_times_keep_the_same_rules() -> None:
    table = pa.Table.from_pylist([GOOD] * 4, schema=rules.RAW)
    times = [JANUARY.start, JANUARY.end, None, datetime(2023, 12, 31, tzinfo=timezone.utc)]
    place = table.column_names.index("timestamp")
    table = table.set_column(place, "timestamp", pa.array(times, pa.timestamp("s", "UTC")))
    found = check_rows(RawRows(table, np.arange(1, 5), []), "a.csv", JANUARY)
    assert rejected(found) == [(2, rules.OTHER_MONTH), (4, rules.OTHER_MONTH)]


def test_columns_in_pieces_with_codes_of_their_own_are_one_column() -> None:
    one, other = (
        pa.Table.from_pylist([{**GOOD, "page_id": page, "gender": gender}], schema=rules.RAW)
        for page, gender in (("p", "f"), ("q", None))
    )
    pieces = {
        name: pa.chunked_array([part[name].combine_chunks().dictionary_encode() for part in (one, other)])
        if name in rules.REPETITIVE
        else pa.chunked_array([part[name].combine_chunks() for part in (one, other)])
        for name in one.column_names
    }
    found = check_rows(RawRows(pa.table(pieces), np.array([1, 2]), []), "a.parquet", JANUARY)
    assert [(row["page_id"], row["gender"]) for row in found.accepted.to_pylist()] == [("p", "f"), ("q", "0")]


# --- tables between steps


def test_accepted_actions_and_rejects_are_checked_by_what_the_contract_says_of_them() -> None:
    good = {"user_id": "u", "page_id": "p", "gender": "0", "action": 0, "count": 1}
    bad: list[tuple[dict[str, Any], str]] = [
        *(({name: ""}, f"column {name} must have no empty text") for name in ("user_id", "page_id", "gender")),
        ({"count": 0}, "column count must be at least 1"),
        ({"action": -1}, "column action must be at least 0"),
        ({"action": len(ACTIONS)}, f"column action must be at most {len(ACTIONS) - 1}"),
    ]
    for change, rule in bad:
        found = Inspection(rules.ACCEPTED)
        list(found.through([pa.RecordBatch.from_pylist([good, {**good, **change}], schema=rules.ACTION)]))
        assert found.violations == [f"accepted raw actions: {rule} (1 is not)"]
    reject = {"file": "a", "line": 1, "reason": "r"}
    for change, rule in [
        ({"file": ""}, "column file must have no empty text"),
        ({"reason": ""}, "column reason must have no empty text"),
        ({"line": 0}, "column line must be at least 1"),
        ({}, "column line must rise from row to row"),
    ]:
        found = Inspection(rules.REJECTS)
        list(found.through([pa.RecordBatch.from_pylist([reject, {**reject, **change}], schema=rules.REJECT)]))
        assert found.violations == [f"rejects: {rule} (1 is not)"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ({"page_id", "action"}, "user_id"),
        ({"user_id", "action"}, "page_id"),
        ({"user_id", "page_id"}, "action"),
        (set(), "user_id, page_id, action"),
    ],
)
def test_a_file_without_a_required_column_is_named_with_the_column(names: set[str], missing: str) -> None:
    with pytest.raises(UnreadableFile, match=f"^a.csv can't be read: it has no column {missing}. Replace"):
        rules.require_columns(names, "a.csv")
    rules.require_columns({"user_id", "page_id", "action"}, "a.csv")


# --- files


def test_a_file_of_no_known_type_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    says = r"end in \.parquet, \.jsonl, \.jsonl\.gz, \.csv"
    for ask in (
        lambda: list(files.read_file(str(tmp_path / "gone.txt"), JANUARY)),
        lambda: files.check_file_type("a.jsonl.bz2"),
        lambda: list(files.check_read("a.gz", io.BytesIO(), JANUARY)),
    ):
        with pytest.raises(UnreadableFile, match=says):
            ask()
    files.check_file_type("a.b.jsonl.gz")


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"gone\.csv can't be read: .*No such file"):
        list(files.read_file(str(tmp_path / "gone.csv"), JANUARY))


@pytest.mark.parametrize(
    "error", [OSError("no"), EOFError("no"), pa.ArrowInvalid("no"), UnicodeError("no"), KeyError("no")]
)
def test_whatever_a_reader_stumbles_over_is_an_error_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_file: Any, _location: str) -> Any:
        raise error

    monkeypatch.setitem(files.FORMATS, ".csv", fail)
    with pytest.raises(UnreadableFile, match=r"^a\.csv can't be read: '?no'?\. Replace"):
        list(files.check_read("a.csv", io.BytesIO(), JANUARY))


# --- timestamps


def at(*when: int) -> datetime:
    return datetime(*when, tzinfo=timezone.utc)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-02-29", at(2024, 2, 29)),
        ("2024-01-02T03:04", at(2024, 1, 2, 3, 4)),
        ("2024-01-02 03:04:05", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02t03:04:05z", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05,9Z", at(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05+02", at(2024, 1, 2, 1, 4, 5)),
        ("2024-01-02T03:04:05+02:30", at(2024, 1, 2, 0, 34, 5)),
        ("2024-01-02T03:04:05-0230", at(2024, 1, 2, 5, 34, 5)),
        ("2024-01-02T03:04-23:59", at(2024, 1, 3, 3, 3)),
        ("2024-01-02T03:04:05.Z", None),
        ("2024-01-02T03:04:05+24", None),
        ("2024-01-02T03:04:05+02:60", None),
        ("2024-01-02T03", None),
        ("2024-01-02T03:04:60Z", None),
        ("2023-02-29", None),
        ("2024-01-02Z", None),
        ("٢٠٢٤-01-02", None),
        (" 2024-01-02", None),
    ],
)
def test_a_time_is_read_to_the_second_in_utc_alone_and_in_a_column(text: str, time: datetime | None) -> None:
    assert parse_timestamp(text) == time
    assert parse_timestamps(pa.array([text])).to_pylist() == [time]
    assert parse_timestamps(pa.array(["2024-01-02T03:04:05Z", text, None])).to_pylist() == [
        at(2024, 1, 2, 3, 4, 5),
        time,
        None,
    ]


def test_usual_times_are_read_a_column_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one it takes many times as long."""

    def fail(text: str) -> datetime:
        raise AssertionError(text)

    monkeypatch.setattr(timestamps, "parse_timestamp", fail)
    usual = ["2024-01-02T03:04:05Z", "2024-01-02t03:04:05", "2024-01-02 03:04:05.9+00:00", "2024-01-02T03:04:05+0000"]
    assert parse_timestamps(pa.array([*usual, None])).to_pylist() == [at(2024, 1, 2, 3, 4, 5)] * 4 + [None]


def test_a_column_of_no_times_at_all_has_none() -> None:
    assert parse_timestamps(pa.array([None, None], pa.string())).to_pylist() == [None, None]
    assert parse_timestamps(pa.array([], pa.string())).to_pylist() == []
