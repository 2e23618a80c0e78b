"""The job of a whole month: one launch, whatever it is that is missing."""

from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records.asset_checks import CheckedRecord, Checks, evaluations, specs
from audience_explorer_dagster.records.attempts import attempts_of
from spark_jobs.clusters import checks
from spark_jobs.outputs.checks import CheckResult
from tests.project import LAUNCHES, Project, why

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_month_is_one_launch_for_all_categories(project: Project) -> None:
    assert project.run_month("2024-01").success
    (jobs,) = LAUNCHES
    assert jobs[:2] == ["group_by_user 2024-01", "make_clustering_inputs 2024-01"]
    assert [job for job in jobs if job.startswith("kmeans")] == [f"kmeans {c}|2024-01" for c in project.categories]
    assert project.run_month("2024-01").success
    assert LAUNCHES == []


def jobs(category: str) -> list[str]:
    """Those of a category of a month whose k is given, after its inputs."""
    return [f"{job} {category}|2024-01" for job in ("kmeans", "follow_segments", "make_report")]


def test_what_is_there_is_reused_and_only_the_rest_launched(project: Project) -> None:
    project.run(["grouped_users"], "2024-01", "2024-01")
    assert project.run_month("2024-01", categories=["tea"], kmeans={"k": 2}).success
    assert [["make_clustering_inputs 2024-01", *jobs("tea")]] == LAUNCHES, "with k, it is not chosen"
    assert project.run_month("2024-01", categories=["tea", "coffee"], kmeans={"k": 2}).success
    assert [["make_clustering_inputs 2024-01", *jobs("coffee")]] == LAUNCHES, "not of one read before"


def test_a_new_category_file_needs_no_other_step_to_become_a_partition(project: Project) -> None:
    project.write_category("bread", "tea-1")
    assert project.run_month("2024-01").success
    assert len(project.records("kmeans", "bread|2024-01")) == 1


def test_a_failed_month_takes_its_segments_along_and_says_so(project: Project) -> None:
    result = project.run_month("2024-05")
    assert "[grouped_users 2024-05] There is no raw data in" in why(result)
    assert (
        "kmeans tea|2024-05, segments tea|2024-05, audience_report tea|2024-05] grouped_users of 2024-05 can't be made"
        in why(result)
    )
    assert LAUNCHES == []
    (project.root / "raw" / "month=2024-01" / "actions.jsonl").write_text("no JSON\n")
    result = project.run_month("2024-01", categories=["tea"])
    assert "audience_report tea|2024-01] not run, because group_by_user 2024-01 failed" in why(result)


def test_a_failed_category_stops_no_other(project: Project) -> None:
    (project.root / "categories" / "games.json").write_text("{}")
    result = project.run_month("2024-01")
    assets = ("clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")
    assert f"[{', '.join(f'{asset} games|2024-01' for asset in assets)}]" in why(result)
    assert "5 of 16 partitions failed" in why(result)
    assert {len(project.records("kmeans", f"{name}|2024-01")) for name in ("coffee", "tea")} == {1}


def test_a_category_that_has_no_file_is_named(project: Project) -> None:
    result = project.run_month("2024-01", categories=["tea", "nowhere"])
    assert "nowhere.json does not exist" in why(result)
    assert len(project.records("kmeans", "tea|2024-01")) == 1


def test_what_an_attempt_finished_before_it_was_killed_is_not_made_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_recorder: Any, _target: Any, _computation: Any, report: Any) -> None:
        if report.job.startswith("kmeans games"):
            raise SystemExit  # nothing before it was recorded either

    with monkeypatch.context() as killed:
        killed.setattr("audience_explorer_dagster.running.recording.Recorder.accept", die)
        assert not project.run_month("2024-01").success
    assert project.records("grouped_users", "2024-01") == []
    lost = project.instance.get_runs(limit=1)[0]

    tags = {"dagster/parent_run_id": lost.run_id, "dagster/root_run_id": lost.run_id}
    assert project.run_month("2024-01", tags=tags).success
    assert LAUNCHES == []
    (record,) = project.records("kmeans", "tea|2024-01")
    assert record["computed_by_run"] == lost.run_id
    assert record["folder"].endswith(lost.run_id[:8])


def test_each_process_of_a_run_has_folders_of_its_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project.run_month("2024-01").dagster_run
    first, earlier = attempts_of(project.instance, run)
    assert first.folder_name.endswith(f"-{run.run_id[:8]}")
    assert earlier == []
    monkeypatch.setattr(type(project.instance), "count_resume_run_attempts", lambda *_: 2)
    third, earlier = attempts_of(project.instance, run)
    assert third.folder_name == f"{first.folder_name}-2"
    assert [attempt.folder_name for attempt in earlier] == [f"{first.folder_name}-1", first.folder_name]


# --- checks ----------------------------------------------------------------------------------------------------------


def test_every_check_of_every_partition_is_evaluated(project: Project) -> None:
    project.run_month("2024-01")
    for asset in ("grouped_users", "clustering_inputs", "k_selection", "kmeans", "segments", "audience_report"):
        partitions = ["2024-01"] if asset == "grouped_users" else [f"{name}|2024-01" for name in project.categories]
        for partition in partitions:
            for name, evaluation in project.checks(asset, partition).items():
                passes = name != "has_segments"  # a dozen users can't show any
                assert evaluation.passed is passes, (name, evaluation.description)
    assert project.checks("kmeans", "tea|2024-01")["every_user_once"].metadata["users"].value == 10


