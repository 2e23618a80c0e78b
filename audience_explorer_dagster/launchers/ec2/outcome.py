"""What is wrong with a launch on EC2: a snapshot of what is known of it, and what follows from that."""

import signal
from dataclasses import dataclass

from ami.instances import Instance
from audience_explorer_dagster.launchers.ec2.errors import (
    BootFailed,
    EC2LaunchFailed,
    JobFailed,
    MessagesLost,
    NoCapacity,
    NoWayToS3,
    OutOfMemory,
    Overdue,
    Refused,
    SpotInterrupted,
    TerminatedFromOutside,
)
from spark_jobs import kms
from spark_jobs.launch.status import Status

_MISSING_SECONDS = 30.0  # how long what the status counts may take to arrive
_GRACE_SECONDS = 60.0  # how long the instance may outlive max_runtime, which it counts from its boot

# The request can't be fulfilled, however often: a key of the disk's encryption, a quota of volumes, a snapshot.
_REFUSED = {"Client.InternalError", "Client.InvalidSnapshot.NotFound", "Client.VolumeLimitExceeded"}

# What an instance that said nothing could not say.
_SILENT = (
    "It needs a way to S3 (audience-explorer ec2 check looks at the subnets), a security group and a network ACL that"
    " let it out by HTTPS, and the rights of ami/iam/instance.json; for a bucket with a KMS key of yours, kms.json"
)

Problem = tuple[type[EC2LaunchFailed], str]


@dataclass(frozen=True)
class Limits:
    """How many seconds a launch may take: until its instance says something, and from then on."""

    boot_timeout: float
    max_runtime: float


@dataclass(frozen=True)
class Snapshot:
    """What is known of a launch at one moment.

    Attributes:
        instance: As EC2 last described it.
        seconds: Since it was started.
        alive_seconds: Since it first said something; None if it did not.
        is_gone: Whether it can't write any more.
        interrupted: Whether AWS announced that it takes the instance back.
        status: How the launch ended; None if it did not, or could not write it.
        missing: What of all that the status counts did not arrive; empty if nothing.
        missing_seconds: Since that was first seen.
        unended: How many jobs did not end.
        last_words: The end of the log.
        dead_end: Why no way leads from its subnet to S3, and what to do; empty if one does, or may.
    """

    instance: Instance
    seconds: float
    alive_seconds: float | None = None
    is_gone: bool = False
    interrupted: bool = False
    status: Status | None = None
    missing: str = ""
    missing_seconds: float = 0.0
    unended: int = 0
    last_words: str = ""
    dead_end: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing will be written that was not read."""
        return self.is_gone or (self.status is not None and not self.missing)

    @property
    def jobs(self) -> str:
        """How far the jobs have come, for an error."""
        return f"{self.unended} jobs not done" if self.unended else "all jobs done"


def find_problem(seen: Snapshot, limits: Limits) -> Problem | None:
    """What is wrong with a launch: the kind of its error, and what happened; None if nothing is, or not yet."""
    if seen.status is not None and seen.missing:
        is_lost = seen.is_gone or seen.missing_seconds > _MISSING_SECONDS
        return (MessagesLost, seen.missing) if is_lost else None
    if seen.status is not None:
        return _problem_by_status(seen, seen.status, limits)
    return _problem_by_end(seen, limits) if seen.is_gone else _problem_by_time(seen, limits)


def _problem_by_time(seen: Snapshot, limits: Limits) -> Problem | None:
    """Whether a launch that goes on takes too long."""
    if seen.alive_seconds is None and seen.seconds > limits.boot_timeout:
        return _silent(seen, f"no sign of life in {limits.boot_timeout} s (boot_timeout)")
    if seen.alive_seconds is not None and seen.alive_seconds > limits.max_runtime + _GRACE_SECONDS:
        return Overdue, f"it did not end itself after {limits.max_runtime} s (max_runtime)"
    return None


def _problem_by_status(seen: Snapshot, status: Status, limits: Limits) -> Problem | None:
    """Why a launch that wrote a status did not end well."""
    if status.error is not None:
        more = f". {kms.WAY_OUT}" if kms.is_denied(status.error) else ""
        return BootFailed, f"the jobs could not be run: {status.error}{more}"
    if not seen.unended:
        return None
    if seen.interrupted:
        return SpotInterrupted, f"AWS takes the instance back, with {seen.jobs}"
    if status.out_of_memory:
        return OutOfMemory, (
            f"{seen.instance.type} has too little memory for {seen.jobs}. Choose a larger type first in instance_types"
        )
    if status.overdue:
        return Overdue, f"after {limits.max_runtime} s (max_runtime), with {seen.jobs}"
    code = status.exit_code or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    return JobFailed, (
        f"the process of the jobs {how}, with {seen.jobs}; its last words:\n{seen.last_words or '(none)'}\n"
    )


def _problem_by_end(seen: Snapshot, limits: Limits) -> Problem | None:
    """Why an instance ended that left no status.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
    """
    if not seen.unended:
        return None  # messages are read in order, so all came that were written before the last job's end
    instance, reason = seen.instance, seen.instance.reason
    if seen.interrupted or reason.startswith("Server.Spot"):
        return SpotInterrupted, f"AWS took the instance back ({reason}), with {seen.jobs}"
    if reason == "Server.InsufficientInstanceCapacity":
        return NoCapacity, f"EC2 had no {instance.type} in {instance.zone} after all"
    if reason in _REFUSED:
        return Refused, f"EC2 can't start it ({instance.explanation or reason}), with {seen.jobs}"
    if reason == "Client.UserInitiatedShutdown":
        return TerminatedFromOutside, f"somebody ended the instance, with {seen.jobs}"
    if seen.alive_seconds is not None and seen.alive_seconds >= limits.max_runtime:
        return Overdue, f"the watchdog ended it at max_runtime, with {seen.jobs}"
    ended = f"it ended ({reason or 'for no known reason'}) and left no status, with {seen.jobs}"
    return _silent(seen, ended) if seen.alive_seconds is None else (BootFailed, ended)


def _silent(seen: Snapshot, what: str) -> Problem:
    """What is wrong with an instance that never said anything."""
    return (NoWayToS3, f"{what}: {seen.dead_end}") if seen.dead_end else (BootFailed, f"{what}. {_SILENT}")
