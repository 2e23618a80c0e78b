"""A month on a Spark standalone cluster: a master and three workers, each with memory of its own, and the data on S3.

Nothing of it depends on how many machines there are, or on one that dies. What does not fit the memory of any of them
is computed all the same.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from acceptance.conftest import OUTPUT, PROJECT, Ended, Explorer, standalone_cluster
from acceptance.sandbox import Sandbox
from acceptance.sandbox.spark_cluster import SparkCluster, Worker
from benchmarks import actions
from spark_jobs import demo_audience, outputs
from spark_jobs.config import ACTIONS, FIT_MIN_ACTIONS, ClusteringInputsConfig
from spark_jobs.reporting import Reporter
from spark_jobs.vectors.profiles import DIMENSION, MEMBER, PROFILE
from tests.conftest import Engine

pytestmark = [pytest.mark.spark, pytest.mark.timeout(2700)]

MONTH = "2018-12"
MLLIB = ("--engine", "spark", "--library", "mllib")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """S3, on this machine."""
    with Sandbox(tmp_path_factory.mktemp("aws")) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, aws: Sandbox) -> Iterator[SparkCluster]:
    """The cluster."""
    with standalone_cluster(tmp_path_factory.mktemp("spark"), aws.environment) as started:
        yield started


def put(aws: Sandbox, folder: Path, prefix: str) -> str:
    """Put the files of a folder on S3; where that is."""
    for file in folder.rglob("*"):
        if file.is_file():
            aws.client("s3").upload_file(str(file), aws.bucket, f"{prefix}/{file.relative_to(folder)}")
    return f"s3://{aws.bucket}/{prefix}"


def files_of(folder: Path, aws: Sandbox, manifest: bool = False) -> dict[str, bytes]:
    """The files of an output, here or on S3, but for the manifest, which has times, unless it is wanted."""
    if folder.parts[0] == "s3:":
        prefix = "/".join(folder.parts[2:]) + "/"
        pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=aws.bucket, Prefix=prefix)
        objects = {o["Key"].removeprefix(prefix): o["Key"] for page in pages for o in page.get("Contents", [])}
        get = aws.client("s3").get_object
        found = {name: get(Bucket=aws.bucket, Key=key)["Body"].read() for name, key in objects.items()}
    else:
        found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return found if manifest else {name: content for name, content in found.items() if name != "manifest.json"}


def manifest_of(folder: Path, aws: Sandbox) -> Any:
    """The manifest of an output, here or on S3."""
    return json.loads(files_of(folder, aws, manifest=True)["manifest.json"])


def keep_figures(cluster: SparkCluster, what: str) -> None:
    """Keep what memory the workers took, for people to see."""
    lines = [f"{worker.log.stem}: {worker.peak / 1e6:,.0f} MB at most" for worker in cluster.workers]
    told = f"{what}, of data of more than 4 × {cluster.memory / 1e6:,.0f} MB, an executor's heap\n" + "\n".join(lines)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"cluster-{what}.txt").write_text(told + "\n")
    for worker in cluster.workers:
        worker.peak = 0


def assert_same(one: Ended, other: Ended, aws: Sandbox, *assets: str) -> None:
    """Two pipelines ended with the same bytes of some assets."""
    assert one.folders.keys() == other.folders.keys()
    for name, folder in one.folders.items():
        if name.split()[0] in assets:
            files = files_of(folder, aws)
            assert files == files_of(other.folders[name], aws), name
            assert files


def costs_of(ended: Ended, aws: Sandbox) -> list[float]:
    """The cost of each category's clusters, over the users they were learned from: what k-means makes small."""
    clusters = [folder for name, folder in sorted(ended.folders.items()) if name.startswith("kmeans ")]
    return [json.loads(files_of(folder, aws)["summary.json"])["learned_from"]["wssse"] for folder in clusters]


