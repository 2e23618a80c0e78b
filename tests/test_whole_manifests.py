"""When an output is there: its manifest is whole, of the step that is asked for, and lists the files that there are."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from spark_jobs import storage
from spark_jobs.errors import DamagedOutput, InputError, NewerVersion
from spark_jobs.outputs import manifest as manifests
from spark_jobs.outputs.checks import CheckResult

GOOD: dict[str, Any] = {
    "schema_version": 1,
    "step": "kmeans",
    "fingerprint": "f",
    "files": [{"path": "a/data.json", "bytes": 3}, {"path": "empty", "bytes": 0}],
    "summary": {"k": 2},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished output of kmeans."""
    storage.write_text(str(tmp_path / "a" / "data.json"), "123")
    (tmp_path / "empty").touch()
    write(tmp_path, GOOD)
    return tmp_path


def write(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


def test_a_finished_output_is_whole_and_nothing_is_wrong_with_it(folder: Path) -> None:
    assert manifests.read_manifest(str(folder), "kmeans") == GOOD
    assert manifests.is_finished(str(folder)) is True
    assert manifests.is_whole(str(folder), "kmeans") is True
    assert manifests.damage_of(str(folder), "kmeans") == ""


@pytest.mark.parametrize("made", [True, False], ids=["unfinished", "no folder"])
def test_a_folder_without_a_manifest_is_no_output_and_not_damaged(folder: Path, made: bool) -> None:
    (folder / "manifest.json").unlink()
    place = str(folder if made else folder / "nowhere")
    assert manifests.is_finished(place) is False
    assert manifests.is_whole(place, "kmeans") is False
    assert manifests.damage_of(place, "kmeans") == ""
    says = f"^{place} holds no finished output: it has no manifest.json. Make it with kmeans first"
    with pytest.raises(InputError, match=says) as refused:
        manifests.read_manifest(place, "kmeans")
    assert not isinstance(refused.value, DamagedOutput)


def test_an_output_of_another_step_is_neither_there_nor_damaged(folder: Path) -> None:
    assert manifests.is_whole(str(folder), "k_selection") is False
    assert manifests.damage_of(str(folder), "k_selection") == ""
    with pytest.raises(InputError, match=f"^{folder} is an output of kmeans; one of k_selection is needed"):
        manifests.read_manifest(str(folder), "k_selection")


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in GOOD.items() if field != name}


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ("", "it is empty, or cut off"),
        (json.dumps(GOOD)[:-1], "it is empty, or cut off"),
        (without("step"), "it has no 'step'"),
        (without("fingerprint"), "it has no 'fingerprint'"),
        (without("files"), "it has no 'files'"),
        (without("summary"), "it has no 'summary'"),
        ({**GOOD, "step": 1}, "its step can't be understood"),
        ({**GOOD, "fingerprint": None}, "its fingerprint can't be understood"),
        ({**GOOD, "files": {}}, "its files can't be understood"),
        ({**GOOD, "summary": []}, "its summary can't be understood"),
        ({**GOOD, "files": [{"path": "a/data.json"}]}, "its files can't be understood"),
        ({**GOOD, "files": [GOOD["files"][0], {"bytes": 0}]}, "its files can't be understood"),
        ({**GOOD, "files": ["a/data.json"]}, "'str' object has no attribute 'keys'"),
        ({**GOOD, "files": [{"path": ["a"], "bytes": 3}]}, "its files can't be understood"),
        ({**GOOD, "files": [{"path": "empty", "bytes": "0"}]}, "its files can't be understood"),
        ("[]", "'list' object has no attribute 'get'"),
        ("[" * 100_000, "it is nested too deep"),
    ],
)
def test_a_manifest_that_is_not_whole_is_damage_that_says_what_is_wrong_and_what_to_do(
    folder: Path, manifest: Any, why: str
) -> None:
    write(folder, manifest)
    what = f"{folder}/manifest.json is not a whole manifest: {why}"
    assert manifests.is_finished(str(folder)) is True, "it is there"
    assert manifests.is_whole(str(folder), "kmeans") is False
    assert manifests.damage_of(str(folder), "kmeans") == what
    with pytest.raises(DamagedOutput) as refused:
        manifests.read_manifest(str(folder), "kmeans")
    assert str(refused.value) == f"{what}. Delete {folder}, and the next run makes the output again."


