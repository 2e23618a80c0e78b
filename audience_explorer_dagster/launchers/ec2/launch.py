"""One launch on EC2: one instance, from asking for it to its end."""

import signal
import sys
import threading
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
    Refused,
    SpotInterrupted,
    TerminatedFromOutside,
    Unreachable,
    kind_of,
)
from audience_explorer_dagster.launchers.ec2.images import PROJECT, Image
from audience_explorer_dagster.launchers.ec2.instances import Instance, Offer
from audience_explorer_dagster.launchers.ec2.launches import BrokenMessage, LaunchFolder, LaunchTags, Transcript

if TYPE_CHECKING:
    from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher

_LOOK_SECONDS = 3.0  # between two looks at the instance's state
_HOLD_SECONDS = 20.0  # between two signs that somebody waits for the launch
_UNREACHABLE_SECONDS = 300.0  # how long AWS may not answer
_UNKNOWN_SECONDS = 60.0  # how long a new instance may be unknown to EC2, which tells of it with delay
_UNKNOWN_LOOKS = 5  # in a row, after which an instance that was known is gone
_LOG_SECONDS = 1.0  # how much later than a message the log that belongs to it may come
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
        context: dg.OpExecutionContext,
    ):
        self._settings, self._folder, self._tags, self._context = settings, folder, tags, context
        self._instance: Instance | None = None
        self._offer: Offer | None = None  # the one that was taken
        self._transcript = Transcript(folder)
        self._reports: deque[tuple[float, Report]] = deque()  # those not yielded yet, and from when on they may be
        self._unended: set[str] = set()  # jobs
        self._noticed = False  # whether AWS announced that it takes the instance back
        self._asked = False  # whether an instance may have been started
        self._launched_at = time.monotonic()
        self._unknown_looks = 0  # in a row, of those at which EC2 did not know the instance
        self._alive_at: float | None = None  # when it first said something, in seconds since the launch
        self._jobs_began_at: float | None = None  # likewise
        self._counted_until = 0.0  # up to when costs are told, likewise

    def run(self, image: Image, code_location: str, asked: Sequence[Offer], jobs: Sequence[Job]) -> Iterator[Report]:
        """Start an instance at the first of the offers that has one, and yield what its jobs report.

        The instance is ended in any case.

        Raises:
            EC2LaunchFailed: Its kind says how.
        """
        holding = threading.Event()
        try:
            self._start(image, code_location, asked, jobs)
            # In a thread of its own: whoever waits for an answer of AWS's waits for the launch all the same.
            threading.Thread(target=self._hold, args=(holding,), daemon=True).start()
            yield from self._watch({job.id for job in jobs})
        except NoCapacity as error:
            raise error if error.launch else self._error(NoCapacity, error.what) from None
        except (BotoCoreError, ClientError) as error:
            raise self._error(kind_of(error), str(error)) from error
        finally:
            holding.set()
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
        self._asked = True
        tags = {**settings.extra_tags, **PROJECT, "Name": f"audience-explorer {self._tags.label}", **asdict(self._tags)}
        try:
            self._instance, self._offer = instances.run_one(
                settings.ec2_once,
                asked,
                self._tags.launch,
                tags,
                image,
                self._folder.location,
                security_groups=settings.security_groups,
                instance_profile=settings.instance_profile,
                volume_gb=settings.volume_gb,
                volume_type=settings.volume_type,
                key_pair=settings.key_pair,
            )
        except (NoCapacity, ClientError) as error:
            # Whatever else went wrong, an instance may have been started.
            self._asked = isinstance(error, ClientError) and kind_of(error) is not Refused
            raise
        self._launched_at = time.monotonic()
        self._context.log.info(
            f"launched {len(jobs)} jobs on {self._instance.id}: {self._offer}, image {image.name}, launch"
            f" {self._tags.launch}, pipeline {self._tags.pipeline}, label {self._tags.label}. Its log:"
            f" audience-explorer launch log {self._tags.launch} ({self._folder.log})"
        )

    # --- watch ---

    def _watch(self, jobs: set[str]) -> Iterator[Report]:
        """Yield what the jobs report, until the launch has ended and all that it wrote was read."""
        self._unended = jobs
        look, patience, late = _Timer(_LOOK_SECONDS), _Timer(_UNREACHABLE_SECONDS), _Timer(_LATE_SECONDS)
        while True:
            gone: Instance | None = None
            status: dict[str, Any] | None = None
            try:
                # In this order: an instance that is gone, or whose status is there, has written what is read then.
                if look.is_over():
                    gone = self._look_if_gone()
                    look.renew()
                status = self._folder.status()
                self._read()
                patience.renew()
            except (BotoCoreError, ClientError) as error:
                self._bear(error, patience)
                late.renew()
                time.sleep(self._settings.poll_seconds)
                continue
            is_over = gone is not None or (status is not None and self._transcript.objects == status["objects"])
            yield from self._ripe_reports(all_of_them=is_over)
            if status is None:
                late.renew()
                if gone is not None:
                    self._check_end(gone)
                    return
                self._check_time()
            elif is_over:
                self._check(status)
                return
            elif late.is_over():
                arrived = self._transcript.objects
                raise self._error(MessagesLost, f"it wrote {status['objects']} objects, {arrived} arrived")
            time.sleep(self._settings.poll_seconds)

    def _hold(self, ended: threading.Event) -> None:
        """Say again and again that somebody waits for this launch."""
        while not ended.wait(_HOLD_SECONDS):
            try:
                self._folder.hold()
            except (BotoCoreError, ClientError) as error:
                sys.stderr.write(f"the launch's lease was not renewed, which is tried again: {error}\n")

    def _look_if_gone(self) -> Instance | None:
        """The instance, if it can't write any more."""
        assert self._instance is not None
        now = instances.describe(self._settings.ec2, self._instance.id)
        if now is None:
            # Unknown yet; or, about an hour after its end, not any more.
            self._unknown_looks += 1
            is_gone = self._seconds() > _UNKNOWN_SECONDS and self._unknown_looks >= _UNKNOWN_LOOKS
            return replace(self._instance, state="terminated") if is_gone else None
        self._unknown_looks = 0
        self._instance = now
        return now if now.state in instances.ENDED else None

    def _read(self) -> None:
        """Read what the instance wrote since."""
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
        ripe = time.monotonic()
        if report.event == "output":
            report = replace(report, launch=self._facts())
        elif report.event == "failed":
            ripe += _LOG_SECONDS
        self._reports.append((ripe, report))

    def _ripe_reports(self, all_of_them: bool) -> Iterator[Report]:
        """The reports that may be yielded; a failure when the log has come as far, whose end is told with it."""
        while self._reports and (all_of_them or self._reports[0][0] <= time.monotonic()):
            _, report = self._reports.popleft()
            if report.event == "failed":
                self._context.log.error(f"{report.job} failed; the end of the log:\n{self._transcript.tail.strip()}")
                report = replace(report, error=str(self._error(JobFailed, report.error)))
            yield report

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
        arrived = self._transcript.messages
        if arrived != status["messages"]:
            raise self._error(MessagesLost, f"it wrote {status['messages']} messages, {arrived} arrived")
        if "error" in status:
            raise self._error(BootFailed, f"the jobs could not be run: {status['error']}")
        if not self._unended:
            if status["out_of_memory"]:
                self._context.log.error("the kernel ended a process, because the machine had no memory left")
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
        words = self._transcript.tail.strip() or "(none)"
        raise self._error(
            JobFailed, f"the process of the jobs {how}, with {self._told_unended()}; its last words:\n{words}\n"
        )

    def _check_end(self, gone: Instance) -> None:
        """Tell why an instance ended that left no status.

        https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StateReason.html
        """
        if not self._unended:
            # Messages are read in order, so that all came that were before the last job's end.
            self._context.log.warning(f"{gone.id} ended ({gone.reason}) after all its jobs had, but before it said so")
            return
        left = self._told_unended()
        if self._noticed or gone.reason.startswith("Server.Spot"):
            raise self._error(SpotInterrupted, f"AWS took the instance back ({gone.reason}), with {left}")
        if gone.reason == "Server.InsufficientInstanceCapacity":
            raise self._error(NoCapacity, f"EC2 had no {gone.type} in {gone.zone} after all")
        if gone.reason == "Client.UserInitiatedShutdown":
            raise self._error(TerminatedFromOutside, f"somebody ended the instance, with {left}")
        if self._alive_at is not None and self._seconds() - self._alive_at >= self._settings.max_runtime:
            raise self._error(Overdue, f"the watchdog ended it at max_runtime, with {left}")
        raise self._error(
            BootFailed, f"it ended ({gone.reason or 'for no known reason'}) and left no status, with {left}"
        )

    # --- end ---

    def _end(self) -> None:
        """End the instance, also one that was started though its answer did not come."""
        known = {self._instance.id} if self._instance else set[str]()
        ended = set[str]()
        unknown = _Timer(_UNKNOWN_SECONDS)
        # EC2 may not know yet what it has just started: it is told again, and in the end believed.
        while self._asked and not ended and not unknown.is_over():
            try:
                ended |= known - instances.terminate(self._settings.ec2, known)
                strays = {of.id for of in instances.find(self._settings.ec2, {"launch": self._tags.launch})} - ended
                ended |= strays - instances.terminate(self._settings.ec2, strays)
            except (BotoCoreError, ClientError) as error:
                if not ended:
                    self._context.log.error(
                        f"launch {self._tags.launch} could not be ended: {error}. Its instance ends itself, at"
                        f" max_runtime at the latest; or now: audience-explorer ec2 rm launch={self._tags.launch}"
                    )
                return
            if not ended:
                time.sleep(self._settings.poll_seconds)

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

    def _bear(self, error: Exception, patience: "_Timer") -> None:
        """Bear with AWS while it does not answer, for a time."""
        refused = isinstance(error, ClientError) and error.response["Error"]["Code"] in _REFUSALS
        if refused or patience.is_over():
            raise self._error(Refused if refused else Unreachable, str(error)) from error
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
