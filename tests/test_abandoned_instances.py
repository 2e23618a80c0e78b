"""The sensor that ends instances for which nobody waits: it says so one look before it does it."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from botocore.exceptions import ClientError

from ami import instances
from ami.instances import Instance
from audience_explorer_dagster.automation import abandoned_instances
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher
from spark_jobs.launch.lease import LEASE_SECONDS


class Account:
    """Instances of two runs: one is over, one goes on."""

    def __init__(self, dagster: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
        self.dagster = dagster
        self.cursor: str | None = None
        self.terminated: list[str] = []
        self.age: Any = 1.0  # of the lease of the run that goes on, in seconds

        @dg.job
        def nothing() -> None: ...

        over = nothing.execute_in_process(instance=dagster).run_id
        goes_on = dagster.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED).run_id
        self.found = [instance("i-over", over), instance("i-goes-on", goes_on), instance("i-elsewhere", "unknown")]
        monkeypatch.setattr(EC2StepLauncher, "ec2", None)
        folder = SimpleNamespace(lease_age=self.lease_age)
        monkeypatch.setattr(EC2StepLauncher, "launch_store", SimpleNamespace(folder=lambda _: folder))
        monkeypatch.setattr(instances, "find", lambda *_: self.found)
        monkeypatch.setattr(instances, "terminate", lambda _, ended: self.terminated.extend(ended))

    def lease_age(self) -> float:
        if isinstance(self.age, Exception):
            raise self.age
        return float(self.age)

    def look(self) -> str:
        launcher = EC2StepLauncher(launches="s3://bucket/launches", instance_profile="p")
        context = dg.build_sensor_context(self.dagster, cursor=self.cursor, resources={"launcher": launcher})
        skipped = abandoned_instances(context)
        self.cursor = context.cursor
        assert isinstance(skipped, dg.SkipReason)
        return str(skipped.skip_message)


def instance(name: str, run: str) -> Instance:
    tags = {"launch": "l", "pipeline": "p", "run": run, "label": "2024-01"}
    return Instance(name, "t", "z", "spot", "running", datetime.now(timezone.utc), tags)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with dg.DagsterInstance.ephemeral() as dagster:
        yield Account(dagster, monkeypatch)


def test_an_instance_whose_run_is_over_is_announced_and_then_ended(account: Account) -> None:
    assert "i-over will be ended the next time: its run" in account.look()
    assert account.terminated == []
    assert "i-over is ended: its run" in account.look()
    assert account.terminated == ["i-over"], "neither one of a run that goes on, nor one of another deployment"


def test_an_instance_is_spared_that_was_announced_and_is_waited_for_again(account: Account) -> None:
    account.found = account.found[1:]
    account.age = LEASE_SECONDS + 1
    assert "i-goes-on will be ended the next time: nobody has waited for it" in account.look()
    account.age = 1
    assert account.look() == "No instance is abandoned."
    assert json.loads(account.cursor or "") == []
    assert account.terminated == []


def test_an_instance_of_which_nothing_can_be_told_keeps_no_other_from_being_ended(account: Account) -> None:
    account.age = ClientError({"Error": {"Code": "SlowDown"}}, "HeadObject")
    account.look()
    assert "whether i-goes-on is abandoned can't be told" in account.look()
    assert account.terminated == ["i-over"]
