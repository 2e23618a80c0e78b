"""`audience-explorer categories`: what it shows, what it asks, and its exit codes."""

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster.cli import main, project
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def files(write_category: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of three category files, in the root that the environment names."""
    for name in ("coffee", "games", "tea"):
        folder = write_category(name, f"{name}-1", f"{name}-2").parent
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(folder.parent))
    return folder


@pytest.fixture
def known(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose three categories are partitions, as the environment names it."""
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))
    return project


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["categories", *arguments], input=answer)


def file_of(project: Project, category: str) -> Path:
    return project.root / "categories" / f"{category}.json"


# --- ls, show, validate ---


def test_ls_shows_files_and_partitions(known: Project) -> None:
    file_of(known, "water").write_text(
        '{"id": 7, "name": "Wet", "private": true, "a": [{"id": "p"}], "b": [{"id": "q"}]}'
    )
    file_of(known, "tea").unlink()
    file_of(known, "games").write_text('{"facebook": []}')
    for month in ("2024-02", "2024-01"):
        known.instance.report_runless_asset_event(
            dg.AssetMaterialization("kmeans", partition=dg.MultiPartitionKey({"month": month, "category": "coffee"}))
        )
    result = run("ls")
    assert result.exit_code == 0, result.output
    assert [re.split("  +", line) for line in result.stdout.splitlines()] == [
        ["category", "title", "id", "private", "pages", "partition", "newest kmeans, or error"],
        ["coffee", "coffee", "1", "no", "2 facebook", "yes", "2024-02"],
        ["games", "yes", f"{file_of(known, 'games')}: it has no 'id'. (And 1 more.)"],
        ["tea", "file is gone"],
        ["water", "Wet", "7", "yes", "1 a, 1 b", "no"],
    ]
    said = {one["name"]: one for one in json.loads(run("ls", "--json").stdout)}
    assert said["coffee"] == {
        "name": "coffee",
        "title": "coffee",
        "id": 1,
        "private": False,
        "networks": {"facebook": 2},
        "partition": True,
        "newest_month": "2024-02",
        "file": str(file_of(known, "coffee")),
        "error": None,
    }
    assert (said["tea"]["file"], said["tea"]["partition"], said["water"]["partition"]) == (None, True, False)


def test_show_lists_the_pages_as_dimensions(files: Path) -> None:
    result = run("show", "tea")
    assert "pages     2 facebook\n" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["1", "facebook", "tea-2", "TEA-2"]
    said = json.loads(run("show", "tea", "--json").stdout)
    assert said["pages"][1] == {"id": "tea-2", "name": "TEA-2", "network": "facebook"}
    result = run("show", "nope")
    assert result.exit_code == 2
    assert f"There is no category 'nope' in {files}. Known: coffee, games, tea." in result.stderr


def test_validate_tells_every_problem_of_every_file(files: Path) -> None:
    assert (run("validate").exit_code, run("validate").stderr) == (0, "3 checked, all of them fine\n")
    tea = files / "tea.json"
    tea.write_text('{"private": 0, "facebook": [{"id": ""}, {"id": "p"}, {"id": "p", "name": 3}, {"id": "p"}]}')
    (files / "a..b.json").write_text('{"id": 0, "x": []}')
    result = run("validate")
    assert (result.exit_code, result.stderr) == (1, "4 checked, 2 can't be used\n")
    assert [line.partition(".json: ")[2].partition(":")[0] for line in result.stdout.splitlines()] == [
        "'a..b' can't be a category's name",
        "its list 'x' is empty.",
        "it has no 'id'.",
        "'private' is 0; it must be true or false.",
        "facebook[0] has no 'id' that is a non-empty string",
        "facebook[2] has a 'name' that is not a string",
        "page 'p' is listed twice, the second time as facebook[3].",
    ]
    assert run("validate", str(files / "coffee.json")).exit_code == 0
    result = run("validate", str(files / "coffee.json"), "none.json")
    assert (result.exit_code, result.stdout) == (1, "none.json does not exist.\n")


def test_a_root_without_categories_is_told(tmp_path: Path) -> None:
    empty = str(tmp_path / "empty")
    assert f"There is no category file in {empty}/categories" in run("validate", "--root", empty).stderr
    assert "Known: none." in run("show", "tea", "--root", empty).stderr


# --- sync ---


def test_a_removed_category_is_reported_and_stays_a_partition(known: Project) -> None:
    file_of(known, "tea").unlink()
    result = run("sync")
    assert (result.exit_code, result.stdout) == (0, "added: none\n")
    assert "their files are gone: tea. To remove them: --remove-missing" in result.stderr
    assert known.instance.get_dynamic_partitions("category") == ["coffee", "games", "tea"]


