"""The agent: runs the jobs of one launch on this machine, writes what they say to S3, and how they ended.

Whatever happens, the status is written last. Requests to S3 are repeated for as long as it takes (`RetryingFolder`).
"""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PipesDefaultContextLoader,
    PipesDefaultMessageWriter,
    encode_param,
)

import spark_jobs
from spark_jobs.launch.folder import Folder
from spark_jobs.launch.status import Status
from spark_jobs.launch.writer import Log, Messages, StreamWriter

_CODE = Path(spark_jobs.__file__).parents[1]  # what this very program was loaded from


class Jobs:
    """The process that runs the jobs, with all that it starts.

    Args:
        work: A folder for their files, which is theirs alone.
        context: Their Pipes context.
        user: The name of the user they run as; None for this process's.
        messages: Gets what they report.
        log: Gets what they print.
    """

    def __init__(self, work: Path, context: Mapping[str, Any], user: str | None, messages: Messages, log: Log):
        self._stop_file = work / "stop"
        context_file, message_file = work / "context.json", work / "messages.jsonl"
        context_file.write_text(json.dumps(context), encoding="utf-8")
        messages.follow(message_file)
        self._user = _give_to(user, work) if user else {}
        self._oom_kills = _oom_kills()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spark_jobs", "--stop-file", str(self._stop_file)],
            cwd=work,
            env=_environment(work, context_file, message_file),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self._user,
        )
        _end_first(self._process.pid)
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def start_no_more(self) -> None:
        """Let the job that runs end, and start none after it."""
        self._stop_file.touch()

    def wait(self, seconds: float) -> Status:
        """Wait until they end, at most so long; how they ended."""
        overdue = False
        try:
            self._process.wait(timeout=max(0, seconds))
        except subprocess.TimeoutExpired:
            overdue = True
        self.kill()
        code = self._process.wait()
        # The kernel may have ended this process or one that it started, such as Spark's JVM.
        return Status(exit_code=code, overdue=overdue, out_of_memory=_oom_kills() > self._oom_kills)

    def kill(self) -> None:
        """End what is left of them, so that nothing of it writes after the status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Spark's workers leave the process group; but the user has nothing else here.
        for process in Path("/proc").glob("[0-9]*") if self._user else ():
            with contextlib.suppress(OSError):
                if process.stat().st_uid == self._user["user"]:
                    os.kill(int(process.name), signal.SIGKILL)
        self._reader.join(timeout=5)

    def _read(self, log: Log) -> None:
        assert self._process.stdout is not None
        while text := os.read(self._process.stdout.fileno(), 1 << 16):
            log.add(text)  # and not to the console: an instance's is slow, and would be waited for


Watch = Callable[[Jobs, Messages, Log], bool]


@dataclass(frozen=True)
class Machine:
    """Where an agent runs, and what there may need attention while the jobs run.

    Attributes:
        facts: What the first message says of it.
        scratch: A folder for what jobs write while they run; None for the usual one for such files.
        user: The name of the user that jobs run as; None for the agent's.
        max_seconds: How long they may take; the `max_runtime` of the launch limits them as well.
        watch: Called again and again while they run, until it returns true.
        watch_seconds: How often.
    """

    watch: Watch
    watch_seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    scratch: str | None = None
    user: str | None = None
    max_seconds: float = float("inf")


def run_launch(folder: Folder, machine: Machine) -> Status:
    """Run the jobs of a launch, write what they say, and the launch's status, whatever happens.

    Args:
        folder: The launch's, which repeats requests that fail.
        machine: Where this is.
    """
    began = time.monotonic()
    messages, log = Messages(), Log()
    writers = [StreamWriter(folder, "messages", messages.take), StreamWriter(folder, "log", log.take)]
    messages.report("started", **machine.facts)
    try:
        ended = _run_jobs(folder.description(), machine, messages, log, began)
    except Exception as error:
        traceback.print_exc()
        log.add(traceback.format_exc().encode())
        ended = Status(error=f"{type(error).__name__}: {error}")
    messages.report("ended", exit_code=ended.exit_code, error=ended.error)
    for writer in writers:
        try:
            writer.close()
        except Exception as error:
            ended = replace(ended, error=f"the {writer.stream} could not all be stored: {error}")
    status = replace(
        ended,
        messages=messages.count,
        objects={writer.stream: writer.objects for writer in writers},
        seconds=round(time.monotonic() - began, 3),
    )
    folder.end(status)
    return status


def _run_jobs(description: Mapping[str, Any], machine: Machine, messages: Messages, log: Log, began: float) -> Status:
    if not description:
        raise FileNotFoundError("the launch has no description.json")
    with tempfile.TemporaryDirectory(prefix="launch-", dir=machine.scratch, ignore_cleanup_errors=True) as work:
        jobs = Jobs(Path(work), description["context"], machine.user, messages, log)
        messages.report("jobs", boot_seconds=round(time.monotonic() - began, 3))
        with _watched(lambda: machine.watch(jobs, messages, log), machine.watch_seconds):
            return jobs.wait(min(machine.max_seconds, float(description["max_runtime"])))


@contextmanager
def _watched(watch: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Call `watch` every so many seconds while the body runs, until it returns true."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            if watch():
                return

    threading.Thread(target=run, name="watch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _environment(work: Path, context_file: Path, message_file: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(work),
        "TMPDIR": str(work),
        "SPARK_LOCAL_DIRS": str(work),
        "SPARK_DRIVER_MEMORY": f"{_memory_bytes() * 7 // 10 >> 20}m",
        # In the archive of clusters the packages that jobs need lie beside the code.
        "PYTHONPATH": os.pathsep.join([str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({PipesDefaultContextLoader.FILE_PATH_KEY: str(context_file)}),
        DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({PipesDefaultMessageWriter.FILE_PATH_KEY: str(message_file)}),
    }


def _give_to(user: str, work: Path) -> dict[str, Any]:
    """Give the work folder to a user; how a process is started as that user."""
    found = pwd.getpwnam(user)
    for path in [work, *work.rglob("*")]:
        os.chown(path, found.pw_uid, found.pw_gid)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _end_first(pid: int) -> None:
    """Let the kernel end this process, or what it will start, if memory runs out, and not the one that reports it."""
    with contextlib.suppress(OSError):  # it may have ended already; and not every system has this
        Path(f"/proc/{pid}/oom_score_adj").write_text("500\n", encoding="ascii")


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _oom_kills() -> int:
    """How many processes the kernel has ended for their memory, because the machine's or a cgroup's was used up."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
