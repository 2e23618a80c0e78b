"""`audience-explorer segments`: a category's segments, and what people say of them."""

import getpass
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from pydantic import ValidationError

from audience_explorer_dagster.cli.aws import AWSGroup
from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.project import json_option, root_option, tell
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.following.edits import (
    Edit,
    Merge,
    PinK,
    Rename,
    concerning,
    decisive,
    first_problem,
    read_edits,
    unknown_segments,
)
from spark_jobs.raw.months import list_months
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.store import Store

_ASSET = "segments"

_category = click.argument("category", shell_complete=complete_category)
_from_option = click.option(
    "--from",
    "from_month",
    metavar="YYYY-MM",
    shell_complete=complete_month,
    help="The first month that it holds for.  [default: all months]",
)


@click.group(cls=AWSGroup)
def segments() -> None:
    """The segments that are followed from month to month, and their edits.

    An edit is a line of ROOT/edits/CATEGORY.yaml, which may be changed by hand as well, and kept in git. It holds for
    all months, or from one on, and takes effect with the next run. A SEGMENT is given by its name or its id.
    """


@segments.command()
@_category
@click.option(
    "--month", metavar="YYYY-MM", shell_complete=complete_month, help="The month.  [default: the newest there is]"
)
@root_option
@json_option
def ls(category: str, month: str | None, root: str, as_json: bool) -> None:
    """List the segments of a category in a month."""
    store = _store(root)
    location = store.edits_file(category)
    followed = _followed(store, category, month)
    if followed is None:
        raise InputError(
            f"There are no followed segments of {category}{f' in {month}' if month else ''} in"
            f" {store.all_outputs(_ASSET)}."
        )
    fields = ("name", "people", "share", "born", "ended", "edited")
    rows = [{"id": row["segment_id"], **{field: row.get(field) for field in fields}} for row in followed.rows]
    if as_json:
        click.echo(json.dumps({"category": category, "month": followed.month, "segments": rows}, indent=1))
        return
    show: dict[str, Callable[[dict[str, Any]], str]] = {
        "id": lambda row: str(row["id"]),
        "name": lambda row: row["name"],
        "people": lambda row: "" if row["people"] is None else f"{row['people']:,}",
        "share": lambda row: "" if row["share"] is None else f"{row['share']:.0%}",
        "born": lambda row: row["born"],
        "ended": lambda row: row["ended"] or "",
        "edited": lambda row: ", ".join(row["edited"] or ()),
    }
    tell(f"{category} in {followed.month}:")
    click.echo(as_table(show, rows))
    if followed.applied != decisive(read_edits(location), followed.month):
        tell(f"The edits in {location} have changed since. To see them: {_pipeline(store, category)}")


@segments.command()
@_category
@click.argument("segment")
@click.argument("new_name")
@_from_option
@root_option
def rename(category: str, segment: str, new_name: str, from_month: str | None, root: str) -> None:
    """Give a segment another name, which it keeps."""
    store, said = _read(root, category)
    names = _names(store, category, said)
    number = _find(segment, names, category)
    edit = _made(Rename, segment=number, name=new_name, from_month=from_month)
    assert isinstance(edit, Rename)
    other = next((other for other, name in (names or {}).items() if name == edit.name and other != number), None)
    if other is not None:
        raise InputError(f"Segment {other} is called {edit.name!r} already. Give it another name first.")
    _add(store, category, edit)


@segments.command()
@_category
@click.argument("segment")
@click.argument("others", metavar="OTHER…", nargs=-1, required=True)
@_from_option
@root_option
def merge(category: str, segment: str, others: tuple[str, ...], from_month: str | None, root: str) -> None:
    """Make segments one: SEGMENT lives on, and the people of the others are its."""
    store, said = _read(root, category)
    names = _names(store, category, said)
    numbers = tuple(_find(each, names, category) for each in (segment, *others))
    _add(store, category, _made(Merge, segments=numbers, from_month=from_month))


@segments.command("pin-k")
@_category
@click.argument("k", type=click.IntRange(min=1))
@_from_option
@root_option
def pin_k(category: str, k: int, from_month: str | None, root: str) -> None:
    """Have k clusters, where a run gives no other k, instead of as many as k_selection chooses."""
    store, _ = _read(root, category)
    _add(store, category, _made(PinK, k=k, from_month=from_month))


@segments.command()
@_category
@click.option("--entry", type=click.IntRange(min=1), metavar="N", help="Which edit, as in `log`.  [default: the last]")
@root_option
def undo(category: str, entry: int | None, root: str) -> None:
    """Take an edit back: the last one, or another."""
    from audience_explorer_dagster import edits

    store = _store(root)
    number, edit = edits.undo(store.edits_file(category), entry)
    click.echo(f"Undone: edit {number}, {edit.in_words}. To see it: {_pipeline(store, category, edit.from_month)}")


