"""Output folders: written once, complete or absent."""

from pathlib import Path

import pyarrow as pa
import pytest

from spark_jobs import outputs, storage
from spark_jobs.errors import InputError, OutputExists
from spark_jobs.fingerprints import files_fingerprint

TABLE = pa.table({"a": [1, 2]})


def finish(folder: str) -> None:
    outputs.finish(
        folder,
        step="kmeans",
        code_version="1",
        config={},
        fingerprint="f",
        inputs=[],
        rows={"a": 2},
        summary={"seconds": 1.0},
    )


def start(tmp_path: Path) -> str:
    folder = str(tmp_path / "out")
    assert outputs.start(folder, "f") is None
    return folder


def test_an_output_is_one_when_its_manifest_is_there(tmp_path: Path) -> None:
    folder = start(tmp_path)
    outputs.write_table(folder, "sub/a.parquet", TABLE)
    assert not outputs.is_finished(folder)
    with pytest.raises(InputError, match="no finished output"):
        outputs.read_manifest(folder, "kmeans")
    finish(folder)
    manifest = outputs.read_manifest(folder, "kmeans")
    assert [file["path"] for file in manifest["files"]] == ["sub/a.parquet"]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.parquet", "manifest.json"]


def test_a_finished_output_is_never_written_again(tmp_path: Path) -> None:
    folder = start(tmp_path)
    finish(folder)
    with pytest.raises(OutputExists, match="another finished output"):
        outputs.start(folder, "g")


def test_an_output_that_is_finished_already_is_given_to_who_would_make_the_same(tmp_path: Path) -> None:
    folder = start(tmp_path)
    outputs.write_table(folder, "a.parquet", TABLE)
    finish(folder)
    assert outputs.start(folder, "f") == outputs.read_manifest(folder, "kmeans")
    assert (tmp_path / "out" / "a.parquet").exists()


def test_what_an_unfinished_output_left_is_cleared(tmp_path: Path) -> None:
    folder = start(tmp_path)
    outputs.write_table(folder, "old.parquet", TABLE)
    assert outputs.start(folder, "f") is None
    finish(folder)
    assert outputs.read_manifest(folder, "kmeans")["files"] == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(OutputExists, match="not empty"):
        outputs.start(str(tmp_path), "f")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_an_output_of_another_step_is_refused(tmp_path: Path) -> None:
    folder = start(tmp_path)
    finish(folder)
    with pytest.raises(InputError, match="is an output of kmeans; one of grouped_users is needed"):
        outputs.read_manifest(folder, "grouped_users")


def test_files_have_one_fingerprint_wherever_they_lie_and_another_when_they_change(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.csv").write_text("1")
        (tmp_path / folder / "_SUCCESS").touch()
    a, b = (files_fingerprint(storage.list_files(str(tmp_path / folder))) for folder in ("a", "b"))
    assert a == b
    (tmp_path / "b" / "x.csv").write_text("2")
    assert files_fingerprint(storage.list_files(str(tmp_path / "b"))) != a
