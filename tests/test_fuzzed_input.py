"""Whatever bytes an input holds: an error that names the file, or rows and counted rejects, and no line is lost.

By default the same few examples each time. More of them, and others each time:

    FUZZ_EXAMPLES=20000 pytest tests/test_fuzzed_input.py [--hypothesis-seed=N]
"""

import csv
import gzip
import io
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.errors import InputError, UnreadableFile
from spark_jobs.raw import files, text
from spark_jobs.raw.rules import Month, RawRows
from spark_jobs.raw.timestamps import parse_timestamp, parse_timestamps
from spark_jobs.users.grouped_users import read_json_lines
from spark_jobs.vectors.category_files import read_category
from tests.bad_inputs import bad_rows, good_parquet

_MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))
MONTH = Month.parse("2024-01")


def fuzzed(few: int) -> settings:
    """So many examples, or as many as the environment asks for."""
    return settings(max_examples=_MORE or few, derandomize=not _MORE, database=None, deadline=None)


# --- what files are put together from --------------------------------------------------------------

_ENDS = st.sampled_from(
    [b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\r\r\n", b"\n\r", b"\n\n", b"", b" ", b"\x0b", b"\x0c", b"\x1c"]
)
_PIECES = st.sampled_from(
    [
        *(b'"', b'""', b",", b'","', b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x80\xa8"),
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b"null",
            b"NaN",
            b"1e999",
            rb"\ud800",
            rb"\u0000",
            b"\\",
            b"'",
            b"-",
            b"9" * 20,
        ),
    ]
)
_CSV_ROWS = st.sampled_from(
    [b"u,p,page_like,,,", b'"u",p,page_like,"1",,', b'"u\n\r,""v",p,page_like,,,', b"u,p", b'"u,p']
)
_JSON_ROWS = st.sampled_from(
    [
        b'{"user_id": "u", "page_id": "p", "action": "page_like"}',
        b'{"user_id":"u","page_id":"p","action":"post_like","count":2}',
    ]
)
_BAD = list(bad_rows())


def _texts(rows: st.SearchStrategy[bytes], kind: str) -> st.SearchStrategy[bytes]:
    """Lines that are good, bad, or nothing at all, and ends that may be of any kind."""
    known = st.sampled_from([line for _, of_kind, line, _ in _BAD if of_kind == kind and len(line) < 1000])
    lines = st.one_of(rows, rows, known, st.lists(_PIECES | rows | st.binary(max_size=4), max_size=6).map(b"".join))
    ended = st.tuples(lines, _ENDS).map(b"".join)
    return st.lists(ended, max_size=12).map(b"".join)


_HEADER = b"user_id,page_id,action,gender,count,timestamp\n"
_CSV, _JSON = _texts(_CSV_ROWS, "csv").map(_HEADER.__add__), _texts(_JSON_ROWS, "jsonl")
_BLOCKS = st.sampled_from([8 << 20, 200, 64, 17, 5])


@contextmanager
def _blocks_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_BLOCK_BYTES", size)
        yield


def rows_of(data: bytes, name: str, block: int = 8 << 20) -> list[RawRows]:
    """What the reader of a file of this name reads of it."""
    with _blocks_of(block):
        return list(files.reader_of(name)(io.BytesIO(data), name))


def flat(read: list[RawRows]) -> tuple[list[tuple[int, Any]], list[tuple[int, str]]]:
    """Its rows and its broken lines, each with its number."""
    rows = [row for part in read for row in zip(part.lines.tolist(), part.table.to_pylist(), strict=True)]
    return rows, [broken for part in read for broken in part.broken]


def checked(data: bytes, name: str, block: int = 8 << 20) -> tuple[list[Any], list[tuple[int, str]]]:
    """The rows that are accepted of a file, and its rejects."""
    with _blocks_of(block):
        read = list(files.check_read(name, io.BytesIO(data), MONTH))
    rejected = [(row["line"], row["reason"]) for rows in read for row in rows.rejected.to_pylist()]
    return [row for rows in read for row in rows.accepted.to_pylist()], rejected


def lines_of(data: bytes) -> list[bytes]:
    return data.removeprefix(text.BOM).splitlines(keepends=True)


def assert_names(error: InputError, place: str) -> None:
    """The error is one line that can be printed, and names the place first."""
    assert str(error).startswith(place)
    assert "\n" not in str(error)
    str(error).encode()


# --- raw actions -----------------------------------------------------------------------------------


@fuzzed(100)
@given(_JSON, _BLOCKS)
def test_every_line_of_json_that_is_not_blank_is_a_row_or_a_reject(data: bytes, block: int) -> None:
    rows, broken = flat(rows_of(data, "a.jsonl", block))
    not_blank = [number for number, line in enumerate(lines_of(data), 1) if line.strip()]
    assert sorted(number for number, _ in [*rows, *broken]) == not_blank


@fuzzed(100)
@given(_CSV, _BLOCKS)
def test_every_line_of_csv_is_in_a_row_or_a_reject_or_blank(data: bytes, block: int) -> None:
    rows, broken = flat(rows_of(data, "a.csv", block))
    lines, found = lines_of(data), {**dict.fromkeys(number for number, _ in broken), **dict(rows)}
    assert len(found) == len(rows) + len(broken)
    starts = sorted(found)
    assert not b"".join(lines[1 : starts[0] - 1 if starts else None]).strip()
    for start, following in itertools.pairwise([*starts, len(lines) + 1]):
        if (row := found[start]) is None:
            assert not b"".join(lines[start : following - 1]).strip()
        else:  # Python's own parser makes the same one record of its lines
            of_row = io.StringIO(b"".join(lines[start - 1 : following - 1]).decode(), newline="")
            (fields,) = [record for record in csv.reader(of_row, strict=True) if record and any(map(str.strip, record))]
            assert [fields[0] or None, fields[1] or None] == [row["user_id"], row["page_id"]]


@fuzzed(100)
@given(st.one_of(_CSV.map(lambda data: ("a.csv", data)), _JSON.map(lambda data: ("a.jsonl", data))), _BLOCKS)
def test_how_a_file_is_cut_and_what_follows_change_no_row(named: tuple[str, bytes], block: int) -> None:
    name, data = named
    accepted, rejected = checked(data, name)
    assert checked(data, name, block) == (accepted, rejected)
    # A line that is nothing makes the reader careful about all others.
    beside, with_nothing = checked(data + b"\nnothing", name)
    assert (beside, with_nothing[:-1]) == (accepted, rejected)


@fuzzed(100)
@given(st.sampled_from(["a.csv", "a.jsonl", "a.jsonl.gz", "a.parquet"]), st.data())
def test_any_bytes_are_rows_and_rejects_or_an_error_that_names_the_file(name: str, data: st.DataObject) -> None:
    whole = {
        "a.csv": _CSV,
        "a.jsonl": _JSON,
        "a.jsonl.gz": _JSON.map(gzip.compress),
        "a.parquet": st.just(good_parquet()),
    }
    content = bytearray(data.draw(st.one_of(st.binary(max_size=100), whole[name], whole[name])))
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.sampled_from([0, 1, 1, 4, 1000]))] = data.draw(st.binary(max_size=4))
        if not content:
            break
    try:
        for rows in files.check_read(name, io.BytesIO(content), MONTH):
            rows.accepted.validate(full=True)
            rows.rejected.validate(full=True)
    except UnreadableFile as error:
        assert_names(error, f"{name} can't be read: ")


