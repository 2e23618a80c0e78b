"""`audience-explorer segments`: a category's segments, and what people say of them."""

import getpass
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from pydantic import ValidationError

from audience_explorer_dagster.cli.aws import AWSGroup
from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.followed import ASSET, Followed, followed_months, read_followed
from audience_explorer_dagster.cli.project import json_option, root_option, say, tell
from spark_jobs.errors import InputError
from spark_jobs.following.edits import (
    Edit,
    Merge,
    PinK,
    Rename,
    concerning,
    decisive,
    first_problem,
    pinned_k,
    read_edits,
    unknown_segments,
)
from spark_jobs.terminal import as_table, visible

if TYPE_CHECKING:
    from audience_explorer_dagster.store import Store

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
            f" {store.all_outputs(ASSET)}."
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
        tell(f"The edits in {location} have changed since. {_to_see_it(store, category, read_edits(location))}")


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
    _add(store, category, edit, f"{_segments([number], names)} will be called “{edit.name}”")


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
    first, *rest = (_find(each, names, category) for each in (segment, *others))
    edit = _made(Merge, segments=(first, *rest), from_month=from_month)
    _add(
        store,
        category,
        edit,
        f"{_segments(rest, names)} will be merged into {_segments([first], names, 's').rstrip(',')}",
    )


@segments.command("pin-k")
@_category
@click.argument("k", type=click.IntRange(min=1))
@_from_option
@root_option
def pin_k(category: str, k: int, from_month: str | None, root: str) -> None:
    """Have k clusters, where a run gives no other k, instead of as many as k_selection chooses."""
    store, _ = _read(root, category)
    edit = _made(PinK, k=k, from_month=from_month)
    _add(store, category, edit, f"{category} will have k = {k} where a run gives no other k")


@segments.command()
@_category
@click.option("--entry", type=click.IntRange(min=1), metavar="N", help="Which edit, as in `log`.  [default: the last]")
@root_option
def undo(category: str, entry: int | None, root: str) -> None:
    """Take an edit back: the last one, or another."""
    from audience_explorer_dagster import edits

    store, said = _read(root, category)
    number, edit = edits.undo(store.edits_file(category), entry)
    left = (*said[: number - 1], *said[number:])
    say(f"Undone: {_undone(store, category, edit, said, left)}.")
    # Outputs say which renames and merges they were made with. With which pinned k, they do not.
    say(_to_see_it(store, category, left, edit if isinstance(edit, PinK) else None))


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


def _store(root: str) -> "Store":
    from audience_explorer_dagster.store import Store

    return Store(root=root)


def _read(root: str, category: str) -> "tuple[Store, tuple[Edit, ...]]":
    store = _store(root)
    return store, read_edits(store.edits_file(category))


def _followed(store: "Store", category: str, month: str | None = None) -> Followed | None:
    """The segments of a month, or of the newest one; None if there are none."""
    if month is None:
        month = next(reversed(followed_months(store, category)), None)
    return None if month is None else read_followed(store, category, month)


def _names(store: "Store", category: str, said: Sequence[Edit]) -> dict[int, str] | None:
    """The living segments of the newest month by id, with the names that edits give them; None if there are none.

    It is the edits of now that count, not those that the output was made with: who renames twice before the next run
    means both, and what was undone is so no more.
    """
    followed = _followed(store, category)
    if followed is None:
        tell(f"No segments of {category} have been followed yet, so it is not checked whether there is such a segment.")
        return None
    living = {row["segment_id"] for row in followed.living}
    names: dict[int, str] = {
        segment["id"]: segment["name"]
        for segment in followed.before_edits()
        if segment["ended"] is None or segment["id"] in living
    }
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
        listed = "".join(f"\n  {number} {visible(name)}" for number, name in names.items())
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


def _add(store: "Store", category: str, edit: Edit, what: str) -> None:
    from audience_explorer_dagster import edits

    location = store.edits_file(category)
    edits.add(location, edit)
    say(f"{what}{f' from {edit.from_month} on' if edit.from_month else ''}, as {location} says now.")
    say(_to_see_it(store, category, read_edits(location), edit))


def _segments(numbers: Sequence[int], names: dict[int, str] | None, s: str = "S") -> str:
    """Segments to a person, who knows names rather than ids; with a small s within a sentence."""
    known = names or {}
    # What follows a name is set off by a comma: names have some, too.
    listed = [f"{number}, “{known[number]}”," if number in known else str(number) for number in numbers]
    return f"{s}egment{'s' * (len(listed) > 1)} {' and '.join(listed)}"


def _undone(store: "Store", category: str, edit: Edit, said: Sequence[Edit], left: Sequence[Edit]) -> str:
    """What is so again without an edit, of all there were and all that are left."""
    followed = _followed(store, category)
    if isinstance(edit, PinK):
        month = edit.from_month or (followed.month if followed else "")
        k, again = pinned_k(left, month), "again" if pinned_k(said, month) != pinned_k(left, month) else "still"
        return f"{category} has {'the k that k_selection chooses' if k is None else f'k = {k}'} {again}"
    own = {segment["id"]: segment["name"] for segment in followed.before_edits()} if followed else {}
    month = followed.month if followed else ""
    before, after = ({**own, **_given_names(edits, month)} for edits in (said, left))
    if isinstance(edit, Merge):
        first, *rest = edit.segments
        return f"the merge of {_segments(rest, after, 's')} into {_segments([first], after, 's').rstrip(',')}"
    if edit.segment not in after:
        return f"segment {edit.segment} is no longer called “{edit.name}”"
    again = "again" if before[edit.segment] != after[edit.segment] else "still"
    return f"segment {edit.segment} is called “{after[edit.segment]}” {again}"


def _given_names(edits: Iterable[Edit], month: str) -> dict[int, str]:
    """The names that edits give to segments in a month."""
    return {edit.segment: edit.name for edit in concerning(edits, month) if isinstance(edit, Rename)}


def _to_see_it(store: "Store", category: str, said: Sequence[Edit], changed: Edit | None = None) -> str:
    """The commands that make the months again which edits change, and open the report.

    Args:
        store: Where outputs are.
        category: The category.
        said: All its edits.
        changed: One that was added or undone just now, whose months are made again in any case.
    """
    months = followed_months(store, category)
    waiting = [month for month in months if _waits(store, category, month, said)]
    if changed is not None:
        waiting += [changed.from_month] if changed.from_month else months[:1]
    if months and not waiting:
        return "No month was made with it, so there is nothing to run."
    root = click.get_current_context().params["root"]
    given = click.get_current_context().get_parameter_source("root") is ParameterSource.COMMANDLINE
    first = min(waiting, default=None)
    months_again = ("--from", first, "--to", max(first, months[-1] if months else first)) if first else ()
    of_category = ("--category", category, *(("--root", root) if given else ()))
    pipeline = shlex.join(("audience-explorer", "pipeline", *months_again, *of_category))
    report = shlex.join(("audience-explorer", "report", *of_category, "--open"))
    return f"To see it, with all edits that wait:\n  {pipeline}\n  {report}"


def _waits(store: "Store", category: str, month: str, said: Sequence[Edit]) -> bool:
    """Whether the current outputs of a month were made with other edits."""
    from audience_explorer_dagster.partitions import Partition
    from spark_jobs.outputs import read_manifest

    followed = read_followed(store, category, month)
    if followed is not None and followed.applied != decisive(said, month):
        return True
    k = pinned_k(said, month)
    clusters = None if k is None else store.current("kmeans", Partition(month, category))
    return clusters is not None and read_manifest(clusters.folder, "kmeans")["config"]["k"] != k
