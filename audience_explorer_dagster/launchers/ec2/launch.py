"""One launch on EC2: one instance, from asking for it to its end."""

import codecs
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError

from audience_explorer_dagster.launchers import Job, Report, pipes_context, receive
from audience_explorer_dagster.launchers.ec2 import code, instances, prices
from audience_explorer_dagster.launchers.ec2.errors import (
    BootFailed,
    EC2LaunchFailed,
    JobFailed,
    MessagesLost,
    NoCapacity,
    OutOfMemory,
    Overdue,
    SpotInterrupted,
    TerminatedFromOutside,
    Unreachable,
)
from audience_explorer_dagster.launchers.ec2.images import PROJECT, Image
from audience_explorer_dagster.launchers.ec2.instances import Instance, Offer
from audience_explorer_dagster.launchers.ec2.launches import Follower, LaunchFolder, LaunchTags

if TYPE_CHECKING:
    from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher

_TAIL = 20  # lines of the log that an error shows
_LOOK_SECONDS = 3.0  # between two looks at the instance's state
_HOLD_SECONDS = 20.0  # between two signs that somebody waits for the launch
_UNREACHABLE_SECONDS = 300.0  # how long AWS may not answer
_UNKNOWN_SECONDS = 60.0  # how long a new instance may be unknown to EC2, which tells of it with delay
_LATE_SECONDS = 30.0  # how long an object that the status counts may take to be there
_GRACE_SECONDS = 60.0  # how long the instance may outlive max_runtime, which it counts from its boot

# No use in asking again.
_REFUSALS = {
    "AccessDenied",
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "NoSuchBucket",
    "UnauthorizedOperation",
}


