"""`audience-explorer gc`: deletes what killed processes left, and what no record points at."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.aws import REGIONS, region_option_of
from audience_explorer_dagster.cli.deleting import days_ago, deletion_options, refuse_while_runs_go_on
from audience_explorer_dagster.cli.launch import launches_option
from audience_explorer_dagster.cli.project import errors_told, open_project, tell
from spark_jobs.launch.aws import client, launches_of_root
from spark_jobs.terminal import as_age, as_size, as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.records.garbage import Garbage


@click.command()
@deletion_options("what was last written to")
@launches_option
@region_option_of(REGIONS.values())
def gc(days: int, root: str, location: str | None, region: str | None, yes: bool, as_json: bool) -> None:
    """List what killed processes left and what no record points at; with --yes, delete it.

    These are unfinished outputs, outputs that no record here and no current.json names, temporary files, unfinished
    uploads on S3, and the messages and logs of launches whose run is over. Outputs on record are kept; for those that
    nothing needs any more, there is `prune`. Raw data, category files and edits are never touched.

    The exit code is 0, also if there is nothing; 2 if nothing was deleted because runs go on, or because these are not
    the records of the root.
    """
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.launchers.launch_store import LaunchStore
        from audience_explorer_dagster.records.garbage import delete_garbage, find_garbage

        location = location or launches_of_root()  # of --root, which is the environment's now
        launches = None if location is None else LaunchStore(client("s3", region), location)
        before = days_ago(days)
        found = find_garbage(project.instance, project.store, launches, before)
        if yes:
            refuse_while_runs_go_on(project)
            for garbage in found:
                delete_garbage(garbage, launches)
    if as_json:
        click.echo(json.dumps([_facts(garbage) for garbage in found], indent=1))
    elif found:
        click.echo(_as_table(found))
    _tell_sum(found, days, yes)


def _tell_sum(found: "Sequence[Garbage]", days: int, deleted: bool) -> None:
    if not found:
        tell(f"nothing is left over that is older than {days} days")
        return
    kinds = ", ".join(f"{number} × {kind}" for kind, number in Counter(garbage.kind for garbage in found).items())
    size = as_size(sum(garbage.bytes or 0 for garbage in found))
    tell(
        f"deleted: {kinds}; {size}"
        if deleted
        else f"{kinds}; {size}; nothing is deleted yet. To delete all of it: --yes"
    )


def _facts(garbage: "Garbage") -> dict[str, Any]:
    return {
        "kind": garbage.kind,
        "location": garbage.location,
        "bytes": garbage.bytes,
        "modified": garbage.modified.isoformat(timespec="seconds"),
    }


def _as_table(found: "Sequence[Garbage]") -> str:
    columns: dict[str, Callable[[Garbage], str]] = {
        "what": lambda g: g.kind,
        "age": lambda g: as_age(g.modified),
        "size": lambda g: "" if g.bytes is None else as_size(g.bytes),
        "where": lambda g: g.location,
    }
    return as_table(columns, found)
