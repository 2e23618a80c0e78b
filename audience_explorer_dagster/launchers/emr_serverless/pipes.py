"""What dagster-aws's client of EMR Serverless needs of a launch: requests, a run's context, and Pipes' two ends."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from dagster_aws.pipes import PipesEMRServerlessClient
from dagster_pipes import PipesContextData, PipesParams

from audience_explorer_dagster.launchers import LaunchFailed
from spark_jobs.launch.folder import Folder

if TYPE_CHECKING:
    from dagster._core.pipes.context import PipesMessageHandler
    from mypy_boto3_emr_serverless import EMRServerlessClient
    from mypy_boto3_emr_serverless.type_defs import JobRunTypeDef


class Client(PipesEMRServerlessClient):
    def _read_messages(self, *_: Any, **__: Any) -> None:
        """Nothing: this is where it would turn to CloudWatch, and warn of any other channel."""


class Requests:
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


class RunContext:
    """A run's context as dagster-aws's client has it, with no assets: what they are is reported in our own messages."""

    has_assets_def = False
    has_partition_key = False

    def __init__(self, context: dg.OpExecutionContext):
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Description(dg.PipesContextInjector):
    """Brings the Pipes context to the driver in the launch's description: it may be longer than parameters may."""

    def __init__(self, folder: Folder, description: dict[str, Any]):
        self._folder, self._description = folder, description

    @contextmanager
    def inject_context(self, context: PipesContextData) -> Iterator[PipesParams]:
        self._folder.describe({**self._description, "context": context})
        yield {}

    def no_messages_debug_text(self) -> str:
        return f"The launch is described in {self._folder.location}/description.json."


class Channel(dg.PipesMessageReader):
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
