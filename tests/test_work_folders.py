"""Temporary folders outlive nobody: those of killed processes are removed by the next one that makes one."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from spark_jobs import work_folders
from spark_jobs.work_folders import work_folder
from tests.conftest import started

WORKS = """
from spark_jobs.work_folders import work_folder
with work_folder() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, in which there are none."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_work_folder_goes_with_its_body() -> None:
    with work_folder() as folder:
        (folder / "file").touch()
    assert not folder.exists()


def test_a_killed_process_leaves_its_folder_to_the_next_and_a_living_one_keeps_its_own(temporary: Path) -> None:
    command = [sys.executable, "-c", WORKS]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        theirs = Path(process.stdout.readline().strip())
        with work_folder() as mine:
            assert theirs.is_dir(), "somebody works in it"
            assert (theirs / "file").exists()
        process.kill()
        process.wait()
        assert list(temporary.iterdir()) == [theirs]
        with work_folder() as mine:
            assert list(temporary.iterdir()) == [mine]
    assert list(temporary.iterdir()) == []


def test_folders_and_links_of_others_stay(temporary: Path) -> None:
    person = temporary / "audience-explorer-notes"
    person.mkdir()
    (temporary / "audience-explorer-work-link").symlink_to(person)
    with work_folder():
        pass
    assert sorted(path.name for path in temporary.iterdir()) == [
        "audience-explorer-notes",
        "audience-explorer-work-link",
    ]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Path] = []
    make = tempfile.mkdtemp

    def mkdtemp(prefix: str) -> str:
        made.append(Path(make(prefix=prefix)))
        if len(made) == 1:
            made[0].rmdir()
        return str(made[-1])

    monkeypatch.setattr(work_folders.tempfile, "mkdtemp", mkdtemp)
    with work_folder() as folder:
        assert folder == made[1]
        assert folder.is_dir()
