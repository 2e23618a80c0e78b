"""Two clusterings beside each other: who is where in each, and how far they agree."""

import json
import re

import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster.cli import main
from spark_jobs.clusters.comparison import compare
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))


def cluster(project: Project, month: str = "2024-01", **kmeans: object) -> str:
    """Cluster the tea drinkers of a month; the folder."""
    folder = project.pipeline([month], ["tea"], kmeans=kmeans)[f"kmeans tea|{month}"].folder
    assert folder is not None
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["compare", *arguments])


def test_a_clustering_agrees_with_itself(project: Project) -> None:
    folder = cluster(project, k=2)
    found = compare(folder, folder)
    assert (found.agreement, found.common, found.first.only_here, found.second.only_here) == (1, 12, 0, 0)
    assert found.shared.tolist() == [[found.first.sizes[0], 0], [0, found.first.sizes[1]]]


def test_the_table_counts_who_is_where_in_each(project: Project) -> None:
    two, one = cluster(project, k=2, label="two"), cluster(project, k=1, label="one")
    found = compare(two, one)
    assert found.shared.sum(axis=1).tolist() == list(found.first.sizes)
    assert found.shared.tolist() == [[size] for size in found.first.sizes]
    assert found.agreement == 0, "one cluster for all says nothing"


def test_users_whom_only_one_has_are_counted_and_left_out(project: Project) -> None:
    project.write_raw("2024-02", users=8)
    first, second = cluster(project, k=2), cluster(project, "2024-02", k=2)
    found = compare(first, second)
    assert (found.common, found.first.only_here, found.second.only_here) == (8, 4, 0)
    assert found.shared.sum() == 8


def test_without_a_user_in_both_there_is_nothing_to_agree_on(project: Project) -> None:
    first = cluster(project, k=2)
    project.write_category("tea", "nobody-was-here")
    found = compare(first, cluster(project, k=1))
    assert (found.agreement, found.common, found.second.k) == (None, 0, 0)


def test_outputs_are_named_by_label_folder_current_and_month(project: Project) -> None:
    two = cluster(project, k=2, label="two")
    newest = cluster(project, k=3)  # which stands beside the current one
    later = cluster(project, "2024-02", k=2)
    of_tea = ("--category", "tea", "--json")
    for names, folders in {
        (newest.rpartition("/")[2], "current", "--month", "2024-01"): (newest, two),
        ("two", newest.rpartition("/")[2], "--month", "2024-01"): (two, newest),
        ("2024-01:two", "2024-02"): (two, later),
        ("current", "2024-02:current", "--month", "2024-01"): (two, later),
        (two, later): (two, later),
    }.items():
        result = run(*names, *of_tea)
        assert result.exit_code == 0, result.output
        said = json.loads(result.stdout)
        assert (said["first"]["folder"], said["second"]["folder"]) == folders


def test_the_comparison_reads_as_a_sentence_and_a_table(project: Project) -> None:
    cluster(project, k=2, label="two")
    cluster(project, k=1, label="one")
    said = run("two", "one", "--month", "2024-01", "--category", "tea").stdout
    assert re.match(r"A  10 users in 2 clusters, few of them only here; /.*\nB  10 users in 1 clusters", said)
    assert "adjusted Rand index over the 10 users in both: 0.000" in said
    assert re.search(r"\nA +users +B 0 Everybody\n0 Mixed +few +few\n1 Mixed \(2\) +few +few\n", said), said


def test_what_a_program_is_told_of_people_is_rounded_and_null_for_few(project: Project) -> None:
    cluster(project, k=2, label="two")
    cluster(project, k=1, label="one")
    said = json.loads(run("two", "one", "--month", "2024-01", "--category", "tea", "--json").stdout)
    assert (said["common"], said["shared"]) == (10, [[None], [None]])
    assert [cluster["users"] for cluster in said["first"]["clusters"]] == [None, None]
    assert [cluster["users"] for cluster in said["second"]["clusters"]] == [10]
    assert (said["second"]["users"], said["second"]["only_here"]) == (10, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("two", "one"), "Which category?"),
        (("two", "one", "--category", "tea"), "'two' of which month? --month YYYY-MM, or YYYY-MM:two"),
        (("nope", "two", "--category", "tea", "--month", "2024-01"), "label or folder 'nope'. There are: two."),
        (("current", "2024-02", "--category", "coffee", "--month", "2024-01"), "coffee|2024-01 has no current output"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(project: Project, arguments: tuple[str, ...], says: str) -> None:
    cluster(project, k=2, label="two")
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())
