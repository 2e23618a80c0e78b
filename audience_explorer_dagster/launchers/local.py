"""The launcher that runs jobs on this machine."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import dagster as dg
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    encode_param,
)
from pydantic import Field

from audience_explorer_dagster.launchers import Job, Launcher, LaunchFailed, Report, pipes_context, receive
from spark_jobs.work_folders import work_folder

_TURN = ".launch.lock"  # in DAGSTER_HOME; who holds it has the machine
_TAIL = 20  # lines of its output that the error of a crashed launch shows


class LocalLauncher(Launcher):
    """Runs jobs in one subprocess on this machine. Launches take turns, for each takes all cores and the memory."""

    takes_turns: ClassVar[bool] = True

    # It speaks the Pipes protocol by itself: PipesSubprocessClient hands messages over at the end only, and loses them
    # when the process fails, and Dagster's file reader takes the first half of a message that is still being written
    # for the whole.

    poll_seconds: float = Field(default=0.1, gt=0, description="How often to look for messages, in seconds.")
    grace_seconds: float = Field(
        default=10, ge=0, description="How long an interrupted launch may take to end before it is killed, in seconds."
    )

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        with self._turn(context), work_folder() as folder:
            context_file, message_file = folder / "context.json", folder / "messages.jsonl"
            context_file.write_text(json.dumps(pipes_context(context, jobs)), encoding="utf-8")
            message_file.touch()
            process = self._start(context_file, message_file)
            context.log.info(f"launched {len(jobs)} jobs on this machine, process {process.pid}")
            tail: deque[str] = deque(maxlen=_TAIL)
            forward = threading.Thread(target=_forward, args=(process, tail), daemon=True)
            forward.start()
            try:
                yield from self._follow(context, process, message_file)
            finally:
                self._end(process)
                if process.stdin is not None:
                    process.stdin.close()
                forward.join(timeout=5)
            # 1 says that jobs failed, each of which was reported.
            if process.returncode not in (0, 1):
                raise LaunchFailed(
                    f"the process of the jobs {_how_it_ended(process.returncode)}; its last words: {_text(tail)}"
                )

    @contextmanager
    def _turn(self, context: dg.OpExecutionContext) -> Iterator[None]:
        """Wait until no other run with the same records has a launch on this machine; that of a killed one is over."""
        if not self.takes_turns:
            yield
            return
        with Path(context.instance.root_directory, _TURN).open("w") as turn:
            waited = False
            while True:
                try:
                    fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waited:
                        context.log.info("another launch runs on this machine; this one waits for its turn")
                    waited = True
                    time.sleep(self.poll_seconds)
            yield

    def _start(self, context_file: Path, message_file: Path) -> "subprocess.Popen[str]":
        pipes = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({PipesDefaultContextLoader.FILE_PATH_KEY: str(context_file)}),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({PipesDefaultMessageWriter.FILE_PATH_KEY: str(message_file)}),
        }
        return subprocess.Popen(
            self._command(context_file.parent),
            env={**os.environ, **pipes},
            stdin=subprocess.PIPE,  # never written; when it ends, the jobs know that this process is gone
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that all it starts can be ended with it
        )

    def _command(self, folder: Path) -> list[str]:  # noqa: ARG002
        """What runs the jobs; `folder` may have files for it, and is deleted in the end."""
        return [sys.executable, "-m", "spark_jobs", "--end-with-stdin"]

    def _follow(
        self, context: dg.OpExecutionContext, process: "subprocess.Popen[str]", message_file: Path
    ) -> Iterator[Report]:
        with message_file.open("rb") as messages:
            rest = b""
            ended = False
            while not ended:
                try:
                    process.wait(timeout=self.poll_seconds)
                    ended = True  # and what it wrote last is read once more
                except subprocess.TimeoutExpired:
                    pass
                *lines, rest = (rest + messages.read()).split(b"\n")
                for line in lines:
                    report = receive(context, json.loads(line))
                    if report is not None:
                        yield report

    def _end(self, process: "subprocess.Popen[str]") -> None:
        if process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=self.grace_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _forward(process: "subprocess.Popen[str]", tail: "deque[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        sys.stderr.write(line)
        sys.stderr.flush()
        tail.append(line)


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), most likely because the machine ran out of memory"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _text(tail: "deque[str]") -> str:
    return "".join(tail).strip() or "(none)"
