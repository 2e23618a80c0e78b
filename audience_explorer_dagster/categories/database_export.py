"""Category files from a table of pages, which a database or a CSV file gives: what changes, and writing it."""

import csv
import difflib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from audience_explorer_dagster.categories.single_select import check_single_select
from spark_jobs import storage
from spark_jobs.errors import InputError, as_clause
from spark_jobs.vectors.category_files import (
    NOT_NETWORKS,
    BadCategory,
    check_name,
    list_category_files,
    page_lists,
    parse_category,
    read_content,
)

if TYPE_CHECKING:
    import sqlalchemy as sa

REQUIRED = ("category", "page_id", "page_name")
OPTIONAL = ("network", "category_id", "private")
NETWORK = "facebook"  # of pages of which no other is told

_TRUTHS = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
_TOLD = 20  # wrong rows, of what may be all of them

# By kind of database, what lets the transaction that it begins only read.
_ONLY_READ = {
    "sqlite": "PRAGMA query_only = ON",
    **dict.fromkeys(("postgresql", "cockroachdb", "mysql", "mariadb", "oracle"), "SET TRANSACTION READ ONLY"),
}


class BadRows(InputError):
    """Rows that can't become category files."""

    def __init__(self, problems: Sequence[str]):
        self.problems = problems
        more = [f"… and {len(problems) - _TOLD} more"] if len(problems) > _TOLD else []
        super().__init__("\n".join(["nothing is written:", *problems[:_TOLD], *more]))


# --- where rows come from --------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Rows of pages; an empty cell is None."""

    columns: tuple[str, ...]
    rows: list[tuple[str, tuple[Any, ...]]]  # where each is, such as `row 7`, and its cells

    def __post_init__(self) -> None:
        unknown = [name for name in self.columns if name not in (*REQUIRED, *OPTIONAL)]
        missing = [name for name in REQUIRED if name not in self.columns]
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        for which, names in {"is missing": missing, "is not known": unknown, "is there twice": twice}.items():
            if names:
                raise InputError(
                    f"The column {names[0]!r} {which}. Needed are {', '.join(REQUIRED)}; allowed are"
                    f" {', '.join(OPTIONAL)} as well; there are {', '.join(map(repr, self.columns)) or 'none'}."
                )
        if not self.rows:
            raise InputError("There is no row, so that there is nothing to write.")


def read_csv(location: str) -> Table:
    """The rows of a CSV file in UTF-8 with a line of column names.

    Raises:
        InputError: It can't be read, or has other columns.
    """
    try:
        text = storage.at(location).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{location} can't be read: {as_clause(error)}.") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        columns = tuple(next(lines, ()))
        for cells in lines:
            where = f"{location} line {lines.line_num}"
            if len(cells) != len(columns) and cells:
                raise InputError(f"{where} has {len(cells)} cells, but there are {len(columns)} columns.")
            if cells:
                rows.append((where, tuple(map(_from_csv, columns, cells))))
    except csv.Error as error:
        raise InputError(f"{location} line {lines.line_num} is no CSV: {as_clause(error)}.") from None
    return Table(columns, rows)


def _from_csv(column: str, cell: str) -> str | int | None:
    # A category's id is a number in its file, mostly; a page's is always a string.
    if column == "category_id" and re.fullmatch(r"0|-?[1-9]\d*", cell, re.ASCII):
        return int(cell)
    return cell or None


def read_query(address: str, query: str) -> Table:
    """The rows that a query gives. The password in the address is shown to nobody.

    The query is a single SELECT, and is run by a connection that can't write, where the database has such connections.

    Args:
        address: An URL of SQLAlchemy's.
        query: In the database's own SQL; nothing in it is taken for a parameter.

    Raises:
        InputError: The query is not a single SELECT, or the database can't be reached, refuses it, or gives other
            columns.
    """
    import sqlalchemy as sa

    check_single_select(query)
    url = _parse_url(address)
    try:
        engine = sa.create_engine(_read_only(url), poolclass=sa.NullPool)
    except sa.exc.NoSuchModuleError:
        raise InputError(f"{url.drivername}:// is no kind of database that SQLAlchemy knows.") from None
    except ModuleNotFoundError as error:
        raise InputError(
            f"{url.drivername}:// needs the Python package {error.name}, which is not installed. Install it, or name"
            " another driver, as in postgresql+psycopg2://…"
        ) from None
    try:
        # Never committed, so that a database that knows no read-only transaction keeps nothing either.
        with engine.connect().execution_options(no_parameters=True) as connection:
            if only_read := _ONLY_READ.get(url.get_backend_name()):
                connection.exec_driver_sql(only_read)
            result = connection.exec_driver_sql(query)
            if not result.returns_rows:
                raise InputError("The query gives no rows: a SELECT is needed.")
            columns, rows = tuple(result.keys()), [tuple(row) for row in result]
    except sa.exc.SQLAlchemyError as error:
        why = " ".join(str(getattr(error, "orig", None) or error).split())
        if url.password:
            why = why.replace(url.password, "***")
        raise InputError(f"{_told_url(url)}: {why}") from None
    return Table(columns, [(f"row {number}", row) for number, row in enumerate(rows, 1)])


