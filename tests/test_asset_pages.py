"""What the pages of the assets show: what failed, what was checked, what has arrived, what is stale."""

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_representation.external_data import JobDataSnap, SensorSnap
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus
from dagster._core.storage.partition_status_cache import get_partition_subsets

from audience_explorer_dagster import assets
from audience_explorer_dagster.assets import raw_files
from audience_explorer_dagster.automation import arrived_in_time, raw_arrivals
from audience_explorer_dagster.automation.arrival import newest_due
from audience_explorer_dagster.definitions import defs
from audience_explorer_dagster.launchers import Job, Report
from audience_explorer_dagster.partitions import Partition, month_by_category, months
from audience_explorer_dagster.records import variants
from audience_explorer_dagster.records.raw_data import check_file_types
from audience_explorer_dagster.run_config import MonthRunConfig
from tests.project import InProcessLauncher, Project

pytestmark = pytest.mark.filterwarnings("ignore")

GROUPED_USERS, KMEANS = "grouped_users", "kmeans"
ASSETS = (GROUPED_USERS, "clustering_inputs", "k_selection", KMEANS, "segments", "audience_report")


def partitions_of(asset: str) -> dg.PartitionsDefinition[str]:
    return months if asset in (GROUPED_USERS, "raw_audience") else month_by_category


def status(project: Project, asset: str) -> dict[str, set[str]]:
    """The partitions of an asset that are materialized, failed or materializing, as its page counts them."""
    subsets = asyncio.run(
        get_partition_subsets(
            project.instance,
            LoadingContextForTest(project.instance),
            dg.AssetKey(asset),
            project.instance,
            partitions_of(asset),
        )
    )
    names = ("materialized", "failed", "materializing")
    return {
        name: set(subset.get_partition_keys()) if subset else set() for name, subset in zip(names, subsets, strict=True)
    }


# --- what failed -----------------------------------------------------------------------------------------------------


def test_a_failed_month_shows_on_the_page_of_each_asset(project: Project) -> None:
    run = project.run_month("2024-05")
    assert not run.success
    assert status(project, GROUPED_USERS)["failed"] == {"2024-05"}
    for asset in ASSETS[1:]:
        assert status(project, asset)["failed"] == {f"{name}|2024-05" for name in project.categories}
    (record,) = project.instance.get_asset_records([dg.AssetKey(KMEANS)])
    assert record.asset_entry.last_run_id == run.run_id, "the lineage is as red as the newest run"


def test_what_a_failed_month_made_or_reused_is_not_shown_as_failed(project: Project) -> None:
    project.run_month("2024-01", categories=["coffee"])
    (project.root / "categories" / "games.json").write_text("{}")
    assert not project.run_month("2024-01").success
    assert status(project, KMEANS) == {
        "materialized": {"coffee|2024-01", "tea|2024-01"},
        "failed": {"games|2024-01"},
        "materializing": set(),
    }


def test_what_fails_is_shown_until_a_run_makes_it(project: Project) -> None:
    lost = project.run_month("2024-05")
    assert status(project, KMEANS)["failed"] == {f"{name}|2024-05" for name in project.categories}
    project.write_raw("2024-05")
    tags = {"dagster/parent_run_id": lost.run_id, "dagster/root_run_id": lost.run_id}
    assert project.run_month("2024-05", tags=tags).success
    for asset in ASSETS:
        assert status(project, asset)["failed"] == set()


def test_during_a_run_what_it_computes_is_shown_as_materializing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run_month("2024-01", categories=["coffee"])
    seen = {}
    launch = InProcessLauncher.launch

    def look_first(self: Any, context: dg.OpExecutionContext, jobs: Sequence[Job]) -> Iterator[Report]:
        seen.update({asset: status(project, asset)["materializing"] for asset in ASSETS})
        return launch(self, context, jobs)

    monkeypatch.setattr(InProcessLauncher, "launch", look_first)
    project.run_month("2024-01", categories=["coffee", "tea"])
    assert seen == {GROUPED_USERS: set(), **{asset: {"tea|2024-01"} for asset in ASSETS[1:]}}
    assert not any(status(project, asset)["materializing"] for asset in ASSETS)


