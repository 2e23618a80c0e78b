"""What the EC2 launcher does with one launch after another: which jobs, options and costs the next one takes over."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
from botocore.exceptions import ClientError

from ami import instances
from ami.images import Image
from ami.instances import Instance
from audience_explorer_dagster.launchers import Job, Report
from audience_explorer_dagster.launchers.ec2 import code, launcher
from audience_explorer_dagster.launchers.ec2.errors import (
    BootFailed,
    EC2LaunchFailed,
    JobFailed,
    NoCapacity,
    Overdue,
    Refused,
    SpotInterrupted,
)
from audience_explorer_dagster.launchers.ec2.launcher import EC2StepLauncher, LostCosts
from audience_explorer_dagster.launchers.launch_store import LaunchTags
from spark_jobs.launch.lease import LEASE_SECONDS
from tests.jobs import kmeans_job

LOST = SpotInterrupted("taken back", launch="l", instance="i-1")


def job(name: str, *needs: str) -> Job:
    made = kmeans_job(name)
    return Job(made.id, made.targets, made.config, needs)


def output(name: str, folder: str = "") -> Report:
    return Report(name, "output", folder=folder or f"of {name}", launch={"estimated_dollars": 1.0})


def done(name: str) -> Report:
    return Report(name, "done")


class Launches:
    """Launches of which each does what the test wrote down for it, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.scripts: list[list[Report | Exception]] = []
        self.asked: list[tuple[list[str], list[str]]] = []  # the jobs of each launch, and its options
        self.waited = 0  # for instances that were lost, until they were gone
        self.dollars: float | None = 0.5  # what each that was lost had cost
        self.warnings: list[str] = []
        self.terminated: list[str] = []
        self.found: dict[str, list[Instance]] = {}  # by the run they are looked for by; "" for all
        self.lease_age: Callable[[], float | None] = lambda: None
        self.image = Image("ami-1", "audience-explorer-2026-01-01", {}, "/dev/xvda")

        launches = self

        class Launch:
            def __init__(self, *_: Any) -> None: ...

            def run(self, _image: Any, _code: str, options: Sequence[str], jobs: Sequence[Job]) -> Iterator[Report]:
                launches.asked.append(([job.id for job in jobs], list(options)))
                for step in launches.scripts.pop(0):
                    if isinstance(step, Exception):
                        raise step
                    yield step

            def options_after(self, options: list[str]) -> list[str]:
                return [*options[1:], *options[:1]]

            def uncounted_dollars(self) -> float | None:
                return launches.dollars

            def wait_until_gone(self) -> None:
                launches.waited += 1

        folder = SimpleNamespace(lease_age=self._lease_age)
        store = SimpleNamespace(folder=lambda _: folder, keep_code=lambda *_: "s3://b/code")
        monkeypatch.setattr(EC2StepLauncher, "launch_store", store)
        monkeypatch.setattr(EC2StepLauncher, "ec2", None)
        monkeypatch.setattr(launcher, "Launch", Launch)
        monkeypatch.setattr(launcher, "find_image", lambda *_: self.image)
        monkeypatch.setattr(launcher, "check_fit", lambda *_: None)
        monkeypatch.setattr(launcher, "dead_ends", lambda *_: {})
        monkeypatch.setattr(launcher, "launch_options", lambda *_: ["first", "second"])
        monkeypatch.setattr(launcher, "new_launch_tags", lambda _: None)
        monkeypatch.setattr(code, "pack", lambda: ("digest", b""))
        monkeypatch.setattr(instances, "find", lambda _, tags=None: self.found.get((tags or {}).get("run", ""), []))
        monkeypatch.setattr(instances, "terminate", lambda _, ended: self.terminated.extend(ended))

    def _lease_age(self) -> float | None:
        return self.lease_age()

    def run(self, *jobs: Job, retries: int = 3, tags: dict[str, str] | None = None) -> list[Report]:
        log = SimpleNamespace(warning=self.warnings.append, info=lambda _: None)
        context = cast(
            dg.OpExecutionContext, SimpleNamespace(log=log, run=SimpleNamespace(run_id="r", tags=tags or {}))
        )
        settings = EC2StepLauncher(launches="s3://b", instance_profile="p", retries=retries)
        return list(settings.launch(context, jobs))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    return Launches(monkeypatch)


def test_an_instance_that_is_lost_is_replaced_by_one_that_goes_on_elsewhere(launches: Launches) -> None:
    launches.scripts = [[output("a"), done("a"), LOST], [output("b"), done("b")]]
    reports = launches.run(job("a"), job("b"))
    assert [(of.job, of.event) for of in reports] == [("a", "output"), ("a", "done"), ("b", "output"), ("b", "done")]
    assert launches.asked == [(["a", "b"], ["first", "second"]), (["b"], ["second", "first"])]
    assert launches.waited == 1, "the lost instance might write still"
    assert launches.warnings == [f"{LOST}. Launched again: 1 of 2 jobs are left"]


