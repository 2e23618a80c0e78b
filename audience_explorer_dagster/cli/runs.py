"""`audience-explorer runs` and `promote`: the tweaks of a partition side by side, and which of them is current."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.project import (
    Project,
    errors_told,
    json_option,
    open_project,
    root_option,
    tell,
)
from spark_jobs.errors import InputError
from spark_jobs.outputs import is_finished
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.records.history import Record
    from audience_explorer_dagster.records.variants import Tweak

_month_option = click.option("--month", required=True, metavar="YYYY-MM", help="The month.")
_category_option = click.option("--category", required=True, metavar="NAME", help="The category.")


@click.command()
@_month_option
@_category_option
@root_option
@json_option
def runs(month: str, category: str, root: str, as_json: bool) -> None:
    """List the k-means outputs of a month and category side by side, the last computed first."""
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.planning import KMEANS
        from audience_explorer_dagster.records.variants import side_by_side

        partition, records = _find(project, month, category)
        tweaks = side_by_side(records, project.store.current(KMEANS, partition))
        below = project.store.outputs(KMEANS, partition)
    with ThreadPoolExecutor(8) as pool:
        there = list(pool.map(is_finished, [tweak.folder for tweak in tweaks]))
    if as_json:
        click.echo(json.dumps([_facts(*found) for found in zip(tweaks, there, strict=True)], indent=1))
    elif tweaks:
        click.echo(_as_table(tweaks, there, below))
    else:
        tell(f"kmeans of {partition.key} was never materialized here")


@click.command()
@_month_option
@_category_option
@click.option("--label", help="The output that was given this label last.")
@click.option("--folder", metavar="NAME", help="The output in this folder.")
@click.option("--automatic", is_flag=True, help="End a promotion: the newest with the deployment's own parameters.")
@root_option
def promote(month: str, category: str, label: str | None, folder: str | None, automatic: bool, root: str) -> None:
    """Make another k-means output the current one of a month and category.

    It stays so until another one is promoted, or until --automatic: no run takes a promotion back.
    """
    if (label is not None) + (folder is not None) + automatic != 1:
        raise click.UsageError(
            "Name the output, by --label or by --folder, or give --automatic. `audience-explorer runs` lists them."
        )
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.records import variants
        from audience_explorer_dagster.run_config import MonthRunConfig

        partition, _ = _find(project, month, category)
        histories = variants.histories_of(project.instance, project.store, partition)
        choice = variants.Choice(label, folder, automatic)
        report = project.instance.report_runless_asset_event
        tweak = variants.promote(project.store, partition, histories, choice, MonthRunConfig(), report)
    click.echo(variants.told(partition, tweak))


def _find(project: Project, month: str, category: str) -> "tuple[Partition, list[Record]]":
    """A partition, and all its records of kmeans, the newest first.

    Raises:
        InputError: There is no such month or category.
    """
    from audience_explorer_dagster.partitions import CATEGORY, Partition
    from audience_explorer_dagster.planning import KMEANS
    from audience_explorer_dagster.records.history import History
    from audience_explorer_dagster.running.pipeline import check_months

    (checked,) = check_months([month])
    partition = Partition(checked, category)
    records = list(History(project.instance, project.store, KMEANS, [partition]).all(partition))
    known = project.instance.get_dynamic_partitions(CATEGORY)
    if not records and category not in known:  # one that was removed may have records
        raise InputError(f"There is no category {category!r}. Known: {', '.join(sorted(known)) or 'none'}.")
    return partition, records


def _facts(tweak: "Tweak", there: bool) -> dict[str, Any]:
    return {**asdict(tweak), "computed_at": tweak.computed_at.isoformat(timespec="seconds"), "there": there}


def _as_table(tweaks: "Sequence[Tweak]", there: Sequence[bool], below: str) -> str:
    from audience_explorer_dagster.records.variants import COLUMNS

    gone = {tweak.folder for tweak, is_there in zip(tweaks, there, strict=True) if not is_there}
    columns: dict[str, Callable[[Tweak], str]] = {name: show for name, show in COLUMNS.items() if name != "folder"}
    columns[f"folder below {below}"] = lambda t: f"{t.name} (gone)" if t.folder in gone else t.name
    return as_table(columns, tweaks)
