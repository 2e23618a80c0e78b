"""A deployment is killed in the middle of a backfill and started again: nothing is lost, and nothing done twice.

It is the one of `deploy/`: its dagster.yaml, its workspace.yaml and the commands of its systemd units, with a real
PostgreSQL, and S3 as moto plays it. Only the environment is the story's own.
"""

import contextlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import dagster as dg
import psutil
import pytest
import requests
from dagster._core.execution.backfill import BulkActionStatus
from moto.s3.exceptions import S3ClientError
from moto.s3.models import S3Backend
from moto.server import ThreadedMotoServer

from acceptance.conftest import PROJECT
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB
from tests.ports import reserved_port
from tests.postgres import postgres

DEPLOY = PROJECT / "deploy"
BUCKET = "audience"
MONTHS = [f"2018-{month:02}" for month in range(9, 13)]
CATEGORIES = ("cloud", "files", "network", "storage", "system", "windows")
OUTPUTS = len(MONTHS) * (1 + 5 * len(CATEGORIES))  # grouped users, and five of each category
FOLLOWING = ("segments", "audience_report")
FOLDERS_OF_THOSE = tuple(f"explorer/{asset}/" for asset in FOLLOWING)


class Deployment:
    """The services of `deploy/systemd`, with this process in systemd's place."""

    def __init__(self, home: Path, port: int, reports_port: int):
        self.home = home
        self.url = f"http://127.0.0.1:{port}"
        self.reports_url = f"http://127.0.0.1:{reports_port}"
        self.s3 = boto3.client("s3")
        self._services: list[subprocess.Popen[bytes]] = []
        shutil.copy(DEPLOY / "dagster.yaml", home)

    def start(self) -> None:
        """Start all services at the same time, as after a boot."""
        for unit in sorted(DEPLOY.glob("systemd/*.service")):
            (command,) = (line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
            program, *arguments = shlex.split(command.removeprefix("ExecStart="))
            with (self.home / f"{unit.stem}.log").open("a") as log:
                service = subprocess.Popen(
                    [Path(sys.executable).parent / Path(program).name, *arguments],
                    cwd=PROJECT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._services.append(service)

    def kill(self) -> None:
        """End all that was started, runs and their jobs as well, with signal 9."""
        for service in self._services:
            service.kill()
        while alive := [process for process in psutil.process_iter() if self._is_own(process)]:
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):  # some end with the one that was killed before
                    process.kill()
            psutil.wait_procs(alive, timeout=10)
        for service in self._services:
            service.wait()
        self._services.clear()

    def _is_own(self, process: psutil.Process) -> bool:
        try:
            mine = process.environ().get("DAGSTER_HOME") == str(self.home)
            return mine and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def reports(self) -> list[str]:
        """The links of the index that the server of reports shows; none while it is not there."""
        try:
            index = requests.get(f"{self.reports_url}/", timeout=300)
        except requests.RequestException:
            return []
        return re.findall(r'<a href="(.*?)"', index.text)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask the webserver, as the UI does."""
        asked = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=asked, timeout=300).json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    def has_loaded(self) -> bool:
        """Whether the webserver is there, and has the code."""
        try:
            found = self.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
        except requests.RequestException:
            return False
        return bool(found["repositoriesOrError"].get("nodes"))

    def backfill(self, job: str, months: list[str]) -> str:
        """Launch a job's backfill, as the UI does; its id."""
        repository = {"repositoryLocationName": "audience_explorer", "repositoryName": "__repository__"}
        launched = self.ask(
            "mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {"
            " ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }"
            " ... on PartitionSetNotFoundError { message } } }",
            params={
                "selector": {"repositorySelector": repository, "partitionSetName": f"{job}_partition_set"},
                "partitionNames": months,
            },
        )["launchPartitionBackfill"]
        return str(launched["backfillId"])

    def finished_folders(self) -> Counter[str]:
        """How many finished outputs each partition of each asset has, by its folder."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="explorer/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return Counter(str(Path(key).parents[1]) for key in keys if key.endswith("/manifest.json"))

    def runs_with_logs(self) -> set[str]:
        """The runs of which something printed is kept."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="logs/storage/")
        return {entry["Key"].split("/")[2] for page in pages for entry in page.get("Contents", [])}

    def log(self) -> str:
        """The last words of each service."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.home.glob("*.log"))


@pytest.fixture
def deployment(ansible: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The deployment with real data on S3, not started."""
    s3 = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    s3.start()
    host, port = s3.get_host_and_port()
    # Short, for the path of a socket must be.
    home = Path(tempfile.mkdtemp(prefix="deployment-"))
    try:
        with postgres() as database, reserved_port() as of_ui, reserved_port() as of_reports:
            environment = {
                "DAGSTER_HOME": str(home),
                "DAGSTER_GRPC_SOCKET": str(home / "code.sock"),
                "DAGSTER_WEBSERVER_PORT": str(of_ui),
                "AUDIENCE_EXPLORER_REPORTS_PORT": str(of_reports),
                "AUDIENCE_EXPLORER_POSTGRES": database.url(),
                "AUDIENCE_EXPLORER_LOGS_BUCKET": BUCKET,
                "AUDIENCE_EXPLORER_LOGS_PREFIX": "logs",
                "AUDIENCE_EXPLORER_LOGS_FOLDER": str(home / "logs"),
                "AUDIENCE_EXPLORER_ROOT": f"s3://{BUCKET}/explorer",
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            made = Deployment(home, of_ui, of_reports)
            made.s3.create_bucket(Bucket=BUCKET)
            files = [ansible / "categories" / f"{name}.json" for name in CATEGORIES]
            for file in [*files, *(file for month in MONTHS for file in (ansible / f"raw/month={month}").iterdir())]:
                made.s3.upload_file(str(file), BUCKET, f"explorer/{file.relative_to(ansible)}")
            try:
                yield made
            finally:
                made.kill()
    finally:
        s3.stop()
        shutil.rmtree(home)


@pytest.mark.timeout(2700)
def test_a_backfill_outlives_a_kill_of_everything(deployment: Deployment) -> None:
    deployment.start()
    wait_for("the code is loaded", deployment.has_loaded, deployment)
    backfill = deployment.backfill(WHOLE_MONTH_JOB, MONTHS)

    with dg.DagsterInstance.get() as instance:

        def is_half_done() -> bool:
            done = Counter(key.split("|")[1] for key in instance.get_materialized_partitions(dg.AssetKey("kmeans")))
            runs = {run.tags["dagster/partition"]: run.status for run in instance.get_runs()}
            of_started = [done[month] for month, status in runs.items() if status == dg.DagsterRunStatus.STARTED]
            # None is about to end, and so none about to start: one that is only starting would be given up and
            # retried, after a longer while, which is not what this is about.
            return (
                dg.DagsterRunStatus.STARTING not in runs.values()
                and any(of_started)
                and max(of_started) < len(CATEGORIES) - 1
            )

        def is_over() -> bool:
            found = instance.get_backfill(backfill)
            return found is not None and found.status != BulkActionStatus.REQUESTED

        with clusters_held_up(2):
            wait_for("a month is half done", is_half_done, deployment)
            deployment.kill()
        at_the_kill = {run.run_id: run.status for run in instance.get_runs()}
        done_at_the_kill = deployment.finished_folders()
        deployment.start()
        wait_for("the backfill is over", is_over, deployment)

        # The kill was in the middle.
        assert dg.DagsterRunStatus.STARTED in at_the_kill.values()
        assert 0 < len(done_at_the_kill) < OUTPUTS
        # Nothing is lost: the same runs succeeded, and all is on record.
        (ended,) = instance.get_backfills()
        assert ended.status == BulkActionStatus.COMPLETED_SUCCESS
        assert {run.run_id for run in instance.get_runs()} == set(at_the_kill)
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        # Nothing is done twice: not even what was finished and not on record yet, which is now, as reused. But segments
        # are, and their reports, where a month before came later.
        times, folders = computed(instance), deployment.finished_folders()
        assert len(times) == len(folders) == OUTPUTS
        assert {n for name, n in times.items() if not name.startswith(FOLLOWING)} <= {0, 1}
        assert {n for folder, n in folders.items() if not folder.startswith(FOLDERS_OF_THOSE)} == {1}
        # The reports can be read.
        reports = len(CATEGORIES) * len(MONTHS)
        wait_for("the index lists all reports", lambda: len(deployment.reports()) == reports, deployment)
        for link in deployment.reports():
            report = requests.get(f"{deployment.reports_url}/{link}", timeout=300)
            assert (report.status_code, "<h1>" in report.text) == (200, True), link
        assert requests.get(f"{deployment.reports_url}/ansible/manifest.json", timeout=300).status_code == 404
        # What the runs printed is on S3.
        assert deployment.runs_with_logs() == set(at_the_kill)


@contextlib.contextmanager
def clusters_held_up(number: int) -> Iterator[None]:
    """Until the body ends, S3 takes its time for all clusters but the first few: a month stays half done for minutes.

    Whoever waits for it then is refused, so that nothing is stored after that.
    """
    over, finished, put = threading.Event(), itertools.count(1), S3Backend.put_object

    def put_object(backend: S3Backend, bucket: str, key: str, *more: Any, **named: Any) -> Any:
        is_late = re.search(r"/kmeans/.*/manifest\.json$", key) and next(finished) > number
        if is_late and over.wait(50):  # clients wait for 60 s
            raise S3ClientError("SlowDown", "Please reduce your request rate.")
        return put(backend, bucket, key, *more, **named)

    with mock.patch.object(S3Backend, "put_object", put_object):
        try:
            yield
        finally:
            over.set()


def computed(instance: dg.DagsterInstance) -> Counter[str]:
    """How often each partition of each asset that is on record was computed, as its records say."""
    found: Counter[str] = Counter()
    for asset in ("grouped_users", "clustering_inputs", "k_selection", "kmeans", "segments", "audience_report"):
        for record in instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records:
            event = record.asset_materialization
            assert event is not None
            found[f"{asset} {event.partition}"] += not event.metadata["reused"].value
    return found


def wait_for(what: str, is_so: Callable[[], bool], deployment: Deployment) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 1500
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"Not so within 1500 seconds: {what}.\n{deployment.log()}")
        time.sleep(0.5)
