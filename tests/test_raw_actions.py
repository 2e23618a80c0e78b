"""Raw actions: every format is read, and every row that breaks a rule is named by file, line and reason."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.errors import UnreadableFile
from spark_jobs.raw import rules
from spark_jobs.raw.files import read_file
from spark_jobs.raw.rules import Month

JANUARY = Month.parse("2024-01")
GOOD: dict[str, Any] = {"user_id": "u", "page_id": "p", "action": "page_like", "gender": "1", "count": 2}


def read(path: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    accepted: list[dict[str, Any]] = []
    rejected: list[tuple[int, str]] = []
    for checked in read_file(str(path), JANUARY):
        accepted += checked.accepted.to_pylist()
        rejected += [(row["line"], row["reason"]) for row in checked.rejected.to_pylist()]
        assert all(row["file"] == str(path) for row in checked.rejected.to_pylist())
    return accepted, rejected


def json_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": ""}, rules.NO_USER),
        ({"user_id": None}, rules.NO_USER),
        ({"page_id": None}, rules.NO_PAGE),
        ({"action": "page_poke"}, rules.BAD_ACTION),
        ({"action": None}, rules.BAD_ACTION),
        ({"count": 0}, rules.BAD_COUNT),
        ({"count": -3}, rules.BAD_COUNT),
        ({"count": 1.5}, rules.BAD_COUNT),
        ({"count": True}, rules.BAD_COUNT),
        ({"count": 2**63}, rules.BAD_COUNT),
        ({"timestamp": "yesterday"}, rules.BAD_TIMESTAMP),
        ({"timestamp": "2024-02-01T00:00:00Z"}, rules.OTHER_MONTH),
        ({"timestamp": "2024-01-01T00:30:00+01:00"}, rules.OTHER_MONTH),
        ({"user_id": 7}, rules.not_a_string("user_id")),
        ({"gender": 1}, rules.not_a_string("gender")),
        ({"page_id": "\ud800"}, rules.NOT_UTF8),
    ],
)
def test_a_row_that_breaks_a_rule_is_rejected_with_line_and_reason(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = json_lines(tmp_path / "a.jsonl", GOOD, {**GOOD, **change}, GOOD)
    accepted, rejected = read(path)
    assert len(accepted) == 2
    assert rejected == [(2, reason)]


def test_lines_that_are_no_json_object_are_rejected_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", GOOD, '{"user_id": "u", ', "[1]", "", GOOD, '{"a": 1}{"b": 2}')
    accepted, rejected = read(path)
    assert len(accepted) == 2
    assert rejected == [(2, rules.NOT_JSON), (3, rules.NOT_JSON), (6, rules.NOT_JSON)]


def test_what_is_missing_has_its_default(tmp_path: Path) -> None:
    row = {key: GOOD[key] for key in ("user_id", "page_id", "action")}
    for rows in ([row], [row, {**row, "gender": "", "count": None, "timestamp": None}, "{"]):
        accepted, _ = read(json_lines(tmp_path / "a.jsonl", *rows))
        assert {(r["gender"], r["count"]) for r in accepted} == {("0", 1)}


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "user_id": "Ünï-😀", "page_id": 'with "quotes", and commas', "timestamp": "2024-01-31T23:59:59Z"},
        {**GOOD, "user_id": "UPPER", "timestamp": "2024-01-01T00:00:00Z"},
        {**GOOD, "user_id": "upper", "page_id": "x" * 100_000, "timestamp": "2024-01-02T03:04:05+00:00"},
        {**GOOD, "count": 2**62, "timestamp": "2024-01-02T03:04:05"},
    ]
    lines = json_lines(tmp_path / "a.jsonl", *rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    with (tmp_path / "d.csv").open("w", newline="") as file:
        import csv

        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    expected = read(lines)
    assert len(expected[0]) == 4
    for name in ("b.jsonl.gz", "c.parquet", "d.csv"):
        assert read(tmp_path / name) == expected, name


def test_a_csv_line_with_another_number_of_fields_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,page_id,action,count\nu,p,page_like,1\nu,p\nu,p,page_like,many\nu,p,page_like,\n")
    accepted, rejected = read(path)
    assert [row["count"] for row in accepted] == [1, 1]
    assert rejected == [(3, rules.NOT_CSV), (4, rules.BAD_COUNT)]


def test_a_quoted_line_break_is_part_of_a_field_and_an_open_quote_breaks_its_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.csv"
    records = ["a,p,page_like,1", '"multi\nline",p,page_like,1', "b,p,page_like,1", '"open,p,page_like,1']
    path.write_text("user_id,page_id,action,count\n" + "\n".join(records + ["c,p,page_like,1"] * 200))
    for block in (1 << 20, 40):
        monkeypatch.setattr("spark_jobs.raw.text._BLOCK_BYTES", block)
        accepted, rejected = read(path)
        users = [row["user_id"] for row in accepted]
        assert users[:3] == ["a", "multi\nline", "b"]
        assert len(users) == 203
        assert rejected == [(6, rules.NOT_CSV)]


@pytest.mark.parametrize("beside", ["", "x,y"])
def test_what_is_beside_a_csv_line_does_not_change_it(tmp_path: Path, beside: str) -> None:
    """A line that is no record makes the reader careful."""
    path = tmp_path / "a.csv"
    lines = ["user_id,page_id,action", "", '"a\r\nb",p,page_like', "", "c\0d,p,page_like", "\r", beside]
    path.write_bytes("\n".join(lines).encode())
    accepted, rejected = read(path)
    assert [row["user_id"] for row in accepted] == ["a\r\nb", "c\0d"]
    assert rejected == ([(8, rules.NOT_CSV)] if beside else [])


@pytest.mark.parametrize("beside", ["", "x,y"])
def test_a_csv_field_that_goes_on_after_its_closing_quote_breaks_its_line(tmp_path: Path, beside: str) -> None:
    path = tmp_path / "a.csv"
    lines = ["user_id,page_id,action", '"a"b,p,page_like', '"c,"d,p,page_like', '"e","p ""q""",page_like', beside]
    path.write_text("\n".join(lines))
    accepted, rejected = read(path)
    assert [(row["user_id"], row["page_id"]) for row in accepted] == [("e", 'p "q"')]
    assert rejected == [(line, rules.NOT_CSV) for line in ([2, 3, 5] if beside else [2, 3])]


