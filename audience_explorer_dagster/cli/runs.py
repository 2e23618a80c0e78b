"""`audience-explorer runs` and `promote`: k-means outputs side by side, and which of them is current."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.project import (
    Project,
    errors_told,
    json_option,
    open_project,
    root_option,
    tell,
)
from spark_jobs.errors import InputError
from spark_jobs.outputs import is_whole
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.records.history import Record
    from audience_explorer_dagster.records.variants import Tweak

CURRENT = "current"  # names an output, as a label does

_month_option = click.option(
    "--month", required=True, metavar="YYYY-MM", shell_complete=complete_month, help="The month."
)
_category_option = click.option(
    "--category", required=True, metavar="NAME", shell_complete=complete_category, help="The category."
)


@click.command()
@click.option("--month", metavar="YYYY-MM", shell_complete=complete_month, help="The month.  [default: all]")
@click.option("--category", metavar="NAME", shell_complete=complete_category, help="The category.  [default: all]")
@click.option("--all", "with_others", is_flag=True, help="All outputs of each partition, not only the current one.")
@root_option
@json_option
def runs(month: str | None, category: str | None, with_others: bool, root: str, as_json: bool) -> None:
    """List k-means outputs side by side.

    Of a month and category, these are all outputs, the last computed first. Without a month or a category, it is the
    current output of each partition.
    """
    if month is None or category is None:
        _list_partitions(month, category, with_others, root, as_json)
        return
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.planning import KMEANS
        from audience_explorer_dagster.records.variants import side_by_side

        partition, records = _find(project, month, category)
        tweaks = side_by_side(records, project.store.current(KMEANS, partition))
        below = project.store.outputs(KMEANS, partition)
    there = _are_there(tweaks)
    if as_json:
        click.echo(json.dumps([_facts(*found) for found in zip(tweaks, there, strict=True)], indent=1))
    elif tweaks:
        click.echo(_as_table(tweaks, there, below))
    else:
        tell(f"kmeans of {partition.key} was never materialized here")


def _list_partitions(month: str | None, category: str | None, with_others: bool, root: str, as_json: bool) -> None:
    """List the outputs of all partitions of a month, or of a category, or of all."""
    with errors_told(), open_project(root) as project:
        partitions = _partitions(project, month, category)
        tweaks = [(p, tweak) for p, of_partition in _tweaks_of(project, partitions) for tweak in of_partition]
    if not with_others:
        tweaks = _one_a_partition(tweaks)
    there = _are_there([tweak for _, tweak in tweaks])
    rows = [_Row(partition, tweak, found) for (partition, tweak), found in zip(tweaks, there, strict=True)]
    if as_json:
        facts = [{"partition": row.partition.key, **_facts(row.tweak, row.there)} for row in rows]
        click.echo(json.dumps(facts, indent=1))
    elif rows:
        click.echo(_as_table_of_partitions(rows))
    else:
        tell("kmeans was never materialized here")


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
        from audience_explorer_dagster.promotion import PROMOTE_JOB, PROMOTE_OP
        from audience_explorer_dagster.records import variants
        from audience_explorer_dagster.running.in_this_process import execute

        partition, records = _find(project, month, category)
        if not automatic:
            # Before the run, so that a name that is mistyped is no run that failed.
            variants.choose(records, variants.Choice(label, folder))
        config = {"month": month, "category": category, "label": label, "folder": folder, "automatic": automatic}
        job = project.definitions.resolve_job_def(PROMOTE_JOB)
        result = execute(job, project.instance, None, {}, {"ops": {PROMOTE_OP: {"config": config}}})
        if not result.success:
            errors = [failure.step_failure_data.error for failure in result.step_failures]
            why = [(error.cause or error).message.strip() for error in errors if error is not None]
            raise InputError(f"The run that promotes failed: {' '.join(why) or result.run_id}")
        ((_, tweaks),) = _tweaks_of(project, [partition])
    click.echo(variants.told(partition, next((tweak for tweak in tweaks if tweak.current), None)))


@dataclass(frozen=True)
class _Row:
    """An output of a partition."""

    partition: "Partition"
    tweak: "Tweak"
    there: bool


def _partitions(project: Project, month: str | None, category: str | None) -> "list[Partition]":
    """The partitions that have a k-means output on record, by month and category.

    Raises:
        InputError: There is no such month or category.
    """
    import dagster as dg

    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.planning import KMEANS
    from audience_explorer_dagster.running.pipeline import check_months

    if month is not None:
        check_months([month])
    if category is not None:
        _check_category(project, category)
    on_record = map(Partition.parse, project.instance.get_materialized_partitions(dg.AssetKey(KMEANS)))
    wanted = [p for p in on_record if month in (None, p.month) and category in (None, p.category)]
    return sorted(wanted, key=lambda partition: (partition.month, partition))


def _tweaks_of(project: Project, partitions: "Sequence[Partition]") -> "Iterator[tuple[Partition, list[Tweak]]]":
    """The tweaks of each partition, the last computed first."""
    from audience_explorer_dagster.planning import KMEANS
    from audience_explorer_dagster.records.history import History
    from audience_explorer_dagster.records.variants import side_by_side

    history = History(project.instance, project.store, KMEANS, partitions)
    with ThreadPoolExecutor(8) as pool:
        current = pool.map(lambda partition: project.store.current(KMEANS, partition), partitions)
        for partition, of_partition in zip(partitions, current, strict=True):
            yield partition, side_by_side(history.all(partition), of_partition)


def _one_a_partition(tweaks: "Sequence[tuple[Partition, Tweak]]") -> "list[tuple[Partition, Tweak]]":
    """The current output of each partition; the last computed, where none on record is current."""
    chosen: dict[Partition, Tweak] = {}
    for partition, tweak in tweaks:
        if tweak.current or partition not in chosen:
            chosen[partition] = tweak
    return list(chosen.items())


def _are_there(tweaks: "Sequence[Tweak]") -> list[bool]:
    """Whether the output of each is still there."""
    from audience_explorer_dagster.planning import KMEANS

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda tweak: is_whole(tweak.folder, KMEANS), tweaks))


def find_output(project: Project, name: str, month: str, category: str) -> str:
    """The folder of a k-means output: of the newest with a label, or of that name, or of the `current` one.

    Raises:
        InputError: There is no such month, category or output.
    """
    from audience_explorer_dagster.planning import KMEANS
    from audience_explorer_dagster.records.variants import find_named

    partition, records = _find(project, month, category)
    if name != CURRENT:
        return find_named(records, name).folder
    current = project.store.current(KMEANS, partition)
    if current is None:
        raise InputError(f"kmeans of {partition.key} has no current output.")
    return current.folder


def _find(project: Project, month: str, category: str) -> "tuple[Partition, list[Record]]":
    """A partition, and all its records of kmeans, the newest first.

    Raises:
        InputError: There is no such month or category.
    """
    from audience_explorer_dagster.partitions import Partition
    from audience_explorer_dagster.planning import KMEANS
    from audience_explorer_dagster.records.history import History
    from audience_explorer_dagster.running.pipeline import check_months

    (checked,) = check_months([month])
    partition = Partition(checked, category)
    records = list(History(project.instance, project.store, KMEANS, [partition]).all(partition))
    if not records:  # a category that was removed may have some
        _check_category(project, category)
    return partition, records


def _check_category(project: Project, category: str) -> None:
    from audience_explorer_dagster.partitions import CATEGORY

    known = project.instance.get_dynamic_partitions(CATEGORY)
    if category not in known:
        raise InputError(f"There is no category {category!r}. Known: {', '.join(sorted(known)) or 'none'}.")


def _facts(tweak: "Tweak", there: bool) -> dict[str, Any]:
    return {**asdict(tweak), "computed_at": tweak.computed_at.isoformat(timespec="seconds"), "there": there}


def _as_table(tweaks: "Sequence[Tweak]", there: Sequence[bool], below: str) -> str:
    from audience_explorer_dagster.records.variants import COLUMNS

    gone = {tweak.folder for tweak, is_there in zip(tweaks, there, strict=True) if not is_there}
    columns: dict[str, Callable[[Tweak], str]] = {name: show for name, show in COLUMNS.items() if name != "folder"}
    columns[f"folder below {below}"] = lambda t: f"{t.name} (gone)" if t.folder in gone else t.name
    return as_table(columns, tweaks)


def _as_table_of_partitions(rows: Sequence[_Row]) -> str:
    from audience_explorer_dagster.records.variants import COLUMNS

    columns: dict[str, Callable[[_Row], str]] = {"partition": lambda row: row.partition.key}
    columns |= {name: _of_tweak(show) for name, show in COLUMNS.items()}
    columns["folder"] = lambda row: row.tweak.name if row.there else f"{row.tweak.name} (gone)"
    return as_table(columns, rows)


def _of_tweak(show: "Callable[[Tweak], str]") -> Callable[[_Row], str]:
    return lambda row: show(row.tweak)
