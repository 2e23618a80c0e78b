"""What a run records of each target: against Dagster's events, without its database."""

from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.launchers import Report
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, CLUSTERING_INPUTS, KMEANS, SEGMENTS, Target
from audience_explorer_dagster.planning.decisions import Compute, Decision, Impossible, Reuse
from audience_explorer_dagster.planning.plan import Plan
from audience_explorer_dagster.records import asset_checks, metadata
from audience_explorer_dagster.records.history import Record, as_record
from audience_explorer_dagster.running import recording
from audience_explorer_dagster.running.recording import Recorder
from audience_explorer_dagster.store import OWN, Store
from spark_jobs.config import ClusteringInputsConfig, KMeansConfig
from spark_jobs.job_configs import KMeans

TEA, BEFORE = Partition("2024-01", "tea"), Partition("2023-12", "tea")
CLUSTERS, INPUTS = Target(KMEANS, TEA), Target(CLUSTERING_INPUTS, TEA)


class Context:
    """Of a run: keeps what is logged, and has no database."""

    run_id = "run-1"

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.said: list[tuple[str, str]] = []
        self.instance = SimpleNamespace(get_materialized_partitions=lambda _: set())
        self.log = SimpleNamespace(
            info=lambda text: self.said.append(("info", text)),
            warning=lambda text: self.said.append(("warning", text)),
            log=lambda level, text: self.said.append((str(level), text)),
        )

    def log_event(self, event: Any) -> None:
        self.events.append(event)


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(recording, "storage_ids", lambda _, asset, wanted: {wanted[0]: len(asset)})
    monkeypatch.setattr(recording.data_versions, "tags", lambda *_: {"tag": "t"})
    monkeypatch.setattr(recording.variants, "beside", lambda _h, _p, _d, current: {"current": current.folder})
    return Context()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path))


class OnRecord:
    """The history of an asset: its newest record of any partition."""

    def __init__(self, newest: Record | None = None):
        self._newest = newest

    def newest(self, _: Partition) -> Record | None:
        return self._newest


def record(store: Store, target: Target, name: str = "a", **details: Any) -> Record:
    """A made-up record."""
    config = KMeansConfig() if target.asset == KMEANS else ClusteringInputsConfig()
    known: dict[str, Any] = {
        "fingerprint": f"f-{name}",
        "folder": dg.MetadataValue.path(f"{store.outputs(target.asset, target.partition)}/{name}"),
        "config": dg.MetadataValue.json(config.model_dump(mode="json")),
        "inputs": dg.MetadataValue.json(["i"]),
        "min_people": 10,
        "users": 1000,
        "sizes": dg.MetadataValue.text("600, 400"),
        "checks": dg.MetadataValue.json({"schema": {"passed": True, "found": {}, "why": ""}}),
    }
    event = dg.AssetMaterialization(target.asset, partition=target.partition.key, metadata={**known, **details})
    made = as_record(event, "earlier", datetime(2024, 2, 1, tzinfo=timezone.utc), store)
    assert made is not None
    return made


def recorder(
    context: Context, store: Store, decisions: dict[Target, Decision], records: Any = None, **plan: Any
) -> Recorder:
    given: Any = context
    return Recorder(given, store, Plan(decisions, **plan), records or {KMEANS: OnRecord()}, 0.5)


def compute(fingerprint: str = "f") -> Compute:
    return Compute(fingerprint, "x", "never made", (), KMeans(inputs="i", output="x", config=KMeansConfig(k=6)))


def test_an_output_that_was_made_from_something_else_is_refused_and_not_recorded(
    context: Context, store: Store
) -> None:
    made = recorder(context, store, {CLUSTERS: compute()})
    report = Report(f"{KMEANS} tea", "output", "x", {"fingerprint": "other"})
    assert made.accept(CLUSTERS, compute("f"), report) == (
        "its input changed between planning and reading. Run it again."
    )
    assert (context.events, made.recorded, made.storage_ids) == ([], {}, {})
    assert store.current(KMEANS, TEA) is None


def test_what_is_reused_is_recorded_at_once_made_current_and_known_for_what_follows(
    context: Context, store: Store
) -> None:
    known = record(store, INPUTS)
    made = recorder(context, store, {INPUTS: Reuse(known)}, label="x")
    made.reuse(INPUTS, known)
    (event,) = context.events
    assert (event.asset_key, event.partition, event.tags) == (dg.AssetKey(CLUSTERING_INPUTS), TEA.key, {"tag": "t"})
    assert (event.metadata["fingerprint"].value, event.metadata["reused"].value) == ("f-a", True)
    assert "label" not in event.metadata, "it is the clusterings that have one"
    assert made.recorded[CLUSTERING_INPUTS][TEA] == event.metadata
    assert made.storage_ids == {INPUTS: len(CLUSTERING_INPUTS)}
    now = store.current(CLUSTERING_INPUTS, TEA)
    assert now is not None
    assert (now.folder, now.fingerprint, now.why) == (known.folder, "f-a", OWN)
    assert (made.current, made.standings) == ({}, {}), "that is of clusterings"


