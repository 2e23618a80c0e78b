"""Cluster a category's users by k-means.

INPUTS is an output of make_clustering_inputs, OUTPUT the folder to make: `data.json` (the users of each cluster),
`meta-data.json` (what each cluster is like), `assignments.parquet`, `centers.parquet` and `summary.json`.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from spark_jobs import outputs, select_k, storage
from spark_jobs.clusters import clustering, stability
from spark_jobs.clusters.learned import ASSIGNMENT, Clusters, Learned, stabilities_on_sample
from spark_jobs.config import EngineConfig, KMeansConfig, parse_params
from spark_jobs.engines.pieces import Piece, Spill
from spark_jobs.errors import InputError
from spark_jobs.options import config_options
from spark_jobs.outputs import checks
from spark_jobs.outputs.fingerprints import fingerprint
from spark_jobs.outputs.schemas import AT_LEAST_0, AT_LEAST_1, Inspection, Table, strictness
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.resources import Resources, ResourcesConfig
from spark_jobs.texts import json_items
from spark_jobs.vectors import clustering_inputs
from spark_jobs.vectors.profiles import MEMBERS

STEP = "kmeans"
CODE_VERSION = "3"  # raise it with every change of what comes out: partitions are then made again

CENTER = pa.schema([("cluster_id", pa.int32()), ("users", pa.int64()), ("center", pa.list_(pa.float64()))])

ASSIGNMENTS = Table(
    "assignments.parquet",
    ASSIGNMENT,
    filled=("user_id",),
    ranges={"cluster_id": AT_LEAST_0, "distance": AT_LEAST_0, "confidence": (0, 1)},
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
            ("cluster_stability", pa.float64()),
            ("cluster_solidity", pa.string()),
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
        "cluster_stability": (0, 1),
    },
    optional=("cluster_stability",),  # where nobody was learned from
)

_MEMBERS_READ = MEMBERS.only("user_id", "profile_id")
_TOP_PAGES = 5
_ASSIGNED = "_assigned"  # the rows of assignments.parquet as Spark writes them, in several files
_FEW_USERS = 1 << 17  # whose rows are read back faster than threads take turns


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
@config_options(ResourcesConfig, "allowed")
def main(
    inputs: str,
    output: str,
    k_selection: str | None,
    config: KMeansConfig,
    engine: EngineConfig,
    allowed: ResourcesConfig,
) -> None:
    if config.k is None and k_selection is None:
        raise click.UsageError("Give --k, or with --k-selection an output of select_k.")
    run(inputs, output, k_selection, config, engine, allowed.resolve(), Reporter())


def run(
    inputs: str,
    output: str,
    k_selection: str | None,
    config: KMeansConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> None:
    """Cluster; see the command. Without a k in the config, `k_selection` has it."""
    started = time.monotonic()
    head = clustering_inputs.read_head(storage.absolute(inputs), engine.strict_schema)
    if config.k is not None:
        wanted, verdict, choice = config.k, None, None
    else:
        assert k_selection is not None
        wanted, verdict, choice = select_k.read_choice(storage.absolute(k_selection))
    if wanted > max(1, head.profiles):
        report.progress(f"k is cut from {wanted} to {head.profiles}: there are no more distinct profiles")
    folder = storage.absolute(output)
    made_from = step_fingerprint(config, head.fingerprint, choice)
    if finished := outputs.start(folder, made_from):
        report.output(folder, finished)
        return
    found = _fit(head, min(wanted, head.profiles), folder, config, engine, resources, report)
    checked = strictness(engine.strict_schema)
    meta_data = _meta_data(head, found)
    _write_members(folder, found, checked, resources.scratch)
    _write_json_lines(folder, "meta-data.json", meta_data)
    outputs.write_table(folder, "centers.parquet", checked(CENTERS, _centers(found)))
    facts = {
        "k": found.k,
        "requested_k": wanted,
        "verdict": verdict,
        "params": config.params,
        "n_init": config.n_init,
        "seed": config.seed,
        "label": config.label,
        "wssse": found.scores["wssse"],
        "iterations": found.iterations,
        "converged": found.converged,
        "scores": found.scores,
        "learned_from": {
            "users": found.learned.users,
            "min_actions": found.learned.min_actions,
            "wssse": found.learned.wssse,
        },
        "solidity": [
            {
                "cluster_id": row["cluster_id"],
                "stability": row["cluster_stability"],
                "solidity": row["cluster_solidity"],
            }
            for row in meta_data
        ],
        "engine": found.library,
    }
    storage.write_text(storage.join(folder, "summary.json"), json.dumps(facts, indent=1) + "\n")
    manifest = outputs.finish(
        folder,
        step=STEP,
        code_version=CODE_VERSION,
        config=config.model_dump(mode="json"),
        fingerprint=made_from,
        inputs=[head.fingerprint, *([choice] if choice is not None else [])],
        rows={"clusters": found.k, "assignments": head.users},
        summary={
            **facts,
            "users": head.users,
            "profiles": head.profiles,
            "clustering_inputs": head.config,
            "clusters": [_digest(row) for row in meta_data],
            "bytes_in": head.bytes,
            "seconds": round(time.monotonic() - started, 3),
        },
        checks=_check_output(folder, head, found, resources.cores),
    )
    clusters = "1 cluster" if found.k == 1 else f"{found.k} clusters"
    report.progress(f"{clusters} of {head.users:,} users, wssse {found.scores['wssse']:.6g}")
    report.output(folder, manifest)


def _fit(
    head: clustering_inputs.Head,
    k: int,
    folder: str,
    config: KMeansConfig,
    engine: EngineConfig,
    resources: Resources,
    report: Reporter,
) -> Clusters:
    """Cluster with the library that the config asks for."""
    if config.library == "numpy":
        clustering_inputs.check_memory(head, k, resources)
        return fit_here(clustering_inputs.read(head, engine.strict_schema), k, config, engine, report, resources)
    if engine.engine != "spark":
        raise InputError(
            f"The library mllib is Spark's, and the engine is {engine.engine}. Choose the engine spark (--engine spark,"
            " or `engine` in the run's config), or the library numpy."
        )
    from spark_jobs.clusters import mllib
    from spark_jobs.engines.spark import SparkEngine

    spark = SparkEngine(engine.spark_master, resources)
    return mllib.fit(spark, head, k, config, engine.strict_schema, storage.join(folder, _ASSIGNED), report)


def fit_here(
    source: clustering_inputs.Inputs,
    k: int,
    config: KMeansConfig,
    engine: EngineConfig,
    report: Reporter,
    resources: Resources,
) -> Clusters:
    """Cluster in this process."""

    def progress(init: int, model: clustering.Model) -> None:
        state = "converged" if model.converged else "not converged"
        report.detail(
            f"init {init} of {config.n_init}: wssse {model.wssse:.6g}, {state} after {model.iterations} iterations"
        )

    fit_weight, min_actions = _learned_from(source, k, config, report)
    fitted, model = learn_and_place(source.profiles, source.weight, fit_weight, k, config, progress, resources.cores)
    return Clusters(
        model.centers,
        model.users,
        clustering.diameters(model),
        clustering.describe(source.profiles, source.weight, model),
        clustering.value_range(source.profiles),
        model.iterations,
        model.converged,
        clustering.scores(source.profiles, source.weight, model),
        clustering.engine_version(),
        Learned(
            int(fit_weight.sum()),
            min_actions,
            fitted.wssse,
            stabilities_on_sample(source.head, min_actions, model.centers, config.seed, engine.strict_schema),
        ),
        _assign(source, model, engine),
    )


def learn_and_place(
    profiles: sp.csr_matrix,
    weight: np.ndarray,
    fit_weight: np.ndarray,
    k: int,
    config: KMeansConfig,
    progress: Callable[[int, clustering.Model], None] = lambda _init, _model: None,
    cores: int = 1,
) -> tuple[clustering.Model, clustering.Model]:
    """Learn k clusters from some of the users, and assign everybody to the nearest.

    Args:
        profiles: (n, d).
        weight: (n,) users of each.
        fit_weight: (n,) those of them who are learned from.
        k: How many clusters.
        config: The rest.
        progress: See `clustering.fit`.
        cores: Likewise.

    Returns:
        The model of those who are learned from, and that of everybody.
    """
    learned = np.flatnonzero(fit_weight)
    params = parse_params(config.params)
    fitted = clustering.fit(
        profiles[learned], fit_weight[learned], k, params, config.n_init, config.seed, progress, cores
    )
    return fitted, clustering.place(fitted, profiles, weight)


def _learned_from(
    source: clustering_inputs.Inputs, k: int, config: KMeansConfig, report: Reporter
) -> tuple[np.ndarray, int]:
    """How many users of each profile are learned from, (n,), and how many actions each of them has at least.

    Where fewer than ten a cluster have done enough, it is everybody; so it is for inputs that don't say who did enough.
    """
    if source.head.fit_min_actions is None:
        return source.weight, 0
    fit_weight = clustering_inputs.fit_weight(source, config.fit_min_actions)
    if clustering_inputs.enough_to_learn(int(fit_weight.sum()), int(np.count_nonzero(fit_weight)), k):
        return fit_weight, config.fit_min_actions
    report.progress(
        f"learned from all {source.head.users:,} users: {fit_weight.sum():,} have {config.fit_min_actions} actions or"
        f" more, too few for {k} clusters"
    )
    return source.weight, 0


def _assign(
    source: clustering_inputs.Inputs, model: clustering.Model, engine: EngineConfig
) -> Iterator[pa.RecordBatch]:
    checked = strictness(engine.strict_schema)
    if not model.k:
        return
    _, _, to_next = clustering.assign(source.profiles, model.centers)
    confidence = clustering.confidence(model.distances, to_next)
    for members in outputs.read_batches(source.head.folder, "members.parquet", _MEMBERS_READ.schema.names):
        profile = checked(_MEMBERS_READ, members).column("profile_id").to_numpy()
        cluster = model.labels[profile].astype(np.int32)
        columns = [cluster, model.distances[profile], confidence[profile]]
        yield pa.RecordBatch.from_arrays([members.column("user_id"), *map(pa.array, columns)], schema=ASSIGNMENT)


def _meta_data(head: clustering_inputs.Head, found: Clusters) -> list[dict[str, Any]]:
    """The lines of meta-data.json."""
    ids, names = head.dimensions["dimension_id"].to_pylist(), head.dimensions["dimension_name"].to_pylist()
    on = found.dimensions
    return [
        {
            "cluster_id": cluster,
            "cluster_member_count": int(found.users[cluster]),
            "private": head.category["private"],
            "cluster_diameter": float(found.diameters[cluster]),
            "cluster_wssse": found.scores["wssse"],
            "cluster_stability": _known(found.learned.stability[cluster]),
            "cluster_solidity": stability.in_words(found.learned.stability[cluster]),
            "dimensions": [
                {
                    "dimension_id": ids[d],
                    "dimension_name": names[d],
                    "member_count": int(on.member_count[cluster, d]),
                    "center": float(found.centers[cluster, d]),
                    "min": float(on.minimum[cluster, d]),
                    "max": float(on.maximum[cluster, d]),
                    "avg": float(on.average[cluster, d]),
                }
                for d in range(len(ids))
            ],
        }
        for cluster in range(found.k)
    ]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _digest(row: dict[str, Any]) -> dict[str, Any]:
    """A line of meta-data.json in short: the cluster's users, and the pages most of them are on."""
    users = row["cluster_member_count"]
    top = sorted(row["dimensions"], key=lambda d: (-d["member_count"], -d["center"], d["dimension_id"]))[:_TOP_PAGES]
    return {
        "cluster_id": row["cluster_id"],
        "users": users,
        "diameter": row["cluster_diameter"],
        "solidity": row["cluster_solidity"],
        "top_pages": [
            {"name": d["dimension_name"], "share": round(d["member_count"] / users, 4)}
            for d in top
            if d["member_count"]
        ],
    }


