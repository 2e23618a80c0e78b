"""Turn a month's grouped users into the clustering inputs of any number of categories, reading the month once.

GROUPED_USERS is an output of group_by_user, or the predecessor's JSON lines. OUTPUT is the folder to make; with
several categories it must hold the text {category}, in whose place their names come.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs import checks, engines, grouped_users, outputs, storage
from spark_jobs.categories import Category, read_category
from spark_jobs.config import ACTIONS, ClusteringInputsConfig, EngineConfig, Scaling
from spark_jobs.errors import InputError
from spark_jobs.fingerprints import fingerprint
from spark_jobs.grouping import USERS
from spark_jobs.options import config_options
from spark_jobs.profiles import (
    DIMENSIONS,
    ENTRY,
    MEMBERS,
    PROFILES,
    VECTOR,
    VECTORS,
    PageIndex,
    build_inputs,
    vectors_of,
)
from spark_jobs.reporting import heartbeat, reporter, run_as_command
from spark_jobs.schemas import AT_LEAST_0, Inspection, Table, strictness

STEP = "clustering_inputs"
CODE_VERSION = "1"  # raise it with every change of what comes out: partitions are then made again

_TALLIES = "_tallies"  # how many vectors each task made, in the first category's folder


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
def main(
    grouped_users: str,
    output: str,
    category_files: tuple[str, ...],
    config: ClusteringInputsConfig,
    engine: EngineConfig,
) -> None:
    make(storage.absolute(grouped_users), storage.absolute(output), category_files, config, engine)


def make(
    grouped: str, output: str, category_files: tuple[str, ...], config: ClusteringInputsConfig, engine: EngineConfig
) -> None:
    """Make the inputs of all categories, and report each; see the command."""
    report = reporter()
    started = time.monotonic()
    categories = [read_category(file) for file in category_files]
    folders = _folders(output, [category.name for category in categories])
    source = grouped_users.fingerprint_of(grouped)
    made_from = [step_fingerprint(config, source, category.fingerprint) for category in categories]
    finished = [outputs.start(folder, of) for folder, of in zip(folders, made_from, strict=True)]
    for folder, manifest in zip(folders, finished, strict=True):
        if manifest is not None:
            report.output(folder, manifest)
    todo = [number for number, manifest in enumerate(finished) if manifest is None]
    if not todo:
        return
    categories = [categories[number] for number in todo]
    folders = [folders[number] for number in todo]
    made_from = [made_from[number] for number in todo]
    report.progress(f"making the clustering inputs of {len(categories)} categories with {engine.engine}")
    spark = engines.session_of(engine)
    index = PageIndex(categories)
    weights = [config.action_weights[action] for action in ACTIONS]
    checked = strictness(engine.strict_schema)

    def to_vectors(item: tuple[int, Callable[[], Iterator[pa.RecordBatch]]]) -> Iterator[pa.RecordBatch]:
        number, read = item
        tally = np.zeros((len(categories), 2), np.int64)
        for users in read():
            vectors = checked(VECTORS, vectors_of(checked(USERS, users), index, weights, config.min_actions))
            tally += _tally(vectors, len(categories))
            yield vectors
        storage.write_text(storage.join(folders[0], _TALLIES, f"{number:05d}.json"), json.dumps(tally.tolist()))

    def write(vectors: pa.Table) -> pa.Table:
        number = checked(VECTORS, vectors)["category"][0].as_py()
        return checked(
            _WRITTEN_ROW, _write_category(folders[number], number, categories[number], vectors, config.scaling, checked)
        )

    written = (
        engines.map_items(
            spark,
            list(enumerate(grouped_users.readers(grouped))),
            to_vectors,
            "category int, user_id string, gender string, vector binary",
        )
        .groupBy("category")
        .applyInArrow(write, _WRITTEN)
    )
    with heartbeat(report, lambda: _progress(folders)):
        found = {row["category"]: row.asDict() for row in engines.collect(written)}

    for number, (category, folder) in enumerate(zip(categories, folders, strict=True)):
        if number not in found:  # nobody was on its pages, so no task saw it
            none = _write_category(folder, number, category, VECTOR.empty_table(), config.scaling, checked)
            found[number] = none.to_pylist()[0]
    tallies = _read_tallies(folders[0])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks_of = list(pool.map(_check_output, folders, tallies))
    size = grouped_users.bytes_of(grouped)
    for number, (category, folder) in enumerate(zip(categories, folders, strict=True)):
        counts = found[number]
        manifest = outputs.finish(
            folder,
            step=STEP,
            code_version=CODE_VERSION,
            config=config.model_dump(mode="json"),
            fingerprint=made_from[number],
            inputs=[source, category.fingerprint],
            rows={"dimensions": len(category.pages), "profiles": counts["profiles"], "members": counts["users"]},
            summary={
                "category": {"id": category.id, "name": category.title, "private": category.private},
                "users": counts["users"],
                "profiles": counts["profiles"],
                "dimensions": len(category.pages),
                "dimensions_in_use": counts["dimensions_in_use"],
                "entries": counts["entries"],
                "scaling": config.scaling,
                "scaling_factor": counts["scaling_factor"],
                "bytes_in": size,
                "engine": engines.version_of(spark),
                "seconds": round(time.monotonic() - started, 3),
            },
            checks=checks_of[number],
        )
        report.progress(f"{category.name}: {counts['users']:,} users, {counts['profiles']:,} distinct profiles")
        report.output(folder, manifest)


_WRITTEN = (
    "category int, users bigint, profiles bigint, entries bigint, dimensions_in_use bigint, scaling_factor double"
)
_COUNTS = ("users", "profiles", "entries", "dimensions_in_use")
_WRITTEN_ROW = Table(
    "written categories",
    pa.schema(
        [("category", pa.int32()), *((count, pa.int64()) for count in _COUNTS), ("scaling_factor", pa.float64())]
    ),
    ranges=dict.fromkeys(("category", *_COUNTS), AT_LEAST_0),
    optional=("scaling_factor",),
)


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


def _write_category(
    folder: str, number: int, category: Category, vectors: pa.Table, scaling: Scaling, checked: Callable[..., pa.Table]
) -> pa.Table:
    """Write a category's inputs, and give back what they are, as one row of `_WRITTEN`."""
    inputs = build_inputs(category, vectors, scaling)
    outputs.write_table(folder, "dimensions.parquet", checked(DIMENSIONS, inputs.dimensions))
    outputs.write_table(folder, "profiles.parquet", checked(PROFILES, inputs.profiles))
    outputs.write_table(folder, "members.parquet", checked(MEMBERS, inputs.members))
    return pa.table(
        {
            "category": pa.array([number], pa.int32()),
            "users": pa.array([inputs.members.num_rows], pa.int64()),
            "profiles": pa.array([inputs.profiles.num_rows], pa.int64()),
            "entries": pa.array([len(inputs.profiles["indices"].combine_chunks().flatten())], pa.int64()),
            "dimensions_in_use": pa.array([sum(n > 0 for n in inputs.dimensions["users"].to_pylist())], pa.int64()),
            "scaling_factor": pa.array([inputs.scaling_factor], pa.float64()),
        }
    )


