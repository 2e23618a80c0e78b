"""`audience-explorer categories`: the category files, and the partitions that are made of them."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from audience_explorer_dagster.categories import database_export
from audience_explorer_dagster.cli.aws import AWSGroup
from audience_explorer_dagster.cli.completion import complete_category
from audience_explorer_dagster.cli.project import (
    Project,
    ask,
    json_option,
    open_project,
    root_option,
    say,
    tell,
    yes_option,
)
from spark_jobs.errors import InputError
from spark_jobs.terminal import as_table, visible
from spark_jobs.vectors.category_files import (
    BadCategory,
    Category,
    Page,
    category_folder,
    list_category_files,
    read_category,
)

_DATABASE = "AUDIENCE_EXPLORER_DATABASE"
_COLORS = {"+": "green", "-": "red", "@": "cyan"}


@click.group(cls=AWSGroup)
def categories() -> None:
    """The categories, each a file of named pages."""


@categories.command()
@root_option
@json_option
def ls(root: str, as_json: bool) -> None:
    """List the categories, files and partitions.

    A category becomes a partition by `sync`, by any pipeline, and by a sensor while the daemon runs. It stays one when
    its file is removed.
    """
    with open_project(root) as project:
        listed = _look(project)
        folder = project.store.categories
    if as_json:
        click.echo(json.dumps([one.facts() for one in listed], indent=1))
        return
    if not listed:
        tell(f"there is no category file in {folder}")
        return
    columns: dict[str, Callable[[_Listed], str]] = {
        "category": lambda c: c.name,
        "title": lambda c: c.category.title if c.category else "",
        "id": lambda c: str(c.category.id) if c.category else "",
        "private": lambda c: _yes(c.category.private) if c.category else "",
        "pages": lambda c: _told_networks(c.category.pages) if c.category else "",
        "partition": lambda c: _yes(c.partition) if c.file else "file is gone",
        "newest kmeans, or error": lambda c: c.error or c.newest_month or "",
    }
    click.echo(as_table(columns, listed))


@categories.command()
@click.argument("name", shell_complete=complete_category)
@root_option
@json_option
def show(name: str, root: str, as_json: bool) -> None:
    """Show a category and its pages, each a dimension of its clusters."""
    files = list_category_files(category_folder(root))
    if name not in files:
        raise InputError(
            f"There is no category {name!r} in {category_folder(root)}. Known: {', '.join(files) or 'none'}."
        )
    category = read_category(files[name])
    if as_json:
        click.echo(json.dumps({**_facts(category), "pages": [asdict(page) for page in category.pages]}, indent=1))
        return
    told = {
        "category": category.name,
        "title": category.title,
        "id": str(category.id),
        "private": _yes(category.private),
        "pages": _told_networks(category.pages),
        "file": files[name],
    }
    click.echo("".join(f"{fact:9} {visible(value)}\n" for fact, value in told.items()))
    columns: dict[str, Callable[[tuple[int, Page]], str]] = {
        "dimension": lambda numbered: str(numbered[0]),
        "network": lambda numbered: numbered[1].network,
        "page": lambda numbered: numbered[1].id,
        "name": lambda numbered: numbered[1].name,
    }
    click.echo(as_table(columns, enumerate(category.pages)))


@categories.command()
@click.argument("files", metavar="[FILE]…", nargs=-1)
@root_option
def validate(files: tuple[str, ...], root: str) -> None:
    """Check category files: those given, or all of the root.

    Every problem is told, and the exit code is 1 if there is one.
    """
    wanted = files or tuple(list_category_files(category_folder(root)).values())
    if not wanted:
        raise InputError(f"There is no category file in {category_folder(root)}.")
    bad = [found for found in _read_all(wanted) if isinstance(found, BadCategory)]
    for error in bad:
        for problem in error.problems:
            click.echo(visible(problem))
    tell(f"{len(wanted)} checked, {len(bad)} can't be used" if bad else f"{len(wanted)} checked, all of them fine")
    sys.exit(bool(bad))


@categories.command()
@root_option
@click.option("--remove-missing", is_flag=True, help="Remove the partitions whose file is gone. Their records stay.")
def sync(root: str, remove_missing: bool) -> None:
    """Make a partition of every new category file.

    Every pipeline does so as well, and so does a sensor while the daemon runs. Partitions whose file is gone are told.
    """
    with open_project(root) as project:
        from audience_explorer_dagster.categories.known import sync_categories
        from audience_explorer_dagster.partitions import CATEGORY

        added, refused = sync_categories(project.instance, project.store)
        with_file = project.store.category_names()
        gone = [name for name in project.instance.get_dynamic_partitions(CATEGORY) if name not in with_file]
        if remove_missing:
            if gone and not with_file:
                raise InputError(
                    f"There is no category file at all in {project.store.categories}, so nothing is removed: is that"
                    " the right root?"
                )
            for name in gone:
                project.instance.delete_dynamic_partition(CATEGORY, name)
    say(f"added: {', '.join(added) or 'none'}")
    if remove_missing:
        say(f"removed: {', '.join(gone) or 'none'}")
    elif gone:
        tell(f"still partitions, though their files are gone: {', '.join(gone)}. To remove them: --remove-missing")
    for why in refused.values():
        tell(f"Error: {why}")
    sys.exit(bool(refused))


@categories.command()
@click.option(
    "--from",
    "database",
    envvar=_DATABASE,
    show_envvar=True,
    metavar="URL",
    help="The database: any that SQLAlchemy reaches, such as postgresql+psycopg2://user@host/name or sqlite:///file.db."
    " Where others see this machine's processes, a password belongs in the variable, or where the driver looks for it"
    " (~/.pgpass).",
)
@click.option("--query", metavar="SQL", help="The query that gives the pages.")
@click.option(
    "--query-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The same, from a file.",
)
@click.option("--csv", "csv_file", metavar="FILE", help="Instead of a database: a CSV file with these columns.")
@root_option
@click.option("--dry-run", is_flag=True, help="Show what would change, and end.")
@yes_option
@click.pass_context
def export(
    ctx: click.Context,
    database: str | None,
    query: str | None,
    query_file: Path | None,
    csv_file: str | None,
    root: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make category files from a database or a CSV file.

    The query gives a row a page: category, page_id, page_name; and, if you like, network (facebook where it is empty),
    category_id and private. It is run read only.

    A diff of the contents is shown before anything is written, and only what changed is. Files of categories that no
    row tells of are named and left as they are, and so is what the rows do not tell of a file. Pages keep their places;
    new ones are added in the order of their ids.
    """
    if sum(source is not None for source in (query, query_file, csv_file)) != 1:
        raise click.UsageError("Say where the pages come from: one of --query, --query-file and --csv.")
    if csv_file is not None:
        if ctx.get_parameter_source("database") is ParameterSource.COMMANDLINE:
            raise click.UsageError("--csv is instead of a database: leave --from out.")
        table = database_export.read_csv(csv_file)
    elif database is None:
        raise click.UsageError(f"Which database? --from, or set ${_DATABASE}.")
    else:
        table = database_export.read_query(database, query_file.read_text("utf-8") if query_file else str(query))
    plan = database_export.plan(category_folder(root), table)
    for change in plan.changes:
        for line in change.diff:
            click.secho(visible(line), fg=_COLORS.get(line[0]))
    if plan.absent:
        tell(f"no row tells of these, and they stay as they are: {', '.join(plan.absent)}")
    new = sum(change.before is None for change in plan.changes)
    tell(
        f"{new} new, {len(plan.changes) - new} changed, {len(plan.unchanged)} unchanged, {len(plan.absent)} left alone"
    )
    if dry_run or not plan.changes:
        return
    ask(f"Write {len(plan.changes)} file{'s' if len(plan.changes) > 1 else ''}?", yes)
    for change in plan.changes:
        change.write()
        tell(f"wrote {change.location}")


