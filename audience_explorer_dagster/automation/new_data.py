"""The sensor that runs a month once its raw data is complete, and again with whatever changes of its input.

It looks at names, sizes and times only: whether what is there means more work is for the run to find out, which reuses
all that did not change.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import dagster as dg
from pydantic import BaseModel

from audience_explorer_dagster import settings
from audience_explorer_dagster.assets import WHOLE_MONTH_JOB
from audience_explorer_dagster.automation.month_requests import config_from_environment, month_request
from audience_explorer_dagster.partitions import months
from audience_explorer_dagster.store import Store
from spark_jobs import storage
from spark_jobs.outputs.fingerprints import digest_of
from spark_jobs.vectors.category_files import BadCategory, category_of, read_category

_MARKER = "_SUCCESS"
_REQUESTS_A_TICK = 12  # the others wait in the cursor for the next tick, half a minute

Files = Mapping[str, storage.ListedFile]


def settle_seconds() -> float:
    """How long a month without a marker must stay unchanged to be complete, AUDIENCE_EXPLORER_SETTLE_SECONDS."""
    return settings.read().settle_seconds


def default_status() -> dg.DefaultSensorStatus:
    """On if AUDIENCE_EXPLORER_AUTOMATIC is 1."""
    is_on = settings.read().automatic == "1"
    return dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED


@dg.sensor(
    job_name=WHOLE_MONTH_JOB,
    description="Runs a month once its raw data is complete: with a `_SUCCESS` file that is no older than the other"
    " files, or unchanged for AUDIENCE_EXPLORER_SETTLE_SECONDS. What comes late runs it again, and a new or changed"
    " category file runs that category in every complete month. A run that failed is not repeated until its input"
    " changes. On by default with AUDIENCE_EXPLORER_AUTOMATIC=1.",
    minimum_interval_seconds=30,
    default_status=default_status(),
)
def complete_months(context: dg.SensorEvaluationContext, store: Store) -> dg.SensorResult | dg.SkipReason:
    config = config_from_environment()
    seen = Seen.model_validate_json(context.cursor or "{}")
    listed = list_months(store)
    waiting = seen.look_at_months(listed, time.time(), settle_seconds())
    for problem in seen.look_at_categories(store, config.get("categories") or ()):
        context.log.warning(problem)
    running = _running_months(context.instance) if seen.due else set()
    requests = seen.take_requests(listed.keys() - running, config)
    cursor = seen.model_dump_json()
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    context.update_cursor(cursor)
    return dg.SkipReason(" ".join([*waiting, *seen.held_up(running)]) or "Nothing new.")


class MonthSeen(NamedTuple):
    """A month's raw files as they were last seen."""

    digest: str
    since: float | None  # when they were first seen, by our clock; None once they are complete
    requests: int  # how many runs were asked for so far
    marker: float | None = None  # the time of the marker that it was complete with


class CategorySeen(NamedTuple):
    """A category file as it was last seen."""

    version: str
    fingerprint: str | None  # None: it breaks a rule


