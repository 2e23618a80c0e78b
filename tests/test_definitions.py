"""What Dagster loads: the assets read as the pipeline, and partitions grow by themselves."""

import subprocess
import sys
from datetime import datetime, timezone

import dagster as dg
import pytest

from audience_explorer_dagster.assets import grouped_users, segments
from audience_explorer_dagster.automation import category_files
from audience_explorer_dagster.definitions import defs, launcher_from_environment
from audience_explorer_dagster.partitions import months
from spark_jobs.errors import InputError
from tests.project import Project

PIPELINE = {
    "raw_audience": set(),
    "grouped_users": {"raw_audience"},
    "clustering_inputs": {"grouped_users"},
    "k_selection": {"clustering_inputs"},
    "kmeans": {"clustering_inputs", "k_selection"},
    "category_trends": {"kmeans"},
    "segments": {"kmeans"},
    "audience_report": {"kmeans", "segments"},
}
NO_TABLE = {"segments", "audience_report"}  # but one of their record, or a page for people


def test_the_assets_are_the_pipeline_and_tell_what_they_are() -> None:
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert {name: {dep.asset_key.to_user_string() for dep in spec.deps} for name, spec in specs.items()} == PIPELINE
    for name, spec in specs.items():
        assert spec.description
        assert spec.kinds
        assert spec.owners
        assert name in NO_TABLE or spec.metadata["dagster/column_schema"].columns


def test_all_jobs_load_in_one_repository() -> None:
    jobs = {job.name for job in defs.get_repository_def().get_all_jobs()}
    assert {"whole_month", "promote"} <= jobs


def test_the_columns_of_k_selection_are_those_of_the_rows_it_tries() -> None:
    (spec,) = (spec for spec in defs.resolve_all_asset_specs() if spec.key.to_user_string() == "k_selection")
    assert {column.name for column in spec.metadata["dagster/column_schema"].columns} == {
        *("k", "prediction", "smallest_segment", "wssse", "silhouette", "calinski_harabasz")
    }


def test_both_steps_are_of_the_pool_that_limits_how_many_launch_at_once() -> None:
    assert {step.op.pool for step in (grouped_users, segments)} == {"launches"}


def test_the_running_month_is_no_partition_until_it_ends() -> None:
    at = datetime(2024, 3, 31, 23, tzinfo=timezone.utc)
    assert months.get_partition_keys(current_time=at)[-1] == "2024-02"
    assert months.get_partition_keys(current_time=datetime(2024, 4, 1, tzinfo=timezone.utc))[-1] == "2024-03"


def test_the_sensor_adds_a_partition_for_a_new_category_file(project: Project) -> None:
    project.write_category("water", "water-1")
    context = dg.build_sensor_context(instance=project.instance, resources={"store": project.store})
    result = category_files(context)
    assert isinstance(result, dg.SensorResult)
    assert result.dynamic_partitions_requests is not None
    assert list(result.dynamic_partitions_requests[0].partition_keys) == ["water"]


def test_a_launcher_that_does_not_exist_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_LAUNCHER", "ec3")
    with pytest.raises(InputError, match="'ec3'; allowed are local"):
        launcher_from_environment()


def test_jobs_import_neither_dagster_nor_the_project() -> None:
    code = (
        "import sys, importlib, pkgutil, spark_jobs\n"
        "for m in pkgutil.iter_modules(spark_jobs.__path__):\n"
        "    m.name == '__main__' or importlib.import_module('spark_jobs.' + m.name)\n"
        "bad = {n.split('.')[0] for n in sys.modules} & {'dagster', 'audience_explorer_dagster'}\n"
        "sys.exit(', '.join(bad) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
