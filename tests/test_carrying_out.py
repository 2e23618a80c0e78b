"""Carrying a plan out, without Dagster and without jobs: what is recorded, logged and said in the end."""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.launchers import Job, LaunchFailed, Report
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Target
from audience_explorer_dagster.planning.decisions import Compute, Impossible
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records import metadata
from audience_explorer_dagster.running import materializing
from spark_jobs.config import KMeansConfig
from spark_jobs.job_configs import KMeans

TEA, COFFEE = (Target(KMEANS, Partition("2024-01", name)) for name in ("tea", "coffee"))
CLOSING = ["log_standings", "record_checks", "record_trends", "write_index"]


class Recorder:
    """Keeps what it is asked to do; the outputs of some folders are not what was asked for."""

    def __init__(self, *refused: str):
        self.refused = refused
        self.done: list[str] = []

    def accept(self, target: Target, _: Compute, report: Report) -> str | None:
        if report.folder in self.refused:
            return "its input changed"
        self.done.append(f"accept {target}")
        return None

    def __getattr__(self, name: str) -> Any:
        return lambda: self.done.append(name)


class Launcher:
    """Reports what it is given, and then fails if it is given why; it knows whether it was ended."""

    def __init__(self, *reports: Report, failure: str = ""):
        self.reports = reports
        self.failure = failure
        self.ended = False

    def launch(self, _context: Any, _jobs: Sequence[Job]) -> Iterator[Report]:
        try:
            yield from self.reports
            if self.failure:
                raise LaunchFailed(self.failure)
        finally:
            self.ended = True


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, level: str) -> Any:
        return lambda text: self.said.append(f"{level}: {text}")


def compute(folder: str) -> Compute:
    return Compute("f", folder, "never made", (), KMeans(inputs="i", output=folder, config=KMeansConfig(k=2)))


BOTH = {TEA: compute("t"), COFFEE: compute("c")}


def output(folder: str) -> Report:
    return Report(f"kmeans {folder}", "output", folder, {})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def carry_out(monkeypatch: pytest.MonkeyPatch, log: Log) -> Any:
    """Carry decisions out, with a launcher and a recorder."""
    monkeypatch.setattr(materializing.adoption, "what_is_not_on_record", lambda *_: "")
    context: Any = SimpleNamespace(log=log, instance=SimpleNamespace(root_directory="/home"))

    def run(decisions: dict[Target, Any], launcher: Any, recorder: Any) -> None:
        monkeypatch.setattr(materializing, "Recorder", lambda *_: recorder)
        materializing.carry_out(context, Plan(decisions), launcher, None, {})  # type: ignore[arg-type]

    return run


def test_each_output_is_recorded_as_it_is_reported_and_the_log_counts_them(carry_out: Any, log: Log) -> None:
    recorder, launcher = Recorder(), Launcher(output("c"), output("t"), Report("kmeans c", "done"))
    carry_out(BOTH, launcher, recorder)
    assert recorder.done == [f"accept {COFFEE}", f"accept {TEA}", *CLOSING]
    assert log.said[-2:] == [f"info: {COFFEE}: done, 1 of 2", f"info: {TEA}: done, 2 of 2"]
    assert launcher.ended


def test_a_failure_names_what_is_not_done_and_says_whether_the_others_are(carry_out: Any, log: Log) -> None:
    gone = {TEA: Impossible("tea.json does not exist")}
    with pytest.raises(dg.Failure) as failed:
        carry_out({**BOTH, **gone}, Launcher(output("c")), Recorder())
    assert failed.value.description == (
        f"1 of 2 partitions failed; the others are done. [{TEA}] tea.json does not exist"
    )
    assert failed.value.metadata == metadata.of_failures({TEA: "tea.json does not exist"})
    assert not failed.value.allow_retries
    assert log.said[0] == f"error: [{TEA}] tea.json does not exist"

    launcher = Launcher()
    with pytest.raises(dg.Failure) as failed:
        carry_out(gone, launcher, Recorder())
    assert failed.value.description == f"1 of 1 partitions failed. [{TEA}] tea.json does not exist"
    assert not launcher.ended, "there was nothing to launch"


def test_where_nothing_is_impossible_no_error_is_logged(carry_out: Any, log: Log) -> None:
    carry_out({TEA: compute("t")}, Launcher(output("t")), Recorder())
    assert [text.split(":")[0] for text in log.said] == ["info", "info"]
    assert log.said[0].endswith(": never made; into t")


def test_an_output_that_is_not_what_was_asked_for_fails_and_is_not_counted_as_done(carry_out: Any, log: Log) -> None:
    with pytest.raises(dg.Failure, match=r"1 of 2 partitions failed; .*coffee\|2024-01\] its input changed"):
        carry_out(BOTH, Launcher(output("c"), output("t")), Recorder("c"))
    assert log.said[-1] == f"info: {TEA}: done, 1 of 2"
    assert not any(str(COFFEE) in text and "done" in text for text in log.said)


def test_what_a_job_does_not_make_fails_for_the_jobs_reason_or_else_the_launchs(carry_out: Any) -> None:
    own = Report(f"kmeans {TEA.partition}", "failed", error="out of memory")
    for launcher, of_coffee in (
        (Launcher(own), "its job ended without making it"),
        (Launcher(own, Report(f"kmeans {COFFEE.partition}", "done")), "its job ended without making it"),
        (Launcher(own, failure="the instance is gone"), "the instance is gone"),
    ):
        with pytest.raises(dg.Failure) as failed:
            carry_out(BOTH, launcher, Recorder())
        assert failed.value.metadata == metadata.of_failures({TEA: "out of memory", COFFEE: of_coffee})


def test_a_launch_that_fails_in_the_end_fails_and_is_not_tried_again_by_itself(carry_out: Any) -> None:
    with pytest.raises(dg.Failure, match=r"All partitions are done .* but their launch failed: gone") as failed:
        carry_out({TEA: compute("t")}, Launcher(output("t"), failure="gone"), Recorder())
    assert not failed.value.allow_retries


def test_whatever_happens_the_launch_is_ended_and_what_is_done_gets_its_checks(carry_out: Any) -> None:
    class Interrupted(Recorder):
        def accept(self, target: Target, computation: Compute, report: Report) -> str | None:
            if report.folder == "c":
                raise KeyboardInterrupt
            return super().accept(target, computation, report)

    recorder, launcher = Interrupted(), Launcher(output("t"), output("c"))
    with pytest.raises(KeyboardInterrupt):
        carry_out(BOTH, launcher, recorder)
    assert recorder.done == [f"accept {TEA}", *CLOSING]
    assert launcher.ended
