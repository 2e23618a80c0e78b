"""`load_segments`: what a notebook or a program reads of the segments, on any root."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from audience_explorer_dagster.partitions import Partition
from spark_jobs import storage
from spark_jobs.clusters import files, published
from spark_jobs.errors import InputError
from spark_jobs.outputs.schemas import TableRules
from spark_jobs.segments import load_segments
from spark_jobs.vectors import profiles
from tests.project import Project

pytestmark = pytest.mark.filterwarnings("ignore")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "segments.ipynb"


@pytest.fixture
def made(project: Project) -> Project:
    """A project with the clusters of a month."""
    project.pipeline(["2024-01"], ["coffee"], kmeans={"k": 2})
    return project


def test_segments_are_the_clusters_their_members_and_the_pages_of_their_centers(made: Project) -> None:
    segments = load_segments(str(made.root), "2024-01", "coffee")
    assert segments.summary["k"] == 2
    assert segments.members.column_names == ["user_id", "cluster_id", "distance", "confidence"]
    assert segments.members["user_id"].to_pylist() == sorted(f"u{n}" for n in range(12))
    assert segments.dimensions.to_pylist() == [
        {"dimension_id": "coffee-1", "dimension_name": "coffee-1"},
        {"dimension_id": "coffee-2", "dimension_name": "coffee-2"},
    ]
    first, second = segments.clusters.to_pylist()
    assert (first["cluster_id"], second["cluster_id"]) == (0, 1)
    assert first["users"] + second["users"] == 12
    assert [len(cluster["center"]) for cluster in (first, second)] == [2, 2]
    alone = [max(zip(cluster["center"], ("1", "2"), strict=True))[1] for cluster in (first, second)]
    assert sorted(alone) == ["1", "2"], "each segment is of one page"


def test_profiles_and_comparisons_are_those_of_the_output(made: Project) -> None:
    segments = load_segments(str(made.root), "2024-01", "coffee")
    for table, name in ((segments.profiles, "profiles"), (segments.comparisons, "comparisons")):
        assert table == pq.read_table(Path(segments.folder, f"{name}.parquet"))
    assert segments.profiles["cluster_id"].to_pylist() == [0, 0, 1, 1]
    assert segments.comparisons.schema == published.SEGMENT_COMPARISON


@pytest.mark.parametrize("name", ["profiles", "comparisons"])
def test_an_output_of_an_earlier_version_has_no_rows_of_what_it_did_not_make(made: Project, name: str) -> None:
    folder = Path(load_segments(str(made.root), "2024-01", "coffee").folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if file["path"] != f"{name}.parquet"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / f"{name}.parquet").unlink()
    table = getattr(load_segments(str(made.root), "2024-01", "coffee"), name)
    assert table.num_rows == 0
    assert "dimension_id" in table.column_names


def test_the_current_output_is_loaded_and_any_other_by_its_folders_name(made: Project) -> None:
    first = load_segments(str(made.root), "2024-01", "coffee").folder
    made.pipeline(["2024-01"], ["coffee"], kmeans={"k": 1})
    current = made.store.current("kmeans", Partition("2024-01", "coffee"))
    assert current is not None
    assert load_segments(str(made.root), "2024-01", "coffee").folder == current.folder
    name = first.rpartition("/")[2]
    assert load_segments(str(made.root), "2024-01", "coffee", folder=name).folder == first


def test_columns_that_are_not_wanted_are_not_read(made: Project) -> None:
    segments = load_segments(str(made.root), "2024-01", "coffee", columns=["cluster_id"])
    assert segments.members.column_names == ["cluster_id"]
    assert load_segments(str(made.root), "2024-01", "coffee", columns=[]).members.num_columns == 0


def test_a_root_that_was_moved_is_as_good(made: Project, tmp_path: Path) -> None:
    before = load_segments(str(made.root), "2024-01", "coffee")
    shutil.move(made.root, tmp_path / "elsewhere")
    after = load_segments(str(tmp_path / "elsewhere"), "2024-01", "coffee")
    assert after.members == before.members


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of moto's; its URL."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"ENDPOINT_URL": f"http://{host}:{port}", "ALLOW_HTTP": "true", "REGION": "us-east-1"}
    for name, value in {**settings, "ACCESS_KEY_ID": "testing", "SECRET_ACCESS_KEY": "testing"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="segments")
    yield "s3://segments"
    server.stop()


def test_a_root_on_s3_gives_the_same(made: Project, bucket: str) -> None:
    local = load_segments(str(made.root), "2024-01", "coffee")
    for file in (made.root / "kmeans").rglob("*"):
        if file.is_file():
            with storage.new_file(f"{bucket}/explorer/{file.relative_to(made.root)}") as copy:
                copy.write(file.read_bytes())
    on_s3 = load_segments(f"{bucket}/explorer", "2024-01", "coffee")
    assert on_s3.members == local.members
    assert on_s3.clusters == local.clusters


def test_where_there_are_no_segments_the_command_that_makes_them_is_named(project: Project) -> None:
    with pytest.raises(InputError, match=r"audience-explorer pipeline --root .* --month 2024-01 --category tea"):
        load_segments(str(project.root), "2024-01", "tea")


def test_an_audience_without_users_has_no_segments(project: Project) -> None:
    project.write_category("tea", "nobody-was-here")
    project.pipeline(["2024-01"], ["tea"])
    segments = load_segments(str(project.root), "2024-01", "tea")
    assert (segments.members.num_rows, segments.clusters.num_rows, segments.dimensions.num_rows) == (0, 0, 0)


@pytest.mark.parametrize(
    "rules",
    [
        files.DATA,
        files.META_DATA,
        files.ASSIGNMENTS,
        files.CENTERS,
        published.SEGMENT_PROFILES,
        published.SEGMENT_COMPARISONS,
        profiles.DIMENSIONS,
        profiles.PROFILES,
    ],
    ids=lambda rules: rules.name,
)
def test_the_page_on_outputs_names_every_column(rules: TableRules) -> None:
    page = (NOTEBOOK.parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")
    assert f"`{rules.name.removesuffix('.parquet').removesuffix('.json')}" in page
    assert [column for column in rules.schema.names if f"`{column}`" not in page] == []


def test_the_example_notebook_runs_as_it_stands(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.pipeline(["2024-01", "2024-02"], ["coffee"], kmeans={"k": 2})
    monkeypatch.setenv("AUDIENCE_EXPLORER_ROOT", str(project.root))
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "it is kept without what it printed"
            exec("".join(cell["source"]), names)  # noqa: S102  # the page's own example
    printed = capsys.readouterr().out
    assert "2 segments of 12 people" in printed
    assert "0 → 0" in printed
