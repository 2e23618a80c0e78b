"""Runs outlive their processes: run monitoring gives those whose code server went a new one."""

import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from click.testing import CliRunner
from dagster._cli.job import job_launch_command
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import WorkerStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._grpc.client import DagsterGrpcClient

from audience_explorer_dagster import run_launcher
from audience_explorer_dagster.automation.lost_runs import lost_runs
from audience_explorer_dagster.run_launcher import MonitoredRunLauncher

SETTINGS = """
run_launcher: {module: audience_explorer_dagster.run_launcher, class: MonitoredRunLauncher}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
run_monitoring: {enabled: true, max_resume_run_attempts: 5}
telemetry: {enabled: false}
"""
CODE = """
import os, time
from pathlib import Path
import dagster as dg

@dg.op
def wait() -> None:
    Path(f"began-{os.getpid()}").touch()
    while not Path("go").exists():
        time.sleep(0.05)

@dg.job(executor_def=dg.in_process_executor)
def patient() -> None:
    wait()
"""
WORKSPACE = "load_from: [{grpc_server: {location_name: code, socket: SOCKET}}]"


class CodeServer:
    """A code server, and what Dagster's daemon does about the runs in it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance):
        self.folder = folder
        self.instance = instance
        self.workspace = folder / "workspace.yaml"
        self.workspace.write_text(WORKSPACE.replace("SOCKET", str(folder / "socket")))
        (folder / "jobs.py").write_text(CODE)
        self._process: psutil.Popen | None = None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = [sys.executable, "-m", "dagster", "api", "grpc", "--python-file", "jobs.py", "--socket", "socket"]
        with (self.folder / "log").open("a") as log:
            self._process = psutil.Popen(
                command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        until(self._serves, "the code server serves")

    def _serves(self) -> bool:
        try:
            DagsterGrpcClient(socket=str(self.folder / "socket")).ping("")
        except DagsterUserCodeUnreachableError:
            return False
        return True

    def end(self, how: signal.Signals) -> None:
        """Kill it, and then send what it leaves behind a signal, as its unit has systemd do."""
        assert self._process is not None
        runs = self._process.children(recursive=True)
        self._process.kill()
        for process in runs:
            # Python's own helper processes end with the server, often before the signal.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        _, alive = psutil.wait_procs([self._process, *runs], timeout=120)
        assert not alive
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)

    def launch(self) -> dg.DagsterRun:
        """Launch the job that waits."""
        launched = CliRunner().invoke(job_launch_command, ["--workspace", str(self.workspace), "--job", "patient"])
        assert launched.exit_code == 0, launched.output
        (run,) = self.instance.get_runs()
        return run

    def processes(self) -> int:
        """How many processes began the op."""
        return len(list(self.folder.glob("began-*")))

    def monitor(self) -> None:
        """Have Dagster's run monitoring look once."""
        target = WorkspaceFileTarget([str(self.workspace)])
        with WorkspaceProcessContext(self.instance, target) as context:
            assert list(execute_run_monitoring_iteration(context, logging.getLogger("monitoring"))) == [None]

    def look_for_lost_runs(self) -> str:
        """Have the sensor look once; what it says."""
        said = lost_runs(dg.build_sensor_context(self.instance))
        assert isinstance(said, dg.SkipReason)
        return str(said.skip_message)

    def status(self) -> dg.DagsterRunStatus:
        (run,) = self.instance.get_runs()
        return run.status


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(SETTINGS)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as of_home:
        yield of_home


@pytest.fixture
def server(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[CodeServer]:
    made = CodeServer(tmp_path, instance)
    yield made
    made.close()


@pytest.mark.filterwarnings("ignore:Error loading repository location")
def test_a_run_goes_on_after_a_restart_and_after_a_kill_of_its_server(server: CodeServer) -> None:
    server.start()
    run = server.launch()
    until(lambda: server.processes() == 1, "the run began")
    server.monitor()

    for number, how in enumerate((signal.SIGTERM, signal.SIGKILL), start=2):
        server.end(how)
        server.monitor()
        assert server.status() == dg.DagsterRunStatus.STARTED, "nothing is known while the server is away"

        server.start()
        server.monitor()
        until(lambda number=number: server.processes() == number, "the run began again")  # type: ignore[misc]
        server.monitor()
        assert server.processes() == number, "a run that lives is left alone"

    (server.folder / "go").touch()
    until(lambda: server.status() == dg.DagsterRunStatus.SUCCESS, "the run succeeded")
    assert [ended.run_id for ended in server.instance.get_runs()] == [run.run_id]
    failed = server.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert not failed, "nobody is told of a failure"


@pytest.mark.filterwarnings("ignore:Error loading repository location")
def test_a_run_whose_process_is_lost_before_it_began_is_given_a_new_one(
    server: CodeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run monitoring would fail it in the end, and with it the backfill that it belongs to."""
    monkeypatch.setattr(run_launcher, "_STARTING", 0)
    server.start()
    run = server.launch()
    until(lambda: server.processes() == 1, "the run began")
    # As if the process that was given to it had not got as far.
    starting = dg.DagsterEvent(dg.DagsterEventType.RUN_STARTING.value, run.job_name)
    server.instance.report_dagster_event(starting, run.run_id)
    assert server.look_for_lost_runs() == "None is lost.", "its process is there"

    server.end(signal.SIGKILL)
    assert server.look_for_lost_runs() == "None is lost.", "nothing is known while the server is away"
    server.start()
    server.monitor()
    assert server.status() == dg.DagsterRunStatus.STARTING
    assert run.run_id in server.look_for_lost_runs()
    until(lambda: server.processes() == 2, "the run began again")
    (server.folder / "go").touch()
    until(lambda: server.status() == dg.DagsterRunStatus.SUCCESS, "the run succeeded")
    assert server.look_for_lost_runs() == "None is lost."


def test_a_run_in_the_process_of_a_command_is_left_alone(instance: dg.DagsterInstance) -> None:
    @dg.job
    def in_process() -> None: ...

    run = instance.create_run_for_job(in_process, status=dg.DagsterRunStatus.STARTED)

    assert isinstance(instance.run_launcher, MonitoredRunLauncher)
    assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 240
    while not is_so():
        assert time.monotonic() < deadline, f"it did not come: {what}"
        time.sleep(0.05)
