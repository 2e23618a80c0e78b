"""The boot program and the agent, function by function; tests/test_boot.py runs them as a machine does."""

import hashlib
import io
import json
import os
import signal
import sys
import tarfile
import tempfile
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ami import boot
from spark_jobs.launch import agent, instance
from spark_jobs.launch.agent import Jobs, Machine
from spark_jobs.launch.writer import Log, Messages


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def error(status: int) -> ClientError:
    return ClientError(
        cast(Any, {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}), "GetObject"
    )


# --- the boot program


class Boot:
    """S3 and a clock as the boot program sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        self.waits: list[float] = []
        self.written: dict[str, bytes] = {}
        self.description: dict[str, Any] = {"max_runtime": 600, "code": "s3://b/code", "code_sha256": "digest"}
        self.seconds: list[float] = []  # that the agent was given
        monkeypatch.setattr(boot, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(boot, "client", lambda: None)
        monkeypatch.setattr(boot, "get", self.get)
        monkeypatch.setattr(boot, "put", lambda _, location, body: self.written.update({location: body}))
        monkeypatch.setattr(boot, "unpack", lambda *_: self.sleep(7))
        agent_module = SimpleNamespace(main=lambda _, max_seconds: self.seconds.append(max_seconds))
        monkeypatch.setattr(boot.importlib, "import_module", lambda _: agent_module)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def get(self, _: Any, location: str) -> bytes:
        self.now += 5
        return json.dumps(self.description).encode() if location.endswith("description.json") else b"code"


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> Boot:
    return Boot(monkeypatch)


def test_the_deadline_is_a_time_of_the_machines_own_clock(tmp_path: Path) -> None:
    before = uptime()
    boot.write_deadline(str(tmp_path / "deadline"), 100)
    assert int(before + 100) <= int((tmp_path / "deadline").read_text()) <= int(uptime() + 100)
    assert [file.name for file in tmp_path.iterdir()] == ["deadline"]


def test_the_watchdog_never_reads_half_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deadline"
    file.write_text("5\n")
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    boot.write_deadline(str(file), 100)
    assert file.read_text() == "5\n"


def test_all_that_happens_after_the_boot_counts_towards_max_runtime(booted: Boot, tmp_path: Path) -> None:
    before = uptime()
    boot.main("s3://b/launch", str(tmp_path / "deadline"))
    assert int(before + 595) <= int((tmp_path / "deadline").read_text()) <= int(uptime() + 595)
    assert booted.seconds == [600 - 5 - 5 - 7], "two reads and the unpacking"
    assert booted.written == {}


def test_a_launch_that_cannot_begin_says_so_as_the_agent_would(booted: Boot, tmp_path: Path) -> None:
    booted.description = {}
    boot.main("s3://b/launch", str(tmp_path / "deadline"))
    assert booted.seconds == []
    status = json.loads(booted.written["s3://b/launch/status.json"])
    assert status["error"] == "KeyError: 'max_runtime'"
    assert (status["messages"], status["objects"]) == (0, {"messages": 0, "log": 1})
    assert b"Traceback" in booted.written["s3://b/launch/log/000001.txt"]
    assert list(booted.written)[-1].endswith("status.json"), "last, for nothing is read after it"


def test_a_request_is_repeated_with_growing_waits_until_it_is_answered(booted: Boot) -> None:
    answers: list[Any] = [EndpointConnectionError(endpoint_url="x"), error(503), OSError(), *[error(500)] * 4, "it"]

    def request() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert boot.retry(request) == "it"
    assert booted.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]


def test_what_does_not_exist_is_not_asked_for_again(booted: Boot) -> None:
    def request() -> None:
        raise error(404)

    with pytest.raises(ClientError):
        boot.retry(request)
    assert booted.waits == []


def test_a_refusal_is_borne_for_two_minutes_in_which_new_rights_become_known(booted: Boot) -> None:
    def request() -> None:
        raise error(403)

    with pytest.raises(ClientError):
        boot.retry(request)
    assert 120 < booted.now - 1000 < 130


def packed(**files: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{name}.py")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def test_code_is_unpacked_where_only_its_owner_writes_and_everybody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot.tempfile, "mkdtemp", lambda prefix: str(_made(tmp_path / prefix)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    archive = packed(job=b"x = 1\n")
    boot.unpack(archive, hashlib.sha256(archive).hexdigest())
    assert sys.path[0] == str(tmp_path / "code-")
    assert (tmp_path / "code-").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "code-" / "job.py").read_text() == "x = 1\n"
    assert list(tmp_path.glob("code-/__pycache__/job.*.pyc")), "compiled, for the jobs may not write there"


def test_code_that_does_not_compile_is_left_to_who_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(boot.tempfile, "mkdtemp", lambda prefix: str(_made(tmp_path / prefix)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    archive = packed(job=b"x =\n")
    boot.unpack(archive, hashlib.sha256(archive).hexdigest())
    assert capfd.readouterr() == ("", "")


def test_code_of_another_digest_is_not_even_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot.tempfile, "mkdtemp", None)
    with pytest.raises(ValueError, match="not the one that the launch was made with"):
        boot.unpack(packed(job=b""), "0" * 64)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


# --- the agent on an instance


class Spot:
    """The metadata service, and what the watcher did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.notice: str | Exception | None = None
        self.asked: list[str] = []
        self.machine: Machine
        self.stopped = 0
        monkeypatch.setattr(instance, "Metadata", lambda: SimpleNamespace(get=self.get))
        monkeypatch.setattr(instance, "client", lambda *_: None)
        monkeypatch.setattr(instance, "run_launch", lambda _, machine: setattr(self, "machine", machine))

    def get(self, path: str) -> str | None:
        if path == "meta-data/spot/instance-action":
            self.asked.append(path)
            if isinstance(self.notice, Exception):
                raise self.notice
            return self.notice
        return None

    def start_no_more(self) -> None:
        self.stopped += 1


