"""The command line, `audience-explorer`."""

import json
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click
from pydantic import BaseModel

from audience_explorer_dagster.cli.archive import archive
from audience_explorer_dagster.cli.aws import AWSGroup
from audience_explorer_dagster.cli.categories import categories
from audience_explorer_dagster.cli.compare import compare
from audience_explorer_dagster.cli.completion import complete_category, complete_month
from audience_explorer_dagster.cli.demo_results import demo_results
from audience_explorer_dagster.cli.ec2 import ec2
from audience_explorer_dagster.cli.emr_serverless import emr_serverless
from audience_explorer_dagster.cli.export import export
from audience_explorer_dagster.cli.gc import gc
from audience_explorer_dagster.cli.launch import launch
from audience_explorer_dagster.cli.project import (
    errors_told,
    exit_code,
    failures_as_mail,
    held_back,
    interrupts_told,
    open_project,
    outcomes_as_json,
    outcomes_as_table,
    plan_as_table,
    root_option,
    tell,
    tell_table,
)
from audience_explorer_dagster.cli.prune import prune
from audience_explorer_dagster.cli.records import adopt, home
from audience_explorer_dagster.cli.report import report
from audience_explorer_dagster.cli.runs import promote, runs
from audience_explorer_dagster.cli.segments import segments
from audience_explorer_dagster.cli.serve_reports import serve_reports
from spark_jobs import demo_audience, storage
from spark_jobs.config import ClusteringInputsConfig, EngineConfig, GroupedUsersConfig, KMeansConfig, KSelectionConfig
from spark_jobs.options import config_options
from spark_jobs.resources import ResourcesConfig


@click.group(cls=AWSGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="audience-explorer")
def main() -> None:
    """Finds audience segments: monthly actions in, k-means clusters out.

    Dagster keeps the records, in $DAGSTER_HOME, or in the root's own home if that is not set: `audience-explorer home`.
    """