def test_a_month_on_the_cluster_is_that_month_on_one_machine(
    explorer: Explorer, ansible: Path, tmp_path: Path, aws: Sandbox, cluster: SparkCluster
) -> None:
    explorer.bring(ansible, MONTH)
    root = put(aws, explorer.root, "month")
    own = explorer.environment

    def pipeline(records: str, *arguments: str, more: dict[str, str] | None = None) -> Ended:
        explorer.environment = {**own, "DAGSTER_HOME": str(tmp_path / records), **(more or {})}
        return explorer.pipeline("--month", MONTH, "--n-init", "2", *arguments)

    four, on_cluster = ("--k", "4"), ("--root", root, "--spark-master", cluster.master)
    two = ("--category", "cloud", "--category", "network")
    there = pipeline("there", *four, *two, *on_cluster, *MLLIB, more=cluster.environment)
    here = pipeline("here", *four, *two, *MLLIB, "--spark-master", "local[2]")

    assert len(there.launched) == len(here.launched) == 1 + 4 * 2
    assert_same(there, here, aws, "grouped_users", "clustering_inputs", "kmeans")

    # Of more categories: what is there is not computed again, and k-means in memory is the same on all.
    more = (*two, "--category", "files", "--category", "system")
    in_memory = pipeline("there", *four, *more, *on_cluster, "--engine", "spark", more=cluster.environment)
    local = pipeline("local", *four, *more)

    assert in_memory.launched_assets() == {"clustering_inputs", "kmeans", "segments", "audience_report"}
    assert len(in_memory.launched) == 2 + 3 * 4
    assert_same(in_memory, local, aws, "grouped_users", "clustering_inputs", "kmeans")
    of_two = replace(local, folders={name: local.folders[name] for name in there.folders})
    of_mllib, of_ours = costs_of(there, aws), costs_of(of_two, aws)
    assert all(ours <= mllib * (1 + 1e-9) for ours, mllib in zip(of_ours, of_mllib, strict=True)), "never above MLlib's"
    assert sum(of_mllib) <= 1.25 * sum(of_ours)

    # Without a k it is chosen, on the cluster as here. Four are tried: each takes the cluster a while.
    choose = ("--category", "cloud", "--k-max", "4")
    chosen_there = pipeline("there", *choose, *on_cluster, *MLLIB, more=cluster.environment)
    chosen_here = pipeline("local", *choose)

    assert "k_selection" in chosen_there.launched_assets()
    assert_same(chosen_there, chosen_here, aws, "k_selection")


# --- a worker dies ---------------------------------------------------------------------------------


