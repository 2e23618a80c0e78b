"""`audience-explorer prune`: deletes outputs that nothing needs any more."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.project import (
    Project,
    errors_told,
    json_option,
    open_project,
    root_option,
    tell,
    yes_option,
)
from spark_jobs.errors import InputError
from spark_jobs.terminal import as_age, as_size, as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.records.unneeded import Unneeded


@click.command()
@click.option(
    "--older-than",
    "days",
    default=30,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="DAYS",
    help="Only outputs that were last made or reused before that.",
)
@root_option
@yes_option
@json_option
def prune(days: int, root: str, yes: bool, as_json: bool) -> None:
    """List outputs that nothing needs any more; with --yes, delete them.

    These are superseded ones, those that no record points at, and those that a killed job left unfinished. Kept is
    what is current, promoted or labelled, each partition's newest, what is younger, and whatever these were made from.

    A pipeline that goes back to a pruned output computes it again.
    """
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.records.unneeded import delete, find_unneeded

        found = find_unneeded(project.instance, project.store, datetime.now(timezone.utc) - timedelta(days=days))
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


def refuse_while_runs_go_on(project: Project) -> None:
    """Check that no run goes on, which may have planned to read what would be deleted.

    Raises:
        InputError: One does.
    """
    import dagster as dg

    statuses = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    going_on = project.instance.get_runs(dg.RunsFilter(statuses=statuses))
    if going_on:
        names = ", ".join(run.run_id[:8] for run in going_on)
        raise InputError(
            f"Nothing is deleted while runs go on, for they may read it: {names}. Wait for their end; one that was"
            " killed ends when you terminate it in the UI."
        )


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