def _centers(found: Clusters) -> pa.Table:
    columns = [range(found.k), found.users.tolist(), found.centers.tolist()]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, CENTER, strict=True)], schema=CENTER
    )


def _write_members(folder: str, found: Clusters, checked: Callable[[Table, Any], Any], scratch: str) -> None:
    """Write `assignments.parquet` and `data.json`, both by user_id.

    Memory holds a batch at a time: the clusters of `data.json` wait on disk for their turn.
    """
    with contextlib.closing(Spill(scratch)) as waiting:
        of_cluster: list[list[Piece]] = [[] for _ in range(found.k)]
        with (
            outputs.open_file(folder, "assignments.parquet") as file,
            pq.ParquetWriter(file, ASSIGNMENT, compression="zstd") as writer,
            ThreadPoolExecutor(1) as aside,
        ):
            for assigned in found.assignments:
                written = aside.submit(writer.write_batch, checked(ASSIGNMENTS, assigned))
                for number, users in checks.users_of_clusters(assigned):
                    of_cluster[number].append(waiting.put(json_items(users)))
                written.result()
        with outputs.open_file(folder, "data.json") as file:
            for number, pieces in enumerate(of_cluster):
                file.write(b'{"cluster_id": %d, "user_ids": [' % number)
                for place, piece in enumerate(pieces):
                    file.write((b", " if place else b"") + waiting.take(piece))
                file.write(b"]}\n")