def _tally(vectors: pa.RecordBatch, categories: int) -> np.ndarray:
    """Of each category how many users have a vector, and how many entries these have; (categories, 2)."""
    category = vectors.column("category").to_numpy()
    length = pc.binary_length(vectors.column("vector")).to_numpy()
    entries = np.bincount(category, length // ENTRY.itemsize, minlength=categories).astype(np.int64)
    return np.column_stack([np.bincount(category, minlength=categories), entries])


def _read_tallies(folder: str) -> list[checks.Tally]:
    """What all tasks made together, by category; what they noted is deleted, for it is no part of the output."""
    path = storage.at(storage.join(folder, _TALLIES))
    of_tasks = [json.loads(file.read_text(encoding="utf-8")) for file in path.iterdir()]
    storage.delete_folder(str(path))
    return [checks.Tally(users, entries) for users, entries in np.sum(of_tasks, axis=0).tolist()]


def _check_output(folder: str, made: checks.Tally) -> dict[str, checks.Check]:
    """Read back what was written of a category, and compare it with what was made."""
    dimensions, profiles, members = Inspection(DIMENSIONS), Inspection(PROFILES), Inspection(MEMBERS)
    conservation = checks.conservation_of_users(
        made,
        outputs.read_back(folder, "dimensions.parquet", dimensions),
        outputs.read_back(folder, "profiles.parquet", profiles),
        outputs.read_back(folder, "members.parquet", members),
    )
    return {"schema": checks.schema(dimensions, profiles, members), "conservation": conservation}


def _progress(folders: list[str]) -> str:
    done = sum(storage.at(storage.join(folder, "members.parquet")).exists() for folder in folders)
    return f"wrote {done} of {len(folders)} categories"


if __name__ == "__main__":
    run_as_command(main)
