"""What Dagster is told: no figure of people is exact, and none says something of fewer than ten.

All that a real pipeline records is looked at, figure by figure: a figure that is new, and not named here as one that
counts no people, must be a published one.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from click.testing import CliRunner

from audience_explorer_dagster.categories.known import sync_categories
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.cli.project import outcomes_as_table
from audience_explorer_dagster.records import people, pictures
from audience_explorer_dagster.running.pipeline import Outcome
from tests.project import LAUNCHES, Project

if TYPE_CHECKING:
    from matplotlib.figure import Figure

pytestmark = pytest.mark.filterwarnings("ignore")

FEW = "fewer than 10"
CATEGORIES = ("coffee", "tea", "games", "cars")

# What counts no people, by the last part of its name: of metadata, in JSON, and the columns of tables.
NO_PEOPLE = {
    *("k", "requested_k", "iterations", "wssse", "silhouette", "calinski_harabasz", "prediction", "evidence"),
    *("rows", "actions", "rejected_rows", "raw_files", "rejects", "bytes", "bytes_in", "bytes_out", "duration_seconds"),
    *("dimensions", "dimensions_in_use", "living", "events", "shown", "min_people", "code_version"),
    *("last_changed", "computed_at", "folders"),  # times; months
    # Of checks: rows and actions, pages, clusters, and files with a row for each of them.
    *(
        "accepted",
        "written",
        "rejected",
        "share",
        "largest_share",
        "largest",
        "tried",
        "clusters",
        "centers",
        "outside",
    ),
    *("figures", "withheld", "segments", "k.json", "centers.parquet", "data.json", "meta-data.json", "flows.parquet"),
    *("profiles.parquet", "comparisons.parquet"),  # of kmeans: a row a segment and page, and a baseline
    *("cluster_id", "segment_id", "cluster_ids", "born", "last_seen", "computed (UTC)"),
}
PARAMETERS = {"config", "clustering_inputs", "parameters"}
NO_PEOPLE_OF_CATEGORY = ("launch/", "k/", "solid_clusters/")
NO_NUMBERS = {"fingerprint", "inputs", "folder", "root", "output", "current", "report", "open_report", "standing"}

_NUMBER = r"(?<![\w.\-/:|])(\d[\d,]*)(?![\w.\-/:|]|,\d)"
_OF_PEOPLE = re.compile(rf"{_NUMBER}(?: of (?:the |fewer than )?[\d,]+)? (?:people|users|distinct profiles|have\b)")
_OF_PARTITIONS = re.compile(r"done, \d+ of \d+$|\d+ launched, \d+ reused, \d+ failed")
_COUNTED = ("users", "fit_users", "people", "people_judged", "profiles", "entries", "month_users", "smallest_segment")


# --- the audience ----------------------------------------------------------------------------------------------------


def write_month(project: Project, month: str, left_out: int = 0) -> None:
    """A month of 137 people. Coffee has three groups, one of them of 7; tea has 7 people, games nobody, cars all."""
    rows = []
    for number in range(left_out, 137):
        user = f"u{number:03}"
        if number < 64:
            group = 0 if number < 41 else 1 if number < 57 else 2
            rows += [(user, f"coffee-{group}", 3), (user, "coffee-all", 1 + number % 3)]
        if number >= 130:
            rows.append((user, "tea-1", 1 + number % 4))
        rows += [(user, f"cars-{page}", 4) for page in range(6) if (number * 37 + page * page) % 11 < 5]
    actions = [{"user_id": u, "page_id": p, "action": "page_like", "count": n} for u, p, n in rows]
    bad = {"user_id": "", "page_id": "p", "action": "page_like"}
    text = "".join(json.dumps(row) + "\n" for row in [*actions, bad])
    (project.root / "raw" / f"month={month}" / "actions.jsonl").write_text(text)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, no_records: Path) -> "Iterator[Told]":
    """All that was told of two months: computed, with a variant, and reused."""
    place, drawn = tmp_path_factory.mktemp("published"), []

    def keep(figure: "Figure", alternative: str) -> str:
        drawn.append(figure)
        return alternative

    shutil.copytree(no_records, place / "dagster")
    with dg.DagsterInstance.local_temp(str(place / "dagster")) as instance, pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "_markdown", keep)
        project = Project(place / "root", instance)
        yield Told(project, run_all(project), drawn)


def run_all(project: Project) -> list[Outcome]:
    """Run the pipelines; what became of each target."""
    write_month(project, "2024-01")
    write_month(project, "2024-02", left_out=8)
    project.write_category("coffee", "coffee-0", "coffee-1", "coffee-2", "coffee-all")
    project.write_category("tea", "tea-1")
    project.write_category("games", "games-1")
    project.write_category("cars", *(f"cars-{page}" for page in range(6)))
    sync_categories(project.instance, project.store)
    grouping = {"max_reject_ratio": 0.5}
    outcomes = [
        *project.pipeline(project.months, CATEGORIES, grouped_users=grouping).values(),
        *project.pipeline(["2024-01"], ["coffee"], kmeans={"k": 3, "label": "three"}, grouped_users=grouping).values(),
        *project.pipeline(["2024-01"], CATEGORIES, grouped_users=grouping).values(),
    ]
    assert LAUNCHES == []
    assert [outcome for outcome in outcomes if outcome.status == "failed"] == []
    return outcomes


class Told:
    """What Dagster was told, and what terminals show."""

    def __init__(self, project: Project, outcomes: list[Outcome], drawn: "list[Figure]"):
        self.project, self.outcomes, self.drawn = project, outcomes, drawn
        self.environment = {
            "DAGSTER_HOME": project.instance.root_directory,
            "AUDIENCE_EXPLORER_ROOT": str(project.root),
        }
        entries = [e for run in project.instance.get_runs() for e in project.instance.all_logs(run.run_id)]
        self.logged = [str(entry.user_message) for entry in entries]
        events = [entry.dagster_event for entry in entries if entry.dagster_event]
        self.checks = [e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION"]
        self.records = [
            (asset, record.partition_key, record.asset_materialization.metadata)
            for asset in project.instance.all_asset_keys()
            for record in project.instance.fetch_materializations(asset, limit=1000).records
            if record.asset_materialization is not None
        ]

    def metadata(self) -> Iterator[tuple[str, dg.MetadataValue]]:
        """Each value of metadata, with its name and what it is of."""
        for asset, partition, values in self.records:
            yield from ((f"{asset.to_user_string()} {partition}: {name}", value) for name, value in values.items())
        for check in self.checks:
            of = f"{check.asset_key.to_user_string()} {check.partition} {check.check_name}"
            yield from ((f"{of}: {name}", value) for name, value in check.metadata.items())

    def texts(self) -> Iterator[str]:
        """All texts that people read."""
        yield from self.logged
        yield from (str(check.description) for check in self.checks)
        for name, value in self.metadata():
            if last(name) not in NO_NUMBERS and isinstance(value, dg.TextMetadataValue | dg.MarkdownMetadataValue):
                yield str(value.value)
        for figure in self.drawn:
            yield from (text.get_text() for axes in figure.axes for text in axes.texts)
        yield outcomes_as_table(self.outcomes, str(self.project.root))
        for command in (["runs", "--all"], ["runs", "--month", "2024-01", "--category", "coffee"], COMPARE):
            result = CliRunner(env=self.environment).invoke(main, command)
            assert result.exit_code == 0, result.output
            yield result.stdout

    def exact(self) -> set[int]:
        """The exact figures of people, as the manifests have them."""
        manifests = [json.loads(file.read_text()) for file in Path(self.project.root).rglob("manifest.json")]
        summaries = [manifest["summary"] for manifest in manifests]
        found = {number for summary in summaries for number in _numbers(summary)}
        return found | {summary["pages"] for summary in summaries if "pages" in summary}


COMPARE = ["compare", "current", "three", "--month", "2024-01", "--category", "coffee"]


def _numbers(value: Any, name: str = "") -> Iterator[int]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _numbers(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part, name)
    elif name in _COUNTED and isinstance(value, int):
        yield value


def last(name: str) -> str:
    return name.rpartition(": ")[2].rpartition(" › ")[2]


def figures(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The figures of a value that may count people: numbers, also of JSON, of tables, and of texts that are lists."""
    plain = value.value if isinstance(value, dg.MetadataValue) else value
    if isinstance(value, dg.TableMetadataValue):
        for row in value.records:
            for column, cell in row.data.items():
                yield from figures(f"{name} › {column}", cell)
    elif last(name) in NO_PEOPLE | PARAMETERS | NO_NUMBERS or last(name).startswith(NO_PEOPLE_OF_CATEGORY):
        return
    elif isinstance(plain, Mapping):
        for key, part in plain.items():
            yield from figures(f"{name} › {key}", part)
    elif isinstance(plain, list):
        for part in plain:
            yield from figures(name, part)
    elif isinstance(plain, int | float) and not isinstance(plain, bool):
        yield name, plain
    elif isinstance(plain, str) and re.fullmatch(r"[\d, few→…]+", plain):
        yield from ((name, float(part.replace(",", ""))) for part in re.findall(r"\d[\d,]*\d|\d", plain))


