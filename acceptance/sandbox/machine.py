"""The machines that instances are: trees of processes that run user data, in two ways.

A **light** machine is a process tree like any other on this machine, told apart by a variable of its environment. An
**isolated** one has a root, processes and a network of its own, and needs root.

Either begins with a process that does what process 1 and cloud-init do: it runs the user data, and ends when `shutdown`
is called, or when it is killed, which is what switching the power off means here. All else ends with it, at once.
"""

import contextlib
import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

FIRST_PROCESS = Path(__file__).with_name("first_process.sh")
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class MachineFailed(Exception):
    """A machine could not be started."""


@dataclass(frozen=True)
class Limits:
    """How much a machine has, in bytes; None for no limit."""

    disk: int | None = None
    memory: int | None = None


class Machine(ABC):
    """One machine: it is started once, ends once, and leaves nothing but files in its folder.

    Args:
        name: The instance's id.
        folder: For its files.
        console: The file to which is written what user data prints.
        user_data: A script, which begins with `#!`.
        limits: What it has.
        environment: What the user data's environment has besides a path and a language.
    """

    def __init__(
        self, name: str, folder: Path, console: Path, user_data: bytes, limits: Limits, environment: Mapping[str, str]
    ):
        self.name, self.folder, self.limits = name, folder, limits
        self._console = console
        self._environment = {**ENVIRONMENT, **environment}
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        # cloud-init takes other kinds of user data as well; only scripts are played here.
        if not user_data.startswith(b"#!"):
            raise MachineFailed("user data must be a script: its first line must begin with #!")
        self._script = folder / "user-data"
        self._script.write_bytes(user_data)
        self._script.chmod(0o700)

    def start(self) -> None:
        """Switch it on. The thread that does so must wait for its end: the machine does not outlive that thread.

        Raises:
            MachineFailed: It does not run.
        """
        command = self._command()
        if self.limits.memory is not None:
            group = self._stack.enter_context(_memory_cgroup(self.name, self.limits.memory))
            command = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group), *command]
        # Its standard input is a pipe that it writes to when it runs: the one descriptor that every program hands on.
        read_end, write_end = os.pipe()
        with open(read_end, "rb") as answers, self._console.open("ab") as console:
            try:
                self._process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *command],
                    stdin=write_end,
                    stdout=console,
                    stderr=console,
                    env=self._environment,
                    cwd="/",
                    start_new_session=True,
                )
            finally:
                os.close(write_end)
            if not answers.readline():
                raise MachineFailed(f"the machine did not start: {_tail(self._console)}")

    def wait(self) -> None:
        """Wait until it is off, however that came about."""
        assert self._process is not None
        self._process.wait()

    def power_off(self) -> None:
        """Switch it off, at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End what may be left of it, and wait until all of it is gone."""
        self.power_off()
        while left := list(self.processes()):
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.01)  # a signal takes its time; and one of them may have started others
        if self._process is not None:
            self._process.wait()
        self._stack.close()

    def kill(self, program: str) -> int:
        """Kill, with signal 9, the processes that run a Python program; how many that were."""
        killed = 0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any(os.path.basename(argument) == program for argument in process.cmdline()[:2]):
                    process.kill()
                    killed += 1
        return killed

    def fill_disk(self) -> None:
        """Write until its disk, which must be of limited size, is full."""
        # The file system is mounted in the machine only; its processes lead there.
        first = min(self.processes(), key=psutil.Process.create_time)  # which lives as long as the machine
        filler = Path(f"/proc/{first.pid}/root{self._disk_inside()}/filler")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:  # ENOSPC ends it
            while True:
                file.write(bytes(1 << 16))

    @abstractmethod
    def processes(self) -> Iterator[psutil.Process]:
        """All processes of the machine that live."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The command that is, or starts, the machine's first process."""

    @abstractmethod
    def _disk_inside(self) -> str:
        """A folder on the machine's disk, as the machine names it."""


@contextlib.contextmanager
def _memory_cgroup(name: str, limit: int) -> Iterator[Path]:
    """A cgroup of limited memory, of version 2 or 1, for as long as the context lasts."""
    root = Path("/sys/fs/cgroup")
    try:
        if (root / "cgroup.controllers").exists():
            (root / "cgroup.subtree_control").write_text("+memory")
            group = root / f"audience-explorer-{name}"
            group.mkdir()
            (group / "memory.max").write_text(str(limit))
            (group / "memory.swap.max").write_text("0")
        else:
            group = root / "memory" / f"audience-explorer-{name}"
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        raise MachineFailed(f"memory can't be limited on this machine: {error}") from error
    try:
        yield group
    finally:
        # The kernel needs a moment to see that the last process is gone.
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def _tail(console: Path) -> str:
    """The end of what a machine printed."""
    return console.read_text(errors="replace")[-2000:].strip()
