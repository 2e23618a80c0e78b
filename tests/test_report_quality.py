"""What a report says of its data: what was read and refused, and what changed since the month before."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spark_jobs import make_report, outputs
from spark_jobs.audience_report.quality import Quality, Sources, change, quality_of
from spark_jobs.config import EngineConfig, ReportConfig
from spark_jobs.errors import InputError
from spark_jobs.reporting import Reporter
from spark_jobs.resources import ResourcesConfig
from tests.published_segments import make_kmeans
from tests.test_report import Page

PAGES = {"page0": 4_321, "page1": 777, "page2": 9, "page3": 0}
REJECTS = {"user_id is missing": 1_234, "timestamp is outside the month": 7}


def make_inputs(folder: Path, month_users: int = 60_004) -> str:
    """The manifest and pages of the clustering inputs that `make_kmeans` says its clusters are of."""
    folder.mkdir(parents=True)
    rows = [{"dimension_id": page, "dimension_name": f"The {page}", "users": users} for page, users in PAGES.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "dimensions.parquet")
    return write(folder, "clustering_inputs", "a" * 32, ["9" * 32, "8" * 32], {"month_users": month_users})


def make_grouped(folder: Path, fingerprint: str = "9" * 32) -> str:
    folder.mkdir(parents=True)
    summary = {"users": 60_004, "rows": 200_006, "rejected": sum(REJECTS.values()), "rejects": REJECTS}
    return write(folder, "grouped_users", fingerprint, ["7" * 32], summary)


def write(folder: Path, step: str, fingerprint: str, inputs: list[str], summary: dict[str, Any]) -> str:
    manifest = {
        "step": step,
        "fingerprint": fingerprint,
        "inputs": inputs,
        "files": [],
        "config": {},
        "summary": summary,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def page_of(folder: Path, **made_from: str | None) -> str:
    resources, config = ResourcesConfig().resolve(), ReportConfig()
    report = str(folder / "report")
    clusters = make_kmeans(folder / "kmeans")
    make_report.run(
        clusters, report, None, "2024-03", "coffee", config, EngineConfig(), resources, Reporter(), **made_from
    )
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


def quality(
    folder: Path, before: dict[str, int | None] | None = None, users: int = 10_944, month_users: int = 60_004
) -> Quality:
    """The data quality of a category whose last month had these figures."""
    clusters = outputs.read_manifest(make_kmeans(folder / "kmeans", users=users), "kmeans")
    inputs = outputs.read_manifest(make_inputs(folder / "inputs", month_users), "clustering_inputs")
    followed = None if before is None else {"since": "2024-02", "history": [{"month": "2024-02", **before}]}
    people = None if users < 10 else round(users, -1)
    return quality_of(clusters, people, 10, Sources(inputs, [], None), followed)


def test_a_report_says_what_was_read_and_refused_and_which_pages_are_hardly_used(tmp_path: Path) -> None:
    inputs, grouped = make_inputs(tmp_path / "inputs"), make_grouped(tmp_path / "grouped")
    page = Page(page_of(tmp_path, inputs=inputs, grouped=grouped))
    table = page.csv["data-quality.csv"].splitlines()
    assert "people on any page in the month,60000" in table
    assert "rows of raw data,200010" in table
    assert '"rows refused, because they break a rule",1240' in table
    assert "pages of the category,4" in table
    assert "0.6% of the rows of the month's raw data break a rule" in page.text
    assert "2 of the category's 4 pages have fewer than 10 people" in page.text


def test_refused_rows_are_counted_by_reason_and_fewer_than_ten_as_so_few(tmp_path: Path) -> None:
    page = Page(page_of(tmp_path, inputs=make_inputs(tmp_path / "inputs"), grouped=make_grouped(tmp_path / "grouped")))
    assert page.csv["refused-rows.csv"].splitlines() == [
        "reason,rows",
        "user_id is missing,1230",
        "timestamp is outside the month,<10",
    ]


def test_a_page_that_nobody_is_on_is_not_told_from_one_of_a_few_people(tmp_path: Path) -> None:
    html = page_of(tmp_path, inputs=make_inputs(tmp_path / "inputs"))
    assert Page(html).csv["pages-hardly-used.csv"].splitlines() == [
        "page,page id",
        "The page2,page2",
        "The page3,page3",
    ]


def test_the_people_are_compared_with_the_month_before(tmp_path: Path) -> None:
    found = quality(tmp_path, {"users": 10_000, "month_users": 61_000})
    assert found.findings == ["10,940 people: 9% more than in February 2024."]
    assert found.table.columns == ["what", "value", "since 2024-02"]
    by_what = {row[0]: row[2] for row in found.table.rows}
    assert (by_what["people"], by_what["people on any page in the month"]) == ("+9%", "-2%")


def test_a_large_change_is_a_reason_to_ask_for_the_raw_data(tmp_path: Path) -> None:
    half = quality(tmp_path / "half", {"users": 30_000, "month_users": 150_000})
    assert "10,940 people: 64% fewer than in February 2024." in half.findings
    (asks,) = [finding for finding in half.findings if "raw data" in finding]
    assert "this category's people and that of the month's people on any page changed by more than 50%" in asks
    same = quality(tmp_path / "same", {"users": 10_940, "month_users": 60_000})
    assert same.findings == ["10,940 people: as many as in February 2024."]
    gone = quality(tmp_path / "gone", {"users": 10_940, "month_users": 60_000}, users=5)
    assert [finding for finding in gone.findings if "this category's people changed" in finding]


def test_figures_of_a_month_before_that_are_not_known_are_not_compared(tmp_path: Path) -> None:
    found = quality(tmp_path / "earlier", {"users": 10_000})  # segments that an earlier version followed
    assert {row[0]: row[2] for row in found.table.rows}["people on any page in the month"] is None
    assert len(quality(tmp_path / "first").table.columns) == 2
    assert change(150, 190) is None, "rounded to tens, such a change is too rough"
    assert change(None, 10_000) is None


def test_no_exact_figure_of_the_data_is_in_a_report(tmp_path: Path) -> None:
    html = page_of(tmp_path, inputs=make_inputs(tmp_path / "inputs"), grouped=make_grouped(tmp_path / "grouped"))
    section = html[html.index('<section id="data"') :].replace(",", "").replace("%2C", " ")
    exact = {60_004, 200_006, 1_234, 1_241, 4_321, 777}
    assert not [figure for figure in exact if str(figure) in section]


def test_data_that_the_clusters_were_not_made_from_is_refused(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    other = make_grouped(tmp_path / "grouped", "5" * 32)
    with pytest.raises(InputError, match="was not made from"):
        page_of(tmp_path / "one", inputs=inputs, grouped=other)
    manifest = Path(inputs, "manifest.json")
    manifest.write_text(manifest.read_text().replace("a" * 32, "c" * 32))
    with pytest.raises(InputError, match="were not made from"):
        page_of(tmp_path / "two", inputs=inputs)
