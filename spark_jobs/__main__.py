"""Run the jobs of a launch, and report each to the Dagster run that launched it.

A launcher starts `python -m spark_jobs` with a Pipes context whose extras hold `jobs`: a list of
`{"id": …, "module": …, "config": {…}, "needs": [ids]}`, with the configs of `job_configs`. A job that fails does not
stop the others, but those that need it are not run. Messages are those of `reporting.PipesReporter`.

Jobs run in this process, one after another, each on all cores. But k-means of small categories leaves cores idle: if
that takes long, such jobs run beside each other, in `workers`.

With `--end-with-stdin` it ends, with all it started, when its standard input does: whoever holds the other end is gone.
With `--stop-file` it takes no further job once that file is there.

It exits with 0 if all jobs ended well, with 1 if some failed, with 3 if it had to stop before all had their turn.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
from dagster_pipes import PipesContext, open_dagster_pipes

from spark_jobs.arrow import leave_pandas_out
from spark_jobs.reporting import PipesReporter
from spark_jobs.workers import Workers, room_for, run_job

STOPPED = 3
_PATIENCE = 1.0  # seconds; a worker takes about that to start
_GRACE = 5.0  # seconds that this process and what it started may take to end, once nobody waits for it


def run(pipes: PipesContext, stop_file: Path | None = None, patience: float = _PATIENCE) -> int:
    """Run the jobs of the context; the exit code.

    Args:
        pipes: The context.
        stop_file: No further job is started once it is there.
        patience: Seconds that jobs which leave cores idle may take, before others run beside them.
    """
    waiting: dict[str, dict[str, Any]] = {job["id"]: job for job in pipes.extras["jobs"]}
    reports = {name: PipesReporter(pipes, name) for name in waiting}
    room_of: dict[str, int] = {}
    failed: dict[str, set[str]] = {}  # each with those that failed by themselves, because of which it did

    def room(job: dict[str, Any]) -> int:
        if job["id"] not in room_of:
            room_of[job["id"]] = room_for(job)
        return room_of[job["id"]]

    def end(name: str, error: str | None) -> None:
        reports[name].ended(error)
        if error is not None:
            failed.setdefault(name, {name})

    spent = 0.0
    with contextlib.closing(Workers()) as workers:
        while waiting or workers.running:
            stopping = stop_file is not None and stop_file.exists()
            job = None if stopping else _next(waiting, workers.running)
            if job is not None and (causes := _causes(job, failed)):
                del waiting[job["id"]]
                failed[job["id"]] = causes
                end(job["id"], f"not run, because {', '.join(sorted(causes))} failed")
            elif job is not None and spent >= patience and len(workers.running) < room(job) > 1:
                del waiting[job["id"]]
                workers.start(job, beside=room(job))
            elif workers.running:
                said = workers.hear()
                if said.what == "ended":
                    end(said.job, *said.values)
                elif said.what == "output":
                    reports[said.job].output(*said.values)
                else:
                    reports[said.job].progress(*said.values)
            elif job is not None:
                del waiting[job["id"]]
                began = time.monotonic()
                end(job["id"], run_job(job, reports[job["id"]]))
                spent += time.monotonic() - began if room(job) > 1 else 0
            else:
                name = next(iter(waiting))
                reports[name].progress(f"{name} is not started: this machine is about to go")
                return STOPPED
    return 1 if failed else 0


def _next(waiting: dict[str, dict[str, Any]], running: set[str]) -> dict[str, Any] | None:
    """The first job that needs none of those that wait or run; None if there is none now."""
    open_jobs = waiting.keys() | running
    return next((job for job in waiting.values() if open_jobs.isdisjoint(job["needs"])), None)


def _causes(job: dict[str, Any], failed: dict[str, set[str]]) -> set[str]:
    """The jobs whose failure makes a job pointless; empty if it is not."""
    return {cause for needed in failed.keys() & set(job["needs"]) for cause in failed[needed]}


def end_with_stdin() -> None:
    """End this process group when standard input ends."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when the interpreter ends
            pass
        os.killpg(0, signal.SIGTERM)
        time.sleep(_GRACE)  # SIGTERM may be ignored: who starts a process in the background passes that on to all below
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


@click.command()
@click.option("--end-with-stdin", "with_stdin", is_flag=True, help="End when standard input does.")
@click.option("--stop-file", type=click.Path(path_type=Path), help="Take no further job once this file is there.")
def main(with_stdin: bool, stop_file: Path | None) -> None:
    """Run the jobs of a Pipes context."""
    if with_stdin:
        end_with_stdin()
    leave_pandas_out()
    with open_dagster_pipes() as context:
        exit_code = run(context, stop_file)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
