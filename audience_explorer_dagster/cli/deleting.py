"""What the commands that delete have in common: their options, and that they wait for the end of runs."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import click

from audience_explorer_dagster.cli.project import Project, json_option, root_option, yes_option
from spark_jobs.errors import InputError


def deletion_options(only: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options --older-than (`days`), --root, --yes and --json; `only` says what an age is meant of."""
    options = (
        click.option(
            "--older-than",
            "days",
            default=30,
            show_default=True,
            type=click.IntRange(min=1),
            metavar="DAYS",
            help=f"Only {only} before that.",
        ),
        root_option,
        yes_option,
        json_option,
    )

    def add_to(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add_to


def days_ago(days: int) -> datetime:
    """The time so many days before now, UTC."""
    return datetime.now(timezone.utc) - timedelta(days=days)


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