# --- timestamps ------------------------------------------------------------------------------------

_TIMES = st.one_of(
    st.sampled_from(
        [row.split(b'"timestamp": "')[1][:-2].decode() for _, _, row, _ in _BAD if b'"timestamp": "' in row]
    ),
    st.from_regex(
        r"\A\d{4}-[01]\d-[0-3]\d([Tt ][0-2]\d:[0-6]\d(:[0-6]\d([.,]\d{1,10})?)?([Zz]|[+-][0-2]\d(:?[0-6]\d)?)?)?\Z"
    ),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.text(max_size=25),
)


@fuzzed(100)
@given(st.lists(_TIMES, max_size=4))
def test_a_timestamp_is_the_same_alone_and_beside_any_other(times: list[str]) -> None:
    together = parse_timestamps(pa.array(times, pa.string())).to_pylist()
    assert together == [parse_timestamp(time) for time in times]
    assert together == [parse_timestamps(pa.array([time])).to_pylist()[0] for time in times]


# --- categories and grouped users ------------------------------------------------------------------

_KEYS = st.sampled_from(
    ["id", "name", "private", "facebook", "x", "user_id", "gender", "page_like", "post_like", "\ud800"]
)
_SCALARS = st.sampled_from([None, True, 0, -1, 1, 2**63, 1.5, float("inf"), "", "p", "q", "é", "\udc00", "\0"])
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
_PAGES = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("abc")}, optional={"name": _SCALARS}) | _VALUES, max_size=3
)
_CATEGORIES = st.fixed_dictionaries(
    {"id": _SCALARS, "facebook": _PAGES}, optional={"private": _SCALARS, "x": _PAGES | _VALUES}
)
_COUNTS = st.dictionaries(st.sampled_from(["p", "q", ""]), st.sampled_from([0, 1, 2**62, 1, 1, -1, None]), max_size=3)
_USERS = st.fixed_dictionaries(
    {"user_id": st.sampled_from(["u", "v", "é", "u", None])},
    optional={"gender": _SCALARS, "page_like": _COUNTS, "post_like": _COUNTS | _VALUES},
)


@fuzzed(100)
@given(st.one_of((_CATEGORIES | _VALUES).map(lambda value: json.dumps(value).encode()), st.binary(max_size=60)))
def test_a_category_file_keeps_all_of_its_pages_or_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "coffee.json"
    file.write_bytes(data)
    try:
        category = read_category(str(file))
    except InputError as error:
        assert_names(error, str(file))
        return
    listed = [page for value in json.loads(data).values() if isinstance(value, list) for page in value]
    assert [page.id for page in category.pages] == [page["id"] for page in listed]
    assert len(category.fingerprint) == 32


@fuzzed(100)
@given(
    st.lists((_USERS | _VALUES).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=10), max_size=4),
    _ENDS,
)
def test_json_lines_of_users_keep_all_counts_or_are_refused_by_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes
) -> None:
    file: Path = tmp_path_factory.getbasetemp() / "users.jsonl"
    file.write_bytes(end.join(lines))
    try:
        users = [row for batch in read_json_lines(str(file)) for row in batch.to_pylist()]
    except UnreadableFile as error:
        assert_names(error, f"{file}, line ")
        return
    given_users = [json.loads(line.decode("utf-8-sig")) for line in lines_of(file.read_bytes()) if line.strip()]
    assert [user["user_id"] for user in users] == [user["user_id"] for user in given_users]
    for action in ("page_like", "post_like"):
        counts = [sum((user.get(action) or {}).values()) for user in given_users]
        assert [sum(page[action] for page in user["pages"]) for user in users] == counts
