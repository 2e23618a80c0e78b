"""A real Debian boots: systemd is process 1, and cloud-init runs the user data that the launcher makes.

The image is the one that `python -m ami build` makes, with the packages over it that Debian's own image has (see
`sandbox/booted.py`). Journals are kept for people to look at, in `ci-output/debian`.
"""

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dagster_pipes import PipesContextData

import spark_jobs
from acceptance.conftest import OUTPUT, PROJECT, isolated_sandbox
from acceptance.sandbox import Instance, Sandbox
from acceptance.sandbox.__main__ import settings
from acceptance.sandbox.booted import read_journal
from audience_explorer_dagster.launchers.ec2.start import user_data
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from spark_jobs.launch.folder import S3Folder
from spark_jobs.launch.reader import Transcript
from spark_jobs.launch.status import Status
from spark_jobs.launch.targz import write_tar_gz

pytestmark = [pytest.mark.isolated, pytest.mark.timeout(2700)]

SECONDS = 900  # that a machine may take beyond the time that its launch gives it
RAW = b'{"user_id": "u1", "page_id": "p1", "action": "page_like", "timestamp": "2024-01-02T00:00:00Z"}\n'
JOB = {
    "id": "grouped_users 2024-01",
    "module": "group_by_user",
    "needs": [],
    "config": {
        "raw": "s3://audience/raw/month=2024-01",
        "output": "s3://audience/grouped_users/2024-01",
        "month": "2024-01",
        "config": {},
    },
}

# In place of the agent, so that the boot program never ends.
HANGS = b"""\
import time
def main(location, max_seconds):
    print("the agent hangs", flush=True)
    time.sleep(100_000)
"""
# In place of a job, so that memory runs out.
EATS = b"""\
def run(**_):
    eaten = []
    while True:
        eaten.append(b"x" * (16 << 20))
"""


@dataclass(frozen=True)
class Launched:
    """A launch that has ended with its machine."""

    instance: Instance
    folder: S3Folder
    journal: str

    @property
    def status(self) -> Status:
        """How it ended."""
        status = self.folder.status()
        assert status is not None, self.journal[-8000:]
        return status


class Debian:
    """Launches machines that boot."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.store = LaunchStore(sandbox.client("s3"), f"s3://{sandbox.bucket}/launches")

    def launch(self, name: str, max_runtime: int, replaced: Mapping[str, bytes]) -> Launched:
        """Launch a job, as the launcher does, with other code for some files, and wait for the machine's end."""
        folder = self.store.folder(LaunchTags("20240101T000000-00000000", "p", "r", name))
        digest, archive = _pack(replaced)
        context: dict[str, Any] = dict.fromkeys(PipesContextData.__annotations__)
        context |= {"run_id": "r", "job_name": "j", "retry_number": 0, "extras": {"jobs": [JOB]}}
        code = {"code": self.store.keep_code(digest, archive), "code_sha256": digest}
        folder.describe({**code, "max_runtime": max_runtime, "context": context})
        instance = self._start(user_data("us-east-1", folder.location))
        try:
            instance.wait_until("terminated", SECONDS + max_runtime)
        finally:
            journal = self._keep(name, instance)
        return Launched(instance, folder, journal)

    def layers(self) -> list[Path]:
        """The folders that make up a machine's root, from the top."""
        return self.sandbox.layers(self.sandbox.image)

    def _start(self, script: str) -> Instance:
        self.sandbox.client("ec2").run_instances(
            ImageId=self.sandbox.image,
            InstanceType="m7i.large",
            MinCount=1,
            MaxCount=1,
            UserData=script,
            IamInstanceProfile={"Name": self.sandbox.instance_profile},
            InstanceInitiatedShutdownBehavior="terminate",
            MetadataOptions={"HttpTokens": "required"},
        )
        return self.sandbox.instances[-1]

    @staticmethod
    def _keep(name: str, instance: Instance) -> str:
        """Keep a machine's journal and console for people; the journal."""
        folder = OUTPUT / "debian"
        folder.mkdir(parents=True, exist_ok=True)
        journal = read_journal(instance.folder)
        (folder / f"{name}-journal.txt").write_text(journal)
        (folder / f"{name}-console.txt").write_text(instance.log.read_text(errors="replace"))
        return journal


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, image_cache: Path) -> Iterator[Debian]:
    """Machines that boot, of the image that other stories may have built."""
    with isolated_sandbox(tmp_path_factory.mktemp("sandbox"), image_cache, booted=True) as sandbox:
        try:
            assert sandbox.image
        except LookupError:
            command = [sys.executable, "-m", "ami", "build"]
            launches = {"AUDIENCE_EXPLORER_EC2_LAUNCHES": f"s3://{sandbox.bucket}/jobs"}
            environment = {**os.environ, **settings(sandbox), **launches}
            subprocess.run(command, cwd=PROJECT, env=environment, check=True)
        sandbox.layers(sandbox.image)  # made here: machines have no way to Debian's packages
        sandbox.client("s3").put_object(Bucket=sandbox.bucket, Key="raw/month=2024-01/actions.jsonl", Body=RAW)
        yield Debian(sandbox)


