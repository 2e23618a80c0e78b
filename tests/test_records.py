"""Records: what is there is reused, per partition. What is planned when: test_planning."""

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.launchers import Job, LaunchFailed, Report
from audience_explorer_dagster.run_config import MonthRunConfig
from audience_explorer_dagster.running.dry_run import dry_run
from audience_explorer_dagster.running.pipeline import Outcome
from spark_jobs.errors import InputError
from spark_jobs.segments import load_segments
from tests.project import LAUNCHES, InProcessLauncher, Project, why

pytestmark = pytest.mark.filterwarnings("ignore")


def computed(outcomes: dict[str, Outcome]) -> set[str]:
    assert not [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    return {name for name, outcome in outcomes.items() if outcome.status == "launched"}


SEGMENTS = ("clustering_inputs", "k_selection", "kmeans", "segments", "audience_report")


def segments(*partitions: str, assets: tuple[str, ...] = SEGMENTS) -> set[str]:
    return {f"{asset} {partition}" for asset in assets for partition in partitions}


def every(project: Project) -> list[str]:
    return [f"{category}|{month}" for month in project.months for category in project.categories]


def test_a_first_run_computes_all_with_one_launch_a_month(project: Project) -> None:
    outcomes = project.pipeline()
    assert computed(outcomes) == {f"grouped_users {m}" for m in project.months} | segments(*every(project))
    assert [launch[:2] for launch in LAUNCHES] == [
        [f"group_by_user {month}", f"make_clustering_inputs {month}"] for month in project.months
    ]


def test_a_rerun_with_the_same_parameters_launches_nothing(project: Project) -> None:
    first = project.pipeline()
    second = project.pipeline()
    assert computed(second) == set()
    assert LAUNCHES == []
    assert {name: outcome.folder for name, outcome in second.items()} == {n: o.folder for n, o in first.items()}
    newest, oldest = project.records("kmeans", "coffee|2024-01")
    assert newest["reused"] is True
    assert oldest["reused"] is False
    assert newest["picture"] == oldest["picture"]
    assert {"computed_by_run", "computed_at"} <= newest.keys()


def test_a_label_names_a_record_and_computes_nothing(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"])
    assert computed(project.pipeline(["2024-01"], ["tea"], kmeans={"label": "final"})) == set()
    assert computed(project.pipeline(["2024-01"], ["tea"])) == set()
    newest, labelled, oldest = project.records("kmeans", "tea|2024-01")
    assert labelled["label"] == "final"
    assert "label" not in oldest
    assert "label" not in newest, "nobody asked for one this time"


def test_what_changed_is_computed_again_and_the_runs_log_says_why(project: Project) -> None:
    project.pipeline(["2024-01"], ["games", "tea"])
    project.write_raw("2024-01")  # the same again
    project.write_category("games", "games-1")
    changed = project.pipeline(["2024-01"], ["games", "tea"])
    assert computed(changed) == segments("games|2024-01")
    run = project.instance.get_runs(limit=1)[0]
    logged = "\n".join(str(entry.user_message) for entry in project.instance.all_logs(run.run_id))
    assert "games|2024-01: to be computed by make_clustering_inputs 2024-01: category file changed; into" in logged
    assert "kmeans games|2024-01: to be computed by kmeans games|2024-01: clustering_inputs changed, k_sel" in logged
    assert "kmeans tea|2024-01: reused from" in logged


def test_deleted_outputs_and_those_without_a_manifest_are_noticed_and_made_again(project: Project) -> None:
    first = project.pipeline(["2024-01"], ["tea"])
    for name in ("kmeans tea|2024-01", "grouped_users 2024-01"):
        project.delete(first[name].folder)
    Path(str(first["k_selection tea|2024-01"].folder), "manifest.json").unlink()
    again = project.pipeline(["2024-01"], ["tea"])
    assert computed(again) == {"grouped_users 2024-01", "k_selection tea|2024-01", "kmeans tea|2024-01"}


def test_kmeans_alone_reads_what_the_records_point_at(project: Project) -> None:
    result = project.run(["kmeans"], "tea|2024-01", "tea|2024-01")
    assert "clustering_inputs of tea|2024-01 was never materialized here. Select it as well." in why(result)
    assert LAUNCHES == []
    project.pipeline(["2024-01"], ["tea"], clustering_inputs={"scaling": "none"})
    config = {"kmeans": {"k": 2, "label": "two"}}
    assert project.run(["kmeans"], "tea|2024-01", "tea|2024-01", config).success
    assert LAUNCHES == [["kmeans tea|2024-01"]]
    assert project.records("kmeans", "tea|2024-01")[0]["k"] == 2


def test_records_of_another_root_are_not_reused(project: Project, tmp_path: Path) -> None:
    project.pipeline(["2024-01"], ["tea"])
    other = Project(tmp_path / "root2", project.instance)
    assert len(computed(other.pipeline(["2024-01"], ["tea"]))) == 6


def test_current_json_names_the_newest_output_with_the_deployments_own_parameters(project: Project) -> None:
    first = project.pipeline(["2024-01"], ["tea"])
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 1})
    file = project.root / "kmeans" / "month=2024-01" / "category=tea" / "current.json"
    assert json.loads(file.read_text())["folder"] == first["kmeans tea|2024-01"].folder
    project.write_raw("2024-01", users=20)
    second = project.pipeline(["2024-01"], ["tea"])
    assert json.loads(file.read_text())["folder"] == second["kmeans tea|2024-01"].folder


