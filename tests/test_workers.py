"""Jobs beside each other: they make and report what they would one after another."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dagster_pipes import PipesContext

from spark_jobs import make_clustering_inputs, workers
from spark_jobs.__main__ import STOPPED, run
from spark_jobs.config import ClusteringInputsConfig, EngineConfig, KMeansConfig, KSelectionConfig
from spark_jobs.job_configs import JobConfig, KMeans, SelectK
from spark_jobs.reporting import Reporter
from spark_jobs.resources import ResourcesConfig

TWO_CORES = ResourcesConfig(cores=2, memory="4GB")


@pytest.fixture(scope="module")
def inputs(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clustering inputs of the golden case."""
    folder = str(tmp_path_factory.mktemp("inputs") / "made")
    files, resources = (str(golden / "category.json"),), ResourcesConfig().resolve()
    grouped = str(golden / "grouped_users.jsonl")
    make_clustering_inputs.run(grouped, folder, files, ClusteringInputsConfig(), EngineConfig(), resources, Reporter())
    return folder


class Launch:
    """Jobs, and what a run hears of them."""

    def __init__(self, hears: Callable[[str], None] = lambda _: None) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.logs: list[str] = []
        self.hears = hears

    def add(self, name: str, config: JobConfig, *needs: str) -> None:
        made = {"id": name, "module": config.module, "config": config.model_dump(mode="json"), "needs": list(needs)}
        self.jobs.append(made)

    def run(self, patience: float = 0, stop_file: Path | None = None) -> int:
        def info(message: str) -> None:
            self.logs.append(message)
            self.hears(message)

        pipes = SimpleNamespace(
            extras={"jobs": self.jobs}, log=SimpleNamespace(info=info), report_custom_message=self.reports.append
        )
        return run(cast(PipesContext, pipes), stop_file, patience)

    def events(self, job: str) -> list[str]:
        return [report["event"] for report in self.reports if report["job"] == job]

    def error(self, job: str) -> str:
        (error,) = (report["error"] for report in self.reports if report["job"] == job and report["event"] == "failed")
        return str(error)


def month(inputs: str, folder: Path, launch: Launch) -> Launch:
    """Choose k and cluster, three times over."""
    for name in "abc":
        choice, clusters = str(folder / f"k_{name}"), str(folder / f"kmeans_{name}")
        config = KSelectionConfig(k_max=4)
        launch.add(f"k {name}", SelectK(inputs=inputs, output=choice, config=config, resources=TWO_CORES))
        kmeans = KMeans(inputs=inputs, output=clusters, k_selection=choice, config=KMeansConfig(), resources=TWO_CORES)
        launch.add(f"kmeans {name}", kmeans, f"k {name}")
    return launch


def files(folder: Path) -> dict[str, bytes]:
    """All files but manifests, which have times."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }


def endless(inputs: str, folder: Path) -> KMeans:
    config = KMeansConfig(k=2, n_init=100_000)
    return KMeans(inputs=inputs, output=str(folder / "endless"), config=config, resources=TWO_CORES)


def quick(inputs: str, folder: Path, name: str) -> KMeans:
    return KMeans(inputs=inputs, output=str(folder / name), config=KMeansConfig(k=2), resources=TWO_CORES)


def test_they_make_and_report_what_they_would_one_after_another(inputs: str, tmp_path: Path) -> None:
    beside, in_turn = month(inputs, tmp_path / "beside", Launch()), month(inputs, tmp_path / "in_turn", Launch())

    assert beside.run(patience=0) == 0
    assert in_turn.run(patience=1e9) == 0

    assert files(tmp_path / "beside") == files(tmp_path / "in_turn")
    for job in beside.jobs:
        assert beside.events(job["id"]) == in_turn.events(job["id"]) == ["output", "done"]
        assert any(line.startswith(f"{job['id']}: ") for line in beside.logs), "each line names its job"
    assert not _workers(), "none is left behind"


def test_a_job_that_fails_takes_only_those_with_it_that_need_it(inputs: str, tmp_path: Path) -> None:
    launch = Launch()
    launch.add(
        "bad", KMeans(inputs=inputs, output=str(tmp_path / "x"), k_selection=str(tmp_path), config=KMeansConfig())
    )
    launch.add("needs it", quick(inputs, tmp_path, "y"), "bad")
    launch.add("good", quick(inputs, tmp_path, "good"))

    assert launch.run() == 1
    assert str(tmp_path) in launch.error("bad")
    assert launch.error("needs it") == "not run, because bad failed"
    assert launch.events("good") == ["output", "done"]


def test_a_worker_that_is_killed_fails_its_job_and_no_other(inputs: str, tmp_path: Path) -> None:
    def kill_the_first(message: str) -> None:
        if message == "endless starts":
            os.kill(min(_workers()), signal.SIGKILL)

    launch = Launch(kill_the_first)
    launch.add("endless", endless(inputs, tmp_path))
    for name in ("other", "another"):
        launch.add(name, quick(inputs, tmp_path, name))

    assert launch.run() == 1
    assert launch.events("other") == launch.events("another") == ["output", "done"]
    assert launch.error("endless") == "its process was killed (signal 9), most likely for want of memory"
    assert not (tmp_path / "endless" / "manifest.json").exists()


def test_a_machine_that_is_about_to_go_starts_no_more_and_lets_those_that_run_end(inputs: str, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    # Two are started at the same time, and either may come first.
    launch = Launch(lambda message: stop.touch() if message.endswith(" starts") else None)
    for name in ("one", "two", "three", "four"):
        launch.add(name, quick(inputs, tmp_path, name))

    assert launch.run(stop_file=stop) == STOPPED
    assert launch.events("one") == launch.events("two") == ["output", "done"]
    assert launch.events("three") == launch.events("four") == []
    assert any("is not started: this machine is about to go" in line for line in launch.logs)


@pytest.mark.parametrize(
    ("config", "room"),
    [
        ({}, 2),
        ({"engine": EngineConfig(engine="spark")}, 1),
        ({"resources": ResourcesConfig(cores=1, memory="4GB")}, 1),
        ({"resources": ResourcesConfig(cores=8, memory="700MB")}, 1),
        ({"inputs": "missing"}, 1),
    ],
    ids=["small", "on Spark", "on one core", "in little memory", "without inputs"],
)
def test_jobs_run_beside_each_other_where_there_is_room(inputs: str, config: dict[str, Any], room: int) -> None:
    job = KMeans(**{"inputs": inputs, "output": "o", "config": KMeansConfig(k=2), "resources": TWO_CORES, **config})
    assert workers.room_for({"module": job.module, "config": job.model_dump(mode="json")}) == room


def test_a_job_of_large_inputs_has_the_machine_for_itself(inputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_SMALL", 0)
    job = quick(inputs, Path("o"), "x")
    assert workers.room_for({"module": job.module, "config": job.model_dump(mode="json")}) == 1


def _workers() -> list[int]:
    """The worker processes of this process."""
    said = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    ).stdout
    return [
        int(line.split()[0]) for line in said.splitlines() if "spark_jobs.workers" in line and "<defunct>" not in line
    ]