def test_a_category_without_segments_is_a_warning_that_says_why(project: Project) -> None:
    assert project.run_month("2024-01", categories=["tea"]).success
    check = project.checks("k_selection", "tea|2024-01")["has_segments"]
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert str(check.description).startswith("Too few people to tell: fewer than 10 of 10 people have")
    assert found_by(check) == {"k": 1, "people": "fewer than 10", "verdict": "too_few"}


def test_a_reused_output_is_told_again_without_being_read(project: Project) -> None:
    project.run_month("2024-01")
    before = project.checks("kmeans", "tea|2024-01")
    for file in (project.root / "kmeans").rglob("*.parquet"):
        file.write_bytes(b"")
    project.run_month("2024-01")
    after = project.checks("kmeans", "tea|2024-01")
    assert after["drift"].target_materialization_data != before["drift"].target_materialization_data
    assert {name: found_by(check) for name, check in after.items()} == {n: found_by(c) for n, c in before.items()}


def test_a_month_that_is_unlike_the_one_before_is_a_warning(project: Project) -> None:
    project.write_raw("2024-02", users=40)
    project.run_month("2024-01")
    project.run_month("2024-02")
    drift = project.checks("grouped_users", "2024-02")["drift"]
    assert not drift.passed
    assert drift.severity.value == "WARN"
    told = "users changed by at least 60%, pages changed by at least 62% since the month before, more than 50%"
    assert told in str(drift.description)
    assert found_by(drift)["users"] == "10 → 40"
    assert not project.checks("kmeans", "tea|2024-02")["drift"].passed


def test_drift_is_told_as_soon_as_the_month_before_is_there(project: Project) -> None:
    project.run_month("2024-02")
    drift = project.checks("grouped_users", "2024-02")["drift"]
    assert drift.description == "there is no record of the month before"
    project.run_month("2024-01")
    project.run_month("2024-02")
    assert found_by(project.checks("grouped_users", "2024-02")["drift"])["users"] == "10 → 10"


def test_a_check_that_a_job_found_broken_is_an_error_that_names_the_partition(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = CheckResult(passed=False, found={"users": 1}, why="1 user is in two clusters")
    monkeypatch.setattr(checks, "every_user_once", lambda *_: found)
    assert project.run_month("2024-01", categories=["tea"]).success
    check = project.checks("kmeans", "tea|2024-01")["every_user_once"]
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert "manifest.json has what is wrong" in str(check.description), "it is of a few people, in exact figures"
    run = project.instance.get_runs(limit=1)[0]
    logged = [entry.user_message for entry in project.instance.all_logs(run.run_id)]
    told = "kmeans: check every_user_once failed for 1 of 1 partitions: tea|2024-01: `checks` in the output's manifest"
    assert any(line.startswith(told) for line in logged)


def test_drift_follows_what_the_month_before_became(project: Project) -> None:
    project.run_month("2024-01")
    project.run_month("2024-02")
    project.write_raw("2024-01", users=60)
    project.run_month("2024-01")
    project.run_month("2024-02")
    assert found_by(project.checks("grouped_users", "2024-02")["drift"])["users"] == "60 → 10"


def test_a_limit_of_drift_that_makes_no_sense_is_refused_before_anything_is_launched(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_DRIFT", "50%")
    assert "AUDIENCE_EXPLORER_DRIFT is '50%'; it must be a number from 0 to 1" in why(project.run_month("2024-01"))
    assert LAUNCHES == []


@pytest.mark.parametrize("asset", ["grouped_users", "kmeans"])
def test_checks_that_are_executed_by_themselves_are_evaluated_for_all_that_is_on_record(
    project: Project, asset: str
) -> None:
    for month in project.months:
        project.run_month(month, categories=["tea"])
    LAUNCHES.clear()
    assert execute_checks(project, asset) == (
        {"2024-01", "2024-02"} if asset == "grouped_users" else {"tea|2024-01", "tea|2024-02"}
    )
    assert LAUNCHES == []


def test_checks_that_are_executed_for_a_partition_are_evaluated_for_no_other(project: Project) -> None:
    for month in project.months:
        project.run_month(month, categories=["tea"])
    assert execute_checks(project, "kmeans", {"dagster/partition": "tea|2024-01"}) == {"tea|2024-01"}


def execute_checks(project: Project, asset: str, tags: dict[str, str] | None = None) -> set[str | None]:
    """Execute all checks of an asset, and nothing else; the partitions that were evaluated."""
    asset_job = project.definitions.resolve_implicit_global_asset_job_def()
    job = asset_job.get_subset(asset_selection=set(), asset_check_selection={spec.key for spec in specs(asset)})
    result = job.execute_in_process(instance=project.instance, resources={}, tags=tags, raise_on_error=False)
    assert result.success
    evaluated = [event.partition for event in result.get_asset_check_evaluations()]
    assert len(evaluated) == len(specs(asset)) * len(set(evaluated))
    return set(evaluated)


def test_a_check_that_an_output_was_made_without_is_not_evaluated() -> None:
    record = CheckedRecord(storage_id=1, run_id="", timestamp=0.0)
    found: Checks = {"schema": {"passed": True, "found": {}, "why": ""}}
    (only,) = evaluations("kmeans", Partition("2024-01", "tea"), found, record)
    assert (only.check_name, only.partition) == ("schema", "tea|2024-01")


def found_by(check: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """The figures that a check shows."""
    return {name: value.value for name, value in check.metadata.items()}
