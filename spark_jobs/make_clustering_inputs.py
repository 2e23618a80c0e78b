"""Turn a month's grouped users into the clustering inputs of any number of categories, reading the month once.

GROUPED_USERS is an output of group_by_user, or the predecessor's JSON lines. OUTPUT is the folder to make; with
several categories it must hold the text {category}, in whose place their names come.
"""

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spark_jobs import engines, outputs, storage
from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS, ClusteringInputsConfig, EngineConfig
from spark_jobs.engines.pieces import pack, unpack
from spark_jobs.errors import InputError
from spark_jobs.options import config_options
from spark_jobs.outputs import checks
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import Inspection, strictness
from spark_jobs.reporting import Reporter, heartbeat, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.users import grouped_users
from spark_jobs.users.grouping import CODED_USERS
from spark_jobs.vectors.category_files import Category, read_category
from spark_jobs.vectors.profiles import (
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

STEP = "clustering_inputs"
CODE_VERSION = "2"  # raise it with every change of what comes out: partitions are then made again

# Of memory, measured: see benchmarks/profiles.
_SPLIT_BYTES = 300 << 20
_MERGE_RATIO = 20.0


class Written(NamedTuple):
    """What a category's clustering inputs hold."""

    users: int
    fit_users: int  # with enough actions to be learned from
    profiles: int
    entries: int  # of all profiles
    dimensions_in_use: int
    scaling_factor: float | None


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
    grouped, output = storage.absolute(grouped), storage.absolute(output)
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
    runs_on = engines.start(engine, resources)
    index = PageIndex(categories)
    weights = [config.action_weights[action] for action in ACTIONS]
    checked = strictness(engine.strict_schema)

    def split(read: Callable[[], Iterator[pa.RecordBatch]]) -> Generator[dict[int, bytes], None, np.ndarray]:
        tally = np.zeros((len(categories), 2), np.int64)
        for users in read():
            pieces = {}
            for place, vectors in vectors_of(checked(CODED_USERS, users), index, weights, config.min_actions):
                tally[place] += _tally(checked(VECTORS, vectors))
                pieces[place] = pack(vectors)
            yield pieces
        return tally

    def merge(place: int, pieces: Iterator[bytes]) -> Written:
        vectors = checked(VECTORS, pa.Table.from_batches([unpack(piece) for piece in pieces]))
        return _write_category(folders[place], categories[place], vectors, config.scaling, checked)

    parts = grouped_users.parts(grouped)
    making = engines.Exchange(
        f"Making the clustering inputs of {grouped}",
        [part.read for part in parts],
        [part.bytes for part in parts],
        split,
        merge,
        len(categories),
        engines.Demand(_SPLIT_BYTES, _MERGE_RATIO),
    )
    with heartbeat(report, runs_on.progress):
        done = runs_on.exchange(making)
    found = done.merged
    for number, (category, folder) in enumerate(zip(categories, folders, strict=True)):
        if number not in found:  # nobody was on its pages, so no task saw it
            none = pa.Table.from_batches([pa.RecordBatch.from_pylist([], schema=VECTOR)])
            found[number] = _write_category(folder, category, none, config.scaling, checked)
    tallies = [checks.Tally(users, entries) for users, entries in np.sum(done.counted, axis=0).tolist()]
    with ThreadPoolExecutor(resources.cores) as pool:
        checks_of = list(pool.map(_check_output, folders, tallies))
    size = sum(part.bytes for part in parts)
    for number, (category, folder) in enumerate(zip(categories, folders, strict=True)):
        counts = found[number]
        manifest = outputs.finish(
            folder,
            step=STEP,
            code_version=CODE_VERSION,
            config=config.model_dump(mode="json"),
            fingerprint=made_from[number],
            inputs=[source, category.fingerprint],
            rows={"dimensions": len(category.pages), "profiles": counts.profiles, "members": counts.users},
            summary={
                "category": {"id": category.id, "name": category.title, "private": category.private},
                "users": counts.users,
                "fit_users": counts.fit_users,
                "fit_min_actions": FIT_MIN_ACTIONS,
                "profiles": counts.profiles,
                "dimensions": len(category.pages),
                "dimensions_in_use": counts.dimensions_in_use,
                "entries": counts.entries,
                "scaling": config.scaling,
                "scaling_factor": counts.scaling_factor,
                "bytes_in": size,
                "engine": runs_on.version,
                "seconds": round(time.monotonic() - started, 3),
            },
            checks=checks_of[number],
        )
        report.progress(f"{category.name}: {counts.users:,} users, {counts.profiles:,} distinct profiles")
        report.output(folder, manifest)


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
    folder: str, category: Category, vectors: pa.Table, scaling: str, checked: Callable[..., pa.Table]
) -> Written:
    """Write a category's inputs."""
    inputs = build_inputs(category, vectors, scaling)
    outputs.write_table(folder, "dimensions.parquet", checked(DIMENSIONS, inputs.dimensions))
    outputs.write_table(folder, "profiles.parquet", checked(PROFILES, inputs.profiles))
    outputs.write_table(folder, "members.parquet", checked(MEMBERS, inputs.members))
    return Written(
        inputs.members.num_rows,
        int(inputs.profiles["fit_weight"].to_numpy().sum()),
        inputs.profiles.num_rows,
        len(inputs.profiles["indices"].combine_chunks().flatten()),
        sum(n > 0 for n in inputs.dimensions["users"].to_pylist()),
        inputs.scaling_factor,
    )


def _tally(vectors: pa.RecordBatch) -> np.ndarray:
    """How many users these vectors are of, and how many entries they have; (2,)."""
    vector = vectors.column("vector")
    length = pc.binary_length(vector.dictionary).to_numpy()[vector.indices.to_numpy()]
    return np.array([len(vector), length.sum() // ENTRY.itemsize], np.int64)


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


if __name__ == "__main__":
    run_as_command(main)