@pytest.mark.parametrize("beside", ["", "{"])
def test_the_first_rule_that_a_json_row_breaks_is_the_reason(tmp_path: Path, beside: str) -> None:
    _, rejected = read(json_lines(tmp_path / "a.jsonl", {**GOOD, "user_id": "", "count": 0}, beside))
    assert rejected[0] == (1, rules.NO_USER)


TIMES = {
    "2024-01-05T00:00:00.1Z": True,
    "2024-01-05T00:00:00.123456789Z": True,
    "2024-01-05T00:00:00+0000": True,
    "2024-01-05 10:20": True,
    "2024-01-05T10:20:30+05:30": True,
    "2023-12-31T23:30:00-01:00": True,
    "2024-01-05": True,
    "2024-01-06T22:00:00+23:59": True,
    "2024-01-05T10:20:30+25:00": False,
    "2024-01-05T10:20:30-24:00": False,
    "2024-01-05T10:20:30+05:60": False,
    "2024-01-05T10:20:30+05:": False,
    "0000-01-05T10:20:30Z": False,
    "0001-01-01T00:00:00+01:00": False,
    "2024-01-32T00:00:00Z": False,
    "2024-01-05T25:00:00Z": False,
    "20240105T000000Z": False,
    "2024-W01-1": False,
    "": False,
}


@pytest.mark.parametrize("time", TIMES)
def test_a_timestamp_alone_is_accepted_or_not_as_beside_others(tmp_path: Path, time: str) -> None:
    _, rejected = read(json_lines(tmp_path / "a.jsonl", {**GOOD, "timestamp": time}))
    assert rejected == ([] if TIMES[time] else [(1, rules.BAD_TIMESTAMP)])


