"""Turn a month's grouped users into the clustering inputs of any number of categories, reading the month once.

GROUPED_USERS is an output of group_by_user, or the predecessor's JSON lines. OUTPUT is the folder to make; with
several categories it must hold the text {category}, in whose place their names come.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import numpy as np

from spark_jobs import engines, outputs, storage
from spark_jobs.clusters.published import in_words
from spark_jobs.config import FIT_MIN_ACTIONS, ClusteringInputsConfig, EngineConfig
from spark_jobs.errors import InputError
from spark_jobs.options import config_options
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import strictness
from spark_jobs.reporting import Reporter, heartbeat, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.users.grouped_users import fingerprint_of, list_parts, users_of
from spark_jobs.vectors.category_files import Category, read_category
from spark_jobs.vectors.checks import VectorCounts, check_clustering_inputs
from spark_jobs.vectors.shuffle import InputsCounts, inputs_exchange, write_inputs

STEP = "clustering_inputs"
CODE_VERSION = "3"  # raise it with every change of what comes out: partitions are then made again


def step_fingerprint(config: ClusteringInputsConfig, grouped: str, category: str) -> str:
    """The fingerprint of a category's inputs; `grouped` and `category` are those of what they are made from."""
    return fingerprint(STEP, CODE_VERSION, config.fingerprinted(), [grouped, category])


@click.command(help=__doc__)
@click.argument("grouped_users", metavar="GROUPED_USERS")
@click.argument("output")
@click.option(
    "--category", "category_files", multiple=True, required=True, metavar="FILE", help="A category file; repeat it."
)
@config_options(ClusteringInputsConfig)
@config_options(EngineConfig, "engine")
@config_options(ResourcesConfig, "allowed")
def main(
    grouped_users: str,
    output: str,
    category_files: tuple[str, ...],
    config: ClusteringInputsConfig,
    engine: EngineConfig,
    allowed: ResourcesConfig,
) -> None:
    run(grouped_users, output, category_files, config, engine, allowed.resolve(), Reporter())


def run(
    grouped: str,
    output: str,
    category_files: tuple[str, ...],
    config: ClusteringInputsConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Make the inputs of all categories, and report each; see the command."""
    started = time.monotonic()
    grouped = storage.absolute(grouped)
    categories = [read_category(file) for file in category_files]
    folders = _folders(storage.absolute(output), [category.name for category in categories])
    source = fingerprint_of(grouped)
    with contextlib.ExitStack() as stack:
        todo: list[tuple[Category, outputs.Output]] = []
        # A stack is unwound from its end: outputs are finished in the order of the categories.
        for category, folder in reversed(list(zip(categories, folders, strict=True))):
            writing = outputs.writing(
                STEP,
                CODE_VERSION,
                folder,
                report,
                config=config,
                inputs=[source, category.fingerprint],
                fingerprint=step_fingerprint(config, source, category.fingerprint),
                started=started,
            )
            made = stack.enter_context(writing)
            if not made.finished:
                todo.insert(0, (category, made))
        if todo:
            _make(todo, grouped, config, engine, resources, report)


def _make(
    todo: list[tuple[Category, outputs.Output]],
    grouped: str,
    config: ClusteringInputsConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Make the inputs of the categories that are still to be made, reading the grouped users once."""
    report.progress(f"making the clustering inputs of {len(todo)} categories with {engine.engine}")
    categories, folders = [category for category, _ in todo], [made.folder for _, made in todo]
    runs_on, parts = engines.start(engine, resources), list_parts(grouped)
    with heartbeat(report, runs_on.progress):
        done = runs_on.exchange(inputs_exchange(grouped, parts, categories, folders, config, engine.strict_schema))
    bytes_in, month_users = sum(part.bytes for part in parts), users_of(grouped)
    vectors = np.sum(done.counted, axis=0).tolist()
    with ThreadPoolExecutor(resources.cores) as threads:
        for number, (category, made) in enumerate(todo):
            counts = done.merged.get(number)
            if counts is None:  # nobody is on its pages
                counts = write_inputs(made.folder, category, None, config.scaling, strictness(engine.strict_schema))
            checks = threads.submit(check_clustering_inputs, made.folder, VectorCounts(*vectors[number]))
            made.complete(
                rows={"dimensions": len(category.pages), "profiles": counts.profiles, "members": counts.users},
                summary={
                    **_summary(category, counts, config),
                    "month_users": month_users,
                    "bytes_in": bytes_in,
                    "engine": runs_on.version,
                },
                inspect=checks.result,
                message=f"{category.name}: {in_words(counts.users)} users,"
                f" {in_words(counts.profiles)} distinct profiles",
            )


def _summary(category: Category, counts: InputsCounts, config: ClusteringInputsConfig) -> dict[str, Any]:
    return {
        "category": {"id": category.id, "name": category.title, "private": category.private},
        "users": counts.users,
        "fit_users": counts.fit_users,
        "fit_min_actions": FIT_MIN_ACTIONS,
        "profiles": counts.profiles,
        "dimensions": len(category.pages),
        "dimensions_in_use": counts.dimensions_in_use,
        "entries": counts.entries,
        "actions": counts.actions,
        "scaling": config.scaling,
        "scaling_factor": counts.scaling_factor,
    }


def _folders(output: str, names: list[str]) -> list[str]:
    if len(names) > 1 and "{category}" not in output:
        raise InputError(
            f"OUTPUT is {output} for {len(names)} categories; it must hold the text {{category}}, such as"
            f" {storage.join(output, '{category}')}."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Category {twice[0]} is given twice.")
    return [output.replace("{category}", name) for name in names]


if __name__ == "__main__":
    run_as_command(main)
