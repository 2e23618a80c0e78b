"""Readers of raw files at their edges: line ends, blocks, records over lines, counts, and columns of other types."""

import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs.errors import UnreadableFile
from spark_jobs.raw import csv, json_lines, parquet, rules, text
from spark_jobs.raw.rules import RawRows
from spark_jobs.raw.text import Block

HEADER = "user_id,page_id,action"


def joined(read: Iterator[RawRows]) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]:
    """The rows of a file, their lines, and the lines that hold none."""
    rows, lines, broken = list[dict[str, Any]](), list[int](), list[tuple[int, str]]()
    for block in read:
        assert block.table.num_rows == len(block.lines)
        rows += block.table.to_pylist()
        lines += block.lines.tolist()
        broken += block.broken
    return rows, lines, broken


def read_csv(data: str | bytes) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]:
    return joined(csv.read_csv(io.BytesIO(data.encode() if isinstance(data, str) else data), "a.csv"))


# --- lines and blocks


@pytest.mark.parametrize(
    ("data", "lines", "crs"),
    [(b"", 0, 0), (b"a\n", 1, 0), (b"a\r\nb\r\n", 2, 0), (b"a\rb\r", 2, 2), (b"\r\r\n\n\r", 4, 2), (b"\r\n\r", 2, 1)],
)
def test_lines_are_counted_by_their_ends_and_a_crlf_is_one(data: bytes, lines: int, crs: int) -> None:
    assert text._count_lines(data) == (lines, crs)
    assert len(Block(data, 1, lines, crs).split_lines()) == lines


@pytest.mark.parametrize("first", [b"a\n", b"a\r\n", b"a\r", b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("rest", [b"", b"b\n", b"b\r\n", b"b\r", b"\rb\r"])
def test_the_first_line_is_split_off_with_its_end_and_the_others_keep_their_numbers(first: bytes, rest: bytes) -> None:
    data = first + rest
    line, others = Block(data, 7, *text._count_lines(data)).split_first()
    assert line == data.splitlines(keepends=True)[0]
    assert line + others.data == data
    assert others.first == 8
    assert (others.lines, others.crs) == text._count_lines(others.data)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b""])
def test_blocks_are_whole_lines_with_their_numbers_however_little_is_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch, size: int, end: bytes
) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", size)
    data = b"abc\rd\r\n\nefghij\n\r" + b"k" + end
    blocks = list(text.read_blocks(io.BytesIO(data), "a"))
    assert b"".join(block.data for block in blocks) == data + (b"" if end else b"\n")
    lines = [line for block in blocks for line in block.split_lines()]
    assert len(lines) == 6
    number = 1
    for block in blocks:
        assert (block.first, block.lines, block.crs) == (number, *text._count_lines(block.data))
        number += block.lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
@pytest.mark.parametrize("size", [3, 10, 1000])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(monkeypatch: pytest.MonkeyPatch, size: int, end: str) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", size)
    monkeypatch.setattr(text, "MAX_LINE_BYTES", max(10, size))
    longest = "x" * max(10, size)
    data = f"a\n{longest}\nb\n{longest}{end}".encode()
    assert sum(block.lines for block in text.read_blocks(io.BytesIO(data), "a")) == 4
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 10)
    if size <= 10:
        for place, line in ((2, f"a\n{longest}x\nb\n"), (4, f"a\n{longest}\nb\n{longest}x{end}")):
            with pytest.raises(UnreadableFile, match=f"^a can't be read: line {place} is longer than"):
                list(text.read_blocks(io.BytesIO(line.encode()), "a"))


def test_the_limit_is_named_in_mebibytes() -> None:
    assert "line 3 is longer than 64 MiB" in str(text._too_long("a", 3))


# --- CSV