def _check_output(folder: str, head: clustering_inputs.Head, found: Clusters, cores: int) -> dict[str, checks.Check]:
    """Read back what was written, and compare it with the users and the profiles of the inputs."""
    assignments, centers, data, meta_data = map(Inspection, (ASSIGNMENTS, CENTERS, DATA, META_DATA))
    with ThreadPoolExecutor(cores if head.users > _FEW_USERS else 1) as threads:
        of_listed = threads.submit(checks.listed_users, outputs.read_back_lists(folder, "data.json", data))
        of_assigned = threads.submit(
            checks.assigned_users, outputs.read_back(folder, "assignments.parquet", assignments)
        )
        of_inputs = threads.submit(_users_of, head)
    listed, assigned, users = of_listed.result(), of_assigned.result(), of_inputs.result()
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
            *found.value_range,
            [batch.column("dimensions").flatten().field("center").to_pylist() for batch in told],
        ),
    }


def _users_of(head: clustering_inputs.Head) -> checks.Roll:
    users = checks.Roll()
    for members in outputs.read_batches(head.folder, "members.parquet", ["user_id"]):
        users.add(members.column("user_id"))
    return users


def _write_json_lines(folder: str, name: str, rows: list[dict[str, Any]]) -> None:
    with outputs.open_file(folder, name) as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    run_as_command(main)
