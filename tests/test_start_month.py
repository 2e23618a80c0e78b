"""The first month that is a partition: that of the data, so that no empty years bury it."""

from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
import pytest

from audience_explorer_dagster import start_month as module
from audience_explorer_dagster.partitions import end_of_months
from audience_explorer_dagster.start_month import start_month
from spark_jobs import demo_audience
from spark_jobs.errors import S3Error

NOW = datetime(2026, 3, 5, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(tmp_path))
    return tmp_path


def test_it_is_the_first_month_of_raw_data(root: Path) -> None:
    for folder in ("month=2024-03", "month=2024-02", "month=2024-13", "month=2023", "2023-01"):
        (root / "raw" / folder).mkdir(parents=True)
    assert start_month(NOW) == "2024-02"


def test_months_whose_raw_data_was_deleted_stay_partitions(root: Path) -> None:
    (root / "raw" / "month=2024-03").mkdir(parents=True)
    (root / "grouped_users" / "month=2023-11").mkdir(parents=True)
    assert start_month(NOW) == "2023-11"


def test_a_young_root_has_the_last_half_year(root: Path) -> None:
    (root / "raw" / "month=2026-02").mkdir(parents=True)
    assert start_month(NOW) == "2025-09"


def test_one_that_is_set_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "raw" / "month=2024-03").mkdir(parents=True)
    monkeypatch.setenv("AUDIENCE_EXPLORER_START_MONTH", "2025-01")
    assert start_month(NOW) == "2025-01"


def test_without_data_it_is_as_it_always_was() -> None:
    assert start_month(NOW) == "2018-01"


def test_a_root_that_gets_no_more_data_has_a_last_month(monkeypatch: pytest.MonkeyPatch) -> None:
    assert end_of_months() is None
    monkeypatch.setenv("AUDIENCE_EXPLORER_END_MONTH", "2024-12")
    until = dg.TimeWindowPartitionsDefinition(
        cron_schedule="0 0 1 * *", start="2024-11", end=end_of_months(), fmt="%Y-%m", timezone="UTC"
    )
    assert until.get_partition_keys() == ["2024-11", "2024-12"]


def test_the_demos_ui_has_the_demos_months() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    assert f"AUDIENCE_EXPLORER_END_MONTH={demo_audience.MONTHS[-1]}\n" in makefile


def test_an_s3_that_does_not_answer_keeps_no_project_from_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> list[str]:
        raise S3Error("s3://audience can't be reached")

    monkeypatch.setattr(module, "list_months", fail)
    with pytest.warns(UserWarning, match="is not known, so it is 2018-01: s3://audience can't be reached"):
        assert start_month(NOW) == "2018-01"
