"""`audience-explorer launch`: the launches on AWS, each one machine's life."""

import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from audience_explorer_dagster.cli.aws import REGIONS, AWSGroup, region_option_of
from audience_explorer_dagster.cli.project import (
    ROOT,
    ask,
    exit_code,
    json_option,
    open_project,
    outcomes_as_json,
    outcomes_as_table,
    tell,
    tell_table,
    yes_option,
)
from spark_jobs.launch.aws import client, launches_of_root
from spark_jobs.terminal import as_age, as_table

if TYPE_CHECKING:
    import dagster as dg
    from mypy_boto3_ec2 import EC2Client

    from audience_explorer_dagster.launchers.launch_store import LaunchStore, LaunchTags
    from audience_explorer_dagster.launchers.states import LauncherName, LaunchState, State
    from audience_explorer_dagster.running.pipeline import Outcome

# The variable of each launcher that says where its launches are.
_LAUNCHES: "dict[LauncherName, str]" = {
    "ec2": "AUDIENCE_EXPLORER_EC2_LAUNCHES",
    "emr-serverless": "AUDIENCE_EXPLORER_EMR_LAUNCHES",
}

_FOLLOW_SECONDS = 2.0  # between two requests for what was added to a log
_TIMED_OUT = 124  # as timeout(1) has it
_STATES: "tuple[State, ...]" = ("running", "done", "failed", "missing")


region_option = region_option_of(REGIONS.values())
launches_option = click.option(
    "--launches",
    "location",
    envvar=list(_LAUNCHES.values()),
    show_envvar=True,
    default=launches_of_root,
    show_default=f"launches of ${ROOT}, if that is on S3",
    metavar="s3://…",
    help="Where launches keep their messages and logs.",
)
launch_argument = click.argument("wanted", metavar="LAUNCH")


@click.group(cls=AWSGroup)
def launch() -> None:
    """Launches on EC2 and EMR Serverless, each one machine's life.

    LAUNCH is the id of a launch, of a pipeline or of a Dagster run, or the beginning of one; or launch=ID, pipeline=ID,
    run=ID or label=NAME.
    """


