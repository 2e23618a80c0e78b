"""What is wrong with a launch on EMR Serverless that is over: what is known of it, and what follows from that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spark_jobs.launch.status import Status

if TYPE_CHECKING:
    from mypy_boto3_emr_serverless.literals import JobRunStateType

# https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/job-states.html
ENDED: "tuple[JobRunStateType, ...]" = ("SUCCESS", "FAILED", "CANCELLING", "CANCELLED")


@dataclass(frozen=True)
class Snapshot:
    """What is known of a launch after its job run.

    Attributes:
        job_run: As AWS last described it; None if it was not started.
        failure: What dagster-aws's client failed with, if it did.
        status: What the driver wrote last; None if it did not.
        missing: What of all that the status counts did not arrive; empty if nothing.
        jobs: How many jobs there were.
        unended: How many of them did not end.
        max_runtime: Seconds that the job run might take.
        last_words: The end of the log, or else of Spark's.
    """

    job_run: "Mapping[str, Any] | None"
    failure: Exception | None
    status: Status | None
    missing: str
    jobs: int
    unended: int
    max_runtime: int
    last_words: str


def find_problem(seen: Snapshot) -> str:
    """What is wrong with a launch; empty if nothing is."""
    if seen.job_run is None:
        return f"the job run could not be started: {seen.failure}"
    left = f"with {seen.unended} of {seen.jobs} jobs not done"
    words = f"last words:\n{seen.last_words or '(none)'}\n"
    if seen.status is None:
        if not seen.unended:
            return ""  # messages are read in order, so all came that were written before the last job's end
        if seen.job_run["state"] not in ENDED:
            return f"AWS says nothing of the job run any more, {left}: {seen.failure}"
        details = seen.job_run.get("stateDetails") or "AWS gives no reason"
        return f"the job run ended as {seen.job_run['state']}, {left}: {details}; {words}"
    if seen.missing:
        return f"messages are lost: {seen.missing}"
    if seen.status.error is not None:
        return f"the jobs could not be run: {seen.status.error}"
    if not seen.unended:
        return ""
    reasons = []
    if seen.status.out_of_memory:
        reasons.append("the driver had no memory left: raise driver_memory_gb or python_share")
    if seen.status.overdue:
        reasons.append(f"they took longer than max_runtime, {seen.max_runtime} s, allows")
    reason = "; ".join(reasons) or f"their process ended with exit code {seen.status.exit_code}"
    return f"{reason}, {left}; {words}"
