"""Generated months, grouped users and categories: all that the contract allows, and much that it does not.

Hypothesis draws texts, moments, sizes and a seed. Rows are put together from those by the seed, for it takes hundreds
to fill an engine's tasks, and a job costs the same for one row as for hundreds.
"""

import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.reference import ACTIONS, LARGEST_COUNT, Row, Time, User, broken_rules, rows_of

# --- texts -----------------------------------------------------------------------------------------

# What trips up engines, file formats, sorting and paths.
AWKWARD = [
    *("\0", "a\0b", "é", "e\u0301", "ß", "SS", "ı", "I", "İ", "i", "שלום", "\u202eabc", "👩‍👩‍👧‍👦", "😀"),
    *("\uffff", "\U00010000", "\U0010ffff", "\ufeffa", "\ufffd", "\u2028", "\x85", "\x7f", "\t", " ", " a", "a ", "a"),
    *('"', '""', "'", 'a"b', "a,b", "a\nb", "a\r\nb", "a\rb", "\r", "\n", "\\", "\\N", "\\u0041", "`", ";", "--"),
    *(
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "{category}",
        "../x",
        "/",
        "s3://b/k",
        "month=2024-01",
        "a=b",
        "%20",
        "#",
        "~",
        "$HOME",
    ),
    *("null", "None", "NaN", "true", "0", "-0", "00", "1", "01", "1e5", "__HIVE_DEFAULT_PARTITION__", "x" * 5000),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
GENDERS = ("0", "1", "2", "f", "é", "♀", " ")
FILE_NAMES = ("a", "b [1]", "b *?", "{a,b}", "é😀", "#%20", "month=2024-01", "x" * 100, "' ; $HOME \"", "c\nd", "~")


def texts(most_awkward: int, most_drawn: int) -> st.SearchStrategy[list[str]]:
    """Some of the awkward texts and some drawn ones, each once."""
    return st.builds(
        lambda awkward, drawn: list(dict.fromkeys(awkward + drawn)),
        st.lists(st.sampled_from(AWKWARD), min_size=most_awkward // 2, max_size=most_awkward, unique=True),
        st.lists(TEXT, max_size=most_drawn),
    )


SEEDS = st.integers(0, 2**32 - 1).map(Random)


# --- a month of raw actions ------------------------------------------------------------------------

_MONTHS = {"2024-02": 29, "2023-12": 31, "1999-01": 31}  # and their days
_COUNTS = {
    "small": (None, 1, 2, 3),
    "large": (1, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1),  # the last two are one as floats
}
_NONSENSE: dict[str, dict[str, tuple[Any, ...]]] = {  # by field, and the formats that can hold it
    "user_id": {"jsonl csv parquet": (None, ""), "jsonl": (7, ["a"], {})},
    "page_id": {"jsonl csv parquet": (None, ""), "jsonl": (0.5, False)},
    "action": {"jsonl csv parquet": (None, "", "page_poke", "PAGE_LIKE", "page_like ", "0"), "jsonl": (1,)},
    "gender": {"jsonl": (1, [], True)},
    "count": {
        "jsonl csv parquet": (0, -3, -(2**63)),
        "jsonl csv": (2**63, 10**30, 1.5, "many", " 3", "+3", "1_000", "٣", "0x10", "1e3"),
        "jsonl": (True, "7", "", [1], 2.0),
    },
    "timestamp": {
        "jsonl csv parquet": tuple(
            Time(text, None)
            for text in ("yesterday", "2024-02-30", "2024-13-01T00:00:00Z", "20240205T000000Z", "2024-W01-1", "1", " ")
        ),
        "jsonl": (1704067200, Time("", None)),
    },
}
_BROKEN_JSON = {
    b'{"user_id": "u", ': "line is no JSON object",
    b"[1]": "line is no JSON object",
    b"null": "line is no JSON object",
    b"{}{}": "line is no JSON object",
    b'{"user_id": "\xff", "page_id": "p", "action": "page_like"}': "line is not UTF-8",
    b'{"user_id": "u", "page_id": "p", "action": "page_like", "gender": "\\ud800"}': "line is not UTF-8",
}
_BROKEN_CSV = {
    b"u,p": "line is no record with as many fields as the header",
    b",,,,,,,,,": "line is no record with as many fields as the header",
    b"\xff,p,page_like": "line is not UTF-8",
}


@dataclass(frozen=True)
class Month:
    """A month's raw files, and what is in them."""

    key: str
    files: Mapping[str, bytes]  # by name
    rows: Sequence[tuple[str, int, Row]]  # file, line, and the row that is there
    broken: Sequence[tuple[str, int, str]]  # file, and line that is no row, with the reason

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(f"Month({self.key}: {len(self.rows)} rows, {len(self.broken)} broken, in {list(self.files)})")

    def write(self, folder: Path) -> Path:
        """Write the raw files below a folder, and give the month's."""
        place = folder / f"month={self.key}"
        place.mkdir(parents=True)
        for name, content in self.files.items():
            (place / name).write_bytes(content)
        return place

    @property
    def accepted(self) -> list[Row]:
        """The rows that break no rule."""
        return [row for _, _, row in self.rows if not broken_rules(row, self.key)]

    @property
    def rejects(self) -> dict[tuple[str, int], set[str]]:
        """By file and line the reasons for which a row may be rejected."""
        reasons = {(name, line): broken_rules(row, self.key) for name, line, row in self.rows}
        reasons |= {(name, line): {reason} for name, line, reason in self.broken}
        return {place: of_place for place, of_place in reasons.items() if of_place}


@dataclass
class _File:
    """A raw file in the making."""

    name: str
    kind: str  # jsonl, csv or parquet
    fields: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)


@st.composite
def months(draw: st.DrawFn) -> Month:
    """A month: up to 6 files of all formats, any of them empty, with up to 400 rows together."""
    key = draw(st.sampled_from(list(_MONTHS)))
    random = draw(SEEDS)
    users, pages = draw(texts(14, 10)), draw(texts(8, 5))
    genders = [None, "", *random.sample(GENDERS, 4)]
    counts = _COUNTS[draw(st.sampled_from(["small", "small", "large"]))]
    times = draw(st.lists(_times(key), max_size=12))
    size = draw(st.sampled_from([60, 400, 7, 1, 0]))
    share_of_nonsense = draw(st.sampled_from([0.05, 0, 0.3]))
    files = [
        _file(random, name) for name in draw(st.lists(st.sampled_from(FILE_NAMES), min_size=1, max_size=6, unique=True))
    ]
    for _ in range(size):
        file = random.choice(files)
        row: dict[str, Any] = {
            "user_id": random.choice(users),
            "page_id": random.choice(pages),
            "action": random.choice(ACTIONS),
            "gender": random.choice(genders),
            "count": random.choice(counts),
            "timestamp": random.choice([None, None, *times]),
        }
        if random.random() < share_of_nonsense:
            name = random.choice(file.fields)
            known = [value for kinds, values in _NONSENSE[name].items() if file.kind in kinds for value in values]
            row[name] = random.choice(known or [row[name]])
        row = {name: row[name] for name in file.fields}
        if file.kind == "jsonl":  # a line can lack what another has
            row = {name: value for name, value in row.items() if value is not None or random.random() < 0.5}
        file.rows.append(row)
    if draw(st.sampled_from([False, False, True])):
        _fill_up(files, key)
    contents, rows, broken = {}, [], []
    for file in files:
        name = file.name
        if file.kind == "parquet":
            contents[name] = _parquet(random, file)
            rows += [(name, number, row) for number, row in enumerate(file.rows, 1)]
            continue
        text, lines, bad = (_json_lines if file.kind == "jsonl" else _csv)(random, file, share_of_nonsense)
        contents[name] = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
        rows += [(name, number, row) for number, row in zip(lines, file.rows, strict=True)]
        broken += [(name, number, reason) for number, reason in bad]
    return Month(key, contents, rows, broken)


def _times(key: str) -> st.SearchStrategy[Time]:
    """Moments in the month and about its ends, in all the ways in which they can be written."""
    start = datetime.strptime(key, "%Y-%m").replace(tzinfo=timezone.utc)
    end = start + timedelta(days=_MONTHS[key])
    second = timedelta(seconds=1)
    moments = st.one_of(
        st.sampled_from([start, end - second]),
        st.datetimes(start.replace(tzinfo=None), (end - second).replace(tzinfo=None)).map(
            lambda moment: moment.replace(microsecond=0, tzinfo=timezone.utc)
        ),
        st.sampled_from([start - second, end, start - timedelta(days=366)]),
    )
    return st.builds(
        _written,
        moments,
        st.sampled_from([0, 60, -60, 330, -570, 840]),
        st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "+0000", "+00"]),
        st.sampled_from(["T", "t", " "]),
        st.sampled_from(["", ".1", ",999999999"]),
    )


