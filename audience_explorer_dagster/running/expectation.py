"""What plans would take, judged by what outputs like theirs took: launches, seconds and dollars."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import dagster as dg

from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.planning import Target
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records.history import Record, newest_of_asset
from audience_explorer_dagster.records.metadata import LAUNCH
from audience_explorer_dagster.store import Store
from spark_jobs.terminal import as_duration

_RECORDS = 100  # of an asset that are looked at, the newest ones

_SECONDS = "duration_seconds"
_BOOT = f"{LAUNCH}boot_seconds"
_DOLLARS = f"{LAUNCH}estimated_dollars"


@dataclass(frozen=True)
class Expected:
    """What plans would take.

    Attributes:
        launches: How many, one a month that has a job.
        jobs: How many.
        seconds: Of all jobs one after another, with the time until a launch's first one starts; those that run beside
            each other take less. None where nothing like a job is on record.
        dollars: What the launches would cost; None where no record says.
        unknown_jobs: Those like which nothing is on record; seconds and dollars are without them.
    """

    launches: int
    jobs: int
    seconds: float | None
    dollars: float | None
    unknown_jobs: int

    def __str__(self) -> str:
        """Such as `expected: 2 launches; 40 s, if one job runs after another; $0.12`."""
        launches = f"{self.launches} launch{'es' * (self.launches != 1)}"
        if self.seconds is None:
            return f"expected: {launches}; nothing like it is on record, so how long it takes is not known"
        seconds = f"{as_duration(self.seconds)}, if one job runs after another"
        dollars = "" if self.dollars is None else f"; ${self.dollars:.2f}"
        unknown = f"; without {self.unknown_jobs} jobs like which none is on record" if self.unknown_jobs else ""
        return f"expected: {launches}; {seconds}{dollars}{unknown}"

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return asdict(self)


def expect(instance: dg.DagsterInstance, store: Store, plans: Iterable[Plan]) -> Expected:
    """What plans would take, by the newest records of their assets.

    Args:
        instance: Where the records are.
        store: Where the outputs are.
        plans: A plan a launch.
    """
    launched = [plan.jobs for plan in plans if plan.jobs]
    assets = {target.asset for jobs in launched for job in jobs for target in job.targets}
    records = {asset: newest_of_asset(instance, store, asset, _RECORDS) for asset in sorted(assets)}
    return expect_of_jobs(launched, records)


def expect_of_jobs(launches: Sequence[Sequence[Job]], records: Mapping[str, Sequence[Record]]) -> Expected:
    """What launches would take.

    Args:
        launches: The jobs of each launch.
        records: Some records of each of their assets, the newest first.
    """
    jobs = [job for launch in launches for job in launch]
    # One job makes the clustering inputs of all categories: each took as long as it did until then.
    seconds = [max(_known(_like(target, _SECONDS, records) for target in job.targets), default=None) for job in jobs]
    dollars = _known(_like(target, _DOLLARS, records) for job in jobs for target in job.targets)
    boots = [value for of_asset in records.values() for record in of_asset for value in _known([_value(record, _BOOT)])]
    known = _known(seconds)
    boot = median(boots) * len(launches) if boots else 0.0
    return Expected(
        launches=len(launches),
        jobs=len(jobs),
        seconds=round(sum(known) + boot, 3) if known else None,
        dollars=round(sum(dollars), 6) if dollars else None,
        unknown_jobs=len(jobs) - len(known),
    )


def _like(target: Target, name: str, records: Mapping[str, Sequence[Record]]) -> float | None:
    """A figure of an output like a target: of the same category, the newest; or else what is usual for the asset."""
    of_asset = records.get(target.asset, ())
    same = [record for record in of_asset if record.partition.category == target.partition.category]
    of_same = _known(_value(record, name) for record in same)
    of_all = _known(_value(record, name) for record in of_asset)
    if of_same:
        return of_same[0]
    return median(of_all) if of_all else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _value(record: Record, name: str) -> float | None:
    value = getattr(record.metadata.get(name), "value", None)
    return float(value) if isinstance(value, int | float) else None
