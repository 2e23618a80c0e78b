"""The run launcher of a deployment: Dagster's default one, which lets no run go on without a process."""

import time

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, ResumeRunContext, WorkerStatus
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

_TIMEOUT = 10  # seconds that the code server may take to answer
_STARTING = 30  # seconds within which a run that starts has come to its code server


class MonitoredRunLauncher(dg.DefaultRunLauncher):
    """Launches runs in the code server, and tells run monitoring which of them it still has.

    With Dagster's own, a run whose process ends together with the code server (a kill, a reboot, a new version) is
    STARTED for good. With this one it goes on in a new process, as the same run: what is on record is reused, and a
    backfill that it belongs to stays whole. Failing it, and retrying, would not do: Dagster takes a job's backfill for
    over if it looks at it before the retry is there, and then retries no more.

    The code server must be one of `dagster api grpc`. One of `dagster code-server start` knows after a reload the runs
    since then only, and would deny those before.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    @property
    def supports_resume_run(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a run's process is there. What can't be told counts as running, for all else is taken for lost."""
        server = self._code_server(run)
        if server is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "over, or in the process of a command that began it")
        try:
            answer = server.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id), timeout=_TIMEOUT)
        except DagsterUserCodeUnreachableError as error:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"not known: {error}")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server has no process of this run")

    def resume_run(self, context: ResumeRunContext) -> None:
        """Give a run a new process, which begins anew and finds what is on record."""
        run = context.dagster_run
        # Not the workspace's: after a start it may still be without the code that the server has.
        server = self._code_server(run)
        assert server is not None, "only a code server denies to have a run"
        # Dagster would have a second process of a run that is STARTED do nothing.
        starting = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
        self._instance.report_dagster_event(starting, run.run_id)
        self.launch_run_from_grpc_client(self._instance, run, server)

    def resume_lost_starts(self) -> list[str]:
        """Give runs that lost their process before they began a new one; their ids.

        Run monitoring looks for the processes of runs that began, and fails those that take too long to begin. That
        would end a backfill as failed, though a retry does all of it.
        """
        instance = self._instance
        if not instance.run_monitoring_enabled:
            return []
        starting = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
        lost = [run for run in starting if self._is_lost_start(run)]
        for run in lost:
            attempt = instance.count_resume_run_attempts(run.run_id) + 1
            instance.resume_run(run.run_id, None, attempt)  # type: ignore[arg-type]  # a workspace is not used
        return [run.run_id for run in lost]

    def _is_lost_start(self, run: dg.DagsterRun) -> bool:
        instance = self._instance
        launched = instance.get_run_stats(run.run_id).launch_time
        if launched is None or time.time() < launched + _STARTING:
            return False
        if instance.count_resume_run_attempts(run.run_id) >= instance.run_monitoring_max_resume_run_attempts:
            return False  # run monitoring fails it
        if self.check_run_worker_health(run).status != WorkerStatus.NOT_FOUND:
            return False
        now = instance.get_run_by_id(run.run_id)  # it may have ended meanwhile
        return now is not None and now.status == dg.DagsterRunStatus.STARTING

    def _code_server(self, run: dg.DagsterRun) -> DagsterGrpcClient | None:
        """The code server that an unfinished run was launched in, if it was in any."""
        server: DagsterGrpcClient | None = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        return server
