"""A deployment on EC2 whose run loses its process: it is done by a new one, on an instance of its own, and the instance
that nobody waits for any more is ended.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest

from acceptance.backfill import processes_of, wait_for
from acceptance.ec2.conftest import EC2Explorer, explorer, permissions, sandbox
from acceptance.ec2.faults import CATEGORY, KMEANS, MONTH, while_it_writes
from acceptance.sandbox import Instance, Sandbox
from acceptance.torture.long_run import Services, services
from acceptance.torture.services import find, is_run

__all__ = ["explorer", "permissions", "sandbox"]  # fixtures


@pytest.fixture
def deployment(explorer: EC2Explorer, ansible: Path) -> Iterator[Services]:
    """The services of a deployment, with a month and a category on S3."""
    explorer.bring(ansible, MONTH)
    explorer.environment["AUDIENCE_EXPLORER_START_MONTH"] = MONTH
    with services(explorer) as running:
        wait_for(running.ask, "the webserver is there", seconds=400)
        yield running


@pytest.mark.timeout(2700)
def test_a_run_that_is_lost_with_its_code_server_goes_on_as_the_same_run(
    deployment: Services, sandbox: Sandbox, explorer: EC2Explorer
) -> None:
    while_it_writes(sandbox, KMEANS, lambda lost: (cut_off(sandbox, lost), kill_code_server(deployment)))
    launch(explorer)
    with dg.DagsterInstance.from_config(str(explorer.home)) as records:
        (run,) = finished_runs(records)
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert records.count_resume_run_attempts(run.run_id) == 1
    assert_done_again(sandbox, explorer)


@pytest.mark.timeout(2700)
@pytest.mark.usefixtures("deployment")
def test_a_run_that_is_killed_alone_is_tried_again(sandbox: Sandbox, explorer: EC2Explorer) -> None:
    while_it_writes(sandbox, KMEANS, lambda lost: (cut_off(sandbox, lost), kill_run(explorer)))
    launch(explorer)
    with dg.DagsterInstance.from_config(str(explorer.home)) as records:
        again, killed = finished_runs(records, count=2)
        assert killed.status == dg.DagsterRunStatus.FAILURE
        assert again.status == dg.DagsterRunStatus.SUCCESS
        assert again.parent_run_id == killed.run_id
    assert_done_again(sandbox, explorer)


def finished_runs(records: dg.DagsterInstance, count: int = 1) -> Sequence[dg.DagsterRun]:
    """So many runs, the newest first, once all of them are over."""

    def are_over() -> bool:
        runs = records.get_runs()
        return len(runs) == count and all(run.is_finished for run in runs)

    wait_for(are_over, "the runs are over", seconds=500)
    return records.get_runs()


def assert_done_again(sandbox: Sandbox, explorer: EC2Explorer) -> None:
    """A second instance did what was not done yet, and the first one is ended."""
    first, second = explorer.launched_jobs()
    assert len(second) < len(first), "what was done is reused"
    lost, _ = sandbox.instances
    lost.wait_until("terminated", seconds=300)
    (_,) = [name for name in explorer.files("kmeans") if name.endswith("manifest.json")]


def cut_off(sandbox: Sandbox, lost: Instance) -> None:
    """Let an instance end no job any more, however long it takes until somebody else does them."""
    sandbox.faults.cut_network(lost, seconds=2700)


def launch(explorer: EC2Explorer) -> None:
    """Launch the month's job, as cron or a person does."""
    config = {"ops": {"month": {"config": {"categories": [CATEGORY]}}}}
    explorer.command(
        *("dagster", "job", "launch", "--workspace", "deploy/workspace.yaml", "--job", "whole_month"),
        *("--tags", json.dumps({"dagster/partition": MONTH}), "--config-json", json.dumps(config)),
    )


def kill_code_server(running: Services) -> None:
    """Kill the code server with its runs, and start it again, as systemd does."""
    for process in find(running, "code server"):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    running.processes["code"].wait()
    running.start("code")


def kill_run(explorer: EC2Explorer) -> None:
    """Kill the process of the run, which is a child of the code server, with those that it started."""
    for process in processes_of(explorer):
        if is_run(process):
            with suppress(psutil.NoSuchProcess):
                process.kill()
