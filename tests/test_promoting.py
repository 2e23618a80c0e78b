"""What a promotion, and the end of one, make current and record: without Dagster's database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, GROUPED_USERS, KMEANS, SEGMENTS, Target
from audience_explorer_dagster.records import metadata, standing, variants
from audience_explorer_dagster.records.history import History, Record, as_record
from audience_explorer_dagster.records.variants import Choice, Tweak, histories_of, promote
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.store import OWN, Current, Store
from spark_jobs.config import KMeansConfig
from spark_jobs.errors import InputError

TEA = Partition("2024-01", "tea")
START = datetime(2024, 2, 1, tzinfo=timezone.utc)
INSTANCE: Any = object()  # which nothing may ask here


class Known(History):
    """The history of an asset with given records, the newest first."""

    def __init__(self, store: Store, asset: str, *known: Record):
        self.store, self.asset, self.given = store, asset, known

    def all(self, partition: Partition) -> Iterator[Record]:
        assert partition.month == TEA.month
        return iter(self.given)


class Promoted:
    """A root with clusterings on record, and what a promotion makes of them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.store = Store(root=str(root))
        self.known: dict[str, list[Record]] = {asset: [] for asset in standing.steps_to(AUDIENCE_REPORT)}
        self.reported: list[dg.AssetMaterialization] = []
        self.tagged: list[Target] = []
        self.trends: list[dict[Partition, str]] = []
        monkeypatch.setattr(variants.data_versions, "tags", self._tags)
        monkeypatch.setattr(variants.trends, "record_trends", self._record_trends)

    def _tags(self, instance: Any, target: Target, details: Any, known: Any) -> dict[str, str]:
        assert (instance, known) == (INSTANCE, {})
        self.tagged.append(target)
        return {"version": details["fingerprint"].value}

    def _record_trends(self, instance: Any, store: Store, current: dict[Partition, str]) -> None:
        assert (instance, store) == (INSTANCE, self.store)
        self.trends.append(current)

    def add(
        self, name: str, asset: str = KMEANS, inputs: tuple[str, ...] = (), *, there: bool = True, **details: Any
    ) -> Record:
        """Put an output on record, as the newest; its fingerprint is `f-` and its name."""
        folder = Path(self.store.outputs(asset, TEA), name)
        if there and not folder.exists():
            folder.mkdir(parents=True)
            manifest = f'{{"step": "{asset}", "fingerprint": "f-{name}", "files": [], "summary": {{}}}}'
            (folder / "manifest.json").write_text(manifest)
        config = KMeansConfig(k=details.pop("given_k", None)).model_dump(mode="json")
        values: dict[str, Any] = {
            **{"fingerprint": f"f-{name}", "folder": dg.MetadataValue.path(str(folder))},
            **{"inputs": dg.MetadataValue.json(list(inputs)), "min_people": 10, "users": 1000, "k": 3},
            **{"requested_k": 3, "sizes": dg.MetadataValue.text("600, 300, 100")},
            **({"config": dg.MetadataValue.json(config)} if asset == KMEANS else {}),
        }
        event = dg.AssetMaterialization(asset, partition=TEA.key, metadata={**values, **details})
        made = as_record(event, "earlier", START + timedelta(hours=len(self.known[asset])), self.store)
        assert made is not None
        self.known[asset].insert(0, made)
        return made

    def promote(self, **choice: Any) -> Tweak | None:
        histories = {asset: Known(self.store, asset, *known) for asset, known in self.known.items()}
        return promote(INSTANCE, self.store, TEA, histories, Choice(**choice), MonthRunConfig(), self.reported.append)

    def current(self, asset: str = KMEANS) -> Current | None:
        return self.store.current(asset, TEA)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Promoted:
    return Promoted(tmp_path, monkeypatch)


def plain(event: dg.AssetMaterialization) -> dict[str, Any]:
    """The metadata of an event as plain values."""
    return {name: getattr(value, "value", value) for name, value in event.metadata.items()}


# --- somebody names an output


