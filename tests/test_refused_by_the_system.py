"""What the operating system refuses is reported in a line with the way out, not by a traceback."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from audience_explorer_dagster.cli import main
from spark_jobs import group_by_user, storage
from spark_jobs.errors import InputError, as_line
from spark_jobs.reporting import Reporter, run_as_command
from spark_jobs.workers import run_job
from tests.conftest import Engine
from tests.test_jobs import GOOD, raw_month

pytestmark = pytest.mark.filterwarnings("ignore")


def refusal(number: int, *files: str) -> OSError:
    return OSError(number, os.strerror(number), *files)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (refusal(errno.ENOSPC, "/out/a"), "/out/a: No space left on device. The disk is full: free some space, or"),
        (refusal(errno.EACCES, "/raw"), "/raw: Permission denied. Give this user access, or name another file"),
        (refusal(errno.ENOTDIR, "/out"), "/out: Not a directory. A file is where a folder is needed: move it, or"),
        (refusal(errno.EROFS, "/out"), "/out: Read-only file system. Name a folder that can be written to."),
        (refusal(errno.EIO), "[Errno 5] Input/output error."),
        (OSError("one\ntwo."), "one two."),
    ],
)
def test_a_refusal_is_a_line_with_the_file_and_the_way_out(error: OSError, line: str) -> None:
    assert as_line(error).startswith(line)
    assert "\n" not in as_line(error)


def test_a_full_disk_ends_a_job_with_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def job() -> None:
        raise refusal(errno.ENOSPC, "/out/a.parquet")

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(SystemExit) as ended:
        run_as_command(job)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("Error: /out/a.parquet: No space left on device. The disk is full")


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Path]:
    """A month with one raw action."""
    folder = tmp_path / "raw" / "month=2024-01"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text('{"user_id": "u", "page_id": "p", "action": "page_like"}\n')
    return folder


def test_an_output_that_is_a_file_is_named_in_a_line(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    output.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["group_by_user", str(raw), str(output)])
    with pytest.raises(SystemExit) as ended:
        run_as_command(group_by_user.main)
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.splitlines()[-1].startswith(f"Error: {output}: Not a directory. A file is where a folder is needed")
    assert "Traceback" not in said
    assert output.read_text() == "mine"


def test_a_job_of_a_launch_reports_a_refusal_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise refusal(errno.ENOSPC, "/out/a")

    monkeypatch.setattr(group_by_user, "run", refused)
    config = {"raw": "r", "output": "o", "month": "2024-01", "config": {}, "engine": {}, "resources": {}}
    said = run_job({"id": "job", "module": "group_by_user", "config": config}, Reporter())
    assert said is not None
    assert said.startswith("/out/a: No space left on device.")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("location", ["gs://bucket/a", "hdfs://name/a", "https://host/a", "S3://bucket"])
def test_a_place_that_is_neither_local_nor_on_s3_is_refused_by_name(location: str) -> None:
    for place in (storage.at, storage.absolute):
        with pytest.raises(InputError, match=f"{location} is neither a local folder nor on S3"):
            place(location)


@pytest.mark.parametrize("location", ["/a/b", "a:b", "file:///a", "s3://bucket/a", "s3a://bucket/a"])
def test_local_folders_and_s3_are_places(location: str) -> None:
    assert storage.absolute(location)
    assert storage.at(location) is not None


@pytest.mark.parametrize("command", [["pipeline", "--dry-run"], ["runs", "--category", "coffee"], ["categories", "ls"]])
def test_a_root_of_another_kind_is_refused_in_a_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    result = CliRunner().invoke(main, [*command, "--root", "gs://bucket/a"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: gs://bucket/a is neither a local folder nor on S3")


def test_a_root_below_a_file_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    (tmp_path / "root").write_text("mine")
    result = CliRunner().invoke(main, ["categories", "ls", "--root", str(tmp_path / "root")])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path}/root/.dagster_home: Not a directory. A file is where a folder is needed: move it, or name"
        " another folder.\n"
    )


@pytest.mark.parametrize("below", ["", "out", "_out/users"])
def test_a_month_of_raw_files_is_no_place_for_an_output(local: Engine, tmp_path: Path, below: str) -> None:
    raw = raw_month(tmp_path, [GOOD])
    with pytest.raises(InputError, match=rf"^{raw / below} lies in {raw}, where only raw files may be"):
        local.run("group_by_user", raw, raw / below)
    assert len(list(raw.iterdir())) == 1


@pytest.mark.parametrize("job", ["follow_segments", "make_report"])
@pytest.mark.parametrize("month", ["2024-13", "\x1b[2J", "2024-1"])
def test_a_job_takes_no_other_name_for_a_month(local: Engine, tmp_path: Path, job: str, month: str) -> None:
    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "out"] if job == "follow_segments" else [tmp_path, tmp_path]
    category = ["--category", "tea"] if job == "make_report" else []
    with pytest.raises(InputError, match=" is not a month; one is named YYYY-MM"):
        local.run(job, *folders, "--month", month, *category)