def test_a_launch_from_an_old_image_warns_and_says_how_to_build_a_new_one(launches: Launches) -> None:
    made = datetime.now(timezone.utc) - timedelta(days=100, hours=1)
    launches.image = replace(launches.image, created=made.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    launches.scripts = [[output("a"), done("a")]]
    launches.run(job("a"))
    assert launches.warnings == [
        "Image audience-explorer-2026-01-01 (ami-1) is 100 days old, and has had no security updates since."
        " Build a new one: python -m ami build"
    ]


def test_a_job_that_failed_is_not_done_again_nor_what_needs_it(launches: Launches) -> None:
    failed = Report("a", "failed", error="bad input")
    launches.scripts = [[failed, LOST], [output("c"), done("c")]]
    reports = launches.run(job("a"), job("b", "a"), job("c"))
    assert [jobs for jobs, _ in launches.asked] == [["a", "b", "c"], ["c"]]
    assert [(of.job, of.event, of.error) for of in reports[:2]] == [
        ("a", "failed", "bad input"),
        ("b", "failed", "not run, because a failed"),
    ]


def test_nothing_is_launched_again_when_all_that_is_left_needs_what_failed(launches: Launches) -> None:
    launches.scripts = [[Report("a", "failed", error="bad input"), LOST]]
    reports = launches.run(job("a"), job("b", "a"), job("c", "b"))
    assert [of.job for of in reports] == ["a", "b", "c"]
    assert len(launches.asked) == 1


def test_an_output_that_two_instances_report_is_reported_once(launches: Launches) -> None:
    launches.scripts = [[output("a", "first"), LOST], [output("a", "first"), output("a", "second"), done("a")]]
    assert [of.folder for of in launches.run(job("a"))] == ["first", "second", ""]


def test_a_loss_after_the_last_job_ended_is_the_end(launches: Launches) -> None:
    launches.scripts = [[done("a"), LOST]]
    with pytest.raises(SpotInterrupted):
        launches.run(job("a"))
    assert len(launches.asked) == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_it_is_given_up_after_so_many_retries(launches: Launches, retries: int) -> None:
    launches.scripts = [[BootFailed("no sign of life", instance=f"i-{number}")] for number in range(9)]
    with pytest.raises(BootFailed, match=f"i-{retries}"):
        launches.run(job("a"), retries=retries)
    assert len(launches.asked) == 1 + retries


@pytest.mark.parametrize(
    "error",
    [
        NoCapacity("nobody has one"),
        Overdue("too long", instance="i-1"),
        JobFailed("crashed", instance="i-1"),
        Refused("no right", instance="i-1"),
    ],
)
def test_what_another_instance_would_not_mend_is_an_error_at_once(launches: Launches, error: EC2LaunchFailed) -> None:
    launches.scripts = [[error]]
    with pytest.raises(type(error)):
        launches.run(job("a"))
    assert len(launches.asked) == 1


def test_capacity_that_was_lost_after_the_launch_is_asked_for_elsewhere(launches: Launches) -> None:
    launches.scripts = [[NoCapacity("after all", instance="i-1")], [done("a")]]
    assert [of.event for of in launches.run(job("a"))] == ["done"]


# --- costs of what was lost


def test_what_lost_instances_cost_is_on_the_next_output_and_on_no_other(launches: Launches) -> None:
    launches.scripts = [[output("a"), LOST], [LOST], [output("b"), output("c"), done("a")]]
    a, b, c, _ = (of.launch for of in launches.run(job("a")))
    assert a == c == {"estimated_dollars": 1.0}
    assert b == {"estimated_dollars": 1.0, "lost_instances": 2, "lost_dollars": 1.0}


def test_an_instance_of_no_known_price_is_counted_and_costs_nothing_that_is_known() -> None:
    lost = LostCosts()
    lost.add(None)
    assert lost.take() == {"lost_instances": 1}
    lost.add(None)
    lost.add(0.25)
    assert lost.take() == {"lost_instances": 2, "lost_dollars": 0.25}
    assert lost.take() == {}


# --- instances that others left


def instance(name: str, state: str = "running", **tags: str) -> Instance:
    known = {"launch": "l", "pipeline": "p", "run": "another", "label": "2024-01", **tags}
    return Instance(name, "t", "z", "spot", state, datetime.now(timezone.utc), known)


def test_what_an_earlier_attempt_of_the_run_left_is_ended_before_anything_is_launched(launches: Launches) -> None:
    launches.found = {"r": [instance("i-own")], "parent": [instance("i-parents")], "other": [instance("i-other")]}
    launches.scripts = [[done("a")]]
    launches.run(job("a"), tags={"dagster/parent_run_id": "parent"})
    assert sorted(launches.terminated) == ["i-own", "i-parents"]


@pytest.mark.parametrize(
    ("age", "state", "ended"),
    [
        (LEASE_SECONDS + 1.0, "running", ["i-1"]),
        (LEASE_SECONDS + 1.0, "pending", ["i-1"]),
        (LEASE_SECONDS + 1.0, "shutting-down", []),
        (LEASE_SECONDS - 1.0, "running", []),
        (None, "running", []),  # its launch is in another store
    ],
)
def test_a_launch_ends_instances_that_nobody_waits_for(
    launches: Launches, age: float | None, state: str, ended: list[str]
) -> None:
    launches.found = {"": [instance("i-1", state)]}
    launches.lease_age = lambda: age
    launches.scripts = [[done("a")]]
    launches.run(job("a"))
    assert launches.terminated == ended


def test_an_image_builder_is_no_abandoned_instance(launches: Launches) -> None:
    builder = Instance("i-1", "t", "z", "spot", "running", datetime.now(timezone.utc), {"role": "image-builder"})
    launches.found = {"": [builder]}
    launches.lease_age = lambda: 1e6
    launches.scripts = [[done("a")]]
    launches.run(job("a"))
    assert launches.terminated == []


def test_a_lease_that_cannot_be_read_keeps_nobody_from_launching(launches: Launches) -> None:
    def refused() -> float:
        raise ClientError({"Error": {"Code": "SlowDown"}}, "HeadObject")

    launches.found, launches.lease_age = {"": [instance("i-1")]}, refused
    launches.scripts = [[done("a")]]
    launches.run(job("a"))
    assert launches.terminated == []
    assert "whether instances are abandoned is not known" in launches.warnings[0]


def test_the_tags_of_a_launch_are_needed_to_tell_whether_it_is_abandoned() -> None:
    assert LaunchTags.of({"launch": "l", "pipeline": "p", "run": "r"}) is None