@main.command()
@click.option(
    "--month",
    "months",
    multiple=True,
    metavar="YYYY-MM",
    shell_complete=complete_month,
    help="A month; repeat it.  [default: the last that ended]",
)
@click.option(
    "--from", "first", metavar="YYYY-MM", shell_complete=complete_month, help="All months from this one; see --to."
)
@click.option(
    "--to",
    "last",
    metavar="YYYY-MM",
    shell_complete=complete_month,
    help="The last month of --from.  [default: the last that ended]",
)
@click.option(
    "--category",
    "categories",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_category,
    help="A category; repeat it.  [default: all]",
)
@root_option
@config_options(KMeansConfig, "kmeans")
@config_options(KSelectionConfig, "k_selection", only=("criterion", "k_max", "min_segment", "min_segment_share"))
@config_options(ClusteringInputsConfig, "clustering_inputs")
@config_options(GroupedUsersConfig, "grouped_users")
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "resources")
@click.option("--force", is_flag=True, help="Compute even what is there already.")
@click.option("--promote", is_flag=True, help="Make the k-means outputs current, until `promote --automatic`.")
@click.option("--dry-run", is_flag=True, help="Show what would be launched and what reused, and why, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="End with JSON instead of a table.")
@click.option("--quiet", is_flag=True, help="Print nothing, unless something failed.")
def pipeline(
    months: tuple[str, ...],
    first: str | None,
    last: str | None,
    categories: tuple[str, ...],
    root: str,
    kmeans: KMeansConfig,
    k_selection: KSelectionConfig,
    clustering_inputs: ClusteringInputsConfig,
    grouped_users: GroupedUsersConfig,
    engine: EngineConfig,
    resources: ResourcesConfig,
    force: bool,
    promote: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Cluster the audience of months and categories, computing only what is not there yet.

    Both k_selection and kmeans take --fit-min-actions, so that they learn from the same people. Only kmeans takes
    --n-init and --seed. What is not given is as in the file AUDIENCE_EXPLORER_RUN_CONFIG, the deployment's own
    parameters, or else by default. With a label, or with other parameters than those, k-means outputs stand beside the
    current ones: see --promote.

    Fit for cron: the exit code is 0 if all is done, 1 if something failed, 2 if an option makes no sense, 130 if it was
    interrupted. That of --dry-run is 0, whatever it shows.
    """
    for option, given in {"--json": as_json, "--dry-run": dry_run}.items():
        if quiet and given:
            raise click.UsageError(f"--quiet prints nothing, so {option} does not go with it.")
    if last is not None and first is None:
        raise click.UsageError("--to is the end of a range of months; its beginning is --from.")
    printing: AbstractContextManager[list[str]] = held_back() if quiet else nullcontext([])
    with interrupts_told(), printing as last_lines, errors_told(), open_project(root) as project:
        from audience_explorer_dagster.run_config import MonthRunConfig
        from audience_explorer_dagster.running.pipeline import months_between

        if first is not None:
            months = (*months, *months_between(first, last))
        parts = {
            "resources": resources,
            "grouped_users": grouped_users,
            "clustering_inputs": clustering_inputs,
            "k_selection": k_selection,
            "kmeans": kmeans,
        }
        forced = {"force": True} if force else {}
        config = MonthRunConfig(**_given(parts, engine) | forced, promote=promote)
        categories = categories or tuple(config.categories)
        if dry_run:
            plan = project.dry_run(months, categories, config)
            click.echo(json.dumps(plan.as_json(), indent=1) if as_json else plan_as_table(plan))
            return
        outcomes = project.run(months, categories, config)
    code = exit_code(outcomes)
    if not quiet:
        click.echo(outcomes_as_json(outcomes) if as_json else outcomes_as_table(outcomes, storage.absolute(root)))
    elif code:
        tell_table(failures_as_mail(outcomes, last_lines))
    sys.exit(code)


def _given(parts: Mapping[str, BaseModel], engine: EngineConfig) -> dict[str, Any]:
    """What was given of a run's config: the rest is the deployment's own."""
    values: dict[str, Any] = {name: part.model_dump(exclude_unset=True) for name, part in parts.items()}
    kmeans = values["kmeans"]
    if "fit_min_actions" in kmeans:
        values["k_selection"]["fit_min_actions"] = kmeans["fit_min_actions"]
    return values | engine.model_dump(exclude_unset=True)


@main.command()
@click.option("--root", default="demo", show_default=True, help="The folder to make it in.")
@click.option("--users", default=50_000, show_default=True, type=click.IntRange(min=1_000), help="How many users.")
@click.option("--seed", default=demo_audience.SEED, show_default=True, help="Of the random numbers.")
@config_options(EngineConfig, "engine")
def demo(root: str, users: int, seed: int, engine: EngineConfig) -> None:
    """Make a sample audience, find its segments, and compare them with those that were put in."""
    with errors_told(), open_project(root) as project:
        from audience_explorer_dagster.run_config import MonthRunConfig

        demo_audience.check_root(storage.absolute(root))
        tell(f"making a sample audience of {users:,} users in {root}")
        demo_audience.make(storage.absolute(root), users, seed)
        outcomes = project.run(
            demo_audience.MONTHS,
            list(demo_audience.CATEGORIES),
            MonthRunConfig(**engine.model_dump(exclude_unset=True)),
        )
        click.echo(outcomes_as_table(outcomes, storage.absolute(root)))
        click.echo(f"\n{demo_results(outcomes, storage.absolute(root))}")
    sys.exit(exit_code(outcomes))


main.add_command(adopt)
main.add_command(categories)
main.add_command(home)
main.add_command(runs)
main.add_command(report)
main.add_command(serve_reports)
main.add_command(segments)
main.add_command(compare)
main.add_command(export)
main.add_command(promote)
main.add_command(prune)
main.add_command(gc)
main.add_command(launch)
main.add_command(ec2)
main.add_command(emr_serverless)
main.add_command(archive)
