"""The program of EMR Serverless's driver, by itself, against moto's S3; and the permissions of both roles."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from dagster_pipes import PipesContextData
from moto.server import ThreadedMotoServer

from emr import driver
from tests.test_boot import CODE

EMR = Path(driver.__file__).parent
PREFIX = "launches/launch"


class Launch:
    """A launch whose jobs are lines of Python."""

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        self.s3.create_bucket(Bucket="bucket")
        (folder / "lib" / "spark_jobs" / "launch").mkdir(parents=True)
        for name, content in CODE.items():
            (folder / "lib" / name).write_bytes(content)

    def run(self, job: str, before: str = "pass") -> int:
        """Do the launch as EMR does, with the packages on the path already; the exit code."""
        context: dict[str, Any] = dict.fromkeys(PipesContextData.__annotations__)
        context |= {"run_id": "r", "job_name": "j", "retry_number": 0, "extras": {"jobs": [job]}}
        self.put("description.json", json.dumps({"max_runtime": 60, "context": context}))
        program = f"import sys; from emr import driver; {before}; sys.exit(driver.main('s3://bucket/{PREFIX}'))"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{self.folder / 'lib'}:{EMR.parent}",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
        command = [sys.executable, "-c", program]
        return subprocess.call(command, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, timeout=240)

    def put(self, name: str, text: str) -> None:
        self.s3.put_object(Bucket="bucket", Key=f"{PREFIX}/{name}", Body=text.encode())

    def get(self, name: str) -> str:
        return str(self.s3.get_object(Bucket="bucket", Key=f"{PREFIX}/{name}")["Body"].read().decode())

    def log(self) -> str:
        listed = self.s3.list_objects_v2(Bucket="bucket", Prefix=f"{PREFIX}/log/")["Contents"]
        return "".join(self.get(entry["Key"].removeprefix(f"{PREFIX}/")) for entry in listed)


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Launch(tmp_path, f"http://{host}:{port}")
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    server.stop()


def test_what_jobs_tell_is_shipped_and_their_end_is_the_drivers(launch: Launch) -> None:
    launch.put("lease", "")
    assert launch.run("pass") == 0
    status = json.loads(launch.get("status.json"))
    assert status["exit_code"] == 0
    told = [json.loads(line) for line in launch.get("messages/000001.jsonl").splitlines()]
    assert told[0]["boot"] == "started"
    assert launch.log() == "printed by job 0\n"


def test_jobs_that_fail_fail_the_job_run(launch: Launch) -> None:
    launch.put("lease", "")
    assert launch.run("sys.exit(1)") == 1
    assert json.loads(launch.get("status.json"))["exit_code"] == 1


@pytest.mark.parametrize("lease", ["old", "deleted"])
def test_jobs_that_nobody_waits_for_are_ended(launch: Launch, lease: str) -> None:
    if lease == "old":
        launch.put("lease", "")
    before = "from spark_jobs.launch import lease; driver._LEASE_POLL_SECONDS, lease.LEASE_SECONDS = 0.5, -1"
    assert launch.run("time.sleep(1000)", before) == 1
    assert ("somebody deleted this launch" if lease == "deleted" else "nobody has waited for this") in launch.log()
    assert json.loads(launch.get("status.json"))["exit_code"] < 0


# --- permissions


def policies() -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text()) for file in sorted((EMR / "iam").glob("*.json"))}


@pytest.mark.parametrize("name", ["launcher", "job"])
def test_every_allowed_action_has_its_why_and_nothing_else_has(name: str) -> None:
    allowed: set[str] = set()
    for statement in policies()[name]["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    section = re.search(rf"^### `{name}\.json`.*?(?=^###? |\Z)", (EMR / "README.md").read_text(), re.M | re.S)
    assert section
    assert set(re.findall(r"`([a-z0-9-]+:[A-Za-z]+)`", section[0])) == allowed
    assert not any("*" in action for action in allowed)


def test_every_placeholder_of_the_policies_is_explained() -> None:
    used = {word for policy in policies().values() for word in re.findall(r"@[A-Z_]+@", json.dumps(policy))}
    assert used == set(re.findall(r"`(@[A-Z_]+@)`", (EMR / "README.md").read_text()))
