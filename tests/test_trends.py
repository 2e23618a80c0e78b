"""How categories go over the months: a figure a category in each month's record of `category_trends`."""

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest

from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records import adoption, variants
from audience_explorer_dagster.records.history import Record
from audience_explorer_dagster.records.trends import as_metadata
from audience_explorer_dagster.run_config import MonthRunConfig
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")

TEA = Partition("2024-01", "tea")


def recorded(project: Project, month: str = TEA.month) -> list[dict[str, Any]]:
    """What is on record of a month, the newest first."""
    return project.records("category_trends", month)


def figures(project: Project, month: str = TEA.month) -> dict[str, int]:
    """The figures that Dagster plots for a month."""
    return {name: value for name, value in recorded(project, month)[0].items() if "/" in name}


def wipe_trends(project: Project) -> None:
    project.instance.wipe_assets([dg.AssetKey("category_trends")])


def test_a_month_has_a_figure_for_each_category_that_has_an_output_and_none_for_the_others(project: Project) -> None:
    project.pipeline(["2024-01"], ["coffee", "tea"], kmeans={"k": 2})
    project.pipeline(["2024-02"], ["games"])
    of_two = {f"{figure}/{category}" for figure in ("users", "k", "solid_clusters") for category in ("coffee", "tea")}
    assert set(figures(project, "2024-01")) == of_two
    assert figures(project, "2024-02") == {"users/games": 10, "k/games": 1}


def test_categories_of_earlier_runs_are_in_a_months_newest_record(project: Project) -> None:
    project.pipeline(["2024-01"], ["coffee"])
    assert set(figures(project)) == {"users/coffee", "k/coffee"}
    assert project.run_month("2024-01", categories=["tea"]).success
    assert set(figures(project)) == {"users/coffee", "users/tea", "k/coffee", "k/tea"}
    assert project.run(["clustering_inputs", "k_selection", "kmeans"], "games|2024-01", "games|2024-01").success
    assert "users/games" in figures(project)


def test_outputs_from_before_there_were_trends_are_in_the_next_record(project: Project) -> None:
    project.pipeline(["2024-01"], ["coffee", "tea"])
    before = figures(project)
    wipe_trends(project)
    project.pipeline(["2024-01"], ["coffee"])
    assert figures(project) == before


def test_a_run_that_changes_nothing_records_nothing(project: Project) -> None:
    for _ in range(3):
        assert project.run_month("2024-01", categories=["tea"], kmeans={"k": 2}).success
    assert len(recorded(project)) == 1


def test_a_category_that_fails_keeps_what_is_current(project: Project) -> None:
    project.pipeline(["2024-01"], ["coffee", "tea"])
    before = figures(project)
    (project.root / "categories" / "tea.json").write_text("{}")
    project.write_raw("2024-01", users=20)
    assert not project.run_month("2024-01").success
    assert figures(project)["users/coffee"] == 20
    assert figures(project)["users/tea"] == before["users/tea"] == 10


def test_what_stands_beside_the_current_output_moves_no_figure(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"])
    before = figures(project)
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "label": "two"})
    assert figures(project) == before
    assert before["k/tea"] == 1
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "label": "two"}, promote=True)
    assert figures(project)["k/tea"] == 2


def test_a_promotion_by_a_person_moves_the_figures_and_its_end_moves_them_back(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"])
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "label": "two"})
    for choice, k in ((variants.Choice(label="two"), 2), (variants.Choice(automatic=True), 1)):
        histories = variants.histories_of(project.instance, project.store, TEA)
        report = project.instance.report_runless_asset_event
        variants.promote(project.instance, project.store, TEA, histories, choice, MonthRunConfig(), report)
        assert figures(project)["k/tea"] == k


def test_adopted_outputs_are_in_the_trends(project: Project) -> None:
    project.pipeline(["2024-01"], ["coffee", "tea"])
    before = figures(project)
    assets = ("grouped_users", "clustering_inputs", "k_selection", "kmeans", "category_trends")
    project.instance.wipe_assets([dg.AssetKey(asset) for asset in assets])
    found = adoption.find(project.instance, project.store)
    adoption.put_on_record(project.instance, project.store, found.missing)
    assert figures(project) == before
    assert len(recorded(project)) == 1


# --- the figures -----------------------------------------------------------------------------------------------------


def record_of(category: str, k: int, solidities: Sequence[str], table: str = "segments", **texts: str) -> Record:
    """A record of kmeans, as far as trends look at it."""
    rows = [dg.TableRecord({"solidity": solidity}) for solidity in solidities]
    details: dict[str, Any] = {
        "users": dg.MetadataValue.int(1200),
        "k": dg.MetadataValue.int(k),
        table: dg.MetadataValue.table(rows, dg.TableSchema([dg.TableColumn("solidity")])),
        **{name: dg.MetadataValue.text(text) for name, text in texts.items()},
    }
    made_at = datetime.now(timezone.utc)
    return Record(Partition("2024-01", category), "", f"kmeans/{category}-1", (), "", made_at, details)


def test_solid_clusters_are_counted_where_it_is_known_how_solid_they_are() -> None:
    details = as_metadata(
        [
            record_of("coffee", 3, ["solid", "doubtful", "solid"], solidity="2 solid, 1 doubtful"),
            record_of("tea", 2, ["doubtful", "doubtful"], "clusters", solidity="2 doubtful"),  # of an older version
            record_of("news", 1, ["not known"], verdict="none"),
        ]
    )
    assert [row.data for row in details.pop("categories").records] == [
        {"category": "coffee", "users": "1,200", "k": "3", "solidity": "2 solid, 1 doubtful", "output": "coffee-1"},
        {"category": "tea", "users": "1,200", "k": "2", "solidity": "2 doubtful", "output": "tea-1"},
        {"category": "news", "users": "1,200", "k": "1 (no segments)", "solidity": "", "output": "news-1"},
    ]
    assert list(details.items()) == [
        *(("users/coffee", 1200), ("users/tea", 1200), ("users/news", 1200)),
        *(("k/coffee", 3), ("k/tea", 2), ("k/news", 1)),
        *(("solid_clusters/coffee", 2), ("solid_clusters/tea", 0)),
    ]
