"""The agent, without a process and without S3: how it starts jobs, how they ended, and what it writes of that."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    decode_param,
)

from spark_jobs.launch import agent
from spark_jobs.launch.agent import Jobs, Machine, run_launch
from spark_jobs.launch.status import Status
from spark_jobs.launch.writer import Log, Messages
from tests.test_launch_protocol import LossyFolder

PID = 4321


class Process:
    """Stands for the process of the jobs: it has printed a line, and ends with a code or is overdue."""

    def __init__(self, output: int, code: int | None):
        self.pid, self.stdout, self._code = PID, os.fdopen(output, "rb"), code
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> int:
        self.waits.append(timeout)
        if timeout is not None and self._code is None:
            raise subprocess.TimeoutExpired("jobs", timeout)
        return -signal.SIGKILL if self._code is None else self._code


class Started:
    """Jobs of which only the process is made up, and what was done to it."""

    def __init__(self, work: Path, monkeypatch: pytest.MonkeyPatch):
        self.work, self.command, self.options = work, list[str](), dict[str, Any]()
        self.code: int | None = 0
        self.killed: list[tuple[int, int]] = []
        self.first_to_end: list[int] = []
        self.oom_kills = [3, 3]  # before and after
        self.log, self.process, self.made = Log(), None, list[Jobs]()
        monkeypatch.setattr(agent.subprocess, "Popen", self._popen)
        monkeypatch.setattr(agent.os, "killpg", lambda *of: self.killed.append(of))
        monkeypatch.setattr(agent, "_end_first", self.first_to_end.append)
        monkeypatch.setattr(agent, "_oom_kills", lambda: self.oom_kills.pop(0))

    def _popen(self, command: list[str], **options: Any) -> Process:
        self.command, self.options = command, options
        output, printed = os.pipe()
        os.write(printed, b"a line\n")
        os.close(printed)
        self.process = Process(output, self.code)
        return self.process

    def jobs(self, user: str | None = None) -> Jobs:
        self.made.append(Jobs(self.work, {"run_id": "r"}, user, Messages(), self.log))
        return self.made[-1]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    made = Started(tmp_path, monkeypatch)
    yield made
    for jobs in made.made:
        jobs._reader.join()
        jobs._process.stdout.close()


def test_jobs_get_a_session_of_their_own_nothing_to_read_and_one_pipe_for_all_they_print(started: Started) -> None:
    jobs = started.jobs()
    work = started.work
    assert started.command == [sys.executable, "-m", "spark_jobs", "--stop-file", str(work / "stop")]
    assert started.options == {
        **{"cwd": work, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        **{"start_new_session": True},
        "env": agent._environment(work, work / "context.json", work / "messages.jsonl"),
    }
    assert (work / "context.json").read_text() == '{"run_id": "r"}'
    assert started.first_to_end == [PID]
    assert jobs._reader.daemon, "it keeps no process alive"
    jobs._reader.join()
    assert started.log.take() == b"a line\n", "what they print is in the log"


def test_the_job_that_runs_is_let_go_on_and_none_begins_after_it(started: Started) -> None:
    jobs = started.jobs()
    assert not (started.work / "stop").exists()
    jobs.start_no_more()
    assert (started.work / "stop").exists()
    assert started.killed == []


def test_what_is_left_of_jobs_that_ended_is_ended(started: Started) -> None:
    started.code = 3
    assert started.jobs().wait(5) == Status(exit_code=3, overdue=False, out_of_memory=False)
    assert started.killed == [(PID, signal.SIGKILL)]


def test_jobs_that_take_too_long_are_ended_and_overdue(started: Started) -> None:
    started.code = None
    jobs = started.jobs()
    assert jobs.wait(-2) == Status(exit_code=-signal.SIGKILL, overdue=True, out_of_memory=False)
    process: Any = started.process
    assert process.waits == [0, None], "that no time is left is not an error"
    assert started.killed == [(PID, signal.SIGKILL)]


@pytest.mark.parametrize(("after", "out_of_memory"), [(3, False), (4, True)])
def test_jobs_ran_out_of_memory_if_the_kernel_ended_a_process_meanwhile(
    started: Started, after: int, out_of_memory: bool
) -> None:
    started.oom_kills = [3, after]
    assert started.jobs().wait(5).out_of_memory is out_of_memory


def test_a_process_that_keeps_the_pipe_open_is_not_waited_for_for_ever(started: Started) -> None:
    jobs = started.jobs()
    jobs._reader.join()
    waited: list[float | None] = []
    reader, jobs._reader = jobs._reader, SimpleNamespace(join=lambda timeout=None: waited.append(timeout))
    jobs.kill()
    jobs._reader = reader
    assert waited == [5]


def test_a_process_that_has_ended_already_is_no_error(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(agent.os, "killpg", gone)
    assert started.jobs().wait(5).exit_code == 0


def test_jobs_of_a_user_own_their_folder_and_have_no_other_group(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(agent.pwd, "getpwnam", lambda name: {"explorer": SimpleNamespace(pw_uid=7, pw_gid=8)}[name])
    monkeypatch.setattr(agent.os, "chown", lambda path, user, group: owners.update({str(path): (user, group)}))
    jobs = started.jobs("explorer")
    work = started.work
    given = {name: started.options[name] for name in ("user", "group", "extra_groups")}
    assert given == {"user": 7, "group": 8, "extra_groups": []}
    assert owners == dict.fromkeys(map(str, (work, work / "context.json", *work.glob("messages*"))), (7, 8))
    monkeypatch.setattr(agent.Path, "glob", lambda *_: [])  # of /proc: who is there is none of this test's business
    jobs.wait(5)


# --- what a machine has


class Files:
    """In place of `Path`: the text of each file."""

    def __init__(self, **texts: str):
        self.texts = texts
        self.written: dict[str, str] = {}

    def __call__(self, path: str) -> Any:
        def write(text: str, **_: str) -> None:
            if path == "/proc/1/oom_score_adj":
                raise ProcessLookupError
            self.written[path] = text

        name = path.rpartition("/")[2]
        return SimpleNamespace(read_text=lambda **_: self.texts[name], write_text=write)


@pytest.mark.parametrize(
    ("text", "kills"), [("nr_free_pages 5\noom_kill 12\noom_kill_more 9\n", 12), ("nr_free_pages 5\n", 0), ("", 0)]
)
def test_the_kernel_counts_what_it_ended_for_its_memory(monkeypatch: pytest.MonkeyPatch, text: str, kills: int) -> None:
    monkeypatch.setattr(agent, "Path", Files(vmstat=text))
    assert agent._oom_kills() == kills


def test_the_kernel_ends_jobs_first_and_where_it_takes_no_wish_they_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Files()
    monkeypatch.setattr(agent, "Path", files)
    agent._end_first(PID)
    agent._end_first(1)
    assert files.written == {f"/proc/{PID}/oom_score_adj": "500\n"}


@pytest.mark.parametrize("packages", [None, "/archive"])
def test_jobs_know_where_their_code_context_and_messages_are_and_how_much_memory_spark_may_take(
    monkeypatch: pytest.MonkeyPatch, packages: str | None
) -> None:
    monkeypatch.setattr(agent.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1 << 20}.__getitem__)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("KEPT", "yes")
    if packages:
        monkeypatch.setenv("PYTHONPATH", packages)
    found = agent._environment(Path("/work"), Path("/work/context"), Path("/work/messages"))
    assert agent._memory_bytes() == 4 << 30
    assert found["SPARK_DRIVER_MEMORY"] == "2867m", "seven tenths of 4 GiB"
    code = str(Path(agent.__file__).parents[2])
    assert found["PYTHONPATH"] == (code if packages is None else f"{code}:/archive")
    assert (found["PYTHONUNBUFFERED"], found["KEPT"]) == ("1", "yes")
    assert decode_param(found[DAGSTER_PIPES_CONTEXT_ENV_VAR]) == {"path": "/work/context"}
    assert decode_param(found[DAGSTER_PIPES_MESSAGES_ENV_VAR]) == {"path": "/work/messages"}


# --- what a machine watches


def test_a_machine_is_watched_until_there_is_nothing_more_to_watch_for() -> None:
    answers, done = [False, False, True], threading.Event()

    def watch() -> bool:
        answer = answers.pop(0)
        if answer:
            done.set()
        return answer

    before = set(threading.enumerate())
    with agent._watched(watch, 0):
        watching = set(threading.enumerate()) - before
        assert done.wait(30)
    for thread in watching:  # one, if it has not ended by now
        thread.join()
    assert answers == [], "and not once more"


def test_watching_ends_with_the_jobs_also_with_those_that_fail() -> None:
    def watch() -> bool:
        raise AssertionError("it is not time yet")

    def jobs() -> None:
        found.extend(set(threading.enumerate()) - before)
        raise KeyError

    before, found = set(threading.enumerate()), list[threading.Thread]()
    with pytest.raises(KeyError), agent._watched(watch, 1000):
        jobs()
    (watching,) = found
    assert (watching.name, watching.daemon) == ("watch", True), "it keeps no process alive"
    watching.join(30)
    assert not watching.is_alive()


# --- what it writes of a launch


class Ends:
    """In place of `Jobs`: how they end, once they have printed and reported."""

    ended: Status | Exception = Status(exit_code=0)

    def __init__(self, _work: Path, _context: dict[str, Any], _user: str | None, _messages: Messages, log: Log):
        log.add(b"printed\n")

    def wait(self, _seconds: float) -> Status:
        if isinstance(self.ended, Exception):
            raise self.ended
        return self.ended


def launched(monkeypatch: pytest.MonkeyPatch, ended: Status | Exception, refused: str = "") -> tuple[Status, Any]:
    """A launch whose jobs end like this, on a clock that goes on by a second each time it is read."""
    clock = iter(range(100, 200))
    monkeypatch.setattr(agent, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(agent, "Jobs", Ends)
    monkeypatch.setattr(Ends, "ended", ended)
    folder: Any = LossyFolder()
    folder.refuses |= {refused}
    folder.end = lambda status: folder.put("status.json", status.as_json())
    folder.describe({"max_runtime": 60, "context": {"c": 1}})
    return run_launch(folder, Machine(lambda *_: True, 1000, facts={"instance": "i-1"}, user="u")), folder


def boot_messages(folder: LossyFolder) -> list[dict[str, Any]]:
    lines = b"".join(body for name, body in sorted(folder.objects.items()) if name.startswith("messages/"))
    return [json.loads(line) for line in lines.splitlines()]


def test_the_status_counts_what_was_written_and_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    status, folder = launched(monkeypatch, Status(exit_code=3, overdue=True, out_of_memory=True))
    assert (status.exit_code, status.overdue, status.out_of_memory, status.error) == (3, True, True, None)
    said = boot_messages(folder)
    assert [message["boot"] for message in said] == ["started", "jobs", "ended"]
    assert (said[0]["instance"], said[1]["boot_seconds"], said[2]["exit_code"]) == ("i-1", 1, 3)
    assert status.messages == 3
    for stream in ("messages", "log"):
        assert status.objects[stream] == sum(name.startswith(f"{stream}/") for name in folder.objects)
    assert status.seconds == 2
    assert folder.writes[-1] == "status.json"
    assert Status.parse(folder.objects["status.json"]) == status
    assert folder.objects["log/000001.txt"] == b"printed\n"


def test_jobs_that_could_not_be_run_are_an_error_whose_trace_is_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    status, folder = launched(monkeypatch, ValueError("no"))
    assert (status.error, status.exit_code) == ("ValueError: no", None)
    assert boot_messages(folder)[-1]["error"] == "ValueError: no"
    log = b"".join(body for name, body in sorted(folder.objects.items()) if name.startswith("log/"))
    assert log.startswith(b"printed\nTraceback")


def test_a_stream_that_could_not_be_stored_is_an_error_and_the_other_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    status, folder = launched(monkeypatch, Status(exit_code=0), refused="log/000001.txt")
    assert status.exit_code == 0
    assert str(status.error).startswith("the log could not all be stored: ")
    assert [message["boot"] for message in boot_messages(folder)] == ["started", "jobs", "ended"]
    assert "status.json" in folder.objects
