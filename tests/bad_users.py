"""Bad grouped users of other programs, kept: all of them are refused by name."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from spark_jobs.config import ACTIONS
from tests.bad_inputs import BadInput, Rows, parquet, raw_file
from tests.generated import GROUPED_USERS

_USER = {"user_id": "u", "page_like": {"p": 1}}
_ROW = {"user_id": "u", "gender": "0", "pages": [{"page_id": "p", **dict.fromkeys(ACTIONS, 1)}]}

_JSON_USERS: dict[str, tuple[Any, str]] = {
    "a raw action": ({"user_id": "u", "page_id": "p", "action": "page_like"}, "it holds raw actions, not grouped"),
    "a list": ([_USER], "it is not a JSON object"),
    "null": (None, "it is not a JSON object"),
    "no user": ({"page_like": {"p": 1}}, "user_id and gender must be strings"),
    "an empty user": ({**_USER, "user_id": ""}, "user_id or a page's id is empty"),
    "an empty page": ({**_USER, "page_like": {"": 1}}, "user_id or a page's id is empty"),
    "a list of pages": ({**_USER, "page_like": ["p"]}, "page_like is not an object"),
    **{
        f"pages that are {pages!r}": ({**_USER, "post_like": pages}, "post_like is not an object")
        for pages in (7, 0, False, "", [])
    },
    "half a surrogate pair as user": ({**_USER, "user_id": "\ud800"}, r"'\ud800' has half a surrogate pair"),
    "half a surrogate pair as page": ({**_USER, "page_like": {"\udc00": 1}}, r"'\udc00' has half a surrogate pair"),
    "half a surrogate pair as gender": ({**_USER, "gender": "\udc00"}, r"'\udc00' has half a surrogate pair"),
    **{
        f"a count that is {count!r}": ({**_USER, "post_comment": {"p": count}}, "post_comment of 'p' is ")
        for count in (-1, 1.5, 1.0, True, None, "1", [], {}, 2**63, -(2**63), float("nan"), float("inf"))
    },
    **{
        f"a user that is {user!r}": ({**_USER, "user_id": user}, "user_id and gender must be strings")
        for user in (None, 7, 1.5, True, ["u"], {})
    },
    **{
        f"a gender that is {gender!r}": ({**_USER, "gender": gender}, "user_id and gender must be strings")
        for gender in (7, True, ["f"], {"a": 1})
    },
}
_JSON_LINES: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"user_id": "u"', "line 2 can't be read"),
    "two users on a line": (json.dumps(_USER).encode() * 2, "line 2 can't be read: Extra data"),
    "not UTF-8": (b'{"user_id": "\xff"}', "line 2 can't be read"),
    "a page twice": (b'{"user_id": "u", "page_like": {"p": 1, "p": 2}}', "a key is there twice"),
    "an action twice": (b'{"user_id": "u", "page_like": {"p": 1}, "page_like": {}}', "a key is there twice"),
    "deep": (b"[" * 100_000, "nested too deep"),
    "a long number": (b'{"user_id": "u", "page_like": {"p": ' + b"1" * 5000 + b"}}", "line 2 can't be read"),
}


def _rows(**change: Any) -> bytes:
    """A Parquet file of a user, and of one with a change of columns or, for names of the page's, of its one page."""
    columns = {name: value for name, value in change.items() if name in _ROW}
    page = {**_ROW["pages"][0], **{name: value for name, value in change.items() if name not in _ROW}}  # type: ignore[dict-item]
    second = {**_ROW, "user_id": "v", "pages": [page], **columns}
    return _file(pa.Table.from_pylist([_ROW, second], GROUPED_USERS))


def _file(table: pa.Table, **options: Any) -> bytes:
    return parquet(dict(zip(table.schema.names, table.columns, strict=True)), **options)


def _encoded(encoding: str) -> bytes:
    """A file of a user whose texts are in this encoding."""
    texts = dict.fromkeys(("user_id", "gender", "pages.list.element.page_id"), encoding)
    return _file(pa.Table.from_pylist([_ROW], GROUPED_USERS), use_dictionary=False, column_encoding=texts)


def _damaged() -> bytes:
    """A file whose user is not the one that its page's checksum was made of."""
    user = pa.Table.from_pylist([{**_ROW, "user_id": "somebody"}], GROUPED_USERS)
    return _file(user, compression="none", write_page_checksum=True).replace(b"somebody", b"nobodies")