# --- what must hold --------------------------------------------------------------------------------------------------


def test_every_figure_of_people_is_rounded_and_of_few_there_is_none(told: Told) -> None:
    found = [figure for name, value in told.metadata() for figure in figures(name, value)]
    assert {last(name) for name, _ in found} >= {"users", "fit_users", "sizes", "users/coffee", "dagster/row_count"}
    assert {(name, value) for name, value in found if value % 10} == set()


def test_the_bars_of_pictures_are_as_long_as_rounded_figures(told: Told) -> None:
    bars = [bar.get_width() for figure in told.drawn for axes in figure.axes for bar in axes.patches]
    assert bars
    assert any("by k" in axes.get_title() for figure in told.drawn for axes in figure.axes), "k is chosen somewhere"
    assert [length for length in bars if length % 10] == []


def test_no_text_says_how_many_people_there_are_exactly_or_something_of_few(told: Told) -> None:
    exact = {f"{number:,}" for number in told.exact() if number > 10 and number % 10}
    assert {"137", "64", "41", "16"} <= exact
    texts = list(told.texts())
    assert any(FEW in text for text in texts)
    for text in (_OF_PARTITIONS.sub("", text) for text in texts):
        of_people = [number for number in _OF_PEOPLE.findall(text) if int(number.replace(",", "")) % 10]
        assert of_people == [], text
        assert exact & set(re.findall(_NUMBER, text)) == set(), text


