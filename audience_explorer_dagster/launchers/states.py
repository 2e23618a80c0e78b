"""How launches stand: which runs, which ended well, which did not and why, and which were replaced by a later one."""

import signal
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from audience_explorer_dagster.launchers.ec2 import instances
from audience_explorer_dagster.launchers.ec2.instances import Instance
from audience_explorer_dagster.launchers.ec2.launches import LEASE_SECONDS, Launches, LaunchTags
from spark_jobs.__main__ import STOPPED
from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

State = Literal["running", "done", "failed", "missing"]

SELECTORS = ("launch", "pipeline", "run", "label")
MIN_PREFIX = 4  # characters of an id that stand for all of it

_ALIVE = {"pending", "running", "shutting-down"}
_UNSEEN = timedelta(seconds=60)  # how long EC2 may take to grant an instance and to tell of it
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
            raise InputError(f"{tag!r} is no tag of launches: they have {', '.join(SELECTORS)}.")
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


def look(ec2: "EC2Client", launches: Launches, wanted: Sequence[LaunchTags]) -> list[LaunchState]:
    """How launches stand now, in the same order."""
    # In this order: one whose instance is not there any more has written its status, if it ever does.
    known = {instance.tags.get("launch"): instance for instance in instances.find(ec2, ended=True)}

    def look_at(tags: LaunchTags) -> LaunchState:
        folder = launches.folder(tags)
        state = _state(tags, folder.status(), known.get(tags.launch))
        # On EMR Serverless there is no instance. As long as somebody waits for a job run, it has not ended.
        if state.state == "missing" and state.instance is None and "application" in folder.launched():
            held = folder.seconds_since_held()
            if held is not None and held < LEASE_SECONDS:
                return LaunchState(tags, "running")
            return LaunchState(tags, "missing", "its job run left no status")
        return state

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(look_at, wanted))


def newest_attempts(launches: Launches, wanted: Iterable[LaunchTags]) -> list[LaunchTags]:
    """The launches without those whose work a later one took up, in the same order.

    A later launch takes up the work of one of the same pipeline and label if it is of the same run, or if it has no
    other jobs. The label alone does not tell, for the blocks of a month's categories may share one.
    """
    jobs: dict[LaunchTags, frozenset[str]] = {}

    def jobs_of(tags: LaunchTags) -> frozenset[str]:
        if tags not in jobs:
            jobs[tags] = _jobs(launches.folder(tags).description())
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


def why_not_done(status: Mapping[str, Any]) -> str:
    """Why a launch with this status did not end well; empty if it did."""
    if "error" in status:
        return f"the jobs could not be started: {status['error']}"
    code = status.get("exit_code")
    if code == 0:
        return ""
    if status.get("out_of_memory"):
        return "out of memory"
    if status.get("overdue"):
        return "overdue: it ran for as long as max_runtime allows"
    if code == 1:
        return "jobs failed (exit code 1)"
    if code == STOPPED:
        return f"stopped before all jobs had their turn, because AWS takes the instance back (exit code {STOPPED})"
    if isinstance(code, int) and code < 0:
        return f"ended by {_signal(-code)}"
    return f"exit code {code}"


def _state(tags: LaunchTags, status: Mapping[str, Any] | None, instance: Instance | None) -> LaunchState:
    if status is not None:
        why = why_not_done(status)
        return LaunchState(tags, "failed" if why else "done", why, instance)
    if instance is not None:
        if instance.state in _ALIVE:
            return LaunchState(tags, "running", instance=instance)
        why = f"{instance.id} is {instance.state} ({instance.reason or 'for no known reason'}), and left no status"
        return LaunchState(tags, "missing", why, instance)
    begun = started(tags)
    if begun is not None and datetime.now(timezone.utc) - begun < _UNSEEN:
        return LaunchState(tags, "running", "EC2 knows no instance of it yet")
    return LaunchState(tags, "missing", "there is neither an instance nor a status")


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
