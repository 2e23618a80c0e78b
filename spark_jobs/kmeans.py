"""Cluster a category's users by k-means.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `data.json` (the users of each cluster),
`meta-data.json` (what each cluster is like), `assignments.parquet`, `centers.parquet` and `summary.json`.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs import checks, clustering, clustering_inputs, outputs, select_k, storage
from spark_jobs.config import EngineConfig, KMeansConfig, parse_params
from spark_jobs.fingerprints import fingerprint
from spark_jobs.options import config_options
from spark_jobs.profiles import MEMBERS
from spark_jobs.reporting import reporter, run_as_command
from spark_jobs.schemas import AT_LEAST_0, AT_LEAST_1, Inspection, Table, strictness

STEP = "kmeans"
CODE_VERSION = "1"  # raise it with every change of what comes out: partitions are then made again

ASSIGNMENT = pa.schema([("user_id", pa.string()), ("cluster_id", pa.int32()), ("distance", pa.float64())])
CENTER = pa.schema([("cluster_id", pa.int32()), ("users", pa.int64()), ("center", pa.list_(pa.float64()))])

ASSIGNMENTS = Table(
    "assignments.parquet",
    ASSIGNMENT,
    filled=("user_id",),
    ranges={"cluster_id": AT_LEAST_0, "distance": AT_LEAST_0},
    key="user_id",
)
CENTERS = Table("centers.parquet", CENTER, ranges={"cluster_id": AT_LEAST_0, "users": AT_LEAST_1}, key="cluster_id")
DATA = Table(
    "data.json",
    pa.schema([("cluster_id", pa.int32()), ("user_ids", pa.list_(pa.string()))]),
    filled=("user_ids",),
    ranges={"cluster_id": AT_LEAST_0},
)
META_DATA = Table(
    "meta-data.json",
    pa.schema(
        [
            ("cluster_id", pa.int32()),
            ("cluster_member_count", pa.int64()),
            ("private", pa.bool_()),
            ("cluster_diameter", pa.float64()),
            ("cluster_wssse", pa.float64()),
            (
                "dimensions",
                pa.list_(
                    pa.struct(
                        [
                            ("dimension_id", pa.string()),
                            ("dimension_name", pa.string()),
                            ("member_count", pa.int64()),
                            *((value, pa.float64()) for value in ("center", "min", "max", "avg")),
                        ]
                    )
                ),
            ),
        ]
    ),
    filled=("dimensions.dimension_id",),
    ranges={
        "cluster_id": AT_LEAST_0,
        "cluster_member_count": AT_LEAST_1,
        **dict.fromkeys(("cluster_diameter", "cluster_wssse", "dimensions.member_count"), AT_LEAST_0),
    },
)

_MEMBERS_READ = MEMBERS.only("user_id", "profile_id")
_TOP_PAGES = 5


def step_fingerprint(config: KMeansConfig, inputs: str, k_selection: str | None) -> str:
    """The fingerprint of a clustering, of those of its inputs and, where no k is given, of the choice of k."""
    sources = [inputs] if config.k is not None else [inputs, str(k_selection)]
    return fingerprint(STEP, CODE_VERSION, config.fingerprinted(), sources)


@click.command(help=__doc__)
@click.argument("inputs")
@click.argument("output")
@click.option("--k-selection", metavar="FOLDER", help="An output of select_k, whose k is used if --k is not given.")
@config_options(KMeansConfig)
@config_options(EngineConfig, "engine")
def main(inputs: str, output: str, k_selection: str | None, config: KMeansConfig, engine: EngineConfig) -> None:
    # scikit-learn does the work on either engine; the option is there so that all jobs take the same ones.
    report = reporter()
    started = time.monotonic()
    source = clustering_inputs.read(storage.absolute(inputs), engine.strict_schema)
    if config.k is not None:
        wanted, choice = config.k, None
    elif k_selection is not None:
        wanted, choice = select_k.read_k(storage.absolute(k_selection))
    else:
        raise click.UsageError("Give --k, or with --k-selection an output of select_k.")
    profiles = source.profiles.shape[0]
    if wanted > profiles:
        report.progress(f"k is cut from {wanted} to {profiles}: there are no more distinct profiles")
    folder = storage.absolute(output)
    made_from = step_fingerprint(config, source.fingerprint, choice)
    if finished := outputs.start(folder, made_from):
        report.output(folder, finished)
        return

    def progress(init: int, model: clustering.Model) -> None:
        state = "converged" if model.converged else "not converged"
        report.detail(
            f"init {init} of {config.n_init}: wssse {model.wssse:.6g}, {state} after {model.iterations} iterations"
        )

    model = clustering.fit(
        source.profiles, source.weight, wanted, parse_params(config.params), config.n_init, config.seed, progress
    )
    scores = clustering.scores(source.profiles, source.weight, model)
    engine_version = clustering.engine_version()
    meta_data = _meta_data(source, model)
    checked = strictness(engine.strict_schema)
    users = _write_members(folder, source, model, checked)
    _write_json_lines(folder, "meta-data.json", meta_data)
    outputs.write_table(folder, "centers.parquet", checked(CENTERS, _centers(model)))
    facts = {
        "k": model.k,
        "requested_k": wanted,
        "params": config.params,
        "n_init": config.n_init,
        "seed": config.seed,
        "label": config.label,
        "wssse": model.wssse,
        "iterations": model.iterations,
        "converged": model.converged,
        "scores": scores,
        "engine": engine_version,
    }
    storage.write_text(storage.join(folder, "summary.json"), json.dumps(facts, indent=1) + "\n")
    manifest = outputs.finish(
        folder,
        step=STEP,
        code_version=CODE_VERSION,
        config=config.model_dump(mode="json"),
        fingerprint=made_from,
        inputs=[source.fingerprint, *([choice] if choice is not None else [])],
        rows={"clusters": model.k, "assignments": int(source.weight.sum())},
        summary={
            **facts,
            "users": int(source.weight.sum()),
            "profiles": profiles,
            "clustering_inputs": source.config,
            "clusters": [_digest(row) for row in meta_data],
            "bytes_in": source.bytes,
            "seconds": round(time.monotonic() - started, 3),
        },
        checks=_check_output(folder, source, users),
    )
    report.progress(f"{model.k} clusters of {int(source.weight.sum()):,} users, wssse {model.wssse:.6g}")
    report.output(folder, manifest)


def _meta_data(source: clustering_inputs.Inputs, model: clustering.Model) -> list[dict[str, Any]]:
    """The lines of meta-data.json."""
    found = clustering.describe(source.profiles, source.weight, model)
    diameters = clustering.diameters(model)
    ids, names = source.dimensions["dimension_id"].to_pylist(), source.dimensions["dimension_name"].to_pylist()
    return [
        {
            "cluster_id": cluster,
            "cluster_member_count": int(model.users[cluster]),
            "private": source.category["private"],
            "cluster_diameter": float(diameters[cluster]),
            "cluster_wssse": model.wssse,
            "dimensions": [
                {
                    "dimension_id": ids[d],
                    "dimension_name": names[d],
                    "member_count": int(found.member_count[cluster, d]),
                    "center": float(model.centers[cluster, d]),
                    "min": float(found.minimum[cluster, d]),
                    "max": float(found.maximum[cluster, d]),
                    "avg": float(found.average[cluster, d]),
                }
                for d in range(len(ids))
            ],
        }
        for cluster in range(model.k)
    ]


def _digest(row: dict[str, Any]) -> dict[str, Any]:
    """A line of meta-data.json in short: the cluster's users, and the pages most of them are on."""
    users = row["cluster_member_count"]
    top = sorted(row["dimensions"], key=lambda d: (-d["member_count"], -d["center"], d["dimension_id"]))[:_TOP_PAGES]
    return {
        "cluster_id": row["cluster_id"],
        "users": users,
        "diameter": row["cluster_diameter"],
        "top_pages": [
            {"name": d["dimension_name"], "share": round(d["member_count"] / users, 4)}
            for d in top
            if d["member_count"]
        ],
    }