def _parse_url(address: str) -> "sa.URL":
    import sqlalchemy as sa

    try:
        url = sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):  # whose message may hold a part of the password
        raise InputError(
            "The database's address is no URL of SQLAlchemy's, such as postgresql+psycopg2://user@host/database."
        ) from None
    if "@" in (url.host or ""):
        raise InputError("The database's address has two '@': write one in a password as %40.")
    return url


def _told_url(url: "sa.URL") -> str:
    """The URL as anybody may see it: a password may also be among the options behind the '?'."""
    return url.set(query={}).render_as_string(hide_password=True)


def _read_only(url: "sa.URL") -> "sa.URL":
    """For SQLite, an URL that neither makes a missing file nor writes to one."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith(":memory:"):
        return url
    if url.query.get("mode") == "memory":
        return url
    # An address that begins with `file:` is already SQLite's own, whose mode may be another.
    database = url.database if url.database.startswith("file:") else f"file:{quote(url.database)}"
    return url.set(database=database, query={**url.query, "mode": "ro", "uri": "true"})


# --- what rows say of categories -------------------------------------------------------------------


@dataclass
class Told:
    """What rows say of one category; None is what they do not say."""

    name: str
    where: str  # the first of its rows
    id: int | str | None = None
    private: bool | None = None
    pages: dict[str, dict[str, str | None]] = field(default_factory=dict)  # names by network and page id


def collect(table: Table) -> dict[str, Told]:
    """What the rows say, by category.

    Raises:
        BadRows: Some break a rule of the contract, or contradict each other.
    """
    told: dict[str, Told] = {}
    seen: dict[tuple[str, ...], tuple[str, Any]] = {}  # where something was said first, and what
    problems = []
    for where, cells in table.rows:
        try:
            _add(told, seen, where, dict(zip(table.columns, cells, strict=True)))
        except InputError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise BadRows(problems)
    return told


def _add(
    told: dict[str, Told], seen: dict[tuple[str, ...], tuple[str, Any]], where: str, row: Mapping[str, Any]
) -> None:
    name = check_name(_text(row, "category") or "")
    page = _text(row, "page_id")
    if not page:
        raise InputError("page_id is empty.")
    network = _text(row, "network") or NETWORK
    if network in NOT_NETWORKS:
        raise InputError(f"network is {network!r}, which means something else in a category file.")
    category = told.setdefault(name, Told(name, where))
    for column, value in {"category_id": _plain(row, "category_id"), "private": _flag(row)}.items():
        if value is not None:
            before, first = seen.setdefault((name, column), (where, value))
            if value != first:
                raise InputError(f"{column} of {name!r} is {value!r}, but {first!r} in {before}.")
            setattr(category, column.removeprefix("category_"), value)
    before, _ = seen.setdefault((name, "page", page), (where, None))
    if before != where:
        raise InputError(f"page {page!r} of {name!r} is listed twice, the first time in {before}.")
    category.pages.setdefault(network, {})[page] = _text(row, "page_name")


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = _plain(row, column)
    return None if value is None else str(value)  # databases also keep ids of pages as numbers


def _plain(row: Mapping[str, Any], column: str) -> int | str | None:
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    if isinstance(value, UUID):
        return str(value)
    raise InputError(f"{column} is {value!r}; it must be text or a whole number.")


def _flag(row: Mapping[str, Any]) -> bool | None:
    value = row.get("private")
    if value is None:
        return None
    try:
        return _TRUTHS[str(value).lower()]
    except KeyError:
        raise InputError(f"private is {value!r}; it must be true or false.") from None


# --- what changes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A category file to be written; texts are in the one layout that is written."""

    name: str
    location: str
    before: str | None
    after: str

    @property
    def diff(self) -> Iterator[str]:
        """The lines of a unified diff of the contents, whatever the layout of the present file is."""
        before = [] if self.before is None else self.before.splitlines()
        source = "/dev/null" if self.before is None else self.location
        return difflib.unified_diff(before, self.after.splitlines(), source, self.location, lineterm="", n=2)

    def write(self) -> None:
        """Write the file.

        Raises:
            InputError: It was changed meanwhile, or can't be written.
        """
        if storage.at(self.location).exists():
            found = _content_or_error(self.location)
            now = None if isinstance(found, BadCategory) else _as_text(found)
        else:
            now = None
        if now != self.before:
            raise InputError(f"{self.location} was changed since the diff was made. Export again.")
        try:
            storage.write_text(self.location, self.after)
        except OSError as error:
            raise InputError(f"{self.location} can't be written: {as_clause(error)}.") from None