def test_few_people_are_few_in_every_record_of_theirs_and_nobody_is_nobody(told: Told) -> None:
    records = [details for _, partition, details in told.records if partition == "tea|2024-01"]
    assert {details["users"].value for details in records} == {FEW}
    of_kmeans = next(details for details in records if "sizes" in details)
    assert (of_kmeans["sizes"].value, of_kmeans["profiles"].value) == ("few", FEW)
    assert not {"wssse", "silhouette", "dagster/row_count"} & of_kmeans.keys(), "they would be scores of few people"
    records = [details for _, partition, details in told.records if partition == "games|2024-01"]
    assert {details["users"].value for details in records} == {0}
    trends, *_ = [d for asset, p, d in told.records if asset.path == ["category_trends"] and p == "2024-01"]
    assert "users/tea" not in trends, "of few people there is no point in a plot"
    assert trends["users/coffee"].value == 60


def test_the_same_number_of_people_is_the_same_wherever_it_is_shown(told: Told) -> None:
    shown = {details["users"].value for _, partition, details in told.records if partition == "coffee|2024-01"}
    assert shown == {60}
    outcomes = [o.users for o in told.outcomes if str(o.partition) == "coffee|2024-01"]
    assert set(outcomes) == {60}
    assert {o.users for o in told.outcomes if str(o.partition) == "tea|2024-01"} == {None}


# --- records of earlier versions -------------------------------------------------------------------------------------


def test_an_exact_record_of_an_earlier_version_is_reused_with_published_figures(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"])
    for asset in ("grouped_users", "clustering_inputs", "kmeans"):
        partition = "2024-01" if asset == "grouped_users" else "tea|2024-01"
        key = dg.AssetKey(asset)
        (newest,) = project.instance.fetch_materializations(key, limit=1).records
        assert newest.asset_materialization is not None
        exact = {**newest.asset_materialization.metadata, "users": dg.MetadataValue.int(12)}
        exact |= {"sizes": dg.MetadataValue.text("12"), "finding": dg.MetadataValue.md("1 cluster of 12 people.")}
        del exact[people.MIN_PEOPLE]
        event = dg.AssetMaterialization(asset_key=key, partition=partition, metadata=exact)
        project.instance.report_runless_asset_event(event)
    assert {o.users for o in project.pipeline(["2024-01"], ["tea"]).values()} == {10}
    assert LAUNCHES == []
    record = project.records("kmeans", "tea|2024-01")[0]
    assert (record["users"], record["sizes"], record["reused"]) == (10, "10", True)
    assert "1 cluster of 10 people." in " ".join(record["finding"].split())


# --- the rules of figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "record", "table"),
    [(0, FEW, "few"), (9, FEW, "few"), (10, 10, "10"), (14, 10, "10"), (15, 20, "20"), (1234, 1230, "1,230")],
)
def test_a_figure_is_rounded_or_said_to_be_of_few(number: int, record: int | str, table: str) -> None:
    assert (people.figure(number, 10), people.in_table(number, 10)) == (record, table)
    assert people.everybody(number, 10) == (record if number else 0)


@pytest.mark.parametrize("min_people", [1, 2, 5, 10, 15])
def test_what_a_figure_may_stand_for_is_all_that_is_recorded_so(min_people: int) -> None:
    for number in range(100):
        details = {"min_people": min_people, "users": people.everybody(number, min_people)}
        low, high = people.span(details, "users")
        assert low <= number <= high
        if number:
            same = [n for n in range(1, 200) if people.figure(n, min_people) == people.figure(number, min_people)]
            assert high == max(same)
            assert low <= min(same)


def test_a_check_says_of_people_what_may_be_said_and_keeps_the_rest() -> None:
    found = {
        "schema": {
            "passed": False,
            "found": {"dimensions": 4, "profiles": 7, "members": 1234},
            "why": "members: column gender must have no null (3 are not)",
        },
        "conservation": {"passed": False, "found": {"users": 14}, "why": "14 users have a vector, 7 are members"},
    }
    said = people.checks("clustering_inputs", found, 10)
    assert said["schema"]["found"] == {"dimensions": 4, "profiles": FEW, "members": 1230}
    assert said["schema"]["why"] == "members: column gender must have no null"
    assert (said["conservation"]["passed"], said["conservation"]["found"]) == (False, {"users": 10})
    assert not re.search(r"\d", said["conservation"]["why"])
    assert people.checks("clustering_inputs", said, 10) == said