@pytest.mark.parametrize(("file", "text"), [("a/data.json", "12"), ("a/data.json", "1234"), ("empty", "1")])
def test_a_file_of_another_size_is_damage_that_names_it(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    what = f"{folder}: its file {file} is gone, or has another size than its manifest says"
    assert (manifests.is_whole(str(folder), "kmeans"), manifests.damage_of(str(folder), "kmeans")) == (False, what)


@pytest.mark.parametrize("file", ["a/data.json", "empty"])
def test_a_file_that_is_gone_is_damage_that_names_it(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert not manifests.is_whole(str(folder), "kmeans")
    assert manifests.damage_of(str(folder), "kmeans").startswith(f"{folder}: its file {file} is gone")


def test_a_folder_that_was_listed_already_is_taken_as_it_was_listed(folder: Path) -> None:
    sizes = {"manifest.json": 99, "a/data.json": 3, "empty": 0}
    assert manifests.read_manifest(str(folder), "kmeans", sizes) == GOOD
    with pytest.raises(DamagedOutput, match="its file empty is gone"):
        manifests.read_manifest(str(folder), "kmeans", {"manifest.json": 99, "a/data.json": 3})
    with pytest.raises(InputError, match="holds no finished output"):
        manifests.read_manifest(str(folder), "kmeans", {})


def test_a_manifest_that_is_deleted_while_it_is_read_is_damage(folder: Path) -> None:
    sizes = {"manifest.json": 99}
    (folder / "manifest.json").unlink()
    with pytest.raises(DamagedOutput, match=r"manifest\.json is not a whole manifest: .*No such file"):
        manifests.read_manifest(str(folder), "kmeans", sizes)


def test_an_output_of_a_newer_version_is_refused_and_never_taken_for_damaged(folder: Path) -> None:
    """Whoever is told that it is damaged, or not there, would make it again in its place."""
    write(folder, {**GOOD, "schema_version": 2})
    for ask in (manifests.is_whole, manifests.read_manifest):
        with pytest.raises(NewerVersion):
            ask(str(folder), "kmeans")
    assert manifests.damage_of(str(folder), "kmeans") == ""


def test_an_output_that_names_no_schema_version_is_of_the_first(folder: Path) -> None:
    write(folder, without("schema_version"))
    assert manifests.is_whole(str(folder), "kmeans")


def test_a_new_manifest_has_each_fact_in_its_place_and_the_bytes_of_all_files() -> None:
    made = manifests.new_manifest(
        step="kmeans",
        code_version="7",
        fingerprint="f",
        inputs=["i", "j"],
        config={"k": 3},
        rows={"assignments": 5},
        files={"b": 10, "a": 4},
        summary={"k": 3},
        checks={"sizes": CheckResult(False, {"wrong": 1}, "one is wrong")},
    )
    created = made.pop("created_at")
    assert datetime.fromisoformat(created).tzinfo == timezone.utc
    assert len(created) == len("2024-01-31T12:00:00+00:00"), "to the second"
    assert made == {
        "schema_version": 1,
        "step": "kmeans",
        "code_version": "7",
        "fingerprint": "f",
        "inputs": ["i", "j"],
        "config": {"k": 3},
        "rows": {"assignments": 5},
        "files": [{"path": "b", "bytes": 10}, {"path": "a", "bytes": 4}],
        "summary": {"k": 3, "bytes_out": 14},
        "checks": {"sizes": {"passed": False, "found": {"wrong": 1}, "why": "one is wrong"}},
    }


def test_a_file_that_cannot_be_read_names_the_manifest_whose_deletion_makes_it_anew() -> None:
    assert str(manifests.broken("root/out", "root/out/a.parquet", "it is cut off.")) == (
        "root/out/a.parquet can't be read: it is cut off. Delete root/out/manifest.json, and the next run makes the"
        " output again."
    )


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000])
def test_a_json_file_that_was_changed_is_named_with_the_way_out(folder: Path, text: bytes) -> None:
    (folder / "summary.json").write_bytes(text)
    with pytest.raises(InputError, match=rf"^{folder}/summary.json can't be read: .*\. Delete {folder}/manifest.json"):
        manifests.read_json(str(folder), "summary.json")
