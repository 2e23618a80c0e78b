"""Runs of commands: they are on record as others are, and are not left unfinished by a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from audience_explorer_dagster.automation import lost_runs
from audience_explorer_dagster.running.in_this_process import execute, fail_lost_runs
from tests.conftest import started
from tests.project import Project

OURS = ("audience_explorer", "__repository__")


@dg.op
def wait_for_ever() -> None:
    print("waits", flush=True)
    signal.pause()


@dg.job(executor_def=dg.in_process_executor)
def endless() -> None:
    wait_for_ever()


def test_a_run_has_the_origin_by_which_timeline_and_sensors_find_it(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"])
    (run,) = project.instance.get_runs()
    assert run.remote_job_origin is not None
    selector = run.remote_job_origin.repository_origin.get_selector()
    assert (selector.location_name, selector.repository_name) == OURS
    of_repository = dg.RunsFilter(tags={".dagster/repository": "__repository__@audience_explorer"})
    assert [found.run_id for found in project.instance.get_runs(of_repository)] == [run.run_id]
    assert run.tags["dagster/max_retries"] == "0", "the daemon leaves it to who typed the command"


@pytest.mark.parametrize("told_by", ["the next command", "the sensor"])
def test_a_run_whose_process_was_killed_is_failed(told_by: str, tmp_path: Path) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        killed = [sys.executable, "-c", "from tests.test_in_this_process import *; run_endless()"]
        environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
        with started(killed, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout.readline() == "waits\n"
            assert fail_lost_runs(instance) == [], "its process is there"
            process.kill()
            process.wait()
            (run,) = instance.get_runs()
            assert not run.is_finished
            if told_by == "the sensor":
                lost_runs(dg.build_sensor_context(instance))
            else:
                assert fail_lost_runs(instance) == [run.run_id]

        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert fail_lost_runs(instance) == []


def test_a_run_on_another_machine_is_left_alone() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for process in ("elsewhere 0-0 1 1", None):
            tags = {} if process is None else {".audience-explorer/process": process}
            instance.create_run_for_job(endless, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert fail_lost_runs(instance) == []


def run_endless() -> None:
    with dg.DagsterInstance.get() as instance:
        execute(endless, instance, None, {}, {})
