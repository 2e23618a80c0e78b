"""Output folders: written once, complete or absent."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from spark_jobs import kmeans, outputs, storage
from spark_jobs.errors import InputError, OutputExists
from spark_jobs.outputs.fingerprints import files_fingerprint
from spark_jobs.outputs.schemas import Inspection

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


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = start(tmp_path)
    outputs.write_table(folder, "a.parquet", TABLE)

    def die_while_writing() -> None:
        with outputs.open_file(folder, "a.parquet") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_while_writing()
    assert outputs.read_table(folder, "a.parquet") == TABLE
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["_unfinished", "a.parquet"]


def test_two_who_write_the_same_file_at_a_time_leave_a_whole_one(tmp_path: Path) -> None:
    folder = start(tmp_path)
    with outputs.open_file(folder, "notes/a") as one, outputs.open_file(folder, "notes/a") as other:
        one.write(b"12")
        other.write(b"1234")
        one.write(b"34")
    assert [file.read_bytes() for file in (tmp_path / "out" / "notes").iterdir()] == [b"1234"]


def test_what_a_killed_task_left_is_no_part_of_the_output(tmp_path: Path) -> None:
    folder = start(tmp_path)
    outputs.write_table(folder, "a.parquet", TABLE)
    (tmp_path / "out" / ".a.parquet.0123").write_bytes(b"half")
    assert [file.name for file in storage.visible_files(folder)] == ["_unfinished", "a.parquet"]
    finish(folder)
    assert [file["path"] for file in outputs.read_manifest(folder, "kmeans")["files"]] == ["a.parquet"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.parquet", "manifest.json"]


def test_a_line_that_is_too_long_for_memory_is_read_back_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [['a", "b', "c\\", '"'], ["é" * 50, *(f"user {n}" for n in range(40))], []]
    folder = start(tmp_path)
    with outputs.open_file(folder, "data.json") as file:
        for number, ids in enumerate(lines):
            row = json.dumps({"cluster_id": number, "user_ids": ids}, ensure_ascii=False)
            file.write(row.encode() + b"\n")
    for longest in (1 << 20, 64, 37):
        monkeypatch.setattr(outputs, "_LONGEST_LINE", longest)
        inspection = Inspection(kmeans.DATA)
        read: dict[int, list[str]] = {}
        parts = 0
        for number, part in outputs.read_back_lists(folder, "data.json", inspection):
            read.setdefault(number, []).extend(part.column("user_ids").flatten().to_pylist())
            parts += 1
        assert read == dict(enumerate(lines))
        assert (inspection.rows, inspection.breaches) == (3, [])
        assert (parts > 3) == (longest < 1 << 20)


def test_rows_come_in_the_same_batches_wherever_they_were_cut() -> None:
    rows = pa.table({"a": range(600_000)})
    batches = list(outputs.of_equal_size(rows.to_batches(max_chunksize=70_001)))
    assert [batch.num_rows for batch in batches] == [1 << 18, 1 << 18, 600_000 - (1 << 19)]
    assert pa.Table.from_batches(batches) == rows