def _written(moment: datetime, offset: int, zulu: str, between: str, fraction: str) -> Time:
    local = (moment + timedelta(minutes=offset)).replace(tzinfo=None)
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else zulu
    return Time(local.isoformat(between) + fraction + zone, moment)


def _file(random: Random, name: str) -> _File:
    ending = random.choice(("jsonl", "jsonl.gz", "csv", "parquet"))
    optional = random.choice(([], ["gender"], ["count", "timestamp"], ["gender", "count", "timestamp"]))
    fields = ["user_id", "page_id", "action", *optional]
    random.shuffle(fields)
    return _File(f"{name}.{ending}", ending.removesuffix(".gz"), fields)


def _fill_up(files: Sequence[_File], key: str) -> None:
    """Make the counts of the month add up to the largest number of 64 bits."""
    good = [row for file in files for row in file.rows if "count" in file.fields and not broken_rules(row, key)]
    if good:
        total = sum(row.get("count") or 1 for file in files for row in file.rows if not broken_rules(row, key))
        good[-1]["count"] = (good[-1].get("count") or 1) + LARGEST_COUNT - total


def _json_lines(random: Random, file: _File, noise: float) -> tuple[bytes, list[int], list[tuple[int, str]]]:
    """The text, the line of each row, and the lines that hold none."""
    text, ascii_only = _Text(random), random.random() < 0.5
    for row in file.rows:
        text.add_noise(noise, _BROKEN_JSON)
        written = {name: value.text if isinstance(value, Time) else value for name, value in row.items()}
        if random.random() < 0.1:
            written["note"] = random.choice([None, 1.5, {"user_id": "other"}, ["\n"]])
        names = list(written)
        random.shuffle(names)
        text.add_row(json.dumps({name: written[name] for name in names}, ensure_ascii=ascii_only).encode())
    text.add_noise(noise, _BROKEN_JSON)
    return text.ended(), text.lines, text.broken


