"""Reporting: a long step says how it gets on, and not too often."""

import time
from collections.abc import Callable

import click
import pytest

from spark_jobs import reporting
from spark_jobs.errors import InputError, S3Error
from spark_jobs.reporting import Reporter, heartbeat, run_as_command


class Listener(Reporter):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def progress(self, message: str) -> None:
        self._said = time.monotonic()
        self.heard.append(message)


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_a_long_step_tells_its_progress_when_it_changes() -> None:
    listener, done = Listener(), [1]
    with heartbeat(listener, lambda: f"{done[0]} of 2", seconds=0.02):
        for done[0] in (1, 2):
            wait_for(lambda: f"{done[0]} of 2" in listener.heard)
            time.sleep(0.1)  # several beats, in which nothing changes
    assert listener.heard == ["1 of 2", "2 of 2"]


@pytest.mark.parametrize("error", [OSError, S3Error])
def test_progress_that_cannot_be_had_ends_nothing(error: type[Exception]) -> None:
    def fail() -> str:
        raise error("no such folder")

    listener = Listener()
    with heartbeat(listener, fail, seconds=0.02):
        wait_for(lambda: bool(listener.heard))
        time.sleep(0.1)  # several beats, which fail likewise
    assert listener.heard == ["no progress to report: no such folder"]


def test_details_that_come_often_are_left_out() -> None:
    listener = Listener()
    for number in range(5):
        listener.detail(str(number))
    assert listener.heard == []
    listener._said -= reporting._QUIET + 1
    listener.detail("later")
    assert listener.heard == ["later"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("There is no raw data."), "Error: There is no raw data.\n"),
        (S3Error("There is no bucket audience."), "Error: There is no bucket audience.\n"),
    ],
)
def test_a_job_from_a_terminal_tells_input_and_s3_that_fail_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    @click.command()
    def job() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["job"])
    with pytest.raises(SystemExit, match="1"):
        run_as_command(job)
    assert capsys.readouterr().err == line


def test_a_defect_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def job() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sys.argv", ["job"])
    with pytest.raises(ZeroDivisionError):
        run_as_command(job)
