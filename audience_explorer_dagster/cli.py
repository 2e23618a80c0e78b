"""The command line, `audience-explorer`."""

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel

from audience_explorer_dagster.ec2_cli import ec2
from audience_explorer_dagster.launch_cli import launch
from audience_explorer_dagster.tables import as_table
from spark_jobs import demo_audience, storage
from spark_jobs.config import ClusteringInputsConfig, EngineConfig, GroupedUsersConfig, KMeansConfig, KSelectionConfig
from spark_jobs.errors import InputError
from spark_jobs.options import config_options

if TYPE_CHECKING:
    import dagster as dg

    from audience_explorer_dagster.config import GroupingRunConfig, SegmentsRunConfig
    from audience_explorer_dagster.pipeline import Outcome
    from audience_explorer_dagster.store import Store

_ROOT = "AUDIENCE_EXPLORER_ROOT"
_HOME = "DAGSTER_HOME"

root_option = click.option(
    "--root",
    default=lambda: os.environ.get(_ROOT, "data"),
    show_default=f"${_ROOT}, or data",
    help="The folder or s3://bucket/prefix under which raw data, category files and outputs are.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="audience-explorer")
def main() -> None:
    """Finds audience segments: monthly actions in, k-means clusters out.

    Dagster keeps the records, in $DAGSTER_HOME, or in .dagster_home of the current folder if that is not set.
    """


@main.command()
@click.option(
    "--month", "months", multiple=True, metavar="YYYY-MM", help="A month; repeat it.  [default: the last that ended]"
)
@click.option("--category", "categories", multiple=True, metavar="NAME", help="A category; repeat it.  [default: all]")
@root_option
@config_options(KMeansConfig, "kmeans")
@config_options(KSelectionConfig, "k_selection", only=("criterion", "k_min", "k_max"))
@config_options(ClusteringInputsConfig, "clustering_inputs")
@config_options(GroupedUsersConfig, "grouped_users")
@config_options(EngineConfig, "engine")
@click.option("--force", is_flag=True, help="Compute even what is there already.")
@click.option("--json", "as_json", is_flag=True, help="End with JSON instead of a table.")
def pipeline(
    months: tuple[str, ...],
    categories: tuple[str, ...],
    root: str,
    kmeans: KMeansConfig,
    k_selection: KSelectionConfig,
    clustering_inputs: ClusteringInputsConfig,
    grouped_users: GroupedUsersConfig,
    engine: EngineConfig,
    force: bool,
    as_json: bool,
) -> None:
    """Cluster the audience of months and categories, computing only what is not there yet.

    Fit for cron: the exit code is 0 if all is done, 1 if something failed, 2 if an option makes no sense, 130 if it was
    interrupted.
    """
    with _errors_told(), _project(root) as project:
        from audience_explorer_dagster.config import GroupingRunConfig, SegmentsRunConfig

        common: dict[str, Any] = {**engine.model_dump(), "force": force}
        grouping = GroupingRunConfig(**common, **_as_values(grouped_users=grouped_users))
        segments = SegmentsRunConfig(
            **common, **_as_values(clustering_inputs=clustering_inputs, k_selection=k_selection, kmeans=kmeans)
        )
        outcomes = project.run(months, categories, grouping, segments)
    click.echo(_as_json(outcomes) if as_json else _as_table(outcomes, storage.absolute(root)))
    sys.exit(_exit_code(outcomes))


@main.command()
@click.option("--root", default="demo", show_default=True, help="The folder to make it in.")
@click.option("--users", default=50_000, show_default=True, type=click.IntRange(min=1_000), help="How many users.")
@click.option("--seed", default=demo_audience.SEED, show_default=True, help="Of the random numbers.")
@config_options(EngineConfig, "engine")
def demo(root: str, users: int, seed: int, engine: EngineConfig) -> None:
    """Make a sample audience with known segments, find them, and say how well they match."""
    with _errors_told(), _project(root) as project:
        from audience_explorer_dagster.config import GroupingRunConfig, SegmentsRunConfig
        from audience_explorer_dagster.planning import KMEANS

        demo_audience.check_root(storage.absolute(root))
        _tell(f"making a sample audience of {users:,} users in {root}")
        demo_audience.make(storage.absolute(root), users, seed)
        outcomes = project.run(
            demo_audience.MONTHS,
            list(demo_audience.CATEGORIES),
            GroupingRunConfig(**engine.model_dump()),
            SegmentsRunConfig(**engine.model_dump()),
        )
        click.echo(_as_table(outcomes, storage.absolute(root)))
        click.echo("\nHow well the clusters match the planted segments (adjusted Rand index: 1 the same, 0 by chance):")
        for outcome in outcomes:
            if outcome.asset == KMEANS and outcome.folder is not None:
                category = outcome.partition.split("|")[0]
                planted = len(demo_audience.CATEGORIES[category]) - 1
                index = demo_audience.agreement(storage.absolute(root), category, outcome.folder)
                click.echo(f"  {outcome.partition:18} {index:.2f}   {outcome.k} clusters, {planted} segments")
    sys.exit(_exit_code(outcomes))


@main.group()
def categories() -> None:
    """The categories, each a file of named pages."""


@categories.command()
@root_option
def sync(root: str) -> None:
    """Make a partition of every new category file. (Every pipeline does; so does a sensor, while the daemon runs.)"""
    with _errors_told(), _project(root) as project:
        from audience_explorer_dagster.pipeline import sync_categories

        added, refused = sync_categories(project.instance, project.store)
    click.echo(f"added: {', '.join(added) or 'none'}")
    for why in refused.values():
        click.echo(f"Error: {why}", err=True)
    sys.exit(bool(refused))


main.add_command(launch)
main.add_command(ec2)


# --- what the commands share -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Project:
    """The project as Dagster loads it, with the records."""

    definitions: "dg.Definitions"
    instance: "dg.DagsterInstance"
    store: "Store"

    def run(
        self,
        months: Sequence[str],
        categories: Sequence[str],
        grouping: "GroupingRunConfig",
        segments: "SegmentsRunConfig",
    ) -> "list[Outcome]":
        from audience_explorer_dagster.pipeline import (
            Outcome,
            check_categories,
            check_months,
            run_pipeline,
            sync_categories,
        )

        wanted_months = check_months(months)
        _, refused = sync_categories(self.instance, self.store)
        wanted = check_categories(self.instance, self.store, categories)
        outcomes = run_pipeline(self.definitions, self.instance, wanted_months, wanted, grouping, segments, _tell)
        # Who asks for all categories is told of a file that can't be one.
        unasked = {} if categories else refused
        return [*outcomes, *(Outcome("category", name, "failed", error=why) for name, why in unasked.items())]


def _as_values(**configs: BaseModel) -> dict[str, Any]:
    """The jobs' configs as what Dagster's are made of."""
    return {name: config.model_dump() for name, config in configs.items()}


@contextmanager
def _project(root: str) -> Iterator[_Project]:
    """Load the project for a root. Dagster takes seconds to import, so this is left to those who need it."""
    os.environ[_ROOT] = storage.absolute(root)
    home = Path(os.environ.get(_HOME) or ".dagster_home").absolute()
    os.environ[_HOME] = str(home)
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(
            "# Dagster's settings; what may stand here is in its documentation.\ntelemetry:\n  enabled: false\n"
        )
    import dagster as dg

    from audience_explorer_dagster.definitions import defs
    from audience_explorer_dagster.partitions import CATEGORY
    from audience_explorer_dagster.store import Store

    with dg.DagsterInstance.get() as instance:
        # Dagster makes its tables at their first use, and two processes that do so at the same time break them.
        with (home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            instance.get_runs_count()
            instance.get_dynamic_partitions(CATEGORY)
            instance.all_instigator_state()
        yield _Project(defs, instance, Store(root=os.environ[_ROOT]))


@contextmanager
def _errors_told() -> Iterator[None]:
    """Tell an error that is the input's in a line."""
    try:
        yield
    except InputError as error:
        raise click.UsageError(str(error)) from None


def _tell(message: str) -> None:
    click.echo(message, err=True)


def _as_json(outcomes: "Sequence[Outcome]") -> str:
    return json.dumps({**_counts(outcomes), "partitions": [asdict(outcome) for outcome in outcomes]}, indent=1)


def _exit_code(outcomes: "Sequence[Outcome]") -> int:
    from audience_explorer_dagster.pipeline import INTERRUPTED

    if any(outcome.error == INTERRUPTED for outcome in outcomes):
        return 130
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _counts(outcomes: "Sequence[Outcome]") -> dict[str, int]:
    return {status: sum(o.status == status for o in outcomes) for status in ("launched", "reused", "failed")}


def _as_table(outcomes: "Sequence[Outcome]", root: str) -> str:
    columns: dict[str, Callable[[Outcome], str]] = {
        "partition": lambda o: o.partition,
        "asset": lambda o: o.asset,
        "status": lambda o: o.status,
        "users": lambda o: "" if o.users is None else f"{o.users:,}",
        "k": lambda o: "" if o.k is None else str(o.k),
        f"folder below {root}, or error": lambda o: (
            o.folder.removeprefix(root).lstrip("/") if o.folder else " ".join((o.error or "").split())
        ),
    }
    counts = ", ".join(f"{count} {status}" for status, count in _counts(outcomes).items())
    return f"\n{as_table(columns, outcomes)}\n\n{counts}"
