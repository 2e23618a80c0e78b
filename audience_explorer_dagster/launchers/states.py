"""How launches stand: which runs, which ended well, which did not and why, and which were replaced by a later one."""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, cast

from ami.instances import Instance
from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
from spark_jobs.__main__ import STOPPED
from spark_jobs.errors import InputError
from spark_jobs.launch import lease
from spark_jobs.launch.status import Status

LauncherName = Literal["ec2", "emr-serverless"]  # those that keep launches on S3
State = Literal["running", "done", "failed", "missing"]

SELECTORS = ("launch", "pipeline", "run", "label")
MIN_PREFIX = 4  # characters of an id that stand for all of it

_ALIVE = {"pending", "running", "shutting-down"}
_UNSEEN = timedelta(seconds=60)  # how long EC2 may take to grant an instance and to list it
_READERS = 8  # requests to S3 at the same time


@dataclass(frozen=True)
class LaunchState:
    """How a launch stands."""

    tags: LaunchTags
    state: State
    why: str = ""  # it did not end well, or does not run yet
    instance: Instance | None = None  # if EC2 still knows it

    @property
    def occupied(self) -> bool:
        """Whether its instance lives, be it only to shut down."""
        return self.instance is not None and self.instance.state in _ALIVE

    def facts(self) -> dict[str, Any]:
        """What programs read."""
        begun = started(self.tags)
        return {
            **asdict(self.tags),
            "started": begun and begun.isoformat(),
            "state": self.state,
            "why": self.why or None,
            "instance": self.instance and self.instance.id,
            "instance_type": self.instance and self.instance.type,
        }


def select(launches: Sequence[LaunchTags], wanted: str) -> list[LaunchTags]:
    """The launches that a text means: a launch's, pipeline's or run's id or the beginning of one, or `tag=value`.

    Args:
        launches: All of them, in order.
        wanted: The text.

    Raises:
        InputError: It means none, or could mean several things.
    """
    tag, separator, value = wanted.partition("=")
    if separator:
        if tag not in SELECTORS:
            raise InputError(f"{tag!r} is not a tag of launches: they have {', '.join(SELECTORS)}.")
        found = [tags for tags in launches if getattr(tags, tag) == value]
    else:
        found = [tags for tags in launches if wanted in _ids(tags)]
        begun = {name for tags in launches for name in _ids(tags) if name.startswith(wanted)}
        if not found and begun and len(wanted) < MIN_PREFIX:
            raise InputError(f"{wanted!r} is too short: {MIN_PREFIX} characters of an id are needed.")
        if not found and len(begun) > 1:
            raise InputError(
                f"{wanted!r} is the beginning of {len(begun)} ids, such as {', '.join(sorted(begun)[:3])}."
            )
        found = found or [tags for tags in launches if begun.intersection(_ids(tags))]
    if not found:
        raise InputError(f"There is no launch {wanted!r}. List them: audience-explorer launch ls")
    return found


def launcher_of(description: Mapping[str, Any]) -> LauncherName:
    """The launcher that made a launch, by the name that AUDIENCE_EXPLORER_LAUNCHER has for it."""
    launched = description.get("launched", {})
    if "launcher" in launched:
        return cast(LauncherName, launched["launcher"])
    return "emr-serverless" if "application" in launched else "ec2"  # launches of earlier versions


def current_states(
    store: LaunchStore, wanted: Sequence[LaunchTags], find_instances: Callable[[], Iterable[Instance]]
) -> list[LaunchState]:
    """How launches stand now, in the same order.

    Args:
        store: Where they are.
        wanted: Which.
        find_instances: Asks EC2 for this project's instances, also those that ended. It is called only if a launch was
            on EC2, for not everybody may ask.
    """

    def state(tags: LaunchTags, launcher: LauncherName) -> LaunchState:
        folder = store.folder(tags)
        if launcher == "emr-serverless":
            return _state_by_lease(tags, folder.status(), folder.lease_age)
        return _state_by_instance(tags, folder.status(), instances.get(tags.launch))

    with ThreadPoolExecutor(_READERS) as readers:
        launchers = list(readers.map(lambda tags: launcher_of(store.folder(tags).description()), wanted))
        # EC2 before the status: a launch whose instance is not there any more has written its status, if it ever does.
        found = find_instances() if "ec2" in launchers else ()
        instances = {instance.tags.get("launch"): instance for instance in found}
        return list(readers.map(state, wanted, launchers))


