"""Cluster a category's users by k-means.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `data.json` (the users of each cluster),
`meta-data.json` (what each cluster is like), `assignments.parquet`, `centers.parquet` and `summary.json`.
"""

import json
import time
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs import clustering, clustering_inputs, outputs, select_k, storage
from spark_jobs.config import EngineConfig, KMeansConfig, parse_params
from spark_jobs.fingerprints import fingerprint
from spark_jobs.options import config_options
from spark_jobs.reporting import reporter, run_as_command

STEP = "kmeans"
CODE_VERSION = "1"  # raise it with every change of what comes out: partitions are then made again

ASSIGNMENT = pa.schema([("user_id", pa.string()), ("cluster_id", pa.int32()), ("distance", pa.float64())])
CENTER = pa.schema([("cluster_id", pa.int32()), ("users", pa.int64()), ("center", pa.list_(pa.float64()))])

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
@config_options(EngineConfig, "_engine")
def main(inputs: str, output: str, k_selection: str | None, config: KMeansConfig, _engine: EngineConfig) -> None:
    # scikit-learn does the work on either engine; the option is there so that all jobs take the same ones.
    report = reporter()
    started = time.monotonic()
    source = clustering_inputs.read(storage.absolute(inputs))
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
    _write_members(folder, source, model)
    _write_json_lines(folder, "meta-data.json", meta_data)
    outputs.write_table(folder, "centers.parquet", _centers(model))
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
            "clusters": [_digest(row) for row in meta_data],
            "bytes_in": source.bytes,
            "seconds": round(time.monotonic() - started, 3),
        },
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


def _write_members(folder: str, source: clustering_inputs.Inputs, model: clustering.Model) -> None:
    """Write `assignments.parquet` and `data.json`, both by user_id, as the members are."""
    user_ids: list[list[pa.Array]] = [[] for _ in range(model.k)]
    with (
        outputs.open_file(folder, "assignments.parquet") as file,
        pq.ParquetWriter(file, ASSIGNMENT, compression="zstd") as writer,
    ):

        def assign(members: pa.RecordBatch) -> None:
            profile = members.column("profile_id").to_numpy()
            cluster = model.labels[profile].astype(np.int32)
            users = members.column("user_id")
            writer.write_batch(
                pa.RecordBatch.from_arrays(
                    [users, pa.array(cluster), pa.array(model.distances[profile])], schema=ASSIGNMENT
                )
            )
            for number in np.unique(cluster):
                user_ids[number].append(users.filter(pa.array(cluster == number)))

        outputs.for_each_batch(source.folder, "members.parquet", ["user_id", "profile_id"], assign)
    with outputs.open_file(folder, "data.json") as file:
        for number, chunks in enumerate(user_ids):
            file.write(b'{"cluster_id": %d, "user_ids": [' % number)
            for place, chunk in enumerate(chunks):
                listed = json.dumps(chunk.to_pylist(), ensure_ascii=False)[1:-1]
                file.write(((", " if place else "") + listed).encode())
            file.write(b"]}\n")


def _write_json_lines(folder: str, name: str, rows: list[dict[str, Any]]) -> None:
    with outputs.open_file(folder, name) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    run_as_command(main)