# --- a run over a block of partitions, as the UI and the dagster CLI launch it ----------------------------------------


def test_a_block_of_partitions_is_one_launch_and_a_record_each(project: Project) -> None:
    assert project.run(["grouped_users"], "2024-01", "2024-02").success
    assert LAUNCHES == [["group_by_user 2024-01", "group_by_user 2024-02"]]
    assert project.run(SEGMENTS, "coffee|2024-01", "tea|2024-02").success
    assert len(LAUNCHES) == 1
    assert [job for job in LAUNCHES[0] if job.startswith("make_clustering_inputs")] == [
        "make_clustering_inputs 2024-01",
        "make_clustering_inputs 2024-02",
    ]
    for partition in every(project):
        (record,) = project.records("kmeans", partition)
        assert (project.root / record["folder"] / "manifest.json").exists()
    assert project.run(SEGMENTS, "coffee|2024-01", "tea|2024-02").success
    assert LAUNCHES == []


def test_a_single_partition_is_a_range_of_one(project: Project) -> None:
    project.run(["grouped_users"], "2024-01", "2024-01")
    assert project.run(SEGMENTS, "tea|2024-01", "tea|2024-01").success
    assert len(project.records("kmeans", "tea|2024-01")) == 1


def test_a_reversed_range_is_an_error(project: Project) -> None:
    for assets, start, end in (
        (["grouped_users"], "2024-02", "2024-01"),
        (SEGMENTS, "tea|2024-01", "coffee|2024-01"),
    ):
        result = project.run(assets, start, end)
        assert not result.success
        assert f"{start}...{end} holds no partition" in why(result)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"kmeans": {"k": -1}}, "greater than or equal to 1"),
        ({"kmeans": {"params": "x,1,1"}}, "allowed are kmeans||, k-means||, k-means++, random"),
        ({"clustering_inputs": {"action_weights": {"poke": 1.0}}}, "allowed are page_like"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_launched(
    project: Project, config: dict[str, Any], says: str
) -> None:
    project.pipeline(["2024-01"], ["tea"])
    result = project.run(SEGMENTS, "tea|2024-01", "tea|2024-01", config=config)
    assert not result.success
    assert says in why(result)
    assert LAUNCHES == []


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_bad_category_stops_no_other_and_the_run_names_it(project: Project) -> None:
    (project.root / "categories" / "games.json").write_text('{"id": 1, "facebook": []}')
    outcomes = project.pipeline(["2024-01"])
    assert {name for name, o in outcomes.items() if o.status == "failed"} == segments("games|2024-01")
    assert "its list 'facebook' is empty" in str(outcomes["kmeans games|2024-01"].error)
    result = project.run(SEGMENTS, "coffee|2024-01", "tea|2024-01")
    failed = ", ".join(f"{asset} games|2024-01" for asset in SEGMENTS)
    assert f"[{failed}]" in why(result)
    assert LAUNCHES == []


def test_a_month_without_raw_data_stops_no_other(project: Project) -> None:
    result = project.run(["grouped_users"], "2024-01", "2024-03")
    assert "[grouped_users 2024-03] There is no raw data in" in why(result)
    assert "1 of 3 partitions failed" in why(result)
    assert len(project.records("grouped_users", "2024-02")) == 1


def test_a_job_that_fails_costs_only_what_depends_on_it(project: Project) -> None:
    outcomes = project.pipeline()
    part = next(Path(str(outcomes["grouped_users 2024-01"].folder), "users").iterdir())
    part.write_bytes(b"?" * part.stat().st_size)  # of the right size, so that only its reader sees it
    result = project.run(SEGMENTS, "coffee|2024-01", "tea|2024-02", config={"clustering_inputs": {"min_actions": 2}})
    assert "21 of 30 partitions failed" in why(result)
    assert "audience_report tea|2024-02] not run, because make_clustering_inputs 2024-01 failed" in why(result), (
        "segments follow the month before"
    )
    assert project.records("kmeans", "tea|2024-02")[0]["reused"] is False


def test_an_output_of_which_a_file_is_gone_is_not_read_as_if_it_were_whole(project: Project) -> None:
    outcomes = project.pipeline(["2024-01"], ["tea"])
    at = {name: Path(str(outcomes[f"{name} tea|2024-01"].folder)) for name in ("k_selection", "kmeans")}
    next(Path(str(outcomes["grouped_users 2024-01"].folder), "users").iterdir()).unlink()
    (at["k_selection"] / "manifest.json").write_text("")
    (at["kmeans"] / "data.json").write_text("{")
    config = MonthRunConfig()
    planned = {
        target.asset: target.why
        for target in dry_run(project.instance, project.store, ["2024-01"], ["tea"], config).targets
        if target.action == "launch"
    }
    assert planned == {
        "grouped_users": f"its output is damaged: {outcomes['grouped_users 2024-01'].folder}: its file"
        " users/part-00000.parquet is gone, or has another size than its manifest says",
        "k_selection": f"its output is damaged: {at['k_selection']}/manifest.json is not a whole manifest: it is empty,"
        " or cut off",
        "kmeans": f"its output is damaged: {at['kmeans']}: its file data.json is gone, or has another size than its"
        " manifest says",
    }
    made_again = {"grouped_users 2024-01", *segments("tea|2024-01", assets=tuple(at))}
    assert computed(project.pipeline(["2024-01"], ["tea"])) == made_again


def test_a_damaged_output_is_current_no_longer_once_there_is_a_whole_one(project: Project) -> None:
    first = project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2}, promote=True)["kmeans tea|2024-01"]
    Path(str(first.folder), "manifest.json").write_text("")
    with pytest.raises(InputError, match=r"manifest.json is not a whole manifest: it is empty, or cut off\. Delete"):
        load_segments(str(project.root), "2024-01", "tea")
    project.pipeline(["2024-01"], ["tea"])
    assert load_segments(str(project.root), "2024-01", "tea").folder != first.folder


