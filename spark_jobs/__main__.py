"""Run the jobs of a launch, one after another in this process, and report each to the Dagster run that launched it.

A launcher starts `python -m spark_jobs` with a Pipes context whose extras hold `jobs`: a list of
`{"id": …, "module": …, "config": {…}, "needs": [ids]}`, with the configs of `job_configs`. A job that fails does not
stop the others, but those that need it are not run. Messages are those of `reporting.PipesReporter`.

With `--end-with-stdin` it ends, with all it started, when its standard input does: whoever holds the other end is gone.
With `--stop-file` it takes no further job once that file is there.

It exits with 0 if all jobs ended well, with 1 if some failed, with 3 if it had to stop before all had their turn.
"""

import importlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import click
from dagster_pipes import PipesContext, open_dagster_pipes

from spark_jobs.arrow import leave_pandas_out
from spark_jobs.errors import InputError, S3Error
from spark_jobs.job_configs import JOBS
from spark_jobs.reporting import PipesReporter

STOPPED = 3


def run(pipes: PipesContext, stop_file: Path | None = None) -> int:
    """Run the jobs of the context; the exit code."""
    report = PipesReporter(pipes)
    failed: set[str] = set()
    for job in pipes.extras["jobs"]:
        if stop_file is not None and stop_file.exists():
            report.progress(f"{job['id']} is not started: this machine is about to go")
            return STOPPED
        report.job = job["id"]
        missing = failed.intersection(job["needs"])
        if missing:
            error: str | None = f"not run, because {', '.join(sorted(missing))} failed"
        else:
            error = _run_job(job, report)
        if error is None:
            report.done()
        else:
            failed.add(job["id"])
            report.failed(error)
    return 1 if failed else 0


def _run_job(job: dict[str, Any], report: PipesReporter) -> str | None:
    """Run a job; what went wrong, if anything did."""
    if job["module"] not in JOBS:
        return f"there is no job {job['module']}"
    report.progress(f"{job['id']} starts")
    try:
        values = JOBS[job["module"]].model_validate(job["config"]).values()
        importlib.import_module(f"spark_jobs.{job['module']}").run(**values, report=report)
    except (InputError, S3Error) as error:
        return str(error)
    except Exception as error:  # whatever it is, the jobs after it have their turn
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def end_with_stdin() -> None:
    """End this process group when standard input ends."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when the interpreter ends
            pass
        os.killpg(0, signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@click.command()
@click.option("--end-with-stdin", "with_stdin", is_flag=True, help="End when standard input does.")
@click.option("--stop-file", type=click.Path(path_type=Path), help="Take no further job once this file is there.")
def main(with_stdin: bool, stop_file: Path | None) -> None:
    """Run the jobs of a Pipes context, one after another."""
    if with_stdin:
        end_with_stdin()
    leave_pandas_out()
    with open_dagster_pipes() as context:
        exit_code = run(context, stop_file)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
