"""How long somebody waits for a launch, and how a launch says that it ended."""

import json
import threading

import pytest

from spark_jobs.launch import lease
from spark_jobs.launch.folder import Folder
from spark_jobs.launch.status import Status


class Leased(Folder):
    """A folder of which only the lease is asked, and that fails where it is told to."""

    def __init__(self, *failing: int, enough: int = 1):
        self.location = "memory://launch"
        self.renewals = 0
        self.renewed_enough = threading.Event()
        self._failing, self._enough = failing, enough

    def put(self, name: str, body: bytes) -> None:
        assert (name, body) == ("lease", b"")
        self.renewals += 1
        if self.renewals >= self._enough:
            self.renewed_enough.set()
        if self.renewals in self._failing:
            raise OSError(f"renewal {self.renewals} failed")

    def get(self, name: str) -> bytes | None:
        raise AssertionError(name)

    def age(self, name: str) -> float | None:
        raise AssertionError(name)


@pytest.mark.parametrize(
    ("age", "valid"), [(None, False), (0.0, True), (299.9, True), (300.0, False), (300.1, False), (1e9, False)]
)
def test_somebody_waits_for_a_launch_whose_lease_was_renewed_less_than_five_minutes_ago(
    age: float | None, valid: bool
) -> None:
    assert lease.is_valid(age) is valid


def test_a_lease_outlasts_several_renewals_that_fail() -> None:
    assert 0 < lease.RENEW_SECONDS <= lease.LEASE_SECONDS / 10


def test_a_lease_is_renewed_at_once_and_no_more_when_nobody_waits() -> None:
    folder = Leased()
    before = set(threading.enumerate())
    with lease.renewed(folder):
        (renewing,) = set(threading.enumerate()) - before
        assert (renewing.name, renewing.daemon) == ("lease", True), "it keeps no process alive"
        assert folder.renewals == 1
    renewing.join(120)
    assert not renewing.is_alive()
    assert folder.renewals == 1


def test_a_renewal_that_fails_is_reported_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.001)
    folder = Leased(2, enough=3)
    with lease.renewed(folder):
        assert folder.renewed_enough.wait(120)
    assert "the launch's lease was not renewed, and will be tried again: renewal 2 failed\n" in capsys.readouterr().err


def test_the_lease_ends_with_what_fails_meanwhile() -> None:
    folder = Leased()
    before = set(threading.enumerate())
    renewing: list[threading.Thread] = []

    def fail() -> None:
        with lease.renewed(folder):
            renewing.extend(set(threading.enumerate()) - before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    renewing[0].join(120)
    assert not renewing[0].is_alive()


# --- the status


def test_a_status_that_says_nothing_is_that_of_jobs_that_were_not_started() -> None:
    status = Status.parse(b"{}")
    assert status == Status()
    assert (status.exit_code, status.error) == (None, None)
    assert (status.overdue, status.out_of_memory) == (False, False)
    assert (status.messages, status.objects, status.seconds) == (0, {}, 0.0)


def test_a_status_has_all_its_facts_and_its_schema_version_a_line_each() -> None:
    text = Status(exit_code=137, overdue=True, out_of_memory=True, error="no", messages=2, seconds=3.5).as_json()
    assert json.loads(text) == {
        "schema_version": 1,
        "exit_code": 137,
        "overdue": True,
        "out_of_memory": True,
        "error": "no",
        "messages": 2,
        "objects": {},
        "seconds": 3.5,
    }
    assert len(text.splitlines()) == 10, "for people"
    assert Status.parse(text) == Status(137, True, True, "no", 2, {}, 3.5)
