"""Bad inputs, kept: what each is, how it is made, and what must come of it.

Those of raw files lie in a month's folder beside nothing else. Each is either refused by an error that names the file,
or its rows are counted: so many accepted, and so many rejected for each reason. None may give anything else.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.raw import rules


@dataclass(frozen=True)
class Rows:
    """Rows that are counted."""

    accepted: int
    rejected: Mapping[str, int] = field(default_factory=dict)  # by reason


Content: TypeAlias = bytes | Callable[[Path], None]  # of a file, or what makes something else at its path


@dataclass(frozen=True)
class BadInput:
    """A bad input, and what must come of it."""

    what: str
    file: str  # its name
    content: Content
    expected: str | Rows  # a part of the error, or the rows; category files that are fine have `Rows(pages)`

    def write(self, folder: Path) -> Path:
        """Make it in a folder."""
        path = folder / self.file
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


# --- rows of text files ----------------------------------------------------------------------------

_STRING = json.dumps
_BAD_TEXTS = ("7", "1.5", "true", "[]", '["u"]', "{}", '{"id": "u"}', "1e999", "-0", "NaN")
_HALVES = (r'"\ud800"', r'"a\udfffb"', r'"\udc00\ud800"')  # of surrogate pairs
_BAD_ACTIONS = (
    *("", "page_poke", "PAGE_LIKE", "page_like ", " page_like", "page-like", "0", "like", "page_like\0"),
    *("page_like,post_like", "рage_like", "page_l\u0131ke", "page_like\u200b", "null"),
)
_BAD_COUNTS = ("0", "-1", "1.5", "1.0", "1e0", "9223372036854775808", "-9223372036854775809", "1" * 400, "NaN", "1e999")
_LONG = ("1" * 5000, "-" + "1" * 5000)  # numbers of more digits than Python reads
_BAD_TIMES = (
    *("yesterday", "2024-02-30", "2024-13-01", "2024-00-10", "2024-01-00", "2024-1-5", "24-01-05", "2024-01-32"),
    *("2024-01-05T24:00:00Z", "2024-01-05T23:60:00Z", "2024-01-05T23:59:60Z", "2024-01-05T10", "2024-01-05T"),
    *("2024-01-05T10:20:30.", "2024-01-05T10:20:30.1234567890Z", "2024-01-05T10:20:30+25:00"),
    *("2024-01-05T10:20:30-24:00", "2024-01-05T10:20:30+05:60", "2024-01-05T10:20:30+5", "2024-01-05T10:20:30+05:"),
    *("2024-01-05T10:20:30Zx", " 2024-01-05", "2024-01-05 ", "٢٠٢٤-٠١-٠٥", "2024-01-05T10:20:30−01:00"),
    *("2024-W01-1", "2024-005", "20240105", "20240105T102030Z", "1704067200", "1704067200000", "0000-01-01T00:00:00Z"),
    *("10000-01-01", "+2024-01-05", "-2024-01-05", "2024-01-05T10:20:30 UTC", "2024-01-05T10:20:30[Europe/Berlin]"),
    *("2024/01/05", "05.01.2024", "2024-01-05TT10:20", "2024-01-05\0", "0001-01-01T00:00:00+01:00", "NaT", "null"),
    *("9999-12-31T23:59:59-01:00", "2024-01-05T10:20:30Z\u200b", "2024‐01‐05", "2024-01-05T-1:20:30Z", "Fri Jan 5"),
)
_OTHER_MONTHS = (
    *("2023-12-31T23:59:59Z", "2024-02-01", "2024-02-01T00:00:00Z", "2024-01-01T00:30:00+01:00", "1970-01-01"),
    *("2024-01-31T23:30:00-01:00", "9999-12-31", "0001-01-01T00:00:00Z", "2023-01-15", "2024-01-01T23:58:00+23:59"),
)
_FIELDS = ("user_id", "page_id", "action", "gender", "count", "timestamp")


def bad_rows() -> Iterator[tuple[str, str, bytes, str]]:
    """What it is, the format, the line, and the reason to reject it, of rows that break a rule."""
    for name, value, reason in _bad_json_values():
        row = {"user_id": '"u"', "page_id": '"p"', "action": '"page_like"', name: value}
        line = "{" + ", ".join(f'"{key}": {text}' for key, text in row.items()) + "}"
        yield f"{name} = {value[:40]}", "jsonl", line.encode(), reason
    for name, value, reason in _bad_csv_values():
        row = {**dict.fromkeys(_FIELDS, ""), "user_id": "u", "page_id": "p", "action": "page_like", name: value}
        yield f"{name} = {value[:40]}", "csv", ",".join(row.values()).encode(), reason
    for what, line, reason in _BAD_JSON_LINES:
        yield what, "jsonl", line, reason
    for what, line, reason in _BAD_CSV_LINES:
        yield what, "csv", line, reason


def _bad_json_values() -> Iterator[tuple[str, str, str]]:
    for name, missing in (("user_id", rules.NO_USER), ("page_id", rules.NO_PAGE)):
        yield from ((name, value, missing) for value in ("null", '""'))
    yield from (("action", _STRING(value), rules.BAD_ACTION) for value in _BAD_ACTIONS)
    yield "action", "null", rules.BAD_ACTION
    for name in ("user_id", "page_id", "action", "gender", "timestamp"):
        yield from ((name, value, rules.not_a_string(name)) for value in _BAD_TEXTS)
        yield from ((name, value, rules.NOT_UTF8) for value in _HALVES)
    yield from (("count", value, rules.BAD_COUNT) for value in (*_BAD_COUNTS, *_LONG, '"1"', "true", "[]", "{}", '""'))
    yield from (("timestamp", _STRING(value), rules.BAD_TIMESTAMP) for value in (*_BAD_TIMES, "", "2024-01-05\n"))
    yield from (("timestamp", _STRING(value), rules.OTHER_MONTH) for value in _OTHER_MONTHS)


def _bad_csv_values() -> Iterator[tuple[str, str, str]]:
    for name, missing in (("user_id", rules.NO_USER), ("page_id", rules.NO_PAGE)):
        yield from ((name, value, missing) for value in ("", '""'))
    yield from (("action", value, rules.BAD_ACTION) for value in _BAD_ACTIONS if "," not in value)
    bad = ("+1", " 1", "1 ", "1_000", "0x10", "١", "one", "true", '"1,5"', "1'000", "∞", "1e400")
    yield from (("count", value, rules.BAD_COUNT) for value in (*_BAD_COUNTS, *bad))
    yield from (("timestamp", value, rules.BAD_TIMESTAMP) for value in _BAD_TIMES)
    yield from (("timestamp", value, rules.OTHER_MONTH) for value in _OTHER_MONTHS)


_NOT_UTF8 = {
    "a byte that UTF-8 never has": b"\xff",
    "latin-1": "é".encode("latin-1"),
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "a surrogate as CESU-8 has it": b"\xed\xa0\x80",
    "a pair of surrogates as CESU-8 has it": b"\xed\xa0\xbd\xed\xb8\x80",
    "half a character": b"\xf0\x9f\x98",
    "a continuation without a start": b"\x80",
    "a character beyond the last": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
}
_ROW = b'{"user_id": "%s", "page_id": "p", "action": "page_like"}'
_BAD_JSON_LINES = [
    *((f"{what} in a row", _ROW % text, rules.NOT_UTF8) for what, text in _NOT_UTF8.items()),
    *(
        (what, line, rules.NOT_JSON)
        for what, line in {
            "cut off": b'{"user_id": "u", "page_id"',
            "two objects": _ROW % b"u" + _ROW % b"v",
            "an object and a comma": _ROW % b"u" + b",",
            "a list": b"[" + _ROW % b"u" + b"]",
            "a number": b"7",
            "null": b"null",
            "a string": b'"u"',
            "single quotes": b"{'user_id': 'u', 'page_id': 'p', 'action': 'page_like'}",
            "no quotes": b"{user_id: u, page_id: p, action: page_like}",
            "a comma too many": b'{"user_id": "u", "page_id": "p", "action": "page_like",}',
            "a comment": _ROW % b"u" + b" // why",
            "a bare NUL": b"\0",
            "a NUL within a string": _ROW % b"a\0b",
            "a tab within a string": _ROW % b"a\tb",
            "an escape that JSON lacks": _ROW % rb"\x41",
            "a cut escape": _ROW % rb"\u00",
            "a byte order mark in the middle": b"\xef\xbb\xbf" + _ROW % b"u",
            "a number with zeros before it": b'{"user_id": "u", "page_id": "p", "action": "page_like", "count": 007}',
            "deeply nested": b"[" * 5000,
            "a merge conflict": b"<<<<<<< HEAD",
            "a shell's error": b"zcat: a.gz: unexpected end of file",
            "CSV": b"u,p,page_like",
        }.items()
    ),
    ("an empty object", b"{}", rules.NO_USER),
    ("other keys", b'{"userId": "u", "pageId": "p", "type": "page_like"}', rules.NO_USER),
    ("keys in capitals", b'{"USER_ID": "u", "PAGE_ID": "p", "ACTION": "page_like"}', rules.NO_USER),
    ("a nested row", b'{"row": ' + _ROW % b"u" + b"}", rules.NO_USER),
    ("a user twice", b'{"user_id": "a", "user_id": "b", "page_id": "p", "action": "page_like"}', rules.TWICE),
    ("an action twice", b'{"user_id": "a", "page_id": "p", "action": "x", "action": "page_like"}', rules.TWICE),
]
_BAD_CSV_LINES = [
    *((f"{what} in a row", text + b",p,page_like,,,", rules.NOT_UTF8) for what, text in _NOT_UTF8.items()),
    *(
        (what, line, rules.NOT_CSV)
        for what, line in {
            "one field": b"u",
            "a field too few": b"u,p,page_like,,",
            "a field too many": b"u,p,page_like,,,,",
            "commas alone": b",,,,,,,,,",
            "semicolons": b"u;p;page_like;;;",
            "tabs": b"u\tp\tpage_like\t\t\t",
            "a quote that is not closed": b'"u,p,page_like,,,',
            "text after a closing quote": b'"u"v,p,page_like,,,',
            "a quote with a backslash": rb'"a\"b",p,page_like,,,',
            "a NUL": b"\0",
        }.items()
    ),
]


# Values of a field that raw actions do not have: whatever they are, the row is good.
_OF_OTHER_FIELDS = {
    "lists of 5,000 levels": b"[" * 5000 + b"]" * 5000,
    "objects of 5,000 levels": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a number of 5,000 digits": b"1" * 5000,
    "a number below 0 of 5,000 digits": b"-" + b"1" * 5000,
    "a number beyond floats": b"1e999",
    "half a surrogate pair": rb'"\ud800"',
    "NaN": b"NaN",
    "an object with a user": b'{"user_id": 7, "user_id": 8}',
}


def strange_rows() -> Iterator[BadInput]:
    """A file a row that looks bad and is not, which is its second of two; `Rows(2)` are accepted of each."""
    for what, value in _OF_OTHER_FIELDS.items():
        row = (_ROW % b"u")[:-1] + b', "x": ' + value + b"}"
        yield BadInput(f"jsonl: another field that is {what}", "a.jsonl", _ROW % b"good" + b"\n" + row + b"\n", Rows(2))


def raw_rows() -> Iterator[BadInput]:
    """A file a bad row, which is its second of three."""
    for what, kind, line, reason in bad_rows():
        good, header = (_ROW % b"good", b"") if kind == "jsonl" else (b"good,p,page_like,,,", _HEADER)
        content = header + b"\n".join([good, line, good, b""])
        yield BadInput(f"{kind}: {what}", f"a.{kind}", content, Rows(2, {reason: 1}))


_HEADER = ",".join(_FIELDS).encode() + b"\n"

# --- whole text files ------------------------------------------------------------------------------

_TWO = b"user_id,page_id,action\nu,p,page_like\nv,p,page_like\n"
_TWO_JSON = _ROW % b"u" + b"\n" + _ROW % b"v" + b"\n"
_ZIPPED = gzip.compress(_TWO_JSON, mtime=0)


def _zip(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.csv"), content)
    return file.getvalue()


_CSV_FILES: dict[str, tuple[bytes, str | Rows]] = {
    "an empty file": (b"", "it has no column user_id, page_id, action"),
    "line ends alone": (b"\n\r\n\r", "it has no column"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "it has no column"),
    "no header": (b"u,p,page_like\n", "it has no column"),
    "no user_id": (b"page_id,action\np,page_like\n", "it has no column user_id"),
    "no page_id": (b"user_id,action\nu,page_like\n", "it has no column page_id"),
    "no action": (b"user_id,page_id\nu,p\n", "it has no column action"),
    "capitals": (b"USER_ID,PAGE_ID,ACTION\nu,p,page_like\n", "it has no column"),
    "spaces before names": (b"user_id, page_id, action\nu,p,page_like\n", "it has no column page_id, action"),
    "semicolons": (_TWO.replace(b",", b";"), "it has no column"),
    "tabs": (_TWO.replace(b",", b"\t"), "it has no column"),
    "a column twice": (b"user_id,page_id,action,user_id\nu,p,page_like,v\n", "its header names a column twice"),
    "an unknown column twice": (b"user_id,page_id,action,x,x\nu,p,page_like,1,2\n", "names a column twice"),
    "a header whose quote is open": (b'"user_id,page_id,action\nu,p,page_like\n', "its header"),
    "text after a quote in the header": (b'"user_id"x,page_id,action\n', "its header"),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbf" + _TWO, "it has no column user_id"),
    "UTF-16": (_TWO.decode().encode("utf-16"), "its header is not UTF-8"),
    "UTF-16 without a mark": (_TWO.decode().encode("utf-16-le"), "it has no column"),
    "UTF-32": (_TWO.decode().encode("utf-32"), "its header is not UTF-8"),
    "EBCDIC": (_TWO.decode().encode("cp500"), "its header is not UTF-8"),
    "a zip": (_zip(_TWO), "can't be read"),
    "a gzip": (gzip.compress(_TWO, mtime=0), "its header is not UTF-8"),
    "a byte order mark after the header": (_TWO.replace(b"u,p", b"\xef\xbb\xbf\nu,p"), Rows(2, {rules.NOT_CSV: 1})),
    "a header alone": (b"user_id,page_id,action", Rows(0)),
    "a header after an empty line": (b"\n" + _TWO, "it has no column"),
    "a header twice": (_TWO + _TWO, Rows(4, {rules.BAD_ACTION: 1})),
    "CR": (_TWO.replace(b"\n", b"\r"), Rows(2)),
    "CR, CR, LF": (_TWO.replace(b"\n", b"\r\r\n"), Rows(2)),
    "LF, CR": (_TWO.replace(b"\n", b"\n\r"), Rows(2)),
    "all ends": (b"user_id,page_id,action\ru,p,page_like\nv,p,page_like\r\n\rw,p,page_like", Rows(3)),
    "an end that Python's str has": (_TWO.replace(b"u,", "u\x0b\x1c\x85\u2028,".encode()), Rows(2)),
    "a form feed between rows": (_TWO.replace(b"like\nv", b"like\n\x0cv"), Rows(2)),
    "a row of a space": (_TWO + b" \n", Rows(2)),
    "ends within quotes": (_TWO + b'"a\rb\nc\r\nd",p,page_like\n', Rows(3)),
    "a quote that is open to the end": (_TWO + b'"u,p,page_like\n' * 3, Rows(2, {rules.NOT_CSV: 3})),
    "a hundred open quotes": (_TWO + b'"\n' * 101, Rows(2, {rules.NOT_CSV: 101})),
    "pages that normalization makes one": (_TWO + "u,é,page_like\nu,e\u0301,page_like\n".encode(), Rows(4)),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404</body></html>\n", "it has no column"),
    "a thousand columns": (b"user_id,page_id,action" + b",x" * 1000 + b"\n", "names a column twice"),
    "an end of file mark": (_TWO + b"\x1a", Rows(2, {rules.NOT_CSV: 1})),
}
_JSON_FILES: dict[str, tuple[bytes, str | Rows]] = {
    "an empty file": (b"", Rows(0)),
    "line ends alone": (b"\n\r\n\r", Rows(0)),
    "a byte order mark alone": (b"\xef\xbb\xbf", Rows(0)),
    "a byte order mark": (b"\xef\xbb\xbf" + _TWO_JSON, Rows(2)),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbf" + _TWO_JSON, Rows(1, {rules.NOT_JSON: 1})),
    "UTF-16": (_TWO_JSON.decode().encode("utf-16"), Rows(0, {rules.NOT_UTF8: 1, rules.NOT_JSON: 2})),
    "UTF-16 without a mark": (_TWO_JSON.decode().encode("utf-16-be"), Rows(0, {rules.NOT_JSON: 2})),
    "UTF-32": (_TWO_JSON.decode().encode("utf-32"), Rows(0, {rules.NOT_UTF8: 1, rules.NOT_JSON: 2})),
    "a list over lines": (b"[\n" + _TWO_JSON.replace(b"}\n", b"},\n") + b"]\n", Rows(0, {rules.NOT_JSON: 4})),
    "an object over lines": (json.dumps({"user_id": "u"}, indent=1).encode(), Rows(0, {rules.NOT_JSON: 3})),
    "records divided by RS": (b"\x1e" + _ROW % b"u" + b"\n", Rows(0, {rules.NOT_JSON: 1})),
    "CR": (_TWO_JSON.replace(b"\n", b"\r"), Rows(2)),
    "LF, CR": (_TWO_JSON.replace(b"\n", b"\n\r"), Rows(2)),
    "CR between tokens": ((_ROW % b"u").replace(b", ", b",\r"), Rows(0, {rules.NOT_JSON: 3})),
    "two rows on a line": (_TWO_JSON.replace(b"}\n{", b"} {"), Rows(0, {rules.NOT_JSON: 1})),
    "rows without an end between": (_TWO_JSON.replace(b"}\n{", b"}{"), Rows(0, {rules.NOT_JSON: 1})),
    "an end that Python's str has": ((_ROW % "a\x85b\u2028c".encode()), Rows(1)),
    "a gzip": (_ZIPPED, Rows(0, {rules.NOT_UTF8: 1})),
    "CSV": (_TWO, Rows(0, {rules.NOT_JSON: 3})),
    "NULs": (b"\0" * 100, Rows(0, {rules.NOT_JSON: 1})),
    "a row without an end": (_ROW % b"u", Rows(1)),
    "pages that normalization makes one": (_TWO_JSON.replace(b'"p"', '"é"'.encode(), 1).replace(
        b'"p"', '"e\u0301"'.encode()), Rows(2)),
}  # fmt: skip
_GZIPS: dict[str, tuple[bytes, str | Rows]] = {
    "an empty file": (b"", "it is empty"),
    "text": (_TWO_JSON, "Not a gzipped file"),
    "bzip2": (bz2.compress(_TWO_JSON), "Not a gzipped file"),
    "xz": (lzma.compress(_TWO_JSON), "Not a gzipped file"),
    "a zip": (_zip(_TWO_JSON), "Not a gzipped file"),
    "one byte": (_ZIPPED[:1], "can't be read"),
    "half a header": (_ZIPPED[:5], "can't be read"),
    "a header alone": (_ZIPPED[:10], "ended before"),
    "cut in the middle": (_ZIPPED[:40], "ended before"),
    "cut in its last eight bytes": (_ZIPPED[:-3], "ended before"),
    "a wrong checksum": (_ZIPPED[:-8] + b"\0\0\0\0" + _ZIPPED[-4:], "CRC check failed"),
    "a wrong length": (_ZIPPED[:-4] + b"\0\0\0\0", "Incorrect length"),
    "a damaged block": (_ZIPPED[:20] + bytes(b ^ 255 for b in _ZIPPED[20:24]) + _ZIPPED[24:], "can't be read"),
    "garbage after it": (_ZIPPED + b"garbage", "Not a gzipped file"),
    "zeros after it": (_ZIPPED + b"\0" * 512, Rows(2)),
    "a second one that is cut": (_ZIPPED + _ZIPPED[:30], "ended before"),
    "an unknown method": (_ZIPPED[:2] + b"\x07" + _ZIPPED[3:], "Unknown compression method"),
    "a gzip within": (gzip.compress(_ZIPPED, mtime=0), Rows(0, {rules.NOT_UTF8: 1})),
    "nothing within": (gzip.compress(b"", mtime=0), Rows(0)),
    "a row that two of them share": (gzip.compress(_TWO_JSON[:30], mtime=0) + gzip.compress(_TWO_JSON[30:], mtime=0),
                                     Rows(2)),
    "CSV within": (gzip.compress(_TWO, mtime=0), Rows(0, {rules.NOT_JSON: 3})),
}  # fmt: skip


def raw_file() -> bytes:
    """A CSV of raw actions that is fine."""
    return _TWO


def raw_texts() -> Iterator[BadInput]:
    """Whole text files."""
    for ending, files in (("csv", _CSV_FILES), ("jsonl", _JSON_FILES), ("jsonl.gz", _GZIPS)):
        for what, (content, expected) in files.items():
            yield BadInput(f"{ending}: {what}", f"a.{ending}", content, expected)


# --- Parquet ---------------------------------------------------------------------------------------


def parquet(columns: Mapping[str, pa.Array], **options: Any) -> bytes:
    """A Parquet file of these columns; equal names may be written as `x` and `x#2`."""
    table = pa.Table.from_arrays(list(columns.values()), [name.partition("#")[0] for name in columns])
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


_GOOD = {"user_id": pa.array(["u", "v"]), "page_id": pa.array(["p", "p"]), "action": pa.array(["page_like"] * 2)}


def good_parquet() -> bytes:
    """A Parquet file of raw actions that is fine."""
    return parquet(_GOOD)


_NOW = datetime(2024, 1, 5, tzinfo=timezone.utc)
_LATER = datetime(2024, 2, 1, tzinfo=timezone.utc)
_WRONG_TYPES: dict[str, pa.Array] = {
    "int64": pa.array([1, 2]),
    "double": pa.array([1.0, 2.0]),
    "bool": pa.array([True, False]),
    "list<element: string>": pa.array([["u"], ["v"]]),
    "struct<id: string>": pa.array([{"id": "u"}] * 2),
    "decimal128(5, 2)": pa.array([Decimal("1.00")] * 2, pa.decimal128(5, 2)),
    "date32[day]": pa.array([_NOW.date()] * 2, pa.date32()),
    "timestamp[us, tz=UTC]": pa.array([_NOW] * 2, pa.timestamp("us", "UTC")),
    "time64[us]": pa.array([1, 2], pa.time64("us")),
    "duration[s]": pa.array([1, 2], pa.duration("s")),
    "binary": pa.array([b"u", b"v"], pa.binary()),
    "fixed_size_binary[2]": pa.array([b"uu", b"vv"], pa.binary(2)),
    "map<string, int64>": pa.array([[("u", 1)]] * 2, pa.map_(pa.string(), pa.int64())),
    "int32": pa.array([1, 2], pa.int32()).dictionary_encode(),
    "halffloat": pa.array([1.0, 2.0], pa.float32()).cast(pa.float16()),
}
_FITTING = {"count": ("int64", "int32"), "timestamp": ("timestamp[us, tz=UTC]",)}


def _bad_utf8(values: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def _parquet_columns() -> Iterator[tuple[str, dict[str, pa.Array], str | Rows]]:
    for name in _FIELDS:
        for kind, values in _WRONG_TYPES.items():
            if kind not in _FITTING.get(name, ()):
                yield f"{name} is {kind}", {**_GOOD, name: values}, f"its column {name} is of type"
    for name, values in _GOOD.items():
        yield f"no {name}", {k: v for k, v in _GOOD.items() if k != name}, f"it has no column {name}"
        yield f"{name} twice", {**_GOOD, f"{name}#2": values}, f"it has the column {name} twice"
    yield "no column", {}, "it has no column user_id, page_id, action"
    yield "a row in a struct", {"row": pa.array([{"user_id": "u"}])}, "it has no column"
    yield "capitals", {name.upper(): values for name, values in _GOOD.items()}, "it has no column"
    none = pa.nulls(2)
    for name, reason in (("user_id", rules.NO_USER), ("page_id", rules.NO_PAGE), ("action", rules.BAD_ACTION)):
        yield f"{name} is nothing but nulls without a type", {**_GOOD, name: none}, Rows(0, {reason: 2})
        yield f"{name} is empty or null", {**_GOOD, name: pa.array(["", None])}, Rows(0, {reason: 2})
        coded = pa.array([None, ""]).dictionary_encode()
        yield f"{name} is empty or null, as codes", {**_GOOD, name: coded}, Rows(0, {reason: 2})
        yield (
            f"{name} is not UTF-8",
            {**_GOOD, name: _bad_utf8([b"\xff", b"\xed\xa0\x80"])},
            Rows(0, {rules.NOT_UTF8: 2}),
        )
    for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64()):
        yield f"counts of {kind} below 1", {**_GOOD, "count": pa.array([0, -1], kind)}, Rows(0, {rules.BAD_COUNT: 2})
    yield (
        "counts of uint64 beyond 2^63-1",
        {**_GOOD, "count": pa.array([2**63, 2**64 - 1], pa.uint64())},
        Rows(0, {rules.BAD_COUNT: 2}),
    )
    for unit in ("s", "ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Berlin", "+05:30", "Mars/Olympus"):
            moments = pa.array([_NOW, _LATER], pa.timestamp("s", "UTC")).cast(pa.timestamp(unit, "UTC"))
            times = moments.cast(pa.int64()).cast(pa.timestamp(unit, zone))
            yield f"timestamps[{unit}, {zone}]", {**_GOOD, "timestamp": times}, Rows(1, {rules.OTHER_MONTH: 1})
        ends = pa.array([-(2**63) + 1, 2**63 - 1], pa.int64()).cast(pa.timestamp(unit))
        if unit != "s":  # which Parquet does not have
            yield f"the ends of time[{unit}]", {**_GOOD, "timestamp": ends}, Rows(0, {rules.OTHER_MONTH: 2})
    for kind in (pa.large_string(), pa.string_view()):
        columns = {name: values.cast(kind) for name, values in _GOOD.items()}
        yield (
            f"texts of {kind}",
            {**columns, "timestamp": pa.array(["x", None], kind)},
            Rows(1, {rules.BAD_TIMESTAMP: 1}),
        )


def _layouts() -> Iterator[tuple[str, bytes, str | Rows]]:
    """Ways to lay out the same columns, and pages whose checksum shows that they were changed."""
    for encoding in ("PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        encoded = {**_GOOD, "gender": pa.array(["f", "m"])}
        kinds = dict.fromkeys(encoded, encoding)
        yield encoding, parquet(encoded, use_dictionary=False, column_encoding=kinds), Rows(2)
    # Nanoseconds of 64 bits come round to January 2024 584 years later.
    for moment, expected in ((_NOW, Rows(2)), (datetime(2608, 7, 24), Rows(0, {rules.OTHER_MONTH: 2}))):
        times = pa.array([moment.replace(tzinfo=None)] * 2, pa.timestamp("us"))
        old = parquet({**_GOOD, "timestamp": times}, use_deprecated_int96_timestamps=True)
        yield f"Spark's old timestamps of {moment.year}", old, expected
    for coded in (True, False):
        options = {"compression": "none", "write_statistics": False, "write_page_checksum": True}
        whole = parquet(_GOOD, use_dictionary=coded, **options)
        yield f"checksums, codes: {coded}", whole, Rows(2)
        changed = whole.replace(b"page_like", b"post_like", 1)
        yield f"a page that does not have its checksum, codes: {coded}", changed, "CRC checksum verification failed"


def raw_parquet() -> Iterator[BadInput]:
    """Parquet files: columns of all types, and files that are none."""
    for what, content, expected in _layouts():
        yield BadInput(f"parquet: {what}", "a.parquet", content, expected)
    for what, columns, expected in _parquet_columns():
        yield BadInput(f"parquet: {what}", "a.parquet", parquet(columns), expected)
    whole = parquet(_GOOD)
    damaged = {
        "an empty file": b"",
        "its first bytes": whole[:4],
        "its first and last bytes alone": b"PAR1PAR1",
        "cut in the middle": whole[: len(whole) // 2],
        "cut before its last bytes": whole[:-4],
        "without its first half": whole[len(whole) // 2 :],
        "a footer of no length": whole[:-8] + b"\0\0\0\0PAR1",
        "a footer of too great a length": whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        "a footer of a negative length": whole[:-8] + b"\xff\xff\xff\xffPAR1",
        "a footer of zeros": whole[:-100] + b"\0" * 92 + whole[-8:],
        "zeros between": whole[:4] + b"\0" * (len(whole) - 8) + whole[-4:],
        "an encrypted one": whole[:-4] + b"PARE",
        "bytes after it": whole + b"\n",
        "CSV": _TWO,
        "ORC": b"ORC" + b"\0" * 60,
        "Arrow's own format": b"ARROW1\0\0" + b"\0" * 60,
        "a gzip of one": gzip.compress(whole, mtime=0),
        "pages of zeros": b"PAR1" + b"\0" * 100 + whole[104:],
    }
    for what, content in damaged.items():
        yield BadInput(f"parquet: {what}", "a.parquet", content, "can't be read")
    yield BadInput("parquet: no rows", "a.parquet", parquet({k: v[:0] for k, v in _GOOD.items()}), Rows(0))


# --- what lies in a month's folder -----------------------------------------------------------------

_ENDINGS = (
    *("txt", "tsv", "json", "gz", "csv.gz", "parquet.gz", "jsonl.bz2", "jsonl.zst", "zip", "xlsx", "avro", "orc"),
    *("parquet.crc", "PARQUET", "CSV", "Jsonl", "ndjson", "csv~", "csv.bak", "csv.tmp", "jsonl.part", "csv ", "parq"),
)


def folder(path: Path) -> None:
    """A folder, as Spark writes one."""
    path.mkdir()
    (path / "part-0.parquet").write_bytes(b"")


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's whole path has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def in_folder() -> Iterator[BadInput]:
    """What is not a raw file, and names that are strange."""
    for ending in _ENDINGS:
        yield BadInput(f"ends in .{ending}", f"a.{ending}", _TWO, "raw data files end in .parquet")
    yield BadInput("has no ending", "data", _TWO, "raw data files end in .parquet")
    for name in ("a.csv", "a.parquet", "month=2024-01"):
        yield BadInput(f"a folder {name}", name, folder, "is a folder")
        yield BadInput(f"a broken link {name}", name, lambda path: path.symlink_to("gone"), "is a link to what does")
        yield BadInput(f"a link to itself {name}", name, loop, "is a link to what does not exist")
        yield BadInput(f"a pipe {name}", name, os.mkfifo, "is neither a file nor a folder")
    yield BadInput("a link to its own folder", "a.csv", lambda path: path.symlink_to("."), "is a folder")
    yield BadInput("a socket", "a.csv", _socket, "is neither a file nor a folder")
    yield BadInput("a name that is not UTF-8", os.fsdecode(b"\xff.csv"), _TWO, "name that is not UTF-8")
    for name in (
        "a\nb.csv",
        "\x1b[2J.csv",
        "\u202egnp.csv",
        "a b.csv",
        "-rf.csv",
        "*.csv",
        "a%2Fb.csv",
        "é.csv",
        "e\u0301.csv",
    ):
        yield BadInput(f"a name {name!a}", name, _TWO, Rows(2))
    for name in (".csv", "_a.csv", "._a.csv", "_SUCCESS"):
        yield BadInput(f"nothing but {name}", name, _TWO, "There is no raw data in")