# --- what was checked ------------------------------------------------------------------------------------------------


def failed_checks(project: Project, asset: str, check: str) -> set[str]:
    """The partitions for which the page shows that a check failed."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    with partition_loading_context(None, project.instance):
        state = project.instance.event_log_storage.get_asset_check_state([(key, partitions_of(asset))])[key]
        return set(state.subsets[AssetCheckExecutionResolvedStatus.FAILED].subset_value.get_partition_keys())


def test_a_check_that_failed_for_a_month_is_not_hidden_by_a_run_of_another(project: Project) -> None:
    project.write_raw("2024-02", users=40)
    for month in ("2024-01", "2024-02", "2024-01"):
        assert project.run_month(month).success
    assert failed_checks(project, GROUPED_USERS, "drift") == {"2024-02"}
    assert failed_checks(project, KMEANS, "drift") == {f"{name}|2024-02" for name in project.categories}
    project.write_raw("2024-02")
    assert project.run_month("2024-02").success
    assert failed_checks(project, GROUPED_USERS, "drift") == set()


def test_runs_of_the_assets_evaluate_checks_by_partition_as_well(project: Project) -> None:
    project.write_raw("2024-02", users=40)
    project.run([GROUPED_USERS], "2024-01", "2024-02")
    assert failed_checks(project, GROUPED_USERS, "drift") == {"2024-02"}
    project.run([GROUPED_USERS], "2024-01", "2024-01")
    assert failed_checks(project, GROUPED_USERS, "drift") == {"2024-02"}


# --- what has arrived ------------------------------------------------------------------------------------------------


def arrived(project: Project, month: str) -> list[dict[str, Any]]:
    return project.records("raw_audience", month)


def test_a_run_records_what_has_arrived_once_a_change(project: Project) -> None:
    project.run_month("2024-01", categories=["tea"])
    project.run_month("2024-01", categories=["tea"])
    (record,) = arrived(project, "2024-01")
    file = project.root / "raw" / "month=2024-01" / "actions.jsonl"
    assert (record["raw_files"], record["bytes"]) == (1, file.stat().st_size)
    assert record["last_changed"] == pytest.approx(file.stat().st_mtime)
    project.write_raw("2024-01", users=13)
    project.run_month("2024-01", categories=["tea"])
    assert len(arrived(project, "2024-01")) == 2
    assert status(project, "raw_audience")["materialized"] == {"2024-01"}


class Ticks:
    """The sensor `raw_arrivals`, tick by tick."""

    def __init__(self, project: Project):
        self.project = project
        self.cursor: str | None = None

    def __call__(self) -> str:
        resources = {"store": self.project.store}
        context = dg.build_sensor_context(self.project.instance, cursor=self.cursor, resources=resources)
        skipped = raw_arrivals(context)
        assert isinstance(skipped, dg.SkipReason)
        self.cursor = context.cursor
        return str(skipped.skip_message)


def test_the_page_of_raw_data_shows_which_months_can_be_run_before_any_was(project: Project) -> None:
    tick = Ticks(project)
    assert tick() == "Nothing new.", "what was just seen may still be changing"
    assert tick() == "Recorded: 2024-01, 2024-02."
    assert tick() == "Nothing new."
    assert status(project, "raw_audience")["materialized"] == {"2024-01", "2024-02"}
    project.write_raw("2024-03")
    tick()
    assert tick() == "Recorded: 2024-03."
    assert project.run_month("2024-03", categories=["tea"]).success
    assert len(arrived(project, "2024-03")) == 1, "a run records only what is new"


def test_a_file_of_another_type_is_a_failed_check_until_it_is_gone(project: Project) -> None:
    def passed() -> bool:
        (newest,) = project.instance.event_log_storage.get_asset_check_execution_history(raw_files.check_key, limit=1)
        assert newest.evaluation is not None
        return newest.evaluation.passed

    tick = Ticks(project)
    tick()
    tick()
    assert passed(), "not merely never looked at"
    stray = project.root / "raw" / "month=2024-02" / "actions.xlsx"
    stray.write_text("")
    tick()
    tick()
    assert not passed()
    project.run_month("2024-01", categories=["tea"])
    assert not passed(), "another month's run does not hide it"
    stray.unlink()
    project.run_month("2024-02", categories=["tea"])
    assert passed()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("gone")], ids=["folder", "broken link"])
def test_a_folder_or_a_broken_link_beside_raw_files_is_a_failed_check(
    project: Project, make: Callable[[Path], None]
) -> None:
    assert check_file_types(project.store).passed
    make(project.root / "raw" / "month=2024-02" / "part.parquet")
    assert not check_file_types(project.store).passed


# --- what is late ----------------------------------------------------------------------------------------------------


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("now", "arrived", "due"),
    [
        ("2024-03-02", ["2024-01"], ("2024-01", True)),  # February has three days to come
        ("2024-03-04", ["2024-01"], ("2024-02", False)),
        ("2024-03-04", ["2024-01", "2024-02"], ("2024-02", True)),
        ("2024-03-02", ["2023-12"], ("2024-01", False)),  # January is late still, and February not yet
        ("2024-03-02", ["2023-12", "2024-02"], ("2024-02", True)),  # only the newest is judged
        ("2024-03-04", [], None),
    ],
)
def test_the_newest_month_is_late_once_its_deadline_is_over(
    now: str, arrived: list[str], due: tuple[str, bool] | None
) -> None:
    assert newest_due(arrived, at(now)) == due


def test_a_late_month_fails_a_check_once_until_it_arrives(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[tuple[bool, str]]:
        history = project.instance.event_log_storage.get_asset_check_execution_history(arrived_in_time.check_key, 10)
        evaluations = [execution.evaluation for execution in history]
        return [(evaluation.passed, str(evaluation.description)) for evaluation in evaluations if evaluation]

    monkeypatch.setenv("AUDIENCE_EXPLORER_ARRIVAL_DAYS", "0")
    newest = months.get_partition_keys()[-1]
    tick = Ticks(project)
    for _ in range(3):
        tick()
    ((passed, why),) = found()
    assert not passed
    assert f"{newest} is late: raw/month={newest}/ has no raw file" in why
    project.write_raw(newest)
    for _ in range(3):
        tick()
    assert [passed for passed, _ in found()] == [True, False], "recorded when it changes, and not each time"


def test_a_root_without_data_is_not_late(project: Project) -> None:
    shutil.rmtree(project.root / "raw")
    Ticks(project)()
    history = project.instance.event_log_storage.get_asset_check_execution_history(arrived_in_time.check_key, 10)
    assert not history
    assert arrived_in_time(project.store).passed


# --- what runs them --------------------------------------------------------------------------------------------------


def test_the_page_of_raw_data_lists_the_sensor_that_records_it() -> None:
    snap = SensorSnap.from_def(raw_arrivals, defs.get_repository_def())
    assert snap.asset_selection is not None
    assert snap.asset_selection.resolve(defs.resolve_asset_graph()) == {dg.AssetKey("raw_audience")}


def test_assets_name_what_runs_them_and_link_to_the_job() -> None:
    automations = {sensor.name for sensor in defs.sensors or ()} | {schedule.name for schedule in defs.schedules or ()}
    for spec in defs.resolve_all_asset_specs():
        named = set(re.findall(r"(?:sensor|schedule) `(\w+)`", str(spec.description)))
        assert named, spec.key
        assert named <= automations
        if spec.key != dg.AssetKey("raw_audience"):
            assert spec.metadata["automated_by"].job_name == "whole_month"


# --- what is stale ---------------------------------------------------------------------------------------------------


def stale(project: Project, definitions: dg.Definitions | None = None) -> set[str]:
    """What Dagster calls stale of all that is materialized."""
    graph = (definitions or project.definitions).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(project.instance, graph, LoadingContextForTest(project.instance))
    found = set()
    for asset in ASSETS:
        for key in project.instance.get_materialized_partitions(dg.AssetKey(asset)):
            if resolver.get_status(dg.AssetKey(asset), key).value != "FRESH":
                found.add(f"{asset} {key}")
    return found


def every(project: Project, month: str, *of: str) -> set[str]:
    return {f"{asset} {name}|{month}" for asset in of for name in project.categories}


def test_nothing_is_stale_after_a_run_nor_after_one_that_reuses_all(project: Project) -> None:
    for month in project.months:
        project.run_month(month)
    assert stale(project) == set()
    project.run_month("2024-01")
    assert stale(project) == set()


def test_another_k_makes_nothing_stale(project: Project) -> None:
    project.run_month("2024-01")
    project.run_month("2024-01", kmeans={"k": 2, "label": "two"})
    project.run(["k_selection"], "tea|2024-01", "tea|2024-01", {"k_selection": {"k_max": 3}})
    assert stale(project) == set(), "with a given k, k_selection is not read"


def test_new_raw_data_makes_its_month_stale_until_it_is_run(project: Project) -> None:
    for month in project.months:
        project.run_month(month)
    project.write_raw("2024-01", users=13)
    tick = Ticks(project)
    tick()
    tick()
    assert stale(project) == {"grouped_users 2024-01"}
    project.run([GROUPED_USERS], "2024-01", "2024-01")
    assert stale(project) == every(project, "2024-01", "clustering_inputs")
    project.run_month("2024-01")
    assert stale(project) == set()
    project.write_raw("2024-01")
    tick()
    tick()
    assert stale(project) == {"grouped_users 2024-01"}
    project.run_month("2024-01")
    assert stale(project) == set(), "what was made of this data before is confirmed"


def test_other_vectors_make_what_was_made_of_the_ones_before_stale(project: Project) -> None:
    project.run_month("2024-01")
    project.run(["clustering_inputs"], "tea|2024-01", "tea|2024-01", {"clustering_inputs": {"scaling": "none"}})
    assert stale(project) == {"k_selection tea|2024-01", "kmeans tea|2024-01"}


def test_a_raised_code_version_makes_every_partition_of_its_asset_stale(project: Project) -> None:
    project.run_month("2024-01")

    def raised(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(code_version="999") if spec.key == dg.AssetKey(KMEANS) else spec

    of_tomorrow = dg.Definitions(
        assets=[asset.map_asset_specs(raised) for asset in (assets.grouped_users, assets.segments)],
        resources=project.definitions.resources,
    )
    assert stale(project, of_tomorrow) == every(project, "2024-01", KMEANS)


def test_a_promoted_output_is_stale_only_if_what_it_was_made_from_has_changed(project: Project) -> None:
    partition = Partition("2024-01", "tea")

    def promote_oldest() -> None:
        histories = variants.histories_of(project.instance, project.store, partition)
        oldest = list(histories[KMEANS].all(partition))[-1]
        choice = variants.Choice(folder=oldest.folder)
        report = project.instance.report_runless_asset_event
        variants.promote(project.instance, project.store, partition, histories, choice, MonthRunConfig(), report)

    project.run_month("2024-01", categories=["tea"])
    project.run_month("2024-01", categories=["tea"], kmeans={"k": 2})
    promote_oldest()
    assert stale(project) == set()
    project.run_month("2024-01", categories=["tea"], clustering_inputs={"scaling": "none"})
    promote_oldest()
    assert stale(project) == {"kmeans tea|2024-01"}


# --- what else they say ----------------------------------------------------------------------------------------------


def test_a_page_first_has_what_people_came_for_and_last_what_machines_read(project: Project) -> None:
    for config in ({}, {"kmeans": {"k": 2, "label": "two"}}, {"kmeans": {"k": 2, "label": "two"}}):
        assert project.run_month("2024-01", categories=["tea"], **config).success
        names = list(project.records(KMEANS, "tea|2024-01")[0])
        first = [name for name in names if name != "verdict"][:6]
        assert first == ["finding", "how_sure", "what_to_do", "segments", "picture", "report"]
        assert names[-6:] == ["root", "config", "code_version", "fingerprint", "inputs", "checks"]
    assert list(project.records("segments", "tea|2024-01")[0])[:2] == ["what_happened", "segments"]
    assert list(project.records("audience_report", "tea|2024-01")[0])[:3] == ["headline", "report", "open_report"]


def test_every_column_says_what_it_is() -> None:
    tables = [spec for spec in defs.resolve_all_asset_specs() if "dagster/column_schema" in spec.metadata]
    assert len(tables) == len(ASSETS)  # raw_audience and category_trends as well, and neither segments nor the report
    for spec in tables:
        columns = spec.metadata["dagster/column_schema"].columns
        assert all(column.description for column in columns), spec.key


@pytest.mark.parametrize("name", [*ASSETS, "whole_month"])
def test_the_example_for_the_launchpad_is_one_that_it_takes(name: str) -> None:
    spec = next((spec for spec in defs.resolve_all_asset_specs() if spec.key.to_user_string() == name), None)
    job = defs.resolve_job_def("whole_month") if spec is None else defs.resolve_implicit_global_asset_job_def()
    description = str(job.description if spec is None else spec.description)
    example = yaml.safe_load(description.partition("```yaml\n")[2].rpartition("```")[0])
    if spec is not None:
        job = job.get_subset(asset_selection={spec.key})
    assert dg.validate_run_config(job, example)
    (op,) = example["ops"].values()
    assert {"engine", "force"} <= op["config"].keys()


@pytest.mark.parametrize("name", ["whole_month", "dry_run", "__ASSET_JOB"])
def test_the_launchpad_opens_with_what_a_person_edits_most(name: str) -> None:
    """Its text, run as it is, is what would run without it."""
    job = defs.resolve_implicit_global_asset_job_def() if name == "__ASSET_JOB" else defs.resolve_job_def(name)
    snap = JobDataSnap.from_job_def(job, include_parent_snapshot=False).job
    schema = snap.config_schema_snapshot
    root_type = schema.get_config_snap(str(snap.mode_def_snaps[0].root_config_key))
    opened = yaml.safe_load(default_values_yaml_from_type_snap(schema, root_type))
    for op in opened["ops"].values():
        assert op["config"]["engine"] == "local"
        if "kmeans" in op["config"]:
            assert {"k", "label", "params", "n_init", "seed"} <= op["config"]["kmeans"].keys()
        if name != "__ASSET_JOB":
            assert op["config"]["categories"] == []
            assert MonthRunConfig(**op["config"]) == MonthRunConfig()
    assert MonthRunConfig().kmeans.k is None
    assert MonthRunConfig().kmeans.label is None


def test_a_run_of_the_assets_says_nothing_of_outputs_that_were_not_yielded(project: Project) -> None:
    result = project.run([GROUPED_USERS], "2024-01", "2024-01")
    assert result.success
    project.run(list(ASSETS[1:]), "coffee|2024-01", "tea|2024-01")
    for run in project.instance.get_runs():
        logged = [str(entry.user_message) for entry in project.instance.all_logs(run.run_id)]
        assert not [line for line in logged if "did not yield" in line]


def test_what_fails_for_one_reason_is_logged_in_one_line(project: Project) -> None:
    run = project.run_month("2024-05")
    logged = [str(entry.user_message) for entry in project.instance.all_logs(run.run_id)]
    (line,) = [line for line in logged if "grouped_users of 2024-05 can't be made" in line]
    assert [reason.count("kmeans") for reason in line.splitlines()] == [0, 3]
