"""Where things are below a root, and which output of a partition is current: what is written, and when not."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import OWN, Current, Store, new_folder_name
from spark_jobs.storage import conditional
from spark_jobs.vectors.category_files import BadCategory
from tests.test_tweaks import finished

TEA = Partition("2024-01", "tea")
JANUARY = Partition("2024-01")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path))


def written(store: Store, asset: str = "kmeans") -> dict[str, Any]:
    """What `current.json` says, but when."""
    said: dict[str, Any] = json.loads(Path(store.outputs(asset, TEA), "current.json").read_text())
    said.pop("recorded_at")
    return said


# --- places


@pytest.mark.parametrize("end", ["", "/"])
def test_all_places_are_below_the_root(tmp_path: Path, end: str) -> None:
    store, root = Store(root=f"{tmp_path}{end}"), str(tmp_path)
    assert (store.all_raw, store.raw("2024-01")) == (f"{root}/raw", f"{root}/raw/month=2024-01")
    assert store.category_file("tea") == f"{store.categories}/tea.json" == f"{root}/categories/tea.json"
    assert store.edits_file("tea") == f"{store.all_edits}/tea.yaml" == f"{root}/edits/tea.yaml"
    assert store.all_outputs("kmeans") == f"{root}/kmeans"
    assert store.outputs("kmeans", TEA) == f"{root}/kmeans/month=2024-01/category=tea"
    assert store.outputs("grouped_users", JANUARY) == f"{root}/grouped_users/month=2024-01"
    assert store.place(f"{root}/kmeans/a") == "kmeans/a"
    with pytest.raises(BadCategory):
        store.edits_file("../tea")


def test_categories_are_listed_by_name_allowed_or_not(store: Store, tmp_path: Path) -> None:
    assert store.category_names() == []
    (tmp_path / "categories").mkdir()
    for name in ("tea", "a..b", "coffee"):
        (tmp_path / "categories" / f"{name}.json").touch()
    assert store.category_names() == ["a..b", "coffee", "tea"]


def test_a_folders_name_sorts_by_time_and_is_given_once() -> None:
    before = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    names = {new_folder_name() for _ in range(20)}
    assert len(names) == 20
    assert all(name >= before and len(name) == len("20240131T120000-01234567") for name in names)


# --- which folder a record names


def test_a_record_names_a_folder_right_below_those_of_its_partition(store: Store, tmp_path: Path) -> None:
    root, below = str(tmp_path), "kmeans/month=2024-01/category=tea"
    here = f"{root}/{below}/a"
    assert store.locate("kmeans", TEA, f"{below}/a", root) == here
    assert store.locate("kmeans", TEA, here, None) == here
    for folder in (f"{below}/", f"{below}", f"{below}/a/b", f"x{below}/a", f"{below}x/a", "a", ""):
        assert store.locate("kmeans", TEA, folder, root) is None, folder


def test_a_folder_that_was_made_below_another_root_is_this_ones_if_it_is_here_and_finished(store: Store) -> None:
    below = "kmeans/month=2024-01/category=tea"
    for folder, root in ((f"{below}/a", "/elsewhere"), (f"{below}/a", None), (f"/elsewhere/{below}/a", None)):
        assert store.locate("kmeans", TEA, folder, root) is None
    here = finished(store, "a")
    for folder, root in ((f"{below}/a", "/elsewhere"), (f"{below}/a", None), (f"/elsewhere/{below}/a", None)):
        assert store.locate("kmeans", TEA, folder, root) == here
    assert store.locate("kmeans", TEA, f"elsewhere{below}/a", None) is None


# --- what is current


def test_what_is_current_is_written_with_why_and_by_whom(store: Store) -> None:
    a = finished(store, "a")
    made = store.point_current("kmeans", TEA, a, "fa")
    assert (made.folder, made.promoted, made.fingerprint, made.why) == (a, False, "fa", OWN)
    assert written(store) == {"schema_version": 1, "folder": a, "fingerprint": "fa", "why": OWN}
    promoted = store.point_current("kmeans", TEA, a, "fa", promoted="by me")
    assert (promoted.promoted, promoted.fingerprint, promoted.why) == (True, "fa", "by me")
    assert written(store) == {"schema_version": 1, "folder": a, "fingerprint": "fa", "promoted": True, "why": "by me"}
    ended = store.end_promotion("kmeans", TEA)
    assert ended is not None
    assert (ended.folder, ended.promoted, ended.why) == (a, False, "it was promoted, and a person ended that")
    assert written(store)["why"] == ended.why
    text = Path(store.outputs("kmeans", TEA), "current.json").read_text()
    assert text.endswith("}\n")
    assert len(text.splitlines()) == 7, "a line a fact, for people"
    assert len(json.loads(text)["recorded_at"]) == len("2024-01-31T12:00:00+00:00")


def test_where_nothing_is_current_what_stands_beside_is_and_says_so_and_nothing_ends(store: Store) -> None:
    assert store.current("kmeans", TEA) is None
    assert store.current_fingerprint("kmeans", TEA) is None
    assert store.end_promotion("kmeans", TEA) is None
    assert not Path(store.outputs("kmeans", TEA)).exists(), "to ask writes nothing"
    a, b = finished(store, "a"), finished(store, "b")
    assert store.point_current("kmeans", TEA, a, "fa", beside="k 6").why == "there was no other; k 6"
    known = store.point_current("kmeans", TEA, b, "fb", beside="k 7")
    assert (known.folder, known.fingerprint, known.why) == (a, "fa", "there was no other; k 6")
    assert store.current_fingerprint("kmeans", TEA) == "fa"
    store.point_nowhere("kmeans", TEA)
    assert store.current("kmeans", TEA) is None
    store.point_nowhere("kmeans", TEA)


@pytest.mark.parametrize("beside", ["", "k 6"])
def test_a_current_output_that_is_gone_or_damaged_keeps_no_other_back(store: Store, beside: str) -> None:
    a, b = finished(store, "a"), finished(store, "b")
    store.point_current("kmeans", TEA, a, "fa", promoted="by me")
    assert store.point_current("kmeans", TEA, b, "fb", beside=beside) == Current(a, promoted=True)
    Path(a, "manifest.json").write_text("{")
    now = store.point_current("kmeans", TEA, b, "fb", beside=beside)
    assert (now.folder, now.promoted, now.fingerprint) == (b, False, "fb")


def test_an_earlier_versions_current_json_gets_the_fingerprint_and_is_not_written_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = finished(store, "a")
    file = Path(store.outputs("kmeans", TEA), "current.json")
    file.write_text(json.dumps({"folder": f"{a}/", "promoted": True}))
    known = store.current("kmeans", TEA)
    assert known is not None
    assert (known.folder, known.promoted, known.fingerprint, known.why) == (a, True, None, "")
    store.point_current("kmeans", TEA, a, "fa")
    assert written(store) == {"schema_version": 1, "folder": a, "fingerprint": "fa", "promoted": True}

    def fail(*_: Any) -> bool:
        raise AssertionError("it says so already")

    monkeypatch.setattr(conditional, "replace", fail)
    store.point_current("kmeans", TEA, a, "other")
    assert written(store)["fingerprint"] == "fa"


def test_what_goes_with_clusters_is_current_while_they_are_and_says_so(store: Store) -> None:
    store.point_current("kmeans", TEA, finished(store, "a"), "fa")
    assert store.point_along("segments", TEA, f"{store.outputs('segments', TEA)}/x", "fx", "kmeans", "other") is False
    assert store.current("segments", TEA) is None
    assert store.point_along("segments", TEA, f"{store.outputs('segments', TEA)}/x", "fx", "kmeans", "fa") is True
    assert written(store, "segments") == {
        "schema_version": 1,
        "folder": f"{store.outputs('segments', TEA)}/x",
        "fingerprint": "fx",
        "why": "it was made from the current kmeans",
    }


@pytest.mark.parametrize(
    "text", ['{"folder": 1}', '{"folder": null, "promoted": true}', '{"folder": ""}', "nonsense", "[" * 100_000]
)
def test_a_current_json_that_names_no_folder_names_no_output(store: Store, text: str) -> None:
    a = finished(store, "a")
    Path(store.outputs("kmeans", TEA), "current.json").write_text(text)
    assert store.current("kmeans", TEA) is None
    assert store.point_current("kmeans", TEA, a, "fa") == Current(a)


def test_a_change_that_another_one_comes_before_is_made_to_what_that_one_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = finished(store, "a"), finished(store, "b")
    replace, tries = conditional.replace, list[str]()

    def lose_once(location: str, text: str, version: str | None) -> bool:
        tries.append(text)
        if len(tries) == 1:
            replace(location, json.dumps({"folder": a, "promoted": True, "fingerprint": "fa"}), version)
        return replace(location, text, version)

    monkeypatch.setattr(conditional, "replace", lose_once)
    assert store.point_current("kmeans", TEA, b, "fb") == Current(a, promoted=True)
    assert len(tries) == 1, "what the other one left stays as it is"
