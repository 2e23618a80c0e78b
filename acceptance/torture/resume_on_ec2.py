"""A deployment on EC2 whose run loses its process: the run goes on in a new one, on an instance of its own, and the
instance that nobody waits for any more is ended.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from acceptance.backfill import processes_of, wait_for
from acceptance.ec2.conftest import EC2Explorer, explorer, permissions, sandbox
from acceptance.ec2.faults import CATEGORY, KMEANS, MONTH, hold_up, while_it_writes
from acceptance.sandbox import Sandbox
from acceptance.torture.long_run import Services, services
from acceptance.torture.services import is_run

__all__ = ["explorer", "permissions", "sandbox"]  # fixtures


@pytest.fixture
def deployment(explorer: EC2Explorer, ansible: Path) -> Iterator[Services]:
    """The services of a deployment, with a month and a category on S3."""
    explorer.bring(ansible, MONTH)
    explorer.environment["AUDIENCE_EXPLORER_START_MONTH"] = MONTH
    with services(explorer) as running:
        wait_for(running.ask, "the webserver is there")
        yield running


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("deployment")
def test_a_run_that_loses_its_process_goes_on_as_the_same_run(sandbox: Sandbox, explorer: EC2Explorer) -> None:
    while_it_writes(sandbox, KMEANS, lambda _: (hold_up(sandbox, 8), kill_run(explorer)))
    launch(explorer)
    with dg.DagsterInstance.from_config(str(explorer.home)) as records:
        wait_for(lambda: records.get_runs() and records.get_runs()[0].is_finished, "the run is over", seconds=500)
        (run,) = records.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert records.count_resume_run_attempts(run.run_id) == 1
    first, second = explorer.launched_jobs()
    assert len(second) < len(first), "what was done is reused"
    lost, _ = sandbox.instances
    lost.wait_until("terminated", seconds=300)
    finished = [name for name in explorer.files("kmeans") if name.endswith("manifest.json")]
    assert 1 <= len(finished) <= 2, "the lost instance may have ended its job"


def launch(explorer: EC2Explorer) -> None:
    """Launch the month's job, as cron or a person does."""
    config = {"ops": {"month": {"config": {"categories": [CATEGORY]}}}}
    explorer.command(
        *("dagster", "job", "launch", "--workspace", "deploy/workspace.yaml", "--job", "whole_month"),
        *("--tags", json.dumps({"dagster/partition": MONTH}), "--config-json", json.dumps(config)),
    )


def kill_run(explorer: EC2Explorer) -> None:
    """Kill the process of the run, which is a child of the code server, with those that it started."""
    for process in processes_of(explorer):
        if is_run(process):
            process.kill()
