"""Output folders: written once, complete or absent."""

import json
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from spark_jobs import outputs, storage
from spark_jobs.clusters.files import DATA
from spark_jobs.config import KMeansConfig
from spark_jobs.errors import InputError, OutputExists, UnreadableFile
from spark_jobs.outputs import read_back
from spark_jobs.outputs.checks import CheckResult
from spark_jobs.outputs.fingerprints import files_fingerprint
from spark_jobs.outputs.schemas import Inspection
from spark_jobs.outputs.tables import of_equal_size, read_table, write_table
from spark_jobs.reporting import Reporter

TABLE = pa.table({"a": [1, 2]})


class Report(Reporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.outputs: list[tuple[str, outputs.Manifest]] = []

    def progress(self, message: str) -> None:
        self.messages.append(message)

    def output(self, folder: str, manifest: outputs.Manifest) -> None:
        self.outputs.append((folder, manifest))


def writing(
    folder: Path, fingerprint: str = "f", report: Reporter | None = None
) -> AbstractContextManager[outputs.Output]:
    report = Report() if report is None else report
    config = KMeansConfig(k=2)
    return outputs.writing("kmeans", "1", str(folder), report, config=config, inputs=["i"], fingerprint=fingerprint)


def complete(made: outputs.Output) -> None:
    made.complete(rows={"a": 2}, summary={"k": 2})


def files_of(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_an_output_is_one_when_its_manifest_is_there(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        made.write_table("sub/a.parquet", TABLE)
        assert not outputs.is_finished(made.folder)
        with pytest.raises(InputError, match="no finished output"):
            outputs.read_manifest(made.folder, "kmeans")
        complete(made)
    manifest = outputs.read_manifest(made.folder, "kmeans")
    assert [file["path"] for file in manifest["files"]] == ["sub/a.parquet"]
    assert files_of(tmp_path / "out") == ["manifest.json", "sub/a.parquet"]


def test_a_manifest_says_what_an_output_is_and_what_it_was_made_from(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        made.write_table("a.parquet", TABLE)
        complete(made)
    manifest = outputs.read_manifest(made.folder, "kmeans")
    size = (tmp_path / "out" / "a.parquet").stat().st_size
    assert manifest.pop("summary").items() > {"k": 2, "bytes_out": size}.items()
    assert datetime.fromisoformat(manifest.pop("created_at")).tzinfo == timezone.utc
    assert manifest == {
        "schema_version": 1,
        "step": "kmeans",
        "code_version": "1",
        "fingerprint": "f",
        "inputs": ["i"],
        "config": KMeansConfig(k=2).model_dump(),
        "rows": {"a": 2},
        "files": [{"path": "a.parquet", "bytes": size}],
        "checks": {},
    }


def test_what_was_written_is_inspected_before_the_manifest_is_written_and_then_reported(tmp_path: Path) -> None:
    report = Report()

    def inspect() -> dict[str, CheckResult]:
        assert files_of(tmp_path / "out") == ["_unfinished", "a.parquet"]
        return {"schema": CheckResult(False, {"rows": 2}, "it is wrong")}

    with writing(tmp_path / "out", report=report) as made:
        made.write_table("a.parquet", TABLE)
        made.complete(rows={}, summary={}, inspect=inspect, message="two rows")
        assert report.messages == []
    manifest = outputs.read_manifest(made.folder, "kmeans")
    assert manifest["checks"] == {"schema": {"passed": False, "found": {"rows": 2}, "why": "it is wrong"}}
    assert (report.messages, report.outputs) == (["two rows"], [(made.folder, manifest)])


def test_an_output_whose_making_fails_stays_unfinished(tmp_path: Path) -> None:
    report = Report()

    def fail_at_the_end() -> None:
        with writing(tmp_path / "out", report=report) as made:
            made.write_table("a.parquet", TABLE)
            complete(made)
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        fail_at_the_end()
    assert files_of(tmp_path / "out") == ["_unfinished", "a.parquet"]
    assert report.outputs == []


def test_a_finished_output_is_never_written_again(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        complete(made)
    with pytest.raises(OutputExists, match="another finished output"), writing(tmp_path / "out", "g"):
        pass


def test_an_output_that_is_finished_already_is_reported_to_whoever_would_make_the_same(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        assert not made.finished
        made.write_table("a.parquet", TABLE)
        complete(made)
    before, report = (tmp_path / "out" / "manifest.json").read_bytes(), Report()
    with writing(tmp_path / "out", report=report) as again:
        assert again.finished
    assert report.outputs == [(made.folder, outputs.read_manifest(made.folder, "kmeans"))]
    assert files_of(tmp_path / "out") == ["a.parquet", "manifest.json"]
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_what_an_unfinished_output_left_is_cleared(tmp_path: Path) -> None:
    storage.write_text(str(tmp_path / "out" / "_unfinished"), "")
    write_table(str(tmp_path / "out"), "old.parquet", TABLE)
    with writing(tmp_path / "out") as made:
        complete(made)
    assert outputs.read_manifest(made.folder, "kmeans")["files"] == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(OutputExists, match="not empty"), writing(tmp_path):
        pass
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_an_output_of_another_step_is_refused(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        complete(made)
    with pytest.raises(InputError, match="is an output of kmeans; one of grouped_users is needed"):
        outputs.read_manifest(made.folder, "grouped_users")


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
    def die_while_writing(made: outputs.Output) -> None:
        with made.open_file("a.parquet") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with writing(tmp_path / "out") as made:
        made.write_table("a.parquet", TABLE)
        with pytest.raises(KeyboardInterrupt):
            die_while_writing(made)
        assert read_table(made.folder, "a.parquet") == TABLE
        assert files_of(tmp_path / "out") == ["_unfinished", "a.parquet"]
        complete(made)


def test_two_who_write_the_same_file_at_a_time_leave_a_whole_one(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        with made.open_file("notes/a") as one, made.open_file("notes/a") as other:
            one.write(b"12")
            other.write(b"1234")
            one.write(b"34")
        complete(made)
    assert [file.read_bytes() for file in (tmp_path / "out" / "notes").iterdir()] == [b"1234"]


def test_what_a_killed_task_left_is_no_part_of_the_output(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as made:
        made.write_table("a.parquet", TABLE)
        (tmp_path / "out" / ".a.parquet.0123").write_bytes(b"half")
        assert [file.name for file in storage.visible_files(made.folder)] == ["_unfinished", "a.parquet"]
        complete(made)
    assert [file["path"] for file in outputs.read_manifest(made.folder, "kmeans")["files"]] == ["a.parquet"]
    assert files_of(tmp_path / "out") == ["a.parquet", "manifest.json"]


def test_a_line_that_is_too_long_for_memory_is_read_back_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [['a", "b', "c\\", '"'], ["é" * 50, *(f"user {n}" for n in range(40))], []]
    rows = [{"cluster_id": number, "user_ids": ids} for number, ids in enumerate(lines)]
    (tmp_path / "data.json").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for longest in (1 << 20, 64, 37):
        monkeypatch.setattr(read_back, "_LONGEST_LINE", longest)
        inspection = Inspection(DATA)
        read: dict[int, list[str]] = {}
        parts = 0
        for number, part in read_back.json_lists(str(tmp_path), "data.json", inspection):
            read.setdefault(number, []).extend(part.column("user_ids").flatten().to_pylist())
            parts += 1
        assert read == dict(enumerate(lines))
        assert (inspection.rows, inspection.violations) == (3, [])
        assert (parts > 3) == (longest < 1 << 20)


def test_rows_come_in_the_same_batches_wherever_they_were_cut() -> None:
    rows = pa.table({"a": range(600_000)})
    batches = list(of_equal_size(rows.to_batches(max_chunksize=70_001)))
    assert [batch.num_rows for batch in batches] == [1 << 18, 1 << 18, 600_000 - (1 << 19)]
    assert pa.Table.from_batches(batches) == rows


def test_another_librarys_message_ends_with_one_full_stop() -> None:
    for why in ("this is not a parquet file.", "this is not a parquet file"):
        for error in (UnreadableFile("a.parquet", why), outputs.broken("folder", "a.parquet", why)):
            assert "this is not a parquet file. " in str(error)
