"""`audience-explorer home` and `adopt`: where the records of a root are, and records of outputs that have none."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from audience_explorer_dagster.cli.dagster_home import home_of, make_home
from audience_explorer_dagster.cli.project import errors_told, open_project, root_option, tell
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.records.adoption import Found, Unrecorded


@click.command()
@root_option
def home(root: str) -> None:
    """Make the folder in which Dagster keeps the records of the root, unless it is there, and print its path.

    It is $DAGSTER_HOME, if that is set. For Dagster's own commands: export DAGSTER_HOME=$(audience-explorer home)
    """
    click.echo(make_home(home_of(root)))


@click.command()
@root_option
@click.option("--dry-run", is_flag=True, help="List the outputs that would be put on record, and do nothing.")
def adopt(root: str, dry_run: bool) -> None:
    """Put the outputs of the root on record that have no record here, by their manifests; nothing is computed.

    For a root that was copied, or whose records were lost. What current.json names stays current, and what was promoted
    stays so. An output without a whole manifest, or with a file that is gone, is named and left out.
    """
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.categories.known import sync_categories
        from audience_explorer_dagster.records import adoption

        found = adoption.find(project.instance, project.store)
        for problem in found.left_out:
            tell(f"left out: {problem}")
        if dry_run:
            click.echo(_as_table(found))
        else:
            sync_categories(project.instance, project.store)
            adoption.put_on_record(project.instance, project.store, found.missing)
    done = "to be put on record" if dry_run else "put on record"
    click.echo(f"{len(found.missing)} {done}, {found.on_record} on record already, {len(found.left_out)} left out")


def _as_table(found: "Found") -> str:
    columns: dict[str, Callable[[Unrecorded], str]] = {
        "partition": lambda u: u.target.partition.key,
        "asset": lambda u: u.target.asset,
        "made (UTC)": lambda u: f"{u.made_at:%Y-%m-%d %H:%M}",
        "folder": lambda u: u.folder,
    }
    return f"{as_table(columns, found.missing)}\n" if found.missing else ""