# --- what the commands share -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    """A category that has a file, is a partition, or both."""

    name: str
    file: str | None
    category: Category | None
    error: str | None
    partition: bool
    newest_month: str | None  # that has a kmeans on record

    def facts(self) -> dict[str, Any]:
        rest = {name: getattr(self, name) for name in ("partition", "newest_month", "file", "error")}
        unknown: dict[str, Any] = {"name": self.name, "title": None, "id": None, "private": None, "networks": {}}
        return {**unknown, **(_facts(self.category) if self.category else {}), **rest}


def _look(project: Project) -> list[_Listed]:
    import dagster as dg

    from audience_explorer_dagster.partitions import CATEGORY, Partition
    from audience_explorer_dagster.planning import KMEANS

    files = list_category_files(project.store.categories)
    read = dict(zip(files, _read_all(files.values()), strict=True))
    partitions = project.instance.get_dynamic_partitions(CATEGORY)
    on_record = map(Partition.parse, project.instance.get_materialized_partitions(dg.AssetKey(KMEANS)))
    newest = {str(partition.category): partition.month for partition in sorted(on_record, key=lambda p: p.month)}
    listed = []
    for name in sorted({*files, *partitions}):
        found = read.get(name)
        error = str(found) if isinstance(found, BadCategory) else None
        category = found if isinstance(found, Category) else None
        listed.append(_Listed(name, files.get(name), category, error, name in partitions, newest.get(name)))
    return listed


def _read_all(locations: Iterable[str]) -> list[Category | BadCategory]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_read, locations))


def _read(location: str) -> Category | BadCategory:
    try:
        return read_category(location)
    except BadCategory as error:
        return error


def _facts(category: Category) -> dict[str, Any]:
    networks = Counter(page.network for page in category.pages)
    facts = {name: getattr(category, name) for name in ("name", "title", "id", "private")}
    return {**facts, "networks": dict(networks)}


def _told_networks(pages: Iterable[Page]) -> str:
    counts = Counter(page.network for page in pages)
    return ", ".join(f"{count} {network}" for network, count in counts.items())


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