def newest_attempts(store: LaunchStore, wanted: Iterable[LaunchTags]) -> list[LaunchTags]:
    """The launches without those whose work a later one took up, in the same order.

    A later launch takes up the work of one of the same pipeline and label if it is of the same run, or if it has no
    other jobs. The label alone does not say so, for the blocks of a month's categories may share one.
    """
    jobs: dict[LaunchTags, frozenset[str]] = {}

    def jobs_of(tags: LaunchTags) -> frozenset[str]:
        if tags not in jobs:
            jobs[tags] = _jobs(store.folder(tags).description())
        return jobs[tags]

    newest: list[LaunchTags] = []
    for tags in sorted(wanted, reverse=True):
        same = [later for later in newest if (later.pipeline, later.label) == (tags.pipeline, tags.label)]
        if not any(later.run == tags.run or jobs_of(later) <= jobs_of(tags) for later in same):
            newest.append(tags)
    return newest[::-1]


def started(tags: LaunchTags) -> datetime | None:
    """When a launch was made, which its id begins with; None if it does not."""
    try:
        return datetime.strptime(tags.launch.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def why_not_done(status: Status) -> str:
    """Why a launch with this status did not end well; empty if it did."""
    if status.error is not None:
        return f"the jobs could not be started: {status.error}"
    code = status.exit_code
    if code == 0:
        return ""
    if status.out_of_memory:
        return "out of memory"
    if status.overdue:
        return "overdue: it ran for as long as max_runtime allows"
    if code == 1:
        return "jobs failed (exit code 1)"
    if code == STOPPED:
        return f"stopped before all jobs had their turn, because AWS takes the instance back (exit code {STOPPED})"
    if code is not None and code < 0:
        return f"ended by {_signal(-code)}"
    return f"exit code {code}"


def _state_by_instance(tags: LaunchTags, status: Status | None, instance: Instance | None) -> LaunchState:
    """How a launch on EC2 stands."""
    if status is not None:
        return _ended(tags, status, instance)
    if instance is not None:
        if instance.state in _ALIVE:
            return LaunchState(tags, "running", instance=instance)
        why = f"{instance.id} is {instance.state} ({instance.reason or 'for no known reason'}), and left no status"
        return LaunchState(tags, "missing", why, instance)
    begun = started(tags)
    if begun is not None and datetime.now(timezone.utc) - begun < _UNSEEN:
        return LaunchState(tags, "running", "EC2 knows no instance of it yet")
    return LaunchState(tags, "missing", "there is neither an instance nor a status")


def _state_by_lease(tags: LaunchTags, status: Status | None, lease_age: Callable[[], float | None]) -> LaunchState:
    """How a launch on EMR Serverless stands: as long as somebody waits for a job run, it has not ended."""
    if status is not None:
        return _ended(tags, status, None)
    if lease.is_valid(lease_age()):
        return LaunchState(tags, "running")
    return LaunchState(tags, "missing", "its job run left no status")


def _ended(tags: LaunchTags, status: Status, instance: Instance | None) -> LaunchState:
    why = why_not_done(status)
    return LaunchState(tags, "failed" if why else "done", why, instance)


def _ids(tags: LaunchTags) -> tuple[str, str, str]:
    return tags.launch, tags.pipeline, tags.run


def _jobs(description: Mapping[str, Any]) -> frozenset[str]:
    listed = description.get("context", {}).get("extras", {}).get("jobs", [])
    return frozenset(job["id"] for job in listed)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
