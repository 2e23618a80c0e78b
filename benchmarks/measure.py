"""Time, CPU time and peak memory of a process and all that it starts, in a cgroup that bounds their memory."""

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_SAMPLE = 0.1  # seconds between looks at the process tree
_LAST_WORDS = 2000  # characters kept of what a process that failed said


@dataclass(frozen=True)
class Measured:
    """What a process and all that it started took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int  # the largest sum of resident sets; a page that processes share counts once for each
    limited: bool  # whether a cgroup bounded its memory
    exit_code: int
    ended: str  # "well", or why not: "out of memory", "timed out", "failed"
    stdout: str
    last_words: str  # of stderr, where it did not end well


class NoCgroup(Exception):
    """This process may make no cgroup that bounds memory."""


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup (v1 or v2) whose processes may take `limit` bytes together, their page cache included.

    Raises:
        NoCgroup: It can't be made: that takes root, and cgroups that are not mounted read-only.
    """
    v1 = (_CGROUPS / "memory").is_dir()
    try:
        # In v2 a group with processes of its own can have none below it, so it is made below the root.
        parent = _CGROUPS / "memory" / _own_group_v1() if v1 else _CGROUPS
        if not v1 and "memory" not in (parent / "cgroup.subtree_control").read_text().split():
            (parent / "cgroup.subtree_control").write_text("+memory")
        folder = parent / f"audience-explorer-bench-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limit))
        swap = folder / ("memory.memsw.limit_in_bytes" if v1 else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(limit) if v1 else "0")
    except OSError as error:
        raise NoCgroup(str(error)) from error
    try:
        yield folder
    finally:
        _remove(folder)


def run(
    command: Sequence[str],
    memory: int | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> Measured:
    """Run a command and measure it.

    Args:
        command: What to run.
        memory: Bytes that it and all it starts may take together; without the rights to bound it, it runs unbounded.
        timeout: Seconds after which it is killed.
        env: Its environment; by default this process's.
    """
    if memory is None:
        return _run(command, None, timeout, env)
    try:
        with memory_cgroup(memory) as cgroup:
            return _run(command, cgroup, timeout, env)
    except NoCgroup:
        return _run(command, None, timeout, env)


def _run(command: Sequence[str], cgroup: Path | None, timeout: float | None, env: Mapping[str, str] | None) -> Measured:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        # It puts itself into the group before it becomes the command, so that nothing it takes escapes it.
        join = [] if cgroup is None else ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup / "cgroup.procs")]
        start = time.monotonic()
        process = subprocess.Popen(
            [*join, *command], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, start_new_session=True
        )
        with _sampled(process.pid) as usage:
            try:
                code = process.wait(timeout)
                timed_out = False
            except subprocess.TimeoutExpired:
                timed_out = True
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            seconds = time.monotonic() - start
        _end_rest(process.pid)
        out_of_memory = cgroup is not None and _killed_for_memory(cgroup) > 0
        failed = "out of memory" if out_of_memory else "failed"
        ended = "timed out" if timed_out else "well" if code == 0 else failed
        return Measured(
            seconds=seconds,
            cpu_seconds=sum(usage.cpu_seconds.values()),
            peak_bytes=usage.peak_bytes,
            limited=cgroup is not None,
            exit_code=code,
            ended=ended,
            stdout=_text(stdout),
            last_words="" if ended == "well" else _text(stderr)[-_LAST_WORDS:],
        )


class _Usage:
    def __init__(self) -> None:
        self.peak_bytes = 0
        self.cpu_seconds: dict[tuple[int, float], float] = {}  # of each process, when it was last seen

    def look(self, root: psutil.Process) -> None:
        total = 0
        for process in [root, *root.children(recursive=True)]:
            try:
                with process.oneshot():
                    total += process.memory_info().rss
                    times = process.cpu_times()
                    self.cpu_seconds[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        self.peak_bytes = max(self.peak_bytes, total)


@contextmanager
def _sampled(pid: int) -> Iterator[_Usage]:
    usage, ended = _Usage(), threading.Event()

    def sample() -> None:
        try:
            root = psutil.Process(pid)
            while not ended.wait(_SAMPLE):
                usage.look(root)
        except psutil.NoSuchProcess:
            return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield usage
    finally:
        ended.set()
        thread.join()


def _end_rest(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _own_group_v1() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path.lstrip("/")
    raise FileNotFoundError("this process is in no memory cgroup")


def _killed_for_memory(cgroup: Path) -> int:
    v2 = cgroup / "memory.events"
    facts = (v2 if v2.exists() else cgroup / "memory.oom_control").read_text().split()
    return int(dict(zip(facts[::2], facts[1::2], strict=True)).get("oom_kill", 0))


def _remove(folder: Path) -> None:
    for _ in range(100):
        try:
            folder.rmdir()
            return
        except OSError:  # a process in it is still ending
            time.sleep(0.1)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