@pytest.fixture
def at_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of many rows are read block by block, and not line by line, which takes many times as long."""

    def fail(*_: Any) -> Any:
        raise AssertionError("it is read line by line")

    monkeypatch.setattr(csv, "_parse_records", fail)
    monkeypatch.setattr(json_lines, "_parse_json_lines", fail)


@pytest.mark.usefixtures("at_once_only")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_plain_lines_are_parsed_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", 40)
    rows = ["u,p,page_like,3,x", '"u ""1""",p,page_like,,', "ü,p,page_like,1,", ",p,page_like,1,"] * 5
    found, lines, broken = read_csv(end.join([f"{HEADER},count,other", *rows]) + end)
    assert [row["user_id"] for row in found] == ["u", 'u "1"', "ü", None] * 5
    assert [row["count"] for row in found] == [3, None, 1, 1] * 5
    assert (lines, broken) == (list(range(2, 22)), [])
    objects = ['{"user_id": "u", "count": 2}', '{"page_id": "ü {", "more": [1]}'] * 5
    data = (end.join(objects) + end).encode()
    found, lines, broken = joined(json_lines.read_json_lines(io.BytesIO(data), "a.jsonl"))
    assert [(row["user_id"], row["page_id"], row["count"]) for row in found] == [
        ("u", None, 2),
        (None, "ü {", None),
    ] * 5
    assert (lines, broken) == (list(range(1, 11)), [])


def test_blank_lines_are_no_records_and_count_as_lines() -> None:
    for blank in ("\n", "\n\n", " \t\n", "\r\n", "\r"):
        found, lines, broken = read_csv(f"{HEADER}\n{blank}u,p,page_like\n{blank}v,p,page_like\n")
        between = len(blank.splitlines())
        assert [row["user_id"] for row in found] == ["u", "v"]
        assert (lines, broken) == ([2 + between, 3 + 2 * between], [])


def over_lines(count: int) -> str:
    """A record whose quoted field has so many lines."""
    return '"' + "\n".join(map(str, range(count))) + '",p,page_like\n'


@pytest.mark.parametrize("count", [2, 99, 100])
def test_a_record_may_have_a_hundred_lines(count: int) -> None:
    found, lines, broken = read_csv(f"{HEADER}\n{over_lines(count)}v,p,page_like\n")
    assert [row["user_id"] for row in found] == ["\n".join(map(str, range(count))), "v"]
    assert (lines, broken) == ([2, 2 + count], [])


def test_of_a_longer_record_each_line_is_read_by_itself() -> None:
    found, lines, broken = read_csv(f"{HEADER}\n{over_lines(101)}v,p,page_like\n")
    assert [row["user_id"] for row in found] == ['100"', "v"]
    assert lines == [102, 103]
    assert broken == [(line, rules.NOT_CSV) for line in range(2, 102)]


def test_a_record_over_lines_may_be_as_long_as_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    record = '"ab\ncd",p,page_like\n'
    for limit, taken in ((len(record), True), (len(record) - 1, False)):
        monkeypatch.setattr(csv, "MAX_LINE_BYTES", limit)
        _, lines, broken = read_csv(f"{HEADER}\n{record}")
        assert (lines, broken) == (([2], []) if taken else ([3], [(2, rules.NOT_CSV)]))


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (b"u\xff,p,page_like\n", [(2, rules.NOT_UTF8)]),
        (b'"u\n\xff",p,page_like\n', [(2, rules.NOT_CSV), (3, rules.NOT_UTF8)]),
        (b"u,p\n", [(2, rules.NOT_CSV)]),
        (b"u,p,page_like,1\n", [(2, rules.NOT_CSV)]),
        (b'"u\nv",p\n', [(2, rules.NOT_CSV), (3, rules.NOT_CSV)]),
        (b'"u"x,p,page_like\n', [(2, rules.NOT_CSV)]),
    ],
)
def test_a_line_that_is_no_record_is_broken_and_the_next_ones_are_read(
    data: bytes, broken: list[tuple[int, str]]
) -> None:
    found, _, what = read_csv(HEADER.encode() + b"\n" + data + b"v,p,page_like\n")
    assert ([row["user_id"] for row in found], what) == (["v"], broken)


def test_a_quote_that_is_open_where_the_file_ends_breaks_its_line_alone() -> None:
    found, lines, broken = read_csv(f'{HEADER}\n"u,p,page_like\nv,p,page_like\n"w,p')
    assert [row["user_id"] for row in found] == ["v"]
    assert (lines, broken) == ([3], [(2, rules.NOT_CSV), (4, rules.NOT_CSV)])


