"""`audience-explorer report`: where the reports are, and an index of them."""

import os
import tempfile
import webbrowser
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.project import Project, errors_told, open_project, root_option, tell
from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from audience_explorer_dagster.partitions import Partition

_GOOD_FOR = timedelta(hours=1)  # of a link to S3


@click.command()
@click.option(
    "--month", metavar="YYYY-MM", shell_complete=complete_month, help="The month.  [default: the last with a report]"
)
@click.option(
    "--category",
    metavar="NAME",
    shell_complete=complete_category,
    help="The category.  [default: an index of all months and categories]",
)
@click.option("--label", metavar="NAME", help="Of the clusters with this label or folder, not of the current ones.")
@click.option("--private", is_flag=True, help="List private categories, too, in an index of its own.")
@click.option("--open", "in_browser", is_flag=True, help="Open it in a browser.")
@root_option
def report(
    month: str | None, category: str | None, label: str | None, private: bool, in_browser: bool, root: str
) -> None:
    """Say where the report of a category in a month is, or make an index of all reports.

    On S3 it prints a link that everybody may read who has it, for an hour. An index lists the reports of current
    clusters, and private categories only with --private; it is put beside them, as audience_report/index.html. Runs
    that make reports write it as well, but not that of private categories.
    """
    if category is None and (month is not None or label is not None):
        raise click.UsageError("Name the category, too: --category. Without it, an index of all is made.")
    with errors_told(), open_project(root) as project:
        if category is None:
            page = _make_index(project, private, in_browser)
        else:
            from audience_explorer_dagster.records.reports import page_of

            partition = _partition(project, month, category)
            page = _readable(page_of(project.instance, project.store, partition, label))
    click.echo(page)
    if in_browser and not webbrowser.open(page if "://" in page else Path(page).as_uri()):
        tell("No browser could be opened here.")


def _partition(project: Project, month: str | None, category: str) -> "Partition":
    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.records.reports import partitions_with_one
    from audience_explorer_dagster.running.pipeline import check_months

    if month is not None:
        return Partition(check_months([month])[0], category)
    with_one = [partition for partition in partitions_with_one(project.instance) if partition.category == category]
    if not with_one:
        raise InputError(f"There is no report of {category!r} on record. `audience-explorer runs` lists what there is.")
    return max(with_one, key=lambda partition: partition.month)


def _make_index(project: Project, private: bool, in_browser: bool) -> str:
    """Make the index; where it is."""
    from audience_explorer_dagster.reports.index import write_index
    from spark_jobs.audience_report.page import render_index

    index, listed = write_index(project.store, private)
    tell(f"{len(listed)} report{'s' * (len(listed) != 1)} in {index}")
    if not (in_browser and _is_on_s3(index)):
        return _readable(index)
    # Beside the reports, its links are read with the reader's own rights. A browser has none: it needs others.
    file, copy = tempfile.mkstemp(prefix="audience-reports-", suffix=".html")
    with os.fdopen(file, "w", encoding="utf-8") as written:
        written.write(render_index([replace(one, link=_readable(one.link)) for one in listed]))
    return copy


def _is_on_s3(location: str) -> bool:
    return location.startswith("s3://")


def _readable(location: str) -> str:
    """A location as a browser takes it: a file's path, or a link to S3 that expires."""
    if not _is_on_s3(location):
        return location
    from spark_jobs.storage import s3

    tell(f"a link that is good for {_GOOD_FOR.seconds // 3600} hour, to {location}")
    return s3.link_that_expires(location, _GOOD_FOR)