@pytest.fixture
def spot(monkeypatch: pytest.MonkeyPatch) -> Spot:
    return Spot(monkeypatch)


def test_the_spot_watcher_goes_on_until_there_is_a_notice(spot: Spot) -> None:
    instance.main("s3://b/launch", 600)
    messages = Messages()
    jobs = cast(Jobs, spot)
    assert spot.machine.watch_seconds <= 5, "AWS recommends to ask every five seconds"
    assert not spot.machine.watch(jobs, messages, Log())
    spot.notice = OSError("the metadata service does not answer")
    assert not spot.machine.watch(jobs, messages, Log())
    assert (spot.stopped, messages.take()) == (0, b"")
    spot.notice = '{"action": "terminate", "time": "soon"}'
    assert spot.machine.watch(jobs, messages, Log())
    told = json.loads(messages.take())
    assert (told["boot"], told["notice"]["time"], spot.stopped) == ("spot_notice", "soon", 1)


@pytest.mark.parametrize(("machine", "jobs"), [(600, 540), (3600, 3540), (100, 90), (10, 9)])
def test_jobs_are_ended_before_their_machine_is(spot: Spot, machine: float, jobs: float) -> None:
    instance.main("s3://b/launch", machine)
    assert spot.machine.max_seconds == jobs


def test_jobs_write_to_the_scratch_folder_if_there_is_one(
    spot: Spot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_SCRATCH", str(tmp_path))
    instance.main("s3://b/launch", 600)
    assert spot.machine.scratch == str(tmp_path)
    monkeypatch.setenv("AUDIENCE_EXPLORER_SCRATCH", str(tmp_path / "missing"))
    instance.main("s3://b/launch", 600)
    assert spot.machine.scratch == "/var/tmp", "not in memory, where /tmp may be"


@pytest.mark.parametrize(("euid", "named", "user"), [(0, None, "explorer"), (0, "root", None), (1000, None, None)])
def test_root_gives_jobs_to_a_user_without_rights(
    spot: Spot, monkeypatch: pytest.MonkeyPatch, euid: int, named: str | None, user: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    if named:
        monkeypatch.setenv("AUDIENCE_EXPLORER_USER", named)
    else:
        monkeypatch.delenv("AUDIENCE_EXPLORER_USER", raising=False)
    instance.main("s3://b/launch", 600)
    assert spot.machine.user == user


def test_the_metadata_service_is_asked_with_a_token_which_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []
    expired = [True]

    def request(_: Any, method: str, path: str, headers: dict[str, str]) -> str:
        asked.append((method, path, headers.get("X-aws-ec2-metadata-token", "")))
        if method == "PUT":
            return f"token {len(asked)}"
        if expired.pop() if expired else False:
            raise urllib.error.HTTPError("", 401, "expired", cast(Any, {}), None)
        if path == "nothing":
            raise urllib.error.HTTPError("", 404, "not found", cast(Any, {}), None)
        return "it"

    monkeypatch.setattr(instance.Metadata, "_request", request)
    monkeypatch.setattr(instance, "time", SimpleNamespace(sleep=lambda _: None))
    metadata = instance.Metadata()
    assert metadata.get("path") == "it"
    assert metadata.get("nothing") is None
    assert [(method, token) for method, _, token in asked] == [
        ("PUT", ""),
        ("GET", "token 1"),
        ("PUT", ""),
        ("GET", "token 3"),
        ("GET", "token 3"),
    ]


# --- the jobs' processes


def jobs_running(work: Path, program: str, user: str | None = None) -> Jobs:
    """Jobs whose process runs a program of the test's in place of spark_jobs."""
    (work / "spark_jobs").mkdir(parents=True)
    (work / "spark_jobs" / "__init__.py").touch()
    (work / "spark_jobs" / "__main__.py").write_text(program)
    return Jobs(work, {}, user, Messages(), Log())


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


START_A_SLEEPER = """
import pathlib, subprocess, sys
started = subprocess.Popen(["sleep", "1000"], start_new_session={session}, stdout=subprocess.DEVNULL)
pathlib.Path("sleeper").write_text(str(started.pid))
"""


def test_processes_that_jobs_leave_are_ended_with_them(tmp_path: Path) -> None:
    jobs = jobs_running(tmp_path / "work", START_A_SLEEPER.format(session=False))
    status = jobs.wait(240)
    sleeper = int((tmp_path / "work" / "sleeper").read_text())
    assert (status.exit_code, status.overdue) == (0, False)
    wait_for(lambda: not is_alive(sleeper))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of other users")
def test_processes_that_left_the_jobs_group_are_ended_by_their_user(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_else = SimpleNamespace(pw_uid=2_000_123_456, pw_gid=2_000_123_456)
    monkeypatch.setattr(agent.pwd, "getpwnam", lambda _: nobody_else)
    # Other users may enter neither pytest's own folders nor, mostly, a virtual environment's.
    system = Path("/usr/bin/python3")
    monkeypatch.setattr(sys, "executable", str(system) if system.exists() else os.path.realpath(sys.executable))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        try:
            jobs = jobs_running(Path(folder, "work"), START_A_SLEEPER.format(session=True), user="explorer")
        except PermissionError:
            pytest.skip(f"other users may not run {sys.executable}")
        status = jobs.wait(240)
        assert status.exit_code == 0
        sleeper = int(Path(folder, "work", "sleeper").read_text())
        wait_for(lambda: not is_alive(sleeper))


def test_a_process_that_does_not_end_in_time_is_killed_and_is_overdue(tmp_path: Path) -> None:
    jobs = jobs_running(tmp_path / "work", "import time; time.sleep(1000)")
    status = jobs.wait(0.2)
    assert (status.exit_code, status.overdue) == (-signal.SIGKILL, True)


def test_jobs_keep_what_they_write_in_between_in_their_own_folder(tmp_path: Path) -> None:
    environment = agent._environment(tmp_path / "work", tmp_path / "context", tmp_path / "messages")
    for name in ("HOME", "TMPDIR", "SPARK_LOCAL_DIRS"):
        assert environment[name] == str(tmp_path / "work")


def test_the_work_folder_is_on_scratch_and_is_gone_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works: list[Path] = []

    class Started:
        def __init__(self, work: Path, *_: Any) -> None:
            works.append(work)
            (work / "file").touch()

        def wait(self, seconds: float) -> float:
            return seconds

    monkeypatch.setattr(agent, "Jobs", Started)
    machine = Machine(watch=lambda *_: True, watch_seconds=100, scratch=str(tmp_path), max_seconds=50)
    description = {"context": {}, "max_runtime": "40"}
    waited: Any = agent._run_jobs(description, machine, Messages(), Log(), time.monotonic())
    assert waited == 40, "the shorter of both limits"
    assert works[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == []
