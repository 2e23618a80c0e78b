"""What an instance starts with ends the machine, whatever becomes of the boot program."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

WRAPPER = Path(__file__).parents[1] / "ami" / "audience-explorer-boot"


class Machine:
    """A machine whose boot program is a line of shell, and whose `shutdown` leaves a mark."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.started: subprocess.Popen[bytes] | None = None
        self.programs = folder / "bin"
        self.programs.mkdir()

    def program(self, name: str, script: str) -> None:
        """Have a program on its path that is a line of shell."""
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def start(self, boot_program: str, **environment: str) -> None:
        """Start it; `$2` is the deadline file of the boot program."""
        python = self.folder / "home" / "venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        # As `python boot.py FOLDER --deadline-file FILE`; its mark comes last, when it can be killed.
        begun = boot_program.replace("exec sleep", f"echo $$ > '{self.folder}/boot.pid'; exec sleep")
        python.write_text(f'#!/bin/sh\nset -- "$2" "$4"\n{begun}\n')
        python.chmod(0o755)
        self.program("shutdown", f"echo \"$1\" >> '{self.folder}/ended'")
        own = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "AUDIENCE_EXPLORER_HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder),
        }
        self.started = subprocess.Popen([WRAPPER, "s3://bucket/a launch"], env={**own, **environment})

    def ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (self.folder / "ended").exists():
                return True
            time.sleep(0.05)
        return False

    def boot_program(self) -> int:
        while not (self.folder / "boot.pid").exists() or not (self.folder / "boot.pid").read_text():
            time.sleep(0.02)
        return int((self.folder / "boot.pid").read_text())

    def stop(self) -> None:
        """End what is left, the watchdog among it."""
        for process in Path("/proc").glob("[0-9]*/environ"):
            try:
                if str(self.folder).encode() in process.read_bytes() and int(process.parent.name) != os.getpid():
                    os.kill(int(process.parent.name), signal.SIGKILL)
            except OSError:
                continue
        if self.started is not None:
            self.started.wait(timeout=120)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.stop()


def test_a_boot_program_that_ends_ends_the_machine(machine: Machine) -> None:
    machine.start(f"echo \"$1\" > '{machine.folder}/given'")
    assert machine.ends_within(120)
    assert (machine.folder / "given").read_text() == "s3://bucket/a launch\n"


def test_a_boot_program_that_is_killed_ends_the_machine(machine: Machine) -> None:
    machine.start("exec sleep 600")
    os.kill(machine.boot_program(), signal.SIGKILL)
    assert machine.ends_within(120)


def test_the_watchdog_ends_the_machine_at_the_deadline_that_the_boot_program_wrote(machine: Machine) -> None:
    machine.start('echo $(($(cut -d. -f1 /proc/uptime) + 1)) > "$2"; exec sleep 600')
    assert machine.ends_within(120)


def test_the_watchdog_outlives_the_session_of_the_boot_program(machine: Machine) -> None:
    machine.start('echo $(($(cut -d. -f1 /proc/uptime) + 2)) > "$2"; exec sleep 600')
    boot_program = machine.boot_program()
    assert machine.started is not None
    machine.started.kill()
    os.kill(boot_program, signal.SIGKILL)
    assert machine.ends_within(120)


def test_the_deadline_is_where_an_ordinary_shutdown_leaves_it(machine: Machine) -> None:
    """Not in /tmp, which may be unmounted while the watchdog reads: it would take that for the end of its time."""
    place = machine.folder / "place"
    # `mktemp -p FOLDER`, by a stand-in, for tests write nothing into /run.
    machine.program("mktemp", f"echo \"$1 $2\" > '{place}'; echo '{machine.folder}/deadline'")
    machine.start(f"echo \"$2\" > '{machine.folder}/given'", TMPDIR="")
    assert machine.ends_within(60)
    assert place.read_text() == "-p /run\n"
    assert (machine.folder / "given").read_text() == f"{machine.folder}/deadline\n"


def test_a_machine_whose_deadline_is_lost_is_ended(machine: Machine) -> None:
    machine.start('rm "$2"; exec sleep 600')
    assert machine.ends_within(120)
