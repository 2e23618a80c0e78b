"""What plans would take, in words and figures, and what a dry run says of each target."""

from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Target
from audience_explorer_dagster.planning.decisions import Compute, Impossible, Reuse
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.running import dry_run, expectation
from audience_explorer_dagster.running.dry_run import DryRun, Planned
from audience_explorer_dagster.running.expectation import Expected
from spark_jobs.config import KMeansConfig
from spark_jobs.job_configs import KMeans

TEA, MILK, WATER = (Partition("2024-02", name) for name in ("tea", "milk", "water"))
MADE = datetime(2024, 2, 1, 13, 45, tzinfo=timezone.utc)


def record(category: str, **figures: Any) -> Record:
    return Record(Partition("2024-01", category), "f", "folder", (), "run", MADE, figures)


def job(*partitions: Partition) -> Job:
    config = KMeans(inputs="in", output="out", config=KMeansConfig(k=2))
    return Job(f"kmeans {partitions[0]}", tuple(Target(KMEANS, partition) for partition in partitions), config)


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (Expected(1, 2, None, None, 2), "expected: 1 launch; nothing like it is on record, so how long it takes"),
        (Expected(2, 2, 40.0, None, 0), "expected: 2 launches; 40 s, if one job runs after another"),
        (Expected(0, 0, 40.0, 0.125, 0), "expected: 0 launches; 40 s, if one job runs after another; $0.12"),
        (Expected(1, 3, 40.0, 0.5, 2), "; $0.50; without 2 jobs like which none is on record"),
    ],
)
def test_what_is_expected_is_a_line_of_what_is_known(expected: Expected, says: str) -> None:
    assert says in str(expected)


def test_figures_that_are_numbers_count_whatever_the_record_calls_them() -> None:
    metadata = {
        "seconds": dg.MetadataValue.int(3),
        "cost": dg.MetadataValue.float(0.5),
        "text": dg.MetadataValue.text("3"),
    }
    known = record("tea", **metadata)
    assert [expectation._value(known, name) for name in ("seconds", "cost", "text", "none")] == [3.0, 0.5, None, None]


def test_seconds_are_of_the_slowest_target_of_each_job_and_dollars_of_all() -> None:
    def took(category: str, seconds: float, dollars: float) -> Record:
        values = {"duration_seconds": seconds, "launch/estimated_dollars": dollars}
        return record(category, **{name: dg.MetadataValue.float(float(value)) for name, value in values.items()})

    known = {KMEANS: [took("tea", 10, 0.25), took("milk", 30, 0.5)]}
    found = expectation.expect_of_jobs([[job(TEA, MILK)], [job(TEA)]], known)
    assert found == Expected(2, 2, 40, 1.0, 0)
    assert expectation.expect_of_jobs([[job(WATER)]], known) == Expected(1, 1, 20, 0.375, 0), "as is usual"


def test_records_are_those_of_the_assets_that_would_be_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(expectation, "newest_of_asset", lambda *of: asked.append(of) or [])
    instance: Any = "instance"
    store: Any = "store"
    nothing, launched = Plan({}), Plan({Target(KMEANS, TEA): compute("k 2 → 3")})
    assert expectation.expect(instance, store, [nothing, launched]) == Expected(1, 1, None, None, 1)
    assert asked == [("instance", "store", KMEANS, 100)]
    assert expectation.expect(instance, store, [nothing]).launches == 0


def compute(why: str) -> Compute:
    return Compute("f", "out", why, (), KMeans(inputs="in", output="out", config=KMeansConfig(k=2)))


def test_a_dry_run_says_of_each_target_what_would_become_of_it_and_why() -> None:
    targets = [Target(KMEANS, partition) for partition in (TEA, MILK, WATER)]
    decisions = (Reuse(record("tea")), compute("k 2 → 3"), Impossible("water.json does not exist"))
    found = dry_run.planned(Plan(dict(zip(targets, decisions, strict=True))))
    assert found == [
        Planned(KMEANS, "tea|2024-02", "reuse", "as recorded 2024-02-01 13:45 UTC", folder="folder"),
        Planned(KMEANS, "milk|2024-02", "launch", "k 2 → 3", job="kmeans milk|2024-02"),
        Planned(KMEANS, "water|2024-02", "impossible", "water.json does not exist"),
    ]
    whole = DryRun(found, Expected(1, 1, 3.0, None, 0))
    assert whole.counts() == {"launch": 1, "reuse": 1, "impossible": 1}
    said = whole.as_json()
    assert (said["launch"], said["expected"]["seconds"], len(said["partitions"])) == (1, 3.0, 3)


@pytest.mark.parametrize(("wanted", "unfit"), [((), True), (("tea",), False)])
def test_only_who_asks_for_all_categories_is_told_of_files_that_cannot_be_one(
    monkeypatch: pytest.MonkeyPatch, wanted: tuple[str, ...], unfit: bool
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(dry_run, "new_categories", lambda *_: (["tea"], {"bad name": "it has a space"}))
    monkeypatch.setattr(dry_run, "check_categories", lambda *of: asked.append(of[2:]) or ["tea"])
    monkeypatch.setattr(dry_run, "plan_pipeline", lambda *of: asked.append(of[2:4]) or [])
    monkeypatch.setattr(dry_run, "expect", lambda *_: Expected(0, 0, None, None, 0))
    none: Any = None
    found = dry_run.dry_run(none, none, ["2024-01"], wanted, none)
    assert asked == [(wanted, ["tea"]), (["2024-01"], ["tea"])]
    bad = Planned("category", "bad name", "impossible", "it has a space")
    assert found.targets == ([bad] if unfit else [])
