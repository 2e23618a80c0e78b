"""The launcher that runs jobs on EMR Serverless: a Spark cluster for as long as they take, on machines of AWS's."""

import gzip
import hashlib
import math
import shlex
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlsplit

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError
from dagster_aws.pipes import PipesEMRServerlessClient
from dagster_pipes import PipesContextData, PipesParams
from pydantic import Field

from audience_explorer_dagster.launchers import (
    Job,
    Launcher,
    LaunchFailed,
    Report,
    packing,
    pipes_extras,
    refuse_local_engine,
)
from audience_explorer_dagster.launchers.ec2.access import client, launches_of_root
from audience_explorer_dagster.launchers.ec2.errors import Refused, kind_of
from audience_explorer_dagster.launchers.ec2.images import PROJECT
from audience_explorer_dagster.launchers.ec2.launcher import launch_tags
from audience_explorer_dagster.launchers.ec2.launches import BrokenMessage, Launches, Transcript
from audience_explorer_dagster.launchers.from_environment import from_environment

if TYPE_CHECKING:
    from dagster._core.pipes.context import PipesMessageHandler
    from mypy_boto3_emr_serverless import EMRServerlessClient
    from mypy_boto3_emr_serverless.literals import JobRunStateType
    from mypy_boto3_emr_serverless.type_defs import JobRunTypeDef, StartJobRunRequestTypeDef

