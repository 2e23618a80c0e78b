"""One launch on EC2: one instance, from asking for it to its end."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError

from ami import instances
from ami.images import Image
from ami.instances import Instance
from audience_explorer_dagster.launchers import Job, Report, pipes_context, receive
from audience_explorer_dagster.launchers.aws import is_refusal, is_unauthorized
from audience_explorer_dagster.launchers.ec2 import code, prices
from audience_explorer_dagster.launchers.ec2.errors import (
    EC2LaunchFailed,
    JobFailed,
    MessagesLost,
    NoCapacity,
    Refused,
    Unreachable,
    kind_of,
)
from audience_explorer_dagster.launchers.ec2.explanations import explained
from audience_explorer_dagster.launchers.ec2.outcome import Limits, Snapshot, find_problem
from audience_explorer_dagster.launchers.ec2.settings import EC2Settings
from audience_explorer_dagster.launchers.ec2.start import LaunchOption, instance_tags, start_instance
from audience_explorer_dagster.launchers.launch_store import LaunchTags
from spark_jobs.launch import lease
from spark_jobs.launch.folder import Folder
from spark_jobs.launch.reader import BrokenMessage, Transcript

_STATE_SECONDS = 3.0  # between two requests for the instance's state
_UNREACHABLE_SECONDS = 300.0  # how long AWS may not answer
_UNKNOWN_SECONDS = 60.0  # how long a new instance may be unknown to EC2's API, which is only eventually consistent
_UNKNOWN_TIMES = 5  # in a row, after which an instance that was known is gone
_LOG_SECONDS = 1.0  # how much later than a message the log that belongs to it may come

# To repeat the request would not help.
_REFUSALS = {
    "AccessDenied",
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "NoSuchBucket",
    "UnauthorizedOperation",
}


class Launch:
    """One instance that runs jobs."""

    def __init__(
        self,
        settings: EC2Settings,
        folder: Folder,
        tags: LaunchTags,
        context: dg.OpExecutionContext,
        dead_ends: Mapping[str | None, str] | None = None,
    ):
        self._settings, self._folder, self._tags, self._context = settings, folder, tags, context
        self._dead_ends = dead_ends or {}  # as `network.dead_ends` has them
        self._instance: Instance | None = None
        self._option: LaunchOption | None = None  # the one that was taken
        self._transcript = Transcript(folder)
        self._reports: deque[tuple[float, Report]] = deque()  # those not yielded yet, and from when on they may be
        self._unended: set[str] = set()  # jobs
        self._interrupted = False  # whether AWS announced that it takes the instance back
        self._may_be_started = False  # whether there may be an instance
        self._launched_at = time.monotonic()
        self._state_timer = _Timer(_STATE_SECONDS)
        self._unknown_times = 0  # in a row, at which EC2 did not know the instance
        self._missing_since: float | None = None  # when it was first seen that less arrived than the status counts
        self._alive_at: float | None = None  # when it first said something, in seconds since the launch
        self._jobs_began_at: float | None = None  # likewise
        self._counted_until = 0.0  # up to when costs are reported, likewise

    def run(
        self, image: Image, code_location: str, options: Sequence[LaunchOption], jobs: Sequence[Job]
    ) -> Iterator[Report]:
        """Start an instance by the first of the options that has one, and yield what its jobs report.

        The instance is ended in any case.

        Raises:
            EC2LaunchFailed: Its kind says how.
        """
        self._unended = {job.id for job in jobs}
        try:
            self._describe(image, code_location, options, jobs)
            with lease.renewed(self._folder):
                self._start(image, options, jobs)
                yield from self._watch()
        except NoCapacity as error:
            raise error if error.launch else self._error(NoCapacity, error.what) from None
        except (BotoCoreError, ClientError) as error:
            raise self._error(kind_of(error), explained(error)) from error
        finally:
            self._end()

    def options_after(self, options: Sequence[LaunchOption]) -> list[LaunchOption]:
        """The same options, but those after the one that was taken come first."""
        taken = options.index(self._option) + 1 if self._option in options else 0
        return [*options[taken:], *options[:taken]]

    def uncounted_dollars(self) -> float | None:
        """What the instance has cost until now and no output has on record; None if the price is not known."""
        if self._instance is None:
            return 0.0
        return self._price.of(self._seconds() - self._counted_until)

    def wait_until_gone(self) -> None:
        """Wait until the instance can't write any more."""
        unreachable = _Timer(_UNREACHABLE_SECONDS)
        while self._instance is not None:
            try:
                now = instances.describe(self._settings.ec2, self._instance.id)
                if now is None or now.state in instances.ENDED:
                    return
                unreachable.restart()
            except (BotoCoreError, ClientError) as error:
                self._check_retry(error, unreachable)
            time.sleep(self._settings.poll_seconds)

    # --- start ---

    def _describe(self, image: Image, code_location: str, options: Sequence[LaunchOption], jobs: Sequence[Job]) -> None:
        settings = self._settings
        self._folder.describe(
            {
                "code": code_location,
                "code_sha256": code.pack()[0],
                "max_runtime": settings.max_runtime,
                "context": pipes_context(self._context, jobs),
                # For people, and for launching it again.
                "launched": {
                    "launcher": "ec2",
                    "image": f"{image.name} ({image.id})",
                    "options": [str(option) for option in options],
                    "volume": f"{settings.volume_gb} GB {settings.volume_type}",
                    "commands": [[job.module, *job.arguments] for job in jobs],
                },
            }
        )

    def _start(self, image: Image, options: Sequence[LaunchOption], jobs: Sequence[Job]) -> None:
        settings, launch = self._settings, self._tags
        tags = instance_tags(settings, launch)
        self._may_be_started = True
        try:
            self._instance, self._option = start_instance(
                settings.ec2_once, settings, options, launch.launch, tags, image, self._folder.location
            )
        except (NoCapacity, ClientError) as error:
            # After any other error, an instance may have been started.
            self._may_be_started = isinstance(error, ClientError) and not is_refusal(error)
            raise
        self._launched_at = time.monotonic()
        self._context.log.info(
            f"launched {len(jobs)} jobs on {self._instance.id}: {self._option}, image {image.name}, launch"
            f" {launch.launch}, pipeline {launch.pipeline}, label {launch.label}. Its log:"
            f" audience-explorer launch log {launch.launch} ({self._folder.log})"
        )

    # --- watch ---

    def _watch(self) -> Iterator[Report]:
        """Yield what the jobs report, until the launch has ended and all that it wrote was read."""
        limits = Limits(self._settings.boot_timeout, self._settings.max_runtime)
        unreachable = _Timer(_UNREACHABLE_SECONDS)
        while True:
            try:
                seen = self._poll()
            except (BotoCoreError, ClientError) as error:
                self._missing_since = None
                self._check_retry(error, unreachable)
            else:
                unreachable.restart()
                yield from self._due_reports(all_of_them=seen.is_over)
                if problem := find_problem(seen, limits):
                    raise self._error(*problem)
                if seen.is_over:
                    self._log_end(seen)
                    return
            time.sleep(self._settings.poll_seconds)

    def _poll(self) -> Snapshot:
        """Read what the instance wrote since the last time, and what EC2 says of it."""
        # In this order: an instance that is gone, or whose status is there, has written what is read then.
        is_gone = self._poll_state() if self._state_timer.is_over() else False
        status = self._folder.status()
        self._read()
        missing = self._transcript.missing(status) if status is not None else ""
        now = time.monotonic()
        self._missing_since = (self._missing_since or now) if missing else None
        assert self._instance is not None
        return Snapshot(
            instance=self._instance,
            seconds=self._seconds(),
            alive_seconds=None if self._alive_at is None else self._seconds() - self._alive_at,
            is_gone=is_gone,
            interrupted=self._interrupted,
            status=status,
            missing=missing,
            missing_seconds=now - (self._missing_since or now),
            unended=len(self._unended),
            last_words=self._transcript.tail.strip(),
            dead_end=self._dead_ends.get(self._option.subnet, "") if self._option else "",
        )

    def _poll_state(self) -> bool:
        """Ask EC2 for the instance; whether it can't write any more."""
        assert self._instance is not None
        now = instances.describe(self._settings.ec2, self._instance.id)
        self._state_timer.restart()
        if now is not None:
            self._unknown_times, self._instance = 0, now
            return now.state in instances.ENDED
        # Unknown yet; or, about an hour after its end, not any more.
        self._unknown_times += 1
        is_gone = self._seconds() > _UNKNOWN_SECONDS and self._unknown_times >= _UNKNOWN_TIMES
        if is_gone:
            self._instance = replace(self._instance, state="terminated")
        return is_gone

    def _read(self) -> None:
        try:
            for message in self._transcript.new_messages():
                self._take(message)
        except BrokenMessage as error:
            raise self._error(MessagesLost, str(error)) from error

    def _take(self, message: dict[str, Any]) -> None:
        if "boot" in message:
            self._take_boot(message)
            return
        report = receive(self._context, message)
        if report is None:
            return
        if report.event != "output":
            self._unended.discard(report.job)
        due = time.monotonic()
        if report.event == "output":
            report = replace(report, launch=self._facts())
        elif report.event == "failed":
            due += _LOG_SECONDS
        self._reports.append((due, report))

    def _take_boot(self, message: dict[str, Any]) -> None:
        """Take what the agent reports of itself."""
        if message["boot"] == "started":
            self._alive_at = self._seconds()
            self._context.log.info(f"{message['instance']} is up after {self._alive_at:.1f} s")
        elif message["boot"] == "jobs":
            self._jobs_began_at = self._seconds()
            self._context.log.info(f"the jobs begin, {self._seconds():.1f} s after the launch")
        elif message["boot"] == "spot_notice":
            self._interrupted = True
            self._context.log.warning(
                f"AWS takes the instance back at {message['notice'].get('time')}: the job that runs goes on for as"
                " long as it can, and no further one is started"
            )

    def _due_reports(self, all_of_them: bool) -> Iterator[Report]:
        """The reports that may be yielded: a failure once the log has come as far, whose end is logged with it."""
        while self._reports and (all_of_them or self._reports[0][0] <= time.monotonic()):
            _, report = self._reports.popleft()
            if report.event == "failed":
                self._context.log.error(f"{report.job} failed; the end of the log:\n{self._transcript.tail.strip()}")
                report = replace(report, error=str(self._error(JobFailed, report.error)))
            yield report

    def _log_end(self, seen: Snapshot) -> None:
        """Log what is noteworthy about a launch that ended without a problem."""
        if seen.status is None:
            reason = f"{seen.instance.id} ended ({seen.instance.reason})"
            self._context.log.warning(f"{reason} after all its jobs had, but before it said so")
        elif seen.status.out_of_memory:
            self._context.log.error("the kernel ended a process, because the machine had no memory left")

    # --- end ---

    def _end(self) -> None:
        """End the instance, also one that was started though its answer did not come."""
        known = {self._instance.id} if self._instance else set[str]()
        ended = set[str]()
        unknown = _Timer(_UNKNOWN_SECONDS)
        failure: Exception | None = None
        # EC2 may not know yet what it has just started, so this is repeated until it does.
        while self._may_be_started and not ended and not unknown.is_over():
            try:
                ended |= known - instances.terminate(self._settings.ec2, known)
                strays = {of.id for of in instances.find(self._settings.ec2, {"launch": self._tags.launch})} - ended
                ended |= strays - instances.terminate(self._settings.ec2, strays)
                failure = None
            except (BotoCoreError, ClientError) as error:
                failure = error
                # What we may end, we may by its tags, which are not known yet either.
                if ended or not is_unauthorized(error):
                    break
            if not ended:
                time.sleep(self._settings.poll_seconds)
        if failure is not None and not ended:
            self._context.log.error(
                f"launch {self._tags.launch} could not be ended: {failure}. Its instance ends itself, at"
                f" max_runtime at the latest; or now: audience-explorer ec2 rm launch={self._tags.launch}"
            )

    # --- what they share ---

    def _facts(self) -> dict[str, Any]:
        """What the launch is and has cost, for an output that was made now; its dollars are for the time since the one
        before."""
        assert self._instance is not None
        seconds = self._seconds()
        dollars = self._price.of(seconds - self._counted_until)
        self._counted_until = seconds
        began = self._jobs_began_at if self._jobs_began_at is not None else seconds
        return {
            "id": self._tags.launch,
            "pipeline": self._tags.pipeline,
            "label": self._tags.label,
            "log": self._folder.log,
            "instance": self._instance.id,
            "instance_type": self._instance.type,
            "zone": self._instance.zone,
            "market": self._instance.market,
            "boot_seconds": round(began, 3),
            "run_seconds": round(seconds - began, 3),
            "total_seconds": round(seconds, 3),
            **(
                {"dollars_unknown": self._price.unknown}
                if dollars is None
                else {"estimated_dollars": round(dollars, 6)}
            ),
        }

    @cached_property
    def _price(self) -> prices.Price:
        assert self._instance is not None
        return prices.price_of(self._settings.ec2, self._instance.type, self._instance.zone, self._instance.market)

    def _seconds(self) -> float:
        """Since the launch."""
        return time.monotonic() - self._launched_at

    def _check_retry(self, error: BotoCoreError | ClientError, unreachable: "_Timer") -> None:
        """Fail if AWS refused a request for good, or has not answered for too long; else it is to be repeated."""
        is_refused = isinstance(error, ClientError) and error.response["Error"]["Code"] in _REFUSALS
        if is_refused or unreachable.is_over():
            what = explained(error)
            raise self._error(Refused if is_refused else Unreachable, what) from error
        self._context.log.warning(f"AWS does not answer, so it is asked again: {error}")

    def _error(self, kind: type[EC2LaunchFailed], what: str) -> EC2LaunchFailed:
        instance = self._instance.id if self._instance else None
        return kind(what, launch=self._tags.launch, instance=instance, log=self._folder.log)


class _Timer:
    """Is over after so many seconds, from its making or its last restart."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._since = time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() - self._since > self._seconds
