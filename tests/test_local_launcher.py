"""The local launcher: a real subprocess, whose messages arrive as they are written and survive its death."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from audience_explorer_dagster.launchers import Job, LaunchFailed, Report
from audience_explorer_dagster.launchers.local import LocalLauncher
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

    def _command(self) -> list[str]:
        return [sys.executable, "-c", PREPARE + self.script]


Launch = Callable[[str], Iterator[Report]]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Launch a script as the one job of a launch."""
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_asset_context(instance=instance)

        class Context:
            """The part of an asset's context that launchers use."""

            log = context.log
            run = type("Run", (), {"run_id": "r", "job_name": "j"})
            op_execution_context = type("Op", (), {"retry_number": 0})

        def start(script: str) -> Iterator[Report]:
            return ScriptLauncher(script=script).launch(Context(), [Job("job", "kmeans", [])])  # type: ignore[arg-type]

        yield start


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
    reports.close()  # type: ignore[attr-defined]
    pid = int(child.read_text())
    deadline = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_the_whole_pipeline_runs_in_subprocesses(project: Project) -> None:
    from audience_explorer_dagster.definitions import definitions

    project.definitions = definitions(str(project.root), LocalLauncher())
    outcomes = project.pipeline(["2024-01"])
    assert {outcome.status for outcome in outcomes.values()} == {"launched"}
    assert os.path.exists(os.path.join(str(outcomes["kmeans tea|2024-01"].folder), "data.json"))
