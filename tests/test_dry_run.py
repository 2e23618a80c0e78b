"""What a plan would take is judged by what outputs like it took; the UI asks by a job."""

from datetime import datetime, timezone

import dagster as dg
import pytest

from audience_explorer_dagster.dry_run_job import DRY_RUN_JOB, DRY_RUN_OP
from audience_explorer_dagster.launchers import Job
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import KMEANS, Target
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.running.expectation import Expected, expect_of_jobs
from spark_jobs.config import EngineConfig, KMeansConfig
from spark_jobs.job_configs import KMeans
from spark_jobs.resources import ResourcesConfig
from tests.project import LAUNCHES, Project

pytestmark = pytest.mark.filterwarnings("ignore")


def job(*targets: Target) -> Job:
    config = KMeans(
        inputs="in", output="out", config=KMeansConfig(k=2), engine=EngineConfig(), resources=ResourcesConfig()
    )
    return Job(f"kmeans {targets[0].partition}", targets, config)


def of(category: str, month: str = "2024-02") -> Target:
    return Target(KMEANS, Partition(month, category))


def record(category: str, seconds: float, **launch: float) -> Record:
    metadata = {"duration_seconds": dg.MetadataValue.float(float(seconds))}
    metadata |= {f"launch/{name}": dg.MetadataValue.float(float(value)) for name, value in launch.items()}
    at = datetime(2024, 2, 1, tzinfo=timezone.utc)
    return Record(Partition("2024-01", category), "f", "folder", (), "run", at, metadata)


def test_the_same_category_says_best_how_long_it_takes() -> None:
    known = {KMEANS: [record("tea", 3), record("coffee", 60), record("tea", 5)]}
    assert expect_of_jobs([[job(of("tea"))]], known) == Expected(1, 1, 3, None, 0)


def test_a_new_category_is_taken_for_a_usual_one() -> None:
    known = {KMEANS: [record("tea", 3), record("coffee", 60), record("games", 5)]}
    assert expect_of_jobs([[job(of("water"))]], known).seconds == 5


def test_a_job_of_many_categories_takes_as_long_as_its_last_one() -> None:
    known = {KMEANS: [record("tea", 3), record("coffee", 60)]}
    assert expect_of_jobs([[job(of("tea"), of("coffee"))]], known).seconds == 60


def test_each_launch_waits_for_its_machine_and_each_output_has_its_price() -> None:
    known = {KMEANS: [record("tea", 3, boot_seconds=40, estimated_dollars=0.25)]}
    launches = [[job(of("tea", month))] for month in ("2024-02", "2024-03")]
    assert expect_of_jobs(launches, known) == Expected(2, 2, 86, 0.5, 0)


def test_what_nothing_is_known_of_is_said_to_be_unknown() -> None:
    assert expect_of_jobs([[job(of("tea"))]], {}) == Expected(1, 1, None, None, 1)
    assert expect_of_jobs([], {}) == Expected(0, 0, None, None, 0)


def test_the_job_shows_what_a_month_would_launch_and_why_and_leaves_no_trace(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2})
    before = sorted(project.root.rglob("*"))
    LAUNCHES.clear()
    result = project.definitions.resolve_job_def(DRY_RUN_JOB).execute_in_process(
        instance=project.instance,
        tags={"dagster/partition": "2024-01"},
        run_config={"ops": {DRY_RUN_OP: {"config": {"kmeans": {"k": 3}, "categories": ["tea"]}}}},
    )
    assert (LAUNCHES, sorted(project.root.rglob("*"))) == ([], before)
    assert not [event for event in result.all_events if event.is_step_materialization]
    (output,) = (event for event in result.all_events if event.is_successful_output)
    metadata = output.step_output_data.metadata
    assert (metadata["launch"].value, metadata["reuse"].value, metadata["launches"].value) == (3, 2, 1)
    rows = [dict(row.data) for row in metadata["plan"].records]
    assert rows[0] == {"partition": "tea|2024-01", "asset": "kmeans", "action": "launch", "why": "k 2 → 3"}
    assert "expected_seconds" in metadata


def test_the_job_takes_the_config_of_a_whole_month(project: Project) -> None:
    whole_month = project.definitions.resolve_job_def("whole_month").get_node_named("month")
    plan = project.definitions.resolve_job_def(DRY_RUN_JOB).get_node_named(DRY_RUN_OP)
    fields = [node.definition.config_schema.as_field().config_type.fields.keys() for node in (whole_month, plan)]
    assert fields[0] == fields[1]
