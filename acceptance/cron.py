"""The recipes of `docs/cron.md`, line by line as cron runs them, and two of them by cron itself, which mails."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from email import message_from_string
from gzip import decompress
from pathlib import Path
from typing import TypeVar

import dagster as dg
import psutil
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from acceptance.conftest import PROJECT
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB

PAGE = (PROJECT / "docs" / "cron.md").read_text()
HEAD, *RECIPES = re.findall(r"^```cron\n(.*?)^```", PAGE, re.M | re.S)

# What a recipe is told apart by.
PIPELINE, THREE_MONTHS = "pipeline --quiet ||", "pipeline --quiet --month"
JOB, TWEAK = "dagster job execute", "dagster asset materialize"
LIVENESS, BACKFILL = "dagster-daemon liveness-check", "dagster job backfill"


def last_months(count: int) -> list[str]:
    """The last months that ended, the newest last."""
    months: list[str] = []
    first = datetime.now(timezone.utc).replace(day=1)
    while len(months) < count:
        first = (first - timedelta(days=1)).replace(day=1)
        months.insert(0, first.strftime("%Y-%m"))
    return months


LAST = last_months(1)[0]


def line_of(words: str) -> str:
    """The line of the page's only recipe with these words."""
    (recipe,) = (recipe for recipe in RECIPES if words in recipe)
    comment, line = recipe.splitlines()
    assert comment.startswith("# ")
    return str(line)


class Machine:
    """A machine as `deploy/install.sh` leaves it, with its paths below a folder, and real actions of two categories."""

    def __init__(self, folder: Path, ansible: Path):
        self.state = folder / "state"
        self.root = folder / "root"
        self._actions = decompress((ansible / "raw" / "month=2018-12" / "actions.jsonl.gz").read_bytes()).decode()
        self._paths = {
            "/opt/audience-explorer/venv/bin": str(Path(sys.executable).parent),
            "/opt/audience-explorer/app": str(PROJECT),
            "/etc/audience-explorer": str(folder / "etc"),
            "/var/lib/audience-explorer": str(self.state),
            "/run/audience-explorer": str(folder / "run"),
        }
        for new in (self.state, folder / "etc", folder / "run", self.root / "categories"):
            new.mkdir(parents=True)
        for name, origin in {"coffee": "cloud", "tea": "crypto"}.items():
            category = json.loads((ansible / "categories" / f"{origin}.json").read_text())
            (self.root / "categories" / f"{name}.json").write_text(json.dumps({**category, "name": name}))
        self.settings = folder / "etc" / "environment"
        self.settings.write_text(f"AUDIENCE_EXPLORER_ROOT={self.root}\nPYTHONPATH={PROJECT}\n")

    def bring(self, *months: str) -> None:
        """Let the raw data of months land: real ones, with another date."""
        for month in months:
            actions = re.sub(r"2018-12-(\d\d)", lambda day: f"{month}-{min(int(day[1]), 28):02}", self._actions)  # noqa: B023
            self.raw(month, actions)

    def raw(self, month: str, content: str) -> None:
        """Let a raw file land."""
        file = self.root / "raw" / f"month={month}" / "actions.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def crontab(self, text: str) -> str:
        """A part of the page with the paths of this machine."""
        for path, here in self._paths.items():
            text = text.replace(path, here)
        return text

    def environment(self) -> dict[str, str]:
        """What cron gives a command: little of its own, and the crontab's variables."""
        lines = [line for line in self.crontab(HEAD).splitlines() if not line.startswith("#")]
        variables = dict(line.split("=", 1) for line in lines)
        return {"HOME": str(self.state), "LOGNAME": "audience-explorer", "SHELL": "/bin/sh", **variables}

    def start(self, words: str, **variables: str) -> "subprocess.Popen[str]":
        """Start a recipe's command as cron does, with some of the crontab's variables changed."""
        *_, command = line_of(words).split(maxsplit=5)
        assert not re.search(r"(?<!\\)%", command), "cron takes a bare % for the end of the command"
        return subprocess.Popen(
            ["/bin/sh", "-c", command.replace(r"\%", "%")],
            env={**self.environment(), **variables},
            cwd=self.state,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, words: str, **variables: str) -> tuple[int, str, str]:
        """Run a recipe's command as cron does: exit code, stdout, stderr."""
        return ended(self.start(words, **variables))

    def current(self, month: str, category: str) -> str:
        """The folder with the current clusters."""
        file = self.root / "kmeans" / f"month={month}" / f"category={category}" / "current.json"
        return str(json.loads(file.read_text())["folder"])

    def serves_code(self) -> bool:
        """Whether the code server has loaded the code."""
        with suppress(DagsterUserCodeUnreachableError):
            return bool(DagsterGrpcClient(socket=self.environment()["DAGSTER_GRPC_SOCKET"]).ping(""))
        return False

    def is_locked(self) -> bool:
        """Whether a recipe is at it."""
        lock = self.state / "cron.lock"
        return lock.exists() and subprocess.run(["flock", "-n", lock, "true"], check=False).returncode == 1


