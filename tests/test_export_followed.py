"""`export` of segments that are followed: they have the ids and names of the report and of `segments ls`."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from audience_explorer_dagster.cli import main
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import Store
from spark_jobs.segments import load_segments
from tests.conftest import Engine
from tests.published_segments import list_again
from tests.test_following import ACTIONS_MONTHS, make_months
from tests.test_segments_cli import put


@pytest.fixture(scope="module")
def followed(local: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months, each followed by the job itself; a segment ends in the last one."""
    return make_months(local, tmp_path_factory.mktemp("followed"))


@pytest.fixture
def root(followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root in which these are the current outputs of tea."""
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(tmp_path))
    for month in ACTIONS_MONTHS:
        put(tmp_path, month, followed / "clusters" / month, "kmeans")
        put(tmp_path, month, followed / "segments" / month)
    return tmp_path


def change(root: Path, month: str, **changes: dict[str, Any]) -> None:
    """Change what a month says of segments, given by id: `_1`."""
    current = Store(root=str(root)).current("segments", Partition(month, "tea"))
    assert current is not None
    file = Path(current.folder) / "segments.json"
    content = json.loads(file.read_text())
    for row in content["segments"]:
        row.update(changes.get(f"_{row['segment_id']}", {}))
    file.write_text(json.dumps(content))
    list_again(file.parent)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "--category", "tea", *arguments])


def rows(*arguments: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run(*arguments).stdout)))


def segments_of(month: str) -> dict[int, dict[str, Any]]:
    listed = CliRunner().invoke(main, ["segments", "ls", "tea", "--month", month, "--json"]).stdout
    return {row["id"]: row for row in json.loads(listed)["segments"]}


def people(root: Path, month: str, *clusters: int) -> set[str]:
    members = load_segments(str(root), month, "tea").members.to_pylist()
    return {row["user_id"] for row in members if row["cluster_id"] in clusters}


def cluster_of(followed: Path, month: str, segment: int) -> int:
    found = json.loads((followed / "segments" / month / "segments.json").read_text())["segments"]
    ((cluster,),) = (row["cluster_ids"] for row in found if row["segment_id"] == segment)
    return int(cluster)


def test_a_segment_has_the_id_and_the_name_of_the_list(root: Path, followed: Path) -> None:
    for number, segment in segments_of("2024-02").items():
        found = rows("--segment", str(number), "--month", "2024-02")
        cluster = cluster_of(followed, "2024-02", number)
        assert {row["user_id"] for row in found} == people(root, "2024-02", cluster)
        assert {(row["segment"], row["segment_id"], row["cluster_id"]) for row in found} == {
            (segment["name"], str(number), str(cluster))
        }
        assert rows("--segment", segment["name"], "--month", "2024-02") == found
        assert rows("--cluster", str(cluster), "--month", "2024-02") == found


@pytest.mark.usefixtures("root")
def test_counts_are_said_to_be_exact_where_the_report_rounds() -> None:
    told = run("--segment", "1", "--month", "2024-01").stderr
    assert told.startswith(f"2024-01: 1 {segments_of('2024-01')[1]['name']}: ")
    assert "These counts are exact; those of the report are rounded." in told


def test_a_segment_of_several_clusters_is_the_people_of_all(root: Path) -> None:
    change(root, "2024-01", _1={"name": "Green tea", "cluster_ids": [0, 2]})
    found = run("--segment", "Green tea", "--month", "2024-01")
    assert {row["user_id"] for row in csv.DictReader(io.StringIO(found.stdout))} == people(root, "2024-01", 0, 2)
    assert f"2024-01: 1 Green tea: {len(people(root, '2024-01', 0, 2))} people\n" in found.stderr
    said = json.loads(run("--segment", "1", "--month", "2024-01", "--json").stdout)
    assert [(part["cluster_id"], part["segment_id"]) for part in said["segments"]] == [(0, 1), (2, 1)]


def test_who_is_in_one_cluster_with_others_is_exported_with_them_and_that_is_said(root: Path) -> None:
    change(
        root,
        "2024-01",
        _1={"name": "Green tea", "cluster_ids": [0], "shares_them_with": [2]},
        _2={"name": "Black tea", "cluster_ids": [0], "shares_them_with": [1]},
    )
    found = run("--segment", "Green tea", "--month", "2024-01")
    assert {row["user_id"] for row in csv.DictReader(io.StringIO(found.stdout))} == people(root, "2024-01", 0)
    assert "2024-01: “Green tea” is in one cluster with “Black tea”: all of it is exported.\n" in found.stderr
    by_cluster = rows("--cluster", "0", "--month", "2024-01")
    assert {row["segment_id"] for row in by_cluster} == {""}, "whose they are is not known"


@pytest.mark.usefixtures("root")
def test_a_segment_that_ended_is_refused() -> None:
    ((number, name),) = ((n, row["name"]) for n, row in segments_of("2024-03").items() if row["ended"])
    for asked in (str(number), name):
        refused = run("--segment", asked)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"“{name}” ended in 2024-03. Export an earlier month." in refused.stderr
    both = run("--segment", name, "--month", "2024-02", "--month", "2024-03")
    assert both.exit_code == 0
    assert "ended in 2024-03" in both.stderr, "the month that has it is exported, and the other one is named"


def test_a_merged_segment_is_refused_with_what_it_is_now(root: Path, followed: Path, local: Engine) -> None:
    for command in (("rename", "tea", "1", "Green tea"), ("merge", "tea", "1", "3", "--from", "2024-02")):
        assert CliRunner().invoke(main, ["segments", *command]).exit_code == 0
    name = segments_of("2024-01")[3]["name"]
    out, edits = root / "again", root / "edits" / "tea.yaml"
    before: list[Any] = []
    for month in ACTIONS_MONTHS[:2]:
        folders = (followed / "clusters" / month, followed / "inputs" / month, out / month)
        local.run("follow_segments", *folders, "--month", month, "--edits", edits, *before)
        put(root, month, out / month)
        before = ["--previous", out / month]
    refused = run("--segment", name, "--month", "2024-02")
    assert refused.exit_code == 2
    message = f"“{name}” was merged into “Green tea” in 2024-02. Export that, or an earlier month."
    assert message in " ".join(refused.stderr.split())
    clusters = [cluster_of(followed, "2024-02", number) for number in (1, 3)]
    assert {row["user_id"] for row in rows("--segment", "Green tea", "--month", "2024-02")} == people(
        root, "2024-02", *clusters
    )


def test_segments_of_other_clusters_than_the_current_ones_are_not_taken(root: Path, followed: Path) -> None:
    put(root, "2024-01", followed / "segments" / "2024-02")
    assert {row["segment_id"] for row in rows("--cluster", "0", "--month", "2024-01")} == {""}
    assert "given as --cluster" in run("--segment", "1", "--month", "2024-01").output


def test_a_month_without_ids_beside_one_that_has_them(root: Path) -> None:
    Store(root=str(root)).point_nowhere("segments", Partition("2024-02", "tea"))
    every = [value for cluster in ("0", "1", "2") for value in ("--cluster", cluster)]
    found = rows(*every, "--month", "2024-01", "--month", "2024-02")
    assert {row["segment_id"] for row in found if row["month"] == "2024-02"} == {""}
    assert {row["segment_id"] for row in found if row["month"] == "2024-01"} == {"1", "2", "3"}
