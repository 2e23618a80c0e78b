"""Upgrades: what an earlier version made is listed, planned on and reused; what a newer one made is refused by name.

`data/upgrade/DATE-COMMIT.tar.xz` is a root with its records, as the code of that commit made them of 12 people: raw
data, a category file, the outputs of a month, and Dagster's SQLite files.
"""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from audience_explorer_dagster import definitions as loaded
from audience_explorer_dagster.cli import main
from audience_explorer_dagster.definitions import definitions
from audience_explorer_dagster.partitions import Partition
from audience_explorer_dagster.store import Store
from spark_jobs import outputs
from spark_jobs.errors import InputError, NewerVersion
from spark_jobs.launch.folder import Folder
from spark_jobs.launch.status import Status
from spark_jobs.segments import load_segments
from tests.project import LAUNCHES, InProcessLauncher

pytestmark = pytest.mark.filterwarnings("ignore")

EARLIER = sorted(Path(__file__).parent.glob("data/upgrade/*.tar.xz"))
PARTITION = ("--month", "2024-01", "--category", "tea")
TEA = Partition("2024-01", "tea")


@pytest.fixture(params=EARLIER, ids=lambda file: file.name.partition(".")[0])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an earlier version, which was moved here."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(loaded, "defs", definitions(str(tmp_path), InProcessLauncher()))
    return tmp_path


def run(root: Path, *arguments: str) -> Any:
    result = CliRunner().invoke(main, [*arguments, "--root", str(root)])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_earlier_root_is_listed_and_planned_on_and_what_is_made_again_has_its_reason(root: Path) -> None:
    LAUNCHES.clear()
    before = load_segments(str(root), "2024-01", "tea")
    assert (before.summary["k"], before.members.num_rows) == (1, 12)
    (listed,) = run(root, "runs", *PARTITION, "--json")
    assert listed["current"]

    planned = run(root, "pipeline", *PARTITION, "--dry-run", "--json")
    whys = {target["asset"]: (target["action"], target["why"]) for target in planned["partitions"]}
    assert whys["grouped_users"] == ("launch", "code version 1 → 2")
    for asset, (action, why) in whys.items():
        assert action in ("reuse", "launch"), asset
        assert why, asset
    assert whys["clustering_inputs"][1].startswith("code version ")

    done = run(root, "pipeline", *PARTITION, "--json")
    assert done["failed"] == 0
    after = load_segments(str(root), "2024-01", "tea")
    assert after.folder != before.folder
    assert after.members.num_rows == 12
    assert outputs.is_whole(before.folder, "kmeans"), "what was there is kept"


# --- newer versions --------------------------------------------------------------------------------


def rewrite(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def test_an_output_and_a_current_json_of_a_newer_version_are_refused_by_name(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path))
    folder = Path(store.outputs("kmeans", TEA), "a")
    folder.mkdir(parents=True)
    manifest = {"schema_version": 1, "step": "kmeans", "fingerprint": "f", "files": [], "summary": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    store.point_current("kmeans", TEA, str(folder), "f")
    current = folder.with_name("current.json")
    assert json.loads(current.read_text())["schema_version"] == 1
    ask: dict[Path, list[Callable[[], object]]] = {
        folder / "manifest.json": [
            lambda: outputs.is_whole(str(folder), "kmeans"),
            lambda: outputs.read_manifest(str(folder), "kmeans"),
        ],
        current: [
            lambda: store.current("kmeans", TEA),
            lambda: store.point_current("kmeans", TEA, str(folder), "g"),
            lambda: load_segments(str(tmp_path), "2024-01", "tea"),
        ],
    }
    for file, questions in ask.items():
        for version in (2, "2"):
            rewrite(file, schema_version=version)
            for question in questions:
                with pytest.raises(NewerVersion, match=rf"{file} has schema version 2, .* reads up to 1\. Install the"):
                    question()
        rewrite(file, schema_version=1)
    current.write_text("{")
    with pytest.raises(InputError, match=r"current.json is damaged: the next run of the pipeline writes it anew"):
        load_segments(str(tmp_path), "2024-01", "tea")


class InMemory(Folder):
    """A launch's folder in memory."""

    location = "s3://launches/launch"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, body: bytes) -> None:
        self.objects[name] = body

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def age(self, name: str) -> float | None:  # noqa: ARG002
        return None


def test_a_launch_of_an_earlier_version_is_read_and_one_of_a_newer_version_refused_by_name() -> None:
    folder = InMemory()
    folder.describe({"code": "c"})
    folder.end(Status(exit_code=0))
    assert (folder.description(), folder.status()) == ({"code": "c"}, Status(exit_code=0))
    for name, read in {"description.json": folder.description, "status.json": folder.status}.items():
        said = json.loads(folder.objects[name])
        assert said.pop("schema_version") == 1
        folder.objects[name] = json.dumps(said).encode()
        assert read(), "earlier ones name no version"
        folder.objects[name] = json.dumps({**said, "schema_version": 2}).encode()
        with pytest.raises(NewerVersion, match=rf"s3://launches/launch/{name} has schema version 2"):
            read()
