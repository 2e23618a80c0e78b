"""What a run records while it lasts and in the end; see also `tests/test_recorder.py`."""

import logging
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.launchers import Report
from audience_explorer_dagster.planning import AUDIENCE_REPORT, Target
from audience_explorer_dagster.planning.decisions import Impossible, Reuse
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records import asset_checks, metadata
from audience_explorer_dagster.running import recording
from audience_explorer_dagster.store import Store
from tests.test_recorder import CLUSTERS, INPUTS, TEA, Context, compute, context, record, recorder, store

__all__ = ["context", "store"]  # fixtures


def test_what_a_run_means_to_make_is_on_record_while_it_lasts_and_what_it_cannot_make_too() -> None:
    reported: list[tuple[Any, str, int]] = []
    step = SimpleNamespace(step=SimpleNamespace(key="month"))
    given: Any = SimpleNamespace(
        **{"job_name": "whole_month", "run_id": "run-1", "get_step_execution_context": lambda: step},
        instance=SimpleNamespace(report_dagster_event=lambda *of: reported.append(of)),
    )
    recording.record_intent(given, Plan({CLUSTERS: compute(), INPUTS: Impossible("no")}))
    assert [(run, level) for _, run, level in reported] == [("run-1", logging.DEBUG)] * 2
    events = [event for event, _, _ in reported]
    assert {event.event_type for event in events} == {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED}
    assert [(event.asset_key, event.partition) for event in events] == [
        (dg.AssetKey(CLUSTERS.asset), TEA.key),
        (dg.AssetKey(INPUTS.asset), TEA.key),
    ]
    assert {(event.job_name, event.step_key) for event in events} == {("whole_month", "month")}


def test_an_output_that_is_what_was_asked_for_is_recorded_with_where_it_was_made(
    context: Context, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    details = {"fingerprint": "f", "checks": dg.MetadataValue.json({})}
    monkeypatch.setattr(recording.metadata, "of_computed", lambda *of: asked.append(of) or dict(details))
    made = recorder(context, store, {INPUTS: compute("f")})
    folder = f"{store.outputs(INPUTS.asset, TEA)}/a"
    manifest = {"fingerprint": "f"}
    assert made.accept(INPUTS, compute("f"), Report("job", "output", folder, manifest, launch={"id": "l"})) is None
    assert asked == [(INPUTS.asset, folder, store, manifest, {"id": "l"})]
    (event,) = context.events
    assert (event.asset_key, event.partition) == (dg.AssetKey(INPUTS.asset), TEA.key)
    now = store.current(INPUTS.asset, TEA)
    assert now is not None
    assert (now.folder, now.fingerprint) == (folder, "f")


def test_a_report_says_where_it_is(context: Context, store: Store) -> None:
    target = Target(AUDIENCE_REPORT, TEA)
    known = record(store, target, inputs=dg.MetadataValue.json(["f-own", "other"]))
    recorder(context, store, {target: Reuse(known)}).reuse(target, known)
    assert str(context.events[-1].metadata[metadata.REPORT].value).startswith(known.folder)


def test_how_the_months_look_now_is_recorded_of_what_is_current(
    context: Context, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(recording.trends, "record_trends", lambda *of: asked.append(of))
    made = recorder(context, store, {})
    made.current[TEA] = "folder"
    made.record_trends()
    assert asked == [(context.instance, store, {TEA: "folder"})]


@pytest.mark.parametrize(
    ("severity", "level"),
    [(dg.AssetCheckSeverity.WARN, logging.WARNING), (dg.AssetCheckSeverity.ERROR, logging.ERROR)],
)
def test_a_check_that_failed_is_logged_as_what_it_is(
    context: Context, store: Store, monkeypatch: pytest.MonkeyPatch, severity: dg.AssetCheckSeverity, level: int
) -> None:
    monkeypatch.setattr(asset_checks, "severity", lambda _: severity)
    made = recorder(context, store, {})
    made.storage_ids[INPUTS] = 7
    failed = {"passed": False, "found": {}, "why": "two are wrong"}
    made.recorded[INPUTS.asset][TEA] = {metadata.CHECKS: dg.MetadataValue.json({"schema": failed})}
    made.record_checks()
    says = f"{INPUTS.asset}: check schema failed for 1 of 1 partitions: tea|2024-01: two are wrong"
    assert (str(level), says) in context.said