def test_records_come_in_batches_with_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "_RECORDS", 2)
    rows = "u,p,page_like\n" * 3
    read = list(csv.read_csv(io.BytesIO(f"{HEADER}\n\n{rows}x\nv,,\n".encode()), "a.csv"))
    assert [len(block.lines) + len(block.broken) for block in read] == [2, 2, 1]
    found, lines, broken = joined(iter(read))
    assert (lines, broken) == ([3, 4, 5, 7], [(6, rules.NOT_CSV)])
    assert found[-1] == {**dict.fromkeys(rules.RAW.names), "user_id": "v"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"user_id,page_id,action\xff\n", "its header is not UTF-8"),
        (b'user_id,page_id,"action\n', "its header is not CSV: "),
        (b"user_id,page_id,action,x,x\n", "its header names a column twice"),
        (b"", "it has no column user_id, page_id, action"),
    ],
)
def test_a_header_that_is_none_is_named(header: bytes, says: str) -> None:
    with pytest.raises(UnreadableFile, match=f"^a.csv can't be read: {says}"):
        read_csv(header)


def test_a_header_alone_has_no_rows_and_columns_may_stand_in_any_order() -> None:
    assert read_csv(f"\ufeff{HEADER}") == ([], [], [])
    found, _, _ = read_csv(b'\xef\xbb\xbf"action",count,user_id,page_id\r\npage_like,7,u,p\r\n')
    assert found == [
        {**dict.fromkeys(rules.RAW.names), "action": "page_like", "count": 7, "user_id": "u", "page_id": "p"}
    ]


def test_counts_are_whole_numbers_of_63_bits_and_0_stands_for_other_texts() -> None:
    good = {"1": 1, "0": 0, "007": 7, "9223372036854775807": 2**63 - 1, "0000000000000000001": 1, "9" * 18: 10**18 - 1}
    bad = ["-1", "+1", "1.0", " 1", "1 ", "x", "9223372036854775808", "9999999999999999999", "1" * 20, "٣", "1e3"]
    found = csv._parse_counts(pa.array([*good, *bad, None]))
    assert found.to_pylist() == [*good.values(), *[0] * len(bad), None]


# --- Parquet


def read_parquet(table: pa.Table, **how: Any) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]:
    file = io.BytesIO()
    pq.write_table(table, file, **how)
    return joined(parquet.read_parquet(file, "a.parquet"))


def required(count: int) -> dict[str, Any]:
    return {"user_id": [f"u{n}" for n in range(count)], "page_id": ["p"] * count, "action": ["page_like"] * count}


def test_rows_are_numbered_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_ROWS", 3)
    found, lines, broken = read_parquet(pa.table({**required(8), "other": [1] * 8}))
    assert [row["user_id"] for row in found] == [f"u{n}" for n in range(8)]
    assert (lines, broken) == (list(range(1, 9)), [])
    assert {row["count"] for row in found} == {None}


def test_texts_that_are_not_utf8_break_their_rows_in_any_column_and_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def texts(*values: bytes | None) -> pa.Array:
        return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())

    table = pa.table(
        {
            "user_id": texts(b"a", b"\xff", b"c", b"d", b"e"),
            "page_id": texts(b"p", b"p", b"q", b"\xfe", b"p"),
            "action": ["page_like"] * 5,
            "gender": texts(None, b"1", b"1", b"1", b"\xfd"),
        }
    )
    for rows in (2, 100):
        monkeypatch.setattr(parquet, "_ROWS", rows)
        found, lines, broken = read_parquet(table)
        assert [(row["user_id"], row["page_id"], row["gender"]) for row in found] == [("a", "p", None), ("c", "q", "1")]
        assert (lines, broken) == ([1, 3], [(line, rules.NOT_UTF8) for line in (2, 4, 5)])


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("count", pa.array([1, -1, None], pa.int8()), [1, -1, None]),
        ("count", pa.array([1, 2**64 - 1, 2**63 - 1], pa.uint64()), [1, 0, 2**63 - 1]),
        ("count", pa.array([2**63, 3, None], pa.uint64()), [0, 3, None]),
        ("count", pa.array([1, 2, 1]).dictionary_encode(), [1, 2, 1]),
        ("gender", pa.nulls(3), [None] * 3),
        ("gender", pa.array(["1", None, "2"], pa.large_string()), ["1", None, "2"]),
        ("gender", pa.array(["1", None, "2"]).dictionary_encode(), ["1", None, "2"]),
        ("timestamp", pa.array(["2024-01-01", None, "x"]).dictionary_encode(), ["2024-01-01", None, "x"]),
    ],
)
def test_a_column_may_be_of_any_type_that_has_its_values(column: str, values: pa.Array, expected: list[Any]) -> None:
    table = pa.table({**required(3), column: values})
    found, _, _ = read_parquet(table)
    assert [row[column] for row in found] == expected
    file = io.BytesIO()
    pq.write_table(table, file)
    (read,) = parquet.read_parquet(file, "a.parquet")
    checked = rules.check_rows(read, "a.parquet", rules.Month.parse("2024-01"))
    assert checked.accepted.num_rows + checked.rejected.num_rows == 3


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+02:00"])
def test_times_are_in_utc_to_the_second_and_without_a_zone_they_are_taken_for_utc(unit: str, zone: str | None) -> None:
    time = datetime(2024, 1, 31, 23, 59, 59, 0 if unit == "s" else 999_000)
    naive = pa.array([time, None], pa.timestamp(unit))
    found, _, _ = read_parquet(
        pa.table({**required(2), "timestamp": naive if zone is None else naive.cast(pa.timestamp(unit, zone))})
    )
    assert [row["timestamp"] and row["timestamp"].replace(tzinfo=None) for row in found] == [
        time.replace(microsecond=0),
        None,
    ]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("user_id", pa.int64()),
        ("page_id", pa.binary()),
        ("gender", pa.bool_()),
        ("count", pa.float64()),
        ("count", pa.string()),
        ("timestamp", pa.int64()),
    ],
)
def test_a_column_of_another_type_is_refused_by_name_and_type(column: str, kind: pa.DataType) -> None:
    table = pa.table({**required(1), column: pa.nulls(1, kind)})
    with pytest.raises(UnreadableFile, match=rf"its column {column} is of type {kind}, not "):
        read_parquet(table)


