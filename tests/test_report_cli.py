"""`audience-explorer report`, and which report is the current one."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.planning import AUDIENCE_REPORT, KMEANS
from audience_explorer_dagster.reports.current import as_listed, list_current
from spark_jobs.outputs import read_manifest
from tests.project import LAUNCHES, Project

pytestmark = pytest.mark.filterwarnings("ignore")

TEA = Partition("2024-01", "tea")


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))


def run(*arguments: str, command: str = "report") -> Result:
    return CliRunner().invoke(main, [command, *arguments])


def cluster(project: Project, **kmeans: object) -> dict[str, str]:
    """Cluster the tea drinkers; the folders by asset."""
    outcomes = project.pipeline(["2024-01"], ["tea"], kmeans=kmeans)
    assert {outcome.status for outcome in outcomes.values()} <= {"launched", "reused"}, outcomes
    return {outcome.asset: str(outcome.folder) for outcome in outcomes.values()}


def current(project: Project) -> str | None:
    """The folder of the report that readers outside Dagster take."""
    found = project.store.current(AUDIENCE_REPORT, TEA)
    return None if found is None else found.folder


def test_the_current_report_is_that_of_the_current_clusters_whatever_a_person_promotes(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = cluster(project)
    beside = cluster(project, k=2, label="two")
    assert current(project) == own[AUDIENCE_REPORT]
    assert run("--month", "2024-01", "--category", "tea").stdout.strip() == f"{own[AUDIENCE_REPORT]}/report.html"
    of_label = run("--month", "2024-01", "--category", "tea", "--label", "two")
    assert of_label.stdout.strip() == f"{beside[AUDIENCE_REPORT]}/report.html"

    monkeypatch.setattr(loaded, "defs", project.definitions)  # a promotion is a run of the project that is loaded
    of_tea = ("--month", "2024-01", "--category", "tea")
    assert run(*of_tea, "--label", "two", command="promote").exit_code == 0
    assert current(project) == beside[AUDIENCE_REPORT]
    assert run("--category", "tea").stdout.strip() == f"{beside[AUDIENCE_REPORT]}/report.html"
    assert project.records(KMEANS, TEA.key)[0]["report"] == f"{beside[AUDIENCE_REPORT]}/report.html"

    assert run(*of_tea, "--automatic", command="promote").exit_code == 0
    assert current(project) == own[AUDIENCE_REPORT]


def test_clusters_that_have_no_report_have_no_current_one(project: Project) -> None:
    cluster(project)
    assert project.run([KMEANS], TEA.key, TEA.key, {"kmeans": {"k": 2}, "promote": True}).success
    refused = run("--category", "tea")
    assert refused.exit_code == 2
    assert "There is no report of the current clusters of tea|2024-01" in refused.stderr
    assert list_current(project.store) == []
    index = Path(project.root, AUDIENCE_REPORT, "index.html")
    assert "category=tea" not in index.read_text()
    assert project.run([AUDIENCE_REPORT], TEA.key, TEA.key).success
    assert LAUNCHES == [["make_report tea|2024-01"]]
    assert "category=tea" in index.read_text()
    assert current(project) == run("--category", "tea").stdout.strip().rpartition("/")[0]


def test_a_report_is_reused_and_made_again_with_its_clusters(project: Project) -> None:
    first = cluster(project)
    assert cluster(project) == first
    assert LAUNCHES == []
    project.delete(first[AUDIENCE_REPORT])
    again = cluster(project)
    assert LAUNCHES == [["make_report tea|2024-01"]]
    assert again[KMEANS] == first[KMEANS]
    clusters, _ = read_manifest(again[AUDIENCE_REPORT], AUDIENCE_REPORT)["inputs"]
    assert clusters == read_manifest(first[KMEANS], KMEANS)["fingerprint"]


def test_the_index_lists_every_current_report_and_private_ones_only_if_asked(project: Project) -> None:
    file = project.root / "categories" / "games.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "private": True}))
    project.pipeline(["2024-01"], ["games", "tea"])
    listed = run()
    index = project.root / AUDIENCE_REPORT / "index.html"
    assert listed.stdout.strip() == str(index)
    html = index.read_text()
    assert "games" not in html
    (link,) = re.findall(r'<a href="(.*?)"', html)
    assert (index.parent / link).read_text().startswith("<!doctype html>"), "beside it, so that both can be moved"

    with_private = Path(run("--private").stdout.strip())
    assert with_private != index
    assert "games" in with_private.read_text()
    assert "games" not in index.read_text()
    assert "marked private" in Path(run("--category", "games").stdout.strip()).read_text()


def test_the_index_counts_segments_as_their_report_does() -> None:
    facts = {"k": 4, "verdict": "segments", "private": False, "users": 5_000}

    def listed(**more: int) -> str:
        return as_listed(TEA, "folder", facts | more).found

    assert listed(shown=3) == "3 segments", "two of the clusters are one segment"
    assert listed() == "4 segments", "as the manifests of earlier versions have it"


def test_a_run_that_makes_reports_or_a_promotion_keeps_the_index_current(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = project.root / AUDIENCE_REPORT / "index.html"
    own = cluster(project)
    assert _name(own) in index.read_text()
    page = Path(own[AUDIENCE_REPORT], "report.html").read_text()
    assert "rows of raw data" in page, "it was given what the clusters were made from"
    beside = cluster(project, k=2, label="two")
    assert _name(beside) not in index.read_text(), "it stands beside the current one"
    monkeypatch.setattr(loaded, "defs", project.definitions)
    assert run("--month", "2024-01", "--category", "tea", "--label", "two", command="promote").exit_code == 0
    assert _name(beside) in index.read_text()


def test_an_index_that_cannot_be_written_fails_no_run(project: Project) -> None:
    (project.root / AUDIENCE_REPORT / "index.html").mkdir(parents=True)
    assert Path(cluster(project)[AUDIENCE_REPORT]).is_dir()


def _name(folders: dict[str, str]) -> str:
    """The name of the folder of the report."""
    return folders[AUDIENCE_REPORT].rpartition("/")[2]


def test_where_a_server_shows_reports_the_records_of_what_is_current_link_to_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIENCE_EXPLORER_REPORTS_URL", "https://reports.example/audience/")
    cluster(project)
    for asset in (KMEANS, AUDIENCE_REPORT):
        assert project.records(asset, TEA.key)[0]["report"] == "https://reports.example/audience/tea/2024-01"
    beside = cluster(project, k=2, label="two")
    assert project.records(KMEANS, TEA.key)[0]["report"] == f"{beside[AUDIENCE_REPORT]}/report.html", (
        "the server shows the current one"
    )


def test_a_month_alone_and_what_does_not_exist_are_refused_in_a_line() -> None:
    assert "Name the category, too" in run("--month", "2024-01").stderr
    assert "There is no report of 'nothing' on record" in run("--category", "nothing").stderr
    assert "There is no report of the current clusters of tea|2024-01" in (
        run("--category", "tea", "--month", "2024-01").stderr
    )


def test_the_records_say_where_the_report_is_and_how_to_open_it(project: Project) -> None:
    folders = cluster(project, k=2, label="two")
    for asset in (KMEANS, AUDIENCE_REPORT):
        record = project.records(asset, TEA.key)[0]
        assert record["report"] == f"{folders[AUDIENCE_REPORT]}/report.html"
        assert record["open_report"] == ("audience-explorer report --month 2024-01 --category tea --label two --open")
    assert project.checks(AUDIENCE_REPORT, TEA.key)["self_contained"].passed