def test_remove_missing_removes_partitions_by_name_and_no_record(known: Project) -> None:
    tea = dg.MultiPartitionKey({"month": "2024-01", "category": "tea"})
    known.instance.report_runless_asset_event(dg.AssetMaterialization("kmeans", partition=tea))
    file_of(known, "tea").unlink()
    result = run("sync", "--remove-missing")
    assert (result.exit_code, result.stdout) == (0, "added: none\nremoved: tea\n")
    assert known.instance.get_dynamic_partitions("category") == ["coffee", "games"]
    assert known.instance.get_materialized_partitions(dg.AssetKey("kmeans")) == {"tea|2024-01"}
    assert run("sync", "--remove-missing").stdout == "added: none\nremoved: none\n"


def test_remove_missing_does_nothing_in_a_root_that_has_no_category_file(known: Project, tmp_path: Path) -> None:
    result = run("sync", "--remove-missing", "--root", str(tmp_path / "other"))
    assert result.exit_code == 2
    assert "is that the right root?" in " ".join(result.stderr.split())
    assert known.instance.get_dynamic_partitions("category") == ["coffee", "games", "tea"]


# --- export ---


@pytest.fixture
def csv(tmp_path: Path) -> str:
    """A CSV file with a changed and a new category."""
    file = tmp_path / "pages.csv"
    file.write_text(
        "category,page_id,page_name\ntea,tea-1,TEA-1\nwater,w,W\ncoffee,coffee-1,COFFEE-1\ncoffee,coffee-2,\n"
    )
    return str(file)


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))


def test_export_shows_a_diff_and_asks_before_it_writes(files: Path, csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (files / "tea.json").read_text()
    for arguments, code in {("--dry-run",): 0, (): 2}.items():
        result = run("export", "--csv", csv, *arguments)
        assert result.exit_code == code
        assert '-  {"id": "tea-2", "name": "TEA-2"}' in result.stdout.splitlines()
        assert '+  {"id": "w", "name": "W"}' in result.stdout.splitlines()
        assert "they stay as they are: games\n1 new, 1 changed, 1 unchanged, 1 left alone" in result.stderr
    at_a_terminal(monkeypatch)
    assert run("export", "--csv", csv, answer="n\n").exit_code == 1
    assert ((files / "tea.json").read_text(), (files / "water.json").exists()) == (before, False)
    result = run("export", "--csv", csv, answer="y\n")
    assert (result.exit_code, "Write 2 files?" in result.stderr) == (0, True)
    assert len(json.loads((files / "tea.json").read_text())["facebook"]) == 1
    assert json.loads((files / "water.json").read_text())["id"] == 0
    result = run("export", "--csv", csv)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "0 new, 0 changed, 3 unchanged" in result.stderr


def test_export_with_yes_asks_nobody(files: Path, csv: str) -> None:
    result = run("export", "--csv", csv, "--yes")
    assert result.exit_code == 0
    assert [line for line in result.stderr.splitlines() if line.startswith("wrote")] == [
        f"wrote {files / f'{name}.json'}" for name in ("tea", "water")
    ]


def test_export_reads_a_database_by_a_query_or_a_file_with_one(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite3.connect(tmp_path / "pages.db")
    connection.execute("CREATE TABLE pages AS SELECT 'milk' AS category, 3 AS id, 'Whole' AS name")
    connection.close()
    query = tmp_path / "query.sql"
    query.write_text("-- the pages\nSELECT category, id AS page_id, name AS page_name FROM pages\n")
    database = f"sqlite:///{tmp_path}/pages.db"
    result = run("export", "--from", database, "--query", query.read_text(), "--yes")
    assert result.exit_code == 0, result.output
    assert json.loads((files / "milk.json").read_text())["facebook"] == [{"id": "3", "name": "Whole"}]
    monkeypatch.setenv("AUDIENCE_EXPLORER_DATABASE", database)
    assert "1 unchanged" in run("export", "--query-file", str(query)).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of --query, --query-file and --csv"),
        (["--csv", "a", "--query", "b"], "one of --query, --query-file and --csv"),
        (["--csv", "a", "--from", "sqlite://"], "leave --from out"),
        (["--query", "SELECT 1"], "Which database.*AUDIENCE_EXPLORER_DATABASE"),
        (["--csv", "none.csv"], "none.csv can't be read"),
    ],
)
def test_export_says_what_it_needs(arguments: list[str], says: str) -> None:
    result = run("export", *arguments)
    assert result.exit_code == 2
    assert re.search(says, " ".join(result.stderr.split()))


def test_a_file_that_cannot_be_written_is_told(files: Path, csv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spark_jobs.storage.write_text", full)
    result = run("export", "--csv", csv, "--yes")
    assert result.exit_code == 2
    assert f"{files / 'tea.json'} can't be written: [Errno 28] No space left" in " ".join(result.stderr.split())
