"""How a job reports what it does: to a terminal, or to the Dagster run that launched it."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from dagster_pipes import PipesContext

from spark_jobs.arrow import leave_pandas_out
from spark_jobs.errors import InputError, S3Error, as_line
from spark_jobs.outputs import Manifest
from spark_jobs.terminal import visible_lines

_START = time.monotonic()
_QUIET = 2.0  # seconds between details


class Reporter:
    """Reports to a terminal: progress to stderr, finished outputs to stdout as JSON lines."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def progress(self, message: str) -> None:
        """Say what the job is doing."""
        self._said = time.monotonic()
        self._show(message)

    def detail(self, message: str) -> None:
        """Say how far a long step is; left out within 2 s after another message."""
        if time.monotonic() - self._said > _QUIET:
            self.progress(message)

    def output(self, folder: str, manifest: Manifest) -> None:
        """Say that an output folder is finished."""
        click.echo(json.dumps({"output": folder, **manifest["summary"]}, ensure_ascii=False))

    def _show(self, message: str) -> None:
        click.echo(f"[{time.monotonic() - _START:6.1f} s] {visible_lines(message)}", err=True)


class PipesReporter(Reporter):
    """Reports on one job to the Dagster run as well, by Pipes: progress as logs, outputs as custom messages."""

    def __init__(self, pipes: PipesContext, job: str):
        super().__init__()
        self._pipes = pipes
        self._job = job

    def output(self, folder: str, manifest: Manifest) -> None:
        self._send("output", folder=folder, manifest=manifest)

    def ended(self, error: str | None) -> None:
        """Say that the job ended well, or why it failed."""
        if error is None:
            self._send("done")
        else:
            super()._show(f"{self._job} failed: {error}")
            self._send("failed", error=error)

    def _show(self, message: str) -> None:
        super()._show(message)
        self._pipes.log.info(message)

    def _send(self, event: str, **facts: Any) -> None:
        self._pipes.report_custom_message({"job": self._job, "event": event, **facts})


@contextmanager
def heartbeat(report: Reporter, message: Callable[[], str], seconds: float = 10) -> Iterator[None]:
    """While the body runs, report `message()` every so many seconds, if it changed or half a minute went by."""
    ended = threading.Event()

    def beat() -> None:
        last, said = "", time.monotonic()
        while not ended.wait(seconds):
            try:
                now = message()
            except (OSError, S3Error) as error:  # progress is a courtesy: a listing that fails must not end the job
                now = f"no progress to report: {error}"
            if now != last or time.monotonic() - said > 30:
                report.progress(now)
                last, said = now, time.monotonic()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run_as_command(command: click.Command) -> None:
    """Run a job from a terminal; bad input, an S3 or a disk that refuses, is reported in a line, with exit code 1."""
    leave_pandas_out()
    try:
        command(standalone_mode=True)
    except (InputError, S3Error) as error:
        click.echo(f"Error: {visible_lines(str(error))}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # another library's own, which its message may not explain
            raise
        click.echo(f"Error: {visible_lines(as_line(error))}", err=True)
        sys.exit(1)
