"""What the EC2 stories share: Audience Explorer with its root on the sandbox's S3 and its jobs on the sandbox's EC2."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acceptance.conftest import PROJECT, Explorer
from acceptance.sandbox import Instance, Sandbox
from acceptance.sandbox.__main__ import bring_root, settings
from acceptance.sandbox.ec2 import ACCOUNT, REGION
from acceptance.sandbox.permissions import Permissions, Role

NAMES = {
    "REGION": REGION,
    "ACCOUNT": ACCOUNT,
    "DATA_BUCKET": "audience",
    "DATA_PREFIX": "explorer",
    "LAUNCHES_BUCKET": "audience",
    "LAUNCHES_PREFIX": "explorer/launches",
    "INSTANCE_ROLE": "audience-explorer-instance",
}
TYPES = ("m7i.large", "m6i.large")


class EC2Explorer(Explorer):
    """Audience Explorer as its user has it who works on S3 and EC2."""

    def __init__(self, folder: Path, sandbox: Sandbox):
        super().__init__(folder)
        self.sandbox = sandbox
        self.s3 = sandbox.client("s3")
        # Nothing of this machine's AWS settings.
        kept = {name: value for name, value in self.environment.items() if not name.startswith("AWS_")}
        self.environment = {
            **kept,
            **settings(sandbox),
            "AUDIENCE_EXPLORER_EC2_INSTANCE_TYPES": ",".join(TYPES),
            "AUDIENCE_EXPLORER_EC2_POLL_SECONDS": "0.5",
        }

    def configure(self, **settings: object) -> None:
        """Set fields of the launcher."""
        for name, value in settings.items():
            self.environment[f"AUDIENCE_EXPLORER_EC2_{name.upper()}"] = str(value)

    def bring(self, source: Path, *months: str) -> None:
        bring_root(self.sandbox, source, *months)

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `audience-explorer pipeline …`, and don't wait for it."""
        return subprocess.Popen(
            ["audience-explorer", "pipeline", "--json", *arguments],
            cwd=PROJECT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def files(self, folder: str) -> dict[str, bytes]:
        """The files below a folder of the root, by their path in it."""
        prefix = f"explorer/{folder.strip('/')}/"
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.sandbox.bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            key.removeprefix(prefix): self.s3.get_object(Bucket=self.sandbox.bucket, Key=key)["Body"].read()
            for key in keys
        }

    def launches(self) -> list[dict[str, Any]]:
        """The descriptions of all launches, in order."""
        files = self.files("launches")
        return [json.loads(files[name]) for name in sorted(files) if name.endswith("description.json")]

    def launched_jobs(self) -> list[list[str]]:
        """The jobs of each launch, in order."""
        return [[job["id"] for job in launch["context"]["extras"]["jobs"]] for launch in self.launches()]

    def log_of_run(self) -> str:
        """What Dagster keeps of all runs, as text: messages and their levels."""
        script = (
            "import dagster as dg\n"
            "with dg.DagsterInstance.get() as instance:\n"
            "    for run in reversed(instance.get_runs()):\n"
            "        for entry in instance.all_logs(run.run_id):\n"
            "            print(entry.level, entry.user_message)\n"
        )
        return self.command("python", "-W", "ignore", "-c", script).stdout


@pytest.fixture
def permissions() -> Permissions:
    """What the policies of this project allow to whoever launches, and to instances."""
    iam = PROJECT / "ami" / "iam"
    roles = {"launcher": Role([iam / "launcher.json"], NAMES), "instance": Role([iam / "instance.json"], NAMES)}
    return Permissions(roles, NAMES)


@pytest.fixture
def sandbox(tmp_path: Path, permissions: Permissions) -> Iterator[Sandbox]:
    """AWS on this machine, new, which allows what the policies do; its machines share this one's root."""
    with Sandbox(tmp_path / "sandbox", permissions=permissions) as sandbox:
        yield sandbox


@pytest.fixture
def root_rights() -> None:
    """For faults that the kernel plays, which CI must have."""
    if os.geteuid() != 0:
        why = "disks of limited size and memory limits need root"
        if os.environ.get("CI"):
            pytest.fail(f"CI must play all faults: {why}")
        pytest.skip(why)


@pytest.fixture
def explorer(tmp_path: Path, sandbox: Sandbox, permissions: Permissions) -> Iterator[EC2Explorer]:
    """Audience Explorer, new, on that AWS. At the end no instance is left, no half-written output was recorded, and
    nothing was asked for that the policies do not allow."""
    explorer = EC2Explorer(tmp_path / "explorer", sandbox)
    yield explorer
    assert_none_left(sandbox)
    assert_outputs_whole(explorer)
    # A refused HeadBucket names the bucket's region, and that is all it is made for.
    assert [refused for refused in permissions.refused if "HeadBucket" not in refused] == []


def assert_none_left(sandbox: Sandbox) -> None:
    """Every instance has ended."""
    for instance in sandbox.instances:
        instance.wait_until("terminated")


def assert_outputs_whole(explorer: EC2Explorer) -> None:
    """What `current.json` files, and so records, point at is there as its manifest says."""
    files = explorer.files("")
    for name, content in files.items():
        if name.endswith("/current.json"):
            folder = json.loads(content)["folder"].removeprefix(f"s3://{explorer.sandbox.bucket}/explorer/")
            manifest = json.loads(files[f"{folder}/manifest.json"])
            sizes = {file["path"]: len(files[f"{folder}/{file['path']}"]) for file in manifest["files"]}
            assert sizes == {file["path"]: file["bytes"] for file in manifest["files"]}, folder


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a command with all that it started, as a machine that goes dark does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


__all__ = ["EC2Explorer", "Instance"]
