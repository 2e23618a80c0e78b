"""What an attempt of a run finished and was killed before it was on record: by which later attempt it is taken."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest

from audience_explorer_dagster.launchers import Job, Launcher, Report
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Target
from audience_explorer_dagster.records import metadata
from audience_explorer_dagster.records.attempts import Attempt, HistoryWithAttempts
from audience_explorer_dagster.records.history import History
from audience_explorer_dagster.running import materializing
from audience_explorer_dagster.store import Store
from spark_jobs import outputs
from tests.jobs import kmeans_job

TEA = Partition("2024-01", "tea")
EARLIER = [Attempt("run-2", "20240202T000000-run-2"), Attempt("run-1", "20240201T000000-run-1")]


class Outputs:
    """Outputs of attempts, by the names of their folders: each with its fingerprint, or None if it is unfinished."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.root, self.by_name = root, dict[str, str | None]()
        self.recorded: str | None = None
        monkeypatch.setattr(outputs, "is_finished", lambda folder: self._fingerprint(folder) is not None)
        monkeypatch.setattr(outputs, "read_manifest", lambda folder, _: self._manifest(folder))
        monkeypatch.setattr(metadata, "of_computed", lambda *_: {})
        monkeypatch.setattr(History, "__init__", lambda history, *_: setattr(history, "store", Store(root=str(root))))
        monkeypatch.setattr(History, "reusable", lambda *_: self.recorded)

    def _fingerprint(self, folder: str) -> str | None:
        return self.by_name.get(Path(folder).name)

    def _manifest(self, folder: str) -> dict[str, Any]:
        return {"fingerprint": self._fingerprint(folder), "inputs": ["i"], "created_at": "2024-02-03T00:00:00+00:00"}

    def reusable(self, fingerprint: str) -> Any:
        found: Any = HistoryWithAttempts(
            cast(Any, None), Store(root=str(self.root)), "kmeans", [TEA], EARLIER
        ).reusable(TEA, fingerprint)
        return found


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outputs:
    return Outputs(tmp_path, monkeypatch)


def test_what_an_earlier_attempt_finished_is_taken_and_said_to_be_off_the_record(made: Outputs) -> None:
    made.by_name = {EARLIER[1].folder_name: "f"}
    found = made.reusable("f")
    assert found.folder == f"{made.root}/kmeans/month=2024-01/category=tea/{EARLIER[1].folder_name}"
    assert (found.run_id, found.fingerprint, found.inputs, found.on_record) == ("run-1", "f", ("i",), False)


def test_of_two_attempts_the_newest_is_taken(made: Outputs) -> None:
    made.by_name = {attempt.folder_name: "f" for attempt in EARLIER}
    assert made.reusable("f").run_id == "run-2"


def test_an_attempts_output_with_another_fingerprint_is_not_taken(made: Outputs) -> None:
    made.by_name = {EARLIER[0].folder_name: "another", EARLIER[1].folder_name: None}
    assert made.reusable("f") is None


def test_what_is_on_record_comes_first(made: Outputs) -> None:
    made.by_name = {EARLIER[0].folder_name: "f"}
    made.recorded = "on record"
    assert made.reusable("f") == "on record"


# --- what a launch reports, and was not asked for


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
