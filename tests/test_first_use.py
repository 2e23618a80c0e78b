"""The first use of a DAGSTER_HOME: it is made by one process at a time, and seen whole or not at all."""

import fcntl
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.cli import dagster_home
from audience_explorer_dagster.cli.project import open_project
from spark_jobs.errors import InputError


def test_the_home_is_opened_by_one_command_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that open a new one at the same time leave two heads of the schema, which no process can open again."""
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(tmp_path / "root"))
    opened = []
    get = dg.DagsterInstance.get

    def is_locked() -> bool:
        with (home / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def open_it() -> dg.DagsterInstance:
        opened.append(is_locked())
        return get()

    monkeypatch.setattr(dg.DagsterInstance, "get", open_it)
    with open_project(str(tmp_path / "root")):
        assert opened == [True]
        assert not is_locked(), "other commands may use it by now"


def test_the_settings_of_a_new_home_are_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def rename(draft: Path, target: Any) -> None:
        made.append(draft.read_text())
        assert not Path(target).exists()

    monkeypatch.setattr(Path, "rename", rename)
    dagster_home.make_home(tmp_path / "home")
    assert made == [dagster_home._SETTINGS]


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("dagster.yaml", "[", "expected the node content"),
        ("dagster.yaml", "no_such: 1", 'unexpected config entry "no_such"'),
        ("dagster.yaml", "run_storage: {module: no.such, class: S, config: {}}", "no.such"),
        ("history/runs.db", "no database", "file is not a database"),
    ],
)
def test_records_that_cannot_be_opened_are_named_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, says: str
) -> None:
    home = tmp_path / "home"
    (home / file).parent.mkdir(parents=True)
    (home / file).write_text(text)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(tmp_path / "root"))
    with pytest.raises(InputError, match=rf"^The records in {home} can't be opened: .*{says}.* name another folder"):
        open_project(str(tmp_path / "root")).__enter__()
