"""Runs in the process of a command: on record as Dagster's own runs are, and failed if that process is lost.

Dagster's `execute_in_process` makes runs without an origin, and such a run is on no timeline, and told of by no sensor.
"""

import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

# As in workspace.yaml, and as Dagster names the definitions of a module.
CODE_LOCATION, _REPOSITORY = "audience_explorer", "__repository__"

Listener = Callable[[dg.EventLogEntry], None]

_PROCESS = ".audience-explorer/process"  # a tag; the dot hides it in the UI
_UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    run_id: str
    success: bool
    step_failures: Sequence[dg.DagsterEvent]


def execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetKey] | None,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
    listen: Listener | None = None,
) -> Result:
    """Run a job, or of an asset job some assets, in this process; the run's log has all that it says, and no terminal.

    Args:
        job: The job.
        instance: Where the run is on record.
        assets: The assets to materialize; None for a job that has none, or for all.
        tags: Of the run: its partitions, and whose it is.
        run_config: Its config.
        listen: Called with each event of the run, as it is recorded.
    """
    run_id = str(uuid.uuid4())
    run_config = {**run_config, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    if listen is not None:
        instance.add_event_listener(run_id, listen)
    selected = job if assets is None else job.get_subset(asset_selection=set(assets))
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(CODE_LOCATION), _REPOSITORY)
    run = instance.create_run_for_job(
        job_def=selected,
        run_id=run_id,
        execution_plan=create_execution_plan(InMemoryJob(selected), run_config=run_config),
        run_config=run_config,
        tags={**job.run_tags, **tags, **_own_tags()},
        asset_selection=None if assets is None else frozenset(assets),
        remote_job_origin=RemoteJobOrigin(repository, job.name),
    )
    ended = execute_run(InMemoryJob(job), run, instance)
    return Result(run_id, ended.success, [event for event in ended.all_events if event.is_step_failure])


def fail_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Fail the runs of commands on this machine whose process is gone, killed for instance; their ids.

    Such a run would be unfinished for ever, and who waits for it would wait for ever.
    """
    unfinished = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    lost = [run for run in unfinished if _is_lost(run.tags.get(_PROCESS))]
    for run in lost:
        instance.report_run_failed(run, "The process of the command that ran it is gone: it was killed, most likely.")
    return [run.run_id for run in lost]


def _own_tags() -> dict[str, str]:
    """Tags of a run of this process. Who typed the command repeats it, and Dagster's daemon does not."""
    process = _process(os.getpid())
    return {"dagster/max_retries": "0", **({_PROCESS: process} if process else {})}


def _process(pid: int) -> str | None:
    """This machine, a process of it, and when that began, for numbers are used again; None if it can't be told."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The name, in brackets, may hold anything; the beginning, in ticks since the machine started, is the 22nd field.
    began = stat.rpartition(")")[2].split()[19]
    return f"{_machine()} {pid} {began}"


def _machine() -> str:
    booted = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{socket.gethostname()} {booted}"


def _is_lost(process: str | None) -> bool:
    """Whether a run's process was one of this machine, and is gone."""
    if process is None or not Path("/proc/self/stat").exists():
        return False
    host, _, pid, _ = process.split()
    if host != socket.gethostname():
        return False
    return _process(int(pid)) != process