# https://docs.aws.amazon.com/emr/latest/EMR-Serverless-UserGuide/job-states.html
_ENDED: "tuple[JobRunStateType, ...]" = ("SUCCESS", "FAILED", "CANCELLING", "CANCELLED")
_ALIVE: "tuple[JobRunStateType, ...]" = ("SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "QUEUED")

_PROGRAM = """\
import sys

from emr.driver import main

sys.exit(main(sys.argv[1]))
"""

_STATE_POLLS = 5  # looks for messages to each look at the job run's state
_HOLD_SECONDS = 20.0  # between two signs that somebody waits for the launch
_UNREACHABLE_SECONDS = 300.0  # how long AWS may not answer
_BILL_SECONDS = 30.0  # how much later than its end a job run may tell what is billed
_START_SECONDS = 60.0  # how long an interrupted launch waits to learn what it has just started
_TO_TELL_SECONDS = 300  # what the jobs have less than the job run
_TAIL = 20  # lines of Spark's log that an error shows


class EMRServerlessLaunchFailed(LaunchFailed):
    """A launch on EMR Serverless failed.

    Attributes:
        what: What went wrong.
        launch: The id of the launch, if it got one.
        job_run: The id of its job run, if there was one.
        log: Where its log is, if it has one.
    """

    def __init__(self, what: str, launch: str | None = None, job_run: str | None = None, log: str | None = None):
        self.what = what
        self.launch = launch
        self.job_run = job_run
        self.log = log
        where = {"job run": job_run, "launch": launch, "log": log}
        told = ", ".join(f"{name} {value}" for name, value in where.items() if value is not None)
        super().__init__(f"EMR Serverless: {what}" + (f" [{told}]" if told else ""))


class EMRServerlessLauncher(Launcher):
    """Runs the jobs of a launch as one job run of an EMR Serverless application.

    dagster-aws's client starts it and waits for its end. Messages come over a channel of this project's: the driver's
    program (`emr/driver.py`) tells of the jobs as an instance on EC2 does, by numbered objects on S3, which are read
    here. That client reads messages from CloudWatch only, once all is over; and dagster-aws's reader over S3 loses
    them, with no error, when S3 does not answer for a while.
    """

    reaches_folders: ClassVar[bool] = False

    application: str = Field(description="The id of the application; its release must have Spark 4.")
    role: str = Field(description="The ARN of the jobs' role, which is in emr/iam/job.json.")
    launches: str = Field(description="Where on S3 launches keep their messages and logs: s3://bucket/prefix.")
    region: str | None = Field(default=None, description="The region; by default AWS's usual settings name it.")
    driver_cores: int = Field(default=4, ge=1, description="vCPUs of the driver, where k-means of `spark` runs.")
    driver_memory_gb: int = Field(default=16, ge=2, description="Its memory; how much goes with how many vCPUs: AWS's.")
    executor_cores: int = Field(default=4, ge=1, description="vCPUs of an executor.")
    executor_memory_gb: int = Field(default=16, ge=2, description="Its memory.")
    max_executors: int = Field(default=20, ge=1, description="How many executors there may be at a time.")
    python_share: float = Field(
        default=0.5, ge=0.1, le=0.9, description="The share of memory that is Python's; the rest is the JVM's heap."
    )
    conf: dict[str, str] = Field(default={}, description="More of Spark's properties, by name; anybody may read them.")
    max_runtime: int = Field(default=6 * 3600, ge=600, description="Seconds after which a job run is ended.")
    extra_tags: dict[str, str] = Field(default={}, description="More tags of job runs.")
    dollars_per_vcpu_hour: float = Field(default=0.052624, ge=0, description="Default: Virginia's for x86_64, 2026.")
    dollars_per_gb_hour: float = Field(default=0.0057785, ge=0, description="Of memory, likewise.")
    dollars_per_disk_gb_hour: float = Field(
        default=0.000111, ge=0, description="Of disk beyond the 20 GB a worker that cost nothing, likewise."
    )
    poll_seconds: float = Field(default=1.0, gt=0, description="How often to look for messages, in seconds.")

    @classmethod
    def from_environment(cls, by_name: bool = False) -> "EMRServerlessLauncher":
        """The launcher as AUDIENCE_EXPLORER_EMR_… variables have it, each named after a field.

        Args:
            by_name: Leave it to Dagster to look up texts when a run starts, and to show the names of their variables.

        Raises:
            InputError: A value makes no sense, or a needed one is missing.
        """
        defaults = {"launches": launches_of_root()}
        return from_environment(cls, "EMR Serverless", "AUDIENCE_EXPLORER_EMR_", defaults, by_name)

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        refuse_local_engine(jobs)
        try:
            yield from _Launch(self, context, jobs).run()
        except (BotoCoreError, ClientError) as error:
            raise EMRServerlessLaunchFailed(str(error)) from error

    def dollars(self, billed: dict[str, float]) -> float:
        """What billed resources cost, by the names that AWS gives them."""
        prices = {
            "vCPUHour": self.dollars_per_vcpu_hour,
            "memoryGBHour": self.dollars_per_gb_hour,
            "storageGBHour": self.dollars_per_disk_gb_hour,
        }
        return sum(price * billed.get(name, 0.0) for name, price in prices.items())

    def properties(self, packed: str) -> dict[str, str]:
        """Spark's properties of a launch whose packed archive is at an URL."""
        heap, region = 1 - self.python_share, self.emr.meta.region_name
        return {
            "spark.driver.cores": str(self.driver_cores),
            "spark.driver.memory": f"{int(self.driver_memory_gb * heap * 1024)}m",
            "spark.executor.cores": str(self.executor_cores),
            "spark.executor.memory": f"{int(self.executor_memory_gb * heap * 1024)}m",
            # A part of the heap, on top of it.
            "spark.emr-serverless.memoryOverheadFactor": f"{self.python_share / heap:.4g}",
            "spark.dynamicAllocation.maxExecutors": str(self.max_executors),
            **self.conf,
            "spark.archives": f"{packed}#{packing.NAME}",
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": packing.PYTHON,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": packing.PYTHON,
            "spark.executorEnv.PYSPARK_PYTHON": packing.PYTHON,
            "spark.emr-serverless.driverEnv.AWS_REGION": region,
            "spark.executorEnv.AWS_REGION": region,
        }

    @cached_property
    def emr(self) -> "EMRServerlessClient":
        """The client of EMR Serverless."""
        return client("emr-serverless", self.region)

    @cached_property
    def all_launches(self) -> Launches:
        """All launches below this location."""
        return Launches(client("s3", self.region), self.launches)


class _Launch:
    """One job run, from asking for it to its end."""

    def __init__(self, settings: EMRServerlessLauncher, context: dg.OpExecutionContext, jobs: Sequence[Job]):
        self._settings, self._context, self._jobs = settings, context, jobs
        self._tags = launch_tags(context)
        self._folder = settings.all_launches.folder(self._tags)
        self._transcript = Transcript(self._folder)
        self._requests = _Requests(settings.emr)
        self._channel = _Channel(self._folder.log)
        self._unended = {job.id for job in jobs}
        self._held: list[Report] = []  # until it is known what the launch has cost
        self._began_at: float | None = None  # when the jobs did, in seconds since the launch
        self._failure: Exception | None = None  # of dagster-aws's client
        self._launched_at = time.monotonic()

    def run(self) -> Iterator[Report]:
        """Start the job run, and yield what its jobs report. It is ended in any case."""
        self._cancel_earlier()
        request, description = self._request()
        # It waits for the job run's end, in a thread of its own, while messages are read here.
        waiting = threading.Thread(target=self._wait, args=(request, description), daemon=True)
        waiting.start()
        try:
            status = yield from self._watch(waiting)
            bill = self._bill()
            for report in self._held:
                yield replace(report, launch={**report.launch, **bill}) if report.event == "output" else report
            self._check(status)
        finally:
            self._channel.all_read.set()
            self._cancel()
            waiting.join(timeout=3 * _STATE_POLLS * self._settings.poll_seconds)

    # --- start ---

    def _request(self) -> "tuple[StartJobRunRequestTypeDef, dict[str, Any]]":
        """What AWS is asked for, and the launch's description but for the context."""
        settings = self._settings
        application = settings.emr.get_application(applicationId=settings.application)["application"]
        architecture: packing.Architecture = "aarch64" if application.get("architecture") == "ARM64" else "x86_64"
        packed = settings.all_launches.keep(packing.name(architecture), lambda: packing.build(architecture))
        program = settings.all_launches.keep(f"{hashlib.sha256(_PROGRAM.encode()).hexdigest()}.py", _PROGRAM.encode)
        properties = settings.properties(packed)
        description = {
            "code": packed,
            "max_runtime": settings.max_runtime - _TO_TELL_SECONDS,
            "launched": {
                "application": f"{settings.application} ({application['releaseLabel']}, {architecture})",
                "properties": [f"{name}={value}" for name, value in properties.items()],
                "commands": [[job.module, *job.arguments] for job in self._jobs],
            },
        }
        request: StartJobRunRequestTypeDef = {
            "applicationId": settings.application,
            "executionRoleArn": settings.role,
            "clientToken": self._tags.launch,
            "name": f"audience-explorer {self._tags.label} {self._tags.run}",
            "tags": {**settings.extra_tags, **PROJECT, **asdict(self._tags)},
            "executionTimeoutMinutes": math.ceil(settings.max_runtime / 60),
            "jobDriver": {
                "sparkSubmit": {
                    "entryPoint": program,
                    "entryPointArguments": [self._folder.location],
                    "sparkSubmitParameters": " ".join(
                        f"--conf {shlex.quote(f'{name}={value}')}" for name, value in properties.items()
                    ),
                }
            },
            "configurationOverrides": {
                "monitoringConfiguration": {
                    "s3MonitoringConfiguration": {"logUri": f"{self._folder.location}/spark/"},
                }
            },
        }
        return request, description

    def _wait(self, request: "StartJobRunRequestTypeDef", description: dict[str, Any]) -> None:
        pipes = _Client(
            client=cast("EMRServerlessClient", self._requests),
            context_injector=_Description(self._folder, description),
            message_reader=self._channel,
            poll_interval=_STATE_POLLS * self._settings.poll_seconds,
        )
        try:
            pipes.run(
                context=cast(dg.OpExecutionContext, _RunContext(self._context)),
                start_job_run_params=request,
                extras=pipes_extras(self._jobs),
            )
        except Exception as error:  # told by who reads the messages, of which there may be more
            self._failure = error
        finally:
            self._requests.settled.set()

    def _cancel_earlier(self) -> None:
        """Cancel what an earlier process of the run left, or of the run that it repeats: nobody waits for it."""
        settings, run = self._settings, self._context.run
        runs = (run.run_id, run.tags.get("dagster/parent_run_id", run.run_id))  # in whose names they end
        pages = settings.emr.get_paginator("list_job_runs").paginate(applicationId=settings.application, states=_ALIVE)
        for found in (found for page in pages for found in page["jobRuns"] if found.get("name", "").endswith(runs)):
            self._context.log.warning(f"job run {found['id']}, left by an earlier attempt of this run, is cancelled")
            settings.emr.cancel_job_run(applicationId=settings.application, jobRunId=found["id"])

    # --- watch ---

    def _watch(self, waiting: threading.Thread) -> Generator[Report, None, dict[str, Any] | None]:
        """Yield what the jobs report until the job run has ended, and all that it wrote was read; its status."""
        held_at = answered_at = -math.inf
        while True:
            # In this order: one that has ended, or whose status is there, has written what is read then.
            is_over = not waiting.is_alive()
            try:
                if time.monotonic() - held_at > _HOLD_SECONDS and not is_over:
                    self._folder.hold()
                    held_at = time.monotonic()
                status = self._folder.status()
                yield from self._read()
                answered_at = time.monotonic()
            except (BotoCoreError, ClientError) as error:
                answered_at = max(answered_at, self._launched_at)
                refused = kind_of(error) is Refused
                if refused or time.monotonic() - answered_at > _UNREACHABLE_SECONDS:
                    raise self._error(f"S3 {'refuses' if refused else 'does not answer'}: {error}") from error
                self._context.log.warning(f"S3 does not answer, so it is asked again: {error}")
            else:
                if status is not None and self._transcript.objects == status["objects"]:
                    self._channel.all_read.set()
                if is_over:
                    return status
            time.sleep(self._settings.poll_seconds)

    def _read(self) -> Iterator[Report]:
        try:
            for message in self._transcript.new_messages():
                report = self._take(message)
                if report is not None:
                    yield from self._hold_last(report)
        except BrokenMessage as error:
            raise self._error(str(error)) from error

    def _take(self, message: dict[str, Any]) -> Report | None:
        if "boot" in message:
            if message["boot"] == "jobs":
                self._began_at = self._seconds()
                self._context.log.info(f"the jobs begin, {self._began_at:.1f} s after the launch")
            return None
        self._channel.handle(message)
        if message["method"] != "report_custom_message":
            return None
        report = Report(**message["params"]["payload"])
        if report.event == "output":
            return replace(report, launch=self._facts())
        self._unended.discard(report.job)
        return replace(report, error=str(self._error(report.error))) if report.event == "failed" else report

    def _hold_last(self, report: Report) -> Iterator[Report]:
        """Hold back the last output, which tells what the launch has cost; before its end AWS tells nothing of that."""
        if report.event == "output" and self._unended == {report.job}:
            yield from self._held
            self._held = []
        elif not self._held:
            yield report
            return
        self._held.append(report)

    # --- end ---

    def _check(self, status: dict[str, Any] | None) -> None:
        """Tell a launch that ended well from one that did not."""
        if self._requests.job_run is None:
            raise self._error(f"the job run could not be started: {self._failure}")
        left = f"with {len(self._unended)} of {len(self._jobs)} jobs not done"
        if status is None:
            if not self._unended:
                # Messages are read in order, so that all came that were before the last job's end.
                self._context.log.warning("the driver ended after all its jobs had, but before it said so")
                return
            run = self._requests.job_run
            if run["state"] not in _ENDED:
                raise self._error(f"AWS does not tell of the job run any more, {left}: {self._failure}")
            words = self._transcript.tail.strip() or self._spark_words()
            raise self._error(
                f"the job run ended as {run['state']}, {left}: {run.get('stateDetails') or 'AWS tells no reason'};"
                f" last words:\n{words}\n"
            ) from self._failure
        arrived = {"messages": self._transcript.messages, "objects": self._transcript.objects}
        if arrived != {name: status[name] for name in arrived}:
            raise self._error(f"messages are lost: it wrote {status['objects']}, {arrived['objects']} arrived")
        if "error" in status:
            raise self._error(f"the jobs could not be run: {status['error']}")
        if self._unended:
            why = {
                "out_of_memory": "the driver had no memory left: raise driver_memory_gb or python_share",
                "overdue": f"they took longer than max_runtime, {self._settings.max_runtime} s, allows",
            }
            reasons = [reason for name, reason in why.items() if status[name]]
            reason = "; ".join(reasons) or f"their process ended with exit code {status['exit_code']}"
            raise self._error(f"{reason}, {left}; last words:\n{self._transcript.tail.strip() or '(none)'}\n")

    def _bill(self) -> dict[str, Any]:
        """What the whole launch has cost, as metadata."""
        run = self._requests.job_run
        until = time.monotonic() + _BILL_SECONDS
        while run is not None and "billedResourceUtilization" not in run and time.monotonic() < until:
            time.sleep(self._settings.poll_seconds)
            try:
                run = self._requests.get_job_run(run["applicationId"], run["jobRunId"])["jobRun"]
            except (BotoCoreError, ClientError) as error:
                return {"dollars_unknown": f"AWS tells no cost: {error}"}
        if run is None or "billedResourceUtilization" not in run:
            return {"dollars_unknown": "AWS tells no cost yet"}
        billed = cast("dict[str, float]", run["billedResourceUtilization"])
        dollars = self._settings.dollars(billed)
        told = ", ".join(f"{value:.3f} {name}" for name, value in billed.items())
        self._context.log.info(f"job run {run['jobRunId']} cost some ${dollars:.4f}: {told}")
        return {
            "estimated_dollars": round(dollars, 6),
            "vcpu_hours": billed.get("vCPUHour", 0.0),
            "memory_gb_hours": billed.get("memoryGBHour", 0.0),
        }

    def _spark_words(self) -> str:
        """The end of what Spark's driver logged, which EMR brings to S3 in the end."""
        run = self._requests.job_run
        assert run is not None
        place = f"spark/applications/{run['applicationId']}/jobs/{run['jobRunId']}/SPARK_DRIVER/stderr.gz"
        parts = urlsplit(f"{self._folder.location}/{place}")
        try:
            answer = client("s3", self._settings.region).get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            return "\n".join(gzip.decompress(answer["Body"].read()).decode(errors="replace").splitlines()[-_TAIL:])
        except (BotoCoreError, ClientError, OSError) as error:
            return f"(none; {parts.geturl()} can't be read: {error})"

    def _cancel(self) -> None:
        """Cancel the job run, if it has not ended, also when its start was not answered yet."""
        self._requests.stopped = True
        self._requests.settled.wait(_START_SECONDS)
        run_id, settings = self._requests.job_run_id, self._settings
        run = self._requests.job_run
        if run_id is None or (run is not None and run["state"] in _ENDED):
            return
        try:
            settings.emr.cancel_job_run(applicationId=settings.application, jobRunId=run_id)
        except (BotoCoreError, ClientError) as error:
            self._context.log.error(
                f"job run {run_id} could not be cancelled: {error}. It ends by itself, when nobody has waited for it"
                f" for some minutes; or now: aws emr-serverless cancel-job-run --application-id {settings.application}"
                f" --job-run-id {run_id}"
            )
        else:
            self._context.log.warning(f"job run {run_id} is cancelled")

    # --- what they share ---

    def _facts(self) -> dict[str, Any]:
        """What the launch is, for an output that was made now."""
        seconds = self._seconds()
        began = self._began_at if self._began_at is not None else seconds
        return {
            "id": self._tags.launch,
            "pipeline": self._tags.pipeline,
            "label": self._tags.label,
            "log": self._folder.log,
            "application": self._settings.application,
            "job_run": self._requests.job_run_id,
            "boot_seconds": round(began, 3),
            "run_seconds": round(seconds - began, 3),
            "total_seconds": round(seconds, 3),
        }

    def _seconds(self) -> float:
        return time.monotonic() - self._launched_at

    def _error(self, what: str) -> EMRServerlessLaunchFailed:
        return EMRServerlessLaunchFailed(what, self._tags.launch, self._requests.job_run_id, self._folder.log)


class _Client(PipesEMRServerlessClient):
    def _read_messages(self, *_: Any, **__: Any) -> None:
        """Nothing: this is where it would turn to CloudWatch, and warn of any other channel."""


class _Requests:
    """The client of EMR Serverless as dagster-aws's client has it, which keeps what is to be known of the job run."""

    def __init__(self, emr: "EMRServerlessClient"):
        self._emr = emr
        self.stopped = False  # whether nobody wants a job run any more
        self.settled = threading.Event()  # whether a job run was started, or will not be
        self.job_run_id: str | None = None
        self.job_run: JobRunTypeDef | None = None  # as it was last seen

    def start_job_run(self, **request: Any) -> Any:
        """Start it, unless nobody wants it any more."""
        if self.stopped:
            raise LaunchFailed("interrupted")
        answer = self._emr.start_job_run(**request)
        self.job_run_id = answer["jobRunId"]
        self.settled.set()
        return answer

    def get_job_run(self, applicationId: str, jobRunId: str) -> Any:
        """See it."""
        answer = self._emr.get_job_run(applicationId=applicationId, jobRunId=jobRunId)
        self.job_run = answer["jobRun"]
        return answer

    def get_dashboard_for_job_run(self, applicationId: str, jobRunId: str) -> str:
        """How to get to Spark's UI. Its address has a token in it, and what this gives is logged."""
        ids = f"--application-id {applicationId} --job-run-id {jobRunId}"
        return f"aws emr-serverless get-dashboard-for-job-run {ids}"


class _RunContext:
    """A run's context as dagster-aws's client has it, with no assets: what they are is reported in our own messages."""

    has_assets_def = False
    has_partition_key = False

    def __init__(self, context: dg.OpExecutionContext):
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class _Description(dg.PipesContextInjector):
    """Brings the Pipes context to the driver in the launch's description: it may be longer than parameters may."""

    def __init__(self, folder: Any, description: dict[str, Any]):
        self._folder, self._description = folder, description

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        self._folder.describe({**self._description, "context": context})
        self._folder.hold()
        yield {}

    def no_messages_debug_text(self) -> str:
        return f"The launch is described in {self._folder.location}/description.json."


class _Channel(dg.PipesMessageReader):
    """Messages over S3, as the launch's transcript gives them."""

    def __init__(self, log: str):
        self._log = log
        self._handler: PipesMessageHandler | None = None
        self.all_read = threading.Event()

    @property
    def expected_writer_count(self) -> int:
        """How many programs write messages. The base class's warns each time that it is in preview."""
        return 1

    @contextmanager
    def read_messages(self, handler: "PipesMessageHandler") -> Iterator[PipesParams]:
        self._handler = handler
        yield {}
        self.all_read.wait(timeout=10)  # the last may still be on their way

    def handle(self, message: dict[str, Any]) -> None:
        """Hand a message over."""
        assert self._handler is not None
        self._handler.handle_message(cast(Any, message))

    def no_messages_debug_text(self) -> str:
        return f"The log: {self._log}"