def test_the_output_of_a_label_is_current_from_now_on_and_its_record_says_so(root: Promoted) -> None:
    six = root.add("six", label="six", given_k=6)
    root.add("own")
    now = root.promote(label="six")
    current = root.current()
    assert current is not None
    assert (current.folder, current.promoted, current.fingerprint) == (six.folder, True, "f-six")
    assert current.why.startswith("by a person, 20")
    assert current.why.endswith(" UTC")
    assert now is not None
    assert (now.folder, now.current, now.promoted) == (six.folder, True, True)
    (event,) = root.reported
    assert (event.asset_key, event.partition, event.tags) == (dg.AssetKey(KMEANS), TEA.key, {"version": "f-six"})
    said = plain(event)
    assert (said["label"], said["promoted"], said["reused"]) == ("six", True, True)
    assert (said["standing"], said["current"]) == (f"promoted: {current.why}", "six")
    assert (said["fingerprint"], said["folder"]) == ("f-six", root.store.place(six.folder))
    table: Any = event.metadata["tweaks"]
    assert [(row.data["folder"], row.data["current"]) for row in table.records] == [("own", ""), ("six", "promoted")]
    assert root.tagged == [Target(KMEANS, TEA)]
    assert root.trends == [{TEA: six.folder}]


def test_the_record_of_a_promotion_reads_from_what_people_come_for_to_what_machines_read(root: Promoted) -> None:
    root.add("a", label="x")
    root.promote(label="x")
    names = list(root.reported[0].metadata)
    assert names == list(metadata.in_reading_order(root.reported[0].metadata))
    assert names[:3] == ["standing", "label", "tweaks"]


@pytest.mark.parametrize(("labels", "said"), [((), None), (("old", "new"), "new"), (("only", None), "only")])
def test_an_output_that_is_named_by_its_folder_keeps_the_last_label_it_was_given(
    root: Promoted, labels: tuple[str | None, ...], said: str | None
) -> None:
    for label in labels or (None,):
        root.add("a", **({"label": label} if label else {}))
    root.promote(folder="a")
    assert plain(root.reported[0]).get("label") == said


def test_a_label_that_is_asked_for_is_the_records_though_the_output_was_given_a_newer_one(root: Promoted) -> None:
    root.add("a", label="old")
    root.add("a", label="new")
    root.promote(label="old")
    assert plain(root.reported[0])["label"] == "old"


def test_what_cannot_be_promoted_changes_nothing(root: Promoted) -> None:
    root.add("own")
    root.promote(folder="own")
    root.add("gone", there=False)
    before = root.current()
    for choice in ({"label": "none"}, {"folder": "gone"}, {"label": "a", "folder": "own"}, {}):
        with pytest.raises(InputError):
            root.promote(**choice)
    assert root.current() == before
    assert (len(root.reported), len(root.trends)) == (1, 1)


# --- somebody ends a promotion


def test_the_end_of_a_promotion_makes_the_newest_of_the_deployments_own_current(root: Promoted) -> None:
    root.add("older")
    own = root.add("own")
    root.add("gone", there=False)
    root.add("six", label="six", given_k=6)
    root.promote(label="six")
    now = root.promote(automatic=True)
    current = root.current()
    assert current is not None
    assert (current.folder, current.promoted, current.fingerprint, current.why) == (own.folder, False, "f-own", OWN)
    assert now is not None
    assert (now.folder, now.current, now.promoted) == (own.folder, True, False)
    said = plain(root.reported[-1])
    assert (said["standing"], said["fingerprint"]) == (f"current: {OWN}", "f-own")
    assert "promoted" not in said
    assert root.trends[-1] == {TEA: own.folder}


def test_the_end_of_a_promotion_gives_a_record_no_label(root: Promoted) -> None:
    root.add("own", label="x")
    root.add("own")  # again, by a run without one
    root.promote(label="x")
    root.promote(automatic=True)
    assert plain(root.reported[-1])["fingerprint"] == "f-own"
    assert "label" not in plain(root.reported[-1])


def test_what_was_promoted_stays_current_where_there_is_none_of_the_deployments_own(root: Promoted) -> None:
    six = root.add("six", label="six", given_k=6)
    root.add("report", AUDIENCE_REPORT, ("f-six",))
    root.promote(label="six")
    root.reported.clear()
    now = root.promote(automatic=True)
    current = root.current()
    assert current is not None
    assert (current.folder, current.promoted) == (six.folder, False)
    assert now is not None
    assert (now.folder, now.promoted) == (six.folder, False)
    (event,) = root.reported
    said = plain(event)
    assert said["standing"] == "current: it was promoted, and a person ended that"
    assert "promoted" not in said
    of_report = root.current(AUDIENCE_REPORT)
    assert of_report is not None, "the report of what is current is so as before"


