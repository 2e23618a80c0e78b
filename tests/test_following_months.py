"""Whatever the order of months, segments are followed from the month before as it is in the end."""

import json
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

import audience_explorer_dagster.definitions as loaded
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, KMEANS, SEGMENTS
from spark_jobs.outputs import read_manifest
from tests.project import LAUNCHES, Project

pytestmark = pytest.mark.filterwarnings("ignore")

MONTHS = ("2024-01", "2024-02", "2024-03")


@pytest.fixture
def year(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose months have no outputs yet."""
    monkeypatch.setattr(loaded, "defs", project.definitions)
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    for month in MONTHS:
        project.write_raw(month)
    return project


def segments(project: Project, month: str) -> str:
    """The folder of a month's current segments."""
    found = project.store.current(SEGMENTS, Partition(month, "tea"))
    assert found is not None
    return found.folder


def assert_chained(project: Project, months: Sequence[str] = MONTHS) -> None:
    """Each month is followed from the one before, and its report is of its segments."""
    before: list[str] = []
    for month in months:
        partition = Partition(month, "tea")
        followed = read_manifest(segments(project, month), SEGMENTS)
        clusters, report = (project.store.current(asset, partition) for asset in (KMEANS, AUDIENCE_REPORT))
        assert clusters is not None
        assert report is not None
        assert followed["inputs"] == [clusters.fingerprint, *before]
        assert read_manifest(report.folder, AUDIENCE_REPORT)["inputs"] == [
            clusters.fingerprint,
            followed["fingerprint"],
        ]
        before = [followed["fingerprint"]]


@pytest.mark.parametrize("order", [MONTHS, MONTHS[::-1], ("2024-02", "2024-03", "2024-01")], ids=" ".join)
def test_months_in_any_order_end_the_same(year: Project, order: Sequence[str]) -> None:
    for month in order:
        year.pipeline([month], ["tea"])
    assert_chained(year)
    year.pipeline(MONTHS, ["tea"])
    assert LAUNCHES == []


def test_a_recomputed_month_redoes_what_follows_and_nothing_else(year: Project) -> None:
    year.pipeline(MONTHS, ["tea", "coffee"])
    year.write_raw("2024-01", users=20)
    outcomes = year.pipeline(["2024-01"], ["tea"])
    assert {name for name, outcome in outcomes.items() if name.endswith(("2024-02", "2024-03"))} == {
        f"{asset} tea|{month}" for asset in (SEGMENTS, AUDIENCE_REPORT) for month in MONTHS[1:]
    }
    assert len(LAUNCHES) == 2, "all that follows is one more launch"
    assert_chained(year)


def test_a_missing_month_is_passed_over(year: Project) -> None:
    year.pipeline(["2024-01", "2024-03"], ["tea"])
    assert_chained(year, ["2024-01", "2024-03"])


def test_a_tweak_is_followed_and_leaves_the_months_after_it_alone(year: Project) -> None:
    year.pipeline(MONTHS, ["tea"])
    own = segments(year, "2024-01")
    tweaked = year.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "label": "two"})
    assert [[f"{job} tea|2024-01" for job in ("kmeans", "follow_segments", "make_report")]] == LAUNCHES
    assert segments(year, "2024-01") == own
    assert str(tweaked[f"{SEGMENTS} tea|2024-01"].folder) != own


def test_what_follows_from_a_promoted_tweak_is_made_again(year: Project) -> None:
    year.pipeline(MONTHS, ["tea"])
    tweaked = year.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "label": "two"})
    LAUNCHES.clear()
    month = ("--month", "2024-01", "--category", "tea", "--root", str(year.root))
    promoted = CliRunner().invoke(main, ["promote", "--label", "two", *month])
    assert promoted.exit_code == 0, promoted.output
    assert segments(year, "2024-01") == str(tweaked[f"{SEGMENTS} tea|2024-01"].folder)
    assert_chained(year)


def test_an_edit_of_an_early_month_goes_on_to_the_later_ones(year: Project) -> None:
    year.pipeline(MONTHS, ["tea"])
    Path(year.store.edits_file("tea")).parent.mkdir(exist_ok=True)
    Path(year.store.edits_file("tea")).write_text("- {what: rename, segment: 1, name: Greens, from: 2024-02}\n")
    before = segments(year, "2024-01")
    year.pipeline(["2024-02"], ["tea"])
    assert segments(year, "2024-01") == before
    assert_chained(year)
    for month in MONTHS[1:]:
        said = json.loads(Path(segments(year, month), "segments.json").read_text())
        assert said["edits"] == [{"what": "rename", "segment": 1, "name": "Greens", "from": "2024-02"}]


def test_a_pinned_k_is_the_deployments_own(year: Project) -> None:
    Path(year.store.edits_file("tea")).parent.mkdir(exist_ok=True)
    Path(year.store.edits_file("tea")).write_text("- {what: pin_k, k: 2}\n")
    outcomes = year.pipeline(["2024-01"], ["tea"])
    assert outcomes["kmeans tea|2024-01"].k == 2
    current = year.store.current(KMEANS, Partition("2024-01", "tea"))
    assert current is not None
    assert current.folder == outcomes["kmeans tea|2024-01"].folder
    (record,) = year.records(KMEANS, "tea|2024-01")
    assert record["standing"].startswith("current")
    year.pipeline(["2024-01"], ["tea"], kmeans={"k": 3})
    assert year.store.current(KMEANS, Partition("2024-01", "tea")) == current, "another k stands beside it"


def test_the_checks_of_segments_are_on_record(year: Project) -> None:
    year.pipeline(["2024-01"], ["tea"])
    found = year.checks(SEGMENTS, "tea|2024-01")
    assert found.keys() == {"schema", "every_user_once", "segments_are_somewhere"}
    assert all(isinstance(evaluation, dg.AssetCheckEvaluation) and evaluation.passed for evaluation in found.values())