class Launch:
    """One instance that runs jobs, one after another."""

    def __init__(
        self,
        settings: "EC2StepLauncher",
        folder: LaunchFolder,
        tags: LaunchTags,
        context: dg.AssetExecutionContext,
    ):
        self._settings, self._folder, self._tags, self._context = settings, folder, tags, context
        self._instance: Instance | None = None
        self._offer: Offer | None = None  # the one that was taken
        self._messages, self._log = Follower(folder, "messages"), Follower(folder, "log")
        self._said = 0  # messages that arrived
        self._reports: deque[Report] = deque()  # those of them that are not yielded yet
        self._unended: set[str] = set()  # jobs
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._tail = ""  # of the log
        self._noticed = False  # whether AWS announced that it takes the instance back
        self._asked_at = time.monotonic()
        self._alive_at: float | None = None  # when it first said something, in seconds since it was asked for
        self._jobs_began_at: float | None = None  # likewise
        self._counted_until = 0.0  # up to when costs are told, in seconds since it was asked for

    def run(self, image: Image, code_location: str, asked: Sequence[Offer], jobs: Sequence[Job]) -> Iterator[Report]:
        """Start an instance at the first of the offers that has one, and yield what its jobs report.

        The instance is ended in any case.

        Raises:
            EC2LaunchFailed: Its kind says how.
        """
        try:
            self._start(image, code_location, asked, jobs)
            yield from self._watch({job.id for job in jobs})
        except NoCapacity as error:
            raise error if error.launch else self._error(NoCapacity, error.what) from None
        finally:
            self._end()

    def next_offers(self, asked: Sequence[Offer]) -> list[Offer]:
        """The same offers, but those after the one that was taken come first."""
        taken = asked.index(self._offer) + 1 if self._offer in asked else 0
        return [*asked[taken:], *asked[:taken]]

    def wait_until_gone(self) -> None:
        """Wait until the instance can't write any more."""
        patience = _Timer(_UNREACHABLE_SECONDS)
        while self._instance is not None:
            try:
                now = instances.describe(self._settings.ec2, self._instance.id)
                if now is None or now.state in instances.ENDED:
                    return
                patience.renew()
            except (BotoCoreError, ClientError) as error:
                self._bear(error, patience)
            time.sleep(self._settings.poll_seconds)

    # --- start ---

    def _start(self, image: Image, code_location: str, asked: Sequence[Offer], jobs: Sequence[Job]) -> None:
        settings = self._settings
        self._folder.describe(
            {
                "code": code_location,
                "code_sha256": code.pack()[0],
                "max_runtime": settings.max_runtime,
                "context": pipes_context(self._context, jobs),
                # For people, and for who launches it again.
                "launched": {
                    "image": f"{image.name} ({image.id})",
                    "offers": [str(offer) for offer in asked],
                    "volume": f"{settings.volume_gb} GB {settings.volume_type}",
                    "commands": [[job.module, *job.arguments] for job in jobs],
                },
            }
        )
        self._folder.hold()
        self._asked_at = time.monotonic()
        self._instance, self._offer = instances.run_one(
            settings.ec2_once,
            asked,
            self._tags.launch,
            {**settings.extra_tags, **PROJECT, "Name": f"audience-explorer {self._tags.label}", **asdict(self._tags)},
            image,
            self._folder.location,
            security_groups=settings.security_groups,
            instance_profile=settings.instance_profile,
            volume_gb=settings.volume_gb,
            volume_type=settings.volume_type,
            key_pair=settings.key_pair,
        )
        self._context.log.info(
            f"launched {len(jobs)} jobs on {self._instance.id}: {self._offer}, image {image.name}, launch"
            f" {self._tags.launch}, pipeline {self._tags.pipeline}, label {self._tags.label}. Its log:"
            f" audience-explorer launch log {self._tags.launch} ({self._folder.log})"
        )

    # --- watch ---

    def _watch(self, jobs: set[str]) -> Iterator[Report]:
        """Yield what the jobs report, until the launch has ended and all that it wrote was read."""
        self._unended = jobs
        look, hold = _Timer(_LOOK_SECONDS), _Timer(_HOLD_SECONDS)
        patience, late = _Timer(_UNREACHABLE_SECONDS), _Timer(_LATE_SECONDS)
        while True:
            gone: Instance | None = None
            status: dict[str, Any] | None = None
            reached = True
            try:
                # In this order: an instance that is gone, or whose status is there, has written what is read then.
                if look.is_over():
                    gone = self._look_if_gone()
                    look.renew()
                status = self._folder.status()
                self._read()
                if hold.is_over():
                    self._folder.hold()
                    hold.renew()
                patience.renew()
            except (BotoCoreError, ClientError) as error:
                reached = False
                self._bear(error, patience)
            while self._reports:
                yield self._reports.popleft()
            if status is None:
                late.renew()
                if reached and gone is not None:
                    raise self._cause_of_end(gone)
                self._check_time()
            elif reached and self._objects() == status["objects"]:
                self._check(status)
                return
            elif late.is_over():
                raise self._error(MessagesLost, f"it wrote {status['objects']} objects, {self._objects()} arrived")
            time.sleep(self._settings.poll_seconds)

    def _look_if_gone(self) -> Instance | None:
        """The instance, if it can't write any more."""
        assert self._instance is not None
        now = instances.describe(self._settings.ec2, self._instance.id)
        if now is None:
            # Unknown yet; or, after an hour or so, not any more.
            return replace(self._instance, state="terminated") if self._seconds() > _UNKNOWN_SECONDS else None
        self._instance = now
        return now if now.state in instances.ENDED else None

    def _read(self) -> None:
        """Read what the instance wrote since."""
        for chunk in self._log.new():
            text = self._decoder.decode(chunk)
            # As with jobs on this machine, to where Dagster keeps what a step prints.
            sys.stderr.write(text)
            sys.stderr.flush()
            self._tail = "\n".join((self._tail + text).split("\n")[-_TAIL - 1 :])
        for chunk in self._messages.new():
            for line in chunk.splitlines():
                self._said += 1
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "boot" in message:
            self._take_boot(message)
            return
        report = receive(self._context, message)
        if report is None:
            return
        if report.event != "output":
            self._unended.discard(report.job)
        if report.event == "output":
            report = replace(report, launch=self._facts())
        elif report.event == "failed":
            self._context.log.error(f"{report.job} failed; the end of the log:\n{self._tail.strip()}")
            report = replace(report, error=str(self._error(JobFailed, report.error)))
        self._reports.append(report)

    def _take_boot(self, message: dict[str, Any]) -> None:
        """Take what the boot program says of itself."""
        if message["boot"] == "started":
            self._alive_at = self._seconds()
            self._context.log.info(f"{message['instance']} is up after {self._alive_at:.1f} s")
        elif message["boot"] == "jobs":
            self._jobs_began_at = self._seconds()
            self._context.log.info(f"the jobs begin, {self._seconds():.1f} s after the launch")
        elif message["boot"] == "spot_notice":
            self._noticed = True
            self._context.log.warning(
                f"AWS takes the instance back at {message['notice'].get('time')}: the job that runs goes on for as"
                " long as it can, and no further one is started"
            )

    def _check_time(self) -> None:
        """End a launch that takes too long."""
        seconds, settings = self._seconds(), self._settings
        if self._alive_at is None and seconds > settings.boot_timeout:
            raise self._error(BootFailed, f"no sign of life in {settings.boot_timeout} s (boot_timeout)")
        if self._alive_at is not None and seconds - self._alive_at > settings.max_runtime + _GRACE_SECONDS:
            raise self._error(Overdue, f"it did not end itself after {settings.max_runtime} s (max_runtime)")

    def _check(self, status: dict[str, Any]) -> None:
        """Tell a launch that ended well from one that did not."""
        if self._said != status["messages"]:
            raise self._error(MessagesLost, f"it wrote {status['messages']} messages, {self._said} arrived")
        if "error" in status:
            raise self._error(BootFailed, f"the jobs could not be started: {status['error']}")
        if not self._unended:
            return
        if self._noticed:
            raise self._error(SpotInterrupted, f"AWS takes the instance back, with {self._told_unended()}")
        if status["out_of_memory"]:
            raise self._error(
                OutOfMemory,
                f"{self._instance and self._instance.type} has too little memory for {self._told_unended()}. Choose a"
                " larger type first in instance_types",
            )
        if status["overdue"]:
            limit = self._settings.max_runtime
            raise self._error(Overdue, f"after {limit} s (max_runtime), with {self._told_unended()}")
        code = status["exit_code"]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        words = self._tail.strip() or "(none)"
        raise self._error(
            JobFailed, f"the process of the jobs {how}, with {self._told_unended()}; its last words:\n{words}\n"
        )

    def _cause_of_end(self, gone: Instance) -> EC2LaunchFailed:
        """Why an instance ended that left no status.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
        """
        left = self._told_unended()
        if self._noticed or gone.reason.startswith("Server.Spot"):
            return self._error(SpotInterrupted, f"AWS took the instance back ({gone.reason}), with {left}")
        if gone.reason == "Server.InsufficientInstanceCapacity":
            return self._error(NoCapacity, f"EC2 had no {gone.type} in {gone.zone} after all")
        if gone.reason == "Client.UserInitiatedShutdown":
            return self._error(TerminatedFromOutside, f"somebody ended the instance, with {left}")
        if self._alive_at is not None and self._seconds() - self._alive_at >= self._settings.max_runtime:
            return self._error(Overdue, f"the watchdog ended it at max_runtime, with {left}")
        return self._error(
            BootFailed, f"it ended ({gone.reason or 'for no known reason'}) and left no status, with {left}"
        )

    # --- end ---

    def _end(self) -> None:
        """End the instance; and one that was started though its answer was lost."""
        try:
            left = {instance.id for instance in instances.find(self._settings.ec2, {"launch": self._tags.launch})}
            left |= {self._instance.id} if self._instance else set()
            while left := instances.terminate(self._settings.ec2, left):
                if self._seconds() > _UNKNOWN_SECONDS:
                    return  # EC2 knows them not any more, rather than not yet
                time.sleep(self._settings.poll_seconds)
        except (BotoCoreError, ClientError) as error:
            self._context.log.error(
                f"launch {self._tags.launch} could not be ended: {error}. Its instance ends itself, at max_runtime at"
                f" the latest; or now: audience-explorer ec2 rm launch={self._tags.launch}"
            )

    # --- what they share ---

    def _facts(self) -> dict[str, Any]:
        """What the launch is and has cost, for an output that was made now. Its dollars are for the time since the one
        before, so that those of all outputs add up."""
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
        """Since the instance was asked for."""
        return time.monotonic() - self._asked_at

    def _objects(self) -> dict[str, int]:
        return {"messages": self._messages.objects, "log": self._log.objects}

    def _bear(self, error: Exception, patience: "_Timer") -> None:
        """Bear with AWS while it does not answer, for a time."""
        refused = isinstance(error, ClientError) and error.response["Error"]["Code"] in _REFUSALS
        if refused or patience.is_over():
            raise self._error(Unreachable, str(error)) from error
        self._context.log.warning(f"AWS does not answer, so it is asked again: {error}")

    def _error(self, kind: type[EC2LaunchFailed], what: str) -> EC2LaunchFailed:
        instance = self._instance.id if self._instance else None
        return kind(what, launch=self._tags.launch, instance=instance, log=self._folder.log)

    def _told_unended(self) -> str:
        return f"{len(self._unended)} jobs not done" if self._unended else "all jobs done"


class _Timer:
    """Is over after so many seconds, from its making or its last renewal."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        self._since = time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() - self._since > self._seconds