def _centers(model: clustering.Model) -> pa.Table:
    clusters = range(model.k)
    columns = [clusters, model.users.tolist(), model.centers.tolist()]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, CENTER, strict=True)], schema=CENTER
    )


def _write_members(
    folder: str, source: clustering_inputs.Inputs, model: clustering.Model, checked: Callable[[Table, Any], Any]
) -> checks.Roll:
    """Write `assignments.parquet` and `data.json`, both by user_id, as the members are, and give back who these are."""
    roll = checks.Roll()
    user_ids: list[list[pa.Array]] = [[] for _ in range(model.k)]
    with (
        outputs.open_file(folder, "assignments.parquet") as file,
        pq.ParquetWriter(file, ASSIGNMENT, compression="zstd") as writer,
    ):

        def assign(members: pa.RecordBatch) -> None:
            profile = checked(_MEMBERS_READ, members).column("profile_id").to_numpy()
            cluster = model.labels[profile].astype(np.int32)
            users = members.column("user_id")
            roll.add(users)
            assigned = [users, pa.array(cluster), pa.array(model.distances[profile])]
            writer.write_batch(checked(ASSIGNMENTS, pa.RecordBatch.from_arrays(assigned, schema=ASSIGNMENT)))
            for number in np.unique(cluster):
                user_ids[number].append(users.filter(pa.array(cluster == number)))

        outputs.for_each_batch(source.folder, "members.parquet", _MEMBERS_READ.schema.names, assign)
    with outputs.open_file(folder, "data.json") as file:
        for number, chunks in enumerate(user_ids):
            file.write(b'{"cluster_id": %d, "user_ids": [' % number)
            for place, chunk in enumerate(chunks):
                listed = json.dumps(chunk.to_pylist(), ensure_ascii=False)[1:-1]
                file.write(((", " if place else "") + listed).encode())
            file.write(b"]}\n")
    return roll


def _check_output(folder: str, source: clustering_inputs.Inputs, users: checks.Roll) -> dict[str, checks.Check]:
    """Read back what was written, and compare it with the users and the profiles of the inputs."""
    assignments, centers, data, meta_data = map(Inspection, (ASSIGNMENTS, CENTERS, DATA, META_DATA))
    assigned = checks.assigned_users(outputs.read_back(folder, "assignments.parquet", assignments))
    listed = checks.listed_users(outputs.read_back_json(folder, "data.json", data, lines=True))
    center_rows = list(outputs.read_back(folder, "centers.parquet", centers))
    told = list(outputs.read_back_json(folder, "meta-data.json", meta_data, lines=True))
    sizes = {
        "centers.parquet": [users for batch in center_rows for users in batch.column("users").to_pylist()],
        "meta-data.json": [batch.column("cluster_member_count")[0].as_py() for batch in told],
    }
    return {
        "schema": checks.schema(assignments, centers, data, meta_data),
        "every_user_once": checks.every_user_once(users, assigned, listed, sizes),
        "centers_in_range": checks.centers_in_range(
            center_rows,
            *clustering.value_range(source.profiles),
            [batch.column("dimensions").flatten().field("center").to_pylist() for batch in told],
        ),
    }


def _write_json_lines(folder: str, name: str, rows: list[dict[str, Any]]) -> None:
    with outputs.open_file(folder, name) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    run_as_command(main)