def test_an_interrupt_starts_nothing_more_and_keeps_what_is_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._core.errors import DagsterExecutionInterruptedError

    from tests.project import InProcessLauncher

    launch = InProcessLauncher.launch

    def interrupted(self: Any, context: Any, jobs: Any) -> Any:
        for report in launch(self, context, jobs):
            if report.job.startswith("kmeans games"):
                raise DagsterExecutionInterruptedError
            yield report

    monkeypatch.setattr(InProcessLauncher, "launch", interrupted)
    outcomes = project.pipeline()
    assert len(LAUNCHES) == 1, "the second month was not begun"
    assert outcomes["kmeans coffee|2024-01"].status == "launched"
    for name in ("kmeans games|2024-01", "grouped_users 2024-02", "kmeans tea|2024-02"):
        assert outcomes[name].error == "interrupted before it was done"


def test_input_that_changes_during_the_run_is_not_recorded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.project import InProcessLauncher

    launch = InProcessLauncher.launch

    def change_first(self: Any, context: Any, jobs: Any) -> Any:
        project.write_raw("2024-01", users=30)
        return launch(self, context, jobs)

    monkeypatch.setattr(InProcessLauncher, "launch", change_first)
    result = project.run(["grouped_users"], "2024-01", "2024-01")
    assert "its input changed between planning and reading. Run it again." in why(result)
    assert project.records("grouped_users", "2024-01") == []


def test_a_category_without_users_is_done_with_zero_clusters(project: Project) -> None:
    project.write_category("tea", "nobody-was-here")
    outcomes = project.pipeline(["2024-01"], ["tea"])
    assert (outcomes["kmeans tea|2024-01"].users, outcomes["kmeans tea|2024-01"].k) == (0, 0)
    assert len(computed(outcomes)) == 6


class LosesTheLastMessage(InProcessLauncher):
    """Does all it is asked for, and then finds that something is missing."""

    def launch(self, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Generator[Report]:
        yield from super().launch(context, jobs)
        raise LaunchFailed("MessagesLost: it wrote 3 messages, 2 arrived")


def test_a_launch_that_fails_in_the_end_fails_its_run_though_all_is_recorded(project: Project) -> None:
    project.definitions = definitions(str(project.root), LosesTheLastMessage())
    result = project.run(["grouped_users"], "2024-01", "2024-01")
    assert not result.success
    assert "All partitions are done and recorded, but their launch failed: MessagesLost" in why(result)
    project.delete(str(project.root / project.records("grouped_users", "2024-01")[0]["folder"]))
    outcomes = project.pipeline(["2024-01"], ["tea"])
    assert outcomes["grouped_users 2024-01"].status == "launched"
    assert "MessagesLost" in str(outcomes["launch 2024-01"].error)
    assert outcomes["kmeans tea|2024-01"].status == "launched"