@pytest.mark.parametrize("promote", [False, True])
def test_a_clustering_with_a_label_stands_beside_unless_it_is_promoted(
    context: Context, store: Store, promote: bool
) -> None:
    own, other = record(store, CLUSTERS, "own"), record(store, CLUSTERS, "other")
    first_run = recorder(context, store, {CLUSTERS: Reuse(own)})
    first_run.reuse(CLUSTERS, own)
    assert first_run.standings == {}, "it is simply current"
    Path(own.folder).mkdir(parents=True)
    Path(own.folder, "manifest.json").write_text('{"step": "kmeans", "fingerprint": "", "files": [], "summary": {}}')
    made = recorder(context, store, {CLUSTERS: Reuse(other)}, label="x", promote=promote)
    made.reuse(CLUSTERS, other)
    first, second = (event.metadata for event in context.events)
    assert first["standing"].value == f"current: {OWN}"
    assert "promoted" not in first
    expected = "promoted: by run run-1" if promote else "beside own: label x"
    assert (second["standing"].value, second["label"].value) == (expected, "x")
    assert ("promoted" in second) is promote
    assert made.current == {TEA: (other if promote else own).folder}
    assert made.standings == {expected: [CLUSTERS]}
    made.log_standings()
    assert context.said == [("info", f"{KMEANS} tea|2024-01: {expected}")]


def test_a_clustering_is_its_own_only_if_what_it_was_made_from_is(context: Context, store: Store) -> None:
    config = dg.MetadataValue.json(ClusteringInputsConfig(scaling="none").model_dump(mode="json"))
    inputs, clusters = record(store, INPUTS, config=config), record(store, CLUSTERS)
    why = "scaling none (the deployment's own: loglog,idf,l2)"
    for decisions, records in (
        ({CLUSTERS: Reuse(clusters), INPUTS: Reuse(inputs)}, {KMEANS: OnRecord()}),
        ({CLUSTERS: Reuse(clusters)}, {KMEANS: OnRecord(), CLUSTERING_INPUTS: OnRecord(inputs)}),
    ):
        assert recorder(context, store, decisions, records)._foreign_parameters(CLUSTERS) == why  # type: ignore[arg-type]
    made = recorder(context, store, {CLUSTERS: compute()}, {KMEANS: OnRecord(), CLUSTERING_INPUTS: OnRecord()})
    assert made._foreign_parameters(CLUSTERS) == "k 6 (the deployment's own: not given)"
    pinned = recorder(context, store, {CLUSTERS: compute()}, pinned={TEA: 6})
    assert pinned._foreign_parameters(CLUSTERS) == "", "people said it for all"


def test_a_clustering_names_its_report_where_there_will_be_one(context: Context, store: Store) -> None:
    clusters, report = record(store, CLUSTERS), Target(AUDIENCE_REPORT, TEA)
    there = Compute("f", f"{store.root}/report/x", "", (), KMeans(inputs="i", output="x", config=KMeansConfig(k=2)))
    for decision, named in ((None, False), (Impossible("no"), False), (there, True)):
        decisions: dict[Target, Decision] = {CLUSTERS: Reuse(clusters)}
        if decision is not None:
            decisions[report] = decision
        recorder(context, store, decisions).reuse(CLUSTERS, clusters)
        shown = context.events[-1].metadata
        assert (metadata.REPORT in shown) is named
    assert str(shown[metadata.REPORT].value).startswith(f"{store.root}/report/x/")


def test_segments_are_current_while_their_clusters_are_and_have_the_runs_label(context: Context, store: Store) -> None:
    segments = Target(SEGMENTS, TEA)
    known = record(store, segments, inputs=dg.MetadataValue.json(["f-own", "other"]))
    own = record(store, CLUSTERS, "own")
    made = recorder(context, store, {segments: Reuse(known)}, label="x")
    made.reuse(segments, known)
    assert store.current(SEGMENTS, TEA) is None
    recorder(context, store, {CLUSTERS: Reuse(own)}).reuse(CLUSTERS, own)
    made.reuse(segments, known)
    now = store.current(SEGMENTS, TEA)
    assert now is not None
    assert (now.folder, now.fingerprint) == (known.folder, known.fingerprint)
    assert context.events[-1].metadata["label"].value == "x"
    assert metadata.REPORT not in context.events[-1].metadata