def test_a_column_that_is_there_twice_is_refused_and_one_that_is_none_of_ours_is_not() -> None:
    columns = [*required(1).values()]
    twice = pa.Table.from_arrays([pa.array(c) for c in [*columns, [1], [2]]], [*required(1), "x", "x"])
    assert len(read_parquet(twice)[0]) == 1
    with pytest.raises(UnreadableFile, match="it has the column gender twice"):
        read_parquet(twice.rename_columns([*required(1), "gender", "gender"]))


# --- JSON lines


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"user_id": "u"', rules.NOT_JSON),
        (b"[]", rules.NOT_JSON),
        (b"null", rules.NOT_JSON),
        (b'"\xff"', rules.NOT_UTF8),
        (b'{"user_id": "u", "user_id": "u"}', rules.TWICE),
        *(
            (f'{{"{name}": 1}}'.encode(), rules.not_a_string(name))
            for name in ("user_id", "page_id", "action", "gender")
        ),
        (b'{"timestamp": []}', rules.not_a_string("timestamp")),
        (b'{"gender": "\\udfff"}', rules.NOT_UTF8),
    ],
)
def test_a_line_that_is_no_row_is_broken_for_its_reason(line: bytes, why: str) -> None:
    data = io.BytesIO(b'{"user_id": "a"}\n' + line + b'\n\n{"user_id": "b"}')
    found, lines, broken = joined(json_lines.read_json_lines(data, "a.jsonl"))
    assert [row["user_id"] for row in found] == ["a", "b"]
    assert (lines, broken) == ([1, 4], [(2, why)])


def test_a_byte_order_mark_is_none_but_at_the_start_of_a_file_wherever_blocks_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = b'\xef\xbb\xbf{"user_id": "u"}\n'
    for size in (len(line), 1000):
        monkeypatch.setattr(text, "_BLOCK_BYTES", size)
        found, lines, broken = joined(json_lines.read_json_lines(io.BytesIO(line * 2), "a.jsonl"))
        assert [row["user_id"] for row in found] == ["u"]
        assert (lines, broken) == ([1], [(2, rules.NOT_JSON)])


def test_fields_that_are_none_of_ours_may_be_there_twice_and_counts_that_are_none_are_0() -> None:
    counts = {"1": 1, "0": 0, "-1": 0, "1.0": 0, "true": 0, '"1"': 0, "null": None, str(2**63 - 1): 2**63 - 1}
    counts |= {str(2**63): 0, "9" * 30: 0}
    lines = [f'{{"x": 1, "x": 2, "count": {count}}}' for count in counts]
    found = json_lines._parse_json_lines(Block("\n".join(lines).encode(), 1, len(lines)))
    assert found.table["count"].to_pylist() == list(counts.values())
    assert np.array_equal(found.lines, np.arange(1, len(lines) + 1))