@segments.command()
@_category
@root_option
def log(category: str, root: str) -> None:
    """List the edits of a category, the oldest first.

    The exit code is 1 if one names a segment that there never was.
    """
    store, said = _read(root, category)
    if not said:
        tell(f"there are no edits of {category} in {store.edits_file(category)}")
        return
    columns: dict[str, Callable[[tuple[int, Edit]], str]] = {
        "entry": lambda numbered: str(numbered[0]),
        "edit": lambda numbered: numbered[1].in_words,
        "by": lambda numbered: numbered[1].by or "",
        "at": lambda numbered: numbered[1].at or "",
    }
    click.echo(as_table(columns, enumerate(said, 1)))
    followed = _followed(store, category)
    waiting = [] if followed is None else unknown_segments(said, followed.month, followed.ids)
    for sentence in waiting:
        tell(sentence)
    sys.exit(bool(waiting))


# --- what the commands share -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Followed:
    """The current output of a month: its segments."""

    month: str
    rows: list[dict[str, Any]]  # of segments.json
    applied: list[dict[str, Any]]  # the edits that it was made with

    @property
    def ids(self) -> set[int]:
        return {row["segment_id"] for row in self.rows}


def _store(root: str) -> "Store":
    from audience_explorer_dagster.store import Store

    return Store(root=root)


def _read(root: str, category: str) -> "tuple[Store, tuple[Edit, ...]]":
    store = _store(root)
    return store, read_edits(store.edits_file(category))


def _months(store: "Store", category: str) -> list[str]:
    """The months of which there is a current output."""
    from audience_explorer_dagster.partitions import Partition

    months = list_months(store.all_outputs(_ASSET))
    return [month for month in months if store.current(_ASSET, Partition(month, category)) is not None]


def _followed(store: "Store", category: str, month: str | None = None) -> _Followed | None:
    """The segments of a month, or of the newest one; None if there are none."""
    from audience_explorer_dagster.partitions import Partition

    months = [month] if month is not None else list(reversed(_months(store, category)))
    for each in months:
        current = store.current(_ASSET, Partition(each, category))
        if current is not None:
            location = storage.join(current.folder, "segments.json")
            try:
                found = json.loads(storage.at(location).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(f"{location} can't be read: {error}. Run the pipeline again.") from None
            return _Followed(found["month"], found["segments"], found.get("edits", []))
    return None


def _names(store: "Store", category: str, said: Sequence[Edit]) -> dict[int, str] | None:
    """The living segments of the newest month by id, with the names that edits give them; None if there are none.

    Edits that the output was made without count as well: who renames twice before the next run means both.
    """
    followed = _followed(store, category)
    if followed is None:
        tell(f"No segments of {category} have been followed yet, so it is not checked whether there is such a segment.")
        return None
    names: dict[int, str] = {row["segment_id"]: row["name"] for row in followed.rows if row["ended"] is None}
    for edit in concerning(said, followed.month):
        if isinstance(edit, Rename) and edit.segment in names:
            names[edit.segment] = edit.name
        elif isinstance(edit, Merge) and edit.segments[0] in names:
            names = {number: name for number, name in names.items() if number not in edit.segments[1:]}
    return names


def _find(text: str, names: dict[int, str] | None, category: str) -> int:
    """The id of a segment, given by that or by its name, which comes first."""
    if names is None:
        if text.isdecimal():
            return int(text)
        raise InputError(f"No segments of {category} have been followed yet, so {text!r} is not known. Give an id.")
    by_text = {**{str(number): number for number in names}, **{name: number for number, name in names.items()}}
    if text not in by_text:
        listed = "".join(f"\n  {number} {name}" for number, name in names.items())
        raise InputError(f"There is no living segment {text!r} of {category}. There are:{listed}")
    return by_text[text]


def _made(kind: type[Rename] | type[Merge] | type[PinK], **fields: Any) -> Edit:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # one without a name, as in containers
        user = None
    try:
        return kind(**fields, by=user, at=datetime.now(timezone.utc).isoformat(timespec="seconds"))
    except ValidationError as error:
        raise InputError(f"{first_problem(error)}.") from None


def _add(store: "Store", category: str, edit: Edit) -> None:
    from audience_explorer_dagster import edits

    location = store.edits_file(category)
    edits.add(location, edit)
    click.echo(
        f"{category}: {edit.in_words}, as {location} says now. To see it: {_pipeline(store, category, edit.from_month)}"
    )


def _pipeline(store: "Store", category: str, from_month: str | None = None) -> str:
    """The command that makes the months again which an edit changes."""
    months = _months(store, category)
    first = from_month or (months[0] if months else None)
    last = max(first, months[-1]) if first and months else None
    root = click.get_current_context().params["root"]
    given = click.get_current_context().get_parameter_source("root") is ParameterSource.COMMANDLINE
    options = [
        *(("--from", first) if first else ()),
        *(("--to", last) if last else ()),
        *("--category", category),
        *(("--root", root) if given else ()),
    ]
    return f"`{shlex.join(('audience-explorer', 'pipeline', *options))}`"
