"""One launch on EMR Serverless: one job run, from asking for it to its end."""

import gzip
import hashlib
import math
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError

from audience_explorer_dagster.launchers import Job, Report, packing, pipes_extras
from audience_explorer_dagster.launchers.aws import is_refusal
from audience_explorer_dagster.launchers.emr_serverless.errors import EMRServerlessLaunchFailed
from audience_explorer_dagster.launchers.emr_serverless.outcome import ENDED, Snapshot, find_problem
from audience_explorer_dagster.launchers.emr_serverless.pipes import Channel, Client, Description, Requests, RunContext
from audience_explorer_dagster.launchers.emr_serverless.settings import EMRServerlessSettings
from audience_explorer_dagster.launchers.launch_store import new_launch_tags
from spark_jobs.launch import lease
from spark_jobs.launch.aws import PROJECT
from spark_jobs.launch.reader import BrokenMessage, Transcript
from spark_jobs.launch.status import Status

if TYPE_CHECKING:
    from mypy_boto3_emr_serverless import EMRServerlessClient
    from mypy_boto3_emr_serverless.literals import JobRunStateType
    from mypy_boto3_emr_serverless.type_defs import StartJobRunRequestTypeDef

_ALIVE: "tuple[JobRunStateType, ...]" = ("SUBMITTED", "PENDING", "SCHEDULED", "RUNNING", "QUEUED")

_PROGRAM = """\
import sys

from emr.driver import main

sys.exit(main(sys.argv[1]))
"""

_STATE_POLLS = 5  # polls for messages to each for the job run's state
_UNREACHABLE_SECONDS = 300.0  # how long AWS may not answer
_BILL_SECONDS = 30.0  # how much later than a job run's end AWS may say what is billed
_START_SECONDS = 60.0  # how long an interrupted launch waits to learn what it has just started
_TO_REPORT_SECONDS = 300  # what the jobs have less than the job run
_TAIL = 20  # lines of Spark's log that an error shows