def test_a_month_is_compared_with_the_one_before_in_this_run_or_else_on_record(
    context: Context, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_record = record(store, Target(KMEANS, BEFORE), users=100, sizes=dg.MetadataValue.text("60, 40"))
    monkeypatch.setattr(recording, "History", lambda *_: OnRecord(on_record))
    january = record(store, CLUSTERS)

    def drift(made: Recorder) -> dict[str, Any]:
        made.reuse(CLUSTERS, january)
        found: dict[str, Any] = context.events[-1].metadata["checks"].value
        assert found["schema"]["passed"]
        return dict(found[asset_checks.DRIFT])

    assert drift(recorder(context, store, {CLUSTERS: Reuse(january)}))["passed"], "there is no month before"
    context.instance.get_materialized_partitions = lambda _: {BEFORE.key}
    too_much = drift(recorder(context, store, {CLUSTERS: Reuse(january)}))
    assert (too_much["passed"], too_much["found"]["users"]) == (False, "100 → 1,000")
    both = recorder(context, store, {CLUSTERS: Reuse(january)})
    both.recorded[KMEANS][BEFORE] = dict(record(store, Target(KMEANS, BEFORE), users=900).metadata)
    assert drift(both)["found"]["users"] == "900 → 1,000", "that of this run is newer"


def test_the_index_is_written_for_reports_and_for_clusters_and_not_for_what_comes_before(
    context: Context, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Store] = []
    monkeypatch.setattr(recording, "keep_index_current", lambda where, _: written.append(where))
    for asset, times in ((CLUSTERING_INPUTS, 0), (SEGMENTS, 0), (KMEANS, 1), (AUDIENCE_REPORT, 2)):
        made = recorder(context, store, {})
        made.recorded[asset][TEA] = {}
        made.write_index()
        assert written == [store] * times


def test_checks_are_recorded_of_all_and_those_that_failed_are_in_the_log(context: Context, store: Store) -> None:
    failed = {"passed": False, "found": {}, "why": "two are wrong"}
    known = record(store, INPUTS, checks=dg.MetadataValue.json({"schema": failed}))
    made = recorder(context, store, {INPUTS: Reuse(known)})
    made.reuse(INPUTS, known)
    made.record_checks()
    evaluations = {event.check_name: event for event in context.events[1:]}
    assert (evaluations["schema"].passed, evaluations["schema"].partition) == (False, TEA.key)
    target = evaluations["schema"].target_materialization_data
    assert (target.storage_id, target.run_id) == (len(CLUSTERING_INPUTS), "run-1")
    says = f"{CLUSTERING_INPUTS}: check schema failed for 1 of 1 partitions: tea|2024-01: two are wrong"
    assert ("40", says) in context.said, "as an error"


@pytest.mark.parametrize(("partitions", "wanted"), [([TEA.key], [TEA.key]), ([], [BEFORE.key, TEA.key])])
def test_checks_that_a_run_is_for_are_recorded_again_of_its_partitions_or_of_all(
    context: Context, store: Store, monkeypatch: pytest.MonkeyPatch, partitions: list[str], wanted: list[str]
) -> None:
    monkeypatch.setattr(recording, "storage_ids", lambda _i, _a, of: dict.fromkeys(of, 7))
    monkeypatch.setattr(recording, "History", lambda *_: OnRecord(record(store, INPUTS)))
    context.instance.get_materialized_partitions = lambda _: {TEA.key, BEFORE.key}
    given: Any = context
    given.has_partition_key, given.has_partition_key_range = bool(partitions), False
    given.partition_keys = partitions
    given.selected_asset_check_keys = {dg.AssetCheckKey(dg.AssetKey(CLUSTERING_INPUTS), "schema")}
    recording.record_checks_again(given, store)
    assert [(event.check_name, event.partition, event.passed) for event in context.events] == [
        ("schema", key, True) for key in wanted
    ]
    assert {event.target_materialization_data.storage_id for event in context.events} == {7}


@pytest.mark.parametrize("published", [True, False])
def test_what_earlier_versions_found_is_published_before_it_is_recorded_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    known = record(store, INPUTS)
    if not published:
        del known.metadata["min_people"]
    rounded = {"schema": {"passed": True, "found": {}, "why": "rounded"}}
    monkeypatch.setattr(recording.people, "checks", lambda *_: rounded)
    monkeypatch.setattr(recording, "storage_ids", lambda _i, _a, of: dict.fromkeys(of, 7))
    monkeypatch.setattr(recording, "History", lambda *_: OnRecord(known))
    nothing: Any = None
    evaluations = {e.check_name: e for e in recording.evaluations_on_record(nothing, store, CLUSTERING_INPUTS, [TEA])}
    assert ("rounded" in str(evaluations["schema"])) is not published
