"""Bad category files, kept; and some that look bad and are not, with the number of their pages."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

from tests.bad_inputs import BadInput, Rows, folder, loop

_PAGE = {"id": "p", "name": "P"}
_GOOD = {"id": 0, "facebook": [_PAGE]}
_TEXT = json.dumps(_GOOD)

_CONTENTS: dict[str, tuple[Any, str | Rows]] = {
    "a list": ([_GOOD], "it must hold a JSON object"),
    "a string": ("coffee", "it must hold a JSON object"),
    "a number": (7, "it must hold a JSON object"),
    "null": (None, "it must hold a JSON object"),
    "nothing in it": ({}, "it has no 'id'"),
    "no id": ({"facebook": [_PAGE]}, "it has no 'id'"),
    "an Id": ({"Id": 0, "facebook": [_PAGE]}, "it has no 'id'"),
    "no list": ({"id": 0}, "it has no list of pages"),
    "an empty list": ({"id": 0, "facebook": []}, "its list 'facebook' is empty"),
    "a second list that is empty": ({**_GOOD, "x": []}, "its list 'x' is empty"),
    "a network of text": ({"id": 0, "facebook": "p"}, "'facebook' is \"p\"; it must be a list"),
    "a network that is null": ({"id": 0, "facebook": None}, "'facebook' is null; it must be a list"),
    "a network that is true": ({"id": 0, "facebook": True}, "'facebook' is true; it must be a list"),
    "a network of one page": ({"id": 0, "facebook": _PAGE}, "'facebook' is an object; it must be a list"),
    "a second network that is an object": ({**_GOOD, "x": {"p": "P"}}, "'x' is an object; it must be a list"),
    "ids alone": ({"id": 0, "facebook": ["p"]}, "facebook[0] has no 'id'"),
    "numbers alone": ({"id": 0, "facebook": [7]}, "facebook[0] has no 'id'"),
    "a null": ({"id": 0, "facebook": [_PAGE, None]}, "facebook[1] has no 'id'"),
    "lists within": ({"id": 0, "facebook": [[_PAGE]]}, "facebook[0] has no 'id'"),
    "an empty page": ({"id": 0, "facebook": [{}]}, "facebook[0] has no 'id'"),
    "an empty id": ({"id": 0, "facebook": [{"id": ""}]}, "facebook[0] has no 'id'"),
    "half a surrogate pair as id of the category": ({**_GOOD, "id": "\ud800"}, "half a surrogate pair"),
    "half a surrogate pair in a key": ({**_GOOD, "\udfff": [_PAGE]}, "half a surrogate pair"),
    "half a surrogate pair as a name": ({**_GOOD, "name": "a\ud800"}, "it must be a string"),
    "half a surrogate pair as a page's id": ({"id": 0, "facebook": [{"id": "\ud800"}]}, "facebook[0] has no 'id'"),
    "half a surrogate pair as a page's name": (
        {"id": 0, "facebook": [{"id": "p", "name": "\udc00"}]},
        "facebook[0] has a 'name' that is not a string",
    ),
    "a page twice": ({"id": 0, "facebook": [_PAGE, _PAGE]}, "page 'p' is listed twice, the second time as facebook[1]"),
    "a page in two networks": ({**_GOOD, "x": [_PAGE]}, "page 'p' is listed twice, the second time as x[0]"),
    "private as text": ({**_GOOD, "private": "true"}, "'private' is 'true'"),
    "private as a number": ({**_GOOD, "private": 1}, "'private' is 1"),
    "private as null": ({**_GOOD, "private": None}, "'private' is None"),
    "private as a list": ({**_GOOD, "private": [True]}, "'private' is [True]"),
    "a name that is a number": ({**_GOOD, "name": 7}, "'name' is 7"),
    "a name that is null": ({**_GOOD, "name": None}, "'name' is None"),
    "pages that normalization makes one": ({"id": 0, "facebook": [{"id": "é"}, {"id": "e\u0301"}]}, Rows(2)),
    "pages that capitals make one": ({"id": 0, "facebook": [{"id": "ß"}, {"id": "SS"}, {"id": "ss"}]}, Rows(3)),
    "an id that is null": ({**_GOOD, "id": None}, Rows(1)),
    "an id that is a list": ({**_GOOD, "id": [1, {"a": 2}]}, Rows(1)),
    "a remark": ({**_GOOD, "note": "why", "year": 2024}, Rows(1)),
    "a network without a name": ({"id": 0, "": [_PAGE]}, Rows(1)),
    "a page that no line can show": ({"id": 0, "facebook": [{"id": "\0\u202e\n\x1b[2J"}]}, Rows(1)),
    "a long id": ({"id": 0, "facebook": [{"id": "x" * 100_000}]}, Rows(1)),
    "many pages": ({"id": 0, "facebook": [{"id": str(number)} for number in range(20_000)]}, Rows(20_000)),
}
for _wrong in (7, 1.5, True, None, [], {}):
    _CONTENTS[f"a page's id that is {_wrong!r}"] = ({"id": 0, "facebook": [{"id": _wrong}]}, "facebook[0] has no 'id'")
    _CONTENTS[f"a page's name that is {_wrong!r}"] = (
        {"id": 0, "facebook": [{"id": "p", "name": _wrong}]},
        "facebook[0] has a 'name' that is not a string",
    )

_TEXTS: dict[str, tuple[bytes, str | Rows]] = {
    "an empty file": (b"", "is not JSON"),
    "a space": (b" ", "is not JSON"),
    "cut off": (_TEXT[:-5].encode(), "is not JSON"),
    "two objects": ((_TEXT + _TEXT).encode(), "is not JSON"),
    "a comma too many": (_TEXT[:-1].encode() + b",}", "is not JSON"),
    "a comment": (b"// coffee\n" + _TEXT.encode(), "is not JSON"),
    "single quotes": (_TEXT.replace('"', "'").encode(), "is not JSON"),
    "YAML": (b"id: 0\nfacebook:\n- id: p\n", "is not JSON"),
    "CSV": (b"id,name\np,P\n", "is not JSON"),
    "a gzip": (gzip.compress(_TEXT.encode(), mtime=0), "is not JSON"),
    "bytes of no kind": (bytes(range(256)), "is not JSON"),
    "NULs": (b"\0" * 8, "is not JSON"),
    "latin-1": ('{"id": 0, "facebook": [{"id": "é"}]}'.encode("latin-1"), "is not JSON"),
    "an overlong slash": (b'{"id": 0, "facebook": [{"id": "\xc0\xaf"}]}', "is not JSON"),
    "half a surrogate pair in UTF-8": (b'{"id": 0, "facebook": [{"id": "\xed\xa0\x80"}]}', "is not JSON"),
    "half a surrogate pair in UTF-16": (_TEXT.encode("utf-16-le").replace(b"p\0", b"\0\xd8"), "is not JSON"),
    "NaN": (b'{"id": NaN, "facebook": [{"id": "p"}]}', "NaN is not a JSON value"),
    "Infinity": (b'{"id": -Infinity, "facebook": [{"id": "p"}]}', "-Infinity is not a JSON value"),
    "a number of 10,000 digits": (b'{"id": ' + b"1" * 10_000 + b', "facebook": [{"id": "p"}]}', "is not JSON"),
    "a number beyond floats": (b'{"id": 1e999, "facebook": [{"id": "p"}]}', "1e999 is too large"),
    "deep lists": (b"[" * 100_000, "nested deeper than 100 levels"),
    "deep lists that end": (b'{"id": 0, "facebook": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    "deep objects": (b'{"a":' * 100_000, "nested deeper than 100 levels"),
    "101 levels": (b'{"id": ' + b"[" * 101 + b"]" * 101 + b', "facebook": [{"id": "p"}]}', "nested deeper"),
    "a network twice": (
        b'{"id": 0, "facebook": [{"id": "p"}], "facebook": [{"id": "q"}]}',
        "'facebook' is there twice",
    ),
    "an id twice": (b'{"id": 0, "id": 1, "facebook": [{"id": "p"}]}', "the key 'id' is there twice"),
    "a page's id twice": (b'{"id": 0, "facebook": [{"id": "p", "id": "q"}]}', "the key 'id' is there twice"),
    "a key twice, once escaped": (b'{"id": 0, "\\u0069d": 1, "facebook": [{"id": "p"}]}', "'id' is there twice"),
    "a tab within a string": (b'{"id": 0, "facebook": [{"id": "a\tb"}]}', "is not JSON"),
    "two byte order marks": (b"\xef\xbb\xbf\xef\xbb\xbf" + _TEXT.encode(), "is not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf" + _TEXT.encode(), Rows(1)),
    "UTF-16": (_TEXT.encode("utf-16"), Rows(1)),
    "UTF-32": (_TEXT.encode("utf-32"), Rows(1)),
    "CR between tokens": (_TEXT.replace(" ", "\r").encode(), Rows(1)),
    "a pair of surrogates, escaped": (b'{"id": 0, "facebook": [{"id": "\\ud83d\\ude00"}]}', Rows(1)),
}

_NAMES = (
    *("a b", "é", "a|b", "a..b", "x" * 65, "~a", "a\nb", "\x1b[2J", "\u202ea", "a\\b"),
    *("$HOME", "a;b", "a'b", "a=b", "a,b", "a:b", "*", "%41", "a\u0301", "{category}", " ", "a ", "#a", "@a"),
)


def categories() -> Iterator[BadInput]:
    """All of them. A name that no category may have is that of a file that is fine."""
    for what, (content, expected) in _CONTENTS.items():
        yield BadInput(what, "coffee.json", json.dumps(content).encode(), expected)
    for what, (text, expected) in _TEXTS.items():
        yield BadInput(what, "coffee.json", text, expected)
    for name in _NAMES:
        yield BadInput(f"the name {name!a}", f"{name}.json", _TEXT.encode(), "can't be a category's name")
    for name in ("A.b-c_1", "0", "-", "x" * 64):
        yield BadInput(f"the name {name}", f"{name}.json", _TEXT.encode(), Rows(1))
    yield BadInput("a folder", "coffee.json", folder, "can't be read: ")
    yield BadInput("a broken link", "coffee.json", lambda path: path.symlink_to("gone"), "does not exist")
    yield BadInput("a link to itself", "coffee.json", loop, "can't be read: ")
