"""`audience-explorer segments`: a category's segments, and what people say of them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster.cli import main
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import Store
from spark_jobs.following.edits import Merge, PinK, Rename, read_edits
from spark_jobs.outputs import read_manifest
from spark_jobs.vectors.category_files import list_category_files
from tests.conftest import Engine
from tests.test_following import make_months

MONTHS = ("2024-01", "2024-02")


@pytest.fixture(scope="module")
def followed(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Months of three segments, each followed by the job itself."""
    return make_months(local, tmp_path_factory.mktemp("followed"))


@pytest.fixture
def root(followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root in which these are the current outputs of tea."""
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(tmp_path))
    for month in MONTHS:
        put(tmp_path, month, followed / "segments" / month)
    return tmp_path


def put(root: Path, month: str, made: Path, asset: str = "segments") -> None:
    """Make an output the current one of a month."""
    store, partition = Store(root=str(root)), Partition(month, "tea")
    folder = Path(store.outputs(asset, partition)) / made.parent.name
    shutil.copytree(made, folder, dirs_exist_ok=True)
    store.point_current(asset, partition, str(folder), read_manifest(str(folder), asset)["fingerprint"])


def run(command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["segments", command, "tea", *arguments])


def listed(*arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run("ls", "--json", *arguments).stdout)["segments"]
    return rows


def names() -> list[str]:
    return [row["name"] for row in listed()]


def make_again(root: Path, followed: Path, local: Engine, out: Path) -> None:
    """Follow the months with the edits that there are, and make these outputs the current ones."""
    for number, month in enumerate(MONTHS):
        before = ["--previous", out / MONTHS[number - 1]] if number else []
        folders = (followed / "clusters" / month, followed / "inputs" / month, out / month)
        local.run("follow_segments", *folders, "--month", month, "--edits", root / "edits" / "tea.yaml", *before)
        put(root, month, out / month)


def said(root: Path) -> list[Any]:
    """The edits of the file, without who and when."""
    edits = read_edits(Store(root=str(root)).edits_file("tea"))
    return [edit.model_copy(update={"by": None, "at": None}) for edit in edits]


@pytest.mark.usefixtures("root")
def test_segments_of_the_newest_month_are_listed_or_those_of_another() -> None:
    assert [(row["id"], row["people"], row["born"], row["edited"]) for row in listed()] == [
        (number, 60, "2024-01", []) for number in (1, 2, 3)
    ]
    assert json.loads(run("ls", "--json", "--month", "2024-01").stdout)["month"] == "2024-01"
    table = run("ls")
    assert "tea in 2024-02" in table.stderr
    assert table.stdout.splitlines()[0].split() == ["id", "name", "people", "share", "born", "ended", "edited"]
    assert "There are no followed segments of tea in 2023-01" in run("ls", "--month", "2023-01").stderr


def test_edits_are_written_by_id_or_name_and_say_what_to_run(root: Path) -> None:
    first, second, third = names()
    renamed = run("rename", first, "Green tea", "--from", "2024-02")
    file = root / "edits" / "tea.yaml"
    assert renamed.stdout == (
        f"Segment 1, “{first}”, will be called “Green tea” from 2024-02 on, as {file} says now.\n"
        "To see it, with all edits that wait:\n"
        "  audience-explorer pipeline --from 2024-02 --to 2024-02 --category tea\n"
        "  audience-explorer report --category tea --open\n"
    )
    merged = run("merge", "Green tea", third).stdout
    assert merged.startswith(f"Segment 3, “{third}”, will be merged into segment 1, “Green tea”, as {file}"), (
        "its new name counts at once"
    )
    assert run("pin-k", "4", "--from", "2024-03").exit_code == 0
    assert said(root) == [
        Rename(segment=1, name="Green tea", from_month="2024-02"),
        Merge(segments=(1, 3)),
        PinK(k=4, from_month="2024-03"),
    ]
    assert all(edit.by and edit.at for edit in read_edits(str(file)))
    assert list_category_files(str(root / "categories")) == {}
    assert second in run("rename", third, "x").stderr, "what is merged away can't be renamed; what can be is listed"


@pytest.mark.usefixtures("root")
def test_one_run_shows_all_edits_that_wait() -> None:
    assert "--from 2024-02 --to 2024-02" in run("rename", "2", "Oolong", "--from", "2024-02").stdout
    assert "--from 2024-01 --to 2024-02" in run("rename", "1", "Green tea").stdout
    assert "--from 2024-01 --to 2024-02" in run("merge", "1", "3", "--from", "2024-02").stdout, "the rename waits still"
    run("undo", "--entry", "2")
    assert "--from 2024-02 --to 2024-02" in run("undo").stdout, "what waits is of February"


def test_a_pinned_k_waits_until_clusters_have_it(root: Path, followed: Path) -> None:
    for month in MONTHS:
        put(root, month, followed / "clusters" / month, "kmeans")
    of_february = ("pin-k", "3", "--from", "2024-02")
    run("pin-k", "4")
    assert "--from 2024-01 --to 2024-02" in run(*of_february).stdout
    run("undo", "--entry", "1")
    assert "--from 2024-02 --to 2024-02" in run(*of_february).stdout, "there are three clusters, and nothing waits"


def test_the_last_edit_is_undone_or_another(root: Path) -> None:
    for k in ("2", "3", "4"):
        run("pin-k", k)
    assert run("undo").stdout.startswith("Undone: tea has k = 3 again.\nTo see it, with all edits that wait:\n")
    assert run("undo", "--entry", "1").stdout.startswith("Undone: tea has k = 3 still.")
    assert said(root) == [PinK(k=3)]
    assert "There is no edit 2" in run("undo", "--entry", "2").stderr
    assert run("undo").stdout.startswith("Undone: tea has the k that k_selection chooses again.")
    refused = run("undo")
    assert (refused.exit_code, "There is nothing to undo" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("root")
def test_undo_says_what_it_was_and_is() -> None:
    first, second, third = names()
    for name in ("Green tea", "Sencha"):
        run("rename", "1", name)
    run("merge", "1", "2", "3")
    assert run("undo").stdout.startswith(
        f"Undone: the merge of segments 2, “{second}”, and 3, “{third}”, into segment 1, “Sencha”.\n"
    )
    assert run("undo", "--entry", "1").stdout.startswith("Undone: segment 1 is called “Sencha” still.\n")
    assert run("undo").stdout == (
        f"Undone: segment 1 is called “{first}” again.\nNo month was made with it, so there is nothing to run.\n"
    )


def test_the_log_numbers_edits_and_fails_for_a_segment_that_there_never_was(root: Path) -> None:
    run("rename", "2", "Oolong")
    log = run("log")
    assert log.exit_code == 0
    assert "segment 2 is called 'Oolong'" in log.stdout.splitlines()[1]
    file = root / "edits" / "tea.yaml"
    file.write_text(file.read_text() + "- {what: merge, segments: [1, 7]}\n")
    log = run("log")
    assert log.exit_code == 1
    assert log.stderr == "The edit that segment 7 is merged into 1 waits: until 2024-02 there is no segment 7.\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("rename", "7", "x"), "There is no living segment '7' of tea. There are:\n  1 "),
        (("merge", "1", "1"), "name two segments or more, each once"),
        (("rename", "1", "a\x1b[31m"), "a name has no control characters"),
        (("rename", "1", "x" * 81), "at most 80 characters"),
        (("rename", "1", " "), "at least 1 character"),
        (("rename", "1", "x", "--from", "2024-13"), "a month is written YYYY-MM"),
        (("pin-k", "0"), "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line_and_not_written(
    root: Path, command: Sequence[str], message: str
) -> None:
    refused = run(*command)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not (root / "edits").exists()


@pytest.mark.usefixtures("root")
def test_a_name_that_another_segment_has_is_refused() -> None:
    second = names()[1]
    assert f"Segment 2 is called {second!r} already" in run("rename", "1", second).stderr
    run("rename", "2", "Oolong")
    assert "Segment 2 is called 'Oolong' already" in run("rename", "1", "Oolong").stderr
    assert run("rename", "1", second).exit_code == 0, "it has been given up"


def test_where_nothing_was_followed_yet_an_id_is_taken_as_it_is(tmp_path: Path) -> None:
    result = run("rename", "3", "Oolong", "--root", str(tmp_path))
    assert "it is not checked" in result.stderr
    assert result.stdout.startswith("Segment 3 will be called “Oolong”, as ")
    assert f"pipeline --category tea --root {tmp_path}\n" in result.stdout
    assert f"report --category tea --root {tmp_path} --open\n" in result.stdout
    assert said(tmp_path) == [Rename(segment=3, name="Oolong")]
    assert "Give an id" in run("rename", "Oolong", "x", "--root", str(tmp_path)).stderr


def test_what_is_written_is_what_the_job_takes_and_the_list_shows_it_then(
    root: Path, followed: Path, local: Engine, tmp_path: Path
) -> None:
    run("rename", "2", "Oolong")
    assert "have changed since. To see it, with all edits that wait:\n  audience-explorer pipe" in run("ls").stderr
    make_again(root, followed, local, tmp_path / "new")
    assert [(row["name"], row["edited"]) for row in listed()][1] == ("Oolong", ["renamed"])
    assert "have changed since" not in run("ls").stderr


def test_what_is_undone_is_so_no_more_although_the_outputs_still_have_it(
    root: Path, followed: Path, local: Engine, tmp_path: Path
) -> None:
    _, second, third = names()
    run("rename", "2", "Oolong")
    run("merge", "1", "3")
    make_again(root, followed, local, tmp_path / "new")
    run("undo")
    undone = run("undo").stdout
    assert undone.startswith(f"Undone: segment 2 is called “{second}” again.\n")
    assert "--from 2024-01 --to 2024-02" in undone
    assert run("rename", second, "Tea").exit_code == 0
    assert run("rename", third, "Oolong").exit_code == 0, "it is a segment again, and the name is free"


@pytest.mark.usefixtures("root")
def test_a_category_is_no_path() -> None:
    refused = CliRunner().invoke(main, ["segments", "log", "../raw"])
    assert (refused.exit_code, "can't be a category's name" in refused.stderr) == (2, True)