def _bad_rows() -> Iterator[tuple[str, bytes, str]]:
    for name in ("user_id", "gender"):
        yield f"{name} is null", _rows(**{name: None}), f"row 2 can't be read: its {name} is missing"
        yield f"{name} is empty", _rows(**{name: ""}), f"row 2 can't be read: its {name} is empty"
    yield "pages are null", _rows(pages=None), "row 2 can't be read: its pages are missing"
    yield "a page is null", _rows(pages=[None]), "row 2 can't be read: one of its pages is missing"
    yield "a page_id is null", _rows(page_id=None), "row 2 can't be read: the page_id of one of its pages is missing"
    yield "a page_id is empty", _rows(page_id=""), "row 2 can't be read: the page_id of one of its pages is empty"
    for action in ACTIONS:
        yield f"{action} is null", _rows(**{action: None}), f"row 2 can't be read: its {action} on one"
        yield f"{action} is negative", _rows(**{action: -1}), f"row 2 can't be read: its {action} on one"
    yield "the smallest count", _rows(post_like=-(2**63)), "row 2 can't be read: its post_like on one"
    page = {"page_id": "q", **dict.fromkeys(ACTIONS, 0)}
    twice = _rows(pages=[page, {**page, "page_id": "a"}, page])
    yield "a page is listed twice", twice, "row 2 can't be read: one of its pages is listed twice"
    beside = _rows(pages=[page, page])
    yield (
        "a page is listed twice, one beside the other",
        beside,
        "row 2 can't be read: one of its pages is listed twice",
    )
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    table = pa.Table.from_pylist([_ROW], GROUPED_USERS)
    yield "a user that is not UTF-8", _file(table.set_column(0, "user_id", bad)), "can't be read"


def _bad_columns() -> Iterator[tuple[str, bytes, str]]:
    table = pa.Table.from_pylist([_ROW], GROUPED_USERS)
    for name in table.schema.names:
        yield f"no {name}", _file(table.drop_columns([name])), f"it has no column {name}"
    for name, kinds in {"user_id": [pa.int64(), pa.binary(), pa.bool_()], "gender": [pa.int8(), pa.float64()]}.items():
        for kind in kinds:
            column = table.schema.get_field_index(name)
            yield (
                f"{name} is {kind}",
                _file(table.set_column(column, name, pa.nulls(1, kind))),
                f"its column {name} is of",
            )
    page: dict[str, Any] = _ROW["pages"][0]  # type: ignore[assignment,index]
    pages = {
        "one page": page,
        "text": "p",
        "ids": ["p"],
        "a list of lists": [[page]],
        "a map": None,
        "pages without post_like": [{name: value for name, value in page.items() if name != "post_like"}],
        "pages with more": [{**page, "share": 1}],
        "counts as texts": [{**page, "page_like": "1"}],
        "counts as floats": [{**page, "page_like": 1.0}],
        "counts as truth": [{**page, "page_like": True}],
        "ids as numbers": [{**page, "page_id": 1}],
    }
    for what, value in pages.items():
        column = pa.array([value]) if value is not None else pa.array([[("p", 1)]], pa.map_(pa.string(), pa.int64()))
        yield f"pages are {what}", _file(table.set_column(2, "pages", column)), "its column pages is of type"
    raw = {"user_id": pa.array(["u"]), "page_id": pa.array(["p"]), "action": pa.array(["page_like"])}
    yield "raw actions", parquet(raw), "it holds raw actions, not grouped users"
    more = {**raw, "gender": pa.array(["0"]), "count": pa.array([1])}
    yield "raw actions with all columns", parquet(more), "it holds raw actions, not grouped users"
    unsigned = pa.list_(pa.struct([("page_id", pa.string()), *((action, pa.uint64()) for action in ACTIONS)]))
    large = pa.array([[{**page, **dict.fromkeys(ACTIONS, 2**64 - 1)}]], unsigned)
    yield "counts beyond 64 bits", _file(table.set_column(2, "pages", large)), "can't be read"


def users() -> Iterator[BadInput]:
    """All of them."""
    good = json.dumps(_USER).encode()
    lines = {what: (json.dumps(user).encode(), f"line 2 can't be read: {says}")
             for what, (user, says) in _JSON_USERS.items()} | _JSON_LINES  # fmt: skip
    for what, (line, says) in lines.items():
        yield BadInput(f"jsonl: {what}", "users.jsonl", good + b"\n" + line + b"\n", says)
    for what, content, says in (*_bad_rows(), *_bad_columns()):
        yield BadInput(f"parquet: {what}", "users.parquet", content, says)
    whole = _rows()
    yield BadInput("parquet: cut off", "users.parquet", whole[:-9], "can't be read")
    yield BadInput("parquet: empty", "users.parquet", b"", "can't be read")
    yield BadInput("jsonl: Parquet", "users.jsonl", whole, "line 1 can't be read")
    yield BadInput("gzip: cut off", "users.jsonl.gz", gzip.compress(good, mtime=0)[:-9], "can't be read: ")
    yield BadInput("gzip: text", "users.jsonl.gz", good, "Not a gzipped file")
    yield BadInput("CSV", "users.csv", raw_file(), "must hold grouped users as .parquet, or as .jsonl")
    yield BadInput("jsonl: a user twice", "users.jsonl", (good + b"\n") * 2, "User 'u' is listed twice")
    yield BadInput("parquet: none", "users.parquet", _file(GROUPED_USERS.empty_table()), Rows(0))
    yield BadInput("parquet: a damaged page", "users.parquet", _damaged(), "CRC checksum verification failed")
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        yield BadInput(f"parquet: {encoding}", "users.parquet", _encoded(encoding), Rows(1))
    yield BadInput("parquet: fine", "users.parquet", whole, Rows(2))
