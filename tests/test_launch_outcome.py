"""What is wrong with a launch, by a snapshot of what is known of it: a table for each launcher on AWS."""

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from ami.instances import Instance
from audience_explorer_dagster.launchers.ec2 import errors, outcome
from audience_explorer_dagster.launchers.ec2.outcome import Limits, Snapshot
from audience_explorer_dagster.launchers.emr_serverless import outcome as emr
from spark_jobs.launch.status import Status

LIMITS = Limits(boot_timeout=600, max_runtime=3600)
INSTANCE = Instance("i-1", "m5.large", "us-east-1a", "spot", "running", datetime.now(timezone.utc), {})
RUNS = Snapshot(INSTANCE, seconds=100, alive_seconds=50, unended=2)
ENDED = replace(RUNS, status=Status(exit_code=0), unended=0)
GONE = replace(RUNS, is_gone=True)


def gone(reason: str, **known: Any) -> Snapshot:
    return replace(GONE, instance=replace(INSTANCE, state="terminated", reason=reason), **known)


@pytest.mark.parametrize(
    "seen",
    [
        RUNS,
        replace(RUNS, alive_seconds=None, seconds=599),
        replace(RUNS, alive_seconds=3650),  # it counts max_runtime from its boot
        ENDED,
        replace(ENDED, status=Status(exit_code=1)),  # each of its jobs had its turn, and those that failed said so
        replace(ENDED, interrupted=True),
        replace(ENDED, status=Status(exit_code=0, out_of_memory=True)),
        replace(ENDED, missing="it wrote 2 objects, 1 arrived", missing_seconds=29),
        gone("Server.SpotInstanceTermination", unended=0),
    ],
)
def test_nothing_is_wrong_with_a_launch_on_ec2_that_goes_on_or_whose_jobs_all_ended(seen: Snapshot) -> None:
    assert outcome.find_problem(seen, LIMITS) is None


@pytest.mark.parametrize(
    ("seen", "kind", "what"),
    [
        (replace(RUNS, alive_seconds=None, seconds=601), errors.BootFailed, "no sign of life in 600 s (boot_timeout)"),
        (
            replace(RUNS, alive_seconds=None, seconds=601),
            errors.BootFailed,
            "It needs a way to S3 (audience-explorer ec2 check looks at the subnets)",
        ),
        (
            replace(RUNS, alive_seconds=None, seconds=601, dead_end="no way to S3. Make an endpoint"),
            errors.NoWayToS3,
            "no sign of life in 600 s (boot_timeout): no way to S3. Make an endpoint",
        ),
        (
            gone("Client.InstanceInitiatedShutdown", alive_seconds=None),
            errors.BootFailed,
            "left no status, with 2 jobs not done. It needs a way to S3",
        ),
        (
            replace(RUNS, status=Status(error="ClientError: not authorized to perform: kms:Decrypt")),
            errors.BootFailed,
            "allow kms:Decrypt and kms:GenerateDataKey",
        ),
        (replace(RUNS, alive_seconds=3661), errors.Overdue, "it did not end itself after 3600 s (max_runtime)"),
        (replace(RUNS, status=Status(error="ValueError: no")), errors.BootFailed, "could not be run: ValueError: no"),
        (replace(RUNS, status=Status(exit_code=1)), errors.JobFailed, "exited with code 1, with 2 jobs not done"),
        (replace(RUNS, status=Status(exit_code=-9)), errors.JobFailed, "SIGKILL, with 2 jobs not done; its last words"),
        (replace(RUNS, status=Status(exit_code=-9, overdue=True)), errors.Overdue, "after 3600 s (max_runtime)"),
        (replace(RUNS, status=Status(exit_code=-9, out_of_memory=True)), errors.OutOfMemory, "m5.large has too little"),
        (replace(RUNS, status=Status(exit_code=3), interrupted=True), errors.SpotInterrupted, "AWS takes the instance"),
        (replace(ENDED, missing="less arrived", missing_seconds=31), errors.MessagesLost, "less arrived"),
        (replace(ENDED, missing="less arrived", is_gone=True), errors.MessagesLost, "less arrived"),
        (gone("Server.SpotInstanceTermination"), errors.SpotInterrupted, "AWS took the instance back"),
        (gone("", interrupted=True), errors.SpotInterrupted, "AWS took the instance back"),
        (gone("Server.InsufficientInstanceCapacity"), errors.NoCapacity, "EC2 had no m5.large in us-east-1a after all"),
        (gone("Client.UserInitiatedShutdown"), errors.TerminatedFromOutside, "somebody ended the instance"),
        (gone("Client.InstanceInitiatedShutdown", alive_seconds=3600), errors.Overdue, "the watchdog ended it"),
        (gone("Client.InstanceInitiatedShutdown"), errors.BootFailed, "left no status, with 2 jobs not done"),
        (gone(""), errors.BootFailed, "it ended (for no known reason)"),
    ],
)
def test_what_is_wrong_with_a_launch_on_ec2_has_a_name(
    seen: Snapshot, kind: type[errors.EC2LaunchFailed], what: str
) -> None:
    problem = outcome.find_problem(seen, LIMITS)
    assert problem is not None
    assert (problem[0], what in problem[1]) == (kind, True), problem


@pytest.mark.parametrize(
    ("seen", "is_over"),
    [
        (RUNS, False),
        (ENDED, True),
        (replace(ENDED, missing="less arrived"), False),
        (GONE, True),
        (replace(GONE, missing="less arrived", status=Status()), True),
    ],
)
def test_a_launch_is_over_once_nothing_will_be_written_that_was_not_read(seen: Snapshot, is_over: bool) -> None:
    assert seen.is_over == is_over


JOB_RUN = emr.Snapshot(
    job_run={"state": "SUCCESS"},
    failure=None,
    status=Status(exit_code=0),
    missing="",
    jobs=2,
    unended=0,
    max_runtime=3600,
    last_words="",
)
LEFT = replace(JOB_RUN, unended=1, last_words="Alas")


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (JOB_RUN, ""),
        (replace(JOB_RUN, status=None, job_run={"state": "FAILED"}), ""),
        (replace(JOB_RUN, job_run=None, failure=ValueError("no role")), "could not be started: no role"),
        (replace(JOB_RUN, missing="it wrote 2, 1 arrived"), "messages are lost: it wrote 2, 1 arrived"),
        (replace(LEFT, status=Status(error="ValueError: no")), "the jobs could not be run: ValueError: no"),
        (replace(LEFT, status=Status(exit_code=-11)), "exit code -11, with 1 of 2 jobs not done; last words:\nAlas"),
        (replace(LEFT, status=Status(exit_code=-9, overdue=True)), "they took longer than max_runtime, 3600 s, allows"),
        (replace(LEFT, status=Status(out_of_memory=True)), "raise driver_memory_gb or python_share, with 1 of 2"),
        (replace(LEFT, status=None, job_run={"state": "RUNNING"}, failure=OSError("gone")), "any more, with 1 of 2"),
        (
            replace(LEFT, status=None, job_run={"state": "FAILED", "stateDetails": "ExitCode: 127"}),
            "the job run ended as FAILED, with 1 of 2 jobs not done: ExitCode: 127; last words:\nAlas",
        ),
    ],
)
def test_what_is_wrong_with_a_launch_on_emr_serverless_is_said(seen: emr.Snapshot, what: str) -> None:
    problem = emr.find_problem(seen)
    assert what in problem
    assert bool(what) == bool(problem)