def job(cluster: SparkCluster, module: str, *arguments: object) -> "subprocess.Popen[str]":
    """Start a job on the cluster, as from a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", f"spark_jobs.{module}", *map(str, arguments), "--spark-master", cluster.master],
        cwd=PROJECT,
        env={**os.environ, **cluster.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def busy_worker(cluster: SparkCluster, running: "subprocess.Popen[str]") -> Worker:
    """The first worker that has a task of ours."""
    while running.poll() is None:
        for worker in cluster.workers:
            if worker.busy:
                return worker
        time.sleep(0.05)
    raise AssertionError("the job was done before a worker could die")


def ended_well(running: "subprocess.Popen[str]") -> str:
    """What a job said that ended well."""
    _, said = running.communicate(timeout=2400)
    assert running.returncode == 0, said
    return said


def test_a_worker_that_is_killed_in_mid_job_changes_nothing(
    local: Engine, spark: Engine, tmp_path: Path, aws: Sandbox, cluster: SparkCluster
) -> None:
    demo_audience.make(str(tmp_path / "root"), users=8_000)
    month, category = demo_audience.MONTHS[0], next((tmp_path / "root" / "categories").iterdir())
    raw = put(aws, tmp_path / "root" / "raw" / f"month={month}", f"killed/raw/month={month}")
    place = f"s3://{aws.bucket}/killed"

    running = job(cluster, "group_by_user", raw, f"{place}/users", "--engine", "spark")
    cluster.kill(busy_worker(cluster, running))
    assert "Lost executor" in ended_well(running)

    here = tmp_path / "here"
    local.run("group_by_user", tmp_path / "root" / "raw" / f"month={month}", here / "users")
    local.run("make_clustering_inputs", here / "users", here / "inputs", "--category", category)
    there = put(aws, here / "inputs", "killed/inputs")
    options = [*MLLIB, "--k", 6, "--n-init", 1, "--params", "kmeans||,10,0.001"]
    spark.run("kmeans", here / "inputs", here / "kmeans", *options)
    running = job(cluster, "kmeans", there, f"{place}/kmeans", *options)
    cluster.kill(busy_worker(cluster, running))
    assert "Lost executor" in ended_well(running)

    for output in ("users", "kmeans"):
        assert files_of(Path(f"{place}/{output}"), aws) == files_of(here / output, aws)


# --- more than the memory of any worker ------------------------------------------------------------


def test_a_month_of_four_times_a_workers_memory_is_grouped(tmp_path: Path, aws: Sandbox, cluster: SparkCluster) -> None:
    actions.generate(tmp_path, "social", 17_500_000, categories=1)
    month = f"month={actions.MONTH}"
    files = sorted((tmp_path / month).iterdir())
    assert sum(pq.read_table(file).nbytes for file in files) > 4 * cluster.memory
    place = f"s3://{aws.bucket}/large"
    raw, users, inputs = put(aws, tmp_path / month, f"large/{month}"), f"{place}/users", f"{place}/inputs"

    ended_well(job(cluster, "group_by_user", raw, users, "--engine", "spark"))
    category = tmp_path / "categories" / f"{actions.WIDE}.json"
    ended_well(job(cluster, "make_clustering_inputs", users, inputs, "--category", category, "--engine", "spark"))

    for output in (users, inputs):
        manifest = manifest_of(Path(output), aws)
        assert [check["why"] for check in manifest["checks"].values()] == [""] * len(manifest["checks"])
    keep_figures(cluster, "grouping")


def test_profiles_of_four_times_a_workers_memory_are_clustered(
    tmp_path: Path, aws: Sandbox, cluster: SparkCluster
) -> None:
    inputs, clusters = tmp_path / "inputs", tmp_path / "clusters"
    size = make_planted_inputs(inputs, profiles=1_200_000)
    assert size > 4 * cluster.memory

    options = [*MLLIB, "--k", PLANTED, "--n-init", 1, "--params", "kmeans||,3,0.001"]
    ended_well(job(cluster, "kmeans", inputs, clusters, *options))

    manifest = manifest_of(clusters, aws)
    assert [check["why"] for check in manifest["checks"].values()] == [""] * len(manifest["checks"])
    assigned = pq.read_table(clusters / "assignments.parquet")
    number = pc.cast(pc.utf8_slice_codeunits(assigned["user_id"], 5, 17), pa.int64()).to_numpy() // USERS_OF_PROFILE
    found = np.bincount(number % PLANTED * PLANTED + assigned["cluster_id"].to_numpy(), minlength=PLANTED**2)
    assert np.count_nonzero(found) == PLANTED, "each planted group is a cluster"
    keep_figures(cluster, "k-means")


PLANTED = 3  # groups of profiles, each on pages of its own
USERS_OF_PROFILE = 6


def make_planted_inputs(folder: Path, profiles: int) -> int:
    """Write clustering inputs in which profile n is of group n % PLANTED; how many bytes the tables have in memory."""
    random = np.random.default_rng(0)
    entries = 12
    pages = 2 * entries * PLANTED
    dimension = {
        "dimension_index": range(pages),
        "users": [0] * pages,
        "total": [0.0] * pages,
        "network": ["x"] * pages,
    }
    names = [f"page {number}" for number in range(pages)]
    columns = {**dimension, "dimension_id": names, "dimension_name": names}
    summary = {
        "users": profiles * USERS_OF_PROFILE,
        "fit_users": profiles * USERS_OF_PROFILE,
        "fit_min_actions": FIT_MIN_ACTIONS,
        "profiles": profiles,
        "entries": profiles * entries,
        "actions": dict.fromkeys(ACTIONS, 0) | {ACTIONS[0]: profiles * USERS_OF_PROFILE * FIT_MIN_ACTIONS},
        "category": {"id": 1, "name": "planted", "private": False},
    }
    with outputs.writing(
        "clustering_inputs",
        "3",
        str(folder),
        Reporter(),
        config=ClusteringInputsConfig(),
        inputs=[],
        fingerprint="planted",
    ) as made:
        made.write_table("dimensions.parquet", pa.table([columns[name] for name in DIMENSION.names], DIMENSION))
        size = 0
        with (
            made.open_file("profiles.parquet") as profiles_file,
            made.open_file("members.parquet") as members_file,
            pq.ParquetWriter(profiles_file, PROFILE, compression="zstd") as write_profiles,
            pq.ParquetWriter(members_file, MEMBER, compression="zstd") as write_members,
        ):
            for ids in np.array_split(np.arange(profiles), -(-profiles // (1 << 18))):
                among_own = np.cumsum(random.integers(1, 3, (len(ids), entries)), axis=1) - 1
                indices = among_own + (ids % PLANTED * 2 * entries)[:, None]
                offsets = pa.array(np.arange(len(ids) + 1) * entries, pa.int32())
                values = random.integers(1, 5, indices.size) / 8
                of_profile = np.repeat(ids, USERS_OF_PROFILE)
                users = [
                    f"user-{number:012d}{'-' * 60}"
                    for number in of_profile[0] * USERS_OF_PROFILE + range(len(of_profile))
                ]
                tables = (
                    pa.Table.from_arrays(
                        [
                            pa.array(ids),
                            pa.ListArray.from_arrays(offsets, pa.array(indices.ravel(), pa.int32())),
                            pa.ListArray.from_arrays(offsets, pa.array(values)),
                            pa.array(np.full(len(ids), USERS_OF_PROFILE)),
                            pa.array(np.full(len(ids), USERS_OF_PROFILE)),
                        ],
                        schema=PROFILE,
                    ),
                    pa.Table.from_arrays(
                        [
                            pa.array(users),
                            pa.array(["0"] * len(users)),
                            pa.array(of_profile),
                            pa.array(np.full(len(users), FIT_MIN_ACTIONS)),
                            pa.array(np.full(len(users), FIT_MIN_ACTIONS)),
                            *[pa.array(np.zeros(len(users), np.int64))] * (len(ACTIONS) - 1),
                        ],
                        schema=MEMBER,
                    ),
                )
                write_profiles.write_table(tables[0])
                write_members.write_table(tables[1])
                size += sum(table.nbytes for table in tables)
        made.complete(rows={}, summary=summary)
    return size
