"""Prune: what nothing needs any more is listed first, and deleted only when asked; what somebody needs never is."""

import json
import os
import shutil
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster.cli import main
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")

OLD = 40 * 86400  # seconds


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setattr(loaded, "defs", project.definitions)


def cluster(project: Project, **config: Any) -> str:
    folder = project.pipeline(["2024-01"], ["tea"], **config)["kmeans tea|2024-01"].folder
    assert folder is not None
    return folder


def cluster_three_times(project: Project) -> tuple[str, str, str]:
    """The current output, one that stood beside it, and the newest one, which does so now."""
    current, superseded, newest = (cluster(project, kmeans={"k": k}) for k in (3, 2, 1))
    return current, superseded, newest


def run(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["prune", *arguments, "--root", str(project.root)])


def listed(project: Project, *arguments: str) -> dict[str, str]:
    """Why each folder is listed."""
    result = run(project, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return {found["folder"]: found["why"] for found in json.loads(result.stdout)}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is made in the test is 40 days old when it is looked at."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return super().now(tz) + timedelta(seconds=OLD)

    monkeypatch.setattr(sys.modules["audience_explorer_dagster.cli.deleting"], "datetime", Later)


def age(folder: str, seconds: float = OLD) -> None:
    """Make files older than they are."""
    then = time.time() - seconds
    for file in Path(folder).rglob("*"):
        os.utime(file, (then, then))


@pytest.mark.usefixtures("later")
def test_superseded_outputs_are_listed_and_deleted_when_asked(project: Project) -> None:
    current, superseded, newest = cluster_three_times(project)
    with_it = [superseded.replace("/kmeans/", f"/{asset}/") for asset in ("segments", "audience_report")]
    assert listed(project) == dict.fromkeys([superseded, *with_it], "superseded")
    assert Path(superseded).exists(), "it is a list"

    said = run(project)
    assert "3 outputs, " in said.stderr
    assert "nothing is deleted yet" in said.stderr
    assert f"kmeans/month=2024-01/category=tea/{Path(superseded).name}" in said.stdout

    assert run(project, "--yes").exit_code == 0
    assert not Path(superseded).exists()
    assert Path(current).exists()
    assert Path(newest).exists()
    assert listed(project) == {}


@pytest.mark.usefixtures("later")
def test_what_is_labelled_promoted_or_current_is_kept(project: Project) -> None:
    cluster(project, kmeans={"k": 4, "label": "four"})
    promoted = cluster(project, kmeans={"k": 3})
    partition = ("--month", "2024-01", "--category", "tea", "--root", str(project.root))
    cluster(project, kmeans={"k": 2})
    promote = CliRunner().invoke(main, ["promote", "--folder", Path(promoted).name, *partition])
    assert promote.exit_code == 0, promote.output
    unlabelled = {folder for folder, why in listed(project).items() if why == "superseded"}
    assert promoted not in unlabelled
    assert {Path(folder).parts[-4] for folder in unlabelled} == {"kmeans", "segments", "audience_report"}
    assert len(unlabelled) == 3, "k = 2 without a label, which the promotion superseded, and what follows from it"


@pytest.mark.usefixtures("later")
def test_what_a_kept_output_was_made_from_is_kept(project: Project) -> None:
    cluster(project, kmeans={"k": 2, "label": "raw"}, clustering_inputs={"scaling": "none"})
    cluster(project, kmeans={"k": 2})
    assert listed(project) == {}, "the inputs that are not scaled are those of `raw`"


def test_young_outputs_are_kept(project: Project) -> None:
    _, superseded, _ = cluster_three_times(project)
    assert listed(project, "--older-than", "1") == {}
    age(superseded)
    assert listed(project, "--older-than", "1") == {}, "it was recorded today"
    assert CliRunner().invoke(main, ["prune", "--older-than", "0"]).exit_code == 2


def test_what_a_killed_job_left_and_what_no_record_points_at_are_listed_once_they_are_old(project: Project) -> None:
    made = Path(cluster(project, kmeans={"k": 2}))
    unfinished, unknown = made.with_name("20240101T000000-0123abcd"), made.with_name("20240101T000000-4567abcd-1")
    theirs = made.with_name("somebody-elses")
    for folder in (unfinished, unknown, theirs):
        folder.mkdir()
        (folder / "data.json").write_text("{}")
    (unknown / "manifest.json").write_text("{}")
    assert listed(project) == {}
    for folder in (unfinished, unknown, theirs):
        age(str(folder))
    assert listed(project) == {str(unfinished): "unfinished", str(unknown): "not on record"}
    run(project, "--yes")
    assert [folder.exists() for folder in (unfinished, unknown, theirs, made)] == [False, False, True, True]


def test_the_records_of_another_root_delete_nothing(
    project: Project, no_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(project, kmeans={"k": 2})
    monkeypatch.setenv("DAGSTER_HOME", str(shutil.copytree(no_records, tmp_path / "other")))
    result = run(project, "--yes")
    assert result.exit_code == 2
    assert "no record of any" in " ".join(result.output.split())


@pytest.mark.usefixtures("later")
def test_nothing_is_deleted_while_a_run_goes_on(project: Project) -> None:
    _, superseded, _ = cluster_three_times(project)
    job = project.definitions.resolve_job_def("whole_month")
    going_on = project.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    result = run(project, "--yes")
    assert result.exit_code == 2
    assert going_on.run_id[:8] in result.output
    assert Path(superseded).exists()
