"""Records belong to their root: it may be moved, and outputs that have none are put on record, computing nothing."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import dagster as dg
import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.cli.dagster_home import home_of
from audience_explorer_dagster.cli.records import adopt, home
from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.records.history import History, Record
from audience_explorer_dagster.store import Store
from tests.project import LAUNCHES, InProcessLauncher, Project

pytestmark = pytest.mark.filterwarnings("ignore")

TEA = Partition("2024-01", "tea")


def folders(project: Project) -> dict[str, str | None]:
    """Where a pipeline finds what it is asked for, relative to the root; it must launch nothing."""
    outcomes = project.pipeline(["2024-01"], ["tea"])
    assert LAUNCHES == []
    assert {outcome.status for outcome in outcomes.values()} == {"reused"}
    return {name: project.store.place(str(outcome.folder)) for name, outcome in outcomes.items()}


@pytest.fixture
def move(project: Project) -> Callable[[str], None]:
    """Move the project's root to another name."""

    def to(name: str) -> None:
        moved = project.root.with_name(name)
        project.root.rename(moved)
        project.root, project.store = moved, Store(root=str(moved))
        project.definitions = definitions(str(moved), InProcessLauncher())

    return to


@pytest.fixture
def new_home(project: Project, no_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without records, in which the commands find the project."""
    shutil.copytree(no_records, tmp_path / "new-home")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "new-home"))
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))
    monkeypatch.setattr(loaded, "defs", project.definitions)
    return tmp_path / "new-home"


def typed(command: click.Command, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return result


# --- a root that is moved --------------------------------------------------------------------------------------------


def test_a_root_that_was_moved_is_reused_whole(project: Project, move: Callable[[str], None]) -> None:
    first = project.pipeline(["2024-01"], ["tea"])
    names = {name: project.store.place(str(outcome.folder)) for name, outcome in first.items()}
    assert project.records("kmeans", TEA.key)[0]["folder"] == names[f"kmeans {TEA}"]
    assert project.records("kmeans", TEA.key)[0]["root"] == str(project.root)
    for name in ("moved", "moved-again"):
        move(name)
        assert folders(project) == names
        current = project.root / "kmeans" / "month=2024-01" / "category=tea" / "current.json"
        assert Path(json.loads(current.read_text())["folder"]).is_dir(), "its readers take the folder as it stands"


def test_records_of_earlier_versions_with_absolute_folders_are_read_also_after_a_move(
    project: Project, move: Callable[[str], None]
) -> None:
    first = project.pipeline(["2024-01"], ["tea"])
    outcome = first[f"kmeans {TEA}"]
    old = {**newest(project).metadata, "folder": dg.MetadataValue.path(str(outcome.folder))}
    del old["root"]
    project.instance.wipe_assets([dg.AssetKey("kmeans")])
    project.instance.report_runless_asset_event(dg.AssetMaterialization("kmeans", partition=TEA.key, metadata=old))
    names = folders(project)
    project.instance.wipe_assets([dg.AssetKey("kmeans")])
    project.instance.report_runless_asset_event(dg.AssetMaterialization("kmeans", partition=TEA.key, metadata=old))
    move("moved")
    assert folders(project) == names


def newest(project: Project) -> Record:
    found = History(project.instance, project.store, "kmeans", [TEA]).newest(TEA)
    assert found is not None
    return found


def test_an_output_belongs_to_a_root_only_at_its_exact_place(tmp_path: Path) -> None:
    outer, inner = Store(root=str(tmp_path / "r3")), Store(root=str(tmp_path / "r3" / "test"))
    output = f"{inner.outputs('kmeans', TEA)}/a"
    for folder, root in ((output, None), (inner.place(output), inner.root)):
        assert inner.locate("kmeans", TEA, folder, root) == output
        assert outer.locate("kmeans", TEA, folder, root) is None
        assert inner.locate("kmeans", Partition("2024-02", "tea"), folder, root) is None
        assert inner.locate("k_selection", TEA, folder, root) is None
        assert inner.locate("kmeans", TEA, f"{folder}/deeper", root) is None
    Path(outer.outputs("kmeans", TEA), "a").mkdir(parents=True)
    assert outer.locate("kmeans", TEA, output, None) is None, "it holds no finished output"


def test_a_root_within_another_one_takes_nothing_of_it(project: Project) -> None:
    project.pipeline(["2024-01"], ["tea"])
    inner = Project(project.root / "test", project.instance)
    assert len(inner.pipeline(["2024-01"], ["tea"])) == len(LAUNCHES[0]) == 6
    project.delete(str(project.root / project.records("kmeans", TEA.key)[1]["folder"]))
    project.pipeline(["2024-01"], ["tea"])
    assert LAUNCHES == [["kmeans tea|2024-01"]]


# --- outputs without records -----------------------------------------------------------------------------------------


def test_adopted_outputs_are_on_record_and_nothing_is_computed(project: Project, new_home: Path) -> None:
    first = project.pipeline(["2024-01"])
    two = project.pipeline(["2024-01"], ["tea"], kmeans={"k": 1, "label": "one"}, promote=True)[f"kmeans {TEA}"]
    listed = typed(adopt, "--dry-run").stdout
    assert listed.endswith("\n19 to be put on record, 0 on record already, 0 left out\n")
    assert re.search(r"tea\|2024-01 +kmeans ", listed)
    assert str(two.folder) in listed
    assert typed(adopt).stdout == "19 put on record, 0 on record already, 0 left out\n"
    assert typed(adopt).stdout == "0 put on record, 19 on record already, 0 left out\n"

    with dg.DagsterInstance.local_temp(str(new_home)) as instance:
        project.instance = instance
        newest, before = project.records("kmeans", TEA.key)
        assert newest["folder"] == project.store.place(str(two.folder)), "as current.json says"
        assert newest["standing"].startswith("promoted: by run ")
        assert (newest["adopted"], newest["label"], newest["k"]) == (True, "one", 1)
        assert before["standing"] == (
            f"beside {Path(str(two.folder)).name}, which is promoted: put on record by its manifest"
        )
        assert [row.data["label"] for row in newest["tweaks"].records] == ["one", ""]
        again = project.pipeline(["2024-01"])
        assert LAUNCHES == []
        assert {name: outcome.folder for name, outcome in again.items()} == {n: o.folder for n, o in first.items()}
        record = project.records("kmeans", TEA.key)[0]
        assert "computed_by_run" not in record, "nobody knows"
        assert record["computed_at"] == before["computed_at"]
        current = project.store.current("kmeans", TEA)
        assert current is not None
        assert current.folder == two.folder, "and stays promoted"


@pytest.mark.usefixtures("new_home")
def test_outputs_that_are_not_whole_are_named_and_left_out(project: Project) -> None:
    first = project.pipeline(["2024-01"])
    at = {name: Path(str(outcome.folder)) for name, outcome in first.items()}
    for name, content in {
        "kmeans tea|2024-01": "",
        "kmeans coffee|2024-01": "{}",
        "k_selection games|2024-01": "[]",
        "k_selection coffee|2024-01": '{"step": "k_selection", "files": [], "summary": null}',
        "k_selection tea|2024-01": (at["kmeans games|2024-01"] / "manifest.json").read_text(),
    }.items():
        (at[name] / "manifest.json").write_text(content)
    (at["clustering_inputs tea|2024-01"] / "members.parquet").write_bytes(b"cut")
    (at["clustering_inputs coffee|2024-01"] / "members.parquet").unlink()
    (at["grouped_users 2024-01"] / "manifest.json").unlink()
    result = typed(adopt)
    assert result.stdout == "8 put on record, 0 on record already, 7 left out\n"
    whole = {"kmeans games|2024-01", "clustering_inputs games|2024-01", "grouped_users 2024-01"}
    of_clusters = {f"{a} {name}|2024-01" for a in ("segments", "audience_report") for name in project.categories}
    for name in at.keys() - whole - of_clusters:
        assert f"left out: {at[name]}" in result.stderr, name
    assert "members.parquet is gone, or has another size than its manifest says" in result.stderr
    assert "is an output of kmeans; one of k_selection is needed" in result.stderr


def test_a_home_without_records_beside_outputs_says_so_and_what_to_do(project: Project, new_home: Path) -> None:
    project.pipeline(["2024-01"], ["tea"])
    says = f"{project.root} has outputs that are not on record in {new_home}, such as grouped_users 2024-01"
    arguments = ("pipeline", "--month", "2024-01", "--category", "tea", "--root", str(project.root))
    for option in ("--dry-run", "--json"):
        result = typed(main, *arguments, option)
        assert says in result.stderr
        assert result.stderr.count("audience-explorer adopt") == 1
    with dg.DagsterInstance.local_temp(str(new_home)) as instance:
        (run,) = instance.get_runs()
        logged = [str(entry.user_message) for entry in instance.all_logs(run.run_id) if entry.level == 30]
        assert [line for line in logged if "are not on record in" in line and "audience-explorer adopt" in line]
    assert "adopt" not in typed(main, *arguments, "--json").stderr, "they are on record now"


# --- the home --------------------------------------------------------------------------------------------------------


def test_the_home_belongs_to_the_root_unless_a_variable_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for named in (None, ""):
        if named is not None:
            monkeypatch.setenv("DAGSTER_HOME", named)
        assert home_of("data") == home_of(str(tmp_path / "data")) == tmp_path / "data" / ".dagster_home"
        s3 = tmp_path / "state" / "audience-explorer" / "s3" / "bucket" / "prefix" / ".dagster_home"
        assert home_of("s3://bucket/prefix") == home_of("s3://bucket/prefix/") == s3
    monkeypatch.setenv("DAGSTER_HOME", "here")
    assert home_of("data") == tmp_path / "here"
    assert capsys.readouterr().err == ""


def test_a_home_in_the_current_folder_is_used_on_and_never_silently_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, own = tmp_path / ".dagster_home", tmp_path / "data" / ".dagster_home"
    before.mkdir()
    assert home_of("data") == before
    assert capsys.readouterr().err == (
        f"The records are in {before}, as before. To keep them with the root: mv {before} {own}\n"
    )
    own.mkdir(parents=True)
    assert home_of("data") == own
    assert capsys.readouterr().err == (
        f"The records are in {own}. Those in {before} are not used; to use them: export DAGSTER_HOME={before}\n"
    )
    assert home_of(str(tmp_path)) == before
    assert capsys.readouterr().err == "", "it is the root's own"


def test_the_home_is_made_and_printed_for_dagsters_own_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = typed(home, "--root", "data")
    assert result.stdout == f"{tmp_path / 'data' / '.dagster_home'}\n"
    assert (tmp_path / "data" / ".dagster_home" / "dagster.yaml").exists()
