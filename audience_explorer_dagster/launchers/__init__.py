"""Launchers run jobs: here is what all of them have in common."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import dagster as dg
from dagster_pipes import PipesContextData

from audience_explorer_dagster.planning.targets import Target
from spark_jobs.job_configs import JobConfig

PIPELINE_TAG = "audience-explorer/pipeline"  # of Dagster runs: the id that the runs of one pipeline share


@dataclass(frozen=True)
class Job:
    """One job of a launch: what it makes, and what it is given for that."""

    id: str  # unique within the launch
    targets: tuple[Target, ...]
    config: JobConfig
    needs: tuple[str, ...] = ()  # ids of jobs of the launch without which it is pointless

    @property
    def module(self) -> str:
        """The module of `spark_jobs`."""
        return self.config.module

    @property
    def arguments(self) -> list[str]:
        """What to type after `python -m spark_jobs.MODULE` to run it by hand."""
        return self.config.arguments

    def as_json(self) -> dict[str, Any]:
        """The job as `python -m spark_jobs` takes it."""
        config = self.config.model_dump(mode="json")
        return {"id": self.id, "module": self.module, "config": config, "needs": list(self.needs)}


@dataclass(frozen=True)
class Report:
    """What a job reports: that an output folder is finished (with its manifest), that it ended, or why it failed."""

    job: str  # its id
    event: Literal["output", "done", "failed"]
    folder: str = ""
    manifest: dict[str, Any] | None = None
    error: str = ""
    launch: dict[str, Any] = field(default_factory=dict)  # facts of where it ran, by name, from the launcher


class LaunchFailed(Exception):
    """A launch ended before all its jobs had their turn; what they had reported until then stands."""


class Launcher(dg.ConfigurableResource[None], ABC):
    """Runs the jobs of a launch in one place.

    The assets know this interface only, so where jobs run is configuration.
    """

    reaches_folders: ClassVar[bool] = True  # of this machine; else the root must be on S3

    @abstractmethod
    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        """Run `python -m spark_jobs` with these jobs somewhere, and yield what each reports, as it reports it.

        A job that fails is a report, not an exception: the others have their turn. What jobs log goes to the run's
        log. If the caller stops iterating, or is interrupted, what was launched is ended.

        Raises:
            LaunchFailed: The launch ended early; everything reported before was yielded.
        """


def refuse_local_engine(jobs: Sequence[Job]) -> None:
    """Refuse jobs on a Spark cluster that ask for the engine of one machine.

    Raises:
        LaunchFailed: One does.
    """
    for job in jobs:
        if job.config.engine.engine == "local":
            raise LaunchFailed(
                f"{job.id} asks for the engine local, which runs on one machine, and this launcher's is a Spark"
                " cluster. Choose the engine spark: --engine, `engine` in the run's config, or"
                " AUDIENCE_EXPLORER_ENGINE for all runs; or the launcher local or ec2: AUDIENCE_EXPLORER_LAUNCHER."
            )


def pipes_context(context: dg.OpExecutionContext, jobs: Sequence[Job]) -> PipesContextData:
    """The Pipes context in which `python -m spark_jobs` finds its jobs."""
    return {
        "asset_keys": None,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": context.run.run_id,
        "job_name": context.run.job_name,
        "retry_number": context.retry_number,
        "extras": pipes_extras(jobs),
    }


def pipes_extras(jobs: Sequence[Job]) -> dict[str, Any]:
    """What `python -m spark_jobs` finds in its Pipes context."""
    return {"jobs": [job.as_json() for job in jobs]}


def receive(context: dg.OpExecutionContext, message: dict[str, Any]) -> Report | None:
    """Take one message of the Pipes protocol: logs go to the run's log, a job's report is given back."""
    method, params = message["method"], message["params"] or {}
    if method == "log":
        context.log.log(logging.getLevelName(params["level"]), params["message"])
    elif method == "report_custom_message":
        return Report(**params["payload"])
    return None
