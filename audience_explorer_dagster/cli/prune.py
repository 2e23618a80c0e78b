"""`audience-explorer prune`: deletes outputs that nothing needs any more."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.deleting import days_ago, deletion_options, refuse_while_runs_go_on
from audience_explorer_dagster.cli.project import errors_told, open_project, tell
from spark_jobs.terminal import as_age, as_size, as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.records.unneeded import Unneeded


@click.command()
@deletion_options("outputs that were last made or reused")
def prune(days: int, root: str, yes: bool, as_json: bool) -> None:
    """List outputs that nothing needs any more; with --yes, delete them.

    These are superseded ones, those that no record points at, and those that a killed job left unfinished. Kept is
    what is current, promoted or labelled, each partition's newest, what is younger, and whatever these were made from.

    A pipeline that goes back to a pruned output computes it again.
    """
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.records.unneeded import delete, find_unneeded

        found = find_unneeded(project.instance, project.store, days_ago(days))
        if yes:
            refuse_while_runs_go_on(project)
            for output in found:
                delete(output)
    if as_json:
        click.echo(json.dumps([_facts(output) for output in found], indent=1))
    elif found:
        click.echo(_as_table(found, project.store.root))
    size = as_size(sum(output.bytes for output in found))
    told = f"{len(found)} outputs, {size}" if found else f"no output is older than {days} days and not needed"
    if found:
        told = f"deleted {told}" if yes else f"{told}; nothing is deleted yet. To delete them: --yes"
    tell(told)


def _facts(output: "Unneeded") -> dict[str, Any]:
    return {
        "asset": output.asset,
        "partition": output.partition.key,
        "folder": output.folder,
        "bytes": output.bytes,
        "modified": output.modified.isoformat(timespec="seconds"),
        "why": output.why,
    }


def _as_table(found: "Sequence[Unneeded]", root: str) -> str:
    columns: dict[str, Callable[[Unneeded], str]] = {
        "asset": lambda o: o.asset,
        "partition": lambda o: o.partition.key,
        "why": lambda o: o.why,
        "age": lambda o: as_age(o.modified),
        "size": lambda o: as_size(o.bytes),
        f"folder below {root}": lambda o: o.folder.removeprefix(root).lstrip("/"),
    }
    return as_table(columns, found)