def _csv(random: Random, file: _File, noise: float) -> tuple[bytes, list[int], list[tuple[int, str]]]:
    text, always_quoted = _Text(random), random.random() < 0.3

    def quoted(value: Any) -> str:
        plain = "" if value is None else value.text if isinstance(value, Time) else str(value)
        if always_quoted or set(plain) & set('",\r\n'):
            return '"' + plain.replace('"', '""') + '"'
        return plain

    def record(values: Sequence[Any]) -> bytes:
        return ",".join(map(quoted, values)).encode()

    columns = [*file.fields, *random.choice([[], ["note"]])]
    text.add_row(record(columns))
    for row in file.rows:
        text.add_noise(noise, _BROKEN_CSV)
        text.add_row(record([row.get(name, "a note") for name in columns]))
    text.add_noise(noise, _BROKEN_CSV)
    return text.ended(), text.lines[1:], text.broken


_LINE_END = re.compile(rb"\r\n|\r|\n")


class _Text:
    """A text file in the making, which knows on which line it is."""

    def __init__(self, random: Random):
        self._random = random
        self._bytes = b"\xef\xbb\xbf" if random.random() < 0.2 else b""
        self._end = random.choice([b"\n", b"\n", b"\r\n"])
        self.lines: list[int] = []
        self.broken: list[tuple[int, str]] = []

    def add_row(self, row: bytes) -> None:
        self.lines.append(self._line())
        self._bytes += row + self._end

    def add_noise(self, share: float, broken: Mapping[bytes, str]) -> None:
        """Perhaps a line that is broken, perhaps an empty one, which is no row."""
        if self._random.random() < share / 3:
            line = self._random.choice(list(broken))
            self.broken.append((self._line(), broken[line]))
            self._bytes += line + self._end
        if self._random.random() < share / 3:
            self._bytes += self._end

    def _line(self) -> int:
        """The number of the next line. A line ends with LF, CRLF or CR, within quotes as well."""
        return len(_LINE_END.findall(self._bytes)) + 1

    def ended(self) -> bytes:
        """All of it, perhaps without an end of the last line."""
        return self._bytes.removesuffix(self._random.choice([b"", self._end]))


