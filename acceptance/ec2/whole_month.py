"""A month of real actions, all 13 categories, on instances of an image that was built from nothing: the results are
those of this machine, one instance was launched, none is left, and the second time none is launched.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from acceptance.conftest import OUTPUT, PROJECT, Explorer, isolated_sandbox
from acceptance.ec2.conftest import EC2Explorer, assert_none_left, assert_outputs_whole
from acceptance.sandbox import Sandbox
from acceptance.sandbox.__main__ import settings
from acceptance.sandbox.ec2 import ACCOUNT

pytestmark = pytest.mark.isolated

MONTH = "2018-12"
ASSETS = ("grouped_users", "clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")


@pytest.fixture
def isolated(tmp_path: Path, image_cache: Path) -> Iterator[Sandbox]:
    """AWS on this machine, with isolated machines of an image that `python -m ami build` made."""
    with isolated_sandbox(tmp_path / "sandbox", image_cache) as sandbox:
        try:
            assert sandbox.image
        except LookupError:
            command = [sys.executable, "-m", "ami", "build"]
            subprocess.run(command, cwd=PROJECT, env={**os.environ, **settings(sandbox)}, check=True)
        yield sandbox


@pytest.mark.timeout(2700)
def test_a_month_on_ec2_is_that_of_this_machine_and_takes_one_instance(
    isolated: Sandbox, tmp_path: Path, ansible: Path
) -> None:
    here, there = Explorer(tmp_path / "here"), EC2Explorer(tmp_path / "there", isolated)
    here.bring(ansible, MONTH)
    there.bring(ansible, MONTH)
    launched_before = len(isolated.instances)

    local = here.pipeline("--month", MONTH)
    first = there.pipeline("--month", MONTH)

    assert first.launched == local.launched
    assert len(first.launched) == 1 + 5 * 13
    (instance,) = isolated.instances[launched_before:]
    assert instance.tags["label"] == MONTH
    assert_none_left(isolated)
    assert_outputs_whole(there)
    for asset in ASSETS:
        mine = {
            _below_output(file.relative_to(here.root / asset).as_posix()): file.read_bytes()
            for file in (here.root / asset).rglob("*")
            if file.is_file()
        }
        theirs = {_below_output(name): content for name, content in there.files(asset).items()}
        assert set(mine) == set(theirs)
        # Manifests tell folders, seconds and versions, and the index of reports links to folders.
        for name, content in mine.items():
            if not name.endswith(("manifest.json", "current.json", "index.html")):
                assert content == theirs[name], name
    _report_overhead(there)

    second = there.pipeline("--month", MONTH)
    assert second.launched == set()
    assert second.reused == first.launched
    assert len(isolated.instances) == launched_before + 1


def _below_output(path: str) -> str:
    """A path without the name of the output folder, which is another each time."""
    return "/".join(part for part in path.split("/") if not part.startswith("20"))


def _report_overhead(explorer: EC2Explorer) -> None:
    """Keep what launching costs beyond the jobs: seconds from "the instance runs" to "the job starts", and from "the
    job ends" to "materialized". The aim is 5 s for both together."""
    # From moto itself: S3 tells whole seconds.
    stored = s3_backends[ACCOUNT]["aws"].buckets[explorer.sandbox.bucket].keys.values()
    written = {key.name.removeprefix("explorer/"): _seconds(key.last_modified) for key in stored}
    script = (
        "import dagster as dg, json\n"
        "with dg.DagsterInstance.get() as instance:\n"
        "    for asset in ('grouped_users', 'kmeans'):\n"
        "        for record in instance.fetch_materializations(dg.AssetKey(asset), limit=50).records:\n"
        "            facts = {k: v.value for k, v in record.asset_materialization.metadata.items()}\n"
        "            print(json.dumps({'at': record.timestamp, **{k: facts[k] for k in ('folder', 'launch/id')}}))\n"
    )
    told = explorer.command("python", "-W", "ignore", "-c", script).stdout.splitlines()
    records = [json.loads(line) for line in told if line.startswith("{")]
    root = f"s3://{explorer.sandbox.bucket}/explorer/"
    after = [record["at"] - written[f"{record['folder'].removeprefix(root)}/manifest.json"] for record in records]
    before = []
    for instance in explorer.sandbox.instances:
        if "launch" in instance.tags:
            launch = next(name for name in written if f"launch={instance.tags['launch']}" in name)
            messages = explorer.files(launch.rpartition("/")[0] + "/messages")
            began = next(
                json.loads(line)["at"]
                for _, chunk in sorted(messages.items())
                for line in chunk.splitlines()
                if b'"boot": "jobs"' in line
            )
            before.append(began - _seconds(instance.about.launch_time))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    figures = {"instance_runs_to_job_starts": before, "job_ends_to_materialized": after}
    (OUTPUT / "launch_overhead.json").write_text(json.dumps(figures, indent=1))


def _seconds(moment: datetime) -> float:
    """Since the epoch; moto's times are UTC, and do not say so."""
    return moment.replace(tzinfo=timezone.utc).timestamp()