@launch.command()
@click.argument("wanted", metavar="[LAUNCH]", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many of the newest.")
@launches_option
@region_option
@json_option
def ls(wanted: str | None, limit: int, location: str | None, region: str | None, as_json: bool) -> None:
    """List launches, the newest first."""
    place = _Place(location, region)
    found = place.select(wanted) if wanted else place.store.list()
    states = place.states(found[-limit:][::-1])
    if as_json:
        click.echo(json.dumps([state.facts() for state in states], indent=1))
    elif states:
        click.echo(as_table({"launch": lambda s: s.tags.launch, **_COLUMNS, "instance": _instance}, states))
        if len(found) > limit:
            tell(f"{len(found) - limit} older ones are left out: --limit")
    else:
        tell(f"there is no launch in {location}")


@launch.command()
@launch_argument
@click.option("--all", "with_replaced", is_flag=True, help="Also launches whose work a later one took up.")
@launches_option
@region_option
@json_option
def status(wanted: str, with_replaced: bool, location: str | None, region: str | None, as_json: bool) -> None:
    """Say what of a launch or pipeline runs, is done, failed or is missing, and why.

    Missing is what has neither an instance nor an end: AWS took its instance back, say, or somebody ended it.
    """
    place = _Place(location, region)
    found = place.select(wanted)
    states = place.states(found if with_replaced else place.newest_attempts(found))
    counts = Counter(state.state for state in states)
    if as_json:
        launches = [state.facts() for state in states]
        click.echo(json.dumps({**{name: counts[name] for name in _STATES}, "launches": launches}, indent=1))
        return
    columns: dict[str, Callable[[LaunchState], str]] = {
        "label": lambda s: s.tags.label,
        "state": lambda s: s.state,
        "launch": lambda s: s.tags.launch,
        "instance": _instance,
        "why": lambda s: s.why,
    }
    click.echo(f"{as_table(columns, states)}\n\n{_counts(states)}")


@launch.command()
@launch_argument
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up then.  [default: never]")
@click.option(
    "--poll",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long between two polls.",
)
@launches_option
@region_option
def wait(wanted: str, timeout: float | None, poll: float, location: str | None, region: str | None) -> None:
    """Wait until no instance of a launch or pipeline runs.

    What a pipeline has not launched yet is not waited for. The exit code is 0 only if all ended well, 1 if something
    failed or is missing, 124 if it took too long.
    """
    place = _Place(location, region)
    began = time.monotonic()
    printed, quiet_polls, polls_needed = "", 0, 1
    while True:
        # Selected anew each time, for an instance that is lost is replaced by another, which is a launch of its own.
        states = place.states(place.newest_attempts(place.select(wanted)))
        if (counts := _counts(states)) != printed:
            printed = counts
            tell(f"{time.monotonic() - began:5.0f} s: {counts}")
        busy = any(state.state == "running" or state.occupied for state in states)
        quiet_polls = 0 if busy else quiet_polls + 1
        if quiet_polls == polls_needed:
            break
        # Between the end of an instance and the launch that replaces it, none runs for a moment.
        polls_needed = 2
        if timeout is not None and time.monotonic() - began + poll > timeout:
            time.sleep(max(0.0, timeout - (time.monotonic() - began)))
            tell(f"it took more than {timeout:g} s")
            sys.exit(_TIMED_OUT)
        time.sleep(poll)
    not_done = [state for state in states if state.state != "done"]
    for state in not_done:
        tell(
            f"{state.tags.label} {state.state}: {state.why}. Its log: audience-explorer launch log {state.tags.launch}"
        )
    sys.exit(bool(not_done))


@launch.command()
@launch_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until all launches have ended.")
@launches_option
@region_option
def log(wanted: str, follow: bool, location: str | None, region: str | None) -> None:
    """Print the log of a launch as it was written; of several, each line after the name of its launch."""
    place = _Place(location, region)
    found = place.select(wanted)
    chunks = place.read_log(found, follow)
    printed = _print_log(chunks) if len(found) == 1 else _print_logs(chunks, _names(found))
    for state in place.states([tags for tags in found if tags not in printed]):
        why = f": {state.why}" if state.why else ""
        tell(f"launch {state.tags.launch} has logged nothing; it is {state.state}{why}")


@launch.command()
@launch_argument
@launches_option
@region_option
@json_option
def params(wanted: str, location: str | None, region: str | None, as_json: bool) -> None:
    """Print how launches were launched: on what, with which code, and with which commands."""
    place = _Place(location, region)
    described = [{**asdict(tags), **place.params(tags)} for tags in place.select(wanted)]
    click.echo(json.dumps(described, indent=1) if as_json else "\n\n".join(map(_params, described)))


@launch.command()
@launch_argument
@click.option("--root", envvar=ROOT, show_envvar=True, required=True, help="The root of the pipeline, on S3.")
@launches_option
@region_option
@yes_option
@json_option
def retry(wanted: str, root: str, location: str | None, region: str | None, yes: bool, as_json: bool) -> None:
    """Launch again what failed or went missing.

    The Dagster runs of these launches are run again in this process, by the launcher that made the launches, with the
    same config and partitions, in the records of $DAGSTER_HOME. What is there already is reused, so that only what is
    missing is launched. What never began, because something before it failed, is not: for that, run the pipeline again.
    """
    place = _Place(location, region)
    lost = [state for state in place.states(place.newest_attempts(place.select(wanted))) if _is_lost(state)]
    if not lost:
        tell("nothing failed, and nothing is missing")
        return
    if as_json:
        tell(f"to be launched again: {len(lost)}")
    else:
        tell_table(as_table({"launch": lambda s: s.tags.launch, **_COLUMNS, "why": lambda s: s.why}, lost))
    place.set_environment([state.tags for state in lost])
    with open_project(root) as project:
        from audience_explorer_dagster.running.pipeline import INTERRUPTED, run_again

        runs = [(place.run_of(project.instance, tags), tags.pipeline) for tags in _one_a_run(lost)]
        ask(f"Launch {len(runs)} run{'s' if len(runs) > 1 else ''} again?", yes)
        outcomes: list[Outcome] = []
        for run, pipeline in runs:
            tell(f"running {run.job_name} of run {run.run_id} again")
            outcomes += run_again(project.definitions, project.instance, run, pipeline)
            if any(outcome.error == INTERRUPTED for outcome in outcomes):
                break
    click.echo(outcomes_as_json(outcomes) if as_json else outcomes_as_table(outcomes, root.rstrip("/")))
    sys.exit(exit_code(outcomes))


@launch.command()
@click.argument("wanted", metavar="LAUNCH…", nargs=-1, required=True)
@launches_option
@region_option
@yes_option
def rm(wanted: tuple[str, ...], location: str | None, region: str | None, yes: bool) -> None:
    """End launches' instances, and delete their messages and logs. What they computed stays."""
    place = _Place(location, region)
    found = sorted({tags for text in wanted for tags in place.select(text)})
    states = place.states(found)
    tell_table(as_table({"launch": lambda s: s.tags.launch, **_COLUMNS, "instance": _instance}, states))
    ask("End these instances, and delete these launches?" if _occupied(states) else "Delete these launches?", yes)
    ended = place.end(found)
    for tags in found:
        place.store.folder(tags).delete()
    tell(f"deleted {len(found)} launches, ended {len(ended)} instances{': ' if ended else ''}{', '.join(ended)}")


# --- what the commands share -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where launches are."""

    location: str | None
    region: str | None

    @cached_property
    def store(self) -> "LaunchStore":
        from audience_explorer_dagster.launchers.launch_store import LaunchStore

        if self.location is None:
            variables = " or ".join(_LAUNCHES.values())
            raise click.UsageError(f"Where are the launches? --launches s3://bucket/prefix, or set {variables}.")
        return LaunchStore(client("s3", self.region), self.location)

    @cached_property
    def ec2(self) -> "EC2Client":
        return client("ec2", self.region)

    def select(self, wanted: str) -> "list[LaunchTags]":
        from audience_explorer_dagster.launchers.states import select

        return select(self.store.list(), wanted)

    def newest_attempts(self, wanted: "Sequence[LaunchTags]") -> "list[LaunchTags]":
        from audience_explorer_dagster.launchers.states import newest_attempts

        return newest_attempts(self.store, wanted)

    def states(self, wanted: "Sequence[LaunchTags]") -> "list[LaunchState]":
        from ami import instances
        from audience_explorer_dagster.launchers.states import current_states

        return current_states(self.store, wanted, lambda: instances.find(self.ec2, ended=True))

    def launchers(self, wanted: "Sequence[LaunchTags]") -> "list[LauncherName]":
        """The launcher that made each launch."""
        from audience_explorer_dagster.launchers.states import launcher_of

        return [launcher_of(self.store.folder(tags).description()) for tags in wanted]

    def read_log(self, wanted: "Sequence[LaunchTags]", follow: bool) -> "Iterator[tuple[LaunchTags, bytes]]":
        """What launches logged; and what they log, until all of them have ended."""
        from spark_jobs.launch.reader import StreamReader

        readers = {tags: StreamReader(self.store.folder(tags), "log") for tags in wanted}
        while True:
            # States first: what has ended has written all of its log.
            ended = not follow or all(state.state != "running" for state in self.states(wanted))
            for tags, reader in readers.items():
                for chunk in reader.new():
                    yield tags, chunk
            if ended:
                return
            time.sleep(_FOLLOW_SECONDS)

    def params(self, tags: "LaunchTags") -> dict[str, Any]:
        described = self.store.folder(tags).description()
        return {**described.get("launched", {}), **{name: described.get(name) for name in ("max_runtime", "code")}}

    def run_of(self, instance: "dg.DagsterInstance", tags: "LaunchTags") -> "dg.DagsterRun":
        """The Dagster run of a launch, if it may be run again."""
        from spark_jobs.launch import lease

        run = instance.get_run_by_id(tags.run)
        if run is None:
            raise click.ClickException(
                f"The run {tags.run} of launch {tags.launch} is not known in {instance.root_directory}. Set"
                " DAGSTER_HOME to that of who launched it."
            )
        age = self.store.folder(tags).lease_age()
        # A process that was killed leaves its run unfinished.
        if not run.is_finished and age is not None and lease.is_valid(age):
            raise click.ClickException(
                f"The run {tags.run} of launch {tags.launch} is not over ({run.status.value}): somebody waited for it"
                f" {age:.0f} s ago. Wait for its end, or until {lease.LEASE_SECONDS} s after it was killed."
            )
        return run

    def end(self, wanted: "Sequence[LaunchTags]") -> list[str]:
        """End the instances of launches, and wait until they can't write any more; their ids.

        A job run on EMR Serverless has no instance: its driver ends it when the lease is deleted.
        """
        from ami import instances

        launchers = zip(wanted, self.launchers(wanted), strict=True)
        names = {tags.launch for tags, launcher in launchers if launcher == "ec2"}
        if not names:
            return []
        alive = [instance.id for instance in instances.find(self.ec2) if instance.tags.get("launch") in names]
        if alive:
            instances.terminate(self.ec2, alive)
            gone = self.ec2.get_waiter("instance_terminated")
            gone.wait(InstanceIds=alive, WaiterConfig={"Delay": 2, "MaxAttempts": 150})
        return alive

    def set_environment(self, wanted: "Sequence[LaunchTags]") -> None:
        """Have the project that is loaded after this launch by the launcher that made launches, to the same place."""
        launchers = set(self.launchers(wanted))
        if len(launchers) > 1:
            names = " and ".join(sorted(launchers))
            raise click.UsageError(f"These launches were made by {names}: launch those of each again by themselves.")
        (launcher,) = launchers
        given = {
            "AUDIENCE_EXPLORER_LAUNCHER": launcher,
            _LAUNCHES[launcher]: self.location,
            REGIONS[launcher]: self.region,
        }
        os.environ.update({name: value for name, value in given.items() if value is not None})


def _names(launches: "Sequence[LaunchTags]") -> "dict[LaunchTags, str]":
    """The label of each launch, with its id where another one has the same label."""
    labels = Counter(tags.label for tags in launches)
    return {tags: tags.label if labels[tags.label] == 1 else f"{tags.label} {tags.launch}" for tags in launches}


def _print_log(chunks: "Iterable[tuple[LaunchTags, bytes]]") -> "set[LaunchTags]":
    """Print what one launch logged, byte by byte; the launch, if it logged anything."""
    printed = set()
    for tags, chunk in chunks:
        printed.add(tags)
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return printed


def _print_logs(chunks: "Iterable[tuple[LaunchTags, bytes]]", names: "Mapping[LaunchTags, str]") -> "set[LaunchTags]":
    """Print what several launches logged, whole lines after the names; the launches that logged anything."""
    out = sys.stdout.buffer
    rests: dict[LaunchTags, bytes] = {}  # the beginnings of lines that are still being written
    for tags, chunk in chunks:
        *lines, rests[tags] = (rests.get(tags, b"") + chunk).split(b"\n")
        out.writelines(f"{names[tags]}: ".encode() + line + b"\n" for line in lines)
        out.flush()
    out.writelines(f"{names[tags]}: ".encode() + rest + b"\n" for tags, rest in rests.items() if rest)
    return set(rests)


def _is_lost(state: "LaunchState") -> bool:
    return state.state in ("failed", "missing")


def _occupied(states: "Sequence[LaunchState]") -> bool:
    return any(state.occupied for state in states)


def _one_a_run(states: "Sequence[LaunchState]") -> "list[LaunchTags]":
    """The newest launch of each run, the oldest run first."""
    return list({state.tags.run: state.tags for state in states}.values())


def _age(state: "LaunchState") -> str:
    from audience_explorer_dagster.launchers.states import started

    return as_age(started(state.tags))


def _instance(state: "LaunchState") -> str:
    return f"{state.instance.id} {state.instance.type}" if state.instance and state.occupied else ""


def _counts(states: "Sequence[LaunchState]") -> str:
    counts = Counter(state.state for state in states)
    return ", ".join(f"{counts[name]} {name}" for name in _STATES if counts[name])


def _params(described: dict[str, Any]) -> str:
    commands = [
        shlex.join(["python", "-m", f"spark_jobs.{module}", *arguments])
        for module, *arguments in described.get("commands", [])
    ]
    facts = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in described.items()
        if name != "commands"
    }
    width = max(map(len, facts))
    return "\n".join([*(f"{name.ljust(width)}  {value}" for name, value in facts.items()), *commands])


_COLUMNS: "dict[str, Callable[[LaunchState], str]]" = {
    "age": _age,
    "label": lambda s: s.tags.label,
    "pipeline": lambda s: s.tags.pipeline,
    "run": lambda s: s.tags.run[:8],
    "state": lambda s: s.state,
}