@pytest.mark.parametrize("current_is_on_record", [True, False])
def test_a_partition_whose_current_output_is_not_on_record_gets_no_record(
    root: Promoted, current_is_on_record: bool
) -> None:
    assert root.promote(automatic=True) is None, "there is none"
    six = root.add("six", given_k=6)
    root.promote(folder="six")
    root.reported.clear()
    root.trends.clear()
    if not current_is_on_record:
        root.known[KMEANS].clear()
    now = root.promote(automatic=True)
    assert (now is not None) is current_is_on_record
    assert len(root.reported) == len(root.trends) == int(current_is_on_record)
    current = root.current()
    assert current is not None
    assert (current.folder, current.promoted) == (six.folder, False), "the promotion has ended all the same"


# --- what is made from clusters


def test_segments_and_report_of_the_clusters_become_current_and_are_recorded_after_them(
    root: Promoted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_REPORTS_URL", "https://reports.example.com/")
    root.add("six", label="six", given_k=6)
    segments = root.add("segments", SEGMENTS, ("f-six",))
    report = root.add("report", AUDIENCE_REPORT, ("f-six", "f-segments"))
    root.add("others", AUDIENCE_REPORT, ("f-other", "f-segments"))
    root.promote(label="six")
    for asset, made in ((SEGMENTS, segments), (AUDIENCE_REPORT, report)):
        current = root.current(asset)
        assert current is not None
        assert (current.folder, current.fingerprint) == (made.folder, made.fingerprint)
    assert [event.asset_key.to_user_string() for event in root.reported] == [KMEANS, SEGMENTS, AUDIENCE_REPORT]
    assert {event.partition for event in root.reported} == {TEA.key}
    assert root.tagged == [Target(asset, TEA) for asset in (KMEANS, SEGMENTS, AUDIENCE_REPORT)]
    assert [event.tags["version"] for event in root.reported] == ["f-six", "f-segments", "f-report"]
    of_clusters, of_segments, of_report = map(plain, root.reported)
    assert (of_segments["label"], of_report["label"]) == ("six", "six")
    assert (of_segments["reused"], of_report["reused"]) == (True, True)
    assert metadata.REPORT not in of_segments
    for said in (of_clusters, of_report):
        assert said[metadata.REPORT] == "https://reports.example.com/tea/2024-01"
    assert next(iter(root.reported[2].metadata)) == metadata.REPORT, "in the order of reading"


def test_no_segments_and_no_report_are_current_that_are_of_other_clusters(root: Promoted) -> None:
    root.add("first")
    root.add("segments", SEGMENTS, ("f-first",))
    root.add("report", AUDIENCE_REPORT, ("f-first", "f-segments"))
    root.promote(folder="first")
    assert root.current(SEGMENTS) is not None
    second = root.add("second")
    root.add("gone", SEGMENTS, ("f-second",), there=False)
    root.promote(folder="second")
    assert (root.current(SEGMENTS), root.current(AUDIENCE_REPORT)) == (None, None)
    assert root.reported[-1].asset_key == dg.AssetKey(KMEANS), "nothing else is recorded"
    assert metadata.REPORT not in root.reported[-1].metadata
    current = root.current()
    assert current is not None
    assert current.folder == second.folder


# --- beside a new record


def test_the_first_record_shows_its_own_output_and_later_ones_all_unless_the_newest_shows_them(root: Promoted) -> None:
    first, second = root.add("first"), root.add("second", label="x")
    of_first = Current(first.folder)

    def shown(*known: Record, details: Record = second) -> list[tuple[str, str]]:
        history = Known(root.store, KMEANS, *known)
        found = variants.beside(history, TEA, details.metadata, of_first)
        assert found["current"] == "first"
        return [(row.data["folder"], row.data["current"]) for row in found["tweaks"].records]

    assert shown() == [("second", "")]
    assert shown(first) == [("second", ""), ("first", "yes")]
    table = variants.as_metadata(variants.side_by_side([second, first], of_first), of_first)
    newest = replace(second, metadata={**second.metadata, **table})
    assert shown(newest) == [("second", ""), ("first", "yes")], "older ones are not looked up"
    exact = replace(newest, metadata={name: value for name, value in newest.metadata.items() if name != "min_people"})
    assert shown(exact) == [("second", "")], "an earlier version's table is of exact figures, and not shown again"
    third = root.add("third")
    assert shown(newest, details=third) == [("third", ""), ("second", "")], "of those on record here"


# --- where the records are


def test_the_records_of_a_partition_are_those_of_all_steps_and_of_users_those_of_the_month(root: Promoted) -> None:
    found = histories_of(INSTANCE, root.store, TEA)
    assert list(found) == list(standing.steps_to(AUDIENCE_REPORT))
    for asset, history in found.items():
        assert (history.asset, history.store) == (asset, root.store)
        assert history.partitions == [Partition("2024-01") if asset == GROUPED_USERS else TEA]