def _parquet(random: Random, file: _File) -> bytes:
    columns = {}
    for name in file.fields:
        values = [row[name] for row in file.rows]
        if name == "count":
            columns[name] = pa.array(values, pa.int64())
        elif name == "timestamp" and all(value is None or value.moment for value in values) and random.random() < 0.7:
            kind = pa.timestamp(random.choice(["s", "us", "ns"]), random.choice([None, "UTC", "Europe/Berlin"]))
            columns[name] = pa.array([value and value.moment for value in values], pa.timestamp("s", "UTC")).cast(
                pa.timestamp("s", kind.tz) if kind.tz else pa.timestamp("s")
            ).cast(kind)  # fmt: skip
        else:
            texts = [value.text if isinstance(value, Time) else value for value in values]
            kind = random.choice([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
            columns[name] = pa.array(texts, pa.string()).cast(kind) if any(texts) else pa.array(texts, pa.string())
    content = io.BytesIO()
    pq.write_table(
        pa.table(columns),
        content,
        compression=random.choice(["zstd", "snappy", "none"]),
        row_group_size=random.choice([3, 1000]),
    )
    return content.getvalue()


# --- scalings --------------------------------------------------------------------------------------


def scalings() -> st.SearchStrategy[str]:
    """Steps that may stand together, in any order that is allowed, as people write them."""
    log1p, last = st.sampled_from([[], ["log1p"], ["loglog"]]), st.sampled_from([[], [], ["max"]])
    middle = st.sampled_from([[], ["idf"], ["l2"], ["tfidf"], ["idf", "l2"], ["l2", "idf"]])
    chains = st.builds(lambda *parts: [step for part in parts for step in part] or ["none"], log1p, middle, last)
    return st.builds(lambda comma, steps: comma.join(steps), st.sampled_from([",", ", "]), chains)


# --- grouped users and categories ------------------------------------------------------------------

_PAGE = pa.struct([("page_id", pa.string()), *((action, pa.int64()) for action in ACTIONS)])
GROUPED_USERS = pa.schema([("user_id", pa.string()), ("gender", pa.string()), ("pages", pa.list_(_PAGE))])

_LARGEST = {"few": 1, "small": 3, "medium": 1000, "large": 2**40, "largest": LARGEST_COUNT}


@dataclass(frozen=True)
class Population:
    """A month's grouped users in files, and categories of pages."""

    users: Mapping[str, User]
    files: Mapping[str, bytes]  # by name
    categories: Mapping[str, Any]  # what their files hold, by name
    well_conditioned: bool  # values are of one order of magnitude, so that floats give scores to many digits

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(f"Population({len(self.users)} users in {list(self.files)}; categories {self.categories})")

    def write(self, folder: Path) -> tuple[Path, list[Path]]:
        """Write the users and the categories below a folder; give the users' folder and the categories' files."""
        users, categories = folder / "users", folder / "categories"
        users.mkdir(parents=True)
        categories.mkdir()
        for name, content in self.files.items():
            (users / name).write_bytes(content)
        for name, category in self.categories.items():
            (categories / f"{name}.json").write_text(json.dumps(category), encoding="utf-8")
        return users, [categories / f"{name}.json" for name in self.categories]


@st.composite
def populations(draw: st.DrawFn, users: int = 60) -> Population:
    """Up to so many users, on pages that several categories may have, or none; entries may be 0."""
    random = draw(SEEDS)
    names, pages = draw(texts(30, 30)), draw(texts(6, 6))
    names = list(dict.fromkeys(names + [f"{name}{n}" for n in range(users) for name in names]))
    size = draw(st.sampled_from([users, users, users // 2, users // 3, 2, 1, 0]))
    counts = draw(st.sampled_from(["few", "small", *_LARGEST]))
    people = {
        name: User(random.choice(GENDERS), _pages(random, pages, _LARGEST[counts]))
        for name in random.sample(names, min(size, len(names)))
    }
    files = _split(people, draw(st.integers(1, 4)), random)
    write = draw(st.sampled_from([_users_parquet, _users_json_lines]))
    contents = dict(write(random, number, part) for number, part in enumerate(files))
    categories = {
        name: _category(random, [*pages, "page of nobody"])
        for name in random.sample(("a", "B", "a.b-1_2", "0", "a_", "-", "x" * 64), draw(st.integers(1, 4)))
    }
    categories["nobody"] = {"id": None, "none": [{"id": "page of nobody", "name": "😀"}]}
    return Population(people, contents, categories, counts in ("few", "small", "medium"))


@st.composite
def audiences(draw: st.DrawFn) -> Population:
    """Some hundred users of one to three tastes, each with pages of its own; one user may be very loud."""
    random = draw(SEEDS)
    tastes = draw(st.sampled_from([3, 3, 2, 1]))
    names = list(dict.fromkeys(draw(texts(10, 5)) + [f"page {number}" for number in range(15)]))
    common, own = names[:3], [names[3 + 4 * taste : 7 + 4 * taste] for taste in range(tastes)]
    people: dict[str, User] = {}
    for number in range(draw(st.sampled_from([160, 160, 55]))):
        user = people.setdefault(f"{random.choice(AWKWARD)}{number}", User(random.choice(GENDERS)))
        liked = random.choice(own)
        for _ in range(random.choice([1, 8, 10, 14, 18])):
            page = user.pages.setdefault(random.choice(liked if random.random() < 0.9 else common), {})
            page[random.choice(ACTIONS)] = random.choice([1, 1, 1, 1, 20])
    for user in people.values():
        user.pages = {
            page: {action: counts.get(action, 0) for action in ACTIONS} for page, counts in user.pages.items()
        }
    loud = draw(st.booleans())
    if loud:
        people[random.choice(list(people))].pages[common[0]] = {**dict.fromkeys(ACTIONS, 0), "post_comment": 2**40}
    of_tastes = [*common, *(page for pages in own for page in pages)]
    categories = {
        "all": {"id": 0, "facebook": [{"id": page} for page in of_tastes]},
        "some": _category(random, of_tastes),
    }
    contents = dict(_users_parquet(random, number, part) for number, part in enumerate(_split(people, 2, random)))
    return Population(people, contents, categories, not loud)


def spread(users: Mapping[str, User], parts: int, pages: Sequence[str]) -> Population:
    """These users over so many Parquet files, the first of which has one of them, and a category of these pages."""
    names = list(users)
    files = [{names[0]: users[names[0]]}] if parts > 1 else []
    rest = names[len(files) :]
    files += [{name: users[name] for name in rest[place :: parts - len(files)]} for place in range(parts - len(files))]
    contents = dict(_users_parquet(Random(0), number, part) for number, part in enumerate(files))
    return Population(users, contents, {"x": {"id": 0, "facebook": [{"id": page} for page in pages]}}, True)


def _pages(random: Random, pages: Sequence[str], largest: int) -> dict[str, dict[str, int]]:
    on = random.sample(pages, min(len(pages), random.choice([0, 1, 1, 2, 3, 5])))
    return {page: {action: max(0, random.randint(-largest, largest)) for action in ACTIONS} for page in on}


def _category(random: Random, pages: Sequence[str]) -> dict[str, Any]:
    listed = random.sample(pages, random.randint(1, len(pages)))
    cut = random.randint(1, len(listed))
    networks = {"facebook": listed[:cut], "יוטיוב": listed[cut:]}
    content: dict[str, Any] = {
        name: [{"id": page, **random.choice([{}, {"name": f"{page} 😀"}])} for page in of_network]
        for name, of_network in networks.items()
        if of_network
    }
    return {"id": random.choice([0, "é", None]), **random.choice([{}, {"private": True, "name": "☕"}]), **content}


def _split(users: Mapping[str, User], parts: int, random: Random) -> list[dict[str, User]]:
    files: list[dict[str, User]] = [{} for _ in range(parts)]
    for name in sorted(users):
        random.choice(files)[name] = users[name]
    return files


def _users_parquet(random: Random, number: int, users: Mapping[str, User]) -> tuple[str, bytes]:
    content = io.BytesIO()
    table = pa.Table.from_pylist(rows_of(users), GROUPED_USERS)
    pq.write_table(table, content, row_group_size=random.choice([2, 7, 1000]))
    return f"part-{number} [a]*.parquet", content.getvalue()


def _users_json_lines(random: Random, number: int, users: Mapping[str, User]) -> tuple[str, bytes]:
    """The predecessor's layout. An entry of 0 on a page is one in any of its maps."""
    lines = []
    for name, user in users.items():
        maps: dict[str, dict[str, int]] = {action: {} for action in ACTIONS}
        for page, counts in user.pages.items():
            kept = random.choice(ACTIONS)
            for action, count in counts.items():
                if count or action == kept:
                    maps[action][page] = count
        known = {"gender": user.gender} if user.gender != "0" else random.choice([{}, {"gender": ""}])
        filled = {action: entries for action, entries in maps.items() if entries or random.random() < 0.5}
        lines.append(json.dumps({"user_id": name, **known, **filled}, ensure_ascii=random.random() < 0.5))
        lines += [""] * (random.random() < 0.1)
    text = "".join(line + "\n" for line in lines).encode()
    if random.random() < 0.5:
        return f"{number}.jsonl", text
    return f"{number}.jsonl.gz", gzip.compress(text, mtime=0)