class Seen(BaseModel):
    """What the sensor has seen, which is its cursor."""

    months: dict[str, MonthSeen] = {}
    categories: dict[str, CategorySeen] = {}
    due: dict[str, list[str] | None] = {}  # the months to ask for, with the categories; None: all

    def look_at_months(self, listed: Mapping[str, Files], now: float, settle: float) -> list[str]:
        """Find the months that became complete; why others wait."""
        waiting = []
        for month, files in listed.items():
            data = {name: file for name, file in files.items() if name[0] not in "._"}
            if not data:
                continue
            digest = listing_digest(data.items())
            seen = self.months.get(month)
            if seen is None or seen.digest != digest:
                before = seen or MonthSeen("", None, 0)
                seen = self.months[month] = before._replace(digest=digest, since=now)
                self.due.pop(month, None)  # it will be asked for when it is complete
            if seen.since is None:
                continue
            marker = _marker(files, data)
            # Files that come late may be older than a marker, if they were copied with their times.
            if (marker is not None and marker != seen.marker) or now - seen.since >= settle:
                self.months[month] = seen._replace(since=None, marker=marker)
                self.due[month] = None
            else:
                waiting.append(
                    f"{month} has no new {_MARKER}, and is complete if it is left unchanged for"
                    f" {settle - (now - seen.since):.0f} s more."
                )
        return waiting

    def look_at_categories(self, store: Store, wanted: Sequence[str]) -> list[str]:
        """Find the categories that are new or changed, of those wanted, or of all; what is wrong with files of them."""
        listed = {
            name: listing_digest([(path, file)])
            for path, file in storage.list_below(store.categories).items()
            if "/" not in path and (name := category_of(path)) is not None and (not wanted or name in wanted)
        }
        before = self.categories
        # A bad one is read again each time: it may be that it could not be read just then.
        self.categories = {
            name: seen
            for name, seen in before.items()
            if seen.version == listed.get(name) and seen.fingerprint is not None
        }
        read = [name for name in listed if name not in self.categories]
        with ThreadPoolExecutor(8) as pool:
            found = dict(zip(read, pool.map(lambda name: _fingerprint(store, name), read), strict=True))
        problems = {name: str(error) for name, error in found.items() if isinstance(error, BadCategory)}
        self.categories |= {
            name: CategorySeen(listed[name], None if name in problems else str(found[name])) for name in read
        }
        changed = {
            name
            for name in found.keys() - problems.keys()
            if name not in before or before[name].fingerprint != found[name]
        }
        for month, seen in self.months.items() if changed else ():
            names = self.due.get(month, [])
            if seen.since is None and names is not None:
                self.due[month] = sorted(changed.union(names))
        known = {name for name, seen in before.items() if seen.version == listed.get(name)}
        return [problem for name, problem in problems.items() if name not in known]

    def take_requests(self, allowed: Set[str], config: Mapping[str, Any]) -> list[dg.RunRequest]:
        """What to ask for now, of the months that are allowed; the oldest first, for each is compared with the one
        before."""
        good = {name: seen.fingerprint for name, seen in self.categories.items() if seen.fingerprint is not None}
        requests: list[dg.RunRequest] = []
        for month in sorted(self.due.keys() & allowed) if good else ():
            if len(requests) == _REQUESTS_A_TICK:
                break
            names = self.due.pop(month)
            changed = {name: good[name] for name in names or () if name in good}
            if names is not None and not changed:
                continue  # their files are gone
            seen = self.months[month]
            self.months[month] = seen = seen._replace(requests=seen.requests + 1)
            # The same key for a tick that is repeated after a crash; another for data that is as it was before.
            run_key = f"{month} {seen.requests} {digest_of([seen.digest, changed])[:16]}"
            asked = config if names is None else {**config, "categories": list(changed)}
            requests.append(month_request(month, asked, run_key))
        return requests

    def held_up(self, running: Set[str]) -> list[str]:
        """What keeps back months that are complete, and categories."""
        told = []
        bad = sorted(name for name, seen in self.categories.items() if seen.fingerprint is None)
        if self.due.keys() & running:
            told.append(f"{', '.join(sorted(self.due.keys() & running))} will run again when its run is over.")
        elif self.due and len(bad) == len(self.categories):
            told.append(f"{', '.join(sorted(self.due))} will run as soon as there is a good category file.")
        if bad:
            told.append(f"Bad category files: {', '.join(bad)}. `audience-explorer categories validate` tells why.")
        return told


def list_months(store: Store) -> dict[str, dict[str, storage.ListedFile]]:
    """The files directly in each month's folder, of the months that are partitions; one listing."""
    folders = {f"month={month}": month for month in months.get_partition_keys()}
    listed: dict[str, dict[str, storage.ListedFile]] = defaultdict(dict)
    for path, file in storage.list_below(store.all_raw).items():
        folder, _, name = path.partition("/")
        if folder in folders and name and "/" not in name:
            listed[folders[folder]][name] = file
    return listed


def _running_months(instance: dg.DagsterInstance) -> set[str]:
    """The months whose run is not over: another one beside it would compute the same again."""
    status = dg.DagsterRunStatus
    unfinished = [status.QUEUED, status.STARTING, status.STARTED, status.CANCELING]
    runs = instance.get_runs(dg.RunsFilter(job_name=WHOLE_MONTH_JOB, statuses=unfinished))
    return {run.tags["dagster/partition"] for run in runs if "dagster/partition" in run.tags}


def _marker(files: Files, data: Files) -> float | None:
    """The time of the month's marker, if it is no older than the data."""
    marker = files.get(_MARKER)
    newest = max(file.modified for file in data.values())
    return marker.modified if marker is not None and marker.modified >= newest else None


def listing_digest(files: Iterable[tuple[str, storage.ListedFile]]) -> str:
    """What changes with names, sizes or times of files."""
    return digest_of(sorted([name, file.size, file.modified, file.etag] for name, file in files))[:16]


def _fingerprint(store: Store, name: str) -> str | BadCategory:
    try:
        return read_category(store.category_file(name)).fingerprint
    except BadCategory as error:
        return error
