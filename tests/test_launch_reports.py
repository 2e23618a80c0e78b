"""What a launch reports, and was not asked for."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg

from audience_explorer_dagster.launchers import Job, Launcher, Report
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Target
from audience_explorer_dagster.running import materializing
from tests.jobs import kmeans_job

TEA = Partition("2024-01", "tea")


class Scripted(Launcher):
    """A launcher whose launch reports what a test wrote down."""

    def launch(self, context: Any, jobs: Any) -> Iterator[Report]:  # type: ignore[override]  # noqa: ARG002
        yield from context.reports


def test_a_message_of_another_launch_is_ignored_and_logged_and_all_else_goes_on() -> None:
    errors: list[str] = []
    accepted: list[str] = []
    target = Target(KMEANS, TEA)
    job: Job = kmeans_job("a")
    reports = [Report("a", "output", "of another"), Report("a", "output", "own"), Report("a", "output", "own")]
    log = SimpleNamespace(error=errors.append, info=lambda _: None)
    context = SimpleNamespace(reports=reports, log=log)
    plan = SimpleNamespace(computed={target: SimpleNamespace(folder="own")}, jobs=[job])
    recorder = SimpleNamespace(accept=lambda _, __, report: accepted.append(report.folder) or "")
    launched: dict[Target, str] = materializing._launch(
        cast(dg.OpExecutionContext, context), cast(Any, plan), Scripted(), cast(Any, recorder)
    )
    assert (accepted, launched) == (["own"], {})
    assert [text.partition(" ")[0] for text in errors] == ["of", "own"]
