"""`audience-explorer compare`: two k-means outputs beside each other."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.project import Project, errors_told, json_option, open_project, root_option
from audience_explorer_dagster.cli.runs import CURRENT, find_output
from spark_jobs.terminal import as_table

if TYPE_CHECKING:
    from spark_jobs.clusters.comparison import Comparison, Side

_MONTH = r"\d{4}-\d\d"


@dataclass(frozen=True)
class _Wanted:
    """An output that is asked for: a month's and a label, the name of a folder, or `current`."""

    month: str | None
    name: str

    @classmethod
    def parse(cls, text: str) -> "_Wanted":
        month, _, name = text.partition(":")
        if not re.fullmatch(_MONTH, month):
            return cls(None, text)
        return cls(month, name or CURRENT)


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--month", metavar="YYYY-MM", shell_complete=complete_month, help="The month of those that name none.")
@click.option("--category", metavar="NAME", shell_complete=complete_category, help="The category.")
@root_option
@json_option
def compare(first: str, second: str, month: str | None, category: str | None, root: str, as_json: bool) -> None:
    """Compare two k-means outputs: sizes, the adjusted Rand index, and a table from cluster to cluster.

    A and B are each the label of an output, its folder's name, or `current`; 2024-01:twelve is one of another month,
    2024-01 alone that month's current one. A whole folder, with its path, needs neither month nor category.

    \b
    audience-explorer compare current twelve --month 2024-01 --category coffee
    audience-explorer compare 2024-01 2024-02 --category coffee
    """
    with errors_told():
        folders = _find_folders((first, second), month, category, root)
        from spark_jobs.clusters import comparison

        found = comparison.compare(*folders)
    click.echo(json.dumps(found.as_json(), indent=1) if as_json else _as_text(found))


def _find_folders(names: tuple[str, str], month: str | None, category: str | None, root: str) -> list[str]:
    """The folder of each output that is named."""
    if all("/" in name for name in names):
        return [name.rstrip("/") for name in names]
    if category is None:
        raise click.UsageError("Which category? --category NAME")
    with open_project(root) as project:
        return [
            name.rstrip("/") if "/" in name else _find_folder(project, _Wanted.parse(name), month, category)
            for name in names
        ]


def _find_folder(project: Project, wanted: _Wanted, month: str | None, category: str) -> str:
    of_month = wanted.month or month
    if of_month is None:
        raise click.UsageError(f"{wanted.name!r} of which month? --month YYYY-MM, or YYYY-MM:{wanted.name}")
    return find_output(project, wanted.name, of_month, category)


def _as_text(found: "Comparison") -> str:
    """The comparison for a person."""
    sides: dict[str, Side] = {"A": found.first, "B": found.second}
    lines = [
        f"{name}  {_told(found, side.users)} users in {side.k} clusters, {_told(found, side.only_here)} of them only"
        f" here; {side.folder}"
        for name, side in sides.items()
    ]
    known = found.shown_agreement
    agreement = "not defined" if known is None else f"{known:.3f}"
    return (
        "\n".join(lines)
        + f"\n\nadjusted Rand index over the {_told(found, found.common)} users in both: {agreement}"
        + " (1 is the same segments, about 0 is chance)\n\n"
        + f"The users of each cluster of A, by their cluster in B:\n\n{_matrix(found)}"
        + f"\n\nNumbers of users are rounded to multiples of {found.min_people}; few are fewer than that."
    )


def _told(found: "Comparison", people: int) -> str:
    """So many people, rounded, such as `1,230` or `few`."""
    said = found.counted(people)
    return "few" if said is None else f"{said:,}"


def _matrix(found: "Comparison") -> str:
    """A row a cluster of A, a column a cluster of B; each cluster with the page that most of its users are on."""
    first, second = found.first, found.second
    columns: dict[str, Callable[[int], str]] = {
        "A": lambda row: f"{row} {first.names[row]}".rstrip(),
        "users": lambda row: _told(found, first.sizes[row]),
    }
    for cluster in range(second.k):
        columns[f"B {cluster} {second.names[cluster]}".rstrip()] = _shared_with(found, cluster)
    return as_table(columns, range(first.k))


def _shared_with(found: "Comparison", cluster: int) -> "Callable[[int], str]":
    return lambda row: _told(found, found.shared[row, cluster])