def _pack(replaced: Mapping[str, bytes]) -> tuple[str, bytes]:
    """The digest and the archive of `spark_jobs`, with other content for some files."""
    packed = io.BytesIO()
    names = {file.relative_to(PROJECT).as_posix(): file.read_bytes() for file in spark_jobs.source_files()}
    assert replaced.keys() <= names.keys()
    write_tar_gz(packed, {**names, **replaced}.items())
    return hashlib.sha256(packed.getvalue()).hexdigest(), packed.getvalue()


def test_cloud_init_runs_the_launchers_user_data_and_the_machine_shuts_itself_down(debian: Debian) -> None:
    launched = debian.launch("a-job", 600, {})
    messages = list(Transcript(launched.folder).new_messages())
    assert launched.status.exit_code == 0, launched.journal[-8000:]
    assert [message["boot"] for message in messages if "boot" in message] == ["started", "jobs", "ended"]
    assert messages[0]["instance"] == launched.instance.id
    keys = debian.sandbox.client("s3").list_objects_v2(Bucket="audience", Prefix="grouped_users/")["Contents"]
    assert "grouped_users/2024-01/manifest.json" in [entry["Key"] for entry in keys]
    # /scratch was there before the user data, and the machine shut down in order.
    journal = launched.journal
    assert journal.index("no disks of the instance's own") < journal.index("Starting cloud-final.service")
    assert "Reached target shutdown.target" in journal
    assert "the time of this machine is over" not in journal + launched.instance.log.read_text(errors="replace")
    assert "Cloud-init v." in journal
    assert _failed_units(journal) == []


def test_the_watchdog_shuts_the_machine_down_when_the_boot_program_hangs(debian: Debian) -> None:
    launched = debian.launch("hangs", 60, {"spark_jobs/launch/instance.py": HANGS})
    journal = launched.journal
    assert journal.index("the agent hangs") < journal.index("watchdog: the time of this machine is over")
    assert "Reached target shutdown.target" in journal
    assert launched.folder.status() is None


def test_a_job_that_takes_all_memory_is_killed_and_the_boot_program_reports_it(debian: Debian) -> None:
    debian.sandbox.faults.memory_limit(512 << 20)
    launched = debian.launch("out-of-memory", 600, {"spark_jobs/group_by_user.py": EATS})
    status = launched.status
    assert (status.exit_code, status.out_of_memory, status.error) == (-9, True, None)
    messages = list(Transcript(launched.folder).new_messages())
    assert [message["boot"] for message in messages if "boot" in message] == ["started", "jobs", "ended"]
    assert "Reached target shutdown.target" in launched.journal


def _failed_units(journal: str) -> list[str]:
    """The lines in which systemd says that a unit failed before the machine shut itself down, which ends cloud-init."""
    before = journal.split("Stopped target", 1)[0].splitlines()
    return [line for line in before if "Failed to start" in line or "Failed with result" in line]
