"""What was made and is not on record, and what is on record and was not made: earlier attempts, reports by hand."""

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records import metadata
from audience_explorer_dagster.records.attempts import Attempt, HistoryWithAttempts, attempts_of
from audience_explorer_dagster.records.history import History, located, newest_of_asset
from audience_explorer_dagster.store import Store
from spark_jobs import outputs
from spark_jobs.config import KMeansConfig
from spark_jobs.reporting import Reporter
from tests.project import LAUNCHES, Project

pytestmark = pytest.mark.filterwarnings("ignore")

TEA = Partition("2024-01", "tea")


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as nothing_on_record:
        yield nothing_on_record


def finish(store: Store, name: str, fingerprint: str) -> str:
    """Make a finished output of kmeans; its folder."""
    folder = f"{store.outputs('kmeans', TEA)}/{name}"
    of = {"config": KMeansConfig(k=2), "inputs": ["i", "j"], "fingerprint": fingerprint}
    with outputs.writing("kmeans", "1", folder, Reporter(), **of) as made:
        made.complete(rows={}, summary={})
    return folder


def test_of_an_earlier_attempt_only_a_finished_output_with_the_same_fingerprint_is_reused(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "of_computed", lambda *_: {})
    store = Store(root=str(tmp_path))
    folder = finish(store, "first", "asked for")
    finish(store, "second", "other")
    (Path(store.outputs("kmeans", TEA)) / "third").mkdir()
    earlier = [Attempt(f"run of {name}", name) for name in ("third", "second", "first")]
    history = HistoryWithAttempts(instance, store, "kmeans", [TEA], earlier)
    found = history.reusable(TEA, "asked for")
    assert found is not None
    assert (found.folder, found.run_id, found.inputs) == (folder, "run of first", ("i", "j"))
    assert found.fingerprint == "asked for"
    assert abs((datetime.now(timezone.utc) - found.recorded_at).total_seconds()) < 3600
    assert history.reusable(TEA, "changed since") is None
    assert history.newest(TEA) is None, "an attempt's output is on record only once it is reused"


def test_a_materialization_that_is_reported_by_hand_hides_no_record(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Dagster's UI has a dialog for it: such a report has no output."""
    store = Store(root=str(tmp_path))
    folder = finish(store, "first", "asked for")

    def report(asset: str, partition: str | None, **details: Any) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, metadata=details))

    report("kmeans", TEA.key, fingerprint="asked for", **located(folder, store))
    report("kmeans", TEA.key, note="I made it on my laptop")
    report("kmeans", TEA.key, fingerprint="of nothing")
    report("kmeans", TEA.key, **located(folder, store))
    report("kmeans", None, fingerprint="of no partition", **located(folder, store))
    history = History(instance, store, "kmeans", [TEA])
    assert [(record.folder, record.fingerprint) for record in history.all(TEA)] == [(folder, "asked for")]
    reusable = history.reusable(TEA, "asked for")
    assert reusable is not None
    assert reusable.folder == folder
    assert [record.fingerprint for record in newest_of_asset(instance, store, "kmeans", 10)] == ["asked for"]


def test_the_attempts_of_a_run_are_its_own_and_those_of_the_runs_it_repeats_the_newest_first() -> None:
    parents, resumed = {"c" * 9: "b" * 9, "b" * 9: "a" * 9, "a" * 9: None}, {"c" * 9: 1, "b" * 9: 0, "a" * 9: 2}

    def record_of(run_id: str) -> Any:
        tags = {"dagster/parent_run_id": parents[run_id]} if parents.get(run_id) else {}
        created = datetime(2024, 3, 1, 4, 5, 6, tzinfo=timezone.utc)
        return SimpleNamespace(create_timestamp=created, dagster_run=SimpleNamespace(tags=tags))

    known: Any = SimpleNamespace(
        get_run_record_by_id=lambda run_id: record_of(run_id) if run_id in parents else None,
        count_resume_run_attempts=lambda run_id: resumed[run_id],
    )
    run: Any = SimpleNamespace(run_id="c" * 9)
    newest, earlier = attempts_of(known, run)
    names = ["cccccccc-1", "cccccccc", "bbbbbbbb", "aaaaaaaa-2", "aaaaaaaa-1", "aaaaaaaa"]
    assert [attempt.folder_name for attempt in (newest, *earlier)] == [f"20240301T040506-{name}" for name in names]
    assert [attempt.run_id[0] for attempt in (newest, *earlier)] == list("ccbaaa")
    del parents["a" * 9]  # its run was deleted
    assert attempts_of(known, run)[1] == earlier[:2]


def killed(project: Project, monkeypatch: pytest.MonkeyPatch, **config: Any) -> dict[str, str]:
    """Run a month, and kill the run once its jobs are done and before that is on record; the tags of a retry."""

    def die(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("audience_explorer_dagster.running.recording.Recorder.accept", die)
        assert not project.run_month("2024-01", categories=["tea"], **config).success
    lost = project.instance.get_runs(limit=1)[0]
    return {"dagster/parent_run_id": lost.run_id, "dagster/root_run_id": lost.run_id}


def test_what_a_killed_attempt_computed_is_promoted_if_its_run_asks_for_that_and_else_takes_no_promotion_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run_month("2024-01", categories=["tea"])
    asked = {"kmeans": {"k": 1, "label": "one"}, "promote": True}
    retry = killed(project, monkeypatch, **asked)
    assert project.run_month("2024-01", tags=retry, categories=["tea"], **asked).success
    assert LAUNCHES == []
    current = project.store.current("kmeans", TEA)
    assert current is not None
    assert current.promoted
    assert current.folder.endswith(retry["dagster/parent_run_id"][:8])

    again = {"kmeans": {"k": 2}}
    retry = killed(project, monkeypatch, **again)
    assert project.run_month("2024-01", tags=retry, categories=["tea"], **again).success
    assert LAUNCHES == []
    assert project.store.current("kmeans", TEA) == current
    newest = project.records("kmeans", TEA.key)[0]
    assert newest["folder"].endswith(retry["dagster/parent_run_id"][:8])
    assert newest["standing"].startswith("beside ")