@dataclass(frozen=True)
class Plan:
    """What an export comes to."""

    changes: list[Change]
    unchanged: list[str]
    absent: list[str]  # files of which no row tells


def plan(folder: str, table: Table) -> Plan:
    """What would change in a folder of category files.

    Pages that stay keep their places, and new ones come after them, in the order of their ids, so that dimensions and
    fingerprints change with the pages only. What the rows do not say of a file stays: its id, name, `private`, any
    other key, what more is known of a page; and, if they have no column `network`, pages of other networks. A new
    category without an id gets the smallest free number.

    Raises:
        BadRows: The rows, or what would become of them, break a rule of the contract.
    """
    told = collect(table)
    files = list_category_files(folder)
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(files, pool.map(_content_or_error, files.values()), strict=True))
    before = {name: content for name, content in found.items() if not isinstance(content, BadCategory)}
    after = {
        name: _merge(before.get(name, {}), told[name], every_network="network" in table.columns)
        for name in sorted(told)
    }
    ids = {name: content["id"] for name, content in {**before, **after}.items() if "id" in content}
    problems = [str(found[name]) for name in after if name in found and name not in before]
    unread = [name for name in found if name not in before and name not in after]
    if unread and not after.keys() <= ids.keys():
        problems.append(f"Which ids are free can't be told: {found[unread[0]]} Mend it, or give a category_id.")
    for name in [name for name in after if name not in ids]:
        ids[name] = next(number for number in count() if number not in ids.values())
        after[name] = {"id": ids[name], **after[name]}
    for name, content in after.items():
        problems += _problems(told[name], content, ids)
    if problems:
        raise BadRows(problems)
    changes = []
    for name, content in after.items():
        old = _as_text(before[name]) if name in before else None
        if old != _as_text(content):
            changes.append(Change(name, files.get(name, storage.join(folder, f"{name}.json")), old, _as_text(content)))
    changed = {change.name for change in changes}
    return Plan(
        changes,
        unchanged=[name for name in files if name in told and name not in changed],
        absent=[name for name in files if name not in told],
    )


def _content_or_error(location: str) -> dict[str, Any] | BadCategory:
    try:
        content = read_content(location)
    except BadCategory as error:
        return error
    return content if isinstance(content, dict) else BadCategory(f"{location} must hold a JSON object.")


def _merge(before: dict[str, Any], told: Told, every_network: bool) -> dict[str, Any]:
    """A file's content with what was told; without an id, if none is known."""
    lists = page_lists(before)
    gone = set(lists) - set(told.pages) if every_network else set()
    after: dict[str, Any] = {} if told.id is None else {"id": told.id}
    after |= {key: value for key, value in before.items() if key not in gone and key not in after}
    if told.private is not None and told.private != after.get("private", False):
        after["private"] = told.private
    for network, names in sorted(told.pages.items()):
        listed = {entry["id"]: entry for entry in lists.get(network, []) if _has_id(entry)}
        after[network] = [
            {**listed.get(page, {}), "id": page, **({} if names[page] is None else {"name": names[page]})}
            for page in [*(page for page in listed if page in names), *sorted(names.keys() - listed.keys())]
        ]
    return after


def _has_id(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), str)


def _problems(told: Told, content: dict[str, Any], ids: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a content from being written."""
    twins = [name for name, taken in ids.items() if name != told.name and told.id is not None and taken == told.id]
    if twins:
        yield f"{told.where}: category_id of {told.name!r} is {told.id!r}, as that of {twins[0]!r}."
    try:
        parse_category(told.name, content)
    except BadCategory as error:
        yield from (f"{told.name}: {problem}" for problem in error.problems)


def _as_text(content: Mapping[str, Any]) -> str:
    """The text of a category file, a page a line, so that a diff shows pages."""
    entries = ",\n".join(f" {_as_json(key)}: {_as_lines(value)}" for key, value in content.items())
    return f"{{\n{entries}\n}}\n"


def _as_lines(value: Any) -> str:
    if not isinstance(value, list):
        return _as_json(value)
    return "[\n" + ",\n".join(f"  {_as_json(item)}" for item in value) + "\n ]"


def _as_json(value: Any) -> str:
    """JSON that people can read, with escapes for what a terminal or UTF-8 has no place for."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