def test_a_row_is_accepted_or_not_whatever_its_neighbours_are(tmp_path: Path) -> None:
    """The fast way to read a block and the careful one keep the same rules."""
    rows = [{**GOOD, "timestamp": time} for time in TIMES]
    rows += [{**GOOD, "count": count} for count in (1, 2**63 - 1, 0)]
    lines = [json.dumps(row) for row in rows]
    header = "user_id,page_id,action,count,timestamp"
    records = [f"u,p,page_like,1,{time}" for time in TIMES if time]
    records += [f"u,p,page_like,{n}," for n in ("3", " 3", "0x10", "3.0", "9223372036854775807", "9223372036854775808")]
    for name, text, breaking in (("a.jsonl", lines, "{"), ("a.csv", [header, *records], "x")):
        together, apart = tmp_path / name, tmp_path / f"careful-{name}"
        together.write_text("\n".join(text) + "\n")
        apart.write_text("\n".join([*text, breaking]) + "\n")
        accepted, rejected = read(together)
        carefully_accepted, carefully_rejected = read(apart)
        assert carefully_accepted == accepted
        assert carefully_rejected[:-1] == rejected
    assert rejected == [
        *[(2 + n, rules.BAD_TIMESTAMP) for n, good in enumerate(list(TIMES.values())[:-1]) if not good],
        *[(len(TIMES) + n, rules.BAD_COUNT) for n in (2, 3, 4, 6)],
    ]


def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path: Path) -> None:
    for name, text in (
        ("a.jsonl", json.dumps(GOOD) + "\r\n" + json.dumps(GOOD) + "\r\n{"),
        ("b.jsonl", json.dumps(GOOD) + "\r\n" + json.dumps(GOOD) + "\r\n"),
        ("a.csv", "user_id,page_id,action,count\r\nu,p,page_like,2\r\nu,p,page_like,2\r\n"),
        ("b.csv", 'user_id,page_id,action,count\r\nu,p,page_like,2\r\n"u",p,page_like,2\r\nx'),
    ):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        accepted, _ = read(tmp_path / name)
        assert [(row["user_id"], row["count"]) for row in accepted] == [("u", 2)] * 2, name


def test_objects_that_share_a_line_or_are_spread_over_lines_are_rejected(tmp_path: Path) -> None:
    one = json.dumps(GOOD)
    _, rejected = read(json_lines(tmp_path / "a.jsonl", one + one, one[:20], one[20:], one))
    assert [line for line, _ in rejected] == [1, 2, 3]


def test_a_parquet_row_is_rejected_where_text_would_be(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": pa.Array.from_buffers(
                pa.string(), 3, [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc")]
            ),
            "page_id": ["p"] * 3,
            "action": ["page_like"] * 3,
            "count": pa.array([1, 1, 2**64 - 1], pa.uint64()),
            "timestamp": pa.array([1704067200000000001] * 3, pa.timestamp("ns")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    accepted, rejected = read(tmp_path / "a.parquet")
    assert [row["user_id"] for row in accepted] == ["a"]
    assert rejected == [(2, rules.NOT_UTF8), (3, rules.BAD_COUNT)]


def test_a_parquet_file_may_have_timestamps_and_smaller_integers(tmp_path: Path) -> None:
    from datetime import datetime

    table = pa.table(
        {
            "user_id": ["a", "b"],
            "page_id": pa.array(["p", "p"]).dictionary_encode(),
            "action": ["page_like"] * 2,
            "count": pa.array([3, 0], pa.uint8()),
            "timestamp": [datetime(2024, 1, 31, 23, 59), datetime(2024, 1, 1)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    accepted, rejected = read(tmp_path / "a.parquet")
    assert [row["count"] for row in accepted] == [3]
    assert rejected == [(2, rules.BAD_COUNT)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl.gz", gzip.compress(json.dumps(GOOD).encode() * 9000)[:200], "ended before"),
        ("a.jsonl.gz", b"no gzip", "[Nn]ot a gzipped"),
        ("a.parquet", b"PAR1 and then nothing", "can't be read"),
        ("a.csv", b"user,page\n1,2\n", "no column user_id, page_id, action"),
        ("a.csv", b"", "no column user_id"),
        ("a.csv", b"user_id,page_id,action,action\n", "names a column twice"),
        ("a.jsonl.gz", b"", "empty"),
        ("a.txt", b"", r"end in \.parquet, \.jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_a_parquet_column_of_another_type_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "page_id": ["p"], "action": ["page_like"]}), tmp_path / "a.parquet")
    with pytest.raises(UnreadableFile, match="column user_id is of type int64, not string"):
        read(tmp_path / "a.parquet")


def test_lines_are_counted_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_jobs.raw.text._BLOCK_BYTES", 64)
    rows = [GOOD if number % 7 else {**GOOD, "count": 0} for number in range(1, 100)]
    _, rejected = read(json_lines(tmp_path / "a.jsonl", *rows))
    assert [line for line, _ in rejected] == list(range(7, 100, 7))
