"""The local launcher: a real subprocess, whose messages arrive as they are written and survive its death."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from audience_explorer_dagster.launchers import LaunchFailed, Report
from audience_explorer_dagster.launchers.local import LocalLauncher
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig
from spark_jobs.job_configs import KMeans, MakeClusteringInputs
from tests.conftest import started
from tests.jobs import kmeans_job
from tests.project import Project

PREPARE = """
import json, os, signal, sys, time
from dagster_pipes import open_dagster_pipes
def report(pipes, event, **facts):
    pipes.report_custom_message({"job": pipes.extras["jobs"][0]["id"], "event": event, **facts})
"""


class ScriptLauncher(LocalLauncher):
    """Runs a script of the test's in place of the jobs."""

    script: str

    def _command(self, folder: Path) -> list[str]:  # noqa: ARG002
        return [sys.executable, "-c", PREPARE + self.script]


Launch = Callable[[str], Iterator[Report]]


class Context:
    """The part of an asset's context that launchers use."""

    instance = SimpleNamespace(root_directory=tempfile.mkdtemp())
    log = logging.getLogger("test")
    run = SimpleNamespace(run_id="r", job_name="j")
    retry_number = 0


def launch_script(script: str) -> Iterator[Report]:
    """Launch a script as the one job of a launch."""
    return ScriptLauncher(script=script).launch(cast(Any, Context()), [kmeans_job("job")])


@pytest.fixture
def launch() -> Launch:
    return launch_script


def test_messages_arrive_while_the_job_runs(launch: Launch, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    reports = launch(
        f"""
with open_dagster_pipes() as pipes:
    report(pipes, "output", folder="first")
    while not os.path.exists({str(go_on)!r}):
        time.sleep(0.05)
    report(pipes, "done")
"""
    )
    assert next(reports).folder == "first"
    go_on.touch()
    assert [report.event for report in reports] == ["done"]


def test_what_was_reported_stands_when_the_process_is_killed(launch: Launch) -> None:
    reports = launch(
        """
pipes = open_dagster_pipes()
report(pipes, "output", folder="done before")
print("the last words", file=sys.stderr, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert next(reports).folder == "done before"
    with pytest.raises(LaunchFailed, match=r"SIGKILL.*memory; its last words: the last words"):
        next(reports)


def test_a_process_that_does_not_start_says_why(launch: Launch) -> None:
    with pytest.raises(LaunchFailed, match=r"exited with code 7; its last words: no such thing"):
        list(launch("print('no such thing', file=sys.stderr); sys.exit(7)"))


def test_a_large_message_arrives_whole(launch: Launch) -> None:
    reports = launch(
        """
with open_dagster_pipes() as pipes:
    report(pipes, "output", folder="x", manifest={"text": "é" * 5_000_000})
"""
    )
    manifest = next(reports).manifest
    assert manifest is not None
    assert len(manifest["text"]) == 5_000_000


def test_an_interrupted_launch_ends_with_all_it_started(launch: Launch, tmp_path: Path) -> None:
    child = tmp_path / "child"
    reports = launch(
        f"""
import subprocess
with open_dagster_pipes() as pipes:
    sleeper = subprocess.Popen(["sleep", "1000"])
    open({str(child)!r}, "w").write(str(sleeper.pid))
    report(pipes, "output", folder="x")
    sleeper.wait()
"""
    )
    next(reports)
    cast("Generator[Report]", reports).close()
    pid = int(child.read_text())
    deadline = time.monotonic() + 120
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def test_launches_take_turns(launch: Launch, tmp_path: Path) -> None:
    """Each is sized to the whole machine."""
    script = f"""
with open_dagster_pipes() as pipes:
    first = not os.path.exists({str(tmp_path / "running")!r})
    open({str(tmp_path / "running")!r}, "w").close()
    time.sleep(0.5)
    os.remove({str(tmp_path / "running")!r})
    report(pipes, "done" if first else "failed", **({{}} if first else {{"error": "beside another"}}))
"""
    events: list[str] = []

    def run() -> None:
        events.extend(report.event for report in launch(script))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events == ["done"] * 3


def test_jobs_end_with_whoever_launched_them(golden: Path, tmp_path: Path) -> None:
    """A killed orchestrator can't end them, so they watch it."""
    inputs, category = str(tmp_path / "in"), str(golden / "category.json")
    first = MakeClusteringInputs(
        grouped=str(golden / "grouped_users.jsonl"),
        output=inputs,
        category_files=(category,),
        config=ClusteringInputsConfig(),
    )
    endless = KMeans(inputs=inputs, output=str(tmp_path / "out"), config=KMeansConfig(k=2, n_init=100_000))
    script = tmp_path / "orchestrator.py"
    script.write_text(
        "import dagster as dg, sys\n"
        "from tests.test_local_launcher import Context\n"
        "from audience_explorer_dagster.launchers import Job\n"
        "from audience_explorer_dagster.launchers.local import LocalLauncher\n"
        "from spark_jobs.job_configs import KMeans, MakeClusteringInputs\n"
        f"first = MakeClusteringInputs.model_validate({first.model_dump(mode='json')!r})\n"
        f"endless = KMeans.model_validate({endless.model_dump(mode='json')!r})\n"
        "jobs = [Job('first', (), first), Job('endless', (), endless)]\n"
        "for report in LocalLauncher().launch(Context(), jobs):\n"
        "    print(report.event, flush=True)\n"
    )
    with started(
        [sys.executable, script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}, text=True
    ) as orchestrator:
        assert orchestrator.stdout.readline() == "output\n"  # so the launch is under way
        (pid,) = _children(orchestrator.pid)
    deadline = time.monotonic() + 120
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(pid)


@pytest.mark.parametrize(
    "inherited",
    [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})",
    ],
)
def test_jobs_end_with_a_launcher_that_cannot_be_terminated_itself(inherited: str) -> None:
    jobs = (
        "import subprocess, sys; from spark_jobs.__main__ import end_with_stdin; end_with_stdin()\n"
        "sleeper = subprocess.Popen(['sleep', '1000']); print(sleeper.pid, flush=True); sleeper.wait()"
    )
    # Not by preexec_fn: what it does in a fork of a process with threads may hang.
    launcher = f"import os, signal, sys; {inherited}; os.execv(sys.executable, [sys.executable, '-c', {jobs!r}])"
    with started(
        [sys.executable, "-c", launcher],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # for its process group is what ends
    ) as process:
        sleeper = int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(timeout=120) == -signal.SIGTERM
    deadline = time.monotonic() + 120
    while _runs(sleeper) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(sleeper)


def _children(pid: int) -> list[int]:
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in said.split()]


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_the_whole_pipeline_runs_in_subprocesses(project: Project) -> None:
    from audience_explorer_dagster.definitions import definitions

    project.definitions = definitions(str(project.root), LocalLauncher())
    outcomes = project.pipeline(["2024-01"])
    assert {outcome.status for outcome in outcomes.values()} == {"launched"}
    assert os.path.exists(os.path.join(str(outcomes["kmeans tea|2024-01"].folder), "data.json"))