class Launch:
    """One job run, from asking for it to its end."""

    def __init__(self, settings: EMRServerlessSettings, context: dg.OpExecutionContext, jobs: Sequence[Job]):
        self._settings, self._context, self._jobs = settings, context, jobs
        self._tags = new_launch_tags(context)
        self._folder = settings.launch_store.folder(self._tags)
        self._transcript = Transcript(self._folder)
        self._requests = Requests(settings.emr)
        self._channel = Channel(self._folder.log)
        self._unended = {job.id for job in jobs}
        self._withheld: list[Report] = []  # until it is known what the launch has cost
        self._began_at: float | None = None  # when the jobs did, in seconds since the launch
        self._failure: Exception | None = None  # of dagster-aws's client
        self._launched_at = time.monotonic()

    def run(self) -> Iterator[Report]:
        """Start the job run, and yield what its jobs report. It is ended in any case.

        Raises:
            EMRServerlessLaunchFailed: It did not end well.
        """
        self._cancel_earlier()
        request, description = self._request()
        # dagster-aws's client waits for the job run's end in a thread of its own, while messages are read here.
        waiting = threading.Thread(target=self._wait, args=(request, description), daemon=True)
        try:
            with lease.renewed(self._folder):
                waiting.start()
                status = yield from self._watch(waiting)
            bill = self._bill()
            for report in self._withheld:
                yield replace(report, launch={**report.launch, **bill}) if report.event == "output" else report
            if problem := find_problem(self._snapshot(status)):
                raise self._error(problem) from self._failure
            if status is None:
                self._context.log.warning("the driver ended after all its jobs had, but before it said so")
        finally:
            self._channel.all_read.set()
            if waiting.ident is not None:
                self._cancel()
                waiting.join(timeout=3 * _STATE_POLLS * self._settings.poll_seconds)

    # --- start ---

    def _request(self) -> "tuple[StartJobRunRequestTypeDef, dict[str, Any]]":
        """What AWS is asked for, and the launch's description but for the context."""
        settings = self._settings
        application = settings.emr.get_application(applicationId=settings.application)["application"]
        architecture: packing.Architecture = "aarch64" if application.get("architecture") == "ARM64" else "x86_64"
        packed = settings.launch_store.keep(packing.name(architecture), lambda: packing.build(architecture))
        program = settings.launch_store.keep(f"{hashlib.sha256(_PROGRAM.encode()).hexdigest()}.py", _PROGRAM.encode)
        properties = settings.properties(packed)
        description = {
            "code": packed,
            "max_runtime": settings.max_runtime - _TO_REPORT_SECONDS,
            "launched": {
                "launcher": "emr-serverless",
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
                }
            },
            "configurationOverrides": {
                # Not as text of sparkSubmitParameters: that is taken apart by blanks, and a quote is part of a value.
                "applicationConfiguration": [{"classification": "spark-defaults", "properties": properties}],
                "monitoringConfiguration": {
                    "s3MonitoringConfiguration": {"logUri": f"{self._folder.location}/spark/"},
                },
            },
        }
        return request, description

    def _wait(self, request: "StartJobRunRequestTypeDef", description: dict[str, Any]) -> None:
        pipes = Client(
            client=cast("EMRServerlessClient", self._requests),
            context_injector=Description(self._folder, description),
            message_reader=self._channel,
            poll_interval=_STATE_POLLS * self._settings.poll_seconds,
        )
        try:
            pipes.run(
                context=cast(dg.OpExecutionContext, RunContext(self._context)),
                start_job_run_params=request,
                extras=pipes_extras(self._jobs),
            )
        except Exception as error:  # part of the launch's error, once all messages are read
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

    def _watch(self, waiting: threading.Thread) -> Generator[Report, None, Status | None]:
        """Yield what the jobs report until the job run has ended, and all that it wrote was read; its status."""
        answered_at = self._launched_at
        while True:
            # In this order: one that has ended, or whose status is there, has written what is read then.
            is_over = not waiting.is_alive()
            try:
                status = self._folder.status()
                yield from self._read()
                answered_at = time.monotonic()
            except (BotoCoreError, ClientError) as error:
                refused = is_refusal(error)
                if refused or time.monotonic() - answered_at > _UNREACHABLE_SECONDS:
                    raise self._error(f"S3 {'refuses' if refused else 'does not answer'}: {error}") from error
                self._context.log.warning(f"S3 does not answer, so it is asked again: {error}")
            else:
                if status is not None and not self._transcript.missing(status):
                    self._channel.all_read.set()
                if is_over:
                    return status
            time.sleep(self._settings.poll_seconds)

    def _read(self) -> Iterator[Report]:
        try:
            for message in self._transcript.new_messages():
                report = self._take(message)
                if report is not None:
                    yield from self._withhold_last(report)
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

    def _withhold_last(self, report: Report) -> Iterator[Report]:
        """Withhold the last output, which says what the launch has cost: AWS says nothing of that before its end."""
        if report.event == "output" and self._unended == {report.job}:
            yield from self._withheld
            self._withheld = []
        elif not self._withheld:
            yield report
            return
        self._withheld.append(report)

    # --- end ---

    def _snapshot(self, status: Status | None) -> Snapshot:
        """What is known of the launch, after its job run."""
        run, words = self._requests.job_run, self._transcript.tail.strip()
        if run is not None and status is None and self._unended:
            words = words or self._spark_words(run["applicationId"], run["jobRunId"])
        return Snapshot(
            job_run=cast("dict[str, Any] | None", run),
            failure=self._failure,
            status=status,
            missing=self._transcript.missing(status) if status is not None else "",
            jobs=len(self._jobs),
            unended=len(self._unended),
            max_runtime=self._settings.max_runtime,
            last_words=words,
        )

    def _bill(self) -> dict[str, Any]:
        """What the whole launch has cost, as metadata."""
        run = self._requests.job_run
        until = time.monotonic() + _BILL_SECONDS
        while run is not None and "billedResourceUtilization" not in run and time.monotonic() < until:
            time.sleep(self._settings.poll_seconds)
            try:
                run = self._requests.get_job_run(run["applicationId"], run["jobRunId"])["jobRun"]
            except (BotoCoreError, ClientError) as error:
                return {"dollars_unknown": f"AWS gives no cost: {error}"}
        if run is None or "billedResourceUtilization" not in run:
            return {"dollars_unknown": "AWS gives no cost yet"}
        billed = cast("dict[str, float]", run["billedResourceUtilization"])
        dollars = self._settings.dollars(billed)
        parts = ", ".join(f"{value:.3f} {name}" for name, value in billed.items())
        self._context.log.info(f"job run {run['jobRunId']} cost some ${dollars:.4f}: {parts}")
        return {
            "estimated_dollars": round(dollars, 6),
            "vcpu_hours": billed.get("vCPUHour", 0.0),
            "memory_gb_hours": billed.get("memoryGBHour", 0.0),
        }

    def _spark_words(self, application: str, job_run: str) -> str:
        """The end of what Spark's driver logged, which EMR brings to S3 in the end."""
        name = f"spark/applications/{application}/jobs/{job_run}/SPARK_DRIVER/stderr.gz"
        try:
            logged = self._folder.get(name)
            if logged is None:
                return f"(none; there is no {self._folder.location}/{name})"
            return "\n".join(gzip.decompress(logged).decode(errors="replace").splitlines()[-_TAIL:])
        except (BotoCoreError, ClientError, OSError) as error:
            return f"(none; {self._folder.location}/{name} can't be read: {error})"

    def _cancel(self) -> None:
        """Cancel the job run, if it has not ended, also when its start was not answered yet."""
        self._requests.stopped = True
        self._requests.settled.wait(_START_SECONDS)
        run_id, settings = self._requests.job_run_id, self._settings
        run = self._requests.job_run
        if run_id is None or (run is not None and run["state"] in ENDED):
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