SILENT = (0, "", "")
Found = TypeVar("Found")


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """How a command ended: exit code, stdout, stderr."""
    stdout, stderr = process.communicate(timeout=1500)
    return process.returncode, stdout, stderr


def started_by(process: "subprocess.Popen[str]", word: str, place: int = 0) -> list[psutil.Process]:
    """The processes below one that have a word at a place of their command lines: programs are the first."""

    def has_it(below: psutil.Process) -> bool:
        with suppress(psutil.Error):  # it may have ended since it was listed
            return below.cmdline()[place : place + 1] == [word]
        return False

    return list(filter(has_it, psutil.Process(process.pid).children(recursive=True)))


def wait_until(come_about: Callable[[], Found], what: str, seconds: float = 1200) -> Found:
    """Wait for something to come about; what was found then."""
    deadline = time.monotonic() + seconds
    while not (found := come_about()):
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(0.1)
    return found


def needed(*programs: str, root: bool = False) -> None:
    """Leave a story out where what it needs is missing, which CI must have."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        why = f"There is no {', '.join(missing)} (Debian: apt-get install cron moreutils)"
    elif root and os.geteuid():
        why = "Only root can start cron"
    else:
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI must run the stories of cron: {why}")
    pytest.skip(why)


@pytest.fixture
def machine(tmp_path: Path, ansible: Path) -> Machine:
    """A machine on which nothing ran yet."""
    needed("chronic", "flock")
    return Machine(tmp_path, ansible)


@pytest.mark.parametrize("words", [PIPELINE, JOB])
def test_a_month_is_done_once_and_nothing_is_said(machine: Machine, words: str) -> None:
    machine.bring(LAST)
    assert machine.run(words) == SILENT
    first = [machine.current(LAST, category) for category in ("coffee", "tea")]
    assert machine.run(words) == SILENT
    assert [machine.current(LAST, category) for category in ("coffee", "tea")] == first


def test_late_data_of_the_last_three_months_is_computed(machine: Machine) -> None:
    months = last_months(3)
    machine.bring(*months)
    assert machine.run(THREE_MONTHS) == SILENT
    first = {month: machine.current(month, "coffee") for month in months}

    late = {"user_id": "latecomer", "page_id": "cloud/amazon/ec2", "action": "page_like"}
    machine.raw(months[1], (machine.root / f"raw/month={months[1]}/actions.jsonl").read_text() + json.dumps(late))
    assert machine.run(THREE_MONTHS) == SILENT
    assert [month for month in months if machine.current(month, "coffee") != first[month]] == [months[1]]


def test_a_tweak_is_computed_from_what_is_there(machine: Machine) -> None:
    machine.bring(LAST)
    code, _, stderr = machine.run(TWEAK)
    assert code != 0
    assert f"coffee|{LAST}" in stderr, "there is no such partition yet"

    assert machine.run(PIPELINE) == SILENT
    own = machine.current(LAST, "coffee")
    assert machine.run(TWEAK) == SILENT
    (tweak,) = (folder for folder in Path(own).parent.iterdir() if folder.is_dir() and str(folder) != own)
    assert json.loads((tweak / "summary.json").read_text())["k"] == 3
    assert machine.current(LAST, "coffee") == own, "the tweak stands beside it"


@pytest.mark.parametrize("words", [PIPELINE, THREE_MONTHS, JOB])
def test_a_failure_is_told_with_its_reason_and_its_exit_code(machine: Machine, words: str) -> None:
    machine.bring(*last_months(3))
    machine.raw(LAST, '{"user_id": "u1"\n')
    code, stdout, stderr = machine.run(words)
    assert code == 1
    assert stdout.endswith("It ended with exit code 1.\n")
    assert re.search(rf"grouped_users {LAST}|{LAST} +grouped_users", stderr)
    assert "actions.jsonl" in stderr
    assert not machine.is_locked()


def test_without_its_settings_nothing_runs(machine: Machine) -> None:
    machine.settings.unlink()
    for words in (PIPELINE, THREE_MONTHS, JOB, TWEAK, LIVENESS, BACKFILL):
        code, _, stderr = machine.run(words)
        assert code == 2
        assert str(machine.settings) in stderr


def test_who_comes_while_another_is_at_it_leaves_it_to_that_one(machine: Machine) -> None:
    machine.bring(LAST)
    first = machine.start(PIPELINE)
    wait_until(lambda: started_by(first, "timeout"), "it has the lock")
    for words in (PIPELINE, THREE_MONTHS, JOB, TWEAK):
        assert machine.run(words) == SILENT
    assert first.poll() is None, "it was still at it"
    assert not (machine.root / "kmeans").exists()
    assert ended(first) == SILENT
    assert machine.current(LAST, "tea")


def test_what_was_killed_is_told_and_the_next_one_goes_on(machine: Machine) -> None:
    machine.bring(LAST)
    line = machine.start(PIPELINE)
    jobs = wait_until(lambda: started_by(line, "spark_jobs", 2), "jobs run")
    os.kill(jobs[0].ppid(), signal.SIGKILL)
    assert ended(line) == (137, "It ended with exit code 137.\n", "")
    assert psutil.wait_procs(jobs, timeout=120)[1] == [], "jobs end with who launched them"
    assert machine.run(PIPELINE) == SILENT
    assert machine.current(LAST, "tea")


@pytest.mark.parametrize("words", [PIPELINE, JOB])
def test_what_takes_too_long_is_ended_and_told(machine: Machine, words: str) -> None:
    machine.bring(LAST)
    code, stdout, _ = machine.run(words, LIMIT="timeout -k 600 1")
    assert code == 124
    assert stdout.endswith("It ended with exit code 124.\n")
    assert not machine.is_locked()


def test_with_the_daemon_a_backfill_is_a_run_a_month(machine: Machine) -> None:
    months = last_months(3)
    machine.bring(*months)
    for words in (LIVENESS, BACKFILL):
        code, stdout, _ = machine.run(words)
        assert code > 0
        assert stdout.endswith(f"It ended with exit code {code}.\n"), "neither daemon nor code server are there"

    with services(machine):
        wait_until(lambda: machine.run(LIVENESS) == SILENT, "the daemon is alive")
        wait_until(machine.serves_code, "the code server is there")
        assert machine.run(BACKFILL) == SILENT
        with dg.DagsterInstance.from_config(str(machine.state)) as instance:
            wait_until(lambda: all(run.is_finished for run in instance.get_runs()), "the runs are over")
            runs = {run.tags["dagster/partition"]: run for run in instance.get_runs()}
            assert sorted(runs) == months
            assert {(run.job_name, run.status.value) for run in runs.values()} == {(WHOLE_MONTH_JOB, "SUCCESS")}
            assert len(instance.get_runs()) == 3
        assert all(machine.current(month, category) for month in months for category in ("coffee", "tea"))

        (commands,) = (block for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S) if "schedule" in block)
        # systemd's part of audience-explorer-run, user and settings, is this process's.
        script = f"set -ea; . $SETTINGS; {commands.replace('audience-explorer-run ', '')}"
        shell = ["/bin/sh", "-c", script]
        subprocess.run(shell, env=machine.environment(), cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
        with dg.DagsterInstance.from_config(str(machine.state)) as instance:
            running = {state.instigator_name for state in instance.all_instigator_state() if state.is_running}
            assert {"complete_months", "monthly"} <= running


@contextmanager
def services(machine: Machine) -> Iterator[None]:
    """The daemon and the code server, with this process in systemd's place."""
    started = []
    for name in ("code", "daemon"):
        unit = (PROJECT / "deploy" / "systemd" / f"audience-explorer-{name}.service").read_text()
        (command,) = re.findall("^ExecStart=(.*)$", unit, re.M)
        started.append(
            subprocess.Popen(
                ["/bin/sh", "-c", f"set -a; . $SETTINGS; exec {machine.crontab(command)}"],
                env=machine.environment(),
                cwd=PROJECT,
                stdout=(machine.state / f"{name}.log").open("wb"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
    try:
        yield
    finally:
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_the_page_has_the_places_of_the_services() -> None:
    services = (PROJECT / "deploy" / "services.env").read_text()
    # Ports are for who opens a page, which no line of a crontab does.
    places = re.findall(r"^(?:DAGSTER_HOME|DAGSTER_GRPC_SOCKET|AUDIENCE_EXPLORER_(?!\w+_PORT=)\w+)=.*$", services, re.M)
    assert len(places) == 3
    for place in places:
        assert place in HEAD.splitlines()


def test_the_page_is_a_crontab(tmp_path: Path) -> None:
    needed("crontab")
    tab = tmp_path / "crontab"
    tab.write_text("\n".join([HEAD, *RECIPES]))
    done = subprocess.run(["crontab", "-n", tab], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cron_mails_what_failed_and_nothing_else(tmp_path: Path, ansible: Path) -> None:
    needed("cron", "chronic", "unshare", root=True)
    good, bad = Machine(tmp_path / "good", ansible), Machine(tmp_path / "bad", ansible)
    good.bring(LAST)
    every_minute = {words: "* * * * * " + line_of(words).split(maxsplit=5)[5] for words in (JOB, PIPELINE)}
    tab = [good.crontab(HEAD), every_minute[JOB], bad.crontab(HEAD), every_minute[PIPELINE]]

    with cron(tmp_path, "\n".join(tab) + "\n") as (process, mailbox):
        wait_until(lambda: any(mailbox.iterdir()), "a mail")
        # Else commands may take longer than the minute after which the next ones start.
        (tmp_path / "spool" / "root").unlink()
        wait_until(lambda: not process.children(recursive=True), "all commands have ended")

    assert good.current(LAST, "coffee")
    for file in mailbox.iterdir():
        mail = message_from_string(file.read_text())
        assert mail["To"] == "audience@example.com"
        assert "audience-explorer pipeline --quiet" in mail["Subject"]
        body = mail.get_payload()
        assert "There is no raw data" in body
        assert "It ended with exit code 1." in body


@contextmanager
def cron(folder: Path, crontab: str) -> Iterator[tuple[psutil.Process, Path]]:
    """Debian's cron with a crontab of root's, and a mailbox in the place of a mail server; with this machine's own
    crontabs out of its sight."""
    system, spool, mailbox, nothing = (folder / name for name in ("sbin", "spool", "mailbox", "nothing"))
    for new in (system, spool, mailbox, nothing):
        new.mkdir()
    program = shutil.which("cron")
    assert program is not None
    shutil.copy(program, system)
    sendmail = system / "sendmail"
    sendmail.write_text(f"#!/bin/sh\ncat > {shlex.quote(str(mailbox))}/$$\n")
    sendmail.chmod(0o755)
    (spool / "root").write_text(crontab)
    (spool / "root").chmod(0o600)
    script = f"""set -e
        mount --bind {system} /usr/sbin
        mount --bind {spool} /var/spool/cron/crontabs
        mount --bind {nothing} /etc/cron.d
        mount --bind /dev/null /etc/crontab
        mount -t tmpfs none /run
        exec /usr/sbin/cron -f"""
    # In a PID namespace, so that all that cron started ends with it.
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    started = subprocess.Popen([*own, "/bin/sh", "-c", script], text=True)  # it has no ear for SIGTERM
    try:
        wait_until(lambda: started_by(started, "/usr/sbin/cron"), "cron is up")
        (process,) = psutil.Process(started.pid).children()
        yield process, mailbox
    finally:
        started.kill()
        started.wait()
