"""`export`: the people of segments, for the systems that act on them."""

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster.cli import main
from audience_explorer_dagster.partitions import Partition
from spark_jobs.segments import load_segments
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")

_COLUMNS = ["user_id", "month", "cluster_id", "segment", "confidence", "segment_id"]


@pytest.fixture(autouse=True)
def made(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The tea drinkers of January, in two segments."""
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))
    project.pipeline(["2024-01"], ["tea"], kmeans={"k": 2})
    return project


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "--category", "tea", *arguments])


def rows(printed: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(printed)))


def members(project: Project, month: str, cluster: int) -> list[str]:
    found = load_segments(str(project.root), month, "tea").members.to_pylist()
    return [row["user_id"] for row in found if row["cluster_id"] == cluster]


def test_a_segment_is_the_ids_of_its_people(made: Project) -> None:
    result = run("--cluster", "0")
    assert result.exit_code == 0, result.output
    assert list(rows(result.stdout)[0]) == _COLUMNS
    assert [row["user_id"] for row in rows(result.stdout)] == members(made, "2024-01", 0)


def test_where_nobody_followed_segments_they_have_the_names_of_k_means(made: Project) -> None:
    made.store.point_nowhere("segments", Partition("2024-01", "tea"))
    (first, _) = load_segments(str(made.root), "2024-01", "tea").clusters["name"].to_pylist()
    assert run("--segment", first).stdout == run("--cluster", "0").stdout
    assert {row["segment_id"] for row in rows(run("--segment", first).stdout)} == {""}
    refused = run("--segment", "0")
    assert "The number of a cluster is given as --cluster. There are:\n  2024-01: cluster 0 " in refused.output


def test_people_who_belong_less_clearly_are_left_out() -> None:
    confident = {row["user_id"]: row["confidence"] for row in rows(run("--cluster", "0", "--cluster", "1").stdout)}
    least = sorted(float(value) for value in confident.values())[-1]
    result = run("--cluster", "0", "--cluster", "1", "--min-confidence", str(least))
    assert {row["user_id"] for row in rows(result.stdout)} == {
        user for user, value in confident.items() if float(value) >= least
    }


def test_a_person_of_several_months_is_there_once_with_the_newest(made: Project) -> None:
    made.write_raw("2024-02", users=8)
    made.pipeline(["2024-02"], ["tea"], kmeans={"k": 2})
    both = ("--cluster", "0", "--cluster", "1", "--month", "2024-01", "--month", "2024-02")
    months = {row["user_id"]: row["month"] for row in rows(run(*both).stdout)}
    of_february = set(members(made, "2024-02", 0)) | set(members(made, "2024-02", 1))
    assert len(rows(run(*both).stdout)) == len(months) == 12
    assert {user for user, month in months.items() if month == "2024-02"} == of_february


def test_the_newest_month_is_the_default(made: Project) -> None:
    made.write_raw("2024-02", users=8)
    made.pipeline(["2024-02"], ["tea"], kmeans={"k": 2})
    assert {row["month"] for row in rows(run("--cluster", "0").stdout)} == {"2024-02"}


@pytest.mark.parametrize("name", ["people.csv", "people.parquet"])
def test_a_file_holds_what_is_printed_without_one(tmp_path: Path, name: str) -> None:
    result = run("--cluster", "0", "--output", str(tmp_path / name))
    assert (result.exit_code, result.stdout) == (0, "")
    printed = rows(run("--cluster", "0").stdout)
    if name.endswith(".csv"):
        assert rows((tmp_path / name).read_text()) == printed
    else:
        kept = pq.read_table(tmp_path / name)
        assert kept.column_names == _COLUMNS
        assert kept["user_id"].to_pylist() == [row["user_id"] for row in printed]


def test_a_program_gets_json(made: Project, tmp_path: Path) -> None:
    said = json.loads(run("--cluster", "0", "--json").stdout)
    assert said["people"] == len(said["rows"]) == len(members(made, "2024-01", 0))
    assert [(segment["month"], segment["cluster_id"]) for segment in said["segments"]] == [("2024-01", 0)]
    file = str(tmp_path / "people.csv")
    said = json.loads(run("--cluster", "0", "--json", "--output", file).stdout)
    assert (said["file"], "rows" in said) == (file, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--segment", "nobody"), "There is no segment nobody of tea. There are:\n  2024-01: 1 "),
        (("--segment", "0"), "There is no segment 0 of tea. The number of a cluster is given as --cluster."),
        (("--cluster", "2"), "There is no cluster 2 of tea in 2024-01"),
        ((), "Name what to export: --segment, or --cluster"),
        (("--cluster", "0", "--month", "2023-01"), "There are no segments in"),
        (("--cluster", "0", "--output", "people.xls"), "its name must end with .csv or .parquet"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


# --- of a variant ----------------------------------------------------------------------------------------------------


@pytest.fixture
def variant(made: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same people in one cluster, beside the two of the current output; its folder."""
    monkeypatch.setenv("DAGSTER_HOME", made.instance.root_directory)
    made.pipeline(["2024-01"], ["tea"], kmeans={"k": 2})
    outcome = made.pipeline(["2024-01"], ["tea"], kmeans={"k": 1, "label": "one"})["kmeans tea|2024-01"]
    assert outcome.standing is not None
    assert outcome.standing.startswith("beside")
    return str(outcome.folder)


def test_the_people_of_a_variant_are_reached_by_its_label_or_folder(made: Project, variant: str) -> None:
    labelled = run("--cluster", "0", "--label", "one")
    assert labelled.exit_code == 0, labelled.output
    everybody = sorted(members(made, "2024-01", 0) + members(made, "2024-01", 1))
    assert [row["user_id"] for row in rows(labelled.stdout)] == everybody
    assert run("--cluster", "0", "--label", Path(variant).name).stdout == labelled.stdout
    assert len(rows(run("--cluster", "0").stdout)) < len(everybody), "without a label, it is the current one"
    said = json.loads(run("--cluster", "0", "--label", "one", "--json").stdout)
    assert (said["label"], said["people"]) == ("one", 12)


def test_the_segments_of_a_variant_have_the_names_and_ids_they_have_in_its_report(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", made.instance.root_directory)
    outcomes = made.pipeline(["2024-01"], ["tea"], kmeans={"k": 2, "seed": 7, "label": "seven"})
    made.store.point_nowhere("segments", Partition("2024-01", "tea"))  # the current clusters are not followed
    followed = json.loads(Path(str(outcomes["segments tea|2024-01"].folder), "segments.json").read_text())["segments"]
    assert followed
    for segment in followed:
        result = run("--segment", segment["name"], "--label", "seven")
        assert result.exit_code == 0, result.output
        assert {row["segment_id"] for row in rows(result.stdout)} == {str(segment["segment_id"])}
        clusters = {row["cluster_id"] for row in rows(result.stdout)}
        assert clusters == {str(number) for number in segment["cluster_ids"]}


@pytest.mark.usefixtures("variant")
def test_a_label_of_several_months_is_exported_of_the_newest_or_of_those_that_are_named(made: Project) -> None:
    made.write_raw("2024-02", users=8)
    made.pipeline(["2024-02"], ["tea"], kmeans={"k": 1, "label": "one"})
    of_one = ("--cluster", "0", "--label", "one")
    assert {row["month"] for row in rows(run(*of_one).stdout)} == {"2024-02"}
    both = rows(run(*of_one, "--month", "2024-01", "--month", "2024-02").stdout)
    assert (len(both), {row["month"] for row in both}) == (12, {"2024-01", "2024-02"})


@pytest.mark.usefixtures("variant")
@pytest.mark.parametrize("month", [(), ("--month", "2024-01")])
def test_a_label_that_nobody_gave_is_refused_with_those_there_are(month: tuple[str, ...]) -> None:
    result = run("--cluster", "0", "--label", "nope", *month)
    assert result.exit_code == 2
    assert "label or folder 'nope'. There are: one, " in result.output
